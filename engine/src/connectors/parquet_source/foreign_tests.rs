//! Files as other writers leave them: timestamps of the old kind, empty row groups, predicates on fields of
//! structs, a damaged page index.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StructArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Field, Int32Type};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use expect_test::expect;
use parquet::arrow::ArrowWriter;
use parquet::data_type::{Int64Type as ParquetInt64, Int96, Int96Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::connectors::collect;
use crate::connectors::test_folder::TestFolder;
use crate::expression::functions::core::expr_fn::get_field;
use crate::expression::{Expression, col, lit};
use crate::output::OnBadRow;
use crate::testing::{check_source, read_source, show};
use crate::{Pipeline, RunOptions};

/// Days since the beginning of Julian days, as the format of INT96 counts them, at 1970.
const JULIAN_DAY_OF_1970: i64 = 2_440_588;

/// An instant as Impala and Spark write it: nanoseconds of the day, then the day.
fn int96(day_since_1970: i64, nanoseconds: u64) -> Int96 {
    let mut value = Int96::new();
    let day = u32::try_from(JULIAN_DAY_OF_1970 + day_since_1970).unwrap();
    value.set_data(nanoseconds as u32, (nanoseconds >> 32) as u32, day);
    value
}

/// A file of groups of `id`s, and of an instant for each, of this schema.
fn write_raw(folder: &TestFolder, name: &str, schema: &str, groups: &[&[(i64, Option<Int96>)]]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(folder.write(name, "")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).collect();
        let levels: Vec<i16> = rows.iter().map(|(_, at)| i16::from(at.is_some())).collect();
        let instants: Vec<Int96> = rows.iter().filter_map(|(_, at)| *at).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let written = column.typed::<ParquetInt64>();
        written.write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        if let Some(mut column) = group.next_column().unwrap() {
            let written = column.typed::<Int96Type>();
            written.write_batch(&instants, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

const WITH_INSTANTS: &str = "message rows { required int64 id; optional int96 at; }";

/// Midnight of 1 January of the years 1, 1677, 1970, 2262 and 9999, by Python's
/// `(datetime.date(year, 1, 1) - datetime.date(1970, 1, 1)).days`: the first and the last are what programs write for
/// "never" and "for ever", and lie outside of what 64 bits of nanoseconds can say.
const YEARS: [(i64, i64); 5] = [
    (1, -719_162),
    (1677, -107_015),
    (1970, 0),
    (2262, 106_651),
    (9999, 2_932_532),
];

#[test]
fn timestamps_of_96_bits_are_microseconds_of_any_year() {
    let folder = TestFolder::new();
    let mut rows: Vec<(i64, Option<Int96>)> = YEARS
        .iter()
        .map(|(year, days)| (*year, Some(int96(*days, 0))))
        .collect();
    rows.push((2000, Some(int96(10_957, 86_399_999_999_000))));
    // Digits behind the microseconds are cut off.
    rows.push((2001, Some(int96(-1, 1_999))));
    rows.push((0, None));
    write_raw(
        &folder,
        "a.parquet",
        WITH_INSTANTS,
        &[&rows[..3], &rows[3..]],
    );
    let source = parquet(folder.path("a.parquet"));
    let read = check_source(&source).unwrap();
    expect![[r#"
        Field { "id": Int64 }, Field { "at": nullable Timestamp(µs) }
        id: 1, 1677, 1970, 2262, 9999, 2000, 2001, 0
        at: 0001-01-01T00:00:00, 1677-01-01T00:00:00, 1970-01-01T00:00:00, 2262-01-01T00:00:00, 9999-01-01T00:00:00, 2000-01-01T23:59:59.999999, 1969-12-31T00:00:00.000001, null"#]]
    .assert_eq(&format!("{}\n{}", read.schema(), show(&read)));

    let since_2000 = col("at").gt_eq(crate::expression::cast(
        lit("2000-01-01T00:00:00"),
        read.column(1).data_type().clone(),
    ));
    let given = filtered(&source, &since_2000);
    expect![[r#"
        id: 2262, 9999, 2000
        at: 2262-01-01T00:00:00, 9999-01-01T00:00:00, 2000-01-01T23:59:59.999999"#]]
    .assert_eq(&show(&given));
}

/// The rows that pass, by a pipeline whose source knows of the filter; they must be those that pass of all rows.
fn filtered(source: &ParquetSource, predicate: &Expr) -> RecordBatch {
    let all = read_source(source, OnBadRow::Fail).unwrap().0;
    let mask = Expression::compile_predicate(predicate, &all.schema());
    let mask = mask.unwrap().evaluate_mask(&all).unwrap();
    let expected = filter_record_batch(&all, &mask).unwrap();
    let pipeline = Pipeline::new("some");
    let (sink, some) = collect();
    let rows = pipeline.read("rows", source.clone());
    rows.filter(predicate.clone()).write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    let given = concat_batches(&all.schema(), &some.take()).unwrap();
    assert_eq!(given, expected, "{predicate}");
    given
}

#[test]
fn timestamps_of_96_bits_in_structs_are_microseconds_and_those_from_arrow_keep_their_unit() {
    let schema = "message rows {
        required int64 id;
        optional group of { optional int96 at; }
    }";
    let folder = TestFolder::new();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(folder.write("a.parquet", "")).unwrap();
    let write = |file: File, schema, properties: WriterProperties| {
        let mut writer = SerializedFileWriter::new(file, schema, properties.into()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ids = column.typed::<ParquetInt64>();
        ids.write_batch(&[1, 2], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let levels: &[i16] = &[
            column.typed::<Int96Type>().get_descriptor().max_def_level(),
            0,
        ];
        let instants = column.typed::<Int96Type>();
        let one = [int96(10_957, 1_234_567_891)];
        instants.write_batch(&one, Some(levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    };
    write(file, schema, WriterProperties::default());
    let read = check_source(&parquet(folder.path("a.parquet"))).unwrap();
    expect![[r#"
        Field { "id": Int64 }, Field { "of": nullable Struct("at": Timestamp(µs)) }
        id: 1, 2
        of: {at: 2000-01-01T00:00:01.234567}, null"#]]
    .assert_eq(&format!("{}\n{}", read.schema(), show(&read)));

    // As pyarrow does it with `use_deprecated_int96_timestamps=True`: the unit stands in the Arrow schema.
    let schema = Arc::new(parse_message_type(WITH_INSTANTS).unwrap());
    let of_arrow = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new(
            "at",
            DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None),
            true,
        ),
    ]);
    let mut properties = WriterProperties::builder().build();
    parquet::arrow::add_encoded_arrow_schema_to_metadata(&of_arrow, &mut properties);
    let file = File::create(folder.write("b.parquet", "")).unwrap();
    write(file, schema, properties);
    let read = check_source(&parquet(folder.path("b.parquet"))).unwrap();
    expect![[r#"
        Field { "id": Int64 }, Field { "at": nullable Timestamp(ns) }
        id: 1, 2
        at: 2000-01-01T00:00:01.234567891, null"#]]
    .assert_eq(&format!("{}\n{}", read.schema(), show(&read)));
}

#[test]
fn row_groups_without_rows_are_passed_over() {
    let folder = TestFolder::new();
    let one = &[(1, None), (2, Some(int96(0, 5_000)))][..];
    let other = &[(3, None)][..];
    write_raw(
        &folder,
        "a.parquet",
        WITH_INSTANTS,
        &[&[], one, &[], &[], other, &[]],
    );
    write_raw(&folder, "b.parquet", WITH_INSTANTS, &[&[], &[]]);
    write_raw(&folder, "c.parquet", WITH_INSTANTS, &[]);
    let groups = |name: &str| {
        let source = parquet(folder.path(name));
        source.loaded().unwrap().files[0].row_groups.len()
    };
    assert_eq!(
        ["a.parquet", "b.parquet", "c.parquet"].map(groups),
        [6, 2, 0]
    );

    let all = parquet(folder.path(""));
    let expected = expect![[r#"
        id: 1, 2, 3
        at: null, 1970-01-01T00:00:00.000005, null"#]];
    expected.assert_eq(&show(&check_source(&all).unwrap()));
    expect!["id: 2, 3"].assert_eq(
        show(&filtered(&all, &col("id").gt(lit(1))))
            .lines()
            .next()
            .unwrap(),
    );
    expect!["id: 2"].assert_eq(
        show(&filtered(&all, &col("at").is_not_null()))
            .lines()
            .next()
            .unwrap(),
    );
    for name in ["b.parquet", "c.parquet"] {
        let none = parquet(folder.path(name));
        assert_eq!(none.splits().unwrap(), []);
        let rows = check_source(&none).unwrap();
        assert_eq!((rows.num_rows(), rows.num_columns()), (0, 2));
        assert_eq!(filtered(&none, &col("id").gt(lit(1))).num_rows(), 0);
    }
}

/// Rows of a struct whose fields are named as columns beside it are, with other values, and of a list.
fn nested() -> RecordBatch {
    let number = |i: i64| (i % 7 > 0).then_some(i / 10);
    let a: ArrayRef = Arc::new(Int64Array::from_iter((0..400).map(number)));
    let text = (0..400).map(|i| (i % 5 > 0).then(|| format!("t{:02}", i / 20)));
    let b: ArrayRef = Arc::new(StringArray::from_iter(text));
    let fields = vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
    ];
    let present: Vec<bool> = (0..400)
        .map(|i| i % 11 > 0 && !(120..160).contains(&i))
        .collect();
    let of = StructArray::new(fields.into(), vec![a, b], Some(present.into()));
    let list = (0..400).map(|i| (i % 3 > 0).then(|| vec![Some(i); (i % 4) as usize]));
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(list);
    let other: ArrayRef = Arc::new(Int64Array::from_iter_values((0..400).map(|i| 1_000 - i)));
    let dotted: ArrayRef = Arc::new(Int64Array::from_iter_values((0..400).map(|i| -i)));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("a", other),
        ("of", Arc::new(of)),
        ("list", Arc::new(list)),
        ("of.a", dotted),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn write_nested(folder: &TestFolder) {
    let rows = nested();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(100))
        .set_data_page_row_count_limit(10)
        .set_write_batch_size(10)
        .build();
    let file = File::create(folder.write("a.parquet", "")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

#[test]
fn predicates_on_fields_of_structs_and_on_lists_leave_out_no_row_that_passes() {
    let folder = TestFolder::new();
    write_nested(&folder);
    let source = parquet(folder.path("a.parquet"));
    assert_eq!(check_source(&source).unwrap(), nested());
    let a = || get_field(col("of"), "a");
    let b = || get_field(col("of"), "b");
    let predicates = [
        a().eq(lit(25)),
        a().lt(lit(3)),
        a().is_null(),
        a().is_not_null().and(b().eq(lit("t09"))),
        b().gt_eq(lit("t18")).or(a().eq(lit(0))),
        // Only the column beside the struct is bounded by what the file says of its row groups and pages.
        a().lt(lit(30)).and(col("a").lt(lit(720))),
        col("of.a").lt_eq(lit(-390)),
        col("of.a").lt_eq(lit(-390)).and(a().gt(lit(0))),
        col("of").is_null(),
        col("of").is_not_null().and(col("list").is_null()),
        col("list").is_not_null().and(col("a").gt(lit(990))),
        a().gt(lit(1_000)),
    ];
    let told: Vec<String> = predicates
        .iter()
        .map(|predicate| {
            let pruned = source.prune(predicate).unwrap();
            let given = filtered(&source, predicate);
            let read = read_source(pruned.as_ref(), OnBadRow::Fail).unwrap().0;
            let config = pruned.describe().config;
            let (reads, n_read) = (&config["reads"], read.num_rows());
            format!(
                "{predicate}: {} pass of {n_read} read, {reads}",
                given.num_rows()
            )
        })
        .collect();
    expect![[r#"
        get_field(of, Utf8("a")) = Int32(25): 7 pass of 7 read, "4 of 4 row groups"
        get_field(of, Utf8("a")) < Int32(3): 23 pass of 23 read, "4 of 4 row groups"
        get_field(of, Utf8("a")) IS NULL: 121 pass of 121 read, "4 of 4 row groups"
        get_field(of, Utf8("a")) IS NOT NULL AND get_field(of, Utf8("b")) = Utf8("t09"): 11 pass of 11 read, "4 of 4 row groups"
        get_field(of, Utf8("b")) >= Utf8("t18") OR get_field(of, Utf8("a")) = Int32(0): 37 pass of 37 read, "4 of 4 row groups"
        get_field(of, Utf8("a")) < Int32(30) AND a < Int32(720): 15 pass of 120 read, "2 of 4 row groups"
        of.a <= Int32(-390): 10 pass of 10 read, "1 of 4 row groups"
        of.a <= Int32(-390) AND get_field(of, Utf8("a")) > Int32(0): 7 pass of 10 read, "1 of 4 row groups"
        of IS NULL: 73 pass of 73 read, "4 of 4 row groups"
        of IS NOT NULL AND list IS NULL: 108 pass of 400 read, "4 of 4 row groups"
        list IS NOT NULL AND a > Int32(990): 6 pass of 10 read, "1 of 4 row groups"
        get_field(of, Utf8("a")) > Int32(1000): 0 pass of 0 read, "4 of 4 row groups""#]].assert_eq(&told.join("\n"));
}
