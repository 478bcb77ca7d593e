//! Distinct byte strings, one after the other in one buffer.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, GenericByteArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    BinaryType, ByteArrayType, DataType, LargeBinaryType, LargeUtf8Type, Utf8Type,
};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::{Error, Result};

pub(super) fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
    )
}

/// Distinct byte strings with a number each.
#[derive(Default)]
pub(super) struct DistinctBytes {
    hasher: DefaultHashBuilder,
    /// Part of the hash, and the number.
    table: HashTable<(u32, u32)>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl DistinctBytes {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn value(&self, number: usize) -> &[u8] {
        &self.bytes[start(&self.ends, number)..self.ends[number]]
    }

    /// The number of this string, which is added where it is new.
    #[inline]
    pub(super) fn find(&mut self, value: &[u8]) -> usize {
        let Self {
            hasher,
            table,
            bytes,
            ends,
        } = self;
        let hash = hasher.hash_one(value);
        let part = part_of(hash);
        let next = ends.len();
        let stored = |number: u32| {
            let number = number as usize;
            &bytes[start(ends, number)..ends[number]]
        };
        let same = |&(seen, number): &(u32, u32)| seen == part && stored(number) == value;
        match table.entry(hash, same, |&(_, number)| hasher.hash_one(stored(number))) {
            Entry::Occupied(entry) => entry.get().1 as usize,
            Entry::Vacant(entry) => {
                entry.insert((part, u32::try_from(next).unwrap_or(u32::MAX)));
                self.push(value);
                next
            }
        }
    }

    /// A number that no string has, with the empty string in its place.
    pub(super) fn push_empty(&mut self) -> usize {
        self.push(&[]);
        self.len() - 1
    }

    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    /// An error if `n_more` strings might not get a number.
    pub(super) fn check_room(&self, n_more: usize) -> Result<()> {
        if self.len() + n_more < u32::MAX as usize {
            return Ok(());
        }
        Err(Error::data("one worker has more than 4 billion groups")
            .with_hint("Run with more workers."))
    }

    pub(super) fn forget(&mut self) {
        self.table = HashTable::new();
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.table.allocation_size()
            + self.bytes.capacity()
            + self.ends.capacity() * size_of::<usize>()
    }

    /// The strings with these numbers as an array of a type that [`is_bytes`].
    pub(super) fn array(
        &self,
        range: Range<usize>,
        null: Option<usize>,
        data_type: &DataType,
    ) -> Result<ArrayRef> {
        let nulls = null
            .filter(|n| range.contains(n))
            .map(|null| NullBuffer::from_iter(range.clone().map(|number| number != null)));
        match data_type {
            DataType::Utf8 => self.offsets::<Utf8Type>(range, nulls),
            DataType::Binary => self.offsets::<BinaryType>(range, nulls),
            DataType::LargeUtf8 => self.offsets::<LargeUtf8Type>(range, nulls),
            DataType::Utf8View => {
                let text = self.offsets::<LargeUtf8Type>(range, nulls)?;
                Ok(cast(&text, &DataType::Utf8View)?)
            }
            DataType::BinaryView => {
                let bytes = self.offsets::<LargeBinaryType>(range, nulls)?;
                Ok(cast(&bytes, &DataType::BinaryView)?)
            }
            _ => self.offsets::<LargeBinaryType>(range, nulls),
        }
    }

    fn offsets<T: ByteArrayType>(
        &self,
        range: Range<usize>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        let first = start(&self.ends, range.start);
        let lengths = range.clone().map(|n| self.ends[n] - start(&self.ends, n));
        let last = range.clone().last().map_or(first, |n| self.ends[n]);
        let values = Buffer::from(&self.bytes[first..last]);
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(GenericByteArray::<T>::try_new(
            offsets, values, nulls,
        )?))
    }
}

fn start(ends: &[usize], number: usize) -> usize {
    match number {
        0 => 0,
        n => ends[n - 1],
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a part of a hash")]
fn part_of(hash: u64) -> u32 {
    (hash >> 16) as u32
}
