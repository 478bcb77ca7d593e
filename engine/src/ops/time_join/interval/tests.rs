//! Interval joins against pairs found by comparing every row with every other.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::ops::time_join::testing::{
    Row, Step, check_lots_of_wide_rows, cuts, events, lines, rows, run, schedule, shown,
    told_one_before_restarts,
};
use crate::testing::{Laws, check_operator};
use crate::{col, lit};

const KINDS: [JoinKind; 4] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn on_k(kind: JoinKind) -> IntervalJoin {
    IntervalJoin::new(kind, [(col("k"), col("k"))])
}

fn planned(join: &IntervalJoin, left: &str, right: &str) -> Result<IntervalJoinAt> {
    join.plan(&events(left).schema(), &events(right).schema(), None)
}

fn check(join: &IntervalJoin, left: &str, right: &str, expected: Expect) {
    let transform = planned(join, left, right).unwrap();
    let steps = [Step::Right(events(right)), Step::Left(events(left))];
    let made = run(&transform, 1, &steps).unwrap();
    assert_eq!(made.rows.schema(), transform.layout.schema);
    expected.assert_eq(&shown(&made.rows));
}

#[test]
fn both_ends_of_the_interval_belong_to_it() {
    check(
        &on_k(JoinKind::Inner).before(ms(2)).after(ms(3)),
        "t: 10; k: 1; a: 0",
        "t: 7, 8, 13, 14, 10; k: 1, 1, 1, 1, 2; b: 7, 8, 13, 14, 0",
        expect![[r#"
            k: 1, 1
            a: 0, 0
            b: 8, 13
            event_time: 10, 13"#]],
    );
}

#[test]
fn each_kind_keeps_the_rows_of_its_sides_that_match_none() {
    let left = "t: 10, 20, 30; k: 1, 1, null; a: 1, 2, 3";
    let right = "t: 11, 40, 50; k: 1, 1, null; b: 1, 2, 3";
    let mut text = String::new();
    for kind in KINDS {
        let transform = planned(&on_k(kind).after(ms(5)), left, right).unwrap();
        let steps = [Step::Left(events(left)), Step::Right(events(right))];
        let made = run(&transform, 1, &steps).unwrap();
        text.push_str(&format!("{}\n", kind.name()));
        for line in lines(&made.rows) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    expect![[r#"
        inner
          1 1 1 11
        left
          1 1 1 11
          1 2 null 20
          null 3 null 30
        right
          1 1 1 11
          1 null 2 40
          null null 3 50
        full
          1 1 1 11
          1 2 null 20
          1 null 2 40
          null 3 null 30
          null null 3 50
    "#]]
    .assert_eq(&text);
}

#[test]
fn rows_leave_when_no_partner_can_come_and_late_ones_go_to_their_port() {
    let join = on_k(JoinKind::Left).after(ms(5));
    let transform = planned(&join, "t: 1; k: 1; a: 1", "t: 1; k: 1; b: 1").unwrap();
    let mut operator = transform.build(&Artifacts::none()).unwrap();
    let mut out = crate::Output::default();
    let mut leaves = |step: Step| {
        match step {
            Step::Left(rows) => operator.on_batch(0, crate::Batch::new(rows), &mut out),
            Step::Right(rows) => operator.on_batch(1, crate::Batch::new(rows), &mut out),
            Step::Watermark(at) => operator.on_watermark(crate::Watermark(at), &mut out),
            Step::WatermarkOfFirst(_) | Step::Restart(_) => Ok(()),
        }
        .unwrap();
        while out.take_more() {
            operator.resume(&mut out).unwrap();
        }
        let rows: Vec<String> = out
            .take()
            .iter()
            .map(|(port, b)| format!("{port}: {}", lines(b.rows()).join(", ")))
            .collect();
        (
            rows.join("; "),
            operator.output_watermark(crate::Watermark(16)).0,
        )
    };
    let left = |text| Step::Left(events(text));
    let right = |text| Step::Right(events(text));
    assert_eq!(
        leaves(left("t: 10, 12; k: 1, 1; a: 1, 2")),
        (String::new(), 11)
    );
    assert_eq!(leaves(Step::Watermark(15)).0, "");
    assert_eq!(
        leaves(right("t: 15; k: 1; b: 9")).0,
        "0: 1 1 9 15, 1 2 9 15"
    );
    assert_eq!(leaves(right("t: 14; k: 1; b: 8")).0, "2: 14 1 8");
    assert_eq!(leaves(left("t: 15; k: 2; a: 3")).0, "");
    assert_eq!(leaves(Step::Watermark(20)).0, "");
    assert_eq!(leaves(Step::Watermark(21)).0, "0: 2 3 null 15");
    assert_eq!(out.take_late(), 1);
}

/// Of two workers one has heard that the watermark is at 10, and has let go what could be matched before.
#[test]
fn a_late_row_is_late_for_all_where_one_of_two_workers_had_heard_of_the_watermark() {
    let transform = planned(
        &on_k(JoinKind::Full),
        "t: 1; k: 1; a: 1",
        "t: 1; k: 1; b: 1",
    )
    .unwrap();
    let keys = "k: 1, 2, 3, 4, 5, 6, 7, 8";
    let of = |t: i64, name: &str| {
        let (times, values) = (vec![t.to_string(); 8].join(", "), ["1"; 8].join(", "));
        events(&format!("t: {times}; {keys}; {name}: {values}"))
    };
    let steps = [
        Step::Right(of(8, "b")),
        Step::WatermarkOfFirst(10),
        Step::Restart(3),
        Step::Left(of(8, "a")),
        Step::Left(of(10, "a")),
        Step::Right(of(10, "b")),
    ];
    let made = run(&transform, 2, &steps).unwrap();
    let late: Vec<String> = made.late.iter().flat_map(lines).collect();
    assert_eq!((late.len(), made.n_late), (8, 8));
    let mut expected: Vec<String> = Vec::new();
    for k in 1..=8 {
        expected.push(format!("{k} 1 1 10"));
        expected.push(format!("{k} null 1 8"));
    }
    assert_eq!(lines(&made.rows), expected);
}

#[test]
fn wide_rows_leave_in_lots_that_fit() {
    let (left, right) = ("k: 1; t: 1; a: x; i: 1", "k: 1; t: 1; b: x; j: 1");
    check_lots_of_wide_rows(&planned(&on_k(JoinKind::Full), left, right).unwrap());
    let join = on_k(JoinKind::Full).filter(col("a").eq(col("b")));
    check_lots_of_wide_rows(&planned(&join, left, right).unwrap());
}

#[test]
fn what_the_schemas_tell_is_refused_while_planning() {
    let refuse = |join: IntervalJoin, expected: Expect| {
        let (left, right) = ("t: 1; k: 1; a: 1", "t: 1; k: 1; a: 1");
        let message = match planned(&join, left, right) {
            Ok(planned) => format!("accepted: {}", planned.layout.schema),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&message);
    };
    refuse(
        on_k(JoinKind::LeftSemi),
        expect!["an interval join is inner, left, right or full, and not left semi"],
    );
    refuse(
        on_k(JoinKind::Inner),
        expect![[r#"
        column "a" is on both sides of the join
          Hint: Rename with `select`, or tell the right one apart with `Join::suffix("_right")`."#]],
    );
    refuse(
        on_k(JoinKind::Inner)
            .suffix("_r")
            .filter(col("a") + col("a_r")),
        expect![[r#"
            a predicate must be Boolean, `a + a_r` is Int64
              Hint: Compare it with something, such as `.gt(lit(0))`."#]],
    );
}

#[test]
fn the_laws_of_stateful_operators_are_kept() {
    let pools = [
        "k: 1, 2, 3, null, 1; event_time: 0; a: 1, 2, 3",
        "k: 1, 2, 3, null, 1; event_time: 0; b: 1, 2, null",
    ];
    let (left, right) = ("k: 1; t: 1; a: 1", "k: 1; t: 1; b: 1");
    for kind in KINDS {
        let join = on_k(kind)
            .before(ms(20))
            .after(ms(10))
            .filter(col("a").lt_eq(col("b")));
        let transform = planned(&join, left, right).unwrap();
        check_operator(transform, &pools, &Laws::new().runs(8));
    }
}

/// `k a i b j event_time` of all results.
fn expected(
    history: &[Row],
    kind: JoinKind,
    (before, after): (i64, i64),
    filter: bool,
) -> Vec<String> {
    let text = |v: Option<i64>| v.map_or("null".into(), |v| v.to_string());
    let number = |r: &Row| (r.4 % 7 != 0).then_some(r.4 % 10);
    let place = |i: usize| Some(i as i64);
    let line = |k, a, i, b, j, t| [k, a, i, b, j, Some(t)].map(text).join(" ");
    let mut made = Vec::new();
    let mut matched = vec![false; history.len()];
    for (i, l) in history.iter().enumerate().filter(|(_, r)| r.0) {
        for (j, r) in history.iter().enumerate().filter(|(_, r)| !r.0) {
            let passes = !filter || number(l).zip(number(r)).is_some_and(|(a, b)| a <= b);
            if l.1.is_some() && l.1 == r.1 && l.2 - before <= r.2 && r.2 <= l.2 + after && passes {
                made.push(line(
                    l.1,
                    number(l),
                    place(i),
                    number(r),
                    place(j),
                    l.2.max(r.2),
                ));
                (matched[i], matched[j]) = (true, true);
            }
        }
    }
    for (i, row) in history.iter().enumerate().filter(|(i, _)| !matched[*i]) {
        if row.0 && matches!(kind, JoinKind::Left | JoinKind::Full) {
            made.push(line(row.1, number(row), place(i), None, None, row.2));
        }
        if !row.0 && matches!(kind, JoinKind::Right | JoinKind::Full) {
            made.push(line(row.1, None, None, number(row), place(i), row.2));
        }
    }
    made.sort();
    made
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_any_batches_any_workers_and_restarts_give_the_same_rows(
        history in rows(),
        cuts in cuts(),
        n_workers in 1usize..5,
        kind in 0usize..4,
        before in 0i64..9,
        after in 0i64..9,
        filter in any::<bool>(),
        tells_one in any::<bool>(),
    ) {
        let mut join = on_k(KINDS[kind]).before(ms(before as u64)).after(ms(after as u64));
        if filter {
            join = join.filter(col("a").lt_eq(col("b") + lit(0i64)));
        }
        let (left, right) = ("k: 1; t: 1; a: 1; i: 1", "k: 1; t: 1; b: 1; j: 1");
        let transform = planned(&join, left, right).unwrap();
        let mut steps = schedule(&history, &cuts);
        if tells_one {
            steps = told_one_before_restarts(steps);
        }
        let made = run(&transform, n_workers, &steps).unwrap();
        prop_assert_eq!(lines(&made.rows), expected(&history, KINDS[kind], (before, after), filter));
        prop_assert_eq!(made.n_late, 0);
    }
}
