//! What a TFRecord sink writes, and that it is read again.

use arrow::datatypes::{Field, Schema};
use expect_test::expect;

use super::*;
use crate::connectors::every_type::every_type;
use crate::connectors::test_folder::TestFolder;
use crate::connectors::tfrecord;
use crate::output::OnBadRow;
use crate::testing::{check_sink, read_source, table, write_sink};

fn read_back(place: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if !place.exists() {
        return Ok(Vec::new());
    }
    let source = tfrecord(place).schema(Arc::clone(schema));
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
        &[vec![
            table("x: 5; y: 'ab'; z: null").project(&[0, 1]).unwrap(),
        ]],
    )
    .unwrap();
    let bytes = std::fs::read(folder.path("out/part-00000-of-00001.tfrecord")).unwrap();
    // Example { features { feature { "x": int64_list [5] }, feature { "y": bytes_list ["ab"] } } }
    let example = b"\x0a\x1b\x0a\x0a\x0a\x01x\x12\x05\x1a\x03\x0a\x01\x05\x0a\x0d\x0a\x01y\x12\x08\x0a\x06\x0a\x02ab";
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(
        shown(&bytes[..8]),
        shown(&(bytes.len() as u64 - 16).to_le_bytes())
    );
    let found = &bytes[12..bytes.len() - 4];
    expect![[r#"
        \n\x19\n\n\n\x01x\x12\x05\x1a\x03\n\x01\x05\n\x0b\n\x01y\x12\x06\n\x04\n\x02ab
        true"#]].assert_eq(&format!(
        "{}\n{}",
        shown(found),
        found.len() == example.len()
    ));
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
          Hint: Cast it, or leave it out with `select`."#]].assert_eq(
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
    expect!["a list holds a null, which tf.Example does not have"].assert_eq(&folder.hide(error.to_string()));
}
