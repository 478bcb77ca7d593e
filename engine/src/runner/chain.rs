//! Transforms that run as one operator, on one worker or on the pool.

use std::sync::Arc;

use super::failure::guard;
use super::memory::Account;
use super::metrics::NodeMetrics;
use crate::batch::Batch;
use crate::error::Result;
use crate::graph::{NodeIndex, Port};
use crate::output::{OnBadRow, Output, dead_letter_rows};
use crate::transform::{Operator, Watermark};

/// A way out of a dataflow's operator.
pub(crate) type Exit = (NodeIndex, Port);

/// One transform of a chain at work.
pub(crate) struct Member {
    node: NodeIndex,
    id: Arc<str>,
    operator: Box<dyn Operator>,
    out: Output,
    metrics: Arc<NodeMetrics>,
    state: Account,
}

impl Member {
    pub(crate) fn new(
        node: NodeIndex,
        id: Arc<str>,
        operator: Box<dyn Operator>,
        policy: OnBadRow,
        metrics: Arc<NodeMetrics>,
        state: Account,
    ) -> Self {
        Self {
            node,
            id,
            operator,
            out: Output::new(policy),
            metrics,
            state,
        }
    }
}

/// A chain at work: rows go through its members one after the other, without leaving the operator.
pub(crate) struct RunningChain {
    members: Vec<Member>,
}

impl RunningChain {
    pub(crate) fn new(members: Vec<Member>) -> Self {
        Self { members }
    }

    /// Takes in rows from input `port` of the first member; what leaves the chain goes to `emitted`.
    pub(crate) fn on_batch(
        &mut self,
        port: usize,
        batch: Batch,
        emitted: &mut Vec<(Exit, Batch)>,
    ) -> Result<()> {
        self.feed(0, port, batch, emitted)
    }

    /// Tells the members in order, so that what one holds back still goes through the next.
    pub(crate) fn on_watermark(
        &mut self,
        watermark: Watermark,
        emitted: &mut Vec<(Exit, Batch)>,
    ) -> Result<()> {
        for place in 0..self.members.len() {
            let Member {
                id,
                operator,
                out,
                metrics,
                state,
                ..
            } = &mut self.members[place];
            metrics.timed(|| guard(id, || operator.on_watermark(watermark, out)))?;
            state.holds(operator.state_bytes())?;
            self.pass_on(place, None, emitted)?;
        }
        Ok(())
    }

    fn feed(
        &mut self,
        place: usize,
        port: usize,
        batch: Batch,
        emitted: &mut Vec<(Exit, Batch)>,
    ) -> Result<()> {
        let Member {
            id,
            operator,
            out,
            metrics,
            state,
            ..
        } = &mut self.members[place];
        metrics.took_in(&batch);
        // Dead letters hold the credit and the place of the rows they came from.
        let origin = batch.clone();
        metrics.timed(|| guard(id, || operator.on_batch(port, batch, out)))?;
        state.holds(operator.state_bytes())?;
        self.pass_on(place, Some(&origin), emitted)
    }

    fn pass_on(
        &mut self,
        place: usize,
        origin: Option<&Batch>,
        emitted: &mut Vec<(Exit, Batch)>,
    ) -> Result<()> {
        let Member {
            node,
            id,
            out,
            metrics,
            ..
        } = &mut self.members[place];
        let node = *node;
        metrics.count(out);
        let letters = out.take_dead_letters();
        if !letters.is_empty() {
            let rows = dead_letter_rows(id, &letters)?;
            let batch = origin.map_or_else(|| Batch::new(rows.clone()), |o| o.derive(rows.clone()));
            emitted.push(((node, Port::DeadLetters), batch));
        }
        let made = out.take();
        for (_, batch) in &made {
            metrics.gave_out(batch.n_rows());
        }
        let is_last = place + 1 == self.members.len();
        for (port, batch) in made {
            if is_last {
                emitted.push(((node, Port::Out(port)), batch));
            } else {
                self.feed(place + 1, 0, batch, emitted)?;
            }
        }
        Ok(())
    }
}
