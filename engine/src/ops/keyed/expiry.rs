//! When what is kept of a scope goes, where it lives for a time after its last row.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No time has been given.
const NEVER: i64 = i64::MIN;

/// The ends of the lives of scopes.
///
/// A life that is made longer stays where it is in the queue, and is put back when its old end has come.
pub(super) struct Expiry {
    ttl_ms: i64,
    ends: Vec<i64>,
    is_queued: Vec<bool>,
    queue: BinaryHeap<Reverse<(i64, usize)>>,
}

impl Expiry {
    pub(super) fn new(ttl_ms: i64) -> Self {
        Self {
            ttl_ms,
            ends: Vec::new(),
            is_queued: Vec::new(),
            queue: BinaryHeap::new(),
        }
    }

    pub(super) fn make_room(&mut self, n_scopes: usize) {
        if self.ends.len() < n_scopes {
            self.ends.resize(n_scopes, NEVER);
            self.is_queued.resize(n_scopes, false);
        }
    }

    /// A row of this time has come.
    pub(super) fn touch(&mut self, scope: usize, time: i64) {
        self.set(scope, time.saturating_add(self.ttl_ms));
    }

    /// The life of the scope ends at `end` or later.
    pub(super) fn set(&mut self, scope: usize, end: i64) {
        self.ends[scope] = self.ends[scope].max(end);
        if !self.is_queued[scope] {
            self.is_queued[scope] = true;
            self.queue.push(Reverse((self.ends[scope], scope)));
        }
    }

    pub(super) fn clear(&mut self, scope: usize) {
        self.ends[scope] = NEVER;
    }

    pub(super) fn end(&self, scope: usize) -> i64 {
        self.ends[scope]
    }

    /// The scope whose life ends first, and when.
    pub(super) fn next(&mut self) -> Option<(i64, usize)> {
        while let Some(Reverse((end, scope))) = self.queue.peek().copied() {
            if self.ends[scope] == end {
                return Some((end, scope));
            }
            self.queue.pop();
            if self.ends[scope] == NEVER {
                self.is_queued[scope] = false;
            } else {
                self.queue.push(Reverse((self.ends[scope], scope)));
            }
        }
        None
    }

    /// Keeps these scopes, in this order.
    pub(super) fn keep(&mut self, scopes: &[usize]) {
        let ends: Vec<i64> = scopes.iter().map(|scope| self.ends[*scope]).collect();
        *self = Self::new(self.ttl_ms);
        self.make_room(ends.len());
        for (scope, end) in ends.into_iter().enumerate() {
            if end != NEVER {
                self.set(scope, end);
            }
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        let of_scope = size_of::<i64>() + size_of::<bool>();
        self.ends.capacity() * of_scope + self.queue.capacity() * size_of::<(i64, usize)>()
    }
}
