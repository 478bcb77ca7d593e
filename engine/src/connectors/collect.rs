//! Keeps rows in memory, for tests and for small results.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use crate::batch::bytes_of;
use crate::error::Result;
use crate::sink::{Publication, Published, Sink, SinkWriter};
use crate::transform::Description;

/// Keeps rows in memory, until [`Collected::take`] takes them.
#[derive(Debug)]
pub struct CollectSink {
    collected: Collected,
}

/// The rows that a [`CollectSink`] has published.
#[derive(Clone, Default)]
pub struct Collected {
    batches: Arc<Mutex<Vec<RecordBatch>>>,
}

/// A sink that keeps rows in memory, and the place to take them from.
///
/// Rows of one worker keep their order, and those of worker 0 come first; which rows a worker gets is
/// the runner's choice, so only with one worker the order is that of the source.
///
/// ```
/// # use mainstem_engine::connectors;
/// let (sink, rows) = connectors::collect();
/// # drop(sink);
/// assert!(rows.take().is_empty());
/// ```
pub fn collect() -> (CollectSink, Collected) {
    let collected = Collected::default();
    let sink = CollectSink {
        collected: collected.clone(),
    };
    (sink, collected)
}

impl Collected {
    /// Takes what has been published since the last call: one batch for each run, without rows where
    /// the run had none. Of a run that failed or is under way there is nothing.
    pub fn take(&self) -> Vec<RecordBatch> {
        std::mem::take(&mut *lock(&self.batches))
    }
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collected({} batches)", lock(&self.batches).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink for CollectSink {
    fn describe(&self) -> Description {
        Description::new("collect", json!(null))
    }

    fn accepts(&self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn begin(&self, schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        Ok(Box::new(CollectPublication {
            schema: Arc::clone(schema),
            written: Arc::default(),
            collected: self.collected.clone(),
        }))
    }
}

/// The batches of each worker so far.
type Written = Arc<Mutex<Vec<(usize, RecordBatch)>>>;

struct CollectPublication {
    schema: SchemaRef,
    written: Written,
    collected: Collected,
}

impl Publication for CollectPublication {
    fn writer(&self, worker: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(CollectWriter {
            worker,
            written: Arc::clone(&self.written),
            n_bytes: 0,
        }))
    }

    fn commit(&self) -> Result<Published> {
        let mut written = std::mem::take(&mut *lock(&self.written));
        written.sort_by_key(|(worker, _)| *worker);
        let rows = concat_batches(&self.schema, written.iter().map(|(_, rows)| rows))?;
        let published = Published {
            files: Vec::new(),
            n_rows: rows.num_rows() as u64,
            n_bytes: rows.get_array_memory_size() as u64,
        };
        lock(&self.collected.batches).push(rows);
        Ok(published)
    }

    fn abort(&self) {
        lock(&self.written).clear();
    }
}

struct CollectWriter {
    worker: usize,
    written: Written,
    n_bytes: u64,
}

impl SinkWriter for CollectWriter {
    fn at_hand(&self) -> bool {
        true
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.n_bytes += rows.columns().iter().map(bytes_of).sum::<usize>() as u64;
        lock(&self.written).push((self.worker, rows.clone()));
        Ok(())
    }

    /// They are kept, all of them.
    fn buffered_bytes(&self) -> u64 {
        self.n_bytes
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_sink, show, table, write_sink};

    #[test]
    fn the_laws_of_sinks_hold() {
        let (sink, collected) = collect();
        let handle = collected.clone();
        check_sink(
            &table("x: 1, 2, null; y: a, null, c"),
            move |_| {
                Box::new(CollectSink {
                    collected: handle.clone(),
                })
            },
            |_| Ok(collected.take()),
        )
        .unwrap();
        drop(sink);
    }

    #[test]
    fn each_run_is_one_batch_in_the_order_of_workers() {
        let (sink, collected) = collect();
        write_sink(
            &sink,
            &[vec![table("x: 1"), table("x: 2")], vec![table("x: 3")]],
        )
        .unwrap();
        write_sink(&sink, &[vec![table("x: 4")]]).unwrap();
        let shown: Vec<String> = collected.take().iter().map(show).collect();
        assert_eq!(shown, ["x: 1, 2, 3", "x: 4"]);
        assert!(collected.take().is_empty());
    }
}
