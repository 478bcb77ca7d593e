//! A source that makes its rows on the fly and holds none: keys that live for a while and never come back.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem::engine::event_time::time_type;
use mainstem::engine::{
    BATCH_ROWS, Description, Output, Position, Source, SourceProperties, Split, SplitReader,
};
use mainstem::prelude::*;
use serde_json::json;

use crate::generator::time_of;

/// Rows `at`, `key` and `value`, in the order of time but for the last second, as many partitions as wanted.
///
/// Of all keys about `n_live` occur at a time; every hundredth row one goes and another comes. It never
/// says that it ends, as a source of a service, until it does.
#[derive(Clone, Debug)]
pub(crate) struct LiveKeys {
    pub(crate) n_rows: u64,
    pub(crate) n_live: u64,
    pub(crate) n_partitions: u64,
}

/// Rows after which a key goes.
const ROWS_PER_KEY: u64 = 100;
/// How much a row may stand behind later ones.
pub(crate) const DISORDER_MS: u64 = 1_000;

impl Source for LiveKeys {
    fn describe(&self) -> Description {
        let config = json!({ "n_rows": self.n_rows, "n_live": self.n_live });
        Description::new("live_keys", config)
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(Arc::new(Schema::new(vec![
            Field::new("at", time_type(), false),
            Field::new("key", DataType::Int64, false),
            Field::new("value", DataType::Int64, false),
        ])))
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |partition| Split {
            name: format!("partition {partition}"),
            locator: json!(partition),
            n_rows: None,
            n_bytes: None,
        };
        Ok((0..self.n_partitions).map(split).collect())
    }

    fn open(
        &self,
        split: &Split,
        _position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let schema = self.schema()?;
        let columns = match columns {
            Some(names) => names
                .iter()
                .map(|name| Ok(schema.index_of(name)?))
                .collect::<Result<_>>()?,
            None => (0..schema.fields().len()).collect(),
        };
        Ok(Box::new(Reader {
            rows: self.clone(),
            schema,
            columns,
            next: serde_json::from_value(split.locator.clone())?,
        }))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            bounded: false,
            repeatable: false,
            ..SourceProperties::default()
        }
    }
}

struct Reader {
    rows: LiveKeys,
    schema: SchemaRef,
    columns: Vec<usize>,
    next: u64,
}

impl SplitReader for Reader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        let rows = (self.next..self.rows.n_rows).step_by(self.rows.n_partitions as usize);
        let rows: Vec<u64> = rows.take(BATCH_ROWS).collect();
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        self.next = last + self.rows.n_partitions;
        let (mut times, mut keys) = (Vec::new(), Vec::new());
        for row in &rows {
            let drawn = scatter(*row);
            let behind = (drawn >> 32) % DISORDER_MS;
            times.push(time_of(*row) - behind as i64);
            keys.push((row / ROWS_PER_KEY + drawn % self.rows.n_live) as i64);
        }
        let values = rows.iter().map(|row| (row % 1_000) as i64);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from(times)),
            Arc::new(Int64Array::from(keys)),
            Arc::new(Int64Array::from_iter_values(values)),
        ];
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(Some(rows.project(&self.columns)?))
    }
}

/// A number without a pattern from one with, as in Steele, Lea and Flood's SplitMix.
fn scatter(n: u64) -> u64 {
    let n = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}
