//! What a loop may do.

/// How many rounds a loop may take, where nothing else is said.
const MAX_ROUNDS: u64 = 100_000;

/// Options of [`Relation::iterate_with`](super::Relation::iterate_with).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iterate {
    max_rounds: u64,
}

impl Iterate {
    /// A loop of at most 100,000 rounds.
    pub fn new() -> Self {
        Self {
            max_rounds: MAX_ROUNDS,
        }
    }

    /// Sets in how many rounds the loop must have come to an end: no row may be another after that many than it was
    /// after one more. A loop that carries something from node to node takes as many as the longest of its shortest
    /// paths has edges, and a few more. What has not ended then ends the run with an error.
    #[must_use]
    pub fn max_rounds(mut self, n_rounds: u64) -> Self {
        self.max_rounds = n_rounds;
        self
    }

    pub(crate) fn n_rounds(self) -> u64 {
        self.max_rounds
    }
}

impl Default for Iterate {
    fn default() -> Self {
        Self::new()
    }
}
