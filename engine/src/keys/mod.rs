//! Keys to group numbers: equal keys, null included, get one number, in the order of first sight.

mod bytes;
mod dictionary;
mod fixed;
mod near;
mod normal;
mod rows;
mod several;
mod slots;
#[cfg(test)]
mod tests;

pub(crate) use normal::{normal, plain_type};
pub(crate) use slots::Hashed;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use std::ops::Range;

use crate::error::{Error, Result};

/// The number of a key that is not there, once none is added any more.
pub(crate) const NOT_THERE: usize = slots::EMPTY as usize;

/// The distinct keys seen so far, with a number each from 0.
///
/// Values come as [`normal`] makes them.
pub(crate) trait Keys: Send {
    /// The number of each row's key, which replace what is in `groups`.
    ///
    /// # Errors
    /// If the columns are of other types than those the keys were made for.
    fn number(
        &mut self,
        columns: &[ArrayRef],
        n_rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()>;

    /// From now on no key is added: one that is not there has the number [`NOT_THERE`].
    fn freeze(&mut self);

    /// Says that about so many keys are to come, so that their table need not grow step by step.
    fn expect(&mut self, n_keys: usize);

    /// How many distinct keys.
    fn len(&self) -> usize;

    /// The columns of the keys with these numbers.
    ///
    /// # Errors
    /// If they fill more than an array can hold.
    fn columns(&self, range: Range<usize>) -> Result<Vec<ArrayRef>>;

    /// The columns of the keys with these numbers, in this order.
    ///
    /// # Errors
    /// As [`Keys::columns`].
    fn columns_of(&self, numbers: &[usize]) -> Result<Vec<ArrayRef>>;

    /// Forgets how to find a key, which frees most memory; only [`Keys::columns`] may follow.
    fn forget(&mut self);

    /// How many bytes of memory are kept, about.
    fn n_bytes(&self) -> usize;
}

/// Keys of these types, which a row converter takes.
///
/// # Errors
/// If it does not.
pub(crate) fn keys_of(types: &[DataType]) -> Result<Box<dyn Keys>> {
    Ok(match types {
        [] => Box::new(NoKey),
        [one] => match one.primitive_width() {
            Some(1) => Box::new(fixed::FixedKeys::<UInt8Type>::new(one.clone())),
            Some(2) => Box::new(fixed::FixedKeys::<UInt16Type>::new(one.clone())),
            Some(4) => Box::new(fixed::FixedKeys::<UInt32Type>::new(one.clone())),
            Some(8) => Box::new(fixed::FixedKeys::<UInt64Type>::new(one.clone())),
            _ if bytes::is_bytes(one) => Box::new(dictionary::TextKeys::new(one.clone())),
            _ => Box::new(rows::RowKeys::new(types)?),
        },
        _ => Box::new(several::SeveralKeys::new(types)?),
    })
}

/// No key at all: every row is in group 0, which is there without a row too.
struct NoKey;

impl Keys for NoKey {
    fn number(
        &mut self,
        _columns: &[ArrayRef],
        n_rows: usize,
        groups: &mut Vec<usize>,
    ) -> Result<()> {
        groups.clear();
        groups.resize(n_rows, 0);
        Ok(())
    }

    fn freeze(&mut self) {}

    fn expect(&mut self, _n_keys: usize) {}

    fn len(&self) -> usize {
        1
    }

    fn columns(&self, _range: Range<usize>) -> Result<Vec<ArrayRef>> {
        Ok(Vec::new())
    }

    fn columns_of(&self, _numbers: &[usize]) -> Result<Vec<ArrayRef>> {
        Ok(Vec::new())
    }

    fn forget(&mut self) {}

    fn n_bytes(&self) -> usize {
        0
    }
}

/// Numbers are 32 bits wide, and the last is no number.
fn check_room(n_keys: usize) -> Result<()> {
    if n_keys < u32::MAX as usize {
        return Ok(());
    }
    Err(Error::data("one worker has more than 4 billion groups")
        .with_hint("Run with more workers."))
}
