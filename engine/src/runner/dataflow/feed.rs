//! Where rows come in: reads on the pool while there is credit.

use super::*;

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
    failure: &Failure,
) -> Result<ReadSome> {
    let mut out = Output::new(policy);
    let mut batches = Vec::new();
    let mut ended = false;
    while batches.len() < READ_AHEAD
        && (batches.is_empty() || credit.has_room())
        && !failure.has_failed()
    {
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
            if batch.n_rows() > 0 {
                metrics.took_in(&batch);
                let permit = credit.take(batch.n_bytes(), open.lease());
                batches.push(batch.with_permit(Some(permit)));
            }
            reader = Some(open);
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
                    let failed = Arc::clone(&failure);
                    compute.spawn(move || {
                        let read = metrics.timed(|| {
                            guard(&id, || {
                                read_some(&*feed, reader.take(), &credit, policy, &metrics, &failed)
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
                capabilities = None;
            }
            false
        }
    });
}
