//! Tests of first rows of changelogs in windows.

use datafusion_expr::lit;
use expect_test::{Expect, expect};

use super::{correcting, fixed, ms};
use crate::connectors::{collect, from_record_batches};
use crate::expression::col;
use crate::ops::group_by::windowed::Asked;
use crate::ops::group_by::windowed::tests::driver::Driver;
use crate::ops::group_by::windowed::tests::script::Event::{self, End, Rows, Watermark};
use crate::ops::group_by::windowed::tests::script::check_script;
use crate::output::OnBadRow;
use crate::runner::RunOptions;
use crate::testing::{changelog, scripted_with, show_rows};
use crate::windowing::{Sessions, Windowing};
use crate::{Collection, Pipeline};

/// Checks a script of the two rows of each `k` with the least `x`.
fn check(windowing: Windowing, events: &[Event<'_>], expected: Expect) {
    let schema = changelog("event_time: 1; k: a; x: 1; diff: 1").schema();
    let asked = || Asked::First {
        kind: "top_k",
        n_rows: 2,
        keys: vec![col("k")],
        order: vec![col("x").sort(true, false)],
    };
    let make = |n| Driver::asking(&schema, &windowing, n, asked()).unwrap();
    let is_empty = |driver: &Driver| assert_eq!(driver.state_bytes(), 0);
    check_script(make, changelog, is_empty, events, &expected);
}

#[test]
fn what_is_taken_back_makes_room_for_the_next_row() {
    let events = [
        Rows("event_time: 1, 2, 3, 3; k: a, a, a, b; x: 5, 3, 4, null; diff: 1, 1, 1, 1"),
        Watermark(10),
        Rows("event_time: 2; k: a; x: 3; diff: -1"),
        // Behind the first two: nothing leaves.
        Rows("event_time: 1; k: a; x: 9; diff: 1"),
        // There twice, it takes both places; and b is there no more.
        Rows("event_time: 4, 5, 3; k: a, a, b; x: 1, 1, null; diff: 1, 1, -1"),
        End,
    ];
    check(
        correcting(fixed(10), 20),
        &events,
        expect![[r#"
        rows event_time: 1, 2, 3, 3; k: a, a, a, b; x: 5, 3, 4, null; diff: 1, 1, 1, 1
        watermark 10
            a 3 [0, 10) at 9 on_time 0/0 first 1
            a 4 [0, 10) at 9 on_time 0/0 first 1
            b null [0, 10) at 9 on_time 0/0 first 1
        rows event_time: 2; k: a; x: 3; diff: -1
            a 3 [0, 10) at 9 on_time 0/0 first -1
            a 4 [0, 10) at 9 late 1/1 1
            a 4 [0, 10) at 9 on_time 0/0 first -1
            a 5 [0, 10) at 9 late 1/1 1
        rows event_time: 1; k: a; x: 9; diff: 1
        rows event_time: 4, 5, 3; k: a, a, b; x: 1, 1, null; diff: 1, 1, -1
            a 1 [0, 10) at 9 late 2/2 1
            a 1 [0, 10) at 9 late 2/2 1
            a 4 [0, 10) at 9 late 1/1 -1
            a 5 [0, 10) at 9 late 1/1 -1
            b null [0, 10) at 9 on_time 0/0 first -1
        end
    "#]],
    );
}

#[test]
fn sessions_that_part_have_first_rows_of_their_own() {
    let events = [
        Rows("event_time: 0, 8, 9, 16; k: a, a, a, a; x: 5, 3, 4, 6; diff: 1, 1, 1, 1"),
        Watermark(26),
        Rows("event_time: 8, 9; k: a, a; x: 3, 4; diff: -1, -1"),
        End,
    ];
    let sessions = Windowing::of(Sessions::with_gap(ms(10)));
    check(
        correcting(sessions, 20),
        &events,
        expect![[r#"
        rows event_time: 0, 8, 9, 16; k: a, a, a, a; x: 5, 3, 4, 6; diff: 1, 1, 1, 1
        watermark 26
            a 3 [0, 26) at 25 on_time 0/0 first 1
            a 4 [0, 26) at 25 on_time 0/0 first 1
        rows event_time: 8, 9; k: a, a; x: 3, 4; diff: -1, -1
            a 3 [0, 26) at 25 on_time 0/0 first -1
            a 4 [0, 26) at 25 on_time 0/0 first -1
            a 5 [0, 10) at 9 late 0/0 first 1
            a 6 [16, 26) at 25 late 0/0 first 1
        end
    "#]],
    );
}

#[test]
fn a_change_without_an_order_is_a_bad_row_and_own_columns_are_none() {
    let pipeline = Pipeline::new("test");
    let rows =
        changelog("k: a, a, a; x: 0, 4, 0; at: 1, 2, 1; event_time: 1, 2, 3; diff: 1, 1, -1");
    let first = pipeline
        .read("rows", from_record_batches(vec![rows]))
        .window(fixed(10).row_time(col("at")))
        .top_k(2, [(lit(8) / col("x")).sort(true, false)])
        .on_bad_row(OnBadRow::DeadLetter);
    let (dead, letters) = collect();
    first.dead_letters().write(dead);
    let (sink, made) = collect();
    first.write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    expect!["k='a' x=4 at=2 window_start=0 window_end=10 event_time=9 diff=1"]
        .assert_eq(&show_rows(&made.take()));
    expect![[r#"
        node='top_k/partial' split='record batch 0' row=0 reason='expression `Int32(8) / x` failed on {"x":0}: Divide by zero error' data='{"k":"a","x":0,"at":1,"event_time":"1970-01-01T00:00:00.001","diff":1}'
        node='top_k/partial' split='record batch 0' row=2 reason='expression `Int32(8) / x` failed on {"x":0}: Divide by zero error' data='{"k":"a","x":0,"at":1,"event_time":"1970-01-01T00:00:00.003","diff":-1}'"#]].assert_eq(&show_rows(&letters.take()));

    let refused = |first: fn(&Collection) -> Collection| {
        let pipeline = Pipeline::new("test");
        let schema = changelog("x: 1; event_time: 1; diff: 1").schema();
        let rows = pipeline.read("rows", scripted_with(schema));
        first(&rows.window(fixed(10))).write(collect().0);
        pipeline.plan().unwrap_err().to_string()
    };
    expect![[r#"
        `event_time` reads column "event_time" of a changelog
          in transform "top_k/partial"
          It is another when the same row is taken back, which would then be a row that was never added.
          Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]].assert_eq(&refused(|rows| {
        rows.top_k(1, [col("event_time").sort(true, false)])
    }));
    expect![[r#"
        `diff` reads column "diff" of a changelog
          in transform "distinct_by/partial"
          It is another when the same row is taken back, which would then be a row that was never added.
          Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]].assert_eq(&refused(|rows| rows.distinct_by([col("diff")])));
}
