//! Drops rows whose key has been seen a short time ago.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::json;

use super::{Bag, Declared, KeyRows, KeyedTransform, Scope};
use crate::error::Result;
use crate::pipeline::Collection;
use crate::transform::{Description, Watermark};

/// The times of the rows that were kept and still matter.
const KEPT: Bag<i64> = Bag::new("kept");

/// Keeps of the rows of one key the first to arrive, and drops those that are less than a time apart from it.
///
/// Times are event times. What is kept of a key are the times of its rows that were let through, until the
/// watermark has passed them by that time; rows behind the watermark are late, or behind it by more than the
/// allowed lateness. Null is a key like any other.
#[derive(Clone, Debug)]
pub struct DistinctWithin {
    within_ms: i64,
}

impl DistinctWithin {
    /// Drops rows that are less than `within` before or after one that was kept.
    pub fn new(within: Duration) -> Self {
        Self {
            within_ms: i64::try_from(within.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

impl Collection {
    /// Of the rows with equal `keys` the first to arrive, without those that are less than a time apart; see
    /// [`DistinctWithin`](crate::ops::keyed::DistinctWithin).
    ///
    /// Unlike [`Collection::distinct_by`] it keeps no key for ever, and which row is first depends on when
    /// rows arrive.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainstem_engine::connectors::{collect, from_record_batches};
    /// # use mainstem_engine::testing::{show, table};
    /// # use mainstem_engine::{Pipeline, RunOptions, col};
    /// let pipeline = Pipeline::new("clicks");
    /// let rows = table("user: a, a, b, a; event_time: 0, 400, 500, 1000");
    /// let rows = pipeline.read("rows", from_record_batches(vec![rows]));
    /// let (sink, distinct) = collect();
    /// rows.distinct_within([col("user")], Duration::from_secs(1)).write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&distinct.take()[0]), "user: 'a', 'b', 'a'\nevent_time: 0, 500, 1000");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn distinct_within(
        &self,
        keys: impl IntoIterator<Item = Expr>,
        within: Duration,
    ) -> Collection {
        self.group_by(keys).process(DistinctWithin::new(within))
    }
}

impl KeyedTransform for DistinctWithin {
    fn declare(&self, _rows: &SchemaRef) -> Result<Declared> {
        let within = Duration::from_millis(self.within_ms.unsigned_abs());
        let declared = Declared::rows().cell(KEPT).ttl(within);
        Ok(declared.late_after(Duration::ZERO))
    }

    fn on_rows(&self, key: &mut Scope<'_>, rows: &KeyRows<'_>) -> Result<()> {
        let Watermark(watermark) = key.watermark();
        let oldest = watermark
            .saturating_sub(key.allowed_lateness_ms())
            .saturating_sub(self.within_ms);
        let mut kept = key.bag(KEPT)?.take();
        kept.retain(|time| *time > oldest);
        for (row, &time) in rows.times()?.iter().enumerate() {
            let near = |other: &i64| other.abs_diff(time) < self.within_ms.unsigned_abs();
            if kept.iter().any(near) {
                key.filtered(1);
            } else {
                kept.push(time);
                key.keep(rows, row)?;
            }
        }
        key.bag(KEPT)?.extend(kept);
        Ok(())
    }

    fn describe(&self) -> Description {
        Description::new("distinct_within", json!({ "within_ms": self.within_ms }))
    }
}
