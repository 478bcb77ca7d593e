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

impl PartialEq for RowBytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
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
        self.bytes().cmp(other.bytes())
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
            prop_assert_eq!(x.bytes(), &a);
            let (first, second) = a.split_at(cut.min(a.len()));
            prop_assert_eq!(RowBytes::of_parts([first, second].into_iter()), x);
        }
    }
}
