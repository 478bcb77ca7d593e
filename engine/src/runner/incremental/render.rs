//! Builds the operators of a relation in the dataflow of one worker.
//!
//! Each step becomes a collection of updates, made once whoever reads it; what joins read becomes an index, made
//! once for each step and keys. What a loop reads from outside is indexed outside and brought in.

use std::collections::BTreeMap;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::operators::iterate::Variable;
use differential_dataflow::trace::implementations::ValSpine;
use differential_dataflow::trace::wrappers::enter::TraceEnter;
use timely::dataflow::Scope;
use timely::order::Product;
use timely::progress::Timestamp;

use super::bad_rows::of_all_rounds;
use super::join::{JoinParts, Operand, Pair, halves};
use super::kept::{self, Indices};
use super::row::RowBytes;
use super::seen::Seen;
use super::steps::{Context, Keyed, Rows, by_key, distinct, plain_step, without_key};
use crate::error::{Error, Result};
use crate::incremental::{Compiled, Keying, Kind};
use crate::runner::time::LogicalTime;

pub(super) type Trace<T> = TraceAgent<ValSpine<RowBytes, RowBytes, T, isize>>;
/// Rows, found by their key.
type Index<'s, T> = Arranged<'s, Trace<T>>;
/// The time inside of a loop: how often it has gone round, besides.
type LoopTime = Product<LogicalTime, u64>;
/// An index from outside of a loop.
type OuterIndex<'s> = Arranged<'s, TraceEnter<Trace<LogicalTime>, LoopTime>>;

/// Builds all steps; the rows of the last, and where the inputs are kept, if they are to be saved.
pub(super) fn render<'s>(
    scope: Scope<'s, LogicalTime>,
    compiled: &Compiled,
    inputs: &[Rows<'s, LogicalTime>],
    is_saved: bool,
    context: &Context<'s, LogicalTime>,
) -> Result<(Rows<'s, LogicalTime>, Vec<Indices>)> {
    let mut layer = Layer::new(context);
    for (n, step) in compiled.steps.iter().enumerate() {
        if step.in_loop.is_some() {
            continue;
        }
        let rows = match &step.kind {
            Kind::Input(input) => inputs
                .get(*input)
                .cloned()
                .ok_or_else(|| Error::bug("an input is not there"))?,
            Kind::Join(plan) => {
                let (left, right) = (layer.rows(plan.left)?, layer.rows(plan.right)?);
                let mut parts = JoinParts::new(compiled, plan, left, right, context)?;
                for &half in parts.halves() {
                    let [first, second] = half.operands(plan);
                    let first = layer.index(compiled, first)?;
                    let second = layer.index(compiled, second)?;
                    let pair = parts.pair(half);
                    parts.add(half, first.join_core(second, move |_, a, b| pair.of(a, b)));
                }
                parts.finish(compiled, plan, n, context)?
            }
            Kind::Iterate { .. } => render_loop(scope, compiled, n, &mut layer)?,
            _ => plain_step(compiled, n, context, |from| layer.rows(from))?,
        };
        layer.rows.insert(n, rows);
    }
    let mut made = layer.rows(compiled.last)?;
    let mut kept = Vec::new();
    for (input, rows) in inputs.iter().enumerate().filter(|_| is_saved) {
        let (indices, own) = layer.indices_of_input(compiled, input, rows)?;
        kept.push(indices);
        // Of what is kept for its own sake nothing leaves: only so that what has left tells how far it has come too.
        made = made.concat(own.flat_map_ref(|_, _| None));
    }
    Ok((made, kept))
}

/// Builds the steps of one loop; what it comes to.
fn render_loop<'s>(
    scope: Scope<'s, LogicalTime>,
    compiled: &Compiled,
    number: usize,
    outer: &mut Layer<'s, LogicalTime>,
) -> Result<Rows<'s, LogicalTime>> {
    let Kind::Iterate {
        initial,
        variable,
        body,
    } = compiled.steps[number].kind
    else {
        return Err(Error::bug("a loop has no beginning"));
    };
    let is_inside = |n: usize| compiled.steps[n].in_loop == Some(number);
    // What is indexed outside is built before the loop is opened.
    for step in compiled.steps.iter().filter(|s| s.in_loop == Some(number)) {
        if let Kind::Join(plan) = &step.kind {
            let operands = halves(plan.kind)
                .iter()
                .flat_map(|half| half.operands(plan));
            for operand in operands.filter(|operand| !is_inside(operand.step)) {
                outer.index(compiled, operand)?;
            }
        }
    }
    scope.iterative::<u64, _, _>(|inside| {
        let context = outer.context.in_scope();
        let mut layer: Layer<'_, LoopTime> = Layer::new(&context);
        let begin = outer.rows(initial)?.enter(inside);
        let (feedback, round) = Variable::new_from(begin, Product::new((), 1));
        layer.rows.insert(variable, round);
        for (n, step) in compiled.steps.iter().enumerate() {
            if !is_inside(n) || n == variable {
                continue;
            }
            let rows = match &step.kind {
                Kind::Join(plan) => {
                    let rows_of = |step: usize| match is_inside(step) {
                        true => layer.rows(step),
                        false => Ok(outer.rows(step)?.enter(inside)),
                    };
                    let (left, right) = (rows_of(plan.left)?, rows_of(plan.right)?);
                    let mut parts = JoinParts::new(compiled, plan, left, right, &context)?;
                    for &half in parts.halves() {
                        let mut side = |operand: Operand<'_>| -> Result<Side<'_>> {
                            Ok(match is_inside(operand.step) {
                                true => Side::Inside(layer.index(compiled, operand)?),
                                false => {
                                    Side::Outside(outer.index(compiled, operand)?.enter(inside))
                                }
                            })
                        };
                        let [first, second] = half.operands(plan);
                        let (first, second) = (side(first)?, side(second)?);
                        parts.add(half, first.join(second, parts.pair(half)));
                    }
                    parts.finish(compiled, plan, n, &context)?
                }
                _ => plain_step(compiled, n, &context, |from| match is_inside(from) {
                    true => layer.rows(from),
                    false => Ok(outer.rows(from)?.enter(inside)),
                })?,
            };
            layer.rows.insert(n, rows);
        }
        let made = match is_inside(body) {
            true => layer.rows(body)?,
            false => outer.rows(body)?.enter(inside),
        };
        // What a reduction gives is consolidated already; other changes could go round for ever.
        let made = match compiled.steps[body].kind {
            Kind::Aggregate { .. } | Kind::Distinct { .. } => made,
            _ => made.consolidate(),
        };
        feedback.set(made.clone());
        if let Some(bad) = context.bad_rows.take() {
            outer.context.bad_rows.add(of_all_rounds(bad, scope));
        }
        Ok(made.leave(scope))
    })
}

/// A side of a join inside of a loop.
enum Side<'s> {
    Inside(Index<'s, LoopTime>),
    Outside(OuterIndex<'s>),
}

impl<'s> Side<'s> {
    fn join(self, right: Side<'s>, pair: Pair) -> Rows<'s, LoopTime> {
        match (self, right) {
            (Side::Inside(l), Side::Inside(r)) => l.join_core(r, move |_, l, r| pair.of(l, r)),
            (Side::Inside(l), Side::Outside(r)) => l.join_core(r, move |_, l, r| pair.of(l, r)),
            (Side::Outside(l), Side::Inside(r)) => l.join_core(r, move |_, l, r| pair.of(l, r)),
            (Side::Outside(l), Side::Outside(r)) => l.join_core(r, move |_, l, r| pair.of(l, r)),
        }
    }
}

/// The steps that have been built in one scope.
struct Layer<'s, T: Timestamp + Lattice> {
    context: Context<'s, T>,
    rows: BTreeMap<usize, Rows<'s, T>>,
    /// By step, and by what its keys are.
    keyed: BTreeMap<(usize, String), Keyed<'s, T>>,
    /// By step, by what its keys are, and by whether only the keys are there.
    indices: BTreeMap<(usize, String, bool), Index<'s, T>>,
}

impl<'s, T: Timestamp + Lattice> Layer<'s, T> {
    fn new(context: &Context<'s, T>) -> Self {
        Self {
            context: context.clone(),
            rows: BTreeMap::new(),
            keyed: BTreeMap::new(),
            indices: BTreeMap::new(),
        }
    }

    fn rows(&self, step: usize) -> Result<Rows<'s, T>> {
        let rows = self.rows.get(&step).cloned();
        rows.ok_or_else(|| Error::bug("a step of a relation was read before it was built"))
    }

    fn keyed(&mut self, compiled: &Compiled, step: usize, keying: &Keying) -> Result<Keyed<'s, T>> {
        let name = (step, keying.text.clone());
        if let Some(keyed) = self.keyed.get(&name) {
            return Ok(keyed.clone());
        }
        let rows = Seen::new(self.rows(step)?, compiled, step, &self.context)?;
        let keyed = by_key(rows, keying)?;
        self.keyed.insert(name, keyed.clone());
        Ok(keyed)
    }

    /// The rows of a step by their keys, or the keys alone, each once; rows with a null key are left out.
    fn index(&mut self, compiled: &Compiled, operand: Operand<'_>) -> Result<Index<'s, T>> {
        let Operand {
            step,
            keying,
            keys_only,
        } = operand;
        let name = (step, keying.text.clone(), keys_only);
        if let Some(index) = self.indices.get(&name) {
            return Ok(index.clone());
        }
        let rows = self.keyed(compiled, step, keying)?;
        let index = match keys_only {
            false => rows.arrange_by_key(),
            true => {
                let keys = distinct(rows.map(|(key, _)| key));
                keys.map(|key| (key, RowBytes::new(&[]))).arrange_by_key()
            }
        };
        self.indices.insert(name, index.clone());
        Ok(index)
    }
}

impl<'s> Layer<'s, LogicalTime> {
    /// Indices that hold all rows of an input: one that a join reads besides, with one for rows that it leaves out
    /// since a key is null, or else one by the whole row. The one that nothing else reads comes once more.
    fn indices_of_input(
        &self,
        compiled: &Compiled,
        input: usize,
        rows: &Rows<'s, LogicalTime>,
    ) -> Result<(Indices, Index<'s, LogicalTime>)> {
        let of_input =
            |step: &usize| matches!(compiled.steps[*step].kind, Kind::Input(n) if n == input);
        let of_joins = compiled.steps.iter().filter_map(|step| match &step.kind {
            Kind::Join(plan) => Some(halves(plan.kind).iter().flat_map(|h| h.operands(plan))),
            _ => None,
        });
        let by_row = |rows: Rows<'s, LogicalTime>| {
            let rows = rows.map(|row| (row, RowBytes::new(&[])));
            rows.arrange_by_key()
        };
        let kept = |index: &Index<'s, LogicalTime>, by_row| kept::Index {
            trace: index.trace.clone(),
            by_row,
        };
        for Operand {
            step,
            keying,
            keys_only,
        } in of_joins.flatten().filter(|o| of_input(&o.step))
        {
            let name = (step, keying.text.clone(), false);
            if keys_only {
                continue;
            }
            if let Some(index) = self.indices.get(&name) {
                let rows = Seen::new(rows.clone(), compiled, step, &self.context)?;
                let own = by_row(without_key(rows, keying)?);
                return Ok((vec![kept(index, false), kept(&own, true)], own));
            }
        }
        let own = by_row(rows.clone());
        Ok((vec![kept(&own, true)], own))
    }
}
