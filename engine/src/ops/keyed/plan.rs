//! A keyed transform that fits the schema of its rows.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::KeyedTransform;
use super::cells::DeclaredCell;
use super::declared::Reads;
use super::emit::Emits;
use super::lateness::Lateness;
use super::process::{Key, Keyed};
use super::timers::Timer;
use crate::error::{Error, Result};
use crate::event_time::check_event_time;
use crate::expression::{check_column, col};
use crate::keys::plain_type;
use crate::ops::row_key::check_key;

/// What the operators of a keyed transform need to know.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where the key columns stand in the rows.
    pub(super) key_places: Vec<usize>,
    /// The columns of the key as they are kept and leave.
    pub(super) key_fields: Vec<FieldRef>,
    /// How many columns of the rows the transform sees: those of keys that are computed stand behind.
    n_visible: usize,
    n_columns: usize,
    pub(super) cells: Vec<DeclaredCell>,
    pub(super) timers: Vec<Timer>,
    pub(super) reads: Option<Reads>,
    pub(super) emits: Emits,
    pub(super) output: SchemaRef,
    pub(super) lateness: Lateness,
}

impl Plan {
    /// # Errors
    /// All that does not fit, together.
    pub(super) fn new<T: KeyedTransform>(keyed: &Keyed<T>, rows: &SchemaRef) -> Result<Self> {
        let Keyed {
            transform,
            keys,
            n_hidden,
            windowing,
        } = keyed;
        let n_visible = rows.fields().len() - n_hidden;
        let visible: Vec<usize> = (0..n_visible).collect();
        let visible = Arc::new(rows.project(&visible)?);
        let declared = transform.declare(&visible)?;
        let mut errors = Vec::new();
        let mut key_places = Vec::new();
        let mut key_fields = Vec::new();
        for key in keys {
            match plan_key(key, rows) {
                Ok((place, field)) => {
                    key_places.push(place);
                    key_fields.push(field);
                }
                Err(error) => errors.push(error),
            }
        }
        let lateness = Lateness::new(windowing, declared.ttl_ms, declared.late_after_ms);
        if windowing.window_fn.is_merging() {
            let kind = windowing.window_fn.describe().kind;
            errors.push(
                Error::pipeline(format!("state cannot be kept in {kind} windows, which merge"))
                    .with_detail("What is kept of two windows has no way to become one.")
                    .with_hint("Window the rows otherwise, or keep sessions in cells and close them by timers, as `sessionize` does."),
            );
        }
        if lateness.needs_times() {
            errors.extend(check_event_time(&visible).err());
        }
        let mut cells: Vec<DeclaredCell> = Vec::new();
        for cell in &declared.cells {
            match cell.declare(&visible) {
                Ok(cell) => cells.push(cell),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(twice("cells", cells.iter().map(|cell| cell.name)));
        errors.extend(twice("timers", declared.timers.iter().map(Timer::name)));
        if let Some(reads) = &declared.reads {
            match &reads.fields {
                Ok(fields) => {
                    let wanted = fields.iter().filter(|f| !f.is_nullable());
                    errors.extend(wanted.filter_map(|f| check_column(f.name(), &visible).err()));
                }
                Err(error) => errors.push(error.clone()),
            }
        }
        let emits = match declared.emits {
            Ok(emits) => emits,
            Err(error) => {
                errors.push(error);
                Emits::Rows
            }
        };
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        Ok(Self {
            key_places,
            output: emits.schema(&visible, &key_fields, lateness.is_windowed),
            key_fields,
            n_visible,
            n_columns: rows.fields().len(),
            cells,
            timers: declared.timers,
            reads: declared.reads,
            emits,
            lateness,
        })
    }

    /// The columns that the transform sees.
    pub(super) fn visible(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if self.n_visible == self.n_columns {
            return Ok(rows.clone());
        }
        let places: Vec<usize> = (0..self.n_visible).collect();
        Ok(rows.project(&places)?)
    }
}

fn plan_key(key: &Key, rows: &SchemaRef) -> Result<(usize, FieldRef)> {
    let place = check_column(&key.column, rows)?;
    check_key(&col(&key.column), rows, "cannot be hashed")?;
    let field = rows.field(place);
    let data_type = plain_type(field.data_type());
    let field = Field::new(&key.name, data_type, field.is_nullable());
    Ok((place, Arc::new(field)))
}

/// Names that are given more than once.
fn twice<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Option<Error> {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(&name) {
            return Some(
                Error::pipeline(format!("two {what} are named {name:?}"))
                    .with_hint("Saved state goes by these names: give each its own."),
            );
        }
        seen.push(name);
    }
    None
}
