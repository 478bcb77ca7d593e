//! An aggregation of which another keeps the groups: what it reads of rows, and what it makes of results.

use std::sync::{Arc, Mutex};

use arrow::array::ArrayRef;
use arrow::compute::{not, nullif};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;

use super::aggregate::Retraction;
use super::plan::{ChangingPlan, as_type};
use crate::changelog::diff_field;
use crate::error::{Error, Result};
use crate::expression::null_as_false;
use crate::ops::group_by::Grouping;
use crate::ops::group_by::table::show_group;

/// Keys and aggregates over rows that may be taken back.
#[derive(Debug)]
pub(crate) struct Aggregation {
    plan: ChangingPlan,
}

impl Aggregation {
    /// Checks keys and aggregates against rows of this schema.
    pub(crate) fn new(keys: &[Expr], aggregates: &[Expr], schema: &SchemaRef) -> Result<Self> {
        let grouping = Grouping {
            keys: keys.to_vec(),
            outputs: aggregates.to_vec(),
            groups_alone: false,
            planned: Mutex::new(None),
        };
        let mut fields = schema.fields().to_vec();
        fields.push(diff_field());
        let plan = ChangingPlan::new(&grouping, &Arc::new(Schema::new(fields)))?;
        let unknown =
            |kind: &&Retraction| matches!(kind, Retraction::IntegerSum(DataType::Decimal128(..)));
        if plan.kinds.iter().any(|kind| unknown(&kind)) {
            return Err(Error::pipeline("a relation cannot sum decimals")
                .with_hint("Cast them to Float64 or to Int64."));
        }
        Ok(Self { plan })
    }

    /// The columns of the groups: keys and outputs.
    pub(crate) fn output(&self) -> &SchemaRef {
        &self.plan.planned.output
    }

    /// The columns of keys and of the value of each aggregate, before outputs are made of them.
    pub(crate) fn results(&self) -> &SchemaRef {
        self.plan.planned.results()
    }

    /// True if the outputs are the values of the aggregates, in order.
    pub(crate) fn gives_results(&self) -> bool {
        self.plan.planned.gives_results()
    }

    /// The places of the columns that are keys, and of those that aggregates read, where nothing is computed
    /// of rows and all of them count.
    pub(crate) fn plain_places(&self) -> Option<(Vec<usize>, Vec<usize>)> {
        self.plan.planned.plain_places()
    }

    /// How each aggregate is kept.
    pub(crate) fn retractions(&self) -> &[Retraction] {
        &self.plan.kinds
    }

    /// The types of the keys, and of the values that each aggregate reads.
    pub(crate) fn types(&self) -> (Vec<DataType>, Vec<DataType>) {
        let keys = self.plan.planned.key_fields.iter();
        let values = self.plan.values.iter();
        (
            keys.map(|f| f.data_type().clone()).collect(),
            values.map(|(data_type, _)| data_type.clone()).collect(),
        )
    }

    /// The keys of rows, and the values of each aggregate, null where it leaves a row out.
    ///
    /// # Errors
    /// A data error where one fails on a row.
    pub(crate) fn prepare(&self, rows: &RecordBatch) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let inputs = self.plan.planned.evaluate_rows(rows)?;
        let fields = &self.plan.planned.key_fields;
        let keys = inputs
            .keys
            .iter()
            .zip(fields)
            .map(|(key, f)| as_type(key, f.data_type()));
        let keys = keys.collect::<Result<_>>()?;
        let mut values = Vec::with_capacity(self.plan.values.len());
        for ((arguments, filter), (data_type, _)) in
            inputs.arguments.into_iter().zip(&self.plan.values)
        {
            let value = as_type(&arguments[0], data_type)?;
            values.push(match filter {
                None => value,
                Some(filter) => nullif(&value, &not(&null_as_false(&filter))?)?,
            });
        }
        Ok((keys, values))
    }

    /// Says which group has these keys, if they can be shown.
    pub(crate) fn show_group(&self, keys: &[ArrayRef]) -> Option<String> {
        show_group(&self.plan.planned, keys)
    }

    /// The groups, from keys and the value of each aggregate.
    pub(crate) fn project(&self, results: Vec<ArrayRef>) -> Result<RecordBatch> {
        self.plan.planned.project(results)
    }
}
