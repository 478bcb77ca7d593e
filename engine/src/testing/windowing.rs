//! The laws that windows and their triggers keep, whichever they are.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use super::chance::Chance;
use super::{Script, Simulated, scripted, show_rows, simulate, table};
use crate::aggregates::{count, sum};
use crate::event_time::{DIFF, PANE, WINDOW_END, WINDOW_START};
use crate::windowing::{Accumulation, Window, Windowing};
use crate::{Pipeline, col, connectors, lit};

/// Checks that counts and sums by key keep their laws in these windows, with this trigger, in random runs; a few
/// milliseconds of event time, about `time_step`, pass from step to step.
///
/// All three ways of accumulation are tried, whichever the windowing has. Always:
///
/// - each row is in the panes of each of its windows once, or it is late; none is lost, unless
///   [`allow_data_loss`](Windowing::allow_data_loss) allows it, and none counts twice;
/// - what accumulates is the sum of what is discarded, and what stays of panes that take back is the last of those
///   that accumulate;
/// - panes of a window are numbered from 0, the first is the first, none follows the last, early ones come before
///   the watermark has passed the end of the window and others after it, and one at most is on time;
/// - the rows cut into other batches give the same totals, where none may be lost;
/// - stopped after any step, saved, and restored on as many workers or others, the rest is the same.
///
/// Of windows that merge, the totals of each key are compared in place of those of windows.
///
/// ```
/// # use std::time::Duration;
/// # use mainstem_engine::{Trigger, Windowing, testing::check_windowing};
/// let early = Trigger::after_any([Trigger::after_count(3), Trigger::after_processing_time(Duration::from_millis(20))]);
/// let windowing = Windowing::fixed(Duration::from_millis(50))
///     .trigger(Trigger::after_watermark().early(early).late(Trigger::after_count(1)))
///     .allowed_lateness(Duration::from_millis(100));
/// check_windowing(&windowing, Duration::from_millis(10), 3);
/// ```
///
/// # Panics
/// If the windowing is refused or a law is broken, naming it and the seed, which is the number of the run.
pub fn check_windowing(windowing: &Windowing, time_step: Duration, n_runs: u64) {
    let step = i64::try_from(time_step.as_millis()).unwrap_or(i64::MAX >> 8);
    for seed in 0..n_runs {
        let run = Run::random(step.max(1), seed);
        let place = format!("{windowing:?}, seed {seed}: {:?}", run.moves);
        Trial {
            run: &run,
            windowing,
            place: &place,
        }
        .check(seed);
    }
}

/// A row: its key, its time, its value.
#[derive(Clone, Copy, Debug)]
struct Row {
    k: i64,
    time: i64,
    v: i64,
}

#[derive(Clone, Debug)]
enum Move {
    Rows(Vec<Row>),
    Watermark(i64),
    Clock(i64),
}

/// What happens, before the input ends.
struct Run {
    moves: Vec<Move>,
}

impl Run {
    fn random(step: i64, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let (mut now, mut clock, mut watermark) = (0, 0, i64::MIN);
        let mut moves = Vec::new();
        for _ in 0..8 + chance.below(20) {
            now += chance.below(2 * step);
            moves.push(match chance.below(10) {
                0..6 => {
                    let rows = (0..=chance.below(6)).map(|_| Row {
                        k: chance.below(3),
                        time: now + chance.below(4 * step) - 3 * step,
                        v: chance.below(19) - 9,
                    });
                    Move::Rows(rows.collect())
                }
                6..9 => {
                    watermark = watermark.max(now - chance.below(6 * step));
                    Move::Watermark(watermark)
                }
                _ => {
                    clock += chance.below(4 * step);
                    Move::Clock(clock)
                }
            });
        }
        Self { moves }
    }

    /// Each row with the watermark when it comes.
    fn rows(&self) -> Vec<(Row, i64)> {
        let mut watermark = i64::MIN;
        let mut all = Vec::new();
        for one in &self.moves {
            match one {
                Move::Rows(rows) => all.extend(rows.iter().map(|row| (*row, watermark))),
                Move::Watermark(at) => watermark = *at,
                Move::Clock(_) => {}
            }
        }
        all
    }

    /// The watermark after each move and after the end.
    fn watermarks(&self) -> Vec<i64> {
        let mut watermark = i64::MIN;
        let mut all = Vec::new();
        for one in &self.moves {
            if let Move::Watermark(at) = one {
                watermark = *at;
            }
            all.push(watermark);
        }
        all.push(i64::MAX);
        all
    }

    /// The run as a script, in which everything restarts before move `restart`.
    fn script(&self, restart: Option<(usize, usize)>) -> Script {
        let mut script = Script::new();
        for (n, one) in self.moves.iter().enumerate() {
            if let Some((at, n_workers)) = restart
                && at == n
            {
                script = script.restart(n_workers);
            }
            script = match one {
                Move::Rows(rows) => script.batch("rows", 0, batch(rows)),
                Move::Watermark(at) => script.watermark("rows", *at),
                Move::Clock(at) => script.processing_time(*at),
            };
        }
        script.end("rows")
    }

    /// The same with each batch in two, where that can be.
    fn cut(&self, chance: &mut Chance) -> Self {
        let mut moves = Vec::new();
        for one in &self.moves {
            match one {
                Move::Rows(rows) => {
                    let (first, second) = rows.split_at(chance.index(rows.len()));
                    let parts = [first, second].into_iter().filter(|p| !p.is_empty());
                    moves.extend(parts.map(|part| Move::Rows(part.to_vec())));
                }
                other => moves.push(other.clone()),
            }
        }
        Self { moves }
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let column = |of: fn(&Row) -> i64| {
        let all: Vec<String> = rows.iter().map(|row| of(row).to_string()).collect();
        all.join(", ")
    };
    let (k, v, time) = (column(|r| r.k), column(|r| r.v), column(|r| r.time));
    table(&format!("k: {k}; v: {v}; event_time: {time}"))
}

/// A count and a sum.
type Total = (i64, i64);

/// A key and a window.
type Place = (i64, Window);

/// A pane as it left.
#[derive(Clone, Debug, PartialEq)]
struct Pane {
    step: usize,
    of: Place,
    total: Total,
    diff: i64,
    /// Timing, index, index of those that are not early, first, last; of windows that fire once there is none.
    info: Option<(String, i64, i64, bool, bool)>,
}

/// All panes, in the order in which they left.
fn panes(run: &Simulated) -> Vec<Pane> {
    let mut panes = Vec::new();
    for (step, batches) in run.steps("results").iter().enumerate() {
        for rows in batches {
            let column = |name: &str| integers(rows.column_by_name(name));
            let (k, n, sum) = (column("k"), column("n"), column("sum"));
            let (start, end, diff) = (column(WINDOW_START), column(WINDOW_END), column(DIFF));
            let info = rows.column_by_name(PANE).and_then(|p| p.as_struct_opt());
            let part = |name: &str| integers(info.and_then(|info| info.column_by_name(name)));
            let index = part("index");
            let (later, first, last) = (
                part("nonspeculative_index"),
                part("is_first"),
                part("is_last"),
            );
            let timing = info.and_then(|info| info.column_by_name("timing"));
            let timing = timing.and_then(|t| cast(t, &DataType::Utf8).ok());
            for row in 0..rows.num_rows() {
                let at = |of: &[i64], default| of.get(row).copied().unwrap_or(default);
                let global = Window::GLOBAL;
                let window = Window {
                    start: at(&start, global.start),
                    end: at(&end, global.end),
                };
                panes.push(Pane {
                    step,
                    of: (at(&k, 0), window),
                    total: (at(&n, 0), at(&sum, 0)),
                    diff: at(&diff, 1),
                    info: timing.as_ref().map(|timing| {
                        let timing = timing.as_string::<i32>().value(row).to_owned();
                        let is = |of: &[i64]| at(of, 0) == 1;
                        (
                            timing,
                            at(&index, -9),
                            at(&later, -9),
                            is(&first),
                            is(&last),
                        )
                    }),
                });
            }
        }
    }
    panes
}

/// The values of a column as integers, 0 where there is none.
fn integers(column: Option<&ArrayRef>) -> Vec<i64> {
    let column = column.and_then(|column| cast(column, &DataType::Int64).ok());
    let column = column
        .as_ref()
        .map(|column| column.as_primitive::<Int64Type>());
    let values = column.map(|c| c.iter().map(Option::unwrap_or_default).collect());
    values.unwrap_or_default()
}

fn n_rows(batches: &[RecordBatch]) -> i64 {
    let n: usize = batches.iter().map(RecordBatch::num_rows).sum();
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn add(to: &mut Total, (n, sum): Total, times: i64) {
    *to = (to.0 + n * times, to.1 + sum * times);
}

struct Trial<'a> {
    run: &'a Run,
    windowing: &'a Windowing,
    place: &'a str,
}

impl Trial<'_> {
    fn play(&self, accumulation: Accumulation, script: &Script, n_workers: usize) -> Simulated {
        let pipeline = Pipeline::new("laws");
        let windowing = self.windowing.clone().accumulation(accumulation);
        let (results, late) = pipeline
            .read("rows", scripted("k: 0; v: 0; event_time: 0").bounded(true))
            .window(windowing)
            .group_by([col("k")])
            .agg_with_late([count(lit(1)).alias("n"), sum(col("v")).alias("sum")]);
        results.named("results").write(connectors::collect().0);
        late.named("late").write(connectors::collect().0);
        let run = simulate(&pipeline, script, n_workers, 0);
        assert!(run.is_ok(), "{}: {:?}", self.place, run.err());
        #[expect(clippy::unwrap_used, reason = "looked at above")]
        run.unwrap()
    }

    fn check(&self, seed: u64) {
        let mut chance = Chance::new(!seed);
        let all = [
            Accumulation::Discarding,
            Accumulation::Accumulating,
            Accumulation::AccumulatingAndRetracting,
        ];
        let whole = self.run.script(None);
        let runs = all.map(|accumulation| self.play(accumulation, &whole, 1));
        for (accumulation, of_one) in all.into_iter().zip(&runs) {
            self.check_info(&panes(of_one));
            // Once after any step, on as many workers as before or on others.
            let at = chance.index(self.run.moves.len());
            let (before, after) = (1 + chance.index(3), 1 + chance.index(3));
            let script = self.run.script(Some((at, after)));
            self.check_same(of_one, &self.play(accumulation, &script, before), at);
        }
        let [discarding, accumulating, retracting] = runs.map(|run| (panes(&run), run));
        self.check_rows(&discarding.0, n_rows(&discarding.1.rows("late")));
        self.check_sums(&discarding.0, &accumulating.0, &retracting.0);
        // Which rows a trigger that has finished loses is a matter of how they come.
        if self.windowing.allow_data_loss {
            return;
        }
        let cut = self.run.cut(&mut chance).script(None);
        let cut = self.play(Accumulation::Discarding, &cut, 2);
        let what = "rows in other batches give the same totals";
        let (cut, whole) = (self.totals(&panes(&cut)), self.totals(&discarding.0));
        assert_eq!(cut, whole, "{what}: {}", self.place);
    }

    /// What was discarded in all, of windows, or of keys where windows merge.
    fn totals(&self, discarded: &[Pane]) -> BTreeMap<Place, Total> {
        let mut totals = BTreeMap::new();
        for pane in discarded {
            let of = self.place_of(pane.of);
            add(totals.entry(of).or_default(), pane.total, pane.diff);
        }
        totals.retain(|_, total| total.0 != 0);
        totals
    }

    fn place_of(&self, (k, window): Place) -> Place {
        match self.windowing.window_fn.is_merging() {
            true => (k, Window::GLOBAL),
            false => (k, window),
        }
    }

    /// Each row is in the panes of its windows, or late.
    fn check_rows(&self, discarded: &[Pane], n_late: i64) {
        let totals = self.totals(discarded);
        if self.windowing.window_fn.is_merging() {
            let n_out: i64 = totals.values().map(|total| total.0).sum();
            let n_in = i64::try_from(self.run.rows().len()).unwrap_or(i64::MAX);
            let fits = match self.windowing.allow_data_loss {
                true => n_out + n_late <= n_in,
                false => n_out + n_late == n_in,
            };
            assert!(
                fits,
                "{n_in} rows in, {n_out} in panes, {n_late} late: {}",
                self.place
            );
            return;
        }
        let mut expected: BTreeMap<Place, Total> = BTreeMap::new();
        for (row, watermark) in self.run.rows() {
            let mut windows = Vec::new();
            self.windowing.window_fn.assign(row.time, &mut windows);
            // A window is over when the watermark has passed its last instant by the lateness.
            let lateness = self.windowing.allowed_lateness_ms;
            windows.retain(|w| w.max_timestamp().saturating_add(lateness) >= watermark);
            for window in windows {
                add(expected.entry((row.k, window)).or_default(), (1, row.v), 1);
            }
        }
        if self.windowing.allow_data_loss {
            let is_part =
                |(of, total): (&Place, &Total)| expected.get(of).is_some_and(|e| total.0 <= e.0);
            assert!(
                totals.iter().all(is_part),
                "no row counts twice: {}",
                self.place
            );
        } else {
            assert_eq!(
                totals, expected,
                "each row is in its windows once: {}",
                self.place
            );
        }
    }

    fn check_sums(&self, discarded: &[Pane], accumulated: &[Pane], retracted: &[Pane]) {
        let mut kept: BTreeMap<(Place, Total), i64> = BTreeMap::new();
        for pane in retracted {
            *kept.entry((pane.of, pane.total)).or_default() += pane.diff;
        }
        kept.retain(|(_, total), n| *n != 0 && total.0 != 0);
        if self.windowing.window_fn.is_merging() {
            let mut of_keys: BTreeMap<Place, Total> = BTreeMap::new();
            for ((of, total), n) in kept {
                add(of_keys.entry(self.place_of(of)).or_default(), total, n);
            }
            let what = "what stays is what was discarded in all";
            assert_eq!(of_keys, self.totals(discarded), "{what}: {}", self.place);
            return;
        }
        let mut sums: BTreeMap<Place, Total> = BTreeMap::new();
        let mut last: BTreeMap<Place, Total> = BTreeMap::new();
        let summed = discarded.iter().map(|pane| {
            let of = sums.entry(pane.of).or_default();
            add(of, pane.total, 1);
            (pane.step, pane.of, *of)
        });
        let mut summed: Vec<_> = summed.collect();
        let mut whole: Vec<_> = accumulated
            .iter()
            .map(|p| (p.step, p.of, p.total))
            .collect();
        for pane in accumulated {
            last.insert(pane.of, pane.total);
        }
        summed.sort_unstable();
        whole.sort_unstable();
        let what = "what accumulates is the sum of what is discarded";
        assert_eq!(whole, summed, "{what}: {}", self.place);
        last.retain(|_, total| total.0 != 0);
        let expected: BTreeMap<_, i64> = last.into_iter().map(|of| (of, 1)).collect();
        let what = "what stays is the last of what accumulates";
        assert_eq!(kept, expected, "{what}: {}", self.place);
    }

    fn check_info(&self, panes: &[Pane]) {
        let watermarks = self.run.watermarks();
        let mut before: BTreeMap<Place, &Pane> = BTreeMap::new();
        for pane in panes.iter().filter(|pane| pane.diff > 0) {
            let place = format!("{pane:?}: {}", self.place);
            let Some((timing, index, later, is_first, _)) = &pane.info else {
                let is_only = before.insert(pane.of, pane).is_none();
                assert!(is_only, "a window without panes fires once: {place}");
                continue;
            };
            let has_passed = watermarks[pane.step] > pane.of.1.max_timestamp();
            assert_eq!(
                timing != "early",
                has_passed,
                "early is before the end: {place}"
            );
            assert_eq!(
                *index == 0,
                *is_first,
                "the first pane is number 0: {place}"
            );
            assert_eq!(
                timing == "early",
                *later < 0,
                "an early pane is speculative: {place}"
            );
            let previous = match self.windowing.window_fn.is_merging() {
                // A window that others become goes on with the panes of one of them.
                true => continue,
                false => before.insert(pane.of, pane),
            };
            let Some((of_previous, i, l, _, was_last)) = previous.and_then(|p| p.info.as_ref())
            else {
                assert!(
                    *is_first && *later <= 0,
                    "panes begin with the first: {place}"
                );
                continue;
            };
            assert!(!was_last, "nothing follows the last pane: {place}");
            assert_eq!(*index, i + 1, "panes are numbered: {place}");
            let n_later = i64::from(timing != "early");
            assert_eq!(
                *later,
                l + n_later,
                "so are those that are not early: {place}"
            );
            assert!(
                timing == of_previous && timing != "on_time"
                    || of_previous == "early"
                    || timing == "late",
                "early, on time, late, in this order, and on time once: {place}"
            );
        }
    }

    /// The rows of each step, but of the one in which everything restarts.
    fn check_same(&self, whole: &Simulated, stopped: &Simulated, at: usize) {
        for sink in ["results", "late"] {
            let show = |steps: &[Vec<RecordBatch>]| -> Vec<String> {
                steps.iter().map(|rows| show_rows(rows)).collect()
            };
            let mut steps = show(stopped.steps(sink));
            let of_restart = steps.remove(at);
            assert_eq!(
                of_restart, "",
                "nothing leaves by a restart: {}",
                self.place
            );
            let what = format!("{sink} are the same, restarted before move {at}");
            assert_eq!(steps, show(whole.steps(sink)), "{what}: {}", self.place);
        }
    }
}

#[cfg(test)]
mod tests;
