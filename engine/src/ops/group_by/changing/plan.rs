//! What a changelog's schema makes of keys and aggregates.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;

use super::aggregate::Retraction;
use crate::batch::Batch;
use crate::changelog::{check_expressions, diff_field, has_time, own_columns};
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME, time_field};
use crate::expression::on_good_rows;
use crate::keys::plain_type;
use crate::ops::group_by::Grouping;
use crate::ops::group_by::planned::Planned;
use crate::output::Output;

/// Keys and aggregates that rows can be taken back from.
#[derive(Debug)]
pub(in crate::ops::group_by) struct ChangingPlan {
    pub(in crate::ops::group_by) planned: Planned,
    pub(in crate::ops::group_by) kinds: Vec<Retraction>,
    /// The type of each aggregate's values as they travel, and whether some rows are left out.
    pub(super) values: Vec<(DataType, bool)>,
    pub(super) has_time: bool,
    /// Columns that travel as they are.
    carried: Vec<FieldRef>,
    /// The columns that travel: keys, the values of each aggregate and which count, those that are carried, when, by
    /// how much.
    pub(in crate::ops::group_by) prepared: SchemaRef,
    /// The columns that leave: keys, outputs, when, by how much.
    pub(in crate::ops::group_by) output: SchemaRef,
}

impl ChangingPlan {
    /// Checks keys and aggregates against the schema of a changelog.
    pub(in crate::ops::group_by) fn new(grouping: &Grouping, schema: &SchemaRef) -> Result<Self> {
        Self::carrying(grouping, schema, Vec::new())
    }

    /// As [`ChangingPlan::new`], where these columns of what is aggregated travel too.
    pub(in crate::ops::group_by) fn carrying(
        grouping: &Grouping,
        schema: &SchemaRef,
        carried: Vec<FieldRef>,
    ) -> Result<Self> {
        check_expressions(grouping.keys.iter().chain(&grouping.outputs), schema)?;
        let plan = match grouping.groups_alone {
            true => Planned::of_groups,
            false => Planned::new,
        };
        let planned = plan(&grouping.keys, &grouping.outputs, schema)?;
        let own = own_columns(schema);
        let mut errors = Vec::new();
        if let Some(taken) = planned
            .output
            .fields()
            .iter()
            .find(|f| own.contains(&f.name().as_str()))
        {
            errors.push(
                Error::pipeline(format!(
                    "column {:?} of a changelog cannot be replaced",
                    taken.name()
                ))
                .with_hint("Give the key or the aggregate another name with `.alias(\"…\")`."),
            );
        }
        let (mut kinds, mut values) = (Vec::new(), Vec::new());
        for aggregate in &planned.aggregates {
            let [argument] = aggregate.arguments() else {
                errors.push(cannot_retract(&aggregate.text));
                continue;
            };
            let argument = plain_type(argument.data_type());
            match Retraction::of(&aggregate.function, &argument) {
                Some(kind) => kinds.push(kind),
                None => errors.push(cannot_retract(&aggregate.text)),
            }
            values.push((argument, aggregate.has_filter()));
        }
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        for kind in &kinds {
            kind.create()?;
        }
        let has_time = has_time(schema);
        let mut prepared = planned.key_fields.clone();
        for (n, (data_type, is_filtered)) in values.iter().enumerate() {
            prepared.push(Arc::new(Field::new(
                format!("{n}: value"),
                data_type.clone(),
                true,
            )));
            if *is_filtered {
                prepared.push(Arc::new(Field::new(
                    format!("{n}: counts"),
                    DataType::Boolean,
                    true,
                )));
            }
        }
        let own: Vec<FieldRef> = match has_time {
            true => vec![time_field(EVENT_TIME), diff_field()],
            false => vec![diff_field()],
        };
        let output = planned.output.fields().iter().chain(&own).cloned();
        Ok(Self {
            output: Arc::new(Schema::new(output.collect::<Vec<_>>())),
            prepared: Arc::new(Schema::new([prepared, carried.clone(), own].concat())),
            carried,
            planned,
            kinds,
            values,
            has_time,
        })
    }

    /// The columns that travel, of these changes; those on which an expression fails are rejected.
    ///
    /// One that adds a row and the one that takes it back fail alike, so what is left is a changelog still.
    pub(in crate::ops::group_by) fn prepare(
        &self,
        batch: Batch,
        out: &mut Output,
    ) -> Result<Batch> {
        self.prepare_as(batch, out, |rows| Ok(rows.clone()))
    }

    /// As [`ChangingPlan::prepare`], of what `as_aggregated` makes of rows, which may fail on some.
    pub(in crate::ops::group_by) fn prepare_as(
        &self,
        batch: Batch,
        out: &mut Output,
        as_aggregated: impl Fn(&RecordBatch) -> Result<RecordBatch>,
    ) -> Result<Batch> {
        let (batch, (inputs, carried)) = on_good_rows(batch, out, |rows| {
            let rows = as_aggregated(rows)?;
            let carried = self.carried.iter().map(|field| {
                let column = rows.column_by_name(field.name()).cloned();
                column.ok_or_else(|| Error::bug("a column that is carried is missing"))
            });
            let carried = carried.collect::<Result<Vec<_>>>()?;
            Ok((self.planned.evaluate_rows(&rows)?, carried))
        })?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.prepared.fields().len());
        for (key, field) in inputs.keys.iter().zip(&self.planned.key_fields) {
            columns.push(as_type(key, field.data_type())?);
        }
        for ((arguments, filter), (data_type, is_filtered)) in
            inputs.arguments.into_iter().zip(&self.values)
        {
            columns.push(as_type(&arguments[0], data_type)?);
            if *is_filtered {
                let filter = filter.ok_or_else(|| Error::bug("a filter has no values"))?;
                columns.push(Arc::new(filter));
            }
        }
        columns.extend(carried);
        let own: &[&str] = if self.has_time {
            &[EVENT_TIME, DIFF]
        } else {
            &[DIFF]
        };
        for name in own {
            columns.extend(batch.rows().column_by_name(name).cloned());
        }
        let prepared = RecordBatch::try_new(Arc::clone(&self.prepared), columns)?;
        Ok(batch.with_columns(prepared))
    }

    /// The keys of rows that have travelled.
    pub(in crate::ops::group_by) fn keys<'a>(&self, prepared: &'a RecordBatch) -> &'a [ArrayRef] {
        &prepared.columns()[..self.planned.key_fields.len()]
    }

    /// The values of each aggregate, and which of them count.
    pub(in crate::ops::group_by) fn values<'a>(
        &self,
        prepared: &'a RecordBatch,
    ) -> impl Iterator<Item = (&'a ArrayRef, Option<&'a arrow::array::BooleanArray>)> {
        self.values_in(&prepared.columns()[self.planned.key_fields.len()..])
    }

    /// As [`ChangingPlan::values`], of the columns behind those of keys.
    pub(in crate::ops::group_by) fn values_in<'a>(
        &self,
        columns: &'a [ArrayRef],
    ) -> impl Iterator<Item = (&'a ArrayRef, Option<&'a arrow::array::BooleanArray>)> {
        let mut at = 0;
        self.values.iter().map(move |(_, is_filtered)| {
            let values = &columns[at];
            let filter = is_filtered.then(|| columns[at + 1].as_boolean());
            at += 1 + usize::from(*is_filtered);
            (values, filter)
        })
    }

    /// Changes of groups, from rows of keys and outputs.
    pub(super) fn changes(
        &self,
        rows: &RecordBatch,
        times: Vec<i64>,
        diffs: Vec<i8>,
    ) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        if self.has_time {
            columns.push(Arc::new(PrimitiveArray::<TimestampMillisecondType>::from(
                times,
            )));
        }
        columns.push(Arc::new(arrow::array::Int8Array::from(diffs)));
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }
}

pub(super) fn as_type(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    match values.data_type() == data_type {
        true => Ok(Arc::clone(values)),
        false => Ok(cast(values, data_type)?),
    }
}

fn cannot_retract(text: &str) -> Error {
    Error::pipeline(format!("`{text}` cannot take rows of a changelog back"))
        .with_hint("Count, sum, avg, min, max and count_distinct can; for others aggregate before the rows become changes.")
}
