//! Random changelogs in sessions, compared with a computation from nothing after every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::random::{
    Asks, Change, Computed, Values, all_sound, asks, changes_not_all_added, compare, is_settled,
    lines_of, step,
};
use super::{correcting, ms};
use crate::windowing::{Sessions, Trigger, Window, Windowing};

/// All changes that have been taken in and may still matter, by key, and what has been given for good.
struct Naive {
    asks: Asks,
    gap: i64,
    lateness: i64,
    early: bool,
    watermark: i64,
    of: BTreeMap<i64, Vec<Change>>,
    closed: Vec<String>,
    /// What was taken back and not added by rows in windows that are over, and all that came too late, by key and time.
    owed: BTreeMap<(i64, i64), Values>,
    too_late: BTreeMap<(i64, i64), Values>,
    late: Vec<String>,
}

/// A session, and the times and values of its rows.
type Session = (Window, Vec<(i64, Option<i64>)>);

impl Naive {
    /// How often each row is there.
    fn times(changes: &[Change]) -> BTreeMap<(i64, Option<i64>), i64> {
        let mut times = BTreeMap::new();
        for change in changes {
            *times.entry((change.time, change.x)).or_default() += change.diff;
        }
        times
    }

    fn sessions(&self, changes: &[Change]) -> Vec<Session> {
        let mut sessions: Vec<Session> = Vec::new();
        for ((time, x), n) in Self::times(changes) {
            let rows = (0..n).map(|_| (time, x));
            match sessions.last_mut() {
                _ if n <= 0 => {}
                Some((window, of)) if time < window.end => {
                    window.end = time + self.gap;
                    of.extend(rows);
                }
                _ => {
                    let window = Window {
                        start: time,
                        end: time + self.gap,
                    };
                    sessions.push((window, rows.collect()));
                }
            }
        }
        sessions
    }

    fn is_over(&self, end: i64) -> bool {
        end + self.lateness <= self.watermark
    }

    fn lines(&self, k: i64, (window, rows): &Session) -> Vec<String> {
        let values = rows.iter().map(|(time, x)| self.asks.value_of(*x, *time));
        let values: Vec<Option<i64>> = values.collect();
        lines_of(self.asks, k, *window, &values)
    }
}

impl Computed for Naive {
    fn add(&mut self, change: &Change) {
        // What is not asked for makes no row another one.
        let x = change.x.filter(|_| !matches!(self.asks, Asks::Times(_)));
        match self.is_over(change.time + self.gap) {
            true => {
                self.late.push(change.shown());
                let of_time = self.too_late.entry((change.k, change.time));
                of_time.or_default().push((x, change.diff));
            }
            false => {
                let of = self.of.entry(change.k).or_default();
                of.push(Change { x, ..*change });
            }
        }
    }

    fn advance(&mut self, watermark: i64) {
        self.watermark = watermark;
        for (k, changes) in std::mem::take(&mut self.of) {
            let sessions = self.sessions(&changes);
            let mut open = BTreeSet::new();
            for session in &sessions {
                match self.is_over(session.0.end) {
                    true => {
                        let lines = self.lines(k, session);
                        self.closed.extend(lines);
                    }
                    false => open.extend(session.1.iter().map(|(time, _)| *time)),
                }
            }
            let stays = |time: i64| open.contains(&time) || !self.is_over(time + self.gap);
            let times = Self::times(&changes);
            let owed = times
                .into_iter()
                .filter(|((time, _), n)| *n < 0 && !stays(*time));
            let owed: Vec<((i64, Option<i64>), i64)> = owed.collect();
            let changes = changes.into_iter().filter(|change| stays(change.time));
            let changes: Vec<Change> = changes.collect();
            self.of.insert(k, changes);
            for ((time, x), n) in owed {
                self.owed.entry((k, time)).or_default().push((x, n));
            }
        }
    }

    fn is_sound(&self) -> Option<bool> {
        all_sound(self.owed.iter().flat_map(|(of, owed)| {
            let too_late = self.too_late.get(of).map_or(&[][..], Vec::as_slice);
            // Each row by itself.
            owed.iter().map(|row| {
                let of_row = too_late.iter().copied().filter(|(x, _)| *x == row.0);
                is_settled(&[*row], &of_row.collect::<Vec<_>>())
            })
        }))
    }

    fn contents(&self) -> (Vec<String>, Vec<(i64, Window)>) {
        let mut lines = self.closed.clone();
        for (k, changes) in &self.of {
            for session in self.sessions(changes) {
                // Where no late changes are taken, what is over leaves with the next watermark.
                let has_left = session.0.end <= self.watermark && self.lateness > 0;
                if has_left || self.early {
                    lines.extend(self.lines(*k, &session));
                }
            }
        }
        (lines, Vec::new())
    }

    fn late(&self) -> Vec<String> {
        self.late.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sessions_give_what_a_computation_from_nothing_gives(
        changes in changes_not_all_added(0.005),
        steps in prop::collection::vec(step(), 1..30),
        gap in 1u64..15,
        lateness in prop_oneof![Just(0u64), 1u64..30],
        trigger in prop_oneof![
            Just(Trigger::Default),
            Just(Trigger::after_watermark().early(Trigger::always()).late(Trigger::always())),
            Just(Trigger::always()),
        ],
        n_workers in 1usize..4,
        seed in any::<u64>(),
        asks in asks(),
    ) {
        let naive = Naive {
            asks,
            gap: i64::try_from(gap).unwrap(),
            lateness: i64::try_from(lateness).unwrap(),
            early: trigger != Trigger::Default,
            watermark: i64::MIN,
            of: BTreeMap::new(),
            closed: Vec::new(),
            owed: BTreeMap::new(),
            too_late: BTreeMap::new(),
            late: Vec::new(),
        };
        let sessions = Windowing::of(Sessions::with_gap(ms(gap)));
        let windowing = correcting(sessions, lateness).trigger(trigger);
        compare(naive, asks, windowing, &changes, &steps, n_workers, seed)?;
    }
}
