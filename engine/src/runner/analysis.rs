//! An analysis under way: an accumulator per split, merged in the order of the splits.
//!
//! ```text
//! source 0: split 0, split 1, split 2 ─merge─▶ one ┐
//! source 1: split 0, split 1          ─merge─▶ one ┴─merge─▶ the artifact
//! ```
//!
//! That order depends on the graph and on the splits alone. Splits that are over are merged while others are
//! still read, so that millions of small splits do not pile up; the order is the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::record_batch::RecordBatch;

use super::ends::EndWriter;
use super::feed::Ended;
use super::memory::Account;
use crate::analyzer::{AnyAccumulator, DynAnalyzer};
use crate::artifact::AnyArtifact;
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::expression::find_good;

/// An accumulator and the bytes it keeps.
struct Part {
    accumulator: AnyAccumulator,
    n_bytes: u64,
}

/// Where the accumulators of all workers are while no rows are added to them.
struct Parts {
    /// By split, and by the worker that met its rows: an exchange may bring rows of a split to several.
    splits: BTreeMap<(SplitKey, usize), Part>,
    /// By source, what its first splits were merged into; `None` while somebody merges.
    sources: BTreeMap<u32, Option<Part>>,
    n_bytes: u64,
    state: Account,
}

impl Parts {
    fn count(&mut self, added: u64, taken: u64) -> Result<()> {
        self.n_bytes = (self.n_bytes + added).saturating_sub(taken);
        self.state.holds(self.n_bytes)
    }
}

/// An analysis under way on all workers.
pub(crate) struct RunningAnalysis {
    analyzer: Arc<dyn DynAnalyzer>,
    parts: Mutex<Parts>,
    /// Which splits are over, by source; empty where that cannot be told.
    ended: BTreeMap<u32, Arc<Ended>>,
}

impl RunningAnalysis {
    /// `ended` says of each source which splits are over, so that no row of them comes any more; it may be
    /// empty, and then all is merged at the end.
    pub(crate) fn new(
        analyzer: Arc<dyn DynAnalyzer>,
        state: Account,
        ended: BTreeMap<u32, Arc<Ended>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            analyzer,
            parts: Mutex::new(Parts {
                splits: BTreeMap::new(),
                sources: BTreeMap::new(),
                n_bytes: 0,
                state,
            }),
            ended,
        })
    }

    pub(crate) fn writer(self: &Arc<Self>, worker: usize) -> Box<dyn EndWriter> {
        Box::new(AnalysisEnd {
            analysis: Arc::clone(self),
            worker,
        })
    }

    /// The artifact and the bytes it keeps, once all writers have finished.
    pub(crate) fn finish(&self, n_threads: usize) -> Result<(AnyArtifact, u64)> {
        let sources: Vec<u32> = {
            let parts = self.lock();
            let mut sources: Vec<u32> = parts.splits.keys().map(|(key, _)| key.source).collect();
            sources.extend(parts.sources.keys());
            sources.sort_unstable();
            sources.dedup();
            sources
        };
        let mut whole: Option<Part> = None;
        for source in sources {
            self.merge_splits(source, None)?;
            let Some(part) = self.lock().sources.remove(&source).flatten() else {
                return Err(Error::bug("an analysis lost what a source taught it"));
            };
            whole = Some(match whole {
                None => part,
                Some(before) => self.merged(before, part)?,
            });
        }
        let accumulator = whole.map_or_else(|| self.analyzer.create(), |w| w.accumulator);
        let artifact = self.analyzer.finish_any(accumulator, n_threads)?;
        let n_bytes = self.analyzer.bytes_of_artifact(&artifact);
        self.lock().state.holds(0)?;
        Ok((artifact, n_bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, worker: usize, batch: &Batch) -> Result<()> {
        let place = (batch.split_key(), worker);
        let part = self.lock().splits.remove(&place);
        let (mut accumulator, before) = match part {
            Some(part) => (part.accumulator, part.n_bytes),
            None => (self.analyzer.create(), 0),
        };
        self.analyzer
            .add_rows(&mut accumulator, batch.rows())
            .map_err(|error| self.located(error, batch))?;
        let n_bytes = self.analyzer.bytes_of(&accumulator);
        let part = Part {
            accumulator,
            n_bytes,
        };
        let mut parts = self.lock();
        parts.splits.insert(place, part);
        parts.count(n_bytes, before)
    }

    /// The error of the first row that cannot be added to anything, with its place; that of the batch, where only
    /// all its rows together cannot be.
    fn located(&self, error: Error, batch: &Batch) -> Error {
        let add = |rows: &RecordBatch| self.analyzer.add_rows(&mut self.analyzer.create(), rows);
        let mut first = None;
        let found = find_good(batch.rows(), &add, &mut |row, _| {
            let error = add(&batch.rows().slice(row, 1)).err();
            first = error.map(|e| e.at_position(&batch.position(row)));
            Err(Error::data("one is found"))
        });
        match found {
            Err(_) if error.is_data() => first.unwrap_or(error),
            _ => error,
        }
    }

    /// Merges the splits of `source` before `end`, or all of them, into one accumulator, in their order.
    fn merge_splits(&self, source: u32, end: Option<u32>) -> Result<()> {
        let first = |source, split| {
            let branch = 0;
            let key = SplitKey {
                source,
                split,
                branch,
            };
            (key, 0)
        };
        let (mut whole, taken) = {
            let mut parts = self.lock();
            let from = first(source, 0);
            // The last of all numbers stands for rows that no source gave.
            let to = match end {
                Some(split) => Some(first(source, split)),
                None => source.checked_add(1).map(|next| first(next, 0)),
            };
            let is_before = |key: &(SplitKey, usize)| to.is_none_or(|to| *key < to);
            let next = parts.splits.range(from..).next();
            if !next.is_some_and(|(key, _)| is_before(key)) {
                return Ok(());
            }
            let whole = match parts.sources.insert(source, None) {
                Some(None) => return Ok(()),
                Some(Some(whole)) => Some(whole),
                None => None,
            };
            // What stands before the source's first split belongs to other sources, and so does what is left.
            let mut taken = parts.splits.split_off(&from);
            if let Some(to) = to {
                let mut later = taken.split_off(&to);
                parts.splits.append(&mut later);
            }
            (whole, taken)
        };
        let before: u64 = whole.iter().chain(taken.values()).map(|p| p.n_bytes).sum();
        for part in taken.into_values() {
            whole = Some(match whole {
                None => part,
                Some(whole) => self.merged(whole, part)?,
            });
        }
        let after = whole.as_ref().map_or(0, |w| w.n_bytes);
        let mut parts = self.lock();
        parts.sources.insert(source, whole);
        parts.count(after, before)
    }

    fn merged(&self, mut whole: Part, part: Part) -> Result<Part> {
        self.analyzer
            .merge_with(&mut whole.accumulator, part.accumulator)?;
        whole.n_bytes = self.analyzer.bytes_of(&whole.accumulator);
        Ok(whole)
    }
}

struct AnalysisEnd {
    analysis: Arc<RunningAnalysis>,
    worker: usize,
}

impl EndWriter for AnalysisEnd {
    fn at_hand(&self) -> bool {
        true
    }

    fn write(&mut self, batch: &Batch) -> Result<()> {
        self.analysis.add(self.worker, batch)?;
        let source = batch.split_key().source;
        match self.analysis.ended.get(&source) {
            // Rows of this batch hold the lease of their split, so it is not among those that are over.
            Some(ended) => self.analysis.merge_splits(source, Some(ended.all_before())),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
