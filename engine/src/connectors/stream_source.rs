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

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use futures::{Stream, StreamExt};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use super::agreement::agree;
use super::selection::Selection;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader, Wake};
use crate::transform::Description;

/// How many batches are taken from the stream before the pipeline wants them.
const AHEAD: usize = 2;

type Rows = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// Rows from an async stream: see [`from_stream`].
#[derive(Clone)]
pub struct StreamSource {
    schema: SchemaRef,
    /// Taken by the first who reads it.
    stream: Arc<Mutex<Option<Rows>>>,
    runtime: Option<Handle>,
    bounded: bool,
}

impl StreamSource {
    /// Whether the stream ends; true by default. Of one that does not, planning refuses what waits for its end.
    #[must_use]
    pub fn bounded(mut self, bounded: bool) -> Self {
        self.bounded = bounded;
        self
    }
}

/// Rows from an async stream of record batches.
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
        bounded: true,
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
        let wake = Arc::default();
        let reader = Handing {
            rows: Some(sender),
            wake: Arc::clone(&wake),
        };
        let forwarding = forward(stream, Arc::clone(&permits), reader, gone);
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
            wake,
        }))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            bounded: self.bounded,
            repeatable: false,
            ..SourceProperties::default()
        }
    }
}

/// What the task hands over: rows, the failure of the stream, or its end.
type Item = Option<Result<RecordBatch>>;

/// The task's side of the reader.
struct Handing {
    rows: Option<Sender<Item>>,
    wake: Arc<Mutex<Option<Wake>>>,
}

impl Handing {
    /// False if nobody reads any more.
    fn hand_over(&self, item: Item) -> bool {
        let rows = self.rows.as_ref();
        let is_read = rows.is_some_and(|rows| rows.send(item).is_ok());
        self.wake();
        is_read
    }

    fn wake(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            wake();
        }
    }
}

/// A task that dies hands over no end, and the reader must hear of that too.
impl Drop for Handing {
    fn drop(&mut self) {
        self.rows = None;
        self.wake();
    }
}

/// Polls the stream as permits come in, until it ends or nobody reads any more.
async fn forward(
    mut stream: Rows,
    permits: Arc<Semaphore>,
    reader: Handing,
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
        if !reader.hand_over(item) || over {
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
    /// Called by the task when it has handed something over.
    wake: Arc<Mutex<Option<Wake>>>,
}

impl StreamReader {
    /// The next batch of the stream; an empty one where there is none yet.
    fn receive(&mut self) -> Result<Option<RecordBatch>> {
        let rows = match self.rows.try_recv() {
            Ok(None) => return Ok(None),
            Ok(Some(rows)) => rows?,
            Err(TryRecvError::Empty) => return Ok(Some(self.selection.none())),
            Err(TryRecvError::Disconnected) => {
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
    fn wake_by(&mut self, wake: Wake) -> bool {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
        true
    }

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
        Ok(Some(rows.slice(skipped, n)))
    }
}

#[cfg(test)]
mod dropping_tests;
#[cfg(test)]
mod tests;
