//! Tests of aggregates of changelogs.

use std::collections::BTreeMap;

use expect_test::expect;
use proptest::prelude::*;

use crate::aggregates::{AggregateExt, array_agg, avg, count, count_distinct, max, min, sum};
use crate::connectors::collect;
use crate::ops::relational_tests::run_changes;
use crate::testing::{Script, changelog, contents_at, scripted_with, simulate, times_of};
use crate::{Expr, Pipeline, col, lit};

fn run(rows: &str, keys: &[&str], aggregates: Vec<Expr>) -> String {
    run_changes(rows, |rows| {
        rows.group_by(keys.iter().map(|key| col(*key)))
            .agg(aggregates)
    })
}

#[test]
fn a_group_changes_when_its_rows_do() {
    let rows =
        "k: a, a, b, a, b; n: 1, 2, 3, 1, 3; event_time: 1, 2, 2, 3, 4; diff: 1, 1, 1, -1, -1";
    let made = run(
        rows,
        &["k"],
        vec![sum(col("n")).alias("sum"), count(lit(1)).alias("n")],
    );
    expect![[r#"
        k: 'a', 'a', 'a', 'b', 'a', 'a', 'b'
        sum: 1, 1, 3, 3, 3, 2, 3
        n: 1, 1, 2, 1, 2, 1, 1
        event_time: 1, 2, 2, 2, 3, 3, 4
        diff: 1, -1, 1, 1, -1, 1, -1"#]]
    .assert_eq(&made);
}

#[test]
fn a_group_whose_outputs_stay_the_same_does_not_leave_again() {
    let rows = "k: a, a, a; n: 5, 7, 7; event_time: 1, 2, 3; diff: 1, 1, -1";
    let made = run(rows, &["k"], vec![min(col("n")).alias("least")]);
    expect![[r#"
        k: 'a'
        least: 5
        event_time: 1
        diff: 1"#]]
    .assert_eq(&made);
}

#[test]
fn without_a_key_the_one_group_stays_when_it_is_empty() {
    let rows = "n: 5, 5; event_time: 1, 2; diff: 1, -1";
    let made = run(
        rows,
        &[],
        vec![sum(col("n")).alias("sum"), count(col("n")).alias("n")],
    );
    expect![[r#"
        sum: 5, 5, null
        n: 1, 1, 0
        event_time: 1, 2, 2
        diff: 1, -1, 1"#]]
    .assert_eq(&made);
}

#[test]
fn nulls_filters_and_infinities_are_taken_back() {
    let rows =
        "x: 1.5, inf, null, inf, nan, nan; event_time: 1, 2, 3, 4, 5, 6; diff: 1, 1, 1, -1, 1, -1";
    let small = sum(col("x")).filter(col("x").lt(lit(10))).build().unwrap();
    let made = run(
        rows,
        &[],
        vec![
            sum(col("x")).alias("sum"),
            max(col("x")).alias("max"),
            small.alias("small"),
            count_distinct(col("x")).alias("distinct"),
        ],
    );
    expect![[r#"
        sum: 1.5, 1.5, inf, inf, 1.5, 1.5, NaN, NaN, 1.5
        max: 1.5, 1.5, inf, inf, 1.5, 1.5, NaN, NaN, 1.5
        small: 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5
        distinct: 1, 1, 2, 2, 1, 1, 2, 2, 1
        event_time: 1, 2, 2, 4, 4, 5, 5, 6, 6
        diff: 1, -1, 1, -1, 1, -1, 1, -1, 1"#]]
    .assert_eq(&made);
}

#[test]
fn what_cannot_be_taken_back_is_refused_by_name() {
    let rows = "k: a; n: 1; event_time: 1; diff: 1";
    let refused = run(
        rows,
        &["k"],
        vec![array_agg(col("n")), max(col("event_time"))],
    );
    expect![[r#"
        `max(event_time)` reads column "event_time" of a changelog
          in transform "group_by/partial"
          It is another when the same row is taken back, which would then be a row that was never added.
          Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]]
    .assert_eq(&refused);
    let refused = run(
        rows,
        &["k"],
        vec![array_agg(col("n")), sum(col("n")).alias("diff")],
    );
    expect![[r#"
        2 errors
        1. column "diff" of a changelog cannot be replaced
             in transform "group_by/partial"
             Hint: Give the key or the aggregate another name with `.alias("…")`.
        2. `array_agg(n)` cannot take rows of a changelog back
             in transform "group_by/partial"
             Hint: Count, sum, avg, min, max and count_distinct can; for others aggregate before the rows become changes."#]]
    .assert_eq(&refused);
}

#[test]
fn a_row_that_was_never_added_cannot_be_taken_back() {
    let rows = "k: a, b; n: 1, 1; event_time: 1, 2; diff: 1, -1";
    expect![[r#"
        a changelog takes back a row that it never added
          in transform "group_by"
          The group is k = b.
          Hint: Each row with `diff` -1 must be equal to one with 1, which may come later, but must come."#]]
    .assert_eq(&run(rows, &["k"], vec![sum(col("n"))]));
}

/// The row of `b` is taken back at 3, and what adds it comes late and takes effect at 5; so with one of `a`, in place of
/// which another is there meanwhile.
#[test]
fn a_row_that_is_taken_back_before_it_is_added_is_not_there_until_both_are() {
    let early = "k: a, b, a; n: 1, 2, 3; event_time: 1, 3, 3; diff: 1, -1, -1";
    let late = "k: b, a, b; n: 2, 3, 4; event_time: 2, 2, 2; diff: 1, 1, 1";
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", scripted_with(changelog(early).schema()));
    let aggregates = [
        count(lit(1)).alias("n"),
        sum(col("n")).alias("sum"),
        avg(col("n")).alias("mean"),
    ];
    let named = |rows: &crate::Collection, name: &str| rows.named(name).write(collect().0);
    named(&rows.group_by([col("k")]).agg(aggregates), "groups");
    named(&rows.agg([sum(col("n")).alias("total")]), "all");
    named(&rows.distinct(), "once");
    named(&rows.top_k(1, [col("n").sort(true, false)]), "first");
    let script = Script::new()
        .batch("rows", 0, changelog(early))
        .watermark("rows", 5)
        .restart(2)
        .batch("rows", 0, changelog(late))
        .restart(3)
        .end("rows");
    let made = simulate(&pipeline, &script, 2, 7).unwrap();
    let at = |name: &str, time| contents_at(&made.rows(name), Some(time));
    assert_eq!(at("groups", 1), "k='a' n=1 sum=1 mean=1.0");
    // The group of `a` has a row and one less than none.
    assert_eq!(at("groups", 3), "");
    assert_eq!(
        at("groups", 5),
        "k='a' n=1 sum=1 mean=1.0\nk='b' n=1 sum=4 mean=4.0"
    );
    assert_eq!(at("all", 3), "total=-4");
    assert_eq!(at("all", 5), "total=5");
    assert_eq!(at("once", 3), "k='a' n=1");
    assert_eq!(at("once", 5), "k='a' n=1\nk='b' n=4");
    assert_eq!(at("first", 3), "k='a' n=1");
    assert_eq!(at("first", 5), "k='a' n=1");
}

#[test]
fn a_plan_says_what_is_kept_and_what_releases_it() {
    let pipeline = Pipeline::new("test");
    let schema = changelog("k: 1; n: 1; event_time: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema)).upserts(["k"]);
    let groups = rows.group_by([col("n")]).agg([count(lit(1))]);
    let pairs = groups.join(&rows, crate::ops::JoinKind::Inner, [(col("n"), col("n"))]);
    pairs.consolidate().write(collect().0);
    // Lines are broken where they are long.
    let text = pipeline.plan().unwrap().explain();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [
        "keeps the newest row of each key, and rows until the watermark passes them",
        "keeps groups while they have rows, and changes until the watermark passes them",
        "keeps the rows that its joins, groups and loops read, while they are there, and changes until the watermark passes them",
        "keeps changes until the watermark passes them",
    ] {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
}

/// A change: key, value, time, and whether the row is taken back.
#[derive(Clone, Copy, Debug)]
struct Change {
    k: i64,
    n: Option<i64>,
    time: i64,
    diff: i64,
}

/// Additions, some of which are taken back later.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let row = (
        0i64..4,
        prop::option::weighted(0.9, -5i64..5),
        0i64..12,
        prop::option::of(0i64..6),
    );
    prop::collection::vec(row, 1..30).prop_map(|rows| {
        let mut changes = Vec::new();
        for (k, n, time, back) in rows {
            changes.push(Change {
                k,
                n,
                time,
                diff: 1,
            });
            if let Some(after) = back {
                changes.push(Change {
                    k,
                    n,
                    time: time + after,
                    diff: -1,
                });
            }
        }
        changes
    })
}

/// The groups at `time`, by hand. A value may be there less often than not at all, where what adds it comes late.
fn naive(changes: &[Change], time: i64) -> String {
    let mut groups: BTreeMap<i64, BTreeMap<Option<i64>, i64>> = BTreeMap::new();
    for change in changes.iter().filter(|c| c.time <= time) {
        let values = groups.entry(change.k).or_default();
        *values.entry(change.n).or_default() += change.diff;
    }
    let text = |value: Option<String>| value.unwrap_or_else(|| "null".into());
    let mut lines = Vec::new();
    for (k, values) in &groups {
        let n_rows: i64 = values.values().sum();
        if n_rows <= 0 {
            continue;
        }
        let numbers = values.iter().filter_map(|(value, n)| Some(((*value)?, *n)));
        let n: i64 = numbers.clone().map(|(_, n)| n).sum();
        let sum = (n != 0).then(|| numbers.clone().map(|(value, n)| value * n).sum::<i64>());
        let mean = sum.map(|sum| format!("{:?}", sum as f64 / n as f64));
        let there: Vec<i64> = numbers.filter(|(_, n)| *n > 0).map(|(v, _)| v).collect();
        lines.push(format!(
            "k={k} n={n_rows} sum={} min={} max={} mean={} distinct={}",
            text(sum.map(|s| s.to_string())),
            text(there.iter().min().map(ToString::to_string)),
            text(there.iter().max().map(ToString::to_string)),
            text(mean),
            there.len(),
        ));
    }
    lines.sort();
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    /// Changes come in any order, also late, cut anywhere, with restarts to any number of workers: at each instant the
    /// groups are those of a fresh computation, and they change at no other instant.
    #[test]
    fn at_each_instant_groups_are_those_of_a_fresh_computation(
        changes in changes(),
        order in any::<u64>(),
        cuts in prop::collection::vec(1usize..9, 1..8),
        restarts in prop::collection::vec(prop::option::weighted(0.3, 1usize..4), 8),
        n_workers in 1usize..4,
        haste in prop_oneof![Just(0), 1i64..6],
        seed in any::<u64>(),
    ) {
        let mut arriving = changes.clone();
        let mut state = order;
        for n in (1..arriving.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            arriving.swap(n, usize::try_from(state >> 33).unwrap() % (n + 1));
        }
        let pipeline = Pipeline::new("test");
        let (sink, _) = collect();
        let schema = changelog("k: 1; n: 1; event_time: 1; diff: 1").schema();
        let rows = pipeline.read("rows", scripted_with(schema));
        rows.group_by([col("k")])
            .agg([
                count(lit(1)).alias("n"),
                sum(col("n")).alias("sum"),
                min(col("n")).alias("min"),
                max(col("n")).alias("max"),
                avg(col("n")).alias("mean"),
                count_distinct(col("n")).alias("distinct"),
            ])
            .named("out")
            .write(sink);
        let mut script = Script::new();
        let mut rest = arriving.as_slice();
        // When they take effect: what is late, at the watermark under which it was sent.
        let (mut changes, mut watermark) = (Vec::new(), i64::MIN);
        for (cut, restart) in cuts.iter().cycle().zip(restarts.iter().cycle()) {
            let (part, others) = rest.split_at((*cut).min(rest.len()));
            let column = |of: fn(&Change) -> String| {
                part.iter().map(of).collect::<Vec<_>>().join(", ")
            };
            let text = format!(
                "k: 0, {}; n: 0, {}; event_time: 0, {}; diff: 0, {}",
                column(|c| c.k.to_string()),
                column(|c| c.n.map_or("null".into(), |n| n.to_string())),
                column(|c| c.time.to_string()),
                column(|c| c.diff.to_string()),
            );
            script = script.batch("rows", 0, changelog(&text).slice(1, part.len()));
            changes.extend(part.iter().map(|c| Change { time: c.time.max(watermark), ..*c }));
            rest = others;
            let Some(earliest) = rest.iter().map(|c| c.time).min() else { break };
            watermark = watermark.max(earliest + haste);
            script = script.watermark("rows", watermark);
            if let Some(n_workers) = restart {
                script = script.restart(*n_workers);
            }
        }
        let made = simulate(&pipeline, &script.end("rows"), n_workers, seed).unwrap();
        let made = made.rows("out");
        for time in 0..26 {
            prop_assert_eq!(contents_at(&made, Some(time)), naive(&changes, time), "at {}", time);
        }
        for time in times_of(&made) {
            prop_assert!(naive(&changes, time) != naive(&changes, time - 1));
        }
    }
}

#[test]
fn groups_that_are_gone_are_forgotten_and_those_that_stay_are_not() {
    let (all, stay) = (0..20_000, [0, 7_000, 19_999]);
    let batch = |keys: &[i64], n: i64, diff: i64| {
        let column = |of: &dyn Fn(&i64) -> i64| {
            let values: Vec<String> = keys.iter().map(|k| of(k).to_string()).collect();
            values.join(", ")
        };
        let (k, n, diff) = (column(&|k| *k), column(&|k| k + n), column(&|_| diff));
        changelog(&format!("k: {k}; n: {n}; diff: {diff}"))
    };
    let gone: Vec<i64> = all.clone().filter(|k| !stay.contains(k)).collect();
    let all: Vec<i64> = all.collect();
    let (added, taken_back, after) = (batch(&all, 0, 1), batch(&gone, 0, -1), batch(&stay, -5, 1));
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", scripted_with(added.schema()));
    let groups = rows.group_by([col("k")]);
    let aggregates = [
        min(col("n")).alias("min"),
        count_distinct(col("n")).alias("n"),
    ];
    groups.agg(aggregates).named("groups").write(collect().0);
    let first = groups.top_k(1, [col("n").sort(true, false)]);
    first.named("first").write(collect().0);
    let script = Script::new()
        .batch("rows", 0, added)
        .batch("rows", 0, taken_back)
        .batch("rows", 0, after)
        .end("rows");
    let made = simulate(&pipeline, &script, 2, 3).unwrap();
    assert_eq!(
        contents_at(&made.rows("groups"), None),
        "k=0 min=-5 n=2\nk=19999 min=19994 n=2\nk=7000 min=6995 n=2"
    );
    assert_eq!(
        contents_at(&made.rows("first"), None),
        "k=0 n=-5\nk=19999 n=19994\nk=7000 n=6995"
    );
}

#[test]
fn what_comes_late_takes_effect_at_the_watermark_under_which_it_was_sent() {
    let early = changelog("k: 1; n: 5; event_time: 9; diff: 1");
    // One row that becomes two changes of different groups.
    let late = changelog("k: 2; n: 7; event_time: 3; diff: 1");
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", scripted_with(early.schema()));
    let back = rows.select([
        (col("k") + lit(1)).alias("k"),
        (lit(0) - col("n")).alias("n"),
    ]);
    let sums = rows
        .union(&[back])
        .group_by([col("k")])
        .agg([sum(col("n")).alias("n")]);
    let (sink, _) = collect();
    let total = sums.agg([
        sum(col("n")).alias("total"),
        count(lit(1)).alias("n_groups"),
    ]);
    total.named("total").write(sink);
    let script = Script::new()
        .batch("rows", 0, early)
        .watermark("rows", 10)
        .batch("rows", 1, late)
        .watermark("rows", 20)
        .end("rows");
    for seed in 0..20 {
        let made = simulate(&pipeline, &script, 3, seed).unwrap().rows("total");
        assert_eq!(times_of(&made), [9, 10]);
        assert_eq!(contents_at(&made, Some(9)), "total=0 n_groups=2");
        assert_eq!(contents_at(&made, Some(10)), "total=0 n_groups=3");
    }
}
