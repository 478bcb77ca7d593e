//! Rows as an async stream, for the program that runs the pipeline.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::Stream;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::error::{Error, Result};
use crate::sink::{Publication, Published, Sink, SinkWriter};
use crate::transform::Description;

/// How many batches may wait for the program.
const WAITING: usize = 2;

/// How far the run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Committed,
    Aborted,
}

/// Gives rows to a [`RowStream`]: see [`into_stream`].
pub struct StreamSink {
    /// Taken by the run that writes.
    sender: Mutex<Option<(mpsc::Sender<RecordBatch>, watch::Sender<Outcome>)>>,
}

/// The rows of a run as it makes them: see [`into_stream`].
pub struct RowStream {
    rows: mpsc::Receiver<RecordBatch>,
    outcome: watch::Receiver<Outcome>,
    over: bool,
}

/// A sink, and the async stream of the rows that one run writes to it.
///
/// Rows can be seen before the run has ended, unlike those of other sinks: the stream ends with `None`
/// after a run that ended well, and with an error after one that failed, so that a part is never taken
/// for the whole. The run itself says why it failed.
///
/// A run waits while two batches have not been taken, so poll the stream while the run is under way;
/// with several of them, all at once. Dropping the stream ends the run with an error. Rows of one split
/// come in their order, splits in none.
///
/// ```
/// use futures::StreamExt;
/// # use mainstem_engine::{Error, Pipeline, RunOptions, connectors, testing::table};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let pipeline = Pipeline::new("people");
/// let (sink, mut rows) = connectors::into_stream();
/// let people = connectors::from_record_batches(vec![table("age: 12, 40")]);
/// pipeline.read("people", people).write(sink);
///
/// let run = pipeline.run_async(&RunOptions::new());
/// while let Some(batch) = rows.next().await {
///     assert_eq!(batch?.num_rows(), 2);
/// }
/// run.await?;
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
pub fn into_stream() -> (StreamSink, RowStream) {
    let (sender, rows) = mpsc::channel(WAITING);
    let (outcome, seen) = watch::channel(Outcome::Open);
    let sink = StreamSink {
        sender: Mutex::new(Some((sender, outcome))),
    };
    let stream = RowStream {
        rows,
        outcome: seen,
        over: false,
    };
    (sink, stream)
}

impl fmt::Debug for StreamSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamSink")
    }
}

impl fmt::Debug for RowStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowStream({:?})", *self.outcome.borrow())
    }
}

impl Stream for RowStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = match self.rows.poll_recv(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(next) => next,
        };
        if next.is_some() {
            return Poll::Ready(next.map(Ok));
        }
        self.over = true;
        let outcome = *self.outcome.borrow();
        Poll::Ready(match outcome {
            Outcome::Committed => None,
            Outcome::Open | Outcome::Aborted => Some(Err(Error::environment(
                "the rows of the stream are not all: the run has failed or did not take place",
            )
            .with_hint("The run itself returns why."))),
        })
    }
}

impl Sink for StreamSink {
    fn describe(&self) -> Description {
        Description::new("stream_sink", json!(null))
    }

    fn accepts(&self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn takes_changes(&self) -> bool {
        true
    }

    fn begin(&self, _schema: &SchemaRef) -> Result<Box<dyn Publication>> {
        let taken = self
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((sender, outcome)) = taken else {
            return Err(
                Error::pipeline("the rows of one run alone can go to a stream")
                    .with_hint("Make a new pipeline, with a new stream, for each run."),
            );
        };
        Ok(Box::new(StreamPublication {
            sender: Mutex::new(Some(sender)),
            outcome,
            n_rows: Arc::default(),
        }))
    }
}

struct StreamPublication {
    /// Gone once the run is over, so that the stream ends.
    sender: Mutex<Option<mpsc::Sender<RecordBatch>>>,
    outcome: watch::Sender<Outcome>,
    n_rows: Arc<AtomicU64>,
}

impl StreamPublication {
    fn end(&self, outcome: Outcome) {
        // Told before the end can be seen.
        self.outcome.send_replace(outcome);
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        drop(sender.take());
    }
}

impl Publication for StreamPublication {
    fn writer(&self, _worker: usize) -> Result<Box<dyn SinkWriter>> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(StreamWriter {
            sender: sender.clone(),
            outcome: self.outcome.subscribe(),
            n_rows: Arc::clone(&self.n_rows),
        }))
    }

    fn commit(&self) -> Result<Published> {
        self.end(Outcome::Committed);
        Ok(Published {
            n_rows: self.n_rows.load(Relaxed),
            ..Published::default()
        })
    }

    fn abort(&self) {
        self.end(Outcome::Aborted);
    }
}

struct StreamWriter {
    /// Gone once it has finished.
    sender: Option<mpsc::Sender<RecordBatch>>,
    outcome: watch::Receiver<Outcome>,
    n_rows: Arc<AtomicU64>,
}

impl SinkWriter for StreamWriter {
    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(sender) = &self.sender else {
            return Err(Error::bug("rows were written after the last ones"));
        };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let outcome = &mut self.outcome;
        // Writers work on threads that may wait. A run that fails elsewhere must not wait for a program
        // that has stopped polling.
        futures::executor::block_on(async {
            tokio::select! {
                sent = sender.send(rows.clone()) => sent.map_err(|_| abandoned()),
                _ = outcome.wait_for(|o| *o != Outcome::Open) => Err(Error::environment(
                    "the run was over before its rows were taken",
                )),
            }
        })?;
        self.n_rows.fetch_add(rows.num_rows() as u64, Relaxed);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.sender = None;
        Ok(())
    }
}

fn abandoned() -> Error {
    Error::environment("nobody takes the rows: the stream that they go to was dropped")
        .with_hint("Keep the stream until it ends, or cancel the run by a `CancelToken`.")
}

#[cfg(test)]
mod tests;
