//! What a keyed transform says of itself while the pipeline is planned.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cells::Cell;
use super::emit::Emits;
use super::timers::Timer;
use crate::batch::Batch;
use crate::error::Result;
use crate::ops::map_rows::{fields_of, read_rows};
use crate::output::Output;

/// What a keyed transform keeps, reads and emits.
///
/// ```
/// use mainstem_engine::ops::keyed::{Bag, Declared, Timer};
/// const WAITING: Bag<i64> = Bag::new("waiting");
/// const EXPIRY: Timer = Timer::event_time("expiry");
/// let declared = Declared::rows().cell(WAITING).timer(EXPIRY);
/// ```
#[must_use = "a keyed transform returns it from `declare`"]
pub struct Declared {
    pub(super) emits: Result<Emits>,
    pub(super) cells: Vec<Box<dyn Cell>>,
    pub(super) timers: Vec<Timer>,
    pub(super) ttl_ms: Option<i64>,
    pub(super) late_after_ms: Option<i64>,
    pub(super) reads: Option<Reads>,
}

impl Declared {
    fn new(emits: Result<Emits>) -> Self {
        Self {
            emits,
            cells: Vec::new(),
            timers: Vec::new(),
            ttl_ms: None,
            late_after_ms: None,
            reads: None,
        }
    }

    /// Emits some of the rows that come in, by [`Scope::keep`](super::Scope::keep).
    pub fn rows() -> Self {
        Self::new(Ok(Emits::Rows))
    }

    /// Emits some of the rows that come in, with the fields of `T` as further columns, by
    /// [`Scope::keep_with`](super::Scope::keep_with).
    pub fn rows_with<T: Serialize + DeserializeOwned>() -> Self {
        Self::new(fields_of::<T>().map(Emits::RowsWith))
    }

    /// Emits values of `T`, by [`Scope::emit`](super::Scope::emit).
    ///
    /// The columns are those of the key, the fields of `T`, `window_start` and `window_end` where the rows have
    /// windows, and `event_time` where the rows have one.
    pub fn emits<T: Serialize + DeserializeOwned>() -> Self {
        Self::new(fields_of::<T>().map(Emits::Values))
    }

    /// Emits values with these fields, by name, as [`Declared::emits`]: where serde does not tell the types, as
    /// for timestamps, which are integers in the values.
    pub fn emits_fields(fields: impl IntoIterator<Item = FieldRef>) -> Self {
        Self::new(Ok(Emits::Values(fields.into_iter().collect())))
    }

    /// Emits rows of this schema, by [`Scope::emit_batch`](super::Scope::emit_batch).
    pub fn batches(schema: SchemaRef) -> Self {
        Self::new(Ok(Emits::Batches(schema)))
    }

    /// Keeps a cell for each key and window.
    pub fn cell(mut self, cell: impl Cell + 'static) -> Self {
        self.cells.push(Box::new(cell));
        self
    }

    /// Has a timer, or a family of them, for each key and window.
    pub fn timer(mut self, timer: Timer) -> Self {
        self.timers.push(timer);
        self
    }

    /// Forgets what is kept of a key once the watermark is so far behind its last row, and the allowed lateness
    /// besides; timers included.
    ///
    /// By default what is kept of a window goes when the window is over, and what is kept of a key without
    /// windows stays.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl_ms = Some(milliseconds(ttl));
        self
    }

    /// Rows are late once the watermark has passed their time by more than this, and the allowed lateness
    /// besides; by default none are but those whose window is over.
    pub fn late_after(mut self, after: Duration) -> Self {
        self.late_after_ms = Some(milliseconds(after));
        self
    }

    /// Reads the rows as values of `T`, whose fields are columns by name, with
    /// [`KeyRows::read`](super::KeyRows::read). A row that is no `T` is rejected.
    pub fn reads<T: DeserializeOwned + Send + 'static>(mut self) -> Self {
        self.reads = Some(Reads {
            fields: fields_of::<T>(),
            read: |rows| {
                let values = serde_arrow::from_record_batch::<Vec<T>>(rows).ok()?;
                Some(Box::new(values))
            },
            good_rows: |batch, out| Ok(read_rows::<T>(batch, out)?.0),
        });
        self
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<&str> = self.cells.iter().map(|cell| cell.name()).collect();
        f.debug_struct("Declared")
            .field("emits", &self.emits)
            .field("cells", &cells)
            .field("timers", &self.timers)
            .field("ttl_ms", &self.ttl_ms)
            .finish_non_exhaustive()
    }
}

/// How rows are read as values of a Rust type.
#[derive(Clone)]
pub(super) struct Reads {
    pub(super) fields: Result<Vec<FieldRef>>,
    read: fn(&RecordBatch) -> Option<Box<dyn Any + Send>>,
    good_rows: fn(Batch, &mut Output) -> Result<Batch>,
}

impl Reads {
    /// The rows as values; `None` if one of them is none.
    pub(super) fn read(&self, rows: &RecordBatch) -> Option<Box<dyn Any + Send>> {
        (self.read)(rows)
    }

    /// The rows that are values; the others are rejected.
    pub(super) fn good_rows(&self, batch: Batch, out: &mut Output) -> Result<Batch> {
        (self.good_rows)(batch, out)
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reads({:?})", self.fields)
    }
}
