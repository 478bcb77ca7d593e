//! How much of the job's processor time passes within calls of ONNX Runtime.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstem::ml_stages::onnx::{InferenceBackend, InferenceSession, TensorOut, TensorView};
use mainstem::prelude::*;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::contest::Run;
use crate::dataset::Dataset;
use crate::with_mainstem;

/// A run of the whole job, and what of it the model took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Inside {
    /// The whole job.
    pub(crate) run: Run,
    /// Processor time of the threads that called the model, from before each call until after it.
    pub(crate) model_seconds: f64,
}

impl Inside {
    /// The share of the job's processor time that passed within the calls.
    pub(crate) fn share(&self) -> f64 {
        self.model_seconds / self.run.cpu_seconds
    }
}

/// The job of [`with_mainstem`], with a clock around each call of the model.
///
/// # Errors
/// If the job fails, or the system does not tell what a thread has taken.
pub(crate) fn run(data: &Dataset, workers: usize) -> Result<Inside, Box<dyn Error>> {
    let clocked = Arc::new(Clocked {
        inner: Backend::Auto.resolve()?,
        nanoseconds: Arc::default(),
    });
    let backend: Arc<dyn InferenceBackend> = Arc::<Clocked>::clone(&clocked);
    let predictor = Predictor::load_with(&data.predictor(), backend)?;
    // The golden rows, replayed while loading, are no part of the job.
    clocked.nanoseconds.store(0, Ordering::Relaxed);
    let run = Run::of(|| Ok(with_mainstem::run_with(&predictor, data, workers)?))?;
    Ok(Inside {
        run,
        model_seconds: clocked.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
    })
}

#[derive(Debug)]
struct Clocked {
    inner: Arc<dyn InferenceBackend>,
    nanoseconds: Arc<AtomicU64>,
}

impl InferenceBackend for Clocked {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn load(&self, model: &[u8]) -> Result<Box<dyn InferenceSession>> {
        Ok(Box::new(ClockedSession {
            inner: self.inner.load(model)?,
            nanoseconds: Arc::clone(&self.nanoseconds),
        }))
    }
}

struct ClockedSession {
    inner: Box<dyn InferenceSession>,
    nanoseconds: Arc<AtomicU64>,
}

impl InferenceSession for ClockedSession {
    fn run(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Vec<(String, TensorOut)>> {
        let before = thread_nanoseconds()?;
        let outputs = self.inner.run(inputs);
        let taken = thread_nanoseconds()? - before;
        self.nanoseconds.fetch_add(taken, Ordering::Relaxed);
        outputs
    }
}

/// Processor time that this thread has taken so far.
fn thread_nanoseconds() -> Result<u64> {
    let taken = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_err(std::io::Error::from)?;
    Ok(Duration::from(taken).as_nanos() as u64)
}
