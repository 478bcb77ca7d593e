//! Byte credits: what a source may have in flight.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use super::feed::Lease;

type Waker = Box<dyn Fn() + Send + Sync>;

/// With fewer batches in flight than this, whatever their size, readers and operators would wait for each other.
const FEW_BATCHES: u64 = 8;

/// This part of the limit is enough where it holds more batches than a few.
///
/// What is in flight is not in the caches of the processor, nor does the allocator find it free. Measured with a
/// prediction on two workers over 10, 30 and 100 million rows: at the peak 116, 119 and 127 MB with an eighth of
/// 32 MiB, 187, 189 and 212 MB with all of it, at the same CPU per row.
const ENOUGH: u64 = 8;

/// The credit of one source instance, or of an operator that makes many rows from few.
///
/// A batch and all that is derived from it hold a [`Permit`]; the last drop gives the bytes back and
/// wakes the source. A source does not poll without credit, so a slow operator stops it. An operator that
/// makes rows in lots stops between two of them: what it has made holds its credit, and through it the
/// credit of the rows that were read.
pub(crate) struct Credit {
    limit: u64,
    used: AtomicU64,
    /// How many batches hold them.
    n_held: AtomicU64,
    peak: AtomicU64,
    waiting: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Credit {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            n_held: AtomicU64::new(0),
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
        self.hold(n_bytes, lease, None)
    }

    /// Takes `n_bytes` for rows made from others, whose permit is held as long.
    pub(crate) fn take_after(self: &Arc<Self>, n_bytes: u64, before: Option<Permit>) -> Permit {
        self.hold(n_bytes, None, before)
    }

    fn hold(
        self: &Arc<Self>,
        n_bytes: u64,
        lease: Option<Arc<Lease>>,
        before: Option<Permit>,
    ) -> Permit {
        let used = self.used.fetch_add(n_bytes, SeqCst) + n_bytes;
        self.n_held.fetch_add(1, SeqCst);
        self.peak.fetch_max(used, SeqCst);
        Permit(Arc::new(Held {
            credit: Arc::clone(self),
            n_bytes,
            _lease: lease,
            _before: before,
        }))
    }

    /// True if there is credit. If not, the source is woken when there is.
    pub(crate) fn is_ready(&self) -> bool {
        if self.has_room() {
            return true;
        }
        // Announced before the second look: a permit dropped in between then sees it.
        self.waiting.store(true, SeqCst);
        self.has_room()
    }

    /// True if there is credit now; says nothing about being woken.
    pub(crate) fn has_room(&self) -> bool {
        let used = self.used.load(SeqCst);
        let are_few = || self.n_held.load(SeqCst) < FEW_BATCHES;
        used < self.limit / ENOUGH || (used < self.limit && are_few())
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
        credit.used.fetch_sub(self.n_bytes, SeqCst);
        credit.n_held.fetch_sub(1, SeqCst);
        // After both counts: who looks between them has announced that it waits.
        if credit.has_room()
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

    #[test]
    fn few_batches_may_take_it_all_and_many_a_part() {
        let credit = Credit::new(800);
        let large: Vec<Permit> = (0..2).map(|_| credit.take(270, None)).collect();
        assert!(credit.is_ready(), "two batches are few");
        let fourth = credit.take(270, None);
        assert!(!credit.is_ready());
        drop((large, fourth));
        let mut small: Vec<Permit> = (0..9).map(|_| credit.take(11, None)).collect();
        assert!(credit.is_ready(), "99 bytes are less than an eighth");
        small.push(credit.take(11, None));
        assert!(!credit.is_ready(), "ten batches are many");
        small.truncate(7);
        assert!(credit.is_ready());
    }
}
