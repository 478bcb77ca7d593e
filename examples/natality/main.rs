//! From a folder of births to predicted weights, in one graph, with one command.
//!
//! ```text
//! generator or files ─▶ clean ─▶ split ─▶ copies of unknown sex ─▶ fit ─▶ train ─▶ evaluate ─▶ Predictor
//!                                                         Predictor + files ─▶ predict ─▶ Parquet
//! ```

mod births;
mod generator;
#[cfg(test)]
mod generator_tests;
mod inputs;
#[path = "../shared/learn.rs"]
mod learn;
mod model;
#[path = "../shared/options.rs"]
mod options;
#[path = "../shared/report.rs"]
mod report;
#[path = "../shared/trace.rs"]
mod trace;
#[path = "../shared/usage.rs"]
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mainstem::prelude::*;

use inputs::Inputs;
use mainstem::ml_stages::evaluate::Metrics;
use report::Report;

/// Learns to predict the weight of babies and predicts it over all files.
#[derive(Debug, Parser)]
struct Options {
    /// A folder of real births: babyweight_train.csv and babyweight_eval.csv, or Parquet files with the
    /// columns of BigQuery's natality table. Without it births are generated.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// How many births are generated.
    #[arg(long, default_value_t = 200_000)]
    rows: usize,
    #[command(flatten)]
    common: options::Common,
}

fn main() -> ExitCode {
    let options = Options::parse();
    trace::as_rust_log_asks();
    report::print(run(&options), options.common.json)
}

fn run(options: &Options) -> Result<Report> {
    let started = Instant::now();
    let common = &options.common;
    let run = common.run_options();
    let out = common.out("natality");
    let inputs = match &options.data {
        Some(folder) => Inputs::find(folder, &run)?,
        None => Inputs::generate(&out.join("births"), common.seed, options.rows, &run)?,
    };
    let backend = common.backend()?;
    let folder = out.join("predictor");

    let pipeline = Pipeline::new("learn");
    let [train, eval] = inputs.train_and_eval(&pipeline)?;
    let fitted = train.named("features").fit(&model::preprocess());
    let models = model::train(&train.featurize(&fitted), &fitted, common.seed);
    let evaluation = learn::evaluate_and_keep(
        &train,
        &eval,
        &fitted,
        &models,
        (backend, &folder),
        model::evaluate(),
    );
    let learned = learn::run(&pipeline, &run, common)?;

    let predictor = Predictor::load(&folder, backend)?;
    let predictions = out.join("predictions");
    let n_rows = learn::predict(&predictor, |p| inputs.all(p), &predictions, &run)?;
    let skew = learn::skew(
        &predictor,
        |p| inputs.all(p),
        common.reference.as_deref(),
        &run,
    )?;
    let mut report = Report::new("natality", n_rows, &predictor, &skew);
    report.predictor = folder;
    report.predictions = predictions;
    report.add(
        "rmse",
        &*learned.artifact(&evaluation)?,
        |metrics| match metrics {
            Metrics::Regression { rmse, .. } => Some(rmse),
            Metrics::Classification { .. } => None,
        },
    );
    Ok(report.used(started.elapsed(), learned.workers))
}
