//! Rows written as text, a column at a time.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::event_time::{DIFF, EVENT_TIME, WINDOW_END, WINDOW_START, time_type};

/// Stands behind the name of a column of instants that its name does not give away.
const MILLISECONDS: &str = "[ms]";

/// Rows from text such as `"x: 1.0, null; name: 'a', 'b'"`: columns apart by `;` or a new line.
///
/// Values decide the type: `1` Int64, `1.0`, `nan` or `inf` Float64, `true` Boolean, quoted or other
/// text Utf8 (quotes may be left out), nothing but nulls Float64. All columns are nullable.
///
/// Instants are integers, in milliseconds since 1970: so are the columns `event_time`, `window_start` and
/// `window_end`, and all whose name ends in `[ms]`, which is not part of the name. The column `diff` is Int8.
/// These are not nullable where they hold no null.
///
/// # Panics
/// If the text is not a table, as it is written in the test itself.
///
/// ```
/// use mainstem_engine::testing::{show, table};
/// let rows = table("x: 1, null; name: a, 'b, c'");
/// assert_eq!(rows.num_rows(), 2);
/// assert_eq!(show(&rows), "x: 1, null\nname: 'a', 'b, c'");
/// ```
pub fn table(text: &str) -> RecordBatch {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for line in split_outside_quotes(text, &[';', '\n']) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (name, cells) = line.split_once(':').unwrap_or((line, ""));
        let cells: Vec<String> = split_outside_quotes(cells, &[','])
            .into_iter()
            .map(|c| c.trim().to_owned())
            .filter(|c| !c.is_empty())
            .collect();
        let (field, column) = typed(name.trim(), parse_column(&cells));
        fields.push(field);
        columns.push(column);
    }
    let schema = Arc::new(Schema::new(fields));
    #[expect(clippy::panic, reason = "documented: the table is written in the test")]
    match RecordBatch::try_new(schema, columns) {
        Ok(rows) => rows,
        Err(error) => panic!("not a table: {error}"),
    }
}

/// The column under its name, as an instant or a change where the name says so.
fn typed(name: &str, column: ArrayRef) -> (Field, ArrayRef) {
    let (name, marked) = match name.strip_suffix(MILLISECONDS) {
        Some(name) => (name, true),
        None => (name, false),
    };
    let wanted = match name {
        _ if marked => time_type(),
        EVENT_TIME | WINDOW_START | WINDOW_END => time_type(),
        DIFF => DataType::Int8,
        _ => return (Field::new(name, column.data_type().clone(), true), column),
    };
    #[expect(clippy::panic, reason = "documented: the table is written in the test")]
    match cast(&column, &DataType::Int64).and_then(|numbers| cast(&numbers, &wanted)) {
        Ok(column) => (Field::new(name, wanted, column.null_count() > 0), column),
        Err(error) => panic!("column {name:?} does not hold {wanted}: {error}"),
    }
}

fn split_outside_quotes(text: &str, separators: &[char]) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        if c == '\'' {
            quoted = !quoted;
        }
        if !quoted && separators.contains(&c) {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

fn parse_column(cells: &[String]) -> ArrayRef {
    let present = || cells.iter().filter(|c| *c != "null");
    let values = || cells.iter().map(|c| (c != "null").then_some(c.as_str()));
    if present().next().is_some() && present().all(|c| c.parse::<i64>().is_ok()) {
        Arc::new(
            values()
                .map(|v| v.and_then(|v| v.parse().ok()))
                .collect::<Int64Array>(),
        )
    } else if present().all(|c| c.parse::<f64>().is_ok()) {
        Arc::new(
            values()
                .map(|v| v.and_then(|v| v.parse().ok()))
                .collect::<Float64Array>(),
        )
    } else if present().all(|c| c.parse::<bool>().is_ok()) {
        Arc::new(
            values()
                .map(|v| v.and_then(|v| v.parse().ok()))
                .collect::<BooleanArray>(),
        )
    } else {
        Arc::new(
            values()
                .map(|v| v.map(|v| v.trim_matches('\'')))
                .collect::<StringArray>(),
        )
    }
}

/// Rows as the text that [`table`] reads, a column a line. Floats always show a point, instants in
/// milliseconds are integers.
pub fn show(rows: &RecordBatch) -> String {
    let options = FormatOptions::default().with_null("null");
    let mut text = String::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !text.is_empty() {
            text.push('\n');
        }
        let is_time = *field.data_type() == time_type();
        let known = matches!(
            field.name().as_str(),
            EVENT_TIME | WINDOW_START | WINDOW_END
        );
        let mark = if is_time && !known { MILLISECONDS } else { "" };
        let _ = write!(text, "{}{mark}:", field.name());
        // The cast only drops the type, so it cannot fail.
        let numbers = is_time
            .then(|| cast(column, &DataType::Int64).ok())
            .flatten();
        let column = numbers.as_ref().unwrap_or(column);
        let quote = is_text(column.data_type());
        for row in 0..rows.num_rows() {
            text.push_str(if row == 0 { " " } else { ", " });
            match ArrayFormatter::try_new(column, &options) {
                Ok(cells) if quote && column.is_valid(row) => {
                    let _ = write!(text, "'{}'", cells.value(row));
                }
                Ok(cells) => {
                    let _ = write!(text, "{}", cells.value(row));
                }
                Err(error) => {
                    let _ = write!(text, "<{error}>");
                }
            }
        }
    }
    text
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_changes_are_known_by_their_names() {
        let text = "event_time: -5, 7\ncreated[ms]: 9, null\ndiff: 1, -1";
        let rows = table(text);
        assert_eq!(show(&rows), text);
        let types = rows
            .schema()
            .fields()
            .iter()
            .map(|f| (f.data_type().clone(), f.is_nullable()))
            .collect::<Vec<_>>();
        assert_eq!(
            types,
            [
                (time_type(), false),
                (time_type(), true),
                (DataType::Int8, false)
            ]
        );
    }
}
