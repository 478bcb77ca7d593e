//! Adds a column, or replaces one of the same name.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_expr::{Expr, ident};
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::{check_expressions, check_name};
use crate::error::Result;
use crate::expression::{Evaluator, Expression, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::predicate::{cannot_fail, in_terms_of};
use crate::transform::{Description, Operator, Properties, Transform};

/// Adds a column at the end, or replaces one of the same name where it stands.
#[derive(Clone, Debug)]
pub struct WithColumn {
    name: String,
    value: Expr,
}

impl WithColumn {
    /// The column `name` with `value` for each row.
    pub fn new(name: impl Into<String>, value: Expr) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }
}

impl Collection {
    /// The rows with the column `name`, added at the end or replaced where it stands.
    #[must_use]
    pub fn with_column(&self, name: impl Into<String>, value: Expr) -> Collection {
        self.apply(WithColumn::new(name, value))
    }
}

impl Transform for WithColumn {
    fn describe(&self) -> Description {
        let config = json!({ "name": self.name, "value": self.value.to_string() });
        Description::new("with_column", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let compiled = Expression::compile(&self.value, &inputs[0])?;
        check_expressions([&self.value], &inputs[0])?;
        check_name(&self.name, &inputs[0])?;
        let field = Field::new(
            &self.name,
            compiled.data_type().clone(),
            compiled.nullable(),
        );
        let mut fields: Vec<Arc<Field>> = inputs[0].fields().to_vec();
        match inputs[0].index_of(&self.name) {
            Ok(i) => fields[i] = Arc::new(field),
            Err(_) => fields.push(Arc::new(field)),
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let value = Evaluator::new(&self.value);
        Ok(Box::new(WithColumnOperator {
            value,
            spec: self.clone(),
            schema: None,
        }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let others: Vec<String> = wanted?
            .iter()
            .filter(|n| **n != self.name)
            .cloned()
            .collect();
        with_columns_of(Some(&others), [&self.value])
    }

    fn reads_rows(&self, inputs: &[SchemaRef], wanted: Option<&Expr>) -> Option<Expr> {
        if !cannot_fail(&self.value, inputs.first()?) {
            return None;
        }
        in_terms_of(wanted?, |name| {
            Some(match name == self.name {
                true => self.value.clone().unalias(),
                false => ident(name),
            })
        })
    }
}

struct WithColumnOperator {
    value: Evaluator,
    spec: WithColumn,
    schema: Option<SchemaRef>,
}

impl Operator for WithColumnOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, value) = self.value.evaluate(batch, out)?;
        let schema = match &self.schema {
            Some(schema) => Arc::clone(schema),
            None => {
                let schema = self.spec.output_schema(&[batch.rows().schema()])?;
                Arc::clone(self.schema.insert(schema))
            }
        };
        let mut columns = batch.rows().columns().to_vec();
        match batch.rows().schema().index_of(&self.spec.name) {
            Ok(i) => columns[i] = value,
            Err(_) => columns.push(value),
        }
        let rows = RecordBatch::try_new(schema, columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{col, lit};
    use crate::output::OnBadRow;
    use crate::testing::{check_transform, run_transform, show, table};
    use expect_test::expect;

    #[test]
    fn a_column_is_added_at_the_end_or_replaced_in_place() {
        check_transform(
            WithColumn::new("c", col("a") + col("b")),
            "a: 1, null; b: 10, 20",
            expect![[r#"
                a: 1, null
                b: 10, 20
                c: 11, null"#]],
        );
        check_transform(
            WithColumn::new("a", lit("x")),
            "a: 1, null; b: 10, 20",
            expect![[r#"
                a: 'x', 'x'
                b: 10, 20"#]],
        );
    }

    #[test]
    fn a_division_by_zero_is_a_dead_letter_with_its_position() {
        let divide = WithColumn::new("c", lit(10) / col("a"));
        let (rows, mut out) =
            run_transform(&divide, &table("a: 1, 0, 5"), OnBadRow::DeadLetter).unwrap();
        expect![[r#"
            a: 1, 5
            c: 10, 2"#]]
        .assert_eq(&show(&rows));
        let dead = out.take_dead_letters();
        assert_eq!((dead.len(), dead[0].row), (1, 1));
        expect![[r#"expression `Int32(10) / a` failed on {"a":0}: Divide by zero error"#]]
            .assert_eq(&dead[0].reason);
        assert_eq!(dead[0].data, r#"{"a":0}"#);
    }

    #[test]
    fn by_default_a_division_by_zero_ends_the_run_with_its_position() {
        let divide = WithColumn::new("c", lit(10) / col("a"));
        let error = run_transform(&divide, &table("a: 1, 0, 5"), OnBadRow::Fail).unwrap_err();
        expect![[r#"
            rows in memory, row 1: expression `Int32(10) / a` failed on {"a":0}: Divide by zero error
              Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]]
        .assert_eq(&error.to_string());
    }
}
