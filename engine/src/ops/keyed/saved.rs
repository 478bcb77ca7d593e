//! What a keyed transform keeps, as rows: the key and the window, then what stands there.
//!
//! ```text
//! cell.NAME   key…, window_start, window_end, NAME.value…
//! timers      key…, window_start, window_end, timer, tag, time, output_time
//! ends        key…, window_start, window_end, end              where state lives for a time
//! watermark   time                                             of each worker
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, FieldRef, Int64Type, Schema, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;

use super::operator::Core;
use super::timers::SetTimer;
use crate::error::{Error, Result};
use crate::event_time::{WINDOW_END, WINDOW_START, time_field};
use crate::state::StatePart;
use crate::transform::Watermark;
use crate::windowing::Window;

const CELL: &str = "cell.";
const TIMERS: &str = "timers";
const ENDS: &str = "ends";
const WATERMARK: &str = "watermark";

/// The state of an operator.
pub(super) fn save(core: &mut Core) -> Result<Vec<StatePart>> {
    let live = core.scopes.live();
    let saver = Saver::new(core, &live)?;
    let mut parts = Vec::new();
    let plan = Arc::clone(&core.plan);
    for (cell, cells) in plan.cells.iter().zip(&mut core.cells) {
        let (places, columns) = cells.save(&live)?;
        let fields = cell.fields.iter().map(|field| {
            let name = format!("{}.{}", cell.name, field.name());
            Arc::new(Field::clone(field).with_name(name))
        });
        let table = format!("{CELL}{}", cell.name);
        parts.extend(saver.parts(&table, &places, fields.collect(), columns)?);
    }
    parts.extend(save_timers(core, &live, &saver)?);
    if let Some(expiry) = &core.expiry {
        let places: Vec<u32> = (0u32..).take(live.len()).collect();
        let ends = live.iter().map(|scope| expiry.end(*scope));
        let ends: ArrayRef = Arc::new(Int64Array::from_iter_values(ends));
        parts.extend(saver.parts(ENDS, &places, vec![long("end")], vec![ends])?);
    }
    let time: ArrayRef = Arc::new(Int64Array::from(vec![core.watermark.0]));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(vec![long("time")])), vec![time])?;
    parts.push(StatePart::of_worker(WATERMARK, rows));
    Ok(parts)
}

/// The earliest and the latest watermark that a worker had heard of.
fn watermarks(state: &[StatePart]) -> Result<(Watermark, Watermark)> {
    let mut both: Option<(i64, i64)> = None;
    for StatePart { rows, .. } in state.iter().filter(|part| part.table == WATERMARK) {
        for &time in longs(rows, 0)? {
            let (least, latest) = both.unwrap_or((time, time));
            both = Some((least.min(time), latest.max(time)));
        }
    }
    let (least, latest) = both.unwrap_or((Watermark::START.0, Watermark::START.0));
    Ok((Watermark(least), Watermark(latest)))
}

fn long(name: &str) -> FieldRef {
    Arc::new(Field::new(name, arrow::datatypes::DataType::Int64, false))
}

fn text(name: &str) -> FieldRef {
    Arc::new(Field::new(name, arrow::datatypes::DataType::Utf8, false))
}

fn save_timers(core: &Core, live: &[usize], saver: &Saver) -> Result<Vec<StatePart>> {
    let mut places = Vec::new();
    let mut set: Vec<&SetTimer> = Vec::new();
    for (place, &scope) in (0u32..).zip(live) {
        for timer in core.timers.of(scope) {
            places.push(place);
            set.push(timer);
        }
    }
    let names = set.iter().map(|timer| core.timer_specs[timer.timer].name);
    let tags = set.iter().map(|timer| &*timer.tag);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(names)),
        Arc::new(StringArray::from_iter_values(tags)),
        Arc::new(Int64Array::from_iter_values(set.iter().map(|t| t.time))),
        Arc::new(Int64Array::from_iter_values(
            set.iter().map(|t| t.output_time),
        )),
    ];
    let fields = vec![
        text("timer"),
        text("tag"),
        long("time"),
        long("output_time"),
    ];
    saver.parts(TIMERS, &places, fields, columns)
}

/// The columns of keys and windows of the scopes that are alive.
struct Saver {
    names: Vec<String>,
    fields: Vec<FieldRef>,
    columns: Vec<ArrayRef>,
}

impl Saver {
    fn new(core: &Core, live: &[usize]) -> Result<Self> {
        let mut fields = core.plan.key_fields.clone();
        let names = fields.iter().map(|f| f.name().clone()).collect();
        let mut columns = core.scopes.key_columns(live)?;
        if core.lateness.is_windowed {
            fields.extend([WINDOW_START, WINDOW_END].map(time_field));
            columns.extend(core.scopes.window_columns(live));
        }
        Ok(Self {
            names,
            fields,
            columns,
        })
    }

    /// Rows by key group: of each the place of its scope, and its columns.
    fn parts(
        &self,
        table: &str,
        places: &[u32],
        fields: Vec<FieldRef>,
        columns: Vec<ArrayRef>,
    ) -> Result<Vec<StatePart>> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let places = UInt32Array::from(places.to_vec());
        let mut all = Vec::with_capacity(self.columns.len() + columns.len());
        for column in &self.columns {
            all.push(take(column, &places, None)?);
        }
        all.extend(columns);
        let fields: Vec<FieldRef> = self.fields.iter().cloned().chain(fields).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), all)?;
        StatePart::by_key(table, &rows, &self.names)
    }
}

/// Takes over the state of operators, some of which may not have heard of the watermark that others had: it is where
/// the latest was, since that has let go what was over by then. Gives where the earliest was: what is due since then
/// is still to be done.
pub(super) fn restore(core: &mut Core, state: &[StatePart]) -> Result<Watermark> {
    for StatePart { table, rows, .. } in state.iter().filter(|part| part.table != WATERMARK) {
        let scopes = scopes_of(core, rows)?;
        let n_before = core.plan.key_fields.len() + 2 * usize::from(core.lateness.is_windowed);
        if let Some(name) = table.strip_prefix(CELL) {
            let place = core.cell_names.iter().position(|n| *n == name);
            let place = place.ok_or_else(|| unknown("cell", name))?;
            core.cells[place].restore(&scopes, &rows.columns()[n_before..])?;
        } else if table == TIMERS {
            restore_timers(core, &scopes, rows, n_before)?;
        } else if table == ENDS
            && let Some(expiry) = &mut core.expiry
        {
            for (scope, end) in scopes.iter().zip(longs(rows, n_before)?) {
                expiry.set(*scope, *end);
            }
        }
    }
    let (least, latest) = watermarks(state)?;
    core.watermark = latest;
    Ok(least)
}

fn unknown(what: &str, name: &str) -> Error {
    Error::data(format!(
        "the saved state holds {what} {name:?}, which is not declared"
    ))
    .with_hint("Declare it, or start without the saved state.")
}

/// The scope of each row, which is alive from here on.
fn scopes_of(core: &mut Core, rows: &RecordBatch) -> Result<Vec<usize>> {
    let n_keys = core.plan.key_fields.len();
    let numbers = match core.lateness.is_windowed {
        true => {
            let starts = times(rows, n_keys)?.iter();
            let both = starts.zip(times(rows, n_keys + 1)?);
            let windows = both.map(|(&start, &end)| Window { start, end });
            Some(
                windows
                    .map(|w| core.scopes.window_number(w))
                    .collect::<Vec<_>>(),
            )
        }
        false => None,
    };
    let mut scopes = Vec::new();
    let keys = &rows.columns()[..n_keys];
    core.scopes
        .number(keys, numbers.as_deref(), rows.num_rows(), &mut scopes)?;
    scopes.iter().for_each(|scope| core.scopes.enliven(*scope));
    core.make_room();
    Ok(scopes)
}

fn restore_timers(
    core: &mut Core,
    scopes: &[usize],
    rows: &RecordBatch,
    n_before: usize,
) -> Result<()> {
    let names = texts(rows, n_before)?;
    let tags = texts(rows, n_before + 1)?;
    let due = longs(rows, n_before + 2)?;
    let output = longs(rows, n_before + 3)?;
    for (row, &scope) in scopes.iter().enumerate() {
        let name = names.value(row);
        let place = core.timer_specs.iter().position(|t| t.name == name);
        let timer = place.ok_or_else(|| unknown("timer", name))?;
        let set = SetTimer {
            timer,
            tag: tags.value(row).into(),
            domain: core.timer_specs[timer].domain,
            time: due[row],
            output_time: output[row],
            n_after_end: 0,
        };
        core.timers.set(scope, set);
    }
    Ok(())
}

fn other_type(place: usize) -> Error {
    Error::data(format!(
        "column {place} of the saved state is of another type"
    ))
}

fn longs(rows: &RecordBatch, place: usize) -> Result<&[i64]> {
    let column = rows.columns().get(place);
    let values = column.and_then(|c| c.as_primitive_opt::<Int64Type>());
    values
        .map(|v| &**v.values())
        .ok_or_else(|| other_type(place))
}

fn times(rows: &RecordBatch, place: usize) -> Result<&[i64]> {
    let column = rows.columns().get(place);
    let values = column.and_then(|c| c.as_primitive_opt::<TimestampMillisecondType>());
    values
        .map(|v| &**v.values())
        .ok_or_else(|| other_type(place))
}

fn texts(rows: &RecordBatch, place: usize) -> Result<&StringArray> {
    let column = rows.columns().get(place);
    column
        .and_then(|c| c.as_string_opt::<i32>())
        .ok_or_else(|| other_type(place))
}
