//! The rows of a DataFusion query, a split per partition.
//!
//! ```text
//!  SQL, DataFrame ─▶ physical plan ─▶ partition 0 ─▶ task ─▶ 2 batches ─▶ SplitReader of a worker
//!                                     partition 1 ─▶ task ─▶ 2 batches ─▶ SplitReader of another
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::projection_pushdown::ProjectionPushdown;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;
use futures::executor::block_on;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use super::agreement::column_twice;
use super::selection::Selection;
use crate::batch::BATCH_ROWS;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;

/// How many batches a partition may be ahead of its reader.
const BATCHES_AHEAD: usize = 2;

/// The rows of a DataFusion query: see [`datafusion`].
pub struct DataFusionSource {
    frame: DataFrame,
    schema: SchemaRef,
    repeatable: bool,
    n_splits: OnceLock<usize>,
    execution: Mutex<Option<Execution>>,
}

/// Two sources of one query run it each for itself.
impl Clone for DataFusionSource {
    fn clone(&self) -> Self {
        Self {
            frame: self.frame.clone(),
            schema: Arc::clone(&self.schema),
            repeatable: self.repeatable,
            n_splits: self.n_splits.clone(),
            execution: Mutex::default(),
        }
    }
}

/// The rows of a DataFusion query, be it SQL or composed; each partition of its plan is a split.
///
/// What a query engine does better is left to it so: SQL, big sorts, joins that spill, tables of Delta
/// or Iceberg. The query runs on threads of its own, as fast as the pipeline takes its rows.
/// How many partitions there are is the session's setting `target_partitions`; give it the number of
/// workers, or more.
///
/// Text and bytes that DataFusion holds as views arrive as plain `Utf8` and `Binary`. Nulls are nulls.
/// Columns that the pipeline does not read are not read of tables either, where nothing in the query needs
/// them. The query stays the same otherwise, since one that is planned for other columns may deal its rows
/// to other partitions: what a window or an aggregate computes is computed whether it is read or not.
///
/// A query may deal rows to its partitions differently each time it runs, so by default later phases do
/// not run it again: the engine keeps its rows on disk. See [`DataFusionSource::repeatable`]. What goes by the
/// places of rows in their source may then take others in each run, as `sample` does, and `top_k`,
/// `distinct_by` and joins in event time where rows are equal under what they are asked for: sample by a key,
/// and order by columns that tell all rows apart. `explain()` says `repeatable=false` of such a query.
///
/// ```
/// # use datafusion::prelude::SessionContext;
/// # use mainstem_engine::{Error, Pipeline, RunOptions, connectors, testing::show};
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let context = SessionContext::new();
/// let frame = context.sql("SELECT 1 + 1 AS two").await?;
/// let pipeline = Pipeline::new("sums");
/// let (sink, rows) = connectors::collect();
/// pipeline.read("sums", connectors::datafusion(frame)).write(sink);
/// pipeline.run(&RunOptions::new().workers(1))?;
/// assert_eq!(show(&rows.take()[0]), "two: 2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), Error>(())
/// ```
pub fn datafusion(frame: DataFrame) -> DataFusionSource {
    let schema = plain(frame.schema().as_arrow());
    DataFusionSource {
        frame,
        schema,
        repeatable: false,
        n_splits: OnceLock::new(),
        execution: Mutex::default(),
    }
}

impl DataFusionSource {
    /// Whether the query gives the same rows in the same partitions whenever it runs, so that later
    /// phases may run it again instead of reading rows kept on disk: by default no.
    #[must_use]
    pub fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = repeatable;
        self
    }

    fn execution(&self) -> MutexGuard<'_, Option<Execution>> {
        self.execution
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// As many as the plan had partitions when it was first made.
    fn n_splits(&self) -> Result<usize> {
        if let Some(n) = self.n_splits.get() {
            return Ok(*n);
        }
        let execution = Execution::plan(self.frame.clone(), None)?;
        let n = execution.plan.output_partitioning().partition_count();
        Ok(*self.n_splits.get_or_init(|| n))
    }

    /// The plan that makes `columns` of a split, shared by the splits of one pass.
    fn plan_for(
        &self,
        split: usize,
        columns: Option<&[String]>,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>)> {
        let mut current = self.execution();
        let serves = |e: &Execution| e.columns.as_deref() == columns && !e.taken.contains(&split);
        if !current.as_ref().is_some_and(serves) {
            *current = Some(Execution::plan(self.frame.clone(), columns)?);
        }
        let Some(execution) = current.as_mut() else {
            return Err(Error::bug("a query has no plan"));
        };
        execution.taken.insert(split);
        Ok((Arc::clone(&execution.plan), Arc::clone(&execution.context)))
    }
}

/// One run of the query. A plan gives each partition once: a second reader needs a new plan.
struct Execution {
    columns: Option<Vec<String>>,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    taken: BTreeSet<usize>,
}

impl Execution {
    fn plan(frame: DataFrame, columns: Option<&[String]>) -> Result<Self> {
        let context = frame.task_ctx();
        let mut config = context.session_config().clone();
        // Otherwise a partition takes files of its siblings, and a split may be opened without the others.
        config
            .options_mut()
            .execution
            .enable_file_stream_work_stealing = false;
        let context = Arc::new(context.with_session_config(config));
        let wanted = columns.map(<[String]>::to_vec);
        let plan = wait_for({
            let context = Arc::clone(&context);
            async move {
                let plan = frame.create_physical_plan().await?;
                match wanted {
                    // Without a column DataFusion would lose the number of rows on the way.
                    Some(names) if !names.is_empty() => only(plan, &names, &context),
                    _ => Ok(plan),
                }
            }
        })??;
        Ok(Self {
            columns: columns.map(<[String]>::to_vec),
            plan,
            context,
            taken: BTreeSet::new(),
        })
    }
}

/// The plan with fewer columns, as far down as they can be left out without another plan.
///
/// A query of fewer columns would be planned anew, such as without a window that nobody reads, and then have
/// other partitions, or their rows in another order.
fn only(
    plan: Arc<dyn ExecutionPlan>,
    names: &[String],
    context: &TaskContext,
) -> std::result::Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let schema = plan.schema();
    let columns = names
        .iter()
        .map(|name| Ok((col(name, &schema)?, name.clone())));
    let columns = columns.collect::<std::result::Result<Vec<_>, DataFusionError>>()?;
    let whole: Arc<dyn ExecutionPlan> = Arc::new(ProjectionExec::try_new(columns, plan)?);
    let options = context.session_config().options();
    ProjectionPushdown::new().optimize(whole, options)
}

/// Queries run on threads of their own, never on a worker.
static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .thread_name("mainstem-datafusion")
        .enable_all()
        .build()
});

fn runtime() -> Result<&'static Runtime> {
    RUNTIME.as_ref().map_err(|error| {
        Error::environment("the threads of DataFusion cannot be started")
            .with_detail(format!("{error}."))
    })
}

/// Waits for `work` on the threads of queries; may be called from inside of any other runtime.
fn wait_for<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    block_on(runtime()?.spawn(work)).map_err(|error| {
        Error::bug("DataFusion panicked while it planned a query").with_detail(format!("{error}."))
    })
}

/// The schema with views as plain columns, and no metadata of the query.
fn plain(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            other => other.clone(),
        };
        Field::new(field.name(), data_type, field.is_nullable())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl fmt::Debug for DataFusionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "datafusion({} columns)", self.schema.fields().len())
    }
}

impl Source for DataFusionSource {
    fn describe(&self) -> Description {
        let query = self.frame.logical_plan().display_indent().to_string();
        let config = json!({ "query": query, "repeatable": self.repeatable });
        Description::new("datafusion", config)
    }

    fn schema(&self) -> Result<SchemaRef> {
        if let Some(twice) = column_twice(&self.schema) {
            return Err(
                Error::pipeline(format!("the query gives two columns called {twice:?}"))
                    .with_hint("Rename one of them in the query, such as by `AS`."),
            );
        }
        Ok(Arc::clone(&self.schema))
    }

    fn splits(&self) -> Result<Vec<Split>> {
        // Whoever asks for splits begins a pass, and what was left of another one is not for it.
        *self.execution() = None;
        let split = |number: usize| Split {
            name: format!("partition {number} of the query"),
            locator: json!(number),
            n_rows: None,
            n_bytes: None,
        };
        Ok((0..self.n_splits()?).map(split).collect())
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let number: usize = serde_json::from_value(split.locator.clone())?;
        let n_splits = self.n_splits()?;
        let (plan, context) = self.plan_for(number, columns)?;
        let n_partitions = plan.output_partitioning().partition_count();
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let work = runtime()?.spawn(async move {
            // Tables may have grown or shrunk since splits were counted: partitions are dealt to them, so that
            // each is read once.
            for partition in (number..n_partitions).step_by(n_splits.max(1)) {
                let mut rows = match plan.execute(partition, Arc::clone(&context)) {
                    Ok(rows) => rows,
                    Err(error) => {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                };
                while let Some(batch) = rows.next().await {
                    // The reader has gone: the query stops.
                    if sender.send(batch).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Box::new(QueryReader {
            split: split.name.clone(),
            selection: Selection::new(&self.schema, columns)?,
            batches,
            work: Some(work),
            skip: position.0,
            rest: None,
        }))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            bounded: true,
            repeatable: self.repeatable,
            ..SourceProperties::default()
        }
    }
}

struct QueryReader {
    split: String,
    selection: Selection,
    batches: mpsc::Receiver<Result<RecordBatch, DataFusionError>>,
    /// What makes the batches, until its end is known.
    work: Option<JoinHandle<()>>,
    /// Rows that have been read before.
    skip: u64,
    /// What is left of a batch larger than the engine's.
    rest: Option<RecordBatch>,
}

impl QueryReader {
    fn arrange(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let schema = plain(&rows.schema());
        let columns: std::result::Result<Vec<_>, _> = rows
            .columns()
            .iter()
            .zip(schema.fields())
            .map(
                |(column, field)| match column.data_type() == field.data_type() {
                    true => Ok(Arc::clone(column)),
                    false => cast(column, field.data_type()),
                },
            )
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(schema, columns?, &options)?;
        self.selection.arrange(&rows)
    }

    /// The first rows of `rows`; the others wait.
    fn cut(&mut self, rows: RecordBatch) -> RecordBatch {
        let n = rows.num_rows();
        if n <= BATCH_ROWS {
            return rows;
        }
        self.rest = Some(rows.slice(BATCH_ROWS, n - BATCH_ROWS));
        rows.slice(0, BATCH_ROWS)
    }
}

impl SplitReader for QueryReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(self.cut(rest)));
        }
        while let Some(batch) = block_on(self.batches.recv()) {
            let rows = batch.map_err(|error| query_failed(&self.split, error))?;
            let n_rows = rows.num_rows() as u64;
            let skipped = self.skip.min(n_rows);
            self.skip -= skipped;
            if skipped < n_rows {
                let from = skipped as usize;
                let rows = self.arrange(&rows.slice(from, rows.num_rows() - from))?;
                return Ok(Some(self.cut(rows)));
            }
        }
        // No more batches come from a task that has died either.
        match self.work.take().map(block_on) {
            Some(Err(error)) => Err(query_died(&self.split, error)),
            _ => Ok(None),
        }
    }
}

fn query_died(split: &str, error: JoinError) -> Error {
    let died = match error.is_panic() {
        true => Error::bug(format!("{split}: the query panicked"))
            .with_hint("Return an error instead, where the query calls a function of yours."),
        false => Error::environment(format!("{split}: the query stopped before its end")),
    };
    died.with_detail(format!("{error}."))
}

fn query_failed(split: &str, error: DataFusionError) -> Error {
    let message = format!("{split}: the query failed");
    let refused = match error.find_root() {
        DataFusionError::Plan(_) | DataFusionError::SchemaError(..) | DataFusionError::SQL(..) => {
            Error::pipeline(message)
        }
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => {
            Error::environment(message).with_hint("Check that what the query reads is there.")
        }
        DataFusionError::ResourcesExhausted(_) => Error::environment(message)
            .with_hint("Give the session's memory pool more, or let it spill to disk."),
        _ => Error::data(message),
    };
    refused
        .with_detail(format!("{}.", error.strip_backtrace()))
        .with_source(error)
}

#[cfg(test)]
mod tests;
