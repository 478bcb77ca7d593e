//! Keys and arguments of changes, on their way to the worker of their key.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::plan::ChangingPlan;
use crate::batch::Batch;
use crate::error::Result;
use crate::ops::group_by::Grouping;
use crate::output::Output;
use crate::transform::Operator;

/// The first half of an aggregation of changes: keeps nothing.
pub(in crate::ops::group_by) struct PrepareOperator {
    grouping: Arc<Grouping>,
    /// For the columns that come, which may be fewer than those that were checked.
    plan: Option<(SchemaRef, ChangingPlan)>,
}

impl PrepareOperator {
    pub(in crate::ops::group_by) fn new(grouping: &Arc<Grouping>) -> Self {
        Self {
            grouping: Arc::clone(grouping),
            plan: None,
        }
    }
}

impl Operator for PrepareOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let schema = batch.rows().schema();
        if self.plan.as_ref().is_none_or(|(known, _)| *known != schema) {
            let plan = ChangingPlan::new(&self.grouping, &schema)?;
            self.plan = Some((schema, plan));
        }
        if let Some((_, plan)) = &self.plan {
            let prepared = plan.prepare(batch, out)?;
            out.push(prepared);
        }
        Ok(())
    }
}
