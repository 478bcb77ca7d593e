//! Trainers: from rows with a feature matrix and a label to a [`TrainedModel`](crate::TrainedModel).
//!
//! ```text
//!  rows ──featurize──▶ "features" + label (+ weight) ──train──▶ TrainedModel: ONNX graph and layout
//! ```
//!
//! Every trainer is a plain, serialisable specification. The same rows, options and seed give the same
//! model, byte for byte, with any number of threads.

mod columns;
mod constant;
mod design;
mod graph;
mod linear;
mod logistic;
#[cfg(test)]
mod testing;
mod wide_and_deep;

pub use columns::LayoutRef;
pub use constant::ConstantBaseline;
pub use linear::LinearRegression;
pub use logistic::LogisticRegression;
pub use wide_and_deep::WideAndDeep;
