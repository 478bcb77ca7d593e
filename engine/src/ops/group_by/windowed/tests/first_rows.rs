//! Tests of first rows in windows.

use arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use expect_test::{Expect, expect};
use std::sync::Arc;

use super::driver::Driver;
use super::script::Event::{self, End, Rows, Watermark};
use super::script::check_script;
use super::{fixed, ms, sessions};
use crate::connectors::{collect, from_record_batches};
use crate::expression::lit;
use crate::ops::Watermarks;
use crate::ops::group_by::windowed::Asked;
use crate::output::OnBadRow;
use crate::runner::RunOptions;
use crate::testing::{Script, scripted, scripted_with, show_rows, simulate, table};
use crate::windowing::{Accumulation, SlidingWindows, Trigger, Windowing};
use crate::{Collection, Pipeline, col};

/// The two rows with the least `x` of each `k`.
fn two_by_key() -> Asked {
    Asked::First {
        kind: "top_k",
        n_rows: 2,
        keys: vec![col("k")],
        order: vec![col("x").sort(true, false)],
    }
}

fn check(windowing: Windowing, events: &[Event<'_>], expected: Expect) {
    let schema = table("event_time: 1; k: a; x: 1; id: 1").schema();
    let make = |n| Driver::asking(&schema, &windowing, n, two_by_key()).unwrap();
    check_script(make, table, |_| (), events, &expected);
}

#[test]
fn the_first_rows_of_each_key_leave_at_the_end_of_their_window() {
    let events = [
        Rows("event_time: 1, 2, 3, 12; k: a, a, a, a; x: 5, 3, 4, 9; id: 1, 2, 3, 4"),
        Rows("event_time: 9, 0, 1; k: a, b, null; x: 1, null, 7; id: 5, 6, 7"),
        Watermark(10),
        Rows("event_time: 3, 15; k: a, c; x: 0, 6; id: 8, 9"),
        End,
    ];
    check(
        fixed(10),
        &events,
        expect![[r#"
        rows event_time: 1, 2, 3, 12; k: a, a, a, a; x: 5, 3, 4, 9; id: 1, 2, 3, 4
        rows event_time: 9, 0, 1; k: a, b, null; x: 1, null, 7; id: 5, 6, 7
        watermark 10
            a 1 5 [0, 10) at 9
            a 3 2 [0, 10) at 9
            b null 6 [0, 10) at 9
            null 7 7 [0, 10) at 9
        rows event_time: 3, 15; k: a, c; x: 0, 6; id: 8, 9
        end
            a 9 4 [10, 20) at 19
            c 6 9 [10, 20) at 19
        1 late
    "#]],
    );
    let sliding = Windowing::of(SlidingWindows::of(ms(10)).every(ms(5)));
    check(
        sliding,
        &events,
        expect![[r#"
        rows event_time: 1, 2, 3, 12; k: a, a, a, a; x: 5, 3, 4, 9; id: 1, 2, 3, 4
        rows event_time: 9, 0, 1; k: a, b, null; x: 1, null, 7; id: 5, 6, 7
        watermark 10
            a 1 5 [0, 10) at 9
            a 3 2 [-5, 5) at 4
            a 3 2 [0, 10) at 9
            a 4 3 [-5, 5) at 4
            b null 6 [-5, 5) at 4
            b null 6 [0, 10) at 9
            null 7 7 [-5, 5) at 4
            null 7 7 [0, 10) at 9
        rows event_time: 3, 15; k: a, c; x: 0, 6; id: 8, 9
        end
            a 1 5 [5, 15) at 14
            a 9 4 [10, 20) at 19
            a 9 4 [5, 15) at 14
            c 6 9 [10, 20) at 19
            c 6 9 [15, 25) at 24
        1 late
    "#]],
    );
}

#[test]
fn later_panes_say_what_the_accumulation_says() {
    let events = [
        Rows("event_time: 1, 2, 3; k: a, a, b; x: 5, 3, 4; id: 1, 2, 3"),
        Watermark(10),
        // One of three is not among the first; of b there is another.
        Rows("event_time: 1, 2, 3; k: a, a, b; x: 4, 9, 1; id: 4, 5, 6"),
        Watermark(30),
        End,
    ];
    let late = fixed(10).allowed_lateness(ms(20));
    check(
        late.clone(),
        &events,
        expect![[r#"
        rows event_time: 1, 2, 3; k: a, a, b; x: 5, 3, 4; id: 1, 2, 3
        watermark 10
            a 3 2 [0, 10) at 9 on_time 0/0 first
            a 5 1 [0, 10) at 9 on_time 0/0 first
            b 4 3 [0, 10) at 9 on_time 0/0 first
        rows event_time: 1, 2, 3; k: a, a, b; x: 4, 9, 1; id: 4, 5, 6
            a 4 4 [0, 10) at 9 late 1/1
            a 9 5 [0, 10) at 9 late 1/1
            b 1 6 [0, 10) at 9 late 1/1
        watermark 30
        end
    "#]],
    );
    let accumulating = late.accumulation(Accumulation::Accumulating);
    check(
        accumulating.clone(),
        &events,
        expect![[r#"
        rows event_time: 1, 2, 3; k: a, a, b; x: 5, 3, 4; id: 1, 2, 3
        watermark 10
            a 3 2 [0, 10) at 9 on_time 0/0 first
            a 5 1 [0, 10) at 9 on_time 0/0 first
            b 4 3 [0, 10) at 9 on_time 0/0 first
        rows event_time: 1, 2, 3; k: a, a, b; x: 4, 9, 1; id: 4, 5, 6
            a 3 2 [0, 10) at 9 late 1/1
            a 4 4 [0, 10) at 9 late 1/1
            b 1 6 [0, 10) at 9 late 1/1
            b 4 3 [0, 10) at 9 late 1/1
        watermark 30
        end
    "#]],
    );
    let retracting = accumulating.accumulation(Accumulation::AccumulatingAndRetracting);
    check(
        retracting.clone(),
        &events,
        expect![[r#"
        rows event_time: 1, 2, 3; k: a, a, b; x: 5, 3, 4; id: 1, 2, 3
        watermark 10
            a 3 2 [0, 10) at 9 on_time 0/0 first 1
            a 5 1 [0, 10) at 9 on_time 0/0 first 1
            b 4 3 [0, 10) at 9 on_time 0/0 first 1
        rows event_time: 1, 2, 3; k: a, a, b; x: 4, 9, 1; id: 4, 5, 6
            a 3 2 [0, 10) at 9 late 1/1 1
            a 3 2 [0, 10) at 9 on_time 0/0 first -1
            a 4 4 [0, 10) at 9 late 1/1 1
            a 5 1 [0, 10) at 9 on_time 0/0 first -1
            b 1 6 [0, 10) at 9 late 1/1 1
            b 4 3 [0, 10) at 9 late 1/1 1
            b 4 3 [0, 10) at 9 on_time 0/0 first -1
        watermark 30
        end
    "#]],
    );
    let early = Trigger::after_watermark().early(Trigger::always());
    check(
        retracting.trigger(early.late(Trigger::always())),
        &events[..2],
        expect![[r#"
            rows event_time: 1, 2, 3; k: a, a, b; x: 5, 3, 4; id: 1, 2, 3
                a 3 2 [0, 10) at 9 early 0/-1 first 1
                a 5 1 [0, 10) at 9 early 0/-1 first 1
                b 4 3 [0, 10) at 9 early 0/-1 first 1
            watermark 10
                a 3 2 [0, 10) at 9 early 0/-1 first -1
                a 3 2 [0, 10) at 9 on_time 1/0 1
                a 5 1 [0, 10) at 9 early 0/-1 first -1
                a 5 1 [0, 10) at 9 on_time 1/0 1
                b 4 3 [0, 10) at 9 early 0/-1 first -1
                b 4 3 [0, 10) at 9 on_time 1/0 1
        "#]],
    );
}

#[test]
fn sessions_bring_first_rows_together() {
    let late = sessions(10).allowed_lateness(ms(50));
    check(
        late.accumulation(Accumulation::AccumulatingAndRetracting),
        &[
            Rows("event_time: 0, 1, 15, 16; k: a, a, a, a; x: 5, 3, 4, 6; id: 1, 2, 3, 4"),
            Watermark(26),
            Rows("event_time: 9; k: a; x: 9; id: 5"),
            End,
        ],
        expect![[r#"
            rows event_time: 0, 1, 15, 16; k: a, a, a, a; x: 5, 3, 4, 6; id: 1, 2, 3, 4
            watermark 26
                a 3 2 [0, 11) at 10 on_time 0/0 first 1
                a 4 3 [15, 26) at 25 on_time 0/0 first 1
                a 5 1 [0, 11) at 10 on_time 0/0 first 1
                a 6 4 [15, 26) at 25 on_time 0/0 first 1
            rows event_time: 9; k: a; x: 9; id: 5
                a 3 2 [0, 11) at 10 on_time 0/0 first -1
                a 3 2 [0, 26) at 25 late 0/0 first 1
                a 4 3 [0, 26) at 25 late 0/0 first 1
                a 4 3 [15, 26) at 25 on_time 0/0 first -1
                a 5 1 [0, 11) at 10 on_time 0/0 first -1
                a 6 4 [15, 26) at 25 on_time 0/0 first -1
            end
        "#]],
    );
}

/// Rows of one split that are equal under the order leave as they stand in it, before those of later splits.
#[test]
fn ties_are_broken_as_rows_stand_in_their_source() {
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", scripted("x: 1; id: 1; event_time: 1"));
    let first = rows
        .window(fixed(10))
        .top_k(3, [(col("x") / lit(10)).sort(false, false)]);
    first.named("out").write(collect().0);
    let script = Script::new()
        .batch("rows", 1, table("x: 11, 15; id: 1, 2; event_time: 1, 2"))
        .batch("rows", 0, table("x: 19; id: 3; event_time: 1"))
        .batch("rows", 1, table("x: 13, 25; id: 4, 5; event_time: 1, 2"))
        .batch("rows", 0, table("x: 12; id: 6; event_time: 1"))
        .end("rows");
    let told = |n_workers: usize, seed: u64| {
        let made = simulate(&pipeline, &script, n_workers, seed).unwrap();
        let batches = made.rows("out");
        let batches: Vec<String> = batches.iter().map(crate::testing::show).collect();
        batches.join("\n")
    };
    let of_one = told(1, 0);
    expect![[r#"
        x: 25, 19, 12
        id: 5, 3, 6
        window_start: 0, 0, 0
        window_end: 10, 10, 10
        event_time: 9, 9, 9"#]]
    .assert_eq(&of_one);
    for (n_workers, seed) in [(2, 1), (3, 2), (3, 3)] {
        assert_eq!(told(n_workers, seed), of_one, "{n_workers} workers");
    }
}

#[test]
fn one_row_a_key_is_the_one_that_stands_first() {
    let pipeline = Pipeline::new("test");
    let rows = table("k: a, b, a, a; x: 1, 2, 3, 4; event_time: 1, 2, 3, 14");
    let (sink, made) = collect();
    pipeline
        .read("rows", from_record_batches(vec![rows]))
        .window(fixed(10))
        .distinct_by([col("k")])
        .write(sink);
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    expect![[r#"
        k='a' x=1 window_start=0 window_end=10 event_time=9
        k='a' x=4 window_start=10 window_end=20 event_time=19
        k='b' x=2 window_start=0 window_end=10 event_time=9"#]]
    .assert_eq(&show_rows(&made.take()));
}

#[test]
fn a_row_without_an_order_or_a_key_is_a_bad_row() {
    let pipeline = Pipeline::new("test");
    let rows = table("k: 1, 0, 2, 4; x: 0, 1, 2, 4; event_time: 1, 2, 3, 4");
    let first = pipeline
        .read("rows", from_record_batches(vec![rows]))
        .window(fixed(10))
        .group_by([lit(4) / col("k")])
        .top_k(5, [(lit(8) / col("x")).sort(true, false)])
        .on_bad_row(OnBadRow::DeadLetter);
    let (dead, letters) = collect();
    first.dead_letters().write(dead);
    let (sink, made) = collect();
    first.write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    expect![[r#"
        k=2 x=2 window_start=0 window_end=10 event_time=9
        k=4 x=4 window_start=0 window_end=10 event_time=9"#]]
    .assert_eq(&show_rows(&made.take()));
    expect![[r#"
        node='top_k/partial' split='record batch 0' row=0 reason='expression `Int32(8) / x` failed on {"x":0}: Divide by zero error' data='{"k":1,"x":0,"event_time":"1970-01-01T00:00:00.001"}'
        node='top_k/partial' split='record batch 0' row=1 reason='expression `Int32(4) / k` failed on {"k":0}: Divide by zero error' data='{"k":0,"x":1,"event_time":"1970-01-01T00:00:00.002"}'"#]].assert_eq(&show_rows(&letters.take()));
}

#[test]
fn late_rows_leave_as_they_came_and_a_plan_says_what_is_kept() {
    let pipeline = Pipeline::new("offers");
    let rows = pipeline.read("rows", scripted("shop: a; price: 1; at: 1"));
    let rows = rows.assign_timestamps(col("at"), Watermarks::monotone());
    let offers = rows.window(fixed(10)).group_by([col("shop")]);
    let (cheapest, late) = offers.top_k_with_late(1, [col("price").sort(true, false)]);
    cheapest.named("out").write(collect().0);
    late.named("late").write(collect().0);
    let script = Script::new()
        .rows("rows", "shop: a, b, a; price: 3, 2, 1; at: 1, 2, 3")
        .rows("rows", "shop: a; price: 4; at: 14")
        .rows("rows", "shop: b; price: 1; at: 9")
        .end("rows");
    let made = simulate(&pipeline, &script, 3, 5).unwrap();
    expect![[r#"
        shop='a' price=1 at=3 window_start=0 window_end=10 event_time=9
        shop='a' price=4 at=14 window_start=10 window_end=20 event_time=19
        shop='b' price=2 at=2 window_start=0 window_end=10 event_time=9"#]]
    .assert_eq(&show_rows(&made.rows("out")));
    expect!["shop='b' price=1 at=9 event_time=9"].assert_eq(&show_rows(&made.rows("late")));
    expect![[r#"
        pipeline "offers": 1 phase

        phase 1 of 1
          scan      rows [scripted]
          transform assign_timestamps [assign_timestamps] <- rows
                      time=at, watermarks={"out_of_orderness_ms":0}, keeps the watermark of each open split
          transform top_k/partial [partial_top_k] <- assign_timestamps
                      keys=["shop"], n_rows=1, order=["price ASC NULLS LAST"], window=fixed,
                        window_config={"offset_ms":0,"size_ms":10}, in fixed windows size=10 ms,
                        keeps state until the watermark passes a window's end
          transform top_k [top_k] <- top_k/partial:out
                      accumulation=discarding, allowed_lateness_ms=0, keys=["shop"], n_rows=1,
                        order=["price ASC NULLS LAST"], timestamp_combiner=end_of_window, trigger=Default,
                        window=fixed, window_config={"offset_ms":0,"size_ms":10},
                        in fixed windows size=10 ms, keeps state until the watermark passes a window's end
          write     out [collect] <- top_k
          write     late [collect] <- top_k/partial:late
    "#]].assert_eq(&pipeline.plan().unwrap().explain());
}

#[test]
fn what_does_not_fit_is_refused_while_planning() {
    let refused = |rows: RecordBatch, first: fn(&Collection) -> Collection| {
        let pipeline = Pipeline::new("test");
        let rows = pipeline.read("rows", scripted_with(rows.schema()));
        first(&rows.window(fixed(10))).write(collect().0);
        pipeline.plan().unwrap_err().to_string()
    };
    let by_x = |rows: &Collection| rows.top_k(1, [col("x").sort(true, false)]);
    let all = [
        refused(table("x: 1"), by_x),
        refused(table("event_time: 1"), |rows| {
            rows.top_k(1, [col("event_time").sort(true, false)])
        }),
        refused(table("event_time: 1; x: 1"), |rows| rows.top_k(0, [])),
        refused(table("event_time: 1; x: 1"), |rows| {
            let order = [col("z").sort(true, false)];
            rows.group_by([col("y")]).top_k(1, order)
        }),
        refused(table("event_time: 1; x: 1; window_end: 3"), by_x),
    ];
    expect![[r#"
        the rows have no event time
          in transform "top_k/partial"
          Hint: Give it to them with `assign_timestamps`, and keep the column "event_time" up to here.

        the rows have no column besides "event_time", so all of a window are the same
          in transform "top_k/partial"
          Hint: Count them with `agg([count(lit(1))])` if you want to know of them.

        top_k of 0 rows has no rows
          in transform "top_k/partial"
          Hint: Ask for at least one.

        2 errors
        1. column "y" is not there
             in transform "top_k/partial"
             The columns are "event_time", "x".
        2. column "z" is not there
             in transform "top_k/partial"
             The columns are "event_time", "x".

        a column of the result is called "window_end", as one that its window gives it
          in transform "top_k/partial"
          Hint: Give it another name with `.alias("…")`, or leave it out with `select`."#]].assert_eq(&all.join("\n\n"));
}

/// Of many rows of a key few are kept, and none once its window is over.
#[test]
fn state_is_that_of_first_rows_and_is_let_go_with_their_window() {
    let schema = table("event_time: 1; k: a; x: 1; id: 1").schema();
    for windowing in [
        fixed(1000),
        fixed(1000).trigger(Trigger::always()),
        sessions(100),
    ] {
        let mut driver = Driver::asking(&schema, &windowing, 1, two_by_key()).unwrap();
        let mut largest = 0;
        for step in 0..200_i64 {
            let column = |of: fn(i64) -> i64| (0..500).map(of).collect::<Int64Array>();
            let times = TimestampMillisecondArray::from_iter_values((0..500).map(|n| step + n % 7));
            let columns: Vec<ArrayRef> = vec![
                Arc::new(times),
                Arc::new(arrow::array::StringArray::from_iter_values(
                    (0..500).map(|n| format!("{}", n % 3)),
                )),
                Arc::new(column(|n| n * 7 % 500)),
                Arc::new(column(|n| n)),
            ];
            let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
            driver.rows(0, &rows);
            largest = largest.max(driver.state_bytes());
        }
        // 100,000 rows have come, of 45 bytes each and their order.
        assert!(largest < 4_000_000, "{largest} bytes in {windowing:?}");
        driver.watermark(5000);
        assert!(driver.state_bytes() < 100_000, "{}", driver.state_bytes());
    }
}
