//! Columns to the bytes of rows, and back.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};

use super::row::RowBytes;
use crate::error::Result;
use crate::keys::normal;

/// The bytes of rows of some columns, as arrow-row writes them: those of one column after those of another.
pub(super) struct RowCodec {
    types: Vec<DataType>,
    converter: RowConverter,
}

impl RowCodec {
    pub(super) fn new(types: impl IntoIterator<Item = DataType>) -> Result<Self> {
        let types: Vec<DataType> = types.into_iter().collect();
        let fields = types.iter().map(|t| SortField::new(t.clone())).collect();
        Ok(Self {
            types,
            converter: RowConverter::new(fields)?,
        })
    }

    pub(super) fn of(schema: &SchemaRef) -> Result<Self> {
        Self::new(schema.fields().iter().map(|f| f.data_type().clone()))
    }

    /// The bytes of `n_rows` rows; 0.0 for -0.0, and one NaN for all.
    pub(super) fn encode(&self, columns: &[ArrayRef], n_rows: usize) -> Result<Vec<RowBytes>> {
        if self.types.is_empty() {
            return Ok(vec![RowBytes::new(&[]); n_rows]);
        }
        let plain = columns.iter().zip(&self.types).map(|(column, data_type)| {
            match column.data_type() == data_type {
                true => normal(column),
                false => normal(&cast(column, data_type)?),
            }
        });
        let rows = self
            .converter
            .convert_columns(&plain.collect::<Result<Vec<_>>>()?)?;
        Ok(rows.iter().map(|row| RowBytes::new(row.as_ref())).collect())
    }

    /// The columns of rows.
    pub(super) fn decode<'a>(
        &self,
        rows: impl Iterator<Item = &'a RowBytes>,
    ) -> Result<Vec<ArrayRef>> {
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        Ok(self
            .converter
            .convert_rows(rows.map(|row| parser.parse(row.bytes())))?)
    }

    /// Rows as a batch of this schema.
    pub(super) fn batch(&self, schema: &SchemaRef, rows: &[&RowBytes]) -> Result<RecordBatch> {
        let columns = self.decode(rows.iter().copied())?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(schema),
            columns,
            &options,
        )?)
    }

    /// The bytes of a row of nulls.
    pub(super) fn nulls(&self) -> Result<RowBytes> {
        let nulls = self
            .types
            .iter()
            .map(|t| arrow::array::new_null_array(t, 1));
        let nulls: Vec<ArrayRef> = nulls.collect();
        let rows = self.encode(&nulls, 1)?;
        Ok(rows
            .into_iter()
            .next()
            .unwrap_or_else(|| RowBytes::new(&[])))
    }

    /// Where the bytes of each column are, if that is the same in all rows.
    pub(super) fn ranges(&self) -> Option<Vec<Range<usize>>> {
        let mut at = 0;
        let width = |data_type: &DataType| match data_type {
            DataType::Boolean => Some(2),
            DataType::Decimal128(..) => Some(17),
            DataType::Interval(_) => None,
            other => other.primitive_width().filter(|w| *w <= 8).map(|w| w + 1),
        };
        self.types
            .iter()
            .map(|data_type| {
                let start = at;
                at += width(data_type)?;
                Some(start..at)
            })
            .collect()
    }
}

/// Columns picked out of rows whose columns are at fixed places.
#[derive(Clone, Debug)]
pub(super) struct Picks {
    ranges: Vec<Range<usize>>,
}

impl Picks {
    /// The columns at `places`; `None` where they are not at fixed places.
    pub(super) fn new(codec: &RowCodec, places: &[usize]) -> Option<Self> {
        let ranges = codec.ranges()?;
        Some(Self {
            ranges: places
                .iter()
                .map(|place| ranges.get(*place).cloned())
                .collect::<Option<_>>()?,
        })
    }

    /// The picked columns of a row.
    pub(super) fn of(&self, row: &RowBytes) -> RowBytes {
        let bytes = row.bytes();
        RowBytes::of_parts(self.ranges.iter().map(|range| &bytes[range.clone()]))
    }

    /// The picked columns of two rows as if the second stood behind the first.
    pub(super) fn of_pair(&self, first: &RowBytes, second: &RowBytes) -> RowBytes {
        let (first, second) = (first.bytes(), second.bytes());
        RowBytes::of_parts(
            self.ranges
                .iter()
                .map(|range| match range.start < first.len() {
                    true => &first[range.clone()],
                    false => &second[range.start - first.len()..range.end - first.len()],
                }),
        )
    }

    /// True if one of the picked columns is null.
    pub(super) fn has_null(&self, row: &RowBytes) -> bool {
        let bytes = row.bytes();
        self.ranges
            .iter()
            .any(|range| bytes.get(range.start) == Some(&0))
    }
}

/// True for each row in which a column is null.
pub(super) fn any_null(columns: &[ArrayRef], n_rows: usize) -> Vec<bool> {
    let mut null = vec![false; n_rows];
    for column in columns.iter().filter(|c| c.null_count() > 0) {
        for (row, null) in null.iter_mut().enumerate() {
            *null |= column.is_null(row);
        }
    }
    null
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{show, table};

    #[test]
    fn columns_stand_where_they_are_said_to() {
        let rows = table("a: 1, null; b: true, false; c: 0.5, -0.0");
        let schema = rows.schema();
        let codec = RowCodec::of(&schema).unwrap();
        let bytes = codec.encode(rows.columns(), 2).unwrap();
        let picks = Picks::new(&codec, &[2, 0]).unwrap();
        let picked: Vec<RowBytes> = bytes.iter().map(|row| picks.of(row)).collect();
        let two = Arc::new(schema.project(&[2, 0]).unwrap());
        let made = RowCodec::of(&two)
            .unwrap()
            .batch(&two, &picked.iter().collect::<Vec<_>>());
        assert_eq!(show(&made.unwrap()), "c: 0.5, 0.0\na: 1, null");
        assert_eq!(
            bytes
                .iter()
                .map(|row| picks.has_null(row))
                .collect::<Vec<_>>(),
            [false, true]
        );
        let pair = Picks::new(
            &RowCodec::new([DataType::Int64, DataType::Int64]).unwrap(),
            &[1, 0],
        );
        let one = RowCodec::new([DataType::Int64]).unwrap();
        let n = one.encode(table("n: 3, 4").columns(), 2).unwrap();
        let turned = pair.unwrap().of_pair(&n[0], &n[1]);
        assert_eq!(turned.bytes(), [n[1].bytes(), n[0].bytes()].concat());
    }

    #[test]
    fn text_stands_nowhere_in_particular() {
        let rows = table("a: x; b: 1");
        let codec = RowCodec::of(&rows.schema()).unwrap();
        assert!(codec.ranges().is_none());
        let bytes = codec.encode(rows.columns(), 1).unwrap();
        assert_eq!(
            show(&codec.batch(&rows.schema(), &[&bytes[0]]).unwrap()),
            show(&rows)
        );
    }
}
