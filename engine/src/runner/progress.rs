//! How far a phase is: bars on a terminal, or plain lines for a log.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Progress;
use super::metrics::Counts;
use crate::report::Role;
use crate::report::units;

/// Where it is known how much there is. What matters most stands first: a narrow terminal cuts the end.
const KNOWN: &str = "{prefix:16!} {bar:12} {wide_msg}";
const UNKNOWN: &str = "{prefix:16!} {spinner:12} {wide_msg}";

/// Steps of a bar from empty to full.
const STEPS: u64 = 1_000;

/// Seconds over which a pace is smoothed.
const SMOOTHING: f64 = 3.0;

/// How fast something grows, smoothed over a few seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    last: f64,
    per_second: f64,
    known: bool,
}

impl Pace {
    fn moved_to(&mut self, value: f64, after: Duration) {
        let seconds = after.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let now = (value - self.last) / seconds;
        let weight = if self.known {
            1.0 - (-seconds / SMOOTHING).exp()
        } else {
            1.0
        };
        self.per_second += (now - self.per_second) * weight;
        self.last = value;
        self.known |= now > 0.0;
    }
}

/// What a source has read, or a trainer has gone through, out of how much.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    rows: u64,
    n_rows: Option<u64>,
    bytes: u64,
    n_bytes: Option<u64>,
    row_pace: Pace,
    part_pace: Pace,
    looked: Duration,
    /// Where the watermark of its rows stands, in words.
    watermark: Option<String>,
}

impl Standing {
    /// Takes in the counters as they are at the time `at` of the run.
    pub(crate) fn look(&mut self, counts: &Counts, role: Role, at: Duration) {
        (self.rows, self.n_rows) = match role {
            Role::Trainer => (counts.trained, Some(counts.to_train)),
            // Rows that need not be read are as good as read.
            _ => (counts.rows_in + counts.pruned, counts.expected.n_rows),
        };
        (self.bytes, self.n_bytes) = (counts.bytes_read, counts.expected.n_bytes);
        let after = at.saturating_sub(self.looked);
        self.row_pace.moved_to(self.rows as f64, after);
        self.part_pace.moved_to(self.part().unwrap_or(0.0), after);
        self.looked = at;
    }

    /// Takes in where the watermark of its rows stands, in words.
    pub(crate) fn stands(&mut self, watermark: Option<String>) {
        self.watermark = watermark;
    }

    /// How much is done, from 0 to 1, where that is known: by rows, else by bytes.
    fn part(&self) -> Option<f64> {
        let of = |done: u64, all: Option<u64>| {
            let all = all.filter(|&all| all > 0)?;
            Some((done as f64 / all as f64).min(1.0))
        };
        of(self.rows, self.n_rows).or_else(|| of(self.bytes, self.n_bytes))
    }

    /// How long it will take from here, where that is known.
    fn left(&self) -> Option<Duration> {
        let part = self.part()?;
        let pace = self.part_pace.per_second;
        if pace <= 0.0 {
            return None;
        }
        Duration::try_from_secs_f64(((1.0 - part) / pace).ceil()).ok()
    }

    /// In words, the most important first.
    pub(crate) fn words(&self) -> String {
        let mut words = Vec::with_capacity(5);
        if let Some(part) = self.part() {
            words.push(format!("{:.0} %", (part * 100.0).floor()));
        }
        match self.left() {
            Some(left) if left >= Duration::from_secs(1) => {
                words.push(format!("{} left", units::duration(left)));
            }
            _ => {}
        }
        let rows = units::count(self.rows);
        words.push(match self.n_rows {
            Some(n_rows) => format!("{rows} of {} rows", units::count(n_rows)),
            None => format!("{rows} rows"),
        });
        if self.row_pace.known {
            let pace = self.row_pace.per_second.max(0.0).round() as u64;
            words.push(format!("{} rows/s", units::count(pace)));
        }
        if self.bytes > 0 {
            let bytes = units::bytes(self.bytes);
            words.push(match self.n_bytes {
                Some(n_bytes) => format!("{bytes} of {}", units::bytes(n_bytes)),
                None => bytes,
            });
        }
        words.extend(self.watermark.clone());
        words.join(", ")
    }
}

/// Shows how far the nodes of a phase are.
pub(crate) enum Display {
    Nowhere,
    Bars(Bars),
    Lines,
}

impl Display {
    pub(crate) fn new(progress: Progress) -> Self {
        match progress {
            Progress::Auto if std::io::stderr().is_terminal() => {
                Self::Bars(Bars::on(ProgressDrawTarget::stderr_with_hz(10)))
            }
            Progress::Auto | Progress::Never => Self::Nowhere,
            Progress::Plain => Self::Lines,
        }
    }

    /// How long it is from one look to the next.
    pub(crate) fn interval(&self) -> Option<Duration> {
        match self {
            Self::Nowhere => None,
            Self::Bars(_) => Some(Duration::from_millis(100)),
            Self::Lines => Some(Duration::from_secs(10)),
        }
    }

    /// Shows the nodes of one phase; `place` names the pipeline and the phase.
    pub(crate) fn show<'a>(
        &mut self,
        place: &str,
        nodes: impl Iterator<Item = (&'a str, &'a Standing)>,
    ) {
        match self {
            Self::Nowhere => {}
            Self::Bars(bars) => bars.show(nodes),
            Self::Lines => {
                for (node, standing) in nodes {
                    say(&format!("{place}, {node}: {}", standing.words()));
                }
            }
        }
    }

    /// The phase is over: bars go, and a line says what has been done.
    pub(crate) fn over(&mut self, place: &str, what: &str) {
        match self {
            Self::Nowhere => {}
            Self::Bars(bars) => bars.clear(),
            Self::Lines => say(&format!("{place}: {what}")),
        }
    }
}

/// A line on standard error. Where nobody can read it, nothing is lost.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A bar per node.
pub(crate) struct Bars {
    all: MultiProgress,
    by_node: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn on(target: ProgressDrawTarget) -> Self {
        Self {
            all: MultiProgress::with_draw_target(target),
            by_node: BTreeMap::new(),
        }
    }

    fn show<'a>(&mut self, nodes: impl Iterator<Item = (&'a str, &'a Standing)>) {
        for (node, standing) in nodes {
            let part = standing.part();
            let bar = self.by_node.entry(node.to_owned()).or_insert_with(|| {
                let bar = match part {
                    Some(_) => ProgressBar::new(STEPS).with_style(style(KNOWN)),
                    None => ProgressBar::new_spinner().with_style(style(UNKNOWN)),
                };
                let name = crate::report::shorten(node, 16);
                self.all.add(bar.with_prefix(name))
            });
            if let Some(part) = part {
                bar.set_position((part * STEPS as f64) as u64);
            }
            bar.set_message(standing.words());
            bar.tick();
        }
    }

    fn clear(&mut self) {
        for (_, bar) in std::mem::take(&mut self.by_node) {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
#[path = "progress/tests.rs"]
mod tests;
