//! Rows in the windows that are still to leave, however these come about.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::gather::RowAt;
use crate::error::Result;
use crate::ops::Side;
use crate::state::StatePart;
use crate::windowing::Window;

/// Keeps the rows of both sides until all of their windows have left.
pub(super) trait OpenWindows: Send {
    /// Takes in rows.
    fn take_in(&mut self, side: Side, rows: &RecordBatch, watermark: i64) -> Result<Kept>;

    /// Takes out what ends first, if `watermark` has passed its end.
    fn next_over(&mut self, watermark: i64) -> Result<Option<Over>>;

    /// All rows of a side, with columns behind that say which windows they still are in, where all windows that end
    /// up to `left_up_to` have left; in several batches where they are many bytes.
    fn save(&self, side: Side, left_up_to: i64) -> Result<Vec<RecordBatch>>;

    /// Takes in the rows of a part that was saved, which are `rows` without the columns behind, into all windows that
    /// had not left.
    fn load(&mut self, side: Side, part: &StatePart, rows: RecordBatch) -> Result<()>;

    /// Forgets what no row needs any more, after all has left that had to.
    fn tidy(&mut self) -> Result<()> {
        Ok(())
    }

    /// How many bytes of memory are kept, about.
    fn n_bytes(&self) -> u64;
}

/// What was not kept of some rows.
#[derive(Default)]
pub(super) struct Kept {
    /// The rows of which all windows are over.
    pub(super) late: Vec<u32>,
    /// How many are in no window.
    pub(super) n_in_none: usize,
}

/// The rows of windows that are over.
pub(super) struct Over {
    pub(super) windows: Windows,
    pub(super) left: InWindow,
    pub(super) right: InWindow,
}

/// The windows of rows, which only match in the same.
pub(super) enum Windows {
    /// One, in which are all rows.
    One(Window),
    /// That of each number that rows have in place of a key.
    ByNumber(Vec<Window>),
}

impl Windows {
    /// The window of rows with this number.
    pub(super) fn of(&self, number: u32) -> Window {
        match self {
            Self::One(window) => *window,
            Self::ByNumber(windows) => windows[number as usize],
        }
    }
}

/// The rows of a side in windows that are over.
#[derive(Default)]
pub(super) struct InWindow {
    pub(super) batches: Vec<RecordBatch>,
    /// The number and the place of each row, ordered by the number; rows with equal numbers match, but for
    /// those without one, [`NO_KEY`](super::key_numbers::NO_KEY).
    pub(super) rows: Vec<(u32, RowAt)>,
}

/// The schema of rows with columns of whole numbers behind.
pub(super) fn with_numbers(schema: &SchemaRef, names: &[&str]) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    let number = |name: &&str| Arc::new(Field::new(*name, DataType::Int64, false));
    fields.extend(names.iter().map(number));
    Arc::new(Schema::new(fields))
}
