//! Joins, put together from the pairs that match and from the rows that match at all.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use differential_dataflow::lattice::Lattice;
use timely::progress::Timestamp;

use super::codec::{Picks, RowCodec};
use super::row::RowBytes;
use super::steps::{Context, Rows, by_batch, filter};
use crate::error::{Error, Result};
use crate::incremental::{Compiled, JoinPlan, Matches};

/// What a join is put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Left and right rows of one key.
    Pairs,
    /// Left rows whose key the right side has.
    Matched,
}

pub(super) fn halves(kind: Matches) -> &'static [Half] {
    match kind {
        Matches::Pairs => &[Half::Pairs],
        Matches::PairsAndUnmatched => &[Half::Pairs, Half::Matched],
        Matches::Matched | Matches::Unmatched => &[Half::Matched],
    }
}

/// Makes one row of a left and a right row.
#[derive(Clone)]
pub(super) enum Pair {
    Left,
    Both,
    Picks(Picks),
}

impl Pair {
    pub(super) fn of(&self, left: &RowBytes, right: &RowBytes) -> Option<RowBytes> {
        Some(match self {
            Self::Left => left.clone(),
            Self::Both => RowBytes::of_parts([left.bytes(), right.bytes()].into_iter()),
            Self::Picks(picks) => picks.of_pair(left, right),
        })
    }
}

/// A join that is being built.
pub(super) struct JoinParts<'s, T: Timestamp + Lattice> {
    left: Rows<'s, T>,
    kind: Matches,
    pair: Pair,
    pairs: Option<Rows<'s, T>>,
    matched: Option<Rows<'s, T>>,
}

impl<'s, T: Timestamp + Lattice> JoinParts<'s, T> {
    pub(super) fn new(compiled: &Compiled, plan: &JoinPlan, left: Rows<'s, T>) -> Result<Self> {
        let pair = Picks::new(&both_sides(compiled, plan)?, &plan.places);
        Ok(Self {
            left,
            kind: plan.kind,
            pair: pair.map_or(Pair::Both, Pair::Picks),
            pairs: None,
            matched: None,
        })
    }

    pub(super) fn halves(&self) -> &'static [Half] {
        halves(self.kind)
    }

    pub(super) fn pair(&self, half: Half) -> Pair {
        match half {
            Half::Pairs => self.pair.clone(),
            Half::Matched => Pair::Left,
        }
    }

    pub(super) fn add(&mut self, half: Half, rows: Rows<'s, T>) {
        match half {
            Half::Pairs => self.pairs = Some(rows),
            Half::Matched => self.matched = Some(rows),
        }
    }

    pub(super) fn finish(
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
