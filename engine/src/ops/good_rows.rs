//! Lets only rows through on which expressions have a value, in front of what reads these where rows stand nowhere.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::Result;
use crate::expression::{Evaluator, with_columns_of};
use crate::ops::key_columns::is_computed;
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{Description, Operator, Properties, Transform};

/// Rejects rows on which one of these expressions fails.
#[derive(Clone, Debug)]
pub(super) struct GoodRows {
    of: Vec<Expr>,
}

impl GoodRows {
    /// The rows on which those of these expressions have a value that are no plain columns; `None` where all are.
    ///
    /// Whoever reads the expressions checks them.
    pub(super) fn of<'a>(
        rows: &Collection,
        expressions: impl IntoIterator<Item = &'a Expr>,
        name: &str,
    ) -> Option<Collection> {
        let of = expressions.into_iter().cloned().map(Expr::unalias);
        let of: Vec<Expr> = of.filter(is_computed).collect();
        match of.is_empty() {
            true => None,
            false => Some(rows.named(name).apply(Self { of })),
        }
    }
}

impl Transform for GoodRows {
    fn describe(&self) -> Description {
        let of: Vec<String> = self.of.iter().map(ToString::to_string).collect();
        Description::new("good_rows", json!({ "of": of }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let of = self.of.iter().map(Evaluator::new);
        Ok(Box::new(GoodRowsOperator { of: of.collect() }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        with_columns_of(Some(wanted?), &self.of)
    }
}

struct GoodRowsOperator {
    of: Vec<Evaluator>,
}

impl Operator for GoodRowsOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let mut good = batch;
        for expression in &mut self.of {
            (good, _) = expression.evaluate(good, out)?;
        }
        out.push(good);
        Ok(())
    }
}
