//! Preprocessing for Mainstem: analyzers that learn from a full pass, mappers that use what was learned.

pub mod layout;
pub mod onnx_graph;

pub use layout::{FEATURES_COLUMN, FeatureColumn, FeatureKind, FeatureLayout, features_type};
