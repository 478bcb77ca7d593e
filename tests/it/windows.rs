//! Whole pipelines in event time, simulated: whatever moves first, whatever comes late, wherever it restarts.
//!
//! `MAINSTEM_CASES` says how many cases are tried, `MAINSTEM_SEED` with which the first begins; each case is
//! the next number. A failure prints the number of its case.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int8Type, Int64Type, TimestampMillisecondType};
use mainstem::engine::aggregates::{count, sum};
use mainstem::engine::ops::Watermarks;
use mainstem::engine::testing::{Script, Simulated, scripted, simulate, table};
use mainstem::engine::{Accumulation, Trigger, Windowing};
use mainstem::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A row of the scripts: its key, its time, its value.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    k: i64,
    t: i64,
    v: i64,
}

/// A result: key and window, then what was aggregated.
type Results = BTreeMap<(i64, i64, i64), (i64, i64)>;

#[derive(Clone, Copy, Debug)]
enum Windows {
    Fixed(i64),
    Sliding(i64, i64),
    Sessions(i64),
}

fn ms(n: i64) -> Duration {
    Duration::from_millis(n.unsigned_abs())
}

impl Windows {
    fn windowing(self) -> Windowing {
        match self {
            Self::Fixed(size) => Windowing::fixed(ms(size)),
            Self::Sliding(size, period) => Windowing::sliding(ms(size), ms(period)),
            Self::Sessions(gap) => Windowing::sessions(ms(gap)),
        }
    }

    /// The results over all rows, as if all were there at once.
    fn over(self, rows: &[Row]) -> Results {
        let mut results = Results::new();
        let mut add = |k, start, end, v| {
            let of = results.entry((k, start, end)).or_default();
            *of = (of.0 + 1, of.1 + v);
        };
        match self {
            Self::Fixed(size) => {
                for row in rows {
                    let start = row.t.div_euclid(size) * size;
                    add(row.k, start, start + size, row.v);
                }
            }
            Self::Sliding(size, period) => {
                for row in rows {
                    let last = row.t.div_euclid(period) * period;
                    let starts = (0..).map(|n| last - n * period);
                    for start in starts.take_while(|start| start + size > row.t) {
                        add(row.k, start, start + size, row.v);
                    }
                }
            }
            Self::Sessions(gap) => {
                let mut sorted = rows.to_vec();
                sorted.sort_by_key(|row| (row.k, row.t));
                for rows in sorted.chunk_by(|a, b| a.k == b.k && b.t < a.t + gap) {
                    for row in rows {
                        add(row.k, rows[0].t, rows[rows.len() - 1].t + gap, row.v);
                    }
                }
            }
        }
        results
    }
}

fn pipeline(windowing: Windowing, out_of_orderness: i64) -> Pipeline {
    let pipeline = Pipeline::new("windows");
    let (results, late) = pipeline
        .read("rows", scripted("k: 0; t: 0; v: 0"))
        .assign_timestamps(
            col("t"),
            Watermarks::bounded_out_of_orderness(ms(out_of_orderness)),
        )
        .window(windowing)
        .group_by([col("k")])
        .agg_with_late([count(lit(1)).alias("n"), sum(col("v")).alias("sum")]);
    results.named("results").write(connectors::collect().0);
    late.named("late").write(connectors::collect().0);
    pipeline
}

/// A run of chance: rows within `most_behind` of the latest before them, if that is given.
struct Case {
    number: u64,
    rng: ChaCha8Rng,
    windows: Windows,
    out_of_orderness: i64,
    lateness: i64,
}

impl Case {
    fn new(number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let windows = match rng.random_range(0..3) {
            0 => Windows::Fixed(rng.random_range(1..50)),
            1 => {
                let period = rng.random_range(1..30);
                Windows::Sliding(period + rng.random_range(0..60), period)
            }
            _ => Windows::Sessions(rng.random_range(1..30)),
        };
        Self {
            number,
            out_of_orderness: [0, 10, 60][rng.random_range(0..3)],
            lateness: [0, 30, 500][rng.random_range(0..3)],
            windows,
            rng,
        }
    }

    /// Rows in the order in which they come: each at most as far behind an earlier one.
    fn rows(&mut self, most_behind: i64) -> Vec<Row> {
        let n_rows = self.rng.random_range(1..60);
        let mut rows: Vec<(i64, Row)> = (0..n_rows)
            .map(|_| {
                let t = self.rng.random_range(-100..300);
                let behind = self.rng.random_range(0..=most_behind);
                let (k, v) = (self.rng.random_range(0..4), self.rng.random_range(-9..10));
                (t + behind, Row { k, t, v })
            })
            .collect();
        rows.sort_by_key(|(arrival, row)| (*arrival, row.t));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn trigger(&mut self) -> Trigger {
        let some = self.rng.random_range(1..4);
        match self.rng.random_range(0..5) {
            0 => Trigger::Default,
            1 => Trigger::after_watermark()
                .early(Trigger::after_count(some))
                .late(Trigger::after_count(1)),
            2 => Trigger::after_watermark().late(Trigger::after_count(1)),
            3 => Trigger::after_count(some).repeatedly(),
            _ => Trigger::after_processing_time(ms(5)).repeatedly(),
        }
    }

    /// The rows in batches over splits, with restarts, and time that passes.
    fn script(&mut self, rows: &[Row]) -> Script {
        let n_splits = self.rng.random_range(1..4);
        let mut script = Script::new();
        let (mut at, mut now) = (0, 0);
        while at < rows.len() {
            match self.rng.random_range(0..8) {
                0 => script = script.restart(self.rng.random_range(1..5)),
                1 => {
                    now += self.rng.random_range(1..10);
                    script = script.processing_time(now);
                }
                _ => {
                    let n = self.rng.random_range(1..=(rows.len() - at).min(8));
                    let split = self.rng.random_range(0..n_splits);
                    script = script.batch("rows", split, batch(&rows[at..at + n]));
                    at += n;
                }
            }
        }
        script.end("rows")
    }

    fn simulate(&mut self, windowing: Windowing, rows: &[Row]) -> Simulated {
        let pipeline = pipeline(
            windowing.allowed_lateness(ms(self.lateness)),
            self.out_of_orderness,
        );
        let script = self.script(rows);
        let n_workers = self.rng.random_range(1..5);
        simulate(&pipeline, &script, n_workers, self.number)
            .unwrap_or_else(|error| panic!("case {}: {error}", self.number))
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let column = |of: fn(&Row) -> i64| -> String {
        let all: Vec<String> = rows.iter().map(|row| of(row).to_string()).collect();
        all.join(", ")
    };
    table(&format!(
        "k: {}; t: {}; v: {}",
        column(|r| r.k),
        column(|r| r.t),
        column(|r| r.v)
    ))
}

fn integers(rows: &RecordBatch, name: &str) -> Vec<i64> {
    rows[name].as_primitive::<Int64Type>().values().to_vec()
}

fn times(rows: &RecordBatch, name: &str) -> Vec<i64> {
    let times = rows[name].as_primitive::<TimestampMillisecondType>();
    times.values().to_vec()
}

/// A pane as it left: its key and window, its count and sum, how it changes the results.
struct Pane {
    of: (i64, i64, i64),
    value: (i64, i64),
    diff: i64,
    timing: Option<String>,
}

fn panes(batches: &[RecordBatch]) -> Vec<Pane> {
    let mut panes = Vec::new();
    for rows in batches {
        let (k, n, sum) = (
            integers(rows, "k"),
            integers(rows, "n"),
            integers(rows, "sum"),
        );
        let (start, end) = (times(rows, "window_start"), times(rows, "window_end"));
        let diffs = rows.column_by_name("diff");
        let timings = rows.column_by_name("pane").map(|pane| {
            let timing = pane.as_struct().column_by_name("timing").unwrap();
            arrow::compute::cast(timing, &arrow::datatypes::DataType::Utf8).unwrap()
        });
        for row in 0..rows.num_rows() {
            panes.push(Pane {
                of: (k[row], start[row], end[row]),
                value: (n[row], sum[row]),
                diff: diffs.map_or(1, |d| d.as_primitive::<Int8Type>().value(row).into()),
                timing: timings
                    .as_ref()
                    .map(|t| t.as_string::<i32>().value(row).to_owned()),
            });
        }
    }
    panes
}

fn cases() -> impl Iterator<Item = Case> {
    let number = |name: &str, default: u64| {
        let given = std::env::var(name).ok();
        given.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (first, n) = (number("MAINSTEM_SEED", 1), number("MAINSTEM_CASES", 150));
    println!("{n} cases from MAINSTEM_SEED={first}");
    (first..first + n).map(Case::new)
}

/// Rows within the out-of-orderness and the lateness: nothing is late, and when all is taken back that is taken
/// back, what stays are the results over all rows.
#[test]
fn retracting_panes_sum_to_the_results_over_all_rows() {
    for mut case in cases() {
        let rows = case.rows(case.out_of_orderness + case.lateness);
        let trigger = case.trigger();
        let windowing = case
            .windows
            .windowing()
            .trigger(trigger.clone())
            .accumulation(Accumulation::AccumulatingAndRetracting);
        let simulated = case.simulate(windowing, &rows);
        let mut kept: BTreeMap<_, i64> = BTreeMap::new();
        for pane in panes(&simulated.rows("results")) {
            *kept.entry((pane.of, pane.value)).or_default() += pane.diff;
        }
        kept.retain(|_, n| *n != 0);
        let expected = case.windows.over(&rows).into_iter().map(|of| (of, 1));
        let what = format!("case {}: {:?}, {trigger:?}", case.number, case.windows);
        assert_eq!(kept, expected.collect(), "{what}");
        assert!(simulated.rows("late").is_empty(), "{what}");
    }
}

/// Rows of any time: each is in the results or late, never both and never lost.
#[test]
fn rows_in_are_rows_out_and_rows_late() {
    for mut case in cases() {
        let rows = case.rows(400);
        if matches!(case.windows, Windows::Sliding(..)) {
            // A row is in several windows, and may be late for some.
            case.windows = Windows::Fixed(20);
        }
        let trigger = case.trigger();
        let windowing = case.windows.windowing().trigger(trigger.clone());
        let simulated = case.simulate(windowing, &rows);
        let n_out: i64 = panes(&simulated.rows("results"))
            .iter()
            .map(|p| p.value.0)
            .sum();
        let n_late: usize = simulated
            .rows("late")
            .iter()
            .map(RecordBatch::num_rows)
            .sum();
        assert_eq!(
            n_out + n_late as i64,
            rows.len() as i64,
            "case {}: {:?}, {trigger:?}",
            case.number,
            case.windows
        );
    }
}

/// Until the watermark of the one split has passed the end of a window, its results are early.
#[test]
fn no_window_fires_on_time_before_its_time() {
    for mut case in cases() {
        let rows = case.rows(case.out_of_orderness + case.lateness);
        let trigger = case.trigger();
        let windowing = case.windows.windowing().trigger(trigger.clone());
        let lateness = ms(case.lateness);
        let pipeline = pipeline(windowing.allowed_lateness(lateness), case.out_of_orderness);
        let script = rows.iter().fold(Script::new(), |script, row| {
            script.batch("rows", 0, batch(std::slice::from_ref(row)))
        });
        let n_workers = case.rng.random_range(1..5);
        let simulated = simulate(&pipeline, &script, n_workers, case.number).unwrap();
        let mut watermark = i64::MIN;
        let mut n_on_time = 0;
        for (row, made) in rows.iter().zip(simulated.steps("results")) {
            let before = watermark;
            watermark = watermark.max(row.t - case.out_of_orderness);
            for pane in panes(made) {
                let (_, _, end) = pane.of;
                let is_early = pane.timing.as_deref() == Some("early");
                n_on_time += usize::from(!is_early);
                // A row is taken in before the watermark that it makes goes on.
                let may_be = match is_early {
                    true => before < end,
                    false => watermark >= end,
                };
                assert!(
                    may_be,
                    "case {}: {:?}, {trigger:?}, watermark {watermark}, early {is_early}, window up to {end}",
                    case.number, case.windows
                );
            }
        }
        // All windows that the watermark has passed have fired.
        let passed = case.windows.over(&rows).into_keys();
        let passed = passed.filter(|(_, _, end)| watermark >= *end).count();
        if matches!(trigger, Trigger::Default) && !matches!(case.windows, Windows::Sessions(_)) {
            assert!(n_on_time >= passed, "case {}", case.number);
        }
    }
}

/// What an analyzer learns of each key in each window is what it learns of those rows alone.
#[test]
fn analyzers_learn_of_each_window() {
    use arrow::datatypes::{Float64Type, UInt64Type};
    use mainstem::engine::aggregates::analyzed;
    use mainstem::engine::expression::cast;
    use mainstem::transforms::analyzers::Moments;

    let pipeline = Pipeline::new("moments");
    pipeline
        .read("rows", scripted("k: 0; t: 0; v: 0"))
        .assign_timestamps(col("t"), Watermarks::monotone())
        .window(Windowing::fixed(ms(10)))
        .group_by([col("k")])
        .agg([analyzed(Moments::new(), [cast(col("v"), DataType::Float64)]).alias("moments")])
        .named("out")
        .write(connectors::collect().0);
    let script = Script::new()
        .rows("rows", "k: 1, 1, 2; t: 1, 2, 3; v: 1, 3, 5")
        .restart(3)
        .rows("rows", "k: 1, 1; t: 9, 12; v: 5, 7")
        .end("rows");
    let simulated = simulate(&pipeline, &script, 2, 1).unwrap();
    let mut learned = Vec::new();
    for rows in simulated.rows("out") {
        let (k, start) = (integers(&rows, "k"), times(&rows, "window_start"));
        let moments = rows["moments"].as_struct();
        let count = moments["count"].as_primitive::<UInt64Type>();
        let mean = moments["mean"].as_primitive::<Float64Type>();
        let variance = moments["variance"].as_primitive::<Float64Type>();
        for row in 0..rows.num_rows() {
            let values = (count.value(row), mean.value(row), variance.value(row));
            learned.push(format!("{} from {}: {values:?}", k[row], start[row]));
        }
    }
    learned.sort();
    // Of 1, 3 and 5 the mean is 3, and the mean of 4, 0 and 4 is 8/3.
    let third = 8.0 / 3.0;
    let expected = [
        format!("1 from 0: (3, 3.0, {third:?})"),
        "1 from 10: (1, 7.0, 0.0)".to_owned(),
        "2 from 0: (1, 5.0, 0.0)".to_owned(),
    ];
    assert_eq!(learned, expected);
}

/// A source that is silent holds everything back, until the clock says that it has been silent for too long.
#[test]
fn a_silent_source_is_left_out_when_the_clock_says_so() {
    use futures::StreamExt;
    use mainstem::engine::{CancelToken, Clock};

    let clock = Clock::manual(1_000);
    let schema = table("k: 0; t: 0; v: 0").schema();
    let (active, rows) = futures::channel::mpsc::unbounded::<Result<RecordBatch, Error>>();
    let silent = futures::stream::pending::<Result<RecordBatch, Error>>();
    let pipeline = Pipeline::new("silent");
    let source = |name: &str, stream: futures::stream::BoxStream<'static, _>| {
        let source = connectors::from_stream(schema.clone(), stream).bounded(false);
        pipeline.read(name, source)
    };
    let all = source("active", rows.boxed()).union(&[source("silent", silent.boxed())]);
    let (sink, mut results) = connectors::into_stream();
    all.assign_timestamps(col("t"), Watermarks::monotone().idle_after(ms(500)))
        .window(Windowing::fixed(ms(10)))
        .group_by([col("k")])
        .agg([sum(col("v")).alias("sum")])
        .write(sink);
    let cancel = CancelToken::new();
    let options = RunOptions::new().workers(2).clock(clock.clone());
    let running = pipeline.run_async(&options.cancel(cancel.clone()));
    active
        .unbounded_send(Ok(table("k: 1; t: 3; v: 5")))
        .unwrap();
    active
        .unbounded_send(Ok(table("k: 1; t: 30; v: 7")))
        .unwrap();
    // Whether the rows are there before or after the clock is moved: the window fires once both have been.
    let first = std::thread::spawn(move || {
        futures::executor::block_on(async {
            loop {
                let rows = results.next().await.unwrap().unwrap();
                if rows.num_rows() > 0 {
                    return integers(&rows, "sum");
                }
            }
        })
    });
    let mut now = 1_000;
    while !first.is_finished() {
        now += 100;
        clock.advance_to(now);
        assert!(now < 1_000_000_000, "no window has fired");
        std::thread::yield_now();
    }
    assert_eq!(first.join().unwrap(), [5]);
    cancel.cancel();
    assert!(
        futures::executor::block_on(running)
            .unwrap_err()
            .is_stopped()
    );
}
