//! A sink that counts rows and lets them go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use mainstem::engine::{Description, Publication, Published, Sink, SinkWriter};
use mainstem::prelude::*;

use crate::digest::Digest;

/// Counts rows; their hashes too where that is wanted. Cloning gives another handle to the same count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    hashed: bool,
    digest: Arc<Mutex<Digest>>,
}

impl Tally {
    pub(crate) fn new(hashed: bool) -> Self {
        Self {
            hashed,
            digest: Arc::default(),
        }
    }

    /// What the run has written.
    pub(crate) fn digest(&self) -> Digest {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Digest> {
        self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Tally {
    fn describe(&self) -> Description {
        Description::new("tally", serde_json::Value::Null)
    }

    fn accepts(&self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn begin(&self, _schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        Ok(Box::new(self.clone()))
    }
}

impl Publication for Tally {
    fn writer(&self, _worker: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer {
            tally: self.clone(),
            digest: Digest::default(),
        }))
    }

    fn commit(&self) -> Result<Published> {
        Ok(Published {
            n_rows: self.lock().n_rows.unsigned_abs(),
            ..Published::default()
        })
    }

    fn abort(&self) {
        *self.lock() = Digest::default();
    }
}

struct Writer {
    tally: Tally,
    digest: Digest,
}

impl SinkWriter for Writer {
    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.digest
            .add(rows, self.tally.hashed)
            .map_err(|error| Error::pipeline(format!("the answer cannot be hashed: {error}")))
    }

    fn finish(&mut self) -> Result<()> {
        self.tally.lock().merge(self.digest);
        Ok(())
    }
}
