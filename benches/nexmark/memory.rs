//! How much memory a run over a sliding window takes, whatever the number of rows.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use mainstem::engine::Windowing;
use mainstem::engine::aggregates::{count, sum};
use mainstem::engine::ops::Watermarks;
use mainstem::prelude::*;

use crate::contest::Run;
use crate::live_keys::{DISORDER_MS, LiveKeys};
use crate::tally::Tally;

/// Keys that occur at a time.
const N_LIVE: u64 = 10_000;
const SIZE: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(2);

/// Counts rows and adds up values by key in sliding windows, of rows that are made on the fly.
///
/// # Errors
/// If the run fails, or a row is missing in the windows or is in too many.
pub(crate) fn run(n_rows: u64, workers: usize) -> Result<Run, Box<dyn Error>> {
    let pipeline = Pipeline::new("memory");
    let rows = LiveKeys {
        n_rows,
        n_live: N_LIVE,
        n_partitions: workers as u64,
    };
    let disorder = Watermarks::bounded_out_of_orderness(Duration::from_millis(DISORDER_MS));
    // Without, the partition that is read faster is kept as far as it is ahead.
    let disorder = disorder.aligned_within(PERIOD);
    let windows = pipeline
        .read("rows", rows)
        .assign_timestamps(col("at"), disorder)
        .window(Windowing::sliding(SIZE, PERIOD))
        .group_by([col("key")])
        .agg([count(lit(1)).alias("n"), sum(col("value")).alias("total")]);
    let n_in_windows = Arc::new(AtomicI64::new(0));
    let n = Arc::clone(&n_in_windows);
    windows
        .map_batches(move |rows| {
            let counts = rows.column(1).as_primitive::<Int64Type>().values();
            n.fetch_add(counts.iter().sum(), Relaxed);
            Ok(rows)
        })
        .write(Tally::new(false));
    Run::of(|| {
        pipeline.run(&RunOptions::new().workers(workers))?;
        let n = n_in_windows.load(Relaxed);
        let expected = n_rows as i64 * (SIZE.as_millis() / PERIOD.as_millis()) as i64;
        match n == expected {
            true => Ok(n_rows),
            false => Err(format!("{n} rows in all windows, expected {expected}").into()),
        }
    })
}
