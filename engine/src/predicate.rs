//! What a predicate says of rows of which only bounds are known, so that a source passes them over.
//!
//! ```text
//! x: 3 to 9, no nulls      x > 10 AND y = 1   ─▶ never true: none of these rows is wanted
//! y: nothing known         x > 5  AND y = 1   ─▶ may be true: they are read, and the filter decides
//! ```

mod alternatives;
mod bounds;
mod rewrite;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use datafusion_expr::interval_arithmetic::{Interval, NullableInterval};
use datafusion_physical_expr::PhysicalExpr;

use crate::error::Result;
use crate::expression::{Expression, check_column};

pub(crate) use alternatives::Alternatives;
pub(crate) use rewrite::{cannot_fail, in_terms_of};

/// How many columns of floats are looked at with all that they may hold beside numbers.
const MOST_FLOATS: usize = 3;

/// What is known of the values of a column in some rows; `None` where nothing is.
pub(crate) type Known = Option<NullableInterval>;

/// A predicate that cannot fail, asked about many rows at once.
///
/// Floats are ordered as everywhere in Arrow: -0.0 before 0.0, and NaN by its sign before or after all.
#[derive(Clone, Debug)]
pub(crate) struct Predicate {
    expr: Expr,
    physical: Arc<dyn PhysicalExpr>,
    /// The columns it reads, by their place in the schema.
    columns: BTreeMap<usize, String>,
    schema: SchemaRef,
    /// For rows of the columns that it was first asked about: those of nearly every other file too.
    over_first: Arc<OnceLock<(SchemaRef, Arc<RowPredicate>)>>,
}

impl Predicate {
    /// The predicate over rows of `schema`, to which dictionaries are as their values.
    pub(crate) fn compile(expr: &Expr, schema: &SchemaRef) -> Result<Self> {
        let schema = plain(schema);
        let compiled = Expression::compile_predicate(expr, &schema)?;
        let physical = Arc::clone(compiled.physical());
        // Those that the compiled one does without are read all the same where it is compiled again.
        let columns = expr
            .column_refs()
            .iter()
            .map(|c| Ok((check_column(&c.name, &schema)?, c.name.clone())))
            .collect::<Result<_>>()?;
        Ok(Self {
            expr: expr.clone(),
            columns,
            physical,
            schema,
            over_first: Arc::default(),
        })
    }

    /// The names of the columns it reads, in the order of the schema.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.values().map(String::as_str)
    }

    /// The type of a column as the predicate sees it.
    pub(crate) fn data_type(&self, column: &str) -> Option<&DataType> {
        let field = self.schema.field_with_name(column).ok()?;
        Some(field.data_type())
    }

    /// False if no row can make it true; `known` tells what is known of each column that it reads.
    ///
    /// Bounds of floats are taken to be those of the numbers: there may be NaN besides.
    pub(crate) fn may_hold(&self, mut known: impl FnMut(&str) -> Known) -> bool {
        let mut n_floats = 0;
        let cases: BTreeMap<usize, Vec<Known>> = self
            .columns
            .iter()
            .map(|(&place, name)| {
                let known = known(name);
                let is_float = is_float(self.schema.field(place).data_type());
                let has_values = known.as_ref().is_some_and(|k| k.values().is_some());
                n_floats += usize::from(is_float && has_values);
                let cases = match is_float && has_values {
                    false => vec![known],
                    true if n_floats > MOST_FLOATS => vec![None],
                    true => with_nan(known),
                };
                (place, cases)
            })
            .collect();
        let n_cases: usize = cases.values().map(Vec::len).product();
        (0..n_cases).any(|case| self.may_hold_where(&pick(&cases, case)))
    }

    fn may_hold_where(&self, known: &BTreeMap<usize, Known>) -> bool {
        let Some(truth) = bounds::of(&self.physical, known) else {
            return true;
        };
        let may = |values: &Interval| {
            let yes = ScalarValue::Boolean(Some(true));
            values.contains_value(yes).unwrap_or(true)
        };
        truth.values().is_some_and(may)
    }

    /// The predicate for rows of other columns, all of its own among them, evaluated row by row.
    pub(crate) fn over(&self, schema: &SchemaRef) -> Result<Arc<RowPredicate>> {
        match self.over_first.get() {
            Some((of, rows)) if of == schema => return Ok(Arc::clone(rows)),
            _ => {}
        }
        let compiled = Expression::compile_predicate(&self.expr, schema)?;
        let rows = Arc::new(RowPredicate(compiled));
        // Somebody else may have been first.
        let _ = self
            .over_first
            .set((SchemaRef::clone(schema), Arc::clone(&rows)));
        Ok(rows)
    }
}

/// A predicate evaluated for each row.
#[derive(Debug)]
pub(crate) struct RowPredicate(Expression);

impl RowPredicate {
    /// True for the rows to keep; never null.
    pub(crate) fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let mask = self.0.evaluate_mask(rows)?;
        Ok(match mask.nulls() {
            None => mask,
            Some(_) => arrow::compute::prep_null_mask_filter(&mask),
        })
    }
}

/// Dictionaries as the values they stand for.
fn plain(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| match f.data_type() {
        DataType::Dictionary(_, values) => Arc::new(Field::new(
            f.name(),
            values.as_ref().clone(),
            f.is_nullable(),
        )),
        _ => Arc::clone(f),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn is_float(data_type: &DataType) -> bool {
    use DataType::{Float16, Float32, Float64};
    matches!(data_type, Float16 | Float32 | Float64)
}

/// What floats may be: as known, or NaN, which no statistics of a file speak of.
fn with_nan(known: Known) -> Vec<Known> {
    let Some(data_type) = known.as_ref().map(NullableInterval::data_type) else {
        return vec![None];
    };
    // An interval cannot end at NaN: all that lies beyond the last number holds it.
    let ends = match data_type {
        DataType::Float32 => [f32::MAX, f32::MIN].map(|x| ScalarValue::Float32(Some(x))),
        DataType::Float64 => [f64::MAX, f64::MIN].map(|x| ScalarValue::Float64(Some(x))),
        _ => return vec![None],
    };
    let Ok(open) = ScalarValue::try_from(&data_type) else {
        return vec![None];
    };
    let [last, first] = ends;
    let beyond = [
        Interval::try_new(last, open.clone()),
        Interval::try_new(open, first),
    ];
    let mut cases = vec![known];
    for values in beyond {
        cases.push(
            values
                .ok()
                .map(|values| NullableInterval::NotNull { values }),
        );
    }
    cases
}

/// Case number `case` of all combinations.
fn pick(cases: &BTreeMap<usize, Vec<Known>>, mut case: usize) -> BTreeMap<usize, Known> {
    cases
        .iter()
        .map(|(&place, of_column)| {
            let picked = of_column[case % of_column.len()].clone();
            case /= of_column.len();
            (place, picked)
        })
        .collect()
}

#[cfg(test)]
mod tests;
