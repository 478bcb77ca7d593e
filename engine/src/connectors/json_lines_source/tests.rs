//! What a source of JSON lines reads, and the messages by which it refuses.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::connectors::compression::tests::gzip;
use crate::connectors::test_folder::TestFolder;
use crate::output::{OnBadRow, Output};
use crate::testing::{check_source, read_source, show};

fn text(folder: &TestFolder, text: impl AsRef<[u8]>) -> JsonLinesSource {
    json_lines(folder.write("births.jsonl", text))
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(n, t)| Field::new(*n, t.clone(), true))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Checks the types and rows of a text.
fn check(content: &str, options: impl Fn(JsonLinesSource) -> JsonLinesSource, expected: Expect) {
    let folder = TestFolder::new();
    let found = match check_source(&options(text(&folder, content))) {
        Ok(rows) => {
            let types: Vec<String> = rows
                .schema()
                .fields()
                .iter()
                .map(|f| format!("{}: {}", f.name(), f.data_type()))
                .collect();
            format!("{}\n{}", types.join(", "), show(&rows))
        }
        Err(error) => folder.hide(error.to_string()),
    };
    expected.assert_eq(&found);
}

/// Checks the bad lines of a text, the rows, and the error where there must be none.
fn check_bad(columns: SchemaRef, content: impl AsRef<[u8]>, expected: Expect) {
    let folder = TestFolder::new();
    let source = text(&folder, content).schema(columns);
    check_source(&source).unwrap();
    let (rows, mut out) = read_source(&source, OnBadRow::DeadLetter).unwrap();
    let letters: Vec<String> = out
        .take_dead_letters()
        .iter()
        .map(|l| format!("{} | {} | {}", l.row, l.reason, l.data))
        .collect();
    let error = read_source(&source, OnBadRow::Fail).unwrap_err();
    assert!(error.is_data());
    expected.assert_eq(&folder.hide(format!("{}\n{}\n{error}", letters.join("\n"), show(&rows))));
}

#[test]
fn names_and_types_are_found_from_a_sample() {
    check(
        "\u{feff}{\"b\": 1, \"a\": {\"x\": [1, 2], \"y\": \"z\"}}\r\n\n  {\"c\": true, \"b\": 2.5}\n{\"c\":null}",
        |s| s,
        expect![[r#"
            b: Float64, a: Struct("x": List(Int64), "y": Utf8), c: Boolean
            b: 1.0, 2.5, null
            a: {x: [1, 2], y: z}, null, null
            c: null, true, null"#]],
    );
    check(
        "{\"zip\": \"01234\", \"n\": 7}\n{\"zip\": 12, \"n\": 8}\n{\"zip\": true}\n",
        |s| s.column_type("n", DataType::Int8),
        expect![[r#"
            zip: Utf8, n: Int8
            zip: '01234', '12', 'true'
            n: 7, 8, null"#]],
    );
}

#[test]
fn a_schema_takes_the_place_of_the_sample() {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let columns = schema(&[
        ("kind", dictionary),
        ("day", DataType::Date32),
        ("ids", DataType::new_list(DataType::UInt64, true)),
        ("x", DataType::Float32),
    ]);
    check(
        "{\"x\": 1, \"kind\": \"a\", \"ids\": [18446744073709551615, null], \"more\": 3}\n{\"day\": \"2001-01-31\"}\n",
        |s| s.schema(Arc::clone(&columns)),
        expect![[r#"
            kind: Dictionary(Int32, Utf8), day: Date32, ids: List(UInt64), x: Float32
            kind: 'a', null
            day: null, 2001-01-31
            ids: [18446744073709551615, null], null
            x: 1.0, null"#]],
    );
}

#[test]
fn lines_that_are_no_rows_are_bad_rows() {
    let strict = Schema::new(vec![
        Field::new("x", DataType::Int64, false),
        Field::new("y", DataType::new_list(DataType::Int8, true), true),
        Field::new("z", DataType::Boolean, true),
    ]);
    check_bad(
        Arc::new(strict),
        b"{\"x\": 1}\n\n{\"x\": 1.5}\n{\"x\": \"2\", \"y\": [1, 300]}\n{\"y\": []}\n{\"x\": 3, \"z\": 1}\n{\"x\": 4\n{\"x\": 5} {\"x\": 6}\n[7]\n8\n{\"x\": 9, \"z\": tru}\n{\"x\": 10, \"y\": \"a\xff\"}\r\n{\"x\": 1e3}\n{\"x\": 11, \"y\": [1, 2]}\n\"x\"\n",
        expect![[r#"
            3 | column "x" must hold Int64, found 1.5 | {"x": 1.5}
            4 | column "y" must hold List(Int8), found [1, 300] | {"x": "2", "y": [1, 300]}
            5 | column "x" must not be null | {"y": []}
            6 | whilst decoding field 'z': expected boolean got 1 | {"x": 3, "z": 1}
            7 | the JSON object is not closed | {"x": 4
            8 | expected one JSON object, found 2 | {"x": 5} {"x": 6}
            9 | expected { got [7] | [7]
            10 | expected { got 8 | 8
            11 | Encountered unexpected '}' whilst parsing literal | {"x": 9, "z": tru}
            12 | Encountered non-UTF-8 data | {"x": 10, "y": "a�"}
            13 | column "x" must hold Int64, found 1e3 | {"x": 1e3}
            15 | expected { got "x" | "x"
            x: 1, 11
            y: null, [1, 2]
            z: null, null
            file "FOLDER/births.jsonl", line 3: column "x" must hold Int64, found 1.5
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn whole_numbers_beyond_int64_are_text_wherever_they_stand() {
    check(
        "{\"id\": 99999999999999999999, \"x\": 1e20, \"y\": {\"z\": [1, -9223372036854775809]}}\n\
         {\"id\": 7, \"x\": 12345678901234567890.5, \"y\": {\"z\": [1.5]}, \"w\": [null, 1e30]}\n\
         {\"id\": 18446744073709551616, \"w\": []}\n",
        |s| s,
        expect![[r#"
            id: Utf8, x: Float64, y: Struct("z": List(Utf8)), w: List(Float64)
            id: '99999999999999999999', '7', '18446744073709551616'
            x: 1e20, 1.2345678901234567e19, null
            y: {z: [1, -9223372036854775809]}, {z: [1.5]}, null
            w: null, [null, 1e30], []"#]],
    );
}

#[test]
fn numbers_that_no_value_of_the_column_is_are_bad_rows() {
    let milliseconds = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None);
    let columns = schema(&[
        ("x", DataType::Float64),
        ("f", DataType::new_list(DataType::Float32, true)),
        ("d", DataType::Date32),
        (
            "t",
            DataType::Struct(vec![Field::new("at", milliseconds, true)].into()),
        ),
    ]);
    check_bad(
        columns,
        "{\"x\": 1e400}\n\
         {\"x\": \"-inf\", \"f\": [1e39]}\n\
         {\"x\": \"inf\", \"f\": [1e38, \"NaN\"]}\n\
         {\"d\": 1.5}\n\
         {\"d\": 1}\n\
         {\"d\": \"2001-01-31\", \"t\": {\"at\": 1e3}}\n\
         {\"t\": {\"at\": 1.5}}\n\
         {\"x\": 1e-400, \"t\": {\"at\": \"2001-01-31T10:00:00.5\"}}\n\
         {\"x\": -1e309, \"t\": {\"at\": 1500}}\n\
         {\"x\": 1.5, \"t\": {\"at\": 1500}}\n",
        expect![[r#"
            1 | column "x" must hold Float64, found 1e400 | {"x": 1e400}
            2 | column "f" must hold List(Float32), found [1e39] | {"x": "-inf", "f": [1e39]}
            4 | column "d" must hold Date32, found 1.5 | {"d": 1.5}
            6 | column "t" must hold Struct("at": Timestamp(ms)), found {at: 1e3} | {"d": "2001-01-31", "t": {"at": 1e3}}
            7 | column "t" must hold Struct("at": Timestamp(ms)), found {at: 1.5} | {"t": {"at": 1.5}}
            9 | column "x" must hold Float64, found -1e309 | {"x": -1e309, "t": {"at": 1500}}
            x: inf, null, 0.0, 1.5
            f: [1e38, NaN], null, null, null
            d: null, 1970-01-02, null, null
            t: null, null, {at: 2001-01-31T10:00:00.500}, {at: 1970-01-01T00:00:01.500}
            file "FOLDER/births.jsonl", line 1: column "x" must hold Float64, found 1e400
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn large_files_are_several_splits_and_lines_stay_exact() {
    let folder = TestFolder::new();
    let content = "{\"x\":1}\n\n{\"x\":2}\nbad\n{\"x\":3}\n\n\n{\"x\":4}";
    let source = text(&folder, content).split_bytes(9);
    assert_eq!(source.splits().unwrap().len(), 5);
    check_source(&source).unwrap();
    let (rows, mut out) = read_source(&source, OnBadRow::DeadLetter).unwrap();
    assert_eq!(show(&rows), "x: 1, 2, 3, 4");
    assert_eq!(out.take_dead_letters()[0].row, 4);
    // The last row begins before the last cut.
    let last = source.splits().unwrap().remove(3);
    let mut reader = source.open(&last, Position(0), None).unwrap();
    reader.next_batch(&mut Output::default()).unwrap().unwrap();
    assert_eq!(reader.lines().unwrap().line(0), 8);
}

#[test]
fn compressed_files_and_files_with_other_names_are_read_together() {
    let folder = TestFolder::new();
    folder.write("in/a.jsonl", "{\"x\":1}\n");
    folder.write("in/b.jsonl.gz", gzip(b"{\"y\":2}\n"));
    folder.write("in/c.ndjson", "");
    folder.write(
        "in/d.json.zst",
        zstd::encode_all(&b"{\"x\":3}\n"[..], 1).unwrap(),
    );
    let rows = check_source(&json_lines(folder.path("in"))).unwrap();
    expect![[r#"
        x: 1, null, 3
        y: null, 2, null"#]]
    .assert_eq(&show(&rows));
}

#[test]
fn what_cannot_be_read_is_refused() {
    let folder = TestFolder::new();
    let refusal =
        |source: &JsonLinesSource| folder.hide(Source::schema(source).unwrap_err().to_string());
    expect![[r#"
        no JSON object with a name in it was found in file "FOLDER/births.jsonl"
          Hint: Check the files, or give the columns by `.schema(…)`."#]]
    .assert_eq(&refusal(&text(&folder, "")));
    expect![[r#"
        no JSON object with a name in it was found in file "FOLDER/births.jsonl"
          Hint: Check the files, or give the columns by `.schema(…)`."#]]
    .assert_eq(&refusal(&text(&folder, "[1]\nx\n{}\n")));
    expect![[r#"
        "FOLDER/none" does not exist
          Hint: Name a file, a folder, or a pattern such as "births/*.jsonl"."#]]
    .assert_eq(&refusal(&json_lines(folder.path("none"))));
    let none = text(&folder, "{\"x\":1}\n");
    expect!["the schema of JSON lines must have columns"]
        .assert_eq(&refusal(&none.clone().schema(Arc::new(Schema::empty()))));
    expect![[r#"
        column "y" is not there
          The columns are "x"."#]]
    .assert_eq(&refusal(&none.clone().column_type("y", DataType::Utf8)));
    let twice = schema(&[("x", DataType::Utf8), ("x", DataType::Utf8)]);
    expect![[r#"
        the schema given has two columns "x"
          Hint: Rename one of them."#]]
    .assert_eq(&refusal(&none.clone().schema(twice)));
    let interval = DataType::Interval(arrow::datatypes::IntervalUnit::DayTime);
    expect![[r#"
        column "x" of type Interval(DayTime) cannot be read from JSON
          Support for Interval(DayTime) in JSON reader.
          Hint: Read it as Utf8 and cast it afterwards."#]]
    .assert_eq(&refusal(&none.clone().column_type("x", interval)));
    let long = text(&folder, "{\"x\":1}\n{\"x\":\"aaaaaaaaaaaaaaaaaaaa\"}\n")
        .schema(schema(&[("x", DataType::Utf8)]))
        .max_row_bytes(20);
    let error = read_source(&long, OnBadRow::Drop).unwrap_err();
    expect![[r#"
        file "FOLDER/births.jsonl", line 2: the row is longer than 20 bytes
          Hint: Raise `max_row_bytes`, if the line is what it should be."#]]
    .assert_eq(&folder.hide(error.to_string()));
    let broken = json_lines(folder.write(
        "a.jsonl.gz",
        &gzip("{\"x\":1}\n".repeat(9).as_bytes())[..20],
    ));
    expect![[r#"
        file "FOLDER/a.jsonl.gz" ends in the middle of its compressed data, after 20 bytes
          The decompression reports: incomplete deflate stream.
          Hint: Copy the file anew, or leave it out."#]]
    .assert_eq(&refusal(&broken));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes are rows, bad rows or a refusal; never a panic, and splits change nothing.
    #[test]
    fn any_bytes_keep_the_laws(parts in prop::collection::vec(prop::sample::select(vec![
        &b"{\"x\":1}"[..], b"{\"x\":", b"}", b"\n", b"\n", b"\r", b"{\"y\":\"a\"}", b"null", b" ", b"\xff", b"\"", b"{}",
    ]), 0..12), split_bytes in 1_u64..20) {
        let folder = TestFolder::new();
        let columns = schema(&[("x", DataType::Int64), ("y", DataType::Utf8)]);
        let source = text(&folder, parts.concat()).schema(columns);
        let whole = check_source(&source).unwrap();
        prop_assert_eq!(check_source(&source.split_bytes(split_bytes)).unwrap(), whole);
        let _ = check_source(&text(&folder, parts.concat()));
    }
}
