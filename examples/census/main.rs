//! Who earns more than 50,000 dollars: logistic regression and wide-and-deep on the census of 1994.
//!
//! ```text
//! adult.data ─▶ fit ─▶ train ─▶ Predictor ─▶ evaluate on adult.test, predict over it into Parquet
//! ```

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
use mainstem::ml_stages::evaluate::Metrics;
use mainstem::prelude::*;

use report::Report;

/// Learns to predict who earns more than 50,000 dollars, and predicts it over the test file.
#[derive(Debug, Parser)]
struct Options {
    /// The folder that holds adult.data and adult.test.
    #[arg(long, value_name = "FOLDER", default_value = "../shared/data/census")]
    data: PathBuf,
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
    let out = common.out("census");
    inputs::check(&options.data)?;
    let backend = common.backend()?;
    let folder = out.join("predictor");

    let pipeline = Pipeline::new("learn");
    let train = inputs::train(&pipeline, &options.data);
    let eval = inputs::test(&pipeline, &options.data);
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
    let test = |pipeline: &Pipeline| Ok(inputs::test(pipeline, &options.data));
    let n_predicted = learn::predict(&predictor, test, &predictions, &run)?;
    let both =
        |p: &Pipeline| Ok(inputs::train(p, &options.data).union(&[inputs::test(p, &options.data)]));
    let skew = learn::skew(&predictor, both, common.reference.as_deref(), &run)?;
    let mut report = Report::new("census", n_predicted, &predictor, &skew);
    report.predictor = folder;
    report.predictions = predictions;
    let evaluation = learned.artifact(&evaluation)?;
    report.add("accuracy", &evaluation, |metrics| match metrics {
        Metrics::Classification { accuracy, .. } => Some(accuracy),
        Metrics::Regression { .. } => None,
    });
    report.add("auc", &evaluation, |metrics| match metrics {
        Metrics::Classification { auc, .. } => auc,
        Metrics::Regression { .. } => None,
    });
    Ok(report.used(started.elapsed(), learned.workers))
}
