//! Evaluates an expression once per distinct value of the column it reads, instead of once per row.
//!
//! ```text
//!  plurality: 1, 1, 2, 1, null      values 1, 2, null ── expression ──▶ '1', '2', null
//!                                   keys   0, 0, 1, 0, 2 ─────────────▶ keys of a dictionary
//! ```
//!
//! What comes out is a dictionary, so what follows, such as a vocabulary, looks at distinct values too.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Int32Array, Int64Array,
};
use arrow::compute::{cast, concat, max, min};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::Result;
use mainstem_engine::expression::Expression;

use crate::expression::{BaseExpression, is_text};
use crate::program::without_missing;

/// Integers further apart than this in one batch are taken row by row.
const MOST_VALUES: i64 = 256;

/// An expression that gives text and reads one column only, of few values.
#[derive(Debug)]
pub(crate) struct ByValue {
    /// The place of the column among the raw ones.
    pub(crate) column: usize,
    compiled: Expression,
    schema: SchemaRef,
}

/// The distinct values of a column and the place among them of each row.
struct Distinct {
    values: ArrayRef,
    keys: Int32Array,
}

impl ByValue {
    /// `None` for an expression that must be evaluated for each row: one that reads several columns, or
    /// floats, or gives no text, or gives another value each time.
    pub(crate) fn compile(base: &BaseExpression, plain: &SchemaRef) -> Result<Option<Self>> {
        let mut names = Vec::new();
        base.columns(&mut names);
        names.sort_unstable();
        names.dedup();
        let [name] = names.as_slice() else {
            return Ok(None);
        };
        let column = plain.index_of(name)?;
        let field = plain.field(column);
        let few = field.data_type() == &DataType::Boolean
            || field.data_type().is_integer()
            || is_text(field.data_type());
        let expr = base.to_expr()?;
        if !few || expr.is_volatile() {
            return Ok(None);
        }
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::clone(field)]));
        let compiled = Expression::compile(&expr, &schema)?;
        Ok(is_text(compiled.data_type()).then_some(Self {
            column,
            compiled,
            schema,
        }))
    }

    /// The value of each row as a dictionary; `None` where the values are too many, or where the
    /// expression fails on one, which is then for the rows to tell.
    ///
    /// # Errors
    /// If the column is not of its type.
    pub(crate) fn evaluate(&self, column: &ArrayRef) -> Result<Option<ArrayRef>> {
        let Some(Distinct { values, keys }) = distinct(column)? else {
            return Ok(None);
        };
        let values = without_missing(&cast(&values, self.schema.field(0).data_type())?)?;
        let rows = RecordBatch::try_new(SchemaRef::clone(&self.schema), vec![values])?;
        let Ok(texts) = self.compiled.evaluate(&rows) else {
            return Ok(None);
        };
        if texts.as_any_dictionary_opt().is_some() {
            return Ok(None);
        }
        let texts = DictionaryArray::<Int32Type>::try_new(keys, texts)?;
        Ok(Some(Arc::new(texts)))
    }
}

/// The distinct values of a column, among them values that no row has; the last one is null.
fn distinct(column: &ArrayRef) -> Result<Option<Distinct>> {
    if let Some(dictionary) = column.as_any_dictionary_opt() {
        let n_values = dictionary.values().len();
        if n_values >= column.len() {
            return Ok(None);
        }
        let null = arrow::array::new_null_array(dictionary.values().data_type(), 1);
        let keys = cast(dictionary.keys(), &DataType::Int32)?;
        return Ok(Some(Distinct {
            values: concat(&[dictionary.values().as_ref(), &null])?,
            keys: places(keys.as_primitive::<Int32Type>(), n_values as i32),
        }));
    }
    let data_type = column.data_type();
    if is_text(data_type) {
        return Ok(None);
    }
    if let Some(flags) = column.as_boolean_opt() {
        let keys = flags.values().iter().map(i32::from).collect::<Vec<i32>>();
        return Ok(Some(Distinct {
            values: Arc::new(BooleanArray::from(vec![Some(false), Some(true), None])),
            keys: places(&Int32Array::new(keys.into(), flags.nulls().cloned()), 2),
        }));
    }
    let wide = cast(column, &DataType::Int64)?;
    let wide = wide.as_primitive::<Int64Type>();
    // A 64-bit unsigned integer beyond Int64 becomes null in the cast.
    if wide.null_count() != column.null_count() {
        return Ok(None);
    }
    let (Some(least), Some(most)) = (min(wide), max(wide)) else {
        return Ok(None);
    };
    let n_values = match most.checked_sub(least) {
        Some(span) if span < MOST_VALUES && span < column.len() as i64 => span + 1,
        _ => return Ok(None),
    };
    let values: Int64Array = (least..=most).map(Some).chain([None]).collect();
    let keys: Int32Array = wide.unary(|x| x.wrapping_sub(least) as i32);
    Ok(Some(Distinct {
        values: cast(&values, data_type)?,
        keys: places(&keys, n_values as i32),
    }))
}

/// The keys with `null` in place of null.
fn places(keys: &Int32Array, null: i32) -> Int32Array {
    match keys.nulls() {
        None => keys.clone(),
        Some(_) => keys
            .iter()
            .map(|key| key.unwrap_or(null))
            .collect::<Vec<i32>>()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use datafusion_expr::{Expr, lit, when};
    use mainstem_engine::expression::cast as cast_to;
    use mainstem_engine::{col, testing::table};
    use proptest::prelude::*;

    use crate::program::plain;

    fn compile(expr: &Expr, rows: &RecordBatch) -> Option<ByValue> {
        let base = BaseExpression::from_expr(expr).unwrap();
        ByValue::compile(&base, &plain(&rows.schema())).unwrap()
    }

    /// The texts by value and by row; `None` where they are not taken by value.
    fn both(expr: &Expr, column: &ArrayRef) -> (Option<StringArray>, StringArray) {
        let rows = RecordBatch::try_from_iter_with_nullable([("x", ArrayRef::clone(column), true)])
            .unwrap();
        let text = |a: ArrayRef| {
            cast(&a, &DataType::Utf8)
                .unwrap()
                .as_string::<i32>()
                .clone()
        };
        let schema = plain(&rows.schema());
        let x = without_missing(&cast(column, schema.field(0).data_type()).unwrap()).unwrap();
        let by_row = Expression::compile(expr, &schema)
            .unwrap()
            .evaluate(&RecordBatch::try_new(schema, vec![x]).unwrap())
            .unwrap();
        let by_value = compile(expr, &rows).unwrap().evaluate(column).unwrap();
        (by_value.map(text), text(by_row))
    }

    fn texts() -> Vec<Expr> {
        vec![
            cast_to(col("x"), DataType::Utf8),
            when(col("x").is_null(), lit("none"))
                .otherwise(cast_to(col("x"), DataType::Utf8))
                .unwrap(),
        ]
    }

    proptest! {
        #[test]
        fn integers_give_the_same_by_value_and_by_row(
            xs in prop::collection::vec(prop::option::of(-3i64..4), 8..40),
            offset in prop::sample::select(vec![0, i64::MIN + 3, i64::MAX - 3]),
        ) {
            prop_assume!(xs.iter().any(Option::is_some));
            let xs: Int64Array = xs.into_iter().map(|x| x.map(|x| x + offset)).collect();
            let xs: ArrayRef = Arc::new(xs);
            for expr in texts() {
                let (by_value, by_row) = both(&expr, &xs);
                prop_assert_eq!(by_value, Some(by_row));
            }
        }

        #[test]
        fn dictionaries_give_the_same_by_value_and_by_row(
            keys in prop::collection::vec(prop::option::of(0i32..4), 8..40),
        ) {
            let words = StringArray::from(vec![Some("a"), Some(""), None, Some("ü")]);
            let xs = DictionaryArray::<Int32Type>::try_new(keys.into(), Arc::new(words)).unwrap();
            let xs: ArrayRef = Arc::new(xs);
            for expr in texts() {
                let (by_value, by_row) = both(&expr, &xs);
                prop_assert_eq!(by_value, Some(by_row));
            }
        }
    }

    #[test]
    fn booleans_are_taken_by_value() {
        let rows = table("x: true, null, false, true");
        let (by_value, by_row) = both(&texts()[1], rows.column(0));
        assert_eq!(by_value, Some(by_row));
    }

    #[test]
    fn what_has_many_values_or_columns_is_taken_by_row() {
        let rows = table("x: 1, 2, 3; y: 1.5, 2.5, 3.5; z: a, b, c");
        let text = |expr| cast_to(expr, DataType::Utf8);
        assert!(compile(&text(col("y")), &rows).is_none());
        assert!(compile(&text(col("x") + col("x")), &rows).is_some());
        assert!(compile(&(col("x") + lit(1)), &rows).is_none());
        let far: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, 0, i64::MAX]));
        let by_value = compile(&text(col("x")), &rows).unwrap();
        assert!(by_value.evaluate(&far).unwrap().is_none());
        let none: ArrayRef = Arc::new(Int64Array::from(vec![None, None]));
        assert!(by_value.evaluate(&none).unwrap().is_none());
        // Plain text has as many values as rows.
        let by_value = compile(&text(col("z")), &rows).unwrap();
        assert!(by_value.evaluate(rows.column(2)).unwrap().is_none());
    }

    #[test]
    fn a_value_that_no_row_has_cannot_fail_a_batch() {
        let rows = table("x: 1, 3");
        let by_value = compile(
            &cast_to(lit(6) / (col("x") - lit(2)), DataType::Utf8),
            &rows,
        );
        assert!(
            by_value
                .unwrap()
                .evaluate(rows.column(0))
                .unwrap()
                .is_none()
        );
    }
}
