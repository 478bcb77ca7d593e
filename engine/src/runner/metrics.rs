//! What a node has done so far, counted by all workers together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::credit::Credit;
use crate::batch::Batch;
use crate::output::Output;
use crate::report::NodeReport;

/// The counters of one node in one phase.
#[derive(Default)]
pub(crate) struct NodeMetrics {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    filtered: AtomicU64,
    rejected: AtomicU64,
    late: AtomicU64,
    behind: AtomicU64,
    pruned: AtomicU64,
    bytes_in: AtomicU64,
    bytes_read: AtomicU64,
    batches: AtomicU64,
    busy_ns: AtomicU64,
    state_bytes: AtomicU64,
    peak_state_bytes: AtomicU64,
    /// How far a trainer says it is, in rows of all its passes.
    trained: AtomicU64,
    to_train: AtomicU64,
    expected: OnceLock<Expected>,
    credits: std::sync::Mutex<Vec<Arc<Credit>>>,
    /// Of each worker, the watermark behind the node, and the split that holds it back where that is known.
    watermarks: std::sync::Mutex<BTreeMap<usize, WorkerWatermark>>,
}

/// The watermark behind a node on one worker, in milliseconds, and the split that holds it back.
pub(crate) type WorkerWatermark = (i64, Option<Arc<str>>);

/// What a source will have read in the end, where that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) n_rows: Option<u64>,
    pub(crate) n_bytes: Option<u64>,
}

impl std::fmt::Debug for NodeMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeMetrics").finish_non_exhaustive()
    }
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

    /// What a source has read of its storage.
    pub(crate) fn read_storage(&self, n_bytes: u64) {
        self.bytes_read.fetch_add(n_bytes, Relaxed);
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
        let counts = [
            (&self.filtered, filtered),
            (&self.rejected, rejected),
            (&self.late, out.take_late()),
            (&self.behind, out.take_behind()),
        ];
        // Workers that write to the same place wait for each other, and mostly there is nothing to count.
        for (counter, n_rows) in counts.into_iter().filter(|(_, n_rows)| *n_rows > 0) {
            counter.fetch_add(n_rows, Relaxed);
        }
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

    /// One instance of the node kept `before` bytes between calls and keeps `now`.
    pub(crate) fn state_changed(&self, before: u64, now: u64) {
        let added = now.wrapping_sub(before);
        let all = self
            .state_bytes
            .fetch_add(added, Relaxed)
            .wrapping_add(added);
        self.peak_state_bytes.fetch_max(all, Relaxed);
    }

    /// The watermark behind the node has moved on one worker.
    pub(crate) fn watermark_moved(&self, worker: usize, to: i64, held_back_by: Option<Arc<str>>) {
        let mut watermarks = self
            .watermarks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        watermarks.insert(worker, (to, held_back_by));
    }

    /// The least watermark behind the node of all workers; `None` before any has moved.
    pub(crate) fn watermark(&self) -> Option<WorkerWatermark> {
        let watermarks = self
            .watermarks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        watermarks.values().min_by_key(|(at, _)| *at).cloned()
    }

    pub(crate) fn trained(&self, done: u64, total: u64) {
        self.to_train.store(total, Relaxed);
        self.trained.store(done, Relaxed);
    }

    /// Says, once, what will have been read in the end.
    pub(crate) fn expect(&self, expected: Expected) {
        let _ = self.expected.set(expected);
    }

    /// The credit of one instance of a source, or of an operator for the rows it makes in lots.
    pub(crate) fn holds(&self, credit: &Arc<Credit>) {
        self.lock_credits().push(Arc::clone(credit));
    }

    fn lock_credits(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Credit>>> {
        self.credits
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The counters as they stand.
    pub(crate) fn now(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let credits = self.lock_credits();
        Counts {
            // A trainer takes in rows that the runner does not see pass.
            rows_in: load(&self.rows_in) + load(&self.trained),
            rows_out: load(&self.rows_out),
            filtered: load(&self.filtered),
            rejected: load(&self.rejected),
            late: load(&self.late),
            behind: load(&self.behind),
            pruned: load(&self.pruned),
            bytes_in: load(&self.bytes_in),
            bytes_read: load(&self.bytes_read),
            batches: load(&self.batches),
            busy: Duration::from_nanos(load(&self.busy_ns)),
            state_bytes: load(&self.state_bytes),
            peak_state_bytes: load(&self.peak_state_bytes),
            credit_bytes: credits.iter().map(|c| c.used()).sum(),
            peak_credit_bytes: credits.iter().map(|c| c.peak()).max().unwrap_or_default(),
            trained: load(&self.trained),
            to_train: load(&self.to_train),
            expected: self.expected.get().copied().unwrap_or_default(),
        }
    }
}

/// The counters of a node at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) filtered: u64,
    pub(crate) rejected: u64,
    pub(crate) late: u64,
    /// Rows behind the watermark where it was made.
    pub(crate) behind: u64,
    pub(crate) pruned: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_read: u64,
    pub(crate) batches: u64,
    pub(crate) busy: Duration,
    pub(crate) state_bytes: u64,
    pub(crate) peak_state_bytes: u64,
    pub(crate) credit_bytes: u64,
    pub(crate) peak_credit_bytes: u64,
    pub(crate) trained: u64,
    pub(crate) to_train: u64,
    pub(crate) expected: Expected,
}

impl Counts {
    /// Fills the counters into a node's report.
    pub(crate) fn into_report(self, of: NodeReport) -> NodeReport {
        NodeReport {
            rows_in: self.rows_in,
            rows_out: self.rows_out,
            filtered: self.filtered,
            rejected: self.rejected,
            late: self.late,
            behind: self.behind,
            pruned: self.pruned,
            bytes_in: self.bytes_in,
            bytes_read: self.bytes_read,
            batches: self.batches,
            busy: self.busy,
            peak_state_bytes: self.peak_state_bytes,
            ..of
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_in_use_is_summed_and_its_peak_is_of_one_instance() {
        let metrics = NodeMetrics::default();
        let credits = [Credit::new(100), Credit::new(100)];
        credits.iter().for_each(|c| metrics.holds(c));
        let held = [credits[0].take(40, None), credits[1].take(30, None)];
        let counts = metrics.now();
        assert_eq!((counts.credit_bytes, counts.peak_credit_bytes), (70, 40));
        drop(held);
        assert_eq!(metrics.now().credit_bytes, 0);
    }
}
