//! Tests of distinct rows in windows.

use expect_test::{Expect, expect};

use super::driver::Driver;
use super::script::Event::{self, End, Rows, Watermark};
use super::script::check_script;
use super::{fixed, ms, sessions};
use crate::connectors::collect;
use crate::ops::Watermarks;
use crate::ops::group_by::windowed::Asked;
use crate::testing::{Script, changelog, scripted, scripted_with, show_rows, simulate, table};
use crate::windowing::{Accumulation, Closing, SlidingWindows, Trigger, Windowing};
use crate::{Pipeline, col};

/// Checks a script of distinct values of `k`.
fn check(windowing: Windowing, events: &[Event<'_>], expected: Expect) {
    let schema = table("event_time: 1; k: a").schema();
    let make = |n| Driver::asking(&schema, &windowing, n, Asked::Distinct).unwrap();
    check_script(make, table, |_| (), events, &expected);
}

#[test]
fn a_row_leaves_once_in_each_of_its_windows() {
    let events = [
        Rows("event_time: 1, 12, 5, 9, 2; k: a, a, b, a, null"),
        Watermark(9),
        Rows("event_time: 9, 9; k: b, null"),
        Watermark(10),
        Rows("event_time: 3, 15; k: a, c"),
        End,
    ];
    check(
        fixed(10),
        &events,
        expect![[r#"
            rows event_time: 1, 12, 5, 9, 2; k: a, a, b, a, null
            watermark 9
            rows event_time: 9, 9; k: b, null
            watermark 10
                a [0, 10) at 9
                b [0, 10) at 9
                null [0, 10) at 9
            rows event_time: 3, 15; k: a, c
            end
                a [10, 20) at 19
                c [10, 20) at 19
            1 late
        "#]],
    );
    check(
        Windowing::of(SlidingWindows::of(ms(10)).every(ms(5))),
        &events,
        expect![[r#"
            rows event_time: 1, 12, 5, 9, 2; k: a, a, b, a, null
            watermark 9
                a [-5, 5) at 4
                null [-5, 5) at 4
            rows event_time: 9, 9; k: b, null
            watermark 10
                a [0, 10) at 9
                b [0, 10) at 9
                null [0, 10) at 9
            rows event_time: 3, 15; k: a, c
            end
                a [10, 20) at 19
                a [5, 15) at 14
                b [5, 15) at 14
                c [10, 20) at 19
                c [15, 25) at 24
                null [5, 15) at 14
            1 late
        "#]],
    );
}

/// Whatever is accumulated: a second pane would say the same of a row.
#[test]
fn a_row_that_has_left_does_not_leave_again_with_later_panes() {
    let events = [
        Rows("event_time: 1, 12; k: a, a"),
        Rows("event_time: 2; k: a"),
        Watermark(12),
        Rows("event_time: 5, 5, 7; k: a, b, a"),
        Rows("event_time: 6; k: b"),
        Watermark(29),
        Rows("event_time: 0; k: c"),
        Watermark(30),
        Rows("event_time: 0; k: a"),
        End,
    ];
    let late = fixed(10).allowed_lateness(ms(20));
    for closing in [Closing::FireIfNonEmpty, Closing::FireAlways] {
        let closing = late.clone().closing(closing);
        for accumulation in [Accumulation::Discarding, Accumulation::Accumulating] {
            check(
                closing.clone().accumulation(accumulation),
                &events,
                expect![[r#"
                    rows event_time: 1, 12; k: a, a
                    rows event_time: 2; k: a
                    watermark 12
                        a [0, 10) at 9 on_time 0/0 first
                    rows event_time: 5, 5, 7; k: a, b, a
                        b [0, 10) at 9 late 0/0 first
                    rows event_time: 6; k: b
                    watermark 29
                        a [10, 20) at 19 on_time 0/0 first
                    rows event_time: 0; k: c
                        c [0, 10) at 9 late 0/0 first
                    watermark 30
                    rows event_time: 0; k: a
                    end
                    1 late
                "#]],
            );
        }
        check(
            closing.accumulation(Accumulation::AccumulatingAndRetracting),
            &events,
            expect![[r#"
                rows event_time: 1, 12; k: a, a
                rows event_time: 2; k: a
                watermark 12
                    a [0, 10) at 9 on_time 0/0 first 1
                rows event_time: 5, 5, 7; k: a, b, a
                    b [0, 10) at 9 late 0/0 first 1
                rows event_time: 6; k: b
                watermark 29
                    a [10, 20) at 19 on_time 0/0 first 1
                rows event_time: 0; k: c
                    c [0, 10) at 9 late 0/0 first 1
                watermark 30
                rows event_time: 0; k: a
                end
                1 late
            "#]],
        );
    }
}

#[test]
fn a_trigger_lets_a_row_leave_as_soon_as_it_is_seen() {
    check(
        fixed(10).trigger(Trigger::always()),
        &[
            Rows("event_time: 1, 12, 2; k: a, a, a"),
            Rows("event_time: 3, 4; k: a, b"),
            Watermark(12),
            Rows("event_time: 15; k: c"),
            End,
        ],
        expect![[r#"
            rows event_time: 1, 12, 2; k: a, a, a
                a [0, 10) at 9 early 0/-1 first
                a [10, 20) at 19 early 0/-1 first
            rows event_time: 3, 4; k: a, b
                b [0, 10) at 9 early 0/-1 first
            watermark 12
            rows event_time: 15; k: c
                c [10, 20) at 19 early 0/-1 first
            end
        "#]],
    );
}

#[test]
fn a_session_that_becomes_another_says_so() {
    let events = [
        Rows("event_time: 0, 20; k: a, a"),
        Watermark(26),
        // Within the session: nothing is new.
        Rows("event_time: 21; k: a"),
        Rows("event_time: 3; k: a"),
        // Brings both together.
        Rows("event_time: 11; k: a"),
        End,
    ];
    let late = sessions(10).allowed_lateness(ms(50));
    check(
        late.clone(),
        &events,
        expect![[r#"
            rows event_time: 0, 20; k: a, a
            watermark 26
                a [0, 10) at 9 on_time 0/0 first
            rows event_time: 21; k: a
            rows event_time: 3; k: a
                a [0, 13) at 12 late 0/0 first
            rows event_time: 11; k: a
            end
                a [0, 31) at 30 on_time 0/0 first
        "#]],
    );
    check(
        late.accumulation(Accumulation::AccumulatingAndRetracting),
        &events,
        expect![[r#"
            rows event_time: 0, 20; k: a, a
            watermark 26
                a [0, 10) at 9 on_time 0/0 first 1
            rows event_time: 21; k: a
            rows event_time: 3; k: a
                a [0, 10) at 9 on_time 0/0 first -1
                a [0, 13) at 12 late 0/0 first 1
            rows event_time: 11; k: a
            end
                a [0, 13) at 12 late 0/0 first -1
                a [0, 31) at 30 on_time 0/0 first 1
        "#]],
    );
}

/// A row is there while it is in its window more often than it has been taken back.
#[test]
fn of_a_changelog_rows_come_and_go_with_what_is_late() {
    let windowing = fixed(10)
        .trigger(
            Trigger::after_watermark()
                .early(Trigger::always())
                .late(Trigger::always()),
        )
        .allowed_lateness(ms(20))
        .accumulation(Accumulation::AccumulatingAndRetracting);
    let schema = changelog("event_time: 1; k: a; diff: 1").schema();
    let make = |n| Driver::asking(&schema, &windowing, n, Asked::Distinct).unwrap();
    let is_empty = |driver: &Driver| assert_eq!(driver.state_bytes(), 0);
    let events = [
        Rows("event_time: 1, 2, 3; k: a, a, b; diff: 1, 1, 1"),
        Watermark(12),
        Rows("event_time: 2, 3; k: a, b; diff: -1, -1"),
        Rows("event_time: 1; k: a; diff: -1"),
        End,
    ];
    check_script(
        make,
        changelog,
        is_empty,
        &events,
        &expect![[r#"
            rows event_time: 1, 2, 3; k: a, a, b; diff: 1, 1, 1
                a [0, 10) at 9 early 0/-1 first 1
                b [0, 10) at 9 early 0/-1 first 1
            watermark 12
            rows event_time: 2, 3; k: a, b; diff: -1, -1
                b [0, 10) at 9 early 0/-1 first -1
            rows event_time: 1; k: a; diff: -1
                a [0, 10) at 9 early 0/-1 first -1
            end
        "#]],
    );
}

#[test]
fn late_rows_leave_as_they_came_and_a_plan_says_what_is_kept() {
    let pipeline = Pipeline::new("visitors");
    let rows = pipeline.read("rows", scripted("user: ann; page: 1; at: 1"));
    let rows = rows.assign_timestamps(col("at"), Watermarks::monotone());
    let rows = rows.select([col("user"), col("event_time")]);
    let (distinct, late) = rows
        .window(fixed(10).allowed_lateness(ms(5)))
        .distinct_with_late();
    distinct
        .select([col("user"), col("window_start")])
        .named("out")
        .write(collect().0);
    late.named("late").write(collect().0);
    let script = Script::new()
        .rows("rows", "user: ann, bob, ann; page: 1, 2, 3; at: 1, 2, 3")
        .rows("rows", "user: ann, cid; page: 4, 5; at: 14, 4")
        .rows("rows", "user: bob; page: 6; at: 15")
        .rows("rows", "user: bob; page: 7; at: 9")
        .end("rows");
    let made = simulate(&pipeline, &script, 3, 5).unwrap();
    expect![[r#"
        user='ann' window_start=0
        user='ann' window_start=10
        user='bob' window_start=0
        user='bob' window_start=10
        user='cid' window_start=0"#]]
    .assert_eq(&show_rows(&made.rows("out")));
    expect!["user='bob' event_time=9"].assert_eq(&show_rows(&made.rows("late")));
    let text = pipeline.plan().unwrap().explain();
    expect![[r#"
        pipeline "visitors": 1 phase

        phase 1 of 1
          scan      rows [scripted], columns 2 of 3: user, at
          transform assign_timestamps [assign_timestamps] <- rows
                      time=at, watermarks={"out_of_orderness_ms":0}, keeps the watermark of each open split
          transform select [select] <- assign_timestamps
                      columns=["user","event_time"], fused with assign_timestamps
          transform distinct/partial [partial_distinct] <- select
                      window=fixed, window_config={"offset_ms":0,"size_ms":10}, in fixed windows size=10 ms,
                        lateness 5 ms, keeps state until the watermark passes a window's end by the lateness
          transform distinct [distinct] <- distinct/partial:out
                      accumulation=discarding, allowed_lateness_ms=5, timestamp_combiner=end_of_window,
                        trigger=Default, window=fixed, window_config={"offset_ms":0,"size_ms":10},
                        in fixed windows size=10 ms, lateness 5 ms,
                        keeps state until the watermark passes a window's end by the lateness
          transform select-2 [select columns=["user","window_start"]] <- distinct
          write     out [collect] <- select-2
          write     late [collect] <- distinct/partial:late
    "#]].assert_eq(&text);
}

#[test]
fn what_does_not_fit_is_refused_while_planning() {
    let refused = |rows: &str| {
        let pipeline = Pipeline::new("test");
        let rows = pipeline.read("rows", scripted_with(table(rows).schema()));
        rows.window(fixed(10)).distinct().write(collect().0);
        pipeline.plan().unwrap_err().to_string()
    };
    let all = [
        refused("k: a"),
        refused("event_time: 1"),
        refused("event_time: 1; window_start: 3"),
    ];
    expect![[r#"
        the rows have no event time
          in transform "distinct/partial"
          Hint: Give it to them with `assign_timestamps`, and keep the column "event_time" up to here.

        the rows have no column besides "event_time", so all of a window are the same
          in transform "distinct/partial"
          Hint: Count them with `agg([count(lit(1))])` if you want to know of them.

        a column of the result is called "window_start", as one that its window gives it
          in transform "distinct/partial"
          Hint: Give it another name with `.alias("…")`, or leave it out with `select`."#]].assert_eq(&all.join("\n\n"));
}
