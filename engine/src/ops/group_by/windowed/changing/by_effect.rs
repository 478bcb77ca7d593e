//! Lets changes count in the order in which they take effect, where their rows have a time of their own.
//!
//! ```text
//! changes ──▶ wait until the watermark has passed their effect ──▶ windows, told of each instant before its changes
//! ```
//!
//! So a window holds what was there when it fired, and in the end what was there when it closed, however far the
//! watermark moves at once.

use std::collections::BTreeSet;

use arrow::record_batch::RecordBatch;

use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::event_times;
use crate::ops::group_by::windowed::{
    WATERMARK, earliest_watermark, latest_watermark, watermark_part,
};
use crate::ops::rows_by_time::RowsByTime;
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Operator, Watermark};

/// The table of state with the changes that wait.
const WAITING: &str = "waiting";

/// What takes changes in that take effect one after the other.
pub(in crate::ops::group_by::windowed) trait TakesEffect:
    Operator
{
    /// Rows count as having come in time that are not from before `watermark`, wherever their changes take it to.
    fn in_time_from(&mut self, watermark: i64);

    /// The instants at which something happens to windows that are open, or that these changes open: those of before
    /// and of after such an instant are not taken in together. `None` if it may be any.
    ///
    /// # Errors
    /// A bug if the changes have no slices.
    fn turns(&mut self, changes: &RecordBatch) -> Result<Option<BTreeSet<i64>>>;
}

/// Its operator.
pub(in crate::ops::group_by::windowed) struct ByEffect<T> {
    of: T,
    waiting: RowsByTime,
    watermark: i64,
    key_names: Vec<String>,
}

impl<T: TakesEffect> ByEffect<T> {
    pub(in crate::ops::group_by::windowed) fn new(of: T, key_names: Vec<String>) -> Self {
        Self {
            of,
            waiting: RowsByTime::default(),
            watermark: Watermark::START.0,
            key_names,
        }
    }

    /// Takes in changes that have all come, in the order in which they take effect.
    fn take_in(&mut self, changes: &RecordBatch, out: &mut Output) -> Result<()> {
        let effects = event_times(changes)?;
        let turns = self.of.turns(changes)?;
        let mut start = 0;
        while let Some(&effect) = effects.get(start) {
            let next = match &turns {
                None => effect.checked_add(1),
                Some(turns) => turns.range(effect.saturating_add(1)..).next().copied(),
            };
            let n_before = |next| effects[start..].partition_point(|effect| *effect < next);
            let n_rows = next.map_or(effects.len() - start, n_before);
            self.of.on_watermark(Watermark(effect), out)?;
            let rows = changes.slice(start, n_rows);
            self.of.on_batch(0, Batch::new(rows), out)?;
            start += n_rows;
        }
        Ok(())
    }
}

impl<T: TakesEffect> Operator for ByEffect<T> {
    fn on_batch(&mut self, _port: usize, batch: Batch, _out: &mut Output) -> Result<()> {
        // What comes late takes effect at the watermark under which it was sent.
        let now = self.watermark.max(batch.watermark().0);
        self.waiting.add(batch.rows().clone(), now)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.of.in_time_from(self.watermark);
        self.watermark = self.watermark.max(watermark.0);
        if let Some(changes) = self.waiting.take_before(self.watermark)? {
            self.take_in(&changes, out)?;
        }
        self.of.on_watermark(watermark, out)
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        self.of.output_watermark(input)
    }

    fn state_bytes(&self) -> u64 {
        self.of.state_bytes() + self.waiting.n_bytes() as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = self.of.snapshot()?;
        for rows in self.waiting.rows() {
            parts.extend(StatePart::by_key(WAITING, rows, &self.key_names)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.watermark = latest_watermark(state);
        for part in state.iter().filter(|part| part.table == WAITING) {
            self.waiting.add(part.rows.clone(), i64::MIN)?;
        }
        // Operators that had not heard of it have changes waiting that take effect before it; what has left of the
        // windows of others is known of each group, and does not leave again.
        let of_groups = state.iter().filter(|part| part.table != WATERMARK);
        let mut of_groups: Vec<StatePart> = of_groups.cloned().collect();
        of_groups.push(watermark_part(earliest_watermark(state))?);
        self.of.restore(&of_groups)
    }
}
