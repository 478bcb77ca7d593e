//! The splits of a Parquet file: runs of small row groups, and pieces of large ones.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::super::SPLIT_ROWS;
use super::loaded::KnownFile;
use crate::error::Result;
use crate::source::Split;

#[derive(Serialize, Deserialize)]
pub(super) struct Locator {
    pub(super) file: String,
    pub(super) first_row_group: usize,
    pub(super) n_row_groups: usize,
    /// The rows of these row groups that are of the split.
    pub(super) first_row: u64,
    pub(super) n_rows: u64,
}

impl Locator {
    pub(super) fn row_groups(&self) -> Range<usize> {
        self.first_row_group..self.first_row_group.saturating_add(self.n_row_groups)
    }
}

/// The splits of a file, the same whatever is left out of them.
pub(super) fn locators(file: &KnownFile) -> Vec<Locator> {
    let sizes: Vec<u64> = file.row_groups.iter().map(|g| g.n_rows).collect();
    let mut locators = Vec::new();
    for (first, n) in runs(&sizes, SPLIT_ROWS) {
        let all_rows: u64 = sizes[first..first + n].iter().sum();
        for (first_row, n_rows) in pieces(all_rows, SPLIT_ROWS) {
            locators.push(Locator {
                file: file.file.location().to_owned(),
                first_row_group: first,
                n_row_groups: n,
                first_row,
                n_rows,
            });
        }
    }
    locators
}

pub(super) fn split(file: &KnownFile, locator: Locator) -> Result<Split> {
    let (first, n) = (locator.first_row_group, locator.n_row_groups);
    let groups = &file.row_groups[locator.row_groups()];
    let all_rows: u64 = groups.iter().map(|g| g.n_rows).sum();
    let all_bytes: u64 = groups.iter().map(|g| g.n_bytes).sum();
    let mut name = format!("{}, {}", file.file.name(), group_names(first, n));
    if locator.n_rows < all_rows {
        name.push_str(&format!(", from row {}", locator.first_row));
    }
    Ok(Split {
        name,
        n_rows: Some(locator.n_rows),
        n_bytes: Some(share(all_bytes, locator.n_rows, all_rows)),
        locator: serde_json::to_value(locator)?,
    })
}

/// Runs of neighbours, as first and count: each is closed once it holds `enough`.
pub(super) fn runs(sizes: &[u64], enough: u64) -> Vec<(usize, usize)> {
    let mut runs = Vec::new();
    let (mut first, mut held) = (0, 0);
    for (i, size) in sizes.iter().enumerate() {
        // A large one after small ones stands alone.
        if i > first && held + size > enough {
            runs.push((first, i - first));
            (first, held) = (i, 0);
        }
        held += size;
    }
    if first < sizes.len() {
        runs.push((first, sizes.len() - first));
    }
    runs
}

/// A large row group in pieces of about the same size, as first row and count.
pub(super) fn pieces(n_rows: u64, enough: u64) -> Vec<(u64, u64)> {
    let n_pieces = (n_rows / enough).max(1);
    let size = n_rows.div_ceil(n_pieces).max(1);
    (0..n_rows)
        .step_by(usize::try_from(size).unwrap_or(usize::MAX))
        .map(|first| (first, size.min(n_rows - first)))
        .collect()
}

/// The part of `whole` that `part` of `all` rows make up.
pub(super) fn share(whole: u64, part: u64, all: u64) -> u64 {
    (whole as f64 * (part as f64 / all.max(1) as f64)) as u64
}

pub(super) fn group_names(first: usize, n: usize) -> String {
    match n {
        1 => format!("row group {first}"),
        _ => format!("row groups {first} to {}", first + n - 1),
    }
}
