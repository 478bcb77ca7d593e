//! Looks at a run from time to time, in bounded memory.

use std::sync::Arc;
use std::time::Duration;

use super::metrics::NodeMetrics;
use crate::report::{Role, Series, TimeLine};

/// The most moments that are kept.
const MOST: usize = 240;

/// How long it is from one look to the next at first.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);

/// Moments of a run. When there are too many, each second one goes and the interval doubles: what is
/// kept are sums since the start, so nothing is lost but detail.
pub(crate) struct Recorder {
    interval: Duration,
    moments: Vec<Moment>,
    watched: Vec<Watched>,
}

struct Moment {
    at: Duration,
    memory_bytes: u64,
    /// Rows of what was watched then; what came later is missing.
    rows: Vec<u64>,
}

struct Watched {
    node: Arc<str>,
    phase: usize,
    role: Role,
    metrics: Arc<NodeMetrics>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            interval: FIRST_INTERVAL,
            moments: Vec::new(),
            watched: Vec::new(),
        }
    }

    /// From now on the rows of this node are recorded.
    pub(crate) fn watch(
        &mut self,
        node: Arc<str>,
        phase: usize,
        role: Role,
        metrics: Arc<NodeMetrics>,
    ) {
        self.watched.push(Watched {
            node,
            phase,
            role,
            metrics,
        });
    }

    /// How long it is to the next look.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// Records the moment `at`.
    pub(crate) fn record(&mut self, at: Duration, memory_bytes: u64) {
        if self.moments.len() >= MOST {
            let mut keep = false;
            self.moments.retain(|_| {
                keep = !keep;
                keep
            });
            self.interval *= 2;
        }
        // A source counts what it reads, a sink what it takes.
        let rows = self.watched.iter().map(|w| w.metrics.now().rows_in);
        let rows = rows.collect();
        self.moments.push(Moment {
            at,
            memory_bytes,
            rows,
        });
    }

    pub(crate) fn time_line(&self) -> TimeLine {
        let series = self.watched.iter().enumerate().map(|(i, watched)| Series {
            node: watched.node.to_string(),
            phase: watched.phase,
            role: watched.role,
            rows: self
                .moments
                .iter()
                .map(|m| m.rows.get(i).copied().unwrap_or_default())
                .collect(),
        });
        TimeLine {
            at: self.moments.iter().map(|m| m.at).collect(),
            memory_bytes: self.moments.iter().map(|m| m.memory_bytes).collect(),
            series: series.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_fits_into_as_many_moments_as_a_minute() {
        let metrics = Arc::new(NodeMetrics::default());
        let mut recorder = Recorder::new();
        let mut at = Duration::ZERO;
        while at < Duration::from_secs(3_600) {
            recorder.record(at, 7);
            metrics.took_in_rejected(3);
            if at == recorder.interval() {
                recorder.watch("late".into(), 1, Role::Source, Arc::clone(&metrics));
            }
            at += recorder.interval();
        }
        let line = recorder.time_line();
        assert!(
            (MOST / 2..=MOST).contains(&line.at.len()),
            "{}",
            line.at.len()
        );
        assert!(line.at.is_sorted() && line.series[0].rows.is_sorted());
        assert_eq!(line.at[0], Duration::ZERO);
        // Watched only after the second look.
        assert_eq!(line.series[0].rows[0], 0);
        assert_eq!(line.series[0].rows.len(), line.at.len());
        // 50 ms doubled nine times is 25.6 s, and 240 of them are more than an hour.
        assert_eq!(recorder.interval(), Duration::from_millis(50 << 9));
    }
}
