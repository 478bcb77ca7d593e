//! What a CSV sink writes, publishes and refuses.

use std::path::Path;

use arrow::datatypes::DataType;
use expect_test::expect;

use super::*;
use crate::connectors::csv;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_sink, read_source, show, table, write_sink};

fn read_back(place: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if !place.exists() {
        return Ok(Vec::new());
    }
    let source = csv(place).schema(Arc::clone(schema)).has_header(true);
    Ok(vec![read_source(&source, OnBadRow::Fail)?.0])
}

#[test]
fn the_laws_of_sinks_hold_for_a_folder_and_for_one_file() {
    let rows =
        table("x: 1, 2, null, 4, 5; y: a, null, 'c,\"d', ' ', e; z: 1.5, 1e-300, -0.0, 0.1, null");
    let schema = rows.schema();
    let folder = |place: &Path| -> Box<dyn Sink> { Box::new(csv_sink(place).rows_per_file(2)) };
    check_sink(&rows, folder, |place| read_back(place, &schema)).unwrap();
    let file = |place: &Path| -> Box<dyn Sink> { Box::new(csv_sink(place.with_extension("csv"))) };
    check_sink(&rows, file, |place| {
        read_back(&place.with_extension("csv"), &schema)
    })
    .unwrap();
}

#[test]
fn a_column_of_nulls_alone_keeps_its_rows() {
    let rows = table("x: 1, null, 3");
    let make = |place: &Path| -> Box<dyn Sink> { Box::new(csv_sink(place)) };
    check_sink(&rows, make, |place| read_back(place, &rows.schema())).unwrap();
}

#[test]
fn shards_of_all_workers_become_one_file_with_one_header() {
    let folder = TestFolder::new();
    let sink = csv_sink(folder.path("out.csv")).delimiter(b';');
    let rows = [
        vec![table("x: 1, 2; y: a, b")],
        vec![],
        vec![table("x: 3; y: 'c;d'")],
    ];
    let published = write_sink(&sink, &rows).unwrap();
    let content = std::fs::read_to_string(folder.path("out.csv")).unwrap();
    expect![[r#"
        x;y
        1;a
        2;b
        3;"c;d"
    "#]]
    .assert_eq(&content);
    assert_eq!(
        (published.n_rows, published.n_bytes),
        (3, content.len() as u64)
    );
    assert_eq!(folder.tree(), ["out.csv"]);

    let again = write_sink(&sink, &rows).unwrap_err();
    expect![[r#"
        file "FOLDER/out.csv" is there already
          Hint: Choose another place, remove it, or say `.overwrite(true)`."#]]
    .assert_eq(&folder.hide(again.to_string()));
    write_sink(&sink.overwrite(true), &[vec![table("x: 4; y: z")]]).unwrap();
    let content = std::fs::read_to_string(folder.path("out.csv")).unwrap();
    expect![[r#"
        x;y
        4;z
    "#]]
    .assert_eq(&content);
    assert_eq!(folder.tree(), ["out.csv"]);
}

#[test]
fn shards_of_a_folder_have_a_header_each() {
    let folder = TestFolder::new();
    write_sink(
        &csv_sink(folder.path("out")),
        &[vec![table("x: 1")], vec![table("x: 2")]],
    )
    .unwrap();
    expect![[r#"
        out
        out/part-00000-of-00002.csv
        out/part-00001-of-00002.csv"#]]
    .assert_eq(&folder.tree().join("\n"));
    let second = std::fs::read_to_string(folder.path("out/part-00001-of-00002.csv")).unwrap();
    assert_eq!(second, "x\n2\n");
    let (rows, _) = read_source(&csv(folder.path("out")), OnBadRow::Fail).unwrap();
    assert_eq!(show(&rows), "x: 1, 2");
}

#[test]
fn compressed_files_keep_the_laws_and_are_read_by_their_names() {
    let rows = table("x: 1, 2, null, 4, 5; y: a, null, 'c,\"d', ' ', e");
    let schema = rows.schema();
    for compression in [FileCompression::Gzip, FileCompression::Zstd] {
        let folder = |place: &Path| -> Box<dyn Sink> {
            Box::new(csv_sink(place).rows_per_file(2).compression(compression))
        };
        check_sink(&rows, folder, |place| read_back(place, &schema)).unwrap();
        let extension = compression.extension_of(EXTENSIONS);
        let file =
            |place: &Path| -> Box<dyn Sink> { Box::new(csv_sink(place.with_extension(extension))) };
        check_sink(&rows, file, |place| {
            read_back(&place.with_extension(extension), &schema)
        })
        .unwrap();
    }
}

#[test]
fn shards_are_compressed_each_for_itself_and_end_by_their_compressed_size() {
    let folder = TestFolder::new();
    let numbers: Vec<String> = (0..50_000_u64)
        .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string())
        .collect();
    let rows = table(&format!("x: {}", numbers.join(",")));
    let batches: Vec<RecordBatch> = (0..50).map(|i| rows.slice(i * 1_000, 1_000)).collect();
    let sink = csv_sink(folder.path("out"))
        .compression(FileCompression::Gzip)
        .max_bytes_per_file(100_000);
    let published = write_sink(&sink, &[batches.clone(), vec![rows.slice(0, 1)]]).unwrap();
    let on_disk = |f: &std::path::PathBuf| f.metadata().unwrap().len();
    let sizes: Vec<u64> = published.files.iter().map(on_disk).collect();
    assert_eq!(published.n_bytes, sizes.iter().sum::<u64>());
    assert!(
        sizes.len() > 3 && sizes.iter().all(|n| *n < 160_000),
        "{sizes:?}"
    );
    assert!(folder.tree()[1].ends_with(".csv.gz"), "{:?}", folder.tree());
    let (back, _) = read_source(&csv(folder.path("out")), OnBadRow::Fail).unwrap();
    assert_eq!(back.num_rows(), 50_001);

    // They are replaced by their like, and by nothing else.
    let one = [vec![rows.slice(0, 1)]];
    write_sink(&sink.clone().overwrite(true), &one).unwrap();
    let plain = csv_sink(folder.path("out")).overwrite(true);
    expect![[r#"
        folder "FOLDER/out" holds more than csv files and is not overwritten
          It holds "part-00000-of-00001.csv.gz".
          Hint: Choose another place, or remove it yourself."#]]
    .assert_eq(&folder.hide(write_sink(&plain, &one).unwrap_err().to_string()));
    let misnamed = csv_sink("all.csv.gz").compression(FileCompression::Zstd);
    expect![[r#"
        "all.csv.gz" is named as gzip, but zstd is asked for
          Hint: Name the file so that it can be read again, or leave `.compression(…)` out."#]]
    .assert_eq(&misnamed.accepts(&rows.schema()).unwrap_err().to_string());
}

#[test]
fn what_csv_cannot_hold_is_refused() {
    let folder = TestFolder::new();
    folder.write("out.csv/part.csv", "");
    let refused = write_sink(&csv_sink(folder.path("out.csv")), &[vec![table("x: 1")]]);
    expect![[r#"
        "FOLDER/out.csv" is a folder, expected one file
          Hint: Choose another place."#]]
    .assert_eq(&folder.hide(refused.unwrap_err().to_string()));

    let lists = DataType::new_list(DataType::Int64, true);
    let field = arrow::datatypes::Field::new("x", lists, true);
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![field]));
    expect![[r#"
        column "x" of type List(Int64) cannot be written to CSV
          A field of CSV holds one value.
          Hint: Cast it, or leave it out with `select`."#]]
    .assert_eq(&csv_sink("out").accepts(&schema).unwrap_err().to_string());
    expect!["rows without columns cannot be written to CSV"].assert_eq(
        &csv_sink("out")
            .accepts(&Arc::new(arrow::datatypes::Schema::empty()))
            .unwrap_err()
            .to_string(),
    );
}
