//! What joins in event time cost, from rows in memory to a count of the results.
//!
//! `cargo bench --bench time_joins`; a million rows on each side, on one worker and on all.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use clap::Parser;
use mainstem::engine::aggregates::count;
use mainstem::engine::ops::{AsOf, IntervalJoin, JoinKind, Watermarks};
use mainstem::engine::{Collection, Progress, lit};
use mainstem::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Measures joins in event time.
#[derive(Debug, Parser)]
struct Options {
    /// Rows on each side; fewer when cargo only wants to know that the benchmark works.
    #[arg(long)]
    rows: Option<usize>,
    /// How many keys.
    #[arg(long, default_value_t = 20_000)]
    keys: i64,
    /// How often each join runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

const LATE: Duration = Duration::from_secs(5);

/// Rows 10 ms apart, out of order by up to [`LATE`].
fn rows(
    n: usize,
    n_keys: i64,
    seed: u64,
    number: &str,
) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let late = LATE.as_millis() as i64;
    let mut times: Vec<(i64, i64)> = (0..n as i64)
        .map(|i| (i * 10 + random.random_range(0..late), i * 10))
        .collect();
    times.sort_unstable();
    let batch = |times: &[(i64, i64)]| {
        let keys = times.iter().map(|_| random.random_range(0..n_keys));
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
        let times = times.iter().map(|(_, time)| *time);
        let times: ArrayRef = Arc::new(Int64Array::from_iter_values(times));
        let columns = [
            ("k", keys),
            ("at", ArrayRef::clone(&times)),
            (number, times),
        ];
        Ok(RecordBatch::try_from_iter(columns)?)
    };
    times.chunks(8_192).map(batch).collect()
}

type Join = fn(&Collection, &Collection) -> Collection;

fn as_of(left: &Collection, right: &Collection) -> Collection {
    let as_of = AsOf::on([col("k")]).ttl(Duration::from_secs(3_600));
    left.join_as_of(right, as_of.suffix("_r"))
}

fn interval(left: &Collection, right: &Collection) -> Collection {
    let join = IntervalJoin::new(JoinKind::Left, [(col("k"), col("k"))]);
    let near = join
        .before(Duration::from_secs(60))
        .after(Duration::from_secs(60));
    left.join_interval(right, near.suffix("_r"))
}

fn measure(
    join: Join,
    left: &[RecordBatch],
    right: &[RecordBatch],
    workers: usize,
) -> Result<(Duration, i64), Box<dyn Error>> {
    let pipeline = Pipeline::new("joins");
    let read = |name: &str, rows: &[RecordBatch]| {
        let rows = pipeline.read(name, connectors::from_record_batches(rows.to_vec()));
        let watermarks = Watermarks::bounded_out_of_orderness(LATE).splits_in_order(true);
        rows.assign_timestamps(col("at"), watermarks)
    };
    let (sink, counted) = connectors::collect();
    let joined = join(&read("left", left), &read("right", right));
    joined.agg([count(lit(1)).alias("n")]).write(sink);
    let start = Instant::now();
    pipeline.run(&RunOptions::new().workers(workers).progress(Progress::Never))?;
    let took = start.elapsed();
    let rows = counted.take();
    Ok((took, rows[0]["n"].as_primitive::<Int64Type>().value(0)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let n = options
        .rows
        .unwrap_or(if options.bench { 1_000_000 } else { 10_000 });
    let left = rows(n, options.keys, 1, "a")?;
    let right = rows(n, options.keys, 2, "b")?;
    let joins: [(&str, Join); 2] = [("as-of", as_of), ("interval", interval)];
    let cores = std::thread::available_parallelism()?.get();
    for (name, join) in joins {
        for workers in [1, cores] {
            let mut best = Duration::MAX;
            let mut n_made = 0;
            for _ in 0..options.rounds.max(1) {
                let (took, made) = measure(join, &left, &right, workers)?;
                (best, n_made) = (best.min(took), made);
            }
            println!(
                "{name:>9}: {n} x {n} rows, {workers} workers, {n_made} results, {:.3} s",
                best.as_secs_f64()
            );
        }
    }
    Ok(())
}
