//! Aggregates what it can before rows are dealt to workers.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_expr::{Expr, GroupsAccumulator};
use serde_json::json;

use super::changing::PrepareOperator;
use super::planned::{Planned, name_of};
use super::table::{GroupTable, converters, states_of_rows};
use super::{Grouping, Plans};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::Result;
use crate::expression::with_columns_of;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform, Watermark};

/// A table with more groups than this is sent on, so that it fits the caches and the memory stays bounded.
const MAX_GROUPS: usize = 1 << 17;
/// A table of more bytes than this is sent on, whatever the number of its groups.
const MAX_BYTES: usize = 64 << 20;
/// After so many rows it is known whether aggregating pays.
const PROBE_ROWS: usize = 1 << 16;
/// It does not if there are more groups than this for 100 rows.
const MAX_GROUPS_PER_100_ROWS: usize = 75;
/// How many rows pass by before it is tried again.
const ROWS_BETWEEN_PROBES: usize = 1 << 22;

/// The first half of an aggregation: rows to keys and states, with far fewer rows where keys repeat.
///
/// What it sends on for a key is one state or many; the final aggregation merges them.
#[derive(Clone, Debug)]
pub struct PartialAggregate {
    grouping: Arc<Grouping>,
}

impl PartialAggregate {
    pub(super) fn new(grouping: &Arc<Grouping>) -> Self {
        Self {
            grouping: Arc::clone(grouping),
        }
    }
}

impl Transform for PartialAggregate {
    fn describe(&self) -> Description {
        let keys: Vec<String> = self.grouping.keys.iter().map(ToString::to_string).collect();
        Description::new("partial_aggregate", json!({ "keys": keys }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let plans = self.grouping.plan(&inputs[0])?;
        Ok(Arc::clone(plans.travelling()))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        if let Plans::Changes(_) = self.grouping.plans()? {
            return Ok(Box::new(PrepareOperator::new(&self.grouping)));
        }
        Ok(Box::new(PartialOperator {
            grouping: Arc::clone(&self.grouping),
            open: None,
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            on_changelog: OnChangelog::Understand,
            ..Properties::default()
        }
    }

    fn takes_encoded(&self) -> Vec<String> {
        match self.plain_keys() {
            keys if self.grouping.keys.len() == 1 => keys,
            // Several keys are compared as rows of bytes, which are made of plain text.
            _ => Vec::new(),
        }
    }

    fn reads(&self, _wanted: Option<&[String]>) -> Option<Vec<String>> {
        let Grouping { keys, outputs, .. } = &*self.grouping;
        // Of the outputs only what stands inside of aggregates is a column of the input.
        let columns = with_columns_of(Some(&[]), keys.iter().chain(outputs))?;
        let planned = self.grouping.planned().ok();
        Some(match planned {
            Some(planned) => columns
                .into_iter()
                .filter(|c| planned.input.index_of(c).is_ok())
                .collect(),
            None => columns,
        })
    }
}

impl PartialAggregate {
    /// The columns that are keys and stand in no other expression.
    fn plain_keys(&self) -> Vec<String> {
        let Grouping { keys, outputs, .. } = &*self.grouping;
        let is_read = |name: &str| {
            let computed = keys.iter().filter(|k| !matches!(k, Expr::Column(_)));
            let mut read = computed.chain(outputs);
            read.any(|e| e.column_refs().iter().any(|c| c.name == name))
        };
        let names = keys.iter().filter_map(|key| match key {
            Expr::Column(column) => Some(column.name.clone()),
            _ => None,
        });
        names.filter(|name| !is_read(name)).collect()
    }
}

struct PartialOperator {
    grouping: Arc<Grouping>,
    open: Option<Open>,
}

/// What is there once the schema of the rows is known.
struct Open {
    planned: Arc<Planned>,
    table: GroupTable,
    /// Rows in the table since it was last empty.
    n_rows: usize,
    /// Rows still to pass by before the table is tried again.
    n_passing: usize,
    converters: Vec<Box<dyn GroupsAccumulator>>,
    may_pass: bool,
}

impl Open {
    fn new(planned: Arc<Planned>) -> Result<Self> {
        Ok(Self {
            table: GroupTable::new(&planned)?,
            n_rows: 0,
            n_passing: 0,
            converters: converters(&planned)?,
            may_pass: !planned.key_fields.is_empty()
                && planned.aggregates.iter().all(|a| a.kind.converts_rows()),
            planned,
        })
    }

    fn on_batch(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, inputs) = self.planned.evaluate_good(batch, out)?;
        if self.n_passing > 0 {
            self.n_passing = self.n_passing.saturating_sub(batch.n_rows());
            let rows = states_of_rows(&self.planned, &self.converters, inputs)?;
            out.push(batch.derive(rows));
            return Ok(());
        }
        self.table.update(&inputs, batch.n_rows())?;
        let before = self.n_rows;
        self.n_rows += batch.n_rows();
        let n_groups = self.table.n_groups();
        let is_full = n_groups >= MAX_GROUPS || self.table.n_bytes() >= MAX_BYTES;
        let is_probed = before < PROBE_ROWS && self.n_rows >= PROBE_ROWS;
        let pays =
            n_groups.saturating_mul(100) <= self.n_rows.saturating_mul(MAX_GROUPS_PER_100_ROWS);
        if is_full || (is_probed && !pays) {
            if self.may_pass && !pays {
                self.n_passing = ROWS_BETWEEN_PROBES;
            }
            for rows in self.take()? {
                out.push(batch.derive(rows));
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<RecordBatch>> {
        self.n_rows = 0;
        self.table.take_states()
    }
}

impl PartialOperator {
    fn open(&mut self, schema: &SchemaRef) -> Result<&mut Open> {
        // The columns that arrive may be fewer than those that were checked.
        let plan =
            || Planned::new(&self.grouping.keys, &self.grouping.outputs, schema).map(Arc::new);
        match &mut self.open {
            Some(open) => {
                if open.planned.input != *schema {
                    open.planned = plan()?;
                }
                Ok(open)
            }
            slot => Ok(slot.insert(Open::new(plan()?)?)),
        }
    }
}

impl Operator for PartialOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.open(&batch.rows().schema())?.on_batch(batch, out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        if !watermark.is_end() {
            return Ok(());
        }
        if self.open.is_none() && self.grouping.keys.is_empty() {
            // The state over no rows: an `agg` gives a row for it.
            self.open = Some(Open::new(self.grouping.planned()?)?);
        }
        if let Some(open) = &mut self.open
            && (open.n_rows > 0 || self.grouping.keys.is_empty())
        {
            for rows in open.take()? {
                out.push(Batch::new(rows).inexact());
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |o| o.table.n_bytes() as u64)
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let Some(open) = &mut self.open else {
            return Ok(Vec::new());
        };
        let states = open.table.take_states()?;
        for rows in &states {
            open.table.merge(rows)?;
        }
        let keys: Vec<String> = self.grouping.keys.iter().map(name_of).collect();
        let mut parts = Vec::new();
        for rows in &states {
            parts.extend(StatePart::by_key("groups", rows, &keys)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        if state.is_empty() {
            return Ok(());
        }
        let mut open = Open::new(self.grouping.planned()?)?;
        for StatePart { rows, .. } in state {
            open.table.merge(rows)?;
            open.n_rows += rows.num_rows();
        }
        self.open = Some(open);
        Ok(())
    }
}
