//! Preprocessing for Mainstem: analyzers that learn from a full pass, mappers that use what was learned.
//!
//! ```text
//!  Expr ─feature()─▶ Feature: mapper ▶ mapper ▶ …   Preprocess: features by name
//!                       │ analyzers, by phase           │
//!                       ▼                               ▼ fit
//!            Moments, Quantiles, Vocabulary …  ──▶ FittedPreprocess ──▶ feature matrix (rows)
//!                                                                  └──▶ ONNX nodes, bit-equal
//! ```
//!
//! Missing values: null, NaN and the empty text all count as missing, as ONNX knows no nulls. Analyzers
//! leave them out, and they stay missing in mappers unless a mapper says otherwise.

pub mod analyzers;
mod by_value;
mod expression;
mod feature;
mod featurize;
mod fit;
mod fitted;
pub mod layout;
pub mod learned;
pub mod mapper;
pub mod mappers;
pub mod onnx_graph;
mod onnx_matrix;
mod preprocess;
mod program;
mod stored_schema;
pub mod testing;
mod text;
mod values;

pub use feature::{Feature, feature};
pub use featurize::{Featurize, PreprocessCollection};
pub use fitted::FittedPreprocess;
pub use layout::{FEATURES_COLUMN, FeatureColumn, FeatureKind, FeatureLayout, features_type};
pub use mapper::{Kernel, Mapper};
pub use mappers::{Impute, VocabularyOptions, cross, cross_hashed};
pub use preprocess::Preprocess;
pub use values::{Kind, MISSING, Shape, UNKNOWN, Values};
