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
//! # What can I read and write?
//!
//! Parquet, CSV, JSON lines, Avro, Arrow IPC and, by feature `tfrecord`, TFRecord files of tf.Example; a
//! place is a path or a URL such as `s3://bucket/births/*.csv`, a file, a folder or a pattern. Rows in
//! memory, async streams, and by feature `datafusion` any SQL query are sources too:
//! [`engine::connectors`] lists them all. Sinks of files divide their output by size, by rows or by the
//! values of columns, and it appears whole or not at all.
//!
//! # How do I group and join?
//!
//! Keys and aggregates are DataFusion's expressions; [`engine::aggregates`] has the aggregates,
//! [`functions`](engine::expression::functions) the scalar functions. Null is a key like any other in a
//! group and equals nothing in a join. The smaller side of a join becomes a table in memory, so the rows
//! of the other are looked up where they are.
//!
//! ```
//! use mainstem::engine::aggregates::avg;
//! use mainstem::engine::ops::JoinKind;
//! use mainstem::engine::testing::{show, table};
//! use mainstem::prelude::*;
//!
//! let pipeline = Pipeline::new("delays");
//! let rows = |text| connectors::from_record_batches(vec![table(text)]);
//! let flights = pipeline.read("flights", rows("from: OSL, BGO, OSL; delay: 10, 0, 30"));
//! let airports = pipeline.read("airports", rows("code: OSL, BGO; city: Oslo, Bergen"));
//! let (sink, delays) = connectors::collect();
//! flights
//!     .group_by([col("from")])
//!     .agg([avg(col("delay")).alias("mean_delay")])
//!     .join(&airports, JoinKind::Inner, [(col("from"), col("code"))])
//!     .top_k(1, [col("mean_delay").sort(false, false)])
//!     .select([col("city"), col("mean_delay")])
//!     .write(sink);
//! pipeline.run(&RunOptions::new())?;
//! assert_eq!(show(&delays.take()[0]), "city: 'Oslo'\nmean_delay: 20.0");
//! # Ok::<(), Error>(())
//! ```
//!
//! # How do I ask questions of time, over rows that never end?
//!
//! [`assign_timestamps`](engine::Collection::assign_timestamps) gives rows their event time,
//! [`window`](engine::Collection::window) divides them by it, and keyed aggregates and joins then work window
//! by window, as [`Windowing`](engine::windowing::Windowing) says when results leave and what late rows do.
//! [`with_side_input`](engine::Collection::with_side_input) looks each row up in a smaller collection, also
//! as of its event time. `docs/event-time.md` teaches the model in one page, with a drawing.
//!
//! # What happens to bad rows, to a failure, to Ctrl-C?
//!
//! A row that a source or a transform cannot take ends the run with its place, unless
//! [`on_bad_row`](engine::Collection::on_bad_row) drops it or
//! [`dead_letters_to`](engine::Collection::dead_letters_to) writes it down with its place and the reason.
//! A run that fails, or is stopped by a [`CancelToken`](engine::CancelToken) or by Ctrl-C, publishes
//! nothing. [`RunOptions::memory_bytes`](engine::RunOptions::memory_bytes) is the memory that rows in
//! flight and states may take together.
//!
//! # What did my run do?
//!
//! [`RunReport`](engine::RunReport) prints as a table;
//! [`RunOptions::report_html`](engine::RunOptions::report_html) writes one page that needs no network, with
//! the graph, the slowest node, and throughput over time. `plan()?.explain()` says what will run.
//!
//! The engine traces by the crate `tracing`: runs and phases at the level info, splits and what each node did
//! at debug, calls of nodes at trace. Your program chooses where that goes; `examples/shared/trace.rs` writes
//! to standard error what `RUST_LOG` asks for.
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
//! own process: by the same operator. [`Predictor::function`](ml_stages::Predictor::function) makes it a
//! scalar function for expressions and, in DataFusion, for SQL.
//!
//! # How do I follow collections that change?
//!
//! `rows.upserts(["id"])` makes a [changelog](engine::changelog) of rows that replace each other: what is taken
//! back has -1 in the column `diff`, what is added has 1. Filters, columns, `group_by` and joins carry it on, and
//! what they give is right at each instant. [`incremental`](engine::incremental) makes relations of changing
//! collections, with joins and loops. `changes()` turns a changelog into plain rows, which any sink takes.
//!
//! ```
//! use mainstem::engine::aggregates::sum;
//! use mainstem::engine::testing::{contents_at, table};
//! use mainstem::prelude::*;
//!
//! let pipeline = Pipeline::new("stock");
//! let counts = table("shelf: a, b, a; item: nut, nut, bolt; n: 5, 3, 4");
//! let counts = pipeline.read("counts", connectors::from_record_batches(vec![counts]));
//! let (sink, stock) = connectors::collect();
//! let of_shelves = counts.upserts(["shelf"]);
//! of_shelves.group_by([col("item")]).agg([sum(col("n")).alias("n")]).write(sink);
//! pipeline.run(&RunOptions::new().workers(1))?;
//! assert_eq!(contents_at(&stock.take(), None), "item='bolt' n=4\nitem='nut' n=3");
//! # Ok::<(), Error>(())
//! ```
//!
//! # How do I run a pipeline in my own async program?
//!
//! [`Pipeline::run_async`](engine::Pipeline::run_async) runs it on threads of its own as a future;
//! [`from_stream`](engine::connectors::from_stream) and [`into_stream`](engine::connectors::into_stream)
//! bring rows in and out of it, as fast as the slower side takes them.
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

#[cfg(doctest)]
#[doc = include_str!("../docs/event-time.md")]
struct EventTime;
