//! Random changelogs, in any order and dealt to any number of workers, compared with a computation from nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::{correcting, fixed, ms};
use crate::aggregates::*;
use crate::connectors::collect;
use crate::event_time::EVENT_TIME;
use crate::expression::{col, lit};
use crate::ops::group_by::windowed::tests::corrected::given_and_taken_back;
use crate::testing::{Script, changelog, contents_at, scripted_with, show_rows, simulate};
use crate::windowing::{SlidingWindows, TimestampCombiner, Trigger, Window, Windowing};
use crate::{Expr, Pipeline};

/// A change: key, value, event time, and whether the row is taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) k: i64,
    pub(super) x: Option<i64>,
    pub(super) time: i64,
    pub(super) diff: i64,
}

impl Change {
    /// As it leaves where it is too late.
    pub(super) fn shown(&self) -> String {
        let x = self.x.map_or("null".into(), |x| x.to_string());
        let Self { k, time, diff, .. } = self;
        format!("k={k} x={x} event_time={time} diff={diff}")
    }
}

/// Rows, some of which are taken back; in the order in which they come.
pub(super) fn changes() -> impl Strategy<Value = Vec<Change>> {
    changes_not_all_added(0.0)
}

/// The same, where this share of the rows is never added.
pub(super) fn changes_not_all_added(share: f64) -> impl Strategy<Value = Vec<Change>> {
    let row = (
        0i64..3,
        prop::option::weighted(0.9, -4i64..5),
        0i64..50,
        any::<bool>(),
        any::<(u16, u16)>(),
        prop::bool::weighted(share),
    );
    prop::collection::vec(row, 1..25).prop_map(|rows| {
        let mut arriving = Vec::new();
        for (k, x, time, is_taken_back, (at, back_at), is_never_added) in rows {
            let change = |diff| Change { k, x, time, diff };
            // About in the order of event time.
            if !is_never_added {
                arriving.push((time * 2000 + i64::from(at), change(1)));
            }
            if is_taken_back {
                arriving.push((time * 2000 + i64::from(back_at) * 2, change(-1)));
            }
        }
        arriving.sort_by_key(|(at, _)| *at);
        arriving.into_iter().map(|(_, change)| change).collect()
    })
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// So many changes.
    Rows(usize),
    /// The watermark moves on.
    Watermark(i64),
    Restart(usize),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..6).prop_map(Step::Rows),
        3 => (1i64..12).prop_map(Step::Watermark),
        1 => (1usize..4).prop_map(Step::Restart),
    ]
}

pub(super) fn aggregates() -> Vec<Expr> {
    vec![
        count(lit(1)).alias("n"),
        sum(col("x")).alias("sum"),
        min(col("x")).alias("min"),
        avg(col("x")).alias("mean"),
        count_distinct(col("x")).alias("distinct"),
    ]
}

/// Values, and by how much each changes how often it is there.
pub(super) type Values = Vec<(Option<i64>, i64)>;

/// What has been taken in of a changelog, and what windows make of it.
pub(super) trait Computed {
    fn add(&mut self, change: &Change);

    fn advance(&mut self, watermark: i64);

    /// At the end: true if all that windows have taken back has been added, in time or too late; false if some was not;
    /// none where that depends on the order in which what came too late reached the window.
    fn is_sound(&self) -> Option<bool>;

    /// What windows have given and not taken back; and the keys and windows of which it cannot be told, because they have
    /// taken back what was not added to them.
    fn contents(&self) -> (Vec<String>, Vec<(i64, Window)>);

    /// Changes that came too late.
    fn late(&self) -> Vec<String>;
}

/// What is asked of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Aggregates,
    /// So many rows with the greatest values.
    First(usize),
    /// How many rows there are, and the event time that this makes of theirs.
    Times(TimestampCombiner),
}

impl Asks {
    /// What it asks of a row.
    pub(super) fn value_of(self, x: Option<i64>, time: i64) -> Option<i64> {
        match self {
            Self::Times(_) => Some(time),
            Self::Aggregates | Self::First(_) => x,
        }
    }
}

/// What is given of a key in a window with these values, a line for each row.
pub(super) fn lines_of(asks: Asks, k: i64, window: Window, rows: &[Option<i64>]) -> Vec<String> {
    let n_rows = match asks {
        Asks::First(n_rows) => n_rows,
        Asks::Aggregates => return vec![line_of(k, window, rows)],
        Asks::Times(combiner) => {
            let times = rows.iter().flatten();
            let time = match combiner {
                TimestampCombiner::EndOfWindow => Some(window.end - 1),
                TimestampCombiner::Earliest => times.min().copied(),
                TimestampCombiner::Latest => times.max().copied(),
            };
            let Window { start, end } = window;
            return vec![format!(
                "k={k} n={} window_start={start} window_end={end} at={}",
                rows.len(),
                time.unwrap()
            )];
        }
    };
    let mut rows = rows.to_vec();
    // Null is less than all numbers.
    rows.sort_by_key(|x| std::cmp::Reverse(*x));
    let first = rows.into_iter().take(n_rows);
    let Window { start, end } = window;
    let lines = first.map(|x| {
        let x = x.map_or("null".to_owned(), |x| x.to_string());
        format!("k={k} x={x} window_start={start} window_end={end}")
    });
    lines.collect()
}

fn line_of(k: i64, window: Window, rows: &[Option<i64>]) -> String {
    let values: Vec<i64> = rows.iter().flatten().copied().collect();
    let text = |value: Option<String>| value.unwrap_or_else(|| "null".into());
    let sum = (!values.is_empty()).then(|| values.iter().sum::<i64>());
    let mean = sum.map(|sum| format!("{:?}", sum as f64 / values.len() as f64));
    let distinct: std::collections::BTreeSet<_> = values.iter().collect();
    format!(
        "k={k} n={} sum={} min={} mean={} distinct={} window_start={} window_end={}",
        rows.len(),
        text(sum.map(|sum| sum.to_string())),
        text(values.iter().min().map(ToString::to_string)),
        text(mean),
        distinct.len(),
        window.start,
        window.end,
    )
}

/// All changes of all windows that have been taken in, by key and window.
struct Naive {
    asks: Asks,
    windowing: Windowing,
    early: bool,
    watermark: i64,
    of: BTreeMap<(i64, Window), Values>,
    /// What came too late for a window.
    too_late: BTreeMap<(i64, Window), Values>,
    late: Vec<String>,
}

/// Whether what was owed by changes that came in time is settled by those that came too late.
pub(super) fn is_settled(
    in_time: &[(Option<i64>, i64)],
    too_late: &[(Option<i64>, i64)],
) -> Option<bool> {
    let added = too_late.iter().copied().filter(|(_, diff)| *diff > 0);
    if Naive::there(in_time).is_some() || Naive::there(&[in_time, too_late].concat()).is_some() {
        return Some(true);
    }
    let added: Values = in_time.iter().copied().chain(added).collect();
    Naive::there(&added).is_none().then_some(false)
}

/// What holds of all.
pub(super) fn all_sound(all: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut is_sound = Some(true);
    for one in all {
        match one {
            Some(true) => {}
            Some(false) => return Some(false),
            None => is_sound = None,
        }
    }
    is_sound
}

impl Naive {
    /// The values that are there, each as often as it is; `None` where one is there less often than not at all.
    fn there(changes: &[(Option<i64>, i64)]) -> Option<Vec<Option<i64>>> {
        let mut values: BTreeMap<Option<i64>, i64> = BTreeMap::new();
        for (x, diff) in changes {
            *values.entry(*x).or_default() += diff;
        }
        let mut there = Vec::new();
        for (x, n) in values {
            let n = usize::try_from(n).ok()?;
            there.extend(std::iter::repeat_n(x, n));
        }
        Some(there)
    }
}

impl Computed for Naive {
    fn add(&mut self, change: &Change) {
        let mut windows = Vec::new();
        self.windowing.window_fn.assign(change.time, &mut windows);
        let is_over = |w: &Window| w.end + self.windowing.allowed_lateness_ms <= self.watermark;
        if !windows.is_empty() && windows.iter().all(is_over) {
            self.late.push(change.shown());
        }
        let (over, open): (Vec<Window>, Vec<Window>) = windows.into_iter().partition(is_over);
        for (of, windows) in [(&mut self.of, open), (&mut self.too_late, over)] {
            for window in windows {
                let of = of.entry((change.k, window)).or_default();
                of.push((self.asks.value_of(change.x, change.time), change.diff));
            }
        }
    }

    fn advance(&mut self, watermark: i64) {
        self.watermark = watermark;
    }

    fn is_sound(&self) -> Option<bool> {
        all_sound(self.of.iter().map(|(of, changes)| {
            let too_late = self.too_late.get(of).map_or(&[][..], Vec::as_slice);
            is_settled(changes, too_late)
        }))
    }

    /// What windows have given that have ended, or all.
    fn contents(&self) -> (Vec<String>, Vec<(i64, Window)>) {
        let (mut lines, mut unknown) = (Vec::new(), Vec::new());
        for ((k, window), changes) in &self.of {
            if window.end > self.watermark && !self.early {
                continue;
            }
            match Self::there(changes) {
                Some(rows) if rows.is_empty() => {}
                Some(rows) => lines.extend(lines_of(self.asks, *k, *window, &rows)),
                None => unknown.push((*k, *window)),
            }
        }
        (lines, unknown)
    }

    fn late(&self) -> Vec<String> {
        self.late.clone()
    }
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

pub(super) fn windowings() -> impl Strategy<Value = Windowing> {
    let windows = prop_oneof![
        Just(fixed(10)),
        Just(Windowing::of(SlidingWindows::of(ms(20)).every(ms(8)))),
        // With gaps, in which rows are in no window.
        Just(Windowing::of(SlidingWindows::of(ms(6)).every(ms(9)))),
        Just(Windowing::of(super::Tens { overlap: true })),
    ];
    let triggers = prop_oneof![
        Just(Trigger::Default),
        Just(
            Trigger::after_watermark()
                .early(Trigger::always())
                .late(Trigger::always())
        ),
    ];
    (windows, triggers, prop_oneof![Just(0u64), 1u64..30])
        .prop_map(|(windows, trigger, lateness)| correcting(windows, lateness).trigger(trigger))
}

/// After every step windows have given what a computation from nothing gives of the changes that were not too late,
/// no window before its end, and the late port those that were. Where a window has taken back what was never added, not
/// even too late, the run ends with it.
pub(super) fn compare(
    mut naive: impl Computed,
    asks: Asks,
    windowing: Windowing,
    changes: &[Change],
    steps: &[Step],
    n_workers: usize,
    seed: u64,
) -> Result<(), TestCaseError> {
    let pipeline = Pipeline::new("test");
    let schema = changelog("k: 1; x: 1; event_time: 1; diff: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema));
    let windowing = match asks {
        Asks::Times(combiner) => windowing.timestamp_combiner(combiner),
        Asks::Aggregates | Asks::First(_) => windowing,
    };
    let grouped = rows.window(windowing).group_by([col("k")]);
    let (results, late) = match asks {
        Asks::Aggregates => grouped.agg_with_late(aggregates()),
        Asks::Times(_) => grouped.agg_with_late([count(lit(1)).alias("n")]),
        Asks::First(n_rows) => grouped.top_k_with_late(n_rows, [col("x").sort(false, false)]),
    };
    let mut columns = match asks {
        Asks::Aggregates => vec!["k", "n", "sum", "min", "mean", "distinct"],
        Asks::First(_) => vec!["k", "x"],
        Asks::Times(_) => vec!["k", "n"],
    };
    columns.extend(["window_start", "window_end", "event_time", "diff"]);
    results
        .select(columns.into_iter().map(col))
        .named("out")
        .write(collect().0);
    late.named("late").write(collect().0);

    let mut script = Script::new();
    let mut rest = changes;
    let mut expected = Vec::new();
    let mut watermark = 0;
    let last = [Step::Rows(changes.len())];
    for (n, step) in steps.iter().chain(&last).enumerate() {
        script = match step {
            Step::Rows(n_rows) => {
                let (part, others) = rest.split_at((*n_rows).min(rest.len()));
                rest = others;
                part.iter().for_each(|change| naive.add(change));
                let column =
                    |of: fn(&Change) -> String| part.iter().map(of).collect::<Vec<_>>().join(", ");
                let text = format!(
                    "k: 0, {}; x: 0, {}; event_time: 0, {}; diff: 0, {}",
                    column(|c| c.k.to_string()),
                    column(|c| c.x.map_or("null".into(), |x| x.to_string())),
                    column(|c| c.time.to_string()),
                    column(|c| c.diff.to_string()),
                );
                let split = u32::try_from(n % 3).unwrap();
                script.batch("rows", split, changelog(&text).slice(1, part.len()))
            }
            Step::Watermark(by) => {
                watermark += by;
                naive.advance(watermark);
                script.watermark("rows", watermark)
            }
            Step::Restart(n_workers) => script.restart(*n_workers),
        };
        expected.push(naive.contents());
    }
    naive.advance(i64::MAX);
    let is_sound = naive.is_sound();
    expected.push(naive.contents());
    let made = simulate(&pipeline, &script.end("rows"), n_workers, seed);
    let made = match (made, is_sound) {
        (Ok(made), Some(true) | None) => made,
        (Err(error), Some(false) | None) => {
            let never_added = "a changelog takes back a row that it never added";
            prop_assert!(error.to_string().starts_with(never_added));
            return Ok(());
        }
        (made, _) => {
            let error = made.err().map(|error| error.to_string());
            return Err(TestCaseError::fail(format!(
                "sound: {is_sound:?}, {error:?}"
            )));
        }
    };
    let mut steps = made.steps("out").to_vec();
    if let Asks::Times(_) = asks {
        // The time of a result is one of its values.
        for batch in steps.iter_mut().flatten() {
            *batch = with_time_as_value(batch);
        }
    }
    for (n, (expected, unknown)) in expected.iter_mut().enumerate() {
        let undone = given_and_taken_back(&steps[n]);
        let is_of_lists = matches!(asks, Asks::First(_));
        prop_assert!(
            !is_of_lists || undone.is_empty(),
            "{:?} in step {}",
            undone,
            n
        );
        expected.sort();
        let is_known = |line: &&str| {
            let mut unknown = unknown.iter();
            !unknown.any(|(k, Window { start, end })| {
                let of_window = format!(" window_start={start} window_end={end}");
                line.starts_with(&format!("k={k} ")) && line.contains(&of_window)
            })
        };
        let contents = contents_at(&steps[..=n].concat(), None);
        let contents: Vec<&str> = contents.lines().filter(is_known).collect();
        prop_assert_eq!(&contents, expected, "after step {}", n);
    }
    let mut late = naive.late();
    late.sort();
    prop_assert_eq!(sorted(&show_rows(&made.rows("late"))), late.join("\n"));
    Ok(())
}

/// The rows with their event time in the column `at`.
pub(super) fn with_time_as_value(rows: &RecordBatch) -> RecordBatch {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| match field.name().as_str() {
        EVENT_TIME => ("at", cast(column, &DataType::Int64).unwrap(), false),
        name => (name, Arc::clone(column), field.is_nullable()),
    });
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

pub(super) fn asks() -> impl Strategy<Value = Asks> {
    prop_oneof![
        2 => Just(Asks::Aggregates),
        1 => (1usize..4).prop_map(Asks::First),
        1 => Just(Asks::Times(TimestampCombiner::Earliest)),
        1 => Just(Asks::Times(TimestampCombiner::Latest)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn windows_give_what_a_computation_from_nothing_gives(
        changes in changes_not_all_added(0.005),
        steps in prop::collection::vec(step(), 1..30),
        windowing in windowings(),
        n_workers in 1usize..4,
        seed in any::<u64>(),
        asks in asks(),
    ) {
        let naive = Naive {
            asks,
            early: windowing.trigger != Trigger::Default,
            windowing: windowing.clone(),
            watermark: i64::MIN,
            of: BTreeMap::new(),
            too_late: BTreeMap::new(),
            late: Vec::new(),
        };
        compare(naive, asks, windowing, &changes, &steps, n_workers, seed)?;
    }
}
