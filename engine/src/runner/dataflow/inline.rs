//! A chain that runs on the worker itself.

use super::*;

pub(super) fn build_inline<'s>(
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
    let ChainPart {
        id,
        exits,
        instances,
        holds_rows,
        ..
    } = part;
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
