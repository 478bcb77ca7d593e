//! A hash table from fixed values to numbers, which looks up many at once.
//!
//! A large table is slow because each look-up waits for memory. Here the places of a whole chunk are read
//! first, one after the other and none waiting for another, so that the processor fetches many together.

/// Values looked up together.
const CHUNK: usize = 128;
pub(super) const EMPTY: u32 = u32::MAX;

/// A value that can be looked up.
pub(crate) trait Hashed: Copy + Eq + Default {
    /// A hash of which each bit depends on all bits, the same in all runs: the low bits deal keys to workers
    /// (`key_groups`), the high ones find them there.
    fn hash(self) -> u64;
}

#[inline]
fn fold(value: u64, odd: u64) -> u64 {
    let product = u128::from(value) * u128::from(odd);
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    let low = product as u64;
    low ^ (product >> 64) as u64
}

macro_rules! hashed {
    ($($of:ty),*) => {$(
        impl Hashed for $of {
            #[inline]
            fn hash(self) -> u64 {
                fold(u64::from(self) ^ 0x2545_F491_4F6C_DD1D, 0x9E37_79B9_7F4A_7C15)
            }
        }
    )*};
}
hashed!(u8, u16, u32, u64);

impl Hashed for u128 {
    #[inline]
    fn hash(self) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the halves")]
        let (low, high) = (self as u64, (self >> 64) as u64);
        fold(low ^ 0x2545_F491_4F6C_DD1D, 0x9E37_79B9_7F4A_7C15)
            .wrapping_add(fold(high ^ 0xD6E8_FEB8_6659_FD93, 0xA076_1D64_78BD_642F))
    }
}

/// Values with a number each, at most two thirds full.
#[derive(Debug)]
pub(super) struct Slots<K> {
    slots: Vec<(K, u32)>,
    /// How many values.
    len: usize,
    /// The hash's high bits are the place.
    shift: u32,
}

impl<K: Hashed> Slots<K> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            len: 0,
            shift: 64,
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<(K, u32)>()
    }

    /// The number of each value, in order, to `found`.
    ///
    /// `is_same(row, number)` tells whether the number's value is that of the row, where equal `K` do not;
    /// `add(row)` gives the number of a value that is not there, or [`EMPTY`] for none: it is not there then either.
    pub(super) fn find_all<S>(
        &mut self,
        values: &[K],
        state: &mut S,
        is_same: impl Fn(&S, usize, u32) -> bool,
        mut add: impl FnMut(&mut S, usize) -> u32,
        mut found: impl FnMut(usize),
    ) {
        let mut homes = [0usize; CHUNK];
        let mut seen = [(K::default(), EMPTY); CHUNK];
        for (n, chunk) in values.chunks(CHUNK).enumerate() {
            self.make_room(chunk.len());
            for (home, value) in homes.iter_mut().zip(chunk) {
                *home = self.home(*value);
            }
            for (seen, home) in seen.iter_mut().zip(&homes[..chunk.len()]) {
                *seen = self.slots[*home];
            }
            for (i, &value) in chunk.iter().enumerate() {
                let row = n * CHUNK + i;
                let (first, number) = seen[i];
                if number != EMPTY && first == value && is_same(state, row, number) {
                    found(number as usize);
                    continue;
                }
                let number = self.find_from(homes[i], value, row, state, &is_same, &mut add);
                found(number as usize);
            }
        }
    }

    /// The number of one value, as [`Slots::find_all`].
    #[inline]
    fn find_from<S>(
        &mut self,
        home: usize,
        value: K,
        row: usize,
        state: &mut S,
        is_same: &impl Fn(&S, usize, u32) -> bool,
        add: &mut impl FnMut(&mut S, usize) -> u32,
    ) -> u32 {
        let mask = self.slots.len() - 1;
        let mut at = home;
        loop {
            let (there, number) = self.slots[at];
            if number == EMPTY {
                let number = add(state, row);
                if number == EMPTY {
                    return EMPTY;
                }
                self.slots[at] = (value, number);
                self.len += 1;
                return number;
            }
            if there == value && is_same(state, row, number) {
                return number;
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn home(&self, value: K) -> usize {
        // Room is made before, so that there are at least two slots and the shift is less than 64.
        usize::try_from(value.hash() >> self.shift).unwrap_or(0)
    }

    /// Makes room for so many more values.
    pub(super) fn make_room(&mut self, n_more: usize) {
        if n_more == 0 {
            return;
        }
        let n = self.len + n_more;
        let wanted = (n + n / 2 + 1).next_power_of_two();
        if wanted <= self.slots.len() {
            return;
        }
        let n_slots = wanted.max(4 * CHUNK).max(2 * self.slots.len());
        self.shift = 64 - n_slots.trailing_zeros();
        let old = std::mem::replace(&mut self.slots, vec![(K::default(), EMPTY); n_slots]);
        let mask = n_slots - 1;
        for (value, number) in old {
            if number != EMPTY {
                let mut at = self.home(value);
                while self.slots[at].1 != EMPTY {
                    at = (at + 1) & mask;
                }
                self.slots[at] = (value, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_given_in_the_order_of_first_sight(
            values in prop::collection::vec(0u64..500, 0..3_000),
            cut in 0usize..3_000,
        ) {
            let mut slots = Slots::new();
            let mut distinct: Vec<u64> = Vec::new();
            let mut found = Vec::new();
            let (first, second) = values.split_at(cut.min(values.len()));
            for part in [first, second] {
                slots.find_all(
                    part,
                    &mut distinct,
                    |_, _, _| true,
                    |distinct, row| {
                        distinct.push(part[row]);
                        u32::try_from(distinct.len() - 1).unwrap()
                    },
                    |number| found.push(number),
                );
            }
            let mut expected: Vec<u64> = Vec::new();
            for value in &values {
                if !expected.contains(value) {
                    expected.push(*value);
                }
            }
            prop_assert_eq!(found.iter().map(|n| distinct[*n]).collect::<Vec<_>>(), values);
            prop_assert_eq!(distinct, expected);
        }
    }
}
