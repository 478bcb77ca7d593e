//! What can be learned of a column in one pass: one file each.
//!
//! All results are exact functions of the rows as a multiset, so they depend neither on how the rows
//! are cut into batches and splits, nor on their order, nor on the number of workers.

mod exact_sum;
mod min_max;
mod moments;
mod quantiles;
mod vocabulary;

pub use min_max::{MinMax, Range};
pub use moments::{Moments, MomentsLearned, MomentsSeen};
pub use quantiles::{Boundaries, Quantiles, ValuesSeen};
pub use vocabulary::{Vocabulary, Words, WordsSeen};

use mainstem_engine::Error;

/// The bytes of a hash table with room for so many entries: at most seven of eight places are taken, and each
/// has a byte of its own besides.
fn table_bytes<T>(capacity: usize) -> u64 {
    (capacity.div_ceil(7) * 8 * (size_of::<T>() + 1)) as u64
}

pub(crate) fn no_values() -> Error {
    Error::data("there is no value to learn from: all rows are null")
        .with_hint("Leave the feature out, or `impute` a constant first.")
}

pub(crate) fn foreign_rows(analyzer: &str) -> Error {
    Error::bug(format!("`{analyzer}` was given a column of another type"))
}

pub(crate) fn foreign_save(analyzer: &str) -> Error {
    Error::data(format!(
        "the saved state is not of `{analyzer}` in this version"
    ))
}

#[cfg(test)]
mod tests;
