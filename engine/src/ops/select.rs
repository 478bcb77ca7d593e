//! Makes the columns of the output, each by an expression.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_expr::Expr;
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::expression::{Evaluator, Expression, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::predicate::{cannot_fail, in_terms_of};
use crate::transform::{Description, Operator, Properties, Transform};

/// Makes the columns of the output, each by an expression, named by the column or by `.alias(name)`.
#[derive(Clone, Debug)]
pub struct Select {
    columns: Vec<Expr>,
}

impl Select {
    /// These columns, in this order.
    pub fn new(columns: impl IntoIterator<Item = Expr>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
        }
    }
}

impl Collection {
    /// These columns, in this order: `col("a")`, `(col("a") + col("b")).alias("sum")`.
    #[must_use]
    pub fn select(&self, columns: impl IntoIterator<Item = Expr>) -> Collection {
        self.apply(Select::new(columns))
    }
}

/// The name of an output column: that of the column or alias, else the expression itself.
fn output_name(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        other => other.to_string(),
    }
}

impl Transform for Select {
    fn describe(&self) -> Description {
        let columns: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        Description::new("select", json!({ "columns": columns }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        if self.columns.is_empty() {
            return Err(Error::pipeline("select needs at least one column"));
        }
        let mut fields: Vec<Field> = Vec::new();
        let mut errors = Vec::new();
        for expr in &self.columns {
            match Expression::compile(expr, &inputs[0]) {
                Ok(compiled) => {
                    let name = output_name(expr);
                    if fields.iter().any(|f| *f.name() == name) {
                        errors.push(
                            Error::pipeline(format!("column {name:?} is made twice"))
                                .with_hint("Give one of them another name with `.alias(name)`."),
                        );
                    }
                    fields.push(Field::new(
                        name,
                        compiled.data_type().clone(),
                        compiled.nullable(),
                    ));
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Arc::new(Schema::new(fields)))
        } else {
            Err(Error::all(errors))
        }
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SelectOperator {
            columns: self
                .columns
                .iter()
                .map(|e| (output_name(e), Evaluator::new(e)))
                .collect(),
            spec: self.clone(),
            schema: None,
        }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true)
    }

    fn reads(&self, _wanted: Option<&[String]>) -> Option<Vec<String>> {
        with_columns_of(Some(&[]), &self.columns)
    }

    fn reads_rows(&self, inputs: &[SchemaRef], wanted: Option<&Expr>) -> Option<Expr> {
        let input = inputs.first()?;
        if !self.columns.iter().all(|expr| cannot_fail(expr, input)) {
            return None;
        }
        in_terms_of(wanted?, |name| {
            let made = self.columns.iter().find(|expr| output_name(expr) == name);
            made.map(|expr| expr.clone().unalias())
        })
    }
}

struct SelectOperator {
    columns: Vec<(String, Evaluator)>,
    spec: Select,
    schema: Option<SchemaRef>,
}

impl Operator for SelectOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let schema = match &self.schema {
            Some(schema) => Arc::clone(schema),
            None => {
                let schema = self.spec.output_schema(&[batch.rows().schema()])?;
                Arc::clone(self.schema.insert(schema))
            }
        };
        let mut batch = batch;
        // A later column may reject rows that an earlier one took, so values are made anew then.
        let values = 'again: loop {
            let mut values: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
            for (_, column) in &mut self.columns {
                let n_rows = batch.n_rows();
                let (kept, value) = column.evaluate(batch, out)?;
                batch = kept;
                values.push(value);
                if batch.n_rows() < n_rows && values.len() > 1 {
                    continue 'again;
                }
            }
            break values;
        };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.n_rows()));
        let rows = RecordBatch::try_new_with_options(schema, values, &options)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{col, lit};
    use crate::testing::{check_transform, refuse_transform};
    use expect_test::expect;

    #[test]
    fn columns_are_made_in_order() {
        check_transform(
            Select::new([(col("a") * lit(2)).alias("twice"), col("b")]),
            "a: 1, null; b: x, y; c: 1, 2",
            expect![[r#"
                twice: 2, null
                b: 'x', 'y'"#]],
        );
    }

    #[test]
    fn all_errors_are_reported_together() {
        refuse_transform(
            Select::new([col("z"), col("a"), col("a"), col("y")]),
            "a: 1",
            expect![[r#"
                3 errors
                1. column "z" is not there
                     The columns are "a".
                2. column "a" is made twice
                     Hint: Give one of them another name with `.alias(name)`.
                3. column "y" is not there
                     The columns are "a"."#]],
        );
    }
}
