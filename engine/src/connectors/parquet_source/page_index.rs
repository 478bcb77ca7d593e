//! Reads what a file says of its pages, of some row groups alone.
//!
//! ```text
//! data ... | column indexes: group 0, group 1, ... | offset indexes: group 0, group 1, ... | footer
//!                            ───────                                 ───────
//! ```
//!
//! The bounds of all pages stand before the places of all pages, so those of one row group lie far apart in a file
//! of many: what lies between may be larger than the row group.

use std::ops::Range;
use std::sync::Arc;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy::{Optional, Skip};
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader,
    RowGroupMetaData,
};
use parquet::file::page_index::offset_index::{OffsetIndexMetaData, PageLocation};
use parquet::file::reader::ChunkReader;

use super::footers::unsigned;

/// A request to a store takes as long as so many bytes do, about.
const BYTES_OF_A_REQUEST: u64 = 1 << 20;

/// The footer of these row groups alone, with the page index where there is one: the places of all pages, and the
/// bounds of those whose column `is_asked` for, by its place among all leaves.
///
/// Of a remote file as few requests are made as pay. `None` where the index cannot be read, or does not fit what the
/// footer says.
pub(super) fn with_pages<R: ChunkReader>(
    footer: &ArrowReaderMetadata,
    groups: &[usize],
    is_asked: impl Fn(usize) -> bool,
    bytes: &R,
    is_remote: bool,
) -> Option<ArrowReaderMetadata> {
    let all = footer.metadata();
    let groups = groups.iter().map(|&group| all.row_groups().get(group));
    let groups = groups.map(|group| only_asked(group?, &is_asked));
    let groups: Vec<RowGroupMetaData> = groups.collect::<Option<_>>()?;
    let between = between(&groups);
    let metadata = ParquetMetaDataBuilder::new(all.file_metadata().clone())
        .set_row_groups(groups)
        .build();
    let mut reader = ParquetMetaDataReader::new_with_metadata(metadata);
    let together = [(Optional, Optional)];
    let apart = [(Optional, Skip), (Skip, Optional)];
    let requests: &[_] = match is_remote && between <= BYTES_OF_A_REQUEST {
        true => &together,
        false => &apart,
    };
    for (bounds, places) in requests {
        reader = reader
            .with_column_index_policy(*bounds)
            .with_offset_index_policy(*places);
        reader.read_page_indexes(bytes).ok()?;
    }
    let metadata = Arc::new(reader.finish().ok()?);
    if !fits(&metadata) {
        return None;
    }
    let options = ArrowReaderOptions::new().with_schema(Arc::clone(footer.schema()));
    ArrowReaderMetadata::try_new(metadata, options).ok()
}

/// The row group without the bounds of pages that nobody asks for.
fn only_asked(
    group: &RowGroupMetaData,
    is_asked: impl Fn(usize) -> bool,
) -> Option<RowGroupMetaData> {
    let mut builder = group.clone().into_builder();
    let columns = builder.take_columns().into_iter().enumerate();
    let columns = columns.map(|(leaf, column)| match is_asked(leaf) {
        true => Some(column),
        false => {
            let column = column.into_builder().set_column_index_offset(None);
            column.set_column_index_length(None).build().ok()
        }
    });
    let builder = builder.set_column_metadata(columns.collect::<Option<_>>()?);
    builder.build().ok()
}

/// True if the pages of each column follow each other without a gap from the first data page to the end of the column's
/// bytes, and each begins at a later row.
///
/// The format has no checksum of the index, and the library believes what it says: it would read anywhere in the file.
/// A damaged number that still fits all others is not found out, as little as one in the rows themselves.
fn fits(metadata: &ParquetMetaData) -> bool {
    let Some(places) = metadata.offset_index() else {
        return true;
    };
    let groups = metadata.row_groups();
    let of_group = |(group, places): (&RowGroupMetaData, &Vec<OffsetIndexMetaData>)| {
        let columns = group.columns().iter().zip(places);
        places.len() == group.num_columns()
            && columns.into_iter().all(|(column, places)| {
                are_in_order(places.page_locations(), column, group.num_rows())
            })
    };
    places.len() == groups.len() && groups.iter().zip(places).all(of_group)
}

fn are_in_order(pages: &[PageLocation], column: &ColumnChunkMetaData, n_rows: i64) -> bool {
    let (start, n_bytes) = column.byte_range();
    let end = |page: &PageLocation| page.offset.checked_add(page.compressed_page_size.into());
    let (Some(first), Some(last)) = (pages.first(), pages.last()) else {
        // A column without rows has no pages.
        return n_rows == 0;
    };
    let fits_ends = first.offset == column.data_page_offset()
        && unsigned(first.offset) >= start
        && end(last).map(unsigned) == start.checked_add(n_bytes)
        && first.first_row_index == 0
        && last.first_row_index < n_rows;
    let follows = |pages: &[PageLocation]| {
        end(&pages[0]) == Some(pages[1].offset)
            && pages[0].first_row_index < pages[1].first_row_index
    };
    fits_ends
        && pages.iter().all(|page| page.compressed_page_size > 0)
        && pages.windows(2).all(follows)
}

/// How many bytes lie between the bounds of pages and their places.
fn between(groups: &[RowGroupMetaData]) -> u64 {
    let columns = || groups.iter().flat_map(RowGroupMetaData::columns);
    let bounds = columns().filter_map(|c| place(c.column_index_offset(), c.column_index_length()));
    let places = columns().filter_map(|c| place(c.offset_index_offset(), c.offset_index_length()));
    let (Some(bounds), Some(places)) = (bounds.reduce(around), places.reduce(around)) else {
        return 0;
    };
    let before = bounds.start.max(places.start);
    before.saturating_sub(bounds.end.min(places.end))
}

fn place(offset: Option<i64>, length: Option<i32>) -> Option<Range<u64>> {
    let start = unsigned(offset?);
    Some(start..start.saturating_add(unsigned(length?.into())))
}

fn around(a: Range<u64>, b: Range<u64>) -> Range<u64> {
    a.start.min(b.start)..a.end.max(b.end)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use arrow::record_batch::RecordBatch;
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::errors::Result;
    use parquet::file::page_index::column_index::ColumnIndexMetaData;
    use parquet::file::properties::WriterProperties;
    use parquet::file::reader::Length;

    use super::*;
    use crate::testing::table;

    /// A file in memory that keeps which ranges are asked for.
    struct Watched {
        bytes: Bytes,
        asked: Mutex<Vec<Range<u64>>>,
    }

    impl Length for Watched {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }
    }

    impl ChunkReader for Watched {
        type T = <Bytes as ChunkReader>::T;

        fn get_read(&self, start: u64) -> Result<Self::T> {
            self.bytes.get_read(start)
        }

        fn get_bytes(&self, start: u64, n_bytes: usize) -> Result<Bytes> {
            let range = start..start + n_bytes as u64;
            self.asked.lock().unwrap().push(range);
            self.bytes.get_bytes(start, n_bytes)
        }
    }

    /// A file of 100 row groups of four pages each.
    fn file() -> Watched {
        let rows = table("x: 1, 2, 3, 4, 5, 6, 7, 8; s: a, b, c, d, e, f, g, h");
        let rows: Vec<RecordBatch> = vec![rows; 100];
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(8))
            .set_data_page_row_count_limit(2)
            .set_write_batch_size(2)
            .build();
        let schema = rows[0].schema();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
        rows.iter().for_each(|rows| writer.write(rows).unwrap());
        let bytes = writer.into_inner().unwrap();
        Watched {
            bytes: bytes.into(),
            asked: Mutex::default(),
        }
    }

    #[test]
    fn of_many_row_groups_only_what_is_said_of_one_is_read() {
        let file = file();
        let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).unwrap();
        let read = |is_remote: bool| {
            file.asked.lock().unwrap().clear();
            let of_group = with_pages(&footer, &[70], |leaf| leaf == 0, &file, is_remote).unwrap();
            let metadata = of_group.metadata();
            assert_eq!(metadata.num_row_groups(), 1);
            let bounds = &metadata.column_index().unwrap()[0];
            let ColumnIndexMetaData::INT64(of_x) = &bounds[0] else {
                panic!("{bounds:?}");
            };
            let of_x: Vec<_> = of_x.min_values().to_vec();
            assert_eq!(of_x, [1, 3, 5, 7]);
            assert!(matches!(bounds[1], ColumnIndexMetaData::NONE));
            for of_column in &metadata.offset_index().unwrap()[0] {
                let firsts = of_column.page_locations().iter().map(|p| p.first_row_index);
                assert_eq!(firsts.collect::<Vec<_>>(), [0, 2, 4, 6]);
            }
            let asked = file.asked.lock().unwrap();
            let n_bytes = asked.iter().map(|range| range.end - range.start);
            (asked.len(), n_bytes.sum::<u64>())
        };
        let (n_requests, n_bytes) = read(false);
        assert_eq!(n_requests, 2);
        assert!(n_bytes < 400, "{n_bytes} bytes");
        // One request for all between costs less than two, as long as that is little.
        let (n_requests, n_bytes) = read(true);
        assert_eq!(n_requests, 1);
        assert!(n_bytes > 10_000, "{n_bytes} bytes");
    }

    #[test]
    fn a_row_group_that_is_not_there_has_no_pages() {
        let file = file();
        let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).unwrap();
        assert!(with_pages(&footer, &[100], |_| true, &file, false).is_none());
    }
}
