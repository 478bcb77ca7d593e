//! First rows in windows of whole pipelines: rows of several splits in any order, compared with a computation from
//! nothing after every step.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::corrected::given_and_taken_back;
use super::{fixed, ms};
use crate::connectors::collect;
use crate::event_time::PANE;
use crate::testing::{Script, contents_at, scripted, simulate, table};
use crate::windowing::{Accumulation, SlidingWindows, Trigger, Window, Windowing};
use crate::{Pipeline, col};

#[derive(Clone, Debug)]
enum Step {
    /// Rows of a split: key, value and event time, these later than the watermark by so much or earlier.
    Rows(u32, Vec<(i64, i64, i64)>),
    Watermark(i64),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let row = (0i64..3, 0i64..4, -15i64..25);
    prop_oneof![
        5 => (0u32..3, prop::collection::vec(row, 1..8)).prop_map(|(of, rows)| Step::Rows(of, rows)),
        3 => (1i64..12).prop_map(Step::Watermark),
        1 => (1usize..4).prop_map(Step::Restart),
    ]
}

fn windowings() -> impl Strategy<Value = Windowing> {
    let windows = prop_oneof![
        Just(fixed(10)),
        Just(Windowing::of(SlidingWindows::of(ms(20)).every(ms(8)))),
    ];
    let early = Trigger::after_watermark()
        .early(Trigger::always())
        .late(Trigger::always());
    let triggers = prop_oneof![Just(Trigger::Default), Just(early)];
    (windows, triggers, prop_oneof![Just(0u64), 1u64..30]).prop_map(
        |(windows, trigger, lateness)| {
            windows
                .trigger(trigger)
                .allowed_lateness(ms(lateness))
                .accumulation(Accumulation::AccumulatingAndRetracting)
        },
    )
}

/// What is read of first rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// All columns, also which firing a row is of.
    Firings,
    Values(&'static [&'static str]),
}

const ALL: &[&str] = &[
    "k",
    "x",
    "id",
    "window_start",
    "window_end",
    "event_time",
    "diff",
];
const ID: &[&str] = &["id", "window_start", "window_end", "event_time", "diff"];

fn reads() -> impl Strategy<Value = Reads> {
    prop_oneof![
        1 => Just(Reads::Firings),
        2 => Just(Reads::Values(ALL)),
        2 => Just(Reads::Values(ID)),
    ]
}

fn without_pane(batches: &[RecordBatch]) -> Vec<RecordBatch> {
    let values = batches.iter().map(|rows| {
        let fields = rows.schema_ref().fields().iter().enumerate();
        let values = fields.filter(|(_, field)| field.name() != PANE);
        rows.project(&values.map(|(n, _)| n).collect::<Vec<_>>())
            .unwrap()
    });
    values.collect()
}

/// A row in the order in which it comes first: its value, its split, its number there; and its name.
type Ranked = (i64, u32, usize, i64);

/// All rows that came in time, by key and window.
struct Naive {
    n_rows: usize,
    reads: Reads,
    windowing: Windowing,
    watermark: i64,
    of: BTreeMap<(i64, Window), Vec<Ranked>>,
    n_late: usize,
}

impl Naive {
    fn add(&mut self, k: i64, time: i64, row: Ranked) {
        let mut windows = Vec::new();
        self.windowing.window_fn.assign(time, &mut windows);
        windows.retain(|w| w.end + self.windowing.allowed_lateness_ms > self.watermark);
        self.n_late += usize::from(windows.is_empty());
        for window in windows {
            self.of.entry((k, window)).or_default().push(row);
        }
    }

    fn contents(&self, early: bool) -> String {
        let mut lines = Vec::new();
        for ((k, window), rows) in &self.of {
            if window.end > self.watermark && !early {
                continue;
            }
            let mut rows = rows.clone();
            rows.sort_unstable();
            let Window { start, end } = window;
            let line = |(x, _, _, id): Ranked| match self.reads {
                Reads::Values(ID) => format!("id={id} window_start={start} window_end={end}"),
                _ => format!("k={k} x={x} id={id} window_start={start} window_end={end}"),
            };
            lines.extend(rows.into_iter().take(self.n_rows).map(line));
        }
        lines.sort();
        lines.join("\n")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    /// Also of rows that are equal under the order those that stand first in their source are there, whichever of their
    /// columns are read. Where nothing reads which firing they are of, none is given that was there, or taken back that
    /// still is.
    #[test]
    fn first_rows_are_those_of_a_computation_from_nothing(
        steps in prop::collection::vec(step(), 1..25),
        n_rows in 1usize..4,
        windowing in windowings(),
        reads in reads(),
        n_workers in 1usize..4,
        seed in any::<u64>(),
    ) {
        let early = windowing.trigger != Trigger::Default;
        let pipeline = Pipeline::new("test");
        let rows = pipeline.read("rows", scripted("k: 1; x: 1; id: 1; event_time: 1"));
        let grouped = rows.window(windowing.clone()).group_by([col("k")]);
        let (first, late) = grouped.top_k_with_late(n_rows, [col("x").sort(true, false)]);
        let first = match reads {
            Reads::Firings => first,
            Reads::Values(columns) => first.select(columns.iter().map(|name| col(*name))),
        };
        first.named("out").write(collect().0);
        late.named("late").write(collect().0);

        let mut naive = Naive { n_rows, reads, windowing, watermark: 0, of: BTreeMap::new(), n_late: 0 };
        let mut script = Script::new().watermark("rows", 0);
        let mut expected = vec![naive.contents(early)];
        let mut of_split = [0_usize; 3];
        let mut id = 0;
        for step in &steps {
            script = match step {
                Step::Rows(split, rows) => {
                    let mut text = ["k:", "x:", "id:", "event_time:"].map(ToOwned::to_owned);
                    for (n, (k, x, time)) in rows.iter().enumerate() {
                        let time = naive.watermark + time;
                        let number = of_split[*split as usize] + n;
                        naive.add(*k, time, (*x, *split, number, id));
                        for (text, value) in text.iter_mut().zip([*k, *x, id, time]) {
                            let comma = if n == 0 { "" } else { "," };
                            *text += &format!("{comma} {value}");
                        }
                        id += 1;
                    }
                    of_split[*split as usize] += rows.len();
                    script.batch("rows", *split, table(&text.join("; ")))
                }
                Step::Watermark(by) => {
                    naive.watermark += by;
                    script.watermark("rows", naive.watermark)
                }
                Step::Restart(n_workers) => script.restart(*n_workers),
            };
            expected.push(naive.contents(early));
        }
        naive.watermark = i64::MAX;
        expected.push(naive.contents(early));
        let made = simulate(&pipeline, &script.end("rows"), n_workers, seed).unwrap();
        let steps = made.steps("out");
        for (n, expected) in expected.iter().enumerate() {
            let contents = contents_at(&without_pane(&steps[..=n].concat()), None);
            prop_assert_eq!(&contents, expected, "after step {}", n);
            let undone = given_and_taken_back(&steps[n]);
            prop_assert!(reads == Reads::Firings || undone.is_empty(), "{:?} in step {}", undone, n);
        }
        let late = made.rows("late");
        prop_assert_eq!(late.iter().map(|rows| rows.num_rows()).sum::<usize>(), naive.n_late);
    }
}
