//! Streaming and batch dataflow with preprocessing, training and ONNX inference in one graph.

pub use mainstem_engine as engine;
pub use mainstem_ml_stages as ml_stages;
pub use mainstem_transforms as transforms;

/// What most pipelines name.
pub mod prelude {
    pub use mainstem_engine::connectors;
    pub use mainstem_engine::{Collection, Error, Expr, OnBadRow, Pipeline, Result, RunOptions};
    pub use mainstem_engine::{col, lit};
}
