//! Turns batches into batches by a function of the user's.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{Description, Operator, Properties, Transform};

type BatchFn = Arc<dyn Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync>;

/// Turns each batch into another by a function.
///
/// How rows are cut into batches is not promised, so the function must treat each row alone.
#[derive(Clone)]
pub struct MapBatches {
    function: BatchFn,
    returns: Option<SchemaRef>,
    blocking: bool,
    concurrency: usize,
}

impl MapBatches {
    /// A function that keeps the schema.
    pub fn new(
        function: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Self {
        Self {
            function: Arc::new(function),
            returns: None,
            blocking: false,
            concurrency: 1,
        }
    }

    /// The schema of what the function returns, where it is another.
    #[must_use]
    pub fn returns(mut self, schema: SchemaRef) -> Self {
        self.returns = Some(schema);
        self
    }

    /// The function takes 0.5 ms and more: it runs on the pool, so that the worker goes on meanwhile.
    #[must_use]
    pub fn blocking(mut self, blocking: bool) -> Self {
        self.blocking = blocking;
        self
    }

    /// The function waits, for a file or a service: `n_batches` are under way at once on each worker.
    ///
    /// Their order is kept.
    #[must_use]
    pub fn concurrency(mut self, n_batches: usize) -> Self {
        self.blocking = true;
        self.concurrency = n_batches;
        self
    }
}

impl Collection {
    /// Each batch through a function that keeps the schema; see [`MapBatches`] for more.
    #[must_use]
    pub fn map_batches(
        &self,
        function: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Collection {
        self.apply(MapBatches::new(function))
    }
}

impl fmt::Debug for MapBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapBatches")
            .field("returns", &self.returns)
            .finish_non_exhaustive()
    }
}

impl Transform for MapBatches {
    fn describe(&self) -> Description {
        Description::new(
            "map_batches",
            json!({ "blocking": self.blocking, "concurrency": self.concurrency }),
        )
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(self.returns.as_ref().unwrap_or(&inputs[0])))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(MapBatchesOperator { spec: self.clone() }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise()
            .portable(false)
            .blocking(self.blocking)
            .concurrency(self.concurrency)
    }
}

struct MapBatchesOperator {
    spec: MapBatches,
}

impl Operator for MapBatchesOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let n_rows = batch.n_rows();
        let input = batch.rows().schema();
        let rows = (self.spec.function)(batch.rows().clone())?;
        let promised = self.spec.returns.as_ref().unwrap_or(&input);
        if rows.schema().fields() != promised.fields() {
            return Err(
                Error::pipeline("the function returned other columns than promised")
                    .with_detail(format!("Promised: {promised}."))
                    .with_detail(format!("Returned: {}.", rows.schema()))
                    .with_hint("State what it returns with `MapBatches::returns`."),
            );
        }
        if rows.num_rows() < n_rows {
            out.filtered(n_rows - rows.num_rows());
        }
        let same_rows = rows.num_rows() == n_rows;
        out.push(if same_rows {
            batch.with_columns(rows)
        } else {
            batch.derive(rows)
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::OnBadRow;
    use crate::testing::{check_transform, run_transform, table};
    use arrow::array::{AsArray, BooleanArray};
    use arrow::datatypes::Int64Type;
    use expect_test::expect;

    #[test]
    fn each_batch_goes_through_the_function() {
        let odd = |rows: RecordBatch| {
            let a = rows["a"].as_primitive::<Int64Type>();
            let mask: BooleanArray = a.iter().map(|a| a.map(|a| a % 2 == 1)).collect();
            Ok(arrow::compute::filter_record_batch(&rows, &mask)?)
        };
        check_transform(MapBatches::new(odd), "a: 1, 2, 3", expect!["a: 1, 3"]);
    }

    #[test]
    fn a_broken_promise_is_an_error() {
        let map = MapBatches::new(|_| Ok(table("b: 1.0")));
        let error = run_transform(&map, &table("a: 1"), OnBadRow::Fail).unwrap_err();
        assert!(error.is_pipeline());
        assert_eq!(
            error.message(),
            "the function returned other columns than promised"
        );
    }
}
