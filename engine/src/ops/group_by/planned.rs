//! Keys and aggregates, checked against a schema: what is computed before the exchange, what travels, and
//! what is computed from it at the end.
//!
//! ```text
//! rows ──▶ keys + arguments ──▶ keys + states ──▶ keys + aggregates ──▶ keys + outputs
//!          partial aggregation     exchange         final aggregation, expressions over aggregates
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::AggregateFunction;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion_physical_expr::expressions::Column;

use super::accumulators::AggregateKind;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::expression::{Expression, check_columns, col, on_good_rows};
use crate::keys::{normal, plain_type};
use crate::ops::row_key::{check_key, located};
use crate::output::Output;

/// One aggregate, with what it reads of a row.
#[derive(Clone, Debug)]
pub(super) struct PlannedAggregate {
    /// As the user wrote it.
    pub(super) text: String,
    pub(super) function: Arc<AggregateFunctionExpr>,
    pub(super) kind: AggregateKind,
    arguments: Vec<Expression>,
    filter: Option<Expression>,
    pub(super) states: Vec<Arc<Field>>,
}

impl PlannedAggregate {
    /// What it reads of a row.
    pub(super) fn arguments(&self) -> &[Expression] {
        &self.arguments
    }

    /// True if it leaves out some rows.
    pub(super) fn has_filter(&self) -> bool {
        self.filter.is_some()
    }
}

/// Keys and aggregates that fit a schema.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// The columns that come in.
    pub(super) input: SchemaRef,
    keys: Vec<Expression>,
    pub(super) key_fields: Vec<Arc<Field>>,
    pub(super) aggregates: Vec<PlannedAggregate>,
    /// The columns that travel: keys, then the states of each aggregate.
    pub(super) states: SchemaRef,
    results: SchemaRef,
    outputs: Vec<Expression>,
    /// The columns that leave: keys, then outputs.
    pub(super) output: SchemaRef,
}

/// What rows give to a group table.
pub(super) struct Inputs {
    pub(super) keys: Vec<ArrayRef>,
    /// Of each aggregate, the arguments and the rows it takes.
    pub(super) arguments: Vec<Arguments>,
}

/// The arguments of an aggregate, and the rows it takes.
pub(super) type Arguments = (Vec<ArrayRef>, Option<BooleanArray>);

impl Inputs {
    /// What these rows give, which mostly follow each other, and then are not copied.
    pub(super) fn part(&self, rows: Vec<u32>) -> Result<Self> {
        let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else {
            return self.picked(&UInt32Array::from(rows));
        };
        if (last - first) as usize + 1 != rows.len() {
            return self.picked(&UInt32Array::from(rows));
        }
        let first = first as usize;
        Ok(self.range(&(first..first + rows.len())))
    }

    /// What these rows give, which are not copied.
    pub(super) fn range(&self, rows: &Range<usize>) -> Self {
        let (first, n_rows) = (rows.start, rows.len());
        let cut = |column: &ArrayRef| column.slice(first, n_rows);
        let arguments = self.arguments.iter().map(|(values, filter)| {
            let filter = filter.as_ref().map(|filter| filter.slice(first, n_rows));
            (values.iter().map(cut).collect(), filter)
        });
        Self {
            keys: self.keys.iter().map(cut).collect(),
            arguments: arguments.collect(),
        }
    }

    /// What these rows give.
    pub(super) fn picked(&self, rows: &UInt32Array) -> Result<Self> {
        let pick = |column: &ArrayRef| take(column, rows, None);
        let keys = self.keys.iter().map(pick).collect::<Result<_, _>>()?;
        let arguments = self.arguments.iter().map(|(values, filter)| {
            let values = values.iter().map(pick).collect::<Result<_, _>>()?;
            let filter = filter.as_ref().map(|filter| {
                let kept = take(filter, rows, None)?;
                Ok::<_, Error>(kept.as_boolean().clone())
            });
            Ok((values, filter.transpose()?))
        });
        Ok(Self {
            keys,
            arguments: arguments.collect::<Result<Vec<Arguments>>>()?,
        })
    }
}

impl Planned {
    pub(super) fn new(keys: &[Expr], outputs: &[Expr], schema: &SchemaRef) -> Result<Self> {
        let planned = Self::of_groups(keys, outputs, schema)?;
        match planned.aggregates.is_empty() {
            true => Err(no_aggregate()
                .with_hint("Give one such as `count(lit(1))`, or take `distinct` rows.")),
            false => Ok(planned),
        }
    }

    /// As [`Planned::new`], where the groups alone may be what is asked for.
    pub(super) fn of_groups(keys: &[Expr], outputs: &[Expr], schema: &SchemaRef) -> Result<Self> {
        let mut errors = Vec::new();
        let mut planned_keys = Vec::new();
        let mut key_fields = Vec::new();
        for key in keys {
            match plan_key(key, schema) {
                Ok((expression, field)) => {
                    planned_keys.push(expression);
                    key_fields.push(Arc::new(field));
                }
                Err(error) => errors.push(error),
            }
        }
        let mut found: Vec<Expr> = Vec::new();
        let mut rewritten = Vec::new();
        for output in outputs {
            match take_out_aggregates(output, &mut found) {
                Ok(rest) => rewritten.push((name_of(output), rest)),
                Err(error) => errors.push(error),
            }
        }
        let mut aggregates = Vec::new();
        for (n, aggregate) in found.iter().enumerate() {
            match plan_aggregate(n, aggregate, schema) {
                Ok(planned) => aggregates.push(planned),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        if aggregates.is_empty() && keys.is_empty() {
            return Err(no_aggregate().with_hint("Give one such as `count(lit(1))`."));
        }
        let mut state_fields = key_fields.clone();
        let mut result_fields = key_fields.clone();
        for (aggregate, expr) in aggregates.iter().zip(&found) {
            state_fields.extend(aggregate.states.iter().cloned());
            let field = aggregate.function.field();
            result_fields.push(Arc::new(
                field.as_ref().clone().with_name(internal_name(expr)),
            ));
        }
        let results = Arc::new(Schema::new(result_fields));
        let mut fields = key_fields.clone();
        let mut planned_outputs = Vec::new();
        for (name, rest) in rewritten {
            let expression = plan_output(&rest, &results, keys)?;
            let field = Field::new(name, expression.data_type().clone(), expression.nullable());
            fields.push(Arc::new(field));
            planned_outputs.push(expression);
        }
        check_names(&fields)?;
        Ok(Self {
            input: Arc::clone(schema),
            keys: planned_keys,
            key_fields,
            aggregates,
            states: Arc::new(Schema::new(state_fields)),
            results,
            outputs: planned_outputs,
            output: Arc::new(Schema::new(fields)),
        })
    }

    /// The same aggregates of the same rows, in groups that this column divides before the keys do.
    ///
    /// Only states may be made by it: outputs do not have that column.
    pub(super) fn divided_by(&self, field: Field) -> Self {
        let field = Arc::new(field);
        let with = |fields: &[Arc<Field>]| -> Vec<Arc<Field>> {
            let first = std::iter::once(&field);
            first.chain(fields).cloned().collect()
        };
        Self {
            key_fields: with(&self.key_fields),
            states: Arc::new(Schema::new(with(self.states.fields()))),
            ..self.clone()
        }
    }

    /// What these rows give to a group table, without those on which an expression fails, which are rejected.
    pub(super) fn evaluate_good(&self, batch: Batch, out: &mut Output) -> Result<(Batch, Inputs)> {
        on_good_rows(batch, out, |rows| self.evaluate_rows(rows))
    }

    /// What these rows give to a group table, for those who have rows without their batch, such as a cell.
    ///
    /// Where an expression fails on a row, the error says which of them it is.
    pub(super) fn evaluate(&self, batch: &Batch) -> Result<Inputs> {
        located(batch, |rows| self.evaluate_rows(rows))
    }

    pub(super) fn evaluate_rows(&self, rows: &RecordBatch) -> Result<Inputs> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for (key, field) in self.keys.iter().zip(&self.key_fields) {
            keys.push(plain(&key.evaluate(rows)?, field.data_type())?);
        }
        let mut arguments = Vec::with_capacity(self.aggregates.len());
        for aggregate in &self.aggregates {
            let values = aggregate.arguments.iter().map(|a| a.evaluate(rows));
            let values = values.collect::<Result<Vec<_>>>()?;
            let filter = aggregate.filter.as_ref().map(|f| f.evaluate_mask(rows));
            arguments.push((values, filter.transpose()?));
        }
        Ok(Inputs { keys, arguments })
    }

    /// The places of the columns that are keys, and of those that aggregates read, where all are plain columns
    /// and all rows count.
    pub(super) fn plain_places(&self) -> Option<(Vec<usize>, Vec<usize>)> {
        let place = |expression: &Expression| {
            let column = expression.physical().downcast_ref::<Column>()?;
            Some(column.index())
        };
        let value = |aggregate: &PlannedAggregate| match (&*aggregate.arguments, &aggregate.filter)
        {
            ([argument], None) => place(argument),
            _ => None,
        };
        let keys = self.keys.iter().map(place).collect::<Option<_>>()?;
        let values = self.aggregates.iter().map(value).collect::<Option<_>>()?;
        Some((keys, values))
    }

    /// The columns of keys and of the value of each aggregate.
    pub(super) fn results(&self) -> &SchemaRef {
        &self.results
    }

    /// True if each output is the value of the aggregate of its number.
    pub(super) fn gives_results(&self) -> bool {
        let n_keys = self.keys.len();
        let is_result = |(n, output): (usize, &Expression)| {
            let column = output.physical().downcast_ref::<Column>();
            column.is_some_and(|column| column.index() == n_keys + n)
        };
        self.outputs.len() == self.aggregates.len()
            && self.outputs.iter().enumerate().all(is_result)
    }

    /// The rows that leave, from keys and the value of each aggregate.
    pub(super) fn project(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        let results = RecordBatch::try_new(Arc::clone(&self.results), columns)?;
        let mut columns = results.columns()[..self.keys.len()].to_vec();
        for output in &self.outputs {
            columns.push(output.evaluate(&results)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }
}

fn no_aggregate() -> Error {
    Error::pipeline("there is no aggregate in `agg`")
}

/// The key as it is compared: dictionaries replaced by their values, floats by one of each kind.
fn plain(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    // A column that is a dictionary stays one: its values are looked at once each.
    let dictionary = matches!(values.data_type(), DataType::Dictionary(_, v) if **v == *data_type);
    if values.data_type() == data_type || dictionary {
        return normal(values);
    }
    normal(&cast(values, data_type)?)
}

fn plan_key(key: &Expr, schema: &SchemaRef) -> Result<(Expression, Field)> {
    let text = key.clone().unalias().to_string();
    let mut aggregates = Vec::new();
    take_out_aggregates(key, &mut aggregates)?;
    if !aggregates.is_empty() {
        return Err(Error::pipeline(format!("key `{text}` holds an aggregate"))
            .with_hint("Group the groups: `group_by(..).agg(..).group_by(..)`."));
    }
    let expression = check_key(key, schema, "cannot be hashed")?;
    let data_type = plain_type(expression.data_type());
    let field = Field::new(name_of(key), data_type, expression.nullable());
    Ok((expression, field))
}

/// The name of an output: its alias, the column, or the text of the expression.
pub(super) fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        other => other.schema_name().to_string(),
    }
}

/// The name of an aggregate's column between the aggregates and the outputs.
fn internal_name(aggregate: &Expr) -> String {
    format!("{aggregate} ")
}

/// The expression with a column in place of each aggregate, which is added to `found` unless it is there.
fn take_out_aggregates(output: &Expr, found: &mut Vec<Expr>) -> Result<Expr> {
    let mut nested = None;
    let rest = output.clone().transform_down(|expr| {
        let Expr::AggregateFunction(AggregateFunction { params, .. }) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let inner = params.args.iter().chain(params.filter.as_deref());
        for part in inner.chain(params.order_by.iter().map(|s| &s.expr)) {
            part.apply(|e| {
                if matches!(e, Expr::AggregateFunction(_)) {
                    nested = Some(expr.to_string());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        if nested.is_none() && !found.contains(&expr) {
            found.push(expr.clone());
        }
        let column = col(internal_name(&expr));
        Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
    });
    if let Some(text) = nested {
        return Err(
            Error::pipeline(format!("an aggregate stands inside another: `{text}`"))
                .with_hint("Aggregate the results of a first `agg` with a second one."),
        );
    }
    Ok(rest.map_err(Error::from)?.data)
}

fn plan_aggregate(n: usize, expr: &Expr, schema: &SchemaRef) -> Result<PlannedAggregate> {
    check_columns(expr, schema)?;
    let text = expr.to_string();
    let refused = |error: DataFusionError| {
        Error::pipeline(format!("aggregate `{text}` does not fit the rows"))
            .with_detail(format!("{}.", error.strip_backtrace()))
            .with_source(error)
    };
    let df_schema = Arc::new(DFSchema::try_from(Arc::clone(schema)).map_err(refused)?);
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(&df_schema))
        .build();
    let coerced = ExprSimplifier::new(context)
        .coerce(expr.clone(), &df_schema)
        .map_err(|error| types_refused(expr, &text, schema).unwrap_or_else(|| refused(error)))?;
    let lowered = LoweredAggregateBuilder::new(
        &coerced,
        &df_schema,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .build()
    .map_err(refused)?;
    let function = lowered.aggregate;
    check_order(&function, &text)?;
    let Expr::AggregateFunction(AggregateFunction { params, .. }) = &coerced else {
        return Err(Error::bug(format!("aggregate `{text}` became `{coerced}`")));
    };
    let mut arguments = Vec::new();
    for argument in &params.args {
        arguments.push(Expression::compile(argument, schema)?);
    }
    if !function.order_bys().is_empty() {
        for order in &params.order_by {
            arguments.push(Expression::compile(&order.expr, schema)?);
        }
    }
    let filter = params.filter.as_deref();
    let filter = filter.map(|f| Expression::compile_predicate(f, schema));
    let kind = AggregateKind::of(&function).map_err(refused)?;
    let states = kind.state_fields(&function).map_err(refused)?;
    let states = states
        .iter()
        .map(|f| {
            Arc::new(
                f.as_ref()
                    .clone()
                    .with_name(format!("{n}: {}", f.name()))
                    .with_nullable(true),
            )
        })
        .collect();
    Ok(PlannedAggregate {
        text,
        function,
        kind,
        arguments,
        filter: filter.transpose()?,
        states,
    })
}

/// Which types the aggregate does not take; nothing where an argument itself is wrong.
fn types_refused(expr: &Expr, text: &str, schema: &SchemaRef) -> Option<Error> {
    let Expr::AggregateFunction(AggregateFunction { params, .. }) = expr else {
        return None;
    };
    let mut error = Error::pipeline(format!("aggregate `{text}` does not take these values"));
    for argument in &params.args {
        let compiled = Expression::compile(argument, schema).ok()?;
        error = error.with_detail(format!("`{argument}` is {}.", compiled.data_type()));
    }
    Some(error.with_hint("Cast them first, such as with `cast(col(\"a\"), DataType::Float64)`."))
}

/// Refuses aggregates whose result would depend on the order in which rows arrive.
fn check_order(function: &AggregateFunctionExpr, text: &str) -> Result<()> {
    let name = function.fun().name();
    if matches!(
        name,
        "first_value" | "last_value" | "nth_value" | "string_agg"
    ) && function.order_bys().is_empty()
    {
        return Err(
            Error::pipeline(format!("`{text}` has no order, so its result would depend on timing"))
                .with_hint("Give it an order that tells rows apart, such as `vec![col(\"time\").sort(true, false)]`."),
        );
    }
    if function.order_sensitivity().hard_requires() {
        return Err(
            Error::pipeline(format!("`{text}` needs all rows of a group in order"))
                .with_hint("Use `array_agg` with that order, and take what you need of the list."),
        );
    }
    if name == "grouping" {
        return Err(Error::pipeline(
            "`grouping` has no meaning without grouping sets",
        ));
    }
    Ok(())
}

fn plan_output(rest: &Expr, results: &SchemaRef, keys: &[Expr]) -> Result<Expression> {
    let mut columns: Vec<&str> = rest.column_refs().iter().map(|c| c.name.as_str()).collect();
    columns.sort_unstable();
    if let Some(name) = columns.iter().find(|n| results.index_of(n).is_err()) {
        let names: Vec<String> = keys.iter().map(|k| format!("{:?}", name_of(k))).collect();
        let detail = if names.is_empty() {
            "There are no keys.".to_owned()
        } else {
            format!("The keys are {}.", names.join(", "))
        };
        return Err(Error::pipeline(format!(
            "column {name:?} is neither a key nor inside an aggregate"
        ))
        .with_detail(detail)
        .with_hint("A group has many rows: say which value, as in `min(col(\"a\"))`."));
    }
    Expression::compile(rest, results)
}

fn check_names(fields: &[Arc<Field>]) -> Result<()> {
    for (n, field) in fields.iter().enumerate() {
        if fields[..n].iter().any(|f| f.name() == field.name()) {
            return Err(Error::pipeline(format!(
                "two columns of the result are called {:?}",
                field.name()
            ))
            .with_hint("Give one of them another name with `.alias(\"…\")`."));
        }
    }
    Ok(())
}
