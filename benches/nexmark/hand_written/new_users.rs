//! Query 8: people who have joined and opened an auction in the same 10 seconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use rayon::prelude::*;

use super::count_by_key::Keys;
use super::{Events, Failure, numbers, of_kind, sum};
use crate::digest::Digest;
use crate::generator::{AUCTION, PERSON};
use crate::query::NEW_USERS_SIZE;

const SIZE_MS: i64 = NEW_USERS_SIZE.as_millis() as i64;

/// What has happened in a window.
#[derive(Default)]
struct Window {
    people: Vec<(i64, String)>,
    sellers: Keys,
}

pub(super) fn answer(events: &Events, hashed: bool) -> Result<Digest, Failure> {
    let columns = ["kind", "date_time", "p_id", "p_name", "a_seller"];
    let groups = events.each_group(&columns, |batches| {
        let mut windows: BTreeMap<i64, Window> = BTreeMap::new();
        for rows in batches {
            let rows = rows?;
            let times = numbers(&rows, 1);
            let start = |row: usize| times[row] - times[row].rem_euclid(SIZE_MS);
            let (ids, names) = (numbers(&rows, 2), rows.column(3).as_string::<i32>());
            for row in of_kind(&rows, PERSON).values().set_indices() {
                let person = (ids[row], names.value(row).to_owned());
                windows.entry(start(row)).or_default().people.push(person);
            }
            let sellers = numbers(&rows, 4);
            for row in of_kind(&rows, AUCTION).values().set_indices() {
                let window = windows.entry(start(row)).or_default();
                window.sellers.insert(sellers[row]);
            }
        }
        Ok(windows)
    })?;
    let mut windows: BTreeMap<i64, Vec<Window>> = BTreeMap::new();
    for (start, window) in groups.into_iter().flatten() {
        windows.entry(start).or_default().push(window);
    }
    let digests: Vec<Digest> = windows
        .into_par_iter()
        .map(|(start, parts)| digest_of(start, &parts, hashed))
        .collect::<Result<_, Failure>>()?;
    Ok(sum(digests))
}

/// Those of one window, of which every row group has a part.
fn digest_of(start: i64, parts: &[Window], hashed: bool) -> Result<Digest, Failure> {
    let people = parts.iter().flat_map(|part| &part.people);
    let mut people: Vec<&(i64, String)> = people
        .filter(|(id, _)| parts.iter().any(|part| part.sellers.contains(id)))
        .collect();
    people.sort_unstable();
    people.dedup();
    let columns: [(&str, ArrayRef); 3] = [
        (
            "id",
            Arc::new(Int64Array::from_iter_values(people.iter().map(|p| p.0))),
        ),
        (
            "name",
            Arc::new(StringArray::from_iter_values(people.iter().map(|p| &p.1))),
        ),
        (
            "window_start",
            Arc::new(Int64Array::from(vec![start; people.len()])),
        ),
    ];
    let mut digest = Digest::default();
    let rows = RecordBatch::try_from_iter(columns)?;
    digest.add(&rows, hashed).map_err(|e| e.to_string())?;
    Ok(digest)
}
