//! Windows of one key that become one as rows come, as sessions do.

use hashbrown::HashMap;

use super::chunks::Place;
use super::entries::NEVER;
use super::{Now, Settled, Touched};
use crate::windowing::{TimestampCombiner, TriggerContext, Window};

impl Settled {
    /// Merges the windows that have come with those that are there, and names in `rows` what they became.
    pub(super) fn merge_windows(
        &mut self,
        rows: &mut [(u32, Window)],
        numbers: &[usize],
        now: Now,
        touched: &mut Touched,
    ) {
        let mut came: Vec<(usize, Window)> = rows
            .iter()
            .map(|(row, window)| (numbers[*row as usize], *window))
            .collect();
        came.sort_unstable();
        came.dedup();
        let mut became: HashMap<(usize, Window), Window> = HashMap::new();
        for of_key in came.chunk_by(|a, b| a.0 == b.0) {
            let key = of_key[0].0;
            let there = self.entries.of_key(key).iter();
            let mut windows: Vec<Window> = there.map(|id| self.entries.get(*id).window).collect();
            let n_there = windows.len();
            windows.extend(of_key.iter().map(|(_, window)| *window));
            windows.sort_unstable();
            windows.dedup();
            if windows.len() == n_there || windows.len() == 1 {
                continue;
            }
            for (merged, window) in self.plan.windowing.window_fn.merge(&windows) {
                for from in merged.iter().filter(|from| **from != window) {
                    became.insert((key, *from), window);
                }
                self.merge_entries(key, &merged, window, now, touched);
            }
        }
        if became.is_empty() {
            return;
        }
        for (row, window) in rows {
            let key = numbers[*row as usize];
            // A window may become another that becomes a third; a wrong function might turn in circles.
            for _ in 0..became.len() {
                match became.get(&(key, *window)) {
                    Some(into) => *window = *into,
                    None => break,
                }
            }
        }
    }

    /// Makes the entries of these windows one, of `window`.
    fn merge_entries(
        &mut self,
        key: usize,
        merged: &[Window],
        window: Window,
        now: Now,
        touched: &mut Touched,
    ) {
        let find = |from: &Window| self.entries.find(key, *from);
        let same = find(&window);
        let others = merged.iter().filter(|from| **from != window);
        let mut others: Vec<u32> = others.filter_map(find).collect();
        // Which firing it is is not known any more, unless a window takes in others and stays what it was.
        let into = match same {
            Some(id) => id,
            None if others.is_empty() => return,
            None => {
                let id = others.remove(0);
                self.entries.change_window(id, window);
                let entry = self.entries.get_mut(id);
                (entry.index, entry.nonspeculative_index) = (0, 0);
                id
            }
        };
        let context = TriggerContext {
            window,
            watermark: now.watermark,
            processing_time: now.processing_time,
        };
        let states: Vec<Vec<i64>> = others
            .iter()
            .map(|id| self.entries.trigger(*id).to_vec())
            .collect();
        let trigger = self.entries.trigger_mut(into);
        let states = states.iter().map(Vec::as_slice);
        self.trigger.on_merge(trigger, states, &context);
        for id in others {
            self.absorb(id, into, touched);
        }
        if self.plan.windowing.timestamp_combiner == TimestampCombiner::EndOfWindow
            && self.entries.get(into).hold != NEVER
        {
            let last = window.max_timestamp();
            let was = std::mem::replace(&mut self.entries.get_mut(into).hold, last);
            self.note_hold(was, last);
        }
        self.schedule(into, now);
        self.schedule_wake(into, &context);
        if self.entries.get(into).is_finished {
            self.lose(into, touched);
        } else {
            self.slot(into, touched);
        }
    }

    /// Forgets what has not left of an entry that has finished, because a part of it had.
    fn lose(&mut self, id: u32, touched: &mut Touched) {
        touched.absorbed.retain(|(of, _)| *of != id);
        self.release_state(id);
        let entry = self.entries.get_mut(id);
        entry.place = Place::NONE;
        touched.n_lost += std::mem::take(&mut entry.n_pending).unsigned_abs();
        let hold = std::mem::replace(&mut entry.hold, NEVER);
        self.note_hold(hold, NEVER);
    }

    /// Makes an entry a part of another. Its state is merged with that of the other later on.
    fn absorb(&mut self, id: u32, into: u32, touched: &mut Touched) {
        let part = self.entries.get(id).clone();
        if part.hold != NEVER {
            self.hold(into, part.hold);
        }
        let fired = self.entries.fired.remove(&id).unwrap_or_default();
        if !part.place.is_none() {
            touched.absorbed.push((into, part.place));
            if fired.iter().all(|fired| fired.place != part.place) {
                self.chunks.release(part.place);
            }
        }
        if !fired.is_empty() {
            self.entries.fired.entry(into).or_default().extend(fired);
        }
        let entry = self.entries.get_mut(into);
        entry.n_pending += part.n_pending;
        entry.is_finished |= part.is_finished;
        self.note_hold(part.hold, NEVER);
        self.entries.get_mut(id).place = Place::NONE;
        self.entries.remove(id);
        // States absorbed by that one in this batch go along.
        for (of, _) in &mut touched.absorbed {
            if *of == id {
                *of = into;
            }
        }
    }
}
