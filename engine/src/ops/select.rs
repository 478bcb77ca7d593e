//! Makes the columns of the output, each by an expression.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_expr::Expr;
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::{check_expressions, check_name, own_columns};
use crate::error::{Error, Result};
use crate::expression::{Evaluator, Expression, col, with_columns_of};
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
    ///
    /// A [changelog](crate::changelog) stays one: the columns that make it one follow, unless they are named.
    #[must_use]
    pub fn select(&self, columns: impl IntoIterator<Item = Expr>) -> Collection {
        self.apply(Select::new(columns))
    }
}

impl Select {
    /// The columns with those that make rows of this schema a changelog.
    fn all_columns(&self, schema: &SchemaRef) -> Result<Vec<Expr>> {
        let own = own_columns(schema);
        let is_own =
            |expr: &&Expr| matches!(expr, Expr::Column(c) if own.contains(&c.name.as_str()));
        let others = || self.columns.iter().filter(|expr| !is_own(expr));
        check_expressions(others(), schema)?;
        for expr in others() {
            check_name(&output_name(expr), schema)?;
        }
        let named: Vec<String> = self.columns.iter().map(output_name).collect();
        let missing = own.iter().filter(|own| !named.iter().any(|n| n == **own));
        let missing = missing.map(|own| col(*own));
        Ok(self.columns.iter().cloned().chain(missing).collect())
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
        for expr in &self.all_columns(&inputs[0])? {
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
            columns: Vec::new(),
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
    /// Known once rows have come.
    columns: Vec<Evaluator>,
    spec: Select,
    schema: Option<SchemaRef>,
}

impl Operator for SelectOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let schema = match &self.schema {
            Some(schema) => Arc::clone(schema),
            None => {
                let input = batch.rows().schema();
                let columns = self.spec.all_columns(&input)?;
                self.columns = columns.iter().map(Evaluator::new).collect();
                let schema = self.spec.output_schema(&[input])?;
                Arc::clone(self.schema.insert(schema))
            }
        };
        let mut batch = batch;
        // A later column may reject rows that an earlier one took, so values are made anew then.
        let values = 'again: loop {
            let mut values: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
            for column in &mut self.columns {
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
    use crate::expression::lit;
    use crate::ops::AsChangelog;
    use crate::output::OnBadRow;
    use crate::testing::{check_transform, refuse_transform, run_transform, show, table};
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
    fn a_changelog_stays_one() {
        let rows = table("a: 1, 2");
        let (added, _) = run_transform(&AsChangelog::new(), &rows, OnBadRow::Fail).unwrap();
        let select = Select::new([(col("a") * lit(2)).alias("twice")]);
        let (made, _) = run_transform(&select, &added, OnBadRow::Fail).unwrap();
        assert_eq!(show(&made), "twice: 2, 4\ndiff: 1, 1");
        let named = Select::new([col("diff"), col("a")]);
        let (made, _) = run_transform(&named, &added, OnBadRow::Fail).unwrap();
        assert_eq!(show(&made), "diff: 1, 1\na: 1, 2");
        let refused = Select::new([(col("diff") + lit(1)).alias("b")]);
        let refused = refused.output_schema(&[added.schema()]).unwrap_err();
        expect![[r#"
            `diff + Int32(1) AS b` reads column "diff" of a changelog
              It is another when the same row is taken back, which would then be a row that was never added.
              Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]]
        .assert_eq(&refused.to_string());
        let refused = Select::new([col("a").alias("diff")]);
        let refused = refused.output_schema(&[added.schema()]).unwrap_err();
        expect![[r#"
            column "diff" of a changelog cannot be replaced
              Hint: Choose another name, or take `changes()` first."#]]
        .assert_eq(&refused.to_string());
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
