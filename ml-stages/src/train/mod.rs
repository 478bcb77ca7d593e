//! Trainers: from rows with a feature matrix and a label to a [`TrainedModel`](crate::TrainedModel).
//!
//! ```text
//!  rows ──featurize──▶ "features" + label (+ weight) ──train──▶ TrainedModel: ONNX graph and layout
//! ```
//!
//! Every trainer is a plain, serialisable specification. The same rows, options and seed give the same
//! model, byte for byte, with any number of threads.
//!
//! ```
//! # use mainstem_engine::{ArtifactRef, Pipeline, RunOptions, col, connectors, testing::table};
//! # use mainstem_transforms::{Preprocess, PreprocessCollection, feature};
//! use mainstem_ml_stages::{TrainedModel, train::WideAndDeep};
//!
//! let pipeline = Pipeline::new("births");
//! let births = table("weeks: 39, 30, 41, 35; weight: 7.5, 3.0, 8.0, 6.0");
//! let rows = pipeline.read("births", connectors::from_record_batches(vec![births]));
//! let weeks = feature(col("weeks")).scale_to_z_score();
//! let fitted = rows.fit(&Preprocess::new().feature("weeks", weeks));
//! let trainer = WideAndDeep::regression(&fitted, "weight")
//!     .hidden_layers([8])
//!     .epochs(20);
//! let model: ArtifactRef<TrainedModel> = rows.featurize(&fitted).train(trainer);
//! let report = pipeline.run(&RunOptions::new().workers(2))?;
//! assert_eq!(report.artifact(&model)?.losses.len(), 20);
//! # Ok::<(), mainstem_engine::Error>(())
//! ```

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
