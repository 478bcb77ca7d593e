//! Tests of lists of first rows that are corrected.

use std::collections::BTreeSet;

use arrow::record_batch::RecordBatch;
use expect_test::expect;

use super::{fixed, ms, sessions};
use crate::connectors::collect;
use crate::testing::{Script, changelog, scripted, scripted_with, show_rows, simulate};
use crate::windowing::{Accumulation, TimestampCombiner, Trigger, Windowing};
use crate::{Collection, Pipeline, col};

/// Windows that are corrected, from the first row on.
fn correcting(windowing: Windowing) -> Windowing {
    windowing
        .trigger(
            Trigger::after_watermark()
                .early(Trigger::always())
                .late(Trigger::always()),
        )
        .allowed_lateness(ms(20))
        .accumulation(Accumulation::AccumulatingAndRetracting)
}

/// The rows that these both take back and give.
pub(in crate::ops::group_by::windowed) fn given_and_taken_back(
    rows: &[RecordBatch],
) -> Vec<String> {
    let shown = show_rows(rows);
    let all: BTreeSet<&str> = shown.lines().collect();
    let taken_back = all.iter().filter(|row| row.contains("diff=-1"));
    let given = taken_back.map(|row| row.replace("diff=-1", "diff=1"));
    given.filter(|row| all.contains(row.as_str())).collect()
}

fn five(rows: &Collection) -> Collection {
    rows.top_k(5, [col("x").sort(true, false)])
}

/// What leaves of the columns `wanted` at each step, in the order in which it does.
fn told(rows: &Collection, pipeline: &Pipeline, wanted: &[&str], script: &Script) -> String {
    let wanted = wanted.iter().map(|name| col(*name));
    five(rows).select(wanted).named("out").write(collect().0);
    let made = simulate(pipeline, script, 1, 0).unwrap();
    let steps = made.steps("out").iter().enumerate();
    let steps = steps.filter(|(_, rows)| !rows.is_empty());
    let steps = steps.map(|(n, rows)| format!("step {n}\n{}", show_rows(rows)));
    steps.collect::<Vec<_>>().join("\n")
}

fn of_rows(windowing: &Windowing, wanted: &[&str]) -> String {
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", scripted("x: 1; event_time: 1"));
    let script = Script::new()
        .rows("rows", "x: 1, 3, 5, 7, 9; event_time: 1, 2, 3, 4, 5")
        .rows("rows", "x: 4; event_time: 6") // takes the place of 9
        .rows("rows", "x: 8; event_time: 7") // is not among them
        .watermark("rows", 10)
        .restart(2)
        .rows("rows", "x: 6, 3; event_time: 8, 9") // 3 comes a second time, 6 not at all
        .end("rows");
    told(&rows.window(windowing.clone()), &pipeline, wanted, &script)
}

#[test]
fn one_row_that_comes_takes_the_place_of_one_that_leaves() {
    let windowing = correcting(fixed(10));
    expect![[r#"
        step 0
        x=1 diff=1 event_time=9
        x=3 diff=1 event_time=9
        x=5 diff=1 event_time=9
        x=7 diff=1 event_time=9
        x=9 diff=1 event_time=9
        step 1
        x=4 diff=1 event_time=9
        x=9 diff=-1 event_time=9
        step 5
        x=3 diff=1 event_time=9
        x=7 diff=-1 event_time=9"#]]
    .assert_eq(&of_rows(&windowing, &["x", "diff"]));
    // What leaves with the event time of the latest row is another row each time.
    let latest = windowing.timestamp_combiner(TimestampCombiner::Latest);
    expect![[r#"
        step 0
        x=1 diff=1 event_time=5
        x=3 diff=1 event_time=5
        x=5 diff=1 event_time=5
        x=7 diff=1 event_time=5
        x=9 diff=1 event_time=5
        step 1
        x=1 diff=-1 event_time=5
        x=1 diff=1 event_time=6
        x=3 diff=-1 event_time=5
        x=3 diff=1 event_time=6
        x=4 diff=1 event_time=6
        x=5 diff=-1 event_time=5
        x=5 diff=1 event_time=6
        x=7 diff=-1 event_time=5
        x=7 diff=1 event_time=6
        x=9 diff=-1 event_time=5
        step 2
        x=1 diff=-1 event_time=6
        x=1 diff=1 event_time=7
        x=3 diff=-1 event_time=6
        x=3 diff=1 event_time=7
        x=4 diff=-1 event_time=6
        x=4 diff=1 event_time=7
        x=5 diff=-1 event_time=6
        x=5 diff=1 event_time=7
        x=7 diff=-1 event_time=6
        x=7 diff=1 event_time=7
        step 5
        x=1 diff=-1 event_time=7
        x=1 diff=1 event_time=9
        x=3 diff=-1 event_time=7
        x=3 diff=1 event_time=9
        x=3 diff=1 event_time=9
        x=4 diff=-1 event_time=7
        x=4 diff=1 event_time=9
        x=5 diff=-1 event_time=7
        x=5 diff=1 event_time=9
        x=7 diff=-1 event_time=7"#]]
    .assert_eq(&of_rows(&latest, &["x", "diff"]));
}

#[test]
fn a_row_that_tells_which_firing_it_is_of_is_another_in_each() {
    let wanted = ["x", "pane", "diff"];
    let told = of_rows(&correcting(fixed(10)), &wanted);
    let of_step = |n: usize| {
        let step = told
            .split("step ")
            .find(|step| step.starts_with(&n.to_string()));
        let rows = step.unwrap_or_default().lines().skip(1);
        let (taken, given): (Vec<&str>, Vec<&str>) = rows.partition(|r| r.contains("diff=-1"));
        (taken.len(), given.len())
    };
    let steps: Vec<_> = (0..7).map(of_step).collect();
    let whole = [(0, 5), (5, 5), (5, 5), (5, 5), (0, 0), (5, 5), (0, 0)];
    assert_eq!(steps, whole, "{told}");
}

#[test]
fn sessions_that_become_one_take_back_all_that_they_have_given() {
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", scripted("x: 1; event_time: 1"));
    let script = Script::new()
        .rows("rows", "x: 1, 3; event_time: 1, 19")
        .rows("rows", "x: 5; event_time: 22") // to the second, which ends later
        .rows("rows", "x: 2; event_time: 21") // to the second, which ends as before
        .rows("rows", "x: 4; event_time: 10") // to both
        .end("rows");
    let rows = rows.window(correcting(sessions(10)));
    expect![[r#"
        step 0
        x=1 window_start=1 diff=1 event_time=10
        x=3 window_start=19 diff=1 event_time=28
        step 1
        x=3 window_start=19 diff=-1 event_time=28
        x=3 window_start=19 diff=1 event_time=31
        x=5 window_start=19 diff=1 event_time=31
        step 2
        x=2 window_start=19 diff=1 event_time=31
        step 3
        x=1 window_start=1 diff=-1 event_time=10
        x=1 window_start=1 diff=1 event_time=31
        x=2 window_start=1 diff=1 event_time=31
        x=2 window_start=19 diff=-1 event_time=31
        x=3 window_start=1 diff=1 event_time=31
        x=3 window_start=19 diff=-1 event_time=31
        x=4 window_start=1 diff=1 event_time=31
        x=5 window_start=1 diff=1 event_time=31
        x=5 window_start=19 diff=-1 event_time=31"#]]
    .assert_eq(&told(
        &rows,
        &pipeline,
        &["x", "window_start", "diff"],
        &script,
    ));
}

#[test]
fn a_row_that_is_taken_back_makes_room_for_one() {
    let schema = changelog("x: 1; event_time: 1; diff: 1").schema();
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", scripted_with(schema));
    let batch = |rows| changelog(rows);
    let script = Script::new()
        .batch(
            "rows",
            0,
            batch("x: 1, 2, 3, 4, 5, 6; event_time: 1, 2, 3, 4, 5, 6; diff: 1, 1, 1, 1, 1, 1"),
        )
        .batch("rows", 0, batch("x: 3; event_time: 3; diff: -1"))
        .watermark("rows", 10)
        .restart(3)
        .batch("rows", 0, batch("x: 9, 1; event_time: 7, 1; diff: 1, -1"))
        .batch("rows", 0, batch("x: 9, 9; event_time: 7, 8; diff: -1, 1"))
        .end("rows");
    let rows = rows.window(correcting(fixed(10)));
    expect![[r#"
        step 0
        x=1 diff=1 event_time=9
        x=2 diff=1 event_time=9
        x=3 diff=1 event_time=9
        x=4 diff=1 event_time=9
        x=5 diff=1 event_time=9
        step 1
        x=3 diff=-1 event_time=9
        x=6 diff=1 event_time=9
        step 4
        x=1 diff=-1 event_time=9
        x=9 diff=1 event_time=9"#]]
    .assert_eq(&told(&rows, &pipeline, &["x", "diff"], &script));
}
