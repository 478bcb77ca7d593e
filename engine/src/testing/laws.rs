//! The laws that every stateful operator keeps.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::RecordBatch;

use super::chance::Chance;
use super::operator_driver::{Driver, Fleet, Left};
use super::operator_run::{OperatorRun, Step, pool};
use crate::error::Result;
use crate::event_time::EVENT_TIME;
use crate::transform::{Transform, Watermark};

/// What an operator whose state has been released may keep more than a new one: room for what comes.
const SPARE_BYTES: u64 = 16 << 10;

/// Checks that the operator of `transform` keeps the laws of stateful operators in random runs; rows have
/// the columns and the values of `inputs`, as [`table`](super::table) reads them; columns need not be of one
/// length.
///
/// Always: the schema promised is the schema made; [`snapshot`](crate::Operator::snapshot) changes nothing;
/// stopped after any step, saved, and restored into a new operator, the rest is the same; the watermark
/// behind is never ahead of the one before. The others are in [`Laws`]. Rows of one step are compared
/// without their order.
///
/// ```
/// # use mainstem_engine::{col, ops::Filter, lit, testing::{Laws, check_operator}};
/// let filter = Filter::new(col("n").gt(lit(1)));
/// // It lets late rows through, and so gives rows behind the watermark.
/// let laws = Laws::new().row_preserving(true).on_time(false).runs(3);
/// check_operator(filter, &["n: 0, 1, 2, 3, null; event_time: 0"], &laws);
/// ```
///
/// # Panics
/// If not, with the seed and the script of the run.
pub fn check_operator(transform: impl Transform + 'static, inputs: &[&str], laws: &Laws) {
    let transform: Arc<dyn Transform> = Arc::new(transform);
    let pools: Vec<RecordBatch> = inputs.iter().map(|text| pool(text)).collect();
    for seed in laws.first_seed..laws.first_seed + laws.n_runs {
        let run = OperatorRun::random(Arc::clone(&transform), &pools, laws.time_step, seed);
        laws.check(&run, &format!("in the run of seed {seed}"));
    }
}

/// Which laws an operator promises to keep, and how long it is tried.
#[derive(Clone, Debug)]
#[must_use = "give them to `check_operator`"]
pub struct Laws {
    any_split: bool,
    any_dealing: bool,
    released: bool,
    row_preserving: bool,
    on_time: bool,
    time_step: i64,
    first_seed: u64,
    n_runs: u64,
}

impl Default for Laws {
    fn default() -> Self {
        Self {
            any_split: true,
            any_dealing: true,
            released: true,
            row_preserving: false,
            on_time: true,
            time_step: 10,
            first_seed: 0,
            n_runs: 24,
        }
    }
}

impl Laws {
    /// All but `row_preserving`, in 24 runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Any split of the rows into batches gives the same rows; true by default.
    pub fn any_split(mut self, any_split: bool) -> Self {
        self.any_split = any_split;
        self
    }

    /// Dealt to 1 to 4 operators by its [`Distribution`](crate::Distribution), and once more to another
    /// number in the midst of the run, it makes the same rows; true by default.
    pub fn any_dealing(mut self, any_dealing: bool) -> Self {
        self.any_dealing = any_dealing;
        self
    }

    /// At the end of input nothing is kept; true by default.
    pub fn released(mut self, released: bool) -> Self {
        self.released = released;
        self
    }

    /// It makes at most one row of one: rows in = rows out + filtered + rejected + late; false by default.
    pub fn row_preserving(mut self, row_preserving: bool) -> Self {
        self.row_preserving = row_preserving;
        self
    }

    /// No row leaves the first port with an event time that the watermark behind has passed; true by
    /// default. Not so where rows that are late are taken in.
    pub fn on_time(mut self, on_time: bool) -> Self {
        self.on_time = on_time;
        self
    }

    /// Sets how many milliseconds of event time pass from step to step, about; 10 by default.
    pub fn time_step(mut self, milliseconds: i64) -> Self {
        self.time_step = milliseconds;
        self
    }

    /// Sets how many random runs there are.
    pub fn runs(mut self, n_runs: u64) -> Self {
        self.n_runs = n_runs;
        self
    }

    /// Sets the seed of the first run, to try one again; 0 by default.
    pub fn first_seed(mut self, seed: u64) -> Self {
        self.first_seed = seed;
        self
    }

    /// Checks one run.
    pub(super) fn check(&self, run: &OperatorRun, place: &str) {
        let trial = Trial { run, place };
        let whole = trial.played();
        if self.on_time {
            trial.check_on_time();
        }
        trial.check_stops(&whole);
        if self.any_split {
            trial.check_splits(&whole);
        }
        if self.any_dealing {
            trial.check_dealings(&whole);
        }
        if self.released {
            trial.check_released();
        }
        if self.row_preserving {
            trial.check_counters();
        }
    }
}

/// What left at each step, as text that does not depend on the order of rows.
type Lefts = Vec<Vec<String>>;

/// One run under trial.
struct Trial<'a> {
    run: &'a OperatorRun,
    place: &'a str,
}

impl Trial<'_> {
    fn driver(&self) -> Driver {
        self.fine("built", Driver::new(&self.run.transform, &self.run.inputs))
    }

    /// The value, where the operator did not fail.
    fn fine<T>(&self, when: &str, outcome: Result<T>) -> T {
        #[expect(clippy::panic, reason = "documented: a broken law")]
        match outcome {
            Ok(value) => value,
            Err(error) => panic!(
                "{when}, the operator failed {}:\n{error}\n{}",
                self.place,
                self.run.script()
            ),
        }
    }

    /// Plays steps and gives what left at each.
    fn play(&self, when: &str, driver: &mut Driver, steps: &[Step]) -> Lefts {
        let lefts = steps.iter().map(|step| {
            let left = driver.play(step).and_then(|left| left.sorted());
            self.fine(when, left)
        });
        lefts.collect()
    }

    fn played(&self) -> Lefts {
        self.play("played as it is", &mut self.driver(), &self.run.steps)
    }

    fn check_same(
        &self,
        when: &str,
        first_step: usize,
        expected: &[Vec<String>],
        found: &[Vec<String>],
    ) {
        for (n, (expected, found)) in expected.iter().zip(found).enumerate() {
            let step = first_step + n;
            assert!(
                expected == found,
                "{when}, other rows leave at step {step} {}\nexpected:\n  {}\nfound:\n  {}\nscript:\n{}",
                self.place,
                expected.join("\n  "),
                found.join("\n  "),
                self.run.script()
            );
        }
    }

    /// Saved after each step, it goes on as before, and so does a new operator with the same state.
    fn check_stops(&self, whole: &Lefts) {
        let steps = &self.run.steps;
        let mut driver = self.driver();
        for stop in 0..steps.len() {
            let when = format!("stopped before step {stop} and restored");
            let state = self.fine(&when, driver.snapshot());
            let (transform, inputs) = (&self.run.transform, &self.run.inputs);
            let new = Driver::restored(transform, inputs, &driver, &state);
            let mut new = self.fine(&when, new);
            let rest = self.play(&when, &mut new, &steps[stop..]);
            self.check_same(&when, stop, &whole[stop..], &rest);
            let left = driver.play(&steps[stop]).and_then(|left| left.sorted());
            let left = [self.fine("saved after each step", left)];
            self.check_same("saved after each step", stop, &whole[stop..=stop], &left);
        }
    }

    fn check_splits(&self, whole: &Lefts) {
        let mut chance = Chance::new(self.run.steps.len() as u64);
        for max_rows in [1, 3] {
            let when = format!("with batches of at most {max_rows} rows");
            let mut driver = self.driver();
            for (n, step) in self.run.steps.iter().enumerate() {
                let mut left = Left::default();
                for part in cut(step, max_rows, &mut chance) {
                    left.add(self.fine(&when, driver.play(&part)));
                }
                let found = self.fine(&when, left.sorted());
                self.check_same(&when, n, &whole[n..=n], &[found]);
            }
        }
    }

    fn check_dealings(&self, whole: &Lefts) {
        let OperatorRun {
            transform,
            inputs,
            steps,
        } = self.run;
        for n_workers in 1..=4 {
            let then = 1 + (n_workers + steps.len()) % 4;
            let change = steps.len() * n_workers / 5;
            let when = format!("dealt to {n_workers} operators, to {then} from step {change} on");
            let mut fleet = self.fine(&when, Fleet::new(transform, inputs, n_workers));
            for (n, step) in steps.iter().enumerate() {
                if n == change {
                    fleet = self.fine(&when, fleet.redealt(then));
                }
                let left = fleet.play(step).and_then(|left| left.sorted());
                let found = [self.fine(&when, left)];
                self.check_same(&when, n, &whole[n..=n], &found);
            }
        }
    }

    fn check_released(&self) {
        let mut driver = self.driver();
        let new = driver.state_bytes();
        self.play("played as it is", &mut driver, &self.run.steps);
        let kept = driver.state_bytes();
        assert!(
            kept <= new + SPARE_BYTES,
            "at the end the operator keeps {kept} bytes, a new one {new} {}\n{}",
            self.place,
            self.run.script()
        );
        let state = self.fine("at the end", driver.snapshot());
        let kept: usize = state
            .iter()
            .filter(|part| part.key_group.is_some())
            .map(|part| part.rows.num_rows())
            .sum();
        assert!(
            kept == 0,
            "at the end the operator keeps {kept} rows {}\n{}",
            self.place,
            self.run.script()
        );
    }

    fn check_on_time(&self) {
        let mut driver = self.driver();
        for (n, step) in self.run.steps.iter().enumerate() {
            let Watermark(behind) = driver.behind;
            let left = self.fine("played as it is", driver.play(step));
            let columns = left
                .rows_of(0)
                .filter_map(|rows| rows.column_by_name(EVENT_TIME));
            let times = columns.filter_map(|c| c.as_primitive_opt::<TimestampMillisecondType>());
            let earliest = times.flat_map(|times| times.iter().flatten()).min();
            assert!(
                earliest.is_none_or(|time| time >= behind),
                "at step {n} a row leaves with event time {earliest:?}, the watermark behind was {behind} {}\n{}",
                self.place,
                self.run.script()
            );
        }
    }

    fn check_counters(&self) {
        let mut driver = self.driver();
        let mut all = Left::default();
        let mut n_in = 0;
        for step in &self.run.steps {
            if let Step::Rows { rows, .. } = step {
                n_in += rows.num_rows() as u64;
            }
            all.add(self.fine("played as it is", driver.play(step)));
        }
        let n_out: usize = all.rows_of(0).map(RecordBatch::num_rows).sum();
        let n_out = n_out as u64;
        assert!(
            n_in == n_out + all.n_filtered + all.n_rejected + all.n_late,
            "{n_in} rows in are not {n_out} out + {} filtered + {} rejected + {} late {}\n{}",
            all.n_filtered,
            all.n_rejected,
            all.n_late,
            self.place,
            self.run.script()
        );
    }
}

/// The step, its rows in several batches.
fn cut(step: &Step, max_rows: usize, chance: &mut Chance) -> Vec<Step> {
    let Step::Rows { port, rows } = step else {
        return vec![step.clone()];
    };
    let mut parts = Vec::new();
    let mut start = 0;
    while start < rows.num_rows() {
        let n_rows = (1 + chance.index(max_rows)).min(rows.num_rows() - start);
        parts.push(Step::Rows {
            port: *port,
            rows: rows.slice(start, n_rows),
        });
        start += n_rows;
    }
    parts
}

#[cfg(test)]
mod tests;
