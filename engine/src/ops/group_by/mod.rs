//! Aggregates rows by key, or all of them.
//!
//! ```text
//! rows ──▶ group_by/partial ──▶ by key ──▶ group_by ──▶ one row a group
//!           on every worker      exchange   on the worker of the key
//! ```
//!
//! The first half makes keys and states of the rows that are where they are, so that few travel and a
//! frequent key keeps no worker busier than others. Where keys hardly repeat it passes rows on.

mod accumulators;
mod cell;
mod changing;
#[cfg(test)]
mod decimal_tests;
mod exact_sum;
mod finish;
mod first_rows;
mod float_ends;
#[cfg(test)]
mod float_ends_tests;
mod partial;
mod planned;
mod table;
#[cfg(test)]
mod tests;
mod windowed;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion_expr::{Expr, SortExpr};

pub(in crate::ops) use cell::{AggregateCell, CellPlan};
pub(crate) use changing::{Aggregation, End, Retraction};
pub use finish::FinalAggregate;
pub use partial::PartialAggregate;
pub use windowed::{WindowedFinalAggregate, WindowedPartialAggregate};

use self::changing::ChangingPlan;
use self::planned::Planned;
use self::windowed::{Asked, WindowedGrouping};
use crate::changelog::is_changelog;
use crate::error::{Error, Result};
use crate::pipeline::Collection;

/// Rows grouped by keys, before it is said what becomes of each group.
#[derive(Clone, Debug)]
#[must_use = "say what becomes of each group with `agg`"]
pub struct GroupedRows {
    rows: Collection,
    keys: Vec<Expr>,
}

impl Collection {
    /// The rows by the values of `keys`, which are expressions: `group_by([col("origin")])`.
    ///
    /// Null is a key like any other, -0.0 and 0.0 are one key, as are all NaN (but for floats inside of maps
    /// and unions, which are compared by their bits). Keys may be of any type, and of several columns.
    /// Dictionaries are compared by their values, and leave as plain values.
    pub fn group_by(&self, keys: impl IntoIterator<Item = Expr>) -> GroupedRows {
        GroupedRows {
            rows: self.clone(),
            keys: keys.into_iter().collect(),
        }
    }

    /// One row with the [aggregates](crate::aggregates) of all rows, also where there are none.
    ///
    /// ```
    /// use mainstem_engine::aggregates::{avg, sum};
    /// use mainstem_engine::connectors::{collect, from_record_batches};
    /// use mainstem_engine::testing::{show, table};
    /// use mainstem_engine::{Pipeline, RunOptions, col};
    ///
    /// let pipeline = Pipeline::new("means");
    /// let rows = pipeline.read("rows", from_record_batches(vec![table("x: 1, 2, 6")]));
    /// let (sink, means) = collect();
    /// rows.agg([avg(col("x")).alias("mean"), sum(col("x")).alias("sum")]).write(sink);
    /// pipeline.run(&RunOptions::default())?;
    /// assert_eq!(show(&means.take()[0]), "mean: 3.0\nsum: 9");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn agg(&self, aggregates: impl IntoIterator<Item = Expr>) -> Collection {
        self.group_by([]).agg(aggregates)
    }
}

impl GroupedRows {
    /// One row for each group: the keys, then the [aggregates](crate::aggregates).
    ///
    /// Where the rows have [windows](Collection::window), one for each group and window whenever the window
    /// fires. After the aggregates come `window_start` and `window_end`, the `event_time` of the result,
    /// `pane` where a window may fire more than once, and `diff` where results are taken back. Rows that are
    /// too late for their windows are left out and counted; see [`GroupedRows::agg_with_late`].
    ///
    /// Of a [changelog](crate::changelog) it makes another, with `diff`. Without windows a group changes at the
    /// instants at which its rows do. In windows a change counts in the windows of its
    /// own event time, so one that takes a row back must have the event time of that row; all changes of a window
    /// take effect together when the watermark passes its end, as one row a group, and a late one takes back what
    /// has left and gives the right row, if there is one. That needs
    /// [`AccumulatingAndRetracting`](crate::windowing::Accumulation::AccumulatingAndRetracting); a trigger may
    /// besides ask for results with every change, before the end as well. A row may be taken back before it is added,
    /// and the change that adds it may come too late for its window; one that has not been added by the end of input
    /// ends the run.
    ///
    /// Where windows merge, as [`Sessions`](crate::windowing::Sessions) do, they are those of the rows that are there: a
    /// late change takes back at once what has left of the sessions that it brings together or parts. What has come to
    /// be over by a change closes with the next watermark, and leaves with that as well where no lateness is allowed.
    ///
    /// An output may be computed from aggregates and keys, as `sum(col("a")) / sum(col("b"))`. The order
    /// of the rows is not promised. A row on which a key or an argument of an aggregate fails, such as a cast
    /// that overflows, is a bad row of the node `NAME/partial`, for which
    /// [`on_bad_row`](Collection::on_bad_row) and [`dead_letters`](Collection::dead_letters) of the result
    /// speak; in windows too, unless the row is late for all of them. Where an aggregate itself fails, such as a
    /// sum that overflows, the run ends.
    #[must_use]
    pub fn agg(&self, aggregates: impl IntoIterator<Item = Expr>) -> Collection {
        let outputs: Vec<Expr> = aggregates.into_iter().collect();
        let name = self.rows.next_name(self.kind());
        if !self.rows.windowing().is_default() {
            return self.agg_in_windows(&name, outputs).0;
        }
        let grouping = Arc::new(Grouping {
            keys: self.keys.clone(),
            outputs,
            groups_alone: false,
            planned: Mutex::new(None),
        });
        let partial = self.rows.named(format!("{name}/partial"));
        let partial = partial.apply(PartialAggregate::new(&grouping));
        partial
            .named(name)
            .apply(FinalAggregate::new(&grouping))
            .rejecting_at(&partial)
    }

    /// As [`GroupedRows::agg`], and the rows that came too late for all of their windows, as they came in.
    ///
    /// A row is too late for a window once the watermark has passed its end by more than the allowed
    /// lateness. In the global window with the default trigger there are none.
    ///
    /// A row that is in time where it is read, and whose window takes no more on the worker of its key, is counted
    /// as late there, and is not among these rows: where a trigger has finished the window before it is over, or
    /// where its session has become a part of one that was finished.
    #[must_use]
    pub fn agg_with_late(
        &self,
        aggregates: impl IntoIterator<Item = Expr>,
    ) -> (Collection, Collection) {
        let name = self.rows.next_name(self.kind());
        self.agg_in_windows(&name, aggregates.into_iter().collect())
    }

    fn kind(&self) -> &'static str {
        match self.keys.is_empty() {
            true => "agg",
            false => "group_by",
        }
    }

    /// The results, and the rows that were too late.
    fn agg_in_windows(&self, name: &str, outputs: Vec<Expr>) -> (Collection, Collection) {
        let keys = self.keys.clone();
        in_windows(&self.rows, name, Asked::Aggregates { keys, outputs })
    }

    pub(crate) fn rows(&self) -> &Collection {
        &self.rows
    }

    pub(crate) fn keys(&self) -> &[Expr] {
        &self.keys
    }
}

/// What is asked of rows in their windows, and the rows that were too late.
fn in_windows(rows: &Collection, name: &str, asked: Asked) -> (Collection, Collection) {
    let windowing = rows.windowing();
    let grouping = Arc::new(WindowedGrouping::new(asked, windowing));
    let partial = rows.named(format!("{name}/partial"));
    let partial = partial.apply(WindowedPartialAggregate::new(&grouping));
    let results = partial
        .named(name)
        .apply(WindowedFinalAggregate::new(&grouping))
        .window(windowing.continuation())
        .rejecting_at(&partial);
    (results, partial.port("late"))
}

/// The rows that are distinct within their window, and those that were too late.
pub(in crate::ops) fn distinct_in_windows(
    rows: &Collection,
    name: &str,
) -> (Collection, Collection) {
    in_windows(rows, name, Asked::Distinct)
}

/// The rows that come first of each group in its window, and those that were too late for theirs.
///
/// `kind` is what the nodes are called, and what errors speak of.
pub(in crate::ops) fn first_in_windows(
    rows: &Collection,
    kind: &'static str,
    n_rows: usize,
    keys: Vec<Expr>,
    order: Vec<SortExpr>,
) -> (Collection, Collection) {
    let asked = Asked::First {
        kind,
        n_rows,
        keys,
        order,
    };
    in_windows(rows, &rows.next_name(kind), asked)
}

/// Both halves of an aggregation of changes that tells which groups there are, and no more.
pub(in crate::ops) fn groups_alone(keys: Vec<Expr>) -> (PartialAggregate, FinalAggregate) {
    let grouping = Arc::new(Grouping {
        keys,
        outputs: Vec::new(),
        groups_alone: true,
        planned: Mutex::new(None),
    });
    (
        PartialAggregate::new(&grouping),
        FinalAggregate::new(&grouping),
    )
}

/// What both halves of an aggregation share.
#[derive(Debug)]
pub(super) struct Grouping {
    keys: Vec<Expr>,
    outputs: Vec<Expr>,
    /// Which groups there are is all that is asked.
    groups_alone: bool,
    /// What the schema of the rows makes of them. The first half is checked first, and the second needs
    /// the types of arguments, which states do not tell.
    planned: Mutex<Option<Plans>>,
}

/// The plan for the rows that come.
#[derive(Clone, Debug)]
enum Plans {
    /// Rows that stay: each group leaves once, at the end.
    Rows(Arc<Planned>),
    /// Changes: each group leaves whenever it changes, as changes.
    Changes(Arc<ChangingPlan>),
}

impl Plans {
    /// The columns that travel from the first half to the second.
    fn travelling(&self) -> &SchemaRef {
        match self {
            Self::Rows(planned) => &planned.states,
            Self::Changes(plan) => &plan.prepared,
        }
    }

    /// The columns that leave.
    fn output(&self) -> &SchemaRef {
        match self {
            Self::Rows(planned) => &planned.output,
            Self::Changes(plan) => &plan.output,
        }
    }
}

impl Grouping {
    fn plan(&self, schema: &SchemaRef) -> Result<Plans> {
        let plans = match is_changelog(schema) {
            true => Plans::Changes(Arc::new(ChangingPlan::new(self, schema)?)),
            false => Plans::Rows(Arc::new(Planned::new(&self.keys, &self.outputs, schema)?)),
        };
        let mut slot = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(plans.clone());
        Ok(plans)
    }

    fn plans(&self) -> Result<Plans> {
        let slot = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
            .ok_or_else(|| Error::bug("a final aggregation was checked before its partial one"))
    }

    /// The plan for rows that stay.
    fn planned(&self) -> Result<Arc<Planned>> {
        match self.plans()? {
            Plans::Rows(planned) => Ok(planned),
            Plans::Changes(_) => Err(Error::bug("changes came to an aggregation of rows")),
        }
    }
}
