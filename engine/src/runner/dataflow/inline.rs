//! A chain that runs on the worker itself, a lot of rows at a time.

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
        lots,
        instances,
        holds_rows,
        ..
    } = part;
    let waker = sync_activator(scope, &builder);
    lots.set_waker(move || {
        let _ = waker.activate();
    });
    builder.build_reschedule(move |capabilities| {
        // At the time of the earliest row that may still leave; none where rows leave only as they come.
        let mut held = holds_rows.then_some(capabilities);
        let mut chain = instances.into_iter().next();
        let mut seen = Some(LogicalTime::START);
        let mut waiting: VecDeque<(Vec<Capability<LogicalTime>>, usize, Batch)> = VecDeque::new();
        let mut doing = Doing::Nothing;
        let mut is_first = true;
        move |frontiers: &[MutableAntichain<LogicalTime>]| {
            let Some(running) = &mut chain else {
                return false;
            };
            for_each_batch(&mut inputs, |port, capability, batch| {
                let time = capability.stamp().elements()[0];
                let all = (0..exits.len()).map(|place| capability.delayed(&time, place));
                waiting.push_back((all.collect(), port, batch));
            });
            let now = LogicalTime::of_frontiers(frontiers);
            let mut sessions: Vec<_> = outputs.iter_mut().map(OutputBuilder::activate).collect();
            // Between two lots those behind get their turn, if enough is under way; they wake this operator.
            while !failure.has_failed() && lots.is_ready() {
                if !running.is_at_work() {
                    doing = Doing::Nothing;
                    is_first = true;
                    if let Some((capabilities, port, batch)) = waiting.pop_front() {
                        running.take_in(port, batch);
                        doing = Doing::Rows(capabilities);
                    } else if now != seen && held.is_some() {
                        running.pass(now.map_or(Watermark::END, |t| Watermark(t.watermark)));
                        doing = Doing::Watermark(now);
                    } else {
                        break;
                    }
                }
                match guard(&id, || advance(running, is_first)) {
                    Ok((mut emitted, is_lot)) => {
                        if is_lot {
                            charge(&mut emitted, &lots);
                        }
                        send(emitted, &exits, &mut sessions, |place| match &doing {
                            Doing::Rows(capabilities) => capabilities.get(place).cloned(),
                            _ => held.as_ref().and_then(|held| held.get(place).cloned()),
                        });
                    }
                    Err(error) => failure.set(error),
                }
                is_first = false;
                if let Doing::Watermark(now) = doing
                    && !running.is_at_work()
                {
                    seen = now;
                    for capability in held.iter_mut().flatten() {
                        now.iter().for_each(|now| capability.downgrade(now));
                    }
                }
            }
            let is_over = now.is_none()
                && waiting.is_empty()
                && !running.is_at_work()
                && (held.is_none() || seen.is_none());
            if !running.is_at_work() {
                doing = Doing::Nothing;
            }
            if is_over || failure.has_failed() {
                doing = Doing::Nothing;
                waiting.clear();
                held = None;
                chain = None;
            }
            false
        }
    });
}

/// What the chain is at work on.
enum Doing {
    Nothing,
    /// Rows, with what those made from them leave by.
    Rows(Vec<Capability<LogicalTime>>),
    /// The watermark of this time; the end of input, where there is none.
    Watermark(Option<LogicalTime>),
}
