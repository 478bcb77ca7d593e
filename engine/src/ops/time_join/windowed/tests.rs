//! Windowed joins against pairs found by comparing every row with every other.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::batch::Batch;
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::ops::time_join::testing::{
    Row, Step, check_lots_of_wide_rows, cuts, events, lines, rows, run, schedule, shown,
    told_one_before_restarts,
};
use crate::output::{OnBadRow, Output};
use crate::testing::{Laws, OperatorRun, check_operator};
use crate::transform::Watermark;
use crate::windowing::{Sessions, Window};
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

fn sessions(gap: u64) -> Windowing {
    Windowing::of(Sessions::with_gap(Duration::from_millis(gap)))
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

/// The right row at 5 brings the left ones at 1 and 9 together; nothing is near to that at 20, and rows without
/// a key are near to none.
#[test]
fn sessions_of_both_sides_merge() {
    let (left, right) = (
        "t: 1, 9, 20, 3, 4; k: 1, 1, 1, null, 2; a: 1, 2, 3, 4, 5",
        "t: 5, 4, 14, 9; k: 1, null, 1, 2; b: 1, 2, 3, 4",
    );
    let mut text = String::new();
    for kind in KINDS {
        let transform = planned(on_k(kind), [sessions(5), sessions(5)], left, right).unwrap();
        let steps = [Step::Left(events(left)), Step::Right(events(right))];
        let made = run(&transform, 1, &steps).unwrap();
        assert_eq!(made.rows.schema(), transform.layout.schema);
        text.push_str(&format!("{}\n{}\n", kind.name(), shown(&made.rows)));
    }
    expect![[r#"
        inner
        k: 1, 1
        a: 1, 2
        b: 1, 1
        window_start: 1, 1
        window_end: 14, 14
        event_time: 13, 13
        left
        k: 1, 1, null, 2, 1
        a: 1, 2, 4, 5, 3
        b: 1, 1, null, null, null
        window_start: 1, 1, 3, 4, 20
        window_end: 14, 14, 8, 9, 25
        event_time: 13, 13, 7, 8, 24
        right
        k: 1, 1, null, 2, 1
        a: 1, 2, null, null, null
        b: 1, 1, 2, 4, 3
        window_start: 1, 1, 4, 9, 14
        window_end: 14, 14, 9, 14, 19
        event_time: 13, 13, 8, 13, 18
        full
        k: 1, 1, null, 2, 1, null, 2, 1
        a: 1, 2, 4, 5, 3, null, null, null
        b: 1, 1, null, null, null, 2, 4, 3
        window_start: 1, 1, 3, 4, 20, 4, 9, 14
        window_end: 14, 14, 8, 9, 25, 9, 14, 19
        event_time: 13, 13, 7, 8, 24, 8, 13, 18
    "#]]
    .assert_eq(&text);
}

/// Windows leave at their ends, each in its turn, with what has come by then; what comes later makes others, and a
/// row whose own window is over is late.
#[test]
fn sessions_leave_when_the_watermark_has_passed_their_end() {
    let (left, right) = ("t: 1; k: 1; a: 1", "t: 1; k: 1; b: 1");
    let both = [sessions(5), sessions(5)];
    let transform = planned(on_k(JoinKind::Full), both, left, right).unwrap();
    let inputs = ["k: 1; event_time: 1; a: 1", "k: 1; event_time: 1; b: 1"];
    let rows =
        |k: &str, t: &str, name: &str, n: &str| format!("k: {k}; event_time: {t}; {name}: {n}");
    OperatorRun::new(transform, &inputs)
        .rows(0, &rows("1, 2", "1, 2", "a", "1, 2"))
        .watermark(5)
        .rows(1, &rows("1", "5", "b", "1"))
        // That of key 1 goes on to 10.
        .watermark(7)
        .rows(0, &rows("1", "8", "a", "3"))
        .watermark(12)
        // A row at 7 alone is over since 12; one at 9 is not, and that of key 1 goes on to 14.
        .rows(1, &rows("1, 2, 1", "7, 7, 9", "b", "2, 3, 4"))
        .watermark(13)
        .watermark(14)
        // Over at 14, so this is another.
        .rows(0, &rows("1", "10", "a", "4"))
        .end()
        .check(expect![[r#"
            watermark 7
            k: 2
            a: 2
            b: null
            window_start: 2
            window_end: 7
            event_time: 6
            rows to 1, late_right
            k: 1, 2
            event_time: 7, 7
            b: 2, 3
            watermark 14
            k: 1, 1, 1, 1
            a: 1, 1, 3, 3
            b: 1, 4, 1, 4
            window_start: 1, 1, 1, 1
            window_end: 14, 14, 14, 14
            event_time: 13, 13, 13, 13
            end
            k: 1
            a: 4
            b: null
            window_start: 10
            window_end: 15
            event_time: 14"#]])
        .check_laws(&Laws::new());
}

/// Of two workers one has heard that the watermark is at 10; what the other had still to give for windows up to then
/// leaves after the restart, without the rows that come late.
#[test]
fn a_late_row_is_late_for_all_where_one_of_two_workers_had_heard_of_the_watermark() {
    let (left, right) = ("t: 1; k: 1; a: 1", "t: 1; k: 1; b: 1");
    let keys = "k: 1, 2, 3, 4, 5, 6, 7, 8";
    let of = |t: i64, name: &str| {
        let (times, values) = (
            vec![t.to_string(); 8].join(", "),
            vec![t.to_string(); 8].join(", "),
        );
        events(&format!("t: {times}; {keys}; {name}: {values}"))
    };
    for (both, window) in [(every(10, 10), "0 10 9"), (sessions(5), "4 9 8")] {
        let transform = planned(on_k(JoinKind::Full), [both.clone(), both], left, right).unwrap();
        let steps = [
            Step::Right(of(4, "b")),
            Step::WatermarkOfFirst(10),
            // Saved again before anything has come.
            Step::Restart(3),
            Step::Restart(2),
            Step::Left(of(5, "a")),
        ];
        let made = run(&transform, 2, &steps).unwrap();
        let late: Vec<String> = made.late.iter().flat_map(lines).collect();
        assert_eq!((late.len(), made.n_late), (8, 8));
        let expected = (1..=8).map(|k| format!("{k} null 4 {window}"));
        assert_eq!(lines(&made.rows), expected.collect::<Vec<_>>());
    }
}

#[test]
fn wide_rows_leave_in_lots_that_fit() {
    let (left, right) = ("k: 1; t: 1; a: x; i: 1", "k: 1; t: 1; b: x; j: 1");
    for both in [every(10, 10), sessions(5)] {
        let both = [both.clone(), both];
        let transform = planned(on_k(JoinKind::Full), both, left, right).unwrap();
        check_lots_of_wide_rows(&transform);
    }
}

#[test]
fn state_of_sessions_is_let_go_while_some_stay() {
    let (left, right) = ("t: 1; k: 1; a: 1", "t: 1; k: 1; b: 1");
    let both = [sessions(50), sessions(50)];
    let transform = planned(on_k(JoinKind::Full), both, left, right).unwrap();
    let mut operator = transform.build(&Artifacts::none()).unwrap();
    let mut out = Output::new(OnBadRow::Fail);
    let mut largest = [0, 0];
    let mut n_rows = 0;
    for step in 0..400i64 {
        for port in 0..2 {
            let name = ["a", "b"][port];
            // Key 0 comes at each step, so that its session never ends; the others come once.
            let rows = format!(
                "t: {0}, {0}, {0}; k: 0, {1}, {2}; {name}: 1, 2, 3",
                step * 10,
                3 * step + 1,
                3 * step + 2
            );
            let batch = Batch::new(events(&rows));
            operator.on_batch(port, batch, &mut out).unwrap();
        }
        let watermark = Watermark(step * 10);
        operator.on_watermark(watermark, &mut out).unwrap();
        n_rows += out.take().iter().map(|(_, b)| b.n_rows()).sum::<usize>();
        let half = usize::from(step >= 200);
        largest[half] = largest[half].max(operator.state_bytes());
    }
    // Two rows of key 0 more are kept at each step; the others make up two thirds of what comes.
    assert!(largest[1] - largest[0] < 200 * 2 * 100, "{largest:?} bytes");
    assert_eq!(n_rows, 395 * 2);
    operator.on_watermark(Watermark::END, &mut out).unwrap();
    while out.take_more() {
        operator.resume(&mut out).unwrap();
    }
    n_rows = out.take().iter().map(|(_, b)| b.n_rows()).sum();
    assert_eq!(n_rows, 400 * 400 + 5 * 2);
    assert!(operator.state_bytes() < 1 << 12);
}

/// Far more keys than are there at a time, so that they get new numbers; also key 0, whose session stays.
#[test]
fn keys_of_sessions_are_numbered_anew() {
    const N_STEPS: i64 = 15;
    let (left, right) = ("t: 1; k: 1; a: 1", "t: 1; k: 1; b: 1");
    let both = [sessions(15), sessions(15)];
    let transform = planned(on_k(JoinKind::Left), both, left, right).unwrap();
    let mut steps = Vec::new();
    let mut expected = Vec::new();
    for step in 0..N_STEPS {
        let time = step * 10;
        let others = step * 1000 + 1..=step * 1000 + 1000;
        let keys: Vec<String> = others.clone().map(|key| key.to_string()).collect();
        let same = |value: i64| vec![value.to_string(); 1001].join(", ");
        let (times, keys, values) = (same(time), keys.join(", "), same(step));
        steps.extend([
            Step::Left(events(&format!("t: {times}; k: {keys}, 0; a: {values}"))),
            Step::Right(events(&format!("t: {time}; k: 0; b: {step}"))),
            Step::Watermark(time),
        ]);
        let line =
            |key, b: String, start, end| format!("{key} {step} {b} {start} {end} {}", end - 1);
        expected.extend(others.map(|key| line(key, "null".into(), time, time + 15)));
        let end = (N_STEPS - 1) * 10 + 15;
        expected.extend((0..N_STEPS).map(|b| line(0, b.to_string(), 0, end)));
    }
    expected.sort();
    assert!(lines(&run(&transform, 1, &steps).unwrap().rows) == expected);
}

#[test]
fn results_of_sessions_are_not_grouped_in_sessions_again() {
    let pipeline = crate::Pipeline::new("visits");
    let read = |name: &str| {
        let rows = crate::testing::scripted("t: 1; k: 1; v: 1");
        let rows = pipeline.read(name, rows);
        let watermarks = crate::ops::Watermarks::monotone();
        rows.assign_timestamps(col("t"), watermarks)
            .window(sessions(5))
    };
    let names = read("names").select([col("k"), col("v").alias("w"), col("event_time")]);
    let joined = read("visits").join_windowed(&names, on_k(JoinKind::Inner));
    let (sink, _) = crate::connectors::collect();
    let grouped = joined.group_by([col("k")]);
    let counts = grouped.agg([crate::aggregates::count(lit(1)).alias("n")]);
    counts.write(sink);
    expect![[r#"
        results of sessions windows cannot be grouped in the same windows again
          in transform "group_by/partial"
          Those windows have merged, and are over.
          Hint: Say with `window(..)` in which windows they are to be."#]]
    .assert_eq(&pipeline.plan().unwrap_err().to_string());
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
        let join = on_k(kind).filter(col("a").lt_eq(col("b")));
        let transform = planned(join, [sessions(15), sessions(15)], left, right).unwrap();
        check_operator(transform, &pools, &Laws::new().runs(8));
    }
}

/// `k a i b j window_start window_end event_time` of all results, where `windows` are those of each row.
fn expected(history: &[Row], kind: JoinKind, windows: &[Vec<Window>], filter: bool) -> Vec<String> {
    let text = |v: Option<i64>| v.map_or("null".into(), |v| v.to_string());
    let number = |r: &Row| (r.4 % 7 != 0).then_some(r.4 % 10);
    let place = |i: usize| Some(i as i64);
    let mut made = Vec::new();
    let mut all = windows.concat();
    all.sort();
    all.dedup();
    for window in all {
        let line = |k, a, i, b, j| {
            let (start, end) = (Some(window.start), Some(window.end));
            [k, a, i, b, j, start, end, Some(window.end - 1)]
                .map(text)
                .join(" ")
        };
        let mut matched = vec![false; history.len()];
        let rows = || {
            let rows = history.iter().enumerate();
            rows.filter(|(i, _)| windows[*i].contains(&window))
        };
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
        tells_one in any::<bool>(),
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
        let mut steps = schedule(&history, &cuts);
        if tells_one {
            steps = told_one_before_restarts(steps);
        }
        let made = run(&transform, n_workers, &steps).unwrap();
        let windows_of = |row: &Row| {
            let mut all = Vec::new();
            windows.assign(row.2, &mut all);
            all
        };
        let windows: Vec<Vec<Window>> = history.iter().map(windows_of).collect();
        prop_assert_eq!(lines(&made.rows), expected(&history, KINDS[kind], &windows, filter));
        prop_assert_eq!(made.n_late, 0);
    }

    #[test]
    fn sessions_of_both_sides_are_the_same_in_any_order_any_batches_on_any_workers(
        history in rows(),
        cuts in cuts(),
        n_workers in 1usize..5,
        kind in 0usize..4,
        gap in 1u64..8,
        filter in any::<bool>(),
        tells_one in any::<bool>(),
    ) {
        let mut join = on_k(KINDS[kind]);
        if filter {
            join = join.filter(col("a").lt_eq(col("b") + lit(0i64)));
        }
        let (left, right) = ("k: 1; t: 1; a: 1; i: 1", "k: 1; t: 1; b: 1; j: 1");
        let transform = planned(join, [sessions(gap), sessions(gap)], left, right).unwrap();
        let mut steps = schedule(&history, &cuts);
        if tells_one {
            steps = told_one_before_restarts(steps);
        }
        let made = run(&transform, n_workers, &steps).unwrap();
        let windows: Vec<Vec<Window>> = (0..history.len())
            .map(|row| vec![session_of(&history, row, gap.cast_signed())])
            .collect();
        prop_assert_eq!(lines(&made.rows), expected(&history, KINDS[kind], &windows, filter));
        prop_assert_eq!(made.n_late, 0);
    }
}

/// The session of a row, from the row outwards as long as there is one of its key nearer than the gap.
fn session_of(history: &[Row], row: usize, gap: i64) -> Window {
    let (_, key, time, ..) = history[row];
    let (mut first, mut last) = (time, time);
    let of_key = || history.iter().filter(|r| key.is_some() && r.1 == key);
    loop {
        let near = |r: &&Row| r.2 > first - gap && r.2 < last + gap;
        let times = || of_key().filter(near).map(|r| r.2);
        let (start, end) = (
            times().min().unwrap_or(first),
            times().max().unwrap_or(last),
        );
        if (start, end) == (first, last) {
            return Window {
                start: first,
                end: last + gap,
            };
        }
        (first, last) = (start, end);
    }
}
