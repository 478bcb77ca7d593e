//! Cases of Apache Beam's `trigger_test.py` that are about triggers alone, and what its drivers rely on.
//!
//! Not here are `test_picklable_output`, which looks whether results of Python's batch driver can be pickled: results
//! are Arrow columns here.

use std::time::Duration;

use super::*;
use crate::windowing::{Window, Windowing};

const LOST: Option<DataLossReason> = Some(DataLossReason::MayFinish);

#[track_caller]
fn check_loss(trigger: Trigger, lateness_s: u64, expected: Option<DataLossReason>) {
    let windowing = Windowing::global()
        .allowed_lateness(Duration::from_secs(lateness_s))
        .trigger(trigger.clone());
    assert_eq!(
        trigger.may_lose_data(&windowing),
        expected,
        "{trigger} with a lateness of {lateness_s} s"
    );
    assert_eq!(windowing.check().is_err(), expected.is_some());
    assert!(windowing.allow_data_loss(true).check().is_ok());
}

fn count(n_rows: u64) -> Trigger {
    Trigger::after_count(n_rows)
}

fn after_42_s() -> Trigger {
    Trigger::after_processing_time(Duration::from_secs(42))
}

#[test]
fn test_default_trigger() {
    check_loss(Trigger::Default, 0, None);
}

#[test]
fn test_after_processing() {
    check_loss(after_42_s(), 0, LOST);
}

#[test]
fn test_always() {
    check_loss(Trigger::always(), 0, None);
}

#[test]
fn test_never() {
    check_loss(Trigger::Never, 0, None);
}

#[test]
fn test_after_watermark_no_allowed_lateness() {
    check_loss(Trigger::after_watermark(), 0, None);
}

#[test]
fn test_after_watermark_no_late_trigger() {
    check_loss(Trigger::after_watermark(), 60, LOST);
}

#[test]
fn test_after_watermark_no_allowed_lateness_safe_late() {
    check_loss(Trigger::after_watermark().late(Trigger::Default), 0, None);
}

#[test]
fn test_after_watermark_allowed_lateness_safe_late() {
    check_loss(Trigger::after_watermark().late(Trigger::Default), 60, None);
}

#[test]
fn test_after_count() {
    check_loss(count(42), 0, LOST);
}

#[test]
fn test_repeatedly_safe_underlying() {
    check_loss(Trigger::Default.repeatedly(), 0, None);
}

#[test]
fn test_repeatedly_unsafe_underlying() {
    check_loss(count(42).repeatedly(), 0, None);
}

#[test]
fn test_after_any_one_may_finish() {
    check_loss(Trigger::after_any([count(42), Trigger::Default]), 0, LOST);
}

#[test]
fn test_after_any_all_safe() {
    let safe = [count(42).repeatedly(), Trigger::Default];
    check_loss(Trigger::after_any(safe), 0, None);
}

#[test]
fn test_after_all_some_may_finish() {
    check_loss(Trigger::after_all([count(1), Trigger::Default]), 0, None);
}

#[test]
fn test_afer_all_all_may_finish() {
    check_loss(Trigger::after_all([count(42), after_42_s()]), 0, LOST);
}

#[test]
fn test_after_each_at_least_one_safe() {
    let one_safe = [count(1), Trigger::Default, count(2)];
    check_loss(Trigger::after_each(one_safe), 0, None);
}

#[test]
fn test_after_each_all_may_finish() {
    check_loss(Trigger::after_each([count(1), count(2), count(3)]), 0, LOST);
}

/// Beam encodes and decodes; here a trigger is data.
#[test]
fn test_trigger_encoding() {
    let early = || Trigger::after_watermark().early(count(1000));
    for trigger in [
        Trigger::Default,
        Trigger::after_all([count(1), count(10)]),
        Trigger::after_any([count(10), count(100)]),
        early(),
        early().late(count(1)),
        count(100).repeatedly(),
        count(3).or_finally(count(10)),
    ] {
        let json = serde_json::to_string(&trigger).unwrap();
        assert_eq!(serde_json::from_str::<Trigger>(&json).unwrap(), trigger);
    }
}

/// Beam's `ContinuationTriggerTest`, a line a case.
#[test]
fn the_continuation_of_a_trigger_does_not_wait_again() {
    let early_late = |early, late| {
        Trigger::after_watermark()
            .early(count(early))
            .late(count(late))
    };
    for (case, trigger, expected) in [
        (
            "test_after_all",
            Trigger::after_all([count(2), count(5)]),
            Trigger::after_all([count(1), count(1)]),
        ),
        (
            "test_after_any",
            Trigger::after_any([count(2), count(5)]),
            Trigger::after_any([count(1), count(1)]),
        ),
        ("test_after_count", count(1), count(1)),
        ("test_after_count", count(100), count(1)),
        (
            "test_after_each",
            Trigger::after_each([count(2), count(5)]),
            Trigger::after_any([count(1), count(1)]).repeatedly(),
        ),
        (
            "test_after_processing_time",
            Trigger::after_processing_time(Duration::from_secs(10)),
            Trigger::always(),
        ),
        (
            "test_after_watermark",
            Trigger::after_watermark(),
            Trigger::after_watermark(),
        ),
        ("test_after_watermark", early_late(10, 20), early_late(1, 1)),
        ("test_always", Trigger::always(), Trigger::always()),
        ("test_default", Trigger::Default, Trigger::Default),
        ("test_never", Trigger::Never, Trigger::Never),
        (
            "test_repeatedly",
            count(10).repeatedly(),
            count(1).repeatedly(),
        ),
        (
            "or finally",
            count(10).or_finally(count(5)),
            count(1).or_finally(count(1)),
        ),
    ] {
        assert_eq!(trigger.continuation(), expected, "{case}");
    }
}

/// What happens to one key and window, a step at a time, and what was seen then.
struct Driver {
    trigger: CompiledTrigger,
    state: TriggerState,
    ctx: TriggerContext,
    finished: bool,
}

impl Driver {
    /// A window from 0 to 10, the watermark before it, the clock at 0.
    fn new(trigger: &Trigger) -> Self {
        let trigger = CompiledTrigger::new(trigger);
        Self {
            state: trigger.new_state(),
            trigger,
            ctx: TriggerContext {
                window: Window { start: 0, end: 10 },
                watermark: i64::MIN,
                processing_time: 0,
            },
            finished: false,
        }
    }

    fn ask(&mut self) -> &'static str {
        if self.finished || !self.trigger.should_fire(&self.state, &self.ctx) {
            return "-";
        }
        // A snapshot of the state is its numbers.
        self.state = self.state.clone();
        self.finished = self.trigger.on_fire(&mut self.state, &self.ctx);
        if self.finished {
            "fires, finished"
        } else {
            "fires"
        }
    }

    fn rows(&mut self, n_rows: u64) -> &'static str {
        if !self.finished {
            self.trigger.on_elements(&mut self.state, n_rows, &self.ctx);
        }
        self.ask()
    }

    fn watermark(&mut self, to: i64) -> &'static str {
        let due = self.trigger.next_watermark(&self.state, &self.ctx);
        self.ctx.watermark = to;
        if due.is_some_and(|due| due <= to) {
            self.ask()
        } else {
            "-"
        }
    }

    fn clock(&mut self, to: i64) -> &'static str {
        let due = self.trigger.next_processing_time(&self.state, &self.ctx);
        self.ctx.processing_time = to;
        if due.is_some_and(|due| due <= to) {
            self.ask()
        } else {
            "-"
        }
    }
}

enum Step {
    Rows(u64),
    Watermark(i64),
    Clock(i64),
}

use Step::{Clock, Rows, Watermark};

#[track_caller]
fn check_steps(trigger: &Trigger, steps: &[(Step, &str)]) {
    let mut driver = Driver::new(trigger);
    for (number, (step, expected)) in steps.iter().enumerate() {
        let seen = match step {
            Rows(n_rows) => driver.rows(*n_rows),
            Watermark(to) => driver.watermark(*to),
            Clock(to) => driver.clock(*to),
        };
        assert_eq!(seen, *expected, "step {number} of {trigger}");
    }
}

fn after_5_ms() -> Trigger {
    Trigger::after_processing_time(Duration::from_millis(5))
}

#[test]
fn the_default_trigger_fires_at_the_end_and_for_each_late_row() {
    let trigger = CompiledTrigger::new(&Trigger::Default);
    assert_eq!(trigger.n_slots(), 0);
    assert!(trigger.fires_only_at_end());
    let steps = [
        (Rows(3), "-"),
        (Watermark(9), "-"),
        (Watermark(10), "fires"),
        (Watermark(11), "-"),
        (Rows(1), "fires"),
        (Clock(100), "-"),
    ];
    check_steps(&Trigger::Default, &steps);
    check_steps(&Trigger::after_watermark().repeatedly(), &steps);
}

#[test]
fn after_watermark_fires_around_the_end() {
    let trigger = Trigger::after_watermark().early(count(2)).late(count(3));
    check_steps(
        &trigger,
        &[
            (Rows(1), "-"),
            (Rows(1), "fires"),
            (Rows(1), "-"),
            (Rows(4), "fires"),
            (Watermark(10), "fires"),
            (Rows(2), "-"),
            (Rows(1), "fires"),
            (Rows(2), "-"),
            (Watermark(20), "-"),
        ],
    );
    check_steps(
        &Trigger::after_watermark().early(count(2)),
        &[(Rows(1), "-"), (Watermark(10), "fires, finished")],
    );
}

#[test]
fn early_counts_do_not_count_as_late() {
    let trigger = Trigger::after_watermark().early(count(2)).late(count(2));
    check_steps(
        &trigger,
        &[
            (Rows(1), "-"),
            (Watermark(10), "fires"),
            (Rows(1), "-"),
            (Rows(1), "fires"),
        ],
    );
}

#[test]
fn processing_time_runs_from_the_first_row_of_a_pane() {
    check_steps(
        &after_5_ms().repeatedly(),
        &[
            (Clock(3), "-"),
            (Rows(1), "-"),
            (Clock(7), "-"),
            (Rows(1), "-"),
            (Clock(8), "fires"),
            (Clock(100), "-"),
            (Rows(1), "-"),
            (Clock(105), "fires"),
        ],
    );
    check_steps(
        &after_5_ms(),
        &[(Rows(1), "-"), (Clock(5), "fires, finished")],
    );
}

#[test]
fn a_pane_that_a_count_has_taken_leaves_no_processing_time_behind() {
    check_steps(
        &Trigger::after_any([count(2), after_5_ms()]).repeatedly(),
        &[
            (Rows(1), "-"),
            (Rows(1), "fires"),
            (Clock(5), "-"),
            (Rows(1), "-"),
            (Clock(10), "fires"),
        ],
    );
}

#[test]
fn after_all_waits_for_the_last_whichever_it_is() {
    let trigger = Trigger::after_all([count(2), after_5_ms()]);
    check_steps(
        &trigger,
        &[
            (Rows(1), "-"),
            (Clock(5), "-"),
            (Rows(1), "fires, finished"),
        ],
    );
    check_steps(&trigger, &[(Rows(2), "-"), (Clock(5), "fires, finished")]);
    check_steps(
        &Trigger::after_all([count(5), Trigger::after_watermark()]),
        &[
            (Rows(3), "-"),
            (Watermark(10), "-"),
            (Rows(2), "fires, finished"),
        ],
    );
}

#[test]
fn after_each_goes_on_to_the_next_when_one_has_finished() {
    let trigger = Trigger::after_each([count(2), count(3)]);
    check_steps(
        &trigger,
        &[
            (Rows(2), "fires"),
            (Rows(2), "-"),
            (Rows(2), "fires, finished"),
            (Rows(9), "-"),
        ],
    );
    check_steps(
        &trigger.repeatedly(),
        &[
            (Rows(2), "fires"),
            (Rows(3), "fires"),
            (Rows(1), "-"),
            (Rows(1), "fires"),
        ],
    );
}

#[test]
fn or_finally_ends_with_its_second() {
    check_steps(
        &count(2).repeatedly().or_finally(Trigger::after_watermark()),
        &[
            (Rows(2), "fires"),
            (Rows(1), "-"),
            (Watermark(10), "fires, finished"),
        ],
    );
    check_steps(
        &count(3).or_finally(count(2)),
        &[(Rows(2), "fires, finished")],
    );
}

#[test]
fn never_never_fires() {
    check_steps(
        &Trigger::Never,
        &[(Rows(2), "-"), (Watermark(i64::MAX), "-"), (Clock(9), "-")],
    );
}

#[test]
fn merged_windows_keep_counts_the_first_processing_time_and_what_is_late() {
    let merged = |trigger: &Trigger, rows: [(u64, i64); 2], watermark: i64| {
        let trigger = CompiledTrigger::new(trigger);
        let mut ctx = TriggerContext {
            window: Window { start: 0, end: 10 },
            watermark,
            processing_time: 0,
        };
        let parts = rows.map(|(n_rows, processing_time)| {
            ctx.processing_time = processing_time;
            let mut state = trigger.new_state();
            trigger.on_elements(&mut state, n_rows, &ctx);
            if trigger.should_fire(&state, &ctx) {
                trigger.on_fire(&mut state, &ctx);
            }
            state
        });
        ctx.window.end = 15;
        let of = |order: [usize; 2]| {
            let mut state = trigger.new_state();
            trigger.on_merge(&mut state, order.map(|at| parts[at].as_slice()), &ctx);
            state
        };
        let state = of([0, 1]);
        assert_eq!(state, of([1, 0]), "the order makes no difference");
        (
            trigger.should_fire(&state, &ctx),
            trigger.next_watermark(&state, &ctx),
            trigger.next_processing_time(&state, &ctx),
        )
    };
    let early_late = Trigger::after_watermark().early(count(5)).late(count(2));
    for (trigger, rows, watermark, expected) in [
        (count(5), [(2, 0), (3, 0)], 0, (true, None, None)),
        (count(6), [(2, 0), (3, 0)], 0, (false, None, None)),
        (after_5_ms(), [(1, 4), (1, 1)], 0, (false, None, Some(6))),
        (
            early_late.clone(),
            [(2, 0), (3, 0)],
            0,
            (true, Some(15), None),
        ),
        // Both were late: what they become is late too, although the watermark has not reached its end.
        (early_late, [(1, 0), (1, 0)], 12, (false, None, None)),
        (
            Trigger::Default,
            [(1, 0), (1, 0)],
            12,
            (false, Some(15), None),
        ),
    ] {
        assert_eq!(merged(&trigger, rows, watermark), expected, "{trigger}");
    }
}

#[test]
fn triggers_that_promise_a_pane_on_time() {
    for (trigger, promises) in [
        (Trigger::Default, true),
        (Trigger::after_watermark().early(count(2)), true),
        (count(2), false),
        (after_5_ms().repeatedly(), false),
        (
            Trigger::after_any([count(2), Trigger::after_watermark()]),
            true,
        ),
        (Trigger::Never, false),
    ] {
        assert_eq!(
            CompiledTrigger::new(&trigger).has_on_time_pane(),
            promises,
            "{trigger}"
        );
    }
}
