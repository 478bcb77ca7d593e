//! How event time divides an unbounded collection.

use serde::{Deserialize, Serialize};

/// The windowing of the rows on an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Windowing {
    /// One window for all of time, fired once at the end of input.
    #[default]
    Global,
}
