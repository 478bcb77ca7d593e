//! Joins, put together from the pairs that match and from the rows that match at all.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Schema, SchemaRef};
use differential_dataflow::lattice::Lattice;
use timely::progress::Timestamp;

use super::codec::{Picks, RowCodec};
use super::row::RowBytes;
use super::seen::Seen;
use super::steps::{Context, Rows, filter, with_good_key};
use crate::error::{Error, Result};
use crate::incremental::{Compiled, JoinPlan, Keying, Matches};

/// What a join is put together from: rows of two indices whose keys are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Left and right rows.
    Pairs,
    /// Left rows whose key the right side has.
    MatchedLeft,
    /// Right rows whose key the left side has.
    MatchedRight,
}

pub(super) fn halves(kind: Matches) -> &'static [Half] {
    match kind {
        Matches::Pairs => &[Half::Pairs],
        Matches::PairsAndUnmatched => &[Half::Pairs, Half::MatchedLeft],
        Matches::All => &[Half::Pairs, Half::MatchedLeft, Half::MatchedRight],
        Matches::Matched | Matches::Unmatched => &[Half::MatchedLeft],
    }
}

/// Whether rows of the left side that match none are given, and of the right one.
pub(super) fn keeps_alone(kind: Matches) -> [bool; 2] {
    match kind {
        Matches::Pairs | Matches::Matched => [false, false],
        Matches::PairsAndUnmatched | Matches::Unmatched => [true, false],
        Matches::All => [true, true],
    }
}

/// An index that a join reads.
#[derive(Clone, Copy)]
pub(super) struct Operand<'p> {
    pub(super) step: usize,
    pub(super) keying: &'p Keying,
    /// Which keys there are is all that is asked.
    pub(super) keys_only: bool,
}

impl Half {
    /// The indices whose keys must be equal.
    pub(super) fn operands(self, plan: &JoinPlan) -> [Operand<'_>; 2] {
        let left = |keys_only| Operand {
            step: plan.left,
            keying: &plan.left_keys,
            keys_only,
        };
        let right = |keys_only| Operand {
            step: plan.right,
            keying: &plan.right_keys,
            keys_only,
        };
        match self {
            Self::Pairs => [left(false), right(false)],
            Self::MatchedLeft => [left(false), right(true)],
            Self::MatchedRight => [right(false), left(true)],
        }
    }
}

/// Makes one row of the rows of two indices.
#[derive(Clone)]
pub(super) enum Pair {
    First,
    Both,
    Picks(Picks),
}

impl Pair {
    /// The columns at these places of a left row with a right row behind it; both rows, where columns are not
    /// at fixed places.
    fn new(both: &RowCodec, places: &[usize]) -> Self {
        Picks::new(both, places).map_or(Self::Both, Self::Picks)
    }

    pub(super) fn of(&self, first: &RowBytes, second: &RowBytes) -> Option<RowBytes> {
        Some(match self {
            Self::First => first.clone(),
            Self::Both => RowBytes::of_parts([first.bytes(), second.bytes()].into_iter()),
            Self::Picks(picks) => picks.of_pair(first, second),
        })
    }
}

/// A join that is being built.
pub(super) struct JoinParts<'s, T: Timestamp + Lattice> {
    /// The rows of which some match none, where these are given.
    left: Option<Rows<'s, T>>,
    right: Option<Rows<'s, T>>,
    kind: Matches,
    pair: Pair,
    made: Vec<(Half, Rows<'s, T>)>,
}

impl<'s, T: Timestamp + Lattice> JoinParts<'s, T> {
    pub(super) fn new(
        compiled: &Compiled,
        plan: &JoinPlan,
        rows: impl Fn(usize) -> Result<Rows<'s, T>>,
        context: &Context<'s, T>,
    ) -> Result<Self> {
        // A row whose key fails is bad, and none that matches nothing.
        let good = |step: usize, keying: &Keying| {
            let rows = Seen::new(rows(step)?, compiled, step, context)?;
            Ok::<_, Error>(with_good_key(rows, keying))
        };
        let [keeps_left, keeps_right] = keeps_alone(plan.kind);
        let of = |is_kept: bool, step, keying| is_kept.then(|| good(step, keying)).transpose();
        Ok(Self {
            left: of(keeps_left, plan.left, &plan.left_keys)?,
            right: of(keeps_right, plan.right, &plan.right_keys)?,
            kind: plan.kind,
            pair: Pair::new(&RowCodec::of(&both_sides(compiled, plan))?, &plan.places),
            made: Vec::new(),
        })
    }

    pub(super) fn halves(&self) -> &'static [Half] {
        halves(self.kind)
    }

    pub(super) fn pair(&self, half: Half) -> Pair {
        match half {
            Half::Pairs => self.pair.clone(),
            Half::MatchedLeft | Half::MatchedRight => Pair::First,
        }
    }

    pub(super) fn add(&mut self, half: Half, rows: Rows<'s, T>) {
        self.made.push((half, rows));
    }

    fn made(&self, half: Half) -> Result<Rows<'s, T>> {
        let made = self.made.iter().find(|(of, _)| *of == half);
        made.map(|(_, rows)| rows.clone())
            .ok_or_else(|| Error::bug("a join was finished before it was built"))
    }

    /// Rows of a side that match none.
    fn alone(&self, matched: Half) -> Result<Rows<'s, T>> {
        let all = match matched {
            Half::MatchedRight => &self.right,
            Half::MatchedLeft | Half::Pairs => &self.left,
        };
        let all = all.clone();
        let all = all.ok_or_else(|| Error::bug("a join lacks the rows of a side"))?;
        Ok(all.concat(self.made(matched)?.negate()))
    }

    pub(super) fn finish(
        self,
        compiled: &Compiled,
        plan: &JoinPlan,
        number: usize,
        context: &Context<'s, T>,
    ) -> Result<Rows<'s, T>> {
        let both = RowCodec::of(&both_sides(compiled, plan))?;
        let nulls = |step: usize| RowCodec::of(&compiled.steps[step].schema)?.nulls();
        let columns = |rows, pair: &Pair, places: &[usize]| match pair {
            Pair::Both => pick(rows, compiled, plan, number, places, context),
            Pair::First | Pair::Picks(_) => Ok(rows),
        };
        let mut rows = match self.kind {
            Matches::Matched => return self.made(Half::MatchedLeft),
            Matches::Unmatched => return self.alone(Half::MatchedLeft),
            Matches::Pairs | Matches::PairsAndUnmatched | Matches::All => self.made(Half::Pairs)?,
        };
        if self.kind != Matches::Pairs {
            let (nulls, pair) = (nulls(plan.right)?, self.pair.clone());
            let alone = self.alone(Half::MatchedLeft)?;
            rows = rows.concat(alone.flat_map(move |left| pair.of(&left, &nulls)));
        }
        rows = columns(rows, &self.pair, &plan.places)?;
        if self.kind == Matches::All {
            let alone = self.alone(Half::MatchedRight)?;
            let (nulls, pair) = (nulls(plan.left)?, Pair::new(&both, &plan.right_places));
            let made = pair.clone();
            let alone = alone.flat_map(move |right| made.of(&nulls, &right));
            rows = rows.concat(columns(alone, &pair, &plan.right_places)?);
        }
        match &plan.filter {
            None => Ok(rows),
            Some(predicate) => filter(Seen::new(rows, compiled, number, context)?, predicate),
        }
    }
}

/// The columns of a left row with a right row behind it.
fn both_sides(compiled: &Compiled, plan: &JoinPlan) -> SchemaRef {
    let sides = [plan.left, plan.right].map(|side| &compiled.steps[side].schema);
    let fields = sides.iter().flat_map(|schema| schema.fields().iter());
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

/// The columns of the result of a join, where columns are not at fixed places.
fn pick<'s, T: Timestamp + Lattice>(
    rows: Rows<'s, T>,
    compiled: &Compiled,
    plan: &JoinPlan,
    number: usize,
    places: &[usize],
    context: &Context<'s, T>,
) -> Result<Rows<'s, T>> {
    let both = both_sides(compiled, plan);
    let seen = Seen::of_columns(rows, &both, compiled, number, context)?;
    let made = RowCodec::of(&compiled.steps[number].schema)?;
    let places = places.to_vec();
    // What is only put together does not fail.
    Ok(seen.through_with_bad(
        move |both| {
            let picked = places.iter().map(|place| Arc::clone(both.column(*place)));
            Ok(picked.collect::<Vec<ArrayRef>>())
        },
        move |columns, rows| {
            let bytes = made.encode(&columns, rows.len())?;
            Ok(bytes.into_iter().map(Some).collect())
        },
        |_| None,
    ))
}
