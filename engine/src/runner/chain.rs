//! Transforms that run as one operator, on one worker or on the pool.

use std::sync::Arc;

use super::clock::Clock;
use super::failure::guard;
use super::memory::Account;
use super::metrics::NodeMetrics;
use crate::batch::Batch;
use crate::error::Result;
use crate::graph::{NodeIndex, Port};
use crate::output::{OnBadRow, Output, dead_letter_rows};
use crate::state::StatePart;
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
    n_ports: usize,
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
            n_ports: 1,
        }
    }

    /// Sets how many output ports it has, 1 by default.
    pub(crate) fn n_ports(mut self, n_ports: usize) -> Self {
        self.n_ports = n_ports;
        self
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
    /// The first member hears of the watermark of one of its inputs.
    PassOfInput { port: usize, watermark: Watermark },
    /// A member hears what has become of a split, and those behind it after.
    Tell { place: usize, batch: Batch },
    /// A member hears that time has passed.
    Wake { place: usize },
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
    /// Of the first member.
    n_inputs: usize,
    tasks: Vec<Task>,
    clock: Clock,
}

impl RunningChain {
    pub(crate) fn new(members: Vec<Member>, clock: Clock) -> Self {
        Self {
            members,
            n_inputs: 1,
            tasks: Vec::new(),
            clock,
        }
    }

    /// Sets how many inputs its first member has, 1 by default.
    pub(crate) fn n_inputs(mut self, n_inputs: usize) -> Self {
        self.n_inputs = n_inputs;
        self
    }

    /// When a member wants to hear of the time that passes: the earliest of all.
    pub(crate) fn wakes_at(&self) -> Option<i64> {
        let all = self.members.iter().filter_map(|m| m.operator.wakes_at());
        all.min()
    }

    /// Tells the members whose time has come.
    pub(crate) fn wake(&mut self, now_ms: i64) {
        for (place, member) in self.members.iter().enumerate().rev() {
            if member.operator.wakes_at().is_some_and(|at| at <= now_ms) {
                self.tasks.push(Task::Wake { place });
            }
        }
    }

    /// The state of each member, by its node.
    pub(crate) fn snapshot(&mut self) -> Result<Vec<(NodeIndex, Vec<StatePart>)>> {
        let members = self.members.iter_mut();
        members
            .map(|m| Ok((m.node, guard(&m.id, || m.operator.snapshot())?)))
            .collect()
    }

    /// Restores the member that is this node, if it is one here.
    pub(crate) fn restore(&mut self, node: NodeIndex, state: &[StatePart]) -> Result<()> {
        let mut members = self.members.iter_mut().filter(|m| m.node == node);
        members.try_for_each(|m| guard(&m.id, || m.operator.restore(state)))
    }

    /// The watermark behind the last member, where this one is before the first.
    pub(crate) fn output_watermark(&self, input: Watermark) -> Watermark {
        let members = self.members.iter();
        members.fold(input, |at, m| m.operator.output_watermark(at))
    }

    /// True if the first member, which makes watermarks, has had no rows for long.
    pub(crate) fn is_idle(&self) -> bool {
        self.members.first().is_some_and(|m| m.operator.is_idle())
    }

    /// Says in the metrics of all members where the watermark is.
    pub(crate) fn show_watermark(&self, worker: usize, at: Watermark) {
        for member in &self.members {
            let held_back_by = member.operator.held_back_by();
            member.metrics.watermark_moved(worker, at.0, held_back_by);
        }
    }

    /// True while there is something to advance.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Takes in rows from input `port` of the first member.
    pub(crate) fn take_in(&mut self, port: usize, batch: Batch) {
        let place = 0;
        let batch = match self.n_inputs {
            0 | 1 => batch,
            _ => batch.by_way(port),
        };
        self.tasks.push(match batch.event() {
            None => Task::TakeIn { place, port, batch },
            Some(_) => Task::Tell { place, batch },
        });
    }

    /// Tells the members in order, so that what one holds back still goes through the next.
    pub(crate) fn pass(&mut self, watermark: Watermark) {
        let place = 0;
        self.tasks.push(Task::Pass { place, watermark });
    }

    /// Tells the first member, which has several inputs, of the watermark of one.
    pub(crate) fn pass_of_input(&mut self, port: usize, watermark: Watermark) {
        self.tasks.push(Task::PassOfInput { port, watermark });
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
        let place = match task {
            Task::TakeIn { place, .. }
            | Task::Resume { place, .. }
            | Task::Pass { place, .. }
            | Task::Tell { place, .. }
            | Task::Wake { place } => place,
            Task::PassOfInput { .. } => 0,
        };
        let n_members = self.members.len();
        let Some(Member {
            node,
            id,
            operator,
            out,
            metrics,
            state,
            n_ports,
        }) = self.members.get_mut(place)
        else {
            return Ok(());
        };
        out.set_processing_time(self.clock.now_ms());
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
                let watermark = operator.output_watermark(watermark);
                let place = place + 1;
                self.tasks.push(Task::Pass { place, watermark });
                None
            }
            Task::PassOfInput { port, watermark } => {
                metrics
                    .timed(|| guard(id, || operator.on_input_watermark(port, watermark, out)))?;
                None
            }
            Task::Tell { batch, .. } => {
                if let Some(event) = batch.event() {
                    guard(id, || operator.on_split(event, out))?;
                }
                if place + 1 < n_members {
                    let place = place + 1;
                    self.tasks.push(Task::Tell { place, batch });
                } else {
                    let exits = (0..*n_ports).map(|port| (*node, Port::Out(port)));
                    emitted.extend(exits.map(|exit| (exit, batch.clone())));
                }
                None
            }
            Task::Wake { .. } => {
                metrics.timed(|| guard(id, || operator.on_processing_time(out)))?;
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
        for rows in dead_letter_rows(id, &letters)? {
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
