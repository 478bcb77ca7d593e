//! Brings rows of two collections together whose event times are near each other.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::{Value, json};

use super::interval_operator::IntervalOperator;
use super::late::late_schema;
use super::layout::{Pairing, ResultTime, TimeLayout, check_pairs};
use crate::artifact::Artifacts;
use crate::error::{Error, Result};
use crate::ops::JoinKind;
use crate::pipeline::Collection;
use crate::plan::{Lowered, Place};
use crate::transform::{Description, Operator, Properties, Transform};

/// Which rows of two collections belong together: those with equal keys whose event times are near.
///
/// A left and a right row match where `left - before <= right <= left + after`, all keys are equal, and the
/// filter, if any, is true. A null key equals none. See [`Collection::join_interval`].
#[derive(Clone, Debug)]
pub struct IntervalJoin {
    pub(super) pairing: Pairing,
    before: Duration,
    after: Duration,
}

impl IntervalJoin {
    /// A join on pairs of keys, the first of the left side and the second of the right, of rows with the
    /// same event time; inner, left, right or full.
    pub fn new(kind: JoinKind, on: impl IntoIterator<Item = (Expr, Expr)>) -> Self {
        Self {
            pairing: Pairing::new(kind, on, ResultTime::Later),
            before: Duration::ZERO,
            after: Duration::ZERO,
        }
    }

    /// Sets by how much the right row may be earlier than the left one; 0 by default.
    #[must_use]
    pub fn before(mut self, before: Duration) -> Self {
        self.before = before;
        self
    }

    /// Sets by how much the right row may be later than the left one; 0 by default.
    #[must_use]
    pub fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }

    /// Rows match only where this is true too; it reads the columns of both sides by their names in the
    /// result, but for the event time. Null counts as false.
    ///
    /// A pair for which it has no value, such as a division by zero, is bad: it is left out, neither of its rows
    /// counts as one that matches none, and its dead letter holds what was read of it, without a position.
    #[must_use]
    pub fn filter(mut self, filter: Expr) -> Self {
        self.pairing.filter = Some(filter);
        self
    }

    /// Sets what is added to the name of a right column where a left one has the same name. The event time
    /// of the right row is then a column too, as `event_time` with the suffix.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.pairing.suffix = Some(suffix.into());
        self
    }

    pub(super) fn plan(
        &self,
        left: &SchemaRef,
        right: &SchemaRef,
        wanted: Option<&[String]>,
    ) -> Result<IntervalJoinAt> {
        check_pairs(self.pairing.kind, "an interval join")?;
        Ok(IntervalJoinAt {
            spec: self.clone(),
            layout: Arc::new(TimeLayout::new(&self.pairing, left, right, wanted, &[])?),
        })
    }
}

/// In milliseconds, and no more than event times can be apart.
fn in_ms(time: Duration) -> i64 {
    let most = crate::event_time::MAX_TIME - crate::event_time::MIN_TIME;
    i64::try_from(time.as_millis()).unwrap_or(most).min(most)
}

impl Collection {
    /// The pairs of these rows and those of `right` whose event times are near each other; see
    /// [`IntervalJoin`] for which are.
    ///
    /// Columns are the left ones, then the right ones as in a [`Join`](crate::ops::Join), then `event_time`: the
    /// later of both rows'. A pair leaves as soon as both rows are there. A row that matches none leaves, where the
    /// kind keeps it, when the watermark shows that no partner can come, with its own event time; the watermark
    /// behind the join is held back by as much.
    ///
    /// **Late.** A left row that comes behind the watermark goes to the port `late`, a right one to `late_right`.
    ///
    /// **State.** A left row is kept until the watermark is `after` past it, a right row until it is
    /// `before` past it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainstem_engine::ops::{IntervalJoin, JoinKind};
    /// # use mainstem_engine::{Collection, col};
    /// # fn paid(orders: Collection, payments: Collection) -> Collection {
    /// let join = IntervalJoin::new(JoinKind::Left, [(col("order"), col("of_order"))])
    ///     .after(Duration::from_secs(30 * 60));
    /// orders.join_interval(&payments, join)
    /// # }
    /// ```
    #[must_use]
    pub fn join_interval(&self, right: &Collection, join: IntervalJoin) -> Collection {
        let name = self.next_name(KIND);
        let pairing = join.pairing.clone();
        pairing.applied(self, right, name, |pairing| IntervalJoin {
            pairing,
            ..join
        })
    }
}

const KIND: &str = "interval_join";

impl Transform for IntervalJoin {
    fn describe(&self) -> Description {
        let ms = |time| Value::from(in_ms(time));
        let mut config = json!({
            "kind": self.pairing.kind.name(),
            "on": self.pairing.shown(),
            "before_ms": ms(self.before),
            "after_ms": ms(self.after),
        });
        if let Some(filter) = &self.pairing.filter {
            config["filter"] = filter.to_string().into();
        }
        if let Some(suffix) = &self.pairing.suffix {
            config["suffix"] = suffix.as_str().into();
        }
        Description::new(KIND, config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let planned = self.plan(&inputs[0], &inputs[1], None)?;
        Ok(SchemaRef::clone(&planned.layout.schema))
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        late_schema(port, inputs)
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Err(Error::bug(
            "an interval join runs as the node that the planner makes of it",
        ))
    }

    fn properties(&self) -> Properties {
        self.pairing.properties()
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        self.pairing.reads(wanted, [])
    }

    /// Late rows leave as they came.
    fn reads_for_port(&self, _late: usize, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }

    fn keeps(&self) -> Option<String> {
        Some("rows until the watermark is past the interval in which they match".into())
    }

    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        let [left, right] = place.inputs() else {
            return Err(Error::bug("an interval join has two inputs"));
        };
        Ok(Some(Lowered::to(
            self.plan(left, right, place.wanted())?,
            2,
        )))
    }
}

/// An interval join that knows its columns.
#[derive(Clone, Debug)]
pub(super) struct IntervalJoinAt {
    spec: IntervalJoin,
    pub(super) layout: Arc<TimeLayout>,
}

impl Transform for IntervalJoinAt {
    fn describe(&self) -> Description {
        self.spec.describe()
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        self.layout.check_inputs(inputs)
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        late_schema(port, inputs)
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(IntervalOperator::new(
            Arc::clone(&self.layout),
            in_ms(self.spec.before),
            in_ms(self.spec.after),
        )?))
    }

    fn properties(&self) -> Properties {
        self.spec.properties()
    }

    fn keeps(&self) -> Option<String> {
        self.spec.keeps()
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        Some(self.layout.reads(wanted))
    }

    /// Late rows leave as they came.
    fn reads_for_port(&self, _late: usize, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }
}

#[cfg(test)]
mod tests;
