//! Brings the states of each group together, where equal keys have met on one worker.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::changing::ChangingOperator;
use super::planned::name_of;
use super::table::GroupTable;
use super::{Grouping, Plans};
use crate::artifact::Artifacts;
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{
    Description, Distribution, OnChangelog, Operator, Properties, Transform, Watermark,
};

/// Slices smaller than this are merged before they are taken in.
const SMALL_ROWS: usize = 1 << 10;

/// The second half of an aggregation: states to one row a group.
#[derive(Clone, Debug)]
pub struct FinalAggregate {
    grouping: Arc<Grouping>,
}

impl FinalAggregate {
    pub(super) fn new(grouping: &Arc<Grouping>) -> Self {
        Self {
            grouping: Arc::clone(grouping),
        }
    }
}

impl Transform for FinalAggregate {
    fn describe(&self) -> Description {
        let text = |all: &[datafusion_expr::Expr]| -> Vec<String> {
            all.iter().map(ToString::to_string).collect()
        };
        let Grouping { keys, outputs, .. } = &*self.grouping;
        let kind = match keys.is_empty() {
            _ if self.grouping.groups_alone => "distinct",
            true => "agg",
            false => "group_by",
        };
        Description::new(
            kind,
            json!({ "keys": text(keys), "aggregates": text(outputs) }),
        )
    }

    fn output_schema(&self, _inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(self.grouping.plans()?.output()))
    }

    fn keeps(&self) -> Option<String> {
        match self.grouping.plans() {
            Ok(Plans::Changes(_)) if self.grouping.groups_alone => Some(
                "rows while they are there, and changes until the watermark passes them".into(),
            ),
            Ok(Plans::Changes(_)) => Some(
                "groups while they have rows, and changes until the watermark passes them".into(),
            ),
            _ => None,
        }
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let keys: Vec<String> = self.grouping.keys.iter().map(name_of).collect();
        let planned = match self.grouping.plans()? {
            Plans::Rows(planned) => planned,
            Plans::Changes(plan) => {
                return Ok(Box::new(ChangingOperator::by_instant(&plan, &keys)?));
            }
        };
        Ok(Box::new(FinalOperator {
            table: GroupTable::new(&planned)?,
            n_merged: 0,
            schema: Arc::clone(&planned.states),
            keys,
            small: Vec::new(),
            n_small: 0,
        }))
    }

    fn properties(&self) -> Properties {
        let keys: Vec<String> = self.grouping.keys.iter().map(name_of).collect();
        Properties {
            stateful: true,
            // Changes leave as they take effect. The first half has been checked before.
            waits_for_end: !matches!(self.grouping.plans(), Ok(Plans::Changes(_))),
            on_changelog: OnChangelog::Understand,
            distribution: if keys.is_empty() {
                Distribution::One
            } else {
                Distribution::ByKey(keys)
            },
            ..Properties::default()
        }
    }
}

struct FinalOperator {
    table: GroupTable,
    /// Rows taken in: without one there is no group, also where all rows are one group.
    n_merged: usize,
    schema: SchemaRef,
    keys: Vec<String>,
    /// Slices that wait for others; their credit has gone back, or the source might wait for it.
    small: Vec<RecordBatch>,
    n_small: usize,
}

impl FinalOperator {
    fn take_in_small(&mut self) -> Result<()> {
        if !self.small.is_empty() {
            let rows = concat_batches(&self.schema, &self.small)?;
            self.small.clear();
            self.n_small = 0;
            self.table.merge(&rows)?;
        }
        Ok(())
    }
}

impl Operator for FinalOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, _out: &mut Output) -> Result<()> {
        let rows = batch.rows();
        self.n_merged += rows.num_rows();
        if rows.num_rows() >= SMALL_ROWS {
            return self.table.merge(rows);
        }
        self.n_small += rows.num_rows();
        self.small.push(rows.clone());
        if self.n_small >= BATCH_ROWS {
            self.take_in_small()?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        // Without keys all workers have a group, and the states meet on one of them.
        if watermark.is_end() && self.n_merged > 0 {
            self.take_in_small()?;
            self.table.make_results()?;
            self.resume(out)?;
        }
        Ok(())
    }

    /// Gives the next batch of results, and says whether more follow.
    fn resume(&mut self, out: &mut Output) -> Result<()> {
        if let Some(rows) = self.table.next_results()? {
            out.push(Batch::new(rows).inexact());
            out.more_follows();
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        let small: usize = self
            .small
            .iter()
            .map(RecordBatch::get_array_memory_size)
            .sum();
        (self.table.n_bytes() + small) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        self.take_in_small()?;
        let states = self.table.take_states()?;
        states.iter().try_for_each(|rows| self.table.merge(rows))?;
        let mut parts = Vec::new();
        for rows in &states {
            parts.extend(StatePart::by_key("groups", rows, &self.keys)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        for StatePart { rows, .. } in state {
            self.n_merged += rows.num_rows();
            self.table.merge(rows)?;
        }
        Ok(())
    }
}
