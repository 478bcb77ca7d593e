//! Calls of libraries that may panic on a damaged file.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::error::ArrowError;

/// A panic of a library over the bytes of a file is an error of the data.
pub(crate) fn unharmed<T>(decode: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ArrowError::ParseError(
            "Its parts do not fit together".to_owned(),
        ))
    })
}
