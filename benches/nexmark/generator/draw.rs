//! Random values of one block of events.

use std::ops::Range;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 1;

/// Draws values; all from the number of the block.
pub(super) struct Draw {
    rng: ChaCha8Rng,
    text: String,
    bytes: Vec<u8>,
}

impl Draw {
    pub(super) fn new(block: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(block);
        Self {
            rng,
            text: String::new(),
            bytes: Vec::new(),
        }
    }

    pub(super) fn within(&mut self, range: Range<u64>) -> u64 {
        self.rng.random_range(range)
    }

    /// True but for one time in `ratio`.
    pub(super) fn is_hot(&mut self, ratio: u64) -> bool {
        self.within(0..ratio) > 0
    }

    pub(super) fn of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.rng.random_range(0..texts.len())]
    }

    /// From 1 to 1,000,000 currency units in cents, uniform in its logarithm.
    pub(super) fn price(&mut self) -> u64 {
        let exponent = self.rng.random::<f64>() * 6.0;
        (10_f64.powf(exponent) * 100.0).round() as u64
    }

    /// So many lower-case letters.
    pub(super) fn letters(&mut self, n: usize) -> &str {
        self.bytes.resize(n, 0);
        self.rng.fill_bytes(&mut self.bytes);
        self.text.clear();
        let letter = |byte: &u8| char::from(b'a' + (u16::from(*byte) * 26 / 256) as u8);
        self.text.extend(self.bytes.iter().map(letter));
        &self.text
    }

    /// Letters that bring a record of `n_bytes` to about `wanted`: a fifth of what is missing more or less.
    pub(super) fn fill(&mut self, n_bytes: usize, wanted: usize) -> &str {
        let missing = wanted.saturating_sub(n_bytes);
        let spread = (missing as f64 * 0.2).round() as u64;
        let more = self.within(0..(2 * spread).max(1));
        self.letters(missing - spread as usize + more as usize)
    }
}
