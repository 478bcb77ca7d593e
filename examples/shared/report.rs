//! What an example prints at its end: a table for people, or one JSON object on the last line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use mainstem::ml_stages::SkewReport;
use mainstem::ml_stages::evaluate::{Evaluation, Metrics};
use mainstem::prelude::*;
use serde::Serialize;

use crate::usage;

/// Prints the report, or the error, and gives the process's exit code.
pub(crate) fn print(outcome: Result<Report>, json: bool) -> ExitCode {
    let printed = outcome.and_then(|report| {
        println!("{report}");
        if json {
            println!("{}", report.to_json()?);
        }
        Ok(())
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.report());
            ExitCode::FAILURE
        }
    }
}

/// A metric by model and by slice.
type BySlice = BTreeMap<String, BTreeMap<String, f64>>;

/// The figures of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) example: &'static str,
    /// Rows read, before copies.
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) backend: String,
    pub(crate) workers: usize,
    /// By name, such as `rmse`: by model, by slice.
    #[serde(flatten)]
    pub(crate) metrics: BTreeMap<&'static str, BySlice>,
    #[serde(skip)]
    pub(crate) slice_rows: Vec<(String, u64)>,
    pub(crate) rows_compared: u64,
    pub(crate) features_differing: u64,
    pub(crate) scores_max_relative_difference: f64,
    /// The ways that were compared with the batch path.
    pub(crate) paths_compared: Vec<String>,
    pub(crate) predictor: PathBuf,
    pub(crate) predictions: PathBuf,
}

impl Report {
    pub(crate) fn new(
        example: &'static str,
        rows: u64,
        predictor: &Predictor,
        skew: &SkewReport,
    ) -> Self {
        Self {
            example,
            rows,
            backend: predictor.backend_name(),
            rows_compared: skew.rows,
            paths_compared: skew.paths.clone(),
            features_differing: skew.features_differing,
            scores_max_relative_difference: skew.scores_max_relative_difference,
            ..Self::default()
        }
    }

    /// Takes a metric of all models over all slices; one that a slice does not have is left out.
    pub(crate) fn add(
        &mut self,
        metric: &'static str,
        evaluation: &Evaluation,
        of: impl Fn(Metrics) -> Option<f64>,
    ) {
        let models = self.metrics.entry(metric).or_default();
        for slice in &evaluation.slices {
            for scored in &slice.predictions {
                let slices = models.entry(scored.prediction.clone()).or_default();
                if let Some(value) = of(scored.metrics) {
                    slices.insert(slice.name.clone(), value);
                }
            }
        }
        let rows = evaluation.slices.iter().map(|s| (s.name.clone(), s.n_rows));
        self.slice_rows = rows.collect();
    }

    /// Takes what the process has used.
    pub(crate) fn used(mut self, wall: Duration, workers: usize) -> Self {
        self.seconds = wall.as_secs_f64();
        self.cpu_seconds = usage::cpu_seconds();
        self.peak_rss_bytes = usage::peak_rss_bytes();
        self.workers = workers;
        self
    }

    /// The figures as one line of JSON.
    pub(crate) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    fn table(&self, metric: &str, models: &BySlice) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let header = [metric.to_owned(), "rows".to_owned()];
        table.set_header(header.into_iter().chain(models.keys().cloned()));
        for (slice, n_rows) in &self.slice_rows {
            let values = models.values().map(|slices| {
                slices
                    .get(slice)
                    .map_or_else(|| "-".into(), |v| format!("{v:.4}"))
            });
            table.add_row(
                [slice.clone(), n_rows.to_string()]
                    .into_iter()
                    .chain(values),
            );
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (metric, models) in &self.metrics {
            writeln!(f, "{}", self.table(metric, models))?;
        }
        writeln!(
            f,
            "{} rows in {:.1} s ({:.1} s of processor time, at most {:.0} MB) with {} workers",
            self.rows,
            self.seconds,
            self.cpu_seconds,
            self.peak_rss_bytes as f64 / 1e6,
            self.workers,
        )?;
        writeln!(f, "scored by    {}", self.backend)?;
        writeln!(f, "predictor    {}", self.predictor.display())?;
        writeln!(f, "predictions  {}", self.predictions.display())?;
        write!(
            f,
            "skew check   {} feature values differ over {} rows, scores by at most {:.1e} ({})",
            self.features_differing,
            self.rows_compared,
            self.scores_max_relative_difference,
            self.paths_compared.join("; "),
        )
    }
}
