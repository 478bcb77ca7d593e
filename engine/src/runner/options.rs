//! How a plan is run.

use std::fmt::Write as _;

use super::cancel::CancelToken;
use super::memory::{Credits, half_of_the_machine, size};
use crate::plan::Plan;

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
    pub(super) memory_bytes: Option<u64>,
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
            memory_bytes: None,
            cancel: Vec::new(),
            stop_on_ctrl_c: false,
        }
    }
}

impl RunOptions {
    /// One worker per core, progress bars on a terminal, half of the machine's memory, of which at most
    /// 32 MiB for each source and worker are for rows in flight.
    pub fn new() -> Self {
        Self::default()
    }

    /// The memory budget of a run with these options.
    pub(super) fn budget(&self) -> u64 {
        self.memory_bytes.unwrap_or_else(half_of_the_machine)
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

    /// How many bytes of memory the run may take, rows in flight and state of nodes together; by default
    /// half of the machine's, or of what its control group allows, where that is less.
    ///
    /// A quarter is for rows in flight, in equal parts for each source and worker but none of them more than
    /// [`RunOptions::credit_bytes`]; all the rest is for what operators, analyses, sinks and artifacts keep.
    /// A run whose nodes keep more ends with an error that names the node that keeps most. What nodes say of
    /// themselves is counted, not what the allocator takes: leave room for code, libraries, models and the
    /// buffers of readers.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    /// How many bytes of rows one source may have in flight on one worker at most, 32 MiB by default; less
    /// where many sources share the part of the memory budget that is for rows in flight. A single batch
    /// that is larger than that goes through alone.
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

/// What the options mean for a plan, in words: a line for the run and one for each phase that reads rows.
pub(crate) fn explain(plan: &Plan, options: &RunOptions) -> String {
    let (workers, budget) = (options.workers, options.budget());
    let whose = match options.memory_bytes {
        Some(_) => "",
        None => ", half of the machine's",
    };
    let s = if workers == 1 { "" } else { "s" };
    let mut text = format!(
        "{workers} worker{s}, memory budget {}{whose}\n",
        size(budget)
    );
    for (i, phase) in plan.phases.iter().enumerate() {
        let n_feeds = phase.n_feeds(&plan.graph);
        if n_feeds == 0 {
            continue;
        }
        let line = match Credits::share(options, budget, n_feeds) {
            Ok(credits) => format!(
                "at most {} of rows in flight, {} for each source and worker",
                size(credits.total),
                size(credits.each)
            ),
            Err(error) => error.message().to_owned(),
        };
        let _ = writeln!(text, "  phase {}: {line}", i + 1);
    }
    text
}
