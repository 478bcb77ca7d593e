//! Rows as expressions see them: as columns, many at once.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, Data, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::Timestamp;

use super::bad_rows::{BadRow, RowKind};
use super::codec::RowCodec;
use super::row::RowBytes;
use super::steps::{Context, Rows};
use crate::error::Result;
use crate::expression::find_good;
use crate::incremental::{Compiled, Kind};
use crate::runner::failure::guard;

/// Rows of a step.
pub(super) struct Seen<'s, T: Timestamp + Lattice> {
    rows: Rows<'s, T>,
    codec: RowCodec,
    kind: RowKind,
    context: Context<'s, T>,
}

impl<'s, T: Timestamp + Lattice> Seen<'s, T> {
    /// Rows that a step gives.
    pub(super) fn new(
        rows: Rows<'s, T>,
        compiled: &Compiled,
        step: usize,
        context: &Context<'s, T>,
    ) -> Result<Self> {
        let schema = &compiled.steps[step].schema;
        Self::of_columns(rows, schema, compiled, step, context)
    }

    /// Rows of a step before they have the columns that it gives.
    pub(super) fn of_columns(
        rows: Rows<'s, T>,
        schema: &SchemaRef,
        compiled: &Compiled,
        step: usize,
        context: &Context<'s, T>,
    ) -> Result<Self> {
        let of = &compiled.steps[step];
        let one = match of.kind {
            Kind::Join(_) => "a pair of rows",
            _ => "a row",
        };
        Ok(Self {
            rows,
            codec: RowCodec::of(schema)?,
            kind: RowKind {
                name: format!("{one} of step {step} of the relation, {}", of.name),
                schema: Arc::clone(schema),
            },
            context: context.clone(),
        })
    }

    pub(super) fn rows(self) -> Rows<'s, T> {
        self.rows
    }

    pub(super) fn codec(&self) -> &RowCodec {
        &self.codec
    }

    pub(super) fn context(&self) -> &Context<'s, T> {
        &self.context
    }

    /// What `make` gives, something or nothing for each row, for what `evaluate` makes of many of them; those on
    /// which this fails are bad rows.
    pub(super) fn through<V: 'static, D: Data>(
        self,
        evaluate: impl Fn(&RecordBatch) -> Result<V> + 'static,
        make: impl Fn(V, &[&RowBytes]) -> Result<Vec<Option<D>>> + 'static,
    ) -> VecCollection<'s, T, D, isize> {
        let (bad_rows, kinds) = (self.context.bad_rows.clone(), self.context.kinds.clone());
        let kind = kinds.add(self.kind.clone());
        let (made, bad) = self.split(evaluate, make, move |row, reason| {
            Some(BadRow {
                kind,
                row: row.clone(),
                reason,
            })
        });
        bad_rows.add(bad);
        made
    }

    /// As [`Seen::through`], where others tell of the bad rows; these give what `of_bad` says.
    pub(super) fn through_with_bad<V: 'static>(
        self,
        evaluate: impl Fn(&RecordBatch) -> Result<V> + 'static,
        make: impl Fn(V, &[&RowBytes]) -> Result<Vec<Option<RowBytes>>> + 'static,
        of_bad: fn(&RowBytes) -> Option<RowBytes>,
    ) -> Rows<'s, T> {
        let (made, bad) = self.split(evaluate, make, move |row, _| of_bad(row));
        made.concat(bad)
    }

    /// What is made of good rows, and of bad ones.
    fn split<V: 'static, D: Data, B: Data>(
        self,
        evaluate: impl Fn(&RecordBatch) -> Result<V> + 'static,
        make: impl Fn(V, &[&RowBytes]) -> Result<Vec<Option<D>>> + 'static,
        of_bad: impl Fn(&RowBytes, String) -> Option<B> + 'static,
    ) -> (
        VecCollection<'s, T, D, isize>,
        VecCollection<'s, T, B, isize>,
    ) {
        let Self {
            rows,
            codec,
            kind: RowKind { schema, .. },
            context,
        } = self;
        let mut builder = OperatorBuilder::new(context.id.to_string(), rows.scope());
        let mut input = builder.new_input(rows.inner, Pipeline);
        let (output, made) = builder.new_output::<Vec<(D, T, isize)>>();
        let mut output = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(output);
        let (bad_output, bad) = builder.new_output::<Vec<(B, T, isize)>>();
        let mut bad_output = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(bad_output);
        let (id, failure) = (context.id, context.failure);
        builder.build(move |capabilities| {
            drop(capabilities);
            move |_frontiers| {
                let (mut output, mut bad_output) = (output.activate(), bad_output.activate());
                input.for_each(|capability, updates: &mut Vec<(RowBytes, T, isize)>| {
                    if failure.has_failed() {
                        return;
                    }
                    let rows: Vec<&RowBytes> = updates.iter().map(|(row, ..)| row).collect();
                    let turn = guard(&id, || {
                        let batch = codec.batch(&schema, &rows)?;
                        verdicts(&batch, &rows, &evaluate, &make)
                    });
                    let Verdicts { made, bad } = match turn {
                        Ok(verdicts) => verdicts,
                        Err(error) => return failure.set(error),
                    };
                    if !bad.is_empty() {
                        let bad = bad.into_iter().filter_map(|(n, reason)| {
                            let (row, time, diff) = &updates[n];
                            Some((of_bad(row, reason)?, time.clone(), *diff))
                        });
                        let mut bad: Vec<(B, T, isize)> = bad.collect();
                        bad_output.session(&capability).give_container(&mut bad);
                    }
                    let made = updates
                        .drain(..)
                        .zip(made)
                        .filter_map(|((_, time, diff), made)| Some((made?, time, diff)));
                    let mut made: Vec<(D, T, isize)> = made.collect();
                    output.session(&capability).give_container(&mut made);
                });
            }
        });
        (made.as_collection(), bad.as_collection())
    }
}

/// What becomes of rows.
struct Verdicts<D> {
    /// What is made of each of them.
    made: Vec<Option<D>>,
    /// The bad ones, with the reasons.
    bad: Vec<(usize, String)>,
}

fn verdicts<V, D>(
    batch: &RecordBatch,
    rows: &[&RowBytes],
    evaluate: &impl Fn(&RecordBatch) -> Result<V>,
    make: &impl Fn(V, &[&RowBytes]) -> Result<Vec<Option<D>>>,
) -> Result<Verdicts<D>> {
    match evaluate(batch) {
        Ok(values) => Ok(Verdicts {
            made: make(values, rows)?,
            bad: Vec::new(),
        }),
        Err(error) if rows.is_empty() => Err(error),
        Err(_) => {
            let mut bad = Vec::new();
            let is_good = find_good(batch, evaluate, &mut |row, reason| {
                bad.push((row, reason));
                Ok(())
            })?;
            let good_rows = rows.iter().zip(&is_good).filter(|(_, is_good)| **is_good);
            let good_rows: Vec<&RowBytes> = good_rows.map(|(row, _)| *row).collect();
            let good = filter_record_batch(batch, &BooleanArray::from(is_good.clone()))?;
            let mut of_good = make(evaluate(&good)?, &good_rows)?.into_iter();
            let made = is_good.iter().map(|is_good| match is_good {
                true => of_good.next().flatten(),
                false => None,
            });
            Ok(Verdicts {
                made: made.collect(),
                bad,
            })
        }
    }
}
