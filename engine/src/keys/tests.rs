//! The laws of all kinds of keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringArray, StructArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use proptest::prelude::*;

use super::*;

/// Each kind of column, made of small integers; some long strings and some short.
fn columns(values: &[Option<i64>]) -> Vec<ArrayRef> {
    let ints: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    let of = |t: DataType| cast(&ints, &t).unwrap();
    let text = |v: i64| {
        if v % 2 == 0 {
            format!("{v}")
        } else {
            format!("a text of some length, and {v}")
        }
    };
    let texts: ArrayRef = Arc::new(values.iter().map(|v| v.map(text)).collect::<StringArray>());
    let text_as = |t: DataType| cast(&texts, &t).unwrap();
    let dictionary = |values| DataType::Dictionary(Box::new(DataType::Int32), Box::new(values));
    let field = |name: &str, a: &ArrayRef| Arc::new(Field::new(name, a.data_type().clone(), true));
    let pair = vec![
        (field("a", &ints), ArrayRef::clone(&ints)),
        (field("b", &texts), ArrayRef::clone(&texts)),
    ];
    let pair: ArrayRef = Arc::new(StructArray::from(pair));
    vec![
        of(DataType::Int8),
        of(DataType::Int16),
        of(DataType::Int32),
        of(DataType::UInt8),
        of(DataType::UInt64),
        of(DataType::Float16),
        of(DataType::Float32),
        of(DataType::Float64),
        of(DataType::Boolean),
        of(DataType::Decimal128(20, 2)),
        of(DataType::Decimal256(40, 2)),
        cast(&of(DataType::Int32), &DataType::Date32).unwrap(),
        of(DataType::Timestamp(
            TimeUnit::Millisecond,
            Some("UTC".into()),
        )),
        of(DataType::Duration(TimeUnit::Second)),
        cast(
            &of(DataType::Int32),
            &DataType::Interval(IntervalUnit::YearMonth),
        )
        .unwrap(),
        text_as(DataType::LargeUtf8),
        text_as(DataType::Utf8View),
        text_as(DataType::Binary),
        text_as(DataType::BinaryView),
        text_as(dictionary(DataType::Utf8)),
        cast(&ints, &dictionary(DataType::Int64)).unwrap(),
        texts,
        ints,
        pair,
    ]
}

/// Some rows of columns as keys take them: plain, but for dictionaries of text.
fn part(columns: &[ArrayRef], rows: Range<usize>) -> Vec<ArrayRef> {
    let of = |column: &ArrayRef| {
        let part = column.slice(rows.start, rows.len());
        let data_type = column.data_type();
        match data_type {
            DataType::Dictionary(_, values) if values.is_string() => part,
            _ => cast(&part, &plain_type(data_type)).unwrap(),
        }
    };
    columns.iter().map(of).collect()
}

fn check(columns: &[ArrayRef], cut: usize) {
    let types: Vec<DataType> = columns.iter().map(|c| plain_type(c.data_type())).collect();
    let mut keys = keys_of(&types).unwrap();
    let n_rows = columns[0].len();
    let (mut all, mut groups) = (Vec::new(), Vec::new());
    for (start, end) in [(0, cut), (cut, n_rows)] {
        let part = part(columns, start..end);
        // Whatever is said of how many come, at first and later.
        keys.expect(match start {
            0 => cut * 64,
            _ => end - start,
        });
        keys.number(&part, end - start, &mut groups).unwrap();
        all.extend_from_slice(&groups);
    }
    let mut next = 0;
    for group in &all {
        assert!(
            *group <= next,
            "numbers are given in the order of first sight"
        );
        next = next.max(group + 1);
    }
    assert_eq!(next, keys.len());
    let whole = keys.columns_of(&all).unwrap();
    let half = keys.len() / 2;
    let parts = [
        keys.columns(0..half).unwrap(),
        keys.columns(half..keys.len()).unwrap(),
    ];
    for (n, (column, t)) in columns.iter().zip(&types).enumerate() {
        assert_eq!(&whole[n], &cast(column, t).unwrap(), "{types:?}");
        let distinct = concat(&[parts[0][n].as_ref(), parts[1][n].as_ref()]).unwrap();
        let numbers: Vec<usize> = (0..keys.len()).collect();
        assert_eq!(
            &distinct,
            &keys.columns_of(&numbers).unwrap()[n],
            "{types:?}"
        );
    }
    assert!(keys.n_bytes() > 0);
    keys.forget();
    assert_eq!(keys.columns_of(&all).unwrap(), whole);
    check_frozen(columns, cut, &all);
}

/// Keys that are seen first after the cut are not there, the others have the numbers that they would have, and it stays
/// so.
fn check_frozen(columns: &[ArrayRef], cut: usize, numbers: &[usize]) {
    let types: Vec<DataType> = columns.iter().map(|c| plain_type(c.data_type())).collect();
    let mut keys = keys_of(&types).unwrap();
    let mut groups = Vec::new();
    keys.number(&part(columns, 0..cut), cut, &mut groups)
        .unwrap();
    let n_keys = keys.len();
    let there = keys.columns(0..n_keys).unwrap();
    keys.freeze();
    let n_rows = numbers.len();
    for rows in [cut..n_rows, 0..n_rows, cut..n_rows] {
        keys.number(&part(columns, rows.clone()), rows.len(), &mut groups)
            .unwrap();
        let expected = numbers[rows].iter().map(|number| match number {
            number if *number < n_keys => *number,
            _ => NOT_THERE,
        });
        assert_eq!(groups, expected.collect::<Vec<_>>(), "{types:?}");
        assert_eq!(keys.len(), n_keys);
    }
    assert_eq!(keys.columns(0..n_keys).unwrap(), there);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_number_stands_for_its_key(
        values in prop::collection::vec(prop::option::of(0i64..40), 1..200),
        cut in 0usize..200,
    ) {
        let cut = cut.min(values.len());
        let all = columns(&values);
        for column in &all {
            check(std::slice::from_ref(column), cut);
        }
        for three in all.windows(3) {
            check(three, cut);
        }
    }
}

#[test]
fn distinct_keys_are_as_many_as_distinct_values() {
    let values: Vec<Option<i64>> = (0..100).map(|i| (i % 7 != 0).then_some(i % 10)).collect();
    let distinct: std::collections::BTreeSet<_> = values.iter().collect();
    for column in columns(&values) {
        let plain = plain_type(column.data_type());
        let mut keys = keys_of(std::slice::from_ref(&plain)).unwrap();
        let part = cast(&column, &plain).unwrap();
        keys.number(&[part], 100, &mut Vec::new()).unwrap();
        let expected = if plain == DataType::Boolean {
            3
        } else {
            distinct.len()
        };
        assert_eq!(keys.len(), expected, "{plain}");
    }
}

/// Values that lie close together are numbered by a table until one comes that does not.
#[test]
fn numbers_stay_the_same_when_values_come_that_lie_far_away() {
    for near in [0, -2_000, i64::MIN, i64::MAX] {
        let close = (0..6_000).map(|i| Some(near.wrapping_add(i * 7 % 1_900)));
        let far = (0..100).map(|i| Some(near.wrapping_add(i * 1_000_003)));
        let values: Vec<Option<i64>> = close
            .clone()
            .chain([None])
            .chain(far)
            .chain(close)
            .collect();
        let column: ArrayRef = Arc::new(Int64Array::from(values));
        for cut in [0, 1, 3_000, 6_001, 6_050, 9_000] {
            check(&[Arc::clone(&column)], cut);
        }
    }
}
