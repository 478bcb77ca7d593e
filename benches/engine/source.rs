//! The same batch again and again: a source that costs nothing.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use mainstem::engine::{Description, Output, Position, Result, Source, Split, SplitReader};
use serde_json::json;

/// Splits per worker, so that workers end together.
const SPLITS_PER_WORKER: usize = 8;

/// `n_batches` times a batch with a key and three numbers.
#[derive(Clone, Debug)]
pub(crate) struct Repeated {
    batch: RecordBatch,
    n_batches: usize,
    n_splits: usize,
}

impl Repeated {
    /// # Errors
    /// If Arrow refuses the columns.
    pub(crate) fn new(n_rows: usize, n_batches: usize, workers: usize) -> Result<Self> {
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n_rows as i64));
        let numbers = || (0..n_rows).map(|i| i as f64);
        let number = || -> ArrayRef { Arc::new(Float64Array::from_iter_values(numbers())) };
        let columns = [
            ("key", key),
            ("a", number()),
            ("b", number()),
            ("c", number()),
        ];
        Ok(Self {
            batch: RecordBatch::try_from_iter(columns)?,
            n_batches,
            n_splits: workers * SPLITS_PER_WORKER,
        })
    }

    /// The batches, in no dataflow.
    pub(crate) fn batches(&self) -> impl Iterator<Item = RecordBatch> {
        std::iter::repeat_n(&self.batch, self.n_batches).cloned()
    }

    /// How many batches a split has.
    fn in_split(&self, split: usize) -> usize {
        (split + 1) * self.n_batches / self.n_splits - split * self.n_batches / self.n_splits
    }
}

impl Source for Repeated {
    fn describe(&self) -> Description {
        Description::new("repeated", json!({ "n_batches": self.n_batches }))
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(self.batch.schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |i| Split {
            name: format!("part {i}"),
            locator: json!(i),
            n_rows: Some((self.in_split(i) * self.batch.num_rows()) as u64),
            n_bytes: None,
        };
        Ok((0..self.n_splits).map(split).collect())
    }

    fn open(
        &self,
        split: &Split,
        _position: Position,
        _columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let split: usize = serde_json::from_value(split.locator.clone())?;
        Ok(Box::new(Reader {
            batch: self.batch.clone(),
            left: self.in_split(split),
        }))
    }
}

struct Reader {
    batch: RecordBatch,
    left: usize,
}

impl SplitReader for Reader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        Ok(Some(self.batch.clone()))
    }
}
