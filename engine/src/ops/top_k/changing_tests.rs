//! Tests of distinct rows and of first rows of changelogs.

use std::collections::{BTreeMap, BTreeSet};

use arrow::record_batch::RecordBatch;
use expect_test::expect;
use proptest::prelude::*;

use crate::connectors::{collect, from_record_batches};
use crate::ops::Watermarks;
use crate::ops::relational_tests::run_changes;
use crate::testing::{
    Chance, Script, changelog, contents_at, scripted, scripted_with, simulate, table, times_of,
};
use crate::{Collection, OnBadRow, Pipeline, RunOptions, col, lit};

#[test]
fn a_distinct_row_comes_when_it_is_first_there_and_goes_when_it_is_no_more() {
    let rows = "a: x, x, x, null, x, x, y, y; b: 0.0, -0.0, 0.0, nan, 0.0, 0.0, 1.0, 1.0; \
                event_time: 1, 2, 3, 3, 4, 5, 6, 6; diff: 1, 1, -1, 1, -1, 1, 1, -1";
    expect![[r#"
        a: 'x', null, 'x', 'x'
        b: 0.0, NaN, 0.0, 0.0
        event_time: 1, 3, 4, 5
        diff: 1, 1, -1, 1"#]]
    .assert_eq(&run_changes(rows, Collection::distinct));
}

#[test]
fn another_row_takes_the_place_of_one_that_is_taken_back() {
    let rows = "x: 5, 3, 7, 3, 1, 1; n: a, b, c, b, d, d; event_time: 1, 2, 3, 4, 5, 6; \
                diff: 1, 1, 1, -1, 1, -1";
    expect![[r#"
        x: 5, 3, 3, 7, 7, 1, 1, 7
        n: 'a', 'b', 'b', 'c', 'c', 'd', 'd', 'c'
        event_time: 1, 2, 4, 4, 5, 5, 6, 6
        diff: 1, 1, -1, 1, -1, 1, -1, 1"#]]
    .assert_eq(&run_changes(rows, |rows| {
        rows.top_k(2, [col("x").sort(true, false)])
    }));
}

#[test]
fn of_five_rows_those_that_stay_are_not_given_again() {
    let rows = "x: 1, 2, 3, 4, 5, 6, 3, 0, 0, 2; event_time: 1, 1, 1, 1, 1, 1, 2, 3, 4, 4; \
                diff: 1, 1, 1, 1, 1, 1, -1, 1, -1, 1";
    expect![[r#"
        x: 1, 2, 3, 4, 5, 3, 6, 6, 0, 0, 2
        event_time: 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4
        diff: 1, 1, 1, 1, 1, -1, 1, -1, 1, -1, 1"#]]
    .assert_eq(&run_changes(rows, |rows| {
        rows.top_k(5, [col("x").sort(true, false)])
    }));
}

#[test]
fn each_key_has_first_rows_of_its_own_and_a_row_that_is_there_twice_takes_two_places() {
    let rows = "k: a, a, b, a, a, b; x: 1, 1, 9, 2, 1, 9; event_time: 1, 1, 1, 1, 2, 3; \
                diff: 1, 1, 1, 1, -1, -1";
    expect![[r#"
        k: 'a', 'a', 'b', 'a', 'a', 'b'
        x: 1, 1, 9, 1, 2, 9
        event_time: 1, 1, 1, 2, 2, 3
        diff: 1, 1, 1, -1, 1, -1"#]]
    .assert_eq(&run_changes(rows, |rows| {
        rows.group_by([col("k")])
            .top_k(2, [col("x").sort(true, false)])
    }));
}

#[test]
fn rows_equal_under_the_order_are_ordered_by_their_values() {
    let rows = "x: 1, 1, 1; n: 7, 5, null; event_time: 1, 2, 3; diff: 1, 1, 1";
    expect![[r#"
        x: 1, 1, 1, 1, 1
        n: 7, 7, 5, 5, null
        event_time: 1, 2, 2, 3, 3
        diff: 1, -1, 1, -1, 1"#]]
    .assert_eq(&run_changes(rows, |rows| {
        rows.top_k(1, [col("x").sort(true, false)])
    }));
    // Of those with equal keys the first: by their values too.
    expect![[r#"
        x: 1, 1, 1, 1, 1
        n: 7, 7, 5, 5, null
        event_time: 1, 2, 2, 3, 3
        diff: 1, -1, 1, -1, 1"#]]
    .assert_eq(&run_changes(rows, |rows| rows.distinct_by([col("x")])));
}

#[test]
fn a_tie_does_not_depend_on_which_columns_are_read_behind() {
    let rows = "x: 1, 1; a: 9, 1; b: 1, 2; event_time: 1, 1; diff: 1, 1";
    expect![[r#"
        b: 2
        event_time: 1
        diff: 1"#]]
    .assert_eq(&run_changes(rows, |rows| {
        rows.top_k(1, [col("x").sort(true, false)]).select([
            col("b"),
            col("event_time"),
            col("diff"),
        ])
    }));
}

#[test]
fn without_a_time_each_batch_is_an_instant() {
    let made = run_changes("x: 2, 1, 3, 1; diff: 1, 1, 1, -1", |rows| {
        rows.top_k(1, [col("x").sort(true, false)])
    });
    assert_eq!(made, "x: 2\ndiff: 1");
}

#[test]
fn a_row_that_was_never_added_cannot_be_taken_back() {
    let rows = "x: 1, 2; n: a, null; event_time: 1, 2; diff: 1, -1";
    expect![[r#"
        a changelog takes back a row that it never added
          in transform "distinct"
          The row is x = 2, n = null.
          Hint: Each row with `diff` -1 must be equal to one with 1, which may come later, but must come."#]]
    .assert_eq(&run_changes(rows, Collection::distinct));
    expect![[r#"
        a changelog takes back a row that it never added
          in transform "top_k"
          The row is x = 2, n = null.
          Hint: Each row with `diff` -1 must be equal to one with 1, which may come later, but must come."#]]
    .assert_eq(&run_changes(rows, |rows| {
        rows.top_k(1, [col("x").sort(true, false)])
    }));
}

#[test]
fn what_makes_a_changelog_is_no_order() {
    let rows = "x: 1; event_time: 1; diff: 1";
    expect![[r#"
        `event_time` reads column "event_time" of a changelog
          in transform "top_k/partial"
          It is another when the same row is taken back, which would then be a row that was never added.
          Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]].assert_eq(&run_changes(rows, |rows| {
        rows.top_k(1, [col("event_time").sort(true, false)])
    }));
}

#[test]
fn a_row_without_an_order_is_a_bad_row_when_it_comes_and_when_it_goes() {
    let rows = "x: 0, 4, 0; event_time: 1, 2, 3; diff: 1, 1, -1";
    expect![[r#"
        x: 4
        event_time: 2
        diff: 1"#]]
    .assert_eq(&run_changes(rows, |rows| {
        rows.top_k(2, [(lit(8) / col("x")).sort(true, false)])
            .on_bad_row(OnBadRow::Drop)
    }));
}

#[test]
fn rows_that_never_end_have_first_rows_if_they_are_changes() {
    let plan = |upserts: bool| {
        let pipeline = Pipeline::new("test");
        let rows = pipeline
            .read("rows", scripted("k: 1; x: 1; at: 0"))
            .assign_timestamps(col("at"), Watermarks::monotone());
        let rows = match upserts {
            true => rows.upserts(["k"]),
            false => rows,
        };
        let (sink, _) = collect();
        let rows = rows.distinct();
        rows.top_k(3, [col("x").sort(true, false)]).write(sink);
        let plan = pipeline.plan();
        plan.map(|plan| plan.explain().to_string())
            .map_err(|e| e.message().to_owned())
    };
    let explained = plan(true).unwrap();
    let said = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    for keeps in ["keeps all rows while", "keeps rows while"] {
        let keeps = format!("{keeps} they are there, and changes until the watermark passes them");
        assert!(said.contains(&keeps), "{explained}");
    }
    assert_eq!(
        plan(false).unwrap_err(),
        "top_k gives nothing before its input ends, but source \"rows\" never ends"
    );
}

/// A change: key, value, name, time, and by how much it is there more often.
type Change = (i64, Option<i64>, &'static str, i64, i64);

/// Additions, some of which are taken back later.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let row = (
        0i64..3,
        prop::option::weighted(0.8, 0i64..3),
        prop::sample::select(vec!["x", "y"]),
        0i64..12,
        prop::option::of(0i64..6),
    );
    prop::collection::vec(row, 1..30).prop_map(|rows| {
        let mut changes = Vec::new();
        for (k, n, name, time, back) in rows {
            changes.push((k, n, name, time, 1));
            changes.extend(back.map(|after| (k, n, name, time + after, -1)));
        }
        changes
    })
}

fn text_of(changes: &[Change]) -> String {
    let column =
        |of: &dyn Fn(&Change) -> String| changes.iter().map(of).collect::<Vec<_>>().join(", ");
    format!(
        "k: 0, {}; n: 0, {}; name: a, {}; event_time: 0, {}; diff: 0, {}",
        column(&|c| c.0.to_string()),
        column(&|c| c.1.map_or("null".into(), |n| n.to_string())),
        column(&|c| c.2.to_owned()),
        column(&|c| c.3.to_string()),
        column(&|c| c.4.to_string()),
    )
}

/// The rows that are there at `time`, each as often as it is.
fn there(changes: &[Change], time: i64) -> RecordBatch {
    let mut rows: BTreeMap<(i64, Option<i64>, &str), i64> = BTreeMap::new();
    for (k, n, name, _, diff) in changes.iter().filter(|c| c.3 <= time) {
        *rows.entry((*k, *n, name)).or_default() += diff;
    }
    let mut text = [vec!["0".to_owned()], vec!["0".into()], vec!["a".into()]];
    for ((k, n, name), times) in rows {
        for _ in 0..times {
            text[0].push(k.to_string());
            text[1].push(n.map_or("null".into(), |n| n.to_string()));
            text[2].push(name.to_owned());
        }
    }
    let [k, n, name] = text.map(|column| column.join(", "));
    let rows = table(&format!("k: {k}; n: {n}; name: {name}"));
    rows.slice(1, rows.num_rows() - 1)
}

/// What the operator for rows that stay gives, sorted.
fn fresh(rows: &RecordBatch, make: impl Fn(&Collection) -> Collection) -> String {
    let pipeline = Pipeline::new("fresh");
    let (sink, made) = collect();
    make(&pipeline.read("rows", from_record_batches(vec![rows.clone()]))).write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    crate::testing::show_rows(&made.take())
}

/// The rows that these both take back and give at one instant.
fn given_and_taken_back(batches: &[RecordBatch]) -> Vec<String> {
    let shown = crate::testing::show_rows(batches);
    let all: BTreeSet<&str> = shown.lines().collect();
    let taken_back = all.iter().filter(|row| row.contains("diff=-1"));
    let given = taken_back.map(|row| row.replace("diff=-1", "diff=1"));
    given.filter(|row| all.contains(row.as_str())).collect()
}

/// Where changes come, in which parts, and where all is stopped and goes on.
fn script(changes: &[Change], cuts: &[usize], restarts: &[Option<usize>], seed: u64) -> Script {
    let mut chance = Chance::new(seed);
    let mut arriving = changes.to_vec();
    for n in (1..arriving.len()).rev() {
        arriving.swap(n, chance.index(n + 1));
    }
    let mut script = Script::new();
    let mut rest = arriving.as_slice();
    for (cut, restart) in cuts.iter().cycle().zip(restarts.iter().cycle()) {
        let (part, others) = rest.split_at((*cut).min(rest.len()));
        let rows = changelog(&text_of(part)).slice(1, part.len());
        let split = u32::try_from(chance.index(3)).unwrap();
        script = script.batch("rows", split, rows);
        rest = others;
        let Some(promised) = rest.iter().map(|c| c.3).min() else {
            break;
        };
        script = script.watermark("rows", promised);
        if let Some(n_workers) = restart {
            script = script.restart(*n_workers);
        }
    }
    script.end("rows")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    /// Changes come in any order, cut anywhere, with restarts to any number of workers: at each instant what is
    /// there is what the operator for rows that stay gives of the rows there, and nothing changes in between.
    #[test]
    fn at_each_instant_they_are_those_of_a_fresh_computation(
        changes in changes(),
        cuts in prop::collection::vec(1usize..9, 1..8),
        restarts in prop::collection::vec(prop::option::weighted(0.3, 1usize..4), 8),
        n_rows in 1usize..5,
        n_workers in 1usize..4,
        seed in any::<u64>(),
    ) {
        // Those of changes are ordered by their values where the order says no more.
        let of_changes = || vec![col("n").sort(false, false)];
        let of_rows = || {
            let mut order = of_changes();
            order.extend(["k", "n", "name"].map(|c| col(c).sort(true, true)));
            order
        };
        type Make<'a> = &'a dyn Fn(&Collection) -> Collection;
        let pairs: [(Make<'_>, Make<'_>); 3] = [
            (&Collection::distinct, &Collection::distinct),
            (
                &|rows| rows.top_k(n_rows, of_changes()),
                &|rows| rows.top_k(n_rows, of_rows()),
            ),
            (
                &|rows| rows.group_by([col("k")]).top_k(n_rows, of_changes()),
                &|rows| rows.group_by([col("k")]).top_k(n_rows, of_rows()),
            ),
        ];
        for (n, (make, of_rows)) in pairs.iter().enumerate() {
            let pipeline = Pipeline::new("test");
            let (sink, _) = collect();
            let schema = changelog("k: 1; n: 1; name: a; event_time: 1; diff: 1").schema();
            let rows = pipeline.read("rows", scripted_with(schema));
            make(&rows).named("out").write(sink);
            let script = script(&changes, &cuts, &restarts, seed);
            let made = simulate(&pipeline, &script, n_workers, seed).unwrap().rows("out");
            prop_assert_eq!(given_and_taken_back(&made), Vec::<String>::new());
            let mut before = String::new();
            for time in 0..18 {
                let now = fresh(&there(&changes, time), of_rows);
                prop_assert_eq!(contents_at(&made, Some(time)), &*now, "{} at {}", n, time);
                prop_assert_eq!(times_of(&made).contains(&time), now != before, "{} at {}", n, time);
                before = now;
            }
        }
    }
}
