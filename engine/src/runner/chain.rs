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

/// A call that is still to be made.
enum Task {
    /// Rows go into a member.
    TakeIn {
        place: usize,
        port: usize,
        batch: Batch,
    },
    /// A member makes rows that it kept for later, from those of `origin`.
    Resume { place: usize, origin: Option<Batch> },
    /// A member hears of the watermark, and those behind it after.
    Pass { place: usize, watermark: Watermark },
}

/// A chain at work: rows go through its members one after the other, without leaving the operator.
///
/// ```text
/// take_in ─▶ task ─advance─▶ member ─▶ rows it made: tasks of the next member, or out of the chain
///                                  └─▶ more follows: a task of the same member, after those
/// ```
///
/// What is to be done next lies on top. So a lot goes through the whole chain before the next is made, and
/// whoever drives the chain may stop after each.
pub(crate) struct RunningChain {
    members: Vec<Member>,
    tasks: Vec<Task>,
}

impl RunningChain {
    pub(crate) fn new(members: Vec<Member>) -> Self {
        Self {
            members,
            tasks: Vec::new(),
        }
    }

    /// True while there is something to advance.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Takes in rows from input `port` of the first member.
    pub(crate) fn take_in(&mut self, port: usize, batch: Batch) {
        let place = 0;
        self.tasks.push(Task::TakeIn { place, port, batch });
    }

    /// Tells the members in order, so that what one holds back still goes through the next.
    pub(crate) fn pass(&mut self, watermark: Watermark) {
        let place = 0;
        self.tasks.push(Task::Pass { place, watermark });
    }

    /// Works until some rows leave the chain or nothing is left to be done; the rows go to `emitted`.
    pub(crate) fn advance(&mut self, emitted: &mut Vec<(Exit, Batch)>) -> Result<()> {
        while emitted.is_empty()
            && let Some(task) = self.tasks.pop()
        {
            self.work(task, emitted)?;
        }
        Ok(())
    }

    fn work(&mut self, task: Task, emitted: &mut Vec<(Exit, Batch)>) -> Result<()> {
        let (Task::TakeIn { place, .. } | Task::Resume { place, .. } | Task::Pass { place, .. }) =
            task;
        let Some(Member {
            id,
            operator,
            out,
            metrics,
            state,
            ..
        }) = self.members.get_mut(place)
        else {
            return Ok(());
        };
        let origin = match task {
            Task::TakeIn { port, batch, .. } => {
                metrics.took_in(&batch);
                // Dead letters hold the credit and the place of the rows they came from.
                let origin = batch.clone();
                metrics.timed(|| guard(id, || operator.on_batch(port, batch, out)))?;
                Some(origin)
            }
            Task::Resume { origin, .. } => {
                metrics.timed(|| guard(id, || operator.resume(out)))?;
                origin
            }
            Task::Pass { watermark, .. } => {
                metrics.timed(|| guard(id, || operator.on_watermark(watermark, out)))?;
                let place = place + 1;
                self.tasks.push(Task::Pass { place, watermark });
                None
            }
        };
        state.holds(operator.state_bytes())?;
        self.pass_on(place, origin, emitted)
    }

    fn pass_on(
        &mut self,
        place: usize,
        origin: Option<Batch>,
        emitted: &mut Vec<(Exit, Batch)>,
    ) -> Result<()> {
        let is_last = place + 1 == self.members.len();
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
            let batch = match &origin {
                Some(origin) => origin.derive(rows),
                None => Batch::new(rows),
            };
            emitted.push(((node, Port::DeadLetters), batch));
        }
        let made = out.take();
        for (_, batch) in &made {
            metrics.gave_out(batch.n_rows());
        }
        if out.take_more() {
            self.tasks.push(Task::Resume { place, origin });
        }
        if is_last {
            emitted.extend(
                made.into_iter()
                    .map(|(port, b)| ((node, Port::Out(port)), b)),
            );
        } else {
            // The first on top.
            self.tasks
                .extend(made.into_iter().rev().map(|(_, batch)| Task::TakeIn {
                    place: place + 1,
                    port: 0,
                    batch,
                }));
        }
        Ok(())
    }
}
