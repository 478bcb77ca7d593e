//! The index of a table: the rows of each key.
//!
//! ```text
//! while rows come   key lists by partition: (code, row), ...        partition = top bits of the hash
//! at the end        a hash table per partition, linear probing:     code ─▶ row, or a range of `rows`
//!                   or an array by value, where integers are dense  value ─▶ row, or a range of `rows`
//! ```
//!
//! A slot holds the key itself, so a lookup costs one cache miss. The rows of a key stand in order.

use std::fmt;
use std::hint::black_box;
use std::mem::size_of;

use arrow::buffer::NullBuffer;

use super::keys::{KeyBytes, Keys, is_long};
use crate::error::{Error, Result};

const PARTITION_BITS: u32 = 6;
const PARTITIONS: usize = 1 << PARTITION_BITS;

/// A key as an integer of a fixed size.
pub(super) trait Code: Copy + Eq + Default + fmt::Debug + Send + Sync + 'static {
    /// Where the bytes of a long key are.
    type At: Copy + Default + fmt::Debug + Send + Sync + TryFrom<usize> + TryInto<usize>;

    fn hash(self) -> u64;

    /// The length of a key whose bytes must be compared too; 0 of others.
    fn long(self) -> usize;
}

impl Code for u64 {
    type At = NoBytes;

    fn hash(self) -> u64 {
        fold(self ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93)
    }

    fn long(self) -> usize {
        0
    }
}

impl Code for u128 {
    type At = u64;

    fn hash(self) -> u64 {
        let (low, high) = (self as u64, (self >> 64) as u64);
        fold(low ^ 0x9e37_79b9_7f4a_7c15, high ^ 0xd6e8_feb8_6659_fd93)
    }

    fn long(self) -> usize {
        if is_long(self) {
            self as u32 as usize
        } else {
            0
        }
    }
}

/// The place of no bytes: such keys are never long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NoBytes;

impl From<usize> for NoBytes {
    fn from(_: usize) -> Self {
        Self
    }
}

impl From<NoBytes> for usize {
    fn from(_: NoBytes) -> Self {
        0
    }
}

/// Both halves of the product, so that every bit of the factors counts.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[derive(Clone, Copy, Debug)]
struct Entry<C: Code> {
    code: C,
    at: C::At,
    row: u32,
}

#[derive(Debug)]
struct List<C: Code> {
    entries: Vec<Entry<C>>,
    /// The bytes of long keys, end to end.
    arena: Vec<u8>,
}

/// The keys of some rows, by partition.
#[derive(Debug)]
pub(super) struct KeyLists<C: Code>(Vec<List<C>>);

impl<C: Code> Default for KeyLists<C> {
    fn default() -> Self {
        let list = || List {
            entries: Vec::new(),
            arena: Vec::new(),
        };
        Self((0..PARTITIONS).map(|_| list()).collect())
    }
}

impl<C: Code> KeyLists<C> {
    /// Takes in keys of rows from `first_row` on; a null key is of no row.
    pub(super) fn add<'a>(
        &mut self,
        codes: &[C],
        nulls: Option<&NullBuffer>,
        bytes: impl Fn(usize) -> &'a [u8],
        first_row: u32,
    ) -> Result<()> {
        let share = codes.len() / PARTITIONS;
        for list in self.0.iter_mut().filter(|list| list.entries.is_empty()) {
            list.entries.reserve(share + share / 4);
        }
        for (i, &code) in codes.iter().enumerate() {
            if nulls.is_some_and(|n| n.is_null(i)) {
                continue;
            }
            let list = &mut self.0[partition(code.hash())];
            let mut at = C::At::default();
            if code.long() > 0 {
                at = place(list.arena.len())?;
                list.arena.extend_from_slice(bytes(i));
            }
            list.entries.push(Entry {
                code,
                at,
                row: first_row + i as u32,
            });
        }
        Ok(())
    }

    /// The bytes it keeps, and the most that its part of the index will take: a table may have four slots for
    /// a key, and holds long keys and the numbers of rows once more.
    pub(super) fn n_bytes(&self) -> u64 {
        let each = size_of::<Entry<C>>() + 4 * size_of::<Slot<C>>() + size_of::<u32>();
        let of = |list: &List<C>| list.entries.len() * each + 2 * list.arena.len();
        self.0.iter().map(of).sum::<usize>() as u64
    }

    /// Each row with its key, in no order: the code, and the bytes of a long one.
    pub(super) fn each(&self, mut see: impl FnMut(u32, C, &[u8])) {
        for list in &self.0 {
            for entry in &list.entries {
                see(
                    entry.row,
                    entry.code,
                    stored(&list.arena, entry.code, entry.at),
                );
            }
        }
    }
}

fn partition(hash: u64) -> usize {
    (hash >> (64 - PARTITION_BITS)) as usize
}

fn place<A: TryFrom<usize>>(at: usize) -> Result<A> {
    A::try_from(at).map_err(|_| Error::bug("the keys of a join take more memory than there is"))
}

fn stored<C: Code>(arena: &[u8], code: C, at: C::At) -> &[u8] {
    let start = at.try_into().unwrap_or(0);
    arena.get(start..start + code.long()).unwrap_or_default()
}

/// The rows of a key: one row, or as many from a place in the list of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) first: u32,
    pub(super) count: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot<C: Code> {
    code: C,
    at: C::At,
    found: Found,
}

#[derive(Debug)]
struct Partition<C: Code> {
    /// A power of two of them, at most half full; count 0 is a free one.
    slots: Vec<Slot<C>>,
    arena: Vec<u8>,
    rows: Vec<u32>,
    /// Where its rows begin among those of all partitions.
    base: u32,
}

impl<C: Code> Partition<C> {
    fn with_slots(n_slots: usize) -> Self {
        Self {
            slots: vec![Slot::default(); n_slots.next_power_of_two()],
            arena: Vec::new(),
            rows: Vec::new(),
            base: 0,
        }
    }

    /// The slot of the key, or the free one where it would stand.
    fn seek<'a>(&self, code: C, bytes: impl Fn() -> &'a [u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut i = code.hash() as usize & mask;
        loop {
            let slot = &self.slots[i];
            if slot.found.count == 0 || (slot.code == code && self.is_same(slot, &bytes)) {
                return i;
            }
            i = (i + 1) & mask;
        }
    }

    /// The slot where the search for a hash begins.
    fn home(&self, hash: u64) -> &Slot<C> {
        &self.slots[hash as usize & (self.slots.len() - 1)]
    }

    /// The first slot of this code, whatever its bytes, or the free one where it would stand.
    fn seek_code(&self, code: C) -> &Slot<C> {
        let mask = self.slots.len() - 1;
        let mut i = code.hash() as usize & mask;
        loop {
            let slot = &self.slots[i];
            if slot.found.count == 0 || slot.code == code {
                return slot;
            }
            i = (i + 1) & mask;
        }
    }

    fn is_same<'a>(&self, slot: &Slot<C>, bytes: &impl Fn() -> &'a [u8]) -> bool {
        slot.code.long() == 0 || stored(&self.arena, slot.code, slot.at) == bytes()
    }

    /// The index of entries that stand in the order of their rows; `all_rows` is false where one of each key is enough.
    fn build(lists: &[(u32, List<C>)], all_rows: bool) -> Result<Self> {
        let n_entries: usize = lists.iter().map(|(_, l)| l.entries.len()).sum();
        let mut table = Self::with_slots((2 * n_entries).clamp(1, 1 << 12));
        let (mut n_seen, mut n_keys, mut repeats) = (0usize, 0usize, false);
        for (first_row, list) in lists {
            for entry in &list.entries {
                if 2 * (n_keys + 1) > table.slots.len() {
                    // As many keys as there will be if they go on like this.
                    let expected = (n_keys as u128 * n_entries as u128 / n_seen as u128) as usize;
                    table.grow((2 * expected).max(4 * n_keys));
                }
                n_seen += 1;
                let bytes = || stored(&list.arena, entry.code, entry.at);
                let i = table.seek(entry.code, bytes);
                let slot = &mut table.slots[i];
                if slot.found.count > 0 {
                    repeats = true;
                    slot.found.count += u32::from(all_rows);
                    continue;
                }
                n_keys += 1;
                slot.code = entry.code;
                slot.found = Found {
                    first: first_row + entry.row,
                    count: 1,
                };
                if entry.code.long() > 0 {
                    slot.at = place(table.arena.len())?;
                    table.arena.extend_from_slice(bytes());
                }
            }
        }
        if repeats && all_rows {
            table.rows = vec![0; give_ranges(table.slots.iter_mut().map(|s| &mut s.found))];
            for (first_row, list) in lists {
                for entry in &list.entries {
                    let i = table.seek(entry.code, || stored(&list.arena, entry.code, entry.at));
                    table.slots[i]
                        .found
                        .put(first_row + entry.row, &mut table.rows);
                }
            }
            table.slots.iter_mut().for_each(|s| s.found.close());
        }
        Ok(table)
    }

    fn grow(&mut self, n_slots: usize) {
        let mut grown = Self::with_slots(n_slots);
        grown.arena = std::mem::take(&mut self.arena);
        let mask = grown.slots.len() - 1;
        for slot in self.slots.drain(..).filter(|s| s.found.count > 0) {
            // All keys differ, so the first free slot is right.
            let mut i = slot.code.hash() as usize & mask;
            while grown.slots[i].found.count > 0 {
                i = (i + 1) & mask;
            }
            grown.slots[i] = slot;
        }
        *self = grown;
    }

    fn n_bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot<C>>() + self.arena.len() + self.rows.len() * 4
    }
}

/// Gives each key of several rows a range of the list of rows, and says how long that is.
fn give_ranges<'a>(keys: impl Iterator<Item = &'a mut Found>) -> usize {
    let mut next = 0;
    for found in keys.filter(|f| f.count > 1) {
        found.first = next;
        next += found.count;
    }
    next as usize
}

impl Found {
    /// Puts the next row of the key into its range; until `close`, `first` is where the next one goes.
    fn put(&mut self, row: u32, rows: &mut [u32]) {
        if self.count > 1 {
            rows[self.first as usize] = row;
            self.first += 1;
        }
    }

    fn close(&mut self) {
        if self.count > 1 {
            self.first -= self.count;
        }
    }
}

/// A hash table of the rows of each key.
#[derive(Debug)]
pub(super) struct HashIndex<C: Code> {
    partitions: Vec<Partition<C>>,
    rows: Vec<u32>,
}

impl<C: Code> HashIndex<C> {
    fn build(parts: Vec<(u32, KeyLists<C>)>, all_rows: bool, n_threads: usize) -> Result<Self> {
        let mut by_partition: Vec<Vec<(u32, List<C>)>> = (0..PARTITIONS)
            .map(|_| Vec::with_capacity(parts.len()))
            .collect();
        for (first_row, KeyLists(lists)) in parts {
            for (of, list) in by_partition.iter_mut().zip(lists) {
                of.push((first_row, list));
            }
        }
        let mut partitions = super::build::on_threads(by_partition, n_threads, |lists| {
            Partition::build(&lists, all_rows)
        })?;
        let mut rows = Vec::with_capacity(partitions.iter().map(|p| p.rows.len()).sum());
        for partition in &mut partitions {
            partition.base = rows.len() as u32;
            rows.append(&mut partition.rows);
        }
        Ok(Self { partitions, rows })
    }

    fn find<'a>(
        &self,
        codes: &[C],
        nulls: Option<&NullBuffer>,
        bytes: impl Fn(usize) -> &'a [u8],
    ) -> Vec<Found> {
        let mut all = Vec::with_capacity(codes.len());
        let of = |hash: u64| &self.partitions[partition(hash)];
        for (lot, codes) in codes.chunks(LOT).enumerate() {
            // Loads that wait for nothing overlap: what is compared below has come by then.
            let touch = |t: u32, code: &C| t ^ of(code.hash()).home(code.hash()).found.first;
            black_box(codes.iter().fold(0, touch));
            let mut slots = [None; LOT];
            let mut touched = 0;
            for (slot, code) in slots.iter_mut().zip(codes) {
                let partition = of(code.hash());
                let found = partition.seek_code(*code);
                if found.code.long() > 0 {
                    touched ^= stored(&partition.arena, found.code, found.at)[0];
                }
                *slot = Some(found);
            }
            black_box(touched);
            for (i, (slot, &code)) in slots.iter().flatten().zip(codes).enumerate() {
                let partition = of(code.hash());
                let bytes = || bytes(lot * LOT + i);
                let is_same = slot.found.count == 0 || partition.is_same(slot, &bytes);
                let mut found = match is_same {
                    true => slot.found,
                    // Another key of the same code stands before it, or in its stead.
                    false => partition.slots[partition.seek(code, bytes)].found,
                };
                if found.count > 1 {
                    found.first += partition.base;
                }
                all.push(found);
            }
        }
        if let Some(nulls) = nulls {
            forget_nulls(&mut all, nulls);
        }
        all
    }
}

/// Keys that are looked up together.
const LOT: usize = 128;

/// A null key finds nothing.
fn forget_nulls(found: &mut [Found], nulls: &NullBuffer) {
    for (found, valid) in found.iter_mut().zip(nulls) {
        if !valid {
            *found = Found::default();
        }
    }
}

/// The rows of each value of a dense integer key, by value.
#[derive(Debug)]
pub(super) struct DenseIndex {
    least: i64,
    found: Vec<Found>,
    rows: Vec<u32>,
}

impl DenseIndex {
    /// The least value and how many values there are up to the greatest, where that is few for the rows.
    fn range(parts: &[(u32, KeyLists<u64>)]) -> Option<(i64, usize)> {
        let entries = || {
            parts
                .iter()
                .flat_map(|(_, lists)| &lists.0)
                .flat_map(|l| &l.entries)
        };
        let (mut least, mut most, mut n_entries) = (i64::MAX, i64::MIN, 0usize);
        for entry in entries() {
            let value = entry.code.cast_signed();
            least = least.min(value);
            most = most.max(value);
            n_entries += 1;
        }
        let span = most.checked_sub(least)?;
        let n_values = usize::try_from(span).ok()?.checked_add(1)?;
        (n_entries > 0 && n_values / 4 <= n_entries.max(256)).then_some((least, n_values))
    }

    fn build(parts: &[(u32, KeyLists<u64>)], least: i64, n_values: usize, all_rows: bool) -> Self {
        let mut found = vec![Found::default(); n_values];
        let mut repeats = false;
        let place = |entry: &Entry<u64>| entry.code.cast_signed().wrapping_sub(least) as usize;
        for (first_row, lists) in parts {
            for entry in lists.0.iter().flat_map(|l| &l.entries) {
                let key = &mut found[place(entry)];
                if key.count > 0 {
                    repeats = true;
                    key.count += u32::from(all_rows);
                } else {
                    *key = Found {
                        first: first_row + entry.row,
                        count: 1,
                    };
                }
            }
        }
        let mut rows = Vec::new();
        if repeats && all_rows {
            rows = vec![0; give_ranges(found.iter_mut())];
            for (first_row, lists) in parts {
                for entry in lists.0.iter().flat_map(|l| &l.entries) {
                    found[place(entry)].put(first_row + entry.row, &mut rows);
                }
            }
            found.iter_mut().for_each(Found::close);
        }
        Self { least, found, rows }
    }

    fn find(&self, codes: &[u64], nulls: Option<&NullBuffer>) -> Vec<Found> {
        let look_up = |code: &u64| {
            let place = code.cast_signed().wrapping_sub(self.least).cast_unsigned();
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            self.found.get(place).copied().unwrap_or_default()
        };
        let mut found: Vec<Found> = codes.iter().map(look_up).collect();
        if let Some(nulls) = nulls {
            forget_nulls(&mut found, nulls);
        }
        found
    }
}

/// Where the rows of each key are.
#[derive(Debug)]
pub(super) enum Index {
    Dense(DenseIndex),
    Words(HashIndex<u64>),
    Bytes(HashIndex<u128>),
}

impl Index {
    /// The index of parts, each with the number of its first row.
    pub(super) fn of_words(
        parts: Vec<(u32, KeyLists<u64>)>,
        all_rows: bool,
        n_threads: usize,
    ) -> Result<Self> {
        match DenseIndex::range(&parts) {
            Some((least, n)) => Ok(Self::Dense(DenseIndex::build(&parts, least, n, all_rows))),
            None => Ok(Self::Words(HashIndex::build(parts, all_rows, n_threads)?)),
        }
    }

    /// As [`Index::of_words`], of other keys.
    pub(super) fn of_bytes(
        parts: Vec<(u32, KeyLists<u128>)>,
        all_rows: bool,
        n_threads: usize,
    ) -> Result<Self> {
        Ok(Self::Bytes(HashIndex::build(parts, all_rows, n_threads)?))
    }

    /// What each key finds; a null key finds nothing.
    pub(super) fn find(&self, keys: &Keys) -> Result<Vec<Found>> {
        match (self, keys) {
            (Self::Dense(index), Keys::Words(codes, nulls)) => {
                Ok(index.find(codes, nulls.as_ref()))
            }
            (Self::Words(index), Keys::Words(codes, nulls)) => {
                Ok(index.find(codes, nulls.as_ref(), |_| &[]))
            }
            (Self::Bytes(index), Keys::Bytes(codes, nulls, bytes)) => {
                Ok(index.find(codes, nulls.as_ref(), |i| bytes.value(i)))
            }
            _ => Err(Error::bug("keys of another form than those of the table")),
        }
    }

    /// All rows that were found.
    pub(super) fn rows<'a>(&'a self, found: &'a Found) -> &'a [u32] {
        let rows = match self {
            Self::Dense(index) => &index.rows,
            Self::Words(index) => &index.rows,
            Self::Bytes(index) => &index.rows,
        };
        match found.count {
            0 => &[],
            1 => std::slice::from_ref(&found.first),
            n => &rows[found.first as usize..][..n as usize],
        }
    }

    pub(super) fn n_bytes(&self) -> u64 {
        let n = match self {
            Self::Dense(index) => index.found.len() * size_of::<Found>() + index.rows.len() * 4,
            Self::Words(index) => {
                index
                    .partitions
                    .iter()
                    .map(Partition::n_bytes)
                    .sum::<usize>()
                    + index.rows.len() * 4
            }
            Self::Bytes(index) => {
                index
                    .partitions
                    .iter()
                    .map(Partition::n_bytes)
                    .sum::<usize>()
                    + index.rows.len() * 4
            }
        };
        n as u64
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBytes")
    }
}
