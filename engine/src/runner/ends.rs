//! What a dataflow ends in: sinks, analyses, and rows kept for later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::analyzer::{AnyAccumulator, DynAnalyzer};
use crate::artifact::AnyArtifact;
use crate::batch::{Batch, SplitKey};
use crate::error::Result;
use crate::sink::SinkWriter;

/// The end of a dataflow on one worker; it works on the pool, one call at a time.
pub(crate) trait EndWriter: Send {
    fn write(&mut self, batch: &Batch) -> Result<()>;

    /// Called once, after the last row.
    fn finish(&mut self) -> Result<()>;
}

/// The writer of a sink.
pub(crate) struct SinkEnd(pub(crate) Box<dyn SinkWriter>);

impl EndWriter for SinkEnd {
    fn write(&mut self, batch: &Batch) -> Result<()> {
        self.0.write(batch.rows())
    }

    fn finish(&mut self) -> Result<()> {
        self.0.finish()
    }
}

/// An analysis under way: an accumulator per split, merged in the order of the splits.
pub(crate) struct RunningAnalysis {
    analyzer: Arc<dyn DynAnalyzer>,
    done: Mutex<Vec<(SplitKey, usize, AnyAccumulator)>>,
}

impl RunningAnalysis {
    pub(crate) fn new(analyzer: Arc<dyn DynAnalyzer>) -> Arc<Self> {
        Arc::new(Self {
            analyzer,
            done: Mutex::default(),
        })
    }

    pub(crate) fn writer(self: &Arc<Self>, worker: usize) -> Box<dyn EndWriter> {
        Box::new(AnalysisEnd {
            analysis: Arc::clone(self),
            worker,
            splits: BTreeMap::new(),
        })
    }

    /// The artifact, once all writers have finished.
    pub(crate) fn finish(&self, n_threads: usize) -> Result<AnyArtifact> {
        let mut done =
            std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        done.sort_by_key(|(key, worker, _)| (*key, *worker));
        let mut parts = done.into_iter().map(|(_, _, accumulator)| accumulator);
        let mut whole = parts.next().unwrap_or_else(|| self.analyzer.create());
        for part in parts {
            self.analyzer.merge_with(&mut whole, part)?;
        }
        self.analyzer.finish_any(whole, n_threads)
    }
}

struct AnalysisEnd {
    analysis: Arc<RunningAnalysis>,
    worker: usize,
    splits: BTreeMap<SplitKey, AnyAccumulator>,
}

impl EndWriter for AnalysisEnd {
    fn write(&mut self, batch: &Batch) -> Result<()> {
        let analyzer = &self.analysis.analyzer;
        let accumulator = self
            .splits
            .entry(batch.split_key())
            .or_insert_with(|| analyzer.create());
        analyzer.add_rows(accumulator, batch.rows())
    }

    fn finish(&mut self) -> Result<()> {
        let mut done = self
            .analysis
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let worker = self.worker;
        done.extend(
            std::mem::take(&mut self.splits)
                .into_iter()
                .map(|(k, a)| (k, worker, a)),
        );
        Ok(())
    }
}
