//! Windowed joins against pairs found by comparing every row with every other.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::ops::time_join::testing::{Row, Step, cuts, events, lines, rows, run, schedule, shown};
use crate::testing::{Laws, check_operator};
use crate::windowing::Window;
use crate::{col, lit};
use std::time::Duration;

const KINDS: [JoinKind; 4] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
];

/// Windows of `size` that begin every `period`.
#[derive(Clone, Debug)]
struct Every {
    size: i64,
    period: i64,
    tells_panes: bool,
}

impl WindowFn for Every {
    fn describe(&self) -> Description {
        Description::new("every", json!({ "size": self.size, "period": self.period }))
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        assert!((MIN_TIME..=MAX_TIME).contains(&time));
        let mut start = time.div_euclid(self.period) * self.period;
        while start + self.size > time {
            let end = start + self.size;
            windows.push(Window { start, end });
            start -= self.period;
        }
    }

    fn pane_of(&self, time: i64) -> Option<Window> {
        let start = time.div_euclid(self.period) * self.period;
        let end = start + self.period;
        (self.tells_panes && self.size % self.period == 0).then_some(Window { start, end })
    }
}

fn every(size: i64, period: i64) -> Windowing {
    Windowing::of(Every {
        size,
        period,
        tells_panes: true,
    })
}

fn on_k(kind: JoinKind) -> WindowedJoin {
    WindowedJoin::new(kind, [(col("k"), col("k"))])
}

fn planned(
    join: WindowedJoin,
    windowings: [Windowing; 2],
    left: &str,
    right: &str,
) -> Result<JoinInWindowsAt> {
    JoinInWindows { join, windowings }.plan(&events(left).schema(), &events(right).schema(), None)
}

const LEFT: &str = "t: 1, 4, 12, 13; k: 1, 1, 2, null; a: 1, 2, 3, 4";
const RIGHT: &str = "t: 3, 11, 9; k: 1, 2, 1; b: 1, 2, 3";

#[test]
fn pairs_of_a_window_leave_at_its_end() {
    let both = || [every(10, 10), every(10, 10)];
    let mut text = String::new();
    for kind in KINDS {
        let transform = planned(on_k(kind), both(), LEFT, RIGHT).unwrap();
        let steps = [Step::Left(events(LEFT)), Step::Right(events(RIGHT))];
        let made = run(&transform, 1, &steps).unwrap();
        assert_eq!(made.rows.schema(), transform.layout.schema);
        text.push_str(&format!("{}\n{}\n", kind.name(), shown(&made.rows)));
    }
    expect![[r#"
        inner
        k: 1, 1, 1, 1, 2
        a: 1, 1, 2, 2, 3
        b: 1, 3, 1, 3, 2
        window_start: 0, 0, 0, 0, 10
        window_end: 10, 10, 10, 10, 20
        event_time: 9, 9, 9, 9, 19
        left
        k: 1, 1, 1, 1, 2, null
        a: 1, 1, 2, 2, 3, 4
        b: 1, 3, 1, 3, 2, null
        window_start: 0, 0, 0, 0, 10, 10
        window_end: 10, 10, 10, 10, 20, 20
        event_time: 9, 9, 9, 9, 19, 19
        right
        k: 1, 1, 1, 1, 2
        a: 1, 1, 2, 2, 3
        b: 1, 3, 1, 3, 2
        window_start: 0, 0, 0, 0, 10
        window_end: 10, 10, 10, 10, 20
        event_time: 9, 9, 9, 9, 19
        full
        k: 1, 1, 1, 1, 2, null
        a: 1, 1, 2, 2, 3, 4
        b: 1, 3, 1, 3, 2, null
        window_start: 0, 0, 0, 0, 10, 10
        window_end: 10, 10, 10, 10, 20, 20
        event_time: 9, 9, 9, 9, 19, 19
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_row_counts_in_the_windows_that_are_not_over() {
    let both = [every(10, 5), every(10, 5)];
    let transform = planned(on_k(JoinKind::Inner), both, LEFT, RIGHT).unwrap();
    let steps = [
        Step::Left(events("t: 7; k: 1; a: 1")),
        // Of the row at 7 the windows from 0 and from 5 are open, of one at 4 the first alone.
        Step::Watermark(9),
        Step::Right(events("t: 4; k: 1; b: 1")),
        Step::Watermark(10),
        Step::Right(events("t: 4, 8; k: 1, 1; b: 2, 3")),
    ];
    let made = run(&transform, 1, &steps).unwrap();
    expect![[r#"
        k: 1, 1
        a: 1, 1
        b: 1, 3
        window_start: 0, 5
        window_end: 10, 15
        event_time: 9, 14"#]]
    .assert_eq(&shown(&made.rows));
    assert_eq!(made.n_late, 1);
    assert_eq!(shown(&made.late[0]), "event_time: 4\nk: 1\nb: 2");
}

#[test]
fn strategies_that_do_not_fit_are_refused_while_planning() {
    let refuse = |left: Windowing, right: Windowing, expected: Expect| {
        let planned = planned(on_k(JoinKind::Inner), [left, right], LEFT, RIGHT);
        let message = match planned {
            Ok(planned) => format!("accepted: {}", planned.layout.schema),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&message);
    };
    let twice = |windowing: Windowing| (windowing.clone(), windowing);
    refuse(
        every(10, 10),
        every(10, 5),
        expect![[r#"
            the sides of a windowed join are in different windows
              The left side: {"accumulation":"discarding","allow_data_loss":false,"allowed_lateness_ms":0,"closing":"fire_if_non_empty","config":{"period":10,"size":10},"timestamp_combiner":"end_of_window","trigger":"default","window":"every"}.
              The right side: {"accumulation":"discarding","allow_data_loss":false,"allowed_lateness_ms":0,"closing":"fire_if_non_empty","config":{"period":5,"size":10},"timestamp_combiner":"end_of_window","trigger":"default","window":"every"}.
              Hint: Divide both with `window` and one strategy."#]],
    );
    let (l, r) = twice(Windowing::global());
    refuse(
        l,
        r,
        expect![[r#"
        a windowed join needs windows that end
          All rows are in one window, which ends with the input.
          Hint: Divide both sides with `window`, or use `join` or `join_interval`."#]],
    );
    let (l, r) = twice(every(10, 10).allowed_lateness(Duration::from_millis(1)));
    refuse(
        l,
        r,
        expect![[r#"
        a windowed join cannot have an allowed lateness
          It gives each window once, when the watermark has passed its end.
          Hint: Divide both sides with a plain strategy before it; rows that come later than the watermark need a watermark that waits longer."#]],
    );
    let (l, r) = twice(every(10, 10).trigger(Trigger::after_count(3)));
    refuse(
        l,
        r,
        expect![[r#"
        a windowed join cannot have a trigger of its own
          It gives each window once, when the watermark has passed its end.
          Hint: Divide both sides with a plain strategy before it; rows that come later than the watermark need a watermark that waits longer."#]],
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
        let join = on_k(kind).filter(col("a").lt_eq(col("b")));
        let transform = planned(join, [every(30, 10), every(30, 10)], left, right).unwrap();
        check_operator(transform, &pools, &Laws::new().runs(8));
    }
}

/// `k a i b j window_start window_end event_time` of all results.
fn expected(history: &[Row], kind: JoinKind, windows: &Every, filter: bool) -> Vec<String> {
    let text = |v: Option<i64>| v.map_or("null".into(), |v| v.to_string());
    let number = |r: &Row| (r.4 % 7 != 0).then_some(r.4 % 10);
    let place = |i: usize| Some(i as i64);
    let mut made = Vec::new();
    let mut all = Vec::new();
    for row in history {
        windows.assign(row.2, &mut all);
    }
    all.sort();
    all.dedup();
    for window in all {
        let is_in = |r: &Row| window.start <= r.2 && r.2 < window.end;
        let line = |k, a, i, b, j| {
            let (start, end) = (Some(window.start), Some(window.end));
            [k, a, i, b, j, start, end, Some(window.end - 1)]
                .map(text)
                .join(" ")
        };
        let mut matched = vec![false; history.len()];
        let rows = || history.iter().enumerate().filter(|(_, r)| is_in(r));
        for (i, l) in rows().filter(|(_, r)| r.0) {
            for (j, r) in rows().filter(|(_, r)| !r.0) {
                let passes = !filter || number(l).zip(number(r)).is_some_and(|(a, b)| a <= b);
                if l.1.is_some() && l.1 == r.1 && passes {
                    made.push(line(l.1, number(l), place(i), number(r), place(j)));
                    (matched[i], matched[j]) = (true, true);
                }
            }
        }
        for (i, row) in rows().filter(|(i, _)| !matched[*i]) {
            if row.0 && matches!(kind, JoinKind::Left | JoinKind::Full) {
                made.push(line(row.1, number(row), place(i), None, None));
            }
            if !row.0 && matches!(kind, JoinKind::Right | JoinKind::Full) {
                made.push(line(row.1, None, None, number(row), place(i)));
            }
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
        size in 1i64..15,
        period in 1i64..6,
        tells_panes in any::<bool>(),
        filter in any::<bool>(),
    ) {
        let size = size.max(period);
        let size = if tells_panes { size - size % period } else { size };
        let windows = Every { size, period, tells_panes };
        let mut join = on_k(KINDS[kind]);
        if filter {
            join = join.filter(col("a").lt_eq(col("b") + lit(0i64)));
        }
        let (left, right) = ("k: 1; t: 1; a: 1; i: 1", "k: 1; t: 1; b: 1; j: 1");
        let windowing = Windowing::of(windows.clone());
        let both = [windowing.clone(), windowing];
        let transform = planned(join, both, left, right).unwrap();
        let made = run(&transform, n_workers, &schedule(&history, &cuts)).unwrap();
        prop_assert_eq!(lines(&made.rows), expected(&history, KINDS[kind], &windows, filter));
        prop_assert_eq!(made.n_late, 0);
    }
}
