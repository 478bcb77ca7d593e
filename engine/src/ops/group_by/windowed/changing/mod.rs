//! Aggregates of a changelog in windows: results that are corrected.
//!
//! ```text
//! changes ──▶ windowed/partial ──▶ by key ──▶ windowed/finish ──▶ the watermark passes the end: a row +1 a key
//!             slice, keys, arguments           │                   a late change: the old row -1, the new one +1
//!                                              │ groups of each window, until no change may come
//! ```
//!
//! A change counts in the windows of its own event time, and all changes of a window take effect together. So one
//! that takes a row back must have the event time of that row: where it is in another window, the row was never
//! added to that, which ends the run when the window closes.
//!
//! Windows that do not merge have a table of groups each, which forget rows as they come; those that merge are made of
//! the rows of each key, which are kept (`merging`).

mod merging;
mod open_window;
mod operator;
mod plan;
mod prepare;
mod saved;
#[cfg(test)]
mod tests;

pub(super) use merging::MergingChanges;
pub(super) use operator::ChangingWindows;
pub(super) use plan::ChangingWindowsPlan;
pub(super) use prepare::PrepareWindows;
