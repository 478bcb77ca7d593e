//! Tests of what leaves a relation: nothing is taken back that is not there.

use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::restart_tests::{Course, courses, simulated};
use super::tests::{changes_of, components_of, lives};
use crate::aggregates::{count, max, sum};
use crate::ops::JoinKind;
use crate::testing::{changelog, contents_at, times_of};
use crate::{Collection, col, lit};

/// A row of which, after some step and counted up to some instant, more has been taken back than was given.
fn below_none(steps: &[Vec<RecordBatch>]) -> Option<String> {
    (1..=steps.len()).find_map(|n| {
        let given = steps[..n].concat();
        times_of(&given).into_iter().find_map(|time| {
            let contents = contents_at(&given, Some(time));
            let missing = contents.lines().find(|line| line.starts_with('-'))?;
            Some(format!("after step {n}, at {time}: {missing}"))
        })
    })
}

#[test]
fn a_row_that_is_taken_back_too_early_is_found() {
    let steps = [
        vec![changelog("k: 1, 2; event_time: 1, 3; diff: 1, 1")],
        vec![changelog("k: 1, 1; event_time: 5, 4; diff: 1, -1")],
    ];
    assert_eq!(below_none(&steps), None);
    // It comes later and not earlier, and at 4 it is not there yet.
    let steps = [
        steps.to_vec(),
        vec![vec![changelog("k: 3, 3; event_time: 6, 4; diff: 1, -1")]],
    ];
    assert_eq!(
        below_none(&steps.concat()).as_deref(),
        Some("after step 3, at 4: -k=3")
    );
}

/// No change comes late: one that does takes effect later than its row says, and what a join makes of it may be taken
/// back before it is added.
fn in_time() -> impl Strategy<Value = Course> {
    courses().prop_map(|mut course| {
        course.ahead = 0;
        course
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn pairs_are_taken_back_that_are_there(
        left in lives(14),
        right in lives(14),
        course in in_time(),
    ) {
        use JoinKind::{Full, Inner, Left, LeftAnti, LeftSemi, Right};
        let tables = [changes_of(&left, "a"), changes_of(&right, "b")];
        for kind in [Inner, Left, Right, Full, LeftSemi, LeftAnti] {
            let join = |inputs: &[Collection]| {
                let [left, right] = [0, 1].map(|n| inputs[n].incremental());
                let pairs = left.join(&right, kind, [(col("k"), col("k"))]);
                // Without their keys, so that rows of several workers are equal.
                let which = if matches!(kind, LeftSemi | LeftAnti) { "a" } else { "b" };
                pairs.select([col(which)]).into_collection("pairs")
            };
            let made = simulated(&tables, &course, &join);
            prop_assert_eq!(below_none(made.steps("out")), None, "{:?}", kind);
        }
    }

    #[test]
    fn groups_of_pairs_are_taken_back_that_are_there(
        left in lives(14),
        right in lives(14),
        course in in_time(),
    ) {
        let tables = [changes_of(&left, "a"), changes_of(&right, "b")];
        let sums = |inputs: &[Collection]| {
            let [left, right] = [0, 1].map(|n| inputs[n].incremental());
            let pairs = left.join(&right, JoinKind::Left, [(col("k"), col("k"))]);
            let sums = pairs.group_by([col("a")]).agg([
                sum(col("b")).alias("sum"),
                max(col("b")).alias("max"),
                count(lit(1)).alias("n"),
            ]);
            let known = sums.join(&right.distinct(), JoinKind::LeftSemi, [(col("max"), col("b"))]);
            sums.union([&known]).into_collection("sums")
        };
        let made = simulated(&tables, &course, &sums);
        prop_assert_eq!(below_none(made.steps("out")), None);
    }

    /// Also where changes come late: what is there less often than not at all goes into no loop.
    #[test]
    fn what_loops_find_is_taken_back_where_it_is_there(
        edges in lives(16),
        course in courses(),
        enters in any::<bool>(),
    ) {
        let tables = [changes_of(&edges, "n")];
        let of_graph = |inputs: &[Collection]| components_of(&inputs[0], enters);
        let made = simulated(&tables, &course, &of_graph);
        prop_assert_eq!(below_none(made.steps("out")), None);
    }
}
