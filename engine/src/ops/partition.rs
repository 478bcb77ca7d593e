//! Deals rows to named parts by predicates.

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{not, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::check_expressions;
use crate::error::{Error, Result};
use crate::expression::{Evaluator, Expression, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

/// The port of the rows for which no predicate is true.
const REST: &str = "rest";

/// Deals rows to named parts: each row goes to the first part whose predicate is true, else to the rest.
///
/// Null counts as false. A predicate is asked only of the rows that no earlier one has taken, so the
/// first may keep rows away for which the second has no value.
#[derive(Clone, Debug)]
pub struct Partition {
    parts: Vec<(String, Expr)>,
}

impl Partition {
    /// Parts by name and predicate; the output ports are these names, then `rest`.
    pub fn new(parts: impl IntoIterator<Item = (impl Into<String>, Expr)>) -> Self {
        Self {
            parts: parts
                .into_iter()
                .map(|(name, predicate)| (name.into(), predicate))
                .collect(),
        }
    }
}

impl Collection {
    /// The rows of each part, and those that are of none; see [`Partition`].
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, col, connectors, lit, testing::{show, table}};
    /// let pipeline = Pipeline::new("delays");
    /// let rows = pipeline.read("flights", connectors::from_record_batches(vec![table("delay: 3, 90, null, -2")]));
    /// let ([late, early], rest) = rows.partition([
    ///     ("late", col("delay").gt(lit(60))),
    ///     ("early", col("delay").lt(lit(0))),
    /// ]);
    /// let (sink, late_rows) = connectors::collect();
    /// late.write(sink);
    /// let (sink, other_rows) = connectors::collect();
    /// rest.write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&late_rows.take()[0]), "delay: 90");
    /// assert_eq!(show(&other_rows.take()[0]), "delay: 3, null");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn partition<const N: usize>(
        &self,
        parts: [(&str, Expr); N],
    ) -> ([Collection; N], Collection) {
        let mut ports = self.apply_ports(Partition::new(parts)).into_iter();
        // There are as many ports as parts, and one more.
        let mut next = || ports.next().unwrap_or_else(|| self.clone());
        let parts = std::array::from_fn(|_| next());
        (parts, next())
    }
}

impl Transform for Partition {
    fn describe(&self) -> Description {
        let parts: Vec<(&str, String)> = self
            .parts
            .iter()
            .map(|(name, predicate)| (name.as_str(), predicate.to_string()))
            .collect();
        Description::new("partition", json!({ "parts": parts }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let mut errors: Vec<Error> = Vec::new();
        let mut names: Vec<&str> = vec![REST];
        for (name, predicate) in &self.parts {
            if names.contains(&name.as_str()) {
                errors.push(
                    Error::pipeline(format!("two parts are named {name:?}")).with_hint(format!(
                        "Give each a name of its own; {REST:?} is that of the rows that are of no part."
                    )),
                );
            }
            names.push(name);
            let compiled = Expression::compile_predicate(predicate, &inputs[0]);
            errors.extend(
                compiled
                    .err()
                    .map(|e| e.with_detail(format!("It is the predicate of part {name:?}."))),
            );
        }
        let predicates = self.parts.iter().map(|(_, predicate)| predicate);
        errors.extend(check_expressions(predicates, &inputs[0]).err());
        if errors.is_empty() {
            Ok(SchemaRef::clone(&inputs[0]))
        } else {
            Err(Error::all(errors))
        }
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let predicates = self
            .parts
            .iter()
            .map(|(_, predicate)| Evaluator::new(predicate));
        Ok(Box::new(PartitionOperator {
            predicates: predicates.collect(),
        }))
    }

    fn properties(&self) -> Properties {
        let names = self.parts.iter().map(|(name, _)| name.as_str());
        Properties::default()
            .keeps_positions(true)
            .on_changelog(OnChangelog::Carry)
            .ports(names.chain([REST]))
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        with_columns_of(wanted, self.parts.iter().map(|(_, predicate)| predicate))
    }
}

struct PartitionOperator {
    predicates: Vec<Evaluator>,
}

impl Operator for PartitionOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let mut left = batch;
        for (port, predicate) in self.predicates.iter_mut().enumerate() {
            if left.n_rows() == 0 {
                return Ok(());
            }
            let (asked, values) = predicate.evaluate(left, out)?;
            let values: &BooleanArray = values
                .as_boolean_opt()
                .ok_or_else(|| Error::bug("a predicate did not give Booleans"))?;
            let mask = match values.null_count() {
                0 => values.clone(),
                _ => prep_null_mask_filter(values),
            };
            match mask.true_count() {
                0 => left = asked,
                n if n == asked.n_rows() => {
                    out.push_to(port, asked);
                    return Ok(());
                }
                _ => {
                    out.push_to(port, asked.filter(&mask)?);
                    left = asked.filter(&not(&mask)?)?;
                }
            }
        }
        out.push_to(self.predicates.len(), left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{col, lit};
    use crate::output::OnBadRow;
    use crate::testing::{refuse_transform, show, table};
    use expect_test::expect;

    fn by_size() -> Partition {
        Partition::new([
            ("zero", col("x").eq(lit(0))),
            ("small", (lit(100) / col("x")).gt(lit(10))),
        ])
    }

    /// Cut anyhow, each row goes to the first part whose predicate is true, and its place stays known.
    #[test]
    fn the_first_that_is_true_takes_the_row() {
        let rows = table("x: 0, 5, 50, null, 7, 0");
        for size in 1..=6 {
            let mut operator = by_size().build(&Artifacts::none()).unwrap();
            let mut parts = vec![Vec::new(); 3];
            for start in (0..6).step_by(size) {
                let rows = rows.slice(start, size.min(6 - start));
                let batch = Batch::read(rows, Default::default(), "s".into(), start as u64);
                let mut out = Output::new(OnBadRow::Fail);
                operator.on_batch(0, batch, &mut out).unwrap();
                for (port, batch) in out.take() {
                    let at = (0..batch.n_rows()).map(|i| batch.position(i).row);
                    parts[port].extend(at);
                }
            }
            assert_eq!(parts, [vec![0, 5], vec![1, 4], vec![2, 3]]);
        }
    }

    /// The second predicate would divide by zero on rows that the first has taken.
    #[test]
    fn later_predicates_do_not_see_rows_that_are_taken() {
        let mut operator = by_size().build(&Artifacts::none()).unwrap();
        let mut out = Output::new(OnBadRow::Fail);
        operator
            .on_batch(0, Batch::new(table("x: 0, 5")), &mut out)
            .unwrap();
        let made: Vec<String> = out.take().iter().map(|(_, b)| show(b.rows())).collect();
        assert_eq!(made, ["x: 0", "x: 5"]);
    }

    #[test]
    fn names_and_predicates_are_checked() {
        refuse_transform(
            Partition::new([
                ("a", col("x").gt(lit(1))),
                ("a", col("x") + lit(1)),
                ("rest", col("y").gt(lit(1))),
            ]),
            "x: 1",
            expect![[r#"
                4 errors
                1. two parts are named "a"
                     Hint: Give each a name of its own; "rest" is that of the rows that are of no part.
                2. a predicate must be Boolean, `x + Int32(1)` is Int64
                     It is the predicate of part "a".
                     Hint: Compare it with something, such as `.gt(lit(0))`.
                3. two parts are named "rest"
                     Hint: Give each a name of its own; "rest" is that of the rows that are of no part.
                4. column "y" is not there
                     The columns are "x".
                     It is the predicate of part "rest"."#]],
        );
    }
}
