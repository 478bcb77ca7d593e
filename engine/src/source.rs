//! The contract of a source: where rows come from, in parts that can be read alone.

use std::fmt;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::output::Output;
use crate::transform::{ChangeTimes, Description};

/// A place in a split: how many rows of it have been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position(pub u64);

/// A part of a source that can be read alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// The part as a person would name it, such as `file "d.parquet", row group 3`.
    pub name: String,
    /// What the source needs to open it again, in its own form.
    pub locator: serde_json::Value,
    /// How many rows it holds, where that is known without reading.
    pub n_rows: Option<u64>,
    /// How many bytes it takes where it is stored, where that is known.
    pub n_bytes: Option<u64>,
}

/// What the planner wants to know of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProperties {
    /// The source ends.
    pub bounded: bool,
    /// The splits can be opened again and give the same rows, so a later phase may read anew.
    pub repeatable: bool,
    /// What event times say, where rows are [changes](crate::changelog).
    pub change_times: ChangeTimes,
    /// Its rows are in this machine's memory or files, so that reading waits for no other machine nor program. Where
    /// this is so of all that a phase reads, a worker reads them itself, and computes and writes what comes of them,
    /// once its dataflow has nothing to do. False, the default, is always safe.
    pub at_hand: bool,
}

impl Default for SourceProperties {
    fn default() -> Self {
        Self {
            bounded: true,
            repeatable: true,
            change_times: ChangeTimes::Effect,
            at_hand: false,
        }
    }
}

/// Where rows come from.
pub trait Source: Send + Sync + fmt::Debug {
    /// What it is, for `explain()` and for the graph as data.
    fn describe(&self) -> Description;

    /// The place that it reads, told as [`Sink::place`](crate::Sink::place) tells it: a sink of the same pipeline must
    /// not fill that, nor what it lies in.
    ///
    /// `None`, the default, where no sink could.
    fn place(&self) -> Option<String> {
        None
    }

    /// The schema of all rows. May read a header or a footer, never rows by the million.
    ///
    /// # Errors
    /// If there is nothing to read, or the files disagree; all files that are wrong are named.
    fn schema(&self) -> Result<SchemaRef>;

    /// The parts, in the order in which their rows stand.
    ///
    /// # Errors
    /// As [`Source::schema`].
    fn splits(&self) -> Result<Vec<Split>>;

    /// Opens a part, after the rows that `position` says have been read.
    ///
    /// `columns` names the columns that are wanted, in the order of the schema; `None` wants all.
    ///
    /// # Errors
    /// If the part is not there any more or is not what it was.
    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>>;

    /// The same source where only the rows matter for which `predicate` is true.
    ///
    /// It leaves out rows for which the predicate is false or null, as far as it can tell them without
    /// reading them, or where reading less of them saves work. It may leave any of them in, since the
    /// filters that the predicate comes from stay. All others are there, in the same order, at the same
    /// places in splits of the same names. The predicate reads columns of the schema and fails on no row.
    ///
    /// `None`, the default, where all rows are read anyhow. Errors are kept for [`Source::splits`].
    fn prune(&self, _predicate: &Expr) -> Option<Arc<dyn Source>> {
        None
    }

    /// How many rows stand in no split since [`Source::prune`] left them out; 0 without a predicate.
    fn n_pruned_rows(&self) -> u64 {
        0
    }

    /// The same source, of which these columns of text may come as dictionaries with Int32 keys.
    ///
    /// Each batch may be one or the other, whatever its split is stored as; the schema stays as it is.
    /// `None`, the default, where they never do.
    fn encoded(&self, _columns: &[String]) -> Option<Arc<dyn Source>> {
        None
    }

    /// What the planner wants to know; by default bounded and repeatable.
    fn properties(&self) -> SourceProperties {
        SourceProperties::default()
    }
}

/// The lines of a text file, from 1, in which the rows of a batch begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    pub(crate) file: Arc<str>,
    /// The first row and its line of each run of rows that stand one line below the other.
    pub(crate) runs: Arc<[(usize, u64)]>,
}

impl Lines {
    /// The line of each row, in a file as a person would name it, such as `file "a.csv"`.
    pub fn new(file: Arc<str>, lines: impl IntoIterator<Item = u64>) -> Self {
        let mut runs: Vec<(usize, u64)> = Vec::new();
        for (row, line) in lines.into_iter().enumerate() {
            let goes_on = runs
                .last()
                .is_some_and(|(first, at)| at + (row - first) as u64 == line);
            if !goes_on {
                runs.push((row, line));
            }
        }
        Self {
            file,
            runs: runs.into(),
        }
    }

    /// The line of a row of the batch.
    pub fn line(&self, row: usize) -> u64 {
        line_in(&self.runs, row)
    }
}

pub(crate) fn line_in(runs: &[(usize, u64)], row: usize) -> u64 {
    let after = runs.partition_point(|(first, _)| *first <= row);
    match after.checked_sub(1).and_then(|run| runs.get(run)) {
        Some((first, line)) => line + (row - first) as u64,
        None => 0,
    }
}

/// The places of a batch's rows in their split.
#[derive(Clone, Debug, PartialEq)]
pub struct RowsRead {
    /// The row of the split at which the mask begins, or, without a mask, the place of the first row.
    pub first_row: u64,
    /// True for the rows of the batch, false for those between that were left out; has no nulls.
    pub mask: Option<BooleanArray>,
}

/// What a reader calls when rows may have come.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// An open split.
pub trait SplitReader: Send {
    /// The next rows, at most [`BATCH_ROWS`](crate::BATCH_ROWS) or so; `None` at the end.
    ///
    /// A batch without rows says that there are none yet, where the source waits for another program, or that all
    /// that were read were rejected: the runner looks whether the run has failed, and asks again.
    ///
    /// A row that cannot be parsed goes to [`Output::reject_text`], which applies the user's policy. What is
    /// rejected waits for the end of the call, so a call rejects no more than about
    /// [`BATCH_ROWS`](crate::BATCH_ROWS) rows.
    ///
    /// # Errors
    /// With the file and the line or row, wherever known.
    fn next_batch(&mut self, out: &mut Output) -> Result<Option<RecordBatch>>;

    /// Takes what to call when rows may have come, after [`SplitReader::next_batch`] has given a batch without
    /// rows; true if it will be called, and then nobody asks before. Called again than needed does no harm.
    ///
    /// False, the default, for a reader that has to be asked again and again: it should wait a little itself
    /// before it says that there are none yet, but not for long, since others need the thread.
    fn wake_by(&mut self, _wake: Wake) -> bool {
        false
    }

    /// The lines in which the rows of the last batch begin, where the split is a part of a text file.
    ///
    /// Errors and dead letters of this and of later nodes then name the line instead of the row.
    fn lines(&self) -> Option<Lines> {
        None
    }

    /// Which rows of the split the last batch holds, where some before or between them were left out;
    /// `None`, the default, for those that follow the batch before it.
    fn rows_read(&self) -> Option<RowsRead> {
        None
    }

    /// How many bytes of storage have been read so far, for progress.
    fn bytes_read(&self) -> u64 {
        0
    }

    /// How many rows of the split have been passed over so far without being decoded, because what is
    /// known of them shows that nobody wants them. They count as read for progress, and are not among
    /// the rows that [`SplitReader::next_batch`] gives.
    fn n_pruned_rows(&self) -> u64 {
        0
    }
}
