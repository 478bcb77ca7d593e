//! Rows that pass a filter are the same with and without the source knowing of it.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int32Array, Int64Array, ListArray, StringArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int32Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use expect_test::expect;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use proptest::prelude::*;

use super::*;
use crate::connectors::test_folder::TestFolder;
use crate::connectors::{collect, from_record_batches, parquet_sink};
use crate::expression::{Expression, col, lit};
use crate::output::{OnBadRow, Output};
use crate::testing::{show, table};
use crate::{Pipeline, RunOptions};

const N_ROWS: usize = 600;

/// Rows whose values stand near each other, as in files that were written in some order.
fn rows(seed: &[u8]) -> RecordBatch {
    let at = |i: usize, salt: usize| usize::from(seed[(i * 31 + salt * 7 + i / 17) % seed.len()]);
    let near = |i: usize, salt: usize| ((i / 20) * 10 + at(i, salt) % 12) as i64 - 100;
    let null = |i: usize, salt: usize| at(i / 5, salt + 3) % 4 == 0;
    let all = 0..N_ROWS;
    let float = |i: usize| match at(i, 5) % 40 {
        0 => f64::NAN,
        1 => -f64::NAN,
        2 => -0.0,
        3 => 0.0,
        4 => f64::INFINITY,
        _ => near(i, 6) as f64 / 4.0,
    };
    let text = |i: usize| format!("{:04}-{}", near(i, 7) + 100, "long".repeat(at(i, 8) % 20));
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "id",
            Arc::new(Int64Array::from_iter_values(all.clone().map(|i| i as i64))),
        ),
        (
            "i",
            Arc::new(Int32Array::from_iter(
                all.clone()
                    .map(|i| (!null(i, 1)).then(|| near(i, 1) as i32)),
            )),
        ),
        (
            "u",
            Arc::new(UInt64Array::from_iter(all.clone().map(|i| {
                (!null(i, 2)).then(|| (near(i, 2) as u64).wrapping_mul(1 << 40))
            }))),
        ),
        (
            "f",
            Arc::new(Float64Array::from_iter(
                all.clone().map(|i| (!null(i, 3)).then(|| float(i))),
            )),
        ),
        (
            "s",
            Arc::new(StringArray::from_iter(
                all.clone().map(|i| (!null(i, 4)).then(|| text(i))),
            )),
        ),
        (
            "b",
            Arc::new(BooleanArray::from_iter(
                all.clone()
                    .map(|i| (!null(i, 9)).then_some((i / 50) % 3 == 0)),
            )),
        ),
        (
            "day",
            Arc::new(Date32Array::from_iter(
                all.clone()
                    .map(|i| (!null(i, 10)).then(|| near(i, 10) as i32)),
            )),
        ),
        (
            "t",
            Arc::new(
                TimestampMillisecondArray::from_iter(
                    all.clone()
                        .map(|i| (!null(i, 11)).then(|| near(i, 11) * 1000)),
                )
                .with_timezone("UTC"),
            ),
        ),
        (
            "d",
            Arc::new(
                Decimal128Array::from_iter(
                    all.clone()
                        .map(|i| (!null(i, 12)).then(|| i128::from(near(i, 12)) * 3)),
                )
                .with_precision_and_scale(12, 2)
                .unwrap(),
            ),
        ),
        (
            "k",
            Arc::new(
                all.clone()
                    .map(|i| {
                        (!null(i, 13))
                            .then(|| ["a", "b", "c", "d", "e"][(i / 100 + at(i, 13) % 2) % 5])
                    })
                    .collect::<DictionaryArray<Int32Type>>(),
            ),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(all.map(
                |i| Some((0..i % 3).map(|x| Some(x as i32)).collect::<Vec<_>>()),
            ))),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A predicate, from numbers that stand for columns, operators and values.
fn predicate(codes: &[u8], rows: &RecordBatch) -> Expr {
    let [a, b, c, rest @ ..] = codes else {
        return col("i").gt(lit(0));
    };
    let names = ["i", "u", "f", "s", "day", "t", "d", "k"];
    let name = names[usize::from(*a) % names.len()];
    let column = rows.column_by_name(name).unwrap();
    let value = |code: u8| {
        let row = usize::from(code) * N_ROWS / 256;
        let value = ScalarValue::try_from_array(column, row).unwrap();
        let value = match value {
            ScalarValue::Dictionary(_, value) => *value,
            other => other,
        };
        lit(value)
    };
    let one = match b % 14 {
        0 | 1 => col(name).lt(value(*c)),
        2 => col(name).lt_eq(value(*c)),
        3 | 4 => col(name).gt(value(*c)),
        5 => col(name).gt_eq(value(*c)),
        6 => col(name).eq(value(*c)),
        7 => col(name).not_eq(value(*c)),
        8 => col(name).is_null(),
        9 => col(name).is_not_null(),
        10 => col(name).in_list(
            (0..5).map(|i| value(c.wrapping_add(i * 3))).collect(),
            *c % 2 == 0,
        ),
        11 => col(name).between(value(*c), value(c.wrapping_add(30))),
        12 if name == "s" => col("s").like(lit(format!("{:03}%", u32::from(*c) / 8))),
        12 => col("b"),
        _ => (col("i") + lit(i32::from(*c)))
            .gt(lit(i32::MAX - 50))
            .or(col("id").lt(lit(i64::from(*c)))),
    };
    match (rest.is_empty(), c % 5) {
        (true, _) => one,
        (_, 0 | 1) => one.and(predicate(rest, rows)),
        (_, 2 | 3) => one.or(predicate(rest, rows)),
        _ => !one.and(predicate(rest, rows)),
    }
}

fn write(
    folder: &TestFolder,
    rows: &RecordBatch,
    per_group: usize,
    per_page: usize,
    statistics: EnabledStatistics,
) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(per_group))
        .set_data_page_row_count_limit(per_page)
        .set_write_batch_size(per_page)
        .set_statistics_enabled(statistics)
        .set_statistics_truncate_length(Some(3))
        .set_column_index_truncate_length(Some(3))
        .build();
    let file = File::create(folder.write("a.parquet", "")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// All rows that a source gives from `position` of each split on, and how many it leaves out.
///
/// Checks that each row, whose place in the file stands in the column `id`, knows its place.
fn read(source: &dyn Source, position: u64, columns: Option<&[String]>) -> (RecordBatch, u64) {
    let mut out = Output::new(OnBadRow::Fail);
    let (mut batches, mut n_pruned) = (Vec::new(), 0);
    let mut schema: Option<SchemaRef> = None;
    for split in source.splits().unwrap() {
        let locator: Locator = serde_json::from_value(split.locator.clone()).unwrap();
        let mut reader = source.open(&split, Position(position), columns).unwrap();
        let (mut n_rows, mut next) = (0, position);
        while let Some(rows) = reader.next_batch(&mut out).unwrap() {
            assert!(rows.num_rows() > 0);
            n_rows += rows.num_rows() as u64;
            let places = reader.rows_read().unwrap();
            let n = places.mask.as_ref().map_or(rows.num_rows(), |m| m.len());
            assert!(places.first_row >= next, "rows stand in order");
            next = places.first_row + n as u64;
            let batch = crate::Batch::read(
                rows.clone(),
                Default::default(),
                "x".into(),
                places.first_row,
            )
            .masked(places.mask);
            let ids = rows.column_by_name("id").unwrap();
            let ids = ids.as_any().downcast_ref::<Int64Array>().unwrap();
            for row in 0..rows.num_rows() {
                assert_eq!(
                    batch.position(row).row + locator.first_row,
                    ids.value(row) as u64
                );
            }
            schema = Some(rows.schema());
            batches.push(rows);
        }
        assert!(reader.bytes_read() > 0);
        let n_all = locator.n_rows - position.min(locator.n_rows);
        assert_eq!(
            reader.n_pruned_rows() + n_rows,
            n_all,
            "all rows are given or left out"
        );
        n_pruned += reader.n_pruned_rows();
    }
    let schema = schema.unwrap_or_else(|| source.schema().unwrap());
    (
        concat_batches(&schema, &batches).unwrap(),
        n_pruned + source.n_pruned_rows(),
    )
}

fn passing(rows: &RecordBatch, predicate: &Expr) -> RecordBatch {
    let compiled = Expression::compile_predicate(predicate, &rows.schema()).unwrap();
    filter_record_batch(rows, &compiled.evaluate_mask(rows).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_row_that_passes_is_left_out(
        seed in prop::collection::vec(any::<u8>(), 97),
        codes in prop::collection::vec(any::<u8>(), 3..12),
        per_group in 20_usize..300,
        per_page in 3_usize..40,
        position in 0_u64..200,
        level in 0..3,
    ) {
        let folder = TestFolder::new();
        let all = rows(&seed);
        let statistics = [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page];
        write(&folder, &all, per_group, per_page, statistics[level as usize]);
        let predicate = predicate(&codes, &all);
        let source = parquet(folder.path("a.parquet"));
        let (whole, _) = read(&source, 0, None);
        let pruned = source.prune(&predicate).unwrap();
        let (given, n_pruned) = read(&*pruned, 0, None);
        prop_assert_eq!(given.num_rows() as u64 + n_pruned, N_ROWS as u64);
        let expected = passing(&whole, &predicate);
        prop_assert_eq!(&passing(&given, &predicate), &expected, "{}", predicate);

        let names: Vec<String> = predicate.column_refs().iter().map(|c| c.name.clone())
            .chain(["id".into(), "list".into()]).collect();
        let (rest, _) = read(&*pruned, position, Some(&names));
        let expected = passing(&whole.slice(position as usize, N_ROWS - position as usize), &predicate);
        let rest = passing(&rest, &predicate);
        prop_assert_eq!(rest.column_by_name("id"), expected.column_by_name("id"), "{}", predicate);
        prop_assert_eq!(rest.column_by_name("list"), expected.column_by_name("list"), "{}", predicate);
    }
}

fn told(predicate: Expr, per_page: usize, statistics: EnabledStatistics) -> String {
    let folder = TestFolder::new();
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let x: ArrayRef = Arc::new(Int64Array::from_iter_values((0..1_000).map(|i| i / 10)));
    let all = RecordBatch::try_from_iter([("id", id), ("x", x)]).unwrap();
    write(&folder, &all, 100, per_page, statistics);
    let pruned = parquet(folder.path("a.parquet")).prune(&predicate).unwrap();
    let (rows, n_pruned) = read(&*pruned, 0, None);
    let config = pruned.describe().config;
    format!(
        "{} and {}: {} rows, {n_pruned} left out",
        config["only"],
        config["reads"],
        rows.num_rows()
    )
}

#[test]
fn row_groups_and_pages_and_rows_are_left_out() {
    let some = col("x").between(lit(25), lit(26));
    let told = [
        told(some.clone(), 10, EnabledStatistics::None),
        told(some.clone(), 1_000, EnabledStatistics::Chunk),
        told(some.clone(), 10, EnabledStatistics::Page),
        told((col("x") % lit(50)).eq(lit(3)), 10, EnabledStatistics::Page),
        told(col("x").gt(lit(20)), 10, EnabledStatistics::Page),
        told(col("x").lt(lit(0)), 10, EnabledStatistics::Page),
    ];
    expect![[r#"
        "x BETWEEN Int32(25) AND Int32(26)" and "10 of 10 row groups": 20 rows, 980 left out
        "x BETWEEN Int32(25) AND Int32(26)" and "1 of 10 row groups": 20 rows, 980 left out
        "x BETWEEN Int32(25) AND Int32(26)" and "1 of 10 row groups": 20 rows, 980 left out
        "x % Int32(50) = Int32(3)" and "10 of 10 row groups": 20 rows, 980 left out
        "x > Int32(20)" and "8 of 10 row groups": 790 rows, 210 left out
        "x < Int32(0)" and "0 of 10 row groups": 0 rows, 1000 left out"#]]
    .assert_eq(&told.join("\n"));
}

/// Five years of a hundred rows each, in folders.
fn years(folder: &TestFolder) {
    for year in 2020..2025 {
        let x: Vec<String> = (0..100).map(|i| (year * 1_000 + i).to_string()).collect();
        let pipeline = Pipeline::new("write");
        let rows = from_record_batches(vec![table(&format!("x: {}", x.join(",")))]);
        let place = folder.path(&format!("data/year={year}"));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        pipeline.read("rows", rows).write(parquet_sink(place));
        pipeline.run(&RunOptions::new().workers(1)).unwrap();
    }
}

#[test]
fn folders_are_columns_and_files_are_left_out_by_them() {
    let folder = TestFolder::new();
    years(&folder);
    let source = parquet(folder.path("data"));
    let rows = crate::testing::check_source(&source).unwrap();
    expect![[r#"500 rows, Field { "x": nullable Int64 }, Field { "year": nullable Int64 }"#]]
        .assert_eq(&format!("{} rows, {}", rows.num_rows(), rows.schema()));

    // A file that no row is wanted of is not even opened.
    folder.write(
        "data/year=2024/part-00000-of-00001.parquet",
        "no Parquet file",
    );
    let pipeline = Pipeline::new("some");
    let (sink, some) = collect();
    let rows = pipeline.read("births", parquet(folder.path("data")));
    rows.with_column("x2", col("x") * lit(2))
        .select([col("x").alias("id"), col("year").alias("of"), col("x2")])
        .filter(
            col("of")
                .lt(lit(2024))
                .and(col("x2").gt(lit(2 * 2_022_098))),
        )
        .filter(col("of").not_eq(lit(2023)))
        .write(sink);
    let plan = pipeline.plan().unwrap();
    expect![[r#"
        pipeline "some": 1 phase

        phase 1 of 1
          scan      births [parquet]
                      files=FOLDER/data,
                        only=year < Int32(2024) AND x * Int32(2) > Int32(4044196) AND ye…,
                        reads=3 of 5 files, 1 of 3 row groups, columns 2 of 2: x, year
          transform with_column [with_column name=x2 value=x * Int32(2)] <- births
          transform select [select] <- with_column
                      columns=["x AS id","year AS of","x2"], fused with with_column
          transform filter [filter] <- select
                      predicate=of < Int32(2024) AND x2 > Int32(4044196), fused with with_column
          transform filter-2 [filter predicate=of != Int32(2023)] <- filter, fused with with_column
          write     collect [collect] <- filter-2
    "#]]
    .assert_eq(&folder.hide(plan.explain()));
    let report = plan.run(&RunOptions::new().workers(2)).unwrap();
    expect![[r#"
        id: 2022099
        of: 2022
        x2: 4044198"#]]
    .assert_eq(&show(&some.take()[0]));
    let node = report.node("births").unwrap();
    assert_eq!((node.rows_in, node.rows_out, node.pruned), (100, 100, 200));
}

#[test]
fn a_file_may_be_left_out_that_tells_which_text_is_read_as_dictionaries() {
    let keys: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter(["x", "y"]));
    let encoded = RecordBatch::try_from_iter_with_nullable([("k", keys, true)]).unwrap();
    let plain = table("k: x, y");
    for (first, second, read_as) in [
        (&encoded, &plain, "Dictionary(Int32, Utf8)"),
        (&plain, &encoded, "Utf8"),
    ] {
        let folder = TestFolder::new();
        for (year, rows) in [(2020, first), (2021, second)] {
            let place = folder.write(&format!("in/year={year}/a.parquet"), "");
            let file = File::create(place).unwrap();
            let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
            writer.write(rows).unwrap();
            writer.close().unwrap();
        }
        let all = parquet(folder.path("in"));
        let is_2021 = col("year").eq(lit(2021));
        let pruned = all.prune(&is_2021).unwrap();
        for source in [&all as &dyn Source, pruned.as_ref()] {
            let rows = crate::testing::check_source(source).unwrap();
            assert_eq!(rows.column(0).data_type().to_string(), read_as);
        }
        let pipeline = Pipeline::new("one year");
        let (sink, some) = collect();
        let rows = pipeline.read("rows", parquet(folder.path("in")));
        rows.filter(is_2021).write(sink);
        pipeline.run(&RunOptions::new().workers(1)).unwrap();
        expect![[r#"
            k: 'x', 'y'
            year: 2021, 2021"#]]
        .assert_eq(&show(&some.take()[0]));
    }
}

/// One row in so many is read, of three row groups, and one of those fails.
fn failing(one_in: i64) -> String {
    let folder = TestFolder::new();
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..30_000));
    let x: ArrayRef = Arc::new(Int64Array::from_iter_values(
        (0..30_000).map(|i| i % one_in),
    ));
    let all = RecordBatch::try_from_iter([("id", id), ("x", x)]).unwrap();
    write(&folder, &all, 10_000, 100, EnabledStatistics::Page);
    let pipeline = Pipeline::new("fail");
    let (sink, _) = collect();
    pipeline
        .read("rows", parquet(folder.path("a.parquet")))
        .filter(col("x").eq(lit(25_777 % one_in)))
        .with_column("y", lit(1) / (col("id") - lit(25_777)))
        .write(sink);
    let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
    folder.hide(error.to_string())
}

#[test]
fn a_row_behind_left_out_rows_names_its_true_place() {
    let told = expect![[r#"
        file "FOLDER/a.parquet", row groups 0 to 2, row 25777: expression `Int32(1) / (id - Int32(25777))` failed on {"id":25777}: Divide by zero error
          in transform "with_column"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]];
    told.assert_eq(&failing(1_000));
    told.assert_eq(&failing(10));
}

#[test]
fn of_scattered_rows_full_batches_are_read() {
    let folder = TestFolder::new();
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..30_000));
    let x: ArrayRef = Arc::new(Int64Array::from_iter_values((0..30_000).map(|i| i % 10)));
    let all = RecordBatch::try_from_iter([("id", id), ("x", x)]).unwrap();
    write(&folder, &all, 30_000, 100, EnabledStatistics::Page);
    let given = |predicate: Expr| {
        let source = parquet(folder.path("a.parquet")).prune(&predicate).unwrap();
        let split = source.splits().unwrap().remove(0);
        let mut reader = source.open(&split, Position(5), None).unwrap();
        let mut out = Output::new(OnBadRow::Fail);
        let rows = std::iter::from_fn(|| reader.next_batch(&mut out).unwrap());
        let sizes: Vec<usize> = rows.map(|rows| rows.num_rows()).collect();
        format!("{sizes:?}, {} left out", reader.n_pruned_rows())
    };
    expect![[r#"
        [2999], 26996 left out
        [8192, 6805], 14998 left out
        [8192, 8192, 8192, 5419], 0 left out"#]]
    .assert_eq(
        &[
            given(col("x").eq(lit(3))),
            given((col("x") % lit(2)).eq(lit(0))),
            given(col("x").lt(lit(6))),
        ]
        .join("\n"),
    );
}

#[test]
fn all_readers_must_filter() {
    let folder = TestFolder::new();
    years(&folder);
    let pipeline = Pipeline::new("two");
    let rows = pipeline.read("rows", parquet(folder.path("data")));
    let (low, high) = (
        rows.filter(col("year").eq(lit(2020))),
        rows.filter(col("x").gt(lit(2_024_050))),
    );
    low.write(collect().0);
    high.write(collect().0);
    let explained = |p: &Pipeline| {
        let text = p.plan().unwrap().explain();
        let lines = text.lines().skip_while(|l| !l.contains("scan"));
        let scan: Vec<&str> = lines.take_while(|l| !l.contains("filter [")).collect();
        folder.hide(scan.join("\n")).trim_start().to_owned()
    };
    expect![[r#"
          scan      rows [parquet]
                        files=FOLDER/data, only=x > Int32(2024050) OR year = Int32(2020),
                          reads=2 of 5 row groups"#]]
    .assert_eq(&explained(&pipeline));
    rows.filter((lit(1) / col("x")).eq(lit(0)))
        .write(collect().0);
    expect!["scan      rows [parquet files=FOLDER/data]"].assert_eq(&explained(&pipeline));
}

/// Whether pages are asked about in a file of so many row groups of 100 rows, in pages of 10; checks that no row is lost
/// either way.
fn pages_of_some_help(values: impl Fn(usize) -> i64, n_groups: usize, predicate: Expr) -> bool {
    let folder = TestFolder::new();
    let n_rows = 100 * n_groups;
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n_rows as i64));
    let x: ArrayRef = Arc::new(Int64Array::from_iter_values((0..n_rows).map(values)));
    let all = RecordBatch::try_from_iter([("id", id), ("x", x)]).unwrap();
    write(&folder, &all, 100, 10, EnabledStatistics::Page);
    let source = parquet(folder.path("a.parquet"));
    let (whole, _) = read(&source, 0, None);
    let pruned = source.prune(&predicate).unwrap();
    let (given, n_pruned) = read(&*pruned, 0, None);
    assert_eq!(given.num_rows() as u64 + n_pruned, n_rows as u64);
    assert_eq!(passing(&given, &predicate), passing(&whole, &predicate));
    let file = source.loaded().unwrap().footer(0).unwrap();
    let predicate = Predicate::compile(&predicate, &source.schema().unwrap()).unwrap();
    let hive = super::super::hive::HiveColumns::default();
    pages_help(&file, &hive, &predicate, &vec![true; n_groups]).unwrap()
}

#[test]
fn pages_are_asked_about_where_they_help_in_some_row_groups_or_there_are_few() {
    // Each value is in each page; only one page in ten has it; so in one of the groups that are asked, or in the others.
    let everywhere = |i: usize| (i % 7) as i64;
    let in_some_pages = |i: usize| ((i / 10) % 10) as i64;
    let elsewhere = |i: usize| match (i / 100) % 12 {
        0 | 6 | 11 => everywhere(i),
        _ => in_some_pages(i),
    };
    let in_one_group = |i: usize| match (i / 100) % 12 {
        6 => in_some_pages(i),
        _ => everywhere(i),
    };
    let is_three = col("x").eq(lit(3_i64));
    assert!(!pages_of_some_help(everywhere, 12, is_three.clone()));
    assert!(pages_of_some_help(in_some_pages, 12, is_three.clone()));
    assert!(pages_of_some_help(in_one_group, 12, is_three.clone()));
    assert!(!pages_of_some_help(elsewhere, 12, is_three.clone()));
    assert!(pages_of_some_help(everywhere, 8, is_three));
}

/// One row of each row group is kept, so the others are passed over: with the places of pages, which nobody asked for
/// before.
#[test]
fn few_rows_are_found_where_pages_do_not_help() {
    let scattered = |i: usize| (i * 7919 % 100) as i64;
    let is_one_in_100 = col("x").eq(lit(42_i64));
    assert!(!pages_of_some_help(scattered, 12, is_one_in_100));
}
