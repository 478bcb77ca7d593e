//! What a TFRecord source reads, and the messages by which it refuses.

use expect_test::{Expect, expect};
use tfrecord::io::sync::try_write_record;
use tfrecord::protobuf::Features;
use tfrecord::{Example, Feature, Record};

use super::*;
use crate::connectors::compression::tests::gzip;
use crate::connectors::many_bad_rows::check_lots;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_source, read_source, show};

fn file_of(records: Vec<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        try_write_record(&mut bytes, record).unwrap();
    }
    bytes
}

fn example(features: &[(&str, Feature)]) -> Vec<u8> {
    let feature = features
        .iter()
        .map(|(n, f)| ((*n).to_owned(), f.clone()))
        .collect();
    Example::to_bytes(Example {
        features: Some(Features { feature }),
    })
    .unwrap()
}

fn ints(values: &[i64]) -> Feature {
    Feature::from_i64_list(values.to_vec())
}

fn floats(values: &[f32]) -> Feature {
    Feature::from_f32_list(values.to_vec())
}

fn bytes(values: &[&[u8]]) -> Feature {
    Feature::from_bytes_iter(values.iter().map(|v| v.to_vec()))
}

fn some_records() -> Vec<Vec<u8>> {
    vec![
        example(&[
            ("x", ints(&[1])),
            ("y", floats(&[0.5, 1.5])),
            ("name", bytes(&[b"a"])),
            ("raw", bytes(&[b"\xff"])),
        ]),
        example(&[
            ("x", ints(&[])),
            ("y", floats(&[])),
            ("raw", bytes(&[b"a"])),
            ("none", Feature::empty()),
        ]),
        example(&[("x", ints(&[-3])), ("name", bytes(&[b""]))]),
    ]
}

fn check(source: &TfRecordSource, folder: &TestFolder, expected: Expect) {
    let found = match check_source(source) {
        Ok(rows) => format!("{}\n{}", rows.schema(), show(&rows)),
        Err(error) => folder.hide(error.to_string()),
    };
    expected.assert_eq(&found);
}

#[test]
fn columns_are_found_from_a_sample() {
    let folder = TestFolder::new();
    let plain = tfrecord(folder.write("a.tfrecord", file_of(some_records())));
    check(
        &plain,
        &folder,
        expect![[r#"
        Field { "name": nullable Utf8 }, Field { "raw": nullable Binary }, Field { "x": nullable Int64 }, Field { "y": nullable List(Float32) }
        name: 'a', null, ''
        raw: ff, 61, null
        x: 1, null, -3
        y: [0.5, 1.5], [], null"#]],
    );
    let gz = tfrecord(folder.write("a.tfrecord.gz", gzip(&file_of(some_records()))));
    assert_eq!(check_source(&gz).unwrap(), check_source(&plain).unwrap());
}

#[test]
fn columns_are_those_of_the_schema() {
    let folder = TestFolder::new();
    let source = tfrecord(folder.write("a.tfrecord", file_of(some_records())));
    let schema = Schema::new(vec![
        Field::new("y", DataType::new_list(DataType::Float32, true), true),
        Field::new("x", DataType::Int8, true),
        Field::new("other", DataType::Float64, true),
    ]);
    check(
        &source.clone().schema(Arc::new(schema)),
        &folder,
        expect![[r#"
            Field { "y": nullable List(Float32) }, Field { "x": nullable Int8 }, Field { "other": nullable Float64 }
            y: [0.5, 1.5], [], null
            x: 1, null, -3
            other: null, null, null"#]],
    );
    let dates = source.clone().column_type("x", DataType::Date32);
    check(
        &dates,
        &folder,
        expect![[r#"
        column "x" of type Date32 cannot be read from tf.Example
          A feature holds integers, floats of 32 bits or bytes.
          Hint: Read it as one of these, or as a list of them, and cast it afterwards."#]],
    );
    check(
        &source.clone().column_type("z", DataType::Utf8),
        &folder,
        expect![[r#"
            column "z" is not there
              The columns are "name", "raw", "x", "y"."#]],
    );
    check(
        &source.schema(Arc::new(Schema::empty())),
        &folder,
        expect!["the schema of TFRecord files must have columns"],
    );
}

#[test]
fn records_that_are_no_rows_are_bad_rows() {
    let folder = TestFolder::new();
    let records = vec![
        example(&[("x", ints(&[1])), ("s", bytes(&[b"a"]))]),
        example(&[("x", floats(&[1.0]))]),
        example(&[("x", ints(&[1, 2]))]),
        example(&[("x", ints(&[300]))]),
        b"no example".to_vec(),
        example(&[("s", bytes(&[b"a"]))]),
        example(&[("x", ints(&[2])), ("s", bytes(&[b"\xff"]))]),
        example(&[("x", ints(&[3]))]),
    ];
    let schema = Schema::new(vec![
        Field::new("x", DataType::UInt8, false),
        Field::new("s", DataType::Utf8, true),
    ]);
    let source = tfrecord(folder.write("a.tfrecord", file_of(records))).schema(Arc::new(schema));
    check_source(&source).unwrap();
    let (rows, mut out) = read_source(&source, OnBadRow::DeadLetter).unwrap();
    let letters: Vec<String> = out
        .take_dead_letters()
        .iter()
        .map(|l| format!("{} | {}", l.row, l.reason))
        .collect();
    let error = read_source(&source, OnBadRow::Fail).unwrap_err();
    expect![[r#"
        1 | column "x" must hold UInt8, found floats
        2 | column "x" must hold one value, found 2
        3 | column "x" must hold UInt8, found a value out of its range
        4 | it is no tf.Example (errored to decode example: failed to decode Protobuf message: invalid wire type value: 6)
        5 | column "x" must not be null
        6 | column "s" must hold UTF-8, found "�"
        x: 1, 3
        s: 'a', null
        file "FOLDER/a.tfrecord", record 1: column "x" must hold UInt8, found floats
          Hint: Correct the record, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]].assert_eq(&folder.hide(format!(
        "{}\n{}\n{error}",
        letters.join("\n"),
        show(&rows)
    )));
}

#[test]
fn damaged_files_end_the_run() {
    let folder = TestFolder::new();
    // One feature each: several would stand in another order in each run.
    let records = (0..3).map(|i| example(&[("x", ints(&[i]))]));
    let whole = file_of(records.collect());
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let error = |bytes: Vec<u8>| {
        let source = tfrecord(folder.write("a.tfrecord", bytes))
            .schema(Arc::clone(&schema))
            .max_row_bytes(100);
        let error = read_source(&source, OnBadRow::Drop).unwrap_err();
        assert!(error.is_data(), "{error:?}");
        folder.hide(error.to_string())
    };
    let damaged = |place: usize| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        bytes
    };
    let all = [
        error(whole[..whole.len() - 10].to_vec()),
        error(whole[..whole.len() - 3].to_vec()),
        error(whole[..5].to_vec()),
        error(damaged(0)),
        error(damaged(15)),
        error(file_of(vec![vec![0; 101]])),
    ];
    expect![[r#"
        file "FOLDER/a.tfrecord", record 2: the file ends in the middle of it
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/a.tfrecord", record 2: the file ends in the middle of it
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/a.tfrecord", record 0: the file ends in the middle of it
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/a.tfrecord", record 0: its checksum is 0x092b536d, expected 0x3f69e5c5
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/a.tfrecord", record 0: its checksum is 0x4765148f, expected 0xede3f22c
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/a.tfrecord", record 0: the record is longer than 100 bytes
          Hint: Raise `max_row_bytes`, if the record is what it should be."#]]
    .assert_eq(&all.join("\n"));
    let empty = tfrecord(folder.write("b.tfrecord", ""));
    check(
        &empty,
        &folder,
        expect![[r#"
        no tf.Example with a feature was found in file "FOLDER/b.tfrecord"
          Hint: Check the files, or give the columns by `.schema(…)`."#]],
    );
}

#[test]
fn a_split_of_bad_records_alone_gives_its_letters_in_lots() {
    let folder = TestFolder::new();
    let records = vec![b"no example".to_vec(); 50_000];
    let schema = Schema::new(vec![Field::new("x", DataType::Int64, true)]);
    let source = tfrecord(folder.write("a.tfrecord", file_of(records))).schema(Arc::new(schema));
    check_lots(&source, 50_000);
}
