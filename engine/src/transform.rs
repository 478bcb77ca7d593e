//! The contract of a transform, and of the operator it becomes on a worker.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::Value;

use crate::artifact::{ArtifactId, Artifacts};
use crate::batch::{Batch, SplitKey};
use crate::error::Result;
use crate::incremental::Incremental;
use crate::output::Output;
use crate::plan::{Lowered, Place};
use crate::state::StatePart;

/// A transform as data: what it is called and how it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The kind, as shown by `explain()`, such as `filter`.
    pub kind: &'static str,
    /// The version of the kind's meaning; a change of results raises it.
    pub version: u32,
    /// The configuration; null where there is none.
    pub config: Value,
}

impl Description {
    /// Version 1 of `kind` with this configuration.
    pub fn new(kind: &'static str, config: Value) -> Self {
        Self {
            kind,
            version: 1,
            config,
        }
    }
}

/// What rows must meet on one worker before an operator sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Rows stay on the worker where they are.
    #[default]
    Keep,
    /// Rows with equal values in these columns meet on one worker.
    ByKey(Vec<String>),
    /// All rows meet on worker 0.
    One,
    /// Every worker gets all rows.
    Broadcast,
}

/// What a transform makes of a changelog, whose rows are [changes](crate::changelog).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChangelog {
    /// It is refused: a row that is taken back would count as a row.
    #[default]
    Refuse,
    /// Each change is treated as its row would be, and leaves as a change.
    Carry,
    /// It knows what changes are.
    Understand,
}

/// What the event times say of the changes that a transform gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangeTimes {
    /// When each takes effect: a row that is taken back has the time at which it is no longer there, which may be
    /// another than that with which it was added. This is always safe to say.
    #[default]
    Effect,
    /// As before it: each change leaves with the event time with which it came.
    Kept,
    /// When the row was: one that is taken back has the event time with which it was added.
    Row,
}

/// What the planner wants to know of a transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Each output row depends on one input row alone and the order is kept: neighbours are fused.
    pub row_wise: bool,
    /// `on_batch` takes 0.5 ms and more or waits: it runs on a pool and never stops a worker; or on a worker that has
    /// nothing else to do, where all rows of its phase are [at hand](crate::source::SourceProperties::at_hand) and
    /// `concurrency` is 1.
    pub blocking: bool,
    /// How many batches are under way at once on each worker, for a `blocking` transform that waits
    /// rather than computes: it runs on a pool of its own with as many threads. 1 for one that computes.
    pub concurrency: usize,
    /// Each output row is an input row, perhaps with other columns, and its place in its source stays known.
    pub keeps_positions: bool,
    /// It keeps rows or results between batches.
    pub stateful: bool,
    /// Rows leave only in the call that takes in the rows they are made from, so that once a batch has been
    /// taken in nothing of it comes later. Always so where `row_wise`; false, the default, is always safe.
    pub immediate: bool,
    /// It is plain data: false for what holds a closure, which cannot leave this process.
    pub portable: bool,
    /// How rows are dealt to the workers before it.
    pub distribution: Distribution,
    /// How the rows of inputs after the first are dealt, where they are not dealt as those of the first.
    pub other_distributions: Vec<Distribution>,
    /// It decides what the watermark behind it is, by what it reads in the rows: the watermark before it does
    /// not count. Rows must come from sources through nodes that are `immediate` and stay on their worker.
    pub makes_watermarks: bool,
    /// Where it makes watermarks: by how many milliseconds a worker may be ahead of another that still reads,
    /// before it waits with reading; `None` for any number.
    pub aligned_within_ms: Option<i64>,
    /// It gives nothing before its input ends, and so is refused where the input never does.
    pub waits_for_end: bool,
    /// It takes all rows together, whatever windows they are in, and so is refused behind
    /// [`Collection::window`](crate::Collection::window).
    pub ignores_windows: bool,
    /// Its inputs must be divided by event time in the same way.
    pub same_windows: bool,
    /// What it makes of a changelog.
    pub on_changelog: OnChangelog,
    /// What the event times of the changes say that it gives.
    pub change_times: ChangeTimes,
    /// It takes a change back where the event time of the row says, and so is refused where that of the change says
    /// when it takes effect.
    pub needs_row_times: bool,
    /// It takes rows that it cannot tell apart as they stand in their source, or in the order of the values of all of
    /// their columns where that is not known: it is then asked for all columns, since fewer would give another order.
    pub orders_as_rows_stand: bool,
    /// How many inputs it takes; `None` for any number of at least one.
    pub n_inputs: Option<usize>,
    /// The names of its output ports.
    pub ports: Vec<String>,
}

impl Default for Properties {
    fn default() -> Self {
        Self {
            row_wise: false,
            blocking: false,
            concurrency: 1,
            keeps_positions: false,
            stateful: false,
            immediate: false,
            portable: true,
            distribution: Distribution::Keep,
            other_distributions: Vec::new(),
            makes_watermarks: false,
            aligned_within_ms: None,
            waits_for_end: false,
            ignores_windows: false,
            same_windows: false,
            on_changelog: OnChangelog::Refuse,
            change_times: ChangeTimes::Effect,
            needs_row_times: false,
            orders_as_rows_stand: false,
            n_inputs: Some(1),
            ports: vec!["out".into()],
        }
    }
}

impl Properties {
    /// One row at a time, order kept, no state: fused with its neighbours.
    pub fn row_wise() -> Self {
        Self {
            row_wise: true,
            immediate: true,
            on_changelog: OnChangelog::Carry,
            change_times: ChangeTimes::Kept,
            ..Self::default()
        }
    }

    /// Sets whether each output row is an input row whose place in its source stays known.
    #[must_use]
    pub fn keeps_positions(mut self, keeps_positions: bool) -> Self {
        self.keeps_positions = keeps_positions;
        self
    }

    /// Sets whether it holds no closure.
    #[must_use]
    pub fn portable(mut self, portable: bool) -> Self {
        self.portable = portable;
        self
    }

    /// Sets whether it runs on the pool for blocking work.
    #[must_use]
    pub fn blocking(mut self, blocking: bool) -> Self {
        self.blocking = blocking;
        self
    }

    /// Sets how many batches are under way at once on each worker.
    #[must_use]
    pub fn concurrency(mut self, n_batches: usize) -> Self {
        self.concurrency = n_batches.max(1);
        self
    }

    /// Sets what it makes of a changelog.
    #[must_use]
    pub fn on_changelog(mut self, on_changelog: OnChangelog) -> Self {
        self.on_changelog = on_changelog;
        self
    }

    /// Sets what the event times of the changes say that it gives.
    #[must_use]
    pub fn change_times(mut self, change_times: ChangeTimes) -> Self {
        self.change_times = change_times;
        self
    }

    /// Sets how rows are dealt to the workers.
    #[must_use]
    pub fn distribution(mut self, distribution: Distribution) -> Self {
        self.distribution = distribution;
        self
    }

    /// How the rows of this input are dealt to the workers.
    pub fn distribution_of(&self, input: usize) -> &Distribution {
        match input.checked_sub(1) {
            Some(other) => self
                .other_distributions
                .get(other)
                .unwrap_or(&self.distribution),
            None => &self.distribution,
        }
    }

    /// Sets whether rows leave only in the call that takes in the rows they are made from.
    #[must_use]
    pub fn immediate(mut self, immediate: bool) -> Self {
        self.immediate = immediate;
        self
    }

    /// Sets the names of the output ports.
    #[must_use]
    pub fn ports(mut self, ports: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.ports = ports.into_iter().map(Into::into).collect();
        self
    }
}

/// Rows to rows: checks itself against a schema and builds its operator.
///
/// [`Transform::build`] is the only way to a running operator. Training, batch prediction, streaming
/// and HTTP differ in where the [`Artifacts`] and the rows come from, never in code.
pub trait Transform: Send + Sync + fmt::Debug {
    /// What it is, for `explain()` and for the graph as data.
    fn describe(&self) -> Description;

    /// The schema of all output ports, given that of each input, but for those for which
    /// [`Transform::port_schema`] says otherwise; checks whatever a schema can tell.
    ///
    /// # Errors
    /// A pipeline error that names the column, what was expected and what was found.
    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef>;

    /// The schema of one output port, by number, where not all ports give rows with the same columns; asked
    /// for ports after the first, once [`Transform::output_schema`] has accepted the inputs.
    ///
    /// # Errors
    /// As [`Transform::output_schema`].
    fn port_schema(&self, _port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        self.output_schema(inputs)
    }

    /// The operator of one worker.
    ///
    /// # Errors
    /// If the artifacts do not fit; nothing may be read before.
    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>>;

    /// The artifacts that `build` reads.
    fn needs(&self) -> Vec<ArtifactId> {
        Vec::new()
    }

    /// What the planner wants to know; by default one input, one output, nothing fused.
    fn properties(&self) -> Properties {
        Properties::default()
    }

    /// The input columns that are needed where only the columns `wanted` of the output are (`None`: all).
    ///
    /// Sources then read no others. `None`, the default, needs all.
    fn reads(&self, _wanted: Option<&[String]>) -> Option<Vec<String>> {
        None
    }

    /// The input columns that are needed where only the columns `wanted` (`None`: all) are of the rows that leave by
    /// `port`, one after the first for which [`Transform::port_schema`] says other columns than for the first.
    ///
    /// Asked only where anything reads them, besides [`Transform::reads`]. `None`, the default, needs all.
    fn reads_for_port(&self, _port: usize, _wanted: Option<&[String]>) -> Option<Vec<String>> {
        None
    }

    /// The input columns of text that may come as dictionaries, in any of the batches, with the same rows
    /// out; none by default.
    ///
    /// Worth saying where each value of a dictionary is looked at once and not for each row.
    fn takes_encoded(&self) -> Vec<String> {
        Vec::new()
    }

    /// What takes its place in the plan, where an input must be whole before another is read.
    ///
    /// Called once the inputs have been accepted by [`Transform::output_schema`]. `None`, the default,
    /// leaves the transform as it is.
    ///
    /// # Errors
    /// As [`Transform::output_schema`].
    fn lower(&self, _place: &Place<'_>) -> Result<Option<Lowered>> {
        Ok(None)
    }

    /// What it keeps between batches and what releases that, as `explain()` says after "keeps"; by default
    /// what follows from the windows of its input.
    ///
    /// Only asked of a transform that is [`Properties::stateful`].
    fn keeps(&self) -> Option<String> {
        None
    }

    /// The relation that it keeps up to date, where the runner builds a dataflow of several operators in its
    /// place, as for [`incremental`](crate::incremental); `None`, the default, for all others.
    fn incremental(&self) -> Option<&Incremental> {
        None
    }

    /// What is true of all input rows that matter, where only the output rows matter for which
    /// `wanted` is true (`None`: all do).
    ///
    /// Sources may then pass the other rows over. `None`, the default, is for all. A transform that may
    /// fail on a row or reject it must see all rows, and says `None`, or names those as well. One that
    /// [makes watermarks](Properties::makes_watermarks) is told that all rows matter where anything goes by them.
    fn reads_rows(&self, _inputs: &[SchemaRef], _wanted: Option<&Expr>) -> Option<Expr> {
        None
    }
}

/// Event time up to which all rows have arrived, in milliseconds since 1970; `i64::MAX` at the end of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Before any row.
    pub const START: Self = Self(i64::MIN);
    /// No row will come any more.
    pub const END: Self = Self(i64::MAX);

    /// True if no row will come any more.
    pub fn is_end(self) -> bool {
        self == Self::END
    }
}

/// What has become of a split.
///
/// Where rows of one source come by several ways, as by the branches that a union brings together again, each way
/// tells it, between the rows that come by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitEvent {
    /// Said once, before anything else: rows will come from splits of these sources, by their numbers among
    /// the nodes of the graph, and those of each by so many ways.
    Sources(BTreeMap<u32, usize>),
    /// Its rows may come from now on.
    Opened {
        /// The split, and in its branch the way.
        key: SplitKey,
        /// The split as a person would name it.
        name: Arc<str>,
    },
    /// All rows of the next batch that was read of it have come by this way, if any; only where there are several.
    Passed {
        /// The split, and in its branch the way.
        key: SplitKey,
    },
    /// All its rows have come by this way.
    Ended {
        /// The split, and in its branch the way.
        key: SplitKey,
    },
    /// All splits of the source that this worker will ever read have been opened.
    AllOpened {
        /// The number of the source among the nodes of the graph, as in [`SplitKey`].
        source: u32,
    },
}

impl SplitEvent {
    /// The split that it tells of.
    pub(crate) fn key_mut(&mut self) -> Option<&mut SplitKey> {
        match self {
            Self::Opened { key, .. } | Self::Passed { key } | Self::Ended { key } => Some(key),
            Self::Sources(_) | Self::AllOpened { .. } => None,
        }
    }
}

/// A transform at work on one worker.
///
/// Metrics, spans, errors, panics and dead letters are the engine's; an operator only turns rows into rows.
pub trait Operator: Send {
    /// Takes in rows from input `port` and pushes what follows from them.
    ///
    /// # Errors
    /// Ends the run. A row that is wrong goes to [`Output::reject`] instead, which applies the user's policy.
    fn on_batch(&mut self, port: usize, batch: Batch, out: &mut Output) -> Result<()>;

    /// Called when event time has passed `watermark` on input `port` alone, before [`Operator::on_watermark`]
    /// says so of all inputs; only where a transform has several.
    ///
    /// # Errors
    /// Ends the run.
    fn on_input_watermark(
        &mut self,
        _port: usize,
        _watermark: Watermark,
        _out: &mut Output,
    ) -> Result<()> {
        Ok(())
    }

    /// Called when event time has passed `watermark` on all inputs, at last with [`Watermark::END`].
    ///
    /// # Errors
    /// Ends the run.
    fn on_watermark(&mut self, _watermark: Watermark, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    /// Goes on with what the last call left over, as it said by [`Output::more_follows`].
    ///
    /// Where few rows become very many, an operator pushes some of them and keeps the rest for here: each
    /// lot goes down the graph before the next is made. Never called without that word.
    ///
    /// # Errors
    /// Ends the run.
    fn resume(&mut self, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    /// How many bytes of memory the operator keeps between batches, about; 0 without state.
    ///
    /// The engine asks after every call, holds the sum of all workers against the memory budget of the
    /// run, and shows it in the report.
    fn state_bytes(&self) -> u64 {
        0
    }

    /// What the watermark behind the operator is, once it has been told of `input`: by default the same.
    ///
    /// Less where rows with an earlier event time may still leave. Where the transform says
    /// [`Properties::makes_watermarks`], whatever the rows have shown.
    fn output_watermark(&self, input: Watermark) -> Watermark {
        input
    }

    /// True where no rows have come for so long that this worker should not hold the watermark back; only
    /// asked where the transform says [`Properties::makes_watermarks`].
    fn is_idle(&self) -> bool {
        false
    }

    /// The split that the watermark waits for, as a person would name it; only asked where the transform says
    /// [`Properties::makes_watermarks`].
    fn held_back_by(&self) -> Option<Arc<str>> {
        None
    }

    /// When the operator wants to hear of the time that passes, in milliseconds of processing time since 1970,
    /// and never earlier; `None`, the default, for not at all. Asked after every call.
    fn wakes_at(&self) -> Option<i64> {
        None
    }

    /// Called when processing time has reached what [`Operator::wakes_at`] said; the time is
    /// [`Output::processing_time`].
    ///
    /// # Errors
    /// Ends the run.
    fn on_processing_time(&mut self, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    /// Called when a split that this worker reads has been opened or is over, between its rows; only where
    /// the transform says [`Properties::makes_watermarks`].
    ///
    /// # Errors
    /// Ends the run.
    fn on_split(&mut self, _event: &SplitEvent, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    /// The state as rows; empty for an operator without state. Nothing changes by it.
    ///
    /// # Errors
    /// Ends the run.
    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        Ok(Vec::new())
    }

    /// Takes over state that [`Operator::snapshot`] gave, before any row: that of one operator, or the parts
    /// of several that belong to this worker, as [`StatePart::deal`] says.
    ///
    /// # Errors
    /// If the state is of another version or of another graph.
    fn restore(&mut self, _state: &[StatePart]) -> Result<()> {
        Ok(())
    }
}
