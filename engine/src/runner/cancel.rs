//! Stopping a run from outside: a token, and Ctrl-C.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::Error;

/// How a process says that a second Ctrl-C ended it, as shells do: 128 and the number of SIGINT.
const KILLED_BY_CTRL_C: i32 = 130;

/// Stops runs from outside, from any thread.
///
/// A run that was given the token with [`RunOptions::cancel`](crate::RunOptions::cancel) ends within a
/// fraction of a second once [`CancelToken::cancel`] is called: rows under way are dropped, nothing is
/// published, temporary files are removed, and `run()` returns an error for which
/// [`Error::is_stopped`](crate::Error::is_stopped) is true. What cannot be interrupted is one call of a
/// source, an operator or a sink; the run waits for those that are under way on its workers.
/// A run that is already publishing ends as if nothing had happened.
///
/// Clones are the same token. A token that was cancelled stays so: a run that starts with it ends at once.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<OnceLock<&'static str>>);

impl CancelToken {
    /// A token that stops nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops every run that has the token. Returns at once; calling it again changes nothing.
    pub fn cancel(&self) {
        self.cancel_by("The program asked for it.");
    }

    /// True once [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.get().is_some()
    }

    fn cancel_by(&self, whom: &'static str) {
        self.0.get_or_init(|| whom);
    }

    /// The error of a run that the token has stopped; `None` where it has not.
    pub(crate) fn stopped(&self) -> Option<Error> {
        self.0.get().map(|whom| Error::stopped(*whom))
    }
}

/// The tokens of the runs that Ctrl-C stops.
static RUNNING: Mutex<Vec<CancelToken>> = Mutex::new(Vec::new());

/// True if the handler could be installed, which happens once in a process.
static INSTALLED: OnceLock<bool> = OnceLock::new();

fn running() -> MutexGuard<'static, Vec<CancelToken>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ctrl-C cancels `token`, as long as the guard lives.
#[derive(Debug)]
pub(crate) struct CtrlC(CancelToken);

impl CtrlC {
    /// `None` where the program handles or ignores the signal itself: then that stays as it is.
    pub(crate) fn cancels(token: CancelToken) -> Option<Self> {
        let installed = *INSTALLED.get_or_init(|| {
            let outcome = ctrlc::try_set_handler(stop_or_exit);
            if let Err(error) = &outcome {
                tracing::warn!(%error, "Ctrl-C does not stop the run: the program handles it itself");
            }
            outcome.is_ok()
        });
        installed.then(|| {
            running().push(token.clone());
            Self(token)
        })
    }
}

impl Drop for CtrlC {
    fn drop(&mut self) {
        running().retain(|token| !Arc::ptr_eq(&token.0, &self.0.0));
    }
}

/// Stops what runs; ends the process where nothing does, or where all of it was told before.
fn stop_or_exit() {
    let tokens: Vec<CancelToken> = running()
        .iter()
        .filter(|token| !token.is_cancelled())
        .cloned()
        .collect();
    if tokens.is_empty() {
        std::process::exit(KILLED_BY_CTRL_C);
    }
    for token in tokens {
        token.cancel_by("By Ctrl-C, or by a signal to terminate.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn clones_are_the_same_token_and_the_first_reason_is_kept() {
        let token = CancelToken::new();
        assert!(!token.is_cancelled() && token.stopped().is_none());
        token.clone().cancel();
        token.cancel_by("Too late.");
        let error = token.stopped().unwrap();
        assert!(error.is_stopped() && error.is_environment());
        expect![[r#"
            the run was stopped from outside
              The program asked for it.
              Nothing was published."#]]
        .assert_eq(&error.to_string());
    }
}
