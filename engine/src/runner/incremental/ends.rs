//! Where rows become updates, and updates rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, PrimitiveArray};
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use differential_dataflow::{AsCollection, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::codec::RowCodec;
use super::row::RowBytes;
use super::steps::Context;
use crate::batch::{BATCH_ROWS, Batch};
use crate::changelog::{diffs, has_time, is_changelog};
use crate::error::Result;
use crate::event_time::{MAX_TIME, MIN_TIME, event_times};
use crate::incremental::Compiled;
use crate::runner::container::{Rows, RowsBuilder};
use crate::runner::failure::guard;
use crate::runner::memory::Account;
use crate::runner::time::LogicalTime;

/// A change of a row: by how much it is there more often from a time on.
type Update = (RowBytes, LogicalTime, isize);

/// What an update takes besides its bytes, about: once where it is sorted by one key, once by another.
const UPDATE_BYTES: i64 = 64;

/// Rows as updates. What comes late takes effect at the watermark under which it was sent.
pub(super) fn to_updates<'s>(
    rows: Stream<'s, LogicalTime, Rows>,
    values: &SchemaRef,
    context: &Context,
    mut account: Account,
) -> VecCollection<'s, LogicalTime, RowBytes, isize> {
    let values = Arc::clone(values);
    let context = context.clone();
    let codec = RowCodec::of(&values);
    let mut held = 0_i64;
    let stream = rows.unary::<CapacityContainerBuilder<Vec<Update>>, _, _, _>(
        Pipeline,
        &format!("{} in", context.id),
        move |_, _| {
            move |input, output| {
                input.for_each(|capability, rows| {
                    let Some(batch) = rows.0.take() else { return };
                    if context.failure.has_failed() || batch.event().is_some() {
                        return;
                    }
                    let sent = LogicalTime::of_stamp(capability.stamp().elements());
                    let turn = guard(&context.id, || {
                        context.metrics.took_in(&batch);
                        let codec = codec.as_ref().map_err(Clone::clone)?;
                        let updates = updates(codec, &values, batch.rows(), sent)?;
                        for (row, _, diff) in &updates {
                            let n_bytes = i64::try_from(row.n_bytes()).unwrap_or(0);
                            held += (n_bytes + UPDATE_BYTES) * i64::try_from(*diff).unwrap_or(0);
                        }
                        account.holds(u64::try_from(held).unwrap_or(0))?;
                        Ok(updates)
                    });
                    match turn {
                        Ok(mut updates) => output.session(&capability).give_container(&mut updates),
                        Err(error) => context.failure.set(error),
                    }
                });
            }
        },
    );
    stream.as_collection()
}

fn updates(
    codec: &RowCodec,
    values: &SchemaRef,
    rows: &RecordBatch,
    sent: LogicalTime,
) -> Result<Vec<Update>> {
    let schema = rows.schema();
    let columns = values
        .fields()
        .iter()
        .map(|f| Ok(Arc::clone(rows.column(schema.index_of(f.name())?))));
    let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
    let bytes = codec.encode(&columns, rows.num_rows())?;
    let times = match has_time(&schema) {
        true => event_times(rows)?,
        false => &[],
    };
    let diffs = match is_changelog(&schema) {
        true => diffs(rows)?,
        false => &[],
    };
    let update = |(n, row): (usize, RowBytes)| {
        let time = times.get(n).copied().unwrap_or(i64::MIN);
        let at = LogicalTime {
            checkpoint: sent.checkpoint,
            watermark: time.max(sent.watermark),
        };
        (row, at, diffs.get(n).map_or(1, |diff| isize::from(*diff)))
    };
    Ok(bytes.into_iter().enumerate().map(update).collect())
}

/// Updates as rows with when and by how much, none of which cancel each other.
pub(super) fn to_rows<'s>(
    made: VecCollection<'s, LogicalTime, RowBytes, isize>,
    compiled: &Arc<Compiled>,
    context: &Context,
) -> Stream<'s, LogicalTime, Rows> {
    let compiled = Arc::clone(compiled);
    let context = context.clone();
    let codec = RowCodec::of(&compiled.steps[compiled.last].schema);
    made.consolidate().inner.unary::<RowsBuilder, _, _, _>(
        Pipeline,
        &format!("{} out", context.id),
        move |_, _| {
            move |input, output| {
                input.for_each(|capability, updates: &mut Vec<Update>| {
                    if context.failure.has_failed() {
                        return;
                    }
                    let turn = guard(&context.id, || {
                        let codec = codec.as_ref().map_err(Clone::clone)?;
                        rows(codec, &compiled, updates)
                    });
                    match turn {
                        Ok(batches) => {
                            let mut session = output.session(&capability);
                            for rows in batches {
                                context.metrics.gave_out(rows.num_rows());
                                let batch = Batch::new(rows).inexact();
                                session.give_container(&mut Rows(Some(batch)));
                            }
                        }
                        Err(error) => context.failure.set(error),
                    }
                });
            }
        },
    )
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
