//! Feeds that are out of order in earnest: flights by when they landed, earthquakes by when they were reported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{
    DataType, Float64Type, Int8Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use mainstem::engine::aggregates::{avg, count};
use mainstem::engine::ops::Watermarks;
use mainstem::engine::{Accumulation, Progress, Windowing};
use mainstem::prelude::*;

fn data(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no folder {}", folder.display());
    None
}

fn options(workers: usize) -> RunOptions {
    RunOptions::new().workers(workers).progress(Progress::Never)
}

const MINUTE: Duration = Duration::from_secs(60);

/// All flights whose delay is plausible, in the order of `date + delay`, with `date` in milliseconds.
fn flights_by_arrival() -> Option<RecordBatch> {
    let files = data("flights")?.join("*.parquet");
    let pipeline = Pipeline::new("flights");
    let (sink, rows) = connectors::collect();
    pipeline
        .read("flights", connectors::parquet(files))
        .filter(col("delay").gt_eq(lit(-60)))
        .select([col("date"), col("delay"), col("origin")])
        .write(sink);
    pipeline.run(&options(2)).unwrap();
    let rows = rows.take();
    let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    let date = cast(&cast(&rows["date"], &millis).unwrap(), &DataType::Int64).unwrap();
    let date = date.as_primitive::<Int64Type>();
    let delay = rows["delay"].as_primitive::<Int64Type>();
    let landed = date.values().iter().zip(delay.values());
    let landed: Int64Array = landed.map(|(date, delay)| date + delay * 60_000).collect();
    let by = |values: ArrayRef| SortColumn {
        values,
        options: None,
    };
    // Of flights that land in the same minute, the earlier comes first.
    let landed = by(std::sync::Arc::new(landed));
    let order = lexsort_to_indices(&[landed, by(std::sync::Arc::new(date.clone()))], None).unwrap();
    Some(take_record_batch(&rows, &order).unwrap())
}

/// How many rows of each origin and hour, and their mean delay.
type Hours = BTreeMap<(String, i64), (i64, f64)>;

fn hours(batches: &[RecordBatch], start: &str) -> Vec<((String, i64), (i64, f64))> {
    let mut hours = Vec::new();
    for rows in batches {
        let origin = cast(&rows["origin"], &DataType::Utf8).unwrap();
        let origin = origin.as_string::<i32>();
        let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
        let start = cast(&rows[start], &millis).unwrap();
        let start = start.as_primitive::<TimestampMillisecondType>();
        let n = rows["n"].as_primitive::<Int64Type>();
        let mean = rows["mean"].as_primitive::<Float64Type>();
        for row in 0..rows.num_rows() {
            let of = (origin.value(row).to_owned(), start.value(row));
            hours.push((of, (n.value(row), mean.value(row))));
        }
    }
    hours
}

fn means() -> [Expr; 2] {
    [count(lit(1)).alias("n"), avg(col("delay")).alias("mean")]
}

/// Splits follow each other as the files of a feed do, which is how a batch in memory is cut.
fn landed_within(minutes: u32) -> Watermarks {
    Watermarks::bounded_out_of_orderness(MINUTE * minutes).splits_in_order(true)
}

#[test]
fn flights_out_of_order_give_the_hours_of_the_bounded_run() {
    let Some(flights) = flights_by_arrival() else {
        return;
    };
    let pipeline = Pipeline::new("bounded");
    let (sink, rows) = connectors::collect();
    let hour = mainstem::engine::expression::functions::datetime::expr_fn::date_trunc(
        lit("hour"),
        col("date"),
    );
    pipeline
        .read(
            "flights",
            connectors::from_record_batches(vec![flights.clone()]),
        )
        .with_column("hour", hour)
        .group_by([col("origin"), col("hour")])
        .agg(means())
        .write(sink);
    pipeline.run(&options(2)).unwrap();
    let bounded: Hours = hours(&rows.take(), "hour").into_iter().collect();

    for workers in [1, 2] {
        let pipeline = Pipeline::new("by arrival");
        let (sink, rows) = connectors::collect();
        let day = Duration::from_secs(24 * 3600);
        let windowing = Windowing::fixed(Duration::from_secs(3600))
            .allowed_lateness(day)
            .accumulation(Accumulation::Accumulating);
        pipeline
            .read(
                "flights",
                connectors::from_record_batches(vec![flights.clone()]),
            )
            .assign_timestamps(col("date"), landed_within(360))
            .window(windowing)
            .group_by([col("origin")])
            .agg(means())
            .write(sink);
        pipeline.run(&options(workers)).unwrap();
        // The last pane of a window is the one with the most rows.
        let mut last = Hours::new();
        for (of, pane) in hours(&rows.take(), "window_start") {
            let kept = last.entry(of).or_insert(pane);
            if pane.0 > kept.0 {
                *kept = pane;
            }
        }
        assert_eq!(last.len(), bounded.len());
        for (of, (n, mean)) in &bounded {
            let (n_windowed, mean_windowed) = last[of];
            assert_eq!(n_windowed, *n, "{of:?}");
            let tolerance = 1e-9 * mean.abs().max(1.0);
            assert!((mean_windowed - mean).abs() < tolerance, "{of:?}");
        }
    }
}

/// The shares that the data's own description gives, found there by a plain running maximum.
#[test]
fn so_many_flights_stand_behind_the_watermark() {
    let Some(flights) = flights_by_arrival() else {
        return;
    };
    let shares = [60, 120, 360].map(|minutes| {
        let pipeline = Pipeline::new("behind");
        let (sink, _) = connectors::collect();
        pipeline
            .read(
                "flights",
                connectors::from_record_batches(vec![flights.clone()]),
            )
            .named("times")
            .assign_timestamps(col("date"), landed_within(minutes))
            .select([col("event_time")])
            .write(sink);
        let report = pipeline.run(&options(1)).unwrap();
        let node = report.node("times").unwrap();
        assert_eq!(node.rows_in, flights.num_rows() as u64);
        100.0 * node.behind as f64 / node.rows_in as f64
    });
    let [hour, two, six] = shares;
    let shown = format!("{hour:.1} %, {two:.1} %, {six:.2} %");
    assert_eq!(shown, "11.9 %, 2.4 %, 0.04 %");
}

/// How many reports of each network in each six hours.
type Counts = BTreeMap<(String, i64), i64>;

#[test]
fn earthquakes_by_report_give_the_windows_of_the_bounded_run() {
    let Some(folder) = data("events") else { return };
    let read = |pipeline: &Pipeline| {
        let file = folder.join("usgs_quakes_by_arrival.csv");
        pipeline.read("quakes", connectors::csv(file))
    };
    let size = 6 * 3_600_000;
    let pipeline = Pipeline::new("bounded");
    let (sink, rows) = connectors::collect();
    read(&pipeline)
        .select([col("net"), col("event_time_ms")])
        .write(sink);
    pipeline.run(&options(1)).unwrap();
    let mut bounded = Counts::new();
    for rows in rows.take() {
        let net = cast(&rows["net"], &DataType::Utf8).unwrap();
        let times = rows["event_time_ms"].as_primitive::<Int64Type>();
        for (net, time) in net.as_string::<i32>().iter().zip(times.values()) {
            let start = time.div_euclid(size) * size;
            *bounded.entry((net.unwrap().to_owned(), start)).or_default() += 1;
        }
    }

    let hours = |n: u64| Duration::from_secs(n * 3600);
    for accumulation in [
        Accumulation::Accumulating,
        Accumulation::Discarding,
        Accumulation::AccumulatingAndRetracting,
    ] {
        let pipeline = Pipeline::new("by arrival");
        let (sink, rows) = connectors::collect();
        let windowing = Windowing::fixed(Duration::from_millis(size as u64))
            .allowed_lateness(hours(200))
            .accumulation(accumulation);
        let watermarks = Watermarks::bounded_out_of_orderness(hours(4));
        let (results, late) = read(&pipeline)
            .assign_timestamps(col("event_time_ms"), watermarks)
            .window(windowing)
            .group_by([col("net")])
            .agg_with_late([count(lit(1)).alias("n")]);
        results.write(sink);
        let (sink, late_rows) = connectors::collect();
        late.write(sink);
        pipeline.run(&options(2)).unwrap();
        let late_rows = late_rows.take();
        assert_eq!(
            late_rows.iter().map(RecordBatch::num_rows).sum::<usize>(),
            0
        );
        let mut kept = Counts::new();
        for rows in rows.take() {
            let net = cast(&rows["net"], &DataType::Utf8).unwrap();
            let start = rows["window_start"].as_primitive::<TimestampMillisecondType>();
            let n = rows["n"].as_primitive::<Int64Type>();
            let diff = rows.column_by_name("diff");
            for row in 0..rows.num_rows() {
                let of = (
                    net.as_string::<i32>().value(row).to_owned(),
                    start.value(row),
                );
                let kept = kept.entry(of).or_default();
                *kept = match accumulation {
                    Accumulation::Accumulating => n.value(row).max(*kept),
                    Accumulation::Discarding => *kept + n.value(row),
                    Accumulation::AccumulatingAndRetracting => {
                        let diff = diff.unwrap().as_primitive::<Int8Type>().value(row);
                        *kept + i64::from(diff) * n.value(row)
                    }
                };
            }
        }
        assert_eq!(kept, bounded, "{accumulation:?}");
    }
}
