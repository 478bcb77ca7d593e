//! `distinct_within` against a plain reference, and under the laws.

use std::time::Duration;

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::connectors::{collect, from_record_batches};
use crate::testing::{Laws, check_operator, show, table};
use crate::{Pipeline, RunOptions, col};

const COLUMNS: &str = "k: 1, 2, null; event_time: 0";

fn within_10() -> DistinctWithin {
    DistinctWithin::new(Duration::from_millis(10))
}

#[test]
fn the_first_to_arrive_stays_and_late_rows_are_counted() {
    by_k(within_10(), Windowing::global(), COLUMNS)
        .rows(0, "k: 1, 1, 2, 1, 1; event_time: 5, 14, 5, 15, -4")
        .watermark(16)
        .rows(0, "k: 1, 1, 2; event_time: 24, 15, 25")
        .end()
        .check(expect![[r#"
            rows
            k: 1, 2, 1
            event_time: 5, 5, 15
            rows
            k: 2
            event_time: 25
            rows, late
            k: 1
            event_time: 15"#]]);
}

#[test]
fn it_keeps_the_laws() {
    let transform = Process::new(within_10(), ["k"], Windowing::global());
    let laws = Laws::new().row_preserving(true);
    check_operator(transform, &[COLUMNS], &laws);
    let late = Windowing::global().allowed_lateness(Duration::from_millis(20));
    let laws = laws.on_time(false);
    check_operator(Process::new(within_10(), ["k"], late), &[COLUMNS], &laws);
}

/// Which rows stay if all are looked at one after the other.
fn reference(rows: &[(i64, i64)], within: u64) -> Vec<(i64, i64)> {
    let mut kept: Vec<(i64, i64)> = Vec::new();
    for &(key, time) in rows {
        if !kept
            .iter()
            .any(|(k, t)| *k == key && t.abs_diff(time) < within)
        {
            kept.push((key, time));
        }
    }
    kept
}

fn as_table(rows: &[(i64, i64)]) -> String {
    let of = |value: fn(&(i64, i64)) -> i64| -> String {
        let all: Vec<String> = rows.iter().map(|row| value(row).to_string()).collect();
        all.join(", ")
    };
    format!("k: {}\nevent_time: {}", of(|r| r.0), of(|r| r.1))
}

proptest! {
    #[test]
    fn it_is_what_a_look_at_all_rows_gives(
        rows in prop::collection::vec((0i64..4, 0i64..60), 1..40),
        within in 1u64..20,
        watermark in 0i64..60,
    ) {
        let transform = DistinctWithin::new(Duration::from_millis(within));
        // Rows behind the watermark are late, and are taken out of the reference.
        let (before, after) = rows.split_at(rows.len() / 2);
        let after: Vec<_> = after.iter().copied().filter(|row| row.1 >= watermark).collect();
        let mut run = by_k(transform, Windowing::global(), COLUMNS)
            .rows(0, &as_table(before).replace('\n', "; "))
            .watermark(watermark);
        if !after.is_empty() {
            run = run.rows(0, &as_table(&after));
        }
        let mut found = String::new();
        for line in run.end().transcript().unwrap().lines() {
            found.push_str(line);
            found.push('\n');
        }
        let mut all = before.to_vec();
        all.extend(&after);
        let kept = reference(&all, within);
        let n_before = reference(before, within).len();
        let mut expected = String::new();
        for part in [&kept[..n_before], &kept[n_before..]] {
            if !part.is_empty() {
                expected.push_str(&format!("rows\n{}\n", as_table(part)));
            }
        }
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn keys_are_expressions_and_late_rows_have_a_port() {
    let pipeline = Pipeline::new("distinct");
    let rows = table("k: 1, 3, 2, 5; event_time: 0, 1, 2, 30");
    let rows = pipeline.read("rows", from_record_batches(vec![rows]));
    let (sink, made) = collect();
    let (late_sink, late) = collect();
    let distinct = rows
        .group_by([col("k") % crate::lit(2)])
        .process(within_10());
    distinct.port("late").write(late_sink);
    distinct.write(sink);
    pipeline.run(&RunOptions::default().workers(2)).unwrap();
    let mut made: Vec<String> = made.take().iter().map(show).collect();
    made.sort();
    assert_eq!(made.concat().matches("k:").count(), made.len());
    let n_rows: usize = made.iter().map(|text| table(text).num_rows()).sum();
    assert_eq!(n_rows, 3);
    assert!(late.take().iter().all(|rows| rows.num_rows() == 0));
}
