//! Streaming and batch dataflow with preprocessing, training and ONNX inference in one graph.

pub use mainstem_engine as engine;
pub use mainstem_ml_stages as ml_stages;
pub use mainstem_transforms as transforms;
