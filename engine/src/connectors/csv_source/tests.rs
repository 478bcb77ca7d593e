//! What a CSV source reads, and the messages by which it refuses.

use arrow::datatypes::TimeUnit;
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::connectors::test_folder::{TestFolder, real_data};
use crate::output::DeadLetter;
use crate::testing::{check_source, read_source, show};

/// A source of one file with this text.
fn text(folder: &TestFolder, text: impl AsRef<[u8]>) -> CsvSource {
    csv(folder.write("births.csv", text))
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(n, t)| Field::new(*n, t.clone(), true))
        .collect();
    Arc::new(Schema::new(fields))
}

fn age_and_sex() -> SchemaRef {
    schema(&[("mother_age", DataType::Int64), ("sex", DataType::Utf8)])
}

/// Checks the types and rows of a text with a header.
fn check(content: &str, options: impl Fn(CsvSource) -> CsvSource, expected: Expect) {
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

/// Checks the bad rows of a text of mother_age and sex, and the error where there must be none.
fn check_bad(content: impl AsRef<[u8]>, expected: Expect) {
    check_bad_of(|s| s.schema(age_and_sex()), content, expected);
}

fn check_bad_of(
    options: impl Fn(CsvSource) -> CsvSource,
    content: impl AsRef<[u8]>,
    expected: Expect,
) {
    let folder = TestFolder::new();
    let source = options(text(&folder, content));
    check_source(&source).unwrap();
    let (rows, mut out) = read_source(&source, OnBadRow::DeadLetter).unwrap();
    let dead = out.take_dead_letters();
    assert_eq!(out.take_counts(), (0, dead.len() as u64));
    let letters: Vec<String> = dead
        .iter()
        .map(
            |DeadLetter {
                 row, reason, data, ..
             }| format!("{row} | {reason} | {data:?}"),
        )
        .collect();
    let error = read_source(&source, OnBadRow::Fail).unwrap_err();
    assert!(error.is_data());
    expected.assert_eq(&folder.hide(format!("{}\n{}\n{error}", letters.join("\n"), show(&rows))));
}

fn refusal(folder: &TestFolder, source: &CsvSource) -> String {
    folder.hide(Source::schema(source).unwrap_err().to_string())
}

#[test]
fn types_are_found_from_a_sample() {
    check(
        "i,f,b,d,t,s,n\n1,1,true,2001-01-31,2001-01-31 10:00:00,a,\n,2.5,False,,2001-02-01T00:00:00.5,\"b,\"\"c\"\"\",\n",
        |s| s,
        expect![[r#"
            i: Int64, f: Float64, b: Boolean, d: Date32, t: Timestamp(µs), s: Utf8, n: Utf8
            i: 1, null
            f: 1.0, 2.5
            b: true, false
            d: 2001-01-31, null
            t: 2001-01-31T10:00:00, 2001-02-01T00:00:00.500
            s: 'a', 'b,"c"'
            n: null, null"#]],
    );
}

#[test]
fn a_schema_takes_the_place_of_the_header() {
    let columns = schema(&[
        ("id", DataType::UInt8),
        ("x", DataType::Float32),
        ("yes", DataType::Boolean),
        ("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
        (
            "kind",
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        ),
    ]);
    check(
        "1,0.5,T,2001-01-31,a\n2,-1e3,no,2001-01-31T10:00:00Z,\n",
        |s| s.schema(columns.clone()),
        expect![[r#"
            id: UInt8, x: Float32, yes: Boolean, at: Timestamp(ms), kind: Dictionary(Int32, Utf8)
            id: 1, 2
            x: 0.5, -1000.0
            yes: true, false
            at: 2001-01-31T00:00:00, 2001-01-31T10:00:00
            kind: 'a', null"#]],
    );
}

#[test]
fn with_a_schema_a_header_is_checked_and_may_stand_in_another_order() {
    let both = |s: CsvSource| s.schema(age_and_sex()).has_header(true);
    check(
        "sex,mother_age\nf,30\n",
        both,
        expect![[r#"
        mother_age: Int64, sex: Utf8
        mother_age: 30
        sex: 'f'"#]],
    );
    check(
        "sex,age\nf,30\n",
        both,
        expect![[r#"
            file "FOLDER/births.csv" has other columns than the schema given
              Column "mother_age" is missing.
              Column "age" is only here.
              Hint: Correct the schema, or pass the header over by `.skip_lines(1).has_header(false)`."#]],
    );
}

#[test]
fn spaces_and_spellings_of_null() {
    let census = "age, work\r\n39, State-gov\r\n ?, ? \r\n, \r\n\r\n   \r\n";
    check(
        census,
        |s| s.trim(true).null_spellings(["?"]),
        expect![[r#"
        age: Int64, work: Utf8
        age: 39, null, null
        work: 'State-gov', null, null"#]],
    );
    check(
        census,
        |s| s,
        expect![[r#"
        age: Utf8,  work: Utf8
        age: '39', ' ?', null
         work: ' State-gov', ' ? ', ' '"#]],
    );
}

#[test]
fn other_delimiters_marks_at_the_start_and_lines_to_skip() {
    check(
        "\u{feff}x;y\n1;2,5\n",
        |s| s.delimiter(b';'),
        expect![[r#"
        x: Int64, y: Utf8
        x: 1
        y: '2,5'"#]],
    );
    check(
        "|1x3 Cross validator\n1,a\n",
        |s| s.skip_lines(1).has_header(false),
        expect![[r#"
            column_1: Int64, column_2: Utf8
            column_1: 1
            column_2: 'a'"#]],
    );
    check(
        "x,,\n1,2,3\n",
        |s| s,
        expect![[r#"
        x: Int64, column_2: Int64, column_3: Int64
        x: 1
        column_2: 2
        column_3: 3"#]],
    );
}

#[test]
fn text_without_rows() {
    check(
        "x,y\n",
        |s| s,
        expect![[r#"
        x: Utf8, y: Utf8
        x:
        y:"#]],
    );
    check(
        "",
        |s| s.schema(age_and_sex()),
        expect![[r#"
        mother_age: Int64, sex: Utf8
        mother_age:
        sex:"#]],
    );
    check(
        "",
        |s| s,
        expect![[r#"
        file "FOLDER/births.csv" is empty, expected a header
          Hint: Leave the file out, or give the columns by `.schema(…)`."#]],
    );
    check(
        "\n\n",
        |s| s.has_header(false),
        expect![[r#"
        file "FOLDER/births.csv" is empty, expected rows
          Hint: Leave the file out, or give the columns by `.schema(…)`."#]],
    );
}

#[test]
fn too_few_and_too_many_fields_are_bad_rows() {
    check_bad(
        "30,f\n31\n32,m\n33,f,x\n34,m",
        expect![[r#"
        2 | expected 2 fields, found 1 | "31"
        4 | expected 2 fields, found 3 | "33,f,x"
        mother_age: 30, 32, 34
        sex: 'f', 'm', 'm'
        file "FOLDER/births.csv", line 2: expected 2 fields, found 1
          Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn a_value_of_another_type_is_a_bad_row() {
    check_bad(
        "30,f\n\n\nabc,f\n32.5,m\n,m\n99999999999999999999,f\n33,f\n",
        expect![[r#"
            4 | column "mother_age" must hold Int64, found "abc" | "abc,f"
            5 | column "mother_age" must hold Int64, found "32.5" | "32.5,m"
            7 | column "mother_age" must hold Int64, found "99999999999999999999" | "99999999999999999999,f"
            mother_age: 30, null, 33
            sex: 'f', 'm', 'f'
            file "FOLDER/births.csv", line 4: column "mother_age" must hold Int64, found "abc"
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn text_that_is_not_utf8_is_a_bad_row() {
    check_bad(
        b"30,f\r\n\r\n31,\xff\xfe\r\n32,m\r\n",
        expect![[r#"
        3 | column "sex" must hold UTF-8, found "��" | "31,��"
        mother_age: 30, 32
        sex: 'f', 'm'
        file "FOLDER/births.csv", line 3: column "sex" must hold UTF-8, found "��"
          Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn a_null_that_must_not_be_is_a_bad_row() {
    let strict = Schema::new(vec![Field::new("x", DataType::Int64, false)]);
    check_bad_of(
        |s| s.schema(Arc::new(strict.clone())).null_spellings(["-"]),
        "1\n-\n3\n",
        expect![[r#"
            2 | column "x" must not be null | "-"
            x: 1, 3
            file "FOLDER/births.csv", line 2: column "x" must not be null
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn lines_are_counted_through_quoted_breaks_headers_and_skipped_lines() {
    check_bad_of(
        |s| s.schema(age_and_sex()).trim(true),
        "30,f\n31\n   \n\n32\n  \n",
        expect![[r#"
            2 | expected 2 fields, found 1 | "31"
            5 | expected 2 fields, found 1 | "32"
            mother_age: 30
            sex: 'f'
            file "FOLDER/births.csv", line 2: expected 2 fields, found 1
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
    check_bad_of(
        |s| s.schema(age_and_sex()).skip_lines(2).has_header(true),
        "one\ntwo\nmother_age,sex\n30,\"a\nb\"\nx,f\n31,\"m\n32,\"f\",2\n33,m\n34,\"f\n35,m\n36,m\n",
        expect![[r#"
            6 | column "mother_age" must hold Int64, found "x" | "x,f"
            7 | expected 2 fields, found 3 (the row goes on to line 8) | "31,\"m\n32,\"f\",2"
            10 | a quote is not closed (the row goes on to line 12) | "34,\"f\n35,m\n36,m"
            mother_age: 30, 33
            sex: 'a
            b', 'm'
            file "FOLDER/births.csv", line 6: column "mother_age" must hold Int64, found "x"
              Hint: Correct the line, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source."#]],
    );
}

#[test]
fn a_bad_row_is_bad_whatever_columns_are_wanted() {
    let folder = TestFolder::new();
    let source = text(&folder, "1,a\nx,b\n3,c\n").schema(age_and_sex());
    let split = source.splits().unwrap().remove(0);
    let mut reader = source
        .open(&split, Position(0), Some(&["sex".to_owned()]))
        .unwrap();
    let mut out = Output::new(OnBadRow::Drop);
    let rows = reader.next_batch(&mut out).unwrap().unwrap();
    assert_eq!(show(&rows), "sex: 'a', 'c'");
    assert_eq!(out.take_counts(), (0, 1));
}

#[test]
fn bad_rows_are_rejected_once_where_reading_goes_on_at_the_end_of_a_batch() {
    let folder = TestFolder::new();
    let mut content = String::new();
    for i in 0..3 * BATCH_ROWS {
        content.push_str(if i % 1_000 == 999 || i == BATCH_ROWS - 1 {
            "bad\n"
        } else {
            "1,f\n"
        });
    }
    let source = text(&folder, content).schema(age_and_sex());
    let split = source.splits().unwrap().remove(0);
    let mut out = Output::new(OnBadRow::DeadLetter);
    let (mut read, mut first) = (0, None);
    loop {
        // Each batch by a reader of its own.
        let mut reader = source.open(&split, Position(read), None).unwrap();
        let Some(rows) = reader.next_batch(&mut out).unwrap() else {
            break;
        };
        read += rows.num_rows() as u64;
        first.get_or_insert(rows.num_rows());
    }
    let (_, mut at_once) = read_source(&source, OnBadRow::DeadLetter).unwrap();
    assert_eq!(out.take_dead_letters(), at_once.take_dead_letters());
    assert_eq!(first, Some(BATCH_ROWS - 9));
}

#[test]
fn files_that_differ_are_named() {
    let folder = TestFolder::new();
    folder.write("in/a.csv", "x,y\n1,a\n");
    folder.write("in/b.csv", "y,x\nb,2\n");
    folder.write("in/c.csv", "x,z\n1,2\n");
    folder.write("in/d.csv", "x\n1\n");
    expect![[r#"
        2 errors
        1. file "FOLDER/in/c.csv" has other columns than file "FOLDER/in/a.csv"
             Column "y" is missing.
             Column "z" is only here.
             Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`.
        2. file "FOLDER/in/d.csv" has other columns than file "FOLDER/in/a.csv"
             Column "y" is missing.
             Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]].assert_eq(&refusal(&folder, &csv(folder.path("in"))));
    let two = csv(folder.path("in/[ab].csv"));
    assert_eq!(show(&check_source(&two).unwrap()), "x: 1, 2\ny: 'a', 'b'");
    folder.write("in/e.csv", "");
    expect![[r#"
        file "FOLDER/in/e.csv" is empty, expected a header
          Hint: Leave the file out, or give the columns by `.schema(…)`."#]]
    .assert_eq(&refusal(&folder, &csv(folder.path("in/[ae].csv"))));
}

#[test]
fn a_sample_is_taken_from_every_file() {
    let folder = TestFolder::new();
    folder.write("a.csv", "x\n1\n");
    folder.write("b.csv", "x\n1.5\n");
    let rows = check_source(&csv(folder.path(""))).unwrap();
    assert_eq!(show(&rows), "x: 1.0, 1.5");
}

#[test]
fn what_cannot_be_read_is_refused() {
    let folder = TestFolder::new();
    expect![[r#"
        no file matches "FOLDER/births/*.csv"
          The folder "FOLDER/births" does not exist."#]]
    .assert_eq(&refusal(&folder, &csv(folder.path("births/*.csv"))));
    expect![[r#"
        "FOLDER/b.csv" does not exist
          Hint: Name a file, a folder, or a pattern such as "births/*.csv"."#]]
    .assert_eq(&refusal(&folder, &csv(folder.path("b.csv"))));
    expect![[r#"
        file "FOLDER/births.csv" has two columns "x"
          Hint: Rename one of them."#]]
    .assert_eq(&refusal(&folder, &text(&folder, "x,y,x\n1,2,3\n")));
    expect![[r#"file "FOLDER/births.csv", line 1: the header is not UTF-8"#]]
        .assert_eq(&refusal(&folder, &text(&folder, b"x,\xff\n1,2\n")));
    let lists = DataType::new_list(DataType::Int64, true);
    let declared = schema(&[("x", lists), ("y", DataType::Utf8)]);
    expect![[r#"
        column "x" of type List(Int64) cannot be read from CSV
          Hint: Read it as Utf8 and take it apart afterwards."#]]
    .assert_eq(&refusal(&folder, &text(&folder, "").schema(declared)));
    let twice = schema(&[("x", DataType::Utf8), ("x", DataType::Utf8)]);
    expect![[r#"
        the schema given has two columns "x"
          Hint: Rename one of them."#]]
    .assert_eq(&refusal(&folder, &text(&folder, "").schema(twice)));
    let source = text(&folder, "x\n1\n");
    let splits = source.splits().unwrap();
    folder.write("births.csv", "x\n1\n2\n");
    let changed = source.open(&splits[0], Position(0), None).err().unwrap();
    expect![[r#"
        file "FOLDER/births.csv" has changed since it was first read
          Hint: Build the pipeline anew, and write new files beside those that are being read."#]]
    .assert_eq(&folder.hide(changed.to_string()));
    std::fs::remove_file(folder.path("births.csv")).unwrap();
    let gone = source.open(&splits[0], Position(0), None).err().unwrap();
    expect![[r#"cannot read "FOLDER/births.csv": it does not exist any more"#]]
        .assert_eq(&folder.hide(gone.to_string()));
}

#[test]
fn the_laws_of_sources_hold_on_real_files() {
    let Some(natality) = real_data("natality") else {
        return;
    };
    let known_sex = check_source(&csv(natality.join("bigquery_natality_known_sex.csv"))).unwrap();
    expect![[r#"38233 rows, Field { "weight_pounds": nullable Float64 }, Field { "is_male": nullable Boolean }, Field { "mother_age": nullable Int64 }, Field { "plurality": nullable Int64 }, Field { "gestation_weeks": nullable Int64 }"#]].assert_eq(&format!(
        "{} rows, {}",
        known_sex.num_rows(),
        known_sex.schema()
    ));
    let columns = schema(&[
        ("weight_pounds", DataType::Float64),
        ("is_male", DataType::Utf8),
        ("mother_age", DataType::Int64),
        ("plurality", DataType::Utf8),
        ("gestation_weeks", DataType::Float64),
        ("key", DataType::Int64),
    ]);
    let both = csv(natality.join("babyweight_*.csv")).schema(columns);
    assert_eq!(check_source(&both).unwrap().num_rows(), 26_518 + 6_508);
    assert_eq!(
        read_source(&both, OnBadRow::Fail).unwrap().1.take_counts(),
        (0, 0)
    );
}

#[test]
fn the_census_is_read_with_its_spaces_question_marks_and_empty_line() {
    let Some(census) = real_data("census") else {
        return;
    };
    let plain = |name: &str| csv(census.join(name)).trim(true).null_spellings(["?"]);
    let data = plain("adult.data").has_header(false);
    let rows = check_source(&data).unwrap();
    assert_eq!(rows.num_rows(), 32_561);
    let nulls: Vec<usize> = rows.columns().iter().map(|c| c.null_count()).collect();
    expect![[r#"
        [0, 1836, 0, 0, 0, 0, 1843, 0, 0, 0, 0, 0, 0, 583, 0]
        Field { "column_1": nullable Int64 }, Field { "column_2": nullable Utf8 }, Field { "column_3": nullable Int64 }, Field { "column_4": nullable Utf8 }, Field { "column_5": nullable Int64 }, Field { "column_6": nullable Utf8 }, Field { "column_7": nullable Utf8 }, Field { "column_8": nullable Utf8 }, Field { "column_9": nullable Utf8 }, Field { "column_10": nullable Utf8 }, Field { "column_11": nullable Int64 }, Field { "column_12": nullable Int64 }, Field { "column_13": nullable Int64 }, Field { "column_14": nullable Utf8 }, Field { "column_15": nullable Utf8 }"#]].assert_eq(&format!("{nulls:?}\n{}", rows.schema()));
    assert_eq!(
        read_source(&data, OnBadRow::Fail).unwrap().1.take_counts(),
        (0, 0)
    );
    let test = check_source(&plain("adult.test")).unwrap();
    assert_eq!(test.num_rows(), 16_281);
    assert_eq!(test.schema().field(14).name(), "Y");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes are rows, bad rows or a refusal; never a panic, and the laws hold for them.
    #[test]
    fn any_bytes_keep_the_laws(bytes in prop::collection::vec(
        prop::sample::select(b"1,\n\r\"x .\xff".to_vec()), 0..60
    ), trim: bool) {
        let folder = TestFolder::new();
        check_source(&text(&folder, &bytes).schema(age_and_sex()).trim(trim)).unwrap();
        let _ = check_source(&text(&folder, &bytes).trim(trim));
    }
}
