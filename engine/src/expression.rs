//! DataFusion expressions, checked against a schema and compiled for batches.

mod guarded;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::output::{Output, shown_row};

pub use datafusion_expr::{Expr as LogicalExpression, cast, lit, try_cast, when};
/// The functions of DataFusion by module: `math`, `string`, `datetime`, `regex`, `unicode`.
pub use datafusion_functions as functions;

/// The column of this name, as it stands: upper case and dots are part of the name.
///
/// DataFusion's own `col` reads the name as SQL would, where `Age` is `age` and `a.b` is `b` of table `a`.
pub fn col(name: impl Into<String>) -> Expr {
    datafusion_expr::ident(name)
}

/// An expression whose columns and types have been checked against a schema.
#[derive(Clone)]
pub struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    /// The same for a batch on which it fails, where it has conditions that keep a part of it from some rows.
    in_turn: Option<Arc<dyn PhysicalExpr>>,
    data_type: DataType,
    nullable: bool,
    text: String,
    /// What it reads.
    columns: Vec<String>,
}

impl Expression {
    /// Checks `expr` against `schema`, adds the casts it implies, and compiles it.
    ///
    /// Column names are case-sensitive, as in Arrow.
    ///
    /// # Errors
    /// A pipeline error for a column that is not there or types that do not go together.
    pub fn compile(expr: &Expr, schema: &SchemaRef) -> Result<Self> {
        check_columns(expr, schema)?;
        let text = expr.to_string();
        let columns = with_columns_of(Some(&[]), [expr]).unwrap_or_default();
        let refused = |error: DataFusionError| {
            Error::pipeline(format!("expression `{text}` does not fit the rows"))
                .with_detail(format!("{}.", error.strip_backtrace()))
                .with_source(error)
        };
        let df_schema = Arc::new(DFSchema::try_from(Arc::clone(schema)).map_err(refused)?);
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&df_schema))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let coerced = simplifier
            .coerce(expr.clone(), &df_schema)
            .map_err(refused)?;
        let simple = simplifier.simplify(coerced).map_err(refused)?;
        let data_type = simple.get_type(&df_schema).map_err(refused)?;
        let nullable = simple.nullable(&df_schema).map_err(refused)?;
        let physical = create_physical_expr(
            &simple,
            &df_schema,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )
        .map_err(refused)?;
        let in_turn = guarded::in_turn(&physical, schema).map_err(refused)?;
        Ok(Self {
            physical,
            in_turn,
            data_type,
            nullable,
            text,
            columns,
        })
    }

    /// [`Expression::compile`] for a predicate.
    ///
    /// # Errors
    /// Also if the expression is not of type Boolean.
    pub fn compile_predicate(expr: &Expr, schema: &SchemaRef) -> Result<Self> {
        let compiled = Self::compile(expr, schema)?;
        if compiled.data_type != DataType::Boolean {
            return Err(Error::pipeline(format!(
                "a predicate must be Boolean, `{expr}` is {}",
                compiled.data_type
            ))
            .with_hint("Compare it with something, such as `.gt(lit(0))`."));
        }
        Ok(compiled)
    }

    /// What messages call it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The type of the result.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// True if the result may hold nulls.
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// The value for each row, which does not depend on the rows beside it: `x != 0 and 10 / x > 1` divides by no
    /// zero, nor does a branch of `when` that is not taken.
    ///
    /// # Errors
    /// A data error where a row has no value, such as an overflow or a division of integers by zero.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let values = match (self.physical.evaluate(rows), &self.in_turn) {
            (Err(_), Some(in_turn)) => in_turn.evaluate(rows),
            (values, _) => values,
        };
        values
            .and_then(|value| value.into_array(rows.num_rows()))
            .map_err(|e| self.failed(rows, e))
    }

    /// The value of a predicate for each row.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn evaluate_mask(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let value = self.evaluate(rows)?;
        value.as_boolean_opt().cloned().ok_or_else(|| {
            Error::bug(format!(
                "predicate `{}` gave {}",
                self.text,
                value.data_type()
            ))
        })
    }

    /// The compiled expression, for those who ask what values it may take.
    pub(crate) fn physical(&self) -> &Arc<dyn PhysicalExpr> {
        &self.physical
    }

    /// Of one row it also says on which values of the columns that are read.
    fn failed(&self, rows: &RecordBatch, error: DataFusionError) -> Error {
        let detail = match &error {
            DataFusionError::ArrowError(cause, _) => cause.to_string(),
            other => other.strip_backtrace(),
        };
        let schema = rows.schema();
        let columns = self.columns.iter();
        let mut places: Vec<usize> = columns.filter_map(|c| schema.index_of(c).ok()).collect();
        places.sort_unstable();
        let values = match rows.project(&places) {
            Ok(read) if rows.num_rows() == 1 && !places.is_empty() => {
                format!(" on {}", shown_row(&read, 0))
            }
            _ => String::new(),
        };
        Error::data(format!("expression `{}` failed{values}", self.text))
            .with_detail(format!("{detail}."))
            .with_source(error)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} : {}", self.text, self.data_type)
    }
}

/// The mask with false for null.
pub(crate) fn null_as_false(mask: &BooleanArray) -> BooleanArray {
    match mask.null_count() {
        0 => mask.clone(),
        _ => prep_null_mask_filter(mask),
    }
}

/// Checks that every column the expression reads is there.
///
/// # Errors
/// A pipeline error for each column that is not, with the columns there are.
pub fn check_columns(expr: &Expr, schema: &Schema) -> Result<()> {
    let mut names: Vec<&str> = expr.column_refs().iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    let missing: Vec<Error> = names
        .into_iter()
        .filter_map(|name| check_column(name, schema).err())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::all(missing))
    }
}

/// The columns that expressions read, beside those that are `wanted` anyway; all where all are.
pub(crate) fn with_columns_of<'a>(
    wanted: Option<&[String]>,
    expressions: impl IntoIterator<Item = &'a Expr>,
) -> Option<Vec<String>> {
    let mut columns: Vec<String> = wanted?.to_vec();
    for expr in expressions {
        columns.extend(expr.column_refs().iter().map(|c| c.name.clone()));
    }
    columns.sort_unstable();
    columns.dedup();
    Some(columns)
}

/// Checks that a column is there and gives its place.
///
/// # Errors
/// A pipeline error with the columns there are.
pub fn check_column(name: &str, schema: &Schema) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let there: Vec<String> = schema
            .fields()
            .iter()
            .map(|f| format!("{:?}", f.name()))
            .collect();
        let near = there
            .iter()
            .find(|t| t.trim_matches('"').eq_ignore_ascii_case(name));
        let error = Error::pipeline(format!("column {name:?} is not there"))
            .with_detail(format!("The columns are {}.", there.join(", ")));
        match near {
            Some(near) => {
                error.with_hint(format!("Names are case-sensitive: did you mean {near}?"))
            }
            None => error,
        }
    })
}

/// An expression that is compiled when the first rows come, and that rejects rows it fails on.
///
/// The planner has checked it against the same schema, so the late compilation cannot fail.
#[derive(Debug)]
pub(crate) struct Evaluator {
    expr: Expr,
    compiled: Option<Expression>,
}

impl Evaluator {
    pub(crate) fn new(expr: &Expr) -> Self {
        Self {
            expr: expr.clone(),
            compiled: None,
        }
    }

    /// The value for each row that has one, with the batch reduced to those rows.
    pub(crate) fn evaluate(&mut self, batch: Batch, out: &mut Output) -> Result<(Batch, ArrayRef)> {
        let compiled = self.compiled(&batch.rows().schema())?;
        on_good_rows(batch, out, |rows| compiled.evaluate(rows))
    }

    /// The expression for rows of this schema, which is the same at every call.
    pub(crate) fn compiled(&mut self, schema: &SchemaRef) -> Result<&Expression> {
        Ok(match &mut self.compiled {
            Some(compiled) => compiled,
            slot => slot.insert(Expression::compile(&self.expr, schema)?),
        })
    }
}

/// What `evaluate` gives for the rows of a batch, without those on which it fails, which are rejected.
///
/// The rows are looked at again by halves where it fails: a kernel says that some row failed, not which; with
/// few bad rows this takes few calls.
pub(crate) fn on_good_rows<T>(
    batch: Batch,
    out: &mut Output,
    evaluate: impl Fn(&RecordBatch) -> Result<T>,
) -> Result<(Batch, T)> {
    match evaluate(batch.rows()) {
        Ok(value) => Ok((batch, value)),
        Err(error) if batch.n_rows() == 0 => Err(error),
        Err(_) => {
            let reject = &mut |row, reason| out.reject(&batch, row, reason);
            let good = find_good(batch.rows(), &evaluate, reject)?;
            let kept = batch.filter(&BooleanArray::from(good))?;
            let value = evaluate(kept.rows())?;
            Ok((kept, value))
        }
    }
}

/// What a condition says of pairs of rows.
#[derive(Debug)]
pub(crate) struct OfPairs {
    /// It is true of the pair.
    passes: BooleanArray,
    /// It has a value for the pair; `None` where it has for all.
    has_value: Option<Vec<bool>>,
}

impl OfPairs {
    /// True if the pair meets the condition; null does not.
    pub(crate) fn passes(&self, pair: usize) -> bool {
        self.passes.value(pair)
    }

    /// True if the condition failed on the pair, which has been rejected.
    pub(crate) fn failed(&self, pair: usize) -> bool {
        let has_value = self.has_value.as_ref();
        has_value.is_some_and(|has_value| !has_value[pair])
    }
}

/// Asks a condition of pairs; those on which it fails are rejected, each with the reason.
pub(crate) fn of_pairs(
    condition: &Expression,
    pairs: &RecordBatch,
    mut reject: impl FnMut(usize, String) -> Result<()>,
) -> Result<OfPairs> {
    let evaluate = |pairs: &RecordBatch| Ok(null_as_false(&condition.evaluate_mask(pairs)?));
    match evaluate(pairs) {
        Ok(passes) => Ok(OfPairs {
            passes,
            has_value: None,
        }),
        Err(error) if pairs.num_rows() == 0 => Err(error),
        Err(_) => {
            let has_value = find_good(pairs, &evaluate, &mut reject)?;
            let good = filter_record_batch(pairs, &BooleanArray::from(has_value.clone()))?;
            let of_good = evaluate(&good)?;
            let mut of_good = of_good.iter();
            let passes = has_value.iter().map(|has_value| match has_value {
                true => of_good.next().flatten(),
                false => Some(false),
            });
            Ok(OfPairs {
                passes: passes.collect(),
                has_value: Some(has_value),
            })
        }
    }
}

/// On which rows this does not fail; the others are rejected, each with the reason.
pub(crate) fn find_good<T>(
    rows: &RecordBatch,
    evaluate: &impl Fn(&RecordBatch) -> Result<T>,
    reject: &mut impl FnMut(usize, String) -> Result<()>,
) -> Result<Vec<bool>> {
    let mut good = vec![false; rows.num_rows()];
    look_at(rows, 0..rows.num_rows(), &mut good, evaluate, reject)?;
    Ok(good)
}

/// Looks at these rows, the first half before the second, and rejects those that fail.
fn look_at<T>(
    all: &RecordBatch,
    rows: Range<usize>,
    good: &mut [bool],
    evaluate: &impl Fn(&RecordBatch) -> Result<T>,
    reject: &mut impl FnMut(usize, String) -> Result<()>,
) -> Result<()> {
    match evaluate(&all.slice(rows.start, rows.len())) {
        Ok(_) => {
            good[rows].fill(true);
            Ok(())
        }
        Err(error) if !error.is_data() => Err(error),
        Err(error) if rows.len() < 2 => reject(rows.start, reason(&error)),
        Err(_) => {
            let middle = rows.start + rows.len() / 2;
            look_at(all, rows.start..middle, good, evaluate, reject)?;
            look_at(all, middle..rows.end, good, evaluate, reject)
        }
    }
}

/// Why a row is rejected, in one line: libraries draw what they refuse over several.
fn reason(error: &Error) -> String {
    let why = error.details().join(" ");
    let words = why
        .split_whitespace()
        .filter(|w| w.chars().any(|c| c != '~'));
    let why = words.collect::<Vec<_>>().join(" ");
    match why.trim_end_matches('.') {
        "" => error.message().to_owned(),
        why => format!("{}: {why}", error.message()),
    }
}
