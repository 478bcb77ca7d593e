//! Builds the operators of a relation in the dataflow of one worker.
//!
//! Each step becomes a collection of updates, made once whoever reads it; what joins read becomes an index, made
//! once for each step and keys. What a loop reads from outside is indexed outside and brought in.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::SchemaRef;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::operators::iterate::Variable;
use differential_dataflow::trace::implementations::ValSpine;
use differential_dataflow::trace::wrappers::enter::TraceEnter;
use differential_dataflow::{AsCollection, Data, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::order::Product;
use timely::progress::Timestamp;

use super::codec::{Picks, RowCodec, any_null};
use super::reduce::{join_values, reduce};
use super::row::RowBytes;
use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::incremental::{Compiled, CompiledStep, JoinPlan, Keying, Kind, Matches};
use crate::keys::plain_type;
use crate::ops::Aggregation;
use crate::runner::failure::{Failure, guard};
use crate::runner::metrics::NodeMetrics;
use crate::runner::time::LogicalTime;

/// What the operators of a relation share.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) id: Arc<str>,
    pub(super) failure: Arc<Failure>,
    pub(super) metrics: Arc<NodeMetrics>,
}

/// Rows that change.
pub(super) type Rows<'s, T> = VecCollection<'s, T, RowBytes, isize>;
/// Rows by key.
type Keyed<'s, T> = VecCollection<'s, T, (RowBytes, RowBytes), isize>;
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

/// What a join is put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    /// Left and right rows of one key.
    Pairs,
    /// Left rows whose key the right side has.
    Matched,
}

fn halves(kind: Matches) -> &'static [Half] {
    match kind {
        Matches::Pairs => &[Half::Pairs],
        Matches::PairsAndUnmatched => &[Half::Pairs, Half::Matched],
        Matches::Matched | Matches::Unmatched => &[Half::Matched],
    }
}

/// Makes one row of a left and a right row.
#[derive(Clone)]
enum Pair {
    Left,
    Both,
    Picks(Picks),
}

impl Pair {
    fn of(&self, left: &RowBytes, right: &RowBytes) -> Option<RowBytes> {
        Some(match self {
            Self::Left => left.clone(),
            Self::Both => RowBytes::of_parts([left.bytes(), right.bytes()].into_iter()),
            Self::Picks(picks) => picks.of_pair(left, right),
        })
    }
}

/// A join that is being built.
struct JoinParts<'s, T: Timestamp + Lattice> {
    left: Rows<'s, T>,
    kind: Matches,
    pair: Pair,
    pairs: Option<Rows<'s, T>>,
    matched: Option<Rows<'s, T>>,
}

impl<'s, T: Timestamp + Lattice> JoinParts<'s, T> {
    fn new(compiled: &Compiled, plan: &JoinPlan, left: Rows<'s, T>) -> Result<Self> {
        let pair = Picks::new(&both_sides(compiled, plan)?, &plan.places);
        Ok(Self {
            left,
            kind: plan.kind,
            pair: pair.map_or(Pair::Both, Pair::Picks),
            pairs: None,
            matched: None,
        })
    }

    fn halves(&self) -> &'static [Half] {
        halves(self.kind)
    }

    fn pair(&self, half: Half) -> Pair {
        match half {
            Half::Pairs => self.pair.clone(),
            Half::Matched => Pair::Left,
        }
    }

    fn add(&mut self, half: Half, rows: Rows<'s, T>) {
        match half {
            Half::Pairs => self.pairs = Some(rows),
            Half::Matched => self.matched = Some(rows),
        }
    }

    fn finish(
        self,
        compiled: &Compiled,
        plan: &JoinPlan,
        schema: &SchemaRef,
        context: &Context,
    ) -> Result<Rows<'s, T>> {
        let missing = || Error::bug("a join was finished before it was built");
        let unmatched = |matched: Option<Rows<'s, T>>| -> Result<Rows<'s, T>> {
            Ok(self
                .left
                .clone()
                .concat(matched.ok_or_else(missing)?.negate()))
        };
        let both = match plan.kind {
            Matches::Matched => return self.matched.ok_or_else(missing),
            Matches::Unmatched => return unmatched(self.matched),
            Matches::Pairs => self.pairs.ok_or_else(missing)?,
            Matches::PairsAndUnmatched => {
                let nulls = RowCodec::of(&compiled.steps[plan.right].schema)?.nulls()?;
                let pair = self.pair.clone();
                let alone = unmatched(self.matched)?.flat_map(move |left| pair.of(&left, &nulls));
                self.pairs.ok_or_else(missing)?.concat(alone)
            }
        };
        let picked = match &self.pair {
            Pair::Both => pick(both, &both_sides(compiled, plan)?, plan, schema, context)?,
            _ => both,
        };
        match &plan.filter {
            None => Ok(picked),
            Some(predicate) => filter(picked, predicate, schema, context),
        }
    }
}

/// The bytes of a left row with a right row behind it.
fn both_sides(compiled: &Compiled, plan: &JoinPlan) -> Result<RowCodec> {
    let sides = [plan.left, plan.right].map(|side| &compiled.steps[side].schema);
    let fields = sides.iter().flat_map(|schema| schema.fields());
    RowCodec::new(fields.map(|f| f.data_type().clone()))
}

/// The columns of the result of a join, where columns are not at fixed places.
fn pick<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    both: &RowCodec,
    plan: &JoinPlan,
    schema: &SchemaRef,
    context: &Context,
) -> Result<Rows<'s, T>> {
    let both = both.again()?;
    let (places, made) = (plan.places.clone(), RowCodec::of(schema)?);
    Ok(by_batch(rows, context, move |rows| {
        let columns = both.decode(rows.iter().copied())?;
        let columns: Vec<ArrayRef> = places.iter().map(|p| Arc::clone(&columns[*p])).collect();
        Ok(made
            .encode(&columns, rows.len())?
            .into_iter()
            .map(Some)
            .collect())
    }))
}

/// A step that reads rows alone, and no index.
fn plain_step<'s, T: Timestamp + Lattice>(
    compiled: &Compiled,
    kind: &Kind,
    context: &Context,
    rows: impl Fn(usize) -> Result<Rows<'s, T>>,
) -> Result<Rows<'s, T>> {
    let schema_of = |n: usize| &compiled.steps[n].schema;
    match kind {
        Kind::Select {
            from,
            columns,
            places,
        } => select(
            rows(*from)?,
            columns,
            places.as_deref(),
            schema_of(*from),
            context,
        ),
        Kind::Filter { from, predicate } => {
            filter(rows(*from)?, predicate, schema_of(*from), context)
        }
        Kind::Aggregate { from, aggregation } => {
            aggregate(rows(*from)?, aggregation, schema_of(*from), context)
        }
        Kind::Distinct { from } => Ok(distinct(rows(*from)?)),
        Kind::Union { from } => {
            let mut all = from
                .iter()
                .map(|part| rows(*part))
                .collect::<Result<Vec<_>>>()?;
            let first = all.remove(0);
            Ok(first.concatenate(all))
        }
        Kind::Input(_) | Kind::Variable | Kind::Join(_) | Kind::Iterate { .. } => {
            Err(Error::bug("a step of a relation stands where it cannot"))
        }
    }
}

/// Each of the rows that are there once.
fn distinct<T: Timestamp + Lattice>(rows: Rows<'_, T>) -> Rows<'_, T> {
    rows.threshold(|_, times| isize::from(*times > 0))
}

fn select<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    columns: &[Expression],
    places: Option<&[usize]>,
    schema: &SchemaRef,
    context: &Context,
) -> Result<Rows<'s, T>> {
    let read = RowCodec::of(schema)?;
    if let Some(picks) = places.and_then(|places| Picks::new(&read, places)) {
        return Ok(rows.map(move |row| picks.of(&row)));
    }
    let types = columns.iter().map(|c| plain_type(c.data_type()));
    let made = RowCodec::new(types)?;
    let (columns, schema) = (columns.to_vec(), Arc::clone(schema));
    Ok(by_batch(rows, context, move |rows| {
        let batch = read.batch(&schema, rows)?;
        let values = columns.iter().map(|c| c.evaluate(&batch));
        let bytes = made.encode(&values.collect::<Result<Vec<_>>>()?, rows.len())?;
        Ok(bytes.into_iter().map(Some).collect())
    }))
}

fn filter<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    predicate: &Expression,
    schema: &SchemaRef,
    context: &Context,
) -> Result<Rows<'s, T>> {
    let read = RowCodec::of(schema)?;
    let (predicate, schema) = (predicate.clone(), Arc::clone(schema));
    Ok(by_batch(rows, context, move |rows| {
        let mask = predicate.evaluate_mask(&read.batch(&schema, rows)?)?;
        let kept = rows
            .iter()
            .enumerate()
            .map(|(n, row)| (mask.is_valid(n) && mask.value(n)).then(|| (*row).clone()));
        Ok(kept.collect())
    }))
}

/// Rows with their keys; those with a null key match nothing, and are left out.
fn by_key<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    keying: &Keying,
    step: &CompiledStep,
    context: &Context,
) -> Result<Keyed<'s, T>> {
    let read = RowCodec::of(&step.schema)?;
    let places = keying.places.as_deref();
    if let Some(picks) = places.and_then(|places| Picks::new(&read, places)) {
        return Ok(rows.flat_map(move |row| (!picks.has_null(&row)).then(|| (picks.of(&row), row))));
    }
    let made = RowCodec::new(keying.types.iter().cloned())?;
    let (keys, schema) = (keying.keys.clone(), Arc::clone(&step.schema));
    Ok(by_batch(rows, context, move |rows| {
        let batch = read.batch(&schema, rows)?;
        let values = keys.iter().map(|key| key.evaluate(&batch));
        let values = values.collect::<Result<Vec<_>>>()?;
        let is_null = any_null(&values, rows.len());
        let keys = made
            .encode(&values, rows.len())?
            .into_iter()
            .zip(is_null)
            .zip(rows);
        let keyed = keys.map(|((key, is_null), row)| (!is_null).then(|| (key, (*row).clone())));
        Ok(keyed.collect())
    }))
}

fn aggregate<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    aggregation: &Arc<Aggregation>,
    schema: &SchemaRef,
    context: &Context,
) -> Result<Rows<'s, T>> {
    let (key_types, value_types) = aggregation.types();
    let (read, keys) = (RowCodec::of(schema)?, RowCodec::new(key_types)?);
    let values = value_types.iter().map(|t| RowCodec::new([t.clone()]));
    let values = values.collect::<Result<Vec<_>>>()?;
    let (prepared, schema) = (Arc::clone(aggregation), Arc::clone(schema));
    let keyed: Keyed<'s, T> = by_batch(rows, context, move |rows| {
        let batch = read.batch(&schema, rows)?;
        let (key_columns, value_columns) = prepared.prepare(&batch)?;
        let keys = keys.encode(&key_columns, rows.len())?;
        let mut encoded = Vec::with_capacity(values.len());
        for (codec, column) in values.iter().zip(value_columns) {
            encoded.push(codec.encode(&[column], rows.len())?);
        }
        let joined = (0..rows.len()).map(|row| {
            join_values(
                &encoded
                    .iter()
                    .map(|values| &values[row])
                    .collect::<Vec<_>>(),
            )
        });
        Ok(keys.into_iter().zip(joined).map(Some).collect())
    });
    let results = aggregation.results();
    let of_values = results.fields().iter().skip(aggregation.types().0.len());
    let nulls = of_values.map(|f| RowCodec::new([f.data_type().clone()])?.nulls());
    let nulls = nulls.collect::<Result<Vec<_>>>()?;
    let retractions = aggregation.retractions().to_vec();
    let failed = context.clone();
    let reduced = keyed.reduce(move |_, input, output| {
        match guard(&failed.id, || reduce(&retractions, &nulls, input)) {
            Ok(result) => output.push((result, 1)),
            Err(error) => failed.failure.set(error),
        }
    });
    let groups = reduced.map(|(key, values): (RowBytes, RowBytes)| {
        RowBytes::of_parts([key.bytes(), values.bytes()].into_iter())
    });
    if aggregation.gives_results() {
        return Ok(groups);
    }
    let (read, made) = (RowCodec::of(results)?, RowCodec::of(aggregation.output())?);
    let aggregation = Arc::clone(aggregation);
    Ok(by_batch(groups, context, move |rows| {
        let projected = aggregation.project(read.decode(rows.iter().copied())?)?;
        let bytes = made.encode(projected.columns(), rows.len())?;
        Ok(bytes.into_iter().map(Some).collect())
    }))
}

/// Rows through a function of many at once, which gives something or nothing for each.
fn by_batch<'s, T: Timestamp + Lattice, D: Data>(
    rows: Rows<'s, T>,
    context: &Context,
    mut function: impl FnMut(&[&RowBytes]) -> Result<Vec<Option<D>>> + 'static,
) -> VecCollection<'s, T, D, isize> {
    let context = context.clone();
    let stream = rows
        .inner
        .unary::<CapacityContainerBuilder<Vec<(D, T, isize)>>, _, _, _>(
            Pipeline,
            &context.id.clone(),
            move |_, _| {
                move |input, output| {
                    input.for_each(|capability, updates: &mut Vec<(RowBytes, T, isize)>| {
                        if context.failure.has_failed() {
                            return;
                        }
                        let rows: Vec<&RowBytes> = updates.iter().map(|(row, ..)| row).collect();
                        match guard(&context.id, || function(&rows)) {
                            Ok(made) => {
                                let made = updates.drain(..).zip(made).filter_map(
                                    |((_, time, diff), made)| Some((made?, time, diff)),
                                );
                                let mut made: Vec<(D, T, isize)> = made.collect();
                                output.session(&capability).give_container(&mut made);
                            }
                            Err(error) => context.failure.set(error),
                        }
                    });
                }
            },
        );
    stream.as_collection()
}
