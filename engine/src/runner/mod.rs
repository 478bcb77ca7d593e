//! Runs a plan: phase by phase, each a dataflow on timely workers.

mod chain;
mod container;
pub(crate) mod credit;
mod dataflow;
mod driver;
mod ends;
mod exchange;
mod failure;
mod feed;
mod metrics;
mod parts;
mod pool;
mod progress;
mod spool;
mod time;

pub(crate) use driver::run;

/// When progress bars are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A bar per source and trainer, where standard error is a terminal.
    #[default]
    Auto,
    /// None.
    Never,
}

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    workers: usize,
    progress: Progress,
    credit_bytes: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers,
            progress: Progress::default(),
            credit_bytes: 32 << 20,
        }
    }
}

impl RunOptions {
    /// One worker per core, progress bars on a terminal, 32 MiB in flight per source and worker.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many workers run, at least one. Each has a thread of its own and one in the pool for
    /// reading, writing and inference.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// When progress bars are shown.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// How many bytes of rows one source may have in flight on one worker.
    #[must_use]
    pub fn credit_bytes(mut self, bytes: u64) -> Self {
        self.credit_bytes = bytes.max(1);
        self
    }
}

#[cfg(test)]
mod tests;
