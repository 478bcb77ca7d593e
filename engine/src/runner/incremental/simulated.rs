//! A relation in a simulation: its dataflow on timely workers that take turns.
//!
//! Each worker has a thread of its own, since timely's workers cannot be on one, and does a step when it is told
//! to; while it does, all others wait. So what happens follows from the order of the steps alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, unbounded};
use differential_dataflow::lattice::Lattice;
use timely::communication::WorkerGuards;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::ActivateCapability;
use timely::dataflow::operators::core::{UnorderedHandle, UnorderedInput};
use timely::dataflow::operators::generic::Operator;
use timely::worker::Worker;

use super::kept::RelationState;
use super::{RelationPart, build_relation};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::graph::Port;
use crate::runner::container::{Rows, RowsBuilder};
use crate::runner::failure::Failure;
use crate::runner::time::LogicalTime;
use crate::state::StatePart;

/// What a worker is told to do.
enum Order {
    /// Take in rows that were sent under this watermark.
    Rows(usize, i64, Batch),
    /// Hear of the watermark of all inputs.
    Pass(i64),
    /// Do what there is to do, once.
    Step,
    Save,
}

/// Rows that left, each batch with where, and with the watermark under which it was sent.
pub(crate) type Left = Vec<(Port, i64, Batch)>;

/// What a worker has done.
struct Done {
    left: Left,
    /// The watermark behind.
    behind: i64,
    saved: Vec<StatePart>,
}

struct SimulatedWorker {
    orders: Sender<Order>,
    done: Receiver<Result<Done>>,
    /// The watermark before it, and behind it.
    seen: i64,
    behind: i64,
}

/// A relation on simulated workers.
pub(crate) struct SimulatedRelation {
    // They end when nobody can tell them anything any more, and so before their threads are waited for.
    workers: Vec<SimulatedWorker>,
    failure: Arc<Failure>,
    _threads: WorkerGuards<()>,
}

impl SimulatedRelation {
    /// A relation with a part for each worker.
    pub(crate) fn new(parts: Vec<RelationPart>) -> Result<Self> {
        let failure = Arc::new(Failure::default());
        let (mut workers, mut theirs) = (Vec::new(), Vec::new());
        for part in parts {
            let (orders, to_do) = unbounded();
            let (did, done) = unbounded();
            workers.push(SimulatedWorker {
                orders,
                done,
                seen: i64::MIN,
                behind: i64::MIN,
            });
            theirs.push(Mutex::new(Some((part, to_do, did))));
        }
        let of_workers = Arc::clone(&failure);
        let threads = timely::execute(timely::Config::process(theirs.len()), move |worker| {
            let taken = theirs[worker.index()]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some((part, to_do, did)) = taken {
                work(worker, part, &of_workers, &to_do, &did);
            }
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        });
        let threads = threads.map_err(|e| {
            Error::environment("the workers cannot be started").with_detail(format!("{e}."))
        })?;
        Ok(Self {
            workers,
            failure,
            _threads: threads,
        })
    }

    /// True while something may still follow from what has been taken in.
    pub(crate) fn is_at_work(&self) -> bool {
        let seen = self.workers.iter().map(|w| w.seen).min();
        self.workers.iter().any(|w| Some(w.behind) < seen)
    }

    /// The watermark behind a worker.
    pub(crate) fn behind(&self, worker: usize) -> i64 {
        self.workers.get(worker).map_or(i64::MAX, |w| w.behind)
    }

    /// Takes in rows of an input, sent under this watermark.
    pub(crate) fn take_in(
        &mut self,
        worker: usize,
        input: usize,
        sent: i64,
        batch: Batch,
    ) -> Result<Left> {
        Ok(self.tell(worker, Order::Rows(input, sent, batch))?.left)
    }

    /// Tells a worker of the watermark of all inputs.
    pub(crate) fn pass(&mut self, worker: usize, watermark: i64) -> Result<Left> {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.seen = watermark;
        }
        Ok(self.tell(worker, Order::Pass(watermark))?.left)
    }

    /// Lets a worker do what there is to do, once.
    pub(crate) fn step(&mut self, worker: usize) -> Result<Left> {
        Ok(self.tell(worker, Order::Step)?.left)
    }

    /// The state of all workers.
    pub(crate) fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = Vec::new();
        for worker in 0..self.workers.len() {
            parts.extend(self.tell(worker, Order::Save)?.saved);
        }
        Ok(parts)
    }

    fn tell(&mut self, worker: usize, order: Order) -> Result<Done> {
        let died = || Error::bug("a worker of a simulated relation died");
        let worker = self.workers.get_mut(worker).ok_or_else(died)?;
        worker.orders.send(order).map_err(|_| died())?;
        let done = worker.done.recv().map_err(|_| died());
        self.failure.check()?;
        let done = done??;
        worker.behind = done.behind;
        Ok(done)
    }
}

/// The end of the dataflow of a worker.
struct End {
    left: Left,
    /// The watermarks behind it, by way out.
    behind: BTreeMap<Port, i64>,
}

type InputOf = (
    UnorderedHandle<LogicalTime, RowsBuilder>,
    Option<ActivateCapability<LogicalTime>>,
);

/// Builds the dataflow of a worker: its inputs, and its state if it could be built.
fn build(
    worker: &mut Worker,
    mut part: RelationPart,
    failure: &Arc<Failure>,
    end: &Rc<RefCell<End>>,
) -> (Vec<InputOf>, Option<RelationState>) {
    worker.dataflow::<LogicalTime, _, _>(|scope| {
        let (mut inputs, mut streams) = (Vec::new(), BTreeMap::new());
        for n in 0..part.inputs.len() {
            let ((handle, capability), rows) = scope.new_unordered_input::<RowsBuilder>();
            inputs.push((handle, Some(capability)));
            // Two inputs may read the same rows: they are told apart by their numbers.
            part.inputs[n] = (n, Port::Out(0));
            streams.insert(part.inputs[n], rows);
        }
        let number = part.inputs.len();
        part.exit = (number, Port::Out(0));
        let state = build_relation(scope, part, failure, &mut streams);
        for ((_, port), made) in streams.into_iter().filter(|((of, _), _)| *of == number) {
            let end = Rc::clone(end);
            end.borrow_mut().behind.insert(port, i64::MIN);
            made.sink(Pipeline, "end", move |(input, frontier)| {
                let end = &mut *end.borrow_mut();
                input.for_each(|capability, rows: &mut Rows| {
                    let sent = LogicalTime::of_stamp(capability.stamp().elements());
                    let left = rows.0.take();
                    end.left
                        .extend(left.map(|rows| (port, sent.watermark, rows)));
                });
                let now = LogicalTime::of_frontiers(std::slice::from_ref(frontier));
                let now = now.map_or(i64::MAX, |now| now.watermark);
                end.behind.insert(port, now);
            });
        }
        (inputs, state)
    })
}

/// Does what a worker is told to, until nobody tells it anything any more.
fn work(
    worker: &mut Worker,
    part: RelationPart,
    failure: &Arc<Failure>,
    to_do: &Receiver<Order>,
    did: &Sender<Result<Done>>,
) {
    let end = Rc::new(RefCell::new(End {
        left: Vec::new(),
        behind: BTreeMap::new(),
    }));
    let (mut inputs, state) = build(worker, part, failure, &end);
    let mut n_batches = 0;
    while let Ok(order) = to_do.recv() {
        let mut saved = Ok(Vec::new());
        match order {
            Order::Rows(input, sent, batch) => {
                if let Some((handle, Some(capability))) = inputs.get_mut(input) {
                    let sent = capability.delayed(&capability.time().join(&at(sent)));
                    handle
                        .activate()
                        .session(&sent)
                        .give_container(&mut Rows(Some(batch)));
                    n_batches += 1;
                }
                while let Some(state) = &state
                    && state.n_batches() < n_batches
                    && !failure.has_failed()
                {
                    worker.step();
                }
            }
            Order::Pass(watermark) => {
                for (_, capability) in &mut inputs {
                    match capability {
                        Some(_) if watermark == i64::MAX => *capability = None,
                        Some(capability) => capability.downgrade(&at(watermark)),
                        None => {}
                    }
                }
            }
            Order::Step => {
                worker.step();
            }
            Order::Save => {
                if let Some(state) = &state {
                    saved = state.snapshot();
                }
            }
        }
        let mut end = end.borrow_mut();
        let behind = end.behind.values().min().copied().unwrap_or(i64::MIN);
        let left = std::mem::take(&mut end.left);
        let done = saved.map(|saved| Done {
            left,
            behind,
            saved,
        });
        if did.send(done).is_err() {
            return;
        }
    }
}

fn at(watermark: i64) -> LogicalTime {
    LogicalTime {
        watermark,
        ..LogicalTime::START
    }
}
