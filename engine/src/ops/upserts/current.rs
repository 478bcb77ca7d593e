//! The row that is there for each key.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};

use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::event_time::EVENT_TIME;
use crate::keys::{Keys, keys_of, normal, plain_type};

/// Keys without a row are forgotten only where there are more than this.
const MIN_DELETED: usize = BATCH_ROWS;

/// How new a row is; the greatest is the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    pub(super) at: i64,
    pub(super) split: u64,
    pub(super) branch: u64,
}

/// The row that is there for each key, and for keys that were taken away since when.
pub(super) struct Current {
    keys: Box<dyn Keys>,
    key_types: Vec<DataType>,
    /// Turns rows without their time to bytes.
    converter: RowConverter,
    /// The columns that are turned to bytes, with their types.
    columns: Vec<(usize, DataType)>,
    rows: Vec<(Option<Box<[u8]>>, Age)>,
    n_deleted: usize,
    /// How many keys without a row it takes before they are looked at again.
    look_at: usize,
    n_bytes: usize,
}

/// Byte strings, one after the other.
#[derive(Default)]
pub(super) struct Bytes {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Bytes {
    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, n: usize) -> &[u8] {
        let start = n.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[n]]
    }
}

impl Current {
    pub(super) fn new(schema: &SchemaRef, keys: &[usize], has_time: bool) -> Result<Self> {
        let of = |n: usize| plain_type(schema.field(n).data_type());
        let key_types: Vec<DataType> = keys.iter().map(|n| of(*n)).collect();
        let is_value = |n: &usize| !(has_time && schema.field(*n).name() == EVENT_TIME);
        let columns = (0..schema.fields().len()).filter(is_value);
        let columns: Vec<_> = columns
            .map(|n| (n, schema.field(n).data_type().clone()))
            .collect();
        let fields = columns.iter().map(|(n, _)| SortField::new(of(*n)));
        Ok(Self {
            keys: keys_of(&key_types)?,
            key_types,
            converter: RowConverter::new(fields.collect())?,
            columns,
            rows: Vec::new(),
            n_deleted: 0,
            look_at: MIN_DELETED,
            n_bytes: 0,
        })
    }

    /// The number of each row's key.
    pub(super) fn number(&mut self, keys: &[ArrayRef], n_rows: usize) -> Result<Vec<usize>> {
        let keys = keys
            .iter()
            .zip(&self.key_types)
            .map(|(key, plain)| normal(&cast(key, plain)?));
        let mut numbers = Vec::new();
        self.keys
            .number(&keys.collect::<Result<Vec<_>>>()?, n_rows, &mut numbers)?;
        let n_new = self.keys.len() - self.rows.len();
        self.n_deleted += n_new;
        let never = Age {
            at: i64::MIN,
            ..Age::default()
        };
        self.rows.resize(self.keys.len(), (None, never));
        Ok(numbers)
    }

    /// The bytes of rows, without their time.
    pub(super) fn bytes(&self, rows: &RecordBatch) -> Result<Rows> {
        let columns = self
            .columns
            .iter()
            .map(|(n, data_type)| normal(&cast(rows.column(*n), &plain_type(data_type))?));
        Ok(self
            .converter
            .convert_columns(&columns.collect::<Result<Vec<_>>>()?)?)
    }

    /// The columns of rows, without their time.
    pub(super) fn columns(&self, rows: &Bytes, range: Range<usize>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let columns = self
            .converter
            .convert_rows(range.map(|n| parser.parse(rows.get(n))))?;
        let pairs = columns.into_iter().zip(&self.columns);
        pairs
            .map(|(column, (_, data_type))| Ok(cast(&column, data_type)?))
            .collect()
    }

    /// Puts a row, or none, in the place of the one of this key, unless that is newer; `changes` hears of
    /// the old row where the new one is another.
    pub(super) fn replace(
        &mut self,
        key: usize,
        new: Option<&[u8]>,
        age: Age,
        changes: impl FnOnce(Option<&[u8]>),
    ) {
        let (old, old_age) = &mut self.rows[key];
        if age < *old_age {
            return;
        }
        *old_age = age;
        if old.as_deref() == new {
            return;
        }
        changes(old.as_deref());
        let len = |row: Option<&[u8]>| row.map_or(0, <[u8]>::len);
        self.n_bytes = self.n_bytes + len(new) - len(old.as_deref());
        match (&old, new) {
            (None, Some(_)) => self.n_deleted -= 1,
            (Some(_), None) => self.n_deleted += 1,
            _ => {}
        }
        *old = new.map(Into::into);
    }

    /// Forgets keys without a row since before `end`, once there are many.
    pub(super) fn forget_deleted_before(&mut self, end: i64) -> Result<()> {
        if self.n_deleted <= self.look_at.max(self.rows.len() / 2) {
            return Ok(());
        }
        let stays = |key: &usize| {
            let (row, age) = &self.rows[*key];
            row.is_some() || age.at >= end
        };
        let staying: Vec<usize> = (0..self.rows.len()).filter(stays).collect();
        let columns = self.keys.columns_of(&staying)?;
        self.keys = keys_of(&self.key_types)?;
        self.keys.number(&columns, staying.len(), &mut Vec::new())?;
        self.rows = staying
            .iter()
            .map(|key| std::mem::take(&mut self.rows[*key]))
            .collect();
        self.n_deleted = self.rows.iter().filter(|(row, _)| row.is_none()).count();
        self.look_at = MIN_DELETED.max(2 * self.n_deleted);
        Ok(())
    }

    /// How many bytes of memory it keeps, about.
    pub(super) fn n_bytes(&self) -> usize {
        self.keys.n_bytes()
            + self.n_bytes
            + self.rows.capacity() * size_of::<(Option<Box<[u8]>>, Age)>()
    }

    /// All keys with their rows, as rows.
    pub(super) fn state(&self, key_names: &[String]) -> Result<Vec<RecordBatch>> {
        let mut parts = Vec::new();
        for start in (0..self.rows.len()).step_by(BATCH_ROWS) {
            let range = start..self.rows.len().min(start + BATCH_ROWS);
            let rows = &self.rows[range.clone()];
            let mut columns = self.keys.columns(range)?;
            columns.push(Arc::new(
                rows.iter()
                    .map(|(row, _)| row.as_deref())
                    .collect::<BinaryArray>(),
            ));
            columns.push(Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|(_, a)| a.at),
            )));
            let of = |order: fn(&Age) -> u64| -> ArrayRef {
                Arc::new(UInt64Array::from_iter_values(
                    rows.iter().map(|(_, a)| order(a)),
                ))
            };
            columns.push(of(|a| a.split));
            columns.push(of(|a| a.branch));
            let names = key_names.iter().map(String::as_str);
            let names = names.chain(["$row", "$at", "$split", "$branch"]);
            let fields = names
                .zip(&columns)
                .map(|(name, c)| Field::new(name, c.data_type().clone(), true));
            let schema = Schema::new(fields.collect::<Vec<_>>());
            parts.push(RecordBatch::try_new(Arc::new(schema), columns)?);
        }
        Ok(parts)
    }

    /// Takes over rows that [`Current::state`] gave.
    pub(super) fn restore(&mut self, state: &RecordBatch) -> Result<()> {
        let n_keys = self.key_types.len();
        let (keys, columns) = state.columns().split_at(n_keys);
        let other = || Error::pipeline("the state is that of other upserts");
        let [row, at, split, branch] = columns else {
            return Err(other());
        };
        let rows = row
            .as_any()
            .downcast_ref::<BinaryArray>()
            .ok_or_else(other)?;
        let at = at.as_any().downcast_ref::<Int64Array>().ok_or_else(other)?;
        let split = split
            .as_any()
            .downcast_ref::<UInt64Array>()
            .ok_or_else(other)?;
        let branch = branch
            .as_any()
            .downcast_ref::<UInt64Array>()
            .ok_or_else(other)?;
        let numbers = self.number(keys, state.num_rows())?;
        for (n, key) in numbers.into_iter().enumerate() {
            let age = Age {
                at: at.value(n),
                split: split.value(n),
                branch: branch.value(n),
            };
            let row = rows.is_valid(n).then(|| rows.value(n));
            self.replace(key, row, age, |_| {});
        }
        Ok(())
    }
}
