//! Where the rows of a phase come from: the splits of a source, or rows kept by an earlier phase.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::Array;

use super::metrics::{Expected, NodeMetrics};
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::graph::NodeIndex;
use crate::output::Output;
use crate::source::{Position, RowsRead, Source, Split, SplitReader, Wake};
use crate::transform::SplitEvent;

/// Rows in parts, handed out to whichever worker asks first, so that none idles while parts are left.
pub(crate) trait Feed: Send + Sync {
    /// Opens the next part that nobody has taken, for a worker; `None` when all have been.
    fn next_part(&self, worker: usize) -> Result<Option<Box<dyn FeedReader>>>;

    /// The number of the source, if this worker will open no further part.
    fn all_opened(&self, _worker: usize) -> Option<u32> {
        None
    }

    /// True if it ends, and reading it waits for no other machine nor program.
    fn at_hand(&self) -> bool {
        false
    }

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

    /// As [`SplitReader::wake_by`].
    fn wake_by(&mut self, _wake: &Wake) -> bool {
        false
    }

    /// What has become of its splits since the last call.
    fn take_events(&mut self) -> Vec<SplitEvent> {
        Vec::new()
    }

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
///
/// Those of a source that ends are handed out one after the other. Those of one that does not are all read at
/// once, in turn, each always by the same worker.
pub(crate) struct SourceFeed {
    node: NodeIndex,
    source: Arc<dyn Source>,
    splits: Vec<Split>,
    columns: Option<Vec<String>>,
    taken: AtomicUsize,
    /// Which workers have opened their splits, where all are read at once.
    opened: Vec<AtomicBool>,
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
        n_workers: usize,
    ) -> Result<Self> {
        let splits = source.splits()?;
        metrics.left_out(source.n_pruned_rows());
        Ok(Self {
            node,
            source,
            splits,
            columns,
            taken: AtomicUsize::new(0),
            opened: (0..n_workers).map(|_| AtomicBool::new(false)).collect(),
            id: Arc::clone(id),
            metrics: Arc::clone(metrics),
            ended: Arc::default(),
        })
    }
}

impl SourceFeed {
    fn open(&self, place: usize, split: &Split) -> Result<SplitFeedReader> {
        tracing::debug!(node = &*self.id, split = split.name, "split opened");
        let reader = self
            .source
            .open(split, Position::default(), self.columns.as_deref())?;
        let key = SplitKey {
            source: number(self.node)?,
            split: number(place)?,
            branch: 0,
        };
        let lease = Arc::new(Lease {
            ended: Arc::clone(&self.ended),
            split: key.split,
        });
        let name: Arc<str> = Arc::from(split.name.as_str());
        let opened = SplitEvent::Opened {
            key,
            name: Arc::clone(&name),
        };
        Ok(SplitFeedReader {
            reader,
            key,
            lease,
            name,
            next_row: 0,
            told: Told::default(),
            metrics: Arc::clone(&self.metrics),
            events: vec![opened],
        })
    }

    /// All splits of one worker, once.
    fn in_turn(&self, worker: usize) -> Result<Option<Box<dyn FeedReader>>> {
        let Some(opened) = self.opened.get(worker) else {
            return Ok(None);
        };
        if opened.swap(true, SeqCst) {
            return Ok(None);
        }
        let mine = self.splits.iter().enumerate();
        let mine = mine.filter(|(place, _)| place % self.opened.len() == worker);
        let readers = mine.map(|(place, split)| self.open(place, split));
        let mut readers = readers.collect::<Result<VecDeque<_>>>()?;
        // All are open before a row of any is read, or the watermark would not wait for the others.
        let events = readers.iter_mut().flat_map(FeedReader::take_events);
        let events = events.collect();
        Ok(Some(Box::new(ReadInTurn {
            lease: readers.front().map(|r| Arc::clone(&r.lease)),
            readers,
            events,
        })))
    }
}

fn number(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::pipeline(format!("{n} splits are too many")))
}

impl Feed for SourceFeed {
    fn next_part(&self, worker: usize) -> Result<Option<Box<dyn FeedReader>>> {
        if !self.source.properties().bounded {
            return self.in_turn(worker);
        }
        let place = self.taken.fetch_add(1, SeqCst);
        match self.splits.get(place) {
            Some(split) => Ok(Some(Box::new(self.open(place, split)?))),
            None => Ok(None),
        }
    }

    fn at_hand(&self) -> bool {
        let properties = self.source.properties();
        properties.at_hand && properties.bounded
    }

    fn all_opened(&self, worker: usize) -> Option<u32> {
        let all = match self.source.properties().bounded {
            true => self.taken.load(SeqCst) >= self.splits.len(),
            false => self.opened.get(worker).is_some_and(|o| o.load(SeqCst)),
        };
        all.then(|| u32::try_from(self.node).ok()).flatten()
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
    events: Vec<SplitEvent>,
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
            self.events.push(SplitEvent::Ended { key: self.key });
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

    fn wake_by(&mut self, wake: &Wake) -> bool {
        self.reader.wake_by(Arc::clone(wake))
    }

    fn take_events(&mut self) -> Vec<SplitEvent> {
        std::mem::take(&mut self.events)
    }

    fn lease(&self) -> Option<Arc<Lease>> {
        Some(Arc::clone(&self.lease))
    }
}

/// Splits that are read in turn, a batch of each.
struct ReadInTurn {
    readers: VecDeque<SplitFeedReader>,
    events: Vec<SplitEvent>,
    /// Of the split of the last batch.
    lease: Option<Arc<Lease>>,
}

impl FeedReader for ReadInTurn {
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<Batch>> {
        let mut none_yet = None;
        for _ in 0..self.readers.len() {
            let Some(mut reader) = self.readers.pop_front() else {
                break;
            };
            let n_rejected = out.n_rejected();
            let batch = reader.next_batch(out)?;
            self.events.extend(reader.take_events());
            let Some(batch) = batch else { continue };
            self.lease = reader.lease();
            self.readers.push_back(reader);
            // Letters leave at once, or those of all splits would pile up.
            if batch.n_rows() > 0 || out.n_rejected() > n_rejected {
                return Ok(Some(batch));
            }
            none_yet = Some(batch);
        }
        Ok(none_yet)
    }

    /// Only if all do.
    fn wake_by(&mut self, wake: &Wake) -> bool {
        let mut all = true;
        for reader in &mut self.readers {
            all &= reader.wake_by(wake);
        }
        all
    }

    fn take_events(&mut self) -> Vec<SplitEvent> {
        std::mem::take(&mut self.events)
    }

    fn lease(&self) -> Option<Arc<Lease>> {
        self.lease.clone()
    }
}
