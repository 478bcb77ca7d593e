//! Finds the one schema of several files or batches, or says how they differ.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::error::{Error, Result};

/// The schema of all files, as [`agree`] finds it; files without columns are refused.
pub(crate) fn agree_on_columns(files: &[(String, SchemaRef)]) -> Result<SchemaRef> {
    let schema = agree(files)?;
    match files.first() {
        Some((name, _)) if schema.fields().is_empty() => {
            Err(Error::data(format!("{name} has no columns")).with_hint("Leave the file out."))
        }
        _ => Ok(schema),
    }
}

/// The schema of all parts, each given with its name: the columns of the first, in its order.
///
/// The order of columns and metadata may differ. A column is nullable if it is so anywhere.
/// All parts that differ from the first are named, with the difference.
pub(crate) fn agree(parts: &[(String, SchemaRef)]) -> Result<SchemaRef> {
    let Some((first_name, first)) = parts.first() else {
        return Err(Error::bug("there are no parts whose schemas could agree"));
    };
    let mut errors: Vec<Error> = parts
        .iter()
        .filter_map(|(name, schema)| check_unique(name, schema).err())
        .collect();
    for (name, schema) in &parts[1..] {
        let differences = differences(first, schema);
        if !differences.is_empty() {
            let error = Error::data(format!("{name} has other columns than {first_name}"));
            errors.push(
                differences
                    .into_iter()
                    .fold(error, Error::with_detail)
                    .with_hint("Read what differs apart, make it alike with `select`, and bring it together with `union`."),
            );
        }
    }
    if !errors.is_empty() {
        return Err(Error::all(errors));
    }
    let fields: Vec<Field> = first
        .fields()
        .iter()
        .map(|field| {
            let nullable = parts.iter().any(|(_, s)| {
                s.field_with_name(field.name())
                    .is_ok_and(Field::is_nullable)
            });
            Field::new(field.name(), field.data_type().clone(), nullable)
        })
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

fn differences(first: &Schema, other: &Schema) -> Vec<String> {
    let missing = first.fields().iter().filter_map(|field| {
        let name = field.name();
        match other.field_with_name(name) {
            Err(_) => Some(format!("Column {name:?} is missing.")),
            Ok(found) if found.data_type() != field.data_type() => Some(format!(
                "Column {name:?} holds {}, not {}.",
                found.data_type(),
                field.data_type()
            )),
            Ok(_) => None,
        }
    });
    let extra = other
        .fields()
        .iter()
        .filter(|field| first.field_with_name(field.name()).is_err())
        .map(|field| format!("Column {:?} is only here.", field.name()));
    missing.chain(extra).collect()
}

fn check_unique(name: &str, schema: &Schema) -> Result<()> {
    match column_twice(schema) {
        Some(twice) => Err(Error::data(format!("{name} has two columns {twice:?}"))
            .with_hint("Rename one of them.")),
        None => Ok(()),
    }
}

/// The first name that stands for two columns.
pub(crate) fn column_twice(schema: &Schema) -> Option<&str> {
    let mut seen = HashSet::new();
    let mut names = schema.fields().iter().map(|f| f.name().as_str());
    names.find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;
    use expect_test::{Expect, expect};

    fn check(tables: &[&str], expected: Expect) {
        let parts: Vec<_> = tables
            .iter()
            .enumerate()
            .map(|(i, t)| (format!("part {i}"), table(t).schema()))
            .collect();
        let found = match agree(&parts) {
            Ok(schema) => schema.to_string(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&found);
    }

    #[test]
    fn the_order_of_columns_may_differ() {
        check(
            &["x: 1; y: a", "y: b; x: 2"],
            expect![[r#"Field { "x": nullable Int64 }, Field { "y": nullable Utf8 }"#]],
        );
    }

    #[test]
    fn all_parts_that_differ_are_named() {
        check(
            &["x: 1; y: a", "y: b; x: 2", "x: 1.5; z: 1", "x: 1"],
            expect![[r#"
                2 errors
                1. part 2 has other columns than part 0
                     Column "x" holds Float64, not Int64.
                     Column "y" is missing.
                     Column "z" is only here.
                     Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`.
                2. part 3 has other columns than part 0
                     Column "y" is missing.
                     Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]],
        );
    }

    #[test]
    fn a_name_stands_for_one_column() {
        check(
            &["x: 1; x: a"],
            expect![[r#"
                part 0 has two columns "x"
                  Hint: Rename one of them."#]],
        );
    }
}
