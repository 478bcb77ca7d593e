//! Random rows that move from window to window, compared with changes that come one instant after the other, each with
//! the time of its row.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{Int8Type, Int64Type};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::random::{Asks, Step, aggregates, asks, step, windowings, with_time_as_value};
use super::{correcting, ms};
use crate::aggregates::count;
use crate::connectors::collect;
use crate::event_time::event_times;
use crate::expression::{col, lit};
use crate::ops::Upserts;
use crate::testing::{Script, changelog, contents_at, scripted_with, show_rows, simulate};
use crate::windowing::{Sessions, Trigger, Windowing};
use crate::{Collection, Pipeline};

/// A row: its id, its key, its value, when it was, and how much later it takes effect.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: i64,
    k: i64,
    x: i64,
    at: i64,
    delay: i64,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0i64..5, 0i64..2, -2i64..3, 0i64..60, 0i64..8, any::<u16>());
    prop::collection::vec(row, 1..30).prop_map(|rows| {
        let mut arriving: Vec<(i64, Row)> = rows
            .into_iter()
            .map(|(id, k, x, at, delay, late)| {
                let row = Row {
                    id,
                    k,
                    x,
                    at,
                    delay,
                };
                // About in the order of event time.
                ((at + delay) * 4000 + i64::from(late), row)
            })
            .collect();
        arriving.sort_by_key(|(at, _)| *at);
        arriving.into_iter().map(|(_, row)| row).collect()
    })
}

/// A change as windows are to see it: when it takes effect, the row, and by how much.
type Change = (i64, [i64; 4], i8);

const VALUES: [&str; 4] = ["id", "k", "x", "at"];

/// What is asked of windows leaves by "out", and what is too late by "late".
fn ask(rows: &Collection, windowing: Windowing, asks: Asks) {
    let windowing = match asks {
        Asks::Times(combiner) => windowing.timestamp_combiner(combiner),
        Asks::Aggregates | Asks::First(_) => windowing,
    };
    let grouped = rows.window(windowing).group_by([col("k")]);
    let (made, late) = match asks {
        Asks::Times(_) => grouped.agg_with_late([count(lit(1)).alias("n")]),
        Asks::Aggregates => grouped.agg_with_late(aggregates()),
        Asks::First(n_rows) => {
            let order = [col("x").sort(false, false), col("id").sort(true, false)];
            grouped.top_k_with_late(n_rows, order)
        }
    };
    let mut columns = match asks {
        Asks::Aggregates => vec!["k", "n", "sum", "min", "mean", "distinct"],
        Asks::First(_) => vec!["k", "id", "x"],
        Asks::Times(_) => vec!["k", "n"],
    };
    columns.extend(["window_start", "window_end", "event_time", "diff"]);
    made.select(columns.into_iter().map(col))
        .named("out")
        .write(collect().0);
    late.changes()
        .select(["id", "k", "x", "at", "change"].map(col))
        .named("late")
        .write(collect().0);
}

fn text(rows: &[Row], times: impl Fn(&Row) -> i64) -> String {
    let column = |of: &dyn Fn(&Row) -> i64| {
        rows.iter()
            .map(|r| of(r).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!(
        "id: {}; k: {}; x: {}; at: {}; event_time: {}",
        column(&|r| r.id),
        column(&|r| r.k),
        column(&|r| r.x),
        column(&|r| r.at),
        column(&times),
    )
}

fn windowings_that_merge() -> impl Strategy<Value = Windowing> {
    let triggers = prop_oneof![
        Just(Trigger::Default),
        Just(
            Trigger::after_watermark()
                .early(Trigger::always())
                .late(Trigger::always())
        ),
    ];
    (1u64..8, triggers, prop_oneof![Just(0u64), 1u64..30]).prop_map(|(gap, trigger, lateness)| {
        let sessions = Windowing::of(Sessions::with_gap(ms(gap)));
        correcting(sessions, lateness).trigger(trigger)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    /// However many instants the watermark passes at once, and however rows are dealt to workers that are restarted:
    /// what windows have given is what they give of changes that come instant by instant.
    #[test]
    fn rows_that_move_are_taken_back_where_they_were(
        rows in rows(),
        steps in prop::collection::vec(step(), 1..30),
        windowing in prop_oneof![2 => windowings(), 1 => windowings_that_merge()],
        n_workers in 1usize..4,
        seed in any::<u64>(),
        asks in asks(),
    ) {
        let pipeline = Pipeline::new("moves");
        let schema = changelog("id: 1; k: 1; x: 1; at: 1; event_time: 1").schema();
        let source = pipeline.read("rows", scripted_with(schema));
        let upserts = Upserts::new(["id"])
            .deletes(col("x").eq(lit(-2)))
            .allowed_lateness(ms(10));
        let there = source.upserts_with(upserts);
        there.named("there").changes().named("moves").write(collect().0);
        ask(&there, windowing.clone().row_time(col("at")), asks);

        let mut script = Script::new();
        let (mut rest, mut watermark) = (&rows[..], 0);
        // The watermark after each step.
        let mut watermarks = Vec::new();
        for (n, step) in steps.iter().chain(&[Step::Rows(rows.len())]).enumerate() {
            script = match step {
                Step::Rows(n_rows) => {
                    let (part, others) = rest.split_at((*n_rows).min(rest.len()));
                    rest = others;
                    let padded = [&[Row { id: 0, k: 0, x: 0, at: 0, delay: 0 }], part].concat();
                    let split = u32::try_from(n % 3).unwrap();
                    let part = changelog(&text(&padded, |r| r.at + r.delay)).slice(1, part.len());
                    script.batch("rows", split, part)
                }
                Step::Watermark(by) => {
                    watermark += by;
                    script.watermark("rows", watermark)
                }
                Step::Restart(n_workers) => script.restart(*n_workers),
            };
            watermarks.push(watermark);
        }
        watermarks.push(i64::MAX);
        let made = simulate(&pipeline, &script.end("rows"), n_workers, seed).unwrap();

        let mut changes: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
        for batch in made.rows("moves") {
            let values = VALUES.map(|name| batch[name].as_primitive::<Int64Type>().clone());
            let diffs = batch["change"].as_primitive::<Int8Type>().clone();
            for (row, effect) in event_times(&batch).unwrap().iter().enumerate() {
                let of_row = values.each_ref().map(|column| column.value(row));
                changes.entry(*effect).or_default().push((*effect, of_row, diffs.value(row)));
            }
        }
        let reference = Pipeline::new("reference");
        let schema = changelog("id: 1; k: 1; x: 1; at: 1; event_time: 1; diff: 1").schema();
        ask(&reference.read("rows", scripted_with(schema)), windowing, asks);
        let (mut script, mut n_steps) = (Script::new(), 0);
        // How many steps it takes until all changes have come that the watermark has passed.
        let mut steps_until = Vec::new();
        let mut to_come = changes.into_iter().peekable();
        for watermark in &watermarks {
            while let Some((effect, of_instant)) = to_come.next_if(|(effect, _)| effect < watermark) {
                let column = |of: &dyn Fn(&Change) -> i64| {
                    of_instant.iter().map(|c| of(c).to_string()).collect::<Vec<_>>().join(", ")
                };
                let [id, k, x, at] = [0, 1, 2, 3].map(|n| column(&|c| c.1[n]));
                let diff = column(&|c| c.2.into());
                let text = format!("id: {id}; k: {k}; x: {x}; at: {at}; event_time: {at}; diff: {diff}");
                script = script.watermark("rows", effect).batch("rows", 0, changelog(&text));
                n_steps += 2;
            }
            script = match *watermark == i64::MAX {
                true => script.end("rows"),
                false => script.watermark("rows", *watermark),
            };
            n_steps += 1;
            steps_until.push(n_steps);
        }
        let expected = simulate(&reference, &script, 1, 0).unwrap();
        let timed = |steps: &[Vec<RecordBatch>]| -> Vec<Vec<RecordBatch>> {
            let timed = |rows: &Vec<RecordBatch>| rows.iter().map(with_time_as_value).collect();
            steps.iter().map(timed).collect()
        };
        let (steps, of_reference) = (timed(made.steps("out")), timed(expected.steps("out")));
        for (n, until) in steps_until.iter().enumerate() {
            let contents = contents_at(&steps[..=n].concat(), None);
            prop_assert_eq!(contents, contents_at(&of_reference[..*until].concat(), None), "after step {}", n);
        }
        prop_assert_eq!(show_rows(&made.rows("late")), show_rows(&expected.rows("late")));
    }
}
