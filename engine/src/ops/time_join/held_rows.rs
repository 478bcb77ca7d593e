//! The rows that a changing table holds of each key, and which of them counts from when on.
//!
//! ```text
//! changes, in any order within an instant          versions, one of a key and instant
//! code: a, a, a   price: 7, 5, 7   diff: 1, 1, -1  ──▶  price 7 from 1, price 5 from 10
//! time: 1, 10, 10
//! ```
//!
//! Of several rows of one key the newest counts, and when it is taken back the one before it does again: so all
//! rows are kept, as long as they are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use super::key_numbers::NO_KEY;
use super::waiting::Released;
use crate::batch::{BATCH_ROWS, Batch};
use crate::changelog::{diffs, never_added, show_values};
use crate::error::Result;
use crate::event_time::{DIFF, EVENT_TIME, event_times};
use crate::keys::{normal, plain_type};

/// In state: how often a row is there.
const TIMES: &str = "$times";

/// What a row takes besides its bytes, about.
const ROW_BYTES: usize = 160;

/// What the table holds of each key.
pub(super) struct HeldRows {
    schema: SchemaRef,
    /// The columns that make rows equal: all but when and by how much.
    values: Vec<usize>,
    converter: RowConverter,
    /// By the number of the key.
    keys: Vec<OfKey>,
    n_keys: usize,
    n_bytes: usize,
}

/// The bytes of a row's values.
type Bytes = Arc<[u8]>;

#[derive(Clone, Default)]
struct OfKey {
    rows: BTreeMap<Bytes, Held>,
    /// Those that are there, the one that counts last: since when, when it was created, its values.
    order: BTreeSet<(i64, Option<i64>, Bytes)>,
}

/// How often a row is there, and what orders it among those of its key.
#[derive(Clone, Copy)]
struct Held {
    n: i64,
    /// When it last came to be there, or there once more.
    since: i64,
    created: Option<i64>,
}

impl OfKey {
    /// The row that counts.
    fn newest(&self) -> Option<&Bytes> {
        self.order.last().map(|(.., bytes)| bytes)
    }

    /// Sets how often a row is there; gives by how much memory that is more.
    fn set(&mut self, row: Bytes, held: Held) -> isize {
        let n_bytes = isize::try_from(row.len() + ROW_BYTES).unwrap_or(isize::MAX);
        let before = self.rows.get(&row).copied();
        if let Some(before) = before.filter(|held| held.n > 0) {
            self.order
                .remove(&(before.since, before.created, Arc::clone(&row)));
        }
        if held.n > 0 {
            self.order
                .insert((held.since, held.created, Arc::clone(&row)));
        }
        match (before.is_some(), held.n != 0) {
            (had, true) => {
                self.rows.insert(row, held);
                if had { 0 } else { n_bytes }
            }
            (true, false) => {
                self.rows.remove(&row);
                -n_bytes
            }
            (false, false) => 0,
        }
    }
}

/// Versions of rows, as they become known: the key, when, the values, and whether they are those of the row that is
/// there now or of one after which there is none.
type Version = (u32, i64, Bytes, i8);

impl HeldRows {
    /// Rows of a changelog with these columns.
    pub(super) fn new(schema: &SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().enumerate();
        let is_value = |name: &str| name != EVENT_TIME && name != DIFF;
        let (values, fields): (Vec<usize>, Vec<SortField>) = fields
            .filter(|(_, f)| is_value(f.name()))
            .map(|(i, f)| (i, SortField::new(plain_type(f.data_type()))))
            .unzip();
        Ok(Self {
            schema: SchemaRef::clone(schema),
            values,
            converter: RowConverter::new(fields)?,
            keys: Vec::new(),
            n_keys: 0,
            n_bytes: 0,
        })
    }

    /// Takes in changes, in whole instants, none from before those that were taken in already, with when each row was
    /// created; gives the versions that follow, by time.
    pub(super) fn take_in(
        &mut self,
        changes: &[Released],
        created: &[Option<i64>],
    ) -> Result<Vec<Released>> {
        let keys = changes.iter().flat_map(|c| c.keys.iter().copied());
        let times = changes.iter().flat_map(|c| c.times.iter().copied());
        let mut order: Vec<(i64, u32, usize)> = times
            .zip(keys)
            .enumerate()
            .map(|(n, (time, key))| (time, key, n))
            .collect();
        order.sort_unstable();
        let mut rows = Vec::with_capacity(order.len());
        for change in changes {
            let all = self.bytes(change.batch.rows())?;
            let diffs = diffs(change.batch.rows())?.iter().copied();
            rows.extend(all.into_iter().zip(diffs));
        }
        let mut versions: Vec<Version> = Vec::new();
        for run in order.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (time, key, _) = run[0];
            // All changes of one instant together, in whichever order they came.
            let mut sums: BTreeMap<&Bytes, (i64, Option<i64>)> = BTreeMap::new();
            for &(.., n) in run {
                let (row, diff) = &rows[n];
                let sum = sums.entry(row).or_default();
                sum.0 += i64::from(*diff);
                sum.1 = created.get(n).copied().flatten();
            }
            let before = self.of_key(key).newest().cloned();
            for (row, (by, created)) in sums {
                self.add(key, Arc::clone(row), by, time, created);
            }
            let version = match (before, self.of_key(key).newest()) {
                (before, Some(row)) if before.as_ref() != Some(row) => Some((Arc::clone(row), 1)),
                (Some(row), None) => Some((row, -1)),
                _ => None,
            };
            versions.extend(version.map(|(row, diff)| (key, time, row, diff)));
        }
        versions
            .chunks(BATCH_ROWS)
            .map(|versions| self.released(versions))
            .collect()
    }

    fn of_key(&mut self, key: u32) -> &mut OfKey {
        let key = key as usize;
        if self.keys.len() <= key {
            self.keys.resize(key + 1, OfKey::default());
        }
        &mut self.keys[key]
    }

    fn add(&mut self, key: u32, row: Bytes, by: i64, time: i64, created: Option<i64>) {
        if by == 0 {
            return;
        }
        let of_key = self.of_key(key);
        let was_empty = of_key.rows.is_empty();
        let held = match of_key.rows.get(&row) {
            Some(held) => Held {
                n: held.n + by,
                since: if by > 0 { time } else { held.since },
                ..*held
            },
            None => Held {
                n: by,
                since: time,
                created,
            },
        };
        let more = of_key.set(row, held);
        let is_empty = of_key.rows.is_empty();
        self.n_bytes = self.n_bytes.saturating_add_signed(more);
        self.n_keys += usize::from(was_empty && !is_empty);
        self.n_keys -= usize::from(!was_empty && is_empty);
    }

    fn bytes(&self, rows: &RecordBatch) -> Result<Vec<Bytes>> {
        let columns = self.values.iter().map(|&i| {
            let column = rows.column(i);
            normal(&cast(column, &plain_type(column.data_type()))?)
        });
        let rows = self
            .converter
            .convert_columns(&columns.collect::<Result<Vec<ArrayRef>>>()?)?;
        Ok(rows.iter().map(|row| Arc::from(row.data())).collect())
    }

    /// Rows of the table's columns.
    fn rows<'a>(
        &self,
        values: impl Iterator<Item = &'a Bytes>,
        times: impl Iterator<Item = i64>,
        diffs: impl Iterator<Item = i8>,
    ) -> Result<RecordBatch> {
        let parser = self.converter.parser();
        let made = self
            .converter
            .convert_rows(values.map(|bytes| parser.parse(bytes)))?;
        let times = PrimitiveArray::<TimestampMillisecondType>::from_iter_values(times);
        let diffs = Int8Array::from_iter_values(diffs);
        let mut made = made.into_iter();
        let columns = self.schema.fields().iter().enumerate().map(|(i, field)| {
            let column = match self.values.contains(&i) {
                true => made.next(),
                false => None,
            };
            match column {
                Some(column) => Ok(cast(&column, field.data_type())?),
                None if field.name() == EVENT_TIME => Ok(Arc::new(times.clone()) as ArrayRef),
                None => Ok(Arc::new(diffs.clone()) as ArrayRef),
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(
            SchemaRef::clone(&self.schema),
            columns,
        )?)
    }

    fn released(&self, versions: &[Version]) -> Result<Released> {
        let times = versions.iter().map(|(_, time, ..)| *time);
        let rows = self.rows(
            versions.iter().map(|(.., row, _)| row),
            times.clone(),
            versions.iter().map(|(.., diff)| *diff),
        )?;
        Ok(Released {
            batch: Batch::new(rows).inexact(),
            keys: versions.iter().map(|(key, ..)| *key).collect(),
            times: times.collect(),
        })
    }

    /// Refuses a row that is there less often than not at all, once no change can come any more.
    pub(super) fn check_end(&self) -> Result<()> {
        let mut rows = self.keys.iter().flat_map(|of_key| &of_key.rows);
        let Some((row, _)) = rows.find(|(_, held)| held.n < 0) else {
            return Ok(());
        };
        let shown = self.rows([row].into_iter(), [0].into_iter(), [-1].into_iter())?;
        let values = shown.project(&self.values)?;
        let names: Vec<String> = values
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        Err(match show_values(&names, values.columns()) {
            Some(shown) => never_added().with_detail(format!("The row is {shown}.")),
            None => never_added(),
        })
    }

    /// How many keys have rows.
    pub(super) fn n_keys(&self) -> usize {
        self.n_keys
    }

    /// Marks the keys that have rows.
    pub(super) fn mark(&self, is_kept: &mut [bool]) {
        for (kept, of_key) in is_kept.iter_mut().zip(&self.keys) {
            *kept |= !of_key.rows.is_empty();
        }
    }

    /// Gives keys their new numbers; those that have none have no rows.
    pub(super) fn renumber(&mut self, new_numbers: &[u32]) {
        let keys = std::mem::take(&mut self.keys);
        for (of_key, &new) in keys.into_iter().zip(new_numbers) {
            if new != NO_KEY {
                *self.of_key(new) = of_key;
            }
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes + self.keys.capacity() * size_of::<OfKey>()
    }

    /// All rows, with since when they are there, and how often in a last column.
    pub(super) fn all(&self) -> Result<Vec<RecordBatch>> {
        let rows: Vec<(&Bytes, &Held)> = self.keys.iter().flat_map(|of_key| &of_key.rows).collect();
        let schema = self.schema_of_state();
        let part = |rows: &[(&Bytes, &Held)]| {
            let columns = self.rows(
                rows.iter().map(|(row, _)| *row),
                rows.iter().map(|(_, held)| held.since),
                rows.iter().map(|_| 1),
            )?;
            let mut columns = columns.columns().to_vec();
            let n = rows.iter().map(|(_, held)| held.n);
            columns.push(Arc::new(Int64Array::from_iter_values(n)));
            Ok(RecordBatch::try_new(SchemaRef::clone(&schema), columns)?)
        };
        rows.chunks(BATCH_ROWS).map(part).collect()
    }

    fn schema_of_state(&self) -> SchemaRef {
        let mut fields = self.schema.fields().to_vec();
        fields.push(Arc::new(Field::new(TIMES, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    }

    /// Takes back what [`HeldRows::all`] gave, with the numbers of the keys and when rows were created; false if the
    /// rows are others.
    pub(super) fn restore(
        &mut self,
        state: &RecordBatch,
        rows: &RecordBatch,
        keys: &[u32],
        created: &[Option<i64>],
    ) -> Result<bool> {
        let times = state.column_by_name(TIMES);
        let Some(times) = times.and_then(|c| c.as_primitive_opt::<Int64Type>()) else {
            return Ok(false);
        };
        let bytes = self.bytes(rows)?.into_iter();
        let of_rows = bytes.zip(keys).zip(event_times(rows)?).zip(times.values());
        for (n, (((row, &key), &since), &times)) in of_rows.enumerate() {
            self.add(key, row, times, since, created.get(n).copied().flatten());
        }
        Ok(true)
    }
}
