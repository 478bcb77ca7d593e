//! Rows written as text, a column at a time.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Rows from text such as `"x: 1.0, null; name: 'a', 'b'"`: columns apart by `;` or a new line.
///
/// Values decide the type: `1` Int64, `1.0`, `nan` or `inf` Float64, `true` Boolean, quoted or other
/// text Utf8 (quotes may be left out), nothing but nulls Float64. All columns are nullable.
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
        let column = parse_column(&cells);
        fields.push(Field::new(name.trim(), column.data_type().clone(), true));
        columns.push(column);
    }
    let schema = Arc::new(Schema::new(fields));
    #[expect(clippy::panic, reason = "documented: the table is written in the test")]
    match RecordBatch::try_new(schema, columns) {
        Ok(rows) => rows,
        Err(error) => panic!("not a table: {error}"),
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

/// Rows as the text that [`table`] reads, a column a line. Floats always show a point.
pub fn show(rows: &RecordBatch) -> String {
    let options = FormatOptions::default().with_null("null");
    let mut text = String::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = write!(text, "{}:", field.name());
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
