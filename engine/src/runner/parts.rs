//! The parts of one phase's dataflow, for each worker, made before the first row is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::analysis::RunningAnalysis;
use super::beside_reading::run_beside_reading;
use super::chain::{Exit, Member, RunningChain};
use super::clock::Clock;
use super::credit::Credit;
use super::dataflow::{ChainPart, EndPart, FeedPart, Part};
use super::driver::schema_at;
use super::ends::{EndWriter, SinkEnd};
use super::failure::guard;
use super::feed::{Ended, Feed, SourceFeed};
use super::incremental::RelationPart;
use super::memory::Memory;
use super::metrics::NodeMetrics;
use super::pool::{Kind, WorkPool};
use super::spool::{Spool, Spooled};
use super::watermark_board::WatermarkBoard;
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeIndex, Port, Stage};
use crate::output::OnBadRow;
use crate::plan::{Chain, Phase};
use crate::sink::Publication;
use crate::state::StatePart;
use crate::transform::SplitEvent;

/// What an operator that makes rows in lots may have made before those behind it take some away: enough to
/// keep them busy, and not more, since no source waits for it.
const LOTS_BYTES: u64 = 4 << 20;

/// What the parts of a phase are made from.
pub(crate) struct Workshop<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) phase: &'a Phase,
    pub(crate) artifacts: &'a Artifacts,
    pub(crate) kept: &'a BTreeMap<Exit, Spooled>,
    pub(crate) publications: &'a [(NodeIndex, Box<dyn Publication>)],
    pub(crate) memory: &'a Arc<Memory>,
    pub(crate) credit_bytes: u64,
    pub(crate) n_workers: usize,
    pub(crate) clock: &'a Clock,
}

/// What outlives the parts: counters, and what the ends have taken in.
#[derive(Default)]
pub(crate) struct Kit {
    pub(crate) metrics: BTreeMap<NodeIndex, Arc<NodeMetrics>>,
    pub(crate) analyses: BTreeMap<NodeIndex, Arc<RunningAnalysis>>,
    pub(crate) spools: BTreeMap<Exit, Arc<Spool>>,
    feeds: BTreeMap<Exit, Arc<dyn Feed>>,
    waiting: BTreeMap<NodeIndex, Arc<WorkPool>>,
    boards: BTreeMap<NodeIndex, Arc<WatermarkBoard>>,
}

impl Kit {
    /// Where the workers' watermarks stand behind a node that makes them.
    pub(crate) fn board(&self, node: NodeIndex) -> Option<&Arc<WatermarkBoard>> {
        self.boards.get(&node)
    }
}

impl Workshop<'_> {
    /// What all workers share. Lists splits, builds analyzers; reads no rows.
    pub(crate) fn kit(&self, spools: BTreeMap<Exit, Arc<Spool>>) -> Result<Kit> {
        let mut kit = Kit {
            spools,
            ..Kit::default()
        };
        for &index in &self.phase.nodes {
            kit.metrics.insert(index, Arc::default());
            let node = &self.graph.nodes[index];
            let columns = self.phase.projection.columns.get(&index).cloned();
            match &node.stage {
                _ if self.phase.kept.contains(&index) => {
                    let read: BTreeSet<Exit> = self.read_edges().collect();
                    for (exit, rows) in self.kept.iter().filter(|(exit, _)| read.contains(exit)) {
                        if exit.0 == index {
                            // Dead letters have columns of their own.
                            let columns = columns.clone().filter(|_| exit.1 != Port::DeadLetters);
                            let number = self.feed_number(*exit)?;
                            let feed = Arc::from(rows.feed(number, columns));
                            kit.feeds.insert(*exit, feed);
                        }
                    }
                }
                Stage::Source(source) => {
                    let source = Arc::clone(self.phase.pruned.get(&index).unwrap_or(source));
                    let feed = guard(&node.id, || {
                        let metrics = &kit.metrics[&index];
                        SourceFeed::new((index, &node.id), source, columns, metrics, self.n_workers)
                    })?;
                    kit.feeds.insert((index, Port::Out(0)), Arc::new(feed));
                }
                Stage::Analysis(analysis) => {
                    let analyzer = guard(&node.id, || analysis.build(self.artifacts))?;
                    let account = self.memory.account(index).telling(&kit.metrics[&index]);
                    let ended = self.ended(&kit, index).unwrap_or_default();
                    let running = RunningAnalysis::new(analyzer, account, ended);
                    kit.analyses.insert(index, running);
                }
                Stage::Transform(transform) => {
                    let properties = transform.properties();
                    if properties.makes_watermarks {
                        let board = WatermarkBoard::new(self.n_workers);
                        kit.boards.insert(index, Arc::new(board));
                    }
                    if properties.blocking && properties.concurrency > 1 {
                        let n_threads = properties.concurrency * self.n_workers;
                        kit.waiting
                            .insert(index, WorkPool::new("waiting", n_threads)?);
                    }
                }
                Stage::Trainer(_) | Stage::Sink(_) | Stage::Step(_) => {}
            }
        }
        Ok(kit)
    }

    /// The parts of one worker, in the order of the graph.
    pub(crate) fn parts(
        &self,
        kit: &Kit,
        worker: usize,
        compute: &Arc<WorkPool>,
    ) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for &index in &self.phase.nodes {
            let node = &self.graph.nodes[index];
            let feeds: Vec<Exit> = kit.feeds.keys().filter(|e| e.0 == index).copied().collect();
            for exit in feeds {
                parts.push(Part::Feed(self.feed_part(kit, exit, worker)?));
            }
            if let Some(chain) = self.phase.chains.iter().find(|c| c.members[0] == index) {
                parts.push(match &node.stage {
                    Stage::Transform(t) if t.incremental().is_some() => {
                        Part::Relation(self.relation_part(kit, index, Vec::new())?)
                    }
                    _ => Part::Chain(self.chain_part(kit, chain, worker, compute)?),
                });
            }
            if let Some(writer) = self.end_writer(kit, index, worker)? {
                let inputs = self.phase.inputs(self.graph, index);
                parts.push(Part::End(EndPart {
                    id: Arc::clone(&node.id),
                    inputs: inputs.iter().map(|e| (e.from, e.port)).collect(),
                    writer,
                    kind: Kind::Waits,
                    metrics: Arc::clone(&kit.metrics[&index]),
                }));
            }
        }
        for (exit, spool) in &kit.spools {
            let id = Arc::clone(&self.graph.nodes[exit.0].id);
            let writer = guard(&id, || spool.writer(worker))?;
            let metrics = Arc::default();
            parts.push(Part::End(EndPart {
                id,
                inputs: vec![*exit],
                writer,
                kind: Kind::Waits,
                metrics,
            }));
        }
        Ok(run_beside_reading(parts))
    }

    fn feed_part(&self, kit: &Kit, exit: Exit, worker: usize) -> Result<FeedPart> {
        let (index, port) = exit;
        let node = &self.graph.nodes[index];
        let credit = Credit::new(self.credit_bytes);
        let feed = Arc::clone(&kit.feeds[&exit]);
        let metrics = &kit.metrics[&index];
        metrics.holds(&credit);
        metrics.expect(feed.expected());
        Ok(FeedPart {
            node: index,
            id: Arc::clone(&node.id),
            port,
            feed,
            policy: self.policy(index),
            metrics: Arc::clone(&kit.metrics[&index]),
            credit,
            chains: Vec::new(),
            at_hand: false,
            exits: self
                .read_exits(&[index], kit)
                .into_iter()
                .filter(|e| e.1 == port || e.1 == Port::DeadLetters)
                .collect(),
            worker,
            tells_splits: !kit.boards.is_empty(),
            tells_passed: self.tells_passed(kit, exit)?,
            aligned: self.aligned(kit, exit)?,
        })
    }

    /// Where watermarks are made of a source's rows that keep its workers near to each other.
    fn aligned(&self, kit: &Kit, feed: Exit) -> Result<Vec<(Arc<WatermarkBoard>, i64)>> {
        let source = self.feed_number(feed)?;
        let mut aligned = Vec::new();
        for (&node, board) in &kit.boards {
            let within = self.graph.nodes[node].properties().aligned_within_ms;
            let reads = self.sources_of(node)?;
            if let Some(within) = within
                && reads.contains_key(&source)
            {
                aligned.push((Arc::clone(board), within));
            }
        }
        Ok(aligned)
    }

    /// True if watermarks are made of rows that come from a feed by several ways.
    pub(crate) fn tells_passed(&self, kit: &Kit, feed: Exit) -> Result<bool> {
        let source = self.feed_number(feed)?;
        for &node in kit.boards.keys() {
            if self.sources_of(node)?.get(&source) > Some(&1) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn chain_part(
        &self,
        kit: &Kit,
        chain: &Chain,
        worker: usize,
        compute: &Arc<WorkPool>,
    ) -> Result<ChainPart> {
        let first = chain.members[0];
        let properties = self.graph.nodes[first].properties();
        let n_instances = if properties.blocking {
            properties.concurrency
        } else {
            1
        };
        let instances: Vec<RunningChain> = (0..n_instances)
            .map(|_| self.running_chain(kit, chain))
            .collect::<Result<_>>()?;
        let pool = match kit.waiting.get(&first) {
            _ if !properties.blocking => None,
            Some(waiting) => Some(Arc::clone(waiting)),
            None => Some(Arc::clone(compute)),
        };
        let lots = Credit::new(self.credit_bytes.min(LOTS_BYTES));
        if let Some(metrics) = chain.members.last().and_then(|last| kit.metrics.get(last)) {
            metrics.holds(&lots);
        }
        let is_light = |member: &NodeIndex| {
            let of = self.graph.nodes[*member].properties();
            let waits = of.blocking || of.stateful || of.makes_watermarks;
            of.row_wise && of.keeps_positions && !waits
        };
        let ids: Vec<&str> = chain
            .members
            .iter()
            .map(|&m| &*self.graph.nodes[m].id)
            .collect();
        Ok(ChainPart {
            id: Arc::from(ids.join(" + ")),
            inputs: self
                .phase
                .inputs(self.graph, first)
                .iter()
                .enumerate()
                .map(|(n, e)| ((e.from, e.port), properties.distribution_of(n).clone()))
                .collect(),
            exits: self.read_exits(&chain.members, kit).into_iter().collect(),
            lots,
            instances,
            pool,
            kind: Kind::Waits,
            is_light: chain.members.iter().all(is_light),
            holds_rows: !properties.row_wise,
            worker,
            clock: self.clock.clone(),
            board: kit.boards.get(&first).cloned(),
        })
    }

    /// A relation of one worker, which goes on from this state.
    pub(crate) fn relation_part(
        &self,
        kit: &Kit,
        index: NodeIndex,
        restored: Vec<StatePart>,
    ) -> Result<RelationPart> {
        let node = &self.graph.nodes[index];
        let edges = self.phase.inputs(self.graph, index);
        let inputs = edges
            .iter()
            .map(|e| schema_at(self.phase, (e.from, e.port)));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let relation = match &node.stage {
            Stage::Transform(transform) => transform.incremental(),
            _ => None,
        };
        let relation =
            relation.ok_or_else(|| Error::bug("a relation is none").at_node(&node.id))?;
        let compiled = guard(&node.id, || relation.compile(&inputs, node.on_bad_row))?;
        let metrics = Arc::clone(&kit.metrics[&index]);
        let lots = Credit::new(self.credit_bytes.min(LOTS_BYTES));
        metrics.holds(&lots);
        Ok(RelationPart {
            id: Arc::clone(&node.id),
            inputs: edges.iter().map(|e| (e.from, e.port)).collect(),
            exit: (index, Port::Out(0)),
            policy: self.policy(index),
            compiled: Arc::new(compiled),
            accounts: [(); 2].map(|()| self.memory.account(index).telling(&metrics)),
            lots,
            metrics,
            is_saved: false,
            restored,
        })
    }

    pub(crate) fn running_chain(&self, kit: &Kit, chain: &Chain) -> Result<RunningChain> {
        let member = |&index: &NodeIndex| {
            let node = &self.graph.nodes[index];
            let Stage::Transform(transform) = &node.stage else {
                return Err(Error::bug("a chain holds what is no transform").at_node(&node.id));
            };
            let operator = guard(&node.id, || transform.build(self.artifacts))?;
            let metrics = Arc::clone(&kit.metrics[&index]);
            let account = self.memory.account(index).telling(&metrics);
            Ok(Member::new(
                index,
                Arc::clone(&node.id),
                operator,
                self.policy(index),
                metrics,
                account,
            )
            .n_ports(transform.properties().ports.len()))
        };
        let members: Vec<Member> = chain.members.iter().map(member).collect::<Result<_>>()?;
        let first = chain.members[0];
        let n_inputs = self.phase.inputs(self.graph, first).len();
        let mut running = RunningChain::new(members, self.clock.clone()).n_inputs(n_inputs);
        if kit.boards.contains_key(&first) {
            let sources = self.sources_of(first)?;
            running.take_in(0, Batch::of_event(SplitEvent::Sources(sources)));
        }
        Ok(running)
    }

    /// Dead letters that nobody reads in this phase are counted, not made: another phase makes them.
    fn policy(&self, index: NodeIndex) -> OnBadRow {
        let policy = self.graph.nodes[index].on_bad_row;
        let read = self
            .read_edges()
            .any(|exit| exit == (index, Port::DeadLetters));
        if policy == OnBadRow::DeadLetter && !read {
            OnBadRow::Drop
        } else {
            policy
        }
    }

    fn end_writer(
        &self,
        kit: &Kit,
        index: NodeIndex,
        worker: usize,
    ) -> Result<Option<Box<dyn EndWriter>>> {
        let node = &self.graph.nodes[index];
        match &node.stage {
            Stage::Analysis(_) => Ok(kit.analyses.get(&index).map(|a| a.writer(worker))),
            Stage::Sink(_) => {
                let (_, publication) = self
                    .publications
                    .iter()
                    .find(|(of, _)| *of == index)
                    .ok_or_else(|| Error::bug("a sink has no publication").at_node(&node.id))?;
                let writer = guard(&node.id, || publication.writer(worker))?;
                let account = self.memory.account(index).telling(&kit.metrics[&index]);
                Ok(Some(Box::new(SinkEnd::new(writer, account))))
            }
            Stage::Source(_) | Stage::Transform(_) | Stage::Trainer(_) | Stage::Step(_) => Ok(None),
        }
    }

    /// What says which splits are over, by source, where the rows that reach `end` come straight from
    /// sources: no operator before it holds rows back, or makes rows whose split is not known.
    fn ended(&self, kit: &Kit, end: NodeIndex) -> Option<BTreeMap<u32, Arc<Ended>>> {
        let mut all = BTreeMap::new();
        let mut open = vec![end];
        while let Some(index) = open.pop() {
            for edge in self.phase.inputs(self.graph, index) {
                let node = &self.graph.nodes[edge.from];
                match (&node.stage, edge.port) {
                    (Stage::Source(_), Port::Out(_)) => {
                        let feed = kit.feeds.get(&(edge.from, edge.port))?;
                        all.insert(u32::try_from(edge.from).ok()?, feed.ended()?);
                    }
                    (Stage::Transform(_), Port::Out(_))
                        if node.properties().immediate && !self.phase.kept.contains(&edge.from) =>
                    {
                        open.push(edge.from);
                    }
                    _ => return None,
                }
            }
        }
        Some(all)
    }

    /// The number by which a feed tells of its splits. The rows that a node keeps have one for each port, since they
    /// go ways of their own.
    fn feed_number(&self, (node, port): Exit) -> Result<u32> {
        let nth_port = match port {
            Port::Out(0) => 0,
            Port::DeadLetters => 1,
            Port::Out(port) => port + 1,
        };
        let number = match self.phase.kept.contains(&node) {
            true => node + self.graph.nodes.len() * nth_port,
            // Its dead letters are of the same splits.
            false => node,
        };
        u32::try_from(number).map_err(|_| Error::pipeline("there are too many nodes"))
    }

    /// The numbers of the feeds whose rows reach a node, and by how many ways their splits are told of there.
    fn sources_of(&self, node: NodeIndex) -> Result<BTreeMap<u32, usize>> {
        let mut feeds: BTreeMap<u32, usize> = BTreeMap::new();
        // From each node, those before it have lower numbers.
        let mut ways = BTreeMap::from([(node, 1usize)]);
        while let Some((index, n_ways)) = ways.pop_last() {
            for edge in self.phase.inputs(self.graph, index) {
                let is_feed = self.phase.inputs(self.graph, edge.from).is_empty();
                let is_kept = self.phase.kept.contains(&edge.from);
                // Dead letters go without the word of splits, but for those that were kept.
                let n_ways = match edge.port {
                    Port::DeadLetters if !is_kept => 0,
                    _ => n_ways,
                };
                let of = match is_feed {
                    true => feeds.entry(self.feed_number((edge.from, edge.port))?),
                    false => {
                        let of = ways.entry(edge.from).or_default();
                        *of = of.saturating_add(n_ways);
                        continue;
                    }
                };
                let of = of.or_default();
                *of = of.saturating_add(n_ways);
            }
        }
        Ok(feeds)
    }

    fn read_edges(&self) -> impl Iterator<Item = Exit> + '_ {
        let inputs = |&index| self.phase.inputs(self.graph, index);
        self.phase
            .nodes
            .iter()
            .flat_map(inputs)
            .map(|e| (e.from, e.port))
    }

    /// The ways out of these nodes that something outside of them reads.
    fn read_exits(&self, members: &[NodeIndex], kit: &Kit) -> BTreeSet<Exit> {
        let readers = self
            .phase
            .nodes
            .iter()
            .filter(|i| !members[1..].contains(i));
        let edges = readers.flat_map(|&i| self.phase.inputs(self.graph, i));
        edges
            .map(|e| (e.from, e.port))
            .chain(kit.spools.keys().copied())
            .filter(|exit| members.contains(&exit.0))
            .collect()
    }
}
