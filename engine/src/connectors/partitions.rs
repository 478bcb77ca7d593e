//! Divides rows by the values of some columns, each value a folder, as Hive does.
//!
//! ```text
//! year  month  delay                            delay
//! 2020      5     10  ─▶ year=2020/month=5/        10
//! null      5     20  ─▶ year=__HIVE_DEFAULT_PARTITION__/month=5/   20
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::csv_types::excerpt;
use crate::error::{Error, Result};
use crate::expression::check_column;

/// Stands for null, and for empty text, which no folder can be called.
pub(crate) const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// The longest name of a folder on common file systems, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The columns by whose values rows are divided.
pub(crate) struct Partitions {
    columns: Vec<usize>,
    /// The other columns, which stand in the files.
    rest: Vec<usize>,
    file_schema: SchemaRef,
    /// The name of each column, as it stands in a folder.
    names: Vec<String>,
    max_name_bytes: usize,
    keys: RowConverter,
}

impl Partitions {
    /// Checks that the rows can be divided by these columns.
    pub(crate) fn new(schema: &Schema, names: &[String]) -> Result<Self> {
        let mut errors = Vec::new();
        let mut columns = Vec::new();
        for name in names {
            match check_column(name, schema) {
                Err(error) => errors.push(error),
                Ok(i) if columns.contains(&i) => {
                    errors.push(Error::pipeline(format!(
                        "column {name:?} divides the rows twice"
                    )));
                }
                Ok(i) => {
                    errors.extend(refuse(name, schema.field(i).data_type()));
                    columns.push(i);
                }
            }
        }
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        let rest: Vec<usize> = (0..schema.fields().len())
            .filter(|i| !columns.contains(i))
            .collect();
        if rest.is_empty() {
            return Err(Error::pipeline("no column is left for the files")
                .with_detail("The columns by which rows are divided stand in the names of folders.")
                .with_hint("Divide by fewer columns."));
        }
        let field = |i: &usize| SortField::new(schema.field(*i).data_type().clone());
        Ok(Self {
            file_schema: Arc::new(schema.project(&rest)?),
            names: names.iter().map(|name| escaped(name)).collect(),
            max_name_bytes: usize::MAX,
            keys: RowConverter::new(columns.iter().map(field).collect())?,
            columns,
            rest,
        })
    }

    /// The same for folders of a file system, which refuses long names.
    #[must_use]
    pub(crate) fn on_disk(self) -> Self {
        Self {
            max_name_bytes: MAX_NAME_BYTES,
            ..self
        }
    }

    /// The columns that stand in the files.
    pub(crate) fn file_schema(&self) -> &SchemaRef {
        &self.file_schema
    }

    /// The rows of each folder, in their order; folders in the order in which they first occur.
    pub(crate) fn divide(&self, rows: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|i| Arc::clone(rows.column(*i)))
            .collect();
        let keys = self.keys.convert_columns(&columns)?;
        let mut by_key: HashMap<&[u8], usize> = HashMap::new();
        let mut by_folder: HashMap<String, usize> = HashMap::new();
        let mut groups: Vec<(String, Vec<u32>)> = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            let group = match by_key.get(key.data()) {
                Some(group) => *group,
                None => {
                    // Two keys may be one folder, as null and empty text are.
                    let folder = self.folder(&columns, row)?;
                    let group = *by_folder.entry(folder.clone()).or_insert(groups.len());
                    if group == groups.len() {
                        groups.push((folder, Vec::new()));
                    }
                    by_key.insert(key.data(), group);
                    group
                }
            };
            groups[group].1.push(row as u32);
        }
        let rows = rows.project(&self.rest)?;
        let n_groups = groups.len();
        let part = |(folder, places): (String, Vec<u32>)| {
            let part = match n_groups {
                1 => rows.clone(),
                _ => take_record_batch(&rows, &UInt32Array::from(places))?,
            };
            Ok((folder, part))
        };
        groups.into_iter().map(part).collect()
    }

    /// The folder of a row: `year=2020/month=5`.
    fn folder(&self, columns: &[ArrayRef], row: usize) -> Result<String> {
        let options = FormatOptions::new();
        let mut folders = Vec::new();
        for (name, column) in self.names.iter().zip(columns) {
            let value = match column.is_null(row) {
                true => String::new(),
                false => {
                    let values = ArrayFormatter::try_new(column.as_ref(), &options)?;
                    values.value(row).try_to_string()?
                }
            };
            let in_name = match value.is_empty() {
                true => NULL_PARTITION.to_owned(),
                false => escaped(&value),
            };
            let folder = format!("{name}={in_name}");
            if folder.len() > self.max_name_bytes {
                return Err(too_long(name, &value, folder.len()));
            }
            folders.push(folder);
        }
        Ok(folders.join("/"))
    }
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.names).finish()
    }
}

fn too_long(name: &str, value: &str, n_bytes: usize) -> Error {
    let value = excerpt(value);
    Error::data(format!(
        "column {name:?} holds {value:?}, by which no folder can be called"
    ))
    .with_detail(format!(
        "The name of the folder would have {n_bytes} bytes, and {MAX_NAME_BYTES} are the most."
    ))
    .with_hint("Shorten the value, or divide by another column.")
}

fn refuse(name: &str, data_type: &DataType) -> Option<Error> {
    if name.is_empty() || name.starts_with(['.', '_']) {
        let error = Error::pipeline(format!("column {name:?} cannot divide the rows"));
        return Some(
            error
                .with_detail("Readers pass over folders whose name begins with \".\" or \"_\".")
                .with_hint("Rename it with `select`."),
        );
    }
    let is_fit = match data_type {
        DataType::Dictionary(_, values) => is_fit(values),
        other => is_fit(other),
    };
    (!is_fit).then(|| {
        Error::pipeline(format!(
            "column {name:?} of type {data_type} cannot divide the rows"
        ))
        .with_detail("Folders are named by whole numbers, text, booleans, dates or times.")
        .with_hint("Cast it, or divide by another column.")
    })
}

fn is_fit(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Date32
                | DataType::Date64
                | DataType::Timestamp(..)
                | DataType::Decimal128(..)
        )
}

/// A name or value as it stands in the name of a folder: what paths or Hive use otherwise is `%` and two
/// digits.
pub(crate) fn escaped(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '#' | '%' | '\'' | '*' | '/' | ':' | '=' | '?' | '\\' | '{' | '[' | ']' | '^' => {
                name.push_str(&format!("%{:02X}", c as u32));
            }
            c if c.is_ascii_control() => name.push_str(&format!("%{:02X}", c as u32)),
            c => name.push(c),
        }
    }
    name
}

#[cfg(test)]
mod tests;
