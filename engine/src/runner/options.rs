//! How a plan is run.

use super::cancel::CancelToken;

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
    pub(super) workers: usize,
    pub(super) progress: Progress,
    pub(super) credit_bytes: u64,
    pub(super) cancel: Vec<CancelToken>,
    pub(super) stop_on_ctrl_c: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers,
            progress: Progress::default(),
            credit_bytes: 32 << 20,
            cancel: Vec::new(),
            stop_on_ctrl_c: false,
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

    /// Adds a token that stops the run; any of several does.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel.push(token);
        self
    }

    /// Whether Ctrl-C, or a signal to terminate, stops the run as [`CancelToken::cancel`] does; by
    /// default not, as a library should leave the signals of its program alone.
    ///
    /// A second Ctrl-C ends the process at once, with exit code 130, and so does a first one while no such
    /// run is under way. Where the program handles or ignores one of the signals already, that stays as it
    /// is, and Ctrl-C does not stop the run.
    #[must_use]
    pub fn stop_on_ctrl_c(mut self, stop_on_ctrl_c: bool) -> Self {
        self.stop_on_ctrl_c = stop_on_ctrl_c;
        self
    }
}
