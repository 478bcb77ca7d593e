//! Several keys: each column has numbers of its own, and pairs of numbers are numbered again.
//!
//! ```text
//! a ─▶ number of a ─┐
//! b ─▶ number of b ─┴▶ number of (a, b) ─┐
//! c ─▶ number of c ──────────────────────┴▶ number of ((a, b), c)
//! ```
//!
//! Columns mostly have far fewer values than there are groups, so that their tables stay in the caches,
//! and no row is written out to be compared.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, UInt64Type};

use super::fixed::FixedKeys;
use super::{Keys, check_room, keys_of};
use crate::error::Result;

/// The distinct combinations of at least two columns.
pub(super) struct SeveralKeys {
    columns: Vec<Box<dyn Keys>>,
    /// The numbers of the first columns together, and of the next.
    pairs: Vec<FixedKeys<UInt64Type>>,
    numbers: Vec<usize>,
    values: Vec<u64>,
}

impl SeveralKeys {
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        let columns = types.iter().map(|t| keys_of(std::slice::from_ref(t)));
        let pairs = (1..types.len()).map(|_| FixedKeys::new(DataType::UInt64));
        Ok(Self {
            columns: columns.collect::<Result<_>>()?,
            pairs: pairs.collect(),
            numbers: Vec::new(),
            values: Vec::new(),
        })
    }
}

impl Keys for SeveralKeys {
    fn number(
        &mut self,
        columns: &[ArrayRef],
        n_rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        check_room(self.len() + n_rows)?;
        self.columns[0].number(&columns[..1], n_rows, groups)?;
        for (n, pairs) in self.pairs.iter_mut().enumerate() {
            let one = &columns[n + 1..n + 2];
            self.columns[n + 1].number(one, n_rows, &mut self.numbers)?;
            let both = groups.iter().zip(&self.numbers);
            self.values.clear();
            self.values
                .extend(both.map(|(a, b)| (*a as u64) << 32 | *b as u64));
            groups.clear();
            pairs.number_values(&self.values, groups);
        }
        Ok(())
    }

    fn freeze(&mut self) {
        self.columns.iter_mut().for_each(|c| c.freeze());
        self.pairs.iter_mut().for_each(Keys::freeze);
    }

    fn expect(&mut self, n_keys: usize) {
        if let Some(pairs) = self.pairs.last_mut() {
            pairs.expect(n_keys);
        }
    }

    fn len(&self) -> usize {
        self.pairs.last().map_or(0, Keys::len)
    }

    fn columns(&self, range: Range<usize>) -> Result<Vec<ArrayRef>> {
        self.columns_of(&range.collect::<Vec<_>>())
    }

    fn columns_of(&self, numbers: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut numbers = numbers.to_vec();
        let mut columns = Vec::with_capacity(self.columns.len());
        let half = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        for (n, pairs) in self.pairs.iter().enumerate().rev() {
            let values = numbers.iter().map(|number| pairs.values()[*number]);
            let (first, second): (Vec<usize>, Vec<usize>) = values
                .map(|value| (half(value >> 32), half(value & u64::from(u32::MAX))))
                .unzip();
            columns.extend(self.columns[n + 1].columns_of(&second)?);
            numbers = first;
        }
        columns.extend(self.columns[0].columns_of(&numbers)?);
        columns.reverse();
        Ok(columns)
    }

    fn forget(&mut self) {
        self.columns.iter_mut().for_each(|c| c.forget());
        self.pairs.iter_mut().for_each(Keys::forget);
    }

    fn n_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(|c| c.n_bytes()).sum();
        let pairs: usize = self.pairs.iter().map(Keys::n_bytes).sum();
        columns + pairs + (self.numbers.capacity() + self.values.capacity()) * size_of::<u64>()
    }
}
