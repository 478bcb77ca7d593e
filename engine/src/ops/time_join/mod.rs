//! Brings the rows of two collections together by key and event time, as the watermark moves.
//!
//! ```text
//!            keys as columns            dealt by key
//! left  ──▶ join/left_key_0  ──▶ ┐
//!                                ├─▶ join: rows wait, pairs leave, what no row can need any more is let go
//! right ──▶ join/right_key_0 ──▶ ┘
//! ```
//!
//! A row on which a key fails is a bad row of the node that computes the key, for which `on_bad_row` and
//! `dead_letters` of the result speak.
//!
//! - `as_of`: to each row the newest of the other side; `look_up`: the same for a table that changes, of which
//!   `held_rows` keeps what it holds where it is a changelog.
//! - `interval`: pairs whose times are near each other.
//! - `windowed`: pairs in the same window; `panes` keeps the rows of windows that are the same for all keys, and
//!   `merging_windows` those of windows that merge.
//!
//! What leaves at once is limited by rows and, where these are wide, by bytes: `lots`.
//!
//! The operators are the same in bounded runs: there the watermark comes once, at the end.

mod as_of;
mod as_of_operator;
mod gather;
mod held_rows;
mod interval;
mod interval_operator;
mod kept_rows;
mod key_numbers;
mod late;
mod latest;
mod layout;
mod look_up;
mod lots;
mod merging_windows;
mod near_rows;
mod open_windows;
mod panes;
#[cfg(test)]
mod pipeline_tests;
mod state;
#[cfg(test)]
mod testing;
mod waiting;
mod windowed;
mod windowed_operator;

pub use as_of::AsOf;
pub use interval::IntervalJoin;
pub use look_up::LookUp;
pub use windowed::WindowedJoin;
