//! What a TFRecord sink writes, and that it is read again.

use arrow::datatypes::{Field, Schema};
use expect_test::expect;

use tfrecord::Record;

use super::*;
use crate::connectors::every_type::every_type;
use crate::connectors::test_folder::TestFolder;
use crate::connectors::tfrecord as tfrecord_source;
use crate::output::OnBadRow;
use crate::testing::{check_sink, read_source, table, write_sink};

fn read_back(place: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if !place.exists() {
        return Ok(Vec::new());
    }
    let source = tfrecord_source(place).schema(Arc::clone(schema));
    Ok(vec![read_source(&source, OnBadRow::Fail)?.0])
}

/// Rows without a null in a list.
fn rows() -> RecordBatch {
    let rows = every_type(&[
        "boolean",
        "int8",
        "int32",
        "int64",
        "float32",
        "text",
        "bytes",
        "dictionary",
        "list",
    ]);
    arrow::compute::take_record_batch(&rows, &arrow::array::UInt64Array::from(vec![1, 2, 4, 5]))
        .unwrap()
}

#[test]
fn the_laws_of_sinks_hold_for_rows_of_the_types_that_features_have() {
    let rows = rows();
    let folder =
        |place: &Path| -> Box<dyn Sink> { Box::new(tfrecord_sink(place).rows_per_file(2)) };
    check_sink(&rows, folder, |place| read_back(place, &rows.schema())).unwrap();
}

#[test]
fn a_record_is_what_other_writers_make_of_it() {
    let folder = TestFolder::new();
    write_sink(
        &tfrecord_sink(folder.path("out")),
        &[vec![table("x: 5; y: 'ab'")]],
    )
    .unwrap();
    let bytes = std::fs::read(folder.path("out/part-00000-of-00001.tfrecord")).unwrap();
    let n_bytes = bytes.len() as u64 - 16;
    assert_eq!(bytes[..8], n_bytes.to_le_bytes());
    let found = &bytes[12..bytes.len() - 4];
    expect![[r#"\n\x19\n\n\n\x01x\x12\x05\x1a\x03\n\x01\x05\n\x0b\n\x01y\x12\x06\n\x04\n\x02ab"#]]
        .assert_eq(&found.escape_ascii().to_string());
    let features = tfrecord::Example::from_bytes(found.to_vec())
        .unwrap()
        .into_hash_map();
    assert_eq!(features["x"], tfrecord::Feature::from_i64_list(vec![5]));
    assert_eq!(
        features["y"],
        tfrecord::Feature::from_bytes_list(vec![b"ab".to_vec()])
    );
    assert_eq!(features.len(), 2);
}

#[test]
fn what_a_feature_cannot_hold_is_refused() {
    let refused = |names: &[&str]| {
        tfrecord_sink("out")
            .accepts(&every_type(names).schema())
            .unwrap_err()
            .to_string()
    };
    expect![[r#"
        4 errors
        1. column "uint64" of type UInt64 cannot be written to tf.Example
             A feature holds integers of 64 bits with a sign.
             Hint: Cast it, or leave it out with `select`.
        2. column "float64" of type Float64 cannot be written to tf.Example
             A feature holds floats of 32 bits.
             Hint: Cast it, or leave it out with `select`.
        3. column "date" of type Date32 cannot be written to tf.Example
             A feature holds integers, floats of 32 bits or bytes.
             Hint: Cast it, or leave it out with `select`.
        4. column "struct" of type Struct("word": Utf8, "count": Int32) cannot be written to tf.Example
             A feature holds integers, floats of 32 bits or bytes.
             Hint: Cast it, or leave it out with `select`."#]].assert_eq(&refused(&["uint64", "float64", "date", "struct"]));
    expect!["rows without columns cannot be written to tf.Example"].assert_eq(
        &tfrecord_sink("out")
            .accepts(&Arc::new(Schema::empty()))
            .unwrap_err()
            .to_string(),
    );
    let lists = Field::new("x", DataType::new_list(DataType::Float64, true), true);
    expect![[r#"
        column "x" of type List(Float64) cannot be written to tf.Example
          A feature holds floats of 32 bits.
          Hint: Cast it, or leave it out with `select`."#]]
    .assert_eq(
        &tfrecord_sink("out")
            .accepts(&Arc::new(Schema::new(vec![lists])))
            .unwrap_err()
            .to_string(),
    );
    let folder = TestFolder::new();
    let error = write_sink(
        &tfrecord_sink(folder.path("out")),
        &[vec![every_type(&["list"])]],
    )
    .unwrap_err();
    expect!["a list holds a null, which tf.Example does not have"]
        .assert_eq(&folder.hide(error.to_string()));
}
