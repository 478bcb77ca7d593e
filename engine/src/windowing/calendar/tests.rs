//! Days and months where clocks change.

use chrono::DateTime;

use super::*;
use crate::windowing::WindowFn;

#[track_caller]
fn check(window_fn: &dyn WindowFn, time: &str, expected: [&str; 2]) {
    let time = DateTime::parse_from_rfc3339(time).unwrap();
    let mut windows = Vec::new();
    window_fn.assign(time.timestamp_millis(), &mut windows);
    let seen: Vec<[String; 2]> = windows
        .iter()
        .map(|window| {
            [window.start, window.end].map(|edge| {
                let edge = DateTime::from_timestamp_millis(edge).unwrap();
                edge.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            })
        })
        .collect();
    assert_eq!(
        seen,
        [expected.map(str::to_owned)],
        "{window_fn:?} at {time}"
    );
}

#[test]
fn days_have_23_or_25_hours_where_clocks_change() {
    let days = CalendarDays::of(1).in_zone("Europe/Berlin");
    for (time, expected) in [
        (
            "2024-03-30T23:00:00Z",
            ["2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"],
        ),
        (
            "2024-03-30T22:59:59Z",
            ["2024-03-29T23:00:00Z", "2024-03-30T23:00:00Z"],
        ),
        (
            "2024-10-27T12:00:00Z",
            ["2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z"],
        ),
        (
            "1969-12-31T22:59:59Z",
            ["1969-12-30T23:00:00Z", "1969-12-31T23:00:00Z"],
        ),
    ] {
        check(&days, time, expected);
    }
}

#[test]
fn a_day_without_midnight_starts_after_the_gap() {
    // Clocks in Brazil went from 2017-10-15 00:00 to 01:00.
    let days = CalendarDays::of(1).in_zone("America/Sao_Paulo");
    let day = ["2017-10-15T03:00:00Z", "2017-10-16T02:00:00Z"];
    check(&days, "2017-10-15T03:00:00Z", day);
    check(&days, "2017-10-16T01:59:59Z", day);
    check(
        &days,
        "2017-10-15T02:59:59Z",
        ["2017-10-14T03:00:00Z", day[0]],
    );
}

#[test]
fn a_day_with_two_midnights_starts_with_the_first() {
    // Clocks in Cuba go back from 01:00 to 00:00.
    let days = CalendarDays::of(1).in_zone("America/Havana");
    let day = ["2023-11-05T04:00:00Z", "2023-11-06T05:00:00Z"];
    check(&days, "2023-11-05T04:30:00Z", day);
    check(&days, "2023-11-05T05:30:00Z", day);
    // Those in Newfoundland went back from 00:01 to 23:01 of the day before.
    let days = CalendarDays::of(1).in_zone("America/St_Johns");
    let day = ["2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"];
    check(&days, "2010-11-07T02:30:30Z", day);
    check(&days, "2010-11-07T03:00:00Z", day);
}

#[test]
fn a_day_that_a_zone_skips_is_empty() {
    let days = CalendarDays::of(1).in_zone("Pacific/Apia");
    check(
        &days,
        "2011-12-30T09:59:59Z",
        ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"],
    );
    check(
        &days,
        "2011-12-30T10:00:00Z",
        ["2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"],
    );
}

#[test]
fn weeks_start_on_the_day_that_was_said() {
    let weeks = CalendarDays::of(7).starting_on(2024, 1, 1);
    check(
        &weeks,
        "2024-02-29T12:00:00Z",
        ["2024-02-26T00:00:00Z", "2024-03-04T00:00:00Z"],
    );
    check(
        &weeks,
        "1969-07-20T20:17:00Z",
        ["1969-07-14T00:00:00Z", "1969-07-21T00:00:00Z"],
    );
}

#[test]
fn months_are_as_long_as_the_calendar_says() {
    let months = CalendarMonths::of(1);
    check(
        &months,
        "2024-02-29T12:00:00Z",
        ["2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"],
    );
    check(
        &months,
        "1969-12-31T23:59:59Z",
        ["1969-12-01T00:00:00Z", "1970-01-01T00:00:00Z"],
    );
    let berlin = CalendarMonths::of(1).in_zone("Europe/Berlin");
    check(
        &berlin,
        "2024-03-15T00:00:00Z",
        ["2024-02-29T23:00:00Z", "2024-03-31T22:00:00Z"],
    );
    let from_the_15th = CalendarMonths::of(1).on_day(15);
    check(
        &from_the_15th,
        "2024-03-14T23:59:59Z",
        ["2024-02-15T00:00:00Z", "2024-03-15T00:00:00Z"],
    );
    let fiscal = CalendarMonths::of(12).starting_in(2020, 4);
    check(
        &fiscal,
        "2024-03-31T00:00:00Z",
        ["2023-04-01T00:00:00Z", "2024-04-01T00:00:00Z"],
    );
}

#[test]
fn far_away_the_calendar_has_only_before_and_after() {
    use crate::event_time::{MAX_TIME, MIN_TIME};
    for window_fn in [
        &CalendarDays::of(3).in_zone("Europe/Berlin") as &dyn WindowFn,
        &CalendarMonths::of(5).in_zone("Europe/Berlin"),
    ] {
        let mut windows = Vec::new();
        window_fn.assign(MIN_TIME, &mut windows);
        window_fn.assign(MAX_TIME, &mut windows);
        assert_eq!(windows[0].start, MIN_TIME);
        assert_eq!(windows[1].end, MAX_TIME + 1);
    }
}
