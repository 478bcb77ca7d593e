//! What a Parquet sink writes, publishes and refuses.

use std::path::Path;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{IntervalUnit, UnionFields, UnionMode};
use expect_test::expect;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;

use super::*;
use crate::connectors::parquet;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_sink, read_source, show, table, write_sink};

fn read_back(place: &Path) -> Result<Vec<RecordBatch>> {
    if !place.exists() {
        return Ok(Vec::new());
    }
    Ok(vec![read_source(&parquet(place), OnBadRow::Fail)?.0])
}

#[test]
fn the_laws_of_sinks_hold() {
    let rows = table("x: 1, 2, null, 4, 5; y: a, null, c, '', e; z: 1.5, nan, -0.0, inf, null");
    for compression in [
        ParquetCompression::Snappy,
        ParquetCompression::Zstd,
        ParquetCompression::None,
    ] {
        for n_rows in [1, 2, 1_000] {
            let make = |place: &Path| -> Box<dyn Sink> {
                Box::new(
                    parquet_sink(place)
                        .compression(compression)
                        .rows_per_file(n_rows),
                )
            };
            check_sink(&rows, make, read_back).unwrap();
        }
    }
}

#[test]
fn shards_are_named_by_their_number_in_the_order_of_workers() {
    let folder = TestFolder::new();
    let sink = parquet_sink(folder.path("out")).rows_per_file(2);
    let rows = [
        vec![table("x: 1, 2, 3"), table("x: 4")],
        vec![],
        vec![table("x: 5")],
    ];
    let published = write_sink(&sink, &rows).unwrap();
    expect![[r#"
        out
        out/part-00000-of-00003.parquet
        out/part-00001-of-00003.parquet
        out/part-00002-of-00003.parquet"#]]
    .assert_eq(&folder.tree().join("\n"));
    assert_eq!((published.n_rows, published.files.len()), (5, 3));
    let on_disk: u64 = published
        .files
        .iter()
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert_eq!(published.n_bytes, on_disk);
    let (rows, _) = read_source(&parquet(folder.path("out")), OnBadRow::Fail).unwrap();
    assert_eq!(show(&rows), "x: 1, 2, 3, 4, 5");
}

fn refusal(folder: &TestFolder, sink: ParquetSink) -> String {
    let error = write_sink(&sink, &[vec![table("x: 1")]]).unwrap_err();
    assert!(error.is_environment());
    folder.hide(error.to_string())
}

#[test]
fn a_place_that_cannot_be_written_is_refused_before_the_first_row() {
    let folder = TestFolder::new();
    folder.write("full/a.parquet", "");
    folder.write("file", "");
    expect![[r#"
        folder "FOLDER/full" is not empty
          Hint: Choose another place, remove it, or say `.overwrite(true)`."#]]
    .assert_eq(&refusal(&folder, parquet_sink(folder.path("full"))));
    expect![[r#"
        "FOLDER/file" is a file, expected a folder of files
          Hint: Choose another place."#]]
    .assert_eq(&refusal(&folder, parquet_sink(folder.path("file"))));
    expect![[r#"
        cannot write "FOLDER/file/out": a part of the path is a file, not a folder
          Hint: Choose another place."#]]
    .assert_eq(&refusal(&folder, parquet_sink(folder.path("file/out"))));
    expect![[r#"
        ".." cannot be written to
          It does not end in a name that the results could get."#]]
    .assert_eq(&refusal(&folder, parquet_sink("..")));
    expect![[r#"
        file
        full
        full/a.parquet"#]]
    .assert_eq(&folder.tree().join("\n"));
}

#[test]
fn overwriting_replaces_the_old_files_and_only_them() {
    let folder = TestFolder::new();
    let sink = parquet_sink(folder.path("out")).overwrite(true);
    write_sink(&sink, &[vec![table("x: 1")], vec![table("x: 2")]]).unwrap();
    write_sink(&sink, &[vec![table("x: 3")]]).unwrap();
    expect![[r#"
        out
        out/part-00000-of-00001.parquet"#]]
    .assert_eq(&folder.tree().join("\n"));
    assert_eq!(show(&read_back(&folder.path("out")).unwrap()[0]), "x: 3");

    let publication = sink.begin(&table("x: 1").schema()).unwrap();
    publication.abort();
    assert_eq!(show(&read_back(&folder.path("out")).unwrap()[0]), "x: 3");

    folder.write("out/notes.txt", "precious");
    expect![[r#"
        folder "FOLDER/out" holds more than parquet files and is not overwritten
          It holds "notes.txt".
          Hint: Choose another place, or remove it yourself."#]]
    .assert_eq(&refusal(&folder, sink));
    expect![[r#"
        out
        out/notes.txt
        out/part-00000-of-00001.parquet"#]]
    .assert_eq(&folder.tree().join("\n"));
}

#[test]
fn what_comes_to_stand_there_during_the_run_is_kept() {
    let folder = TestFolder::new();
    let schema = table("x: 1").schema();
    let publication = parquet_sink(folder.path("out")).begin(&schema).unwrap();
    folder.write("out/other.parquet", "");
    let error = publication.commit().unwrap_err();
    publication.abort();
    expect![[r#"cannot write "FOLDER/out": something has come to stand there during the run"#]]
        .assert_eq(&folder.hide(error.to_string()));
    expect![[r#"
        out
        out/other.parquet"#]]
    .assert_eq(&folder.tree().join("\n"));
}

#[test]
fn columns_that_parquet_cannot_hold_are_named() {
    let union = DataType::Union(UnionFields::empty(), UnionMode::Sparse);
    let types = [
        ("a", DataType::Interval(IntervalUnit::MonthDayNano)),
        ("b", DataType::Int8),
        ("c", DataType::new_list(union, true)),
    ];
    let schema: SchemaRef = Arc::new(Schema::new(
        types
            .map(|(name, data_type)| Field::new(name, data_type, true))
            .to_vec(),
    ));
    let sink = parquet_sink("out");
    expect![[r#"
        column "c" of type List(Union(Sparse)) cannot be written to Parquet
          Parquet has no unions.
          Hint: Cast it, or leave it out with `select`."#]]
    .assert_eq(&sink.accepts(&schema).unwrap_err().to_string());
    expect![[r#"
        two columns are called "x"
          Hint: Rename one of them with `select`."#]]
    .assert_eq(
        &sink
            .accepts(&table("x: 1; x: 2").schema())
            .unwrap_err()
            .to_string(),
    );
    expect!["rows without columns cannot be written to Parquet"].assert_eq(
        &sink
            .accepts(&Arc::new(Schema::empty()))
            .unwrap_err()
            .to_string(),
    );
}

#[test]
fn options_lay_files_out() {
    let folder = TestFolder::new();
    let x: Vec<String> = (0..1_000).map(|i| (i % 10).to_string()).collect();
    let rows = table(&format!("x: {0}; y: {0}", x.join(",")));
    let sink = parquet_sink(folder.path("out"))
        .row_group_rows(300)
        .compression(ParquetCompression::ZstdLevel(1))
        .without_dictionary(["x"])
        .bloom_filter(["y"]);
    write_sink(&sink, &[vec![rows.clone()]]).unwrap();
    let file = std::fs::File::open(folder.path("out/part-00000-of-00001.parquet")).unwrap();
    let footer = ArrowReaderMetadata::load(
        &file,
        ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required),
    );
    let footer = footer.unwrap();
    let metadata = footer.metadata();
    let groups: Vec<i64> = metadata.row_groups().iter().map(|g| g.num_rows()).collect();
    let told = |leaf: usize| {
        let column = metadata.row_group(0).column(leaf);
        let (dictionary, bloom) = (
            column.dictionary_page_offset(),
            column.bloom_filter_offset(),
        );
        format!(
            "{}: dictionary {}, bloom filter {}, {:?}",
            column.column_path(),
            dictionary.is_some(),
            bloom.is_some(),
            column.compression()
        )
    };
    let pages = metadata.column_index().is_some() && metadata.offset_index().is_some();
    expect![[r#"
        [300, 300, 300, 100], page index true
        "x": dictionary false, bloom filter false, ZSTD(ZstdLevel(1))
        "y": dictionary true, bloom filter true, ZSTD(ZstdLevel(1))"#]]
    .assert_eq(&format!(
        "{groups:?}, page index {pages}\n{}\n{}",
        told(0),
        told(1)
    ));
    assert_eq!(read_back(&folder.path("out")).unwrap(), vec![rows.clone()]);

    // About a kilobyte for each row group.
    let sink = parquet_sink(folder.path("small"))
        .max_row_group_bytes(1_000)
        .without_dictionary(["x", "y"]);
    let many = vec![vec![rows.clone(); 20]];
    write_sink(&sink, &many).unwrap();
    let file = std::fs::File::open(folder.path("small/part-00000-of-00001.parquet")).unwrap();
    let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).unwrap();
    assert!(
        footer.metadata().num_row_groups() >= 20,
        "{}",
        footer.metadata().num_row_groups()
    );
}

#[test]
fn floats_give_up_a_dictionary_that_grows_unless_it_is_asked_for() {
    let column = |n_different: usize| -> ArrayRef {
        let values = (0..40_000).map(|row| (row % n_different) as f64 / 7.0);
        Arc::new(Float64Array::from_iter_values(values))
    };
    let columns = [
        ("few", column(500)),
        ("many", column(20_000)),
        ("asked", column(20_000)),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let folder = TestFolder::new();
    let sink = parquet_sink(folder.path("out")).with_dictionary(["asked"]);
    let batches = (0..5).map(|i| rows.slice(i * 8_000, 8_000)).collect();
    write_sink(&sink, &[batches]).unwrap();
    let file = std::fs::File::open(folder.path("out/part-00000-of-00001.parquet")).unwrap();
    let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).unwrap();
    let told: Vec<String> = footer
        .metadata()
        .row_group(0)
        .columns()
        .iter()
        .map(|column| {
            let encodings = column.page_encoding_stats_mask().map(|mask| {
                let encodings = mask.encodings().map(|e| e.to_string());
                encodings.collect::<Vec<_>>().join(", ")
            });
            format!(
                "{}: {}",
                column.column_path(),
                encodings.unwrap_or_default()
            )
        })
        .collect();
    expect![[r#"
        "few": RLE_DICTIONARY
        "many": PLAIN, RLE_DICTIONARY
        "asked": RLE_DICTIONARY"#]]
    .assert_eq(&told.join("\n"));
    assert_eq!(read_back(&folder.path("out")).unwrap(), vec![rows]);
}

#[test]
fn options_of_columns_that_are_not_there_are_refused() {
    let sink = parquet_sink("out")
        .bloom_filter(["z"])
        .without_dictionary(["X"]);
    expect![[r#"
        2 errors
        1. column "X" is not there
             The columns are "x".
             Hint: Names are case-sensitive: did you mean "x"?
        2. column "z" is not there
             The columns are "x"."#]]
    .assert_eq(
        &sink
            .accepts(&table("x: 1").schema())
            .unwrap_err()
            .to_string(),
    );
}

#[test]
fn a_file_ends_when_its_footer_has_grown() {
    let folder = TestFolder::new();
    let numbers: Vec<String> = (0..3_000).map(|i| i.to_string()).collect();
    let rows = table(&format!("x: {0}; y: {0}", numbers.join(", ")));
    let batches: Vec<RecordBatch> = (0..6).map(|i| rows.slice(i * 500, 500)).collect();
    let sink = parquet_sink(folder.path("out")).row_group_rows(1);
    let published = write_sink(&sink, &[batches]).unwrap();
    assert_eq!(published.files.len(), 6);
    let (back, _) = read_source(&parquet(folder.path("out")), OnBadRow::Fail).unwrap();
    assert_eq!(back, rows);
}
