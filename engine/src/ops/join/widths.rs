//! How wide rows are, where some are so wide that a lot of as many pairs as usual would be too large.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

use crate::batch::{BATCH_ROWS, bytes_of};

/// About the most bytes that a lot of pairs has, unless one pair alone has more.
pub(in crate::ops) const LOT_BYTES: u64 = 64 << 20;

/// What goes into one lot, by its bytes.
#[derive(Debug, Default)]
pub(in crate::ops) struct Lot {
    n_bytes: u64,
}

impl Lot {
    pub(in crate::ops) fn is_full(&self) -> bool {
        self.n_bytes >= LOT_BYTES
    }

    /// Takes something of so many bytes.
    pub(in crate::ops) fn take(&mut self, n_bytes: u64) {
        self.n_bytes += n_bytes;
    }

    /// How many of these rows, each beside a row of so many bytes, are taken before it is full.
    pub(super) fn add(&mut self, beside: u64, widths: Option<&Widths>, rows: &[u32]) -> usize {
        if beside == 0 && widths.is_none() {
            return rows.len();
        }
        let taken = rows.iter().take_while(|row| {
            let is_taken = !self.is_full();
            if is_taken {
                self.n_bytes += beside + widths.map_or(0, |w| w.of_row(**row));
            }
            is_taken
        });
        taken.count()
    }
}

/// The bytes of each of many rows, at most the greatest number.
#[derive(Debug)]
pub(in crate::ops) struct Widths(Vec<u32>);

impl Widths {
    /// Of the rows of all batches, one after the other; `None` where no row is wide.
    pub(in crate::ops) fn of(batches: &[RecordBatch]) -> Option<Self> {
        let is_wide = |rows: &RecordBatch| {
            let widest: u64 = rows.columns().iter().map(widest).sum();
            widest > LOT_BYTES / BATCH_ROWS as u64
        };
        if !batches.iter().any(is_wide) {
            return None;
        }
        let mut all = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for rows in batches {
            let mut widths = vec![0; rows.num_rows()];
            for column in rows.columns() {
                add_widths(column, &mut widths);
            }
            all.extend(
                widths
                    .into_iter()
                    .map(|w| u32::try_from(w).unwrap_or(u32::MAX)),
            );
        }
        Some(Self(all))
    }

    /// The bytes of a row; none of a number that stands for no row.
    pub(in crate::ops) fn of_row(&self, row: u32) -> u64 {
        self.0.get(row as usize).copied().map_or(0, u64::from)
    }

    pub(in crate::ops) fn n_bytes(&self) -> u64 {
        (self.0.capacity() * size_of::<u32>()) as u64
    }
}

/// How a column's values are laid out.
enum Values<'a> {
    /// Where each begins and ends, in parts of so many bytes.
    Ranges(&'a [i32], u64),
    LargeRanges(&'a [i64], u64),
    Fields(&'a [ArrayRef]),
    /// All about as wide.
    Even(u64),
}

fn values(column: &ArrayRef) -> Values<'_> {
    let part_of = |values: &ArrayRef| (bytes_of(values) / values.len().max(1)) as u64;
    match column.data_type() {
        DataType::Utf8 => Values::Ranges(column.as_string().value_offsets(), 1),
        DataType::LargeUtf8 => Values::LargeRanges(column.as_string().value_offsets(), 1),
        DataType::Binary => Values::Ranges(column.as_binary().value_offsets(), 1),
        DataType::LargeBinary => Values::LargeRanges(column.as_binary().value_offsets(), 1),
        DataType::List(_) => {
            let lists = column.as_list();
            Values::Ranges(lists.value_offsets(), part_of(lists.values()))
        }
        DataType::LargeList(_) => {
            let lists = column.as_list();
            Values::LargeRanges(lists.value_offsets(), part_of(lists.values()))
        }
        DataType::Struct(_) => Values::Fields(column.as_struct().columns()),
        _ => Values::Even(part_of(column)),
    }
}

/// The bytes of the widest value, or more.
fn widest(column: &ArrayRef) -> u64 {
    let longest = |length: Option<u64>, part| length.unwrap_or(0).saturating_mul(part);
    match values(column) {
        Values::Ranges(ends, part) => {
            let lengths = ends.windows(2).map(|w| u64::from(w[1].abs_diff(w[0])));
            longest(lengths.max(), part)
        }
        Values::LargeRanges(ends, part) => {
            let lengths = ends.windows(2).map(|w| w[1].abs_diff(w[0]));
            longest(lengths.max(), part)
        }
        Values::Fields(columns) => columns.iter().map(widest).sum(),
        Values::Even(width) => width,
    }
}

fn add_widths(column: &ArrayRef, widths: &mut [u64]) {
    match values(column) {
        Values::Ranges(ends, part) => {
            for (width, w) in widths.iter_mut().zip(ends.windows(2)) {
                *width += u64::from(w[1].abs_diff(w[0])).saturating_mul(part);
            }
        }
        Values::LargeRanges(ends, part) => {
            for (width, w) in widths.iter_mut().zip(ends.windows(2)) {
                *width += w[1].abs_diff(w[0]).saturating_mul(part);
            }
        }
        Values::Fields(columns) => columns.iter().for_each(|c| add_widths(c, widths)),
        Values::Even(each) => widths.iter_mut().for_each(|width| *width += each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;
    use arrow::array::{Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{Field, Int32Type};
    use std::sync::Arc;

    #[test]
    fn rows_are_measured_only_where_one_is_wide() {
        let narrow = table("x: 1, 2; name: a, bb");
        assert!(Widths::of(&[narrow]).is_none());
        let text: ArrayRef = Arc::new(StringArray::from(vec![
            Some("x".repeat(10_000)),
            None,
            Some("abc".to_owned()),
        ]));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            Some(vec![]),
            Some(vec![Some(3); 4]),
        ]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let field = Arc::new(Field::new("text", DataType::Utf8, true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, Arc::clone(&text))]));
        let columns = [
            ("text", text),
            ("list", list),
            ("n", number),
            ("nested", nested),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        // A part of a batch has the offsets of the whole.
        let widths = Widths::of(&[rows.slice(1, 2), rows.clone()]).unwrap();
        let all: Vec<u64> = (0..6).map(|row| widths.of_row(row)).collect();
        assert_eq!(all, [8, 3 + 16 + 8 + 3, 20_016, 8, 30, 0]);
    }
}
