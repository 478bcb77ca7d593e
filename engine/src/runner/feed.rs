//! Where the rows of a phase come from: the splits of a source, or rows kept by an earlier phase.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arrow::array::Array;

use super::metrics::NodeMetrics;
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::graph::NodeIndex;
use crate::output::Output;
use crate::source::{Position, RowsRead, Source, Split, SplitReader};

/// Rows in parts, handed out to whichever worker asks first, so that none idles while parts are left.
pub(crate) trait Feed: Send + Sync {
    /// Opens the next part that nobody has taken; `None` when all have been.
    fn next_part(&self) -> Result<Option<Box<dyn FeedReader>>>;

    /// How many rows there are in all, where that is known.
    fn n_rows(&self) -> Option<u64>;
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
    metrics: Arc<NodeMetrics>,
    taken: AtomicUsize,
}

impl SourceFeed {
    pub(crate) fn new(
        node: NodeIndex,
        source: Arc<dyn Source>,
        columns: Option<Vec<String>>,
        metrics: Arc<NodeMetrics>,
    ) -> Result<Self> {
        let splits = source.splits()?;
        metrics.left_out(source.n_pruned_rows());
        Ok(Self {
            node,
            source,
            splits,
            columns,
            metrics,
            taken: AtomicUsize::new(0),
        })
    }
}

impl Feed for SourceFeed {
    fn next_part(&self) -> Result<Option<Box<dyn FeedReader>>> {
        let place = self.taken.fetch_add(1, Relaxed);
        let Some(split) = self.splits.get(place) else {
            return Ok(None);
        };
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
            n_pruned: 0,
            metrics: Arc::clone(&self.metrics),
        })))
    }

    fn n_rows(&self) -> Option<u64> {
        self.splits.iter().map(|s| s.n_rows).sum()
    }
}

struct SplitFeedReader {
    reader: Box<dyn SplitReader>,
    key: SplitKey,
    name: Arc<str>,
    next_row: u64,
    /// Rows of the split that were left out, as far as they have been counted.
    n_pruned: u64,
    metrics: Arc<NodeMetrics>,
}

impl FeedReader for SplitFeedReader {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<Batch>> {
        let read = self.reader.next_batch(out)?;
        let n_pruned = self.reader.n_pruned_rows();
        self.metrics
            .left_out(n_pruned.saturating_sub(self.n_pruned));
        self.n_pruned = n_pruned;
        let Some(rows) = read else { return Ok(None) };
        let RowsRead { first_row, mask } = self.reader.rows_read().unwrap_or(RowsRead {
            first_row: self.next_row,
            mask: None,
        });
        let n_rows = mask.as_ref().map_or(rows.num_rows(), Array::len);
        self.next_row = first_row + n_rows as u64;
        let batch = Batch::read(rows, self.key, Arc::clone(&self.name), first_row);
        Ok(Some(batch.masked(mask)))
    }
}
