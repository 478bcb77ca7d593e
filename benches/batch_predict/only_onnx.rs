//! What ONNX Runtime alone takes for as many rows: the same minibatches, features ready in memory.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use mainstem::engine::BATCH_ROWS;
use mainstem::ml_stages::model::FEATURES;
use mainstem::ml_stages::onnx::{TensorValuesRef, TensorView};
use mainstem::prelude::*;

use crate::contest::Run;
use crate::dataset::{Dataset, first_rows};

/// Rows whose features are made before the clock starts; they are scored again and again.
const ROWS_AT_HAND: usize = 12 * BATCH_ROWS;

/// Scores `data.n_rows` rows on `n_threads` threads with a session each.
///
/// # Errors
/// If the model cannot be run.
pub(crate) fn run(data: &Dataset, n_threads: usize) -> Result<Run, Box<dyn Error>> {
    let predictor = Predictor::load(&data.predictor(), Backend::Auto)?;
    let matrix = predictor.fitted().matrix(&first_rows(ROWS_AT_HAND)?)?;
    let values = matrix.values().as_primitive::<Float32Type>().values();
    let width = predictor.fitted().layout().width();
    let backend = Backend::Auto.resolve()?;
    let n_minibatches = data.n_rows().div_ceil(BATCH_ROWS);
    let next = AtomicUsize::new(0);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build()?;
    let score = || -> Result<usize> {
        let mut session = backend.load(predictor.model_onnx())?;
        let mut n_rows = 0;
        loop {
            let minibatch = next.fetch_add(1, Ordering::Relaxed);
            if minibatch >= n_minibatches {
                return Ok(n_rows);
            }
            let from = minibatch % (ROWS_AT_HAND / BATCH_ROWS) * BATCH_ROWS;
            let rows = BATCH_ROWS.min(data.n_rows() - minibatch * BATCH_ROWS);
            let part = &values[from * width..(from + rows) * width];
            let view = TensorView::new(TensorValuesRef::Float(part), width)?;
            session.run(&[(FEATURES, view)])?;
            n_rows += rows;
        }
    };
    Run::of(|| {
        let n_rows: Vec<Result<usize>> = pool.broadcast(|_| score());
        let n_rows: usize = n_rows.into_iter().sum::<Result<usize>>()?;
        Ok(n_rows as u64)
    })
}
