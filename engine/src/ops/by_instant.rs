//! Lets an operator take in changes instant by instant, once the watermark has passed them.
//!
//! ```text
//! changes ──▶ wait until the watermark has passed them ──▶ lots of whole instants ──▶ take_in
//!             without an event time, each batch is an instant ──────────────────────▶
//! ```

use arrow::record_batch::RecordBatch;

use super::rows_by_time::Instants;
use crate::batch::Batch;
use crate::error::Result;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};

/// What takes in whole instants.
pub(super) trait TakesInstants: Send {
    /// Takes in changes that are all there are of their instants, sorted by time, and gives what follows.
    ///
    /// # Errors
    /// Ends the run.
    fn take_in(&mut self, rows: &RecordBatch, out: &mut Output) -> Result<()>;

    /// Forgets everything, at the end of input.
    ///
    /// # Errors
    /// If a row was taken back more often than it was added: until the end the change that adds it may come late.
    fn end(&mut self) -> Result<()>;

    /// How many bytes of memory it keeps, about.
    fn n_bytes(&self) -> usize;

    /// What it keeps, by key group.
    ///
    /// # Errors
    /// If it cannot be written.
    fn parts(&self) -> Result<Vec<StatePart>>;

    /// Takes over what [`TakesInstants::parts`] gave; other parts are not its own.
    ///
    /// # Errors
    /// If the parts are those of another node.
    fn restore(&mut self, state: &[StatePart]) -> Result<()>;
}

/// Its operator.
pub(super) struct ByInstant<T> {
    of: T,
    instants: Instants,
    has_time: bool,
    /// The columns by which rows have met on one worker.
    key_names: Vec<String>,
}

impl<T: TakesInstants> ByInstant<T> {
    pub(super) fn new(of: T, has_time: bool, key_names: &[String]) -> Self {
        Self {
            of,
            instants: Instants::default(),
            has_time,
            key_names: key_names.to_vec(),
        }
    }
}

impl<T: TakesInstants> Operator for ByInstant<T> {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        match self.has_time {
            true => self.instants.add(&batch),
            false => self.of.take_in(batch.rows(), out),
        }
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.instants.pass(watermark)?;
        self.resume(out)
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        if let Some(rows) = self.instants.next() {
            self.of.take_in(&rows, out)?;
        }
        if self.instants.has_more() {
            out.more_follows();
        } else if self.instants.is_over() {
            self.of.end()?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        (self.of.n_bytes() + self.instants.n_bytes()) as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = self.of.parts()?;
        if self.has_time {
            parts.extend(self.instants.parts(&self.key_names)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.of.restore(state)?;
        self.instants.restore(state)
    }
}
