//! Where rows go out: writes on the pool, and holds the dataflow open until all is written.

use super::*;

pub(super) fn build_end<'s>(
    scope: Scope<'s, LogicalTime>,
    part: EndPart,
    shared: &Shared,
    streams: &Streams<'s>,
) {
    let EndPart {
        id,
        inputs,
        writer,
        kind,
        metrics,
    } = part;
    let mut builder = OperatorBuilder::new(id.to_string(), scope);
    let Shared { failure, compute } = shared.clone();
    let inputs: Vec<_> = inputs
        .into_iter()
        .map(|exit| (exit, Distribution::Keep))
        .collect();
    let mut inputs = new_inputs(scope, &mut builder, &id, &inputs, streams, &failure);
    // Nobody reads it: its capability keeps the dataflow alive until the writer has finished.
    let (_output, _stream) = builder.new_output::<Rows>();
    let waker = sync_activator(scope, &builder);
    let worker = scope.index();
    // The writer comes back after each job but the last.
    let (sender, results) = unbounded::<Result<Option<Box<dyn EndWriter>>>>();
    builder.build_reschedule(move |capabilities| {
        let mut capabilities = Some(capabilities);
        let mut writer = Some(writer);
        let mut waiting: Vec<Batch> = Vec::new();
        move |frontiers: &[MutableAntichain<LogicalTime>]| {
            for_each_batch(&mut inputs, |_, _, batch| {
                if batch.event().is_none() {
                    waiting.push(batch);
                }
            });
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
                let failed = Arc::clone(&failure);
                compute.spawn(worker, kind, move || {
                    let work = || {
                        for batch in batches {
                            failed.check()?;
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
