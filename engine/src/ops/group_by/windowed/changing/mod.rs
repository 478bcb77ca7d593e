//! Aggregates of a changelog in windows: results that are corrected.
//!
//! ```text
//! changes ──▶ windowed/partial ──▶ by key ──▶ windowed/finish ──▶ the watermark passes the end: a row +1 a key
//!             slice, keys, arguments           │                   a late change: the old row -1, the new one +1
//!                                              │ groups of each window, until no change may come
//! ```
//!
//! A change counts in the windows of its row, and all changes of a window take effect together. So one that takes a row
//! back must have the time of that row, as what windows take back has. Where the event time says when a change takes
//! effect, as of upserts, the time of the row is computed from its columns, and changes wait until the watermark has
//! passed their effect (`by_effect`); planning refuses what has no such time.
//!
//! A row may be taken back before it is added: the window then counts it as there less often than not at all, also where
//! the change that adds it comes too late, and the run ends where it has not come by the end of input (`owed`).
//!
//! Windows that do not merge have a table of groups each, which forget rows as they come; those that merge are made of
//! the rows of each key, which are kept (`merging`).

mod by_effect;
mod merging;
mod open_window;
mod operator;
mod owed;
mod plan;
mod prepare;
mod row_time;
mod saved;
#[cfg(test)]
mod tests;

pub(super) use by_effect::ByEffect;
pub(super) use merging::MergingChanges;
pub(super) use operator::ChangingWindows;
pub(super) use plan::ChangingWindowsPlan;
pub(super) use prepare::PrepareWindows;
