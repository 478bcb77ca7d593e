//! Builds the operators of a relation in the dataflow of one worker.
//!
//! Each step becomes a collection of updates, made once whoever reads it; what joins read becomes an index, made
//! once for each step and keys. What a loop reads from outside is indexed outside and brought in.

use std::collections::BTreeMap;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::arrange::{Arranged, TraceAgent};
use differential_dataflow::trace::implementations::ValSpine;
use timely::dataflow::Scope;
use timely::progress::Timestamp;

use super::join::{JoinParts, Operand, halves};
use super::kept::{self, Indices};
use super::loops::render_loop;
use super::missing::missing;
use super::row::RowBytes;
use super::seen::Seen;
use super::steps::{Context, Keyed, Rows, by_key, distinct, plain_step, without_key};
use crate::error::{Error, Result};
use crate::incremental::{Compiled, Keying, Kind};
use crate::runner::time::LogicalTime;

pub(super) type Trace<T> = TraceAgent<ValSpine<RowBytes, RowBytes, T, isize>>;
/// Rows, found by their key.
pub(super) type Index<'s, T> = Arranged<'s, Trace<T>>;

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
                let rows = |step| layer.rows(step);
                let mut parts = JoinParts::new(compiled, plan, rows, context)?;
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
        layer.set_rows(n, rows);
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

/// The steps that have been built in one scope.
pub(super) struct Layer<'s, T: Timestamp + Lattice> {
    base: Context<'s, T>,
    /// By the innermost loop that steps stand in.
    contexts: BTreeMap<usize, Context<'s, T>>,
    rows: BTreeMap<usize, Rows<'s, T>>,
    /// By step, and by what its keys are.
    keyed: BTreeMap<(usize, String), Keyed<'s, T>>,
    /// By step, by what its keys are, and by whether only the keys are there.
    indices: BTreeMap<(usize, String, bool), Index<'s, T>>,
    /// The same for loops, where rows may be missing.
    indices_for_loops: BTreeMap<(usize, String, bool), Vec<Index<'s, T>>>,
    for_loops: BTreeMap<usize, Rows<'s, T>>,
}

impl<'s, T: Timestamp + Lattice> Layer<'s, T> {
    pub(super) fn new(context: &Context<'s, T>) -> Self {
        Self {
            base: context.clone(),
            contexts: BTreeMap::new(),
            rows: BTreeMap::new(),
            keyed: BTreeMap::new(),
            indices: BTreeMap::new(),
            indices_for_loops: BTreeMap::new(),
            for_loops: BTreeMap::new(),
        }
    }

    /// What steps share that stand in this loop, and in none inside of it.
    pub(super) fn context(&mut self, in_loop: Option<usize>) -> Context<'s, T> {
        match in_loop {
            None => self.base.clone(),
            Some(number) => {
                let context = self.contexts.entry(number);
                let base = &self.base;
                context.or_insert_with(|| base.in_scope()).clone()
            }
        }
    }

    pub(super) fn set_rows(&mut self, step: usize, rows: Rows<'s, T>) {
        self.rows.insert(step, rows);
    }

    pub(super) fn rows(&self, step: usize) -> Result<Rows<'s, T>> {
        let rows = self.rows.get(&step).cloned();
        rows.ok_or_else(|| Error::bug("a step of a relation was read before it was built"))
    }

    fn keyed(&mut self, compiled: &Compiled, step: usize, keying: &Keying) -> Result<Keyed<'s, T>> {
        let name = (step, keying.text.clone());
        if let Some(keyed) = self.keyed.get(&name) {
            return Ok(keyed.clone());
        }
        let context = self.context(compiled.steps[step].in_loop);
        let rows = Seen::new(self.rows(step)?, compiled, step, &context)?;
        let keyed = by_key(rows, keying)?;
        self.keyed.insert(name, keyed.clone());
        Ok(keyed)
    }

    /// The rows of a step by their keys, or the keys alone, each once; rows with a null key are left out.
    pub(super) fn index(
        &mut self,
        compiled: &Compiled,
        operand: Operand<'_>,
    ) -> Result<Index<'s, T>> {
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
            true => index_of_keys(rows),
        };
        self.indices.insert(name, index.clone());
        Ok(index)
    }
}

fn index_of_keys<'s, T: Timestamp + Lattice>(rows: Keyed<'s, T>) -> Index<'s, T> {
    let keys = distinct(rows.map(|(key, _)| key));
    keys.map(|key| (key, RowBytes::new(&[]))).arrange_by_key()
}

impl<'s> Layer<'s, LogicalTime> {
    /// The rows of a step as loops read them: none is there less often than not at all.
    pub(super) fn rows_for_loops(
        &mut self,
        compiled: &Compiled,
        step: usize,
    ) -> Result<Rows<'s, LogicalTime>> {
        let rows = self.rows(step)?;
        if !compiled.may_miss_rows(step) {
            return Ok(rows);
        }
        if let Some(rows) = self.for_loops.get(&step) {
            return Ok(rows.clone());
        }
        let by_row = rows.clone().map(|row| (row, RowBytes::new(&[])));
        let missing = missing(&by_row.arrange_by_key());
        let rows = rows.concat(missing.map(|(row, _)| row));
        self.for_loops.insert(step, rows.clone());
        Ok(rows)
    }

    /// The indices that together hold the rows of a step as loops read them.
    pub(super) fn indices_for_loops(
        &mut self,
        compiled: &Compiled,
        operand: Operand<'_>,
    ) -> Result<Vec<Index<'s, LogicalTime>>> {
        let Operand {
            step,
            keying,
            keys_only,
        } = operand;
        if !compiled.may_miss_rows(step) {
            return Ok(vec![self.index(compiled, operand)?]);
        }
        let name = (step, keying.text.clone(), keys_only);
        if let Some(indices) = self.indices_for_loops.get(&name) {
            return Ok(indices.clone());
        }
        let all = Operand {
            keys_only: false,
            ..operand
        };
        let index = self.index(compiled, all)?;
        let missing = missing(&index);
        let indices = match keys_only {
            false => vec![index, missing.arrange_by_key()],
            true => {
                let there = self.keyed(compiled, step, keying)?;
                vec![index_of_keys(there.concat(missing))]
            }
        };
        self.indices_for_loops.insert(name, indices.clone());
        Ok(indices)
    }

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
                let rows = Seen::new(rows.clone(), compiled, step, &self.base)?;
                let own = by_row(without_key(rows, keying)?);
                return Ok((vec![kept(index, false), kept(&own, true)], own));
            }
        }
        let own = by_row(rows.clone());
        Ok((vec![kept(&own, true)], own))
    }
}
