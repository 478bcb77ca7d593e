//! ONNX: how graphs are written, and what runs them.
//!
//! ```text
//!  OnnxGraph (preprocessing) ─┐
//!                             ├─ fuse ─▶ OnnxGraph ─ encode ─▶ bytes ─ InferenceBackend ─▶ InferenceSession
//!  OnnxGraph (model) ─────────┘                                          │ OnnxRuntime: a library, found or installed
//!                                                                        └ Embedded: tract, always there
//! ```

mod backend;
mod embedded;
mod encode;
mod fuse;
mod install;
mod library;
mod ort_backend;
mod proto;
#[cfg(test)]
pub(crate) mod tests;

pub use backend::{
    Backend, InferenceBackend, InferenceSession, TensorOut, TensorValuesRef, TensorView,
};
pub use embedded::Embedded;
pub use encode::encode;
pub(crate) use fuse::FUSED_PREFIX;
pub use fuse::fuse;
pub use ort_backend::OnnxRuntime;
