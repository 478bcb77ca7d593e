//! A row as bytes, which short rows hold without a pointer.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// How many bytes are held in place.
const IN_PLACE: usize = 30;

/// The bytes of a row, compared as bytes.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum RowBytes {
    /// How many of the bytes are the row's.
    Short(u8, [u8; IN_PLACE]),
    Long(Box<[u8]>),
}

impl RowBytes {
    pub(super) fn new(bytes: &[u8]) -> Self {
        match u8::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= IN_PLACE => {
                let mut short = [0; IN_PLACE];
                short[..bytes.len()].copy_from_slice(bytes);
                Self::Short(len, short)
            }
            _ => Self::Long(bytes.into()),
        }
    }

    /// The bytes of these parts, one after the other.
    pub(super) fn of_parts<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let len: usize = parts.clone().map(<[u8]>::len).sum();
        if len > IN_PLACE {
            return Self::Long(parts.flatten().copied().collect());
        }
        let (mut short, mut at) = ([0; IN_PLACE], 0);
        for part in parts {
            short[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self::Short(u8::try_from(at).unwrap_or(0), short)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }

    /// How much memory it takes.
    pub(super) fn n_bytes(&self) -> usize {
        let outside = match self {
            Self::Short(..) => 0,
            Self::Long(bytes) => bytes.len(),
        };
        size_of::<Self>() + outside
    }
}

/// Eight of the bytes that are held in place, as a number in the same order.
fn number<const AT: usize>(bytes: &[u8; IN_PLACE]) -> u64 {
    u64::from_be_bytes([
        bytes[AT],
        bytes[AT + 1],
        bytes[AT + 2],
        bytes[AT + 3],
        bytes[AT + 4],
        bytes[AT + 5],
        bytes[AT + 6],
        bytes[AT + 7],
    ])
}

/// Compares the bytes that are held in place; the last two numbers overlap.
fn in_order(bytes: &[u8; IN_PLACE], others: &[u8; IN_PLACE]) -> Ordering {
    const LAST: usize = IN_PLACE - 8;
    let first = number::<0>(bytes).cmp(&number::<0>(others));
    let second = first.then_with(|| number::<8>(bytes).cmp(&number::<8>(others)));
    let third = second.then_with(|| number::<16>(bytes).cmp(&number::<16>(others)));
    third.then_with(|| number::<LAST>(bytes).cmp(&number::<LAST>(others)))
}

// Behind the bytes of a short row stand zeros, and what is alike up to there is told apart by its length. So short rows,
// which are compared more often than anything else is done with them, are compared without a call and without a loop.
impl PartialEq for RowBytes {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Short(n, bytes), Self::Short(m, others)) => n == m && bytes == others,
            _ => self.bytes() == other.bytes(),
        }
    }
}

impl Eq for RowBytes {}

impl PartialOrd for RowBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Short(n, bytes), Self::Short(m, others)) => {
                in_order(bytes, others).then_with(|| n.cmp(m))
            }
            _ => self.bytes().cmp(other.bytes()),
        }
    }
}

impl Hash for RowBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.bytes());
    }
}

impl fmt::Debug for RowBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_row_is_no_larger_than_half_a_cache_line() {
        assert_eq!(size_of::<RowBytes>(), 32);
    }

    proptest! {
        #[test]
        fn rows_are_compared_as_their_bytes(
            a in prop::collection::vec(0u8..3, 0..40),
            b in prop::collection::vec(0u8..3, 0..40),
            cut in 0usize..40,
        ) {
            let (x, y) = (RowBytes::new(&a), RowBytes::new(&b));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x == y, a == b);
            let longer = [&a[..], &b[..]].concat();
            prop_assert_eq!(x.cmp(&RowBytes::new(&longer)), a.cmp(&longer));
            prop_assert_eq!(x.bytes(), &a);
            let (first, second) = a.split_at(cut.min(a.len()));
            prop_assert_eq!(RowBytes::of_parts([first, second].into_iter()), x);
        }
    }
}
