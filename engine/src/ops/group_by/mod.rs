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
mod exact_sum;
mod finish;
mod partial;
mod planned;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;

pub(in crate::ops) use cell::{AggregateCell, CellPlan};
pub use finish::FinalAggregate;
pub use partial::PartialAggregate;

use self::planned::Planned;
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
    /// An output may be computed from aggregates and keys, as `sum(col("a")) / sum(col("b"))`. The order
    /// of the rows is not promised. On an error in an argument of an aggregate the run ends.
    #[must_use]
    pub fn agg(&self, aggregates: impl IntoIterator<Item = Expr>) -> Collection {
        let grouping = Arc::new(Grouping {
            keys: self.keys.clone(),
            outputs: aggregates.into_iter().collect(),
            planned: Mutex::new(None),
        });
        let kind = if self.keys.is_empty() {
            "agg"
        } else {
            "group_by"
        };
        let name = self.rows.next_name(kind);
        self.rows
            .named(format!("{name}/partial"))
            .apply(PartialAggregate::new(&grouping))
            .named(name)
            .apply(FinalAggregate::new(&grouping))
    }

    pub(crate) fn rows(&self) -> &Collection {
        &self.rows
    }

    pub(crate) fn keys(&self) -> &[Expr] {
        &self.keys
    }
}

/// What both halves of an aggregation share.
#[derive(Debug)]
pub(super) struct Grouping {
    keys: Vec<Expr>,
    outputs: Vec<Expr>,
    /// What the schema of the rows makes of them. The first half is checked first, and the second needs
    /// the types of arguments, which states do not tell.
    planned: Mutex<Option<Arc<Planned>>>,
}

impl Grouping {
    fn plan(&self, schema: &SchemaRef) -> Result<Arc<Planned>> {
        let planned = Arc::new(Planned::new(&self.keys, &self.outputs, schema)?);
        let mut slot = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::clone(&planned));
        Ok(planned)
    }

    fn planned(&self) -> Result<Arc<Planned>> {
        let slot = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
            .ok_or_else(|| Error::bug("a final aggregation was checked before its partial one"))
    }
}
