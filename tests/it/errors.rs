//! What a person reads when something is wrong with the rows, the files or the graph: the whole message.
//!
//! Each message says what was expected and found, where, and what to do, and is of the class of what has to
//! change. `DIR` stands for the folder of the files.
//!
//! What object stores refuse, such as wrong credentials and a bucket that is not there, is told in the tests of
//! `engine/src/connectors/storage/`, which have stores to ask.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use expect_test::{Expect, expect};
use mainstem::engine::testing::table;
use mainstem::engine::{Error, Progress};
use mainstem::prelude::*;
use parquet::arrow::ArrowWriter;

mod graph;
mod rows;

/// What has to change for an error to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Pipeline,
    Data,
    Environment,
    Bug,
}
use Class::{Data, Environment, Pipeline as Graph};

fn class(error: &Error) -> Class {
    let all = [
        (error.is_pipeline(), Class::Pipeline),
        (error.is_data(), Class::Data),
        (error.is_environment(), Class::Environment),
        (error.is_bug(), Class::Bug),
    ];
    let mut found = all.into_iter().filter(|(is, _)| *is);
    let (_, class) = found.next().expect("an error is of one class");
    assert!(found.next().is_none(), "of two classes: {error}");
    class
}

/// Writes files, runs the pipeline that `compose` makes over their folder, and checks by which message it
/// is refused with any number of workers; nothing may be published.
fn check(
    files: &[(&str, &[u8])],
    compose: impl Fn(&Pipeline, &Path) -> Collection,
    expected_class: Class,
    expected: Expect,
) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    check_in(folder.path(), compose, expected_class, expected);
}

fn check_in(
    folder: &Path,
    compose: impl Fn(&Pipeline, &Path) -> Collection,
    expected_class: Class,
    expected: Expect,
) {
    let [one, three] = [1, 3].map(|workers| refusal(folder, &compose, expected_class, workers));
    expected.assert_eq(&one);
    assert_eq!(three, one, "with 3 workers");
}

/// The message by which the pipeline is refused; it is of this class, and nothing is published.
fn refusal(
    folder: &Path,
    compose: impl Fn(&Pipeline, &Path) -> Collection,
    expected_class: Class,
    workers: usize,
) -> String {
    let pipeline = Pipeline::new("test");
    compose(&pipeline, folder).write(connectors::csv_sink(folder.join("out")));
    let options = RunOptions::new().workers(workers).progress(Progress::Never);
    let error = match pipeline.run(&options) {
        Ok(report) => panic!("it ran:\n{report}"),
        Err(error) => error,
    };
    let message = error.to_string().replace(&*folder.to_string_lossy(), "DIR");
    assert_eq!(class(&error), expected_class, "{message}");
    let left = fs::read_dir(folder).unwrap().flatten();
    let left: Vec<_> = left
        .map(|e| e.path())
        .filter(|p| p.is_dir() && p.extension().is_none())
        .collect();
    assert!(left.is_empty(), "published: {left:?}");
    message
}

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, kind, nullable): &(&str, DataType, bool)| {
        Field::new(*name, kind.clone(), *nullable)
    };
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

fn people() -> SchemaRef {
    schema(&[
        ("name", DataType::Utf8, true),
        ("age", DataType::Int64, false),
    ])
}

/// Rows as a Parquet file.
fn parquet_bytes(rows: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    bytes
}

fn numbers(n_rows: i64) -> RecordBatch {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n_rows));
    RecordBatch::try_new(schema(&[("n", DataType::Int64, true)]), vec![n]).unwrap()
}

fn people_of(p: &Pipeline, dir: &Path) -> Collection {
    p.read("people", connectors::csv(dir.join("people.csv")))
}

const PEOPLE: (&str, &[u8]) = (
    "people.csv",
    b"name,age\nAda,36\nBob,7\nMax,300\nEve,0\nZoe,41\n",
);

// ---- lines and fields of CSV

#[test]
fn a_malformed_csv_line() {
    check(
        &[("people.csv", b"name,age\nAda,36\nBob,7,left\nEve,41\n")],
        |p, dir| p.read("people", connectors::csv(dir.join("people.csv"))),
        Data,
        expect![[r#"
            file "DIR/people.csv", line 3: expected 2 fields, found 3
              in source "people"
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn a_value_of_the_wrong_type() {
    check(
        &[("people.csv", b"Ada,36\nBob,seven\n")],
        |p, dir| {
            p.read(
                "people",
                connectors::csv(dir.join("people.csv")).schema(people()),
            )
        },
        Data,
        expect![[r#"
            file "DIR/people.csv", line 2: column "age" must hold Int64, found "seven"
              in source "people"
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn a_null_where_none_may_be() {
    check(
        &[("people.csv", b"Ada,36\n,7\nBob,\n")],
        |p, dir| {
            p.read(
                "people",
                connectors::csv(dir.join("people.csv")).schema(people()),
            )
        },
        Data,
        expect![[r#"
            file "DIR/people.csv", line 3: column "age" must not be null
              in source "people"
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn text_that_is_not_utf_8() {
    check(
        &[("people.csv", b"name,age\nAda,36\nJos\xe9,41\n")],
        |p, dir| p.read("people", connectors::csv(dir.join("people.csv"))),
        Data,
        expect![[r#"
            file "DIR/people.csv", line 3: column "name" must hold UTF-8, found "Jos�"
              in source "people"
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn a_header_that_is_not_utf_8() {
    check(
        &[("people.csv", b"n\xe9,age\nAda,36\n")],
        |p, dir| p.read("people", connectors::csv(dir.join("people.csv"))),
        Data,
        expect![[r#"
            file "DIR/people.csv", line 1: the header is not UTF-8
              in source "people""#]],
    );
}

#[test]
fn a_quote_that_is_not_closed() {
    check(
        &[("people.csv", b"name,age\nAda,36\n\"Bob,7\nEve,41\n")],
        |p, dir| p.read("people", connectors::csv(dir.join("people.csv"))),
        Data,
        expect![[r#"
            file "DIR/people.csv", line 3: a quote is not closed (the row goes on to line 4)
              in source "people"
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

/// The field is text and passes; as a number it is named, and not printed whole.
#[test]
fn a_field_of_100_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = b"36,".to_vec();
    text.resize(100_000_003, b'x');
    text.extend(b"\n7,y\n");
    fs::write(folder.path().join("long.csv"), &text).unwrap();
    drop(text);
    let read = |kind: DataType| {
        let columns = schema(&[("age", DataType::Int64, false), ("text", kind, true)]);
        move |p: &Pipeline, dir: &Path| {
            p.read(
                "long",
                connectors::csv(dir.join("long.csv")).schema(Arc::clone(&columns)),
            )
        }
    };
    let start = Instant::now();
    let pipeline = Pipeline::new("test");
    let (sink, kept) = connectors::collect();
    read(DataType::Utf8)(&pipeline, folder.path()).write(sink);
    pipeline
        .run(&RunOptions::new().workers(1).progress(Progress::Never))
        .unwrap();
    let n_bytes: usize = kept
        .take()
        .iter()
        .map(RecordBatch::get_array_memory_size)
        .sum();
    assert!((100_000_000..300_000_000).contains(&n_bytes), "{n_bytes}");
    let message = refusal(folder.path(), read(DataType::Float64), Data, 1);
    expect![[r#"
        file "DIR/long.csv", line 1: column "text" must hold Float64, found "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"
          in source "long"
          Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]].assert_eq(&message);
    println!("a field of 100 MB, read twice: {:?}", start.elapsed());
}

// ---- files

#[test]
fn a_file_that_is_not_there() {
    check(
        &[],
        |p, dir| p.read("people", connectors::csv(dir.join("people.csv"))),
        Environment,
        expect![[r#"
            "DIR/people.csv" does not exist
              in source "people"
              Hint: Name a file, a folder, or a pattern such as "births/*.csv"."#]],
    );
}

/// A link to itself can be read by nobody, not even by an administrator.
#[test]
fn a_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("births.parquet");
    std::os::unix::fs::symlink(&place, &place).unwrap();
    check_in(
        folder.path(),
        |p, dir| p.read("births", connectors::parquet(dir.join("births.parquet"))),
        Environment,
        expect![[r#"
            cannot read "DIR/births.parquet": Too many levels of symbolic links (os error 40)
              in source "births""#]],
    );
}

#[test]
fn a_parquet_file_that_is_cut_short() {
    let whole = parquet_bytes(&numbers(1000));
    check(
        &[("births.parquet", &whole[..whole.len() / 2])],
        |p, dir| p.read("births", connectors::parquet(dir.join("births.parquet"))),
        Data,
        expect![[r#"
            file "DIR/births.parquet" is cut short or damaged
              in source "births"
              Parquet error: Invalid Parquet file. Corrupt footer.
              Hint: Write it again; a file that is still being written cannot be read."#]],
    );
}

#[test]
fn a_parquet_file_that_is_damaged_inside() {
    let mut whole = parquet_bytes(&numbers(1000));
    whole[4..400].fill(0xff);
    check(
        &[("births.parquet", &whole)],
        |p, dir| p.read("births", connectors::parquet(dir.join("births.parquet"))),
        Data,
        expect![[r#"
            file "DIR/births.parquet", row group 0, at or after row 0: the rows cannot be decoded
              in source "births"
              Parquet argument error: Parquet error: Unexpected struct field type 15.
              Hint: The file is damaged: write it again."#]],
    );
}

#[test]
fn a_file_of_another_format() {
    check(
        &[("births.parquet", b"weight,age\n7.5,30\n")],
        |p, dir| p.read("births", connectors::parquet(dir.join("births.parquet"))),
        Data,
        expect![[r#"
            file "DIR/births.parquet" is not a Parquet file
              in source "births"
              Parquet error: Invalid Parquet file. Corrupt footer.
              Hint: Name only Parquet files, for example by the pattern "*.parquet"."#]],
    );
}

#[test]
fn two_parquet_files_with_different_columns() {
    check(
        &[
            ("a.parquet", &parquet_bytes(&table("weight: 7.5; age: 30"))),
            ("b.parquet", &parquet_bytes(&table("weight: x; sex: f"))),
        ],
        |p, dir| p.read("births", connectors::parquet(dir.join("*.parquet"))),
        Data,
        expect![[r#"
            file "DIR/b.parquet" has other columns than file "DIR/a.parquet"
              in source "births"
              Column "weight" holds Utf8, not Float64.
              Column "age" is missing.
              Column "sex" is only here.
              Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]],
    );
}

#[test]
fn two_csv_files_with_different_columns() {
    check(
        &[
            ("a.csv", b"name,age\nAda,36\n"),
            ("b.csv", b"name,years\nBob,7\n"),
        ],
        |p, dir| p.read("people", connectors::csv(dir.join("*.csv"))),
        Data,
        expect![[r#"
            file "DIR/b.csv" has other columns than file "DIR/a.csv"
              in source "people"
              Column "age" is missing.
              Column "years" is only here.
              Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]],
    );
}

#[test]
fn an_empty_file() {
    check(
        &[("people.csv", b"")],
        |p, dir| p.read("people", connectors::csv(dir.join("people.csv"))),
        Data,
        expect![[r#"
            file "DIR/people.csv" is empty, expected a header
              in source "people"
              Hint: Leave the file out, or give the columns by `.schema(…)`."#]],
    );
}

#[test]
fn an_empty_folder() {
    check(
        &[],
        |p, dir| p.read("people", connectors::csv(dir)),
        Environment,
        expect![[r#"
            no file matches "DIR/*.csv"
              in source "people"
              Hint: Check the pattern; hidden files are passed over."#]],
    );
}

#[test]
fn a_parquet_file_without_columns() {
    let options = RecordBatchOptions::new().with_row_count(Some(3));
    let none = RecordBatch::try_new_with_options(schema(&[]), vec![], &options).unwrap();
    check(
        &[("none.parquet", &parquet_bytes(&none))],
        |p, dir| p.read("none", connectors::parquet(dir.join("none.parquet"))),
        Data,
        expect![[r#"
            file "DIR/none.parquet" has no columns
              in source "none"
              Hint: Leave the file out."#]],
    );
}

#[test]
fn a_csv_header_with_a_name_twice() {
    check(
        &[("people.csv", b"name,age,name\nAda,36,x\n")],
        |p, dir| p.read("people", connectors::csv(dir.join("people.csv"))),
        Data,
        expect![[r#"
            file "DIR/people.csv" has two columns "name"
              in source "people"
              Hint: Rename one of them."#]],
    );
}
