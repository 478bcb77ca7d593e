//! Whether what a file says of its pages leaves any of them out, found out on a few of its row groups.
//!
//! Reading the index of pages costs a little of each row group, for nothing where all values of a column are found in
//! all pages. The same row groups are asked in each run, so that how rows are cut into batches hangs on no timing.

use super::super::hive::HiveColumns;
use super::super::parquet_file::ParquetBytes;
use super::footers::{ParquetFile, n_rows};
use super::page_index::with_pages;
use super::reader::columns_of;
use super::statistics::rows_that_may_hold;
use crate::error::Result;
use crate::predicate::Predicate;

/// Of so few row groups each is asked itself.
const FEW: usize = 8;

/// True unless in three of the row groups that `may_hold` wanted rows no page is ruled out.
///
/// Of a remote file always: where its pages are is asked all the same.
///
/// # Errors
/// If the file cannot be opened.
pub(super) fn pages_help(
    file: &ParquetFile,
    hive: &HiveColumns,
    predicate: &Predicate,
    may_hold: &[bool],
) -> Result<bool> {
    let groups: Vec<usize> = (0..may_hold.len()).filter(|&g| may_hold[g]).collect();
    let [first, .., last] = groups[..] else {
        return Ok(true);
    };
    if groups.len() <= FEW || file.file.local_path().is_none() {
        return Ok(true);
    }
    let sample = [first, groups[groups.len() / 2], last];
    let bytes = ParquetBytes::open(&file.file)?;
    let asked = columns_of(predicate, &file.footer, hive);
    let is_asked = |leaf| asked.leaf_included(leaf);
    let Some(footer) = with_pages(&file.footer, &sample, is_asked, &bytes, false) else {
        return Ok(false);
    };
    let rules_out = |group: usize| {
        let known = |name: &str| hive.known(file.number, name);
        let rows = rows_that_may_hold(&footer, group, predicate, known);
        rows.n_rows() < n_rows(footer.metadata().row_group(group))
    };
    Ok((0..sample.len()).any(rules_out))
}
