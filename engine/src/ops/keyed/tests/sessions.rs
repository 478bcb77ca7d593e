//! `sessionize` against a plain reference, and under the laws.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::event_time::MAX_TIME;
use crate::output::{OnBadRow, Output};
use crate::testing::{Laws, changelog as events, check_operator, show_rows, table};
use crate::transform::{Transform, Watermark};

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

/// Of two workers one has heard that the watermark is at 20 when both are saved: for the key of the other its session
/// is over all the same, and a row of a window that is over is late, whoever had it.
#[test]
fn state_of_workers_that_have_not_all_heard_of_the_watermark_goes_on_as_one() {
    let after = |windowing: Windowing| {
        let transform = Process::new(gap_10(), ["k"], windowing);
        let schema = events("k: 1; event_time: 1").schema();
        transform.output_schema(&[schema]).unwrap();
        let build = || transform.build(&Artifacts::none()).unwrap();
        let mut out = Output::new(OnBadRow::Fail);
        let (mut one, mut other) = (build(), build());
        let rows = |text: &str| Batch::new(events(text));
        one.on_batch(0, rows("k: 1; event_time: 1"), &mut out)
            .unwrap();
        other
            .on_batch(0, rows("k: 2; event_time: 1"), &mut out)
            .unwrap();
        other.on_watermark(Watermark(20), &mut out).unwrap();
        let mut parts = one.snapshot().unwrap();
        parts.extend(other.snapshot().unwrap());
        // And once more before anything has come.
        let mut between = build();
        between.restore(&parts).unwrap();
        let mut both = build();
        both.restore(&between.snapshot().unwrap()).unwrap();
        let late_rows = "k: 1, 2; event_time: 9, 9";
        both.on_batch(0, rows(late_rows), &mut out).unwrap();
        both.on_watermark(Watermark::END, &mut out).unwrap();
        let left = out.take().into_iter();
        let shown = left
            .map(|(port, batch)| format!("port {port}: {}", show_rows(&[batch.rows().clone()])));
        shown.collect::<Vec<_>>().join("\n")
    };
    let lateness = Duration::from_millis(50);
    expect![[r#"
        port 0: k=1 window_start=1 window_end=19 n_rows=2 event_time=18
        k=2 window_start=1 window_end=19 n_rows=2 event_time=18"#]]
    .assert_eq(&after(Windowing::global().allowed_lateness(lateness)));
    expect![[r#"
        port 0: k=2 window_start=1 window_end=11 n_rows=1 window_start=0 window_end=10 event_time=9
        port 0: k=1 window_start=1 window_end=11 n_rows=1 window_start=0 window_end=10 event_time=9
        port 1: k=1 event_time=9
        k=2 event_time=9"#]]
    .assert_eq(&after(Windowing::fixed(Duration::from_millis(10))));
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

/// The end of a session may lie behind all times; it is over at the end of input all the same.
#[test]
fn rows_within_a_gap_of_the_end_of_time_make_a_session() {
    let late = Windowing::global().allowed_lateness(Duration::from_millis(20));
    for windowing in [Windowing::global(), late] {
        let rows = table("k: 1, 1; event_time: 0, 0");
        let times = vec![MAX_TIME - 3, MAX_TIME];
        let times = Arc::new(TimestampMillisecondArray::from(times));
        let columns = vec![Arc::clone(rows.column(0)), times as ArrayRef];
        let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
        let transform = Process::new(gap_10(), ["k"], windowing);
        let run = OperatorRun::new(transform, &[COLUMNS]).batch(0, rows);
        run.watermark(MAX_TIME - 1).end().check(expect![[r#"
            end
            k: 1
            window_start: 9223372036854772
            window_end: 9223372036854785
            n_rows: 2
            event_time: 9223372036854775"#]]);
    }
}
