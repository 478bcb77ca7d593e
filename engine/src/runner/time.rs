//! The timestamp of all dataflows: a checkpoint and a watermark, ordered as a product.

use serde::{Deserialize, Serialize};
use timely::PartialOrder;
use timely::progress::Timestamp;
use timely::progress::frontier::MutableAntichain;
use timely::progress::timestamp::{PathSummary, Refines};

/// A checkpoint and a watermark (event time in milliseconds).
///
/// The order is that of a product, which is partial: `(3, 100)` and `(4, 50)` are not comparable, so a
/// frontier that holds both says checkpoint 3 and watermark 50. A lexicographic order would say 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogicalTime {
    pub(crate) checkpoint: u64,
    pub(crate) watermark: i64,
}

impl LogicalTime {
    pub(crate) const START: Self = Self {
        checkpoint: 0,
        watermark: i64::MIN,
    };

    /// The time of rows under these capabilities.
    pub(crate) fn of_stamp(times: &[Self]) -> Self {
        let least = times.iter().copied().reduce(|a, b| Self {
            checkpoint: a.checkpoint.min(b.checkpoint),
            watermark: a.watermark.min(b.watermark),
        });
        least.unwrap_or(Self::START)
    }

    /// The two independent minima over all inputs; `None` once all input is over.
    pub(crate) fn of_frontiers(frontiers: &[MutableAntichain<LogicalTime>]) -> Option<Self> {
        let times = frontiers
            .iter()
            .flat_map(|f| f.frontier().iter().copied().collect::<Vec<_>>());
        times.reduce(|a, b| Self {
            checkpoint: a.checkpoint.min(b.checkpoint),
            watermark: a.watermark.min(b.watermark),
        })
    }
}

impl PartialOrder for LogicalTime {
    fn less_equal(&self, other: &Self) -> bool {
        self.checkpoint <= other.checkpoint && self.watermark <= other.watermark
    }
}

impl PathSummary<LogicalTime> for () {
    fn results_in(&self, time: &LogicalTime) -> Option<LogicalTime> {
        Some(*time)
    }

    fn followed_by(&self, _other: &Self) -> Option<Self> {
        Some(())
    }
}

impl Timestamp for LogicalTime {
    type Summary = ();

    fn minimum() -> Self {
        Self::START
    }
}

impl Refines<()> for LogicalTime {
    fn to_inner((): ()) -> Self {
        Self::START
    }

    fn to_outer(self) {}

    fn summarize((): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = LogicalTime> {
        (0u64..5, -5i64..5).prop_map(|(checkpoint, watermark)| LogicalTime {
            checkpoint,
            watermark,
        })
    }

    proptest! {
        #[test]
        fn the_partial_order_agrees_with_the_total_one(a in time(), b in time()) {
            prop_assert!(!a.less_equal(&b) || a <= b);
            prop_assert!(LogicalTime::START.less_equal(&a));
        }

        #[test]
        fn a_frontier_is_read_as_two_minima(times in prop::collection::vec(time(), 1..6)) {
            let mut frontier = MutableAntichain::new();
            frontier.update_iter(times.iter().map(|t| (*t, 1)));
            let read = LogicalTime::of_frontiers(&[frontier]).unwrap();
            prop_assert_eq!(Some(read.checkpoint), times.iter().map(|t| t.checkpoint).min());
            prop_assert_eq!(Some(read.watermark), times.iter().map(|t| t.watermark).min());
        }
    }

    #[test]
    fn a_later_checkpoint_does_not_lift_the_watermark() {
        let mut frontier = MutableAntichain::new();
        let (a, b) = ((3, 100), (4, 50));
        frontier.update_iter([a, b].map(|(checkpoint, watermark)| {
            (
                LogicalTime {
                    checkpoint,
                    watermark,
                },
                1,
            )
        }));
        let read = LogicalTime::of_frontiers(&[frontier]);
        assert_eq!(
            read,
            Some(LogicalTime {
                checkpoint: 3,
                watermark: 50
            })
        );
    }

    #[test]
    fn no_frontier_means_the_end() {
        assert_eq!(LogicalTime::of_frontiers(&[MutableAntichain::new()]), None);
    }
}
