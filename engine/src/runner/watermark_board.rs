//! The watermarks that the workers of one node make, side by side: so that a worker whose splits are idle does
//! not hold back the others.

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
}

impl WatermarkBoard {
    pub(crate) fn new(n_workers: usize) -> Self {
        let stand = || Stand {
            watermark: i64::MIN,
            is_idle: false,
            wake: None,
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
}
