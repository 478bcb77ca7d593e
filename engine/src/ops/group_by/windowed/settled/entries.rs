//! What is known of each key and window.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::error::Result;
use crate::keys::{Keys, keys_of};
use crate::windowing::Window;

use super::chunks::Place;
use crate::ops::group_by::windowed::pane::Pane;
use crate::ops::group_by::windowed::plan::WindowedPlan;

/// No time.
pub(super) const NEVER: i64 = i64::MAX;
/// Keys are not looked through for such few that are in no window any more, and no entries for so few that are gone.
const FEW_KEYS: usize = 1 << 10;

/// A key in a window.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The number of the key.
    pub(super) key: u32,
    pub(super) window: Window,
    /// What has come, as far as it counts for the next firing.
    pub(super) place: Place,
    /// How many rows have come since it last fired.
    pub(super) n_pending: i64,
    /// The event time of the next result; [`NEVER`] where it is the end of the window.
    pub(super) hold: i64,
    pub(super) index: i64,
    pub(super) nonspeculative_index: i64,
    /// The trigger has finished: no row is taken in any more.
    pub(super) is_finished: bool,
    /// The trigger has been asked at the end of the window.
    pub(super) is_past_end: bool,
    /// When it is to be looked at in event time, and in processing time.
    pub(super) timer: i64,
    pub(super) wake: i64,
    pub(super) is_alive: bool,
}

/// A result that has left, to be taken back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fired {
    pub(super) window: Window,
    pub(super) place: Place,
    pub(super) event_time: i64,
    pub(super) pane: Pane,
}

/// All keys in all windows, with a number each.
pub(super) struct Entries {
    plan: Arc<WindowedPlan>,
    keys: Box<dyn Keys>,
    /// The entries of each key, mostly one.
    of_key: Vec<SmallVec<[u32; 4]>>,
    n_keys_used: usize,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// The states of triggers, the same number of numbers for each entry.
    triggers: Vec<i64>,
    new_trigger: Vec<i64>,
    /// Results that may have to be taken back.
    pub(super) fired: HashMap<u32, Vec<Fired>>,
}

impl Entries {
    pub(super) fn new(plan: &Arc<WindowedPlan>, new_trigger: &[i64]) -> Result<Self> {
        Ok(Self {
            keys: new_keys(plan)?,
            plan: Arc::clone(plan),
            of_key: Vec::new(),
            n_keys_used: 0,
            entries: Vec::new(),
            free: Vec::new(),
            triggers: Vec::new(),
            new_trigger: new_trigger.to_vec(),
            fired: HashMap::new(),
        })
    }

    pub(super) fn n_bytes(&self) -> usize {
        let fired = size_of::<(u32, Vec<Fired>)>() + size_of::<Fired>();
        self.keys.n_bytes()
            + self.of_key.capacity() * size_of::<SmallVec<[u32; 4]>>()
            + self.entries.capacity() * (size_of::<Entry>() + size_of::<u32>())
            + self.triggers.capacity() * size_of::<i64>()
            + self.fired.len() * fired
    }

    /// The numbers of the keys in these columns, which replace what is in `numbers`.
    pub(super) fn number(
        &mut self,
        keys: &[arrow::array::ArrayRef],
        n_rows: usize,
        numbers: &mut Vec<usize>,
    ) -> Result<()> {
        self.keys.number(keys, n_rows, numbers)?;
        self.of_key.resize_with(self.keys.len(), SmallVec::new);
        Ok(())
    }

    /// The columns of the keys of these entries.
    pub(super) fn key_columns(&self, keys: &[usize]) -> Result<Vec<arrow::array::ArrayRef>> {
        self.keys.columns_of(keys)
    }

    pub(super) fn get(&self, id: u32) -> &Entry {
        &self.entries[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.entries[id as usize]
    }

    pub(super) fn trigger(&self, id: u32) -> &[i64] {
        let n = self.new_trigger.len();
        &self.triggers[id as usize * n..][..n]
    }

    pub(super) fn trigger_mut(&mut self, id: u32) -> &mut [i64] {
        let n = self.new_trigger.len();
        &mut self.triggers[id as usize * n..][..n]
    }

    /// All entries, by number.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0u32..).zip(&self.entries).filter(|(_, e)| e.is_alive)
    }

    /// As [`Entries::all`], to be changed.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(|entry| entry.is_alive)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries of a key, in the order of their windows.
    pub(super) fn of_key(&self, key: usize) -> &[u32] {
        &self.of_key[key]
    }

    fn search(&self, key: usize, window: Window) -> Result<usize, usize> {
        let windows = &self.of_key[key];
        match windows.last() {
            // Rows come about in order, so that it is mostly the last.
            Some(last) if self.get(*last).window < window => Err(windows.len()),
            Some(last) if self.get(*last).window == window => Ok(windows.len() - 1),
            _ => windows.binary_search_by_key(&window, |id| self.get(*id).window),
        }
    }

    pub(super) fn find(&self, key: usize, window: Window) -> Option<u32> {
        let at = self.search(key, window).ok()?;
        Some(self.of_key[key][at])
    }

    /// The entry of a key and window, and whether it is new.
    pub(super) fn find_or_add(&mut self, key: usize, window: Window) -> (u32, bool) {
        match self.search(key, window) {
            Ok(at) => (self.of_key[key][at], false),
            Err(at) => {
                let id = self.add(key, window);
                self.n_keys_used += usize::from(self.of_key[key].is_empty());
                self.of_key[key].insert(at, id);
                (id, true)
            }
        }
    }

    fn add(&mut self, key: usize, window: Window) -> u32 {
        let entry = Entry {
            key: u32::try_from(key).unwrap_or(u32::MAX),
            window,
            place: Place::NONE,
            n_pending: 0,
            hold: NEVER,
            index: 0,
            nonspeculative_index: 0,
            is_finished: false,
            is_past_end: false,
            timer: NEVER,
            wake: NEVER,
            is_alive: true,
        };
        match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                let n = self.new_trigger.len();
                self.triggers[id as usize * n..][..n].copy_from_slice(&self.new_trigger);
                id
            }
            None => {
                self.entries.push(entry);
                self.triggers.extend(&self.new_trigger);
                u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    /// Forgets an entry; its place must have been released.
    pub(super) fn remove(&mut self, id: u32) {
        let Entry { key, window, .. } = *self.get(id);
        let key = key as usize;
        if let Ok(at) = self.search(key, window) {
            self.of_key[key].remove(at);
            if self.of_key[key].is_empty() {
                self.of_key[key] = SmallVec::new();
                self.n_keys_used -= 1;
            }
        }
        self.get_mut(id).is_alive = false;
        self.free.push(id);
    }

    /// Gives an entry another window, which no other entry of its key has.
    pub(super) fn change_window(&mut self, id: u32, window: Window) {
        let Entry {
            key, window: old, ..
        } = *self.get(id);
        let key = key as usize;
        if let Ok(at) = self.search(key, old) {
            self.of_key[key].remove(at);
        }
        self.get_mut(id).window = window;
        let windows = &self.of_key[key];
        let at = windows.partition_point(|other| self.entries[*other as usize].window < window);
        self.of_key[key].insert(at, id);
    }

    /// Forgets keys that are in no window any more, once they are the most; then numbers of keys change.
    pub(super) fn forget_keys(&mut self) -> Result<()> {
        let n_unused = self.keys.len() - self.n_keys_used;
        if n_unused <= self.n_keys_used.max(FEW_KEYS) || self.plan.n_keys == 0 {
            return Ok(());
        }
        let used = (0..self.of_key.len()).filter(|key| !self.of_key[*key].is_empty());
        let used: Vec<usize> = used.collect();
        let columns = self.keys.columns_of(&used)?;
        let mut keys = new_keys(&self.plan)?;
        let mut numbers = Vec::new();
        keys.number(&columns, used.len(), &mut numbers)?;
        let mut of_key = vec![SmallVec::new(); keys.len()];
        for (old, new) in used.into_iter().zip(numbers) {
            of_key[new] = std::mem::take(&mut self.of_key[old]);
            for id in &of_key[new] {
                self.entries[*id as usize].key = u32::try_from(new).unwrap_or(u32::MAX);
            }
        }
        self.keys = keys;
        self.of_key = of_key;
        Ok(())
    }

    /// Numbers the entries anew, once most are gone; gives the new number of each, `u32::MAX` of those that are gone.
    pub(super) fn forget_entries(&mut self) -> Option<Vec<u32>> {
        let n_alive = self.entries.len() - self.free.len();
        if self.free.len() <= n_alive.max(FEW_KEYS) {
            return None;
        }
        let mut numbers = vec![u32::MAX; self.entries.len()];
        let mut entries = Vec::with_capacity(n_alive);
        let mut triggers = Vec::with_capacity(n_alive * self.new_trigger.len());
        for (id, entry) in self.all() {
            numbers[id as usize] = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            entries.push(entry.clone());
            triggers.extend_from_slice(self.trigger(id));
        }
        let new = |id: u32| numbers[id as usize];
        for id in self.of_key.iter_mut().flatten() {
            *id = new(*id);
        }
        let fired = std::mem::take(&mut self.fired).into_iter();
        self.fired = fired.map(|(id, fired)| (new(id), fired)).collect();
        (self.entries, self.triggers, self.free) = (entries, triggers, Vec::new());
        Some(numbers)
    }
}

fn new_keys(plan: &WindowedPlan) -> Result<Box<dyn Keys>> {
    let fields = &plan.planned.key_fields;
    let types: Vec<_> = fields.iter().map(|f| f.data_type().clone()).collect();
    keys_of(&types)
}
