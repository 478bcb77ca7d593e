//! A run as a future, so that a program can embed a pipeline in its own async runtime.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::pipeline::Pipeline;
use crate::report::RunReport;
use crate::runner::{CancelToken, RunOptions};

/// A run under way on threads of its own: see [`Pipeline::run_async`].
///
/// Dropping it before it is ready cancels the run: nothing is published, and what was written is
/// removed, a moment later and in the background.
#[must_use = "dropping it cancels the run"]
pub struct Running {
    outcome: oneshot::Receiver<Result<RunReport>>,
    cancel: CancelToken,
}

impl Running {
    pub(crate) fn start(pipeline: Pipeline, options: &RunOptions) -> Self {
        let (sender, outcome) = oneshot::channel();
        let cancel = CancelToken::new();
        let options = options.clone().cancel(cancel.clone());
        let started = std::thread::Builder::new()
            .name("mainstem-run".to_owned())
            .spawn(move || {
                // Whoever has dropped the future wants no answer.
                let _ = sender.send(pipeline.run(&options));
            });
        if let Err(error) = started {
            // The sender went with the closure, so the future is ready, with an error.
            tracing::warn!(%error, "a thread cannot be started");
        }
        Self { outcome, cancel }
    }
}

impl Future for Running {
    type Output = Result<RunReport>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            outcome.unwrap_or_else(|_| {
                Err(Error::environment(
                    "the thread of the run cannot be started, or it died",
                ))
            })
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}
