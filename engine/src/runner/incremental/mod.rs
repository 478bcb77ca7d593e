//! Relations on differential dataflow: the only folder that names it.
//!
//! ```text
//! rows ─▶ to row bytes ─▶ wait ─▶ (row, time, diff) ─▶ select, filter, arrange, join, reduce, loops ─▶ consolidate ─▶ rows
//!                                  the time is timely's own: its watermark is the event time of the change
//! ```
//!
//! The operators stand in the same dataflow as all others. A change with event time `t` is an update at the
//! logical time whose watermark is `t`, so that timely's frontier, which is the watermark, tells differential
//! operators when an instant is complete: over all sources, workers and loops. Changes wait before them until the
//! watermark of all inputs has passed: what differential operators hold are whole instants.
//!
//! State is that of the inputs (see [`kept`]). Rows on which an expression fails go their own way (see [`bad_rows`]).

#[cfg(test)]
mod bad_row_tests;
mod bad_rows;
mod codec;
mod ends;
#[cfg(test)]
mod entering_tests;
mod gate;
mod join;
mod kept;
mod loops;
mod missing;
#[cfg(test)]
mod nested_tests;
mod reduce;
mod render;
#[cfg(test)]
mod restart_tests;
mod row;
mod seen;
mod simulated;
mod sizes;
#[cfg(test)]
mod sound_tests;
mod steps;
#[cfg(test)]
mod tests;
mod waiting;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::lattice::Lattice;
use timely::dataflow::{Scope, Stream};

use self::bad_rows::{Gathered, RowKinds, Telling, tell};
use self::ends::End;
use self::gate::Gate;
use self::kept::{Kept, RelationState};
pub(crate) use self::simulated::{Left, SimulatedRelation};
use self::sizes::Sizes;
use super::chain::Exit;
use super::container::Rows;
use super::credit::Credit;
use super::failure::Failure;
use super::memory::Account;
use super::metrics::NodeMetrics;
use super::time::LogicalTime;
use crate::error::{Error, Result};
use crate::graph::Port;
use crate::incremental::Compiled;
use crate::output::OnBadRow;
use crate::state::StatePart;

/// What an update in an index takes besides the bytes of a row, about: its key, when, by how much, and where each
/// is found.
const UPDATE_BYTES: u64 = 64;

/// A relation that is kept up to date on one worker.
pub(crate) struct RelationPart {
    pub(crate) id: Arc<str>,
    pub(crate) inputs: Vec<Exit>,
    /// Where its changes leave.
    pub(crate) exit: Exit,
    /// What becomes of rows on which an expression fails.
    pub(crate) policy: OnBadRow,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) metrics: Arc<NodeMetrics>,
    /// What waits for the watermark, and what its indices hold.
    pub(crate) accounts: [Account; 2],
    /// What rows that leave it may fill before more are made.
    pub(crate) lots: Arc<Credit>,
    /// Its state will be asked for.
    pub(crate) is_saved: bool,
    /// The state to go on from; empty for none.
    pub(crate) restored: Vec<StatePart>,
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

/// Adds the operators of a relation to the worker's dataflow; its state, unless it cannot be built.
pub(crate) fn build_relation<'s>(
    scope: Scope<'s, LogicalTime>,
    part: RelationPart,
    failure: &Arc<Failure>,
    streams: &mut BTreeMap<Exit, Stream<'s, LogicalTime, Rows>>,
) -> Option<RelationState> {
    let id = Arc::clone(&part.id);
    match build(scope, part, failure, streams) {
        Ok(state) => Some(state),
        Err(error) => {
            failure.set(error.at_node(&id));
            None
        }
    }
}

fn build<'s>(
    scope: Scope<'s, LogicalTime>,
    part: RelationPart,
    failure: &Arc<Failure>,
    streams: &mut BTreeMap<Exit, Stream<'s, LogicalTime, Rows>>,
) -> Result<RelationState> {
    let context = steps::Context {
        id: Arc::clone(&part.id),
        failure: Arc::clone(failure),
        metrics: Arc::clone(&part.metrics),
        kinds: RowKinds::default(),
        bad_rows: Gathered::default(),
    };
    let rows = part.inputs.iter().map(|exit| streams.get(exit).cloned());
    let rows: Option<Vec<_>> = rows.collect();
    let rows = rows.ok_or_else(|| Error::bug("an input of a relation is not there"))?;
    let schemas = (0..rows.len()).map(|n| part.compiled.input_schema(n));
    let mut gate = Gate::new(schemas.collect())?;
    kept::restore(&mut gate, &part.restored)?;
    let first_checkpoint = gate.first_checkpoint();
    let of_row = gate.row_bytes.mean();
    let gate = Rc::new(RefCell::new(gate));
    let [of_waiting, mut of_indices] = part.accounts;
    let (id, failed) = (Arc::clone(&part.id), Arc::clone(failure));
    let sizes = Sizes::tell(scope, move |n_updates| {
        let held = of_indices.holds(n_updates * (of_row.get() + UPDATE_BYTES));
        if let Err(error) = held {
            failed.set(error.at_node(&id));
        }
    });
    let inputs = gate::build_gate(scope, rows, &gate, &context, of_waiting);
    let (made, indices) = render::render(scope, &part.compiled, &inputs, part.is_saved, &context)?;
    let telling = Telling {
        policy: part.policy,
        first_checkpoint,
        has_time: part.compiled.has_time,
        lots: Arc::clone(&part.lots),
    };
    let told = tell(scope, context.bad_rows.take(), telling, &context)?;
    streams.insert((part.exit.0, Port::DeadLetters), told.letters);
    // What has left tells how far bad rows have been told of, too.
    let made = match told.so_far {
        Some(so_far) => made.concat(so_far),
        None => made,
    };
    let kept = Kept::new(indices);
    let end = End {
        first_checkpoint,
        kept: kept.clone(),
        sizes,
        lots: part.lots,
    };
    let rows = ends::to_rows(made, &part.compiled, &context, end);
    streams.insert(part.exit, rows);
    Ok(RelationState { gate, kept })
}
