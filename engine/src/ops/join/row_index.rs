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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    /// What each of `rows` finds among those of `index`, which come in two batches.
    fn found(index: &str, rows: &str) -> Vec<Option<u32>> {
        let (index, rows) = (table(index), table(rows));
        let types: Vec<DataType> = index
            .columns()
            .iter()
            .map(|c| c.data_type().clone())
            .collect();
        let batches = [index.slice(0, 1), index.slice(1, index.num_rows() - 1)];
        let columns = batches.iter().map(|rows| rows.columns().to_vec());
        let index = RowIndex::new(columns, &types).unwrap();
        index.first_of(rows.columns(), &types).unwrap()
    }

    #[test]
    fn the_first_row_with_the_key_is_found() {
        assert_eq!(
            found("k: 3, 1, 3, null", "k: 1, 3, 2, null"),
            [Some(1), Some(0), None, None]
        );
        assert_eq!(
            found(
                "k: 1, 1000000000007, -5000000000000, 1",
                "k: -5000000000000, 7, 1, 1000000000007"
            ),
            [Some(2), None, Some(0), Some(1)]
        );
    }

    #[test]
    fn zeros_are_one_key() {
        assert_eq!(
            found("k: 0.0, 1.5, 2.5", "k: -0.0, 2.5, 3.5"),
            [Some(0), Some(2), None]
        );
    }

    #[test]
    fn text_longer_than_its_code_is_compared_whole() {
        assert_eq!(
            found(
                "k: 'short', 'a text longer than a code', null",
                "k: 'a text longer than a code', 'a text longer than a cone', 'short', null"
            ),
            [Some(1), None, Some(0), None]
        );
    }

    #[test]
    fn all_of_several_keys_must_be_equal_and_none_null() {
        assert_eq!(
            found(
                "k: 1, 1, null; l: 'a', 'b', 'a'",
                "k: 1, 1, null, 2; l: 'b', 'a', 'a', 'a'"
            ),
            [Some(1), Some(0), None, None]
        );
    }
}
