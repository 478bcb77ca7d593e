//! The laws that every window function keeps.

use super::chance::Chance;
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::windowing::{Window, WindowFn};

const N_TIMES: usize = 300;

/// Checks a window function at times near `near` and all over the range, chosen by `seed`.
///
/// A time is in each of its windows; windows come in their order, none twice, are the same whenever they are asked
/// for, and no more than one where [`WindowFn::overlaps`] denies it; a stretch of [`WindowFn::pane_of`] holds its time, is the same for all its times, overlaps no
/// other, and all its times are in the same windows, of which it is part. Where windows merge, none is lost or
/// named twice, what they become covers them, and the order in which they come makes no difference.
///
/// # Panics
/// Where a law is broken, naming it, the time and the seed.
pub fn check_window_fn(window_fn: &dyn WindowFn, near: i64, seed: u64) {
    let checked = window_fn.check();
    assert!(checked.is_ok(), "{window_fn:?} is refused: {checked:?}");
    let mut chance = Chance::new(seed);
    let mut times = vec![MIN_TIME, MIN_TIME + 1, -1, 0, 1, MAX_TIME - 1, MAX_TIME];
    for _ in 0..N_TIMES {
        let spread = 1_i64 << chance.below(54);
        let time = near.saturating_add(between(-spread, spread, &mut chance));
        times.push(time.clamp(MIN_TIME, MAX_TIME));
        // Edges are where mistakes are.
        if let Some(window) = windows_of(window_fn, time.clamp(MIN_TIME, MAX_TIME)).first() {
            let around = [window.start - 1, window.start, window.end - 1, window.end];
            times.extend(around.map(|time| time.clamp(MIN_TIME, MAX_TIME)));
        }
    }
    for &time in &times {
        check_assigned(window_fn, time, seed);
        check_pane(window_fn, time, &mut chance, seed);
    }
    if window_fn.is_merging() {
        for _ in 0..50 {
            check_merging(window_fn, near, &mut chance, seed);
        }
    }
}

fn windows_of(window_fn: &dyn WindowFn, time: i64) -> Vec<Window> {
    let mut windows = Vec::new();
    window_fn.assign(time, &mut windows);
    windows
}

fn check_assigned(window_fn: &dyn WindowFn, time: i64, seed: u64) {
    let windows = windows_of(window_fn, time);
    let place = format!("{window_fn:?} at {time}, seed {seed}: {windows:?}");
    assert!(
        windows.iter().all(|window| window.contains(time)),
        "a time is in each of its windows: {place}"
    );
    assert!(
        windows.is_sorted_by(|one, next| one < next),
        "windows come in their order, none twice: {place}"
    );
    assert!(
        windows
            .iter()
            .all(|w| w.start >= Window::GLOBAL.start && w.end <= Window::GLOBAL.end),
        "windows end where time does: {place}"
    );
    assert!(
        windows.len() <= 1 || window_fn.overlaps() || window_fn.is_merging(),
        "windows that are said not to overlap do not: {place}"
    );
    assert_eq!(
        windows,
        windows_of(window_fn, time),
        "the same time has the same windows: {place}"
    );
}

fn check_pane(window_fn: &dyn WindowFn, time: i64, chance: &mut Chance, seed: u64) {
    let Some(pane) = window_fn.pane_of(time) else {
        return;
    };
    let place = format!("{window_fn:?} at {time}, seed {seed}: {pane:?}");
    assert!(pane.contains(time), "a time is in its stretch: {place}");
    let windows = windows_of(window_fn, time);
    assert!(
        windows
            .iter()
            .all(|w| w.start <= pane.start && pane.end <= w.end),
        "a stretch is part of the windows of its times: {place} in {windows:?}"
    );
    let inside = [
        pane.start,
        pane.max_timestamp(),
        between(pane.start, pane.max_timestamp(), chance),
    ];
    for other in inside {
        assert_eq!(
            window_fn.pane_of(other),
            Some(pane),
            "all times of a stretch have the same one, {other} too: {place}"
        );
        assert_eq!(
            windows_of(window_fn, other),
            windows,
            "all times of a stretch are in the same windows, {other} too: {place}"
        );
    }
    for outside in [pane.start - 1, pane.end] {
        if (MIN_TIME..=MAX_TIME).contains(&outside) {
            let next = window_fn.pane_of(outside);
            assert!(
                next.is_some_and(|next| next.end <= pane.start || pane.end <= next.start),
                "stretches do not overlap, that of {outside} neither: {place}, {next:?}"
            );
        }
    }
}

fn check_merging(window_fn: &dyn WindowFn, near: i64, chance: &mut Chance, seed: u64) {
    let spread = 1_i64 << chance.below(30);
    let n_times = 1 + chance.below(12);
    let times: Vec<i64> = (0..n_times)
        .map(|_| {
            near.saturating_add(between(-spread, spread, chance))
                .clamp(MIN_TIME, MAX_TIME)
        })
        .collect();
    let mut assigned: Vec<Window> = times
        .iter()
        .flat_map(|&time| windows_of(window_fn, time))
        .collect();
    let mut together = assigned.clone();
    merge_into(window_fn, &mut together, seed);
    for _ in 0..3 {
        shuffle(&mut assigned, chance);
        let mut one_by_one = Vec::new();
        for &window in &assigned {
            one_by_one.push(window);
            merge_into(window_fn, &mut one_by_one, seed);
        }
        assert_eq!(
            one_by_one, together,
            "the order makes no difference: {window_fn:?}, {assigned:?}, seed {seed}"
        );
    }
    assert!(
        assigned.iter().all(|window| together
            .iter()
            .any(|m| m.start <= window.start && window.end <= m.end)),
        "no window is lost: {window_fn:?}, {assigned:?} became {together:?}, seed {seed}"
    );
}

/// Merges windows until none is merged any more, as an operator does.
fn merge_into(window_fn: &dyn WindowFn, windows: &mut Vec<Window>, seed: u64) {
    windows.sort();
    windows.dedup();
    for (merged, result) in window_fn.merge(windows) {
        let place = format!("{window_fn:?}, {windows:?}, seed {seed}: {merged:?} to {result:?}");
        for window in merged {
            let n_windows = windows.len();
            windows.retain(|other| *other != window);
            assert_eq!(
                windows.len() + 1,
                n_windows,
                "windows that are merged were given, and are named once: {place}"
            );
            assert!(
                result.start <= window.start && window.end <= result.end,
                "what windows become covers them: {place}"
            );
        }
        windows.push(result);
    }
    windows.sort();
    let n_windows = windows.len();
    windows.dedup();
    assert_eq!(
        windows.len(),
        n_windows,
        "what windows become is no other window: {window_fn:?}, {windows:?}, seed {seed}"
    );
}

/// From `low` to `high`, both included.
fn between(low: i64, high: i64, chance: &mut Chance) -> i64 {
    low + chance.below(high - low + 1)
}

fn shuffle<T>(items: &mut [T], chance: &mut Chance) {
    for at in 1..items.len() {
        items.swap(at, chance.index(at + 1));
    }
}
