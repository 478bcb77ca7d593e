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
        expect![""],
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
        expect![""],
    );
}

#[test]
fn with_a_schema_a_header_is_checked_and_may_stand_in_another_order() {
    let both = |s: CsvSource| s.schema(age_and_sex()).has_header(true);
    check("sex,mother_age\nf,30\n", both, expect![""]);
    check("sex,age\nf,30\n", both, expect![""]);
}

#[test]
fn spaces_and_spellings_of_null() {
    let census = "age, work\r\n39, State-gov\r\n ?, ? \r\n, \r\n\r\n   \r\n";
    check(census, |s| s.trim(true).null_spellings(["?"]), expect![""]);
    check(census, |s| s, expect![""]);
}

#[test]
fn other_delimiters_marks_at_the_start_and_lines_to_skip() {
    check("\u{feff}x;y\n1;2,5\n", |s| s.delimiter(b';'), expect![""]);
    check(
        "|1x3 Cross validator\n1,a\n",
        |s| s.skip_lines(1).has_header(false),
        expect![""],
    );
    check("x,,\n1,2,3\n", |s| s, expect![""]);
}

#[test]
fn text_without_rows() {
    check("x,y\n", |s| s, expect![""]);
    check("", |s| s.schema(age_and_sex()), expect![""]);
    check("", |s| s, expect![""]);
    check("\n\n", |s| s.has_header(false), expect![""]);
}

#[test]
fn too_few_and_too_many_fields_are_bad_rows() {
    check_bad("30,f\n31\n32,m\n33,f,x\n34,m", expect![""]);
}

#[test]
fn a_value_of_another_type_is_a_bad_row() {
    check_bad(
        "30,f\n\n\nabc,f\n32.5,m\n,m\n99999999999999999999,f\n33,f\n",
        expect![""],
    );
}

#[test]
fn text_that_is_not_utf8_is_a_bad_row() {
    check_bad(b"30,f\r\n\r\n31,\xff\xfe\r\n32,m\r\n", expect![""]);
}

#[test]
fn a_null_that_must_not_be_is_a_bad_row() {
    let strict = Schema::new(vec![Field::new("x", DataType::Int64, false)]);
    check_bad_of(
        |s| s.schema(Arc::new(strict.clone())).null_spellings(["-"]),
        "1\n-\n3\n",
        expect![""],
    );
}

#[test]
fn lines_are_counted_through_quoted_breaks_headers_and_skipped_lines() {
    check_bad_of(
        |s| s.schema(age_and_sex()).skip_lines(2).has_header(true),
        "one\ntwo\nmother_age,sex\n30,\"a\nb\"\nx,f\n31,\"m\n32,f\n33,m\n",
        expect![""],
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
    expect![""].assert_eq(&refusal(&folder, &csv(folder.path("in"))));
    let two = csv(folder.path("in/[ab].csv"));
    assert_eq!(show(&check_source(&two).unwrap()), "x: 1, 2\ny: 'a', 'b'");
    folder.write("in/e.csv", "");
    expect![""].assert_eq(&refusal(&folder, &csv(folder.path("in/[ae].csv"))));
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
    expect![""].assert_eq(&refusal(&folder, &csv(folder.path("births/*.csv"))));
    expect![""].assert_eq(&refusal(&folder, &csv(folder.path("b.csv"))));
    expect![""].assert_eq(&refusal(&folder, &text(&folder, "x,y,x\n1,2,3\n")));
    expect![""].assert_eq(&refusal(&folder, &text(&folder, b"x,\xff\n1,2\n")));
    let lists = DataType::new_list(DataType::Int64, true);
    let declared = schema(&[("x", lists), ("y", DataType::Utf8)]);
    expect![""].assert_eq(&refusal(&folder, &text(&folder, "").schema(declared)));
    let source = text(&folder, "x\n1\n");
    let splits = source.splits().unwrap();
    std::fs::remove_file(folder.path("births.csv")).unwrap();
    let gone = source.open(&splits[0], Position(0), None).err().unwrap();
    expect![""].assert_eq(&folder.hide(gone.to_string()));
}

#[test]
fn the_laws_of_sources_hold_on_real_files() {
    let Some(natality) = real_data("natality") else {
        return;
    };
    let known_sex = check_source(&csv(natality.join("bigquery_natality_known_sex.csv"))).unwrap();
    expect![""].assert_eq(&format!(
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
    expect![""].assert_eq(&format!("{nulls:?}\n{}", rows.schema()));
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
