//! A chain that runs on a pool: the operator keeps the capabilities, and the order.
//!
//! ```text
//! waiting ─▶ job on the pool ─▶ what it made ─▶ sent, in the order in which the batches came
//!                ▲       └─ stopped between two lots ─┐
//!                └─ first in order, and there is credit ┘
//! ```

use super::*;

/// Batches at work on the pool: the capabilities of each, what came of them, and what is left.
struct UnderWay {
    capabilities: Vec<Vec<Capability<LogicalTime>>>,
    emitted: Vec<Made>,
    at: At,
}

/// Where a job stands.
enum At {
    Work,
    /// More lots follow.
    Stop(Job),
    End,
}

/// A chain, and the batches that it takes in.
struct Job {
    chain: RunningChain,
    left: VecDeque<(usize, Batch)>,
    /// How many it has taken in.
    n_taken: usize,
}

/// What came of one turn of a job, with the job if it has not ended, and the chain if it has.
struct Turn {
    emitted: Vec<Made>,
    job: Job,
}

/// Rows, and the number of the batch that they were made from.
struct Made {
    from: usize,
    rows: Vec<(Exit, Batch)>,
    is_lot: bool,
}

impl Job {
    fn has_ended(&self) -> bool {
        self.left.is_empty() && !self.chain.is_at_work()
    }

    /// Works up to the end, or up to the first rows after which more follow of the same batch.
    fn take_turn(mut self, failure: &Failure, id: &str) -> Result<Turn> {
        let mut all = Vec::new();
        while !self.has_ended() {
            failure.check()?;
            let is_first = !self.chain.is_at_work();
            if is_first && let Some((port, batch)) = self.left.pop_front() {
                self.chain.take_in(port, batch);
                self.n_taken += 1;
            }
            let (rows, is_lot) = guard(id, || advance(&mut self.chain, is_first))?;
            all.push(Made {
                from: self.n_taken - 1,
                rows,
                is_lot,
            });
            if self.chain.is_at_work() {
                break;
            }
        }
        Ok(Turn {
            emitted: all,
            job: self,
        })
    }
}

/// Batches that one job takes along, where no other instance could take them meanwhile.
const JOB_BATCHES: usize = 4;

pub(super) fn build_pooled<'s>(
    scope: Scope<'s, LogicalTime>,
    part: ChainPart,
    shared: &Shared,
    streams: &mut Streams<'s>,
) {
    let failure = Arc::clone(&shared.failure);
    let OpenChain {
        builder,
        mut inputs,
        mut outputs,
    } = open_chain(scope, &part, &failure, streams);
    let waker = sync_activator(scope, &builder);
    let worker = scope.index();
    let ChainPart {
        id,
        exits,
        lots,
        instances,
        pool,
        kind,
        ..
    } = part;
    let pool = pool.unwrap_or_else(|| Arc::clone(&shared.compute));
    let job_batches = if instances.len() == 1 { JOB_BATCHES } else { 1 };
    let on_credit = Arc::clone(&waker);
    lots.set_waker(move || {
        let _ = on_credit.activate();
    });
    let (sender, results) = unbounded::<(u64, Result<Turn>)>();
    builder.build_reschedule(move |capabilities| {
        drop(capabilities);
        let mut idle = instances;
        let mut waiting: VecDeque<(Vec<Capability<LogicalTime>>, usize, Batch)> = VecDeque::new();
        let mut under_way: BTreeMap<u64, UnderWay> = BTreeMap::new();
        let mut next = 0u64;
        let work = {
            let failure = Arc::clone(&failure);
            move |number: u64, job: Job| {
                let (id, sender, waker) = (Arc::clone(&id), sender.clone(), Arc::clone(&waker));
                let failed = Arc::clone(&failure);
                pool.spawn(worker, kind, move || {
                    let _ = sender.send((number, job.take_turn(&failed, &id)));
                    let _ = waker.activate();
                });
            }
        };
        move |_frontiers| {
            for_each_batch(&mut inputs, |port, capability, batch| {
                let time = capability.stamp().elements()[0];
                let held = (0..exits.len())
                    .map(|place| capability.delayed(&time, place))
                    .collect();
                waiting.push_back((held, port, batch));
            });
            for (number, result) in results.try_iter() {
                match (result, under_way.get_mut(&number)) {
                    (Ok(Turn { emitted, job }), Some(of)) => {
                        of.emitted.extend(emitted);
                        of.at = if job.has_ended() {
                            idle.push(job.chain);
                            At::End
                        } else {
                            At::Stop(job)
                        };
                    }
                    (Ok(_), None) => {}
                    (Err(error), _) => failure.set(error),
                }
            }
            if failure.has_failed() {
                waiting.clear();
                under_way.clear();
                return false;
            }
            while !waiting.is_empty()
                && let Some(chain) = idle.pop()
            {
                let taken = waiting.drain(..job_batches.min(waiting.len()));
                let (capabilities, left): (Vec<_>, VecDeque<_>) = taken
                    .map(|(held, port, batch)| (held, (port, batch)))
                    .unzip();
                let number = next;
                next += 1;
                under_way.insert(
                    number,
                    UnderWay {
                        capabilities,
                        emitted: Vec::new(),
                        at: At::Work,
                    },
                );
                let n_taken = 0;
                work(
                    number,
                    Job {
                        chain,
                        left,
                        n_taken,
                    },
                );
            }
            let mut sessions: Vec<_> = outputs.iter_mut().map(OutputBuilder::activate).collect();
            // In the order in which the batches came: the first that is not done holds the others back.
            while let Some(mut first) = under_way.first_entry() {
                let number = *first.key();
                let of = first.get_mut();
                for mut made in of.emitted.drain(..) {
                    if made.is_lot {
                        charge(&mut made.rows, &lots);
                    }
                    send(made.rows, &exits, &mut sessions, |place| {
                        of.capabilities.get(made.from)?.get(place).cloned()
                    });
                }
                match std::mem::replace(&mut of.at, At::Work) {
                    At::End => {
                        first.remove();
                        continue;
                    }
                    // Others wait with the lot they have made.
                    At::Stop(job) if lots.is_ready() => work(number, job),
                    at => of.at = at,
                }
                break;
            }
            false
        }
    });
}
