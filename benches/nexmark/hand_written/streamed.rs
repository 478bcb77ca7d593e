//! Queries as timely dataflows for this one purpose: as a stream, with a watermark behind the rows.
//!
//! ```text
//! worker: row groups, as they are dealt ─▶ open panes ─closed by the watermark─▶ exchange by key ─▶ windows
//! ```
//!
//! Unlike the programs over rayon they do not know that the file ends: a window is answered, and forgotten, when no
//! row can belong to it any more.

mod hot_items;
mod new_users;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};

use super::{BATCH_ROWS, Events, Failure};
use crate::dataset::Dataset;
use crate::digest::Digest;
use crate::events::DISORDER;
use crate::query::Query;

const DISORDER_MS: i64 = DISORDER.as_millis() as i64;

/// Answers a query of those that are written so; `None` for the others.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn answer(
    query: Query,
    data: &Dataset,
    n_workers: usize,
    hashed: bool,
) -> Result<Option<Digest>, Failure> {
    let shared = Shared {
        events: Arc::new(Events::open(data).map_err(|e| e.to_string())?),
        next_group: Arc::default(),
        answered: Arc::new(Mutex::new(Ok(Digest::default()))),
        hashed,
    };
    let config = match n_workers {
        1 => timely::Config::thread(),
        n => timely::Config::process(n),
    };
    let of_workers = shared.clone();
    let guards = timely::execute(config, move |worker| {
        let shared = of_workers.clone();
        worker.dataflow(|scope| match query {
            Query::Q5 => hot_items::build(scope, &shared),
            Query::Q8 => new_users::build(scope, &shared),
            _ => {}
        });
    })?;
    for guard in guards.join() {
        guard?;
    }
    let mut answered = shared.answered();
    let answered = std::mem::replace(&mut *answered, Ok(Digest::default()));
    Ok(has(query).then_some(answered?))
}

/// Whether a query is written as a stream.
pub(crate) fn has(query: Query) -> bool {
    matches!(query, Query::Q5 | Query::Q8)
}

/// What the workers have in common.
#[derive(Clone)]
struct Shared {
    events: Arc<Events>,
    next_group: Arc<AtomicUsize>,
    answered: Arc<Mutex<Result<Digest, Failure>>>,
    hashed: bool,
}

impl Shared {
    fn answered(&self) -> std::sync::MutexGuard<'_, Result<Digest, Failure>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds rows of the answer, or what went wrong.
    fn add(&self, rows: Result<RecordBatch, Failure>) {
        let mut answered = self.answered();
        let added = rows.and_then(|rows| match &mut *answered {
            Ok(digest) => digest
                .add(&rows, self.hashed)
                .map_err(|e| e.to_string().into()),
            Err(_) => Ok(()),
        });
        if let Err(error) = added {
            *answered = Err(error);
        }
    }

    /// The next row group that nobody reads; `None` at the end.
    fn next_group(
        &self,
        columns: &ProjectionMask,
    ) -> Result<Option<ParquetRecordBatchReader>, Failure> {
        let group = self.next_group.fetch_add(1, Ordering::Relaxed);
        let metadata = &self.events.metadata;
        if group >= metadata.metadata().num_row_groups() {
            return Ok(None);
        }
        let file = File::open(&self.events.file)?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
            .with_projection(columns.clone())
            .with_row_groups(vec![group])
            .with_batch_size(BATCH_ROWS)
            .build()?;
        Ok(Some(reader))
    }
}

/// The panes that a worker has open, by their start.
type Panes<P> = BTreeMap<i64, P>;

/// How rows become what is sent of a pane.
struct Pre<P, D> {
    columns: &'static [&'static str],
    size_ms: i64,
    /// Takes a batch into the panes that are open, and gives the latest time in it.
    take: fn(&RecordBatch, &mut Panes<P>) -> i64,
    /// What is sent of a pane when it is closed.
    give: fn(i64, P) -> Vec<D>,
}

impl<P: 'static, D: ExchangeData> Pre<P, D> {
    /// What each worker has made of the rows it has read, pane by pane, as it closes them.
    fn stream<'scope>(
        self,
        scope: Scope<'scope, i64>,
        shared: &Shared,
    ) -> StreamVec<'scope, i64, D> {
        let shared = shared.clone();
        let schema = shared.events.metadata.parquet_schema();
        let columns = ProjectionMask::columns(schema, self.columns.iter().copied());
        source(scope, "read", move |capability: Capability<i64>, info| {
            let activator = scope.activator_for(info.address);
            let mut capability = Some(capability);
            let mut panes = Panes::new();
            let mut latest = i64::MIN;
            let mut reader = None;
            move |output: &mut timely::dataflow::operators::generic::OutputBuilderSession<
                '_,
                i64,
                CapacityContainerBuilder<Vec<D>>,
            >| {
                let Some(held) = &mut capability else {
                    return;
                };
                let rows = loop {
                    let Some(open) = &mut reader else {
                        reader = match shared.next_group(&columns) {
                            Ok(None) => break None,
                            Ok(next) => next,
                            Err(error) => {
                                shared.add(Err(error));
                                break None;
                            }
                        };
                        continue;
                    };
                    match ParquetRecordBatchReader::next(open) {
                        Some(Ok(rows)) => break Some(rows),
                        Some(Err(error)) => shared.add(Err(error.into())),
                        None => {}
                    }
                    reader = None;
                };
                let watermark = match &rows {
                    Some(rows) => {
                        latest = latest.max((self.take)(rows, &mut panes));
                        let watermark = latest.saturating_sub(DISORDER_MS);
                        watermark - watermark.rem_euclid(self.size_ms)
                    }
                    None => i64::MAX,
                };
                while let Some(pane) = panes.first_entry().filter(|p| *p.key() < watermark) {
                    let (start, pane) = pane.remove_entry();
                    let at = held.delayed(&start);
                    let mut sent = (self.give)(start, pane);
                    output.session(&at).give_iterator(sent.drain(..));
                }
                match rows {
                    Some(_) if watermark > *held.time() => held.downgrade(&watermark),
                    Some(_) => {}
                    None => capability = None,
                }
                if capability.is_some() {
                    activator.activate();
                }
            }
        })
    }
}
