//! Training, ONNX export, inference and evaluation stages for Mainstem.

pub mod evaluate;
pub mod model;
pub mod onnx;
#[cfg(test)]
mod testing;
pub mod train;

pub use model::{Task, TrainedModel};
