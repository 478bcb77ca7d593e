//! From one row in to its result out, through a keyed window that fires for each row.
//!
//! ```text
//! a row when it is due ─▶ from_stream ─▶ event time ─▶ exchange by key ─▶ window ─▶ into_stream ─▶ the clock
//! ```
//!
//! Time counts from when a row was due, not from when it could be sent, so that a stall delays all rows that
//! were due meanwhile.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use hdrhistogram::Histogram;
use mainstem::engine::aggregates::{count, min};
use mainstem::engine::event_time::time_type;
use mainstem::engine::ops::Watermarks;
use mainstem::engine::{Accumulation, Trigger, Windowing};
use mainstem::prelude::*;
use serde::{Deserialize, Serialize};

use crate::generator::BASE_TIME;

const N_KEYS: u64 = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// Rows that are due within this time of the start are not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// A sleep may last longer than it should by so much.
const SLEEPS_LONGER: Duration = Duration::from_micros(60);

/// Microseconds from a row to its result.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) rows_per_second: u64,
    pub(crate) n_rows: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

/// Sends so many rows a second for so long, one at a time.
///
/// # Errors
/// If the run fails, or a row has no result.
pub(crate) fn run(
    rows_per_second: u64,
    lasts: Duration,
    workers: usize,
) -> Result<Latency, Box<dyn Error>> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("at", time_type(), false),
        Field::new("key", DataType::Int64, false),
        Field::new("due", DataType::Int64, false),
    ]));
    let (sender, rows) = unbounded::<Result<RecordBatch>>();
    let pipeline = Pipeline::new("latency");
    let (sink, mut results) = connectors::into_stream();
    let windowing = Windowing::fixed(WINDOW)
        .trigger(Trigger::after_count(1).repeatedly())
        .accumulation(Accumulation::Discarding);
    let rows = connectors::from_stream(Arc::clone(&schema), rows).bounded(false);
    pipeline
        .read("rows", rows)
        .assign_timestamps(col("at"), Watermarks::monotone())
        .window(windowing)
        .group_by([col("key")])
        .agg([count(lit(1)).alias("n"), min(col("due")).alias("due")])
        .select([col("n"), col("due")])
        .write(sink);
    let run = pipeline.run_async(&RunOptions::new().workers(workers));
    let n_rows = (lasts + WARM_UP).as_secs() * rows_per_second;
    let started = Instant::now();
    let sending =
        std::thread::spawn(move || send(&sender, &schema, n_rows, rows_per_second, started));
    let mut latencies = Histogram::<u64>::new(3)?;
    let mut n_results = 0;
    let receiving = async {
        while let Some(rows) = results.next().await {
            let now = started.elapsed().as_nanos() as u64;
            let rows = rows?;
            let numbers = |column: usize| rows.column(column).as_primitive::<Int64Type>().values();
            // Rows of a key that came together have one result, which counts as that of the first for all.
            for (n, due) in numbers(0).iter().zip(numbers(1)) {
                n_results += *n as u64;
                if *due as u128 >= WARM_UP.as_nanos() {
                    latencies.record_n(now.saturating_sub(*due as u64), *n as u64)?;
                }
            }
        }
        Ok::<(), Box<dyn Error>>(())
    };
    futures::executor::block_on(receiving)?;
    futures::executor::block_on(run)?;
    match sending.join() {
        Ok(sent) => sent?,
        Err(_) => return Err("the thread that sends rows has panicked".into()),
    }
    if n_results != n_rows {
        return Err(format!("{n_results} rows have a result, of {n_rows}").into());
    }
    let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Latency {
        rows_per_second,
        n_rows: latencies.len(),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
        max_us: latencies.max() as f64 / 1e3,
    })
}

fn send(
    to: &UnboundedSender<Result<RecordBatch>>,
    schema: &Arc<Schema>,
    n_rows: u64,
    rows_per_second: u64,
    started: Instant,
) -> Result<()> {
    for row in 0..n_rows {
        let due = Duration::from_nanos(row * 1_000_000_000 / rows_per_second);
        loop {
            let left = due.saturating_sub(started.elapsed());
            match left.checked_sub(SLEEPS_LONGER) {
                Some(sleep) => std::thread::sleep(sleep),
                None if left.is_zero() => break,
                None => std::thread::yield_now(),
            }
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMillisecondArray::from(vec![
                BASE_TIME + due.as_millis() as i64,
            ])),
            Arc::new(Int64Array::from(vec![(row % N_KEYS) as i64])),
            Arc::new(Int64Array::from(vec![due.as_nanos() as i64])),
        ];
        let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;
        if to.unbounded_send(Ok(rows)).is_err() {
            break;
        }
    }
    Ok(())
}
