//! Threads for work that would stop a worker: input and output, inference, waiting.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};

use crate::error::{Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that take jobs in the order in which they come.
///
/// Jobs must not panic: what calls foreign code does so through `guard`.
pub(crate) struct WorkPool {
    jobs: Sender<Job>,
    unfinished: Arc<Unfinished>,
}

#[derive(Default)]
struct Unfinished {
    count: AtomicUsize,
    changed: Condvar,
    lock: Mutex<()>,
}

impl WorkPool {
    pub(crate) fn new(name: &str, n_threads: usize) -> Result<Arc<Self>> {
        let (jobs, queue) = unbounded::<Job>();
        for i in 0..n_threads {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("mainstem-{name}-{i}"))
                .spawn(move || queue.iter().for_each(|job| job()))
                .map_err(|e| Error::environment("a thread cannot be started").with_source(e))?;
        }
        Ok(Arc::new(Self {
            jobs,
            unfinished: Arc::default(),
        }))
    }

    pub(crate) fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        let unfinished = Arc::clone(&self.unfinished);
        unfinished.count.fetch_add(1, SeqCst);
        // What a job traces belongs to where it was asked for.
        let span = tracing::Span::current();
        let counted = move || {
            span.in_scope(job);
            let _lock = unfinished
                .lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            unfinished.count.fetch_sub(1, SeqCst);
            unfinished.changed.notify_all();
        };
        // The threads live as long as this sender, so the send cannot fail.
        let _ = self.jobs.send(Box::new(counted));
    }

    /// Waits until no job is left, but not longer than `patience`.
    pub(crate) fn wait_until_idle(&self, patience: Duration) {
        let lock = self
            .unfinished
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let busy = |(): &mut ()| self.unfinished.count.load(SeqCst) > 0;
        drop(
            self.unfinished
                .changed
                .wait_timeout_while(lock, patience, busy),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_jobs_are_done_before_the_pool_is_idle() {
        let pool = WorkPool::new("test", 3).unwrap();
        let sum = Arc::new(AtomicUsize::new(0));
        for i in 1..=100 {
            let sum = Arc::clone(&sum);
            pool.spawn(move || {
                sum.fetch_add(i, SeqCst);
            });
        }
        pool.wait_until_idle(Duration::from_secs(60));
        assert_eq!(sum.load(SeqCst), 5050);
    }
}
