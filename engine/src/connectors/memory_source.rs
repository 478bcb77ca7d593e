//! Rows that are in memory already.

use std::fmt;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::SPLIT_ROWS;
use super::agreement::agree;
use super::selection::Selection;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::ops::rows_from;
use crate::output::Output;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;

/// Rows in memory, as record batches or made from values of the user's own type.
///
/// Each batch is a split, and a large one several of 131,072 rows. All batches must have the same
/// columns, in any order. Nulls are nulls.
#[derive(Clone)]
pub struct MemorySource {
    kind: &'static str,
    /// The batches, or why there are none: composing a pipeline never fails.
    batches: Result<Vec<RecordBatch>>,
}

/// Rows in memory; there must be a batch, perhaps an empty one, to tell the columns.
///
/// ```
/// # use mainstem_engine::{Pipeline, connectors, testing::table};
/// let pipeline = Pipeline::new("people");
/// let people = pipeline.read("people", connectors::from_record_batches(vec![table("age: 12, 40")]));
/// ```
pub fn from_record_batches(batches: Vec<RecordBatch>) -> MemorySource {
    MemorySource {
        kind: "record_batches",
        batches: Ok(batches),
    }
}

/// Rows from values whose type has named fields: each field is a column, an `Option` one with nulls.
///
/// The type alone tells the columns, so there may be no rows.
///
/// ```
/// # use mainstem_engine::{Pipeline, connectors};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Person {
///     name: String,
///     age: Option<u32>,
/// }
/// let pipeline = Pipeline::new("people");
/// let people = [Person { name: "Ada".into(), age: Some(36) }];
/// let people = pipeline.read("people", connectors::from_rows(&people));
/// ```
pub fn from_rows<T: Serialize + DeserializeOwned>(rows: &[T]) -> MemorySource {
    MemorySource {
        kind: "rows",
        batches: rows_from(rows).map(|batch| vec![batch]),
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} rows)", self.kind, self.n_rows())
    }
}

#[derive(Serialize, Deserialize)]
struct Locator {
    batch: usize,
    first_row: usize,
    n_rows: usize,
}

impl MemorySource {
    fn n_rows(&self) -> usize {
        let batches = self.batches.as_deref().unwrap_or_default();
        batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn batches(&self) -> Result<&[RecordBatch]> {
        match &self.batches {
            Ok(batches) => Ok(batches),
            Err(error) => Err(error.clone()),
        }
    }
}

impl Source for MemorySource {
    fn describe(&self) -> Description {
        Description::new(self.kind, json!({ "n_rows": self.n_rows() }))
    }

    fn schema(&self) -> Result<SchemaRef> {
        let batches = self.batches()?;
        if batches.is_empty() {
            return Err(
                Error::pipeline("a source in memory was given no record batch")
                    .with_hint("Give it an empty one, which tells the columns."),
            );
        }
        let schemas: Vec<(String, SchemaRef)> = batches
            .iter()
            .enumerate()
            .map(|(i, batch)| (format!("record batch {i}"), batch.schema()))
            .collect();
        agree(&schemas)
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            at_hand: true,
            ..SourceProperties::default()
        }
    }

    fn splits(&self) -> Result<Vec<Split>> {
        self.schema()?;
        let mut splits = Vec::new();
        for (i, batch) in self.batches()?.iter().enumerate() {
            let size = SPLIT_ROWS as usize;
            for first_row in (0..batch.num_rows()).step_by(size) {
                let n_rows = size.min(batch.num_rows() - first_row);
                let name = match n_rows == batch.num_rows() {
                    true => format!("record batch {i}"),
                    false => format!("record batch {i}, from row {first_row}"),
                };
                // A slice would count the bytes of the whole batch.
                let n_bytes = batch.get_array_memory_size() * n_rows / batch.num_rows();
                splits.push(Split {
                    name,
                    locator: serde_json::to_value(Locator {
                        batch: i,
                        first_row,
                        n_rows,
                    })?,
                    n_rows: Some(n_rows as u64),
                    n_bytes: Some(n_bytes as u64),
                });
            }
        }
        Ok(splits)
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let locator: Locator = serde_json::from_value(split.locator.clone())?;
        let rows = self
            .batches()?
            .get(locator.batch)
            .filter(|batch| locator.first_row + locator.n_rows <= batch.num_rows())
            .ok_or_else(|| Error::bug(format!("{} is not of this source", split.name)))?
            .slice(locator.first_row, locator.n_rows);
        let selection = Selection::new(&self.schema()?, columns)?;
        Ok(Box::new(MemoryReader {
            rows: selection.arrange(&rows)?,
            n_read: usize::try_from(position.0)
                .unwrap_or(usize::MAX)
                .min(locator.n_rows),
            n_bytes: split.n_bytes.unwrap_or(0),
        }))
    }
}

struct MemoryReader {
    rows: RecordBatch,
    n_read: usize,
    n_bytes: u64,
}

impl SplitReader for MemoryReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        let left = self.rows.num_rows() - self.n_read;
        if left == 0 {
            return Ok(None);
        }
        let rows = self.rows.slice(self.n_read, left.min(BATCH_ROWS));
        self.n_read += rows.num_rows();
        Ok(Some(rows))
    }

    fn bytes_read(&self) -> u64 {
        self.n_bytes * self.n_read as u64 / self.rows.num_rows().max(1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::OnBadRow;
    use crate::testing::{check_source, read_source, show, table};
    use expect_test::expect;

    #[derive(Serialize, Deserialize)]
    struct Person {
        name: String,
        age: Option<u32>,
    }

    #[test]
    fn the_laws_of_sources_hold() {
        let numbers: Vec<String> = (0..300_000).map(|i| i.to_string()).collect();
        let large = table(&format!("x: {0}; y: {0}", numbers.join(",")));
        let source = from_record_batches(vec![
            table("x: 1, null; y: null, 2"),
            table("y: 5; x: 4"),
            table("x: 1; y: 1").slice(0, 0),
            large,
        ]);
        let rows = check_source(&source).unwrap();
        assert_eq!(rows.num_rows(), 300_003);
        expect![[r#"
            x: 1, null, 4, 0
            y: null, 2, 5, 0"#]]
        .assert_eq(&show(&rows.slice(0, 4)));
        let names: Vec<String> = source
            .splits()
            .unwrap()
            .into_iter()
            .map(|s| s.name)
            .collect();
        expect![[r#"
            [
                "record batch 0",
                "record batch 1",
                "record batch 3, from row 0",
                "record batch 3, from row 131072",
                "record batch 3, from row 262144",
            ]
        "#]]
        .assert_debug_eq(&names);
    }

    #[test]
    fn values_become_rows_by_their_type() {
        let people = ["Ada", "Bob"].map(|name| Person {
            name: name.into(),
            age: (name == "Ada").then_some(36),
        });
        let rows = check_source(&from_rows(&people)).unwrap();
        expect![[r#"
            name: 'Ada', 'Bob'
            age: 36, null"#]]
        .assert_eq(&show(&rows));
        let (none, _) = read_source(&from_rows::<Person>(&[]), OnBadRow::Fail).unwrap();
        assert_eq!(none.schema(), rows.schema());
    }

    #[test]
    fn what_has_no_columns_is_refused() {
        let refused = |source: MemorySource| source.schema().unwrap_err().to_string();
        expect![[r#"
            a source in memory was given no record batch
              Hint: Give it an empty one, which tells the columns."#]]
        .assert_eq(&refused(from_record_batches(Vec::new())));
        expect![[r#"
            record batch 1 has other columns than record batch 0
              Column "x" holds Float64, not Int64.
              Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]]
        .assert_eq(&refused(from_record_batches(vec![table("x: 1"), table("x: 1.5")])));
        expect![[r#"
            type i32 cannot be rows
              Error: schema tracing is not directly supported for the root data type Int32. Only struct-like types are supported as root types in schema tracing. Consider using the `Item` wrapper, i.e., `::from_type<Item<T>>()`.
              Hint: Rows are structs with named fields of numbers, text, Booleans, options, lists or structs."#]].assert_eq(&refused(from_rows(&[1, 2])));
    }
}
