//! Byte credits: what a source may have in flight.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use super::feed::Lease;

type Waker = Box<dyn Fn() + Send + Sync>;

/// The credit of one source instance, or of an operator that makes many rows from few.
///
/// A batch and all that is derived from it hold a [`Permit`]; the last drop gives the bytes back and
/// wakes the source. A source does not poll without credit, so a slow operator stops it. An operator that
/// makes rows in lots stops between two of them: what it has made holds its credit, and through it the
/// credit of the rows that were read.
pub(crate) struct Credit {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    waiting: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Credit {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            waker: Mutex::new(None),
        })
    }

    pub(crate) fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(waker));
    }

    /// Takes `n_bytes`; a single batch may exceed the limit, or a large row could never pass.
    ///
    /// The permit keeps the lease too: a split is not over while rows of it are under way.
    pub(crate) fn take(self: &Arc<Self>, n_bytes: u64, lease: Option<Arc<Lease>>) -> Permit {
        let used = self.used.fetch_add(n_bytes, SeqCst) + n_bytes;
        self.peak.fetch_max(used, SeqCst);
        Permit(Arc::new(Held {
            credit: Arc::clone(self),
            n_bytes,
            _lease: lease,
            _before: None,
        }))
    }

    /// Takes `n_bytes` for rows made from others, whose permit is held as long.
    pub(crate) fn take_after(self: &Arc<Self>, n_bytes: u64, before: Option<Permit>) -> Permit {
        let used = self.used.fetch_add(n_bytes, SeqCst) + n_bytes;
        self.peak.fetch_max(used, SeqCst);
        Permit(Arc::new(Held {
            credit: Arc::clone(self),
            n_bytes,
            _lease: None,
            _before: before,
        }))
    }

    /// True if there is credit. If not, the source is woken when there is.
    pub(crate) fn is_ready(&self) -> bool {
        if self.used.load(SeqCst) < self.limit {
            return true;
        }
        // Announced before the second look: a permit dropped in between then sees it.
        self.waiting.store(true, SeqCst);
        self.used.load(SeqCst) < self.limit
    }

    /// True if there is credit now; says nothing about being woken.
    pub(crate) fn has_room(&self) -> bool {
        self.used.load(SeqCst) < self.limit
    }

    /// The bytes that are in flight now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(SeqCst)
    }

    /// The most bytes that were ever in flight.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(SeqCst)
    }
}

/// Bytes held against a source's credit.
#[derive(Clone)]
pub(crate) struct Permit(#[expect(dead_code, reason = "held for its Drop")] Arc<Held>);

struct Held {
    credit: Arc<Credit>,
    n_bytes: u64,
    _lease: Option<Arc<Lease>>,
    _before: Option<Permit>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let credit = &self.credit;
        let used = credit.used.fetch_sub(self.n_bytes, SeqCst) - self.n_bytes;
        if used < credit.limit
            && credit.waiting.swap(false, SeqCst)
            && let Some(wake) = &*credit.waker.lock().unwrap_or_else(PoisonError::into_inner)
        {
            wake();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_drop_gives_the_credit_back_and_wakes_the_source() {
        let credit = Credit::new(100);
        let woken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&woken);
        credit.set_waker(move || {
            count.fetch_add(1, SeqCst);
        });
        let first = credit.take(150, None);
        let second = first.clone();
        assert!(!credit.is_ready());
        drop(first);
        assert_eq!(woken.load(SeqCst), 0);
        drop(second);
        assert_eq!(woken.load(SeqCst), 1);
        assert!(credit.is_ready());
        assert_eq!(credit.peak(), 150);
    }
}
