//! Contenders that run in turn, each run in a process of its own, and the table of what they took.
//!
//! ```text
//! parent ─▶ child "mainstem" ─▶ Run as JSON on the last line ┐
//!       ├─▶ child "bare"     ─▶ ...                          ├─▶ medians, ratios, table, JSON
//!       └─▶ python peer.py   ─▶ ...                          ┘   round after round
//! ```

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Instant;

use comfy_table::{CellAlignment, Table, presets};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::usage;

/// What one run has taken.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Rows that went through.
    pub(crate) rows: u64,
    /// From start to end of the job, start of the process not counted.
    pub(crate) seconds: f64,
    /// Processor time of all threads meanwhile.
    pub(crate) cpu_seconds: f64,
    /// The most memory that the process ever had resident.
    pub(crate) peak_rss_bytes: u64,
}

impl Run {
    /// Runs a job that gives its number of rows.
    pub(crate) fn of(
        job: impl FnOnce() -> Result<u64, Box<dyn Error>>,
    ) -> Result<Self, Box<dyn Error>> {
        let cpu = usage::cpu_seconds();
        let started = Instant::now();
        let rows = job()?;
        Ok(Self {
            rows,
            seconds: started.elapsed().as_secs_f64(),
            cpu_seconds: usage::cpu_seconds() - cpu,
            peak_rss_bytes: usage::peak_rss_bytes(),
        })
    }
}

/// The middle one, the upper of two; NaN of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// This program again, as a child.
pub(crate) fn itself() -> Result<Command, Box<dyn Error>> {
    Ok(Command::new(std::env::current_exe()?))
}

/// Runs a command and reads the JSON on the last line of its output.
pub(crate) fn last_line<T: DeserializeOwned>(mut command: Command) -> Result<T, Box<dyn Error>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().ok_or("no output")?;
    Ok(serde_json::from_str(line)?)
}

/// A Markdown table, ready for `benches/README.md`: first column to the left, figures to the right.
pub(crate) fn table<'a>(
    header: impl IntoIterator<Item = &'a str>,
    lines: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    for line in lines {
        table.add_row(line);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
