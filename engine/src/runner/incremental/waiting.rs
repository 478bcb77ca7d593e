//! Changes of one input that wait until the watermark of all inputs has passed them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use differential_dataflow::consolidation::consolidate;

use super::row::RowBytes;

/// Changes that cancel each other are left out once there are twice as many as were left the last time, and more
/// than this.
const MIN_CHANGES: usize = 1 << 13;

/// Unless fewer than one in so many takes a row back: then little can be left out.
const ONE_IN: usize = 8;

/// A change of a row, with the event time at which it takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) time: i64,
    pub(super) row: RowBytes,
    pub(super) diff: isize,
}

/// A change, ordered by when it takes effect alone: the earliest is the greatest, which a heap gives first.
struct ByTime(Change);

impl PartialEq for ByTime {
    fn eq(&self, other: &Self) -> bool {
        self.0.time == other.0.time
    }
}

impl Eq for ByTime {}

impl Ord for ByTime {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.time.cmp(&self.0.time)
    }
}

impl PartialOrd for ByTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Changes that wait.
pub(super) struct Waiting {
    changes: BinaryHeap<ByTime>,
    /// None takes effect later.
    latest: i64,
    /// How many take a row back.
    n_taken: usize,
    n_bytes: usize,
    /// How many there were when those that cancel each other were last left out.
    n_consolidated: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self::of(BinaryHeap::new())
    }
}

impl Waiting {
    fn of(changes: BinaryHeap<ByTime>) -> Self {
        let all = || changes.iter().map(|change| &change.0);
        Self {
            latest: all().map(|change| change.time).max().unwrap_or(i64::MIN),
            n_taken: all().filter(|change| change.diff < 0).count(),
            n_bytes: all().map(n_bytes).sum(),
            n_consolidated: changes.len(),
            changes,
        }
    }

    pub(super) fn add(&mut self, change: Change) {
        self.n_bytes += n_bytes(&change);
        self.n_taken += usize::from(change.diff < 0);
        self.latest = self.latest.max(change.time);
        self.changes.push(ByTime(change));
        let n_changes = self.changes.len();
        let are_many = n_changes > MIN_CHANGES.max(2 * self.n_consolidated);
        if are_many && self.n_taken * ONE_IN >= n_changes {
            self.consolidate();
        }
    }

    /// Takes the changes from before `time`, in no order; all, where there is none.
    pub(super) fn take_before(&mut self, time: Option<i64>) -> Vec<Change> {
        if time.is_none_or(|time| self.latest < time) {
            let all = std::mem::take(self).changes.into_iter();
            return all.map(|change| change.0).collect();
        }
        let mut taken = Vec::new();
        while let Some(next) = self.changes.peek()
            && time.is_none_or(|time| next.0.time < time)
            && let Some(ByTime(change)) = self.changes.pop()
        {
            self.n_bytes -= n_bytes(&change);
            self.n_taken -= usize::from(change.diff < 0);
            taken.push(change);
        }
        taken
    }

    /// The changes, which stay, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().map(|change| &change.0)
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    fn consolidate(&mut self) {
        let all = std::mem::take(self).changes.into_iter().map(|c| c.0);
        let mut all: Vec<((i64, RowBytes), isize)> =
            all.map(|c| ((c.time, c.row), c.diff)).collect();
        consolidate(&mut all);
        let all = all.into_iter();
        let all = all.map(|((time, row), diff)| ByTime(Change { time, row, diff }));
        *self = Self::of(all.collect());
    }
}

/// What a change takes in memory.
fn n_bytes(change: &Change) -> usize {
    size_of::<Change>() - size_of::<RowBytes>() + change.row.n_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(time: i64, row: u8, diff: isize) -> Change {
        Change {
            time,
            row: RowBytes::new(&[row; 40]),
            diff,
        }
    }

    #[test]
    fn changes_leave_once_their_time_is_over() {
        let mut waiting = Waiting::default();
        for (time, row) in [(7, 1), (3, 2), (5, 3), (3, 4)] {
            waiting.add(change(time, row, 1));
        }
        let mut left: Vec<u8> = waiting
            .take_before(Some(5))
            .iter()
            .map(|c| c.row.bytes()[0])
            .collect();
        left.sort_unstable();
        assert_eq!(left, [2, 4]);
        assert!(waiting.take_before(Some(5)).is_empty());
        assert_eq!(waiting.iter().count(), 2);
        assert_eq!(waiting.take_before(None).len(), 2);
        assert_eq!(waiting.n_bytes(), 0);
    }

    /// The changes as text, in order.
    fn shown<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<String> {
        let mut all: Vec<String> = changes.map(|change| format!("{change:?}")).collect();
        all.sort();
        all
    }

    proptest! {
        #[test]
        fn whatever_is_over_is_taken_and_the_rest_stays(
            steps in prop::collection::vec((prop::collection::vec((0i64..20, 0u8..3), 0..8), 0i64..20), 1..12),
        ) {
            let (mut waiting, mut all) = (Waiting::default(), Vec::new());
            for (added, time) in steps {
                for (at, row) in added {
                    let diff = if row == 0 { -1 } else { 1 };
                    waiting.add(change(at, row, diff));
                    all.push(change(at, row, diff));
                }
                let (over, left): (Vec<Change>, Vec<Change>) =
                    all.into_iter().partition(|change| change.time < time);
                prop_assert_eq!(shown(waiting.take_before(Some(time)).iter()), shown(over.iter()));
                prop_assert_eq!(shown(waiting.iter()), shown(left.iter()));
                prop_assert_eq!(waiting.n_bytes(), left.iter().map(n_bytes).sum::<usize>());
                prop_assert_eq!(waiting.n_taken, left.iter().filter(|c| c.diff < 0).count());
                all = left;
            }
        }
    }

    #[test]
    fn changes_that_cancel_each_other_do_not_pile_up() {
        let mut waiting = Waiting::default();
        waiting.add(change(1, 1, 1));
        for _ in 0..10 * MIN_CHANGES {
            waiting.add(change(2, 2, 1));
            waiting.add(change(2, 2, -1));
        }
        assert!(waiting.iter().count() <= MIN_CHANGES + 1);
        waiting.consolidate();
        assert_eq!(waiting.iter().collect::<Vec<_>>(), [&change(1, 1, 1)]);
        assert_eq!(waiting.n_bytes(), n_bytes(&change(1, 1, 1)));
    }
}
