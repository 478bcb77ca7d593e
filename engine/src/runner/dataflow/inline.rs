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
        worker,
        clock,
        board,
        ..
    } = part;
    let waker = sync_activator(scope, &builder);
    let again = [(); 3].map(|()| Arc::clone(&waker));
    let [on_lots, on_clock, on_board] = again.map(|waker| {
        move || {
            let _ = waker.activate();
        }
    });
    lots.set_waker(on_lots);
    clock.on_advance(on_clock);
    if let Some(board) = &board {
        board.on_move(worker, on_board);
    }
    let mut alarm = Alarm {
        activator: scope.activator_for(builder.operator_info().address),
        set_for: None,
        clock,
    };
    builder.build_reschedule(move |capabilities| {
        // At the time of the earliest row that may still leave; none where rows leave only as they come.
        let mut held = (holds_rows || board.is_some()).then_some(capabilities);
        let mut chain = instances.into_iter().next();
        let mut seen = Some(LogicalTime::START);
        // Of each input, where there are several.
        let mut seen_of = vec![Watermark::START; inputs.len()];
        let mut stands_at = Watermark::START;
        let mut stands_for = LogicalTime::START;
        let mut waiting: VecDeque<(Vec<Capability<LogicalTime>>, usize, Batch)> = VecDeque::new();
        let mut doing = Doing::Nothing;
        let mut is_first = true;
        move |frontiers: &[MutableAntichain<LogicalTime>]| {
            let Some(running) = &mut chain else {
                return false;
            };
            for_each_batch(&mut inputs, |port, capability, batch| {
                // What makes watermarks sends everything at the time of its own.
                let all = match board {
                    Some(_) => Vec::new(),
                    None => {
                        let time = capability.stamp().elements()[0];
                        let all = 0..exits.len();
                        all.map(|place| capability.delayed(&time, place)).collect()
                    }
                };
                waiting.push_back((all, port, batch));
            });
            let now = LogicalTime::of_frontiers(frontiers);
            let now_of = |port: usize| {
                let time = frontiers
                    .get(port..=port)
                    .and_then(LogicalTime::of_frontiers);
                time.map_or(Watermark::END, |time| Watermark(time.watermark))
            };
            let moved = |seen_of: &[Watermark]| match seen_of {
                [] | [_] => None,
                all => (0..all.len()).find(|port| now_of(*port) > all[*port]),
            };
            let mut sessions: Vec<_> = outputs.iter_mut().map(OutputBuilder::activate).collect();
            // Between two lots those behind get their turn, if enough is under way; they wake this operator.
            while !failure.has_failed() && lots.is_ready() {
                if !running.is_at_work() {
                    doing = Doing::Nothing;
                    is_first = true;
                    if let Some((capabilities, port, batch)) = waiting.pop_front() {
                        running.take_in(port, batch);
                        doing = Doing::Rows(capabilities);
                    } else if held.is_some()
                        && let Some(port) = moved(&seen_of)
                    {
                        seen_of[port] = now_of(port);
                        running.pass_of_input(port, seen_of[port]);
                        doing = Doing::InputWatermark;
                    } else if now != seen && held.is_some() {
                        running.pass(now.map_or(Watermark::END, |t| Watermark(t.watermark)));
                        doing = Doing::Watermark(now);
                    } else if held.is_some() && alarm.rings(running) {
                        running.wake(alarm.clock.now_ms());
                        doing = Doing::Time;
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
                            Doing::Rows(capabilities) if board.is_none() => {
                                capabilities.get(place).cloned()
                            }
                            _ => held.as_ref().and_then(|held| held.get(place).cloned()),
                        });
                    }
                    Err(error) => failure.set(error),
                }
                is_first = false;
                if running.is_at_work() {
                    continue;
                }
                if let Doing::Watermark(now) = doing {
                    seen = now;
                }
                if let (Some(held), Some(seen)) = (&mut held, seen) {
                    let at = running.output_watermark(Watermark(seen.watermark));
                    let at = match &board {
                        Some(board) => Watermark(board.stand(worker, at.0, running.is_idle())),
                        None => at,
                    };
                    let to = LogicalTime {
                        checkpoint: seen.checkpoint,
                        watermark: at.max(stands_at).0,
                    };
                    if to != stands_for {
                        stands_for = to;
                        held.iter_mut().for_each(|c| c.downgrade(&to));
                    }
                    if at > stands_at {
                        stands_at = at;
                        running.show_watermark(worker, at);
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
                if let Some(board) = &board {
                    board.stand(worker, i64::MAX, false);
                }
                doing = Doing::Nothing;
                waiting.clear();
                held = None;
                chain = None;
            }
            false
        }
    });
}

/// Wakes the operator when processing time has come to what its chain waits for.
struct Alarm {
    activator: timely::scheduling::Activator,
    set_for: Option<i64>,
    clock: Clock,
}

impl Alarm {
    /// True if the chain's time has come; otherwise sees to it that the operator is woken then.
    fn rings(&mut self, chain: &RunningChain) -> bool {
        let Some(at) = chain.wakes_at() else {
            return false;
        };
        let now = self.clock.now_ms();
        if at <= now {
            self.set_for = None;
            return true;
        }
        // A manual clock wakes whoever waits for it; one alarm of the machine's is enough for the earliest.
        let is_set = self.set_for.is_some_and(|set| now < set && set <= at);
        if self.clock.is_system() && !is_set {
            self.set_for = Some(at);
            let wait = u64::try_from(at - now).unwrap_or(0);
            self.activator
                .activate_after(std::time::Duration::from_millis(wait));
        }
        false
    }
}

/// What the chain is at work on.
enum Doing {
    Nothing,
    /// Rows, with what those made from them leave by.
    Rows(Vec<Capability<LogicalTime>>),
    /// The watermark of this time; the end of input, where there is none.
    Watermark(Option<LogicalTime>),
    /// The watermark of one input of several.
    InputWatermark,
    /// Timers of processing time.
    Time,
}
