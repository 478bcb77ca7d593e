//! Tests of aggregation in windows.

mod driver;
mod random;
mod reference;

use std::time::Duration;

use datafusion_expr::Expr;
use expect_test::{Expect, expect};

use self::driver::{Driver, timed};
use crate::aggregates::*;
use crate::expression::{col, lit};
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

/// What happens to an aggregation of `x` by `k`.
enum Event<'a> {
    /// Rows that come in one batch.
    Rows(&'a str),
    Watermark(i64),
    Clock(i64),
    End,
}
use Event::{Clock, End, Rows, Watermark};

/// Checks what leaves after each event, at 1 to 3 workers, and with a snapshot and restore after each.
fn check(windowing: Windowing, events: &[Event<'_>], expected: Expect) {
    let run = |n_workers: usize, restores: bool| {
        let mut driver = Driver::new(&windowing, n_workers, &["k"], aggregates()).unwrap();
        let mut told = String::new();
        for (n, event) in events.iter().enumerate() {
            let (name, made) = match event {
                Rows(text) => (format!("rows {text}"), driver.rows(n, &timed(text))),
                Watermark(time) => (format!("watermark {time}"), driver.watermark(*time)),
                Clock(time) => (format!("clock {time}"), driver.clock(*time)),
                End => ("end".to_owned(), driver.end()),
            };
            told += &format!("{name}\n");
            for row in made {
                told += &format!("    {row}\n");
            }
            if restores {
                driver.restore(n_workers % 3 + 1);
            }
        }
        match driver.take_late() {
            0 => told,
            n => format!("{told}{n} late\n"),
        }
    };
    let told = run(1, false);
    expected.assert_eq(&told);
    for n_workers in 1..=3 {
        assert_eq!(run(n_workers, false), told, "{n_workers} workers");
        assert_eq!(
            run(n_workers, true),
            told,
            "restored at {n_workers} workers"
        );
    }
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
        expect![[""]],
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
    check(late.clone(), &events, expect![[""]]);
    let accumulating = late.accumulation(Accumulation::Accumulating);
    check(accumulating.clone(), &events, expect![[""]]);
    let retracting = accumulating.accumulation(Accumulation::AccumulatingAndRetracting);
    check(retracting.clone(), &events, expect![[""]]);
    let always = retracting.closing(Closing::FireAlways);
    check(always, &events, expect![[""]]);
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
    check(Windowing::of(sliding.clone()), &events, expect![[""]]);
    let late = Windowing::of(sliding)
        .allowed_lateness(ms(3))
        .accumulation(Accumulation::Accumulating);
    check(late, &events, expect![[""]]);
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
        expect![[""]],
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
        expect![[""]],
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
    check(early.clone(), &events, expect![[""]]);
    let retracting = early.accumulation(Accumulation::AccumulatingAndRetracting);
    check(retracting, &events, expect![[""]]);
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
        expect![[""]],
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
        expect![[""]],
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
    check(earliest.clone(), &events, expect![[""]]);
    check(
        fixed(10).timestamp_combiner(TimestampCombiner::Latest),
        &events,
        expect![[""]],
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
        expect![[""]],
    );
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
        expect![[""]],
    );
}

#[test]
fn all_rows_are_one_group_without_keys() {
    let mut driver = Driver::new(&fixed(10), 2, &[], aggregates()).unwrap();
    driver.rows(0, &timed("event_time: 1, 12; k: a, a; x: 1, 2"));
    driver.rows(1, &timed("event_time: 3, 31; k: b, a; x: 4, 8"));
    expect![[""]].assert_eq(&driver.end().join("\n"));
}

#[test]
fn what_does_not_fit_is_refused_while_planning() {
    let refused = |windowing: Windowing, keys: &[Expr], aggregates: Vec<Expr>, rows: &str| {
        let rows = match rows.contains("event_time") {
            true => timed(rows),
            false => crate::testing::table(rows),
        };
        match Driver::planned(&windowing, keys, aggregates, &rows.schema()) {
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
    expect![[""]].assert_eq(&all.join("\n\n"));
}
