//! Keeps the rows for which a predicate is true.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::and_kleene;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{BinaryExpr, Expr, Operator as Symbol};
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::check_expressions;
use crate::error::{Error, Result};
use crate::expression::{Evaluator, Expression, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::plan::{Lowered, Place};
use crate::predicate::cannot_fail;
use crate::transform::{Description, Operator, Properties, Transform};

/// Keeps the rows for which a predicate is true; null counts as false, as in SQL.
#[derive(Clone, Debug)]
pub struct Filter {
    predicate: Expr,
    /// The columns that are copied, if not all.
    kept: Option<Vec<String>>,
}

impl Filter {
    /// Keeps the rows for which `predicate` is true.
    pub fn new(predicate: Expr) -> Self {
        let kept = None;
        Self { predicate, kept }
    }

    /// The places of the columns that leave, if not all do; there is always one, to count rows by.
    fn kept_of(&self, input: &Schema) -> Option<Vec<usize>> {
        let kept = self.kept.as_ref()?;
        let fields = input.fields().iter().enumerate();
        let places = fields.filter(|(_, field)| kept.contains(field.name()));
        let mut places: Vec<usize> = places.map(|(place, _)| place).collect();
        if places.is_empty() && !input.fields().is_empty() {
            places.push(0);
        }
        (places.len() < input.fields().len()).then_some(places)
    }
}

impl Collection {
    /// The rows for which `predicate` is true; null counts as false.
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, col, connectors, lit, testing::{show, table}};
    /// let pipeline = Pipeline::new("adults");
    /// let rows = pipeline.read("people", connectors::from_record_batches(vec![table("age: 12, 40, null")]));
    /// let (sink, adults) = connectors::collect();
    /// rows.filter(col("age").gt_eq(lit(18))).write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&adults.take()[0]), "age: 40");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn filter(&self, predicate: Expr) -> Collection {
        self.apply(Filter::new(predicate))
    }
}

impl Transform for Filter {
    fn describe(&self) -> Description {
        Description::new("filter", json!({ "predicate": self.predicate.to_string() }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Expression::compile_predicate(&self.predicate, &inputs[0])?;
        check_expressions([&self.predicate], &inputs[0])?;
        Ok(match self.kept_of(&inputs[0]) {
            Some(places) => Arc::new(inputs[0].project(&places)?),
            None => SchemaRef::clone(&inputs[0]),
        })
    }

    /// Columns that nothing reads, such as most that the predicate does, are not copied.
    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        Ok(place.wanted().map(|wanted| {
            let kept = Some(wanted.to_vec());
            let predicate = self.predicate.clone();
            Lowered::to(Self { predicate, kept }, 1)
        }))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(FilterOperator {
            filter: self.clone(),
            parts: Vec::new(),
            kept: None,
        }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        with_columns_of(wanted, [&self.predicate])
    }

    fn reads_rows(&self, inputs: &[SchemaRef], wanted: Option<&Expr>) -> Option<Expr> {
        let own = cannot_fail(&self.predicate, inputs.first()?).then(|| self.predicate.clone())?;
        Some(match wanted {
            Some(wanted) => own.and(wanted.clone()),
            None => own,
        })
    }
}

struct FilterOperator {
    filter: Filter,
    /// What must all be true, once the schema of the rows is known.
    parts: Vec<Evaluator>,
    /// The places of the columns that leave, if not all do.
    kept: Option<Vec<usize>>,
}

impl FilterOperator {
    /// True where the predicate is, with the batch reduced to the rows on which it does not fail.
    fn mask(&mut self, mut batch: Batch, out: &mut Output) -> Result<(Batch, BooleanArray)> {
        if self.parts.is_empty() {
            let schema = batch.rows().schema();
            self.kept = self.filter.kept_of(&schema);
            let parts = comparisons(&self.filter.predicate, &schema);
            self.parts = parts.into_iter().map(Evaluator::new).collect();
        }
        let mut all: Option<BooleanArray> = None;
        for part in &mut self.parts {
            // Only a predicate that is not taken apart can fail and leave rows out.
            let (rows, values) = part.evaluate(batch, out)?;
            batch = rows;
            let mask = values
                .as_boolean_opt()
                .ok_or_else(|| Error::bug("a predicate did not give Booleans"))?;
            all = Some(match all {
                None => mask.clone(),
                Some(all) => and_kleene(&all, mask)?,
            });
        }
        let mask = all.ok_or_else(|| Error::bug("a predicate has no parts"))?;
        Ok((batch, mask))
    }
}

/// The conjuncts, where all of them compare columns and constants of a fixed width; else the predicate.
///
/// Comparing all rows is then cheaper than picking out those that an earlier conjunct leaves, and putting
/// the outcome back to its place, which is what an `and` does where few are left.
fn comparisons<'a>(predicate: &'a Expr, schema: &SchemaRef) -> Vec<&'a Expr> {
    let has_width = |expr: &Expr| match expr {
        Expr::Literal(value, _) => value.data_type().is_primitive(),
        Expr::Column(column) => schema
            .field_with_name(&column.name)
            .is_ok_and(|f| f.data_type().is_primitive()),
        _ => false,
    };
    let compares = |op: &Symbol| {
        use Symbol::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
    };
    let is_cheap = |expr: &&Expr| match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            compares(op) && has_width(left) && has_width(right)
        }
        _ => false,
    };
    let parts = split_conjunction(predicate);
    match parts.iter().all(is_cheap) && cannot_fail(predicate, schema) {
        true => parts,
        false => vec![predicate],
    }
}

impl Operator for FilterOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, mask) = self.mask(batch, out)?;
        let n_kept = mask.true_count();
        out.filtered(batch.n_rows() - n_kept);
        let batch = match &self.kept {
            Some(places) => {
                let rows = batch.rows().project(places)?;
                batch.with_columns(rows)
            }
            None => batch,
        };
        if n_kept == batch.n_rows() {
            out.push(batch);
        } else if n_kept > 0 {
            out.push(batch.filter(&mask)?);
        }
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
    fn null_counts_as_false() {
        check_transform(
            Filter::new(col("age").gt_eq(lit(18))),
            "age: 12, 40, null, 18; name: a, b, c, d",
            expect![[r#"
                age: 40, 18
                name: 'b', 'd'"#]],
        );
    }

    #[test]
    fn columns_that_nothing_reads_are_not_copied() {
        let keeping = |kept: &[&str]| Filter {
            predicate: col("age").gt_eq(lit(18)),
            kept: Some(kept.iter().map(|name| (*name).to_owned()).collect()),
        };
        let rows = "age: 12, 40, 18; name: a, b, c; size: 1, 2, 3";
        check_transform(
            keeping(&["size", "name"]),
            rows,
            expect![[r#"
                name: 'b', 'c'
                size: 2, 3"#]],
        );
        // Rows are counted by one column where no value is wanted.
        check_transform(keeping(&[]), rows, expect!["age: 40, 18"]);
    }

    #[test]
    fn what_is_read_behind_it_decides_what_a_filter_copies() {
        let pipeline = crate::Pipeline::new("adults");
        let rows = crate::testing::table("age: 12, 40; name: a, b; size: 1, 2");
        let rows = pipeline.read("people", crate::connectors::from_record_batches(vec![rows]));
        let adults = rows.filter(col("age").gt_eq(lit(18))).named("adults");
        let (sink, names) = crate::connectors::collect();
        adults.select([col("name")]).write(sink);
        let plan = pipeline.plan().unwrap();
        let place = |id: &str| plan.graph.nodes.iter().position(|n| &*n.id == id).unwrap();
        let made = &plan.phases[0].projection.schemas;
        let columns = |id: &str| {
            made[&place(id)]
                .fields()
                .iter()
                .map(|f| f.name().clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(columns("people"), ["age", "name"]);
        assert_eq!(columns("adults"), ["name"]);
        plan.run(&crate::RunOptions::new().workers(1)).unwrap();
        assert_eq!(crate::testing::show(&names.take()[0]), "name: 'b'");
    }

    #[test]
    fn comparisons_are_anded_as_in_sql() {
        check_transform(
            Filter::new(
                col("a")
                    .gt(lit(1_i64))
                    .and(col("b").lt_eq(lit(0.5)))
                    .and(col("b").lt(col("a"))),
            ),
            "a: 1, 2, null, 3, 4, 5; b: 0.5, 0.5, 0.1, null, 0.6, 0.25",
            expect![[r#"
                a: 2, 5
                b: 0.5, 0.25"#]],
        );
    }

    #[test]
    fn a_predicate_must_be_boolean() {
        refuse_transform(
            Filter::new(col("age") + lit(1)),
            "age: 12",
            expect![[r#"
                a predicate must be Boolean, `age + Int32(1)` is Int64
                  Hint: Compare it with something, such as `.gt(lit(0))`."#]],
        );
    }

    #[test]
    fn a_missing_column_is_named_with_those_there_are() {
        refuse_transform(
            Filter::new(col("Age").gt(lit(1))),
            "age: 12",
            expect![[r#"
                column "Age" is not there
                  The columns are "age".
                  Hint: Names are case-sensitive: did you mean "age"?"#]],
        );
    }
}
