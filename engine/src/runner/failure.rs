//! The first failure of a run, and calls that cannot take a worker down with them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cancel::CancelToken;
use crate::error::{Error, Result};

/// The first failure of a run; everything that works looks here and goes quiet once it is set.
///
/// To be stopped from outside is a failure like any other.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    failed: AtomicBool,
    first: Mutex<Option<Error>>,
    stops: Vec<CancelToken>,
}

impl Failure {
    /// Fails by itself when one of the tokens is cancelled.
    pub(crate) fn stopped_by(stops: Vec<CancelToken>) -> Self {
        Self {
            stops,
            ..Self::default()
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        if self.failed.load(Ordering::Acquire) {
            return true;
        }
        match self.stops.iter().find_map(CancelToken::stopped) {
            Some(stopped) => {
                self.set(stopped);
                true
            }
            None => false,
        }
    }

    /// Keeps the error, unless one was kept before.
    pub(crate) fn set(&self, error: Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    /// The failure of the run, if there is one.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.has_failed() {
            return Ok(());
        }
        match &*self.first.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

/// Calls into code that is not the runner's: a panic becomes an error, and the error names the node.
pub(crate) fn guard<T>(node: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let _span = tracing::trace_span!("node", id = node).entered();
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.at_node(node)),
        Err(panic) => Err(Error::bug(format!("panicked: {}", panic_text(&*panic)))
            .at_node(node)
            .with_hint("Return an error instead, or reject the row.")),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_kept() {
        let failure = Failure::default();
        assert!(failure.check().is_ok() && !failure.has_failed());
        failure.set(Error::data("first"));
        failure.set(Error::data("second"));
        assert_eq!(failure.check().unwrap_err().message(), "first");
    }

    #[test]
    fn a_cancelled_token_is_a_failure_unless_one_came_before() {
        let (token, other) = (CancelToken::new(), CancelToken::new());
        let failure = Failure::stopped_by(vec![token.clone(), other.clone()]);
        assert!(failure.check().is_ok() && !failure.has_failed());
        other.cancel();
        assert!(failure.has_failed() && failure.check().unwrap_err().is_stopped());
        let failure = Failure::stopped_by(vec![token.clone()]);
        failure.set(Error::data("first"));
        token.cancel();
        assert_eq!(failure.check().unwrap_err().message(), "first");
    }

    #[test]
    fn a_panic_is_an_error_that_names_the_node() {
        let error = guard("features", || -> Result<()> { panic!("index {} of 3", 7) }).unwrap_err();
        assert!(error.is_bug());
        expect_test::expect![[r#"
            panicked: index 7 of 3
              in transform "features"
              Hint: Return an error instead, or reject the row."#]]
        .assert_eq(&error.to_string());
    }
}
