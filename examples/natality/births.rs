//! Births that are drawn when they are read: the generator as a source.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use mainstem::engine::{Description, Output, Position, Source, Split, SplitReader};
use mainstem::prelude::*;
use serde_json::json;

use crate::generator::{BLOCK_ROWS, Births};

/// Blocks in a split: enough for a row group.
const BLOCKS_PER_SPLIT: usize = 8;

/// `n_rows` births of a seed.
#[derive(Clone, Debug)]
pub(crate) struct GeneratedBirths {
    births: Arc<Births>,
    seed: u64,
    n_rows: usize,
}

impl GeneratedBirths {
    pub(crate) fn new(seed: u64, n_rows: usize) -> Result<Self> {
        let births = Births::new(seed).map_err(|e| {
            Error::bug("the generator's table has a weight that is not positive").with_source(e)
        })?;
        Ok(Self {
            births: Arc::new(births),
            seed,
            n_rows,
        })
    }
}

impl Source for GeneratedBirths {
    fn describe(&self) -> Description {
        Description::new(
            "generated_births",
            json!({ "seed": self.seed, "n_rows": self.n_rows }),
        )
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(Births::schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let rows_per_split = BLOCKS_PER_SPLIT * BLOCK_ROWS;
        let splits = (0..Births::n_blocks(self.n_rows).div_ceil(BLOCKS_PER_SPLIT)).map(|i| Split {
            name: format!("births of seed {}, part {i}", self.seed),
            locator: json!(i * BLOCKS_PER_SPLIT),
            n_rows: Some(rows_per_split.min(self.n_rows - i * rows_per_split) as u64),
            n_bytes: None,
        });
        Ok(splits.collect())
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let first: usize = serde_json::from_value(split.locator.clone())?;
        let n_read = position.0 as usize;
        let schema = Births::schema();
        let projection = columns
            .map(|names| names.iter().map(|name| schema.index_of(name)).collect())
            .transpose()?;
        Ok(Box::new(BirthsReader {
            births: Arc::clone(&self.births),
            n_rows: self.n_rows,
            next: first + n_read / BLOCK_ROWS,
            end: first + BLOCKS_PER_SPLIT,
            skip: n_read % BLOCK_ROWS,
            projection,
        }))
    }
}

struct BirthsReader {
    births: Arc<Births>,
    n_rows: usize,
    next: usize,
    end: usize,
    skip: usize,
    projection: Option<Vec<usize>>,
}

impl SplitReader for BirthsReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let block = self.births.block(self.next, self.n_rows)?;
        self.next += 1;
        let skip = std::mem::take(&mut self.skip).min(block.num_rows());
        let rows = block.slice(skip, block.num_rows() - skip);
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        match &self.projection {
            Some(columns) => Ok(Some(rows.project(columns)?)),
            None => Ok(Some(rows)),
        }
    }
}
