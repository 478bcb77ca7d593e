//! Steps that read rows alone, and no index.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, Data, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Timestamp;

use super::codec::{Picks, RowCodec, any_null};
use super::reduce::{join_values, reduce};
use super::row::RowBytes;
use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::incremental::{Compiled, CompiledStep, Keying, Kind};
use crate::keys::plain_type;
use crate::ops::Aggregation;
use crate::runner::failure::{Failure, guard};
use crate::runner::metrics::NodeMetrics;

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
pub(super) type Keyed<'s, T> = VecCollection<'s, T, (RowBytes, RowBytes), isize>;

/// A step that reads rows alone, and no index.
pub(super) fn plain_step<'s, T: Timestamp + Lattice>(
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
pub(super) fn distinct<T: Timestamp + Lattice>(rows: Rows<'_, T>) -> Rows<'_, T> {
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

pub(super) fn filter<'s, T: Timestamp + Lattice>(
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
pub(super) fn by_key<'s, T: Timestamp + Lattice>(
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

/// Rows that have no key: those that [`by_key`] leaves out.
pub(super) fn without_key<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    keying: &Keying,
    step: &CompiledStep,
    context: &Context,
) -> Result<Rows<'s, T>> {
    let read = RowCodec::of(&step.schema)?;
    let places = keying.places.as_deref();
    if let Some(picks) = places.and_then(|places| Picks::new(&read, places)) {
        return Ok(rows.filter(move |row| picks.has_null(row)));
    }
    let (keys, schema) = (keying.keys.clone(), Arc::clone(&step.schema));
    Ok(by_batch(rows, context, move |rows| {
        let batch = read.batch(&schema, rows)?;
        let values = keys.iter().map(|key| key.evaluate(&batch));
        let is_null = any_null(&values.collect::<Result<Vec<_>>>()?, rows.len());
        let left_out = is_null.into_iter().zip(rows);
        Ok(left_out
            .map(|(is_null, row)| is_null.then(|| (*row).clone()))
            .collect())
    }))
}

fn aggregate<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    aggregation: &Arc<Aggregation>,
    schema: &SchemaRef,
    context: &Context,
) -> Result<Rows<'s, T>> {
    let keyed = by_group(rows, aggregation, schema, context)?;
    let results = aggregation.results();
    let of_values = results.fields().iter().skip(aggregation.types().0.len());
    let nulls = of_values.map(|f| RowCodec::new([f.data_type().clone()])?.nulls());
    let nulls = nulls.collect::<Result<Vec<_>>>()?;
    let retractions = aggregation.retractions().to_vec();
    let failed = context.clone();
    let reduced = keyed.reduce(
        move |_, input, output| match reduce(&retractions, &nulls, input) {
            Ok(result) => output.push((result, 1)),
            Err(error) => failed.failure.set(error.at_node(&failed.id)),
        },
    );
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

/// The key of each row's group, and the values that aggregates read.
fn by_group<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    aggregation: &Arc<Aggregation>,
    schema: &SchemaRef,
    context: &Context,
) -> Result<Keyed<'s, T>> {
    if let Some((keys, values)) = aggregation.plain_places() {
        let read = RowCodec::of(schema)?;
        let keys = Picks::new(&read, &keys);
        let values = values.iter().map(|place| Picks::new(&read, &[*place]));
        let values: Option<Vec<Picks>> = values.collect();
        if let (Some(keys), Some(values)) = (keys, values) {
            return Ok(rows.map(move |row| {
                let values = match values.as_slice() {
                    [one] => one.of(&row),
                    several => {
                        let picked: Vec<RowBytes> = several.iter().map(|v| v.of(&row)).collect();
                        join_values(&picked.iter().collect::<Vec<_>>())
                    }
                };
                (keys.of(&row), values)
            }));
        }
    }
    let (key_types, value_types) = aggregation.types();
    let (read, keys) = (RowCodec::of(schema)?, RowCodec::new(key_types)?);
    let values = value_types.iter().map(|t| RowCodec::new([t.clone()]));
    let values = values.collect::<Result<Vec<_>>>()?;
    let (prepared, schema) = (Arc::clone(aggregation), Arc::clone(schema));
    Ok(by_batch(rows, context, move |rows| {
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
    }))
}

/// Rows through a function of many at once, which gives something or nothing for each.
pub(super) fn by_batch<'s, T: Timestamp + Lattice, D: Data>(
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
