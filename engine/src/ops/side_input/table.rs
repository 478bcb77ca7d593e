//! The rows of one window of the side, or the versions of each of its keys.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use super::lookup::{Coded, Numbers};
use crate::error::{Error, Result};

/// A row of a table, and when it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) time: i64,
    pub(super) row: u32,
}

/// Rows by key; without keys all are of key 0.
#[derive(Debug)]
pub(super) struct Table {
    schema: SchemaRef,
    n_keys: usize,
    numbers: Numbers,
    by_key: Vec<Vec<Entry>>,
    chunks: Vec<RecordBatch>,
    /// The number of the first row of each chunk.
    starts: Vec<u32>,
    n_rows: u32,
    n_bytes: usize,
    is_sorted: bool,
    /// How many rows it takes until versions that nobody can see are looked for.
    n_before_pruning: u32,
}

/// Versions are pruned when there are twice as many rows as were left, and at least as many.
const MIN_PRUNED_ROWS: u32 = 1 << 10;

/// Chunks of more bytes stay apart: the text of one must fit 32 bits.
const MAX_CHUNK_BYTES: usize = 256 << 20;

impl Table {
    pub(super) fn new(schema: &SchemaRef, n_keys: usize) -> Self {
        Self {
            schema: Arc::clone(schema),
            n_keys,
            numbers: Numbers::default(),
            by_key: Vec::new(),
            chunks: Vec::new(),
            starts: Vec::new(),
            n_rows: 0,
            n_bytes: 0,
            is_sorted: true,
            n_before_pruning: MIN_PRUNED_ROWS,
        }
    }

    fn key_types(&self) -> Vec<DataType> {
        let fields = self.schema.fields().iter().take(self.n_keys);
        fields.map(|f| f.data_type().clone()).collect()
    }

    fn coded(&self, rows: &RecordBatch) -> Result<Option<Coded>> {
        Coded::new(&rows.columns()[..self.n_keys], &self.key_types())
    }

    /// Adds rows with their times.
    pub(super) fn add(&mut self, rows: &RecordBatch, times: &[i64]) -> Result<()> {
        let first = self.n_rows;
        let keys = self.coded(rows)?;
        self.push(rows)?;
        for (i, (row, &time)) in (first..).zip(times).enumerate() {
            let Some(number) = self.number(keys.as_ref(), i)? else {
                continue;
            };
            self.by_key[number].push(Entry { time, row });
        }
        self.is_sorted = false;
        Ok(())
    }

    /// Adds versions with the times from which they are valid.
    pub(super) fn add_versions(&mut self, rows: &RecordBatch, times: &[i64]) -> Result<()> {
        let first = self.n_rows;
        let keys = self.coded(rows)?;
        self.push(rows)?;
        for (i, (row, &time)) in (first..).zip(times).enumerate() {
            let Some(number) = self.number(keys.as_ref(), i)? else {
                continue;
            };
            let at = self.by_key[number].partition_point(|e| e.time <= time);
            let before = at
                .checked_sub(1)
                .map(|last| (last, self.by_key[number][last]));
            match before {
                Some((last, same)) if same.time == time => {
                    if self.compare(same.row, row)? == Ordering::Less {
                        self.by_key[number][last] = Entry { time, row };
                    }
                }
                _ => self.by_key[number].insert(at, Entry { time, row }),
            }
        }
        Ok(())
    }

    fn number(&mut self, keys: Option<&Coded>, row: usize) -> Result<Option<usize>> {
        let number = match keys {
            Some(keys) => self.numbers.number(keys, row)?,
            None => Some(0),
        };
        if let Some(number) = number
            && number >= self.by_key.len()
        {
            self.by_key.resize_with(number + 1, Vec::new);
        }
        Ok(number)
    }

    /// Keeps rows; chunks of like size are brought together, so that there are few.
    fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        let n_rows = u32::try_from(rows.num_rows()).ok();
        let Some(n_rows) = n_rows.and_then(|n| self.n_rows.checked_add(n)) else {
            return Err(Error::data("a side input has more than 4 billion rows")
                .with_hint("Divide it into smaller windows, or join both collections instead."));
        };
        self.starts.push(self.n_rows);
        self.n_rows = n_rows;
        self.n_bytes += n_bytes(rows);
        self.chunks.push(rows.clone());
        while let [.., first, second] = self.chunks.as_slice()
            && second.num_rows() * 2 > first.num_rows()
            && n_bytes(first) + n_bytes(second) <= MAX_CHUNK_BYTES
        {
            let both = concat_batches(&self.schema, [first, second])?;
            self.n_bytes -= n_bytes(first) + n_bytes(second);
            self.n_bytes += n_bytes(&both);
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(both);
            self.starts.pop();
        }
        Ok(())
    }

    /// How two rows compare by their values.
    fn compare(&self, a: u32, b: u32) -> Result<Ordering> {
        let [a, b] = [a, b].map(|row| {
            let (chunk, row) = self.place(row);
            self.chunks[chunk].slice(row, 1)
        });
        let bytes = row_converter(&self.schema, self.n_keys)?;
        let of = |rows: &RecordBatch| bytes.convert_columns(&rows.columns()[self.n_keys..]);
        let (a, b) = (of(&a)?, of(&b)?);
        Ok(a.row(0).cmp(&b.row(0)))
    }

    /// The rows of a main row's key, in order.
    pub(super) fn entries(&self, keys: Option<&Coded>, row: usize) -> &[Entry] {
        let number = match keys {
            Some(keys) => self.numbers.find(keys, row),
            None => Some(0),
        };
        number
            .and_then(|n| self.by_key.get(n))
            .map_or(&[], Vec::as_slice)
    }

    /// The version of a main row's key that is valid at its time.
    pub(super) fn version(&self, keys: Option<&Coded>, row: usize, time: i64) -> &[Entry] {
        let versions = self.entries(keys, row);
        match versions.partition_point(|e| e.time <= time) {
            0 => &[],
            n => &versions[n - 1..n],
        }
    }

    /// Brings the rows of each key into the order of their times, and then of their values.
    pub(super) fn sort(&mut self) -> Result<()> {
        if self.is_sorted {
            return Ok(());
        }
        let converter = row_converter(&self.schema, self.n_keys)?;
        let values = self.chunks.iter().map(|c| &c.columns()[self.n_keys..]);
        let values = values.map(|columns| converter.convert_columns(columns));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let bytes = |row: u32| {
            let (chunk, row) = place(&self.starts, row);
            values[chunk].row(row)
        };
        for entries in &mut self.by_key {
            entries.sort_unstable_by(|a, b| {
                a.time
                    .cmp(&b.time)
                    .then_with(|| bytes(a.row).cmp(&bytes(b.row)))
            });
        }
        self.is_sorted = true;
        Ok(())
    }

    /// The chunk of a row, and its place there.
    pub(super) fn place(&self, row: u32) -> (usize, usize) {
        place(&self.starts, row)
    }

    /// The value columns of each chunk.
    pub(super) fn values(&self, column: usize) -> impl Iterator<Item = &ArrayRef> {
        let column = self.n_keys + column;
        self.chunks.iter().map(move |chunk| chunk.column(column))
    }

    pub(super) fn n_chunks(&self) -> usize {
        self.chunks.len()
    }

    /// All rows with their times.
    pub(super) fn rows(&self) -> Result<(RecordBatch, Vec<i64>)> {
        let mut entries: Vec<Entry> = self.by_key.iter().flatten().copied().collect();
        entries.sort_unstable_by_key(|e| e.row);
        let all = concat_batches(&self.schema, &self.chunks)?;
        let rows: UInt32Array = entries.iter().map(|e| e.row).collect();
        Ok((
            take_record_batch(&all, &rows)?,
            entries.iter().map(|e| e.time).collect(),
        ))
    }

    /// Forgets versions that nobody can see whose time is `time` or later, once that is worth it.
    pub(super) fn prune(&mut self, time: i64) -> Result<()> {
        if self.n_rows < self.n_before_pruning {
            return Ok(());
        }
        for versions in &mut self.by_key {
            let n_past = versions.partition_point(|e| e.time <= time);
            versions.drain(..n_past.saturating_sub(1));
        }
        let (rows, times) = self.rows()?;
        let mut left = Self::new(&self.schema, self.n_keys);
        left.add_versions(&rows, &times)?;
        left.n_before_pruning = left.n_rows.saturating_mul(2).max(MIN_PRUNED_ROWS);
        *self = left;
        Ok(())
    }

    pub(super) fn n_bytes(&self) -> usize {
        let by_key = self.by_key.capacity() * size_of::<Vec<Entry>>();
        let entries = self.n_rows as usize * size_of::<Entry>();
        self.n_bytes + self.numbers.n_bytes() + by_key + entries
    }
}

fn place(starts: &[u32], row: u32) -> (usize, usize) {
    let chunk = starts
        .partition_point(|start| *start <= row)
        .saturating_sub(1);
    let start = starts.get(chunk).copied().unwrap_or_default();
    (chunk, (row - start) as usize)
}

/// The values of a table's rows as bytes in their order.
fn row_converter(schema: &SchemaRef, n_keys: usize) -> Result<RowConverter> {
    let fields = schema.fields().iter().skip(n_keys);
    let fields = fields.map(|f| SortField::new(f.data_type().clone()));
    Ok(RowConverter::new(fields.collect())?)
}

fn n_bytes(rows: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    rows.columns().iter().map(of).sum()
}
