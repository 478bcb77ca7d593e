//! The aggregates of one group that can be read while more rows come.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;

use super::planned::Planned;
use super::table::GroupTable;
use crate::batch::Batch;
use crate::error::{Error, Result};

/// Aggregates that fit a schema.
#[derive(Clone)]
pub(in crate::ops) struct CellPlan(Arc<Planned>);

impl CellPlan {
    /// # Errors
    /// As [`GroupedRows::agg`](super::GroupedRows::agg) reports them.
    pub(in crate::ops) fn new(outputs: &[Expr], rows: &SchemaRef) -> Result<Self> {
        Ok(Self(Arc::new(Planned::new(&[], outputs, rows)?)))
    }

    /// The columns of a state.
    pub(in crate::ops) fn states(&self) -> &SchemaRef {
        &self.0.states
    }
}

/// The aggregates of one group.
pub(in crate::ops) struct AggregateCell {
    plan: CellPlan,
    table: GroupTable,
}

impl AggregateCell {
    pub(in crate::ops) fn new(plan: &CellPlan) -> Result<Self> {
        Ok(Self {
            plan: plan.clone(),
            table: GroupTable::new(&plan.0)?,
        })
    }

    /// Takes in rows. One on which an argument fails ends the run: where it stood is not known here.
    pub(in crate::ops) fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let inputs = self.plan.0.evaluate(&Batch::new(rows.clone()))?;
        self.table.update(&inputs, rows.num_rows())
    }

    /// The state, as one row. Nothing changes by it.
    pub(in crate::ops) fn state(&mut self) -> Result<RecordBatch> {
        let states = self.table.take_states()?;
        let state = concat_batches(self.plan.states(), &states)?;
        self.table.merge(&state)?;
        Ok(state)
    }

    /// The aggregates, as one row. Nothing changes by it.
    pub(in crate::ops) fn read(&mut self) -> Result<RecordBatch> {
        let state = self.state()?;
        let mut table = GroupTable::new(&self.plan.0)?;
        table.merge(&state)?;
        let results = table.take_results()?;
        let result = results.into_iter().next();
        result.ok_or_else(|| Error::bug("the aggregates of a group gave no row"))
    }

    /// Takes in states.
    pub(in crate::ops) fn merge(&mut self, states: &RecordBatch) -> Result<()> {
        self.table.merge(states)
    }

    pub(in crate::ops) fn n_bytes(&self) -> usize {
        self.table.n_bytes()
    }
}
