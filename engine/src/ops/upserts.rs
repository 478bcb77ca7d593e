//! Makes a changelog of rows that each replace the row of the same key.
//!
//! ```text
//! id: 1, 2, 1        id: 1, 2, 1, 1
//! n:  5, 6, 7   ──▶   n: 5, 6, 5, 7
//!                  diff: 1, 1, -1, 1
//! ```

mod current;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int8Array, Int64Array, PrimitiveArray, UInt64Array,
};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{
    DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use serde_json::json;

use self::current::{Age, Current};
use super::good_rows::GoodRows;
use super::row_key::check_key;
use super::rows_by_time::{Instants, Run, in_runs};
use crate::artifact::Artifacts;
use crate::batch::{BATCH_ROWS, Batch};
use crate::changelog::{diff_field, has_time, is_changelog};
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME, event_times};
use crate::expression::{Expression, check_column, col, null_as_false, on_good_rows};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::state::StatePart;
use crate::transform::{Description, Distribution, Operator, Properties, Transform, Watermark};

/// The row's own time, where it takes effect later.
const AT: &str = "$at";
/// The source and the split of a row.
const SPLIT: &str = "$split";
/// The way on which it came.
const BRANCH: &str = "$branch";
/// Whether it takes its key away.
const DELETES: &str = "$deletes";

/// Makes a changelog of rows that each replace the row of the same key.
///
/// Null is a key like any other. A row equal to the one that is there changes nothing.
///
/// **With an event time** the newest row of a key counts, whenever it comes: changes leave once the watermark
/// has passed them, in the order of event time. Of rows of one time and key the one counts that stands last
/// in its source; the others are counted as filtered. A row from before the watermark takes effect at the
/// watermark, if it is newer than that of its key; see [`Upserts::allowed_lateness`].
///
/// A row that is taken back leaves with the event time of the one that takes its place: windows of the changes need
/// [`Windowing::row_time`](crate::windowing::Windowing::row_time).
///
/// **Without one** the row that comes last counts, and changes leave with each batch.
#[derive(Clone, Debug)]
pub struct Upserts {
    keys: Vec<String>,
    deletes: Option<Expr>,
    lateness: Duration,
}

impl Upserts {
    /// Rows that replace the row with equal values in the columns `keys`.
    pub fn new(keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            keys: keys.into_iter().map(Into::into).collect(),
            deletes: None,
            lateness: Duration::ZERO,
        }
    }

    /// Rows for which `predicate` is true take away the row of their key, and replace it by none; see
    /// [`Collection::upserts_with`] for one for which it has no value.
    #[must_use]
    pub fn deletes(mut self, predicate: Expr) -> Self {
        self.deletes = Some(predicate);
        self
    }

    /// How far a row may be behind the watermark; by default not at all.
    ///
    /// Rows from before leave by the port `late`, as they came in, and are counted as late. So long a key that
    /// has been taken away is remembered, so that an older row does not bring it back.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = lateness;
        self
    }

    fn lateness_ms(&self) -> i64 {
        i64::try_from(self.lateness.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Collection {
    /// A changelog of rows that each replace the row with equal values in the columns `keys`; see [`Upserts`]
    /// for the rules, and for rows that delete.
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, connectors, testing::{show_rows, table}};
    /// let pipeline = Pipeline::new("prices");
    /// let read = |rows| connectors::from_record_batches(rows);
    /// let prices = pipeline.read("prices", read(vec![table("id: 1, 2; price: 5, 6"), table("id: 1; price: 7")]));
    /// let (sink, changes) = connectors::collect();
    /// prices.upserts(["id"]).changes().write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(
    ///     show_rows(&changes.take()),
    ///     "id=1 price=5 change=-1\nid=1 price=5 change=1\nid=1 price=7 change=1\nid=2 price=6 change=1"
    /// );
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn upserts(&self, keys: impl IntoIterator<Item = impl Into<String>>) -> Collection {
        self.apply(Upserts::new(keys))
    }

    /// As [`Collection::upserts`], with what [`Upserts`] says besides.
    ///
    /// A row for which [`Upserts::deletes`] has no value, such as a division by zero, is a bad row of the node
    /// `NAME/rows`, for which [`on_bad_row`](Collection::on_bad_row) and
    /// [`dead_letters`](Collection::dead_letters) of the result speak.
    #[must_use]
    pub fn upserts_with(&self, upserts: Upserts) -> Collection {
        let name = self.next_name("upserts");
        let good = GoodRows::of(self, &upserts.deletes, &format!("{name}/rows"));
        let rows = good.as_ref().unwrap_or(self);
        rows.named(name).apply(upserts).rejecting_also_at(&good)
    }
}

impl Transform for Upserts {
    fn describe(&self) -> Description {
        let mut config = json!({ "keys": self.keys });
        if let Some(deletes) = &self.deletes {
            config["deletes"] = deletes.to_string().into();
        }
        if !self.lateness.is_zero() {
            config["allowed_lateness_ms"] = self.lateness_ms().into();
        }
        Description::new("upserts", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Plan::new(self, &inputs[0])?.output)
    }

    fn keeps(&self) -> Option<String> {
        Some("the newest row of each key, and rows until the watermark passes them".into())
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        match port {
            0 => self.output_schema(inputs),
            _ => Ok(Arc::clone(&inputs[0])),
        }
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(UpsertsOperator {
            spec: self.clone(),
            open: None,
            instants: Instants::default(),
            saved: Vec::new(),
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            ignores_windows: true,
            distribution: Distribution::ByKey(self.keys.clone()),
            ports: vec!["out".into(), "late".into()],
            ..Properties::default()
        }
    }
}

/// What a schema makes of the spec.
struct Plan {
    /// The columns that leave: those that come, and by how much.
    output: SchemaRef,
    /// The places of the key columns.
    keys: Vec<usize>,
    deletes: Option<Expression>,
    has_time: bool,
    /// The columns that wait: those that come, and what is known of each row besides.
    waiting: SchemaRef,
}

impl Plan {
    fn new(spec: &Upserts, schema: &SchemaRef) -> Result<Self> {
        if spec.keys.is_empty() {
            return Err(Error::pipeline("upserts need at least one key column")
                .with_hint("Name the columns that tell which row is replaced."));
        }
        if is_changelog(schema) || schema.index_of(DIFF).is_ok() {
            return Err(
                Error::pipeline(format!("rows have a column {DIFF:?} already"))
                    .with_hint("Give it another name with `select`."),
            );
        }
        let has_time = has_time(schema);
        let mut errors = Vec::new();
        let mut keys = Vec::new();
        for key in &spec.keys {
            match check_column(key, schema) {
                Ok(place) => keys.push(place),
                Err(error) => errors.push(error),
            }
        }
        if has_time && spec.keys.iter().any(|key| key == EVENT_TIME) {
            errors.push(Error::pipeline(
                "a key cannot be the event time, which is that of the change",
            ));
        }
        for field in schema.fields() {
            errors.extend(check_key(&col(field.name()), schema, "cannot be compared").err());
        }
        let deletes = spec
            .deletes
            .as_ref()
            .map(|p| Expression::compile_predicate(p, schema));
        let deletes = deletes.transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        let mut output = schema.fields().to_vec();
        let mut waiting = output.clone();
        output.push(diff_field());
        for (name, data_type) in [
            (AT, DataType::Int64),
            (SPLIT, DataType::UInt64),
            (BRANCH, DataType::UInt64),
            (DELETES, DataType::Boolean),
        ] {
            waiting.push(Arc::new(Field::new(name, data_type, false)));
        }
        Ok(Self {
            output: Arc::new(Schema::new(output)),
            keys,
            deletes,
            has_time,
            waiting: Arc::new(Schema::new(waiting)),
        })
    }

    /// The rows with what is known of each besides; those of which nobody knows whether they delete are rejected,
    /// as far as nobody has before.
    fn prepare(&self, batch: Batch, out: &mut Output) -> Result<RecordBatch> {
        let (batch, deletes) = match &self.deletes {
            None => (batch, None),
            Some(deletes) => {
                let (batch, mask) = on_good_rows(batch, out, |rows| deletes.evaluate_mask(rows))?;
                (batch, Some(null_as_false(&mask)))
            }
        };
        let rows = batch.rows();
        let n_rows = rows.num_rows();
        let mut columns = rows.columns().to_vec();
        let key = batch.split_key();
        let split = (u64::from(key.source) << 32) | u64::from(key.split);
        columns.push(match self.has_time {
            true => Arc::new(Int64Array::from(event_times(rows)?.to_vec())),
            false => Arc::new(Int64Array::from(vec![0; n_rows])),
        });
        columns.push(Arc::new(UInt64Array::from(vec![split; n_rows])));
        columns.push(Arc::new(UInt64Array::from(vec![key.branch; n_rows])));
        let none_deletes = || BooleanArray::from(vec![false; n_rows]);
        columns.push(Arc::new(deletes.unwrap_or_else(none_deletes)));
        Ok(RecordBatch::try_new(Arc::clone(&self.waiting), columns)?)
    }
}

struct UpsertsOperator {
    spec: Upserts,
    open: Option<(Plan, Current)>,
    /// Rows that the watermark has not passed, and those that it has, still to be taken in.
    instants: Instants,
    /// State that waits for the first rows, whose columns tell what it is.
    saved: Vec<StatePart>,
}

impl UpsertsOperator {
    fn open(&mut self, schema: &SchemaRef) -> Result<()> {
        if self.open.is_none() {
            let plan = Plan::new(&self.spec, schema)?;
            let mut current = Current::new(schema, &plan.keys, plan.has_time)?;
            for part in std::mem::take(&mut self.saved) {
                current.restore(&part.rows)?;
            }
            self.open = Some((plan, current));
        }
        Ok(())
    }

    /// The rows that are not too late; the others leave as late.
    fn in_time(&self, batch: &Batch, out: &mut Output) -> Result<Batch> {
        let now = self.instants.watermark().max(batch.watermark().0);
        let end = now.saturating_sub(self.spec.lateness_ms());
        let times = event_times(batch.rows())?;
        if times.iter().all(|t| *t >= end) {
            return Ok(batch.clone());
        }
        let late: BooleanArray = times.iter().map(|t| Some(*t < end)).collect();
        let rows = filter_record_batch(batch.rows(), &late)?;
        out.push_late(1, batch.derive(rows));
        batch.filter(&not(&late)?)
    }

    fn work(&mut self, out: &mut Output) -> Result<()> {
        if let (Some(rows), Some((plan, current))) = (self.instants.next(), &mut self.open) {
            take_in(plan, current, &rows, out)?;
            let watermark = self.instants.watermark();
            let end = watermark.saturating_sub(self.spec.lateness_ms());
            current.forget_deleted_before(end)?;
        }
        if self.instants.has_more() {
            out.more_follows();
        } else if self.instants.is_over() {
            self.open = None;
        }
        Ok(())
    }
}

/// Lets rows replace those of their keys, and gives what changes by it.
fn take_in(plan: &Plan, current: &mut Current, rows: &RecordBatch, out: &mut Output) -> Result<()> {
    let keys: Vec<ArrayRef> = plan
        .keys
        .iter()
        .map(|k| Arc::clone(rows.column(*k)))
        .collect();
    let groups = current.number(&keys, rows.num_rows())?;
    let (rows, runs) = in_runs(rows, &groups, plan.has_time)?;
    let known = Known::of(&rows, plan)?;
    let newest: Vec<usize> = runs.iter().map(|run| known.newest_of(run)).collect();
    let n_values = plan.output.fields().len() - 1;
    let values = rows.project(&(0..n_values).collect::<Vec<_>>())?;
    let bytes = current.bytes(&values)?;
    let (mut changed, mut times, mut diffs) = (current::Bytes::default(), Vec::new(), Vec::new());
    for (run, &row) in runs.iter().zip(&newest) {
        let new = (!known.deletes.value(row)).then(|| bytes.row(row));
        let new = new.as_ref().map(AsRef::<[u8]>::as_ref);
        let time = known.times.get(row).copied().unwrap_or_default();
        current.replace(run.group, new, known.age(row), |old| {
            for (value, diff) in [(old, -1), (new, 1)] {
                if let Some(value) = value {
                    changed.push(value);
                    times.push(time);
                    diffs.push(diff);
                }
            }
        });
    }
    out.filtered(rows.num_rows() - runs.len());
    for start in (0..diffs.len()).step_by(BATCH_ROWS) {
        let range = start..diffs.len().min(start + BATCH_ROWS);
        let mut columns = current.columns(&changed, range.clone())?;
        if plan.has_time {
            let times =
                PrimitiveArray::<TimestampMillisecondType>::from(times[range.clone()].to_vec());
            columns.insert(plan.output.index_of(EVENT_TIME)?, Arc::new(times));
        }
        columns.push(Arc::new(Int8Array::from(diffs[range].to_vec())));
        let rows = RecordBatch::try_new(Arc::clone(&plan.output), columns)?;
        out.push(Batch::new(rows).inexact());
    }
    Ok(())
}

/// What is known of rows that waited.
struct Known<'a> {
    /// When each takes effect; empty without event time.
    times: &'a [i64],
    at: &'a [i64],
    split: &'a [u64],
    branch: &'a [u64],
    deletes: &'a BooleanArray,
}

impl<'a> Known<'a> {
    fn of(rows: &'a RecordBatch, plan: &Plan) -> Result<Self> {
        let gone = || Error::bug("rows that waited have lost a column");
        let at = |name| {
            rows.column_by_name(name)
                .and_then(|c| c.as_primitive_opt::<Int64Type>())
        };
        let order = |name| {
            rows.column_by_name(name)
                .and_then(|c| c.as_primitive_opt::<UInt64Type>())
        };
        Ok(Self {
            times: if plan.has_time {
                event_times(rows)?
            } else {
                &[]
            },
            at: at(AT).ok_or_else(gone)?.values(),
            split: order(SPLIT).ok_or_else(gone)?.values(),
            branch: order(BRANCH).ok_or_else(gone)?.values(),
            deletes: rows
                .column_by_name(DELETES)
                .and_then(|c| c.as_boolean_opt())
                .ok_or_else(gone)?,
        })
    }

    fn age(&self, row: usize) -> Age {
        match self.times.is_empty() {
            // What comes last is newest.
            true => Age::default(),
            false => Age {
                at: self.at[row],
                split: self.split[row],
                branch: self.branch[row],
            },
        }
    }

    /// The newest row; of those of one age the one that came last.
    fn newest_of(&self, run: &Run) -> usize {
        let rows = run.rows.clone();
        rows.max_by_key(|row| (self.age(*row), *row))
            .unwrap_or(run.rows.start)
    }
}

impl Operator for UpsertsOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.open(&batch.rows().schema())?;
        let Some((plan, _)) = &self.open else {
            return Ok(());
        };
        if plan.has_time {
            let batch = self.in_time(&batch, out)?;
            let prepared = plan.prepare(batch.clone(), out)?;
            return self.instants.add(&batch.with_columns(prepared));
        }
        let rows = plan.prepare(batch, out)?;
        if let Some((plan, current)) = &mut self.open {
            take_in(plan, current, &rows, out)?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.instants.pass(watermark)?;
        self.work(out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        self.work(out)
    }

    fn state_bytes(&self) -> u64 {
        let current = self
            .open
            .as_ref()
            .map_or(0, |(_, current)| current.n_bytes());
        (current + self.instants.n_bytes()) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = self.saved.clone();
        if let Some((_, current)) = &self.open {
            for rows in current.state(&self.spec.keys)? {
                parts.extend(StatePart::by_key("current", &rows, &self.spec.keys)?);
            }
        }
        parts.extend(self.instants.parts(&self.spec.keys)?);
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        for part in state {
            match part.table.as_str() {
                "current" => self.saved.push(part.clone()),
                "waiting" => {
                    let n_columns = part.rows.num_columns() - 4;
                    let columns: Vec<usize> = (0..n_columns).collect();
                    let input = part.rows.schema().project(&columns)?;
                    self.open(&Arc::new(input))?;
                }
                _ => {}
            }
        }
        if let Some((_, current)) = &mut self.open {
            for part in std::mem::take(&mut self.saved) {
                current.restore(&part.rows)?;
            }
        }
        self.instants.restore(state)
    }
}

#[cfg(test)]
mod tests;
