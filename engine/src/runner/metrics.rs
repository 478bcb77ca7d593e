//! What a node has done so far, counted by all workers together.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::output::Output;
use crate::report::NodeReport;

/// The counters of one node in one phase.
#[derive(Debug, Default)]
pub(crate) struct NodeMetrics {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    filtered: AtomicU64,
    rejected: AtomicU64,
    pruned: AtomicU64,
    bytes_in: AtomicU64,
    batches: AtomicU64,
    busy_ns: AtomicU64,
}

impl NodeMetrics {
    pub(crate) fn took_in(&self, batch: &Batch) {
        self.batches.fetch_add(1, Relaxed);
        self.rows_in.fetch_add(batch.n_rows() as u64, Relaxed);
        self.bytes_in.fetch_add(batch.n_bytes(), Relaxed);
    }

    /// Rows that a source met but could not read.
    pub(crate) fn took_in_rejected(&self, n_rows: u64) {
        self.rows_in.fetch_add(n_rows, Relaxed);
    }

    /// Rows that a source left out, since no node needs them.
    pub(crate) fn left_out(&self, n_rows: u64) {
        self.pruned.fetch_add(n_rows, Relaxed);
    }

    pub(crate) fn gave_out(&self, n_rows: usize) {
        self.rows_out.fetch_add(n_rows as u64, Relaxed);
    }

    /// Moves the counts of an output here; gives the number of rejected rows.
    pub(crate) fn count(&self, out: &mut Output) -> u64 {
        let (filtered, rejected) = out.take_counts();
        self.filtered.fetch_add(filtered, Relaxed);
        self.rejected.fetch_add(rejected, Relaxed);
        rejected
    }

    /// Counts the time that `work` takes.
    pub(crate) fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.busy_ns.fetch_add(ns, Relaxed);
        done
    }

    pub(crate) fn report(&self, node: &str, kind: &str) -> NodeReport {
        NodeReport {
            node: node.into(),
            kind: kind.into(),
            rows_in: self.rows_in.load(Relaxed),
            rows_out: self.rows_out.load(Relaxed),
            filtered: self.filtered.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            late: 0,
            pruned: self.pruned.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            batches: self.batches.load(Relaxed),
            busy: Duration::from_nanos(self.busy_ns.load(Relaxed)),
        }
    }
}
