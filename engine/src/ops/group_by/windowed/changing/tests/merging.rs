//! Tests of aggregates of changelogs in sessions.

use expect_test::expect;

use super::{aggregates, check, correcting, ms};
use crate::connectors::collect;
use crate::expression::col;
use crate::ops::group_by::windowed::Asked;
use crate::ops::group_by::windowed::tests::driver::Driver;
use crate::ops::group_by::windowed::tests::script::Event::{self, End, Rows, Watermark};
use crate::ops::group_by::windowed::tests::script::check_script;
use crate::testing::{Script, changelog, contents_at, scripted_with, simulate};
use crate::windowing::{Closing, Sessions, Trigger, Windowing};
use crate::{Collection, Pipeline};

fn sessions() -> Windowing {
    Windowing::of(Sessions::with_gap(ms(10)))
}

#[test]
fn a_session_gives_one_row_a_key_once_the_watermark_has_passed_its_end() {
    check(
        sessions(),
        &[
            // 8 brings 0 and 16 together, and is taken back; the row of c as well.
            Rows(
                "event_time: 0, 8, 16, 3, 1; k: a, a, a, b, c; x: 1, 2, 4, 8, 9; diff: 1, 1, 1, 1, 1",
            ),
            Rows("event_time: 8, 1; k: a, c; x: 2, 9; diff: -1, -1"),
            Watermark(10),
            Watermark(25),
            // Too late, as is what would take back a row of a session that is over.
            Rows("event_time: 12, 3; k: a, b; x: 1, 8; diff: 1, -1"),
            Watermark(26),
            End,
        ],
        expect![[r#"
            rows event_time: 0, 8, 16, 3, 1; k: a, a, a, b, c; x: 1, 2, 4, 8, 9; diff: 1, 1, 1, 1, 1
            rows event_time: 8, 1; k: a, c; x: 2, 9; diff: -1, -1
            watermark 10
                a 1 1 1 [0, 10) at 9 1
            watermark 25
                b 1 8 8 [3, 13) at 12 1
            rows event_time: 12, 3; k: a, b; x: 1, 8; diff: 1, -1
            watermark 26
                a 1 4 4 [16, 26) at 25 1
            end
            2 late
        "#]],
    );
}

const LATE: [Event<'static>; 9] = [
    Rows("event_time: 0, 16, 1; k: a, a, b; x: 1, 4, 7; diff: 1, 1, 1"),
    Watermark(26),
    // Brings both sessions of a together.
    Rows("event_time: 8; k: a; x: 2; diff: 1"),
    // Changes the sum of b, and nothing at all.
    Rows("event_time: 1, 2, 2; k: b, b, b; x: 5, 6, 6; diff: 1, 1, -1"),
    // Parts a again, and takes all of b back.
    Rows("event_time: 8, 1, 1; k: a, b, b; x: 2, 7, 5; diff: -1, -1, -1"),
    // A session that the watermark has not passed takes the place of one that it has.
    Rows("event_time: 24; k: a; x: 3; diff: 1"),
    Watermark(34),
    Watermark(50),
    End,
];

#[test]
fn a_late_change_takes_back_the_sessions_that_it_merges_or_parts() {
    check(
        correcting(sessions(), 20),
        &LATE,
        expect![[r#"
        rows event_time: 0, 16, 1; k: a, a, b; x: 1, 4, 7; diff: 1, 1, 1
        watermark 26
            a 1 1 1 [0, 10) at 9 on_time 0/0 first 1
            a 1 4 4 [16, 26) at 25 on_time 0/0 first 1
            b 1 7 7 [1, 11) at 10 on_time 0/0 first 1
        rows event_time: 8; k: a; x: 2; diff: 1
            a 1 1 1 [0, 10) at 9 on_time 0/0 first -1
            a 1 4 4 [16, 26) at 25 on_time 0/0 first -1
            a 3 7 4 [0, 26) at 25 late 0/0 first 1
        rows event_time: 1, 2, 2; k: b, b, b; x: 5, 6, 6; diff: 1, 1, -1
            b 1 7 7 [1, 11) at 10 on_time 0/0 first -1
            b 2 12 7 [1, 11) at 10 late 1/1 1
        rows event_time: 8, 1, 1; k: a, b, b; x: 2, 7, 5; diff: -1, -1, -1
            a 1 1 1 [0, 10) at 9 late 0/0 first 1
            a 1 4 4 [16, 26) at 25 late 0/0 first 1
            a 3 7 4 [0, 26) at 25 late 0/0 first -1
            b 2 12 7 [1, 11) at 10 late 1/1 -1
        rows event_time: 24; k: a; x: 3; diff: 1
            a 1 4 4 [16, 26) at 25 late 0/0 first -1
        watermark 34
            a 2 7 4 [16, 34) at 33 on_time 0/0 first 1
        watermark 50
        end
    "#]],
    );
    let always = correcting(sessions(), 20).closing(Closing::FireAlways);
    check(
        always,
        &LATE,
        expect![[r#"
        rows event_time: 0, 16, 1; k: a, a, b; x: 1, 4, 7; diff: 1, 1, 1
        watermark 26
            a 1 1 1 [0, 10) at 9 on_time 0/0 first 1
            a 1 4 4 [16, 26) at 25 on_time 0/0 first 1
            b 1 7 7 [1, 11) at 10 on_time 0/0 first 1
        rows event_time: 8; k: a; x: 2; diff: 1
            a 1 1 1 [0, 10) at 9 on_time 0/0 first -1
            a 1 4 4 [16, 26) at 25 on_time 0/0 first -1
            a 3 7 4 [0, 26) at 25 late 0/0 first 1
        rows event_time: 1, 2, 2; k: b, b, b; x: 5, 6, 6; diff: 1, 1, -1
            b 1 7 7 [1, 11) at 10 on_time 0/0 first -1
            b 2 12 7 [1, 11) at 10 late 1/1 1
        rows event_time: 8, 1, 1; k: a, b, b; x: 2, 7, 5; diff: -1, -1, -1
            a 1 1 1 [0, 10) at 9 late 0/0 first 1
            a 1 4 4 [16, 26) at 25 late 0/0 first 1
            a 3 7 4 [0, 26) at 25 late 0/0 first -1
            b 2 12 7 [1, 11) at 10 late 1/1 -1
        rows event_time: 24; k: a; x: 3; diff: 1
            a 1 4 4 [16, 26) at 25 late 0/0 first -1
        watermark 34
            a 1 1 1 [0, 10) at 9 late 0/0 first -1
            a 1 1 1 [0, 10) at 9 late 1/1 last 1
            a 2 7 4 [16, 34) at 33 on_time 0/0 first 1
        watermark 50
        end
            a 2 7 4 [16, 34) at 33 late 1/1 last 1
            a 2 7 4 [16, 34) at 33 on_time 0/0 first -1
    "#]],
    );
}

#[test]
fn results_leave_early_with_every_change() {
    let early = Trigger::after_watermark()
        .early(Trigger::always())
        .late(Trigger::always());
    let events = [
        Rows("event_time: 0, 16; k: a, a; x: 1, 4; diff: 1, 1"),
        Rows("event_time: 8; k: a; x: 2; diff: 1"),
        Rows("event_time: 16; k: a; x: 4; diff: -1"),
        Watermark(18),
        End,
    ];
    check(
        correcting(sessions(), 5).trigger(early),
        &events,
        expect![[r#"
            rows event_time: 0, 16; k: a, a; x: 1, 4; diff: 1, 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first 1
                a 1 4 4 [16, 26) at 25 early 0/-1 first 1
            rows event_time: 8; k: a; x: 2; diff: 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first -1
                a 1 4 4 [16, 26) at 25 early 0/-1 first -1
                a 3 7 4 [0, 26) at 25 early 0/-1 first 1
            rows event_time: 16; k: a; x: 4; diff: -1
                a 2 3 2 [0, 18) at 17 early 0/-1 first 1
                a 3 7 4 [0, 26) at 25 early 0/-1 first -1
            watermark 18
                a 2 3 2 [0, 18) at 17 early 0/-1 first -1
                a 2 3 2 [0, 18) at 17 on_time 1/0 1
            end
        "#]],
    );
    check(
        correcting(sessions(), 0).trigger(Trigger::always()),
        &events,
        expect![[r#"
            rows event_time: 0, 16; k: a, a; x: 1, 4; diff: 1, 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first 1
                a 1 4 4 [16, 26) at 25 early 0/-1 first 1
            rows event_time: 8; k: a; x: 2; diff: 1
                a 1 1 1 [0, 10) at 9 early 0/-1 first -1
                a 1 4 4 [16, 26) at 25 early 0/-1 first -1
                a 3 7 4 [0, 26) at 25 early 0/-1 first 1
            rows event_time: 16; k: a; x: 4; diff: -1
                a 2 3 2 [0, 18) at 17 early 0/-1 first 1
                a 3 7 4 [0, 26) at 25 early 0/-1 first -1
            watermark 18
            end
        "#]],
    );
}

/// Where nothing late is taken, what becomes over by a change leaves with the next watermark, as it is then.
#[test]
fn what_is_over_by_a_change_leaves_with_the_next_watermark() {
    check(
        sessions(),
        &[
            Rows("event_time: 0, 8; k: a, a; x: 1, 2; diff: 1, 1"),
            Watermark(12),
            Rows("event_time: 8; k: a; x: 2; diff: -1"),
            // Told again, as after a restart, it is no other watermark.
            Watermark(12),
            Rows("event_time: 9; k: a; x: 4; diff: 1"),
            Rows("event_time: 9; k: a; x: 4; diff: -1"),
            Watermark(13),
            End,
        ],
        expect![[r#"
            rows event_time: 0, 8; k: a, a; x: 1, 2; diff: 1, 1
            watermark 12
            rows event_time: 8; k: a; x: 2; diff: -1
            watermark 12
            rows event_time: 9; k: a; x: 4; diff: 1
            rows event_time: 9; k: a; x: 4; diff: -1
            watermark 13
                a 1 1 1 [0, 10) at 9 1
            end
        "#]],
    );
}

#[test]
fn distinct_rows_and_all_rows_have_sessions_too() {
    let schema = changelog("event_time: 1; k: a; diff: 1").schema();
    let windowing = correcting(sessions(), 20);
    let make = |n| Driver::asking(&schema, &windowing, n, Asked::Distinct).unwrap();
    let is_empty = |driver: &Driver| assert_eq!(driver.state_bytes(), 0);
    let events = [
        Rows("event_time: 1, 2, 12; k: a, a, a; diff: 1, 1, 1"),
        Watermark(22),
        Rows("event_time: 2; k: a; diff: -1"),
        Rows("event_time: 1; k: a; diff: -1"),
        End,
    ];
    check_script(
        make,
        changelog,
        is_empty,
        &events,
        &expect![[r#"
        rows event_time: 1, 2, 12; k: a, a, a; diff: 1, 1, 1
        watermark 22
            a [1, 12) at 11 on_time 0/0 first 1
            a [12, 22) at 21 on_time 0/0 first 1
        rows event_time: 2; k: a; diff: -1
            a [1, 11) at 10 late 0/0 first 1
            a [1, 12) at 11 on_time 0/0 first -1
        rows event_time: 1; k: a; diff: -1
            a [1, 11) at 10 late 0/0 first -1
        end
    "#]],
    );
    let schema = changelog("event_time: 1; k: a; x: 1; diff: 1").schema();
    let make = |n| Driver::over(&schema, &windowing, n, &[], aggregates()).unwrap();
    let events = [
        Rows("event_time: 0, 16; k: a, b; x: 1, 4; diff: 1, 1"),
        Watermark(12),
        Rows("event_time: 8; k: c; x: 2; diff: 1"),
        End,
    ];
    check_script(
        make,
        changelog,
        is_empty,
        &events,
        &expect![[r#"
        rows event_time: 0, 16; k: a, b; x: 1, 4; diff: 1, 1
        watermark 12
            1 1 1 [0, 10) at 9 on_time 0/0 first 1
        rows event_time: 8; k: c; x: 2; diff: 1
            1 1 1 [0, 10) at 9 on_time 0/0 first -1
        end
            3 7 4 [0, 26) at 25 on_time 0/0 first 1
    "#]],
    );
}

fn run(script: Script, grouped: impl Fn(&Collection) -> Collection) -> crate::Result<String> {
    let pipeline = Pipeline::new("test");
    let schema = changelog("k: a; x: 1; event_time: 1; diff: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema));
    grouped(&rows).named("out").write(collect().0);
    let made = simulate(&pipeline, &script, 2, 7)?;
    Ok(contents_at(&made.rows("out"), None))
}

#[test]
fn a_row_that_was_never_added_ends_the_run_when_its_window_is_over() {
    let grouped = |rows: &Collection| {
        let grouped = rows.window(correcting(sessions(), 20)).group_by([col("k")]);
        grouped.agg(aggregates())
    };
    let taken_back = changelog("k: a, a; x: 1, 2; event_time: 3, 5; diff: 1, -1");
    let script = Script::new()
        .batch("rows", 0, taken_back)
        .watermark("rows", 34);
    let added = changelog("k: a; x: 2; event_time: 5; diff: 1");
    let sound = script.clone().batch("rows", 0, added).end("rows");
    expect!["k='a' n=1 sum=1 max=1 window_start=3 window_end=13 pane={timing: on_time, index: 0, nonspeculative_index: 0, is_first: true, is_last: false}"].assert_eq(&run(sound, grouped).unwrap());
    let script = script.watermark("rows", 35);
    let error = run(script.clone().end("rows"), grouped).unwrap_err();
    expect![[r#"
        a changelog takes back a row that it never added
          in transform "group_by"
          The group is k = a, window_start = 1970-01-01T00:00:00.005, window_end = 1970-01-01T00:00:00.015.
          Hint: A change counts in the windows of its row: one that takes a row back must have the time of that row, which `Windowing::row_time` reads from a column where the event time is another."#]].assert_eq(&error.to_string());
    // Too late to count, and not too late to say that the row was added; also where workers have been restarted.
    let added = changelog("k: a; x: 2; event_time: 5; diff: 1");
    for script in [script.clone(), script.restart(3)] {
        let sound = script.batch("rows", 0, added.clone()).end("rows");
        expect!["k='a' n=1 sum=1 max=1 window_start=3 window_end=13 pane={timing: on_time, index: 0, nonspeculative_index: 0, is_first: true, is_last: false}"].assert_eq(&run(sound, grouped).unwrap());
    }
}

/// Rows and keys are let go with their sessions.
#[test]
fn state_stays_small_while_keys_come_and_go() {
    let schema = changelog("event_time: 1; k: a; x: 1; diff: 1").schema();
    let windowing = correcting(sessions(), 10);
    let mut driver = Driver::over(&schema, &windowing, 1, &["k"], aggregates()).unwrap();
    let mut largest = [0, 0];
    for step in 0..200 {
        let column = |of: &dyn Fn(usize) -> String| (0..50).map(of).collect::<Vec<_>>().join(", ");
        let text = format!(
            "event_time: {}; k: {}; x: {}; diff: {}",
            column(&|n| (step * 10 + n % 10).to_string()),
            column(&|n| format!("key{}", step * 50 + n)),
            column(&|n| n.to_string()),
            column(&|_| "1".to_owned()),
        );
        driver.rows(0, &changelog(&text));
        driver.watermark(i64::try_from(step).unwrap() * 10);
        let half = usize::from(step >= 100);
        largest[half] = largest[half].max(driver.state_bytes());
    }
    assert!(largest[1] <= largest[0] * 3 / 2, "{largest:?} bytes");
}
