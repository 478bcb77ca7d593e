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
mod model;
#[path = "../shared/options.rs"]
mod options;
#[path = "../shared/report.rs"]
mod report;
#[path = "../shared/usage.rs"]
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mainstem::prelude::*;

use inputs::Inputs;
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
    match run(&options) {
        Ok(report) => {
            println!("{report}");
            if options.common.json {
                println!("{}", report.to_json());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", error.report());
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Report> {
    let started = Instant::now();
    let run = options.common.run_options();
    let out = options.common.out("natality");
    let inputs = match &options.data {
        Some(folder) => Inputs::find(folder, &run)?,
        None => Inputs::generate(&out.join("births"), options.common.seed, options.rows, &run)?,
    };
    todo!()
}
