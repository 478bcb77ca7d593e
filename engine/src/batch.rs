//! A batch of rows on its way through the graph, with where it came from.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::event_time::{Extent, KnownExtent, event_times, extent};
use crate::runner::credit::{Credit, Permit};
use crate::source::{Lines, line_in};
use crate::transform::{SplitEvent, Watermark};

/// Rows per batch that sources aim at.
pub const BATCH_ROWS: usize = 8_192;

/// How many inputs of one transform [`Batch::in_branch`] can tell apart.
pub(crate) const BRANCHES: usize = 64;

/// Where the rows of a batch were read, and by which way they came.
///
/// Its order is the order in which partial accumulators are merged, and in which training reads rows:
/// it depends on the graph and on the splits alone, not on workers or timing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SplitKey {
    /// The number of the source among the nodes of the graph.
    pub source: u32,
    /// The number of the split in its source.
    pub split: u32,
    /// The way through unions: the input's number, in the digits of a mixed radix.
    pub branch: u64,
}

/// What the number of a row counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowUnit {
    /// Rows of a split, from 0.
    #[default]
    Row,
    /// Lines of a text file, from 1.
    Line,
}

impl fmt::Display for RowUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Row => "row",
            Self::Line => "line",
        })
    }
}

/// The place of a row in its source, for messages and dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPosition {
    /// The split as a person would name it, such as `file "d.parquet", row group 3`.
    pub split: Arc<str>,
    /// The row in the split, from 0, or the line in the file, from 1. Where an operator made other rows,
    /// that of the first row they came from.
    pub row: u64,
    /// What `row` counts.
    pub unit: RowUnit,
    /// False if `row` is only where the batch began.
    pub exact: bool,
}

impl fmt::Display for RowPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = if self.exact { "" } else { "at or after " };
        write!(f, "{}, {about}{} {}", self.split, self.unit, self.row)
    }
}

/// Rows, the split they came from, and the credit they hold against their source.
///
/// The credit goes back when the last batch made of these rows is dropped, so an operator that makes
/// new rows from a batch uses [`Batch::with_columns`], [`Batch::filter`] or [`Batch::derive`].
#[derive(Clone)]
pub struct Batch {
    rows: RecordBatch,
    key: SplitKey,
    /// What a feed read together, and the way from there: as it tells of splits.
    origin: SplitKey,
    split: Arc<str>,
    first_row: u64,
    unit: RowUnit,
    /// The lines of the rows as they were read, where they do not simply follow each other.
    runs: Option<Arc<[(usize, u64)]>>,
    /// Masks applied since the source, outermost last; resolved only when a position is asked for.
    masks: Vec<BooleanArray>,
    exact: bool,
    permit: Option<Permit>,
    times: Option<Arc<KnownExtent>>,
    /// What has become of a split, in place of rows.
    event: Option<Arc<SplitEvent>>,
    watermark: Watermark,
    /// The worker that this copy is for, where every worker gets one.
    worker: usize,
}

impl Batch {
    /// Rows that did not come from a source: tests, single rows behind HTTP.
    pub fn new(rows: RecordBatch) -> Self {
        Self::read(rows, SplitKey::default(), Arc::from("rows in memory"), 0)
    }

    /// Rows as read from a split: `first_row` is the place of row 0 in the split.
    pub fn read(rows: RecordBatch, key: SplitKey, split: Arc<str>, first_row: u64) -> Self {
        Self {
            rows,
            key,
            origin: key,
            split,
            first_row,
            unit: RowUnit::Row,
            runs: None,
            masks: Vec::new(),
            exact: true,
            permit: None,
            times: None,
            event: None,
            worker: 0,
            watermark: Watermark::START,
        }
    }

    /// What has become of a split, told between its rows to those on the same worker.
    pub(crate) fn of_event(event: SplitEvent) -> Self {
        let none = RecordBatch::new_empty(Arc::new(Schema::empty()));
        Self {
            event: Some(Arc::new(event)),
            ..Self::new(none)
        }
    }

    /// The copy of these rows for one of the workers.
    pub(crate) fn for_worker(mut self, worker: usize) -> Self {
        self.worker = worker;
        self
    }

    /// The worker that this copy is for.
    pub(crate) fn worker(&self) -> usize {
        self.worker
    }

    /// What it tells of a split, if it holds no rows but that.
    pub(crate) fn event(&self) -> Option<&Arc<SplitEvent>> {
        self.event.as_ref()
    }

    /// These rows, where rows of the split between them were left out: true in `mask` is a row of the batch.
    pub(crate) fn masked(mut self, mask: Option<BooleanArray>) -> Self {
        self.masks.extend(mask);
        self
    }

    /// The rows.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// How many rows.
    pub fn n_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// How many bytes of memory the rows fill; of shared buffers, only the part that they use.
    pub fn n_bytes(&self) -> u64 {
        self.rows.columns().iter().map(bytes_of).sum::<usize>() as u64
    }

    /// Which split of which source the rows came from.
    pub fn split_key(&self) -> SplitKey {
        self.key
    }

    /// The watermark under which the rows were sent: those with an earlier event time are late, for whoever
    /// takes them in, whatever watermark he has heard of himself.
    pub fn watermark(&self) -> Watermark {
        self.watermark
    }

    /// The same rows, sent under this watermark: the engine says so, and so does a test.
    #[must_use]
    pub fn under(mut self, watermark: Watermark) -> Self {
        self.watermark = watermark;
        self
    }

    /// The same rows with other columns; positions are kept.
    #[must_use]
    pub fn with_columns(self, rows: RecordBatch) -> Self {
        Self { rows, ..self }
    }

    /// Other rows made from these; positions become "at or after" the first of them.
    #[must_use]
    pub fn derive(&self, rows: RecordBatch) -> Self {
        let first_row = self.position(0).row;
        Self {
            rows,
            first_row,
            unit: self.unit,
            runs: None,
            masks: Vec::new(),
            exact: false,
            split: self.split.clone(),
            permit: self.permit.clone(),
            times: None,
            key: self.key,
            origin: self.origin,
            event: None,
            worker: 0,
            watermark: self.watermark,
        }
    }

    /// The rows where `mask` is true; null counts as false. Positions are kept.
    ///
    /// # Errors
    /// If the mask has another length than the batch.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Self> {
        let rows = filter_record_batch(&self.rows, mask)?;
        let mut kept = self.clone();
        kept.rows = rows;
        kept.times = None;
        if kept.exact {
            kept.masks.push(mask.clone());
        }
        Ok(kept)
    }

    /// Where row `row` of this batch stands in its source.
    pub fn position(&self, row: usize) -> RowPosition {
        let mut at = row;
        for mask in self.masks.iter().rev() {
            at = nth_true(mask, at);
        }
        let row = match &self.runs {
            _ if !self.exact => self.first_row,
            Some(runs) => line_in(runs, at),
            None => self.first_row + at as u64,
        };
        RowPosition {
            split: self.split.clone(),
            row,
            unit: self.unit,
            exact: self.exact,
        }
    }

    /// The same rows, come by input `port` of a transform that brings several inputs together.
    ///
    /// Keeps rows of one split that came by two ways apart, so that their order never depends on timing.
    #[must_use]
    pub fn in_branch(mut self, port: usize) -> Self {
        let branches = BRANCHES as u64;
        self.key.branch = self
            .key
            .branch
            .wrapping_mul(branches)
            .wrapping_add(port as u64);
        self
    }

    /// What a feed read together, and by which way the rows have come from there: as split events name both.
    ///
    /// Other than [`Batch::split_key`] where rows were kept on disk meanwhile, and where one transform tells apart
    /// what came to it by one way.
    pub(crate) fn origin(&self) -> SplitKey {
        self.origin
    }

    /// The same rows, which a feed gives as those of `part`.
    pub(crate) fn of_part(mut self, part: SplitKey) -> Self {
        self.origin = part;
        self
    }

    /// The same rows, or the same word of a split, come by input `port` of several.
    pub(crate) fn by_way(mut self, port: usize) -> Self {
        self.origin.branch = further(self.origin.branch, port);
        if let Some(key) = self.event.as_mut().and_then(|e| Arc::make_mut(e).key_mut()) {
            key.branch = further(key.branch, port);
        }
        self
    }

    /// Where each row stands in its split, in one pass; `None` where they only stand at or after some row.
    pub(crate) fn row_numbers(&self) -> Option<Vec<u64>> {
        if !self.exact {
            return None;
        }
        let number = |i: usize| match &self.runs {
            Some(runs) => line_in(runs, i),
            None => self.first_row + i as u64,
        };
        let Some((first, others)) = self.masks.split_first() else {
            return Some((0..self.n_rows()).map(number).collect());
        };
        let is_true = |mask: &BooleanArray, i: usize| mask.is_valid(i) && mask.value(i);
        let kept = (0..first.len()).filter(|&i| is_true(first, i));
        let mut numbers: Vec<u64> = kept.map(number).collect();
        for mask in others {
            let mut i = 0;
            numbers.retain(|_| {
                i += 1;
                is_true(mask, i - 1)
            });
        }
        Some(numbers)
    }

    /// True if row `i` of the batch is row `position(0).row + i` of the split.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.exact && self.masks.is_empty() && self.runs.is_none()
    }

    /// The same rows, whose positions are lines of a file.
    pub(crate) fn on_lines(mut self, lines: Option<Lines>) -> Self {
        if let Some(Lines { file, runs }) = lines
            && let Some((_, first)) = runs.first()
        {
            self.split = file;
            self.first_row = *first;
            self.unit = RowUnit::Line;
            self.runs = (runs.len() > 1).then_some(runs);
        }
        self
    }

    /// The same rows, whose positions count what `unit` says.
    pub(crate) fn counted_in(mut self, unit: RowUnit) -> Self {
        self.unit = unit;
        self
    }

    /// The same rows, whose positions are only known to be at or after the first.
    pub(crate) fn inexact(mut self) -> Self {
        self.exact = false;
        self.runs = None;
        self
    }

    /// The same rows, which hold `credit` besides what they hold already.
    pub(crate) fn holding(self, credit: &Arc<Credit>) -> Self {
        let n_bytes = self.n_bytes();
        let permit = credit.take_after(n_bytes, self.permit.clone());
        self.with_permit(Some(permit))
    }

    /// The same rows, of which some column of times is known to have this extent.
    pub(crate) fn knowing(mut self, times: KnownExtent) -> Self {
        self.times = Some(Arc::new(times));
        self
    }

    /// The event times of the rows, and the earliest and the latest of them.
    ///
    /// # Errors
    /// As [`event_times`].
    pub(crate) fn event_times(&self) -> Result<(&[i64], Extent)> {
        let times = event_times(&self.rows)?;
        let known = self.times.as_ref().and_then(|known| known.of(times));
        Ok((times, known.unwrap_or_else(|| extent(times))))
    }

    pub(crate) fn with_permit(mut self, permit: Option<Permit>) -> Self {
        self.permit = permit;
        self
    }
}

/// The way that goes on by input `port`: a hash, since digits would run out where many unions follow each other, and
/// one way would be taken for another. The same in all workers, and never saved.
fn further(way: u64, port: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (way, port).hash(&mut hasher);
    hasher.finish()
}

/// How many bytes of memory the values of a column fill.
pub(crate) fn bytes_of(column: &ArrayRef) -> usize {
    let nulls = match column.null_count() {
        0 => 0,
        _ => column.len().div_ceil(8),
    };
    let text = |offsets: &[i32]| {
        let values = offsets
            .last()
            .zip(offsets.first())
            .map(|(end, start)| end - start);
        size_of_val(offsets) + usize::try_from(values.unwrap_or(0)).unwrap_or(0)
    };
    // What the library says of all types, without taking the column apart; this is asked for each batch and node.
    match column.data_type() {
        DataType::Utf8 => nulls + text(column.as_string::<i32>().value_offsets()),
        DataType::Binary => nulls + text(column.as_binary::<i32>().value_offsets()),
        other => match other.primitive_width() {
            Some(width) => nulls + width * column.len(),
            None => column.to_data().get_slice_memory_size().unwrap_or(0),
        },
    }
}

/// The index of the `n`th true value, from 0; the length where there are fewer.
fn nth_true(mask: &BooleanArray, n: usize) -> usize {
    (0..mask.len())
        .filter(|&i| mask.is_valid(i) && mask.value(i))
        .nth(n)
        .unwrap_or(mask.len())
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} rows from {})", self.n_rows(), self.position(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryArray, Decimal128Array, DictionaryArray, Float64Array, Int16Array, StringArray,
        TimestampMillisecondArray,
    };
    use arrow::datatypes::Int8Type;

    /// The library says it of the data that a column is made of.
    #[test]
    fn bytes_are_those_that_the_library_counts() {
        let words = [Some("long enough"), None, Some(""), Some("b"), Some("ccc")];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int16Array::from(vec![1, 2, 3, 4, 5])),
            Arc::new(Float64Array::from(vec![
                Some(0.5),
                None,
                None,
                Some(1.0),
                None,
            ])),
            Arc::new(TimestampMillisecondArray::from(vec![7; 5])),
            Arc::new(Decimal128Array::from(vec![
                Some(1),
                None,
                Some(3),
                None,
                Some(5),
            ])),
            Arc::new(BooleanArray::from(vec![true; 5])),
            Arc::new(words.iter().collect::<StringArray>()),
            Arc::new(BinaryArray::from(vec![&b"aa"[..], b"", b"b", b"cc", b"d"])),
            Arc::new(words.into_iter().collect::<DictionaryArray<Int8Type>>()),
        ];
        for column in columns {
            for (offset, length) in [(0, 5), (0, 0), (1, 3), (4, 1)] {
                let part = column.slice(offset, length);
                let counted = part.to_data().get_slice_memory_size().unwrap();
                assert_eq!(
                    bytes_of(&part),
                    counted,
                    "{} {offset} {length}",
                    part.data_type()
                );
            }
        }
    }

    fn timed(times: &TimestampMillisecondArray) -> RecordBatch {
        let field = crate::event_time::time_field(crate::event_time::EVENT_TIME);
        let schema = Arc::new(Schema::new(vec![field]));
        RecordBatch::try_new(schema, vec![Arc::new(times.clone())]).unwrap()
    }

    /// A batch may know of other times than its rows have, which no more than slows it down.
    #[test]
    fn the_extent_of_event_times_is_that_of_the_rows_there_are() {
        let times = TimestampMillisecondArray::from(vec![5, 3, 9, 4]);
        let known = KnownExtent::new(times.values(), Some((3, 9)));
        let batch = Batch::new(timed(&times)).knowing(known);
        let extent_of = |batch: &Batch| batch.event_times().unwrap().1;
        assert_eq!(extent_of(&batch), Some((3, 9)));
        let some = BooleanArray::from(vec![true, false, false, true]);
        assert_eq!(extent_of(&batch.filter(&some).unwrap()), Some((4, 5)));
        let none = BooleanArray::from(vec![false; 4]);
        assert_eq!(extent_of(&batch.filter(&none).unwrap()), None);
        let part = batch.rows().slice(0, 2);
        assert_eq!(extent_of(&batch.derive(part.clone())), Some((3, 5)));
        assert_eq!(extent_of(&batch.clone().with_columns(part)), Some((3, 5)));
        let others = timed(&TimestampMillisecondArray::from(vec![5, 3, 9, 8]));
        assert_eq!(extent_of(&batch.with_columns(others)), Some((3, 9)));
    }

    /// So that what is behind need not look at all times again.
    #[test]
    fn rows_with_their_event_time_know_its_extent() {
        use crate::transform::Transform;
        let rows = crate::testing::table("t: 5, null, 9, 4");
        let watermarks = crate::ops::Watermarks::monotone();
        let assign = crate::ops::AssignTimestamps::new(crate::expression::col("t"), watermarks);
        let mut operator = assign.build(&crate::artifact::Artifacts::none()).unwrap();
        let mut out = crate::output::Output::new(crate::output::OnBadRow::Drop);
        operator.on_batch(0, Batch::new(rows), &mut out).unwrap();
        let (_, batch) = out.take().remove(0);
        let known = batch.times.as_ref().unwrap();
        let of_rows = known.of(event_times(batch.rows()).unwrap());
        assert_eq!(of_rows, Some(Some((4, 9))));
    }

    /// What is known is what is said, not what is looked for.
    #[test]
    fn an_extent_that_is_known_is_not_looked_for() {
        let times = TimestampMillisecondArray::from(vec![5, 3, 9, 4]);
        let known = KnownExtent::new(times.values(), Some((0, 100)));
        let batch = Batch::new(timed(&times)).knowing(known);
        let renamed = batch.rows().project(&[0]).unwrap();
        let extent_of = |batch: &Batch| batch.event_times().unwrap().1;
        assert_eq!(extent_of(&batch.with_columns(renamed)), Some((0, 100)));
    }
}
