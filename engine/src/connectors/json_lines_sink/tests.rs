//! What a sink of JSON lines writes, and that all of it is read again.

use expect_test::expect;

use super::*;
use crate::connectors::every_type::every_type;
use crate::connectors::json_lines;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_sink, read_source, table, write_sink};

fn read_back(place: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if !place.exists() {
        return Ok(Vec::new());
    }
    let source = json_lines(place).schema(Arc::clone(schema));
    Ok(vec![read_source(&source, OnBadRow::Fail)?.0])
}

#[test]
fn the_laws_of_sinks_hold_for_rows_of_every_type() {
    let rows = every_type(&[]);
    let schema = rows.schema();
    let folder =
        |place: &Path| -> Box<dyn Sink> { Box::new(json_lines_sink(place).rows_per_file(2)) };
    check_sink(&rows, folder, |place| read_back(place, &schema)).unwrap();
    let file = |place: &Path| -> Box<dyn Sink> {
        Box::new(json_lines_sink(place.with_extension("jsonl")))
    };
    check_sink(&rows, file, |place| {
        read_back(&place.with_extension("jsonl"), &schema)
    })
    .unwrap();
}

#[test]
fn compressed_files_keep_the_laws() {
    let rows = every_type(&["int64", "text", "struct"]);
    let schema = rows.schema();
    for compression in [FileCompression::Gzip, FileCompression::Zstd] {
        let folder = |place: &Path| -> Box<dyn Sink> {
            Box::new(json_lines_sink(place).compression(compression))
        };
        check_sink(&rows, folder, |place| read_back(place, &schema)).unwrap();
        let extension = compression.extension_of(EXTENSIONS);
        let file = |place: &Path| -> Box<dyn Sink> {
            Box::new(json_lines_sink(place.with_extension(extension)))
        };
        check_sink(&rows, file, |place| {
            read_back(&place.with_extension(extension), &schema)
        })
        .unwrap();
    }
}

#[test]
fn lines_are_json() {
    let folder = TestFolder::new();
    let rows = every_type(&[
        "int64",
        "float64",
        "text",
        "bytes",
        "date",
        "time",
        "list",
        "struct",
        "dictionary",
    ]);
    let sink = json_lines_sink(folder.path("out.jsonl"));
    write_sink(
        &sink,
        &[
            vec![rows.slice(0, 1), rows.slice(5, 1)],
            vec![rows.slice(2, 1)],
        ],
    )
    .unwrap();
    let content = std::fs::read_to_string(folder.path("out.jsonl")).unwrap();
    expect![[r#"
        {"int64":-9223372036854775808,"float64":0.1,"text":"x","bytes":"ff00","date":"1970-01-01","time":"1970-01-01T00:00:00","list":[1,null,9223372036854775807],"struct":{"word":"x","count":1},"dictionary":"a"}
        {"int64":null,"float64":null,"text":null,"bytes":null,"date":null,"time":null,"list":null,"struct":null,"dictionary":null}
        {"int64":null,"float64":null,"text":"y","bytes":null,"date":null,"time":null,"list":null,"struct":null,"dictionary":"b"}
    "#]].assert_eq(&content);
}

#[test]
fn what_json_cannot_hold_is_refused() {
    let refused = |schema: Schema| {
        json_lines_sink("out")
            .accepts(&Arc::new(schema))
            .unwrap_err()
            .to_string()
    };
    let interval = arrow::datatypes::DataType::Duration(arrow::datatypes::TimeUnit::Second);
    let union = arrow::datatypes::DataType::Union(
        [(0_i8, Arc::new(Field::new("a", interval, true)))]
            .into_iter()
            .collect(),
        arrow::datatypes::UnionMode::Sparse,
    );
    expect![[r#"
        column "x" of type Union(Sparse, 0: ("a": Duration(s))) cannot be written to JSON lines
          Json error: Unsupported data type for JSON encoding: Union([(0, Field { name: "a", data_type: Duration(Second), nullable: true })], Sparse).
          Hint: Cast it, or leave it out with `select`."#]].assert_eq(&refused(Schema::new(vec![Field::new("x", union, true)])));
    expect!["rows without columns cannot be written to JSON lines"]
        .assert_eq(&refused(Schema::empty()));
    let twice = table("x: 1; x: 2").schema();
    expect![[r#"
        two columns are called "x"
          Hint: Rename one of them with `select`."#]]
    .assert_eq(&refused(twice.as_ref().clone()));
}
