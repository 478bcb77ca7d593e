//! Rows from an async stream of the program that runs the pipeline.
//!
//! ```text
//!  the program's runtime                      the run
//!  stream ─poll▶ task ─▶ two batches at most ─▶ reader ─▶ …
//!                 ▲ a permit for each batch taken ┘
//! ```

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use futures::{Stream, StreamExt};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use super::agreement::agree;
use super::selection::Selection;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;

/// How many batches are taken from the stream before the pipeline wants them.
const AHEAD: usize = 2;

/// How long a reader waits for the stream before it lets the runner look for failures.
const WAIT: Duration = Duration::from_millis(20);

type Rows = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// Rows from an async stream: see [`from_stream`].
#[derive(Clone)]
pub struct StreamSource {
    schema: SchemaRef,
    /// Taken by the first who reads it.
    stream: Arc<Mutex<Option<Rows>>>,
    runtime: Option<Handle>,
}

/// Rows from an async stream of record batches, which ends.
///
/// Called from within a tokio runtime, the stream is polled there, as a task of its own; otherwise on a
/// thread of its own, which is enough for streams that need no runtime. It is polled only as fast as
/// the pipeline takes the rows: at most two batches are waiting. A batch may be of any size.
///
/// All batches must have the columns of `schema`, in any order; nulls are nulls. An error of the stream
/// ends the run, with its message. The stream can be read once, by one run: where several phases need
/// the rows, they are kept on disk.
///
/// ```
/// # use mainstem_engine::{Error, Pipeline, RunOptions, connectors, testing::table};
/// let batches = [table("age: 12, 40"), table("age: 36")];
/// let schema = batches[0].schema();
/// let stream = futures::stream::iter(batches.map(Ok::<_, Error>));
///
/// let pipeline = Pipeline::new("people");
/// let (sink, rows) = connectors::collect();
/// pipeline.read("people", connectors::from_stream(schema, stream)).write(sink);
/// pipeline.run(&RunOptions::new())?;
/// assert_eq!(rows.take()[0].num_rows(), 3);
/// # Ok::<(), Error>(())
/// ```
pub fn from_stream<S, E>(schema: SchemaRef, stream: S) -> StreamSource
where
    S: Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let stream = stream.map(|rows| rows.map_err(|error| stream_failed(error.into())));
    StreamSource {
        schema,
        stream: Arc::new(Mutex::new(Some(Box::pin(stream)))),
        runtime: Handle::try_current().ok(),
    }
}

/// An error of ours stays what it is.
fn stream_failed(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(error) => Error::environment(format!("the stream failed: {error}")).with_source(error),
    }
}

impl fmt::Debug for StreamSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("from_stream")
    }
}

impl Source for StreamSource {
    fn describe(&self) -> Description {
        Description::new("stream", json!(null))
    }

    fn schema(&self) -> Result<SchemaRef> {
        // Two columns of one name are refused.
        agree(&[(
            "the schema of the stream".to_owned(),
            Arc::clone(&self.schema),
        )])?;
        Ok(Arc::clone(&self.schema))
    }

    fn splits(&self) -> Result<Vec<Split>> {
        Ok(vec![Split {
            name: "the stream".to_owned(),
            locator: json!(null),
            n_rows: None,
            n_bytes: None,
        }])
    }

    fn open(
        &self,
        _split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let selection = Selection::new(&self.schema, columns)?;
        let stream = self
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(stream) = stream else {
            return Err(Error::pipeline("a stream can be read only once")
                .with_hint("Make a new pipeline, with a new stream, for each run."));
        };
        let (sender, rows) = unbounded();
        let (alive, gone) = oneshot::channel();
        let permits = Arc::new(Semaphore::new(AHEAD));
        let forwarding = forward(stream, Arc::clone(&permits), sender, gone);
        match &self.runtime {
            Some(runtime) => {
                runtime.spawn(forwarding);
            }
            None => {
                std::thread::Builder::new()
                    .name("mainstem-stream".to_owned())
                    .spawn(move || futures::executor::block_on(forwarding))
                    .map_err(|e| Error::environment("a thread cannot be started").with_source(e))?;
            }
        }
        Ok(Box::new(StreamReader {
            schema: Arc::clone(&self.schema),
            selection,
            rows,
            permits,
            _alive: alive,
            n_batches: 0,
            left: None,
            to_skip: position.0,
            asked_again: false,
        }))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            bounded: true,
            repeatable: false,
        }
    }
}

/// What the task hands over: rows, the failure of the stream, or its end.
type Item = Option<Result<RecordBatch>>;

/// Polls the stream as permits come in, until it ends or nobody reads any more.
async fn forward(
    mut stream: Rows,
    permits: Arc<Semaphore>,
    rows: Sender<Item>,
    mut gone: oneshot::Receiver<()>,
) {
    loop {
        let next = async {
            // Before the poll: a batch that is made and has no place yet would be one too many.
            if let Ok(permit) = permits.acquire().await {
                permit.forget();
            }
            stream.next().await
        };
        let item = tokio::select! {
            _ = &mut gone => return,
            item = next => item,
        };
        let over = !matches!(item, Some(Ok(_)));
        if rows.send(item).is_err() || over {
            return;
        }
    }
}

struct StreamReader {
    schema: SchemaRef,
    selection: Selection,
    rows: Receiver<Item>,
    permits: Arc<Semaphore>,
    /// The task ends when this is dropped.
    _alive: oneshot::Sender<()>,
    n_batches: u64,
    /// Of a large batch, what has not been given yet.
    left: Option<RecordBatch>,
    to_skip: u64,
    /// The last call gave no rows, so that nothing is kept from the graph by waiting now.
    asked_again: bool,
}

impl StreamReader {
    /// The next batch of the stream; an empty one where there is none yet.
    fn receive(&mut self) -> Result<Option<RecordBatch>> {
        let received = match self.asked_again {
            true => self.rows.recv_timeout(WAIT),
            false => self.rows.try_recv().map_err(|e| match e.is_empty() {
                true => RecvTimeoutError::Timeout,
                false => RecvTimeoutError::Disconnected,
            }),
        };
        let rows = match received {
            Ok(None) => return Ok(None),
            Ok(Some(rows)) => rows?,
            Err(RecvTimeoutError::Timeout) => return Ok(Some(self.selection.none())),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::environment("the stream stopped before its end")
                    .with_detail("It panicked, or the runtime that polls it was shut down."));
            }
        };
        self.permits.add_permits(1);
        let name = format!("batch {} of the stream", self.n_batches);
        self.n_batches += 1;
        agree(&[
            ("the schema given".to_owned(), Arc::clone(&self.schema)),
            (name, rows.schema()),
        ])?;
        self.selection.arrange(&rows).map(Some)
    }
}

impl SplitReader for StreamReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        let rows = match self.left.take() {
            Some(left) => left,
            None => match self.receive()? {
                Some(rows) => rows,
                None => return Ok(None),
            },
        };
        let skipped = self.to_skip.min(rows.num_rows() as u64) as usize;
        self.to_skip -= skipped as u64;
        let n = (rows.num_rows() - skipped).min(BATCH_ROWS);
        let rest = rows.num_rows() - skipped - n;
        if rest > 0 {
            self.left = Some(rows.slice(skipped + n, rest));
        }
        self.asked_again = n == 0;
        Ok(Some(rows.slice(skipped, n)))
    }
}

#[cfg(test)]
mod tests;
