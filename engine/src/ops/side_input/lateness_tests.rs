//! A side that allows lateness: what a row sees never hangs on whether it came before a late row of the side.

use std::time::Duration;

use expect_test::expect;
use proptest::prelude::*;

use super::SideInput;
use crate::aggregates::max;
use crate::expression::col;
use crate::ops::Watermarks;
use crate::testing::{Script, scripted, show_rows, simulate};
use crate::windowing::{Accumulation, Windowing};
use crate::{Collection, Pipeline, connectors};

fn tens(lateness: u64) -> Windowing {
    Windowing::fixed(Duration::from_millis(10)).allowed_lateness(Duration::from_millis(lateness))
}

fn read(pipeline: &Pipeline, name: &str, rows: &str) -> Collection {
    pipeline
        .read(name, scripted(rows))
        .assign_timestamps(col("t"), Watermarks::monotone())
}

/// What rows see of a list of a side that allows 20 ms.
fn seen(script: &Script, n_workers: usize, seed: u64) -> (String, String) {
    seen_within(20, script, n_workers, seed)
}

fn seen_within(lateness: u64, script: &Script, n_workers: usize, seed: u64) -> (String, String) {
    let pipeline = Pipeline::new("late");
    let main = read(&pipeline, "main", "t: 0").select([col("event_time")]);
    let side = read(&pipeline, "side", "t: 0; v: 0").window(tens(lateness));
    let answered = main
        .window(tens(0))
        .with_side_input(&side, SideInput::list("vs", col("v")));
    for (rows, name) in [(answered.clone(), "seen"), (answered.port("late"), "late")] {
        rows.named(name).write(connectors::collect().0);
    }
    let run = simulate(&pipeline, script, n_workers, seed).unwrap();
    (show_rows(&run.rows("seen")), show_rows(&run.rows("late")))
}

#[test]
fn rows_wait_until_no_late_row_of_the_side_counts() {
    let before = Script::new()
        .rows("main", "t: 5")
        .rows("side", "t: 3; v: 30")
        .rows("side", "t: 15; v: 150");
    let late = |script: Script| script.rows("side", "t: 4; v: 40");
    let asks = |script: Script| script.rows("main", "t: 7");
    let after = |script: Script| {
        let script = script.rows("side", "t: 30, 6, 31, 6; v: 300, 60, 310, 61");
        script.end("side").end("main")
    };
    for script in [late(asks(before.clone())), asks(late(before))] {
        // The window is closed when the watermark has passed its end by the lateness.
        let (seen, late) = seen(&after(script), 1, 3);
        expect![[r#"
            event_time=5 vs=[30, 40, 60, 61]
            event_time=7 vs=[30, 40, 60, 61]"#]]
        .assert_eq(&seen);
        assert_eq!(late, "");
    }
}

/// Whatever is allowed, nothing comes after the end.
#[test]
fn rows_wait_for_the_end_of_the_side_at_most() {
    let script = Script::new()
        .rows("main", "t: 5")
        .rows("side", "t: 15, 4; v: 150, 40")
        .rows("side", "t: 4000, 6; v: 1, 60")
        .end("side")
        .end("main");
    let (seen, late) = seen_within(u64::MAX, &script, 2, 5);
    assert_eq!((&*seen, &*late), ("event_time=5 vs=[40, 60]", ""));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// However the batches of both inputs interleave, each row sees the same.
    #[test]
    fn what_a_row_sees_does_not_hang_on_arrival(
        mut main in prop::collection::vec(0i64..60, 1..10),
        side in prop::collection::vec((0i64..60, 0i64..9), 1..14),
        turns in prop::collection::vec(any::<bool>(), 24),
        n_workers in 1usize..4,
        seed in any::<u64>(),
    ) {
        main.sort_unstable();
        let of = |turns: &[bool]| {
            let (mut main, mut side) = (main.iter(), side.iter());
            let mut script = Script::new();
            for is_main in turns.iter().chain([&true; 10]).chain([&false; 14]) {
                script = match is_main {
                    true => match main.next() {
                        Some(t) => script.rows("main", &format!("t: {t}")),
                        None => script,
                    },
                    false => match side.next() {
                        Some((t, v)) => script.rows("side", &format!("t: {t}; v: {v}")),
                        None => script,
                    },
                };
            }
            script.end("main").end("side")
        };
        let (found, late) = seen(&of(&turns), n_workers, seed);
        let (main_first, _) = seen(&of(&[true; 10]), 1, 0);
        prop_assert_eq!(found, main_first);
        prop_assert_eq!(late, "");
    }
}

#[test]
fn results_that_may_come_more_than_once_are_refused() {
    let refused = |windowing: Windowing| {
        let pipeline = Pipeline::new("late");
        let rows = read(&pipeline, "rows", "t: 0; v: 0").window(windowing);
        let most = rows.agg([max(col("v")).alias("most")]).named("most");
        // Whatever is left of the columns of windows.
        let most = most.select([col("most"), col("event_time")]);
        rows.with_side_input(&most, SideInput::singleton().in_step())
            .write(connectors::collect().0);
        pipeline
            .plan()
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(refused(tens(0)), Ok(()));
    for accumulation in [Accumulation::Discarding, Accumulation::Accumulating] {
        let error = refused(tens(50).accumulation(accumulation)).unwrap_err();
        expect![[r#"
            side input "most" may have several results of a window
              in transform "side_input"
              Its windows allow late rows, each of which makes one more: how many there are depends on when rows arrive.
              Hint: Allow no lateness where the side is aggregated; what comes later leaves there by the port "late"."#]].assert_eq(&error);
    }
}
