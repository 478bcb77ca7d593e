//! Hash tables by numbers, with a hash that costs a multiplication.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Values by key.
pub(super) type ByKey<V> = HashMap<i64, V, BuildHasherDefault<Multiply>>;

/// Keys.
pub(super) type Keys = HashSet<i64, BuildHasherDefault<Multiply>>;

/// Multiplies by a number without a pattern, and swaps the halves, since tables look at the low bits first.
#[derive(Default)]
pub(super) struct Multiply(u64);

/// A number made of a key, without a pattern.
pub(super) fn mixed(key: i64) -> u64 {
    let mut hasher = Multiply::default();
    hasher.write_i64(key);
    hasher.finish()
}

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, key: u64) {
        let product = (self.0 ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product.rotate_left(32);
    }

    fn write_i64(&mut self, key: i64) {
        self.write_u64(key as u64);
    }
}
