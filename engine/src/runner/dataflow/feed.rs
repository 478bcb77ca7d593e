//! Where rows come in: reads while there is credit, on the pool or on the worker itself.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::*;
use crate::source::Wake;

/// What one turn of reading gave.
struct ReadSome {
    at: Place,
    emitted: Vec<(Exit, Batch)>,
    ended: bool,
    /// There are no rows yet, and the reader will say when.
    is_dry: bool,
}

/// Batches that are read before the worker hears of them, so that small ones do not pay for a hand-over each.
const READ_AHEAD: usize = 4;

/// What a turn of reading needs to know.
struct Reading {
    id: Arc<str>,
    exit: Exit,
    /// Somebody reads the rows as they are.
    is_read: bool,
    feed: Arc<dyn Feed>,
    worker: usize,
    credit: Arc<Credit>,
    policy: OnBadRow,
    metrics: Arc<NodeMetrics>,
    failure: Arc<Failure>,
    tells_splits: bool,
    tells_passed: bool,
    /// Rows may have come since they were last asked for.
    is_woken: Arc<AtomicBool>,
    wake: Wake,
}

/// An open part, and whether it has been told that no further one follows.
#[derive(Default)]
struct Place {
    reader: Option<Box<dyn FeedReader>>,
    /// What takes the rows where they are read.
    chains: Vec<RunningChain>,
    told_all: bool,
    /// The reader says when rows have come.
    wakes: bool,
}

fn read_some(reading: &Reading, at: Place) -> Result<ReadSome> {
    let Reading {
        id,
        exit,
        is_read,
        feed,
        worker,
        credit,
        policy,
        metrics,
        failure,
        tells_splits,
        tells_passed,
        is_woken,
        wake,
    } = reading;
    let Place {
        mut reader,
        mut chains,
        mut told_all,
        mut wakes,
    } = at;
    let mut out = Output::new(*policy);
    let mut batches = Vec::new();
    let mut emitted = Vec::new();
    let own = is_read.then_some(*exit);
    let mut n_read = 0;
    let (mut ended, mut is_dry) = (false, false);
    let mut tell_all = |batches: &mut Vec<Batch>| {
        if *tells_splits
            && !told_all
            && let Some(source) = feed.all_opened(*worker)
        {
            told_all = true;
            batches.push(Batch::of_event(SplitEvent::AllOpened { source }));
        }
    };
    while n_read < READ_AHEAD && (n_read == 0 || credit.has_room()) && !failure.has_failed() {
        let mut open = match reader.take() {
            Some(open) => open,
            None => match metrics.timed(|| feed.next_part(*worker))? {
                Some(mut open) => {
                    wakes = open.wake_by(wake);
                    open
                }
                None => {
                    ended = true;
                    tell_all(&mut batches);
                    break;
                }
            },
        };
        // Before the look: a word that comes meanwhile is heard after it.
        is_woken.store(false, SeqCst);
        let n_rejected = out.n_rejected();
        let read = metrics.timed(|| open.next_batch(&mut out))?;
        if *tells_splits {
            batches.extend(open.take_events().into_iter().map(Batch::of_event));
            tell_all(&mut batches);
        }
        if let Some(batch) = read {
            let lease = open.lease();
            reader = Some(open);
            if batch.n_rows() == 0 {
                // None yet, or none but bad ones, whose letters leave now: whoever waits elsewhere gets this thread
                // in between.
                is_dry = wakes && out.n_rejected() == n_rejected;
                break;
            }
            metrics.took_in(&batch);
            metrics.gave_out(batch.n_rows());
            let permit = credit.take(batch.n_bytes(), lease);
            let key = batch.origin();
            batches.push(batch.with_permit(Some(permit)));
            if *tells_passed {
                batches.push(Batch::of_event(SplitEvent::Passed { key }));
            }
            n_read += 1;
        }
        // While the rows are in the cache.
        run_chains(&mut chains, &mut batches, &mut emitted, own)?;
    }
    run_chains(&mut chains, &mut batches, &mut emitted, own)?;
    let rejected = metrics.count(&mut out);
    metrics.took_in_rejected(rejected);
    // Letters take credit as rows do, or a reader that finds nothing else would run ahead of who writes them.
    let letters = dead_letter_rows(id, &out.take_dead_letters())?.into_iter();
    let letters = letters.map(|rows| {
        let batch = Batch::new(rows);
        let permit = credit.take(batch.n_bytes(), None);
        ((exit.0, Port::DeadLetters), batch.with_permit(Some(permit)))
    });
    emitted.extend(letters);
    Ok(ReadSome {
        at: Place {
            reader,
            chains,
            told_all,
            wakes,
        },
        is_dry,
        emitted,
        ended,
    })
}

/// Lets each chain take what was read; `own` is where it also leaves as it is.
fn run_chains(
    chains: &mut [RunningChain],
    batches: &mut Vec<Batch>,
    emitted: &mut Vec<(Exit, Batch)>,
    own: Option<Exit>,
) -> Result<()> {
    for batch in batches.drain(..) {
        for chain in &mut *chains {
            chain.take_in(0, batch.clone());
            let mut made = Vec::new();
            while chain.is_at_work() {
                chain.advance(&mut made)?;
                emitted.append(&mut made);
            }
        }
        emitted.extend(own.map(|exit| (exit, batch)));
    }
    Ok(())
}

pub(super) fn build_feed<'s>(
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
        exits,
        chains,
        at_hand,
        worker,
        tells_splits,
        tells_passed,
        aligned,
    } = part;
    let mut builder = OperatorBuilder::new(id.to_string(), scope);
    let mut outputs = new_outputs(&mut builder, &exits, streams);
    let waker = sync_activator(scope, &builder);
    let on_credit = waker.clone();
    credit.set_waker(move || {
        let _ = on_credit.activate();
    });
    for (board, _) in &aligned {
        let on_near = waker.clone();
        board.on_near(worker, move || {
            let _ = on_near.activate();
        });
    }
    let kind = if at_hand {
        Kind::ReadsAtHand
    } else {
        Kind::Waits
    };
    let Shared { failure, compute } = shared.clone();
    let (sender, results) = unbounded::<Result<ReadSome>>();
    let is_woken = Arc::new(AtomicBool::new(false));
    let (on_wake, flag) = (waker.clone(), Arc::clone(&is_woken));
    let reading = Arc::new(Reading {
        id: Arc::clone(&id),
        exit: (node, port),
        is_read: exits.contains(&(node, port)),
        wake: Arc::new(move || {
            flag.store(true, SeqCst);
            let _ = on_wake.activate();
        }),
        is_woken: Arc::clone(&is_woken),
        feed,
        worker,
        credit: Arc::clone(&credit),
        policy,
        metrics: Arc::clone(&metrics),
        failure: Arc::clone(&failure),
        tells_splits,
        tells_passed,
    });
    builder.build_reschedule(move |capabilities| {
        let mut capabilities = Some(capabilities);
        let mut at = Some(Place {
            chains,
            ..Place::default()
        });
        let (mut is_reading, mut ended, mut is_dry) = (false, false, false);
        move |_frontiers| {
            let Some(open) = &capabilities else {
                return false;
            };
            if failure.has_failed() {
                capabilities = None;
                return false;
            }
            let turn = guard(&id, || {
                let mut emitted = Vec::new();
                if let Ok(result) = results.try_recv() {
                    is_reading = false;
                    let read = result?;
                    (at, ended, is_dry) = (Some(read.at), read.ended, read.is_dry);
                    emitted = read.emitted;
                }
                // The next rows are read while these go down the graph.
                let may_have_rows = !is_dry || is_woken.load(SeqCst);
                let is_near = || aligned.iter().all(|(board, ms)| board.is_near(worker, *ms));
                if !is_reading && !ended && may_have_rows && credit.is_ready() && is_near() {
                    let place = at.take().unwrap_or_default();
                    is_reading = true;
                    let mut place = Some(place);
                    let (id, sender, waker) = (Arc::clone(&id), sender.clone(), waker.clone());
                    let reading = Arc::clone(&reading);
                    compute.spawn(worker, kind, move || {
                        let read = guard(&id, || {
                            read_some(&reading, place.take().unwrap_or_default())
                        });
                        drop(sender.send(read));
                        let _ = waker.activate();
                    });
                }
                if emitted.is_empty() {
                    return Ok(());
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
                capabilities = None;
            }
            false
        }
    });
}
