//! Evaluation: how far predictions are from labels, over all rows and by slice.
//!
//! ```text
//!  rows with label and predictions ──Evaluate──▶ Evaluation: slices × predictions × metrics
//! ```

mod accumulator;
mod analysis;
mod evaluation;
mod usable_rows;

pub use analysis::{Evaluate, EvaluateCollection};
pub use evaluation::{Evaluation, Metrics, Scored, Slice};
