//! A chain that runs on a pool: the operator keeps the capabilities, and the order.

use super::*;

/// Batches at work on the pool: the capabilities of each, and what came of each once all are done.
struct UnderWay {
    capabilities: Vec<Vec<Capability<LogicalTime>>>,
    emitted: Option<Vec<Emitted>>,
}

type Emitted = Vec<(Exit, Batch)>;

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
    let ChainPart {
        id,
        exits,
        instances,
        pool,
        ..
    } = part;
    let pool = pool.unwrap_or_else(|| Arc::clone(&shared.compute));
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
                let failed = Arc::clone(&failure);
                pool.spawn(move || {
                    let all = batches.into_iter().map(|(port, batch)| {
                        failed.check()?;
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
