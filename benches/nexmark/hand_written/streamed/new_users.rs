//! Query 8: people who have joined and opened an auction in the same 10 seconds.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Operator;

use super::super::count_by_key::{Keys, mixed};
use super::super::{Failure, numbers, of_kind};
use super::{Panes, Pre, Shared};
use crate::generator::{AUCTION, PERSON};
use crate::query::NEW_USERS_SIZE;

const SIZE_MS: i64 = NEW_USERS_SIZE.as_millis() as i64;

/// What has happened in a window.
#[derive(Default)]
struct Window {
    people: Vec<(i64, String)>,
    sellers: Keys,
}

/// What somebody has done in the window that begins at the first number.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Act {
    Joined(i64, i64, String),
    Opened(i64, i64),
}

impl Act {
    fn by(&self) -> i64 {
        match self {
            Self::Joined(_, id, _) | Self::Opened(_, id) => *id,
        }
    }
}

pub(super) fn build(scope: Scope<'_, i64>, shared: &Shared) {
    let acts = Pre {
        columns: &["kind", "date_time", "p_id", "p_name", "a_seller"],
        size_ms: SIZE_MS,
        take,
        give: |start, window: Window| {
            let people = window.people.into_iter();
            let joined = people.map(|(id, name)| Act::Joined(start, id, name));
            let sellers = window.sellers.into_iter();
            let opened = sellers.map(|id| Act::Opened(start, id));
            joined.chain(opened).collect()
        },
    };
    let by_person = Exchange::new(|act: &Act| mixed(act.by()));
    let answered = shared.clone();
    acts.stream(scope, shared)
        .unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
            by_person,
            "both",
            |_capability, _info| {
                let mut windows: Panes<Window> = Panes::new();
                move |(input, frontier), _output| {
                    input.for_each_stamp(|_, parts| {
                        for act in parts.flat_map(|part| part.drain(..)) {
                            match act {
                                Act::Joined(start, id, name) => {
                                    let window = windows.entry(start).or_default();
                                    window.people.push((id, name));
                                }
                                Act::Opened(start, id) => {
                                    windows.entry(start).or_default().sellers.insert(id);
                                }
                            }
                        }
                    });
                    let is_done = |start: i64| !frontier.less_equal(&start);
                    while let Some(window) = windows.first_entry().filter(|w| is_done(*w.key())) {
                        let (start, window) = window.remove_entry();
                        answered.add(rows_of(start, window));
                    }
                }
            },
        );
}

/// Keeps who has joined and who has opened an auction; gives the latest time.
fn take(rows: &RecordBatch, windows: &mut Panes<Window>) -> i64 {
    let times = numbers(rows, 1);
    let start = |row: usize| times[row] - times[row].rem_euclid(SIZE_MS);
    let (ids, names) = (numbers(rows, 2), rows.column(3).as_string::<i32>());
    let mut latest = i64::MIN;
    for row in of_kind(rows, PERSON).values().set_indices() {
        latest = latest.max(times[row]);
        let person = (ids[row], names.value(row).to_owned());
        windows.entry(start(row)).or_default().people.push(person);
    }
    let sellers = numbers(rows, 4);
    for row in of_kind(rows, AUCTION).values().set_indices() {
        latest = latest.max(times[row]);
        let window = windows.entry(start(row)).or_default();
        window.sellers.insert(sellers[row]);
    }
    latest
}

/// The people of a window who have also opened an auction, each once.
fn rows_of(start: i64, window: Window) -> Result<RecordBatch, Failure> {
    let Window {
        mut people,
        sellers,
    } = window;
    people.retain(|(id, _)| sellers.contains(id));
    people.sort_unstable();
    people.dedup();
    let ids = people.iter().map(|(id, _)| *id);
    let names = people.iter().map(|(_, name)| name);
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids))),
        ("name", Arc::new(StringArray::from_iter_values(names))),
        (
            "window_start",
            Arc::new(Int64Array::from(vec![start; people.len()])),
        ),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
