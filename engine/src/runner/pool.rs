//! Threads for work that would stop a worker: input and output, inference, waiting.
//!
//! ```text
//! worker 0 ──▶ queue 0 ──▶ thread 0      what one job leaves in the caches of a core, the next one finds there
//! worker 1 ──▶ queue 1 ──▶ thread 1
//!                   └────▶ thread 0, while it has nothing of its own to do
//! ```
//!
//! A job at hand waits for nothing but a processor. The worker that asks for it does it itself, once its dataflow has
//! nothing to do: its rows are handed to no other thread then, and none waits for one that sleeps. Threads of the pool
//! take such jobs for workers that sleep, so that as many threads work as there are workers.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// What a job does, which decides who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It may wait: only threads of the pool do it.
    Waits,
    /// It takes rows along that are there, and waits for nothing.
    AtHand,
    /// It brings rows in and waits for nothing: done after those that take rows along, so that few are under way.
    ReadsAtHand,
}

/// A fixed number of threads, each with a queue of jobs that it takes in the order in which they come; one that has
/// none takes those of others.
///
/// Jobs must not panic: what calls foreign code does so through `guard`.
/// Those at hand must not wait for each other.
pub(crate) struct WorkPool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// What each thread sleeps on.
    woken: Vec<Condvar>,
    idle: Condvar,
}

/// The jobs of one thread, and of the workers that share it.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    at_hand: VecDeque<Job>,
    reading: VecDeque<Job>,
}

impl Queue {
    fn of(&mut self, kind: Kind) -> &mut VecDeque<Job> {
        match kind {
            Kind::Waits => &mut self.waiting,
            Kind::AtHand => &mut self.at_hand,
            Kind::ReadsAtHand => &mut self.reading,
        }
    }

    fn pop_at_hand(&mut self) -> Option<Job> {
        self.at_hand
            .pop_front()
            .or_else(|| self.reading.pop_front())
    }
}

struct State {
    /// By thread.
    queues: Vec<Queue>,
    sleeps: Vec<bool>,
    /// Workers that are awake, and threads that do their jobs at hand.
    n_at_work: usize,
    n_unfinished: usize,
    is_over: bool,
}

impl State {
    /// True if a processor is free for jobs at hand.
    fn has_room(&self) -> bool {
        self.n_at_work < self.queues.len() || self.is_over
    }

    fn has_at_hand(&self) -> bool {
        let is_some = |queue: &Queue| !queue.at_hand.is_empty() || !queue.reading.is_empty();
        self.queues.iter().any(is_some)
    }

    /// The first job that is found, beginning with the queue of this thread.
    fn pop(&mut self, thread: usize, pop: impl Fn(&mut Queue) -> Option<Job>) -> Option<Job> {
        let n = self.queues.len();
        let mut from = (0..n).map(|further| (thread + further) % n);
        from.find_map(|queue| pop(&mut self.queues[queue]))
    }

    /// A thread that is to be woken for a job in the queue of `own`.
    fn wake(&mut self, own: usize) -> Option<usize> {
        let sleeper = match self.sleeps[own] {
            true => Some(own),
            false => self.sleeps.iter().position(|sleeps| *sleeps),
        }?;
        // Whoever asks for a job next wakes another.
        self.sleeps[sleeper] = false;
        Some(sleeper)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job of a thread, and whether it is at hand, once there is one; `None` when there will be none.
    fn next(&self, thread: usize) -> Option<(Job, bool)> {
        let mut state = self.lock();
        let mut has_yielded = false;
        loop {
            if let Some(job) = state.queues[thread].waiting.pop_front() {
                return Some((job, false));
            }
            let waits = |queue: &Queue| !queue.waiting.is_empty();
            let takes = state.has_room() && state.has_at_hand();
            if takes || state.queues.iter().any(waits) {
                if has_yielded {
                    if let Some(job) = state.pop(thread, |queue| queue.waiting.pop_front()) {
                        return Some((job, false));
                    }
                    let job = state.pop(thread, Queue::pop_at_hand)?;
                    state.n_at_work += 1;
                    return Some((job, true));
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
        while let Some((job, is_at_hand)) = self.next(thread) {
            job();
            self.finished(is_at_hand);
        }
    }

    /// Counts a job that is done, by a thread that is not a worker where `leaves`.
    fn finished(&self, leaves: bool) {
        let mut state = self.lock();
        state.n_at_work -= usize::from(leaves);
        state.n_unfinished -= 1;
        if state.n_unfinished == 0 {
            self.idle.notify_all();
        }
    }

    /// A worker sleeps or ends: others do its jobs meanwhile.
    fn leave(&self, mut state: MutexGuard<'_, State>, worker: usize) {
        state.n_at_work -= 1;
        if state.has_at_hand() && state.has_room() {
            let own = worker % state.queues.len();
            if let Some(sleeper) = state.wake(own) {
                self.woken[sleeper].notify_one();
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
                    queues: (0..n_threads).map(|_| Queue::default()).collect(),
                    sleeps: vec![false; n_threads],
                    n_at_work: 0,
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
    ///
    /// One at hand is for [`Helper::work`] unless a worker sleeps.
    pub(crate) fn spawn(&self, worker: usize, kind: Kind, job: impl FnOnce() + Send + 'static) {
        // What a job traces belongs to where it was asked for.
        let span = tracing::Span::current();
        let mut state = self.shared.lock();
        state.n_unfinished += 1;
        let own = worker % state.queues.len();
        let queue = state.queues[own].of(kind);
        queue.push_back(Box::new(move || span.in_scope(job)));
        if (kind == Kind::Waits || state.has_room())
            && let Some(sleeper) = state.wake(own)
        {
            self.shared.woken[sleeper].notify_one();
        }
    }

    /// Lets the calling thread do the jobs at hand of this worker.
    pub(crate) fn help(&self, worker: usize) -> Helper<'_> {
        self.shared.lock().n_at_work += 1;
        Helper { pool: self, worker }
    }

    /// Waits until no job is left, but not longer than `patience`.
    pub(crate) fn wait_until_idle(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.n_unfinished > 0;
        let idle = &self.shared.idle;
        drop(idle.wait_timeout_while(self.shared.lock(), patience, is_busy));
    }
}

/// The thread of a worker, which does jobs at hand while its dataflow has nothing to do.
pub(crate) struct Helper<'a> {
    pool: &'a WorkPool,
    worker: usize,
}

impl Helper<'_> {
    /// Does a job at hand, of its own worker if there is one; calls `sleep` where there is none.
    pub(crate) fn work_or(&self, sleep: impl FnOnce()) {
        let shared = &self.pool.shared;
        let mut state = shared.lock();
        let own = self.worker % state.queues.len();
        if let Some(job) = state.pop(own, Queue::pop_at_hand) {
            drop(state);
            job();
            shared.finished(false);
            return;
        }
        shared.leave(state, self.worker);
        sleep();
        shared.lock().n_at_work += 1;
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        let shared = &self.pool.shared;
        shared.leave(shared.lock(), self.worker);
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
            pool.spawn(i, Kind::Waits, move || {
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
            pool.spawn(i % 2, Kind::Waits, move || sender.send(i).unwrap());
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
            pool.spawn(0, Kind::Waits, move || {
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
            pool.spawn(worker, Kind::Waits, move || sender.send(name()).unwrap());
            let expected = format!("mainstem-test-{}", worker % 3);
            assert_eq!(done.recv_timeout(PATIENCE).unwrap(), expected);
        }
    }

    /// Spawns jobs at hand of a worker that tell their name and who has done them.
    fn spawn_named(
        pool: &WorkPool,
        done: &mpsc::Sender<String>,
        worker: usize,
        jobs: &[(Kind, &str)],
    ) {
        for (kind, job) in jobs {
            let (done, job) = (done.clone(), (*job).to_owned());
            pool.spawn(worker, *kind, move || {
                done.send(format!("{job} by {}", name())).unwrap();
            });
        }
    }

    #[test]
    fn a_worker_does_what_is_at_hand_and_reads_last() {
        let pool = WorkPool::new("test", 1).unwrap();
        let (sender, done) = mpsc::channel();
        let helper = pool.help(0);
        let jobs = [
            (Kind::ReadsAtHand, "read"),
            (Kind::AtHand, "score"),
            (Kind::ReadsAtHand, "read more"),
            (Kind::AtHand, "write"),
        ];
        spawn_named(&pool, &sender, 0, &jobs);
        for _ in jobs {
            helper.work_or(|| panic!("no job is left for the worker"));
        }
        let me = name();
        let expected = ["score", "write", "read", "read more"].map(|job| format!("{job} by {me}"));
        assert_eq!(done.try_iter().collect::<Vec<_>>(), expected);
        // What waits is none of its own.
        spawn_named(&pool, &sender, 0, &[(Kind::Waits, "wait")]);
        assert_eq!(
            done.recv_timeout(PATIENCE).unwrap(),
            "wait by mainstem-test-0"
        );
    }

    #[test]
    fn a_worker_that_has_no_job_takes_those_of_another() {
        let pool = WorkPool::new("test", 2).unwrap();
        let (sender, done) = mpsc::channel();
        let _busy = pool.help(0);
        let idle = pool.help(1);
        spawn_named(&pool, &sender, 0, &[(Kind::AtHand, "score")]);
        idle.work_or(|| panic!("no job is left for the worker"));
        assert_eq!(done.try_recv().unwrap(), format!("score by {}", name()));
    }

    #[test]
    fn threads_of_the_pool_stand_in_for_workers_that_sleep() {
        let pool = WorkPool::new("test", 2).unwrap();
        let (sender, done) = mpsc::channel();
        let _awake = pool.help(0);
        let sleeper = pool.help(1);
        sleeper.work_or(|| {
            spawn_named(&pool, &sender, 0, &[(Kind::AtHand, "score")]);
            assert_eq!(
                done.recv_timeout(PATIENCE).unwrap(),
                "score by mainstem-test-0"
            );
        });
        // It is awake again.
        let mut n_slept = 0;
        spawn_named(&pool, &sender, 0, &[(Kind::AtHand, "write")]);
        sleeper.work_or(|| n_slept += 1);
        assert_eq!(done.try_recv().unwrap(), format!("write by {}", name()));
        assert_eq!(n_slept, 0);
    }

    #[test]
    fn what_a_worker_leaves_is_done_when_it_sleeps_or_ends() {
        let pool = WorkPool::new("test", 2).unwrap();
        let (sender, done) = mpsc::channel();
        let (first, second) = (pool.help(0), pool.help(1));
        spawn_named(
            &pool,
            &sender,
            0,
            &[(Kind::AtHand, "score"), (Kind::ReadsAtHand, "read")],
        );
        drop(first);
        let mut jobs = [(); 2].map(|()| done.recv_timeout(PATIENCE).unwrap());
        jobs.sort();
        assert!(jobs[0].starts_with("read by mainstem-test-"), "{jobs:?}");
        assert!(jobs[1].starts_with("score by mainstem-test-"), "{jobs:?}");
        pool.wait_until_idle(PATIENCE);
        drop(second);
        assert_eq!(pool.shared.lock().n_at_work, 0);
    }

    #[test]
    fn as_many_threads_work_as_there_are_workers() {
        let pool = WorkPool::new("test", 2).unwrap();
        let (sender, done) = mpsc::channel();
        let workers = [pool.help(0), pool.help(1)];
        for n in 0..100 {
            let of = n % 2;
            spawn_named(
                &pool,
                &sender,
                of,
                &[(Kind::AtHand, "score"), (Kind::Waits, "wait")],
            );
            // A thread of the pool is awake now, and leaves the other job alone.
            assert!(
                done.recv_timeout(PATIENCE)
                    .unwrap()
                    .starts_with("wait by mainstem-test-")
            );
            workers[of].work_or(|| panic!("no job is left for the worker"));
            assert_eq!(done.try_recv().unwrap(), format!("score by {}", name()));
        }
    }
}
