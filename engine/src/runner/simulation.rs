//! A dataflow on one thread, whose every move is chosen by a seed: the same operators, the same exchange and
//! the same rules for watermarks as in a run, without timely, threads or a clock.
//!
//! ```text
//! script ──▶ rows, watermarks, time ──▶ queues between operators ──▶ sinks, step by step
//!                     the next to move, of all that could: by the seed
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::RunOptions;
use super::chain::{Exit, RunningChain};
use super::clock::Clock;
use super::exchange::deal;
use super::incremental::{Left, RelationPart, SimulatedRelation};
use super::memory::Memory;
use super::parts::{Kit, Workshop};
use crate::artifact::Artifacts;
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::graph::{Edge, NodeIndex, Port, Stage};
use crate::plan::{Phase, Plan};
use crate::state::StatePart;
use crate::testing::{Chance, Step};
use crate::transform::{Distribution, SplitEvent, Watermark};

/// What reached each sink after each step of a script.
pub(crate) type Arrived = BTreeMap<String, Vec<Vec<RecordBatch>>>;

/// What nodes had saved, by node, at each step that restarts.
pub(crate) type Saved = BTreeMap<usize, BTreeMap<String, Vec<StatePart>>>;

/// Runs a script through a plan of one dataflow.
pub(crate) fn simulate(
    plan: &Plan,
    steps: &[Step],
    n_workers: usize,
    seed: u64,
) -> Result<(Arrived, Saved)> {
    let phases = plan.phases.iter().filter(|phase| !phase.nodes.is_empty());
    let [phase] = phases.collect::<Vec<_>>()[..] else {
        return Err(
            Error::pipeline("only a pipeline of one phase can be simulated")
                .with_hint("Bring artifacts in with `Pipeline::provide`."),
        );
    };
    let clock = Clock::manual(0);
    let memory = Memory::new(&plan.graph, RunOptions::new().budget());
    let artifacts = Artifacts::none();
    let (kept, publications) = (BTreeMap::new(), Vec::new());
    let workshop = |n_workers| Workshop {
        graph: &plan.graph,
        phase,
        artifacts: &artifacts,
        kept: &kept,
        publications: &publications,
        memory: &memory,
        credit_bytes: u64::MAX,
        n_workers,
        clock: &clock,
    };
    let mut simulation = Simulation::new(workshop(n_workers), seed)?;
    simulation.settle()?;
    for (number, step) in steps.iter().enumerate() {
        simulation.number = number;
        match step {
            Step::Restart { n_workers } => simulation.restart(workshop((*n_workers).max(1)))?,
            step => simulation.take(step)?,
        }
        simulation.settle()?;
    }
    let saved = std::mem::take(&mut simulation.saved);
    Ok((simulation.arrived(steps.len()), saved))
}

/// A reader of an edge: input `port` of a chain, or a sink.
enum Reader {
    Chain(usize, usize, Distribution),
    Sink(NodeIndex),
}

/// A queue from one worker to an input of a chain on another: chain, worker, input, sender.
type QueueKey = (usize, usize, usize, usize);

/// Rows on their way, with the watermark of whoever sent them.
type Sent = (i64, Batch);

/// A script's source, as far as it has come.
struct ScriptedSource {
    watermark: i64,
    /// The next row of each split, by number.
    splits: BTreeMap<u32, u64>,
}

struct Simulation<'a> {
    workshop: Workshop<'a>,
    kit: Kit,
    /// By chain and worker; none of a relation.
    running: Vec<Vec<RunningChain>>,
    relations: BTreeMap<usize, SimulatedRelation>,
    queues: BTreeMap<QueueKey, VecDeque<Sent>>,
    /// The watermark that each chain has heard of on each worker, of all inputs and of each by itself, and the one
    /// behind it.
    seen: Vec<Vec<i64>>,
    seen_of: Vec<Vec<Vec<i64>>>,
    behind: Vec<Vec<i64>>,
    sources: BTreeMap<NodeIndex, ScriptedSource>,
    arrived: BTreeMap<NodeIndex, Vec<(usize, RecordBatch)>>,
    saved: Saved,
    number: usize,
    chance: Chance,
}

impl<'a> Simulation<'a> {
    fn new(workshop: Workshop<'a>, seed: u64) -> Result<Self> {
        let sources = workshop
            .phase
            .nodes
            .iter()
            .filter(|&&node| matches!(workshop.graph.nodes[node].stage, Stage::Source(_)));
        let sources = sources.map(|&node| {
            let source = ScriptedSource {
                watermark: i64::MIN,
                splits: BTreeMap::new(),
            };
            (node, source)
        });
        let n_chains = workshop.phase.chains.len();
        let start = vec![vec![i64::MIN; workshop.n_workers]; n_chains];
        let seen_of = workshop.phase.chains.iter().map(|chain| {
            let inputs = workshop.phase.inputs(workshop.graph, chain.members[0]);
            vec![vec![i64::MIN; inputs.len()]; workshop.n_workers]
        });
        let mut simulation = Self {
            sources: sources.collect(),
            kit: workshop.kit(BTreeMap::new())?,
            running: Vec::new(),
            relations: BTreeMap::new(),
            queues: BTreeMap::new(),
            seen: start.clone(),
            seen_of: seen_of.collect(),
            behind: start,
            arrived: BTreeMap::new(),
            saved: Saved::new(),
            number: 0,
            chance: Chance::new(seed),
            workshop,
        };
        simulation.build(&BTreeMap::new())?;
        simulation.begin()?;
        Ok(simulation)
    }

    fn phase(&self) -> &'a Phase {
        self.workshop.phase
    }

    /// Builds everything anew; relations go on from this state at once.
    fn build(&mut self, saved: &BTreeMap<NodeIndex, Vec<StatePart>>) -> Result<()> {
        let n_workers = self.workshop.n_workers;
        self.kit = self.workshop.kit(BTreeMap::new())?;
        self.running = Vec::new();
        self.relations = BTreeMap::new();
        for (number, chain) in self.phase().chains.iter().enumerate() {
            let node = chain.members[0];
            let is_relation = matches!(&self.workshop.graph.nodes[node].stage, Stage::Transform(t) if t.incremental().is_some());
            if is_relation {
                self.running.push(Vec::new());
                let state = saved.get(&node).map_or(&[][..], Vec::as_slice);
                let parts = StatePart::deal(state, n_workers).into_iter().map(|state| {
                    let part = self.workshop.relation_part(&self.kit, node, state)?;
                    Ok(RelationPart {
                        is_saved: true,
                        ..part
                    })
                });
                let relation = SimulatedRelation::new(parts.collect::<Result<_>>()?)?;
                self.relations.insert(number, relation);
            } else {
                let instances =
                    (0..n_workers).map(|_| self.workshop.running_chain(&self.kit, chain));
                self.running.push(instances.collect::<Result<_>>()?);
            }
        }
        Ok(())
    }

    /// Looks where the watermark of each chain is, by what it holds, which may have been restored.
    fn begin(&mut self) -> Result<()> {
        for chain in 0..self.running.len() {
            for worker in 0..self.workshop.n_workers {
                match self.relations.contains_key(&chain) {
                    true => self.pass(chain, worker, self.seen[chain][worker])?,
                    false => self.work(chain, worker, i64::MIN)?,
                }
            }
        }
        // A script may bring rows of any split at any time.
        Ok(())
    }

    /// Stops everywhere, saves all state, and goes on from it with as many workers.
    fn restart(&mut self, workshop: Workshop<'a>) -> Result<()> {
        let mut saved: BTreeMap<NodeIndex, Vec<StatePart>> = BTreeMap::new();
        for chain in self.running.iter_mut().flatten() {
            for (node, parts) in chain.snapshot()? {
                saved.entry(node).or_default().extend(parts);
            }
        }
        for (chain, relation) in &mut self.relations {
            let node = self.workshop.phase.chains[*chain].members[0];
            saved.insert(node, relation.snapshot()?);
        }
        let least = |all: &[Vec<i64>]| -> Vec<i64> {
            let of_chain = |workers: &Vec<i64>| workers.iter().copied().min().unwrap_or(i64::MIN);
            all.iter().map(of_chain).collect()
        };
        let (seen, behind) = (least(&self.seen), least(&self.behind));
        let n_workers = workshop.n_workers;
        let seen_of = self.seen_of.iter().map(|workers| {
            let of_input = |port: usize| workers.iter().map(|inputs| inputs[port]).min();
            let n_inputs = workers.first().map_or(0, Vec::len);
            let inputs = (0..n_inputs).filter_map(of_input).collect();
            vec![inputs; n_workers]
        });
        self.seen_of = seen_of.collect();
        self.workshop = workshop;
        self.seen = seen.into_iter().map(|at| vec![at; n_workers]).collect();
        self.behind = behind.into_iter().map(|at| vec![at; n_workers]).collect();
        self.build(&saved)?;
        for (node, parts) in saved {
            let id = self.workshop.graph.nodes[node].id.to_string();
            let at_step = self.saved.entry(self.number).or_default();
            at_step.insert(id, parts.clone());
            for (worker, parts) in StatePart::deal(&parts, n_workers).into_iter().enumerate() {
                for chain in self.running.iter_mut().filter_map(|c| c.get_mut(worker)) {
                    chain.restore(node, &parts)?;
                }
            }
        }
        self.begin()?;
        let open: Vec<(NodeIndex, u32)> = self
            .sources
            .iter()
            .filter(|(_, source)| source.watermark != i64::MAX)
            .flat_map(|(node, source)| source.splits.keys().map(|split| (*node, *split)))
            .collect();
        for (node, split) in open {
            self.open(node, split)?;
        }
        let ended: Vec<NodeIndex> = self
            .sources
            .iter()
            .filter(|(_, source)| source.watermark == i64::MAX)
            .map(|(node, _)| *node)
            .collect();
        ended.into_iter().try_for_each(|node| self.all_opened(node))
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Rows {
                source,
                split,
                rows,
            } => {
                let node = self.source(source)?;
                if !self.sources[&node].splits.contains_key(split) {
                    self.open(node, *split)?;
                }
                let scripted = self.sources.entry(node).or_insert(ScriptedSource {
                    watermark: i64::MIN,
                    splits: BTreeMap::new(),
                });
                let first_row = scripted.splits.entry(*split).or_default();
                let key = SplitKey {
                    source: number(node)?,
                    split: *split,
                    branch: 0,
                };
                let name = Arc::from(format!("split {split}"));
                let batch = Batch::read(rows.clone(), key, name, *first_row);
                *first_row += rows.num_rows() as u64;
                let stamp = scripted.watermark;
                self.send_from_source(node, *split, stamp, batch)?;
                if self
                    .workshop
                    .tells_passed(&self.kit, (node, Port::Out(0)))?
                {
                    let event = Batch::of_event(SplitEvent::Passed { key });
                    self.send_from_source(node, *split, i64::MIN, event)?;
                }
                Ok(())
            }
            Step::Watermark { source, at_ms } => {
                let node = self.source(source)?;
                if let Some(scripted) = self.sources.get_mut(&node) {
                    scripted.watermark = scripted.watermark.max(*at_ms);
                }
                Ok(())
            }
            Step::End { source } => {
                let node = self.source(source)?;
                self.all_opened(node)?;
                let splits: Vec<u32> = self.sources[&node].splits.keys().copied().collect();
                for split in splits {
                    let key = SplitKey {
                        source: number(node)?,
                        split,
                        branch: 0,
                    };
                    let event = Batch::of_event(SplitEvent::Ended { key });
                    self.send_from_source(node, split, i64::MIN, event)?;
                }
                if let Some(scripted) = self.sources.get_mut(&node) {
                    scripted.watermark = i64::MAX;
                }
                Ok(())
            }
            Step::ProcessingTime { now_ms } => {
                self.workshop.clock.advance_to(*now_ms);
                Ok(())
            }
            Step::Restart { .. } => Ok(()),
        }
    }

    fn open(&mut self, node: NodeIndex, split: u32) -> Result<()> {
        let key = SplitKey {
            source: number(node)?,
            split,
            branch: 0,
        };
        let name = Arc::from(format!("split {split}"));
        let event = Batch::of_event(SplitEvent::Opened { key, name });
        self.send_from_source(node, split, i64::MIN, event)?;
        // As with a source that never ends, whose splits are all open from the start.
        self.all_opened(node)
    }

    fn all_opened(&mut self, node: NodeIndex) -> Result<()> {
        for worker in 0..self.workshop.n_workers {
            let source = number(node)?;
            let event = Batch::of_event(SplitEvent::AllOpened { source });
            self.send((node, Port::Out(0)), worker, i64::MIN, event)?;
        }
        Ok(())
    }

    fn source(&self, name: &str) -> Result<NodeIndex> {
        let mut nodes = self.sources.keys().copied();
        nodes
            .find(|&node| &*self.workshop.graph.nodes[node].id == name)
            .ok_or_else(|| Error::pipeline(format!("the pipeline has no source {name:?}")))
    }

    fn send_from_source(
        &mut self,
        node: NodeIndex,
        split: u32,
        stamp: i64,
        batch: Batch,
    ) -> Result<()> {
        let worker = split as usize % self.workshop.n_workers;
        self.send((node, Port::Out(0)), worker, stamp, batch)
    }

    fn readers(&self, exit: Exit) -> Vec<Reader> {
        let phase = self.phase();
        let reads = |edge: &Edge| (edge.from, edge.port) == exit;
        let mut readers = Vec::new();
        for (chain, of) in phase.chains.iter().enumerate() {
            let first = of.members[0];
            let properties = self.workshop.graph.nodes[first].properties();
            for (port, edge) in phase.inputs(self.workshop.graph, first).iter().enumerate() {
                if reads(edge) {
                    let distribution = properties.distribution_of(port).clone();
                    readers.push(Reader::Chain(chain, port, distribution));
                }
            }
        }
        for &node in &phase.nodes {
            let of = &self.workshop.graph.nodes[node];
            if matches!(of.stage, Stage::Sink(_)) && of.inputs.iter().any(reads) {
                readers.push(Reader::Sink(node));
            }
        }
        readers
    }

    fn send(&mut self, exit: Exit, from: usize, stamp: i64, batch: Batch) -> Result<()> {
        let n_workers = self.workshop.n_workers;
        for reader in self.readers(exit) {
            let (chain, port, distribution) = match reader {
                Reader::Chain(chain, port, distribution) => (chain, port, distribution),
                Reader::Sink(node) => {
                    if batch.event().is_none() {
                        let rows = (self.number, batch.rows().clone());
                        self.arrived.entry(node).or_default().push(rows);
                    }
                    continue;
                }
            };
            let parts: Vec<(usize, Batch)> = match distribution {
                Distribution::Keep => vec![(from, batch.clone())],
                _ if batch.event().is_some() => Vec::new(),
                Distribution::One => vec![(0, batch.clone())],
                Distribution::Broadcast => (0..n_workers)
                    .map(|worker| (worker, batch.clone().for_worker(worker)))
                    .collect(),
                Distribution::ByKey(keys) => deal(batch.rows(), &keys, n_workers)?
                    .into_iter()
                    .enumerate()
                    .filter_map(|(worker, rows)| Some((worker, batch.derive(rows?))))
                    .collect(),
            };
            for (worker, part) in parts {
                let queue = self.queues.entry((chain, worker, port, from));
                queue.or_default().push_back((stamp, part));
            }
        }
        Ok(())
    }

    /// Tells a chain on a worker of the watermark of one of its inputs.
    fn pass_of_input(&mut self, chain: usize, worker: usize, port: usize, at: i64) -> Result<()> {
        let stamp = self.behind[chain][worker];
        self.seen_of[chain][worker][port] = at;
        self.running[chain][worker].pass_of_input(port, Watermark(at));
        self.work(chain, worker, stamp)
    }

    /// Tells a chain on a worker of its watermark.
    fn pass(&mut self, chain: usize, worker: usize, at: i64) -> Result<()> {
        let stamp = self.behind[chain][worker];
        self.seen[chain][worker] = at;
        match self.running[chain].get_mut(worker) {
            Some(running) => {
                running.pass(Watermark(at));
                self.work(chain, worker, stamp)
            }
            None => self.of_relation(chain, worker, |relation| relation.pass(worker, at)),
        }
    }

    /// Lets a relation do something on a worker, sends what leaves, and looks where its watermark is then.
    fn of_relation(
        &mut self,
        chain: usize,
        worker: usize,
        call: impl FnOnce(&mut SimulatedRelation) -> Result<Left>,
    ) -> Result<()> {
        let Some(relation) = self.relations.get_mut(&chain) else {
            return Err(Error::bug("a relation is not there"));
        };
        let left = call(relation)?;
        let at = relation.behind(worker);
        let node = self.phase().chains[chain].members[0];
        for (port, stamp, batch) in left {
            self.send((node, port), worker, stamp, batch)?;
        }
        let behind = &mut self.behind[chain][worker];
        *behind = at.max(*behind);
        Ok(())
    }

    fn take_in(&mut self, key: QueueKey) -> Result<()> {
        let (chain, worker, port, _) = key;
        let Some(queue) = self.queues.get_mut(&key) else {
            return Ok(());
        };
        let sent = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&key);
        }
        let Some((sent, batch)) = sent else {
            return Ok(());
        };
        if self.relations.contains_key(&chain) {
            // What is told of splits says nothing to it.
            if batch.event().is_some() {
                return Ok(());
            }
            return self.of_relation(chain, worker, |relation| {
                relation.take_in(worker, port, sent, batch)
            });
        }
        let first = self.phase().chains[chain].members[0];
        let makes = self.workshop.graph.nodes[first]
            .properties()
            .makes_watermarks;
        let stamp = if makes {
            self.behind[chain][worker]
        } else {
            sent
        };
        self.running[chain][worker].take_in(port, batch.under(Watermark(sent)));
        self.work(chain, worker, stamp)
    }

    /// Lets a chain finish what it is at, sends what it makes, and looks where its watermark is then.
    fn work(&mut self, chain: usize, worker: usize, stamp: i64) -> Result<()> {
        while self.running[chain][worker].is_at_work() {
            let mut emitted = Vec::new();
            self.running[chain][worker].advance(&mut emitted)?;
            for (exit, batch) in emitted {
                self.send(exit, worker, stamp, batch)?;
            }
        }
        let running = &self.running[chain][worker];
        let seen = self.seen[chain][worker];
        let at = running.output_watermark(Watermark(seen)).0;
        let first = self.phase().chains[chain].members[0];
        let at = match self.kit.board(first) {
            Some(board) => board.stand(worker, at, running.is_idle()),
            None => at,
        };
        let behind = &mut self.behind[chain][worker];
        *behind = at.max(*behind);
        Ok(())
    }

    fn arrived(self, n_steps: usize) -> Arrived {
        let graph = self.workshop.graph;
        let sinks = self.workshop.phase.nodes.iter();
        let sinks = sinks.filter(|&&node| matches!(graph.nodes[node].stage, Stage::Sink(_)));
        let mut arrived = Arrived::new();
        for node in sinks {
            let mut steps = vec![Vec::new(); n_steps.max(1)];
            for (number, rows) in self.arrived.get(node).into_iter().flatten() {
                steps[*number].push(rows.clone());
            }
            arrived.insert(graph.nodes[*node].id.to_string(), steps);
        }
        arrived
    }
}

fn number(node: NodeIndex) -> Result<u32> {
    u32::try_from(node).map_err(|_| Error::bug("a graph has too many nodes"))
}

mod moves;
#[cfg(test)]
mod tests;
