//! The clock of a run: the machine's, or one that only a test moves.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

type Waker = Box<dyn Fn() + Send + Sync>;

/// Where a run reads processing time, in milliseconds since 1970. Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

struct Manual {
    now_ms: AtomicI64,
    wakers: Mutex<Vec<Waker>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `now_ms` until [`Clock::advance_to`] moves it.
    pub fn manual(now_ms: i64) -> Self {
        Self(Some(Arc::new(Manual {
            now_ms: AtomicI64::new(now_ms),
            wakers: Mutex::default(),
        })))
    }

    /// The time, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Some(manual) => manual.now_ms.load(SeqCst),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    /// Moves a clock of [`Clock::manual`] forward and wakes whoever waits for it. The machine's clock, and a
    /// time that has passed, change nothing.
    pub fn advance_to(&self, now_ms: i64) {
        if let Some(manual) = &self.0 {
            manual.now_ms.fetch_max(now_ms, SeqCst);
            let wakers = manual.wakers.lock();
            for wake in wakers.unwrap_or_else(PoisonError::into_inner).iter() {
                wake();
            }
        }
    }

    /// True for the machine's clock, which wakes nobody.
    pub(crate) fn is_system(&self) -> bool {
        self.0.is_none()
    }

    /// Calls `wake` whenever a manual clock is moved.
    pub(crate) fn on_advance(&self, wake: impl Fn() + Send + Sync + 'static) {
        if let Some(manual) = &self.0 {
            let wakers = manual.wakers.lock();
            wakers
                .unwrap_or_else(PoisonError::into_inner)
                .push(Box::new(wake));
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(_) => write!(f, "Clock(manual, {})", self.now_ms()),
            None => f.write_str("Clock(system)"),
        }
    }
}
