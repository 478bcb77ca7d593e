//! Rows of many types for tests of file formats: nulls everywhere, nested, large and small values.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, ListArray, StringArray,
    StructArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Fields, Int32Type, Schema};
use arrow::record_batch::RecordBatch;

/// Columns of many types with these names, six rows; the last is null in every column.
pub(crate) fn every_type(names: &[&str]) -> RecordBatch {
    let items = [
        Some(vec![Some(1), None, Some(i64::MAX)]),
        Some(vec![]),
        None,
        Some(vec![None]),
        Some(vec![Some(-4), Some(5)]),
        None,
    ];
    let list = ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(items);
    let dictionary: DictionaryArray<Int32Type> =
        [Some("a"), None, Some("b"), Some("a"), Some(""), None]
            .into_iter()
            .collect();
    let words: ArrayRef = Arc::new(StringArray::from(vec![
        Some("x"),
        None,
        Some("y"),
        Some("\u{0}"),
        Some("ß\n\"q\""),
        None,
    ]));
    let counts: ArrayRef = Arc::new(Int32Array::from(vec![
        Some(1),
        Some(2),
        None,
        Some(i32::MIN),
        Some(5),
        None,
    ]));
    let fields = Fields::from(vec![
        Field::new("word", words.data_type().clone(), true),
        Field::new("count", counts.data_type().clone(), true),
    ]);
    let present = vec![true, true, false, true, true, false].into();
    let nested = StructArray::new(
        fields,
        vec![Arc::clone(&words), Arc::clone(&counts)],
        Some(present),
    );
    let all: Vec<(&str, ArrayRef)> = vec![
        (
            "boolean",
            Arc::new(BooleanArray::from(vec![
                Some(true),
                Some(false),
                None,
                Some(true),
                Some(false),
                None,
            ])),
        ),
        (
            "int8",
            Arc::new(Int8Array::from(vec![
                Some(1),
                Some(-128),
                None,
                Some(127),
                Some(0),
                None,
            ])),
        ),
        ("int32", counts),
        (
            "int64",
            Arc::new(Int64Array::from(vec![
                Some(i64::MIN),
                Some(i64::MAX),
                None,
                Some(0),
                Some(-1),
                None,
            ])),
        ),
        (
            "uint64",
            Arc::new(UInt64Array::from(vec![
                Some(u64::MAX),
                Some(0),
                None,
                Some(1),
                Some(2),
                None,
            ])),
        ),
        (
            "float32",
            Arc::new(Float32Array::from(vec![
                Some(0.1),
                Some(-0.0),
                None,
                Some(f32::MAX),
                Some(1e-40),
                None,
            ])),
        ),
        (
            "float64",
            Arc::new(Float64Array::from(vec![
                Some(0.1),
                Some(-0.0),
                None,
                Some(f64::MAX),
                Some(5e-324),
                None,
            ])),
        ),
        ("text", words),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![
                Some(&b"\xff\0"[..]),
                Some(b""),
                None,
                Some(b"abc"),
                Some(b"\n"),
                None,
            ])),
        ),
        (
            "date",
            Arc::new(Date32Array::from(vec![
                Some(0),
                Some(19_000),
                None,
                Some(-1),
                Some(1),
                None,
            ])),
        ),
        (
            "time",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(0),
                Some(1_700_000_000_123_456),
                None,
                Some(-1),
                Some(1),
                None,
            ])),
        ),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(vec![Some(123), Some(-1), None, Some(99_999), Some(0), None])
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ),
        ),
        ("list", Arc::new(list)),
        ("struct", Arc::new(nested)),
        ("dictionary", Arc::new(dictionary)),
    ];
    let chosen: Vec<&(&str, ArrayRef)> = match names.is_empty() {
        true => all.iter().collect(),
        false => all.iter().filter(|(n, _)| names.contains(n)).collect(),
    };
    let fields: Vec<Field> = chosen
        .iter()
        .map(|(n, c)| Field::new(*n, c.data_type().clone(), true))
        .collect();
    let columns = chosen.iter().map(|(_, c)| Arc::clone(c)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}
