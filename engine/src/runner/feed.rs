//! Where the rows of a phase come from: the splits of a source, or rows kept by an earlier phase.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::Array;

use super::metrics::{Expected, NodeMetrics};
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::graph::NodeIndex;
use crate::output::Output;
use crate::source::{Position, RowsRead, Source, Split, SplitReader};

/// Rows in parts, handed out to whichever worker asks first, so that none idles while parts are left.
pub(crate) trait Feed: Send + Sync {
    /// Opens the next part that nobody has taken; `None` when all have been.
    fn next_part(&self) -> Result<Option<Box<dyn FeedReader>>>;

    /// What will have been read in the end, where that is known.
    fn expected(&self) -> Expected;

    /// Which of its splits are over; `None` where it does not know.
    fn ended(&self) -> Option<Arc<Ended>> {
        None
    }
}

/// An open part.
pub(crate) trait FeedReader: Send {
    /// The next rows; `None` at the end.
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<Batch>>;

    /// What says that the split is over once all holders have dropped it; the rows hold it too.
    fn lease(&self) -> Option<Arc<Lease>> {
        None
    }
}

/// Which splits of a source are over: read to their end, and every row of them taken in wherever it went.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    all_before: AtomicU32,
    later: Mutex<BTreeSet<u32>>,
}

impl Ended {
    /// All splits before this one are over.
    pub(crate) fn all_before(&self) -> u32 {
        self.all_before.load(SeqCst)
    }

    fn add(&self, split: u32) {
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        later.insert(split);
        let mut next = self.all_before.load(SeqCst);
        while later.remove(&next) {
            next += 1;
        }
        self.all_before.store(next, SeqCst);
    }
}

/// Held by the reader of a split and by all that is made of its rows.
#[derive(Debug)]
pub(crate) struct Lease {
    ended: Arc<Ended>,
    split: u32,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ended.add(self.split);
    }
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
    ended: Arc<Ended>,
}

impl SourceFeed {
    pub(crate) fn new(
        (node, id): (NodeIndex, &Arc<str>),
        source: Arc<dyn Source>,
        columns: Option<Vec<String>>,
        metrics: &Arc<NodeMetrics>,
    ) -> Result<Self> {
        let splits = source.splits()?;
        metrics.left_out(source.n_pruned_rows());
        Ok(Self {
            node,
            source,
            splits,
            columns,
            taken: AtomicUsize::new(0),
            id: Arc::clone(id),
            metrics: Arc::clone(metrics),
            ended: Arc::default(),
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
        let key = SplitKey {
            source: number(self.node)?,
            split: number(place)?,
            branch: 0,
        };
        let lease = Arc::new(Lease {
            ended: Arc::clone(&self.ended),
            split: key.split,
        });
        Ok(Some(Box::new(SplitFeedReader {
            reader,
            key,
            lease,
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

    fn ended(&self) -> Option<Arc<Ended>> {
        Some(Arc::clone(&self.ended))
    }
}

struct SplitFeedReader {
    reader: Box<dyn SplitReader>,
    key: SplitKey,
    lease: Arc<Lease>,
    name: Arc<str>,
    next_row: u64,
    told: Told,
    metrics: Arc<NodeMetrics>,
}

/// What of a split is in the metrics already.
#[derive(Default)]
struct Told {
    bytes_read: u64,
    n_pruned_rows: u64,
}

impl SplitFeedReader {
    fn tell(&mut self) {
        let (bytes, pruned) = (self.reader.bytes_read(), self.reader.n_pruned_rows());
        let told = &mut self.told;
        // A reader that counts backwards tells nothing new.
        let metrics = &self.metrics;
        metrics.read_storage(bytes.saturating_sub(told.bytes_read));
        metrics.left_out(pruned.saturating_sub(told.n_pruned_rows));
        told.bytes_read = told.bytes_read.max(bytes);
        told.n_pruned_rows = told.n_pruned_rows.max(pruned);
    }
}

impl FeedReader for SplitFeedReader {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<Batch>> {
        let rows = self.reader.next_batch(out)?;
        self.tell();
        let Some(rows) = rows else {
            return Ok(None);
        };
        let RowsRead { first_row, mask } = self.reader.rows_read().unwrap_or(RowsRead {
            first_row: self.next_row,
            mask: None,
        });
        let n_rows = mask.as_ref().map_or(rows.num_rows(), Array::len);
        self.next_row = first_row + n_rows as u64;
        let batch = Batch::read(rows, self.key, Arc::clone(&self.name), first_row);
        Ok(Some(batch.masked(mask).on_lines(self.reader.lines())))
    }

    fn lease(&self) -> Option<Arc<Lease>> {
        Some(Arc::clone(&self.lease))
    }
}
