//! Tests of aggregates of changelogs in windows.

mod first;
mod laws;
mod merging;
mod merging_random;
mod moved;
mod moved_random;
mod random;
mod times;

use std::time::Duration;

use datafusion_expr::Expr;
use expect_test::{Expect, expect};

use crate::aggregates::*;
use crate::connectors::collect;
use crate::error::Result;
use crate::expression::{col, lit};
use crate::ops::group_by::windowed::tests::driver::Driver;
use crate::ops::group_by::windowed::tests::script::Event::{self, End, Rows, Watermark};
use crate::ops::group_by::windowed::tests::script::check_script;
use crate::testing::{Script, changelog, contents_at, scripted_with, show_rows, simulate};
use crate::transform::Description;
use crate::windowing::{
    Accumulation, CalendarDays, Closing, FixedWindows, Sessions, SlidingWindows, Trigger, Window,
    WindowFn, Windowing,
};
use crate::{Collection, Pipeline};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn fixed(size: u64) -> Windowing {
    Windowing::of(FixedWindows::of(ms(size)))
}

/// Results are corrected for so long.
fn correcting(windowing: Windowing, lateness: u64) -> Windowing {
    windowing
        .allowed_lateness(ms(lateness))
        .accumulation(Accumulation::AccumulatingAndRetracting)
}

fn aggregates() -> Vec<Expr> {
    vec![
        count(lit(1)).alias("n"),
        sum(col("x")).alias("sum"),
        max(col("x")).alias("max"),
    ]
}

/// Checks a script of an aggregation of `x` by `k`.
fn check(windowing: Windowing, events: &[Event<'_>], expected: Expect) {
    let schema = changelog("event_time: 1; k: a; x: 1; diff: 1").schema();
    let make =
        |n_workers| Driver::over(&schema, &windowing, n_workers, &["k"], aggregates()).unwrap();
    let is_empty =
        |driver: &Driver| assert_eq!(driver.state_bytes(), 0, "the end releases everything");
    check_script(make, changelog, is_empty, events, &expected);
}

#[test]
fn a_window_gives_one_row_a_key_once_the_watermark_has_passed_its_end() {
    check(
        fixed(10),
        &[
            Rows("event_time: 1, 12, 5, 5; k: a, a, b, c; x: 1, 2, 3, 4; diff: 1, 1, 1, 1"),
            Watermark(9),
            // Taken back before the end: of c nothing is left, and what a had is another.
            Rows("event_time: 1, 9, 5; k: a, a, c; x: 1, 7, 4; diff: -1, 1, -1"),
            Watermark(10),
            Rows("event_time: 3, 15; k: a, c; x: 100, 6; diff: 1, 1"),
            End,
        ],
        expect![[r#"
            rows event_time: 1, 12, 5, 5; k: a, a, b, c; x: 1, 2, 3, 4; diff: 1, 1, 1, 1
            watermark 9
            rows event_time: 1, 9, 5; k: a, a, c; x: 1, 7, 4; diff: -1, 1, -1
            watermark 10
                a 1 7 7 [0, 10) at 9 1
                b 1 3 3 [0, 10) at 9 1
            rows event_time: 3, 15; k: a, c; x: 100, 6; diff: 1, 1
            end
                a 1 2 2 [10, 20) at 19 1
                c 1 6 6 [10, 20) at 19 1
            1 late
        "#]],
    );
}

#[test]
fn a_late_change_takes_back_what_has_left_and_gives_the_right_row() {
    let events = [
        Rows("event_time: 1, 2, 4; k: a, a, b; x: 1, 5, 2; diff: 1, 1, 1"),
        Watermark(12),
        // The sum of a is another; b is there no more, and c has come to be there.
        Rows("event_time: 2, 4, 7; k: a, b, c; x: 5, 2, 9; diff: -1, -1, 1"),
        // What comes and goes at once changes nothing.
        Rows("event_time: 1, 1; k: a, a; x: 3, 3; diff: 1, -1"),
        Rows("event_time: 4; k: b; x: 8; diff: 1"),
        Watermark(29),
        Rows("event_time: 3; k: a; x: 1; diff: 1"),
        Watermark(30),
        Rows("event_time: 3; k: a; x: 1; diff: -1"),
        End,
    ];
    check(
        correcting(fixed(10), 20),
        &events,
        expect![[r#"
        rows event_time: 1, 2, 4; k: a, a, b; x: 1, 5, 2; diff: 1, 1, 1
        watermark 12
            a 2 6 5 [0, 10) at 9 on_time 0/0 first 1
            b 1 2 2 [0, 10) at 9 on_time 0/0 first 1
        rows event_time: 2, 4, 7; k: a, b, c; x: 5, 2, 9; diff: -1, -1, 1
            a 1 1 1 [0, 10) at 9 late 1/1 1
            a 2 6 5 [0, 10) at 9 on_time 0/0 first -1
            b 1 2 2 [0, 10) at 9 on_time 0/0 first -1
            c 1 9 9 [0, 10) at 9 late 0/0 first 1
        rows event_time: 1, 1; k: a, a; x: 3, 3; diff: 1, -1
        rows event_time: 4; k: b; x: 8; diff: 1
            b 1 8 8 [0, 10) at 9 late 1/1 1
        watermark 29
        rows event_time: 3; k: a; x: 1; diff: 1
            a 1 1 1 [0, 10) at 9 late 1/1 -1
            a 2 2 1 [0, 10) at 9 late 2/2 1
        watermark 30
        rows event_time: 3; k: a; x: 1; diff: -1
        end
        1 late
    "#]],
    );
    let always = correcting(fixed(10), 20).closing(Closing::FireAlways);
    check(
        always,
        &events,
        expect![[r#"
        rows event_time: 1, 2, 4; k: a, a, b; x: 1, 5, 2; diff: 1, 1, 1
        watermark 12
            a 2 6 5 [0, 10) at 9 on_time 0/0 first 1
            b 1 2 2 [0, 10) at 9 on_time 0/0 first 1
        rows event_time: 2, 4, 7; k: a, b, c; x: 5, 2, 9; diff: -1, -1, 1
            a 1 1 1 [0, 10) at 9 late 1/1 1
            a 2 6 5 [0, 10) at 9 on_time 0/0 first -1
            b 1 2 2 [0, 10) at 9 on_time 0/0 first -1
            c 1 9 9 [0, 10) at 9 late 0/0 first 1
        rows event_time: 1, 1; k: a, a; x: 3, 3; diff: 1, -1
        rows event_time: 4; k: b; x: 8; diff: 1
            b 1 8 8 [0, 10) at 9 late 1/1 1
        watermark 29
        rows event_time: 3; k: a; x: 1; diff: 1
            a 1 1 1 [0, 10) at 9 late 1/1 -1
            a 2 2 1 [0, 10) at 9 late 2/2 1
        watermark 30
            a 2 2 1 [0, 10) at 9 late 2/2 -1
            a 2 2 1 [0, 10) at 9 late 3/3 last 1
            b 1 8 8 [0, 10) at 9 late 1/1 -1
            b 1 8 8 [0, 10) at 9 late 2/2 last 1
            c 1 9 9 [0, 10) at 9 late 0/0 first -1
            c 1 9 9 [0, 10) at 9 late 1/1 last 1
        rows event_time: 3; k: a; x: 1; diff: -1
        end
        1 late
    "#]],
    );
}

#[test]
fn early_results_leave_with_every_change_and_once_more_at_the_end() {
    let early = Trigger::after_watermark()
        .early(Trigger::after_count(1))
        .late(Trigger::after_count(1));
    let events = [
        Rows("event_time: 1, 2; k: a, b; x: 1, 5; diff: 1, 1"),
        // The row that takes back comes before the one that adds, in another batch.
        Rows("event_time: 3; k: c; x: 4; diff: -1"),
        Rows("event_time: 3, 1; k: c, a; x: 4, 1; diff: 1, 1"),
        Rows("event_time: 2; k: b; x: 5; diff: -1"),
        Watermark(10),
        Rows("event_time: 1; k: a; x: 1; diff: -1"),
        End,
    ];
    check(
        correcting(fixed(10), 20).trigger(early.clone()),
        &events,
        expect![[r#"
            rows event_time: 1, 2; k: a, b; x: 1, 5; diff: 1, 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first 1
                b 1 5 5 [0, 10) at 9 early 0/-1 first 1
            rows event_time: 3; k: c; x: 4; diff: -1
            rows event_time: 3, 1; k: c, a; x: 4, 1; diff: 1, 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first -1
                a 2 2 1 [0, 10) at 9 early 1/-1 1
            rows event_time: 2; k: b; x: 5; diff: -1
                b 1 5 5 [0, 10) at 9 early 0/-1 first -1
            watermark 10
                a 2 2 1 [0, 10) at 9 early 1/-1 -1
                a 2 2 1 [0, 10) at 9 on_time 2/0 1
            rows event_time: 1; k: a; x: 1; diff: -1
                a 1 1 1 [0, 10) at 9 late 3/1 1
                a 2 2 1 [0, 10) at 9 on_time 2/0 -1
            end
        "#]],
    );
    check(
        correcting(fixed(10), 0).trigger(early),
        &events,
        expect![[r#"
            rows event_time: 1, 2; k: a, b; x: 1, 5; diff: 1, 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first 1
                b 1 5 5 [0, 10) at 9 early 0/-1 first 1
            rows event_time: 3; k: c; x: 4; diff: -1
            rows event_time: 3, 1; k: c, a; x: 4, 1; diff: 1, 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first -1
                a 2 2 1 [0, 10) at 9 early 1/-1 1
            rows event_time: 2; k: b; x: 5; diff: -1
                b 1 5 5 [0, 10) at 9 early 0/-1 first -1
            watermark 10
                a 2 2 1 [0, 10) at 9 early 1/-1 -1
                a 2 2 1 [0, 10) at 9 on_time 2/0 last 1
            rows event_time: 1; k: a; x: 1; diff: -1
            end
            1 late
        "#]],
    );
    check(
        correcting(fixed(10), 20).trigger(Trigger::always()),
        &events,
        expect![[r#"
            rows event_time: 1, 2; k: a, b; x: 1, 5; diff: 1, 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first 1
                b 1 5 5 [0, 10) at 9 early 0/-1 first 1
            rows event_time: 3; k: c; x: 4; diff: -1
            rows event_time: 3, 1; k: c, a; x: 4, 1; diff: 1, 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first -1
                a 2 2 1 [0, 10) at 9 early 1/-1 1
            rows event_time: 2; k: b; x: 5; diff: -1
                b 1 5 5 [0, 10) at 9 early 0/-1 first -1
            watermark 10
            rows event_time: 1; k: a; x: 1; diff: -1
                a 1 1 1 [0, 10) at 9 late 2/0 1
                a 2 2 1 [0, 10) at 9 early 1/-1 -1
            end
        "#]],
    );
}

/// Windows of ten after ten, as [`FixedWindows`], that say nothing of stretches which they share; with `overlap` each
/// time is in the window after its own as well.
#[derive(Debug)]
struct Tens {
    overlap: bool,
}

impl WindowFn for Tens {
    fn describe(&self) -> Description {
        Description::new("tens", serde_json::json!({ "overlap": self.overlap }))
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        let start = time.div_euclid(10) * 10;
        let starts = [start, start + 10].into_iter();
        let starts = starts.take(1 + usize::from(self.overlap));
        windows.extend(starts.map(|start| Window {
            start,
            end: start + 10,
        }));
    }

    fn overlaps(&self) -> bool {
        self.overlap
    }
}

#[test]
fn a_change_counts_in_each_of_its_windows() {
    let events = [
        Rows("event_time: 1, 12; k: a, a; x: 1, 2; diff: 1, 1"),
        Watermark(10),
        Rows("event_time: 1; k: a; x: 1; diff: -1"),
        End,
    ];
    let sliding = Windowing::of(SlidingWindows::of(ms(10)).every(ms(5)));
    check(
        sliding.clone(),
        &events,
        expect![[r#"
        rows event_time: 1, 12; k: a, a; x: 1, 2; diff: 1, 1
        watermark 10
            a 1 1 1 [-5, 5) at 4 1
            a 1 1 1 [0, 10) at 9 1
        rows event_time: 1; k: a; x: 1; diff: -1
        end
            a 1 2 2 [10, 20) at 19 1
            a 1 2 2 [5, 15) at 14 1
        1 late
    "#]],
    );
    check(
        correcting(sliding, 10),
        &events,
        expect![[r#"
        rows event_time: 1, 12; k: a, a; x: 1, 2; diff: 1, 1
        watermark 10
            a 1 1 1 [-5, 5) at 4 on_time 0/0 first 1
            a 1 1 1 [0, 10) at 9 on_time 0/0 first 1
        rows event_time: 1; k: a; x: 1; diff: -1
            a 1 1 1 [-5, 5) at 4 on_time 0/0 first -1
            a 1 1 1 [0, 10) at 9 on_time 0/0 first -1
        end
            a 1 2 2 [10, 20) at 19 on_time 0/0 first 1
            a 1 2 2 [5, 15) at 14 on_time 0/0 first 1
    "#]],
    );
    check(
        Windowing::of(Tens { overlap: true }),
        &events,
        expect![[r#"
            rows event_time: 1, 12; k: a, a; x: 1, 2; diff: 1, 1
            watermark 10
                a 1 1 1 [0, 10) at 9 1
            rows event_time: 1; k: a; x: 1; diff: -1
            end
                a 1 2 2 [10, 20) at 19 1
                a 1 2 2 [20, 30) at 29 1
        "#]],
    );
    check(
        correcting(Windowing::of(Tens { overlap: false }), 5),
        &events,
        expect![[r#"
            rows event_time: 1, 12; k: a, a; x: 1, 2; diff: 1, 1
            watermark 10
                a 1 1 1 [0, 10) at 9 on_time 0/0 first 1
            rows event_time: 1; k: a; x: 1; diff: -1
                a 1 1 1 [0, 10) at 9 on_time 0/0 first -1
            end
                a 1 2 2 [10, 20) at 19 on_time 0/0 first 1
        "#]],
    );
    check(
        correcting(Windowing::global(), 1),
        &events,
        expect![[r#"
            rows event_time: 1, 12; k: a, a; x: 1, 2; diff: 1, 1
            watermark 10
            rows event_time: 1; k: a; x: 1; diff: -1
            end
                a 1 2 2 global at the end on_time 0/0 first 1
        "#]],
    );
    // The days of another zone begin at another hour.
    let days = Windowing::of(CalendarDays::of(1).in_zone("Asia/Tokyo"));
    check(
        correcting(days, 5),
        &events,
        expect![[r#"
        rows event_time: 1, 12; k: a, a; x: 1, 2; diff: 1, 1
        watermark 10
        rows event_time: 1; k: a; x: 1; diff: -1
        end
            a 1 2 2 [-32400000, 54000000) at 53999999 on_time 0/0 first 1
    "#]],
    );
}

#[test]
fn a_window_is_let_go_once_the_watermark_has_passed_its_end_by_the_lateness() {
    let schema = changelog("event_time: 1; k: a; x: 1; diff: 1").schema();
    let windowing = correcting(fixed(10), 20);
    let mut driver = Driver::over(&schema, &windowing, 2, &["k"], aggregates()).unwrap();
    for n in 0..50 {
        let time = n * 40;
        let text = format!("event_time: {time}, {time}; k: a, b; x: 1, {n}; diff: 1, 1");
        driver.rows(0, &changelog(&text));
        assert!(driver.state_bytes() > 0);
        assert_eq!(driver.watermark(time + 29).len(), 2);
        assert!(driver.state_bytes() > 0, "late changes may come");
        assert_eq!(driver.watermark(time + 30), Vec::<String>::new());
        assert_eq!(driver.state_bytes(), 0);
    }
}

#[test]
fn keys_alone_are_the_distinct_rows_of_a_window() {
    let script = Script::new()
        .batch(
            "rows",
            0,
            changelog("k: a, a, b, b; x: 1, 1, 2, 2; event_time: 1, 2, 3, 3; diff: 1, 1, 1, -1"),
        )
        .batch("rows", 1, changelog("k: a; x: 1; event_time: 12; diff: 1"))
        .end("rows");
    let distinct = |rows: &Collection| {
        let rows = rows.window(fixed(10));
        rows.group_by([col("k"), col("x")]).agg([])
    };
    expect![[r#"
        k='a' x=1 window_start=0 window_end=10 event_time=9 diff=1
        k='a' x=1 window_start=10 window_end=20 event_time=19 diff=1"#]]
    .assert_eq(&run(script, distinct).unwrap());
}

/// What becomes of changes in windows in a pipeline, or why not.
fn run(script: Script, compose: impl FnOnce(&Collection) -> Collection) -> Result<String> {
    let pipeline = Pipeline::new("test");
    let schema = changelog("k: a; x: 1; event_time: 1; diff: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema));
    compose(&rows).named("out").write(collect().0);
    let made = simulate(&pipeline, &script, 2, 7)?;
    Ok(show_rows(&made.rows("out")))
}

fn refused(windowing: Windowing) -> String {
    let grouped = |rows: &Collection| {
        let grouped = rows.window(windowing).group_by([col("k")]);
        grouped.agg(aggregates())
    };
    run(Script::new(), grouped).unwrap_err().to_string()
}

#[test]
fn windows_that_do_not_fit_changes_are_refused_with_the_reason() {
    expect![[r#"
        discarding windows over a changelog would give results that do not take back those before
          in transform "group_by/partial"
          A row that is taken back changes a result that has left: that is withdrawn, and the right one takes its place.
          Hint: Say `.accumulation(Accumulation::AccumulatingAndRetracting)`, or leave out early results and the allowed lateness."#]].assert_eq(&refused(fixed(10).allowed_lateness(ms(5))));
    let accumulating = fixed(10).accumulation(Accumulation::Accumulating);
    expect![[r#"
        accumulating windows over a changelog would give results that do not take back those before
          in transform "group_by/partial"
          A row that is taken back changes a result that has left: that is withdrawn, and the right one takes its place.
          Hint: Say `.accumulation(Accumulation::AccumulatingAndRetracting)`, or leave out early results and the allowed lateness."#]].assert_eq(&refused(
        accumulating.trigger(Trigger::after_watermark().early(Trigger::always())),
    ));
    for trigger in [
        Trigger::after_watermark().early(Trigger::after_count(2)),
        Trigger::after_processing_time(ms(5)).repeatedly(),
        Trigger::Never,
    ] {
        let text = refused(correcting(fixed(10), 0).trigger(trigger.clone()));
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(first, format!("trigger {trigger} does not fit a changelog"));
    }
    let lossy = correcting(fixed(10), 5)
        .trigger(Trigger::after_watermark())
        .allow_data_loss(true);
    expect![[r#"
        trigger AfterWatermark does not fit a changelog
          in transform "group_by/partial"
          Changes are no rows to be counted or waited for, and none may be left out: results leave with every change, when the watermark passes the end of the window, or both.
          Hint: Use `Trigger::after_watermark()`, and `.early(Trigger::always())` or `.late(Trigger::always())` for a correction with every change."#]].assert_eq(&refused(lossy));
}

#[test]
fn what_does_not_fit_is_refused_all_at_once() {
    let sessions = Windowing::of(Sessions::with_gap(ms(5)))
        .trigger(Trigger::after_count(2).repeatedly())
        .allowed_lateness(ms(5));
    let text = refused(sessions);
    assert_eq!(text.lines().next(), Some("2 errors"), "{text}");
}

#[test]
fn a_row_that_is_taken_back_in_a_window_in_which_it_never_was_ends_the_run() {
    let script = Script::new()
        .batch(
            "rows",
            0,
            changelog("k: a, b; x: 1, 2; event_time: 1, 1; diff: 1, 1"),
        )
        .watermark("rows", 10)
        .batch("rows", 0, changelog("k: a; x: 1; event_time: 15; diff: -1"))
        .watermark("rows", 20)
        .end("rows");
    let grouped = |rows: &Collection| {
        let grouped = rows.window(fixed(10)).group_by([col("k")]);
        grouped.agg(aggregates())
    };
    expect![[r#"
        a changelog takes back a row that it never added
          in transform "group_by"
          The group is k = a, window_start = 1970-01-01T00:00:00.010, window_end = 1970-01-01T00:00:00.020.
          Hint: A change counts in the windows of its row: one that takes a row back must have the time of that row, which `Windowing::row_time` reads from a column where the event time is another."#]].assert_eq(&run(script, grouped).unwrap_err().to_string());
    // As many rows as before, and yet not the same: the value tells.
    let script = Script::new()
        .batch(
            "rows",
            0,
            changelog("k: a, a; x: 1, 2; event_time: 15, 15; diff: -1, 1"),
        )
        .end("rows");
    let grouped = |rows: &Collection| {
        let grouped = rows.window(fixed(10)).group_by([col("k")]);
        grouped.agg([sum(col("x")).alias("sum")])
    };
    let error = run(script, grouped).unwrap_err().to_string();
    assert!(error.starts_with("a changelog takes back a row that it never added"));
}

/// As everywhere: a row that is taken back before it is added counts as there less often than not at all, also where the
/// change that adds it comes too late for its window, which leaves with the late ones.
#[test]
fn a_row_may_be_taken_back_whose_addition_comes_too_late() {
    let script = |restarts: bool| {
        let taken_back = changelog("k: a, a, b; x: 1, 2, 3; event_time: 5, 6, 7; diff: 1, -1, -1");
        let script = Script::new()
            .batch("rows", 0, taken_back)
            .watermark("rows", 10)
            .watermark("rows", 12);
        match restarts {
            true => script.restart(3),
            false => script,
        }
    };
    let added = changelog("k: b, a, c; x: 3, 2, 9; event_time: 7, 6, 1; diff: 1, 1, 1");
    for restarts in [false, true] {
        let pipeline = Pipeline::new("test");
        let schema = changelog("k: a; x: 1; event_time: 1; diff: 1").schema();
        let rows = pipeline.read("rows", scripted_with(schema));
        let grouped = rows.window(fixed(10)).group_by([col("k")]);
        let (made, late) =
            grouped.agg_with_late([max(col("x")).alias("max"), count(lit(1)).alias("n")]);
        made.named("out").write(collect().0);
        late.named("late").write(collect().0);
        let whole = script(restarts).batch("rows", 0, added.clone()).end("rows");
        let made = simulate(&pipeline, &whole, 2, 7).unwrap();
        // Of a there are as many rows as none, and of b less.
        assert_eq!(show_rows(&made.rows("out")), "");
        assert_eq!(
            show_rows(&made.rows("late")),
            "k='a' x=2 event_time=6 diff=1\nk='b' x=3 event_time=7 diff=1\nk='c' x=9 event_time=1 diff=1"
        );
        // That of b does not come.
        let whole = script(restarts)
            .batch("rows", 0, added.slice(1, 2))
            .end("rows");
        let error = simulate(&pipeline, &whole, 2, 7).unwrap_err().to_string();
        assert!(
            error.contains("The group is k = b, window_start"),
            "{error}"
        );
    }
}

/// Of two workers one has closed the window when both are saved, and remembers what its keys owe; those of the other
/// close after the restart. What comes too late settles both.
#[test]
fn what_is_owed_goes_on_where_one_of_two_workers_had_heard_that_a_window_is_over() {
    let schema = changelog("event_time: 1; k: a; x: 1; diff: 1").schema();
    let of_all = |time: i64, x: i64, diff: i64| {
        let same = |value: i64| [value.to_string().as_str(); 8].join(", ");
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h"].join(", ");
        let (time, x, diff) = (same(time), same(x), same(diff));
        changelog(&format!(
            "event_time: {time}; k: {keys}; x: {x}; diff: {diff}"
        ))
    };
    for (windowing, window) in [
        (fixed(10), "[0, 10) at 9"),
        (Windowing::of(Sessions::with_gap(ms(3))), "[4, 8) at 7"),
    ] {
        for is_added in [true, false] {
            let mut driver = Driver::over(&schema, &windowing, 2, &["k"], aggregates()).unwrap();
            for (time, x, diff) in [(5, 1, 1), (4, 1, 1), (6, 2, -1)] {
                driver.rows(0, &of_all(time, x, diff));
            }
            let mut made = driver.watermark_to_some(10, 1);
            assert!((1..8).contains(&made.len()), "{made:?}");
            driver.restore(3);
            // Saved again before anything has come.
            driver.restore(2);
            if is_added {
                made.extend(driver.rows(1, &of_all(6, 2, 1)));
                driver.restore(1);
            }
            let end = driver.try_watermark(i64::MAX);
            assert_eq!(end.is_ok(), is_added, "{end:?}");
            let Ok(end) = end else { continue };
            made.extend(end);
            made.sort();
            let there = ["a", "b", "c", "d", "e", "f", "g", "h"];
            // In sessions rows are as they are: none of them is the one that was taken back.
            let values = if window.starts_with("[0") {
                "1 0 1"
            } else {
                "2 2 1"
            };
            let expected = there.map(|k| format!("{k} {values} {window} 1"));
            assert_eq!(made, expected);
            assert_eq!(driver.take_late(), 8);
        }
    }
}

/// Two of a and one of b: the value that is taken back too often does not count as one that is there.
#[test]
fn what_a_window_owes_counts_in_its_result_as_there_less_often_than_not_at_all() {
    let script = Script::new()
        .batch(
            "rows",
            0,
            changelog("k: a, a, a; x: 4, 5, 7; event_time: 1, 2, 3; diff: 1, 1, -1"),
        )
        .watermark("rows", 10)
        .batch("rows", 0, changelog("k: a; x: 7; event_time: 3; diff: 1"))
        .end("rows");
    let grouped = |rows: &Collection| {
        let grouped = rows.window(fixed(10)).group_by([col("k")]);
        grouped.agg([
            count(lit(1)).alias("n"),
            sum(col("x")).alias("sum"),
            max(col("x")).alias("max"),
        ])
    };
    assert_eq!(
        run(script, grouped).unwrap(),
        "k='a' n=1 sum=2 max=5 window_start=0 window_end=10 event_time=9 diff=1"
    );
}

#[test]
fn a_sum_of_retracting_sums_is_right_at_every_step() {
    let windowing = correcting(fixed(10), 20).trigger(
        Trigger::after_watermark()
            .early(Trigger::after_count(2))
            .late(Trigger::after_count(1)),
    );
    let pipeline = Pipeline::new("test");
    let rows = crate::testing::table("k: a; j: a; x: 1; event_time: 1");
    let rows = pipeline.read("rows", scripted_with(rows.schema()));
    let sums = rows
        .window(windowing)
        .group_by([col("k"), col("j")])
        .agg([sum(col("x")).alias("x")]);
    let total = sums
        .group_by([col("k")])
        .agg([sum(col("x")).alias("total"), count(lit(1)).alias("n")]);
    let columns = [
        col("k"),
        col("total"),
        col("n"),
        col("window_end"),
        col("event_time"),
        col("diff"),
    ];
    total.select(columns).named("out").write(collect().0);
    let script = Script::new()
        .rows(
            "rows",
            "k: a, a, a; j: p, p, q; x: 1, 2, 4; event_time: 1, 2, 3",
        )
        .watermark("rows", 10)
        .rows("rows", "k: a; j: q; x: 8; event_time: 9")
        .rows("rows", "k: b; j: q; x: 16; event_time: 9")
        .end("rows");
    let told = |seed: u64| {
        let made = simulate(&pipeline, &script, 3, seed).unwrap();
        let contents = |n: usize| contents_at(&made.steps("out")[..=n].concat(), None);
        let steps: Vec<String> = (0..4).map(contents).collect();
        steps.join("\n--\n")
    };
    let of_first = told(0);
    expect![[r#"
        k='a' total=3 n=1 window_end=10
        --
        k='a' total=7 n=2 window_end=10
        --
        k='a' total=15 n=2 window_end=10
        --
        k='a' total=15 n=2 window_end=10
        k='b' total=16 n=1 window_end=10"#]]
    .assert_eq(&of_first);
    for seed in 1..8 {
        assert_eq!(told(seed), of_first, "seed {seed}");
    }
}

#[test]
fn late_changes_leave_as_they_came_and_a_plan_says_what_is_kept() {
    let pipeline = Pipeline::new("test");
    let schema = changelog("k: a; x: 1; event_time: 1; diff: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema));
    let grouped = rows.window(correcting(fixed(10), 5)).group_by([col("k")]);
    let (results, late) = grouped.agg_with_late([sum(col("x")).alias("sum")]);
    results.named("out").write(collect().0);
    late.named("late").write(collect().0);
    let script = Script::new()
        .batch("rows", 0, changelog("k: a; x: 1; event_time: 1; diff: 1"))
        .watermark("rows", 15)
        .batch(
            "rows",
            0,
            changelog("k: a, a; x: 1, 2; event_time: 1, 12; diff: -1, 1"),
        )
        .end("rows");
    let made = simulate(&pipeline, &script, 2, 1).unwrap();
    assert_eq!(
        show_rows(&made.rows("late")),
        "k='a' x=1 event_time=1 diff=-1"
    );
    let text = pipeline.plan().unwrap().explain();
    expect![[r#"
        pipeline "test": 1 phase

        phase 1 of 1
          scan      rows [scripted]
          transform group_by/partial [partial_aggregate] <- rows
                      keys=["k"], window=fixed, window_config={"offset_ms":0,"size_ms":10},
                        in fixed windows size=10 ms, accumulating and retracting, lateness 5 ms,
                        keeps state until the watermark passes a window's end by the lateness
          transform group_by [group_by] <- group_by/partial:out
                      accumulation=accumulating_and_retracting, aggregates=["sum(x) AS sum"],
                        allowed_lateness_ms=5, keys=["k"], timestamp_combiner=end_of_window, trigger=Default,
                        window=fixed, window_config={"offset_ms":0,"size_ms":10},
                        in fixed windows size=10 ms, accumulating and retracting, lateness 5 ms,
                        keeps state until the watermark passes a window's end by the lateness
          write     out [collect] <- group_by
          write     late [collect] <- group_by/partial:late
    "#]].assert_eq(&text);
}

#[test]
fn an_argument_that_fails_is_a_bad_row_of_the_first_half() {
    use crate::output::OnBadRow;
    use crate::runner::RunOptions;
    let pipeline = Pipeline::new("test");
    let rows = changelog("k: a, a, a; x: 1, 2, 0; at: 1, 2, 3; event_time: 1, 2, 3; diff: 1, 1, 1");
    let rows = pipeline.read("rows", crate::connectors::from_record_batches(vec![rows]));
    let windowing = fixed(10).row_time(col("at"));
    let grouped = rows.window(windowing).group_by([col("k")]);
    let sums = grouped.agg([sum(lit(12) / col("x")).alias("sum")]);
    let sums = sums.on_bad_row(OnBadRow::DeadLetter);
    let (sink, dead) = collect();
    sums.dead_letters().write(sink);
    let (sink, made) = collect();
    sums.write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    expect!["k='a' sum=18 window_start=0 window_end=10 event_time=9 diff=1"]
        .assert_eq(&show_rows(&made.take()));
    expect![[r#"node='group_by/partial' split='record batch 0' row=2 reason='expression `CAST(Int32(12) AS Int64) / x` failed on {"x":0}: Divide by zero error' data='{"k":"a","x":0,"at":3,"event_time":"1970-01-01T00:00:00.003","diff":1}'"#]].assert_eq(&show_rows(&dead.take()));
}

#[test]
fn names_that_windows_give_are_not_those_of_keys() {
    let grouped = |rows: &Collection| {
        let grouped = rows
            .window(fixed(10))
            .group_by([col("k").alias("window_start")]);
        grouped.agg(aggregates())
    };
    expect![[r#"
        a column of the result is called "window_start", as one that its window gives it
          in transform "group_by/partial"
          Hint: Give it another name with `.alias("…")`, or leave it out with `select`."#]]
    .assert_eq(&run(Script::new(), grouped).unwrap_err().to_string());
}

#[test]
fn state_that_workers_saved_before_and_after_they_heard_of_the_watermark_goes_on_as_one() {
    check_saved_before_and_after(&correcting(fixed(10), 20));
    let sessions = Windowing::of(Sessions::with_gap(ms(9)));
    check_saved_before_and_after(&correcting(sessions, 20));
}

/// Of windows that end at 10 for a row of 1.
fn check_saved_before_and_after(windowing: &Windowing) {
    use crate::artifact::Artifacts;
    use crate::batch::Batch;
    use crate::output::{OnBadRow, Output};
    use crate::transform::{Operator, Transform, Watermark};
    let schema = changelog("event_time: 1; k: a; x: 1; diff: 1").schema();
    let keys = [col("k")];
    let (partial, finish) = Driver::planned(windowing, &keys, aggregates(), &schema).unwrap();
    let build = || finish.build(&Artifacts::none()).unwrap();
    let mut out = Output::new(OnBadRow::Fail);
    let of = |operator: &mut Box<dyn Operator>, key: &str, out: &mut Output| {
        let mut partial = partial.build(&Artifacts::none()).unwrap();
        let rows = changelog(&format!("event_time: 1; k: {key}; x: 1; diff: 1"));
        partial.on_batch(0, Batch::new(rows), out).unwrap();
        for (_, batch) in out.take() {
            operator.on_batch(0, batch, out).unwrap();
        }
    };
    let (mut one, mut other) = (build(), build());
    of(&mut one, "a", &mut out);
    of(&mut other, "b", &mut out);
    // Only one of them has heard that the window is over.
    one.on_watermark(Watermark(10), &mut out).unwrap();
    let shown = |out: &mut Output| {
        let rows: Vec<_> = out
            .take()
            .into_iter()
            .map(|(_, b)| b.rows().clone())
            .collect();
        show_rows(&rows)
    };
    let first = shown(&mut out);
    assert!(
        first.starts_with("k='a' n=1") && first.lines().count() == 1,
        "{first}"
    );
    let parts = [one.snapshot().unwrap(), other.snapshot().unwrap()].concat();
    let restored = || {
        let mut restored = build();
        restored.restore(&parts).unwrap();
        restored
    };
    let mut told_first = restored();
    told_first.on_watermark(Watermark(10), &mut out).unwrap();
    let rest = shown(&mut out);
    assert!(
        rest.starts_with("k='b' n=1") && rest.lines().count() == 1,
        "{rest}"
    );
    // A change that comes before anybody says again where the watermark is, is late all the same.
    let mut told_later = restored();
    of(&mut told_later, "a", &mut out);
    told_later.on_watermark(Watermark(10), &mut out).unwrap();
    let rest = shown(&mut out);
    let timings = rest.lines().map(|line| {
        let (key, rest) = line.split_once(" sum").unwrap();
        let timing = rest.split_once("timing: ").unwrap().1;
        let diff = rest.rsplit_once(' ').unwrap().1;
        format!("{key} {} {diff}", timing.split_once(',').unwrap().0)
    });
    expect![[r#"
        k='a' n=1 on_time diff=-1
        k='a' n=2 late diff=1
        k='b' n=1 on_time diff=1"#]]
    .assert_eq(&timings.collect::<Vec<_>>().join("\n"));
}
