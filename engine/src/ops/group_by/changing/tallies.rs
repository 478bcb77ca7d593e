//! How often each value of each group is there, where rows can be taken back.

use std::collections::BTreeMap;

use arrow::row::Rows;
use hashbrown::HashMap;

use super::aggregate::Changed;
use crate::ops::rows_by_time::Run;

/// How often each value of one group is there, by its bytes.
pub(super) trait Tally: Default {
    /// What an entry takes besides the bytes of its value, about.
    const ENTRY_BYTES: usize;

    fn get_mut(&mut self, value: &[u8]) -> Option<&mut i64>;

    fn insert(&mut self, value: Box<[u8]>, n: i64);

    fn remove(&mut self, value: &[u8]);

    fn iter(&self) -> impl Iterator<Item = (&[u8], i64)>;
}

/// In the order of the values.
pub(super) type Ordered = BTreeMap<Box<[u8]>, i64>;

impl Tally for Ordered {
    const ENTRY_BYTES: usize = 40;

    fn get_mut(&mut self, value: &[u8]) -> Option<&mut i64> {
        self.get_mut(value)
    }

    fn insert(&mut self, value: Box<[u8]>, n: i64) {
        self.insert(value, n);
    }

    fn remove(&mut self, value: &[u8]) {
        self.remove(value);
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], i64)> {
        self.iter().map(|(value, n)| (&**value, *n))
    }
}

/// In no order.
pub(super) type Unordered = HashMap<Box<[u8]>, i64>;

impl Tally for Unordered {
    const ENTRY_BYTES: usize = 32;

    fn get_mut(&mut self, value: &[u8]) -> Option<&mut i64> {
        self.get_mut(value)
    }

    fn insert(&mut self, value: Box<[u8]>, n: i64) {
        self.insert(value, n);
    }

    fn remove(&mut self, value: &[u8]) {
        self.remove(value);
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], i64)> {
        self.iter().map(|(value, n)| (&**value, *n))
    }
}

/// The values of many groups; those that are not there, not even less often than that, are forgotten.
#[derive(Default)]
pub(super) struct Tallies<T> {
    groups: Vec<T>,
    /// Of each group, how many values are there less often than not at all.
    n_missing: Vec<usize>,
    n_bytes: usize,
}

impl<T: Tally> Tallies<T> {
    /// Makes room for groups up to this number.
    pub(super) fn grow(&mut self, n_groups: usize) {
        self.groups.resize_with(n_groups, T::default);
        self.n_missing.resize(n_groups, 0);
    }

    pub(super) fn add(&mut self, group: usize, value: &[u8], weight: i64) {
        let n_bytes = value.len() + T::ENTRY_BYTES;
        let tally = &mut self.groups[group];
        let before = tally.get_mut(value).map_or(0, |n| *n);
        let n_missing = &mut self.n_missing[group];
        *n_missing += usize::from(before + weight < 0);
        *n_missing -= usize::from(before < 0);
        match tally.get_mut(value) {
            Some(n) if *n + weight == 0 => {
                tally.remove(value);
                self.n_bytes -= n_bytes;
            }
            Some(n) => *n += weight,
            None => {
                tally.insert(value.into(), weight);
                self.n_bytes += n_bytes;
            }
        }
    }

    /// Adds the values of a run, whose bytes `rows` has.
    pub(super) fn add_run(&mut self, run: &Run, changed: &Changed<'_>, rows: &Rows) {
        for row in run.rows.clone() {
            let weight = changed.weight(row);
            if weight != 0 {
                self.add(run.group, rows.row(row).as_ref(), weight);
            }
        }
    }

    /// True if a value of the group is there less often than not at all, or more are there than it has rows.
    pub(super) fn is_unsound(&self, group: usize, n_rows: i64) -> bool {
        self.n_missing[group] > 0 || self.groups[group].iter().map(|(_, n)| n).sum::<i64>() > n_rows
    }

    /// How many values of a group are there less often than not at all.
    pub(super) fn n_missing(&self, group: usize) -> usize {
        self.n_missing[group]
    }

    pub(super) fn of(&self, group: usize) -> &T {
        &self.groups[group]
    }

    /// All values of all groups: the group, the value, and how often it is there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[u8], i64)> {
        let groups = self.groups.iter().enumerate();
        groups.flat_map(|(group, tally)| tally.iter().map(move |(value, n)| (group, value, n)))
    }

    /// Keeps these groups, in this order, and forgets all others.
    pub(super) fn keep(&mut self, groups: &[usize]) {
        let kept = groups.iter().map(|g| std::mem::take(&mut self.groups[*g]));
        self.groups = kept.collect();
        self.n_missing = groups.iter().map(|g| self.n_missing[*g]).collect();
        self.n_bytes = self
            .iter()
            .map(|(_, value, _)| value.len() + T::ENTRY_BYTES)
            .sum();
    }

    /// How many bytes of memory they take, about.
    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes + self.groups.capacity() * size_of::<T>()
    }
}
