//! How a plan is run.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::cancel::CancelToken;
use super::clock::Clock;
use super::memory::{Credits, half_of_the_machine};
use crate::error::Result;
use crate::plan::Plan;
use crate::report::{RunReport, check_place, units};

/// When progress bars are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A bar per source and trainer, where standard error is a terminal.
    #[default]
    Auto,
    /// A line per source and trainer on standard error every ten seconds, and one per phase at its end:
    /// for logs.
    Plain,
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
    pub(super) clock: Clock,
    pub(super) report_html: Option<PathBuf>,
    pub(super) report_json: Option<PathBuf>,
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
            clock: Clock::system(),
            report_html: None,
            report_json: None,
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
    pub(crate) fn budget(&self) -> u64 {
        self.memory_bytes.unwrap_or_else(half_of_the_machine)
    }

    /// How many workers run, at least one. Each has a thread of its own, and one in the pool for reading, writing and
    /// inference where rows are waited for; where all are [at hand](crate::SourceProperties::at_hand) as many threads
    /// work as there are workers.
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
    /// where many sources share the part of the memory budget that is for rows in flight. More than an eighth
    /// of it is only taken by large batches, of which fewer than eight fill that. A single batch that is larger
    /// than all of it goes through alone.
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

    /// Where processing time comes from; the machine's clock by default. Measured times in reports and the
    /// time-outs of sources do not depend on it.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Writes the [`RunReport`] as an HTML page to this file when the run is over, also when it failed:
    /// then with what was done until then, and the error at the top.
    ///
    /// A file that is there is replaced. That the place can be written to is checked before the run; if
    /// writing fails nevertheless, the run's own outcome stands and the failure is logged as a warning.
    #[must_use]
    pub fn report_html(mut self, path: impl Into<PathBuf>) -> Self {
        self.report_html = Some(path.into());
        self
    }

    /// Writes [`RunReport::to_json`] to this file when the run is over; otherwise as
    /// [`RunOptions::report_html`].
    #[must_use]
    pub fn report_json(mut self, path: impl Into<PathBuf>) -> Self {
        self.report_json = Some(path.into());
        self
    }

    pub(super) fn check_report_places(&self) -> Result<()> {
        let mut places = self.report_html.iter().chain(&self.report_json);
        places.try_for_each(|path| check_place(path))
    }

    pub(super) fn write_reports(&self, report: &RunReport) {
        let html = self.report_html.as_ref().map(|p| report.write_html(p));
        let json = self.report_json.as_ref().map(|p| report.write_json(p));
        for outcome in [html, json].into_iter().flatten() {
            if let Err(error) = outcome {
                tracing::warn!(
                    error = error.report(),
                    "the report of the run is not written"
                );
            }
        }
    }

    /// The options by name, as a report shows them.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let options = [
            ("workers", json!(self.workers)),
            ("memory_bytes", json!(self.budget())),
            ("credit_bytes", json!(self.credit_bytes)),
            ("stop_on_ctrl_c", json!(self.stop_on_ctrl_c)),
        ];
        options
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect()
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
        units::bytes(budget)
    );
    for (i, phase) in plan.phases.iter().enumerate() {
        let n_feeds = phase.n_feeds(&plan.graph);
        if n_feeds == 0 {
            continue;
        }
        let line = match Credits::share(options, budget, n_feeds) {
            Ok(credits) => format!(
                "at most {} of rows in flight, {} for each source and worker",
                units::bytes(credits.total),
                units::bytes(credits.each)
            ),
            Err(error) => error.message().to_owned(),
        };
        let _ = writeln!(text, "  phase {}: {line}", i + 1);
    }
    text
}
