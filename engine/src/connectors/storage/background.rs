//! The one runtime on which requests run, and how a thread waits for them.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::error::{Error, Result};

/// More threads would not make a network faster.
const MAX_THREADS: usize = 4;

/// Made by the first request of the process. It is never taken down, as it may be needed again.
static RUNTIME: OnceLock<Result<Runtime>> = OnceLock::new();

/// A request under way; dropping it gives it up.
pub(crate) struct Pending<T> {
    result: Receiver<T>,
    abort: AbortHandle,
}

/// Starts a request.
pub(super) fn start<T: Send + 'static>(
    request: impl Future<Output = T> + Send + 'static,
) -> Result<Pending<T>> {
    let runtime = RUNTIME.get_or_init(make).as_ref().map_err(Error::clone)?;
    let (sender, result) = sync_channel(1);
    let task = runtime.spawn(async move {
        // Nobody waits any more if this fails.
        let _ = sender.send(request.await);
    });
    Ok(Pending {
        result,
        abort: task.abort_handle(),
    })
}

/// Makes a request and waits for its result.
///
/// The thread blocks. It may be a thread of another runtime: this one is not entered.
pub(super) fn wait<T: Send + 'static>(
    request: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    start(request)?.wait()
}

impl<T> Pending<T> {
    pub(super) fn wait(self) -> Result<T> {
        let result = self.result.recv();
        result.map_err(|_| Error::bug("a request to a storage ended without a result"))
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

fn make() -> Result<Runtime> {
    let n_threads = available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads(n_threads.min(MAX_THREADS))
        .thread_name("mainstem-storage")
        .enable_all()
        .build()
        .map_err(|error| {
            Error::environment("the threads that speak with storages cannot be started")
                .with_detail(format!("{error}."))
                .with_source(error)
        })
}
