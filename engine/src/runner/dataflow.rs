//! Builds the dataflow of a phase on one timely worker, at run time, from parts.
//!
//! ```text
//! feed ──▶ chain ──▶ chain on the pool ──▶ end
//!   │ reads on the pool     │ keeps capabilities,    │ writes on the pool,
//!   │ while it has credit   │ and the order          │ holds the dataflow open until done
//! ```
//!
//! No closure here may panic or block: foreign code runs through `guard`, waiting happens on the pool.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::unbounded;
use indicatif::ProgressBar;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::CapabilityTrait;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{OutputBuilder, OutputBuilderSession};
use timely::dataflow::{Scope, Stream};
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::SyncActivator;

use super::chain::{Exit, RunningChain};
use super::container::{Rows, RowsBuilder};
use super::credit::Credit;
use super::ends::EndWriter;
use super::exchange::Dealing;
use super::failure::{Failure, guard};
use super::feed::{Feed, FeedReader};
use super::metrics::NodeMetrics;
use super::pool::WorkPool;
use super::time::LogicalTime;
use crate::batch::Batch;
use crate::error::Result;
use crate::graph::{NodeIndex, Port};
use crate::output::{DeadLetter, OnBadRow, Output, dead_letter_rows};
use crate::transform::{Distribution, Watermark};

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
    End(EndPart),
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
    pub(crate) bar: ProgressBar,
    pub(crate) exits: Vec<Exit>,
}

/// Rows to rows.
pub(crate) struct ChainPart {
    pub(crate) id: Arc<str>,
    pub(crate) inputs: Vec<(Exit, Distribution)>,
    pub(crate) exits: Vec<Exit>,
    /// One; or as many as may be under way at once on the pool.
    pub(crate) instances: Vec<RunningChain>,
    pub(crate) pool: Option<Arc<WorkPool>>,
    /// Rows may leave when the watermark moves or the input ends, not only when rows come.
    pub(crate) holds_rows: bool,
}

/// Where rows go out.
pub(crate) struct EndPart {
    pub(crate) id: Arc<str>,
    pub(crate) inputs: Vec<Exit>,
    pub(crate) writer: Box<dyn EndWriter>,
    pub(crate) metrics: Arc<NodeMetrics>,
}

type Streams<'s> = BTreeMap<Exit, Stream<'s, LogicalTime, Rows>>;
type Outputs = Vec<OutputBuilder<LogicalTime, RowsBuilder>>;

/// Adds the parts, which stand in the order of the graph, to the worker's dataflow.
pub(crate) fn build(scope: Scope<'_, LogicalTime>, parts: Vec<Part>, shared: &Shared) {
    let mut streams = Streams::new();
    for part in parts {
        match part {
            Part::Feed(part) => build_feed(scope, part, shared, &mut streams),
            Part::Chain(part) if part.pool.is_some() => {
                build_pooled(scope, part, shared, &mut streams);
            }
            Part::Chain(part) => build_inline(scope, part, shared, &mut streams),
            Part::End(part) => build_end(scope, part, shared, &streams),
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

/// What one turn of reading gave.
struct ReadSome {
    reader: Option<Box<dyn FeedReader>>,
    batches: Vec<Batch>,
    letters: Vec<DeadLetter>,
    ended: bool,
}

/// Batches that are read before the worker hears of them, so that small ones do not pay for a hand-over each.
const READ_AHEAD: usize = 4;

fn read_some(
    feed: &dyn Feed,
    mut reader: Option<Box<dyn FeedReader>>,
    credit: &Arc<Credit>,
    policy: OnBadRow,
    metrics: &NodeMetrics,
) -> Result<ReadSome> {
    let mut out = Output::new(policy);
    let mut batches = Vec::new();
    let mut ended = false;
    while batches.len() < READ_AHEAD && (batches.is_empty() || credit.has_room()) {
        let mut open = match reader.take() {
            Some(open) => open,
            None => match feed.next_part()? {
                Some(open) => open,
                None => {
                    ended = true;
                    break;
                }
            },
        };
        if let Some(batch) = open.next_batch(&mut out)? {
            reader = Some(open);
            if batch.n_rows() > 0 {
                metrics.took_in(&batch);
                let permit = credit.take(batch.n_bytes());
                batches.push(batch.with_permit(Some(permit)));
            }
        }
    }
    let rejected = metrics.count(&mut out);
    metrics.took_in_rejected(rejected);
    Ok(ReadSome {
        reader,
        batches,
        letters: out.take_dead_letters(),
        ended,
    })
}

fn build_feed<'s>(
    scope: Scope<'s, LogicalTime>,
    part: FeedPart,
    shared: &Shared,
    streams: &mut Streams<'s>,
) {
    let FeedPart {
        node,
        id,
        port,
        feed,
        policy,
        metrics,
        credit,
        bar,
        exits,
    } = part;
    let mut builder = OperatorBuilder::new(id.to_string(), scope);
    let mut outputs = new_outputs(&mut builder, &exits, streams);
    let waker = sync_activator(scope, &builder);
    let on_credit = waker.clone();
    credit.set_waker(move || {
        let _ = on_credit.activate();
    });
    let Shared { failure, compute } = shared.clone();
    let (sender, results) = unbounded::<Result<ReadSome>>();
    builder.build_reschedule(move |capabilities| {
        let mut capabilities = Some(capabilities);
        let mut reader: Option<Box<dyn FeedReader>> = None;
        let (mut reading, mut ended) = (false, false);
        move |_frontiers| {
            let Some(open) = &capabilities else {
                return false;
            };
            if failure.has_failed() {
                capabilities = None;
                return false;
            }
            let turn = guard(&id, || {
                let mut fresh = None;
                if let Ok(result) = results.try_recv() {
                    let mut read = result?;
                    reading = false;
                    ended = read.ended;
                    reader = read.reader.take();
                    fresh = Some(read);
                }
                // The next rows are read while these go down the graph.
                if !reading && !ended && credit.is_ready() {
                    reading = true;
                    let (feed, mut reader) = (Arc::clone(&feed), reader.take());
                    let (credit, metrics) = (Arc::clone(&credit), Arc::clone(&metrics));
                    let (id, sender, waker) = (Arc::clone(&id), sender.clone(), waker.clone());
                    compute.spawn(move || {
                        let read = metrics.timed(|| {
                            guard(&id, || {
                                read_some(&*feed, reader.take(), &credit, policy, &metrics)
                            })
                        });
                        drop(sender.send(read));
                        let _ = waker.activate();
                    });
                }
                let Some(read) = fresh else { return Ok(()) };
                let mut emitted: Vec<(Exit, Batch)> = Vec::with_capacity(read.batches.len() + 1);
                if !read.letters.is_empty() {
                    let letters = Batch::new(dead_letter_rows(&id, &read.letters)?);
                    emitted.push(((node, Port::DeadLetters), letters));
                }
                for batch in read.batches {
                    metrics.gave_out(batch.n_rows());
                    bar.inc(batch.n_rows() as u64);
                    emitted.push(((node, port), batch));
                }
                let mut sessions: Vec<_> =
                    outputs.iter_mut().map(OutputBuilder::activate).collect();
                send(emitted, &exits, &mut sessions, |place| {
                    open.get(place).cloned()
                });
                Ok(())
            });
            if let Err(error) = turn {
                failure.set(error);
            }
            if ended || failure.has_failed() {
                bar.finish_and_clear();
                capabilities = None;
            }
            false
        }
    });
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
            Some(builder.new_input(streams.get(exit)?.clone(), dealing))
        })
        .collect()
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
                take(port, capability, batch);
            }
        });
    }
}

fn build_inline<'s>(
    scope: Scope<'s, LogicalTime>,
    part: ChainPart,
    shared: &Shared,
    streams: &mut Streams<'s>,
) {
    let ChainPart {
        id,
        inputs,
        exits,
        instances,
        holds_rows,
        ..
    } = part;
    let mut builder = OperatorBuilder::new(id.to_string(), scope);
    let failure = Arc::clone(&shared.failure);
    let mut inputs = new_inputs(&mut builder, &id, &inputs, streams, &failure);
    let mut outputs = new_outputs(&mut builder, &exits, streams);
    builder.build_reschedule(move |capabilities| {
        // At the time of the earliest row that may still leave; none where rows leave only as they come.
        let mut held = holds_rows.then_some(capabilities);
        let mut chain = instances.into_iter().next();
        let mut seen = Some(LogicalTime::START);
        move |frontiers: &[MutableAntichain<LogicalTime>]| {
            let Some(running) = &mut chain else {
                return false;
            };
            let mut sessions: Vec<_> = outputs.iter_mut().map(OutputBuilder::activate).collect();
            for_each_batch(&mut inputs, |port, capability, batch| {
                if failure.has_failed() {
                    return;
                }
                let time = capability.stamp().elements()[0];
                let mut emitted = Vec::new();
                match guard(&id, || running.on_batch(port, batch, &mut emitted)) {
                    Ok(()) => send(emitted, &exits, &mut sessions, |place| {
                        Some(capability.delayed(&time, place))
                    }),
                    Err(error) => failure.set(error),
                }
            });
            let now = LogicalTime::of_frontiers(frontiers);
            if now != seen
                && !failure.has_failed()
                && let Some(open) = &mut held
            {
                let watermark = now.map_or(Watermark::END, |t| Watermark(t.watermark));
                let mut emitted = Vec::new();
                match guard(&id, || running.on_watermark(watermark, &mut emitted)) {
                    Ok(()) => send(emitted, &exits, &mut sessions, |place| {
                        open.get(place).cloned()
                    }),
                    Err(error) => failure.set(error),
                }
                if let Some(now) = now {
                    open.iter_mut().for_each(|c| c.downgrade(&now));
                }
                seen = now;
            }
            if now.is_none() || failure.has_failed() {
                held = None;
                chain = None;
            }
            false
        }
    });
}

/// Batches at work on the pool: the capabilities of each, and what came of each once all are done.
struct UnderWay {
    capabilities: Vec<Vec<Capability<LogicalTime>>>,
    emitted: Option<Vec<Emitted>>,
}

type Emitted = Vec<(Exit, Batch)>;

/// Batches that one job takes along, where no other instance could take them meanwhile.
const JOB_BATCHES: usize = 4;

fn build_pooled<'s>(
    scope: Scope<'s, LogicalTime>,
    part: ChainPart,
    shared: &Shared,
    streams: &mut Streams<'s>,
) {
    let ChainPart {
        id,
        inputs,
        exits,
        instances,
        pool,
        ..
    } = part;
    let mut builder = OperatorBuilder::new(id.to_string(), scope);
    let failure = Arc::clone(&shared.failure);
    let pool = pool.unwrap_or_else(|| Arc::clone(&shared.compute));
    let mut inputs = new_inputs(&mut builder, &id, &inputs, streams, &failure);
    let mut outputs = new_outputs(&mut builder, &exits, streams);
    let waker = sync_activator(scope, &builder);
    let job_batches = if instances.len() == 1 { JOB_BATCHES } else { 1 };
    let (sender, results) = unbounded::<(u64, RunningChain, Result<Vec<Emitted>>)>();
    builder.build_reschedule(move |capabilities| {
        drop(capabilities);
        let mut idle = instances;
        let mut waiting: VecDeque<(Vec<Capability<LogicalTime>>, usize, Batch)> = VecDeque::new();
        let mut under_way: BTreeMap<u64, UnderWay> = BTreeMap::new();
        let mut next = 0u64;
        move |_frontiers| {
            for_each_batch(&mut inputs, |port, capability, batch| {
                let time = capability.stamp().elements()[0];
                let held = (0..exits.len())
                    .map(|place| capability.delayed(&time, place))
                    .collect();
                waiting.push_back((held, port, batch));
            });
            for (number, chain, result) in results.try_iter() {
                idle.push(chain);
                match (result, under_way.get_mut(&number)) {
                    (Ok(emitted), Some(done)) => done.emitted = Some(emitted),
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
                && let Some(mut chain) = idle.pop()
            {
                let taken = waiting.drain(..job_batches.min(waiting.len()));
                let (capabilities, batches): (Vec<_>, Vec<_>) = taken
                    .map(|(held, port, batch)| (held, (port, batch)))
                    .unzip();
                let number = next;
                next += 1;
                let emitted = None;
                under_way.insert(
                    number,
                    UnderWay {
                        capabilities,
                        emitted,
                    },
                );
                let (id, sender, waker) = (Arc::clone(&id), sender.clone(), Arc::clone(&waker));
                pool.spawn(move || {
                    let all = batches.into_iter().map(|(port, batch)| {
                        let mut emitted = Emitted::new();
                        guard(&id, || chain.on_batch(port, batch, &mut emitted))?;
                        Ok(emitted)
                    });
                    let result = all.collect();
                    let _ = sender.send((number, chain, result));
                    let _ = waker.activate();
                });
            }
            let mut sessions: Vec<_> = outputs.iter_mut().map(OutputBuilder::activate).collect();
            // In the order in which the batches came: the first that is not done holds the others back.
            while let Some(first) = under_way.first_entry()
                && first.get().emitted.is_some()
            {
                let UnderWay {
                    capabilities,
                    emitted,
                } = first.remove();
                for (held, emitted) in capabilities.iter().zip(emitted.unwrap_or_default()) {
                    send(emitted, &exits, &mut sessions, |place| {
                        held.get(place).cloned()
                    });
                }
            }
            false
        }
    });
}

fn build_end<'s>(
    scope: Scope<'s, LogicalTime>,
    part: EndPart,
    shared: &Shared,
    streams: &Streams<'s>,
) {
    let EndPart {
        id,
        inputs,
        writer,
        metrics,
    } = part;
    let mut builder = OperatorBuilder::new(id.to_string(), scope);
    let Shared { failure, compute } = shared.clone();
    let inputs: Vec<_> = inputs
        .into_iter()
        .map(|exit| (exit, Distribution::Keep))
        .collect();
    let mut inputs = new_inputs(&mut builder, &id, &inputs, streams, &failure);
    // Nobody reads it: its capability keeps the dataflow alive until the writer has finished.
    let (_output, _stream) = builder.new_output::<Rows>();
    let waker = sync_activator(scope, &builder);
    // The writer comes back after each job but the last.
    let (sender, results) = unbounded::<Result<Option<Box<dyn EndWriter>>>>();
    builder.build_reschedule(move |capabilities| {
        let mut capabilities = Some(capabilities);
        let mut writer = Some(writer);
        let mut waiting: Vec<Batch> = Vec::new();
        move |frontiers: &[MutableAntichain<LogicalTime>]| {
            for_each_batch(&mut inputs, |_, _, batch| waiting.push(batch));
            for result in results.try_iter() {
                match result {
                    Ok(Some(back)) => writer = Some(back),
                    Ok(None) => capabilities = None,
                    Err(error) => failure.set(error),
                }
            }
            if failure.has_failed() || capabilities.is_none() {
                waiting.clear();
                capabilities = None;
                return false;
            }
            let over = LogicalTime::of_frontiers(frontiers).is_none();
            if (!waiting.is_empty() || over)
                && let Some(mut open) = writer.take()
            {
                let batches = std::mem::take(&mut waiting);
                let (id, metrics) = (Arc::clone(&id), Arc::clone(&metrics));
                let (sender, waker) = (sender.clone(), Arc::clone(&waker));
                compute.spawn(move || {
                    let work = || {
                        for batch in batches {
                            metrics.took_in(&batch);
                            open.write(&batch)?;
                        }
                        if over { open.finish() } else { Ok(()) }
                    };
                    let result = metrics.timed(|| guard(&id, work));
                    drop(sender.send(result.map(|()| (!over).then_some(open))));
                    let _ = waker.activate();
                });
            }
            false
        }
    });
}
