//! Progress bars on a terminal: one per source of a phase, one per trainer.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{
    HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

use super::Progress;

const KNOWN: &str =
    "{prefix:24!} {bar:30} {human_pos:>12}/{human_len} {msg} {rate:>12}/s eta {eta}";
const UNKNOWN: &str = "{prefix:24!} {spinner} {human_pos:>12} {msg} {rate:>12}/s {elapsed}";

/// The bars of a run; none are drawn where they were not asked for.
pub(crate) struct Bars {
    all: MultiProgress,
    by_node: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    pub(crate) fn new(progress: Progress) -> Self {
        let show = match progress {
            Progress::Auto => std::io::stderr().is_terminal(),
            Progress::Never => false,
        };
        let target = if show {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            all: MultiProgress::with_draw_target(target),
            by_node: Mutex::default(),
        }
    }

    /// A new bar that counts rows, up to `n_rows` where that is known.
    pub(crate) fn rows(&self, node: &str, n_rows: Option<u64>) -> ProgressBar {
        let bar = match n_rows {
            Some(n) => ProgressBar::new(n).with_style(style(KNOWN)),
            None => ProgressBar::new_spinner().with_style(style(UNKNOWN)),
        };
        let bar = self
            .all
            .add(bar.with_prefix(node.to_owned()).with_message("rows"));
        self.lock().insert(node.to_owned(), bar.clone());
        bar
    }

    /// The bar that [`Bars::rows`] made last for `node`: all workers count on one.
    pub(crate) fn same(&self, node: &str) -> ProgressBar {
        self.lock()
            .get(node)
            .cloned()
            .unwrap_or_else(ProgressBar::hidden)
    }

    /// Takes all bars away: what they counted is over.
    pub(crate) fn clear(&self) {
        for (_, bar) in std::mem::take(&mut *self.lock()) {
            bar.finish_and_clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ProgressBar>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // Whole rows: fractions of a row a second say nothing.
    style.with_key("rate", |state: &ProgressState, line: &mut dyn Write| {
        let _ = write!(line, "{}", HumanCount(state.per_sec() as u64));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_understood() {
        assert!(ProgressStyle::with_template(KNOWN).is_ok());
        assert!(ProgressStyle::with_template(UNKNOWN).is_ok());
    }

    #[test]
    fn a_hidden_bar_still_counts() {
        let bar = Bars::new(Progress::Never).rows("births", Some(10));
        bar.inc(4);
        assert_eq!((bar.position(), bar.length()), (4, Some(10)));
    }
}
