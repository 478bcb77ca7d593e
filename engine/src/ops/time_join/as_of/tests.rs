//! As-of joins against rows found by looking at every feature.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::ops::LookUp;
use crate::ops::time_join::testing::{
    Row, Step, batch_of, cuts, events, lines, rows, run, schedule, schedule_of, shown,
    told_one_before_restarts,
};
use crate::testing::{Laws, changelog, check_operator};
use crate::{col, lit};

fn planned(as_of: &AsOf, left: &str, right: &str) -> Result<AsOfAt> {
    as_of.plan(&events(left).schema(), &events(right).schema(), None)
}

/// The rows for all features at once, with only the end as a watermark.
fn check(as_of: AsOf, left: &str, right: &str, expected: Expect) {
    let transform = planned(&as_of, left, right).unwrap();
    let steps = [Step::Right(events(right)), Step::Left(events(left))];
    let whole = run(&transform, 1, &steps).unwrap();
    assert_eq!(whole.rows.schema(), transform.layout.schema);
    expected.assert_eq(&shown(&whole.rows));
}

fn refuse(as_of: AsOf, left: &str, right: &str, expected: Expect) {
    let message = match planned(&as_of, left, right) {
        Ok(planned) => format!("accepted: {}", planned.layout.schema),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&message);
}

const DRIVERS: &str = "t: 10, 20, 30, 20, 20; driver: 1, 1, 1, 2, null";
const STATS: &str = "t: 20, 5, 21, 30, 9, 20; driver: 1, 1, 1, 2, null, 1; trips: 2, 1, 3, 9, 8, 4";

#[test]
fn the_newest_feature_up_to_the_row_counts() {
    check(
        AsOf::on([col("driver")]),
        DRIVERS,
        STATS,
        expect![[r#"
            event_time: 10, 20, 30, 20, 20
            driver: 1, 1, 1, 2, null
            trips: 1, 4, 3, null, null"#]],
    );
}

/// In Feast `event_timestamp >= entity_timestamp - ttl`: a feature of exactly that age counts.
#[test]
fn a_feature_as_old_as_the_ttl_counts_and_an_older_one_does_not() {
    let ttl = |ms| AsOf::on([col("driver")]).ttl(Duration::from_millis(ms));
    let row = "t: 30; driver: 1";
    let feature = "t: 20; driver: 1; trips: 2";
    check(
        ttl(10),
        row,
        feature,
        expect![[r#"
        event_time: 30
        driver: 1
        trips: 2"#]],
    );
    check(
        ttl(9),
        row,
        feature,
        expect![[r#"
        event_time: 30
        driver: 1
        trips: null"#]],
    );
}

#[test]
fn of_one_event_time_the_last_created_counts_and_null_is_the_oldest() {
    check(
        AsOf::on([col("driver")]).created(col("created")),
        "t: 9, 9, 9; driver: 1, 2, 3",
        "t: 5, 5, 5, 5, 5, 5, 4
         driver: 1, 1, 1, 2, 2, 3, 3
         created: 70, 80, null, 60, 60, null, 99
         trips: 1, 2, 3, 4, 5, 6, 7",
        expect![[r#"
            event_time: 9, 9, 9
            driver: 1, 2, 3
            created: 80, 60, null
            trips: 2, 5, 6"#]],
    );
}

#[test]
fn keys_may_have_different_names_and_a_suffix_shows_the_feature_s_time() {
    check(
        AsOf::on_pairs([(col("driver"), col("id"))]).suffix("_of_feature"),
        "t: 9, 2; driver: 1, 1; trips: 0, 0",
        "t: 5; id: 1; trips: 3",
        expect![[r#"
            event_time: 9, 2
            driver: 1, 1
            trips: 0, 0
            id: 1, null
            trips_of_feature: 3, null
            event_time_of_feature: 5, null"#]],
    );
}

#[test]
fn rows_wait_for_the_watermark_and_what_is_late_is_never_wrong() {
    let as_of = AsOf::on([col("k")]);
    let transform = planned(&as_of, "t: 1; k: 1", "t: 1; k: 1; v: 1").unwrap();
    let left = |text| Step::Left(events(text));
    let right = |text| Step::Right(events(text));
    let steps = [
        left("t: 10; k: 1"),
        right("t: 8, 12; k: 1, 1; v: 8, 12"),
        Step::Watermark(10),
        // Not late yet: a row at the watermark may still come.
        right("t: 10; k: 1; v: 10"),
        Step::Watermark(20),
        // A late feature, a late row whose answer is known, one before the newest feature, one of a new key.
        right("t: 11; k: 1; v: 11"),
        left("t: 15, 11, 15; k: 1, 1, 7"),
        left("t: 20; k: 1"),
    ];
    let made = run(&transform, 1, &steps).unwrap();
    expect![[r#"
        event_time: 10, 15, 15, 20
        k: 1, 1, 7, 1
        v: 10, 12, null, 12"#]]
    .assert_eq(&shown(&made.rows));
    assert_eq!(made.n_late, 2);
    let late: Vec<String> = made.late.iter().map(shown).collect();
    assert_eq!(
        late,
        ["event_time: 11\nk: 1\nv: 11", "event_time: 11\nk: 1"]
    );
}

#[test]
fn a_late_row_is_not_given_null_for_a_feature_that_has_been_dropped() {
    let as_of = AsOf::on([col("k")]).ttl(Duration::from_millis(10));
    let transform = planned(&as_of, "t: 1; k: 1", "t: 1; k: 1; v: 1").unwrap();
    let steps = [
        Step::Right(events("t: 5; k: 1; v: 5")),
        Step::Watermark(30),
        Step::Left(events("t: 12; k: 1")),
        Step::Right(events("t: 31; k: 1; v: 31")),
        Step::Watermark(40),
        Step::Left(events("t: 32, 30, 32; k: 1, 1, 7")),
    ];
    let made = run(&transform, 1, &steps).unwrap();
    assert_eq!(shown(&made.late[0]), "event_time: 12\nk: 1");
    assert_eq!(shown(&made.late[1]), "event_time: 30, 32\nk: 1, 7");
    assert_eq!(shown(&made.rows), "event_time: 32\nk: 1\nv: 31");
}

#[test]
fn a_version_is_valid_until_the_next_and_a_deletion_leaves_nothing() {
    let look_up = |look_up: LookUp| look_up.as_of;
    check(
        look_up(LookUp::on([col("id")]).deleted_where(col("name").is_null())),
        "t: 1, 5, 6, 9, 20; id: 1, 1, 1, 1, 1",
        "t: 5, 6, 9, 15; id: 1, 1, 1, 1; name: a, b, null, c",
        expect![[r#"
            event_time: 1, 5, 6, 9, 20
            id: 1, 1, 1, 1, 1
            name: null, 'a', 'b', null, 'c'"#]],
    );
    let log = "event_time: 5, 7, 7, 9; id: 1, 1, 1, 1; name: a, a, b, b; diff: 1, -1, 1, -1";
    let log = changelog(log);
    let rows = events("t: 6, 7, 8, 9; id: 1, 1, 1, 1");
    let as_of = look_up(LookUp::on([col("id")]));
    let transform = as_of.plan(&rows.schema(), &log.schema(), None).unwrap();
    let steps = [Step::Left(rows.clone()), Step::Right(log.clone())];
    let made = run(&transform, 1, &steps).unwrap();
    expect![[r#"
        event_time: 6, 7, 8, 9
        id: 1, 1, 1, 1
        name: 'a', 'b', 'b', null"#]]
    .assert_eq(&shown(&made.rows));
    let error = AsOf::on([col("id")])
        .plan(&rows.schema(), &log.schema(), None)
        .unwrap_err();
    expect![[r#"
        features are a changelog
          Column "diff" says which rows are taken back, and a feature never is.
          Hint: Look rows up in a changing table with `look_up`."#]]
    .assert_eq(&error.to_string());
}

/// Of two workers one has heard that the watermark is at 10, and has let go what was there before.
#[test]
fn a_late_row_is_not_given_null_for_what_one_of_two_workers_has_let_go() {
    let look_up = LookUp::on([col("k")]).deleted_where(col("v").eq(lit(0i64)));
    let transform = planned(&look_up.as_of, "t: 1; k: 1", "t: 1; k: 1; v: 1").unwrap();
    let keys = "k: 1, 2, 3, 4, 5, 6, 7, 8";
    let of = |t: i64, v: &str| {
        events(&format!(
            "t: {}; {keys}; v: {v}",
            vec![t.to_string(); 8].join(", ")
        ))
    };
    let late = events(&format!("t: {}; {keys}", ["7"; 8].join(", ")));
    let steps = [
        Step::Right(of(2, "5, 5, 5, 5, 5, 5, 5, 5")),
        Step::Right(of(8, "0, 0, 0, 0, 0, 0, 0, 0")),
        Step::WatermarkOfFirst(10),
        Step::Restart(1),
        Step::Left(late),
    ];
    let made = run(&transform, 2, &steps).unwrap();
    assert_eq!((made.rows.num_rows(), made.n_late), (0, 8));
}

/// The second row of the key hides the first until it is taken back; a late change counts from the watermark on.
#[test]
fn of_a_changelog_that_counts_which_is_there() {
    let (left, right) = ("t: 1; k: 1", "k: 1; v: 1; diff: 1; event_time: 1");
    let look_up = LookUp::on([col("k")]).as_of;
    let transform = look_up
        .plan(&events(left).schema(), &changelog(right).schema(), None)
        .unwrap();
    let steps = [
        Step::Right(changelog(
            "k: 1, 1, 1; v: 7, 5, 5; diff: 1, 1, -1; event_time: 1, 4, 8",
        )),
        Step::Left(events("t: 3, 4, 7, 8; k: 1, 1, 1, 1")),
        Step::Watermark(10),
        Step::Restart(3),
        // It was there from 8 on, and that is known.
        Step::Left(events("t: 9, 7; k: 1, 1")),
        // Late, and as if at 10: so the row at 9 has been answered as is right.
        Step::Right(changelog("k: 1, 1; v: 7, 6; diff: -1, 1; event_time: 9, 9")),
        Step::Left(events("t: 10; k: 1")),
        Step::Watermark(20),
        // Taken back and added again at once, it stays the version that it was.
        Step::Right(changelog(
            "k: 1, 1; v: 6, 6; diff: -1, 1; event_time: 21, 21",
        )),
        Step::Watermark(30),
        Step::Left(events("t: 15; k: 1")),
    ];
    for n_workers in 1..4 {
        let made = run(&transform, n_workers, &steps).unwrap();
        expect![[r#"
            event_time: 3, 4, 7, 8, 9, 10, 15
            k: 1, 1, 1, 1, 1, 1, 1
            v: 7, 5, 5, 7, 7, 6, 6"#]]
        .assert_eq(&shown(&made.rows));
        let late: Vec<String> = made.late.iter().map(shown).collect();
        assert_eq!(late, ["event_time: 7\nk: 1"]);
    }
}

/// A row may be taken back before the change that adds it, which is late; but it must come.
#[test]
fn a_row_that_is_taken_back_too_early_is_not_there_and_must_be_added_in_the_end() {
    let (left, right) = ("t: 1; k: 1", "k: 1; v: 1; diff: 1; event_time: 1");
    let look_up = LookUp::on([col("k")]).as_of;
    let transform = look_up
        .plan(&events(left).schema(), &changelog(right).schema(), None)
        .unwrap();
    let early = [
        Step::Right(changelog("k: 1; v: 7; diff: -1; event_time: 3")),
        Step::Left(events("t: 3, 6; k: 1, 1")),
        Step::Watermark(5),
        Step::Restart(2),
    ];
    let mut steps = early.to_vec();
    steps.push(Step::Right(changelog(
        "k: 1, 1; v: 7, 8; diff: 1, 1; event_time: 2, 2",
    )));
    let made = run(&transform, 1, &steps).unwrap();
    expect![[r#"
        event_time: 3, 6
        k: 1, 1
        v: null, 8"#]]
    .assert_eq(&shown(&made.rows));
    let error = run(&transform, 1, &early).err().map(|e| e.to_string());
    expect![[r#"
        a changelog takes back a row that it never added
          The row is k = 1, v = 7.
          Hint: Each row with `diff` -1 must be equal to one with 1, which may come later, but must come."#]].assert_eq(&error.unwrap_or_default());
}

#[test]
fn what_would_tell_a_row_from_the_same_one_taken_back_is_refused() {
    let rows = events("t: 1; k: 1").schema();
    let log = changelog("k: 1; v: 1; diff: 1; event_time: 1").schema();
    let look_up = LookUp::on([col("k")]).created(col("event_time")).as_of;
    let error = look_up.plan(&rows, &log, None).unwrap_err();
    expect![[r#"
        `event_time` reads column "event_time" of a changelog
          It is another when the same row is taken back, which would then be a row that was never added.
          Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]].assert_eq(&error.to_string());
    let error = look_up.plan(&log, &rows, None).unwrap_err();
    expect![[r#"
        rows of look_up are a changelog
          A row that is taken back later would find another row than it did when it was added.
          Hint: Take its `changes()` for plain rows, or use `join`, which keeps what follows from changes of both sides."#]].assert_eq(&error.to_string());
}

#[test]
fn what_the_schemas_tell_is_refused_while_planning() {
    let on = || AsOf::on([col("k")]);
    refuse(
        AsOf::on([]),
        "t: 1; k: 1",
        "t: 1; k: 1",
        expect![[r#"
            a join needs at least one pair of keys
              Hint: For all pairs of rows, join on `lit(1)` of both sides."#]],
    );
    refuse(
        on(),
        "t: 1; k: 1",
        "t: 1; k: a",
        expect![[r#"
        key `k` is Int64, key `k` is Utf8
          Hint: Bring both to one type with `cast`."#]],
    );
    refuse(
        on(),
        "t: 1; k: 1",
        "t: 1; k: 1.0",
        expect![[r#"
            key `k` is Int64, key `k` is Float64
              Rows of two sides are dealt to workers by keys of one type.
              Hint: Bring both to one type with `cast`."#]],
    );
    refuse(
        on(),
        "t: 1; k: 1; v: 1",
        "t: 1; k: 1; v: 1",
        expect![[r#"
        column "v" is on both sides of the join
          Hint: Rename with `select`, or tell the right one apart with `Join::suffix("_right")`."#]],
    );
    refuse(
        on().created(col("v")),
        "t: 1; k: 1",
        "t: 1; k: 1; v: a",
        expect!["`created` must be a timestamp, a date or a signed integer, `v` is Utf8"],
    );
    refuse(
        on().ttl(Duration::ZERO),
        "t: 1; k: 1",
        "t: 1; k: 1",
        expect![[r#"
        a ttl of 0 leaves features of the very instant only
          In Feast a ttl of 0 is none at all.
          Hint: Leave `ttl` out for no limit, or say `Duration::from_millis(1)`."#]],
    );
    let error = on()
        .plan(
            &crate::testing::table("k: 1").schema(),
            &events("t: 1; k: 1").schema(),
            None,
        )
        .unwrap_err();
    expect![[r#"
        the rows have no event time
          It is the left side.
          Hint: Give it to them with `assign_timestamps`, and keep the column "event_time" up to here."#]]
    .assert_eq(&error.to_string());
}

#[test]
fn the_laws_of_stateful_operators_are_kept() {
    let pools = [
        "k: 1, 2, 3, null, 1; event_time: 0; a: 1, 2, 3",
        "k: 1, 2, 3, null, 1; event_time: 0; b: 1, 2, null",
    ];
    let (left, right) = ("k: 1; t: 1; a: 1", "k: 1; t: 1; b: 1");
    // A late row that is answered leaves behind the watermark.
    let laws = Laws::new().on_time(false);
    let on = || AsOf::on([col("k")]);
    check_operator(planned(&on(), left, right).unwrap(), &pools, &laws);
    let ttl = on().ttl(Duration::from_millis(25)).created(col("b"));
    check_operator(planned(&ttl, left, right).unwrap(), &pools, &laws);
    let look_up = LookUp::on([col("k")]).deleted_where(col("b").is_null());
    check_operator(planned(&look_up.as_of, left, right).unwrap(), &pools, &laws);
    let (left, right) = (
        events(left),
        changelog("k: 1; b: 1; diff: 1; event_time: 1"),
    );
    let look_up = LookUp::on([col("k")]).as_of;
    let of_changes = look_up.plan(&left.schema(), &right.schema(), None).unwrap();
    let pools = [
        "k: 1, 2, 3, null, 1; event_time: 0; a: 1, 2, 3",
        // What is taken back at random might never have been added, which ends the run.
        "k: 1, 2, 3, null, 1; event_time: 0; b: 1, 2, 3; diff: 1",
    ];
    check_operator(of_changes, &pools, &laws);
}

/// For each left row the right row that counts, found by looking at all of them: `k event_time a i b j`.
fn expected(history: &[Row], ttl: Option<i64>, by_created: bool, deleted: bool) -> Vec<String> {
    let shown = |v: Option<i64>| v.map_or("null".into(), |v| v.to_string());
    let number = |r: &Row| (r.4 % 7 != 0).then_some(r.4 % 10);
    let mut lines: Vec<String> = Vec::new();
    for (i, left) in history.iter().enumerate().filter(|(_, r)| r.0) {
        let rights = history.iter().enumerate().filter(|(_, r)| !r.0);
        let found = rights
            .filter(|(_, r)| r.1.is_some() && r.1 == left.1 && r.2 <= left.2)
            .max_by_key(|(j, r)| (r.2, if by_created { number(r) } else { None }, *j))
            .filter(|(_, r)| ttl.is_none_or(|ttl| r.2 >= left.2 - ttl))
            .filter(|(_, r)| !deleted || number(r).is_some());
        let (b, j) = match found {
            Some((j, right)) => (number(right), Some(j as i64)),
            None => (None, None),
        };
        lines.push(format!(
            "{} {} {} {i} {} {}",
            shown(left.1),
            left.2,
            shown(number(left)),
            shown(b),
            shown(j)
        ));
    }
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_any_batches_any_workers_and_restarts_give_the_same_rows(
        history in rows(),
        cuts in cuts(),
        n_workers in 1usize..5,
        ttl in prop::option::of(1i64..20),
        by_created in any::<bool>(),
        deleted in any::<bool>(),
    ) {
        let mut as_of = AsOf::on([col("k")]);
        let deleted = deleted && ttl.is_none();
        if deleted {
            as_of = LookUp::on([col("k")]).deleted_where(col("b").is_null()).as_of;
        }
        if let Some(ttl) = ttl {
            as_of = as_of.ttl(Duration::from_millis(ttl as u64));
        }
        if by_created {
            as_of = as_of.created(col("b") + lit(0i64));
        }
        let (left, right) = ("k: 1; t: 1; a: 1; i: 1", "k: 1; t: 1; b: 1; j: 1");
        let transform = planned(&as_of, left, right).unwrap();
        let steps = told_one_before_restarts(schedule(&history, &cuts));
        let made = run(&transform, n_workers, &steps).unwrap();
        prop_assert_eq!(lines(&made.rows), expected(&history, ttl, by_created, deleted));
        prop_assert_eq!(made.n_late, 0);
        let n_null = history.iter().filter(|r| !r.0 && r.1.is_none()).count();
        prop_assert_eq!(made.n_filtered, n_null as u64);
    }
}

/// A row of a table: key, when it is added and when it is taken back, if ever, what it says, and whether both changes
/// stand the other way round.
type Entry = (i64, i64, Option<i64>, i64, bool);

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (
        0i64..3,
        0i64..40,
        prop::option::weighted(0.7, 0i64..15),
        0i64..6,
        any::<bool>(),
    );
    prop::collection::vec(entry, 0..30)
}

/// Rows that look up, and the changes of a table: what one says, and in the last number twice that, or one more where
/// it is taken back.
fn with_changes(rows: &[Row], entries: &[Entry]) -> Vec<Row> {
    let mut all: Vec<Row> = rows.iter().filter(|r| r.0).copied().collect();
    for &(k, added, removed_after, says, is_turned) in entries {
        let add = (false, Some(k), added, says, says * 2);
        let remove = removed_after.map(|after| (false, Some(k), added + after, says, says * 2 + 1));
        let both = [Some(add), remove].into_iter().flatten();
        match is_turned {
            true => all.extend(both.rev()),
            false => all.extend(both),
        }
    }
    all
}

fn batch_of_changes(rows: &[(usize, Row)], is_left: bool) -> arrow::array::RecordBatch {
    if is_left {
        return batch_of(rows, true);
    }
    let of_side: Vec<Row> = rows.iter().map(|(_, r)| *r).filter(|r| !r.0).collect();
    if of_side.is_empty() {
        return batch_of(rows, false);
    }
    let column = |of: fn(&Row) -> i64| {
        let values = of_side.iter().map(|r| of(r).to_string());
        values.collect::<Vec<_>>().join(", ")
    };
    changelog(&format!(
        "k: {}; event_time: {}; b: {}; c: {}; diff: {}",
        column(|r| r.1.unwrap_or_default()),
        column(|r| r.2),
        column(|r| r.4 / 2),
        column(|r| r.4 / 2 % 3),
        column(|r| if r.4 % 2 == 0 { 1 } else { -1 }),
    ))
}

/// For each left row what the table holds of its key at its time, found by going through all changes: `k event_time a
/// i b`.
fn expected_of_changes(history: &[Row], by_created: bool) -> Vec<String> {
    let shown = |v: Option<i64>| v.map_or("null".into(), |v| v.to_string());
    let mut lines: Vec<String> = Vec::new();
    for (i, left) in history.iter().enumerate().filter(|(_, r)| r.0) {
        // By what a row says: how often it is there, and since when.
        let mut there = std::collections::BTreeMap::<i64, (i64, i64)>::new();
        for time in 0..=left.2 {
            let at_once = history
                .iter()
                .filter(|r| !r.0 && r.1 == left.1 && r.2 == time);
            let mut more = std::collections::BTreeMap::<i64, i64>::new();
            for change in at_once {
                *more.entry(change.4 / 2).or_default() += if change.4 % 2 == 0 { 1 } else { -1 };
            }
            for (says, more) in more {
                let (n, since) = there.entry(says).or_default();
                *n += more;
                if more > 0 {
                    *since = time;
                }
            }
        }
        let of_key = there.iter().filter(|(_, (n, _))| *n > 0);
        let newest = of_key.max_by_key(|(says, (_, since))| {
            (*since, if by_created { **says % 3 } else { 0 }, **says)
        });
        let a = (left.4 % 7 != 0).then_some(left.4 % 10);
        lines.push(format!(
            "{} {} {} {i} {}",
            shown(left.1),
            left.2,
            shown(a),
            shown(newest.map(|(says, _)| *says)),
        ));
    }
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_changelog_is_looked_up_as_it_was_at_the_time_of_each_row(
        rows in rows(),
        entries in entries(),
        cuts in cuts(),
        n_workers in 1usize..4,
        by_created in any::<bool>(),
        at_once in any::<bool>(),
    ) {
        let mut as_of = LookUp::on([col("k")]);
        if by_created {
            as_of = as_of.created(col("c"));
        }
        let history = with_changes(&rows, &entries);
        let left = events("k: 1; t: 1; a: 1; i: 1");
        let right = changelog("k: 1; event_time: 1; b: 1; c: 1; diff: 1");
        let wanted = ["k", "event_time", "a", "i", "b"].map(String::from);
        let transform = as_of.as_of.plan(&left.schema(), &right.schema(), Some(&wanted)).unwrap();
        let mut steps = schedule_of(&history, &cuts, batch_of_changes);
        steps = told_one_before_restarts(steps);
        if at_once {
            // A bounded run: the watermark comes at the end alone.
            steps.retain(|step| !matches!(step, Step::Watermark(_) | Step::WatermarkOfFirst(_)));
        }
        let made = run(&transform, n_workers, &steps).unwrap();
        prop_assert_eq!(lines(&made.rows), expected_of_changes(&history, by_created));
        prop_assert_eq!(made.n_late, 0);
    }
}
