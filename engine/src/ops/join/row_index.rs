//! Rows found by their keys, without more of a join than that.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::keys::{KeyForm, Keys};
use super::table::{Index, KeyLists};
use crate::error::{Error, Result};

/// The first row of each key among some rows.
pub(in crate::ops) struct RowIndex(Index);

impl RowIndex {
    /// Of rows with these key columns, batch by batch, compared as values of `types`; a null key is of no row.
    ///
    /// # Errors
    /// If a key cannot be cast, or there are more than 4 billion rows.
    pub(in crate::ops) fn new(
        batches: impl Iterator<Item = Vec<ArrayRef>>,
        types: &[DataType],
    ) -> Result<Self> {
        let mut words = KeyLists::default();
        let mut bytes = KeyLists::default();
        let mut n_rows = 0u32;
        for columns in batches {
            let n_more = match Keys::encode(&columns, types)? {
                Keys::Words(codes, nulls) => {
                    words.add(&codes, nulls.as_ref(), |_| &[], n_rows)?;
                    codes.len()
                }
                Keys::Bytes(codes, nulls, of) => {
                    bytes.add(&codes, nulls.as_ref(), |row| of.value(row), n_rows)?;
                    codes.len()
                }
            };
            let n_more = u32::try_from(n_more).ok();
            let n_all = n_more.and_then(|n| n_rows.checked_add(n));
            n_rows = n_all.ok_or_else(|| {
                Error::data("both sides of a window have more than 4 billion rows on one worker")
                    .with_hint("Run with more workers, or join in smaller windows.")
            })?;
        }
        // A window's rows: too few for more than one thread.
        let index = match KeyForm::of(types) {
            KeyForm::Word => Index::of_words(vec![(0, words)], false, 1)?,
            KeyForm::Bytes | KeyForm::Rows => Index::of_bytes(vec![(0, bytes)], false, 1)?,
        };
        Ok(Self(index))
    }

    /// The number of the first row that has the key of each of these.
    pub(in crate::ops) fn first_of(
        &self,
        columns: &[ArrayRef],
        types: &[DataType],
    ) -> Result<Vec<Option<u32>>> {
        let found = self.0.find(&Keys::encode(columns, types)?)?;
        let first = found.iter().map(|f| (f.count > 0).then_some(f.first));
        Ok(first.collect())
    }
}
