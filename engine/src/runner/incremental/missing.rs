//! Rows that are there less often than not at all, and what loops read in their place.
//!
//! A row that is taken back before it is added, as where the addition comes late and the other change does not, is there
//! -1 times for a while. What a loop makes of such rows need not come to an end, however the loop would over rows: one
//! that cancels itself is there in every other round. So a loop sees as many more of such a row as are missing: none.
//!
//! ```text
//! rows ─▶ index ──────────────────┬─▶ join inside of a loop
//!           └─▶ missing ─▶ index ─┘
//! ```
//!
//! Whether rows are missing is looked up in an index, and only for those that are taken back. So where none are, as
//! almost always, this costs next to nothing.

use std::collections::HashMap;

use differential_dataflow::AsCollection;
use differential_dataflow::trace::cursor::cursor_list;
use differential_dataflow::trace::{Cursor, Navigable, TraceReader};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;
use timely::progress::{Antichain, Timestamp};

use super::render::Index;
use super::row::RowBytes;
use super::steps::Keyed;
use crate::runner::time::LogicalTime;

/// A key, and a row.
type KeyedRow = (RowBytes, RowBytes);
type Update = (KeyedRow, LogicalTime, isize);

/// How many of each row of an index are missing for it to be there not at all, under the same keys.
pub(super) fn missing<'s>(index: &Index<'s, LogicalTime>) -> Keyed<'s, LogicalTime> {
    let mut trace = index.trace.clone();
    let stream = index.stream.clone();
    let missing = stream.unary_frontier::<CapacityContainerBuilder<Vec<Update>>, _, _, _>(
        Pipeline,
        "missing",
        move |_, _| {
            let mut known: HashMap<KeyedRow, isize> = HashMap::new();
            let mut upper = Antichain::from_elem(LogicalTime::minimum());
            move |(input, _), output| {
                let lower = upper.clone();
                let (mut capabilities, mut batches) = (CapabilitySet::new(), Vec::new());
                input.for_each(|capability, spans| {
                    for capability in capability.retain_stamp(0).iter() {
                        capabilities.insert(capability.clone());
                    }
                    for span in spans.drain(..) {
                        upper.clone_from(span.upper());
                        batches.extend(span.inner);
                    }
                });
                if !batches.is_empty() {
                    let mut session = output.session(&capabilities);
                    let (mut new, new_rows) = cursor_list(batches);
                    // All that came before the new rows; there always is such a cut between batches.
                    let before = trace.batches_through(lower.borrow()).unwrap_or_default();
                    let mut old: Vec<_> = before.iter().map(|b| (b.cursor(), b)).collect();
                    while let Some(key) = new.get_key(&new_rows) {
                        while let Some(row) = new.get_val(&new_rows) {
                            let mut is_taken = false;
                            new.map_times(&new_rows, |_, diff| is_taken |= *diff < 0);
                            let keyed = || (key.clone(), row.clone());
                            if is_taken || (!known.is_empty() && known.contains_key(&keyed())) {
                                // A cursor over all of them would look for rows in those without the key.
                                let mut there = 0;
                                for (cursor, rows) in &mut old {
                                    cursor.seek_key(rows, key);
                                    if cursor.get_key(rows) != Some(key) {
                                        continue;
                                    }
                                    cursor.seek_val(rows, row);
                                    if cursor.get_val(rows) == Some(row) {
                                        cursor.map_times(rows, |_, diff| there += *diff);
                                    }
                                }
                                // Instants follow each other, so each sees all that were before.
                                let mut changes = Vec::new();
                                new.map_times(&new_rows, |time, diff| changes.push((*time, *diff)));
                                changes.sort_unstable();
                                let keyed = keyed();
                                for (time, diff) in changes {
                                    let more = of(there + diff) - of(there);
                                    there += diff;
                                    if more != 0 {
                                        session.give((keyed.clone(), time, more));
                                    }
                                }
                                match of(there) {
                                    0 => known.remove(&keyed),
                                    n => known.insert(keyed, n),
                                };
                            }
                            new.step_val(&new_rows);
                        }
                        new.step_key(&new_rows);
                    }
                }
                trace.advance_upper(&mut upper);
                trace.set_logical_compaction(upper.borrow());
                trace.set_physical_compaction(upper.borrow());
            }
        },
    );
    missing.as_collection()
}

/// How many are missing of a row that is there so many times.
fn of(there: isize) -> isize {
    (-there).max(0)
}
