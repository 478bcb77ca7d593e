//! Dictionaries that only grow, for a file format that keeps one dictionary for all batches.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, UInt64Array, make_array};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};

/// The dictionaries of the columns of a file, so far.
pub(crate) struct GrowingDictionaries {
    columns: Vec<Option<GrowingDictionary>>,
}

/// The values of one column met so far, in the order in which they were met.
struct GrowingDictionary {
    converter: RowConverter,
    places: HashMap<OwnedRow, i64>,
    values: ArrayRef,
}

impl GrowingDictionaries {
    pub(crate) fn new(schema: &Schema) -> Result<Self, ArrowError> {
        let column = |field: &Arc<Field>| match field.data_type() {
            DataType::Dictionary(_, values) => GrowingDictionary::new(values).map(Some),
            _ => Ok(None),
        };
        let columns = schema
            .fields()
            .iter()
            .map(column)
            .collect::<Result<_, _>>()?;
        Ok(Self { columns })
    }

    /// The same rows, whose dictionaries begin with those of all batches before.
    pub(crate) fn grow(&mut self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut columns = rows.columns().to_vec();
        for (column, dictionary) in columns.iter_mut().zip(&mut self.columns) {
            if let Some(dictionary) = dictionary {
                *column = dictionary.grow(column)?;
            }
        }
        RecordBatch::try_new(rows.schema(), columns)
    }
}

impl GrowingDictionary {
    fn new(values: &DataType) -> Result<Self, ArrowError> {
        Ok(Self {
            converter: RowConverter::new(vec![SortField::new(values.clone())])?,
            places: HashMap::new(),
            values: arrow::array::new_empty_array(values),
        })
    }

    fn grow(&mut self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let data = column.to_data();
        let DataType::Dictionary(key_type, _) = data.data_type() else {
            return Ok(Arc::clone(column));
        };
        let (Some(own), Some(keys)) = (data.child_data().first(), data.buffers().first()) else {
            return Ok(Arc::clone(column));
        };
        let own = make_array(own.clone());
        // The keys as a column of their own, with the nulls of the column.
        let keys = arrow::array::ArrayData::builder(key_type.as_ref().clone())
            .len(data.len())
            .offset(data.offset())
            .add_buffer(keys.clone())
            .nulls(data.nulls().cloned())
            .build()?;
        let keys = cast(&make_array(keys), &DataType::Int64)?;
        let moved = self.places_of(&own)?;
        let keys = take(&moved, &keys, None)?;
        let keys = cast(&keys, key_type)?;
        let grown = keys
            .to_data()
            .into_builder()
            .data_type(data.data_type().clone())
            .child_data(vec![self.values.to_data()])
            .build()?;
        Ok(make_array(grown))
    }

    /// Where each of these values stands, after those that are new have been added.
    fn places_of(&mut self, values: &ArrayRef) -> Result<Int64Array, ArrowError> {
        let rows = self.converter.convert_columns(&[Arc::clone(values)])?;
        let mut new: Vec<u64> = Vec::new();
        let mut places = Vec::with_capacity(values.len());
        for i in 0..values.len() {
            let next = self.places.len() as i64;
            let place = *self.places.entry(rows.row(i).owned()).or_insert(next);
            if place == next {
                new.push(i as u64);
            }
            places.push(values.is_valid(i).then_some(place));
        }
        if !new.is_empty() {
            let new = take(values, &UInt64Array::from(new), None)?;
            self.values = concat(&[self.values.as_ref(), new.as_ref()])?;
        }
        Ok(places.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::show;
    use arrow::array::{AsArray, DictionaryArray};
    use arrow::datatypes::{Int8Type, UInt16Type};

    #[test]
    fn later_dictionaries_begin_with_the_earlier_ones() {
        let batch = |column: DictionaryArray<UInt16Type>| {
            RecordBatch::try_from_iter([("x", Arc::new(column) as ArrayRef)]).unwrap()
        };
        let first = batch(
            [Some("b"), None, Some("a"), Some("b")]
                .into_iter()
                .collect(),
        );
        let second = batch([Some("c"), Some("a")].into_iter().collect());
        let mut dictionaries = GrowingDictionaries::new(&first.schema()).unwrap();
        for (rows, expected) in [
            (&first, "'b', 'a'"),
            (&second.slice(1, 1), "'b', 'a', 'c'"),
            (&first.slice(2, 2), "'b', 'a', 'c'"),
        ] {
            let grown = dictionaries.grow(rows).unwrap();
            assert_eq!(show(&grown), show(rows));
            let values = grown.column(0).as_dictionary::<UInt16Type>().values();
            let values = RecordBatch::try_from_iter([("v", Arc::clone(values))]).unwrap();
            assert_eq!(show(&values), format!("v: {expected}"));
        }
    }

    #[test]
    fn more_values_than_keys_are_an_error() {
        let batch = |from: i32| {
            let words: Vec<String> = (from..from + 100).map(|i| i.to_string()).collect();
            let column: DictionaryArray<Int8Type> =
                words.iter().map(|w| Some(w.as_str())).collect();
            RecordBatch::try_from_iter([("x", Arc::new(column) as ArrayRef)]).unwrap()
        };
        let mut dictionaries = GrowingDictionaries::new(&batch(0).schema()).unwrap();
        dictionaries.grow(&batch(0)).unwrap();
        assert!(dictionaries.grow(&batch(100)).is_err());
    }
}
