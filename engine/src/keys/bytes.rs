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
use hashbrown::DefaultHashBuilder;

use super::slots::{EMPTY, Slots};
use crate::error::Result;

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

/// Strings shorter than this are told apart by their `short` alone.
const SHORT: usize = 16;

/// Distinct byte strings with a number each.
pub(super) struct DistinctBytes {
    hasher: DefaultHashBuilder,
    slots: Slots<u128>,
    strings: Strings,
    shorts: Vec<u128>,
    is_frozen: bool,
}

#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    fn value(&self, number: usize) -> &[u8] {
        &self.bytes[start(&self.ends, number)..self.ends[number]]
    }

    fn push(&mut self, value: &[u8]) -> u32 {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
        u32::try_from(self.ends.len() - 1).unwrap_or(u32::MAX)
    }
}

impl Default for DistinctBytes {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            slots: Slots::new(),
            strings: Strings::default(),
            shorts: Vec::new(),
            is_frozen: false,
        }
    }
}

impl DistinctBytes {
    pub(super) fn len(&self) -> usize {
        self.strings.ends.len()
    }

    pub(super) fn value(&self, number: usize) -> &[u8] {
        self.strings.value(number)
    }

    /// Makes room for so many more.
    pub(super) fn make_room(&mut self, n_more: usize) {
        self.slots.make_room(n_more);
    }

    /// From now on none is added.
    pub(super) fn freeze(&mut self) {
        self.is_frozen = true;
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// The number of each of `n` strings, to `groups`; those that are new are added, or not there.
    pub(super) fn find_all<'a>(
        &mut self,
        n: usize,
        string: impl Fn(usize) -> &'a [u8],
        groups: &mut Vec<usize>,
    ) {
        self.shorts.clear();
        self.shorts
            .extend((0..n).map(|row| short(&self.hasher, string(row))));
        self.slots.find_all(
            &self.shorts,
            &mut self.strings,
            |strings, row, number| {
                let is_short = self.shorts[row] >> 120 != u128::from(u8::MAX);
                is_short || strings.value(number as usize) == string(row)
            },
            |strings, row| match self.is_frozen {
                true => EMPTY,
                false => strings.push(string(row)),
            },
            |number| groups.push(number),
        );
    }

    /// A number that no string has, with the empty string in its place.
    pub(super) fn push_empty(&mut self) -> usize {
        self.strings.push(&[]);
        self.len() - 1
    }

    pub(super) fn forget(&mut self) {
        self.slots = Slots::new();
        self.shorts = Vec::new();
    }

    pub(super) fn n_bytes(&self) -> usize {
        let Strings { bytes, ends } = &self.strings;
        let shorts = self.shorts.capacity() * size_of::<u128>();
        self.slots.n_bytes() + shorts + bytes.capacity() + ends.capacity() * size_of::<usize>()
    }

    /// The strings with these numbers, in any order, as [`DistinctBytes::array`].
    pub(super) fn array_of(
        &self,
        numbers: &[usize],
        null: Option<usize>,
        data_type: &DataType,
    ) -> Result<ArrayRef> {
        let mut picked = Self::default();
        for &number in numbers {
            picked.strings.push(self.value(number));
        }
        let all = 0..numbers.len();
        let nulls = null.map(|null| NullBuffer::from_iter(numbers.iter().map(|n| *n != null)));
        picked.typed(all, nulls, data_type)
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
        self.typed(range, nulls, data_type)
    }

    fn typed(
        &self,
        range: Range<usize>,
        nulls: Option<NullBuffer>,
        data_type: &DataType,
    ) -> Result<ArrayRef> {
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
        let Strings { bytes, ends } = &self.strings;
        let first = start(ends, range.start);
        let lengths = range.clone().map(|n| ends[n] - start(ends, n));
        let last = range.clone().last().map_or(first, |n| ends[n]);
        let values = Buffer::from(&bytes[first..last]);
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

/// A short string with its length, or the hash and the first bytes of a long one.
#[inline]
fn short(hasher: &DefaultHashBuilder, value: &[u8]) -> u128 {
    let len = value.len();
    let (low, high) = match len {
        SHORT.. => (
            hasher.hash_one(value),
            first_word(value) >> 8 | u64::from(u8::MAX) << 56,
        ),
        // Two words that overlap, of which the second gives what the first has not.
        8.. => (
            first_word(value),
            last_word(value, 8 * (SHORT - len)) | (len as u64) << 56,
        ),
        _ => (
            value
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
            (len as u64) << 56,
        ),
    };
    u128::from(high) << 64 | u128::from(low)
}

/// The first 8 bytes.
#[inline]
fn first_word(value: &[u8]) -> u64 {
    value
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The last 8 bytes without the first `n_bits` of them.
#[inline]
fn last_word(value: &[u8], n_bits: usize) -> u64 {
    let word = value
        .last_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    u32::try_from(n_bits)
        .ok()
        .and_then(|n| word.checked_shr(n))
        .unwrap_or(0)
}
