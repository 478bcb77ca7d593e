//! Changes of one input that wait until the watermark of all inputs has passed them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use differential_dataflow::consolidation::consolidate;

use super::row::RowBytes;

/// Changes that cancel each other are left out once there are twice as many as were left the last time, and more
/// than this.
const MIN_CHANGES: usize = 1 << 13;

/// A change of a row, with the event time at which it takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) time: i64,
    pub(super) row: RowBytes,
    pub(super) diff: isize,
}

impl Ord for Change {
    /// The earliest is the greatest, which a heap gives first.
    fn cmp(&self, other: &Self) -> Ordering {
        let all = |change: &Self| (change.time, change.diff);
        all(other)
            .cmp(&all(self))
            .then_with(|| other.row.cmp(&self.row))
    }
}

impl PartialOrd for Change {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Changes that wait.
#[derive(Default)]
pub(super) struct Waiting {
    changes: BinaryHeap<Change>,
    n_bytes: usize,
    /// How many there were when those that cancel each other were last left out.
    n_consolidated: usize,
}

impl Waiting {
    pub(super) fn add(&mut self, change: Change) {
        self.n_bytes += n_bytes(&change);
        self.changes.push(change);
        if self.changes.len() > MIN_CHANGES.max(2 * self.n_consolidated) {
            self.consolidate();
        }
    }

    /// Takes the changes from before `time`; all, where there is none.
    pub(super) fn take_before(&mut self, time: Option<i64>) -> Vec<Change> {
        let Some(time) = time else {
            self.n_bytes = 0;
            return std::mem::take(&mut self.changes).into_vec();
        };
        let mut taken = Vec::new();
        while self.changes.peek().is_some_and(|change| change.time < time)
            && let Some(change) = self.changes.pop()
        {
            self.n_bytes -= n_bytes(&change);
            taken.push(change);
        }
        taken
    }

    /// The changes, which stay, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    fn consolidate(&mut self) {
        let all = std::mem::take(&mut self.changes).into_iter();
        let mut all: Vec<((i64, RowBytes), isize)> =
            all.map(|c| ((c.time, c.row), c.diff)).collect();
        consolidate(&mut all);
        let all = all.into_iter();
        self.changes = all
            .map(|((time, row), diff)| Change { time, row, diff })
            .collect();
        self.n_bytes = self.changes.iter().map(n_bytes).sum();
        self.n_consolidated = self.changes.len();
    }
}

/// What a change takes in memory.
fn n_bytes(change: &Change) -> usize {
    size_of::<Change>() - size_of::<RowBytes>() + change.row.n_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

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
