//! The watermarks that the workers of one node make, side by side: so that a worker whose splits are idle does
//! not hold back the others, and one that is far ahead waits for them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event_time::MAX_TIME;

type Waker = Box<dyn Fn() + Send>;

/// The watermark of each worker of one node.
pub(crate) struct WatermarkBoard {
    workers: Mutex<Vec<Stand>>,
}

struct Stand {
    watermark: i64,
    is_idle: bool,
    wake: Option<Waker>,
    /// It reads no more, being far ahead, and what wakes its feeds.
    waits: bool,
    feeds: Vec<Waker>,
}

impl WatermarkBoard {
    pub(crate) fn new(n_workers: usize) -> Self {
        let stand = || Stand {
            watermark: i64::MIN,
            is_idle: false,
            wake: None,
            waits: false,
            feeds: Vec::new(),
        };
        Self {
            workers: Mutex::new((0..n_workers).map(|_| stand()).collect()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stand>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `wake` when the watermark that an idle worker follows has moved.
    pub(crate) fn on_move(&self, worker: usize, wake: impl Fn() + Send + 'static) {
        if let Some(stand) = self.lock().get_mut(worker) {
            stand.wake = Some(Box::new(wake));
        }
    }

    /// Calls `wake` when a feed that is far ahead may read on.
    pub(crate) fn on_near(&self, worker: usize, wake: impl Fn() + Send + 'static) {
        if let Some(stand) = self.lock().get_mut(worker) {
            stand.feeds.push(Box::new(wake));
        }
    }

    /// True if a worker is at most `within_ms` ahead of those that still read and are not idle. If not, its
    /// feeds are woken when one of them has moved.
    pub(crate) fn is_near(&self, worker: usize, within_ms: i64) -> bool {
        let mut workers = self.lock();
        let others = workers.iter().enumerate();
        let others = others.filter(|(n, other)| *n != worker && !other.is_idle);
        let read = others.filter(|(_, other)| other.watermark <= MAX_TIME);
        let Some(least) = read.map(|(_, other)| other.watermark).min() else {
            return true;
        };
        let Some(stand) = workers.get_mut(worker) else {
            return true;
        };
        stand.waits = stand.watermark > least.saturating_add(within_ms);
        !stand.waits
    }

    /// Says where a worker stands, and gives the watermark that it may let on: its own, or where it is idle
    /// the least of those that are not. Where all are idle it is the greatest of them.
    pub(crate) fn stand(&self, worker: usize, watermark: i64, is_idle: bool) -> i64 {
        let mut workers = self.lock();
        let Some(stand) = workers.get_mut(worker) else {
            return watermark;
        };
        let moved = stand.watermark != watermark || stand.is_idle != is_idle;
        stand.watermark = watermark;
        stand.is_idle = is_idle;
        if moved {
            let idle = workers.iter().enumerate();
            for (_, other) in idle.filter(|(n, other)| *n != worker && other.is_idle) {
                other.wake.iter().for_each(|wake| wake());
            }
            for other in workers.iter_mut().filter(|other| other.waits) {
                other.waits = false;
                other.feeds.iter().for_each(|wake| wake());
            }
        }
        if !is_idle {
            return watermark;
        }
        // A worker to which nothing more comes is ahead of all times, and nobody to follow.
        let read = workers.iter().filter(|other| other.watermark <= MAX_TIME);
        let active = read.clone().filter(|other| !other.is_idle);
        let least = active.map(|other| other.watermark).min();
        let greatest = read.map(|other| other.watermark).max();
        least.or(greatest).map_or(watermark, |at| at.max(watermark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_worker_follows_those_that_are_not() {
        let board = WatermarkBoard::new(3);
        assert_eq!(board.stand(0, 10, false), 10);
        assert_eq!(board.stand(1, 30, false), 30);
        assert_eq!(board.stand(2, 5, true), 10);
        assert_eq!(board.stand(0, 40, false), 40);
        assert_eq!(board.stand(2, 5, true), 30);
        assert_eq!(board.stand(0, 40, true), 40);
        assert_eq!(board.stand(1, 30, true), 40);
        assert_eq!(board.stand(2, 5, true), 40);
        assert_eq!(board.stand(0, i64::MAX - 1, false), i64::MAX - 1);
        assert_eq!(board.stand(2, 5, true), 30);
    }

    #[test]
    fn a_worker_that_is_far_ahead_waits_until_another_has_moved() {
        let board = WatermarkBoard::new(3);
        let n_woken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let woken = std::sync::Arc::clone(&n_woken);
        board.on_near(0, move || {
            woken.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
        assert!(board.is_near(0, 10), "at the start all are where all are");
        board.stand(0, 100, false);
        assert!(!board.is_near(0, 10));
        board.stand(1, 95, false);
        assert!(!board.is_near(0, 10), "the third has shown nothing yet");
        board.stand(2, 90, false);
        assert!(board.is_near(0, 10));
        assert!(!board.is_near(0, 9));
        // What is idle, or has nothing more to read, is not waited for.
        board.stand(2, 90, true);
        assert!(board.is_near(0, 9));
        board.stand(1, i64::MAX - 1, false);
        assert!(board.is_near(0, 0));
        assert_eq!(n_woken.load(std::sync::atomic::Ordering::SeqCst), 3);
    }
}
