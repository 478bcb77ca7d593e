//! Changelogs: collections that change, as rows that are added and rows that are taken back.
//!
//! ```text
//! account  balance  diff  event_time
//!       7      100    +1       12:00    from 12:00 on, account 7 has 100
//!       7      100    -1       12:05    at 12:05 that is no longer so,
//!       7       80    +1       12:05    and it has 80
//! ```
//!
//! A collection is a changelog where it has the column [`DIFF`]. What the collection holds at an instant is
//! the sum of all changes up to it. [`EVENT_TIME`], where there is one, says when a change takes effect, and
//! what is computed from changes takes effect when they do: nodes wait for the watermark, and give the
//! changes of each instant once all that belong to it have come. So every instant is consistent, however
//! fast each worker is.
//!
//! A change that comes late, behind the watermark under which it was sent, takes effect at that watermark: for
//! all nodes at the same instant, so that rows that belong together stay together. So a row may be taken back before
//! it is added: for a while it is there less often than not at all. Sums count it so; where rows or groups leave, it
//! and a group with less than no rows are not there. What is still so at the end of input ends the run.
//!
//! Rows without an event time change the collection whenever they come.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int8Type, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_expr::Expr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME, time_type};

/// True if rows of this schema are changes.
pub fn is_changelog(schema: &Schema) -> bool {
    schema
        .field_with_name(DIFF)
        .is_ok_and(|f| *f.data_type() == DataType::Int8 && !f.is_nullable())
}

/// The column [`DIFF`].
pub fn diff_field() -> FieldRef {
    Arc::new(Field::new(DIFF, DataType::Int8, false))
}

/// By how much each row changes how often it is there.
///
/// # Errors
/// A bug if the rows are no changes, which [`is_changelog`] tells while planning.
pub fn diffs(rows: &RecordBatch) -> Result<&[i8]> {
    rows.column_by_name(DIFF)
        .and_then(|column| column.as_primitive_opt::<Int8Type>())
        .map(|diffs| &**diffs.values())
        .ok_or_else(|| Error::bug("rows that are no changes came to a node that needs changes"))
}

/// True if rows of this schema have an event time.
pub(crate) fn has_time(schema: &Schema) -> bool {
    schema
        .field_with_name(EVENT_TIME)
        .is_ok_and(|f| *f.data_type() == time_type() && !f.is_nullable())
}

/// The columns that make a changelog of rows: when, where it says, and by how much; none of other rows.
pub(crate) fn own_columns(schema: &Schema) -> Vec<&'static str> {
    match (is_changelog(schema), has_time(schema)) {
        (true, true) => vec![EVENT_TIME, DIFF],
        (true, false) => vec![DIFF],
        (false, _) => Vec::new(),
    }
}

/// The columns of a changelog but those that say when and by how much.
pub(crate) fn values_of(schema: &Schema) -> Vec<Expr> {
    let own = own_columns(schema);
    let names = schema.fields().iter().map(|f| f.name());
    names
        .filter(|n| !own.contains(&n.as_str()))
        .map(crate::expression::col)
        .collect()
}

/// Refuses expressions that would tell a row from the same row when it is taken back.
pub(crate) fn check_expressions<'a>(
    expressions: impl IntoIterator<Item = &'a Expr>,
    schema: &Schema,
) -> Result<()> {
    let own = own_columns(schema);
    if own.is_empty() {
        return Ok(());
    }
    let mut errors = Vec::new();
    for expr in expressions {
        let read = own
            .iter()
            .find(|own| expr.column_refs().iter().any(|c| c.name == **own));
        if let Some(name) = read {
            errors.push(
                Error::pipeline(format!("`{expr}` reads column {name:?} of a changelog"))
                    .with_detail("It is another when the same row is taken back, which would then be a row that was never added.")
                    .with_hint(format!("Copy it to another name before the rows become changes, or take `changes()` first, where {DIFF:?} is a column like any other.")),
            );
        } else if expr.is_volatile() {
            errors.push(
                Error::pipeline(format!(
                    "`{expr}` may give another value each time, and stands over a changelog"
                ))
                .with_detail("A row that is taken back must be the row that was added.")
                .with_hint("Compute it before the rows become changes."),
            );
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::all(errors)),
    }
}

/// Refuses a column of the user's that would take the place of what makes rows a changelog.
pub(crate) fn check_name(name: &str, schema: &Schema) -> Result<()> {
    if !own_columns(schema).contains(&name) {
        return Ok(());
    }
    Err(
        Error::pipeline(format!("column {name:?} of a changelog cannot be replaced"))
            .with_hint("Choose another name, or take `changes()` first."),
    )
}

/// What is wrong with changes after which a row is there less often than not at all.
pub(crate) fn never_added() -> Error {
    Error::data("a changelog takes back a row that it never added").with_hint(
        "Each row with `diff` -1 must be equal to one with 1, which may come later, but must come.",
    )
}

/// The first value of each of these columns, as `name = value, ...`; `None` without columns, or where one cannot be
/// shown.
pub(crate) fn show_values(names: &[String], columns: &[ArrayRef]) -> Option<String> {
    let options = FormatOptions::default().with_null("null");
    let show = |(name, column): (&String, &ArrayRef)| {
        let value = ArrayFormatter::try_new(column.as_ref(), &options).ok()?;
        Some(format!("{name} = {}", value.value(0)))
    };
    let shown: Option<Vec<String>> = names.iter().zip(columns).map(show).collect();
    shown.filter(|s| !s.is_empty()).map(|s| s.join(", "))
}

/// Refuses rows that are no changes.
pub(crate) fn check_changelog(schema: &Schema) -> Result<()> {
    if is_changelog(schema) {
        return Ok(());
    }
    let names: Vec<String> = schema
        .fields()
        .iter()
        .map(|f| format!("{:?}", f.name()))
        .collect();
    Err(
        Error::pipeline(format!("expected a changelog, with column {DIFF:?}"))
            .with_detail(format!("The columns are {}.", names.join(", ")))
            .with_hint("Make rows changes with `as_changelog` or `upserts`."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{col, lit};
    use expect_test::expect;

    #[test]
    fn only_a_column_diff_of_small_integers_without_nulls_makes_a_changelog() {
        let with = |field: Field| Schema::new(vec![field]);
        assert!(is_changelog(&with(Field::new(
            "diff",
            DataType::Int8,
            false
        ))));
        assert!(!is_changelog(&with(Field::new(
            "diff",
            DataType::Int8,
            true
        ))));
        assert!(!is_changelog(&with(Field::new(
            "diff",
            DataType::Int64,
            false
        ))));
    }

    #[test]
    fn expressions_do_not_read_what_makes_a_changelog() {
        let schema = Schema::new(vec![
            Arc::new(Field::new("a", DataType::Int64, true)),
            crate::event_time::time_field(EVENT_TIME),
            diff_field(),
        ]);
        assert!(check_expressions([&(col("a") + lit(1))], &schema).is_ok());
        expect![[r#"
            `event_time` reads column "event_time" of a changelog
              It is another when the same row is taken back, which would then be a row that was never added.
              Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]]
        .assert_eq(&check_expressions([&col("event_time")], &schema).unwrap_err().to_string());
    }
}
