//! Ranges of a remote file that are known before they are read, fetched in few pieces and ahead of the reader.
//!
//! ```text
//! wanted   lane 0 ▐██▌   lane 1 ▐██████▌ lane 2 ▐█▌            (column chunks, pages)
//! pieces   [───────────────────────────]        [──]            gaps up to 1 MiB are fetched too
//! reader   lane by lane in order; a piece is let go once every lane in it has passed it
//! ```

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::storage::{Fetch, StoredFile};
use crate::error::Result;

/// Bytes between two wanted ranges that are fetched with them: they cost less than another request.
const MAX_GAP_BYTES: u64 = 1 << 20;

/// One request takes no more than this, at which the time to the first byte no longer counts.
const MAX_PIECE_BYTES: u64 = 8 << 20;

/// Nor less than this, where many lanes share the bytes that may be held.
const MIN_PIECE_BYTES: u64 = 1 << 20;

/// What is fetched ahead: pieces under way and pieces held, per open split.
const MOST_HELD_BYTES: u64 = 32 << 20;

/// A range that will be read. Ranges of one lane are read in their order, lanes beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) lane: usize,
    /// Lanes read ranges of one group at about the same time: the number of a row group.
    pub(crate) group: usize,
    pub(crate) range: Range<u64>,
}

/// The pieces of a file in which wanted ranges lie.
///
/// It holds at most 32 MiB of them, and beyond that only pieces that a lane is in: where a group is larger
/// than 32 MiB, they are cut small, down to 1 MiB.
pub(crate) struct PlannedRanges {
    file: StoredFile,
    /// In the order of the file, as are the pieces.
    wanted: Vec<Wanted>,
    pieces: Vec<Piece>,
    /// The order in which pieces are fetched ahead.
    order: Vec<usize>,
    /// How far each lane has come in the file.
    reached: Vec<u64>,
    held_bytes: u64,
    most_held_bytes: u64,
}

struct Piece {
    range: Range<u64>,
    /// The wanted ranges that begin or go on in it.
    wanted: Range<usize>,
    state: State,
}

enum State {
    Planned,
    UnderWay(Fetch),
    Here(Bytes),
    /// Passed by all its lanes, or never fetched since they passed it over.
    Done,
}

impl Piece {
    fn n_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn is_held(&self) -> bool {
        matches!(self.state, State::UnderWay(_) | State::Here(_))
    }
}

impl PlannedRanges {
    /// Plans pieces for these ranges of a remote file, and begins to fetch the first ones.
    ///
    /// Ranges that the file does not have are left out: reading them is an error then.
    pub(crate) fn begin(file: &StoredFile, mut wanted: Vec<Wanted>) -> Result<Self> {
        for one in &mut wanted {
            one.range.end = one.range.end.min(file.n_bytes());
        }
        wanted.retain(|one| one.range.start < one.range.end);
        wanted.sort_by_key(|one| (one.range.start, one.range.end));
        let pieces = pieces(&wanted, piece_bytes(&wanted));
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        // The beginnings of all lanes of a group before what comes later in any of them.
        order.sort_by_key(|&i| {
            let first = &wanted[pieces[i].wanted.start];
            let depth = pieces[i].range.start.saturating_sub(first.range.start);
            (first.group, depth, i)
        });
        let n_lanes = wanted.iter().map(|one| one.lane + 1).max().unwrap_or(0);
        let mut planned = Self {
            file: file.clone(),
            wanted,
            pieces,
            order,
            reached: vec![0; n_lanes],
            held_bytes: 0,
            most_held_bytes: 0,
        };
        planned.fetch_ahead()?;
        Ok(planned)
    }

    /// The most bytes that were held or under way at one time.
    #[cfg(test)]
    pub(crate) fn most_held_bytes(&self) -> u64 {
        self.most_held_bytes
    }

    /// The bytes of a range; `None` if they are not all among those planned.
    pub(crate) fn read(&mut self, range: Range<u64>) -> Result<Option<Bytes>> {
        let Some(first) = self.place(range.start) else {
            return Ok(None);
        };
        self.pass(range.start);
        let mut last = first;
        while self.pieces[last].range.end < range.end {
            let end = self.pieces[last].range.end;
            last += 1;
            if self.pieces.get(last).is_none_or(|p| p.range.start != end) {
                return Ok(None);
            }
        }
        for place in first..=last {
            self.fetch(place)?;
        }
        self.fetch_ahead()?;
        if first == last {
            let bytes = self.arrived(first)?;
            return Ok(Some(self.part(first, &bytes, &range)));
        }
        let n_bytes = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut joined = BytesMut::with_capacity(n_bytes);
        for place in first..=last {
            let bytes = self.arrived(place)?;
            joined.extend_from_slice(&self.part(place, &bytes, &range));
        }
        Ok(Some(joined.freeze()))
    }

    /// The bytes from here to the end of the piece; `None` if they are not among those planned.
    pub(crate) fn rest(&mut self, from: u64) -> Result<Option<Bytes>> {
        match self.place(from) {
            None => Ok(None),
            Some(place) => self.read(from..self.pieces[place].range.end),
        }
    }

    /// The piece that holds the byte.
    fn place(&self, at: u64) -> Option<usize> {
        let after = self.pieces.partition_point(|p| p.range.start <= at);
        let place = after.checked_sub(1)?;
        (at < self.pieces[place].range.end).then_some(place)
    }

    /// Notes that a lane has come to this byte, and lets go what all have passed.
    fn pass(&mut self, at: u64) {
        let after = self.wanted.partition_point(|one| one.range.start <= at);
        let Some(one) = after.checked_sub(1).and_then(|i| self.wanted.get(i)) else {
            return;
        };
        let reached = &mut self.reached[one.lane];
        *reached = at.max(*reached);
        for piece in &mut self.pieces {
            let passed = |one: &Wanted| {
                let end = one.range.end.min(piece.range.end);
                self.reached[one.lane] >= end
            };
            if self.wanted[piece.wanted.clone()].iter().all(passed) {
                if piece.is_held() {
                    self.held_bytes -= piece.n_bytes();
                }
                piece.state = State::Done;
            }
        }
    }

    fn fetch_ahead(&mut self) -> Result<()> {
        for i in 0..self.order.len() {
            let place = self.order[i];
            if !matches!(self.pieces[place].state, State::Planned) {
                continue;
            }
            if self.held_bytes + self.pieces[place].n_bytes() > MOST_HELD_BYTES {
                return Ok(());
            }
            self.fetch(place)?;
        }
        Ok(())
    }

    /// Begins to fetch a piece that is neither here nor under way.
    fn fetch(&mut self, place: usize) -> Result<()> {
        let piece = &mut self.pieces[place];
        if !piece.is_held() {
            piece.state = State::UnderWay(self.file.fetch(piece.range.clone())?);
            self.held_bytes += piece.n_bytes();
            self.most_held_bytes = self.most_held_bytes.max(self.held_bytes);
        }
        Ok(())
    }

    /// The bytes of a piece that was fetched.
    fn arrived(&mut self, place: usize) -> Result<Bytes> {
        let piece = &mut self.pieces[place];
        match std::mem::replace(&mut piece.state, State::Planned) {
            State::Here(bytes) => {
                piece.state = State::Here(bytes.clone());
                Ok(bytes)
            }
            State::UnderWay(fetch) => {
                let bytes = fetch.wait().inspect_err(|_| {
                    self.held_bytes -= piece.n_bytes();
                })?;
                piece.state = State::Here(bytes.clone());
                Ok(bytes)
            }
            State::Planned | State::Done => self.file.range(piece.range.clone()),
        }
    }

    /// What of a range lies in a piece.
    fn part(&self, place: usize, bytes: &Bytes, range: &Range<u64>) -> Bytes {
        let piece = &self.pieces[place].range;
        let within = |at: u64| {
            let at = at.clamp(piece.start, piece.end) - piece.start;
            usize::try_from(at).unwrap_or(bytes.len()).min(bytes.len())
        };
        bytes.slice(within(range.start)..within(range.end))
    }
}

/// How large pieces may be, so that those of the largest group can be held at once.
fn piece_bytes(wanted: &[Wanted]) -> u64 {
    let n_groups = wanted.iter().map(|one| one.group + 1).max().unwrap_or(0);
    let mut sizes = vec![(0_u64, 0_u64); n_groups];
    for one in wanted {
        let (n_bytes, n_ranges) = &mut sizes[one.group];
        *n_bytes += one.range.end - one.range.start;
        *n_ranges += 1;
    }
    match sizes.iter().max() {
        Some((n_bytes, n_ranges)) if *n_bytes > MOST_HELD_BYTES => {
            (MOST_HELD_BYTES / n_ranges.max(&1)).clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES)
        }
        _ => MAX_PIECE_BYTES,
    }
}

/// Pieces of at most so many bytes that cover the ranges, which are in the order of the file.
fn pieces(wanted: &[Wanted], max_bytes: u64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (i, one) in wanted.iter().enumerate() {
        let mut start = one.range.start;
        if let Some(last) = pieces.last_mut() {
            let near = start <= last.range.end.saturating_add(MAX_GAP_BYTES);
            let end = one.range.end.max(last.range.end);
            if near && end - last.range.start <= max_bytes {
                last.range.end = end;
                last.wanted.end = i + 1;
                continue;
            }
            if start < last.range.end {
                // Ranges of a damaged footer may overlap.
                last.wanted.end = i + 1;
                start = last.range.end;
            }
        }
        while start < one.range.end {
            let end = one.range.end.min(start.saturating_add(max_bytes));
            pieces.push(Piece {
                range: start..end,
                wanted: i..i + 1,
                state: State::Planned,
            });
            start = end;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const MIB: u64 = 1 << 20;

    fn check(ranges: &[(usize, usize, Range<u64>)], expected: Expect) {
        let wanted: Vec<Wanted> = ranges
            .iter()
            .map(|(group, lane, range)| Wanted {
                lane: *lane,
                group: *group,
                range: range.clone(),
            })
            .collect();
        let pieces = pieces(&wanted, piece_bytes(&wanted));
        let shown: Vec<String> = pieces
            .iter()
            .map(|p| format!("{:?} of {:?}", p.range, p.wanted))
            .collect();
        expected.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn near_ranges_are_one_piece_and_large_ones_several() {
        check(
            &[(0, 0, 4..100), (0, 2, 200..300), (1, 0, 400..500)],
            expect!["4..500 of 0..3"],
        );
        check(
            &[(0, 0, 0..10), (0, 1, 3 * MIB..3 * MIB + 10)],
            expect![[r#"
                0..10 of 0..1
                3145728..3145738 of 1..2"#]],
        );
        check(
            &[(0, 0, 0..5 * MIB), (0, 1, 5 * MIB..9 * MIB)],
            expect![[r#"
                0..5242880 of 0..1
                5242880..9437184 of 1..2"#]],
        );
        check(
            &[(0, 0, 0..20 * MIB)],
            expect![[r#"
                0..8388608 of 0..1
                8388608..16777216 of 0..1
                16777216..20971520 of 0..1"#]],
        );
        check(
            &[(0, 0, 0..100), (0, 1, 50..80), (0, 2, 90..200)],
            expect!["0..200 of 0..3"],
        );
    }

    #[test]
    fn pieces_are_small_where_a_group_is_larger_than_what_may_be_held() {
        let wanted = |n: u64, bytes: u64| -> Vec<Wanted> {
            let one = |i: u64| Wanted {
                lane: i as usize,
                group: 0,
                range: i * bytes..(i + 1) * bytes,
            };
            (0..n).map(one).collect()
        };
        assert_eq!(piece_bytes(&wanted(4, 8 * MIB)), 8 * MIB);
        assert_eq!(piece_bytes(&wanted(16, 8 * MIB)), 2 * MIB);
        assert_eq!(piece_bytes(&wanted(1_000, 8 * MIB)), MIB);
        assert_eq!(piece_bytes(&[]), 8 * MIB);
    }
}
