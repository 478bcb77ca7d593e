//! Tests of aggregation in windows.

pub(super) mod corrected;
mod distinct;
pub(super) mod driver;
mod first_rows;
mod first_rows_random;
mod joined;
mod narrowed;
mod overlap_state;
mod random;
mod reference;
pub(super) mod script;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_expr::Expr;
use expect_test::{Expect, expect};

use self::driver::Driver;
use self::script::Event::{self, Clock, End, Rows, Watermark};
use self::script::check_script;
use crate::Pipeline;
use crate::aggregates::*;
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::connectors::collect;
use crate::expression::{col, lit};
use crate::output::{OnBadRow, Output};
use crate::testing::{
    Script, changelog, scripted, scripted_with, show, show_rows, simulate, table,
};
use crate::transform::Transform;
use crate::windowing::{
    Accumulation, CalendarDays, Closing, FixedWindows, GlobalWindow, Sessions, SlidingWindows,
    TimestampCombiner, Trigger, Windowing,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn fixed(size: u64) -> Windowing {
    Windowing::of(FixedWindows::of(ms(size)))
}

fn sessions(gap: u64) -> Windowing {
    Windowing::of(Sessions::with_gap(ms(gap)))
}

fn aggregates() -> Vec<Expr> {
    vec![count(col("x")).alias("n"), sum(col("x")).alias("sum")]
}

/// Checks a script of an aggregation of `x` by `k`.
fn check(windowing: Windowing, events: &[Event<'_>], expected: Expect) {
    let make = |n_workers| Driver::new(&windowing, n_workers, &["k"], aggregates()).unwrap();
    check_script(make, table, |_| (), events, &expected);
}

#[test]
fn a_fixed_window_fires_when_the_watermark_has_passed_its_end() {
    check(
        fixed(10),
        &[
            Rows("event_time: 1, 12, 5, 9; k: a, a, b, a; x: 1, 2, 3, 4"),
            Watermark(9),
            Rows("event_time: 9; k: b; x: 5"),
            Watermark(10),
            Rows("event_time: 3, 15; k: a, c; x: 100, 6"),
            Watermark(35),
            End,
        ],
        expect![[r#"
            rows event_time: 1, 12, 5, 9; k: a, a, b, a; x: 1, 2, 3, 4
            watermark 9
            rows event_time: 9; k: b; x: 5
            watermark 10
                a 2 5 [0, 10) at 9
                b 2 8 [0, 10) at 9
            rows event_time: 3, 15; k: a, c; x: 100, 6
            watermark 35
                a 1 2 [10, 20) at 19
                c 1 6 [10, 20) at 19
            end
            1 late
        "#]],
    );
}

#[test]
fn late_rows_fire_again_while_they_are_allowed() {
    let late = fixed(10).allowed_lateness(ms(20));
    let events = [
        Rows("event_time: 1, 12; k: a, a; x: 1, 2"),
        Watermark(12),
        Rows("event_time: 5, 5, 7, 11; k: a, b, a, b; x: 10, 20, 30, 40"),
        Watermark(29),
        Rows("event_time: 0; k: a; x: 1"),
        Watermark(30),
        Rows("event_time: 0; k: a; x: 1"),
        End,
    ];
    check(
        late.clone(),
        &events,
        expect![[r#"
        rows event_time: 1, 12; k: a, a; x: 1, 2
        watermark 12
            a 1 1 [0, 10) at 9 on_time 0/0 first
        rows event_time: 5, 5, 7, 11; k: a, b, a, b; x: 10, 20, 30, 40
            a 2 40 [0, 10) at 9 late 1/1
            b 1 20 [0, 10) at 9 late 0/0 first
        watermark 29
            a 1 2 [10, 20) at 19 on_time 0/0 first
            b 1 40 [10, 20) at 19 on_time 0/0 first
        rows event_time: 0; k: a; x: 1
            a 1 1 [0, 10) at 9 late 2/2
        watermark 30
        rows event_time: 0; k: a; x: 1
        end
        1 late
    "#]],
    );
    let accumulating = late.accumulation(Accumulation::Accumulating);
    check(
        accumulating.clone(),
        &events,
        expect![[r#"
        rows event_time: 1, 12; k: a, a; x: 1, 2
        watermark 12
            a 1 1 [0, 10) at 9 on_time 0/0 first
        rows event_time: 5, 5, 7, 11; k: a, b, a, b; x: 10, 20, 30, 40
            a 3 41 [0, 10) at 9 late 1/1
            b 1 20 [0, 10) at 9 late 0/0 first
        watermark 29
            a 1 2 [10, 20) at 19 on_time 0/0 first
            b 1 40 [10, 20) at 19 on_time 0/0 first
        rows event_time: 0; k: a; x: 1
            a 4 42 [0, 10) at 9 late 2/2
        watermark 30
        rows event_time: 0; k: a; x: 1
        end
        1 late
    "#]],
    );
    let retracting = accumulating.accumulation(Accumulation::AccumulatingAndRetracting);
    check(
        retracting.clone(),
        &events,
        expect![[r#"
        rows event_time: 1, 12; k: a, a; x: 1, 2
        watermark 12
            a 1 1 [0, 10) at 9 on_time 0/0 first 1
        rows event_time: 5, 5, 7, 11; k: a, b, a, b; x: 10, 20, 30, 40
            a 1 1 [0, 10) at 9 on_time 0/0 first -1
            a 3 41 [0, 10) at 9 late 1/1 1
            b 1 20 [0, 10) at 9 late 0/0 first 1
        watermark 29
            a 1 2 [10, 20) at 19 on_time 0/0 first 1
            b 1 40 [10, 20) at 19 on_time 0/0 first 1
        rows event_time: 0; k: a; x: 1
            a 3 41 [0, 10) at 9 late 1/1 -1
            a 4 42 [0, 10) at 9 late 2/2 1
        watermark 30
        rows event_time: 0; k: a; x: 1
        end
        1 late
    "#]],
    );
    let always = retracting.closing(Closing::FireAlways);
    check(
        always,
        &events,
        expect![[r#"
        rows event_time: 1, 12; k: a, a; x: 1, 2
        watermark 12
            a 1 1 [0, 10) at 9 on_time 0/0 first 1
        rows event_time: 5, 5, 7, 11; k: a, b, a, b; x: 10, 20, 30, 40
            a 1 1 [0, 10) at 9 on_time 0/0 first -1
            a 3 41 [0, 10) at 9 late 1/1 1
            b 1 20 [0, 10) at 9 late 0/0 first 1
        watermark 29
            a 1 2 [10, 20) at 19 on_time 0/0 first 1
            b 1 40 [10, 20) at 19 on_time 0/0 first 1
        rows event_time: 0; k: a; x: 1
            a 3 41 [0, 10) at 9 late 1/1 -1
            a 4 42 [0, 10) at 9 late 2/2 1
        watermark 30
            a 4 42 [0, 10) at 9 late 2/2 -1
            a 4 42 [0, 10) at 9 late 3/3 last 1
            b 1 20 [0, 10) at 9 late 0/0 first -1
            b 1 20 [0, 10) at 9 late 1/1 last 1
        rows event_time: 0; k: a; x: 1
        end
            a 1 2 [10, 20) at 19 late 1/1 last 1
            a 1 2 [10, 20) at 19 on_time 0/0 first -1
            b 1 40 [10, 20) at 19 late 1/1 last 1
            b 1 40 [10, 20) at 19 on_time 0/0 first -1
        1 late
    "#]],
    );
}

#[test]
fn sliding_windows_are_put_together_from_slices() {
    let sliding = SlidingWindows::of(ms(10)).every(ms(4));
    let events = [
        Rows("event_time: 1, 12, 5, 9; k: a, a, b, a; x: 1, 2, 4, 8"),
        Watermark(10),
        Rows("event_time: 10, 11; k: b, a; x: 16, 32"),
        Watermark(14),
        Rows("event_time: 5, 9; k: a, c; x: 64, 128"),
        End,
    ];
    check(
        Windowing::of(sliding.clone()),
        &events,
        expect![[r#"
        rows event_time: 1, 12, 5, 9; k: a, a, b, a; x: 1, 2, 4, 8
        watermark 10
            a 1 1 [-4, 6) at 5
            a 1 1 [-8, 2) at 1
            a 2 9 [0, 10) at 9
            b 1 4 [-4, 6) at 5
            b 1 4 [0, 10) at 9
        rows event_time: 10, 11; k: b, a; x: 16, 32
        watermark 14
            a 3 42 [4, 14) at 13
            b 2 20 [4, 14) at 13
        rows event_time: 5, 9; k: a, c; x: 64, 128
        end
            a 1 2 [12, 22) at 21
            a 3 42 [8, 18) at 17
            b 1 16 [8, 18) at 17
            c 1 128 [8, 18) at 17
        1 late
    "#]],
    );
    let late = Windowing::of(sliding)
        .allowed_lateness(ms(3))
        .accumulation(Accumulation::Accumulating);
    check(
        late,
        &events,
        expect![[r#"
        rows event_time: 1, 12, 5, 9; k: a, a, b, a; x: 1, 2, 4, 8
        watermark 10
            a 1 1 [-4, 6) at 5 on_time 0/0 first
            a 1 1 [-8, 2) at 1 on_time 0/0 first
            a 2 9 [0, 10) at 9 on_time 0/0 first
            b 1 4 [-4, 6) at 5 on_time 0/0 first
            b 1 4 [0, 10) at 9 on_time 0/0 first
        rows event_time: 10, 11; k: b, a; x: 16, 32
        watermark 14
            a 3 42 [4, 14) at 13 on_time 0/0 first
            b 2 20 [4, 14) at 13 on_time 0/0 first
        rows event_time: 5, 9; k: a, c; x: 64, 128
            a 4 106 [4, 14) at 13 late 1/1
            c 1 128 [4, 14) at 13 late 0/0 first
        end
            a 1 2 [12, 22) at 21 on_time 0/0 first
            a 3 42 [8, 18) at 17 on_time 0/0 first
            b 1 16 [8, 18) at 17 on_time 0/0 first
            c 1 128 [8, 18) at 17 on_time 0/0 first
    "#]],
    );
}

#[test]
fn sessions_grow_and_merge() {
    check(
        sessions(10),
        &[
            Rows("event_time: 1, 30, 5; k: a, a, b; x: 1, 2, 4"),
            Rows("event_time: 8, 21; k: a, a; x: 8, 16"),
            Watermark(16),
            Rows("event_time: 17; k: a; x: 32"),
            Watermark(40),
            Rows("event_time: 17; k: a; x: 64"),
            End,
        ],
        expect![[r#"
            rows event_time: 1, 30, 5; k: a, a, b; x: 1, 2, 4
            rows event_time: 8, 21; k: a, a; x: 8, 16
            watermark 16
                b 1 4 [5, 15) at 14
            rows event_time: 17; k: a; x: 32
            watermark 40
                a 5 59 [1, 40) at 39
            rows event_time: 17; k: a; x: 64
            end
            1 late
        "#]],
    );
}

#[test]
fn early_and_late_panes_of_merging_sessions_are_taken_back() {
    let trigger = Trigger::after_watermark()
        .early(Trigger::after_count(2))
        .late(Trigger::after_count(1));
    check(
        sessions(10)
            .trigger(trigger)
            .allowed_lateness(ms(100))
            .accumulation(Accumulation::AccumulatingAndRetracting),
        &[
            Rows("event_time: 1, 2; k: a, a; x: 1, 2"),
            Rows("event_time: 20, 21; k: a, a; x: 4, 8"),
            Rows("event_time: 11; k: a; x: 16"),
            Watermark(50),
            Rows("event_time: 40; k: a; x: 32"),
            Rows("event_time: 30; k: a; x: 64"),
            End,
        ],
        expect![[r#"
            rows event_time: 1, 2; k: a, a; x: 1, 2
                a 2 3 [1, 12) at 11 early 0/-1 first 1
            rows event_time: 20, 21; k: a, a; x: 4, 8
                a 2 12 [20, 31) at 30 early 0/-1 first 1
            rows event_time: 11; k: a; x: 16
            watermark 50
                a 2 12 [20, 31) at 30 early 0/-1 first -1
                a 2 3 [1, 12) at 11 early 0/-1 first -1
                a 5 31 [1, 31) at 30 on_time 0/0 first 1
            rows event_time: 40; k: a; x: 32
                a 1 32 [40, 50) at 49 late 0/0 first 1
            rows event_time: 30; k: a; x: 64
                a 5 31 [1, 31) at 30 on_time 0/0 first -1
                a 6 95 [1, 40) at 39 late 0/0 first 1
            end
        "#]],
    );
}

#[test]
fn early_firings_of_fixed_windows() {
    let early = fixed(10).trigger(Trigger::after_watermark().early(Trigger::after_count(2)));
    let events = [
        Rows("event_time: 1, 2, 3; k: a, a, b; x: 1, 2, 4"),
        Rows("event_time: 4; k: a; x: 8"),
        Rows("event_time: 5, 5; k: b, b; x: 16, 32"),
        Watermark(10),
        End,
    ];
    check(
        early.clone(),
        &events,
        expect![[r#"
        rows event_time: 1, 2, 3; k: a, a, b; x: 1, 2, 4
            a 2 3 [0, 10) at 9 early 0/-1 first
        rows event_time: 4; k: a; x: 8
        rows event_time: 5, 5; k: b, b; x: 16, 32
            b 3 52 [0, 10) at 9 early 0/-1 first
        watermark 10
            a 1 8 [0, 10) at 9 on_time 1/0 last
            b 0 null [0, 10) at 9 on_time 1/0 last
        end
    "#]],
    );
    let retracting = early.accumulation(Accumulation::AccumulatingAndRetracting);
    check(
        retracting,
        &events,
        expect![[r#"
        rows event_time: 1, 2, 3; k: a, a, b; x: 1, 2, 4
            a 2 3 [0, 10) at 9 early 0/-1 first 1
        rows event_time: 4; k: a; x: 8
        rows event_time: 5, 5; k: b, b; x: 16, 32
            b 3 52 [0, 10) at 9 early 0/-1 first 1
        watermark 10
            a 2 3 [0, 10) at 9 early 0/-1 first -1
            a 3 11 [0, 10) at 9 on_time 1/0 last 1
            b 3 52 [0, 10) at 9 early 0/-1 first -1
            b 3 52 [0, 10) at 9 on_time 1/0 last 1
        end
    "#]],
    );
}

#[test]
fn the_clock_makes_a_window_fire() {
    let delayed = Trigger::after_processing_time(ms(5)).repeatedly();
    check(
        Windowing::of(GlobalWindow)
            .trigger(delayed)
            .accumulation(Accumulation::Accumulating),
        &[
            Clock(100),
            Rows("event_time: 1; k: a; x: 1"),
            Clock(103),
            Rows("event_time: 1, 1; k: a, b; x: 2, 3"),
            Clock(105),
            Clock(107),
            Clock(110),
            Rows("event_time: 1; k: b; x: 3"),
            End,
        ],
        expect![[r#"
            clock 100
            rows event_time: 1; k: a; x: 1
            clock 103
            rows event_time: 1, 1; k: a, b; x: 2, 3
            clock 105
                a 2 3 global at the end early 0/-1 first
            clock 107
            clock 110
                b 1 3 global at the end early 0/-1 first
            rows event_time: 1; k: b; x: 3
            end
                b 2 6 global at the end on_time 1/0 last
        "#]],
    );
}

/// A restart does not make a trigger ask again for a time on the clock that has passed.
#[test]
fn a_time_that_has_passed_on_the_clock_is_not_asked_for_again() {
    let all = Trigger::AfterAll(vec![
        Trigger::after_watermark().late(Trigger::Default),
        Trigger::after_processing_time(ms(1)),
    ]);
    check(
        fixed(1)
            .trigger(all)
            .allowed_lateness(ms(3))
            .allow_data_loss(true),
        &[
            Rows("event_time: 7; k: a; x: 1"),
            Clock(1),
            Watermark(8),
            Clock(2),
            End,
        ],
        expect![[r#"
            rows event_time: 7; k: a; x: 1
            clock 1
            watermark 8
                a 1 1 [7, 8) at 7 on_time 0/0 first
            clock 2
            end
        "#]],
    );
}

#[test]
fn a_trigger_that_has_finished_takes_no_more_rows() {
    check(
        fixed(10)
            .trigger(Trigger::after_count(2))
            .allow_data_loss(true),
        &[
            Rows("event_time: 1, 2, 3; k: a, a, b; x: 1, 2, 4"),
            Rows("event_time: 4, 4; k: a, b; x: 8, 16"),
            Rows("event_time: 5; k: c; x: 32"),
            End,
        ],
        expect![[r#"
            rows event_time: 1, 2, 3; k: a, a, b; x: 1, 2, 4
                a 2 3 [0, 10) at 9 early 0/-1 first last
            rows event_time: 4, 4; k: a, b; x: 8, 16
                b 2 20 [0, 10) at 9 early 0/-1 first last
            rows event_time: 5; k: c; x: 32
            end
                c 1 32 [0, 10) at 9 on_time 0/0 first last
            1 late
        "#]],
    );
}

#[test]
fn the_event_time_of_a_result_is_what_the_combiner_says() {
    let events = [
        Rows("event_time: 3, 7, 5; k: a, a, b; x: 1, 2, 4"),
        Watermark(10),
        End,
    ];
    let earliest = fixed(10).timestamp_combiner(TimestampCombiner::Earliest);
    check(
        earliest.clone(),
        &events,
        expect![[r#"
        rows event_time: 3, 7, 5; k: a, a, b; x: 1, 2, 4
        watermark 10
            a 2 3 [0, 10) at 3
            b 1 4 [0, 10) at 5
        end
    "#]],
    );
    check(
        fixed(10).timestamp_combiner(TimestampCombiner::Latest),
        &events,
        expect![[r#"
            rows event_time: 3, 7, 5; k: a, a, b; x: 1, 2, 4
            watermark 10
                a 2 3 [0, 10) at 7
                b 1 4 [0, 10) at 5
            end
        "#]],
    );
    check(
        earliest
            .trigger(Trigger::after_count(2).repeatedly())
            .allowed_lateness(ms(5)),
        &[
            Rows("event_time: 3, 7, 5; k: a, a, b; x: 1, 2, 4"),
            Watermark(6),
            Rows("event_time: 4; k: b; x: 8"),
            Rows("event_time: 4; k: a; x: 8"),
            Rows("event_time: 8; k: a; x: 16"),
            End,
        ],
        expect![[r#"
            rows event_time: 3, 7, 5; k: a, a, b; x: 1, 2, 4
                a 2 3 [0, 10) at 3 early 0/-1 first
            watermark 6
            rows event_time: 4; k: b; x: 8
                b 2 12 [0, 10) at 5 early 0/-1 first
            rows event_time: 4; k: a; x: 8
            rows event_time: 8; k: a; x: 16
                a 2 24 [0, 10) at 8 early 1/-1
            end
        "#]],
    );
}

#[test]
fn what_is_kept_before_the_exchange_holds_the_time_of_its_result() {
    use crate::transform::Watermark;
    let shown = |combiner: TimestampCombiner, windowing: Windowing| {
        let windowing = windowing.timestamp_combiner(combiner);
        let schema = table("event_time: 1; k: a; x: 1").schema();
        let keys = [col("k")];
        let (partial, _) = Driver::planned(&windowing, &keys, aggregates(), &schema).unwrap();
        let mut partial = partial.build(&Artifacts::none()).unwrap();
        let mut out = Output::new(OnBadRow::Fail);
        let mut told = String::new();
        let steps = [
            ("event_time: 9, 6, 7; k: a, a, b; x: 1, 2, 4", 5),
            ("event_time: 8, 3; k: a, b; x: 8, 32", 8),
            ("event_time: 12, 11, 14; k: a, b, a; x: 16, 1, 1", 10),
            ("event_time: 13; k: a; x: 64", 13),
            ("event_time: 21, 22; k: a, a; x: 128, 1", i64::MAX),
        ];
        for (rows, watermark) in steps {
            partial
                .on_batch(0, Batch::new(table(rows)), &mut out)
                .unwrap();
            partial
                .on_watermark(Watermark(watermark), &mut out)
                .unwrap();
            let made = out.take();
            let made = made.iter().map(|(_, batch)| batch.n_rows());
            let (n_rows, held) = (
                made.sum::<usize>(),
                partial.output_watermark(Watermark(watermark)),
            );
            told += &format!("{n_rows} rows, watermark {}\n", held.0);
        }
        told
    };
    // What is behind the watermark counts, but not for the time.
    let told = expect![[r#"
        0 rows, watermark 5
        0 rows, watermark 6
        2 rows, watermark 10
        0 rows, watermark 11
        3 rows, watermark 9223372036854775807
    "#]];
    told.assert_eq(&shown(TimestampCombiner::Earliest, fixed(10)));
    assert_eq!(
        shown(TimestampCombiner::Latest, fixed(10)),
        shown(TimestampCombiner::Earliest, fixed(10))
    );
    let sliding = Windowing::of(SlidingWindows::of(ms(10)).every(ms(5)));
    let told = expect![[r#"
        0 rows, watermark 5
        2 rows, watermark 6
        2 rows, watermark 10
        0 rows, watermark 11
        3 rows, watermark 9223372036854775807
    "#]];
    told.assert_eq(&shown(TimestampCombiner::Earliest, sliding));
    let told = expect![[r#"
        0 rows, watermark 5
        0 rows, watermark 8
        2 rows, watermark 10
        0 rows, watermark 13
        3 rows, watermark 9223372036854775807
    "#]];
    told.assert_eq(&shown(TimestampCombiner::EndOfWindow, fixed(10)));
    // A window that may fire again is over where others begin, and so it is not held back either.
    let late = fixed(10).allowed_lateness(ms(20));
    assert_eq!(
        shown(TimestampCombiner::Earliest, late),
        shown(TimestampCombiner::Earliest, fixed(10))
    );
    // This one is over in the midst of others, for which it would wait: rows go on with their batch.
    let late = fixed(10).allowed_lateness(ms(5));
    let told = expect![[r#"
        2 rows, watermark 5
        2 rows, watermark 8
        2 rows, watermark 10
        1 rows, watermark 13
        1 rows, watermark 9223372036854775807
    "#]];
    told.assert_eq(&shown(TimestampCombiner::Earliest, late));
}

/// Five windows of 1,000 rows, of which each key has so many, then rows of another window: how many leave with their
/// batch, and how many when the watermark comes.
fn sent_on(rows_per_key: usize, is_restored: bool) -> (usize, usize) {
    use crate::transform::Watermark;
    let rows_of = |window: usize, n_rows: usize| {
        let list = |value: &dyn Fn(usize) -> usize| {
            let values: Vec<String> = (0..n_rows).map(|row| value(row).to_string()).collect();
            values.join(", ")
        };
        let times = list(&|row| window * 1_000 + row);
        let (keys, ones) = (list(&|row| row / rows_per_key), list(&|_| 1));
        table(&format!("event_time: {times}; k: {keys}; x: {ones}"))
    };
    let schema = rows_of(0, 1).schema();
    let (partial, _) = Driver::planned(&fixed(1_000), &[col("k")], aggregates(), &schema).unwrap();
    let build = || partial.build(&Artifacts::none()).unwrap();
    let (mut operator, mut out) = (build(), Output::new(OnBadRow::Fail));
    let mut step = |rows: RecordBatch, watermark: usize| {
        operator.on_batch(0, Batch::new(rows), &mut out).unwrap();
        if is_restored {
            let state = operator.snapshot().unwrap();
            operator = build();
            operator.restore(&state).unwrap();
        }
        let n_rows = |out: &mut Output| -> usize {
            let made = out.take();
            made.iter().map(|(_, batch)| batch.n_rows()).sum()
        };
        let with_batch = n_rows(&mut out);
        let watermark = Watermark(i64::try_from(watermark).unwrap());
        operator.on_watermark(watermark, &mut out).unwrap();
        (with_batch, n_rows(&mut out))
    };
    for window in 0..5 {
        let n_groups = 1_000_usize.div_ceil(rows_per_key);
        let sent = step(rows_of(window, 1_000), (window + 1) * 1_000);
        assert_eq!(sent, (0, n_groups));
    }
    step(rows_of(5, 100), 6_000)
}

#[test]
fn rows_pass_by_where_whole_slices_have_hardly_fewer_groups() {
    assert_eq!(sent_on(1, false), (100, 0));
    assert_eq!(sent_on(2, false), (0, 50));
    // What was restored does not tell how many rows it was made of.
    assert_eq!(sent_on(1, true), (0, 100));
}

#[test]
fn days_of_a_time_zone() {
    let day = 86_400_000;
    check(
        Windowing::of(CalendarDays::of(1)),
        &[
            Rows(&format!("event_time: 1, {day}; k: a, a; x: 1, 2")),
            Watermark(day),
            End,
        ],
        expect![[r#"
            rows event_time: 1, 86400000; k: a, a; x: 1, 2
            watermark 86400000
                a 1 1 [0, 86400000) at 86399999
            end
                a 1 2 [86400000, 172800000) at 172799999
        "#]],
    );
}

#[test]
fn all_rows_are_one_group_without_keys() {
    let mut driver = Driver::new(&fixed(10), 2, &[], aggregates()).unwrap();
    driver.rows(0, &table("event_time: 1, 12; k: a, a; x: 1, 2"));
    driver.rows(1, &table("event_time: 3, 31; k: b, a; x: 4, 8"));
    expect![[r#"
        1 2 [10, 20) at 19
        1 8 [30, 40) at 39
        2 5 [0, 10) at 9"#]]
    .assert_eq(&driver.end().join("\n"));
}

#[test]
fn groups_alone_may_be_asked_for() {
    for windowing in [fixed(10), fixed(10).allowed_lateness(ms(5))] {
        let mut driver = Driver::new(&windowing, 2, &["k"], Vec::new()).unwrap();
        driver.rows(0, &table("event_time: 1, 12, 2; k: a, a, a; x: 1, 2, 3"));
        driver.rows(1, &table("event_time: 3, 1; k: b, null; x: 4, 8"));
        let made = driver.watermark(10).into_iter();
        let shown = made.map(|line| line.replace(" on_time 0/0 first", ""));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            ["a [0, 10) at 9", "b [0, 10) at 9", "null [0, 10) at 9"]
        );
        driver.restore(1);
        assert_eq!(driver.end().len(), 1);
    }
}

#[test]
fn what_does_not_fit_is_refused_while_planning() {
    let refused = |windowing: Windowing, keys: &[Expr], aggregates: Vec<Expr>, rows: &str| {
        match Driver::planned(&windowing, keys, aggregates, &table(rows).schema()) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let rows = "event_time: 1; k: a; x: 1";
    let n = || vec![count(lit(1)).alias("n")];
    let all = [
        refused(fixed(10), &[col("k")], n(), "k: a; x: 1"),
        refused(fixed(0), &[col("k")], n(), rows),
        refused(fixed(10), &[col("k").alias("window_end")], n(), rows),
        refused(fixed(10), &[col("event_time")], n(), rows),
        refused(
            fixed(10).allowed_lateness(ms(1)),
            &[col("k").alias("pane")],
            n(),
            rows,
        ),
        refused(fixed(10), &[col("k").alias("pane")], n(), rows),
        refused(
            fixed(10).trigger(Trigger::after_count(1)),
            &[col("k")],
            n(),
            rows,
        ),
    ];
    expect![[r#"
        the rows have no event time
          Hint: Give it to them with `assign_timestamps`, and keep the column "event_time" up to here.

        the size of fixed windows must be longer than 0

        a column of the result is called "window_end", as one that its window gives it
          Hint: Give it another name with `.alias("…")`, or leave it out with `select`.

        a column of the result is called "event_time", as one that its window gives it
          Hint: Give it another name with `.alias("…")`, or leave it out with `select`.

        a column of the result is called "pane", as one that its window gives it
          Hint: Give it another name with `.alias("…")`, or leave it out with `select`.

        accepted

        trigger AfterCount(1) may lose rows
          It may finish before its window is over, and rows that come after that are lost.
          Hint: Wrap the trigger in `repeatedly()`, so that it begins anew. Where rows may be lost, say `allow_data_loss(true)`."#]].assert_eq(&all.join("\n\n"));
}

/// They are promised as they came in, also where the operator was given dictionaries.
#[test]
fn rows_that_are_too_late_leave_with_all_their_columns() {
    let windowing = fixed(10).allowed_lateness(ms(5));
    let schema = table("event_time: 1; k: a; x: 1").schema();
    let (partial, _) = Driver::planned(&windowing, &[col("k")], aggregates(), &schema).unwrap();
    let mut operator = partial.build(&Artifacts::none()).unwrap();
    let mut out = Output::new(OnBadRow::Fail);
    let mut late = Vec::new();
    for (watermark, rows) in [
        (14, "event_time: 3, 12; k: a, b; x: 1, 2"),
        (15, "event_time: 3, 12, 9; k: a, b, c; x: 3, 4, 5"),
        (25, "event_time: 19, 3; k: a, b; x: 6, 7"),
    ] {
        let told = crate::transform::Watermark(watermark);
        operator.on_watermark(told, &mut out).unwrap();
        let state = operator.snapshot().unwrap();
        operator = partial.build(&Artifacts::none()).unwrap();
        operator.restore(&state).unwrap();
        let rows = table(rows);
        let mut columns = rows.columns().to_vec();
        let encoded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        columns[1] = cast(&columns[1], &encoded).unwrap();
        let names = ["event_time", "k", "x"].into_iter().zip(columns);
        let rows = RecordBatch::try_from_iter(names).unwrap();
        operator.on_batch(0, Batch::new(rows), &mut out).unwrap();
        for (_, batch) in out.take().iter().filter(|(port, _)| *port == 1) {
            assert_eq!(batch.rows().schema(), schema);
            late.push(format!(
                "{watermark}: {}",
                show(batch.rows()).replace('\n', "; ")
            ));
        }
    }
    assert_eq!(
        late,
        [
            "15: event_time: 3, 9; k: 'a', 'c'; x: 3, 5",
            "25: event_time: 19, 3; k: 'a', 'b'; x: 6, 7",
        ]
    );
    assert_eq!(out.take_late(), 4);
}

/// A late row is late whatever is in it; of those in time the bad ones are dead letters, where they stood.
#[test]
fn late_rows_are_not_looked_into_and_bad_ones_keep_their_place() {
    let schema = table("event_time: 1; k: a; x: 1").schema();
    let outputs = vec![sum(lit(10) / col("x")).alias("s")];
    for windowing in [fixed(10), sessions(10)] {
        let (partial, _) =
            Driver::planned(&windowing, &[col("k")], outputs.clone(), &schema).unwrap();
        let mut operator = partial.build(&Artifacts::none()).unwrap();
        let mut out = Output::new(OnBadRow::DeadLetter);
        let told = crate::transform::Watermark(20);
        operator.on_watermark(told, &mut out).unwrap();
        let rows = table("event_time: 3, 25, 26, 4, 27; k: a, a, b, a, a; x: 0, 1, 0, 1, 0");
        operator.on_batch(0, Batch::new(rows), &mut out).unwrap();
        assert_eq!(out.take_late(), 2);
        assert_eq!(out.take_counts(), (0, 2));
        let letters = out.take_dead_letters();
        let places: Vec<u64> = letters.iter().map(|letter| letter.row).collect();
        assert_eq!(places, [2, 4]);
        assert_eq!(
            letters[0].data,
            r#"{"event_time":"1970-01-01T00:00:00.026","k":"b","x":0}"#
        );
    }
}

#[test]
fn plans_say_what_windows_do() {
    let windowing = fixed(10)
        .trigger(Trigger::after_watermark().late(Trigger::after_count(2)))
        .allowed_lateness(ms(5));
    let schema = table("event_time: 1; k: a; x: 1").schema();
    let (_, finish) = Driver::planned(&windowing, &[col("k")], aggregates(), &schema).unwrap();
    expect![[r#"{"accumulation":"discarding","aggregates":["count(x) AS n","sum(x) AS sum"],"allowed_lateness_ms":5,"keys":["k"],"timestamp_combiner":"end_of_window","trigger":"AfterWatermark(late=AfterCount(2))","window":"fixed","window_config":{"offset_ms":0,"size_ms":10}}"#]].assert_eq(&finish.describe().config.to_string());
}

/// What is kept of keys and windows is let go once nothing more can come of them.
#[test]
fn state_stays_small_while_keys_come_and_go() {
    for windowing in [
        fixed(10),
        fixed(10).allowed_lateness(ms(10)),
        sessions(5),
        fixed(10).trigger(Trigger::after_count(3).repeatedly()),
    ] {
        let mut driver = Driver::new(&windowing, 1, &["k"], aggregates()).unwrap();
        let mut largest = [0, 0];
        for step in 0..300 {
            let rows = (0..50).map(|n| {
                let key = Some(format!("key {}", step * 50 + n));
                (key, i64::from(step) * 10 + i64::from(n % 10), Some(1))
            });
            let rows: Vec<reference::Row> = rows.collect();
            driver.rows(0, &random::rows_of(&rows));
            driver.watermark(i64::from(step) * 10);
            let half = usize::from(step >= 150);
            largest[half] = largest[half].max(driver.state_bytes());
        }
        assert!(
            largest[1] <= largest[0] * 3 / 2,
            "{largest:?} bytes in {windowing:?}"
        );
    }
}

/// Whatever has been there and gone, the windows of the keys that stay fire, wait for the clock, are corrected and close
/// as if nothing else had been.
#[test]
fn what_is_gone_in_between_changes_nothing_for_what_stays() {
    let trigger = Trigger::after_watermark()
        .early(Trigger::after_count(2))
        .late(Trigger::after_processing_time(ms(15)).repeatedly());
    let windowing = fixed(10)
        .allowed_lateness(ms(20))
        .accumulation(Accumulation::AccumulatingAndRetracting)
        .trigger(trigger);
    let rows = |time: i64, keys: std::ops::Range<i64>| {
        let column = |of: &dyn Fn(i64) -> i64| {
            let values: Vec<String> = keys.clone().map(|k| of(k).to_string()).collect();
            values.join(", ")
        };
        let (times, values) = (column(&|_| time), column(&|k| k + time));
        let keys: Vec<String> = keys.clone().map(|k| format!("key{k}")).collect();
        table(&format!(
            "event_time: {times}; k: {}; x: {values}",
            keys.join(", ")
        ))
    };
    let made = |n_gone: i64| {
        let mut driver = Driver::new(&windowing, 2, &["k"], aggregates()).unwrap();
        let mut steps = Vec::new();
        let mut state = 0;
        // First those that go, so that all others have numbers behind theirs.
        steps.push(driver.rows(0, &rows(1, 100..100 + n_gone)));
        steps.push(driver.rows(1, &rows(11, 0..6)));
        steps.push(driver.rows(0, &rows(25, 2..9)));
        steps.push(driver.watermark(20));
        // In time for a correction, which the clock is to bring.
        steps.push(driver.rows(1, &rows(12, 3..5)));
        state = state.max(driver.state_bytes());
        steps.push(driver.watermark(31));
        assert!(n_gone < 1_000 || driver.state_bytes() < state / 4);
        steps.push(driver.rows(0, &rows(26, 4..7)));
        steps.push(driver.clock(14));
        steps.push(driver.clock(20));
        driver.restore(1);
        steps.push(driver.rows(0, &rows(27, 8..9)));
        steps.push(driver.clock(40));
        steps.push(driver.watermark(40));
        steps.push(driver.end());
        // Of the keys that stay.
        let stays = |line: &String| {
            let key = line.strip_prefix("key").unwrap().split(' ').next().unwrap();
            key.parse::<i64>().unwrap() < 100
        };
        let stay = |lines: Vec<String>| lines.into_iter().filter(stays).collect::<Vec<_>>();
        steps.into_iter().map(stay).collect::<Vec<_>>()
    };
    let few = made(1);
    assert_eq!(few.concat().len(), 6 + 7 + 2 * 2 + 2 * 3 + 2);
    assert_eq!(made(4_000), few);
}

#[test]
fn late_rows_may_be_read_in_columns_that_are_not_aggregated() {
    let pipeline = Pipeline::new("test");
    let schema = changelog("k: a; j: 1; event_time: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema));
    let grouped = rows.window(fixed(10)).group_by([col("k")]);
    let (made, late) = grouped.agg_with_late([count(lit(1)).alias("n")]);
    made.select([col("n")]).named("out").write(collect().0);
    late.select([col("j")]).named("late").write(collect().0);
    let script = Script::new()
        .batch("rows", 0, changelog("k: a; j: 5; event_time: 1"))
        .watermark("rows", 10)
        .batch("rows", 0, changelog("k: b; j: 6; event_time: 2"))
        .end("rows");
    let made = simulate(&pipeline, &script, 1, 0).unwrap();
    assert_eq!(show_rows(&made.rows("out")), "n=1");
    assert_eq!(show_rows(&made.rows("late")), "j=6");
}

/// The rows of `a` come to one worker and those of `b` to another, and only that one has heard that the windows are over
/// when both are saved: for `a` they are over all the same once both go on as one.
#[test]
fn state_of_rows_saved_before_and_after_the_watermark_was_heard_of_goes_on_as_one() {
    for windowing in [sessions(9), fixed(10)] {
        check_saved_before_and_after(&windowing.allowed_lateness(ms(20)));
    }
}

/// Of windows that end at 10 for a row of 1.
fn check_saved_before_and_after(windowing: &Windowing) {
    use crate::transform::{Operator, Watermark as At};
    let schema = table("event_time: 1; k: a; x: 1").schema();
    let (partial, finish) = Driver::planned(windowing, &[col("k")], aggregates(), &schema).unwrap();
    let build = || finish.build(&Artifacts::none()).unwrap();
    let rows = |operator: &mut Box<dyn Operator>, text: &str, out: &mut Output| {
        let mut partial = partial.build(&Artifacts::none()).unwrap();
        let mut between = Output::new(OnBadRow::Fail);
        partial
            .on_batch(0, Batch::new(table(text)), &mut between)
            .unwrap();
        partial.on_watermark(At::END, &mut between).unwrap();
        for (_, batch) in between.take() {
            operator.on_batch(0, batch, out).unwrap();
        }
    };
    let goes_on = |operator: &mut Box<dyn Operator>, out: &mut Output| {
        rows(operator, "event_time: 2; k: a; x: 1", out);
        operator.on_watermark(At(11), out).unwrap();
        let made = out.take().into_iter().map(|(_, b)| b.rows().clone());
        show_rows(&made.collect::<Vec<_>>())
    };
    let mut out = Output::new(OnBadRow::Fail);
    let first = "event_time: 1; k: a; x: 1";
    let mut whole = build();
    rows(&mut whole, first, &mut out);
    whole.on_watermark(At(10), &mut out).unwrap();
    let uninterrupted = goes_on(&mut whole, &mut out);
    assert_eq!(uninterrupted.matches("k='a' n=1").count(), 2);

    let (mut one, mut other) = (build(), build());
    rows(&mut one, first, &mut out);
    rows(&mut other, "event_time: 1; k: b; x: 1", &mut out);
    other.on_watermark(At(10), &mut out).unwrap();
    out.take();
    let parts = [one.snapshot().unwrap(), other.snapshot().unwrap()].concat();
    let mut both = build();
    both.restore(&parts).unwrap();
    // What is saved again before anything has come still says who had heard of what.
    let again = both.snapshot().unwrap();
    for parts in [parts, again] {
        let mut both = build();
        both.restore(&parts).unwrap();
        assert_eq!(goes_on(&mut both, &mut out), uninterrupted);
    }
}

/// A result is taken back before the one that takes its place is given, in the order in which rows leave.
#[test]
fn what_has_left_is_taken_back_before_what_takes_its_place() {
    let trigger = Trigger::after_watermark()
        .early(Trigger::after_count(1))
        .late(Trigger::after_count(1));
    let of = |windowing: Windowing| {
        windowing
            .trigger(trigger.clone())
            .allowed_lateness(ms(100))
            .accumulation(Accumulation::AccumulatingAndRetracting)
    };
    let rows = |times: &str, keys: &str| format!("event_time: {times}; k: {keys}");
    let script = Script::new()
        .rows("rows", &rows("1, 2, 14, 3", "a, b, a, a"))
        .rows("rows", &rows("4, 25, 16, 5", "b, a, a, a"))
        .watermark("rows", 22)
        .rows("rows", &rows("6, 18, 9, 12", "a, b, b, a"))
        .rows("rows", &rows("7, 21, 8, 11", "a, a, a, b"))
        .end("rows");
    for windowing in [
        of(fixed(10)),
        of(Windowing::sliding(ms(10), ms(5))),
        of(sessions(4)),
    ] {
        for seed in 0..12 {
            let pipeline = Pipeline::new("retracting");
            let (sink, _) = collect();
            pipeline
                .read("rows", scripted("event_time: 0; k: a"))
                .window(windowing.clone())
                .group_by([col("k")])
                .agg([count(lit(1)).alias("n")])
                .select([
                    col("k"),
                    col("window_start"),
                    col("window_end"),
                    col("n"),
                    col("diff"),
                ])
                .named("out")
                .write(sink);
            let run = simulate(&pipeline, &script, 1 + seed as usize % 3, seed).unwrap();
            // Of each key and window the count that has left and is not taken back.
            let mut stands: BTreeMap<String, String> = BTreeMap::new();
            let mut n_taken_back = 0;
            for (step, batches) in run.steps("out").iter().enumerate() {
                for batch in batches {
                    for row in 0..batch.num_rows() {
                        let text = show(&batch.slice(row, 1));
                        let lines: Vec<&str> = text.lines().collect();
                        let (of, n) = (lines[..3].join(" "), lines[3].to_owned());
                        let before = match lines[4] {
                            "diff: 1" => stands.insert(of, n).is_none(),
                            _ => {
                                n_taken_back += 1;
                                stands.remove(&of) == Some(n)
                            }
                        };
                        assert!(before, "{windowing}, seed {seed}, step {step}: {text}");
                    }
                }
            }
            assert!(n_taken_back > 0);
        }
    }
}
