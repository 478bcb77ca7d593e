//! Keys to numbers: side keys are given numbers, main keys find them.

use std::hash::BuildHasher;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::{Error, Result};
use crate::ops::join::{KeyBytes, Keys, is_long};

/// The keys of some rows, as codes of a fixed size.
pub(super) struct Coded {
    codes: Vec<u128>,
    nulls: Option<arrow::buffer::NullBuffer>,
    /// Of keys that may be longer than their code.
    bytes: Option<KeyBytes>,
}

impl Coded {
    /// Key columns of these types; `None` without keys.
    pub(super) fn new(columns: &[ArrayRef], types: &[DataType]) -> Result<Option<Self>> {
        if types.is_empty() {
            return Ok(None);
        }
        Ok(Some(match Keys::encode(columns, types)? {
            Keys::Words(words, nulls) => Self {
                codes: words.into_iter().map(u128::from).collect(),
                nulls,
                bytes: None,
            },
            Keys::Bytes(codes, nulls, bytes) => Self {
                codes,
                nulls,
                bytes: Some(bytes),
            },
        }))
    }

    /// The code of a row, and its bytes where they are longer; `None` of a null key.
    fn key(&self, row: usize) -> Option<(u128, &[u8])> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        let code = self.codes[row];
        Some(match &self.bytes {
            Some(bytes) if is_long(code) => (code, bytes.value(row)),
            _ => (code, &[]),
        })
    }
}

#[derive(Debug)]
struct Slot {
    code: u128,
    number: u32,
    /// Where the bytes of a long key are.
    start: usize,
    len: usize,
}

/// Distinct keys with a number each, in the order of first sight.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    hasher: DefaultHashBuilder,
    slots: HashTable<Slot>,
    bytes: Vec<u8>,
}

impl Numbers {
    /// The number of a row's key, which is added if it is not there; `None` of a null key.
    pub(super) fn number(&mut self, keys: &Coded, row: usize) -> Result<Option<usize>> {
        let Some((code, long)) = keys.key(row) else {
            return Ok(None);
        };
        if let Some(found) = self.get(code, long) {
            return Ok(Some(found));
        }
        let number = u32::try_from(self.slots.len())
            .map_err(|_| Error::data("a side input has more than 4 billion keys"))?;
        let slot = Slot {
            code,
            number,
            start: self.bytes.len(),
            len: long.len(),
        };
        self.bytes.extend_from_slice(long);
        let hasher = &self.hasher;
        self.slots
            .insert_unique(hasher.hash_one(code), slot, |slot| {
                hasher.hash_one(slot.code)
            });
        Ok(Some(number as usize))
    }

    /// The number of a row's key, if it is there.
    pub(super) fn find(&self, keys: &Coded, row: usize) -> Option<usize> {
        let (code, long) = keys.key(row)?;
        self.get(code, long)
    }

    fn get(&self, code: u128, long: &[u8]) -> Option<usize> {
        let is_same =
            |slot: &Slot| slot.code == code && self.bytes[slot.start..][..slot.len] == *long;
        let found = self.slots.find(self.hasher.hash_one(code), is_same)?;
        Some(found.number as usize)
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.slots.capacity() * (size_of::<Slot>() + 1) + self.bytes.capacity()
    }
}
