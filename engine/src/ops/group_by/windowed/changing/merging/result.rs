//! What windows give, computed from their rows, and as bytes.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use crate::batch::BATCH_ROWS;
use crate::error::Result;
use crate::ops::group_by::changing::{Changed, Misfit};
use crate::ops::group_by::windowed::changing::open_window::show_group_in;
use crate::ops::group_by::windowed::changing::plan::ChangingWindowsPlan;
use crate::ops::rows_by_time::Run;
use crate::windowing::Window;

/// Makes bytes of the values of rows and of results, and the other way round.
pub(super) struct Bytes {
    types: Vec<DataType>,
    /// Nothing where there are no columns, as of rows that are only counted by their keys.
    converter: Option<RowConverter>,
}

impl Bytes {
    /// Of the values that aggregates read, as they travel.
    pub(super) fn of_values(plan: &ChangingWindowsPlan) -> Result<Self> {
        let fields = plan.travels.fields();
        Self::of(
            fields[plan.places_of_values()]
                .iter()
                .map(|f| f.data_type().clone()),
        )
    }

    /// Of keys and outputs.
    pub(super) fn of_results(plan: &ChangingWindowsPlan) -> Result<Self> {
        let fields = plan.of_groups.planned.output.fields();
        Self::of(fields.iter().map(|f| f.data_type().clone()))
    }

    fn of(types: impl Iterator<Item = DataType>) -> Result<Self> {
        let types: Vec<DataType> = types.collect();
        let fields = types.iter().map(|t| SortField::new(t.clone())).collect();
        let converter = match types.is_empty() {
            true => None,
            false => Some(RowConverter::new(fields)?),
        };
        Ok(Self { types, converter })
    }

    /// The bytes of each of these rows.
    pub(super) fn write(&self, columns: &[ArrayRef], n_rows: usize) -> Result<Vec<Box<[u8]>>> {
        let Some(converter) = &self.converter else {
            return Ok(vec![Box::default(); n_rows]);
        };
        let rows = converter.convert_columns(columns)?;
        Ok(rows.iter().map(|row| row.as_ref().into()).collect())
    }

    pub(super) fn read<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else {
            return Ok(Vec::new());
        };
        let parser = converter.parser();
        let columns = converter.convert_rows(rows.map(|row| parser.parse(row)))?;
        let columns = columns.into_iter().zip(&self.types);
        columns
            .map(|(column, of)| match column.data_type() == of {
                true => Ok(column),
                false => Ok(arrow::compute::cast(&column, of)?),
            })
            .collect()
    }
}

/// Keys and outputs of windows with these keys, each of the rows that stand beside it: their bytes and how often each
/// is there, of which those count that are there. `window_of` says which window each is.
pub(super) fn results_of<'a>(
    plan: &ChangingWindowsPlan,
    values: &Bytes,
    keys: Vec<ArrayRef>,
    window_of: impl Fn(usize) -> Window,
    windows: impl ExactSizeIterator<Item = impl Iterator<Item = (&'a [u8], i64)>>,
) -> Result<RecordBatch> {
    let named = |misfit: Misfit, n: usize| {
        misfit.named(&plan.of_groups.planned, n, |window| {
            let keys = keys.iter().map(|key| key.slice(window, 1)).collect();
            show_group_in(plan, keys, window_of(window))
        })
    };
    let n_windows = windows.len();
    let kinds = plan.of_groups.kinds.iter();
    let mut aggregates = kinds.map(|k| k.create()).collect::<Result<Vec<_>>>()?;
    for aggregate in &mut aggregates {
        aggregate.grow(n_windows);
    }
    let mut rows: Vec<(usize, &[u8], i8)> = Vec::new();
    let mut add = |rows: &mut Vec<(usize, &[u8], i8)>| -> Result<()> {
        let columns = values.read(rows.iter().map(|(_, row, _)| *row))?;
        let diffs: Vec<i8> = rows.iter().map(|(.., times)| *times).collect();
        let mut start = 0;
        let runs = rows.chunk_by(|a, b| a.0 == b.0).map(|run| {
            let rows = start..start + run.len();
            start = rows.end;
            let group = run[0].0;
            Run { group, rows }
        });
        let runs: Vec<Run> = runs.collect();
        let values = plan.of_groups.values_in(&columns);
        for (n, ((values, taken), aggregate)) in values.zip(&mut aggregates).enumerate() {
            let changed = Changed {
                runs: &runs,
                values,
                taken,
                diffs: &diffs,
            };
            aggregate.add(&changed).map_err(|e| named(e, n))?;
        }
        rows.clear();
        Ok(())
    };
    for (window, of_window) in windows.enumerate() {
        for (row, mut times) in of_window {
            while times > 0 {
                let at_once = i8::try_from(times).unwrap_or(i8::MAX);
                rows.push((window, row, at_once));
                times -= i64::from(at_once);
            }
            if rows.len() >= BATCH_ROWS {
                add(&mut rows)?;
            }
        }
    }
    add(&mut rows)?;
    let all: Vec<usize> = (0..n_windows).collect();
    let mut columns = keys.clone();
    for (n, aggregate) in aggregates.iter().enumerate() {
        columns.push(aggregate.values(&all).map_err(|e| named(e, n))?);
    }
    plan.project(columns)
}

/// Results as they leave, from their bytes.
pub(super) fn read_results<'a>(
    plan: &ChangingWindowsPlan,
    bytes: &Bytes,
    results: impl Iterator<Item = &'a [u8]>,
) -> Result<RecordBatch> {
    let columns = bytes.read(results)?;
    let schema = Arc::clone(&plan.of_groups.planned.output);
    Ok(RecordBatch::try_new(schema, columns)?)
}
