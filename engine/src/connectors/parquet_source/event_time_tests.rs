//! Filters behind `assign_timestamps` reach the source where nothing goes by the watermark, and bad times are still
//! rejected.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;
use expect_test::expect;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use proptest::prelude::*;

use crate::connectors::test_folder::TestFolder;
use crate::connectors::{collect, from_record_batches, parquet};
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::expression::{col, lit};
use crate::ops::Watermarks;
use crate::output::OnBadRow;
use crate::pipeline::{Collection, Pipeline};
use crate::runner::RunOptions;
use crate::testing::show;
use crate::windowing::Windowing;

const PER_GROUP: usize = 40;

fn bounded() -> Watermarks {
    Watermarks::bounded_out_of_orderness(Duration::from_secs(1))
}

/// Rows numbered by `id`, with `x` from 0 to 6 over and over and these times.
fn rows(times: &[Option<i64>], data_type: &DataType) -> RecordBatch {
    let numbers = |of: &dyn Fn(i64) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            (0..times.len() as i64).map(of),
        ))
    };
    let times: ArrayRef = match data_type {
        DataType::Date32 => {
            let days = times.iter().map(|t| t.map(|t| t as i32));
            let days: ArrayRef = Arc::new(arrow::array::Int32Array::from_iter(days));
            cast(&days, data_type).unwrap()
        }
        _ => {
            let times: ArrayRef = Arc::new(Int64Array::from_iter(times.iter().copied()));
            cast(&times, data_type).unwrap()
        }
    };
    RecordBatch::try_from_iter_with_nullable([
        ("id", numbers(&|i| i), false),
        ("x", numbers(&|i| i % 7), false),
        ("t", times, true),
    ])
    .unwrap()
}

fn write(folder: &TestFolder, rows: &RecordBatch, statistics: EnabledStatistics) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(PER_GROUP))
        .set_data_page_row_count_limit(10)
        .set_write_batch_size(10)
        .set_statistics_enabled(statistics)
        .build();
    let file = File::create(folder.write("a.parquet", "")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// The rows with `x` = 3 behind their times, and how many are rejected; or why the run ends.
fn answer(pipeline: &Pipeline, rows: &Collection, policy: OnBadRow) -> String {
    let (sink, made) = collect();
    rows.assign_timestamps(col("t"), bounded())
        .on_bad_row(policy)
        .filter((col("x") % lit(7_i64)).eq(lit(3_i64)))
        .write(sink);
    let report = match pipeline.run(&RunOptions::new().workers(1)) {
        Ok(report) => report,
        Err(error) => return error.to_string(),
    };
    let mut given: Vec<String> = made.take().iter().map(show).collect();
    given.push(format!("{} rejected", report.rejected()));
    given.join("\n")
}

/// How far the filter went, as `explain()` tells it.
fn scan(folder: &TestFolder, pipeline: &Pipeline) -> String {
    let text = pipeline.plan().unwrap().explain();
    let lines = text.lines().skip_while(|line| !line.contains("scan"));
    let scan: Vec<&str> = lines.take_while(|l| !l.contains("transform")).collect();
    folder.hide(scan.join("\n")).trim().to_owned()
}

/// Times of which most are good, with those at and beyond the ends of what is good for the type.
fn times(data_type: DataType) -> impl Strategy<Value = (DataType, Vec<Option<i64>>)> {
    let per_unit = match &data_type {
        DataType::Timestamp(TimeUnit::Microsecond, _) => (1_000, 1),
        DataType::Timestamp(TimeUnit::Second, _) => (1, 1_000),
        DataType::Date32 => (1, 86_400_000),
        _ => (1, 1),
    };
    let near = move |end: i64| end.saturating_mul(per_unit.0) / per_unit.1;
    let time = prop_oneof![
        40 => (0_i64..100_000).prop_map(Some),
        1 => Just(None),
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX)].prop_map(Some),
        2 => (prop_oneof![Just(MIN_TIME), Just(MAX_TIME)], -1_001_i64..1_001)
            .prop_map(move |(end, by)| Some(near(end).saturating_add(by))),
    ];
    let times = prop::collection::vec(time, 1..300);
    times.prop_map(move |times| (data_type.clone(), times))
}

fn any_times() -> impl Strategy<Value = (DataType, Vec<Option<i64>>)> {
    prop_oneof![
        times(DataType::Int64),
        times(DataType::Date32),
        times(DataType::Timestamp(TimeUnit::Second, None)),
        times(DataType::Timestamp(
            TimeUnit::Millisecond,
            Some("UTC".into())
        )),
        times(DataType::Timestamp(TimeUnit::Microsecond, None)),
        times(DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_given_and_rejected_is_as_of_rows_in_memory(
        (data_type, times) in any_times(),
        level in 0..3,
        fails in any::<bool>(),
    ) {
        let all = rows(&times, &data_type);
        let policy = if fails { OnBadRow::Fail } else { OnBadRow::Drop };
        let folder = TestFolder::new();
        let levels = [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page];
        write(&folder, &all, levels[level as usize]);
        let of_file = Pipeline::new("file");
        let read = of_file.read("rows", parquet(folder.path("a.parquet")));
        let given = answer(&of_file, &read, policy);
        let in_memory = Pipeline::new("memory");
        let read = in_memory.read("rows", from_record_batches(vec![all]));
        let expected = answer(&in_memory, &read, policy);
        // Rows in memory have another place in the error.
        let row_of = |said: &str| match said.split_once("event time `t`") {
            Some((place, why)) => {
                let row = place.rsplit("row ").next().unwrap_or_default();
                format!("{row} {}", why.lines().next().unwrap_or_default())
            }
            None => said.to_owned(),
        };
        prop_assert_eq!(row_of(&given), row_of(&expected));
    }
}

#[test]
fn times_are_only_read_of_rows_that_pass() {
    let times: Vec<Option<i64>> = (0..1_000).map(Some).collect();
    let folder = TestFolder::new();
    write(
        &folder,
        &rows(&times, &DataType::Int64),
        EnabledStatistics::Chunk,
    );
    let pipeline = Pipeline::new("some");
    let (sink, some) = collect();
    pipeline
        .read("rows", parquet(folder.path("a.parquet")))
        .assign_timestamps(col("t"), bounded())
        .filter((col("id") % lit(250_i64)).eq(lit(7_i64)))
        .write(sink);
    expect![[r#"
        scan      rows [parquet]
                      files=FOLDER/a.parquet,
                        only=id % Int64(250) = Int64(7) OR t IS NULL OR t < Int64(-92233…,
                        reads=25 of 25 row groups"#]]
    .assert_eq(&scan(&folder, &pipeline));
    let report = pipeline.run(&RunOptions::new().workers(2)).unwrap();
    assert_eq!(report.node("rows").unwrap().pruned, 996);
    let ids = some.take();
    let ids = ids
        .iter()
        .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values());
    let mut ids: Vec<i64> = ids.copied().collect();
    ids.sort_unstable();
    assert_eq!(ids, [7, 257, 507, 757]);
}

#[test]
fn all_rows_are_read_where_something_goes_by_the_watermark() {
    let times: Vec<Option<i64>> = (0..100).map(|i| Some(i * 100)).collect();
    let folder = TestFolder::new();
    write(
        &folder,
        &rows(&times, &DataType::Int64),
        EnabledStatistics::Chunk,
    );
    let scanned = |build: &dyn Fn(&Collection)| {
        let pipeline = Pipeline::new("timed");
        build(&pipeline.read("rows", parquet(folder.path("a.parquet"))));
        scan(&folder, &pipeline)
    };
    let only = |rows: &Collection| rows.filter(col("x").eq(lit(3_i64)));
    let timed = |rows: &Collection| rows.assign_timestamps(col("t"), bounded());
    let counted = |rows: &Collection| {
        let windows = rows.window(Windowing::fixed(Duration::from_secs(1)));
        let counts = windows.group_by([col("x")]);
        counts.agg([crate::aggregates::count(lit(1)).alias("n")])
    };
    let five = ScalarValue::TimestampMillisecond(Some(5_000), None);
    let said = [
        (
            "a window",
            scanned(&|rows| counted(&only(&timed(rows))).write(collect().0)),
        ),
        (
            "a window on another branch",
            scanned(&|rows| {
                let rows = timed(rows);
                counted(&only(&rows)).write(collect().0);
                only(&rows).write(collect().0);
            }),
        ),
        (
            "dead letters",
            scanned(&|rows| {
                let rows = timed(rows).on_bad_row(OnBadRow::DeadLetter);
                rows.dead_letters().write(collect().0);
                only(&rows).write(collect().0);
            }),
        ),
        (
            "marks",
            scanned(&|rows| {
                let marks = Watermarks::punctuated(col("t"));
                only(&rows.assign_timestamps(col("t"), marks)).write(collect().0);
            }),
        ),
        (
            "workers kept near",
            scanned(&|rows| {
                let near = bounded().aligned_within(Duration::from_secs(1));
                only(&rows.assign_timestamps(col("t"), near)).write(collect().0);
            }),
        ),
        (
            "a time that may fail",
            scanned(&|rows| {
                let time = lit(1_000_i64) / col("id");
                only(&rows.assign_timestamps(time, bounded())).write(collect().0);
            }),
        ),
        (
            "a filter by the time",
            scanned(&|rows| {
                let new = timed(rows).filter(col("event_time").gt(lit(five.clone())));
                new.write(collect().0);
            }),
        ),
        (
            "a filter by both",
            scanned(&|rows| {
                let new = only(&timed(rows)).filter(col("event_time").gt(lit(five.clone())));
                new.write(collect().0);
            }),
        ),
    ];
    let said = said.map(|(what, scan)| format!("{what}: {scan}"));
    expect![[r#"
        a window: scan      rows [parquet files=FOLDER/a.parquet], columns 2 of 3: x, t
        a window on another branch: scan      rows [parquet files=FOLDER/a.parquet]
        dead letters: scan      rows [parquet files=FOLDER/a.parquet]
        marks: scan      rows [parquet files=FOLDER/a.parquet]
        workers kept near: scan      rows [parquet files=FOLDER/a.parquet]
        a time that may fail: scan      rows [parquet files=FOLDER/a.parquet]
        a filter by the time: scan      rows [parquet files=FOLDER/a.parquet]
        a filter by both: scan      rows [parquet]
                      files=FOLDER/a.parquet,
                        only=x = Int64(3) OR t IS NULL OR t < Int64(-9223372036854775) O…,
                        reads=3 of 3 row groups"#]]
    .assert_eq(&said.join("\n"));
}
