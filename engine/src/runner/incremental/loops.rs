//! Builds the loops of a relation, and those inside of them.
//!
//! ```text
//! outside ─enter─▶ │ rows of a loop, and of the loops inside of it, at (time, [round, round of the inner loop, …]) │ ─leave─▶
//! ```
//!
//! A loop and all inside of it stand in one scope of timely's, in which a time says which round of each loop it is. So
//! what is outside of an inner loop, but in the scope, is read there as it is: its inner rounds are all 0. A loop with
//! none inside counts its rounds by a number, which is cheaper. Rows that enter a loop round by round get theirs on the
//! way in, as by `enter_at` of differential dataflow: they are there from that round on.

use std::collections::BTreeMap;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use differential_dataflow::dynamic::feedback_summary;
use differential_dataflow::dynamic::pointstamp::PointStamp;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::operators::iterate::{Variable, VecVariable};
use differential_dataflow::trace::wrappers::enter::TraceEnter;
use differential_dataflow::{Data, VecCollection};
use timely::dataflow::Scope;
use timely::dataflow::operators::vec::{Filter, Map};
use timely::order::Product;
use timely::progress::Timestamp;

use super::bad_rows::{by_round, in_most};
use super::join::{JoinParts, Operand, Pair, halves, keeps_alone};
use super::render::{Index, Layer, Trace};
use super::row::RowBytes;
use super::seen::Seen;
use super::steps::{Context, Rows, plain_step, with_round};
use crate::error::{Error, Result};
use crate::incremental::{Compiled, Kind};
use crate::runner::time::LogicalTime;

/// The time inside of loops: which round it is, besides.
type LoopTime<R> = Product<LogicalTime, R>;
/// An index from outside of all loops.
type OuterIndex<'s, R> = Arranged<'s, TraceEnter<Trace<LogicalTime>, LoopTime<R>>>;
/// What goes round.
type GoingRound<'s, R> = VecVariable<'s, LoopTime<R>, RowBytes, isize>;
type Changes<'s, R, D> = VecCollection<'s, LoopTime<R>, D, isize>;

/// How the rounds of loops inside of each other are counted. The outermost is at depth 1.
trait Rounds: Timestamp + Lattice {
    /// From a round of the loop at this depth to the next.
    fn next(depth: usize) -> Self::Summary;

    /// The round of the loop at this depth.
    fn round(&self, depth: usize) -> u64;

    /// The first time from this one on that is in this round of the loop at this depth, or after it.
    fn enter_at(self, depth: usize, round: u64) -> Self;

    /// Out of the loop at this depth, which is not the outermost.
    fn leave<'s, D: Data>(rows: Changes<'s, Self, D>, depth: usize) -> Changes<'s, Self, D>;
}

/// Of one loop, with none inside to leave.
impl Rounds for u64 {
    fn next(_depth: usize) -> u64 {
        1
    }

    fn round(&self, _depth: usize) -> u64 {
        *self
    }

    fn enter_at(self, _depth: usize, round: u64) -> Self {
        self.max(round)
    }

    fn leave<'s, D: Data>(rows: Changes<'s, Self, D>, _depth: usize) -> Changes<'s, Self, D> {
        rows
    }
}

impl Rounds for PointStamp<u64> {
    fn next(depth: usize) -> Self::Summary {
        feedback_summary::<u64>(depth, 1)
    }

    fn round(&self, depth: usize) -> u64 {
        self.get(depth - 1).copied().unwrap_or(0)
    }

    fn enter_at(self, depth: usize, round: u64) -> Self {
        let mut rounds = self.into_inner();
        if rounds.len() < depth {
            rounds.resize(depth, 0);
        }
        rounds[depth - 1] = rounds[depth - 1].max(round);
        Self::new(rounds)
    }

    fn leave<'s, D: Data>(rows: Changes<'s, Self, D>, depth: usize) -> Changes<'s, Self, D> {
        rows.leave_dynamic(depth)
    }
}

/// Builds the steps of an outermost loop and of all inside of it; what it comes to.
pub(super) fn render_loop<'s>(
    scope: Scope<'s, LogicalTime>,
    compiled: &Compiled,
    number: usize,
    outer: &mut Layer<'s, LogicalTime>,
) -> Result<Rows<'s, LogicalTime>> {
    let inside: Vec<usize> = (0..compiled.steps.len())
        .filter(|step| compiled.loops_of(*step).last() == Some(&number))
        .collect();
    // What is read outside is built before the loop is opened.
    for step in inside.iter().chain([&number]) {
        let kind = &compiled.steps[*step].kind;
        for read in rows_read(kind).filter(|read| !inside.contains(read)) {
            outer.rows_for_loops(compiled, read)?;
        }
        let Kind::Join(plan) = kind else { continue };
        let halves = halves(plan.kind).iter();
        for operand in halves.flat_map(|half| half.operands(plan)) {
            if !inside.contains(&operand.step) {
                outer.indices_for_loops(compiled, operand)?;
            }
        }
    }
    let is_loop = |step: &usize| matches!(compiled.steps[*step].kind, Kind::Iterate { .. });
    let has_loops = inside.iter().any(is_loop);
    let loops = Loops {
        compiled,
        number,
        inside,
    };
    match has_loops {
        false => scope.iterative(|round| loops.render::<u64>(scope, round, outer)),
        true => scope.iterative(|rounds| loops.render::<PointStamp<u64>>(scope, rounds, outer)),
    }
}

/// The steps whose rows a step in a loop reads as such, and not by an index.
fn rows_read(kind: &Kind) -> impl Iterator<Item = usize> {
    let read = match kind {
        Kind::Input(_) => Vec::new(),
        Kind::Variable { initial } => initial.iter().copied().collect(),
        Kind::Enter { from, .. } => vec![*from],
        Kind::Select { from, .. }
        | Kind::Filter { from, .. }
        | Kind::Aggregate { from, .. }
        | Kind::Distinct { from } => vec![*from],
        Kind::Union { from } => from.clone(),
        Kind::Join(plan) => {
            let [left, right] = keeps_alone(plan.kind);
            let sides = [(left, plan.left), (right, plan.right)].into_iter();
            sides
                .filter_map(|(is_read, side)| is_read.then_some(side))
                .collect()
        }
        Kind::Iterate { body, .. } => vec![*body],
    };
    read.into_iter()
}

/// An outermost loop, with all inside of it.
struct Loops<'c> {
    compiled: &'c Compiled,
    number: usize,
    /// The steps inside.
    inside: Vec<usize>,
}

impl Loops<'_> {
    fn render<'s, 'i, R: Rounds>(
        &self,
        outside: Scope<'s, LogicalTime>,
        scope: Scope<'i, LoopTime<R>>,
        outer: &mut Layer<'s, LogicalTime>,
    ) -> Result<Rows<'s, LogicalTime>> {
        let compiled = self.compiled;
        let mut layer: Layer<'i, LoopTime<R>> = Layer::new(&outer.context(None).in_scope());
        let mut going_round: BTreeMap<usize, GoingRound<'i, R>> = BTreeMap::new();
        for &n in &self.inside {
            let step = &compiled.steps[n];
            let context = layer.context(step.in_loop);
            let reads = rows_read(&step.kind).filter(|read| !self.inside.contains(read));
            let from_outside = reads.map(|read| {
                let rows = outer.rows_for_loops(compiled, read)?;
                Ok((read, rows.enter(scope)))
            });
            let from_outside = from_outside.collect::<Result<BTreeMap<usize, _>>>()?;
            let rows_of = |step: usize, layer: &Layer<'i, LoopTime<R>>| {
                let entered = from_outside.get(&step).cloned();
                entered.map_or_else(|| layer.rows(step), Ok)
            };
            let rows = match &step.kind {
                Kind::Variable { initial } => {
                    let depth = compiled.loops_of(n).len();
                    let next = Product::new((), R::next(depth));
                    let (feedback, rows) = match initial {
                        Some(initial) => Variable::new_from(rows_of(*initial, &layer)?, next),
                        None => Variable::new(scope, next),
                    };
                    going_round.insert(n, feedback);
                    rows
                }
                Kind::Enter {
                    from,
                    round,
                    max_rounds,
                } => {
                    let depth = compiled.loops_of(n).len();
                    let rows = Seen::new(rows_of(*from, &layer)?, compiled, *from, &context)?;
                    let rows = with_round(rows, round, *max_rounds).inner;
                    let entered = rows.map(move |((row, round), time, diff)| {
                        let inner = time.inner.enter_at(depth, round);
                        (row, Product::new(time.outer, inner), diff)
                    });
                    entered.as_collection()
                }
                Kind::Iterate { variable, body, .. } => {
                    let made = rows_of(*body, &layer)?;
                    let made = self.close(n, made, going_round.remove(variable), &mut layer)?;
                    let depth = compiled.loops_of(n).len() + 1;
                    if let Some(bad) = layer.context(Some(n)).bad_rows.take() {
                        let bad = by_round(bad, move |time| time.inner.round(depth));
                        context.bad_rows.add(in_most(R::leave(bad, depth)));
                    }
                    R::leave(made, depth)
                }
                Kind::Join(plan) => {
                    let rows = |step| rows_of(step, &layer);
                    let mut parts = JoinParts::new(compiled, plan, rows, &context)?;
                    for &half in parts.halves() {
                        let mut side = |operand: Operand<'_>| -> Result<Side<'i, R>> {
                            if self.inside.contains(&operand.step) {
                                return Ok(Side::Inside(layer.index(compiled, operand)?));
                            }
                            let indices = outer.indices_for_loops(compiled, operand)?;
                            let entered = indices.into_iter().map(|index| index.enter(scope));
                            Ok(Side::Outside(entered.collect()))
                        };
                        let [first, second] = half.operands(plan);
                        let (first, second) = (side(first)?, side(second)?);
                        parts.add(half, first.join(second, &parts.pair(half))?);
                    }
                    parts.finish(compiled, plan, n, &context)?
                }
                _ => plain_step(compiled, n, &context, |from| rows_of(from, &layer))?,
            };
            layer.set_rows(n, rows);
        }
        let Kind::Iterate { variable, body, .. } = compiled.steps[self.number].kind else {
            return Err(Error::bug("a loop has no beginning"));
        };
        let made = match self.inside.contains(&body) {
            true => layer.rows(body)?,
            false => outer.rows_for_loops(compiled, body)?.enter(scope),
        };
        let feedback = going_round.remove(&variable);
        let made = self.close(self.number, made, feedback, &mut layer)?;
        if let Some(bad) = layer.context(Some(self.number)).bad_rows.take() {
            let bad = by_round(bad, |time| time.inner.round(1)).leave(outside);
            outer.context(None).bad_rows.add(in_most(bad));
        }
        Ok(made.leave(outside))
    }

    /// Lets what a loop makes go round.
    fn close<'s, R: Rounds>(
        &self,
        number: usize,
        made: Rows<'s, LoopTime<R>>,
        feedback: Option<GoingRound<'s, R>>,
        layer: &mut Layer<'s, LoopTime<R>>,
    ) -> Result<Rows<'s, LoopTime<R>>> {
        let Kind::Iterate {
            body, max_rounds, ..
        } = self.compiled.steps[number].kind
        else {
            return Err(Error::bug("a loop has no beginning"));
        };
        // What a reduction gives is consolidated already; other changes could go round for ever.
        let made = match self.compiled.steps[body].kind {
            Kind::Aggregate { .. } | Kind::Distinct { .. } => made,
            _ => made.consolidate(),
        };
        let depth = self.compiled.loops_of(number).len() + 1;
        let context = layer.context(Some(number));
        let made = ending(made, number, max_rounds, &context, move |rounds: &R| {
            rounds.round(depth)
        });
        let feedback = feedback.ok_or_else(|| Error::bug("nothing goes round in a loop"))?;
        feedback.set(made.clone());
        Ok(made)
    }
}

/// What a loop makes, as long as it is in no more rounds than it may take.
fn ending<'s, R: Rounds>(
    made: Rows<'s, LoopTime<R>>,
    number: usize,
    max_rounds: u64,
    context: &Context<'s, LoopTime<R>>,
    round_of: impl Fn(&R) -> u64 + 'static,
) -> Rows<'s, LoopTime<R>> {
    let (id, failure) = (Arc::clone(&context.id), Arc::clone(&context.failure));
    let in_time = made.inner.filter(move |(_, time, _)| {
        let goes_on = round_of(&time.inner) < max_rounds;
        if !goes_on && !failure.has_failed() {
            failure.set(endless(number, max_rounds).at_node(&id));
        }
        goes_on
    });
    in_time.as_collection()
}

fn endless(number: usize, max_rounds: u64) -> Error {
    Error::pipeline(format!(
        "an iteration has not come to an end after {max_rounds} rounds"
    ))
    .with_detail(format!("It is in step {number} of the relation, iterate."))
    .with_detail("Rows still change from one round to the next.")
    .with_hint("Let it come to rows that stay the same, as with a filter that bounds what grows or a `distinct`, or allow more rounds with `Iterate::new().max_rounds(..)`.")
}

/// A side of a join inside of a loop: indices that hold its rows together.
enum Side<'s, R: Rounds> {
    Inside(Index<'s, LoopTime<R>>),
    Outside(Vec<OuterIndex<'s, R>>),
}

impl<'s, R: Rounds> Side<'s, R> {
    fn join(self, right: Self, pair: &Pair) -> Result<Rows<'s, LoopTime<R>>> {
        let mut parts = Vec::new();
        match (self, right) {
            (Side::Inside(l), Side::Inside(r)) => parts.push(l.join_core(r, paired(pair))),
            (Side::Inside(l), Side::Outside(all)) => {
                let join = |r: OuterIndex<'s, R>| l.clone().join_core(r, paired(pair));
                parts.extend(all.into_iter().map(join));
            }
            (Side::Outside(all), Side::Inside(r)) => {
                let join = |l: OuterIndex<'s, R>| l.join_core(r.clone(), paired(pair));
                parts.extend(all.into_iter().map(join));
            }
            (Side::Outside(left), Side::Outside(right)) => {
                for l in left {
                    let join = |r: OuterIndex<'s, R>| l.clone().join_core(r, paired(pair));
                    parts.extend(right.iter().cloned().map(join));
                }
            }
        }
        let first = parts
            .pop()
            .ok_or_else(|| Error::bug("a side of a join has no index"))?;
        Ok(first.concatenate(parts))
    }
}

/// Makes a row of two whose key is equal.
fn paired(
    pair: &Pair,
) -> impl FnMut(&RowBytes, &RowBytes, &RowBytes) -> Option<RowBytes> + 'static {
    let pair = pair.clone();
    move |_, left, right| pair.of(left, right)
}
