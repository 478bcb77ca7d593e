//! Tests of upserts.

use std::collections::BTreeMap;
use std::time::Duration;

use expect_test::expect;
use proptest::prelude::*;

use super::Upserts;
use crate::connectors::collect;
use crate::output::OnBadRow;
use crate::testing::{
    Laws, Script, changelog, check_operator, contents_at, refuse_transform, run_transform,
    scripted_with, show, show_rows, simulate, table, times_of,
};
use crate::transform::Transform;
use crate::{Pipeline, col, lit};

#[test]
fn without_an_event_time_the_last_row_counts() {
    let rows = table("id: 1, 2, 1, null, 2, 3; n: 5, 6, 7, 8, 6, 0");
    let upserts = Upserts::new(["id"]).deletes(col("n").eq(lit(0)));
    let (made, mut out) = run_transform(&upserts, &rows, OnBadRow::Fail).unwrap();
    expect![[r#"
        id: 1, 2, null
        n: 7, 6, 8
        diff: 1, 1, 1"#]]
    .assert_eq(&show(&made));
    assert_eq!(out.take_counts().0, 2);
}

fn pipeline(upserts: Upserts) -> Pipeline {
    let pipeline = Pipeline::new("test");
    let (sink, _) = collect();
    let schema = changelog("id: 1; n: 1; event_time: 1").schema();
    let ports = pipeline
        .read("rows", scripted_with(schema))
        .named("upserts")
        .apply_ports(upserts);
    ports[0].named("out").write(sink);
    let (sink, _) = collect();
    ports[1].named("late").write(sink);
    pipeline
}

#[test]
fn with_an_event_time_the_newest_row_counts_and_what_is_older_never_comes_back() {
    let upserts = Upserts::new(["id"])
        .deletes(col("n").eq(lit(0)))
        .allowed_lateness(Duration::from_millis(6));
    let script = Script::new()
        .batch(
            "rows",
            0,
            changelog("id: 1, 1, 2; n: 12, 11, 20; event_time: 12, 11, 15"),
        )
        .watermark("rows", 20)
        // Older than what is there, and newer; both are late, but not too late.
        .batch(
            "rows",
            0,
            changelog("id: 2, 1; n: 7, 8; event_time: 14, 16"),
        )
        // Taken away, and an older row of the same key; the last is too late.
        .batch(
            "rows",
            0,
            changelog("id: 1, 1, 2; n: 0, 9, 1; event_time: 22, 21, 3"),
        )
        .watermark("rows", 24)
        .restart(1)
        .batch("rows", 0, changelog("id: 1; n: 10; event_time: 20"))
        .end("rows");
    let made = simulate(&pipeline(upserts), &script, 2, 3).unwrap();
    expect![[r#"
        id=1 n=11 event_time=11 diff=1
        id=1 n=11 event_time=12 diff=-1
        id=1 n=12 event_time=12 diff=1
        id=1 n=12 event_time=20 diff=-1
        id=1 n=8 event_time=20 diff=1
        id=1 n=8 event_time=21 diff=-1
        id=1 n=9 event_time=21 diff=1
        id=1 n=9 event_time=22 diff=-1
        id=2 n=20 event_time=15 diff=1"#]]
    .assert_eq(&show_rows(&made.rows("out")));
    expect!["id=2 n=1 event_time=3"].assert_eq(&show_rows(&made.rows("late")));
}

#[test]
fn what_does_not_fit_is_refused() {
    refuse_transform(
        Upserts::new(["a", "b"]),
        "a: 1",
        expect![[r#"
        column "b" is not there
          The columns are "a"."#]],
    );
    refuse_transform(
        Upserts::new([] as [&str; 0]),
        "a: 1",
        expect![[r#"
        upserts need at least one key column
          Hint: Name the columns that tell which row is replaced."#]],
    );
    let twice = Upserts::new(["a"]).output_schema(&[changelog("a: 1; diff: 1").schema()]);
    assert_eq!(
        twice.unwrap_err().message(),
        "rows have a column \"diff\" already"
    );
}

#[test]
fn the_laws_of_stateful_operators_are_kept() {
    let upserts = Upserts::new(["id"])
        .deletes(col("n").eq(lit(0)))
        .allowed_lateness(Duration::from_millis(20));
    check_operator(
        upserts,
        &["id: 1, 2, 3; n: 0, 1, 2, 3; event_time: 0"],
        &Laws::new(),
    );
}

/// One row: its key, its time, and whether it deletes.
type Row = (i64, i64, bool);

/// What is there at `time`, by hand: of each key the newest row, of those of one time the last.
fn naive(rows: &[Row], time: i64) -> String {
    let mut newest: BTreeMap<i64, (i64, usize)> = BTreeMap::new();
    for (n, (key, at, _)) in rows.iter().enumerate().filter(|(_, row)| row.1 <= time) {
        let slot = newest.entry(*key).or_insert((*at, n));
        *slot = (*slot).max((*at, n));
    }
    let there = newest.into_iter().filter(|(_, (_, n))| !rows[*n].2);
    let lines = there.map(|(key, (_, n))| format!("id={key} n={}", n + 1));
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Rows come in any order within what the watermark promises, with restarts to any number of workers.
    #[test]
    fn at_each_instant_the_newest_rows_are_there(
        rows in prop::collection::vec((0i64..4, 0i64..12, prop::bool::weighted(0.2)), 1..30),
        cuts in prop::collection::vec(1usize..6, 1..12),
        restarts in prop::collection::vec(prop::option::weighted(0.3, 1usize..4), 12),
        n_workers in 1usize..4,
        seed in any::<u64>(),
    ) {
        let mut script = Script::new();
        let mut start = 0;
        for (cut, restart) in cuts.iter().cycle().zip(restarts.iter().cycle()) {
            let end = (start + cut).min(rows.len());
            let part = &rows[start..end];
            let column = |of: fn(&(usize, Row)) -> i64| {
                let numbered = part.iter().enumerate().map(|(n, row)| (start + n, *row));
                numbered.map(|row| of(&row).to_string()).collect::<Vec<_>>().join(", ")
            };
            // The number of the row tells it apart, and its sign whether it deletes.
            let sign = |(n, row): &(usize, Row)| (*n as i64 + 1) * if row.2 { -1 } else { 1 };
            let (ids, times) = (column(|r| r.1.0), column(|r| r.1.1));
            let text = format!("id: {ids}; n: {}; event_time: {times}", column(sign));
            script = script.batch("rows", 0, changelog(&text));
            start = end;
            if start == rows.len() {
                break;
            }
            let promised = rows[start..].iter().map(|r| r.1).min().unwrap_or(0);
            script = script.watermark("rows", promised);
            if let Some(n_workers) = restart {
                script = script.restart(*n_workers);
            }
        }
        let upserts = Upserts::new(["id"]).deletes(col("n").lt(lit(0)));
        let made = simulate(&pipeline(upserts), &script.end("rows"), n_workers, seed).unwrap();
        let made = made.rows("out");
        for time in 0..12 {
            prop_assert_eq!(contents_at(&made, Some(time)), naive(&rows, time), "at {}", time);
        }
        prop_assert!(times_of(&made).iter().all(|t| rows.iter().any(|r| r.1 == *t)));
    }
}

/// Rows come as late as they like: what upserts make of them never takes a row back before it was added, and so does
/// what follows from it in joins, aggregates and first rows.
#[test]
fn nothing_is_taken_back_that_is_not_there_however_late_rows_are() {
    use crate::aggregates::{count, sum};
    use crate::ops::JoinKind;
    use crate::testing::Chance;
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let pipeline = Pipeline::new("test");
        let schema = changelog("id: 1; n: 1; event_time: 1").schema();
        let lateness = Duration::from_millis(30);
        let read = |name: &str| {
            let rows = pipeline.read(name, scripted_with(schema.clone()));
            let upserts = Upserts::new(["id"]).deletes(col("n").eq(lit(0)));
            rows.upserts_with(upserts.allowed_lateness(lateness))
        };
        let (left, right) = (read("left"), read("right"));
        let right = right.select([col("id").alias("of"), col("n").alias("m")]);
        let pairs = left.join(&right, JoinKind::Full, [(col("n"), col("m"))]);
        let groups = pairs.group_by([col("id")]);
        let groups = groups.agg([sum(col("m")).alias("sum"), count(lit(1)).alias("n_pairs")]);
        let first = groups.top_k(2, [col("sum").sort(true, false)]);
        let places = left.distinct().select([col("n")]).distinct();
        let all = [
            (&left, "left"),
            (&pairs, "pairs"),
            (&groups, "groups"),
            (&first, "first"),
            (&places, "places"),
        ];
        for (rows, name) in all {
            rows.named(format!("{name} out")).write(collect().0);
        }
        let mut script = Script::new();
        let mut watermark = 0usize;
        for _ in 0..12 {
            let name = ["left", "right"][chance.index(2)];
            let (id, n) = (chance.index(3), chance.index(4));
            let time = (watermark + 10).saturating_sub(chance.index(35));
            let row = changelog(&format!("id: {id}; n: {n}; event_time: {time}"));
            script = script.batch(name, u32::from(chance.index(2) == 0), row);
            watermark += chance.index(8);
            let at = i64::try_from(watermark).unwrap();
            script = script.watermark(name, at);
            if chance.index(4) == 0 {
                script = script.restart(1 + chance.index(3));
            }
        }
        let script = script.end("left").end("right");
        let made = simulate(&pipeline, &script, 1 + chance.index(3), seed).unwrap();
        for (_, name) in all {
            let rows = made.rows(&format!("{name} out"));
            for time in times_of(&rows) {
                let there = contents_at(&rows, Some(time));
                let is_missing = there.lines().any(|line| line.starts_with('-'));
                assert!(!is_missing, "seed {seed}, {name} at {time}:\n{there}");
            }
        }
    }
}
