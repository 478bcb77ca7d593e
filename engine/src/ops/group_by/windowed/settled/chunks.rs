//! States at rest: columns in chunks that are only added to, and a place for each state.
//!
//! A state that changes is written anew and its old place becomes garbage; when there is more garbage than
//! there are states, what is left is copied together. Whoever remembers a place therefore has the state as
//! it was, which is how a result can be taken back.

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::compute::interleave;
use arrow::datatypes::FieldRef;
use hashbrown::HashMap;

use crate::error::Result;

/// Copying few rows together is not worth it.
const FEW_ROWS: usize = 1 << 12;
/// So many chunks are no burden, and one more for each so many rows.
const FEW_CHUNKS: usize = 64;
const ROWS_PER_CHUNK: usize = 128;

/// Where a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    chunk: u32,
    row: u32,
}

impl Place {
    /// No state: that over no rows.
    pub(super) const NONE: Self = Self {
        chunk: u32::MAX,
        row: u32::MAX,
    };

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// Columns of states, row by row.
#[derive(Debug)]
pub(super) struct Chunks {
    fields: Vec<FieldRef>,
    chunks: Vec<Vec<ArrayRef>>,
    n_rows: usize,
    n_garbage: usize,
    n_bytes: usize,
}

impl Chunks {
    /// For states with these columns.
    pub(super) fn new(fields: Vec<FieldRef>) -> Self {
        Self {
            fields,
            chunks: Vec::new(),
            n_rows: 0,
            n_garbage: 0,
            n_bytes: 0,
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Keeps states; their places follow the one that is returned.
    pub(super) fn append(&mut self, columns: Vec<ArrayRef>) -> Places {
        let n_rows = columns.first().map_or(0, |c| c.len());
        self.n_rows += n_rows;
        let n_bytes = columns.iter().map(|c| c.get_array_memory_size());
        self.n_bytes += n_bytes.sum::<usize>();
        self.chunks.push(columns);
        Places {
            chunk: number(self.chunks.len() - 1),
        }
    }

    /// Says that nobody will ask for this place any more.
    pub(super) fn release(&mut self, place: Place) {
        self.n_garbage += usize::from(!place.is_none());
    }

    /// The states at these places, none of which is [`Place::NONE`].
    pub(super) fn gather(&self, places: &[Place]) -> Result<Vec<ArrayRef>> {
        let Some(first) = places.first() else {
            let none = self.fields.iter().map(|f| new_empty_array(f.data_type()));
            return Ok(none.collect());
        };
        let follows = |(n, place): (usize, &Place)| {
            place.chunk == first.chunk && place.row as usize == first.row as usize + n
        };
        if places.iter().enumerate().all(follows) {
            let columns = self.chunks[first.chunk as usize].iter();
            let slice = |column: &ArrayRef| column.slice(first.row as usize, places.len());
            return Ok(columns.map(slice).collect());
        }
        // Only the chunks that are read: there may be many.
        let mut read: Vec<u32> = Vec::new();
        let mut number_of: HashMap<u32, usize> = HashMap::new();
        let mut last = (u32::MAX, 0);
        let rows: Vec<(usize, usize)> = places
            .iter()
            .map(|place| {
                if place.chunk != last.0 {
                    let at = *number_of.entry(place.chunk).or_insert_with(|| {
                        read.push(place.chunk);
                        read.len() - 1
                    });
                    last = (place.chunk, at);
                }
                (last.1, place.row as usize)
            })
            .collect();
        let columns = (0..self.fields.len()).map(|n| {
            let arrays = read.iter().map(|chunk| &*self.chunks[*chunk as usize][n]);
            Ok(interleave(&arrays.collect::<Vec<&dyn Array>>(), &rows)?)
        });
        columns.collect()
    }

    /// True if it is time for [`Chunks::compact`].
    pub(super) fn is_wasteful(&self) -> bool {
        let n_live = self.n_rows - self.n_garbage.min(self.n_rows);
        self.n_garbage > n_live.max(FEW_ROWS)
            || self.chunks.len() > FEW_CHUNKS + n_live / ROWS_PER_CHUNK
    }

    /// Keeps the states at these places alone, which follow each other from now on.
    pub(super) fn compact(&mut self, places: &[Place]) -> Result<Places> {
        let columns = self.gather(places)?;
        self.chunks = Vec::new();
        (self.n_rows, self.n_garbage, self.n_bytes) = (0, 0, 0);
        // A slice would keep all of what it was cut from.
        let columns = columns.into_iter().map(compacted).collect::<Result<_>>()?;
        Ok(self.append(columns))
    }
}

fn compacted(column: ArrayRef) -> Result<ArrayRef> {
    let all: Vec<(usize, usize)> = (0..column.len()).map(|row| (0, row)).collect();
    Ok(interleave(&[&*column], &all)?)
}

/// The places of states that were appended together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    chunk: u32,
}

impl Places {
    pub(super) fn get(self, n: usize) -> Place {
        Place {
            chunk: self.chunk,
            row: number(n),
        }
    }
}

/// Numbers are 32 bits wide: a worker has fewer states than that, as it has fewer keys.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
