//! Threads for work that would stop a worker: input and output, inference, waiting.
//!
//! ```text
//! worker 0 ──▶ queue 0 ──▶ thread 0      what one job leaves in the caches of a core, the next one finds there
//! worker 1 ──▶ queue 1 ──▶ thread 1
//!                   └────▶ thread 0, while it has nothing of its own to do
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads, each with a queue of jobs that it takes in the order in which they come; one that has
/// none takes those of others.
///
/// Jobs must not panic: what calls foreign code does so through `guard`.
pub(crate) struct WorkPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// What each thread sleeps on.
    woken: Vec<Condvar>,
    idle: Condvar,
}

struct State {
    /// By thread.
    jobs: Vec<VecDeque<Job>>,
    sleeps: Vec<bool>,
    n_unfinished: usize,
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job of a thread, once there is one; `None` when there will be none.
    fn next(&self, thread: usize) -> Option<Job> {
        let mut state = self.lock();
        let mut has_yielded = false;
        loop {
            if let Some(job) = state.jobs[thread].pop_front() {
                return Some(job);
            }
            if state.jobs.iter().any(|jobs| !jobs.is_empty()) {
                if has_yielded {
                    let n = state.jobs.len();
                    let mut others = (1..n).map(|further| (thread + further) % n);
                    return others.find_map(|other| state.jobs[other].pop_front());
                }
                // The worker that has just been handed rows may be about to ask for the next job with them.
                drop(state);
                thread::yield_now();
                state = self.lock();
                has_yielded = true;
                continue;
            }
            if state.is_over {
                return None;
            }
            state.sleeps[thread] = true;
            state = self.woken[thread]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.sleeps[thread] = false;
            has_yielded = false;
        }
    }

    fn work(&self, thread: usize) {
        while let Some(job) = self.next(thread) {
            job();
            let mut state = self.lock();
            state.n_unfinished -= 1;
            if state.n_unfinished == 0 {
                self.idle.notify_all();
            }
        }
    }
}

impl WorkPool {
    /// A pool of so many threads, at least one.
    pub(crate) fn new(name: &str, n_threads: usize) -> Result<Arc<Self>> {
        let n_threads = n_threads.max(1);
        let pool = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    jobs: (0..n_threads).map(|_| VecDeque::new()).collect(),
                    sleeps: vec![false; n_threads],
                    n_unfinished: 0,
                    is_over: false,
                }),
                woken: (0..n_threads).map(|_| Condvar::new()).collect(),
                idle: Condvar::new(),
            }),
        };
        for i in 0..n_threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new()
                .name(format!("mainstem-{name}-{i}"))
                .spawn(move || shared.work(i))
                .map_err(|e| Error::environment("a thread cannot be started").with_source(e))?;
        }
        Ok(Arc::new(pool))
    }

    /// Does a job, on the thread that does those of this worker unless it is busy and another is not.
    pub(crate) fn spawn(&self, worker: usize, job: impl FnOnce() + Send + 'static) {
        // What a job traces belongs to where it was asked for.
        let span = tracing::Span::current();
        let mut state = self.shared.lock();
        state.n_unfinished += 1;
        let own = worker % state.jobs.len();
        state.jobs[own].push_back(Box::new(move || span.in_scope(job)));
        let sleeper = match state.sleeps[own] {
            true => Some(own),
            false => state.sleeps.iter().position(|sleeps| *sleeps),
        };
        if let Some(sleeper) = sleeper {
            // Whoever asks for a job next wakes another.
            state.sleeps[sleeper] = false;
            self.shared.woken[sleeper].notify_one();
        }
    }

    /// Waits until no job is left, but not longer than `patience`.
    pub(crate) fn wait_until_idle(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.n_unfinished > 0;
        let idle = &self.shared.idle;
        drop(idle.wait_timeout_while(self.shared.lock(), patience, is_busy));
    }
}

impl Drop for WorkPool {
    /// The threads end when they have done what they were asked for.
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.woken.iter().for_each(Condvar::notify_all);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[test]
    fn all_jobs_are_done_before_the_pool_is_idle() {
        let pool = WorkPool::new("test", 3).unwrap();
        let sum = Arc::new(AtomicUsize::new(0));
        for i in 1..=100 {
            let sum = Arc::clone(&sum);
            pool.spawn(i, move || {
                sum.fetch_add(i, SeqCst);
            });
        }
        pool.wait_until_idle(PATIENCE);
        assert_eq!(sum.load(SeqCst), 5050);
    }

    #[test]
    fn jobs_are_done_though_the_pool_is_dropped() {
        let pool = WorkPool::new("test", 2).unwrap();
        let (sender, done) = mpsc::channel();
        for i in 0..100 {
            let sender = sender.clone();
            pool.spawn(i % 2, move || sender.send(i).unwrap());
        }
        drop((pool, sender));
        let all: BTreeSet<usize> = done.iter().collect();
        assert_eq!(all, (0..100).collect());
    }

    /// Two jobs that wait for each other need two threads, whichever queue they are in.
    #[test]
    fn a_thread_without_jobs_takes_those_of_another() {
        let pool = WorkPool::new("test", 2).unwrap();
        let (sender, done) = mpsc::channel();
        let both = Arc::new(Barrier::new(2));
        for _ in 0..2 {
            let (sender, both) = (sender.clone(), Arc::clone(&both));
            pool.spawn(0, move || {
                both.wait();
                sender.send(name()).unwrap();
            });
        }
        let names: BTreeSet<String> = (0..2)
            .map(|_| done.recv_timeout(PATIENCE).unwrap())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_thread_that_sleeps_is_woken_for_the_jobs_of_its_worker() {
        let pool = WorkPool::new("test", 3).unwrap();
        let (sender, done) = mpsc::channel();
        for worker in [1, 0, 2, 4, 3] {
            // All sleep, or are about to.
            while !pool.shared.lock().sleeps.iter().all(|sleeps| *sleeps) {
                thread::yield_now();
            }
            let sender = sender.clone();
            pool.spawn(worker, move || sender.send(name()).unwrap());
            let expected = format!("mainstem-test-{}", worker % 3);
            assert_eq!(done.recv_timeout(PATIENCE).unwrap(), expected);
        }
    }
}
