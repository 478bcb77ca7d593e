//! Query 5: the auctions with most bids in 10 seconds, every 2 seconds.
//!
//! ```text
//! row groups ─▶ bids by auction in each 2 seconds ─▶ put together by time ─▶ five make a window
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use rayon::prelude::*;

use super::count_by_key::ByKey;
use super::{Events, Failure, numbers, of_kind, sum};
use crate::digest::Digest;
use crate::generator::BID;
use crate::query::{HOT_PERIOD, HOT_SIZE};

type Counts = ByKey<i64>;

const HOT_SIZE_MS: i64 = HOT_SIZE.as_millis() as i64;
const HOT_PERIOD_MS: i64 = HOT_PERIOD.as_millis() as i64;

pub(super) fn answer(events: &Events, hashed: bool) -> Result<Digest, Failure> {
    let columns = ["kind", "date_time", "b_auction"];
    let groups = events.each_group(&columns, |batches| {
        // Few, and the last one is the right one for nearly every row.
        let mut panes: Vec<(i64, Counts)> = Vec::new();
        for rows in batches {
            let rows = rows?;
            let bids = of_kind(&rows, BID);
            let (times, auctions) = (numbers(&rows, 1), numbers(&rows, 2));
            for row in bids.values().set_indices() {
                let pane = times[row] - times[row].rem_euclid(HOT_PERIOD_MS);
                let place = match panes.iter().rposition(|(start, _)| *start == pane) {
                    Some(place) => place,
                    None => {
                        panes.push((pane, Counts::default()));
                        panes.len() - 1
                    }
                };
                *panes[place].1.entry(auctions[row]).or_default() += 1;
            }
        }
        Ok(panes)
    })?;
    let mut panes: BTreeMap<i64, Vec<Counts>> = BTreeMap::new();
    for (pane, counts) in groups.into_iter().flatten() {
        panes.entry(pane).or_default().push(counts);
    }
    let Some((first, last)) = panes.keys().next().zip(panes.keys().next_back()) else {
        return Ok(Digest::default());
    };
    let starts = first - HOT_SIZE_MS + HOT_PERIOD_MS..=*last;
    let starts: Vec<i64> = starts.step_by(HOT_PERIOD_MS as usize).collect();
    let digests: Vec<Digest> = starts
        .into_par_iter()
        .map(|start| {
            let window = panes.range(start..start + HOT_SIZE_MS);
            digest_of(start, window.flat_map(|(_, counts)| counts), hashed)
        })
        .collect::<Result<_, Failure>>()?;
    Ok(sum(digests))
}

/// The auctions of one window that have most bids.
fn digest_of<'a>(
    start: i64,
    panes: impl Iterator<Item = &'a Counts>,
    hashed: bool,
) -> Result<Digest, Failure> {
    let mut window = Counts::default();
    for (auction, n_bids) in panes.flatten() {
        *window.entry(*auction).or_default() += n_bids;
    }
    let most = window.values().max().copied().unwrap_or_default();
    let hot: Vec<i64> = window
        .into_iter()
        .filter_map(|(auction, n_bids)| (n_bids == most).then_some(auction))
        .collect();
    let n_rows = hot.len();
    let columns: [(&str, ArrayRef); 3] = [
        ("auction", Arc::new(Int64Array::from(hot))),
        ("n_bids", Arc::new(Int64Array::from(vec![most; n_rows]))),
        (
            "window_start",
            Arc::new(Int64Array::from(vec![start; n_rows])),
        ),
    ];
    let mut digest = Digest::default();
    let rows = RecordBatch::try_from_iter(columns)?;
    digest.add(&rows, hashed).map_err(|e| e.to_string())?;
    Ok(digest)
}
