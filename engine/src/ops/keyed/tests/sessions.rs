//! `sessionize` against a plain reference, and under the laws.

use std::time::Duration;

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::testing::{Laws, check_operator};

const COLUMNS: &str = "k: 1, 2, null; event_time: 0";

fn gap_10() -> Sessionize {
    Sessionize::new(Duration::from_millis(10))
}

#[test]
fn sessions_grow_join_and_leave_when_the_watermark_has_passed_them() {
    by_k(gap_10(), Windowing::global(), COLUMNS)
        .rows(0, "k: 1, 1, 2; event_time: 0, 15, 3")
        .watermark(4)
        .rows(0, "k: 1; event_time: 8")
        .watermark(14)
        .rows(0, "k: 2, 1; event_time: 4, 30")
        .watermark(26)
        .end()
        .check(expect![[r#"
            watermark 14
            k: 2
            window_start: 3
            window_end: 13
            n_rows: 1
            event_time: 12
            rows, late
            k: 2
            event_time: 4
            watermark 26
            k: 1
            window_start: 0
            window_end: 25
            n_rows: 3
            event_time: 24
            end
            k: 1
            window_start: 30
            window_end: 40
            n_rows: 1
            event_time: 39"#]]);
}

#[test]
fn it_keeps_the_laws() {
    let transform = Process::new(gap_10(), ["k"], Windowing::global());
    check_operator(transform, &[COLUMNS], &Laws::new().on_time(false));
    let late = Windowing::global().allowed_lateness(Duration::from_millis(20));
    check_operator(
        Process::new(gap_10(), ["k"], late),
        &[COLUMNS],
        &Laws::new().on_time(false),
    );
    let windows = Windowing::fixed(Duration::from_millis(50));
    check_operator(
        Process::new(gap_10(), ["k"], windows),
        &[COLUMNS],
        &Laws::new().on_time(false),
    );
}

/// Start, end and rows of each session, of all rows at once.
fn reference(mut times: Vec<i64>, gap: i64) -> Vec<(i64, i64, i64)> {
    times.sort_unstable();
    let mut sessions: Vec<(i64, i64, i64)> = Vec::new();
    for time in times {
        match sessions.last_mut() {
            Some((_, end, n)) if time < *end => {
                *end = time + gap;
                *n += 1;
            }
            _ => sessions.push((time, time + gap, 1)),
        }
    }
    sessions
}

proptest! {
    #[test]
    fn it_is_what_sorted_rows_give(
        times in prop::collection::vec(0i64..100, 1..40),
        gap in 1i64..15,
        cut in 0usize..40,
    ) {
        let cut = cut.min(times.len());
        // No row comes behind the watermark, which stands at the earliest row to come.
        let watermark = times[cut..].iter().copied().min();
        let text = |times: &[i64]| {
            let all: Vec<String> = times.iter().map(ToString::to_string).collect();
            format!("k: {}; event_time: {}", vec!["1"; times.len()].join(", "), all.join(", "))
        };
        let transform = Sessionize::new(Duration::from_millis(gap.unsigned_abs()));
        let mut run = by_k(transform, Windowing::global(), COLUMNS);
        if cut > 0 {
            run = run.rows(0, &text(&times[..cut]));
        }
        if let Some(watermark) = watermark {
            run = run.watermark(watermark).rows(0, &text(&times[cut..]));
        }
        let transcript = run.end().transcript().unwrap();
        let column = |name: &str| -> Vec<i64> {
            let lines = transcript.lines().filter_map(|line| line.strip_prefix(name));
            lines.flat_map(|line| line.split(", ").map(|v| v.parse().unwrap())).collect()
        };
        let (starts, ends) = (column("window_start: "), column("window_end: "));
        let n_rows = column("n_rows: ");
        let found: Vec<(i64, i64, i64)> =
            (0..starts.len()).map(|n| (starts[n], ends[n], n_rows[n])).collect();
        prop_assert_eq!(found, reference(times, gap));
    }
}
