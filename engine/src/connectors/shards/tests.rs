//! Shards on a disk that is full, by size, and by folder.

use super::super::storage::LocalFile;
use super::*;
use crate::connectors::test_folder::TestFolder;
use crate::connectors::{
    FileCompression, avro_sink, csv, csv_sink, ipc_sink, json_lines_sink, parquet, parquet_sink,
};
use crate::output::OnBadRow;
use crate::sink::Sink;
use crate::testing::{read_source, show, table, write_sink};
use expect_test::expect;

/// A format whose files are all on a disk without space.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct FullDisk(Arc<dyn FileFormat>);

#[cfg(target_os = "linux")]
impl FileFormat for FullDisk {
    fn extension(&self) -> &'static str {
        self.0.extension()
    }

    fn create(
        &self,
        _: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        let full = std::fs::File::options().write(true).open("/dev/full")?;
        self.0.create(Box::new(LocalFile::new(full)), schema)
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_as_such_and_leaves_nothing() {
    let folder = TestFolder::new();
    let rows = table("x: 1, 2; y: a, b");
    for format in [
        parquet_sink("").format(),
        csv_sink(".csv").format().unwrap(),
        avro_sink("").format(),
        ipc_sink("").format(),
        json_lines_sink("").format().unwrap(),
        csv_sink(".csv.gz").format().unwrap(),
        json_lines_sink("")
            .compression(FileCompression::Zstd)
            .format()
            .unwrap(),
    ] {
        let options = ShardOptions::new(folder.path("a/out"));
        let full = Arc::new(FullDisk(format));
        let shards = Shards::begin(&options, full, &rows.schema()).unwrap();
        let mut writer = shards.writer(0).unwrap();
        let written = writer.write(&rows).and_then(|()| writer.finish());
        let error = written.unwrap_err();
        shards.abort();
        assert!(error.is_environment(), "{error:?}");
        expect![[r#"
            cannot write "FOLDER/a/out": no space is left on the disk
              Hint: Free space there, or write to another disk."#]]
        .assert_eq(&folder.hide(error.to_string()));
        assert!(folder.tree().is_empty());
    }
}

/// A format whose files take all that is written, and never come to the disk: they are pipes.
#[cfg(unix)]
#[derive(Debug)]
struct NeverDurable(Arc<dyn FileFormat>);

#[cfg(unix)]
impl FileFormat for NeverDurable {
    fn extension(&self) -> &'static str {
        self.0.extension()
    }

    fn create(
        &self,
        _: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        let (mut reader, writer) = io::pipe()?;
        std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        let pipe = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        self.0.create(Box::new(LocalFile::new(pipe)), schema)
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_does_not_come_to_the_disk_fails_the_next_one_or_the_publication() {
    let folder = TestFolder::new();
    let rows = table("x: 1, 2, 3");
    let shards = |rows_per_file: Option<u64>| {
        let options = ShardOptions {
            rows_per_file,
            ..ShardOptions::new(folder.path("a/out"))
        };
        let format = Arc::new(NeverDurable(parquet_sink("").format()));
        Shards::begin(&options, format, &rows.schema()).unwrap()
    };
    let check = |shards: &Shards, error: Error| {
        shards.abort();
        assert!(error.is_environment(), "{error:?}");
        let told = folder.hide(error.to_string());
        assert!(told.starts_with("cannot write \"FOLDER/a/out\""), "{told}");
        assert!(folder.tree().is_empty());
    };
    // The last file of a worker is waited for when all are published.
    let one = shards(None);
    let mut writer = one.writer(0).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().unwrap();
    check(&one, one.commit().unwrap_err());
    // Others when the next one is full.
    let many = shards(Some(1));
    let mut writer = many.writer(0).unwrap();
    writer.write(&rows.slice(0, 1)).unwrap();
    check(&many, writer.write(&rows.slice(1, 1)).unwrap_err());
}

/// What is in each file of a folder, by its name.
fn files(folder: &TestFolder) -> String {
    let names = folder.tree();
    let files = names.iter().filter(|name| name.ends_with(".csv"));
    let lines = files.map(|name| {
        let (rows, _) = read_source(&csv(folder.path(name)), OnBadRow::Fail).unwrap();
        format!("{name}  {}", show(&rows))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn rows_are_divided_into_folders_in_their_order() {
    let folder = TestFolder::new();
    let sink = csv_sink(folder.path("out")).partition_by(["year", "month"]);
    let rows = [
        vec![
            table("x: 1, 2, 3; year: 2020, 2021, 2020; month: 5, 5, 5"),
            table("x: 4, 5; year: null, 2020; month: 6, 5"),
        ],
        vec![],
        vec![table("x: 6, 7; year: 2020, 2020; month: 5, 6")],
    ];
    let published = write_sink(&sink, &rows).unwrap();
    expect![[r#"
        out/year=2020/month=5/part-00000-of-00002.csv  x: 1, 3, 5
        out/year=2020/month=5/part-00001-of-00002.csv  x: 6
        out/year=2020/month=6/part-00000-of-00001.csv  x: 7
        out/year=2021/month=5/part-00000-of-00001.csv  x: 2
        out/year=__HIVE_DEFAULT_PARTITION__/month=6/part-00000-of-00001.csv  x: 4"#]]
    .assert_eq(&files(&folder));
    assert_eq!((published.n_rows, published.files.len()), (7, 5));
    let on_disk = |f: &PathBuf| f.metadata().unwrap().len();
    assert_eq!(
        published.n_bytes,
        published.files.iter().map(on_disk).sum::<u64>()
    );

    // They are replaced like any other, and only if nothing else is there.
    write_sink(&sink.clone().overwrite(true), &[vec![rows[2][0].clone()]]).unwrap();
    expect![[r#"
        out/year=2020/month=5/part-00000-of-00001.csv  x: 6
        out/year=2020/month=6/part-00000-of-00001.csv  x: 7"#]]
    .assert_eq(&files(&folder));
    folder.write("out/year=2020/notes.txt", "precious");
    let refused = write_sink(&sink.overwrite(true), &[vec![rows[2][0].clone()]]).unwrap_err();
    expect![[r#"
        folder "FOLDER/out" holds more than csv files and is not overwritten
          It holds "year=2020/notes.txt".
          Hint: Choose another place, or remove it yourself."#]]
    .assert_eq(&folder.hide(refused.to_string()));
}

#[test]
fn a_value_that_no_folder_can_be_called_is_named_when_its_row_is_written() {
    let folder = TestFolder::new();
    let sink = csv_sink(folder.path("out")).partition_by(["some k"]);
    let rows = |n: usize| table(&format!("x: 1, 2; some k: a, {}", "é".repeat(n)));
    let refused = write_sink(&sink, &[vec![rows(125)]]).unwrap_err();
    let told = refused.to_string().replace(&"é".repeat(125), "éé…");
    expect![[r#"
        column "some k" holds "éé…", by which no folder can be called
          The name of the folder would have 257 bytes, and 255 are the most.
          Hint: Shorten the value, or divide by another column."#]]
    .assert_eq(&told);
    assert!(refused.is_data());
    assert!(folder.tree().is_empty());
    // Seven bytes of the column, and two of each letter.
    write_sink(&sink, &[vec![rows(124)]]).unwrap();
    assert!(files(&folder).ends_with("part-00000-of-00001.csv  x: 2"));
}

#[test]
fn only_so_many_files_are_open_and_order_is_kept() {
    let folder = TestFolder::new();
    let sink = csv_sink(folder.path("out"))
        .partition_by(["k"])
        .max_open_files(2);
    let rows = vec![
        table("k: a, b, a; x: 1, 2, 3"),
        table("k: c; x: 4"),
        table("k: a, b; x: 5, 6"),
    ];
    write_sink(&sink, &[rows]).unwrap();
    expect![[r#"
        out/k=a/part-00000-of-00002.csv  x: 1, 3
        out/k=a/part-00001-of-00002.csv  x: 5
        out/k=b/part-00000-of-00002.csv  x: 2
        out/k=b/part-00001-of-00002.csv  x: 6
        out/k=c/part-00000-of-00001.csv  x: 4"#]]
    .assert_eq(&files(&folder));
}

#[test]
fn a_file_ends_when_it_has_so_many_bytes() {
    let folder = TestFolder::new();
    let rows: Vec<RecordBatch> = (0..40).map(|i| table(&format!("x: {i}"))).collect();
    let sink = csv_sink(folder.path("out")).max_bytes_per_file(20);
    let published = write_sink(&sink, std::slice::from_ref(&rows)).unwrap();
    for file in &published.files {
        let n_bytes = file.metadata().unwrap().len();
        assert!(n_bytes < 20 + 4, "{file:?} has {n_bytes} bytes");
    }
    assert_eq!(published.files.len(), 6);

    // Parquet holds rows until a row group is full; they count.
    let sink = parquet_sink(folder.path("parquet")).max_bytes_per_file(64 << 10);
    let wide: Vec<RecordBatch> = (0..40)
        .map(|i| {
            let values = (0..1_000).map(|n| (n * 7_919 + i * 104_729) % 1_000_003);
            table(&format!(
                "x: {}",
                values
                    .map(|v: i64| v.to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
        })
        .collect();
    let published = write_sink(&sink, &[wide]).unwrap();
    assert!(published.files.len() > 2, "{:?}", published.files);
    for file in &published.files {
        let n_bytes = file.metadata().unwrap().len();
        assert!(n_bytes < 96 << 10, "{file:?} has {n_bytes} bytes");
    }
    let (back, _) = read_source(&parquet(folder.path("parquet")), OnBadRow::Fail).unwrap();
    assert_eq!(back.num_rows(), 40_000);
}

#[test]
fn what_cannot_be_divided_is_refused_before_the_first_row() {
    let told =
        |sink: &dyn Sink, rows: &str| sink.accepts(&table(rows).schema()).unwrap_err().to_string();
    expect![[r#"
        "all.csv" is one file and cannot be divided by columns
          Hint: Name a folder."#]]
    .assert_eq(&told(
        &csv_sink("all.csv").partition_by(["x"]),
        "x: 1; y: 2",
    ));
    expect![[r#"
        column "z" is not there
          The columns are "x", "y"."#]]
    .assert_eq(&told(
        &parquet_sink("out").partition_by(["z"]),
        "x: 1; y: 2",
    ));
}

#[test]
fn what_is_held_for_all_open_files_is_told() {
    let folder = TestFolder::new();
    let rows = table("k: a, b; x: 1, 2");
    let publication = parquet_sink(folder.path("out"))
        .partition_by(["k"])
        .begin(&rows.schema())
        .unwrap();
    let mut writer = publication.writer(0).unwrap();
    assert_eq!(writer.buffered_bytes(), 0);
    writer.write(&rows.slice(0, 1)).unwrap();
    let one = writer.buffered_bytes();
    writer.write(&rows.slice(1, 1)).unwrap();
    assert!(one > 0 && writer.buffered_bytes() == 2 * one);
    writer.finish().unwrap();
    assert_eq!(writer.buffered_bytes(), 0);
}
