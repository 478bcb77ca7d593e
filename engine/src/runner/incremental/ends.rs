//! Where updates become rows again, and the relation learns what has left.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Int8Array, PrimitiveArray};
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use differential_dataflow::VecCollection;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;

use super::codec::RowCodec;
use super::kept::Kept;
use super::row::RowBytes;
use super::sizes::Sizes;
use super::steps::Context;
use crate::batch::{BATCH_ROWS, Batch};
use crate::error::Result;
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::incremental::{Compiled, Kind};
use crate::runner::container::{Rows, RowsBuilder};
use crate::runner::credit::Credit;
use crate::runner::failure::guard;
use crate::runner::time::LogicalTime;

/// A change of a row: by how much it is there more often from a time on.
pub(super) type Update = (RowBytes, LogicalTime, isize);

/// What the end of a relation needs besides its rows.
pub(super) struct End {
    /// The least checkpoint of what leaves.
    pub(super) first_checkpoint: u64,
    pub(super) kept: Kept,
    pub(super) sizes: Sizes,
    /// What rows that leave may fill before more are made.
    pub(super) lots: Arc<Credit>,
}

/// Updates as rows with when and by how much, none of which cancel each other.
///
/// What follows from what had been let in before a restart has left before it, and does not leave again. Updates
/// wait as such until those behind have taken away enough of what they have been given.
pub(super) fn to_rows<'s>(
    made: VecCollection<'s, LogicalTime, RowBytes, isize>,
    compiled: &Arc<Compiled>,
    context: &Context<'s, LogicalTime>,
    mut end: End,
) -> Stream<'s, LogicalTime, Rows> {
    let compiled = Arc::clone(compiled);
    let context = context.clone();
    let codec = RowCodec::of(&compiled.steps[compiled.last].schema);
    let name = format!("{} out", context.id);
    // What a reduction gives is consolidated already.
    let made = match compiled.steps[compiled.last].kind {
        Kind::Aggregate { .. } | Kind::Distinct { .. } => made.inner,
        _ => made.consolidate().inner,
    };
    let scope = made.scope();
    made.unary_frontier::<RowsBuilder, _, _, _>(Pipeline, &name, move |_, info| {
        let waker = scope.worker().sync_activator_for(info.address.to_vec());
        end.lots.set_waker(move || {
            let _ = waker.activate();
        });
        let mut waiting: VecDeque<(CapabilitySet<LogicalTime>, Vec<Update>)> = VecDeque::new();
        move |(input, frontier), output| {
            input.for_each(|capability, updates: &mut Vec<Update>| {
                let mut updates = std::mem::take(updates);
                updates.retain(|(_, time, _)| time.checkpoint >= end.first_checkpoint);
                waiting.push_back((capability.retain_stamp(0), updates));
            });
            while !context.failure.has_failed()
                && end.lots.is_ready()
                && let Some((capability, mut updates)) = waiting.pop_front()
            {
                // Updates come a few at a time, and rows are worth most in large batches.
                while updates.len() < BATCH_ROWS
                    && let Some((_, more)) = waiting.pop_front_if(|(next, _)| **next == *capability)
                {
                    updates.extend(more);
                }
                let turn = guard(&context.id, || {
                    let codec = codec.as_ref().map_err(Clone::clone)?;
                    rows(codec, &compiled, &updates)
                });
                match turn {
                    Ok(batches) => {
                        let mut session = output.session(&capability);
                        for rows in batches {
                            context.metrics.gave_out(rows.num_rows());
                            let batch = Batch::new(rows).inexact().holding(&end.lots);
                            session.give_container(&mut Rows(Some(batch)));
                        }
                    }
                    Err(error) => context.failure.set(error),
                }
            }
            if context.failure.has_failed() {
                waiting.clear();
            }
            if waiting.is_empty() {
                let now = LogicalTime::of_frontiers(std::slice::from_ref(frontier));
                end.kept.passed(now);
            }
            end.sizes.flush();
        }
    })
}

fn rows(codec: &RowCodec, compiled: &Compiled, updates: &[Update]) -> Result<Vec<RecordBatch>> {
    let all = updates.iter().flat_map(|(row, time, diff)| {
        let one = (
            row,
            time.watermark.clamp(MIN_TIME, MAX_TIME),
            if *diff < 0 { -1 } else { 1 },
        );
        std::iter::repeat_n(one, diff.unsigned_abs())
    });
    let mut all: Vec<(&RowBytes, i64, i8)> = all.collect();
    // By time, and what is taken back first.
    all.sort_by_key(|(_, time, diff)| (*time, *diff));
    let mut batches = Vec::new();
    for part in all.chunks(BATCH_ROWS) {
        let mut columns = codec.decode(part.iter().map(|(row, ..)| *row))?;
        if compiled.has_time {
            let times = part.iter().map(|(_, time, _)| Some(*time));
            columns.push(Arc::new(
                times.collect::<PrimitiveArray<TimestampMillisecondType>>(),
            ));
        }
        columns.push(Arc::new(Int8Array::from_iter_values(
            part.iter().map(|(.., diff)| *diff),
        )));
        let options = RecordBatchOptions::new().with_row_count(Some(part.len()));
        let schema = Arc::clone(&compiled.output);
        batches.push(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?);
    }
    Ok(batches)
}
