//! The options that all examples take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mainstem::ml_stages::onnx::OnnxRuntime;
use mainstem::prelude::*;

/// What scores the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// ONNX Runtime where it is found or can be installed with pip, else the embedded one.
    Auto,
    /// ONNX Runtime; an error where there is none.
    Onnxruntime,
    /// The embedded back-end, tract.
    Embedded,
}

/// Options that all examples take.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// How many workers; by default one per core.
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// What scores the rows.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) backend: BackendName,
    /// Where the Predictor and the predictions go; by default a folder under target/.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Seed of all that is random: rows that are drawn, weights, the order of rows in training.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Prints the plan of the learning graph before it runs, and what each node did after.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Writes what the learning graph did as an HTML page to this file, also when it failed.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Also writes all rows with their features and predictions to this Arrow IPC file, as
    /// tests/onnx_reference.py takes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) reference: Option<PathBuf>,
    /// Prints the figures as one JSON object on the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Common {
    pub(crate) fn run_options(&self) -> RunOptions {
        let options = RunOptions::new().stop_on_ctrl_c(true);
        match self.workers {
            Some(workers) => options.workers(workers),
            None => options,
        }
    }

    pub(crate) fn out(&self, example: &str) -> PathBuf {
        self.out
            .clone()
            .unwrap_or_else(|| PathBuf::from("target").join(example))
    }

    /// The back-end, after an attempt to install ONNX Runtime where it is wanted and not there.
    pub(crate) fn backend(&self) -> Result<Backend> {
        match self.backend {
            BackendName::Embedded => Ok(Backend::Embedded),
            BackendName::Onnxruntime => {
                OnnxRuntime::install()?;
                Ok(Backend::OnnxRuntime)
            }
            BackendName::Auto => match OnnxRuntime::install() {
                Ok(_) => Ok(Backend::OnnxRuntime),
                Err(error) => {
                    eprintln!("ONNX Runtime is not here, the embedded back-end scores: {error}");
                    Ok(Backend::Embedded)
                }
            },
        }
    }
}
