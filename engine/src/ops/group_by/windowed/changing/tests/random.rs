//! Random changelogs, in any order and dealt to any number of workers, compared with a computation from nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{correcting, fixed, ms};
use crate::aggregates::*;
use crate::connectors::collect;
use crate::expression::{col, lit};
use crate::testing::{Script, changelog, contents_at, scripted_with, show_rows, simulate};
use crate::windowing::{SlidingWindows, Trigger, Window, Windowing};
use crate::{Expr, Pipeline};

/// A change: key, value, event time, and whether the row is taken back.
#[derive(Clone, Copy, Debug)]
struct Change {
    k: i64,
    x: Option<i64>,
    time: i64,
    diff: i64,
}

/// Rows, some of which are taken back; in the order in which they come.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let row = (
        0i64..3,
        prop::option::weighted(0.9, -4i64..5),
        0i64..50,
        any::<bool>(),
        any::<(u16, u16)>(),
    );
    prop::collection::vec(row, 1..25).prop_map(|rows| {
        let mut arriving = Vec::new();
        for (k, x, time, is_taken_back, (at, back_at)) in rows {
            let change = |diff| Change { k, x, time, diff };
            // About in the order of event time.
            arriving.push((time * 2000 + i64::from(at), change(1)));
            if is_taken_back {
                arriving.push((time * 2000 + i64::from(back_at) * 2, change(-1)));
            }
        }
        arriving.sort_by_key(|(at, _)| *at);
        arriving.into_iter().map(|(_, change)| change).collect()
    })
}

#[derive(Clone, Debug)]
enum Step {
    /// So many changes.
    Rows(usize),
    /// The watermark moves on.
    Watermark(i64),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..6).prop_map(Step::Rows),
        3 => (1i64..12).prop_map(Step::Watermark),
        1 => (1usize..4).prop_map(Step::Restart),
    ]
}

fn aggregates() -> Vec<Expr> {
    vec![
        count(lit(1)).alias("n"),
        sum(col("x")).alias("sum"),
        min(col("x")).alias("min"),
        avg(col("x")).alias("mean"),
        count_distinct(col("x")).alias("distinct"),
    ]
}

/// Values, and by how much each changes how often it is there.
type Values = Vec<(Option<i64>, i64)>;

/// All changes of all windows that have been taken in, by key and window.
struct Naive {
    windowing: Windowing,
    watermark: i64,
    of: BTreeMap<(i64, Window), Values>,
    late: Vec<String>,
}

impl Naive {
    fn add(&mut self, change: &Change) {
        let mut windows = Vec::new();
        self.windowing.window_fn.assign(change.time, &mut windows);
        let n_windows = windows.len();
        windows.retain(|w| w.end + self.windowing.allowed_lateness_ms > self.watermark);
        if windows.is_empty() && n_windows > 0 {
            let x = change.x.map_or("null".into(), |x| x.to_string());
            let Change { k, time, diff, .. } = change;
            self.late
                .push(format!("k={k} x={x} event_time={time} diff={diff}"));
        }
        for window in windows {
            let of = self.of.entry((change.k, window)).or_default();
            of.push((change.x, change.diff));
        }
    }

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

    /// True if a window that is over has taken back what was never added to it.
    fn is_unsound(&self) -> bool {
        let lateness = self.windowing.allowed_lateness_ms;
        let mut over = self
            .of
            .iter()
            .filter(|((_, w), _)| w.end.saturating_add(lateness) <= self.watermark);
        over.any(|(_, changes)| Self::there(changes).is_none())
    }

    /// What windows have given that have ended, or all; only where nothing is taken back that was never added.
    fn contents(&self, early: bool) -> Option<String> {
        let mut lines = Vec::new();
        for ((k, window), changes) in &self.of {
            if window.end > self.watermark && !early {
                continue;
            }
            let rows = Self::there(changes)?;
            if rows.is_empty() {
                continue;
            }
            let values: Vec<i64> = rows.iter().flatten().copied().collect();
            let text = |value: Option<String>| value.unwrap_or_else(|| "null".into());
            let sum = (!values.is_empty()).then(|| values.iter().sum::<i64>());
            let mean = sum.map(|sum| format!("{:?}", sum as f64 / values.len() as f64));
            let distinct: std::collections::BTreeSet<_> = values.iter().collect();
            lines.push(format!(
                "k={k} n={} sum={} min={} mean={} distinct={} window_start={} window_end={}",
                rows.len(),
                text(sum.map(|sum| sum.to_string())),
                text(values.iter().min().map(ToString::to_string)),
                text(mean),
                distinct.len(),
                window.start,
                window.end,
            ));
        }
        lines.sort();
        Some(lines.join("\n"))
    }
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn windowings() -> impl Strategy<Value = Windowing> {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    /// After every step windows have given what a computation from nothing gives of the changes that were not too
    /// late, no window before its end, and the late port those that were. Where a window has taken back what it
    /// never had, the run ends when it closes.
    #[test]
    fn windows_give_what_a_computation_from_nothing_gives(
        changes in changes(),
        steps in prop::collection::vec(step(), 1..30),
        windowing in windowings(),
        n_workers in 1usize..4,
        seed in any::<u64>(),
    ) {
        let early = windowing.trigger != Trigger::Default;
        let pipeline = Pipeline::new("test");
        let schema = changelog("k: 1; x: 1; event_time: 1; diff: 1").schema();
        let rows = pipeline.read("rows", scripted_with(schema));
        let grouped = rows.window(windowing.clone()).group_by([col("k")]);
        let (results, late) = grouped.agg_with_late(aggregates());
        let columns = ["k", "n", "sum", "min", "mean", "distinct", "window_start", "window_end", "event_time", "diff"];
        results.select(columns.map(col)).named("out").write(collect().0);
        late.named("late").write(collect().0);

        let mut naive = Naive { windowing, watermark: i64::MIN, of: BTreeMap::new(), late: Vec::new() };
        let mut script = Script::new();
        let mut rest = changes.as_slice();
        let mut expected = Vec::new();
        let mut watermark = 0;
        let last = [Step::Rows(changes.len())];
        let mut is_sound = true;
        for (n, step) in steps.iter().chain(&last).enumerate() {
            script = match step {
                Step::Rows(n_rows) => {
                    let (part, others) = rest.split_at((*n_rows).min(rest.len()));
                    rest = others;
                    part.iter().for_each(|change| naive.add(change));
                    let column = |of: fn(&Change) -> String| {
                        part.iter().map(of).collect::<Vec<_>>().join(", ")
                    };
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
                    naive.watermark = watermark;
                    script.watermark("rows", watermark)
                }
                Step::Restart(n_workers) => script.restart(*n_workers),
            };
            is_sound &= !naive.is_unsound();
            expected.push(naive.contents(early));
        }
        naive.watermark = i64::MAX;
        is_sound &= !naive.is_unsound();
        expected.push(naive.contents(early));
        let made = simulate(&pipeline, &script.end("rows"), n_workers, seed);
        let made = match (made, is_sound) {
            (Ok(made), true) => made,
            (Err(error), false) => {
                prop_assert!(error.to_string().starts_with("a changelog takes back a row that it never added"));
                return Ok(());
            }
            (made, _) => {
                let error = made.err().map(|error| error.to_string());
                return Err(TestCaseError::fail(format!("sound: {is_sound}, {error:?}")));
            }
        };
        let steps = made.steps("out");
        for (n, expected) in expected.iter().enumerate() {
            if let Some(expected) = expected {
                let contents = contents_at(&steps[..=n].concat(), None);
                prop_assert_eq!(&contents, expected, "after step {}", n);
            }
        }
        naive.late.sort();
        prop_assert_eq!(sorted(&show_rows(&made.rows("late"))), naive.late.join("\n"));
    }
}
