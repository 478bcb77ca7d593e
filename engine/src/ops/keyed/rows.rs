//! The rows of one key and window that have come in one batch.

use std::any::Any;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::record_batch::RecordBatch;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::event_time::event_times;
use crate::expression::check_column;

/// The rows of a batch in the order of their scopes.
pub(super) struct SortedRows {
    pub(super) rows: RecordBatch,
    /// Where each row stood in the batch.
    pub(super) places: Vec<u32>,
    /// The rows as Rust values, where the transform reads them as such.
    pub(super) typed: Option<Box<dyn Any + Send>>,
}

/// Where the rows of each scope stand, in the order of first sight.
pub(super) type ScopeRanges = Vec<(usize, Range<usize>)>;

/// The rows of one key and window that have come in one batch, in the order in which they came.
#[derive(Clone)]
pub struct KeyRows<'a> {
    sorted: &'a SortedRows,
    range: Range<usize>,
}

impl<'a> KeyRows<'a> {
    pub(super) fn new(sorted: &'a SortedRows, range: Range<usize>) -> Self {
        Self { sorted, range }
    }

    /// How many rows; at least one.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// False: a key without rows is not called.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The rows as a batch, without a copy.
    pub fn batch(&self) -> RecordBatch {
        self.sorted.rows.slice(self.range.start, self.range.len())
    }

    /// The rows as values of the type that the transform has declared with
    /// [`Declared::reads`](super::Declared::reads).
    ///
    /// # Errors
    /// If it has declared another type.
    pub fn read<T: DeserializeOwned + 'static>(&self) -> Result<&'a [T]> {
        let typed = self.sorted.typed.as_ref();
        let all = typed.and_then(|typed| typed.downcast_ref::<Vec<T>>());
        all.map(|all| &all[self.range.clone()]).ok_or_else(|| {
            let wanted = std::any::type_name::<T>();
            Error::pipeline(format!("rows are read as {wanted}, which is not declared"))
                .with_hint("Declare the type with `Declared::reads`.")
        })
    }

    /// The values of a column of numbers, dates or times. Those under a null are arbitrary.
    ///
    /// # Errors
    /// If the column is not there or of another type.
    pub fn values<T: ArrowPrimitiveType>(&self, column: &str) -> Result<&'a [T::Native]> {
        let array = self.array(column)?;
        let values = array.as_primitive_opt::<T>().ok_or_else(|| {
            Error::pipeline(format!(
                "column {column:?} is read as {}, but holds {}",
                T::DATA_TYPE,
                array.data_type()
            ))
        })?;
        Ok(&values.values()[self.range.clone()])
    }

    /// A column of these rows, without a copy.
    ///
    /// # Errors
    /// If it is not there.
    pub fn column(&self, column: &str) -> Result<ArrayRef> {
        Ok(self
            .array(column)?
            .slice(self.range.start, self.range.len()))
    }

    fn array(&self, column: &str) -> Result<&'a ArrayRef> {
        let place = check_column(column, self.sorted.rows.schema_ref())?;
        Ok(self.sorted.rows.column(place))
    }

    /// The event time of each row, in milliseconds.
    ///
    /// # Errors
    /// If the rows have none.
    pub fn times(&self) -> Result<&'a [i64]> {
        Ok(&event_times(&self.sorted.rows)?[self.range.clone()])
    }

    /// The place of a row among the rows of all keys.
    pub(super) fn place(&self, row: usize) -> usize {
        self.range.start + row
    }

    pub(super) fn sorted(&self) -> &'a SortedRows {
        self.sorted
    }
}

impl std::fmt::Debug for KeyRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRows({} rows)", self.len())
    }
}

/// Rows sorted stably by their scope, with the range of each scope in the order of first sight.
///
/// `local_of` says of each scope where it stands among those of the batch; it is left as it was found,
/// all `u32::MAX`, so that nothing is cleared but what was used.
pub(super) fn sorted_by_scope(scopes: &[usize], local_of: &mut [u32]) -> (Vec<u32>, ScopeRanges) {
    let mut seen: Vec<usize> = Vec::new();
    let mut counts: Vec<usize> = Vec::new();
    for &scope in scopes {
        let local = &mut local_of[scope];
        if *local == u32::MAX {
            *local = u32::try_from(seen.len()).unwrap_or(u32::MAX);
            seen.push(scope);
            counts.push(0);
        }
        counts[*local as usize] += 1;
    }
    let mut starts = Vec::with_capacity(counts.len());
    let mut start = 0;
    let mut ranges = Vec::with_capacity(counts.len());
    for (scope, count) in seen.iter().zip(&counts) {
        starts.push(start);
        ranges.push((*scope, start..start + count));
        start += count;
    }
    let mut order = vec![0u32; scopes.len()];
    for (row, scope) in (0u32..).zip(scopes) {
        let next = &mut starts[local_of[*scope] as usize];
        order[*next] = row;
        *next += 1;
    }
    for scope in seen {
        local_of[scope] = u32::MAX;
    }
    (order, ranges)
}
