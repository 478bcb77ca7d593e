//! Builds the dataflow of a phase on one timely worker, at run time, from parts.
//!
//! ```text
//! feed ──▶ chain ──▶ chain on the pool ──▶ end
//!   │ reads on the pool     │ keeps capabilities,    │ writes on the pool,
//!   │ while it has credit   │ and the order          │ holds the dataflow open until done
//! ```
//!
//! No closure here may panic or block: foreign code runs through `guard`, waiting happens on the pool.

mod end;
mod feed;
mod inline;
mod pooled;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::unbounded;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::CapabilityTrait;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{OutputBuilder, OutputBuilderSession};
use timely::dataflow::{Scope, Stream};
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::SyncActivator;

use super::chain::{Exit, RunningChain};
use super::clock::Clock;
use super::container::{Rows, RowsBuilder};
use super::credit::Credit;
use super::ends::EndWriter;
use super::exchange::Dealing;
use super::failure::{Failure, guard};
use super::feed::{Feed, FeedReader};
use super::incremental::{RelationPart, build_relation};
use super::metrics::NodeMetrics;
use super::pool::{Kind, WorkPool};
use super::time::LogicalTime;
use super::watermark_board::WatermarkBoard;
use crate::batch::Batch;
use crate::error::Result;
use crate::graph::{NodeIndex, Port};
use crate::output::{OnBadRow, Output, dead_letter_rows};
use crate::transform::{Distribution, SplitEvent, Watermark};

/// What all workers of a run share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) failure: Arc<Failure>,
    /// Threads for reading, writing and inference.
    pub(crate) compute: Arc<WorkPool>,
}

/// An operator of one worker's dataflow.
pub(crate) enum Part {
    Feed(FeedPart),
    Chain(ChainPart),
    Relation(RelationPart),
    End(EndPart),
}

impl Part {
    /// The ways out of other parts by which its rows come.
    pub(crate) fn reads(&self) -> Vec<Exit> {
        match self {
            Self::Feed(_) => Vec::new(),
            Self::Chain(part) => part.inputs.iter().map(|(exit, _)| *exit).collect(),
            Self::Relation(part) => part.inputs.clone(),
            Self::End(part) => part.inputs.clone(),
        }
    }
}

/// Where rows come in.
pub(crate) struct FeedPart {
    pub(crate) node: NodeIndex,
    pub(crate) id: Arc<str>,
    pub(crate) port: Port,
    pub(crate) feed: Arc<dyn Feed>,
    pub(crate) policy: OnBadRow,
    pub(crate) metrics: Arc<NodeMetrics>,
    pub(crate) credit: Arc<Credit>,
    pub(crate) exits: Vec<Exit>,
    /// What runs where the rows are read; each gets all of them.
    pub(crate) chains: Vec<RunningChain>,
    /// Reading waits for nothing that is not at hand, here nor in other feeds of the phase.
    pub(crate) at_hand: bool,
    pub(crate) worker: usize,
    /// It tells what becomes of splits, between their rows.
    pub(crate) tells_splits: bool,
    /// And when all rows of a batch have passed, where they come by several ways.
    pub(crate) tells_passed: bool,
    /// Where watermarks are made of its rows, and how far one worker may be ahead of another there.
    pub(crate) aligned: Vec<(Arc<WatermarkBoard>, i64)>,
}

/// Rows to rows.
pub(crate) struct ChainPart {
    pub(crate) id: Arc<str>,
    pub(crate) inputs: Vec<(Exit, Distribution)>,
    pub(crate) exits: Vec<Exit>,
    /// What rows that are made in lots may fill before the next lot is made.
    pub(crate) lots: Arc<Credit>,
    /// One; or as many as may be under way at once on the pool.
    pub(crate) instances: Vec<RunningChain>,
    pub(crate) pool: Option<Arc<WorkPool>>,
    /// What its jobs are to the pool.
    pub(crate) kind: Kind,
    /// It takes rows one by one, gives no more than come, and may run anywhere.
    pub(crate) is_light: bool,
    /// Rows may leave when the watermark moves or the input ends, not only when rows come.
    pub(crate) holds_rows: bool,
    pub(crate) worker: usize,
    pub(crate) clock: Clock,
    /// Where its watermark stands beside those of the other workers, if it makes one itself.
    pub(crate) board: Option<Arc<WatermarkBoard>>,
}

/// Where rows go out.
pub(crate) struct EndPart {
    pub(crate) id: Arc<str>,
    pub(crate) inputs: Vec<Exit>,
    pub(crate) writer: Box<dyn EndWriter>,
    pub(crate) kind: Kind,
    pub(crate) metrics: Arc<NodeMetrics>,
}

type Streams<'s> = BTreeMap<Exit, Stream<'s, LogicalTime, Rows>>;
type Outputs = Vec<OutputBuilder<LogicalTime, RowsBuilder>>;

/// Adds the parts, which stand in the order of the graph, to the worker's dataflow.
pub(crate) fn build(scope: Scope<'_, LogicalTime>, parts: Vec<Part>, shared: &Shared) {
    let mut streams = Streams::new();
    for part in parts {
        match part {
            Part::Feed(part) => feed::build_feed(scope, part, shared, &mut streams),
            Part::Chain(part) if part.pool.is_some() => {
                pooled::build_pooled(scope, part, shared, &mut streams);
            }
            Part::Chain(part) => inline::build_inline(scope, part, shared, &mut streams),
            Part::Relation(part) => {
                build_relation(scope, part, &shared.failure, &mut streams);
            }
            Part::End(part) => end::build_end(scope, part, shared, &streams),
        }
    }
}

fn new_outputs<'s>(
    builder: &mut OperatorBuilder<'s, LogicalTime>,
    exits: &[Exit],
    streams: &mut Streams<'s>,
) -> Outputs {
    exits
        .iter()
        .map(|exit| {
            let (output, stream) = builder.new_output::<Rows>();
            streams.insert(*exit, stream);
            OutputBuilder::from(output)
        })
        .collect()
}

/// Sends each batch out of its exit; what nobody reads is dropped.
fn send<C: CapabilityTrait<LogicalTime>>(
    emitted: Vec<(Exit, Batch)>,
    exits: &[Exit],
    sessions: &mut [OutputBuilderSession<'_, LogicalTime, RowsBuilder>],
    capability: impl Fn(usize) -> Option<C>,
) {
    for (exit, batch) in emitted {
        if let Some(place) = exits.iter().position(|e| *e == exit)
            && let Some(capability) = capability(place)
        {
            sessions[place]
                .session(&capability)
                .give_container(&mut Rows(Some(batch)));
        }
    }
}

/// Lets the chain make the next rows that leave it, and says whether they are a lot: whether more follow, or
/// others came before them.
fn advance(chain: &mut RunningChain, is_first: bool) -> Result<(Vec<(Exit, Batch)>, bool)> {
    let mut emitted = Vec::new();
    chain.advance(&mut emitted)?;
    Ok((emitted, !is_first || chain.is_at_work()))
}

/// Makes the rows of a lot hold credit, so that whoever drives the chain can tell how much of what was made
/// is still under way. Only where they are sent: what waits in the operator must not keep it waiting.
fn charge(emitted: &mut [(Exit, Batch)], lots: &Arc<Credit>) {
    for (_, batch) in emitted {
        *batch = batch.clone().holding(lots);
    }
}

fn sync_activator<'s>(
    scope: Scope<'s, LogicalTime>,
    builder: &OperatorBuilder<'s, LogicalTime>,
) -> Arc<SyncActivator> {
    Arc::new(
        scope
            .worker()
            .sync_activator_for(builder.operator_info().address.to_vec()),
    )
}

fn new_inputs<'s>(
    scope: Scope<'s, LogicalTime>,
    builder: &mut OperatorBuilder<'s, LogicalTime>,
    id: &Arc<str>,
    inputs: &[(Exit, Distribution)],
    streams: &Streams<'s>,
    failure: &Arc<Failure>,
) -> Vec<Input> {
    inputs
        .iter()
        .filter_map(|(exit, distribution)| {
            let dealing = Dealing {
                distribution: distribution.clone(),
                node: Arc::clone(id),
                failure: Arc::clone(failure),
            };
            let stream = streams.get(exit)?.clone();
            let stream = match distribution {
                Distribution::Broadcast => copies(scope, stream),
                _ => stream,
            };
            Some(builder.new_input(stream, dealing))
        })
        .collect()
}

/// The rows once for each worker, as progress must see them, and nothing of what is told of splits.
fn copies<'s>(
    scope: Scope<'s, LogicalTime>,
    stream: Stream<'s, LogicalTime, Rows>,
) -> Stream<'s, LogicalTime, Rows> {
    let n_workers = scope.worker().peers();
    let mut builder = OperatorBuilder::new("copies".to_owned(), scope);
    let mut input = builder.new_input(stream, Pipeline);
    let (output, stream) = builder.new_output::<Rows>();
    let mut output = OutputBuilder::from(output);
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_frontiers| {
            let mut output = output.activate();
            input.for_each(|capability, rows| {
                if let Some(batch) = rows.0.take()
                    && batch.event().is_none()
                {
                    for worker in 0..n_workers {
                        let copy = batch.clone().for_worker(worker);
                        let mut session = output.session(&capability);
                        session.give_container(&mut Rows(Some(copy)));
                    }
                }
            });
        }
    });
    stream
}

type Input = timely::dataflow::operators::generic::InputHandleCore<
    LogicalTime,
    Rows,
    Box<dyn timely::communication::Pull<timely::dataflow::channels::Message<LogicalTime, Rows>>>,
>;

/// Takes in all rows that have come, with their input's number.
fn for_each_batch(
    inputs: &mut [Input],
    mut take: impl FnMut(usize, timely::dataflow::operators::InputCapability<LogicalTime>, Batch),
) {
    for (port, input) in inputs.iter_mut().enumerate() {
        input.for_each(|capability, rows| {
            if let Some(batch) = rows.0.take() {
                let sent = LogicalTime::of_stamp(capability.stamp().elements());
                take(port, capability, batch.under(Watermark(sent.watermark)));
            }
        });
    }
}

/// The operator of a chain with its inputs and outputs, before it is built.
struct OpenChain<'s> {
    builder: OperatorBuilder<'s, LogicalTime>,
    inputs: Vec<Input>,
    outputs: Outputs,
}

fn open_chain<'s>(
    scope: Scope<'s, LogicalTime>,
    part: &ChainPart,
    failure: &Arc<Failure>,
    streams: &mut Streams<'s>,
) -> OpenChain<'s> {
    let mut builder = OperatorBuilder::new(part.id.to_string(), scope);
    let inputs = new_inputs(
        scope,
        &mut builder,
        &part.id,
        &part.inputs,
        streams,
        failure,
    );
    let outputs = match part.board {
        None => new_outputs(&mut builder, &part.exits, streams),
        // What the inputs promise says nothing of what leaves: the operator's own capability alone does.
        Some(_) => {
            let new = |exit: &Exit| {
                let (output, stream) = builder.new_output_connection::<Rows, _>([]);
                streams.insert(*exit, stream);
                OutputBuilder::from(output)
            };
            part.exits.iter().map(new).collect()
        }
    };
    OpenChain {
        builder,
        inputs,
        outputs,
    }
}
