//! Keeps batches in memory as they come, as the peers keep the parts of a result.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use mainstem::engine::{Description, Publication, Published, Result, Sink, SinkWriter};

/// A sink of batches, and where to take them from once the run has ended well. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keep {
    batches: Arc<Mutex<Vec<RecordBatch>>>,
}

impl Keep {
    /// What the run has written.
    pub(crate) fn take(&self) -> Vec<RecordBatch> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RecordBatch>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Keep {
    fn describe(&self) -> Description {
        Description::new("keep", serde_json::Value::Null)
    }

    fn accepts(&self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn begin(&self, _schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        Ok(Box::new(self.clone()))
    }
}

impl Publication for Keep {
    fn writer(&self, _worker: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer {
            kept: self.clone(),
            batches: Vec::new(),
        }))
    }

    fn commit(&self) -> Result<Published> {
        let n_rows = self.lock().iter().map(|rows| rows.num_rows() as u64).sum();
        Ok(Published {
            n_rows,
            ..Published::default()
        })
    }

    fn abort(&self) {
        self.lock().clear();
    }
}

struct Writer {
    kept: Keep,
    batches: Vec<RecordBatch>,
}

impl SinkWriter for Writer {
    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.batches.push(rows.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.kept.lock().append(&mut self.batches);
        Ok(())
    }
}
