//! Text columns in any of Arrow's forms, word by word.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{ArrowNativeType, DataType, Int32Type};
use mainstem_engine::{Error, Result};

/// Calls `visit` with each word and how often it stands there: once per row, and for a dictionary once
/// per distinct word. Null and the empty text are left out.
pub(crate) fn for_each_word(
    column: &ArrayRef,
    mut visit: impl FnMut(&str, u64) -> Result<()>,
) -> Result<()> {
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        if dictionary.values().is_empty() {
            return Ok(());
        }
        let mut counts = vec![0_u64; dictionary.values().len()];
        let keys = dictionary.normalized_keys();
        for (row, key) in keys.into_iter().enumerate() {
            if dictionary.keys().is_valid(row) {
                counts[key] += 1;
            }
        }
        let mut result = Ok(());
        words(dictionary.values(), |i, word| {
            if let (Some(word), true, Ok(())) = (word, counts[i] > 0, &result) {
                result = visit(word, counts[i]);
            }
        })?;
        return result;
    }
    let mut result = Ok(());
    words(column, |_, word| {
        if let (Some(word), Ok(())) = (word, &result) {
            result = visit(word, 1);
        }
    })?;
    result
}

/// `map` of the word in each row, called once per distinct word of a dictionary; `None` is missing.
pub(crate) fn map_words(
    column: &ArrayRef,
    mut map: impl FnMut(Option<&str>) -> i64,
) -> Result<Vec<i64>> {
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        if dictionary.values().is_empty() {
            return Ok(vec![map(None); column.len()]);
        }
        let mut mapped = vec![map(None); dictionary.values().len()];
        words(dictionary.values(), |i, word| mapped[i] = map(word))?;
        let keys = dictionary.keys();
        if let Some(keys) = keys.as_primitive_opt::<Int32Type>()
            && keys.null_count() == 0
        {
            let of_key = |key: &i32| mapped[key.as_usize()];
            return Ok(keys.values().iter().map(of_key).collect());
        }
        let missing = map(None);
        let of_row = |(row, key): (usize, usize)| {
            if keys.is_valid(row) {
                mapped[key]
            } else {
                missing
            }
        };
        return Ok(dictionary
            .normalized_keys()
            .into_iter()
            .enumerate()
            .map(of_row)
            .collect());
    }
    let mut mapped = Vec::with_capacity(column.len());
    words(column, |_, word| mapped.push(map(word)))?;
    Ok(mapped)
}

/// The words of a column that is not a dictionary, by row; the empty text is missing.
fn words(column: &ArrayRef, mut visit: impl FnMut(usize, Option<&str>)) -> Result<()> {
    let mut each = |row: usize, word: Option<&str>| visit(row, word.filter(|w| !w.is_empty()));
    match column.data_type() {
        DataType::Utf8 => column
            .as_string::<i32>()
            .iter()
            .enumerate()
            .for_each(|(row, word)| each(row, word)),
        DataType::LargeUtf8 => column
            .as_string::<i64>()
            .iter()
            .enumerate()
            .for_each(|(row, word)| each(row, word)),
        DataType::Utf8View => column
            .as_string_view()
            .iter()
            .enumerate()
            .for_each(|(row, word)| each(row, word)),
        DataType::Dictionary(_, _) => {
            let plain = cast(column, &DataType::Utf8)?;
            words(&plain, visit)?;
        }
        other => return Err(Error::bug(format!("text was expected, found {other}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    /// A thousand rows of two words, one of them empty, and null.
    fn dictionary() -> ArrayRef {
        let keys = (0..1000).map(|row| (row % 3 != 2).then_some(row % 3));
        let words = StringArray::from(vec!["oslo", ""]);
        let keys = keys.collect::<arrow::array::Int32Array>();
        Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(words)).unwrap())
    }

    #[test]
    fn the_words_of_a_dictionary_are_mapped_once_each() {
        let mut asked = 0;
        let mapped = map_words(&dictionary(), |word| {
            asked += 1;
            word.map_or(-2, |word| word.len() as i64)
        })
        .unwrap();
        assert_eq!(&mapped[..6], [4, -2, -2, 4, -2, -2]);
        assert!(asked <= 4, "{asked} times");
    }

    #[test]
    fn the_words_of_a_dictionary_are_counted_without_being_decoded() {
        let mut seen = Vec::new();
        for_each_word(&dictionary(), |word, n_rows| {
            seen.push((word.to_owned(), n_rows));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [("oslo".to_owned(), 334)]);
    }
}
