//! The rows of several collections together.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use serde_json::Value;

use crate::artifact::Artifacts;
use crate::batch::{BRANCHES, Batch};
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{ChangeTimes, Description, OnChangelog, Operator, Properties, Transform};

/// The rows of all inputs; rows of one split and one input keep their order.
///
/// Columns must agree in order, name and type; all are nullable in the result but `event_time` and `diff`,
/// which must agree in that as well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Union;

/// Columns whose meaning hangs on there being no nulls.
const NEVER_NULL: [&str; 2] = [EVENT_TIME, DIFF];

impl Collection {
    /// The rows of this collection and of the others.
    #[must_use]
    pub fn union(&self, others: &[Collection]) -> Collection {
        self.apply_with(others, Union)
    }
}

impl Transform for Union {
    fn describe(&self) -> Description {
        Description::new("union", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let first = &inputs[0];
        if inputs.len() > BRANCHES {
            let found = inputs.len();
            return Err(Error::pipeline(format!(
                "a union takes at most {BRANCHES} inputs, found {found}"
            ))
            .with_hint("Read many files as one source, or make a union of unions."));
        }
        for (n, input) in inputs.iter().enumerate().skip(1) {
            let same = input.fields().len() == first.fields().len()
                && input.fields().iter().zip(first.fields()).all(|(a, b)| {
                    let is_own = NEVER_NULL.contains(&a.name().as_str());
                    a.name() == b.name()
                        && a.data_type() == b.data_type()
                        && (!is_own || a.is_nullable() == b.is_nullable())
                });
            if !same {
                return Err(
                    Error::pipeline(format!("input {n} has other columns than input 0"))
                        .with_detail(format!("Input 0: {first}."))
                        .with_detail(format!("Input {n}: {input}."))
                        .with_hint("Bring them to the same columns with `select`."),
                );
            }
        }
        Ok(all_nullable(first))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(UnionOperator {
            schemas: Vec::new(),
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            n_inputs: None,
            same_windows: true,
            immediate: true,
            keeps_positions: true,
            on_changelog: OnChangelog::Carry,
            change_times: ChangeTimes::Kept,
            ..Properties::default()
        }
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }

    fn reads_rows(&self, _inputs: &[SchemaRef], wanted: Option<&Expr>) -> Option<Expr> {
        wanted.cloned()
    }
}

fn all_nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| {
            let is_sure = NEVER_NULL.contains(&f.name().as_str()) && !f.is_nullable();
            f.as_ref().clone().with_nullable(!is_sure)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

struct UnionOperator {
    /// The promised schema for each schema that has come in.
    schemas: Vec<(SchemaRef, SchemaRef)>,
}

impl UnionOperator {
    fn promised(&mut self, input: &SchemaRef) -> SchemaRef {
        if let Some((_, promised)) = self
            .schemas
            .iter()
            .find(|(from, _)| Arc::ptr_eq(from, input))
        {
            return Arc::clone(promised);
        }
        let promised = all_nullable(input);
        self.schemas
            .push((Arc::clone(input), Arc::clone(&promised)));
        promised
    }
}

impl Operator for UnionOperator {
    fn on_batch(&mut self, port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let schema = self.promised(&batch.rows().schema());
        let rows = RecordBatch::try_new(schema, batch.rows().columns().to_vec())?;
        out.push(batch.with_columns(rows).in_branch(port));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;
    use expect_test::expect;

    #[test]
    fn more_inputs_than_can_be_told_apart_are_refused() {
        let schemas = vec![table("a: 1").schema(); 65];
        assert!(Union.output_schema(&schemas[..64]).is_ok());
        let error = Union.output_schema(&schemas).unwrap_err();
        assert_eq!(error.message(), "a union takes at most 64 inputs, found 65");
    }

    #[test]
    fn columns_must_agree() {
        let schemas = [table("a: 1").schema(), table("a: 1.0").schema()];
        let error = Union.output_schema(&schemas).unwrap_err();
        expect![[r#"
            input 1 has other columns than input 0
              Input 0: Field { "a": nullable Int64 }.
              Input 1: Field { "a": nullable Float64 }.
              Hint: Bring them to the same columns with `select`."#]]
        .assert_eq(&error.to_string());
    }
}
