//! Rows on which an expression fails: they are left out, and told where what is made of the others leaves.
//!
//! ```text
//! rows ─▶ expressions ─▶ what they give
//!              └─▶ bad rows ─▶ of all rounds, out of loops ─▶ consolidate ─▶ dead letters, counts, or the end of the run
//! ```
//!
//! Bad rows change as all others do: a row that is taken back is no longer bad. What is told follows from the rows
//! that are bad at each instant, and so neither from workers nor from the order in which changes come.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::PrimitiveArray;
use arrow::datatypes::{Schema, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, VecCollection};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::{Scope, Stream};
use timely::progress::Timestamp;

use super::codec::RowCodec;
use super::ends::Update;
use super::row::RowBytes;
use super::steps::Context;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::event_time::{EVENT_TIME, MAX_TIME, MIN_TIME, time_field};
use crate::output::{OnBadRow, Output, dead_letter_rows};
use crate::runner::container::{Rows, RowsBuilder};
use crate::runner::credit::Credit;
use crate::runner::failure::guard;
use crate::runner::time::LogicalTime;

/// A row on which an expression fails.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct BadRow {
    /// The number of what it is a row of.
    pub(super) kind: usize,
    pub(super) row: RowBytes,
    pub(super) reason: String,
}

/// Bad rows that change.
pub(super) type BadRows<'s, T> = VecCollection<'s, T, BadRow, isize>;
type BadUpdate = (BadRow, LogicalTime, isize);

/// What rows are that may be bad.
#[derive(Clone, Debug)]
pub(super) struct RowKind {
    /// What messages call such a row.
    pub(super) name: String,
    pub(super) schema: SchemaRef,
}

/// All kinds of rows of a relation that may be bad, by number: the same on all workers.
#[derive(Clone, Default)]
pub(super) struct RowKinds(Rc<RefCell<Vec<RowKind>>>);

impl RowKinds {
    /// The number of a new kind.
    pub(super) fn add(&self, kind: RowKind) -> usize {
        let mut kinds = self.0.borrow_mut();
        kinds.push(kind);
        kinds.len() - 1
    }
}

/// Where the bad rows of all steps of one scope are gathered.
#[derive(Clone)]
pub(super) struct Gathered<'s, T: Timestamp>(Rc<RefCell<Vec<BadRows<'s, T>>>>);

impl<T: Timestamp> Default for Gathered<'_, T> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<'s, T: Timestamp + Lattice> Gathered<'s, T> {
    pub(super) fn add(&self, rows: BadRows<'s, T>) {
        self.0.borrow_mut().push(rows);
    }

    /// All of them; `None` where no row can be bad.
    pub(super) fn take(&self) -> Option<BadRows<'s, T>> {
        let mut all = std::mem::take(&mut *self.0.borrow_mut());
        let first = all.pop()?;
        Some(first.concatenate(all))
    }
}

/// Bad rows with the round of a loop in which they change.
pub(super) fn by_round<'s, T: Timestamp + Lattice>(
    bad: BadRows<'s, T>,
    round_of: impl Fn(&T) -> u64 + 'static,
) -> VecCollection<'s, T, (BadRow, u64), isize> {
    let by_round = bad.inner.map(move |(row, time, diff)| {
        let round = round_of(&time);
        ((row, round), time, diff)
    });
    by_round.as_collection()
}

/// The rows that are bad in a round, whichever: each as often as in the round where there are most of it. Seen from
/// outside of the loop, where all rounds are at one time.
///
/// What a loop comes to has gone through all its rounds, so a row that was left out of one was left out, also where
/// the last round has no such row.
pub(super) fn in_most<'s, T: Timestamp + Lattice>(
    bad: VecCollection<'s, T, (BadRow, u64), isize>,
) -> BadRows<'s, T> {
    let most = bad.reduce(|_, rounds, most| {
        let (mut there, mut peak) = (0, 0);
        for (_, diff) in rounds {
            there += *diff;
            peak = peak.max(there);
        }
        if peak > 0 {
            most.push(((), peak));
        }
    });
    most.map(|(row, ())| row)
}

/// What is told of bad rows.
pub(super) struct Telling {
    /// What becomes of them.
    pub(super) policy: OnBadRow,
    /// The least checkpoint of what is told.
    pub(super) first_checkpoint: u64,
    pub(super) has_time: bool,
    pub(super) lots: Arc<Credit>,
}

/// What leaves of bad rows.
pub(super) struct Told<'s> {
    pub(super) letters: Stream<'s, LogicalTime, Rows>,
    /// A collection of nothing, which comes as far as what has been told; `None` where no row can be bad.
    pub(super) so_far: Option<VecCollection<'s, LogicalTime, RowBytes, isize>>,
}

/// Tells each bad row when it comes to be there, instant by instant; that it is there no longer is not told.
pub(super) fn tell<'s>(
    scope: Scope<'s, LogicalTime>,
    bad: Option<BadRows<'s, LogicalTime>>,
    telling: Telling,
    context: &Context<'s, LogicalTime>,
) -> Result<Told<'s>> {
    let Some(bad) = bad else {
        return Ok(Told {
            letters: empty(scope),
            so_far: None,
        });
    };
    let kinds = context.kinds.0.borrow();
    let kinds = kinds.iter().map(|kind| Shown::new(kind, telling.has_time));
    let kinds = kinds.collect::<Result<Vec<_>>>()?;
    let mut builder = OperatorBuilder::new(format!("{} bad rows", context.id), scope);
    let mut input = builder.new_input(bad.consolidate().inner, Pipeline);
    let (letters, stream) = builder.new_output::<Rows>();
    let mut letters = OutputBuilder::<_, RowsBuilder>::from(letters);
    let (_, so_far) = builder.new_output::<Vec<Update>>();
    let context = context.clone();
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_frontiers| {
            let mut letters = letters.activate();
            input.for_each(|capability, updates: &mut Vec<BadUpdate>| {
                if context.failure.has_failed() {
                    return;
                }
                let made = guard(&context.id, || {
                    let mut out = Output::new(telling.policy);
                    reject(&kinds, updates, telling.first_checkpoint, &mut out)?;
                    context.metrics.count(&mut out);
                    dead_letter_rows(&context.id, &out.take_dead_letters())
                });
                match made {
                    Ok(made) => {
                        for rows in made {
                            let batch = Batch::new(rows).inexact().holding(&telling.lots);
                            let mut session = letters.session(&capability);
                            session.give_container(&mut Rows(Some(batch)));
                        }
                    }
                    Err(error) => context.failure.set(error),
                }
            });
        }
    });
    Ok(Told {
        letters: stream,
        so_far: Some(so_far.as_collection()),
    })
}

/// How rows of one kind are shown.
struct Shown {
    name: String,
    codec: RowCodec,
    schema: SchemaRef,
    has_time: bool,
}

impl Shown {
    fn new(kind: &RowKind, has_time: bool) -> Result<Self> {
        let mut fields = kind.schema.fields().to_vec();
        let has_time = has_time && kind.schema.index_of(EVENT_TIME).is_err();
        if has_time {
            fields.push(time_field(EVENT_TIME));
        }
        Ok(Self {
            name: kind.name.clone(),
            codec: RowCodec::of(&kind.schema)?,
            schema: Arc::new(Schema::new(fields)),
            has_time,
        })
    }

    /// Rows with the instant from which on they are there.
    fn rows(&self, updates: &[&BadUpdate]) -> Result<RecordBatch> {
        let rows: Vec<&RowBytes> = updates.iter().map(|(bad, ..)| &bad.row).collect();
        let mut columns = self.codec.decode(rows.iter().copied())?;
        if self.has_time {
            let times = updates.iter().map(|(_, time, _)| time.watermark);
            let times = times.map(|time| Some(time.clamp(MIN_TIME, MAX_TIME)));
            columns.push(Arc::new(
                times.collect::<PrimitiveArray<TimestampMillisecondType>>(),
            ));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}

/// Rejects the rows that have come to be there.
fn reject(
    kinds: &[Shown],
    updates: &[BadUpdate],
    first_checkpoint: u64,
    out: &mut Output,
) -> Result<()> {
    let mut by_kind: BTreeMap<usize, Vec<&BadUpdate>> = BTreeMap::new();
    for update in updates {
        let (bad, time, diff) = update;
        if *diff > 0 && time.checkpoint >= first_checkpoint {
            by_kind.entry(bad.kind).or_default().push(update);
        }
    }
    for (kind, updates) in by_kind {
        let kind = kinds
            .get(kind)
            .ok_or_else(|| Error::bug("a bad row is of no kind"))?;
        let rows = kind.rows(&updates)?;
        for (n, (bad, _, times)) in updates.iter().enumerate() {
            for _ in 0..*times {
                out.reject_made(&kind.name, &rows, n, bad.reason.clone())?;
            }
        }
    }
    Ok(())
}
