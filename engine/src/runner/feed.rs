//! Where the rows of a phase come from: the splits of a source, or rows kept by an earlier phase.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::metrics::{Expected, NodeMetrics};
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::graph::NodeIndex;
use crate::output::Output;
use crate::source::{Position, Source, Split, SplitReader};

/// Rows in parts, handed out to whichever worker asks first, so that none idles while parts are left.
pub(crate) trait Feed: Send + Sync {
    /// Opens the next part that nobody has taken; `None` when all have been.
    fn next_part(&self) -> Result<Option<Box<dyn FeedReader>>>;

    /// What will have been read in the end, where that is known.
    fn expected(&self) -> Expected;
}

/// An open part.
pub(crate) trait FeedReader: Send {
    /// The next rows; `None` at the end.
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<Batch>>;
}

/// The splits of a source.
pub(crate) struct SourceFeed {
    node: NodeIndex,
    source: Arc<dyn Source>,
    splits: Vec<Split>,
    columns: Option<Vec<String>>,
    taken: AtomicUsize,
    id: Arc<str>,
    metrics: Arc<NodeMetrics>,
}

impl SourceFeed {
    pub(crate) fn new(
        (node, id): (NodeIndex, &Arc<str>),
        source: Arc<dyn Source>,
        columns: Option<Vec<String>>,
        metrics: &Arc<NodeMetrics>,
    ) -> Result<Self> {
        let splits = source.splits()?;
        Ok(Self {
            node,
            source,
            splits,
            columns,
            taken: AtomicUsize::new(0),
            id: Arc::clone(id),
            metrics: Arc::clone(metrics),
        })
    }
}

impl Feed for SourceFeed {
    fn next_part(&self) -> Result<Option<Box<dyn FeedReader>>> {
        let place = self.taken.fetch_add(1, Relaxed);
        let Some(split) = self.splits.get(place) else {
            return Ok(None);
        };
        tracing::debug!(node = &*self.id, split = split.name, "split opened");
        let reader = self
            .source
            .open(split, Position::default(), self.columns.as_deref())?;
        let number = |n: usize| {
            u32::try_from(n).map_err(|_| Error::pipeline(format!("{n} splits are too many")))
        };
        Ok(Some(Box::new(SplitFeedReader {
            reader,
            key: SplitKey {
                source: number(self.node)?,
                split: number(place)?,
                branch: 0,
            },
            name: Arc::from(split.name.as_str()),
            next_row: 0,
            told: Told::default(),
            metrics: Arc::clone(&self.metrics),
        })))
    }

    fn expected(&self) -> Expected {
        Expected {
            n_rows: self.splits.iter().map(|s| s.n_rows).sum(),
            n_bytes: self.splits.iter().map(|s| s.n_bytes).sum(),
        }
    }
}

struct SplitFeedReader {
    reader: Box<dyn SplitReader>,
    key: SplitKey,
    name: Arc<str>,
    next_row: u64,
    told: Told,
    metrics: Arc<NodeMetrics>,
}

/// What of a split is in the metrics already.
#[derive(Default)]
struct Told {
    bytes_read: u64,
    rows_pruned: u64,
}

impl SplitFeedReader {
    fn tell(&mut self) {
        let (bytes, pruned) = (self.reader.bytes_read(), self.reader.rows_pruned());
        let told = &mut self.told;
        // A reader that counts backwards tells nothing new.
        self.metrics.read_storage(
            bytes.saturating_sub(told.bytes_read),
            pruned.saturating_sub(told.rows_pruned),
        );
        told.bytes_read = told.bytes_read.max(bytes);
        told.rows_pruned = told.rows_pruned.max(pruned);
    }
}

impl FeedReader for SplitFeedReader {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<Batch>> {
        let rows = self.reader.next_batch(out)?;
        self.tell();
        let Some(rows) = rows else {
            return Ok(None);
        };
        let first_row = self.next_row;
        self.next_row += rows.num_rows() as u64;
        Ok(Some(Batch::read(
            rows,
            self.key,
            Arc::clone(&self.name),
            first_row,
        )))
    }
}
