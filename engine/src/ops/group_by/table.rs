//! Groups and the state of their aggregates, on one worker.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_common::DataFusionError;
use datafusion_expr::{EmitTo, GroupsAccumulator};

use super::exact_sum::{SumOverflow, wider_sum};
use super::planned::{Arguments, Inputs, Planned};
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::keys::{Keys, keys_of};

/// The accumulators of all aggregates, over groups that have numbers.
pub(super) struct States {
    planned: Arc<Planned>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl States {
    pub(super) fn new(planned: &Arc<Planned>) -> Result<Self> {
        Ok(Self {
            planned: Arc::clone(planned),
            accumulators: accumulators(planned)?,
        })
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.accumulators.iter().map(|a| a.size()).sum()
    }

    /// Takes in the arguments of rows, each row into its group; a new group must have a row.
    pub(super) fn update(
        &mut self,
        arguments: &[Arguments],
        groups: &[usize],
        n_groups: usize,
    ) -> Result<()> {
        let all = self.accumulators.iter_mut().zip(arguments);
        for (n, (accumulator, (values, filter))) in all.enumerate() {
            accumulator
                .update_batch(values, groups, filter.as_ref(), n_groups)
                .map_err(|e| failed(&self.planned, n, e))?;
        }
        Ok(())
    }

    /// Takes in the columns of states, each row into its group; a new group must have a row.
    pub(super) fn merge(
        &mut self,
        mut states: &[ArrayRef],
        groups: &[usize],
        n_groups: usize,
    ) -> Result<()> {
        for (n, accumulator) in self.accumulators.iter_mut().enumerate() {
            let (own, others) = states.split_at(self.planned.aggregates[n].states.len());
            states = others;
            accumulator
                .merge_batch(own, groups, n_groups)
                .map_err(|e| failed(&self.planned, n, e))?;
        }
        Ok(())
    }

    /// Makes as many groups, those that are new over no rows.
    pub(super) fn make_room(&mut self, n_groups: usize) -> Result<()> {
        let fields = self.planned.aggregates.iter().flat_map(|a| &a.states);
        let none: Vec<ArrayRef> = fields
            .map(|f| arrow::array::new_empty_array(f.data_type()))
            .collect();
        self.merge(&none, &[], n_groups)
    }

    /// The columns of the states of all groups; to be dropped afterwards.
    pub(super) fn take_states(&mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for (n, accumulator) in self.accumulators.iter_mut().enumerate() {
            let states = accumulator
                .state(EmitTo::All)
                .map_err(|e| failed(&self.planned, n, e))?;
            columns.extend(states);
        }
        Ok(columns)
    }

    /// The values of all groups, a column for each aggregate; to be dropped afterwards.
    ///
    /// `group_keys` gives the keys of a group, for an error that concerns one.
    pub(super) fn take_values(
        &mut self,
        group_keys: impl Fn(usize) -> Option<Vec<ArrayRef>>,
    ) -> Result<Vec<ArrayRef>> {
        let all = self.accumulators.iter_mut().enumerate();
        all.map(|(n, accumulator)| {
            let values = accumulator.evaluate(EmitTo::All);
            values.map_err(|error| failed_in_group(&self.planned, n, error, &group_keys))
        })
        .collect()
    }
}

/// A hash table of groups.
pub(super) struct GroupTable {
    planned: Arc<Planned>,
    keys: Box<dyn Keys>,
    states: States,
    /// The group of each row of the batch at hand.
    groups: Vec<usize>,
    /// Set while the outputs are given.
    results: Option<Results>,
}

/// The outputs of all groups, and the first that has not been given.
struct Results {
    columns: Vec<ArrayRef>,
    next: usize,
}

impl GroupTable {
    pub(super) fn new(planned: &Arc<Planned>) -> Result<Self> {
        let fields = &planned.key_fields;
        let types: Vec<_> = fields.iter().map(|f| f.data_type().clone()).collect();
        Ok(Self {
            planned: Arc::clone(planned),
            keys: keys_of(&types)?,
            states: States::new(planned)?,
            groups: Vec::new(),
            results: None,
        })
    }

    /// Says that about so many groups are to come.
    pub(super) fn expect(&mut self, n_groups: usize) {
        self.keys.expect(n_groups);
    }

    pub(super) fn n_groups(&self) -> usize {
        self.keys.len()
    }

    /// How many bytes of memory it keeps, about.
    pub(super) fn n_bytes(&self) -> usize {
        let results = self.results.iter().flat_map(|r| &r.columns);
        let results: usize = results.map(|c| c.get_array_memory_size()).sum();
        let groups = self.groups.capacity() * size_of::<usize>();
        self.keys.n_bytes() + self.states.n_bytes() + results + groups
    }

    /// Takes in rows.
    pub(super) fn update(&mut self, inputs: &Inputs, n_rows: usize) -> Result<()> {
        self.keys.number(&inputs.keys, n_rows, &mut self.groups)?;
        self.states
            .update(&inputs.arguments, &self.groups, self.keys.len())
    }

    /// Takes in keys and states, as [`GroupTable::take_states`] gives them.
    pub(super) fn merge(&mut self, rows: &RecordBatch) -> Result<()> {
        self.merge_columns(rows.columns(), rows.num_rows())
    }

    /// Takes in the columns of keys and states.
    pub(super) fn merge_columns(&mut self, columns: &[ArrayRef], n_rows: usize) -> Result<()> {
        let (keys, states) = columns.split_at(self.planned.key_fields.len());
        if self.keys.len() == 0 {
            // Rows of states are mostly of a group each.
            self.keys.expect(n_rows);
        }
        self.keys.number(keys, n_rows, &mut self.groups)?;
        self.states.merge(states, &self.groups, self.keys.len())
    }

    /// The keys and states of all groups, in batches; the table is empty afterwards.
    pub(super) fn take_states(&mut self) -> Result<Vec<RecordBatch>> {
        self.make_room_for_all()?;
        let columns = self.states.take_states()?;
        let n_groups = self.keys.len();
        let mut batches = Vec::with_capacity(n_groups.div_ceil(BATCH_ROWS));
        for start in (0..n_groups).step_by(BATCH_ROWS) {
            let range = start..n_groups.min(start + BATCH_ROWS);
            let mut part = self.keys.columns(range.clone())?;
            part.extend(columns.iter().map(|c| c.slice(start, range.len())));
            let schema = Arc::clone(&self.planned.states);
            batches.push(RecordBatch::try_new(schema, part)?);
        }
        *self = Self::new(&self.planned)?;
        Ok(batches)
    }

    /// Makes the outputs of all groups, for [`GroupTable::next_results`].
    ///
    /// The hash table is freed before, so that the results take the place of what led to them.
    pub(super) fn make_results(&mut self) -> Result<()> {
        self.keys.forget();
        self.make_room_for_all()?;
        let keys = &self.keys;
        let columns = self
            .states
            .take_values(|group| keys.columns(group..group + 1).ok())?;
        self.results = Some(Results { columns, next: 0 });
        Ok(())
    }

    /// The next batch of outputs; at the end there is none, and the table is empty.
    pub(super) fn next_results(&mut self) -> Result<Option<RecordBatch>> {
        let Some(Results { columns, next }) = &mut self.results else {
            return Ok(None);
        };
        let range = *next..self.keys.len().min(*next + BATCH_ROWS);
        if range.is_empty() {
            *self = Self::new(&self.planned)?;
            return Ok(None);
        }
        *next = range.end;
        let mut part = self.keys.columns(range.clone())?;
        part.extend(columns.iter().map(|c| c.slice(range.start, range.len())));
        self.planned.project(part).map(Some)
    }

    /// The outputs of all groups, in batches; the table is empty afterwards.
    pub(super) fn take_results(&mut self) -> Result<Vec<RecordBatch>> {
        self.make_results()?;
        std::iter::from_fn(|| self.next_results().transpose()).collect()
    }

    /// The group of an `agg` over nothing is there in the accumulators as well; with keys, groups have rows.
    fn make_room_for_all(&mut self) -> Result<()> {
        match self.planned.key_fields.is_empty() {
            true => self.states.make_room(self.keys.len()),
            false => Ok(()),
        }
    }
}

fn failed_in_group(
    planned: &Planned,
    aggregate: usize,
    error: DataFusionError,
    group_keys: &impl Fn(usize) -> Option<Vec<ArrayRef>>,
) -> Error {
    let overflow: Option<&SumOverflow> = match &error {
        DataFusionError::External(cause) => cause.downcast_ref(),
        _ => None,
    };
    match overflow {
        Some(overflow) => {
            let keys = group_keys(overflow.group);
            let group = keys.and_then(|keys| show_group(planned, &keys));
            too_large(planned, aggregate, overflow, group)
        }
        None => failed(planned, aggregate, error),
    }
}

/// A sum that does not fit its type, with the group that it is of, if that can be shown.
pub(super) fn too_large(
    planned: &Planned,
    aggregate: usize,
    overflow: &SumOverflow,
    group: Option<String>,
) -> Error {
    let text = &planned.aggregates[aggregate].text;
    let error = Error::data(format!("aggregate `{text}` failed: {overflow}"))
        .with_hint(wider_sum(&overflow.data_type));
    match group {
        Some(group) => error.with_detail(group),
        None => error,
    }
}

/// Says which group has these keys.
pub(super) fn show_group(planned: &Planned, keys: &[ArrayRef]) -> Option<String> {
    if keys.is_empty() {
        return Some("It is the sum of all rows.".to_owned());
    }
    let options = FormatOptions::default().with_null("null");
    let shown = planned.key_fields.iter().zip(keys).map(|(field, key)| {
        let value = ArrayFormatter::try_new(key.as_ref(), &options).ok()?;
        Some(format!("{} = {}", field.name(), value.value(0)))
    });
    let shown: Option<Vec<String>> = shown.collect();
    Some(format!("The group is {}.", shown?.join(", ")))
}

fn accumulators(planned: &Planned) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
    let all = planned.aggregates.iter().enumerate();
    all.map(|(n, a)| {
        a.kind
            .create(&a.function)
            .map_err(|e| failed(planned, n, e))
    })
    .collect()
}

/// Rows as states, one of each, without a table.
pub(super) fn states_of_rows(
    planned: &Planned,
    accumulators: &[Box<dyn GroupsAccumulator>],
    inputs: Inputs,
) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(planned.states.fields().len());
    for (key, field) in inputs.keys.into_iter().zip(&planned.key_fields) {
        columns.push(match key.data_type() == field.data_type() {
            true => key,
            false => arrow::compute::cast(&key, field.data_type())?,
        });
    }
    for (n, (values, filter)) in inputs.arguments.iter().enumerate() {
        let states = accumulators[n]
            .convert_to_state(values, filter.as_ref())
            .map_err(|e| failed(planned, n, e))?;
        columns.extend(states);
    }
    Ok(RecordBatch::try_new(Arc::clone(&planned.states), columns)?)
}

/// Accumulators that only convert rows.
pub(super) fn converters(planned: &Planned) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
    accumulators(planned)
}

fn failed(planned: &Planned, aggregate: usize, error: DataFusionError) -> Error {
    let text = &planned.aggregates[aggregate].text;
    let of = |detail: String| Error::data(format!("aggregate `{text}` failed: {detail}"));
    match error {
        DataFusionError::External(cause) => of(cause.to_string()),
        DataFusionError::ArrowError(cause, _) => of(cause.to_string()).with_source(*cause),
        other => of(other.strip_backtrace()).with_source(other),
    }
}
