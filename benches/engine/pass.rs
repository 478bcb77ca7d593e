//! A transform that does nothing, placed in the dataflow in each of the ways there are.

use arrow::datatypes::SchemaRef;
use mainstem::engine::{
    Artifacts, Batch, Description, Distribution, Operator, Output, Properties, Result, Transform,
};
use serde_json::json;

/// Hands batches on as they are, or drops them.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    properties: Properties,
    keeps: bool,
}

impl Pass {
    /// Runs in one operator with its neighbours.
    pub(crate) fn fused() -> Self {
        Self {
            properties: Properties::row_wise(),
            keeps: true,
        }
    }

    /// Runs in an operator of its own.
    pub(crate) fn operator() -> Self {
        Self {
            properties: Properties::default(),
            keeps: true,
        }
    }

    /// Has rows with equal keys on one worker.
    pub(crate) fn by_key() -> Self {
        let by_key = Distribution::ByKey(vec!["key".into()]);
        Self {
            properties: Properties::default().distribution(by_key),
            keeps: true,
        }
    }

    /// Runs on the pool for blocking work.
    pub(crate) fn pool() -> Self {
        Self {
            properties: Properties::row_wise().blocking(true),
            keeps: true,
        }
    }

    /// Ends a chain: no row goes on.
    pub(crate) fn drop_all() -> Self {
        Self {
            properties: Properties::default(),
            keeps: false,
        }
    }
}

impl Transform for Pass {
    fn describe(&self) -> Description {
        Description::new("pass", json!({ "keeps": self.keeps }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(PassOperator { keeps: self.keeps }))
    }

    fn properties(&self) -> Properties {
        self.properties.clone()
    }
}

struct PassOperator {
    keeps: bool,
}

impl Operator for PassOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        if self.keeps {
            out.push(batch);
        } else {
            out.filtered(batch.n_rows());
        }
        Ok(())
    }
}
