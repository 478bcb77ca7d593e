//! Cases of Apache Beam's `window_test.py` that are about window functions alone, the laws that all of them
//! keep, and what a strategy is refused for.
//!
//! Not here is `test_timestamped_value_cmp`: it compares Beam's pairs of a value and its time, which are two columns
//! of a row here.

use std::time::Duration;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::testing::check_window_fn;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn assign(window_fn: &dyn WindowFn, time: i64) -> Vec<(i64, i64)> {
    let mut windows = Vec::new();
    window_fn.assign(time, &mut windows);
    windows.iter().map(|w| (w.start, w.end)).collect()
}

#[test]
fn test_global_window() {
    assert_eq!(GlobalWindow, GlobalWindow);
    assert_eq!(assign(&GlobalWindow, 7), [(MIN_TIME, MAX_TIME + 1)]);
    assert_eq!(Window::GLOBAL.max_timestamp(), MAX_TIME);
}

#[test]
fn test_fixed_windows() {
    let with_offset = FixedWindows::of(ms(5)).offset(ms(2));
    assert_eq!(assign(&with_offset, 7), [(7, 12)]);
    assert_eq!(assign(&with_offset, 11), [(7, 12)]);
    assert_eq!(assign(&with_offset, 12), [(12, 17)]);

    let without = FixedWindows::of(ms(5));
    assert_eq!(assign(&without, 5), [(5, 10)]);
    assert_eq!(assign(&without, 9), [(5, 10)]);
    assert_eq!(assign(&without, 10), [(10, 15)]);

    let out_of_range = FixedWindows::of(ms(5)).offset(ms(12));
    assert_eq!(assign(&out_of_range, 11), [(7, 12)]);
    assert_eq!(out_of_range.describe(), with_offset.describe());
}

#[test]
fn test_sliding_windows_assignment() {
    let windows = SlidingWindows::of(ms(15)).every(ms(5)).offset(ms(2));
    for time in [7, 8, 11] {
        assert_eq!(assign(&windows, time), [(-3, 12), (2, 17), (7, 22)]);
    }
}

/// Beam's seconds with a fraction are milliseconds here.
#[test]
fn test_sliding_windows_assignment_fraction() {
    let windows = SlidingWindows::of(ms(3500))
        .every(ms(2500))
        .offset(ms(1500));
    assert_eq!(assign(&windows, 1700), [(-1000, 2500), (1500, 5000)]);
    assert_eq!(assign(&windows, 3000), [(1500, 5000)]);
}

#[test]
fn test_sliding_windows_assignment_fraction_large_offset() {
    let windows = SlidingWindows::of(ms(3500))
        .every(ms(2500))
        .offset(ms(4000));
    assert_eq!(assign(&windows, 1700), [(-1000, 2500), (1500, 5000)]);
    assert_eq!(assign(&windows, 4500), [(1500, 5000), (4000, 7500)]);
}

#[test]
fn test_sessions_merging() {
    let sessions = Sessions::with_gap(ms(10));
    let merge = |times: &[i64]| {
        let mut running: Vec<Window> = Vec::new();
        for &time in times {
            sessions.assign(time, &mut running);
            running.sort();
            for (merged, result) in sessions.merge(&running) {
                running.retain(|window| !merged.contains(window));
                running.push(result);
            }
        }
        running.sort();
        running.iter().map(|w| (w.start, w.end)).collect::<Vec<_>>()
    };
    assert_eq!(merge(&[2]), [(2, 12)]);
    assert_eq!(merge(&[2, 19]), [(2, 12), (19, 29)]);
    assert_eq!(merge(&[2, 9]), [(2, 19)]);
    assert_eq!(merge(&[9, 2]), [(2, 19)]);
    assert_eq!(merge(&[2, 9, 19]), [(2, 19), (19, 29)]);
    assert_eq!(merge(&[19, 9, 2]), [(2, 19), (19, 29)]);
    assert_eq!(merge(&[2, 15, 10]), [(2, 25)]);
}

/// Beam encodes and decodes; here equal descriptions are equal functions.
#[test]
fn test_windowfn_encoding() {
    let functions: [fn() -> Windowing; 4] = [
        Windowing::global,
        || Windowing::fixed(ms(37)),
        || Windowing::sliding(ms(2), ms(389)),
        || Windowing::sessions(ms(5077)),
    ];
    for (number, one) in functions.iter().enumerate() {
        for (other_number, other) in functions.iter().enumerate() {
            assert_eq!(one() == other(), number == other_number);
        }
    }
}

#[test]
fn test_windowing_encoding() {
    let accumulating = Windowing::of(FixedWindows::of(ms(1)).offset(ms(3)))
        .trigger(Trigger::after_count(6))
        .accumulation(Accumulation::Accumulating);
    assert_ne!(accumulating, Windowing::fixed(ms(1)));
    assert_eq!(accumulating.clone(), accumulating);
}

/// A window function of a user: [0, 3), [3, 5) and then one for each instant.
#[derive(Debug)]
struct Custom;

impl WindowFn for Custom {
    fn describe(&self) -> crate::transform::Description {
        crate::transform::Description::new("custom", Value::Null)
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        let (start, end) = match time {
            ..0 => (MIN_TIME, 0),
            0..3 => (0, 3),
            3..5 => (3, 5),
            _ => (time, time + 1),
        };
        windows.push(Window { start, end });
    }
}

/// Windows of a user that overlap, of which it says nothing, or says that they do not.
#[derive(Debug)]
struct Overlapping {
    is_denied: bool,
}

impl WindowFn for Overlapping {
    fn describe(&self) -> crate::transform::Description {
        crate::transform::Description::new("overlapping", Value::Null)
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        let start = time - time.rem_euclid(10);
        // One of 30 ms begins every 20 ms, and one of 10 ms in between.
        let (starts, n) = match start.rem_euclid(20) {
            0 => ([(start - 20, 30), (start, 30)], 2),
            _ => ([(start - 10, 30), (start, 10)], 2),
        };
        let starts = starts.into_iter().take(n);
        windows.extend(starts.map(|(start, size)| Window::within_range(start, start + size)));
    }

    fn overlaps(&self) -> bool {
        match self.is_denied {
            true => false,
            false => Custom.overlaps(),
        }
    }
}

/// Windows that say nothing of it may overlap: no result counts in two of them.
#[test]
fn results_of_windows_that_do_not_say_that_they_overlap_stay_in_theirs() {
    let windowing = Windowing::of(Overlapping { is_denied: false });
    windowing.check().unwrap();
    let of_results = windowing.continuation();
    of_results.check().unwrap();
    for (time, window) in [
        (9, (-20, 10)),
        (19, (10, 20)),
        (29, (0, 30)),
        (49, (20, 50)),
    ] {
        assert_eq!(assign(&*of_results.window_fn, time), [window]);
    }
    check_window_fn(&*of_results.window_fn, 0, 3);
    let earliest = windowing.timestamp_combiner(TimestampCombiner::Earliest);
    expect![[r#"
        results of overlapping windows cannot be grouped in the same windows again
          Their event time does not tell which of the windows over it they came from.
          Hint: Say with `window(..)` in which windows they are to be."#]]
    .assert_eq(&earliest.continuation().check().unwrap_err().to_string());
}

#[test]
fn windows_that_overlap_and_deny_it_are_refused() {
    let denied = || Overlapping { is_denied: true };
    expect![[r#"
        overlapping windows are said not to overlap, but time -1 is in 2 of them
          A result that is grouped again would count in each of them.
          Hint: Let `WindowFn::overlaps` give true, as it does by default."#]]
    .assert_eq(&Windowing::of(denied()).check().unwrap_err().to_string());
    let panic = std::panic::catch_unwind(|| check_window_fn(&denied(), 0, 1)).unwrap_err();
    let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    let law = "windows that are said not to overlap do not: Overlapping { is_denied: true } at ";
    assert!(message.starts_with(law), "{message}");
}

#[test]
fn the_laws_of_window_functions_hold() {
    let week = CalendarDays::of(7).starting_on(2024, 1, 1);
    let functions: Vec<Box<dyn WindowFn>> = vec![
        Box::new(GlobalWindow),
        Box::new(Custom),
        Box::new(FixedWindows::of(ms(1))),
        Box::new(FixedWindows::of(ms(3_600_000)).offset(ms(1234))),
        Box::new(FixedWindows::of(ms(MAX_TIME.unsigned_abs()))),
        Box::new(SlidingWindows::of(ms(15)).every(ms(5)).offset(ms(2))),
        Box::new(SlidingWindows::of(ms(7)).every(ms(5))),
        Box::new(SlidingWindows::of(ms(5)).every(ms(7))),
        Box::new(Sessions::with_gap(ms(10))),
        Box::new(Sessions::with_gap(ms(100_000))),
        Box::new(CalendarDays::of(1)),
        Box::new(CalendarDays::of(1).in_zone("Europe/Berlin")),
        Box::new(week.in_zone("America/Sao_Paulo")),
        Box::new(CalendarDays::of(1).in_zone("Pacific/Apia")),
        Box::new(CalendarMonths::of(1).in_zone("Asia/Kolkata").on_day(15)),
        Box::new(
            CalendarMonths::of(12)
                .starting_in(2023, 4)
                .in_zone("Africa/Cairo"),
        ),
    ];
    for (function, near) in functions
        .iter()
        .zip([0, 1_711_843_200_000].into_iter().cycle())
    {
        check_window_fn(&**function, near, 7);
        check_window_fn(&**function, 1_325_203_200_000, 8); // the day that Samoa skipped
    }
    let of_results = Windowing::sliding(ms(7), ms(2)).continuation();
    check_window_fn(&*of_results.window_fn, 0, 9);
}

proptest! {
    /// Sliding windows against what they are by definition.
    #[test]
    fn sliding_windows_are_those_that_contain_the_time(
        size in 1_i64..50, period in 1_i64..20, offset in 0_i64..60, time in -200_i64..200,
    ) {
        let windows = SlidingWindows::of(ms(size.unsigned_abs()))
            .every(ms(period.unsigned_abs()))
            .offset(ms(offset.unsigned_abs()));
        let expected: Vec<_> = (-1000..1000)
            .map(|n| (n * period + offset, n * period + offset + size))
            .filter(|(start, end)| (*start..*end).contains(&time))
            .collect();
        prop_assert_eq!(assign(&windows, time), expected);
        check_window_fn(&windows, time, time.unsigned_abs());
    }

    /// Sessions against a walk over sorted times.
    #[test]
    fn sessions_end_after_a_gap(gap in 1_i64..30, mut times in prop::collection::vec(-100_i64..100, 1..20)) {
        let sessions = Sessions::with_gap(ms(gap.unsigned_abs()));
        let mut windows = Vec::new();
        for &time in &times {
            sessions.assign(time, &mut windows);
        }
        windows.sort();
        windows.dedup();
        for (merged, result) in sessions.merge(&windows) {
            windows.retain(|window| !merged.contains(window));
            windows.push(result);
        }
        windows.sort();
        times.sort_unstable();
        let expected: Vec<Window> = times
            .chunk_by(|one, next| next - one < gap)
            .map(|session| Window { start: session[0], end: session[session.len() - 1] + gap })
            .collect();
        prop_assert_eq!(windows, expected);
    }
}

#[test]
fn windows_end_where_time_does() {
    let fixed = FixedWindows::of(ms(1000));
    for (time, start, end) in [
        (i64::MIN, MIN_TIME, 0),
        (MAX_TIME, 9_223_372_036_854_000, MAX_TIME + 1),
        (i64::MAX, 9_223_372_036_854_000, MAX_TIME + 1),
    ] {
        let starts: Vec<i64> = assign(&fixed, time).iter().map(|window| window.0).collect();
        assert_eq!(starts, [start]);
        if time > 0 {
            let ends: Vec<i64> = assign(&fixed, time).iter().map(|window| window.1).collect();
            assert_eq!(ends, [end]);
        }
    }
}

#[track_caller]
fn refused(windowing: &Windowing, message: &Expect) {
    let error = windowing.check().expect_err("it is refused");
    assert!(error.is_pipeline());
    message.assert_eq(&error.to_string());
}

#[test]
fn wrong_strategies_are_refused() {
    refused(
        &Windowing::fixed(Duration::ZERO),
        &expect!["the size of fixed windows must be longer than 0"],
    );
    refused(
        &Windowing::fixed(Duration::from_micros(1500)),
        &expect![
            "the size of fixed windows must be a whole number of milliseconds, of at most 9223372036854775, found 1.5ms"
        ],
    );
    refused(
        &Windowing::sliding(ms(10), Duration::ZERO),
        &expect!["the period of sliding windows must be longer than 0"],
    );
    refused(
        &Windowing::sliding(ms(86_400_000), ms(1)),
        &expect![[r#"
        each row would be in 86400000 sliding windows, more than 100000
          Hint: Choose a longer period."#]],
    );
    refused(
        &Windowing::sessions(Duration::MAX),
        &expect![
            "the gap between sessions must be a whole number of milliseconds, of at most 9223372036854775, found 18446744073709551615.999999999s"
        ],
    );
    refused(
        &Windowing::calendar_days("Europe/Atlantis"),
        &expect![[r#"
        there is no time zone "Europe/Atlantis"
          Hint: Name it as in the IANA database, such as "Europe/Berlin"."#]],
    );
    refused(
        &Windowing::of(CalendarDays::of(0)),
        &expect!["windows of calendar days must be of at least 1 day"],
    );
    refused(
        &Windowing::of(CalendarDays::of(1).starting_on(2023, 2, 29)),
        &expect!["windows of calendar days cannot start on 2023-02-29, which no calendar has"],
    );
    refused(
        &Windowing::of(CalendarMonths::of(1).on_day(31)),
        &expect![[r#"
            windows of calendar months cannot start on day 31, which not every month has
              Hint: Choose a day from 1 to 28."#]],
    );
    let fixed = || Windowing::fixed(ms(10));
    refused(
        &fixed().trigger(Trigger::after_count(0)),
        &expect![[r#"
        trigger AfterCount(0) would fire without rows
          Hint: Count at least 1 row."#]],
    );
    refused(
        &fixed().trigger(Trigger::after_any([])),
        &expect!["trigger AfterAny() must be of at least one trigger"],
    );
    refused(
        &fixed().trigger(Trigger::after_count(2)),
        &expect![[r#"
        trigger AfterCount(2) may lose rows
          It may finish before its window is over, and rows that come after that are lost.
          Hint: Wrap the trigger in `repeatedly()`, so that it begins anew. Where rows may be lost, say `allow_data_loss(true)`."#]],
    );
    let late = fixed()
        .allowed_lateness(ms(60))
        .trigger(Trigger::after_watermark());
    refused(
        &late,
        &expect![[r#"
        trigger AfterWatermark may lose rows
          It may finish before its window is over, and rows that come after that are lost.
          Hint: Say with `late(..)` when late rows leave, or leave the allowed lateness at 0. Where rows may be lost, say `allow_data_loss(true)`."#]],
    );
}
