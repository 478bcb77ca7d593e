//! Which bytes of a row group hold the columns of some of its rows.

use std::ops::Range;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use super::super::planned_ranges::Wanted;
use super::footers::{n_rows, unsigned};
use super::ranges::Ranges;

/// The column chunks of a row group that hold these rows; where the pages are known, only those of them.
pub(super) fn bytes_wanted(
    footer: &ArrowReaderMetadata,
    group: usize,
    rows: &Ranges,
    columns: &ProjectionMask,
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    if rows.is_empty() {
        return wanted;
    }
    let of_group = footer.metadata().row_group(group);
    let is_whole = rows.n_rows() == n_rows(of_group);
    let leaves = of_group.columns().iter().enumerate();
    for (lane, column) in leaves.filter(|(leaf, _)| columns.leaf_included(*leaf)) {
        let (start, n_bytes) = (
            column
                .dictionary_page_offset()
                .unwrap_or(i64::MAX)
                .min(column.data_page_offset()),
            column.compressed_size(),
        );
        let chunk = unsigned(start)..unsigned(start).saturating_add(unsigned(n_bytes));
        let mut push = |range: Range<u64>| wanted.push(Wanted { lane, group, range });
        let index = footer.metadata().offset_index();
        let pages = index
            .and_then(|index| index.get(group)?.get(lane))
            .map(|pages| pages.page_locations())
            .filter(|pages| !is_whole && !pages.is_empty());
        let Some(pages) = pages else {
            push(chunk);
            continue;
        };
        // Its dictionary, if it has one.
        push(chunk.start..unsigned(pages[0].offset));
        for (i, page) in pages.iter().enumerate() {
            let end = match pages.get(i + 1) {
                Some(next) => unsigned(next.first_row_index),
                None => n_rows(of_group),
            };
            if !rows.clip(unsigned(page.first_row_index)..end).is_empty() {
                let start = unsigned(page.offset);
                let n_bytes = u64::try_from(page.compressed_page_size).unwrap_or(0);
                push(start..start.saturating_add(n_bytes));
            }
        }
    }
    wanted.retain(|one| !one.range.is_empty());
    wanted
}
