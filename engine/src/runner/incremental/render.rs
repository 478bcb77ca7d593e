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

use super::join::{Half, JoinParts, Pair, halves};
use super::row::RowBytes;
use super::steps::{Context, Rows, by_key, distinct, plain_step};
use crate::error::{Error, Result};
use crate::incremental::{Compiled, JoinPlan, Keying, Kind};
use crate::runner::time::LogicalTime;

type Trace<T> = TraceAgent<ValSpine<RowBytes, RowBytes, T, isize>>;
/// Rows, found by their key.
type Index<'s, T> = Arranged<'s, Trace<T>>;
/// The time inside of a loop: how often it has gone round, besides.
type LoopTime = Product<LogicalTime, u64>;
/// An index from outside of a loop.
type OuterIndex<'s> = Arranged<'s, TraceEnter<Trace<LogicalTime>, LoopTime>>;

/// Builds all steps; the rows of the last.
pub(super) fn render<'s>(
    scope: Scope<'s, LogicalTime>,
    compiled: &Compiled,
    inputs: &[Rows<'s, LogicalTime>],
    context: &Context,
) -> Result<Rows<'s, LogicalTime>> {
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
                let mut parts = JoinParts::new(compiled, plan, layer.rows(plan.left)?)?;
                for &half in parts.halves() {
                    let left = layer.index(compiled, plan.left, &plan.left_keys)?;
                    let right = layer.right_index(compiled, plan, half)?;
                    let pair = parts.pair(half);
                    parts.add(half, left.join_core(right, move |_, l, r| pair.of(l, r)));
                }
                parts.finish(compiled, plan, &step.schema, context)?
            }
            Kind::Iterate { .. } => render_loop(scope, compiled, n, &mut layer)?,
            kind => plain_step(compiled, kind, context, |from| layer.rows(from))?,
        };
        layer.rows.insert(n, rows);
    }
    layer.rows(compiled.last)
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
            for half in halves(plan.kind) {
                if !is_inside(plan.left) {
                    outer.index(compiled, plan.left, &plan.left_keys)?;
                }
                if !is_inside(plan.right) {
                    outer.right_index(compiled, plan, *half)?;
                }
            }
        }
    }
    let context = outer.context.clone();
    scope.iterative::<u64, _, _>(|inside| {
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
                    let left_rows = match is_inside(plan.left) {
                        true => layer.rows(plan.left)?,
                        false => outer.rows(plan.left)?.enter(inside),
                    };
                    let mut parts = JoinParts::new(compiled, plan, left_rows)?;
                    for &half in parts.halves() {
                        let left = match is_inside(plan.left) {
                            true => {
                                Side::Inside(layer.index(compiled, plan.left, &plan.left_keys)?)
                            }
                            false => {
                                let index = outer.index(compiled, plan.left, &plan.left_keys)?;
                                Side::Outside(index.enter(inside))
                            }
                        };
                        let right = match is_inside(plan.right) {
                            true => Side::Inside(layer.right_index(compiled, plan, half)?),
                            false => {
                                let index = outer.right_index(compiled, plan, half)?;
                                Side::Outside(index.enter(inside))
                            }
                        };
                        let pair = parts.pair(half);
                        parts.add(half, left.join(right, pair));
                    }
                    parts.finish(compiled, plan, &step.schema, &context)?
                }
                kind => plain_step(compiled, kind, &context, |from| match is_inside(from) {
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
    context: Context,
    rows: BTreeMap<usize, Rows<'s, T>>,
    /// By step, by what its keys are, and by whether only the keys are there.
    indices: BTreeMap<(usize, String, bool), Index<'s, T>>,
}

impl<'s, T: Timestamp + Lattice> Layer<'s, T> {
    fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            rows: BTreeMap::new(),
            indices: BTreeMap::new(),
        }
    }

    fn rows(&self, step: usize) -> Result<Rows<'s, T>> {
        let rows = self.rows.get(&step).cloned();
        rows.ok_or_else(|| Error::bug("a step of a relation was read before it was built"))
    }

    /// The rows of a step by these keys; those with a null among them are left out.
    fn index(&mut self, compiled: &Compiled, step: usize, keying: &Keying) -> Result<Index<'s, T>> {
        let name = (step, keying.text.clone(), false);
        if let Some(index) = self.indices.get(&name) {
            return Ok(index.clone());
        }
        let rows = by_key(
            self.rows(step)?,
            keying,
            &compiled.steps[step],
            &self.context,
        )?;
        let index = rows.arrange_by_key();
        self.indices.insert(name, index.clone());
        Ok(index)
    }

    /// The keys that a step has rows of, each once.
    fn key_index(
        &mut self,
        compiled: &Compiled,
        step: usize,
        keying: &Keying,
    ) -> Result<Index<'s, T>> {
        let name = (step, keying.text.clone(), true);
        if let Some(index) = self.indices.get(&name) {
            return Ok(index.clone());
        }
        let rows = by_key(
            self.rows(step)?,
            keying,
            &compiled.steps[step],
            &self.context,
        )?;
        let keys = distinct(rows.map(|(key, _)| key));
        let index = keys.map(|key| (key, RowBytes::new(&[]))).arrange_by_key();
        self.indices.insert(name, index.clone());
        Ok(index)
    }

    fn right_index(
        &mut self,
        compiled: &Compiled,
        plan: &JoinPlan,
        half: Half,
    ) -> Result<Index<'s, T>> {
        match half {
            Half::Pairs => self.index(compiled, plan.right, &plan.right_keys),
            Half::Matched => self.key_index(compiled, plan.right, &plan.right_keys),
        }
    }
}
