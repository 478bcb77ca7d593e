//! Reads a split: the rows that may be wanted, and of them only the columns that are.
//!
//! ```text
//! row groups ─statistics─▶ pages ─page index─▶ rows ─predicate─▶ the other columns of these rows
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::BooleanArray;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::RowGroupMetaData;

use super::super::hive::{HiveColumns, beside, repeat};
use super::super::parquet_file::ParquetBytes;
use super::super::selection::Selection;
use super::super::storage::has_changed;
use super::super::unharmed::unharmed;
use super::chunks::Chunks;
use super::fetching::bytes_wanted;
use super::footers::{ParquetFile, n_rows, unsigned};
use super::page_index::with_pages;
use super::ranges::{Places, Ranges, n_runs};
use super::sieve::Sieve;
use super::splits::{Locator, share};
use super::statistics::rows_that_may_hold;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::predicate::Predicate;
use crate::source::{Position, RowsRead, SplitReader};

/// The columns of the predicate are held for a whole split, so they may be no larger than this.
const MOST_HELD_BYTES: u64 = 32 << 20;

/// Other columns are decoded for the rows that the predicate keeps, if there are at least so many rows
/// for each run of kept ones; else for all. The library decodes all rows where runs are shorter, and then
/// leaving some out only costs: measured with one row in 50, a fifth more than reading all; with one in
/// 100 it saves 40 % of a wide row, with one in 1,000 more than half.
const LEAST_ROWS_PER_RUN: u64 = 64;

/// Rows that were decoded all the same are given only if one in so many is kept, or fewer: then the others are not
/// compared once more, and full batches cost less behind the source than many small ones. Where most are kept,
/// filters behind would copy them again.
const LEAST_LEFT_OUT: u64 = 2;

/// How many rows are decoded at a time where a predicate is asked about them before others have them: fewer calls,
/// and fewer pieces of memory, of which little is kept.
const SIFTED_ROWS: usize = 4 * BATCH_ROWS;

/// Of the rows of a split's first batch one in so many must be left out, or nothing is decoded ahead of the rest.
const LEAST_FIRST_LEFT_OUT: usize = 8;

/// What is asked of a split.
pub(super) struct Request<'a> {
    pub(super) file: &'a ParquetFile,
    pub(super) hive: &'a HiveColumns,
    pub(super) name: String,
    pub(super) locator: Locator,
    pub(super) position: Position,
    pub(super) selection: Selection,
    /// The rows that matter; `None` for all.
    pub(super) wanted: Option<Wanted<'a>>,
}

/// Which rows of a file matter.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// True for them.
    pub(super) predicate: &'a Predicate,
    /// Whether each row group of the file may hold some.
    pub(super) row_groups: &'a [bool],
    /// Whether what the file says of its pages may leave some out.
    pub(super) pages_help: bool,
}

pub(super) struct ParquetReader {
    name: String,
    bytes: ParquetBytes,
    columns: Columns,
    /// Values of columns that stand in the names of folders, as one row.
    constants: Option<RecordBatch>,
    selection: Selection,
    places: Places,
    last: Option<RowsRead>,
    first_row: u64,
    /// Where the rows that have been dealt with end, in the split.
    reached: u64,
    n_given: u64,
    n_rows: u64,
    n_bytes: u64,
}

/// Where the columns of the next rows come from.
enum Columns {
    None,
    All(ParquetRecordBatchReader),
    /// Those that a predicate reads, of rows it was asked about, and the others, of the same rows.
    Two(VecDeque<RecordBatch>, ParquetRecordBatchReader),
    /// Both, of more rows than the predicate keeps.
    Sifted(Box<Sifted>),
}

/// The columns of decoded rows, of which some are given.
struct Sifted {
    held: VecDeque<RecordBatch>,
    reader: ParquetRecordBatchReader,
    rows: Sieve,
}

impl ParquetReader {
    pub(super) fn open(request: Request<'_>) -> Result<Self> {
        let bytes = ParquetBytes::open(&request.file.file)?;
        let scan = Scan::new(&request, &bytes)?;
        let n_rows = request.locator.n_rows;
        let first_row = request.position.0.min(n_rows);
        let groups = &request.file.row_groups()[request.locator.row_groups()];
        let all_bytes = groups.iter().map(|g| bytes_of(g, &scan.wanted)).sum();
        let all_rows = groups.iter().map(self::n_rows).sum();
        let (columns, places) = scan.columns()?;
        Ok(Self {
            columns,
            constants: request.hive.constants(request.file.number)?,
            selection: request.selection,
            places,
            last: None,
            first_row,
            reached: first_row,
            n_given: 0,
            n_rows,
            n_bytes: share(all_bytes, n_rows, all_rows),
            name: request.name,
            bytes,
        })
    }

    fn next_rows(&mut self) -> Result<Option<RecordBatch>> {
        let (name, bytes, at) = (&self.name, &self.bytes, self.reached);
        let next = |reader: &mut ParquetRecordBatchReader| {
            let read = unharmed(|| reader.next().transpose());
            read.map_err(|error| {
                let failure = bytes.failure();
                failure.unwrap_or_else(|| cannot_decode(name, at, error))
            })
        };
        let both = |held: &mut VecDeque<RecordBatch>, reader: &mut ParquetRecordBatchReader| {
            let Some(others) = next(reader)? else {
                return Ok(None);
            };
            let Some(first) = held.pop_front() else {
                return Err(Error::bug(format!("{name}: columns of different lengths")));
            };
            beside(&first, &others).map(Some)
        };
        match &mut self.columns {
            Columns::None => Ok(None),
            Columns::All(reader) => next(reader),
            Columns::Two(held, reader) => both(held, reader),
            Columns::Sifted(sifted) => {
                let Sifted { held, reader, rows } = &mut **sifted;
                rows.next(|| both(held, reader))
            }
        }
    }
}

impl SplitReader for ParquetReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        let Some(rows) = self.next_rows()? else {
            self.reached = self.n_rows;
            return Ok(None);
        };
        let (places, end) = self.places.take(rows.num_rows());
        self.last = Some(places);
        self.reached = end;
        self.n_given += rows.num_rows() as u64;
        let rows = match &self.constants {
            Some(one) => beside(&rows, &repeat(one, rows.num_rows())?)?,
            None => rows,
        };
        Ok(Some(self.selection.arrange(&rows)?))
    }

    fn rows_read(&self) -> Option<RowsRead> {
        self.last.clone()
    }

    fn n_pruned_rows(&self) -> u64 {
        (self.reached - self.first_row).saturating_sub(self.n_given)
    }

    /// The share of the wanted columns' bytes that the rows dealt with so far make up.
    fn bytes_read(&self) -> u64 {
        share(self.n_bytes, self.reached, self.n_rows)
    }
}

/// The rows of a split that are to be read, and how.
struct Scan<'a> {
    request: &'a Request<'a>,
    bytes: &'a ParquetBytes,
    /// A footer in which the row groups below stand at these places.
    footer: ArrowReaderMetadata,
    groups: Vec<usize>,
    /// The rows of the split at which each of these row groups begins, and one behind the last; may lie
    /// before the split.
    starts: Vec<i64>,
    /// The rows that may be wanted.
    ranges: Ranges,
    wanted: ProjectionMask,
}

impl<'a> Scan<'a> {
    fn new(request: &'a Request<'a>, bytes: &'a ParquetBytes) -> Result<Self> {
        let (file, locator) = (request.file, &request.locator);
        let all = locator.row_groups();
        let sizes = file
            .row_groups()
            .get(all.clone())
            .ok_or_else(|| has_changed(file.file.location()))?;
        let rows = request.position.0.min(locator.n_rows)..locator.n_rows;
        let (mut groups, mut starts) = (Vec::new(), Vec::new());
        let mut start = -i64::try_from(locator.first_row).unwrap_or(i64::MAX);
        for (group, size) in all.zip(sizes.iter().map(n_rows)) {
            let end = start.saturating_add(i64::try_from(size).unwrap_or(i64::MAX));
            let is_wanted = request.wanted.is_none_or(|w| w.row_groups[group]);
            if is_wanted && unsigned(end) > rows.start && start < rows.end.cast_signed() {
                groups.push(group);
                starts.push(start..end);
            }
            start = end;
        }
        let names: Vec<&str> = request
            .selection
            .fields()
            .map(|f| f.name().as_str())
            .collect();
        let mut scan = Self {
            wanted: mask(&file.footer, request.hive, &names),
            ranges: Ranges::default(),
            starts: starts.iter().map(|s| s.start).collect(),
            footer: file.footer.clone(),
            request,
            bytes,
            groups,
        };
        let within = |rows_of: &Ranges, at: &Range<i64>| {
            let mut moved = Ranges::default();
            for r in rows_of.iter() {
                let end = unsigned(at.start.saturating_add_unsigned(r.end));
                moved.push(unsigned(at.start.saturating_add_unsigned(r.start))..end);
            }
            moved.clip(rows.clone())
        };
        // Of a remote file, pages outside the split need not be fetched.
        let is_part = locator.n_rows < sizes.iter().map(n_rows).sum();
        let by_pages =
            request.wanted.is_some_and(|w| w.pages_help) || (is_part && bytes.is_remote());
        let pages = match by_pages && !scan.groups.is_empty() {
            true => scan.pages(),
            false => None,
        };
        for (i, at) in starts.iter().enumerate() {
            let rows_of = match (&pages, request.wanted) {
                (Some(footer), Some(wanted)) => {
                    rows_that_may_hold(footer, i, wanted.predicate, |name| {
                        request.hive.known(file.number, name)
                    })
                }
                _ => {
                    let mut whole = Ranges::default();
                    whole.push(0..unsigned(at.end - at.start));
                    whole
                }
            };
            for r in within(&rows_of, at).iter() {
                scan.ranges.push(r.clone());
            }
        }
        if let Some(footer) = pages {
            scan.footer = footer;
            scan.groups = (0..scan.groups.len()).collect();
        }
        Ok(scan)
    }

    /// A footer of the row groups alone, with what is said of their pages.
    fn pages(&self) -> Option<ArrowReaderMetadata> {
        let asked = self
            .request
            .wanted
            .map(|wanted| columns_of(wanted.predicate, &self.footer, self.request.hive));
        let is_asked = |leaf| asked.as_ref().is_some_and(|m| m.leaf_included(leaf));
        let is_remote = self.bytes.is_remote();
        with_pages(&self.footer, &self.groups, is_asked, self.bytes, is_remote)
    }

    /// The same with a footer that tells where pages are, so that those without a wanted row are not read; `None` where
    /// its own does, or none can.
    fn knowing_pages(&self) -> Option<Self> {
        if self.footer.metadata().offset_index().is_some() || self.bytes.is_remote() {
            return None;
        }
        Some(Self {
            request: self.request,
            bytes: self.bytes,
            footer: with_pages(&self.footer, &self.groups, |_| false, self.bytes, false)?,
            groups: (0..self.groups.len()).collect(),
            starts: self.starts.clone(),
            ranges: self.ranges.clone(),
            wanted: self.wanted.clone(),
        })
    }

    /// Where the columns come from, and the rows that they are of.
    fn columns(self) -> Result<(Columns, Places)> {
        if self.ranges.is_empty() {
            return Ok((Columns::None, Places::of(&self.ranges)));
        }
        if let Some((predicate, first, others)) = self.two_steps() {
            return self.filter_first(predicate, first, others);
        }
        self.all_columns()
    }

    fn all_columns(&self) -> Result<(Columns, Places)> {
        let reader = self.read(&self.ranges, self.wanted.clone(), BATCH_ROWS)?;
        Ok((Columns::All(reader), Places::of(&self.ranges)))
    }

    /// The columns that a predicate reads and the others, where it pays to look at the first alone.
    fn two_steps(&self) -> Option<(&'a Predicate, ProjectionMask, ProjectionMask)> {
        let predicate = self.request.wanted?.predicate;
        let (hive, schema) = (self.request.hive, self.footer.schema());
        let read: Vec<&str> = predicate.columns().collect();
        let others: Vec<&str> = self
            .request
            .selection
            .fields()
            .map(|f| f.name().as_str())
            .filter(|name| !read.contains(name))
            .filter(|name| schema.index_of(name).is_ok() && hive.value(0, name).is_none())
            .collect();
        let (first, others) = (
            columns_of(predicate, &self.footer, hive),
            mask(&self.footer, hive, &others),
        );
        let size = |mask: &ProjectionMask| -> u64 {
            let groups = self
                .groups
                .iter()
                .map(|&g| self.footer.metadata().row_group(g));
            groups.map(|g| memory_of(g, mask)).sum()
        };
        let (n_first, n_others) = (size(&first), size(&others));
        (n_first > 0 && n_first <= n_others && n_first <= MOST_HELD_BYTES)
            .then_some((predicate, first, others))
    }

    /// Decodes the columns of the predicate, and the others only of the rows it keeps.
    fn filter_first(
        &self,
        predicate: &Predicate,
        first: ProjectionMask,
        others: ProjectionMask,
    ) -> Result<(Columns, Places)> {
        let constants = self.request.hive.constants(self.request.file.number)?;
        let mut held = VecDeque::new();
        let mut masks = Vec::new();
        let mut compiled = None;
        let mut reader = self.read(&self.ranges, first, SIFTED_ROWS)?;
        loop {
            let rows = unharmed(|| reader.next().transpose());
            let Some(rows) = rows.map_err(|error| self.failed(error))? else {
                break;
            };
            let whole = match &constants {
                Some(one) => beside(&rows, &repeat(one, rows.num_rows())?)?,
                None => rows.clone(),
            };
            let compiled = match &compiled {
                Some(compiled) => compiled,
                None => compiled.insert(predicate.over(&whole.schema())?),
            };
            masks.push(compiled.mask(&whole)?);
            if held.is_empty() && !pays(&masks[0]) {
                return self.all_columns();
            }
            held.push_back(rows);
        }
        let n_kept: usize = masks.iter().map(|m| m.true_count()).sum();
        if n_kept == 0 {
            return Ok((Columns::None, Places::of(&Ranges::default())));
        }
        let n_rows = self.ranges.n_rows();
        if n_runs(&masks) * LEAST_ROWS_PER_RUN > n_rows {
            if (n_kept as u64).saturating_mul(LEAST_LEFT_OUT) > n_rows {
                let held = held.iter().flat_map(in_batches).collect();
                let reader = self.read(&self.ranges, others, BATCH_ROWS)?;
                return Ok((Columns::Two(held, reader), Places::of(&self.ranges)));
            }
            let places = Places::kept(&self.ranges, &masks);
            let reader = self.read(&self.ranges, others, SIFTED_ROWS)?;
            let rows = Sieve::new(masks);
            let sifted = Sifted { held, reader, rows };
            return Ok((Columns::Sifted(Box::new(sifted)), places));
        }
        let ranges = self.ranges.filter(&masks);
        let kept: Vec<RecordBatch> = held
            .iter()
            .zip(&masks)
            .map(|(rows, mask)| filter_record_batch(rows, mask))
            .collect::<Result<_, _>>()?;
        let kept = concat_batches(&kept[0].schema(), &kept)?;
        let held = in_batches(&kept).collect();
        let knowing_pages = self.knowing_pages();
        let reader = knowing_pages
            .as_ref()
            .unwrap_or(self)
            .read(&ranges, others, BATCH_ROWS)?;
        Ok((Columns::Two(held, reader), Places::of(&ranges)))
    }

    /// A reader of these rows of the split, so many at a time.
    fn read(
        &self,
        rows: &Ranges,
        columns: ProjectionMask,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        let groups = self.groups.iter().zip(&self.starts);
        let mut before = 0_u64;
        let mut chosen = Ranges::default();
        let mut wanted = Vec::new();
        for (&group, &start) in groups {
            let size = n_rows(self.footer.metadata().row_group(group));
            let end = unsigned(start.saturating_add_unsigned(size));
            let mut of_group = Ranges::default();
            for range in rows.clip(unsigned(start)..end).iter() {
                let place = |row: u64| (row.cast_signed() - start).cast_unsigned();
                of_group.push(place(range.start)..place(range.end));
                chosen.push(before + place(range.start)..before + place(range.end));
            }
            if self.bytes.is_remote() {
                wanted.extend(bytes_wanted(&self.footer, group, &of_group, &columns));
            }
            before += size;
        }
        let bytes = self.bytes.planned(wanted)?;
        let whole = chosen.n_rows() == before;
        // Of a remote file the pieces that are wanted are planned already.
        let bytes = match whole && !self.bytes.is_remote() {
            true => Chunks::of(bytes, self.footer.metadata(), &self.groups, &columns),
            false => Chunks::none(bytes),
        };
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, self.footer.clone())
                .with_batch_size(batch_rows)
                .with_projection(columns)
                .with_row_groups(self.groups.clone());
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let builder = match whole {
            true => builder,
            false => {
                let ranges = chosen.iter().map(|r| count(r.start)..count(r.end));
                let all = count(before);
                builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, all))
            }
        };
        builder.build().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        let failure = self.bytes.failure();
        failure.unwrap_or_else(|| cannot_decode(&self.request.name, self.request.position.0, error))
    }
}

/// The rows in batches of the usual size, without a copy.
fn in_batches(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let n_rows = rows.num_rows();
    let starts = (0..n_rows).step_by(BATCH_ROWS);
    starts.map(move |at| rows.slice(at, BATCH_ROWS.min(n_rows - at)))
}

/// True unless nearly all rows of the first batch are kept: the others are then not asked about.
fn pays(first: &BooleanArray) -> bool {
    first.true_count() <= first.len() - first.len() / LEAST_FIRST_LEFT_OUT
}

/// The columns of the file that a predicate reads.
pub(super) fn columns_of(
    predicate: &Predicate,
    footer: &ArrowReaderMetadata,
    hive: &HiveColumns,
) -> ProjectionMask {
    let names: Vec<&str> = predicate.columns().collect();
    mask(footer, hive, &names)
}

/// The columns of the file of these names.
fn mask(footer: &ArrowReaderMetadata, hive: &HiveColumns, names: &[&str]) -> ProjectionMask {
    let of_file = names.iter().filter(|name| hive.value(0, name).is_none());
    let places = of_file.filter_map(|name| footer.schema().index_of(name).ok());
    ProjectionMask::roots(footer.parquet_schema(), places)
}

/// The bytes that the wanted columns of a row group take where they are stored.
fn bytes_of(group: &RowGroupMetaData, mask: &ProjectionMask) -> u64 {
    let columns = group.columns().iter().enumerate();
    let wanted = columns.filter(|(leaf, _)| mask.leaf_included(*leaf));
    wanted.map(|(_, c)| unsigned(c.compressed_size())).sum()
}

/// The bytes of memory that the wanted columns of a row group fill, about: values of a fixed width are
/// not smaller for being encoded well.
fn memory_of(group: &RowGroupMetaData, mask: &ProjectionMask) -> u64 {
    use parquet::basic::Type;
    let columns = group.columns().iter().enumerate();
    let wanted = columns.filter(|(leaf, _)| mask.leaf_included(*leaf));
    let of_column = wanted.map(|(_, c)| {
        let width = match c.column_type() {
            Type::BOOLEAN => 1,
            Type::INT32 | Type::FLOAT => 4,
            Type::INT64 | Type::DOUBLE | Type::INT96 => 8,
            Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => 16,
        };
        unsigned(c.uncompressed_size()).max(unsigned(c.num_values()) * width)
    });
    of_column.sum()
}

/// The error of rows that stand after `n_read` rows of the split `name`.
fn cannot_decode(
    name: &str,
    n_read: u64,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let place = format!("{name}, at or after row {n_read}");
    Error::data(format!("{place}: the rows cannot be decoded"))
        .with_detail(format!("{error}."))
        .with_hint("The file is damaged: write it again.")
        .with_source(error)
}
