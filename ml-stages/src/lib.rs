//! Training, ONNX export, inference and evaluation stages for Mainstem.

pub mod evaluate;
pub mod model;
pub mod onnx;
pub mod predict;
mod predict_function;
pub mod predictor;
pub mod skew;
#[cfg(test)]
mod testing;
pub mod train;

pub use model::{Task, TrainedModel};
pub use onnx::{Backend, OnnxRuntime};
pub use predict::{Predict, PredictCollection};
pub use predict_function::PredictFunction;
pub use predictor::{GoldenRows, Manifest, Predictor, SavePredictor};
pub use skew::{SkewReport, skew_check};
