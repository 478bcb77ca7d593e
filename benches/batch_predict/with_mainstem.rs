//! The job as a user of Mainstem writes it.

use mainstem::prelude::*;

use crate::dataset::Dataset;

/// Predicts over all births; gives the number of rows.
pub(crate) fn run(data: &Dataset, workers: usize) -> Result<u64> {
    let predictor = Predictor::load(&data.predictor(), Backend::Auto)?;
    run_with(&predictor, data, workers)
}

/// [`run`] with a Predictor that is loaded already.
pub(crate) fn run_with(predictor: &Predictor, data: &Dataset, workers: usize) -> Result<u64> {
    let pipeline = Pipeline::new("predict");
    pipeline
        .read("births", connectors::parquet(data.births()))
        .predict(predictor)
        .write(connectors::parquet_sink(data.out("mainstem")).overwrite(true));
    let report = pipeline.run(&RunOptions::new().workers(workers))?;
    Ok(report
        .published
        .iter()
        .map(|(_, published)| published.n_rows)
        .sum())
}
