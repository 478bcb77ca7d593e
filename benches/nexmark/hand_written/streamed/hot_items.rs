//! Query 5: the auctions with most bids in 10 seconds, every 2 seconds.
//!
//! ```text
//! bids by auction in each 2 seconds ─▶ exchange by auction ─▶ five make a window ─▶ most of a worker ─▶ most of all
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::{Capability, Operator};

use super::super::count_by_key::{ByKey, mixed};
use super::super::{Failure, numbers, of_kind};
use super::{Panes, Pre, Shared};
use crate::generator::BID;
use crate::query::{HOT_PERIOD, HOT_SIZE};

const SIZE_MS: i64 = HOT_SIZE.as_millis() as i64;
const PERIOD_MS: i64 = HOT_PERIOD.as_millis() as i64;

type Counts = ByKey<i64>;

/// The start of a pane or of a window, an auction, and how many bids.
type Count = (i64, i64, i64);

pub(super) fn build(scope: Scope<'_, i64>, shared: &Shared) {
    let counts = Pre {
        columns: &["kind", "date_time", "b_auction"],
        size_ms: PERIOD_MS,
        take: take_bids,
        give: |start, counts: Counts| counts.into_iter().map(|(a, n)| (start, a, n)).collect(),
    };
    let by_auction = Exchange::new(|(_, auction, _): &Count| mixed(*auction));
    let by_window = Exchange::new(|(start, _, _): &Count| (*start / PERIOD_MS) as u64);
    let answered = shared.clone();
    counts
        .stream(scope, shared)
        .unary_frontier(by_auction, "most of a worker", |_capability, _info| {
            let mut panes: Panes<Counts> = Panes::new();
            // At the last pane of the next window.
            let mut held: Option<Capability<i64>> = None;
            move |(input, frontier), output| {
                input.for_each_stamp(|at, parts| {
                    let at = at.retain_least(output.output_index());
                    let time = |capability: &Option<Capability<i64>>| {
                        capability.as_ref().map_or(i64::MAX, |c| *c.time())
                    };
                    if time(&at) < time(&held) {
                        held = at;
                    }
                    for (pane, auction, n) in parts.flat_map(|part| part.drain(..)) {
                        *panes.entry(pane).or_default().entry(auction).or_default() += n;
                    }
                });
                while let Some(at) = held.take() {
                    let last_pane = *at.time();
                    if frontier.less_equal(&last_pane) {
                        held = Some(at);
                        break;
                    }
                    let start = last_pane + PERIOD_MS - SIZE_MS;
                    let window = panes.range(start..=last_pane);
                    let most = most_of(start, window.flat_map(|(_, counts)| counts));
                    output.session(&at).give_iterator(most.into_iter());
                    panes = panes.split_off(&(start + PERIOD_MS));
                    held = (!panes.is_empty()).then(|| at.delayed(&(last_pane + PERIOD_MS)));
                }
            }
        })
        .container::<Vec<Count>>()
        .unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
            by_window,
            "most of all",
            |_capability, _info| {
                let mut windows: Panes<Vec<Count>> = Panes::new();
                move |(input, frontier), _output| {
                    input.for_each_stamp(|_, parts| {
                        for count in parts.flat_map(|part| part.drain(..)) {
                            windows.entry(count.0).or_default().push(count);
                        }
                    });
                    let is_done = |start: i64| !frontier.less_equal(&(start + SIZE_MS - PERIOD_MS));
                    while let Some(window) = windows.first_entry().filter(|w| is_done(*w.key())) {
                        answered.add(rows_of(&window.remove()));
                    }
                }
            },
        );
}

/// Counts bids; gives the latest time.
fn take_bids(rows: &RecordBatch, panes: &mut Panes<Counts>) -> i64 {
    let bids = of_kind(rows, BID);
    let (times, auctions) = (numbers(rows, 1), numbers(rows, 2));
    let pane = |row: usize| times[row] - times[row].rem_euclid(PERIOD_MS);
    let mut latest = i64::MIN;
    let mut bids = bids.values().set_indices().peekable();
    while let Some(start) = bids.peek().map(|row| pane(*row)) {
        let counts = panes.entry(start).or_default();
        while let Some(row) = bids.next_if(|row| pane(*row) == start) {
            latest = latest.max(times[row]);
            *counts.entry(auctions[row]).or_default() += 1;
        }
    }
    latest
}

/// The auctions that have most bids in a window, of those on this worker.
fn most_of<'a>(start: i64, counts: impl Iterator<Item = (&'a i64, &'a i64)>) -> Vec<Count> {
    let mut window = Counts::default();
    for (auction, n) in counts {
        *window.entry(*auction).or_default() += n;
    }
    let most = window.values().max().copied().unwrap_or_default();
    let hot = window.into_iter().filter(|(_, n)| *n == most);
    hot.map(|(auction, n)| (start, auction, n)).collect()
}

/// The auctions that have most bids in a window, of those that do on some worker.
fn rows_of(window: &[Count]) -> Result<RecordBatch, Failure> {
    let most = window.iter().map(|(_, _, n)| *n).max().unwrap_or_default();
    let hot: Vec<&Count> = window.iter().filter(|(_, _, n)| *n == most).collect();
    let column = |value: fn(&Count) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(hot.iter().map(|c| value(c))))
    };
    Ok(RecordBatch::try_from_iter([
        ("auction", column(|c| c.1)),
        ("n_bids", column(|c| c.2)),
        ("window_start", column(|c| c.0)),
    ])?)
}
