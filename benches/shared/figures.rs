//! What the runs of one contender have taken, put together.

use serde::Serialize;

use crate::contest::{Run, median};

/// Medians over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) rows_per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_ns_per_row: f64,
    pub(crate) peak_rss_bytes: u64,
}

impl Figures {
    pub(crate) fn of(runs: &[Run]) -> Self {
        let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure));
        Self {
            rows_per_second: of(|r| r.rows as f64 / r.seconds),
            seconds: of(|r| r.seconds),
            cpu_seconds: of(|r| r.cpu_seconds),
            cpu_ns_per_row: of(|r| r.cpu_seconds / r.rows.max(1) as f64 * 1e9),
            peak_rss_bytes: of(|r| r.peak_rss_bytes as f64) as u64,
        }
    }
}
