//! What an Avro sink writes, and that it is read again.

use arrow::datatypes::TimeUnit;
use expect_test::expect;

use super::*;
use crate::connectors::avro;
use crate::connectors::every_type::every_type;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_sink, read_source, show, table, write_sink};

fn read_back(place: &Path) -> Result<Vec<RecordBatch>> {
    if !place.exists() {
        return Ok(Vec::new());
    }
    Ok(vec![read_source(&avro(place), OnBadRow::Fail)?.0])
}

#[test]
fn the_laws_of_sinks_hold_for_rows_of_the_types_that_avro_has() {
    let rows = every_type(&[
        "boolean", "int32", "int64", "float32", "float64", "text", "bytes", "date", "time", "list",
    ]);
    let folder = |place: &Path| -> Box<dyn Sink> { Box::new(avro_sink(place).rows_per_file(4)) };
    check_sink(&rows, folder, read_back).unwrap();
}

#[test]
fn other_types_become_the_next_larger_ones() {
    let folder = TestFolder::new();
    let rows = every_type(&["int8", "dictionary", "decimal", "struct"]);
    write_sink(&avro_sink(folder.path("out")), &[vec![rows.clone()]]).unwrap();
    let (found, _) = read_source(&avro(folder.path("out")), OnBadRow::Fail).unwrap();
    assert_eq!(show(&found), show(&rows));
    let types: Vec<String> = found
        .schema()
        .fields()
        .iter()
        .map(|f| f.data_type().to_string())
        .collect();
    expect![[r#"Int32, Decimal128(9, 2), Struct("word": Utf8, "count": Int32), Utf8"#]]
        .assert_eq(&types.join(", "));
}

#[test]
fn a_number_too_large_for_avro_is_an_error() {
    let folder = TestFolder::new();
    let rows = every_type(&["uint64"]);
    let error = write_sink(&avro_sink(folder.path("out")), &[vec![rows]]).unwrap_err();
    expect![[r#"
        cannot write "FOLDER/out"
          Invalid argument: UInt64 value 18446744073709551615 exceeds i64::MAX; enable avro_custom_types feature for full UInt64 support."#]].assert_eq(&folder.hide(error.to_string()));
    assert!(folder.tree().is_empty());
}

#[test]
fn what_avro_cannot_hold_is_refused() {
    let refused = |schema: Schema| {
        avro_sink("out")
            .accepts(&Arc::new(schema))
            .unwrap_err()
            .to_string()
    };
    let union = DataType::Union(
        [(
            0_i8,
            Arc::new(Field::new("a", DataType::Duration(TimeUnit::Second), true)),
        )]
        .into_iter()
        .collect(),
        arrow::datatypes::UnionMode::Sparse,
    );
    expect![[r#"
        2 errors
        1. column "x" of type Union(Sparse, 0: ("a": Duration(s))) cannot be written to Avro
             Avro has no type for it, or for what is inside of it.
             Hint: Cast it, or leave it out with `select`.
        2. column "2b" of type Utf8 cannot be written to Avro
             It is no name in Avro: letters, digits and `_`, no digit first.
             Hint: Cast it, or leave it out with `select`."#]]
    .assert_eq(&refused(Schema::new(vec![
        Field::new("x", union, true),
        Field::new("2b", DataType::Utf8, true),
        Field::new("u", DataType::UInt64, true),
    ])));
    expect!["rows without columns cannot be written to Avro"].assert_eq(&refused(Schema::empty()));
    expect![[r#"
        two columns are called "x"
          Hint: Rename one of them with `select`."#]]
    .assert_eq(&refused(table("x: 1; x: 2").schema().as_ref().clone()));
}
