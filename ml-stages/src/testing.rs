//! For the tests of this crate.

use crate::onnx::OnnxRuntime;

/// ONNX Runtime, fetched if it is not there; `None`, with a line that says so, where it cannot be had.
pub(crate) fn onnx_runtime() -> Option<OnnxRuntime> {
    match OnnxRuntime::install() {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            eprintln!("skipped: {}", error.message());
            None
        }
    }
}
