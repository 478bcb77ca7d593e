//! States of the rows of one batch, which leave with it.

use std::sync::Arc;

use arrow::array::{AsArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::UInt32Type;
use arrow::record_batch::RecordBatch;

use super::Open;
use crate::error::Result;
use crate::keys::keys_of;
use crate::ops::group_by::planned::Inputs;
use crate::ops::group_by::table::{GroupTable, States, states_of_rows};
use crate::ops::group_by::windowed::results::times_column;
use crate::ops::group_by::windowed::slices::{Merged, Sliced};

impl Open {
    /// States of groups within the batch.
    pub(super) fn aggregated(
        &self,
        inputs: Inputs,
        sliced: &Sliced,
        n_rows: usize,
    ) -> Result<Vec<RecordBatch>> {
        let mut inputs = match &sliced.rows {
            Some(rows) => inputs.picked(&UInt32Array::from(rows.clone()))?,
            None => inputs,
        };
        let n_entries = sliced.n_entries(n_rows);
        if n_entries == 0 {
            return Ok(Vec::new());
        }
        if let [slice] = sliced.slices.as_slice() {
            let mut table = GroupTable::new(&self.plan.planned)?;
            table.update(&inputs, n_entries)?;
            let rows = table.take_states()?;
            return rows
                .iter()
                .map(|rows| self.in_slice(rows, slice.span))
                .collect();
        }
        let slices = (0..n_entries).map(|n| u32::try_from(sliced.slice_of(n)).unwrap_or(u32::MAX));
        inputs
            .keys
            .insert(0, Arc::new(UInt32Array::from_iter_values(slices)));
        let mut table = GroupTable::new(&self.plan.by_slice)?;
        table.update(&inputs, n_entries)?;
        let all = table.take_states()?.into_iter().map(|rows| {
            let of = rows.column(0).as_primitive::<UInt32Type>().values();
            let slices = of.iter().map(|slice| sliced.slices[*slice as usize].span);
            let mut columns = vec![
                times_column(slices.clone().map(|span| span.start)),
                times_column(slices.map(|span| span.end)),
            ];
            columns.extend(rows.columns()[1..].iter().cloned());
            Ok(RecordBatch::try_new(
                Arc::clone(&self.plan.travels),
                columns,
            )?)
        });
        all.collect()
    }

    /// A state for each row.
    pub(super) fn as_states(&self, inputs: Inputs, sliced: &Sliced) -> Result<RecordBatch> {
        let inputs = match &sliced.rows {
            Some(rows) => inputs.picked(&UInt32Array::from(rows.clone()))?,
            None => inputs,
        };
        let states = states_of_rows(&self.plan.planned, &self.converters, inputs)?;
        let spans = (0..states.num_rows()).map(|n| sliced.slices[sliced.slice_of(n)].span);
        let mut columns = vec![
            times_column(spans.clone().map(|span| span.start)),
            times_column(spans.map(|span| span.end)),
        ];
        columns.extend(states.columns().iter().cloned());
        Ok(RecordBatch::try_new(
            Arc::clone(&self.plan.travels),
            columns,
        )?)
    }

    /// Merges the windows of each key within the batch, so that fewer travel.
    pub(super) fn merge_windows(
        &self,
        inputs: &Inputs,
        n_rows: usize,
        sliced: &mut Sliced,
    ) -> Result<Merged> {
        let fields = self.plan.planned.key_fields.iter();
        let types: Vec<_> = fields.map(|f| f.data_type().clone()).collect();
        let mut numbers = Vec::new();
        keys_of(&types)?.number(&inputs.keys, n_rows, &mut numbers)?;
        let window_fn = &*self.plan.windowing.window_fn;
        Ok(sliced.merge(window_fn, |row| numbers[row], n_rows))
    }

    /// States of keys in windows within the batch.
    pub(super) fn aggregated_in_windows(
        &self,
        inputs: Inputs,
        sliced: &Sliced,
        merged: &Merged,
    ) -> Result<RecordBatch> {
        let Inputs { keys, arguments } = match &sliced.rows {
            Some(rows) => inputs.picked(&UInt32Array::from(rows.clone()))?,
            None => inputs,
        };
        let first = &merged.first;
        let spans = first
            .iter()
            .map(|n| sliced.slices[sliced.slice_of(*n as usize)].span);
        let mut columns = vec![
            times_column(spans.clone().map(|span| span.start)),
            times_column(spans.map(|span| span.end)),
        ];
        let first = UInt32Array::from(first.clone());
        for (key, field) in keys.iter().zip(&self.plan.planned.key_fields) {
            columns.push(cast(&take(key, &first, None)?, field.data_type())?);
        }
        let mut states = States::new(&self.plan.planned)?;
        states.update(&arguments, &merged.groups, first.len())?;
        columns.extend(states.take_states()?);
        let travels = Arc::clone(&self.plan.travels);
        Ok(RecordBatch::try_new(travels, columns)?)
    }
}
