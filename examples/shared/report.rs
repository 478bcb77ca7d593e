//! What an example prints at its end: a table for people, or one JSON object on the last line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use mainstem::ml_stages::Evaluation;
use serde::Serialize;

/// The figures of a run.
#[derive(Debug, Serialize)]
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
    pub(crate) metrics: BTreeMap<&'static str, BTreeMap<String, BTreeMap<String, f64>>>,
    #[serde(skip)]
    pub(crate) slice_rows: Vec<(String, u64)>,
    pub(crate) rows_compared: u64,
    pub(crate) features_differing: u64,
    pub(crate) scores_max_relative_difference: f64,
    pub(crate) paths_compared: Vec<String>,
    pub(crate) predictor: PathBuf,
    pub(crate) predictions: PathBuf,
}

impl Report {
    /// Adds a metric of one model, slice by slice.
    pub(crate) fn add(&mut self, metric: &'static str, model: &str, evaluation: &Evaluation) {
        let slices = evaluation.slices.iter().filter_map(|slice| {
            let value = slice.metrics.get(metric).copied()?;
            Some((slice.name.clone(), value))
        });
        let models = self.metrics.entry(metric).or_default();
        models.insert(model.to_owned(), slices.collect());
        self.slice_rows = evaluation
            .slices
            .iter()
            .map(|slice| (slice.name.clone(), slice.n_rows))
            .collect();
    }

    fn metric_table(&self, metric: &str, models: &BTreeMap<String, BTreeMap<String, f64>>) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let header = [metric.to_owned(), "rows".to_owned()];
        table.set_header(header.into_iter().chain(models.keys().cloned()));
        for (slice, n_rows) in &self.slice_rows {
            let values = models
                .values()
                .map(|slices| slices.get(slice).map_or_else(|| "-".into(), |v| format!("{v:.4}")));
            table.add_row([slice.clone(), n_rows.to_string()].into_iter().chain(values));
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
            writeln!(f, "{}", self.metric_table(metric, models))?;
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
            "skew check   {} feature values differ over {} rows ({}); scores differ by at most {:.1e}",
            self.features_differing,
            self.rows_compared,
            self.paths_compared.join(", "),
            self.scores_max_relative_difference,
        )
    }
}
