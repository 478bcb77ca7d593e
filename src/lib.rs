//! Streaming and batch dataflow with preprocessing, training and ONNX inference in one graph.
//!
//! ```text
//!  rows ─▶ Preprocess ─▶ features ─▶ Trainer ─▶ Predictor (a folder) ─▶ predict in a pipeline, or row by row
//!              └── learned once, the same operator everywhere ──┘
//! ```
//!
//! # How do I compose?
//!
//! A [`Pipeline`](engine::Pipeline) is a graph; a [`Collection`](engine::Collection) is a place in it.
//! Composing reads nothing and never fails; `run` checks the whole graph first and reports all errors
//! together.
//!
//! ```
//! use mainstem::engine::testing::{show, table};
//! use mainstem::prelude::*;
//!
//! let pipeline = Pipeline::new("adults");
//! let people = pipeline.read("people", connectors::from_record_batches(vec![table("age: 12, 40, 25")]));
//! let (sink, adults) = connectors::collect();
//! people.filter(col("age").gt_eq(lit(18))).write(sink);
//! pipeline.run(&RunOptions::new().workers(1))?;
//! assert_eq!(show(&adults.take()[0]), "age: 40, 25");
//! # Ok::<(), Error>(())
//! ```
//!
//! # How do I fit preprocessing?
//!
//! A feature is an expression followed by mappers. What they must learn is learned in passes over the
//! rows, all of one depth together; then `featurize` adds the feature matrix.
//!
//! ```
//! use mainstem::engine::testing::table;
//! use mainstem::prelude::*;
//!
//! let pipeline = Pipeline::new("fit");
//! let people = pipeline.read("people", connectors::from_record_batches(vec![table("age: 20.0, 40.0")]));
//! let fitted = people.fit(&Preprocess::new().feature("age", feature(col("age")).scale_to_z_score()));
//! let report = pipeline.run(&RunOptions::new().workers(1))?;
//! let features = report.artifact(&fitted)?.matrix(&table("age: 40.0"))?;
//! assert_eq!(format!("{:?}", features.value(0)), "PrimitiveArray<Float32>\n[\n  1.0,\n]");
//! # Ok::<(), Error>(())
//! ```
//!
//! # How do I train, evaluate and keep a model?
//!
//! `rows.train(trainer)` gives a model, `rows.assemble(&fitted, &model, backend)` a Predictor,
//! `predict_with` its scores inside the same graph, `evaluate` how good they are, and the step
//! [`SavePredictor`](ml_stages::SavePredictor) writes the folder. `examples/natality/` does all of it.
//!
//! # How do I predict?
//!
//! [`Predictor::load`](ml_stages::Predictor::load) reads the folder and replays its golden rows.
//! `collection.predict(&predictor)` scores rows in a pipeline, `predictor.predict_batch(&rows)` in your
//! own process: by the same operator.
//!
//! # How do I test a pipeline of my own?
//!
//! Rows are text in [`engine::testing`]: `table("age: 12, null")` makes them and `show` prints them.
//! [`connectors::from_record_batches`](engine::connectors::from_record_batches) and
//! [`connectors::collect`](engine::connectors::collect) stand in for files. A pipeline that reads from
//! rows in memory is the pipeline that reads from files, so a function from collection to collection is
//! all there is to test.

pub use mainstem_engine as engine;
pub use mainstem_ml_stages as ml_stages;
pub use mainstem_transforms as transforms;

/// What most pipelines name.
pub mod prelude {
    pub use mainstem_engine::connectors;
    pub use mainstem_engine::{Collection, Error, Expr, OnBadRow, Pipeline, Result, RunOptions};
    pub use mainstem_engine::{col, lit};
    pub use mainstem_ml_stages::evaluate::EvaluateCollection;
    pub use mainstem_ml_stages::{Backend, PredictCollection, Predictor};
    pub use mainstem_transforms::{Impute, Preprocess, PreprocessCollection};
    pub use mainstem_transforms::{VocabularyOptions, cross, feature};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
