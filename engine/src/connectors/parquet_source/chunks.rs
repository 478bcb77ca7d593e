//! The bytes of column chunks, each fetched at once.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::super::parquet_file::{ParquetBytes, ParquetRead};
use super::footers::unsigned;

/// The chunks of a split may be no larger together than this; what is beyond is fetched page by page.
const MOST_BYTES: u64 = 32 << 20;

/// A file of which some column chunks are fetched whole, by the first who asks for a byte of them.
///
/// The library fetches each page by itself, and its header before it: that is many calls where pages are
/// small, and as many requests where the file is remote.
#[derive(Clone)]
pub(super) struct Chunks {
    bytes: ParquetBytes,
    /// In the order of the file.
    chunks: Arc<[Chunk]>,
}

struct Chunk {
    place: Range<u64>,
    fetched: OnceLock<Bytes>,
}

impl Chunks {
    /// The file with nothing fetched ahead.
    pub(super) fn none(bytes: ParquetBytes) -> Self {
        Self {
            bytes,
            chunks: Arc::default(),
        }
    }

    /// The file with the chunks of these columns in these row groups.
    pub(super) fn of(
        bytes: ParquetBytes,
        footer: &ParquetMetaData,
        groups: &[usize],
        columns: &ProjectionMask,
    ) -> Self {
        let mut room = MOST_BYTES.min(bytes.len());
        let mut places: Vec<Range<u64>> = Vec::new();
        for &group in groups {
            let leaves = footer.row_group(group).columns().iter().enumerate();
            for (_, column) in leaves.filter(|(leaf, _)| columns.leaf_included(*leaf)) {
                let first_page = column.dictionary_page_offset();
                let start = unsigned(first_page.unwrap_or(column.data_page_offset()));
                let n_bytes = unsigned(column.compressed_size());
                // What a damaged footer says is left to the library, which has messages for it.
                let is_inside = start.saturating_add(n_bytes) <= bytes.len();
                if n_bytes > 0 && is_inside && n_bytes <= room {
                    room -= n_bytes;
                    places.push(start..start + n_bytes);
                }
            }
        }
        places.sort_unstable_by_key(|p| p.start);
        let chunks = places.into_iter().map(|place| Chunk {
            place,
            fetched: OnceLock::new(),
        });
        Self {
            bytes,
            chunks: chunks.collect(),
        }
    }

    /// The bytes from `start` to the end of its chunk, where that is one of those.
    fn rest(&self, start: u64) -> ParquetResult<Option<Bytes>> {
        let after = self.chunks.partition_point(|c| c.place.start <= start);
        let chunk = after.checked_sub(1).and_then(|i| self.chunks.get(i));
        let Some(chunk) = chunk.filter(|c| c.place.contains(&start)) else {
            return Ok(None);
        };
        let fetched = match chunk.fetched.get() {
            Some(fetched) => fetched,
            None => {
                let n_bytes = as_size(chunk.place.end - chunk.place.start);
                let bytes = self.bytes.get_bytes(chunk.place.start, n_bytes)?;
                chunk.fetched.get_or_init(|| bytes)
            }
        };
        let before = as_size(start - chunk.place.start);
        Ok((before <= fetched.len()).then(|| fetched.slice(before..)))
    }
}

fn as_size(n_bytes: u64) -> usize {
    usize::try_from(n_bytes).unwrap_or(usize::MAX)
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.bytes.len()
    }
}

impl ChunkReader for Chunks {
    type T = ChunkRead;

    fn get_read(&self, start: u64) -> ParquetResult<ChunkRead> {
        Ok(match self.rest(start)? {
            Some(rest) => ChunkRead::Fetched(rest.reader()),
            None => ChunkRead::File(self.bytes.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, n_bytes: usize) -> ParquetResult<Bytes> {
        match self.rest(start)?.filter(|rest| rest.len() >= n_bytes) {
            Some(rest) => Ok(rest.slice(..n_bytes)),
            None => self.bytes.get_bytes(start, n_bytes),
        }
    }
}

/// Reads a file in order, from memory where that is fetched.
pub(super) enum ChunkRead {
    Fetched(Reader<Bytes>),
    File(ParquetRead),
}

impl Read for ChunkRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Fetched(read) => read.read(buffer),
            Self::File(read) => read.read(buffer),
        }
    }
}
