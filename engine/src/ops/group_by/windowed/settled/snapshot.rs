//! Keys in windows as rows.
//!
//! Of each: `window_start`, `window_end`, the keys, the states (null where there is none), then what is known
//! of it, a column each, and the numbers of its trigger. What may be taken back stands in a table of its own.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, UInt64Array,
    new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{Field, Int64Type, Schema, TimestampMillisecondType};

use super::Settled;
use super::chunks::Place;
use super::entries::{Fired, NEVER};
use crate::error::{Error, Result};
use crate::event_time::{WINDOW_END, WINDOW_START, time_field};
use crate::ops::group_by::windowed::pane::{Pane, Timing};
use crate::ops::group_by::windowed::results::times_column;
use crate::state::StatePart;
use crate::windowing::Window;

/// Keys in windows.
pub(in crate::ops::group_by::windowed) const WINDOWS: &str = "windows";
/// Results that may have to be taken back.
pub(in crate::ops::group_by::windowed) const FIRED: &str = "fired";

/// The columns of [`WINDOWS`] after the states, before those of the trigger.
const KNOWN: [&str; 8] = [
    "has_state",
    "n_pending",
    "hold",
    "index",
    "nonspeculative_index",
    "is_finished",
    "is_past_end",
    "wakes_at",
];

impl Settled {
    /// What is kept, by key group.
    pub(in crate::ops::group_by::windowed) fn snapshot(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<StatePart>> {
        let ids: Vec<u32> = self.entries.all().map(|(id, _)| id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut parts = StatePart::by_key(WINDOWS, &self.rows_of_entries(&ids)?, keys)?;
        let fired = ids.iter().flat_map(|id| {
            let fired = self.entries.fired.get(id).into_iter().flatten();
            fired.map(|fired| (*id, *fired))
        });
        let fired: Vec<(u32, Fired)> = fired.collect();
        if !fired.is_empty() {
            parts.extend(StatePart::by_key(
                FIRED,
                &self.rows_of_fired(&fired)?,
                keys,
            )?);
        }
        Ok(parts)
    }

    fn rows_of_entries(&self, ids: &[u32]) -> Result<RecordBatch> {
        let entries: Vec<_> = ids.iter().map(|id| self.entries.get(*id)).collect();
        let mut columns = Columns::default();
        columns.windows(&entries.iter().map(|e| e.window).collect::<Vec<_>>());
        let keys: Vec<usize> = entries.iter().map(|e| e.key as usize).collect();
        let places: Vec<Place> = entries.iter().map(|e| e.place).collect();
        self.add_keys_and_states(&mut columns, &keys, &places)?;
        let numbers = |of: &dyn Fn(usize) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values((0..ids.len()).map(of)))
        };
        let flags = |of: &dyn Fn(usize) -> bool| -> ArrayRef {
            Arc::new(BooleanArray::from_iter((0..ids.len()).map(|n| Some(of(n)))))
        };
        let n_trigger = self.trigger.n_slots();
        columns.add(KNOWN[0], flags(&|n| !entries[n].place.is_none()));
        columns.add(KNOWN[1], numbers(&|n| entries[n].n_pending));
        let holds = entries.iter().map(|e| (e.hold != NEVER).then_some(e.hold));
        columns.add(KNOWN[2], Arc::new(holds.collect::<Int64Array>()));
        columns.add(KNOWN[3], numbers(&|n| entries[n].index));
        columns.add(KNOWN[4], numbers(&|n| entries[n].nonspeculative_index));
        columns.add(KNOWN[5], flags(&|n| entries[n].is_finished));
        columns.add(KNOWN[6], flags(&|n| entries[n].is_past_end));
        let wakes = entries.iter().map(|e| (e.wake != NEVER).then_some(e.wake));
        columns.add(KNOWN[7], Arc::new(wakes.collect::<Int64Array>()));
        for slot in 0..n_trigger {
            let values = numbers(&|n| self.entries.trigger(ids[n])[slot]);
            columns.add(&format!("trigger_{slot}"), values);
        }
        columns.finish()
    }

    fn rows_of_fired(&self, fired: &[(u32, Fired)]) -> Result<RecordBatch> {
        let mut columns = Columns::default();
        let entries: Vec<_> = fired.iter().map(|(id, _)| self.entries.get(*id)).collect();
        columns.windows(&entries.iter().map(|e| e.window).collect::<Vec<_>>());
        let keys: Vec<usize> = entries.iter().map(|e| e.key as usize).collect();
        let places: Vec<Place> = fired.iter().map(|(_, fired)| fired.place).collect();
        self.add_keys_and_states(&mut columns, &keys, &places)?;
        let numbers = |of: fn(&Fired) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(
                fired.iter().map(|(_, f)| of(f)),
            ))
        };
        let flags = |of: fn(&Fired) -> bool| -> ArrayRef {
            Arc::new(BooleanArray::from_iter(
                fired.iter().map(|(_, f)| Some(of(f))),
            ))
        };
        columns.add("has_state", flags(|f| !f.place.is_none()));
        columns.add("fired_start", numbers(|f| f.window.start));
        columns.add("fired_end", numbers(|f| f.window.end));
        columns.add("fired_time", numbers(|f| f.event_time));
        let names = fired.iter().map(|(_, f)| f.pane.timing.name());
        columns.add("timing", Arc::new(StringArray::from_iter_values(names)));
        columns.add("index", numbers(|f| f.pane.index));
        columns.add(
            "nonspeculative_index",
            numbers(|f| f.pane.nonspeculative_index),
        );
        columns.add("is_first", flags(|f| f.pane.is_first));
        columns.add("is_last", flags(|f| f.pane.is_last));
        columns.finish()
    }

    fn add_keys_and_states(
        &self,
        columns: &mut Columns,
        keys: &[usize],
        places: &[Place],
    ) -> Result<()> {
        let fields = self.plan.planned.states.fields();
        for (field, key) in fields.iter().zip(self.entries.key_columns(keys)?) {
            columns.add(field.name(), key);
        }
        let there: Vec<Place> = places.iter().filter(|p| !p.is_none()).copied().collect();
        let states = self.chunks.gather(&there)?;
        // Where there is no state the row is null.
        let mut next = 0;
        let rows = places.iter().map(|place| {
            let row = (!place.is_none()).then_some(next);
            next += u64::from(row.is_some());
            row
        });
        let rows: UInt64Array = rows.collect();
        for (field, state) in fields[self.plan.n_keys..].iter().zip(states) {
            let spread = match there.is_empty() {
                true => new_null_array(field.data_type(), places.len()),
                false => take(&state, &rows, None)?,
            };
            columns.add(field.name(), spread);
        }
        Ok(())
    }

    /// Takes over rows that [`Settled::snapshot`] gave; those of [`WINDOWS`] first.
    pub(in crate::ops::group_by::windowed) fn restore(&mut self, part: &StatePart) -> Result<()> {
        let rows = &part.rows;
        let n_states = self.plan.planned.states.fields().len();
        let (columns, known) = rows.columns()[2..].split_at(n_states);
        let windows = windows_of(rows)?;
        let (keys, states) = columns.split_at(self.plan.n_keys);
        let mut numbers = Vec::new();
        self.entries.number(keys, rows.num_rows(), &mut numbers)?;
        let places = self.chunks.append(states.to_vec());
        let known = Known(known);
        for (row, &key) in numbers.iter().enumerate() {
            let place = match known.flag(0, row)? {
                true => places.get(row),
                false => Place::NONE,
            };
            let (id, _) = self.entries.find_or_add(key, windows[row]);
            if part.table == FIRED {
                let fired = Fired {
                    window: Window {
                        start: known.number(1, row)?,
                        end: known.number(2, row)?,
                    },
                    place,
                    event_time: known.number(3, row)?,
                    pane: Pane {
                        timing: Timing::of_name(known.text(4, row)?),
                        index: known.number(5, row)?,
                        nonspeculative_index: known.number(6, row)?,
                        is_first: known.flag(7, row)?,
                        is_last: known.flag(8, row)?,
                    },
                };
                self.entries.fired.entry(id).or_default().push(fired);
                continue;
            }
            let entry = self.entries.get_mut(id);
            entry.place = place;
            entry.n_pending = known.number(1, row)?;
            entry.hold = known.number_or(2, row, NEVER)?;
            entry.index = known.number(3, row)?;
            entry.nonspeculative_index = known.number(4, row)?;
            entry.is_finished = known.flag(5, row)?;
            entry.is_past_end = known.flag(6, row)?;
            let hold = entry.hold;
            self.note_hold(NEVER, hold);
            for slot in 0..self.trigger.n_slots() {
                let value = known.number(KNOWN.len() + slot, row)?;
                self.entries.trigger_mut(id)[slot] = value;
            }
            self.schedule_next(id);
            // As it was: a trigger that has been asked at a time is not asked again for it.
            let wake = known.number_or(7, row, NEVER)?;
            self.entries.get_mut(id).wake = wake;
            if wake != NEVER {
                self.wakes.push(Reverse((wake, id)));
            }
        }
        Ok(())
    }
}

/// The windows in the first two columns of rows.
pub(in crate::ops::group_by::windowed) fn windows_of(rows: &RecordBatch) -> Result<Vec<Window>> {
    let times = |n: usize| {
        let column = rows.columns().get(n);
        column
            .and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>())
            .ok_or_else(foreign)
    };
    let (starts, ends) = (times(0)?.values(), times(1)?.values());
    let both = starts.iter().zip(ends);
    Ok(both.map(|(&start, &end)| Window { start, end }).collect())
}

fn foreign() -> Error {
    Error::environment("the saved state is not that of this aggregation")
        .with_hint("Restore it into the graph that it was saved from.")
}

#[derive(Default)]
struct Columns {
    fields: Vec<Arc<Field>>,
    columns: Vec<ArrayRef>,
}

impl Columns {
    fn windows(&mut self, windows: &[Window]) {
        self.fields = vec![time_field(WINDOW_START), time_field(WINDOW_END)];
        self.columns = vec![
            times_column(windows.iter().map(|w| w.start)),
            times_column(windows.iter().map(|w| w.end)),
        ];
    }

    fn add(&mut self, name: &str, column: ArrayRef) {
        let field = Field::new(name, column.data_type().clone(), true);
        self.fields.push(Arc::new(field));
        self.columns.push(column);
    }

    fn finish(self) -> Result<RecordBatch> {
        let schema = Arc::new(Schema::new(self.fields));
        Ok(RecordBatch::try_new(schema, self.columns)?)
    }
}

/// The columns after keys and states.
struct Known<'a>(&'a [ArrayRef]);

impl Known<'_> {
    fn column(&self, n: usize) -> Result<&ArrayRef> {
        self.0.get(n).ok_or_else(foreign)
    }

    fn number(&self, n: usize, row: usize) -> Result<i64> {
        let column = self.column(n)?.as_primitive_opt::<Int64Type>();
        Ok(column.ok_or_else(foreign)?.value(row))
    }

    fn number_or(&self, n: usize, row: usize, null: i64) -> Result<i64> {
        match self.column(n)?.is_null(row) {
            true => Ok(null),
            false => self.number(n, row),
        }
    }

    fn flag(&self, n: usize, row: usize) -> Result<bool> {
        let column = self.column(n)?.as_boolean_opt();
        Ok(column.ok_or_else(foreign)?.value(row))
    }

    fn text(&self, n: usize, row: usize) -> Result<&str> {
        let column = self.column(n)?.as_string_opt::<i32>();
        Ok(column.ok_or_else(foreign)?.value(row))
    }
}
