//! Training, ONNX export, inference and evaluation stages for Mainstem.

pub mod model;
pub mod train;

pub use model::{Task, TrainedModel};
