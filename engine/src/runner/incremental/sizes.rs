//! How much the indices of a relation hold, as differential dataflow tells it.

use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use timely::dataflow::Scope;
use timely::logging_core::Logger;
use timely::progress::Timestamp;

/// The stream of what is told of indices.
const TOLD: &str = "differential/arrange";

/// Tells how many updates are in all indices of a relation on one worker, those of groups, distinct rows and loops
/// included.
pub(super) struct Sizes(Option<Logger<DifferentialEventBuilder>>);

impl Sizes {
    /// Calls with the number of updates whenever it has changed, after each step of the worker, for the indices that
    /// are built on it from now on, until this is called again.
    pub(super) fn tell<T: Timestamp>(
        scope: Scope<'_, T>,
        mut call: impl FnMut(u64) + 'static,
    ) -> Self {
        let mut n_updates = 0_i64;
        let worker = scope.worker();
        if let Some(mut register) = worker.log_register() {
            register.insert::<DifferentialEventBuilder, _>(TOLD, move |_, events| {
                for (_, event) in events.iter().flatten() {
                    n_updates += more(event);
                }
                if events.is_some() {
                    call(u64::try_from(n_updates).unwrap_or(0));
                }
            });
        }
        Self(worker.logger_for(TOLD))
    }

    /// Calls at once, if there is something to be told: the worker does so itself only for the newest relation.
    pub(super) fn flush(&self) {
        if let Some(told) = &self.0 {
            told.flush();
        }
    }
}

/// How many more updates there are after an event.
fn more(event: &DifferentialEvent) -> i64 {
    let long = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    match event {
        DifferentialEvent::Batch(batch) => long(batch.length),
        DifferentialEvent::Drop(batch) => -long(batch.length),
        DifferentialEvent::Merge(merge) => merge.complete.map_or(0, |left| {
            long(left) - long(merge.length1) - long(merge.length2)
        }),
        // Those that are still being sorted.
        DifferentialEvent::Batcher(sorted) => i64::try_from(sorted.records_diff).unwrap_or(0),
        DifferentialEvent::MergeShortfall(_) | DifferentialEvent::TraceShare(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    use differential_dataflow::input::Input;
    use differential_dataflow::trace::TraceReader;
    use timely::dataflow::operators::Probe;
    use timely::progress::Antichain;

    #[test]
    fn updates_are_counted_while_they_are_there() {
        let counted = timely::execute_directly(|worker| {
            let n_updates = Rc::new(Cell::new(0));
            let (sizes, mut input, mut index, probe) = worker.dataflow::<u64, _, _>(|scope| {
                let told = Rc::clone(&n_updates);
                let sizes = Sizes::tell(scope, move |n| told.set(n));
                let (input, rows) = scope.new_collection::<u64, isize>();
                let index = rows.arrange_by_self();
                let (probe, _) = index.stream.probe();
                (sizes, input, index.trace, probe)
            });
            let mut counted = Vec::new();
            for (time, diff) in [(1, 1), (2, 1), (3, -2), (4, 0)] {
                for row in 0..1_000 {
                    input.update(row, diff);
                }
                input.advance_to(time);
                input.flush();
                index.set_logical_compaction(Antichain::from_elem(time).borrow());
                index.set_physical_compaction(Antichain::from_elem(time).borrow());
                while probe.less_than(&time) {
                    worker.step();
                }
                sizes.flush();
                counted.push(n_updates.get());
            }
            counted
        });
        assert_eq!(counted[..2], [1_000, 2_000]);
        assert!(counted[3] < 1_000, "{counted:?}");
    }
}
