//! Steps that read rows alone, and no index.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use differential_dataflow::VecCollection;
use differential_dataflow::lattice::Lattice;
use timely::progress::Timestamp;

use super::bad_rows::{Gathered, RowKinds};
use super::codec::{Picks, RowCodec, any_null};
use super::reduce::{join_values, reduce};
use super::row::RowBytes;
use super::seen::Seen;
use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::incremental::{Compiled, Keying, Kind};
use crate::keys::plain_type;
use crate::ops::Aggregation;
use crate::runner::failure::Failure;
use crate::runner::metrics::NodeMetrics;

/// What the operators of a relation share in one scope.
#[derive(Clone)]
pub(super) struct Context<'s, T: Timestamp> {
    pub(super) id: Arc<str>,
    pub(super) failure: Arc<Failure>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) kinds: RowKinds,
    pub(super) bad_rows: Gathered<'s, T>,
}

impl<T: Timestamp> Context<'_, T> {
    /// The same in another scope.
    pub(super) fn in_scope<'s, U: Timestamp>(&self) -> Context<'s, U> {
        Context {
            id: Arc::clone(&self.id),
            failure: Arc::clone(&self.failure),
            metrics: Arc::clone(&self.metrics),
            kinds: self.kinds.clone(),
            bad_rows: Gathered::default(),
        }
    }
}

/// Rows that change.
pub(super) type Rows<'s, T> = VecCollection<'s, T, RowBytes, isize>;
/// Rows by key.
pub(super) type Keyed<'s, T> = VecCollection<'s, T, (RowBytes, RowBytes), isize>;

/// A step that reads rows alone, and no index.
pub(super) fn plain_step<'s, T: Timestamp + Lattice>(
    compiled: &Compiled,
    number: usize,
    context: &Context<'s, T>,
    rows: impl Fn(usize) -> Result<Rows<'s, T>>,
) -> Result<Rows<'s, T>> {
    let seen = |from: usize| Seen::new(rows(from)?, compiled, from, context);
    match &compiled.steps[number].kind {
        Kind::Select {
            from,
            columns,
            places,
        } => select(seen(*from)?, columns, places.as_deref()),
        Kind::Filter { from, predicate } => filter(seen(*from)?, predicate),
        Kind::Aggregate { from, aggregation } => {
            aggregate(seen(*from)?, compiled, number, aggregation)
        }
        Kind::Distinct { from } => Ok(distinct(rows(*from)?)),
        Kind::Union { from } => {
            let mut all = from
                .iter()
                .map(|part| rows(*part))
                .collect::<Result<Vec<_>>>()?;
            let first = all.remove(0);
            Ok(match all.is_empty() {
                true => first,
                false => first.concatenate(all),
            })
        }
        Kind::Input(_)
        | Kind::Variable { .. }
        | Kind::Enter { .. }
        | Kind::Join(_)
        | Kind::Iterate { .. } => Err(Error::bug("a step of a relation stands where it cannot")),
    }
}

/// Each of the rows that are there once.
pub(super) fn distinct<T: Timestamp + Lattice>(rows: Rows<'_, T>) -> Rows<'_, T> {
    rows.threshold(|_, times| isize::from(*times > 0))
}

fn select<'s, T: Timestamp + Lattice>(
    seen: Seen<'s, T>,
    columns: &[Expression],
    places: Option<&[usize]>,
) -> Result<Rows<'s, T>> {
    if let Some(picks) = places.and_then(|places| Picks::new(seen.codec(), places)) {
        return Ok(seen.rows().map(move |row| picks.of(&row)));
    }
    let types = columns.iter().map(|c| plain_type(c.data_type()));
    let made = RowCodec::new(types)?;
    let columns = columns.to_vec();
    Ok(seen.through(
        move |batch| columns.iter().map(|c| c.evaluate(batch)).collect(),
        move |values: Vec<ArrayRef>, rows| {
            let bytes = made.encode(&values, rows.len())?;
            Ok(bytes.into_iter().map(Some).collect())
        },
    ))
}

pub(super) fn filter<'s, T: Timestamp + Lattice>(
    seen: Seen<'s, T>,
    predicate: &Expression,
) -> Result<Rows<'s, T>> {
    let predicate = predicate.clone();
    Ok(seen.through(
        move |batch| predicate.evaluate_mask(batch),
        |mask, rows| {
            let kept = rows.iter().enumerate();
            let kept =
                kept.map(|(n, row)| (mask.is_valid(n) && mask.value(n)).then(|| (*row).clone()));
            Ok(kept.collect())
        },
    ))
}

/// Rows with their keys; those with a null key match nothing, and are left out.
pub(super) fn by_key<'s, T: Timestamp + Lattice>(
    seen: Seen<'s, T>,
    keying: &Keying,
) -> Result<Keyed<'s, T>> {
    let places = keying.places.as_deref();
    if let Some(picks) = places.and_then(|places| Picks::new(seen.codec(), places)) {
        let rows = seen.rows();
        return Ok(rows.flat_map(move |row| (!picks.has_null(&row)).then(|| (picks.of(&row), row))));
    }
    let made = RowCodec::new(keying.types.iter().cloned())?;
    let keys = keying.keys.clone();
    Ok(seen.through(
        move |batch| keys.iter().map(|key| key.evaluate(batch)).collect(),
        move |values: Vec<ArrayRef>, rows| {
            let is_null = any_null(&values, rows.len());
            let keys = made.encode(&values, rows.len())?.into_iter();
            let keyed = keys.zip(is_null).zip(rows);
            let keyed =
                keyed.map(|((key, is_null), row)| (!is_null).then(|| (key, (*row).clone())));
            Ok(keyed.collect())
        },
    ))
}

/// Rows that have no key, as it is null or fails: those that [`by_key`] leaves out.
pub(super) fn without_key<'s, T: Timestamp + Lattice>(
    seen: Seen<'s, T>,
    keying: &Keying,
) -> Result<Rows<'s, T>> {
    let places = keying.places.as_deref();
    if let Some(picks) = places.and_then(|places| Picks::new(seen.codec(), places)) {
        return Ok(seen.rows().filter(move |row| picks.has_null(row)));
    }
    let keys = keying.keys.clone();
    Ok(seen.through_with_bad(
        move |batch| keys.iter().map(|key| key.evaluate(batch)).collect(),
        |values: Vec<ArrayRef>, rows| {
            let left_out = any_null(&values, rows.len()).into_iter().zip(rows);
            let left_out = left_out.map(|(is_null, row)| is_null.then(|| (*row).clone()));
            Ok(left_out.collect())
        },
        |bad| Some(bad.clone()),
    ))
}

/// Rows but those whose key fails, of which [`by_key`] tells.
pub(super) fn with_good_key<'s, T: Timestamp + Lattice>(
    seen: Seen<'s, T>,
    keying: &Keying,
) -> Rows<'s, T> {
    if keying.places.is_some() {
        return seen.rows();
    }
    let keys = keying.keys.clone();
    seen.through_with_bad(
        move |batch| keys.iter().map(|key| key.evaluate(batch)).collect(),
        |_: Vec<ArrayRef>, rows| Ok(rows.iter().map(|row| Some((*row).clone())).collect()),
        |_| None,
    )
}

/// Rows with the round in which they enter a loop; those for which it has none are bad.
pub(super) fn with_round<'s, T: Timestamp + Lattice>(
    seen: Seen<'s, T>,
    round: &Expression,
    max_rounds: u64,
) -> VecCollection<'s, T, (RowBytes, u64), isize> {
    let round = round.clone();
    seen.through(
        move |batch| {
            let rounds = round.evaluate(batch)?;
            let rounds = rounds.as_primitive::<Int64Type>().iter();
            let rounds = rounds.map(|n| checked_round(n, max_rounds, round.text()));
            rounds.collect::<Result<Vec<u64>>>()
        },
        |rounds, rows| {
            let rows = rows.iter().zip(rounds);
            Ok(rows
                .map(|(row, round)| Some(((*row).clone(), round)))
                .collect())
        },
    )
}

fn checked_round(round: Option<i64>, max_rounds: u64, text: &str) -> Result<u64> {
    let Some(round) = round else {
        return Err(Error::data(format!(
            "the round in which it enters, `{text}`, is null"
        )));
    };
    let in_loop = u64::try_from(round).ok().filter(|n| *n < max_rounds);
    in_loop.ok_or_else(|| {
        Error::data(format!(
            "the round in which it enters, `{text}`, is {round}, expected at least 0 and less than {max_rounds}"
        ))
    })
}

fn aggregate<'s, T: Timestamp + Lattice>(
    seen: Seen<'s, T>,
    compiled: &Compiled,
    number: usize,
    aggregation: &Arc<Aggregation>,
) -> Result<Rows<'s, T>> {
    let context = seen.context().clone();
    let keyed = by_group(seen, aggregation)?;
    let results = aggregation.results();
    let of_values = results.fields().iter().skip(aggregation.types().0.len());
    let nulls = of_values.map(|f| RowCodec::new([f.data_type().clone()])?.nulls());
    let nulls = nulls.collect::<Result<Vec<_>>>()?;
    let retractions = aggregation.retractions().to_vec();
    let failed = context.in_scope::<T>();
    let (of_group, keys) = (
        Arc::clone(aggregation),
        RowCodec::new(aggregation.types().0)?,
    );
    let reduced =
        keyed.reduce(
            move |key, input, output| match reduce(&retractions, &nulls, input) {
                Ok(result) => output.push((result, 1)),
                Err(error) => {
                    let keys = keys.decode(std::iter::once(key));
                    let group = keys.ok().and_then(|keys| of_group.show_group(&keys));
                    let error = match group {
                        Some(group) => error.with_detail(group),
                        None => error,
                    };
                    failed.failure.set(error.at_node(&failed.id));
                }
            },
        );
    let groups = reduced.map(|(key, values): (RowBytes, RowBytes)| {
        RowBytes::of_parts([key.bytes(), values.bytes()].into_iter())
    });
    if aggregation.gives_results() {
        return Ok(groups);
    }
    let groups = Seen::of_columns(groups, results, compiled, number, &context)?;
    let made = RowCodec::of(aggregation.output())?;
    let aggregation = Arc::clone(aggregation);
    Ok(groups.through(
        move |batch| aggregation.project(batch.columns().to_vec()),
        move |projected, rows| {
            let bytes = made.encode(projected.columns(), rows.len())?;
            Ok(bytes.into_iter().map(Some).collect())
        },
    ))
}

/// The key of each row's group, and the values that aggregates read.
fn by_group<'s, T: Timestamp + Lattice>(
    seen: Seen<'s, T>,
    aggregation: &Arc<Aggregation>,
) -> Result<Keyed<'s, T>> {
    if let Some((keys, values)) = aggregation.plain_places() {
        let read = seen.codec();
        let keys = Picks::new(read, &keys);
        let values = values.iter().map(|place| Picks::new(read, &[*place]));
        let values: Option<Vec<Picks>> = values.collect();
        if let (Some(keys), Some(values)) = (keys, values) {
            return Ok(seen.rows().map(move |row| {
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
    let keys = RowCodec::new(key_types)?;
    let values = value_types.iter().map(|t| RowCodec::new([t.clone()]));
    let values = values.collect::<Result<Vec<_>>>()?;
    let prepared = Arc::clone(aggregation);
    Ok(seen.through(
        move |batch| prepared.prepare(batch),
        move |(key_columns, value_columns): (Vec<ArrayRef>, Vec<ArrayRef>), rows| {
            let keys = keys.encode(&key_columns, rows.len())?;
            let mut encoded = Vec::with_capacity(values.len());
            for (codec, column) in values.iter().zip(value_columns) {
                encoded.push(codec.encode(&[column], rows.len())?);
            }
            let joined = (0..rows.len()).map(|row| {
                let values = encoded.iter().map(|values| &values[row]);
                join_values(&values.collect::<Vec<_>>())
            });
            Ok(keys.into_iter().zip(joined).map(Some).collect())
        },
    ))
}
