//! Relations on differential dataflow: the only folder that names it.
//!
//! ```text
//! rows ─▶ to row bytes ─▶ (row, time, diff) ─▶ select, filter, arrange, join, reduce, loops ─▶ consolidate ─▶ rows
//!                          the time is timely's own: its watermark is the event time of the change
//! ```
//!
//! The operators stand in the same dataflow as all others. A change with event time `t` is an update at the
//! logical time whose watermark is `t`, so that timely's frontier, which is the watermark, tells differential
//! operators when an instant is complete: over all sources, workers and loops.

mod codec;
mod ends;
mod join;
mod reduce;
mod render;
mod row;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use differential_dataflow::lattice::Lattice;
use timely::dataflow::{Scope, Stream};

use super::chain::Exit;
use super::container::Rows;
use super::dataflow::Shared;
use super::memory::Account;
use super::metrics::NodeMetrics;
use super::time::LogicalTime;
use crate::incremental::Compiled;

/// A relation that is kept up to date on one worker.
pub(crate) struct RelationPart {
    pub(crate) id: Arc<str>,
    pub(crate) inputs: Vec<Exit>,
    /// Where its changes leave.
    pub(crate) exit: Exit,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) metrics: Arc<NodeMetrics>,
    /// What each input holds.
    pub(crate) accounts: Vec<Account>,
}

impl Lattice for LogicalTime {
    fn join(&self, other: &Self) -> Self {
        Self {
            checkpoint: self.checkpoint.max(other.checkpoint),
            watermark: self.watermark.max(other.watermark),
        }
    }

    fn meet(&self, other: &Self) -> Self {
        Self {
            checkpoint: self.checkpoint.min(other.checkpoint),
            watermark: self.watermark.min(other.watermark),
        }
    }
}

/// Adds the operators of a relation to the worker's dataflow.
pub(crate) fn build_relation<'s>(
    scope: Scope<'s, LogicalTime>,
    part: RelationPart,
    shared: &Shared,
    streams: &mut BTreeMap<Exit, Stream<'s, LogicalTime, Rows>>,
) {
    let context = steps::Context {
        id: Arc::clone(&part.id),
        failure: Arc::clone(&shared.failure),
        metrics: Arc::clone(&part.metrics),
    };
    let mut inputs = Vec::new();
    for ((n, exit), account) in part.inputs.iter().enumerate().zip(part.accounts) {
        let Some(rows) = streams.get(exit) else {
            continue;
        };
        let schema = part.compiled.input_schema(n);
        inputs.push(ends::to_updates(rows.clone(), &schema, &context, account));
    }
    match render::render(scope, &part.compiled, &inputs, &context) {
        Ok(made) => {
            let rows = ends::to_rows(made, &part.compiled, &context);
            streams.insert(part.exit, rows);
        }
        Err(error) => shared.failure.set(error.at_node(&part.id)),
    }
}
