//! Tests of relations that are stopped, saved, and go on with any number of workers.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use proptest::prelude::*;

use super::tests::{changes_of, components_of, lives, naive_components, naive_join, there};
use crate::aggregates::{avg, count, max, sum};
use crate::changelog::diffs;
use crate::connectors::collect;
use crate::event_time::event_times;
use crate::ops::JoinKind;
use crate::testing::{
    Chance, Script, Simulated, Step, changelog, contents_at, scripted, scripted_with, show_rows,
    simulate, table,
};
use crate::{Collection, Pipeline, col, lit};

/// How a run goes: how many rows come at once, where it is stopped, by how much a watermark is ahead of the rows.
#[derive(Clone, Debug)]
pub(super) struct Course {
    cuts: Vec<usize>,
    /// After each step, with how many workers it goes on.
    restarts: Vec<Option<usize>>,
    pub(super) ahead: i64,
    n_workers: usize,
    seed: u64,
}

impl Course {
    fn uninterrupted(&self) -> Self {
        Self {
            restarts: vec![None],
            ..self.clone()
        }
    }
}

pub(super) fn courses() -> impl Strategy<Value = Course> {
    (
        prop::collection::vec(1usize..6, 1..6),
        prop::collection::vec(prop::option::weighted(0.3, 1usize..4), 1..12),
        0i64..3,
        1usize..4,
        any::<u64>(),
    )
        .prop_map(|(cuts, restarts, ahead, n_workers, seed)| Course {
            cuts,
            restarts,
            ahead,
            n_workers,
            seed,
        })
}

/// Changes come in any order, those of all tables in turn, each with the watermark that follows from the rest.
pub(super) fn script(tables: &[RecordBatch], course: &Course) -> Script {
    let mut chance = Chance::new(course.seed);
    let mut left: Vec<RecordBatch> = tables
        .iter()
        .map(|rows| {
            let mut order: Vec<u32> = (0..u32::try_from(rows.num_rows()).unwrap()).collect();
            for n in (1..order.len()).rev() {
                order.swap(n, chance.index(n + 1));
            }
            take_record_batch(rows, &UInt32Array::from(order)).unwrap()
        })
        .collect();
    let mut script = Script::new();
    let mut restarts = course.restarts.iter().cycle();
    let turns = course.cuts.iter().cycle().zip((0..tables.len()).cycle());
    for (cut, n) in turns {
        if left.iter().all(|rows| rows.num_rows() == 0) {
            break;
        }
        let rows = &mut left[n];
        let cut = (*cut).min(rows.num_rows());
        if cut == 0 {
            continue;
        }
        let source = format!("rows-{n}");
        let split = u32::try_from(chance.index(4)).unwrap();
        script = script.batch(&source, split, rows.slice(0, cut));
        *rows = rows.slice(cut, rows.num_rows() - cut);
        let earliest = event_times(rows).unwrap().iter().min().copied();
        script = match earliest {
            Some(earliest) => script.watermark(&source, earliest + course.ahead),
            None => script.end(&source),
        };
        if let Some(Some(n_workers)) = restarts.next() {
            script = script.restart(*n_workers);
        }
    }
    (0..tables.len()).fold(script, |script, n| script.end(&format!("rows-{n}")))
}

/// What reaches the sink `out` behind `make`, on simulated workers.
pub(super) fn simulated(
    tables: &[RecordBatch],
    course: &Course,
    make: &dyn Fn(&[Collection]) -> Collection,
) -> Simulated {
    let pipeline = Pipeline::new("test");
    let read = |(n, rows): (usize, &RecordBatch)| {
        pipeline.read(&format!("rows-{n}"), scripted_with(rows.schema()))
    };
    let inputs: Vec<Collection> = tables.iter().enumerate().map(read).collect();
    let (sink, _) = collect();
    make(&inputs).named("out").write(sink);
    simulate(
        &pipeline,
        &script(tables, course),
        course.n_workers,
        course.seed,
    )
    .unwrap()
}

/// What leaves with the interruptions, and without.
pub(super) fn with_and_without(
    tables: &[RecordBatch],
    course: &Course,
    make: &dyn Fn(&[Collection]) -> Collection,
) -> (Vec<RecordBatch>, Vec<RecordBatch>) {
    let sink = |made: &Simulated| made.rows("out");
    (
        sink(&simulated(tables, course, make)),
        sink(&simulated(tables, &course.uninterrupted(), make)),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn joins_go_on_as_if_they_had_not_been_stopped(
        left in lives(10),
        right in lives(10),
        course in courses(),
    ) {
        use JoinKind::{Full, Inner, Left, LeftAnti, LeftSemi, Right};
        let tables = [changes_of(&left, "a"), changes_of(&right, "b")];
        for kind in [Inner, Left, Right, Full, LeftSemi, LeftAnti] {
            let join = |inputs: &[Collection]| {
                inputs[0].join(&inputs[1], kind, [(col("k"), col("k"))])
            };
            let (made, expected) = with_and_without(&tables, &course, &join);
            prop_assert_eq!(show_rows(&made), show_rows(&expected), "{:?}", kind);
            for time in (0..14).filter(|_| course.ahead == 0) {
                let expected = naive_join(kind, &there(&left, time), &there(&right, time));
                prop_assert_eq!(contents_at(&made, Some(time)), expected, "{:?} at {}", kind, time);
            }
        }
    }

    #[test]
    fn chains_and_computed_keys_do_too(
        a in lives(8),
        b in lives(8),
        c in lives(8),
        course in courses(),
    ) {
        let tables = [changes_of(&a, "a"), changes_of(&b, "b"), changes_of(&c, "c")];
        let chain = |inputs: &[Collection], is_whole: bool| {
            let [a, b] = [0, 1].map(|n| inputs[n].incremental());
            let b = b.select([col("k").alias("of_b"), col("b")]);
            let pairs = a.join(&b, JoinKind::Left, [(col("k") + lit(1), col("of_b"))]);
            let sums = pairs.group_by([col("k")]).agg([
                sum(col("a") * col("b")).alias("product"),
                avg(col("b")).alias("mean"),
                max(col("a")).alias("last"),
                count(lit(1)).alias("n"),
            ]);
            // What leaves may be groups themselves.
            if !is_whole {
                return sums.into_collection("sums");
            }
            let c = inputs[2].incremental();
            let kept = sums.join(&c.distinct(), JoinKind::LeftSemi, [(col("k"), col("k"))]);
            kept.into_collection("kept")
        };
        for is_whole in [true, false] {
            let tables = if is_whole { &tables[..] } else { &tables[..2] };
            let chain = |inputs: &[Collection]| chain(inputs, is_whole);
            let (made, expected) = with_and_without(tables, &course, &chain);
            prop_assert_eq!(show_rows(&made), show_rows(&expected));
        }
    }

    /// A loop that asks whether there are rows outside, which may be taken back before they come.
    #[test]
    fn loops_ask_for_keys_that_are_there(
        left in lives(8),
        right in lives(8),
        course in courses(),
    ) {
        let tables = [changes_of(&left, "a"), changes_of(&right, "b")];
        let allowed = |inputs: &[Collection]| {
            let [rows, keys] = [0, 1].map(|n| inputs[n].incremental());
            let rows = rows.select([col("a")]);
            let all = rows.iterate(|allowed| {
                let all = allowed.union([&rows]).distinct();
                all.join(&keys, JoinKind::LeftAnti, [(col("a"), col("k"))])
            });
            all.into_collection("allowed")
        };
        let (made, expected) = with_and_without(&tables, &course, &allowed);
        prop_assert_eq!(show_rows(&made), show_rows(&expected));
        let script = script(&tables, &course);
        let [rows, keys] = ["rows-0", "rows-1"].map(|source| in_effect(&script, source));
        // Of both only some columns are read, of which a row may be there several times.
        let rows: Vec<InEffect> = rows.into_iter().map(|((_, a), at, n)| ((None, a), at, n)).collect();
        for time in 0..20 {
            let keys = there_after(&keys, time);
            let allowed = there_after(&rows, time).into_iter().map(|(_, a)| a);
            let allowed = allowed.filter(|a| keys.iter().all(|(k, _)| *k != Some(*a)));
            let expected: Vec<String> = allowed.map(|a| format!("a={a}")).collect();
            prop_assert_eq!(contents_at(&made, Some(time)), expected.join("\n"), "at {}", time);
        }
    }

    #[test]
    fn loops_do_too(
        edges in lives(14),
        course in courses(),
        enters in prop::sample::select(vec![false, true]),
    ) {
        let tables = [changes_of(&edges, "n")];
        let of_graph = |inputs: &[Collection]| components_of(&inputs[0], enters);
        let (made, expected) = with_and_without(&tables, &course, &of_graph);
        prop_assert_eq!(show_rows(&made), show_rows(&expected));
        let changes = in_effect(&script(&tables, &course), "rows-0");
        for time in 0..20 {
            let expected = step_by_step(&changes, time);
            prop_assert_eq!(&contents_at(&made, Some(time)), &expected, "at {}", time);
            if !is_one_missing(&changes, time) {
                prop_assert_eq!(expected, naive_components(&there_after(&changes, time)));
            }
        }
    }
}

/// How often each row has been added up to a time, less how often it has been taken back.
fn counts(changes: &[InEffect], time: i64) -> BTreeMap<(Option<i64>, i64), i64> {
    let mut counts = BTreeMap::new();
    for (row, _, diff) in changes.iter().filter(|(_, at, _)| *at <= time) {
        *counts.entry(*row).or_insert(0) += i64::from(*diff);
    }
    counts
}

/// True while a row has been taken back more often than it has been added.
fn is_one_missing(changes: &[InEffect], time: i64) -> bool {
    counts(changes, time).values().any(|times| *times < 0)
}

/// What [`components`] says, step by step and round by round. Before the loop rows are put together that have columns
/// in common, those that are missing too; into the loop come those that are there then.
fn step_by_step(changes: &[InEffect], time: i64) -> String {
    let mut both: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    let mut nodes: BTreeMap<i64, i64> = BTreeMap::new();
    for ((from, to), times) in counts(changes, time) {
        let (from, to) = (from.unwrap_or(3), to + 2);
        for (from, to) in [(from, to), (to, from)] {
            *both.entry((from, to)).or_default() += times;
            *nodes.entry(from).or_default() += times;
        }
    }
    both.retain(|_, times| *times > 0);
    nodes.retain(|_, times| *times > 0);
    let nodes: BTreeMap<i64, i64> = nodes.into_keys().map(|node| (node, node)).collect();
    let mut least = nodes.clone();
    loop {
        let mut next = nodes.clone();
        for (from, to) in both.keys() {
            if let Some(of_from) = least.get(from) {
                let of_to = next.entry(*to).or_insert(*of_from);
                *of_to = (*of_to).min(*of_from);
            }
        }
        if next == least {
            let lines = least
                .iter()
                .map(|(node, least)| format!("node={node} least={least}"));
            return lines.collect::<Vec<_>>().join("\n");
        }
        least = next;
    }
}

/// A change of a row, from when on it is in effect, and by how much.
pub(super) type InEffect = ((Option<i64>, i64), i64, i8);

/// The changes that a script has of a source, each from when on it is in effect: late ones as of the watermark under
/// which they come.
pub(super) fn in_effect(script: &Script, of: &str) -> Vec<InEffect> {
    let (mut watermark, mut changes) = (i64::MIN, Vec::new());
    for step in script.steps() {
        match step {
            Step::Watermark { source, at_ms } if source == of => {
                watermark = watermark.max(*at_ms);
            }
            Step::Rows { source, rows, .. } if source == of => {
                let int = |column: usize| rows.column(column).as_primitive::<Int64Type>();
                let (keys, values) = (int(0), int(1));
                let (times, diffs) = (event_times(rows).unwrap(), diffs(rows).unwrap());
                for row in 0..rows.num_rows() {
                    let key = keys.is_valid(row).then(|| keys.value(row));
                    let at = times[row].max(watermark);
                    changes.push(((key, values.value(row)), at, diffs[row]));
                }
            }
            _ => {}
        }
    }
    changes
}

/// The rows that are there at a time: one that is taken back more often than it has been added is not.
pub(super) fn there_after(changes: &[InEffect], time: i64) -> Vec<(Option<i64>, i64)> {
    let counts = counts(changes, time).into_iter();
    let there = counts.filter(|(_, times)| *times > 0);
    there.map(|(row, _)| row).collect()
}

#[test]
fn what_is_saved_are_the_inputs_each_row_once() {
    let left = changelog(
        "k: 1, 1, 2, null, 1; a: x, x, y, z, x; event_time: 1, 2, 2, 3, 30; diff: 1, 1, 1, 1, -1",
    );
    let right = changelog("k: 1, 3; b: 10, 30; event_time: 4, 5; diff: 1, 1");
    let pipeline = Pipeline::new("test");
    let of_left = pipeline.read("left", scripted_with(left.schema()));
    let of_right = pipeline.read("right", scripted_with(right.schema()));
    let (sink, _) = collect();
    let joined = of_left.join(&of_right, JoinKind::Left, [(col("k"), col("k"))]);
    joined.named("out").write(sink);
    let script = Script::new()
        .batch("left", 0, left)
        .batch("right", 1, right)
        .watermark("left", 10)
        .watermark("right", 10)
        .restart(3)
        .watermark("left", 20)
        .end("left")
        .end("right");
    let made = simulate(&pipeline, &script, 2, 7).unwrap();
    let saved = |table: &str| {
        let node = "join";
        let parts = made.saved(4, node).iter().filter(|p| p.table == table);
        let rows: Vec<RecordBatch> = parts.map(|p| p.rows.clone()).collect();
        show_rows(&rows)
    };
    expect![[r#"
        k=1 a='x' $time=30 $diff=-1
        k=1 a='x' $time=null $diff=2
        k=2 a='y' $time=null $diff=1
        k=null a='z' $time=null $diff=1"#]]
    .assert_eq(&saved("input 0"));
    expect![[r#"
        k=1 b=10 $time=null $diff=1
        k=3 b=30 $time=null $diff=1"#]]
    .assert_eq(&saved("input 1"));
    assert_eq!(show_rows(&made.steps("out")[4]), "");
    expect![[r#"
        k=1 a='x' b=10 event_time=30 diff=-1
        k=1 a='x' b=10 event_time=4 diff=1
        k=1 a='x' b=10 event_time=4 diff=1
        k=1 a='x' b=null event_time=1 diff=1
        k=1 a='x' b=null event_time=2 diff=1
        k=1 a='x' b=null event_time=4 diff=-1
        k=1 a='x' b=null event_time=4 diff=-1
        k=2 a='y' b=null event_time=2 diff=1
        k=null a='z' b=null event_time=3 diff=1"#]]
    .assert_eq(&show_rows(&made.rows("out")));
}

/// An edge from 1 to itself that is taken back at 2 comes late, at 7; meanwhile it would be there -1 times, and 1 would
/// be reached in every other round.
#[test]
fn a_loop_ends_over_rows_that_are_taken_back_before_they_come() {
    let edges = changelog("from: 1; to: 1; event_time: 1; diff: 1");
    let pipeline = Pipeline::new("test");
    let starts = pipeline.read("starts", scripted("n: 1; event_time: 0"));
    let starts = starts.incremental().select([col("n")]);
    let edges = pipeline.read("edges", scripted_with(edges.schema()));
    let edges = edges.incremental();
    let reached = starts.iterate(|reached| {
        let next = reached.join(&edges, JoinKind::Inner, [(col("n"), col("from"))]);
        let next = next.select([col("to").alias("n")]);
        next.union([&starts]).distinct()
    });
    let (sink, _) = collect();
    reached.into_collection("reached").named("out").write(sink);
    let change = |at: i64, to: i64, diff: i8| {
        changelog(&format!(
            "from: 1; to: {to}; event_time: {at}; diff: {diff}"
        ))
    };
    let script = Script::new()
        .batch("starts", 0, table("n: 1; event_time: 1"))
        .end("starts")
        .batch("edges", 0, change(2, 1, -1))
        .watermark("edges", 5)
        .restart(2)
        .batch("edges", 1, change(6, 2, 1))
        .watermark("edges", 7)
        .batch("edges", 2, change(1, 1, 1))
        .end("edges");
    let made = simulate(&pipeline, &script, 1, 3).unwrap();
    expect![[r#"
        n=1 event_time=1 diff=1
        n=2 event_time=6 diff=1"#]]
    .assert_eq(&show_rows(&made.rows("out")));
    // What is saved says that the row is missing once.
    let parts = made.saved(4, "reached").iter();
    let parts: Vec<RecordBatch> = parts
        .filter(|part| part.table == "input 1")
        .map(|part| part.rows.clone())
        .collect();
    expect![[r#"from=1 to=1 $time=null $diff=-1"#]].assert_eq(&show_rows(&parts));
}
