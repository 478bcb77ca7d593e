//! Runs a plan on timely workers.

pub(crate) mod credit;

/// When progress bars are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A bar per source, where standard error is a terminal.
    #[default]
    Auto,
    /// None.
    Never,
}

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    pub(crate) workers: usize,
    pub(crate) progress: Progress,
    pub(crate) credit_bytes: u64,
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

    /// How many workers run, at least one.
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

    /// How many bytes of rows one source instance may have in flight.
    #[must_use]
    pub fn credit_bytes(mut self, bytes: u64) -> Self {
        self.credit_bytes = bytes.max(1);
        self
    }
}
