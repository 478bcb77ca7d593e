//! Internal consistency: money that moves between accounts is never seen to be missing, at no instant.
//!
//! `MAINSTEM_TRANSFERS=10000000` runs the long form.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{Int8Type, Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use mainstem::engine::aggregates::{AggregateExt, sum};
use mainstem::engine::connectors::{collect, from_record_batches};
use mainstem::engine::ops::Watermarks;
use mainstem::engine::{Collection, Pipeline, RunOptions, col, lit};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const N_ACCOUNTS: i64 = 1_000;
/// How far rows stand behind later ones.
const DISORDER_MS: i64 = 10_000;

fn n_transfers() -> usize {
    let asked = std::env::var("MAINSTEM_TRANSFERS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

/// Transfers, one each millisecond, which come up to ten seconds late.
fn transfers(n: usize) -> Vec<RecordBatch> {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut batches = Vec::new();
    for start in (0..n).step_by(8_192) {
        let n_rows = 8_192.min(n - start);
        let mut column = |of: &mut dyn FnMut(&mut ChaCha8Rng, i64) -> i64| -> ArrayRef {
            let rows = (0..n_rows).map(|row| of(&mut rng, (start + row) as i64));
            Arc::new(Int64Array::from_iter_values(rows))
        };
        let columns = [
            (
                "at",
                column(&mut |rng, row| row + rng.random_range(0..DISORDER_MS)),
            ),
            (
                "from",
                column(&mut |rng, _| rng.random_range(0..N_ACCOUNTS)),
            ),
            ("to", column(&mut |rng, _| rng.random_range(0..N_ACCOUNTS))),
            ("amount", column(&mut |rng, _| rng.random_range(1..1_000))),
        ];
        batches.push(RecordBatch::try_from_iter(columns).unwrap());
    }
    batches
}

/// Each transfer as two changes of a balance.
fn balances(transfers: &Collection) -> Collection {
    let side = |account: &str, amount| {
        let columns = [col(account).alias("account"), amount];
        transfers.select(columns)
    };
    let paid = side("from", (lit(0_i64) - col("amount")).alias("amount"));
    let received = side("to", col("amount"));
    paid.union(&[received])
        .group_by([col("account")])
        .agg([sum(col("amount")).alias("balance")])
}

/// Passes on nothing, and counts the rows; those of which `is_wrong`.
fn counted(
    rows: &Collection,
    name: &str,
    is_wrong: impl Fn(&RecordBatch, usize) -> bool + Send + Sync + 'static,
) -> Arc<[AtomicU64; 2]> {
    let counts: Arc<[AtomicU64; 2]> = Arc::default();
    let counting = Arc::clone(&counts);
    let (sink, _) = collect();
    rows.changes()
        .map_batches(move |rows| {
            let n_wrong = (0..rows.num_rows())
                .filter(|row| is_wrong(&rows, *row))
                .count();
            counting[0].fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
            counting[1].fetch_add(n_wrong as u64, Ordering::Relaxed);
            Ok(rows.slice(0, 0))
        })
        .named(name)
        .write(sink);
    counts
}

#[test]
fn the_total_of_all_balances_is_0_at_every_output() {
    let n = n_transfers();
    let rows = transfers(n);
    for n_workers in 1..=3 {
        let pipeline = Pipeline::new("accounts");
        let watermarks =
            Watermarks::bounded_out_of_orderness(Duration::from_millis(DISORDER_MS as u64));
        let transfers = pipeline
            .read("transfers", from_record_batches(rows.clone()))
            .assign_timestamps(col("at"), watermarks.splits_in_order(true))
            .as_changelog();
        let balances = balances(&transfers);
        let positive = sum(col("balance"))
            .filter(col("balance").gt(lit(0)))
            .build()
            .unwrap();
        let total = balances.agg([
            sum(col("balance")).alias("total"),
            positive.alias("positive"),
        ]);
        let is_wrong = |rows: &RecordBatch, row: usize| {
            rows["total"].as_primitive::<Int64Type>().value(row) != 0
        };
        let counts = counted(&total, "total", is_wrong);
        // All changes of balances are kept only where they fit the memory.
        let (sink, changes) = collect();
        if n <= 1_000_000 {
            balances.named("balances").write(sink);
        }
        let report = pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
        let n_outputs = counts[0].load(Ordering::Relaxed);
        assert_eq!(
            counts[1].load(Ordering::Relaxed),
            0,
            "of {n_outputs} outputs, {n_workers} workers"
        );
        // The sum of what is in credit is another after almost every instant.
        assert!(
            n_outputs > n as u64 / 2,
            "{n_outputs} outputs of {n} transfers"
        );
        println!(
            "{n} transfers, {n_workers} workers: total 0 at all {n_outputs} outputs, {:.2?}",
            report.wall
        );
        if n <= 1_000_000 {
            check_balances(&rows, &changes.take());
        }
    }
}

/// The sum of all balances is 0 after each instant, and at the end they are what they should be.
fn check_balances(transfers: &[RecordBatch], changes: &[RecordBatch]) {
    let mut by_time: BTreeMap<i64, i64> = BTreeMap::new();
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for rows in changes {
        let int = |name: &str| rows[name].as_primitive::<Int64Type>().values();
        let times = rows["event_time"]
            .as_primitive::<TimestampMillisecondType>()
            .values();
        let diffs = rows["diff"].as_primitive::<Int8Type>().values();
        for row in 0..rows.num_rows() {
            let change = int("balance")[row] * i64::from(diffs[row]);
            *by_time.entry(times[row]).or_default() += change;
            *last.entry(int("account")[row]).or_default() += change;
        }
    }
    assert!(by_time.values().all(|sum| *sum == 0));
    let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
    for rows in transfers {
        let int = |name: &str| rows[name].as_primitive::<Int64Type>().values();
        for row in 0..rows.num_rows() {
            *expected.entry(int("from")[row]).or_default() -= int("amount")[row];
            *expected.entry(int("to")[row]).or_default() += int("amount")[row];
        }
    }
    assert_eq!(last, expected);
}
