//! What a dataflow ends in: sinks, and rows kept for later. Analyses have a file of their own.

use super::memory::Account;
use crate::batch::Batch;
use crate::error::Result;
use crate::sink::SinkWriter;

/// The end of a dataflow on one worker; it works on the pool, one call at a time.
pub(crate) trait EndWriter: Send {
    /// True if it waits for no other machine nor program.
    fn at_hand(&self) -> bool;

    fn write(&mut self, batch: &Batch) -> Result<()>;

    /// Called once, after the last row.
    fn finish(&mut self) -> Result<()>;
}

/// The writer of a sink.
pub(crate) struct SinkEnd {
    writer: Box<dyn SinkWriter>,
    state: Account,
}

impl SinkEnd {
    pub(crate) fn new(writer: Box<dyn SinkWriter>, state: Account) -> Self {
        Self { writer, state }
    }
}

impl EndWriter for SinkEnd {
    fn at_hand(&self) -> bool {
        self.writer.at_hand()
    }

    fn write(&mut self, batch: &Batch) -> Result<()> {
        self.writer.write(batch.rows())?;
        self.state.holds(self.writer.buffered_bytes())
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.finish()?;
        self.state.holds(0)
    }
}
