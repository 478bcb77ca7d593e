//! Values that lie close together, as those of few groups mostly do, with a number each: no hash, one look.

use super::slots::EMPTY;

/// How far apart values may lie: the table then stays in the nearest cache.
const SPAN: usize = 4096;

/// Where many values are expected they may lie so many times as far apart as there are: the table is then no larger
/// than one of hashes, and cheaper still.
const SPAN_PER_VALUE: usize = 4;

/// But no farther than this: the table then stays in the second cache.
const MAX_SPAN: usize = 1 << 16;

/// An integer that knows how far behind another it lies, around the end of its range.
pub(super) trait Distance: Copy {
    fn behind(self, base: Self) -> usize;

    /// True if all values lie less than a span behind it.
    fn is_close_to(values: &[Self], base: Self, span: usize) -> bool;

    /// What lies half a span before it.
    fn base(self, span: usize) -> Self;
}

macro_rules! distance {
    ($($of:ty),*) => {$(
        impl Distance for $of {
            #[inline]
            fn behind(self, base: Self) -> usize {
                usize::try_from(self.wrapping_sub(base)).unwrap_or(usize::MAX)
            }

            fn is_close_to(values: &[Self], base: Self, span: usize) -> bool {
                match Self::try_from(span) {
                    // Without a way out of the loop it is done many at once.
                    Ok(span) => !values
                        .iter()
                        .fold(false, |far, value| far | (value.wrapping_sub(base) >= span)),
                    Err(_) => true,
                }
            }

            fn base(self, span: usize) -> Self {
                // Where the type has no more values than the span, all are close.
                self.wrapping_sub(Self::try_from(span / 2).unwrap_or(0))
            }
        }
    )*};
}
distance!(u8, u16, u32, u64);

/// A table of numbers by value, until a value comes that lies too far away.
#[derive(Debug, Default)]
pub(super) enum Near<K> {
    #[default]
    Unknown,
    Close {
        base: K,
        numbers: Vec<u32>,
    },
    Far,
}

impl<K: Distance> Near<K> {
    /// True if all these values have a place in the table; the first that come decide where it lies, and with how many
    /// are expected how far it reaches.
    pub(super) fn holds(&mut self, values: &[K], n_expected: usize) -> bool {
        let (base, span) = match (&*self, values.first()) {
            (Self::Far, _) => return false,
            (Self::Close { base, numbers }, _) => (*base, numbers.len()),
            (Self::Unknown, None) => return true,
            (Self::Unknown, Some(first)) => {
                let wanted = n_expected.saturating_mul(SPAN_PER_VALUE);
                let span = wanted.clamp(SPAN, MAX_SPAN).next_power_of_two();
                (first.base(span), span)
            }
        };
        let holds = K::is_close_to(values, base, span);
        if holds && matches!(self, Self::Unknown) {
            let numbers = vec![EMPTY; span];
            *self = Self::Close { base, numbers };
        }
        holds
    }

    /// The number of each value, to `groups`, once it is known that they are held; [`EMPTY`] of those that are not there.
    pub(super) fn find(&self, values: &[K], groups: &mut Vec<usize>) {
        if let Self::Close { base, numbers } = self {
            let number = |value: &K| numbers[value.behind(*base)] as usize;
            groups.extend(values.iter().map(number));
        }
    }

    /// The number of each value, to `groups`, once it is known that they are held; new ones are added to `distinct`.
    pub(super) fn number(&mut self, values: &[K], distinct: &mut Vec<K>, groups: &mut Vec<usize>) {
        let Self::Close { base, numbers } = self else {
            return;
        };
        groups.extend(values.iter().map(|value| {
            let number = &mut numbers[value.behind(*base)];
            if *number == EMPTY {
                *number = u32::try_from(distinct.len()).unwrap_or(EMPTY);
                distinct.push(*value);
            }
            *number as usize
        }));
    }

    /// From now on no value is held; gives the numbers that there were, once.
    pub(super) fn give_up(&mut self) -> Option<Vec<u32>> {
        match std::mem::replace(self, Self::Far) {
            Self::Close { numbers, .. } => Some(numbers),
            Self::Unknown | Self::Far => None,
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        match self {
            Self::Close { numbers, .. } => numbers.capacity() * size_of::<u32>(),
            Self::Unknown | Self::Far => 0,
        }
    }
}
