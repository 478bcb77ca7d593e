//! Aggregates of a changelog in windows that merge, such as sessions.
//!
//! ```text
//! changes ──▶ rows of each key, by the window that each opens ──▶ which windows they make now
//!             until no change may come                            │ one that is no more: what has left of it -1
//!                                                                 │ one that is new, or another by a change: +1
//!                                                                 ▼ once the watermark has passed its end
//! ```
//!
//! A row that is taken back may part a window in two, so the rows themselves are kept, each with how often it is there,
//! and what a window gives is computed from them anew whenever it leaves. A window closes, and its rows are forgotten,
//! when the watermark passes its end by the lateness: only then, so that the result does not depend on how changes
//! between two watermarks come together.
//!
//! A change costs as much as the windows that rows of its key have opened, and a result as much as its rows.

mod operator;
mod result;
mod rows_of_key;
mod saved;

pub(in crate::ops::group_by::windowed) use operator::MergingChanges;
