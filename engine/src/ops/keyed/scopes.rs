//! Keys and windows to the numbers of scopes: what is kept of a key in a window stands at its number.
//!
//! A number is given at first sight. A scope of which nothing is kept any more is free; once most are, the
//! others move together, so that memory follows the keys that are alive.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray, UInt32Array};
use arrow::datatypes::{DataType, FieldRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::Result;
use crate::keys::{Keys, keys_of};
use crate::windowing::Window;

/// So many scopes may be free before the others move together.
const FREE_SCOPES: usize = 1 << 10;

/// The scopes of a worker.
pub(super) struct Scopes {
    key_fields: Vec<FieldRef>,
    is_windowed: bool,
    keys: Box<dyn Keys>,
    is_live: Vec<bool>,
    n_live: usize,
    /// By scope, the number of its window; empty where there are no windows.
    window_of: Vec<u32>,
    windows: Vec<OneWindow>,
    numbers: BTreeMap<Window, u32>,
}

struct OneWindow {
    window: Window,
    scopes: Vec<usize>,
}

impl Scopes {
    pub(super) fn new(key_fields: Vec<FieldRef>, is_windowed: bool) -> Result<Self> {
        Ok(Self {
            keys: keys_of(&types(&key_fields, is_windowed))?,
            key_fields,
            is_windowed,
            is_live: Vec::new(),
            n_live: 0,
            window_of: Vec::new(),
            windows: Vec::new(),
            numbers: BTreeMap::new(),
        })
    }

    /// How many numbers are given.
    pub(super) fn len(&self) -> usize {
        self.is_live.len()
    }

    /// The number of a window; only where there are windows.
    pub(super) fn window_number(&mut self, window: Window) -> u32 {
        let next = u32::try_from(self.windows.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(window).or_insert_with(|| {
            self.windows.push(OneWindow {
                window,
                scopes: Vec::new(),
            });
            next
        })
    }

    /// The scope of each row, to `scopes`. `windows` are the numbers of their windows, where there are any.
    pub(super) fn number(
        &mut self,
        keys: &[ArrayRef],
        windows: Option<&[u32]>,
        n_rows: usize,
        scopes: &mut Vec<usize>,
    ) -> Result<()> {
        let mut columns = keys.to_vec();
        if let Some(windows) = windows {
            columns.push(Arc::new(UInt32Array::from(windows.to_vec())));
        }
        self.keys.number(&columns, n_rows, scopes)?;
        let n_before = self.is_live.len();
        self.is_live.resize(self.keys.len(), false);
        if let Some(windows) = windows
            && self.keys.len() > n_before
        {
            self.window_of.resize(self.keys.len(), u32::MAX);
            for (&scope, &window) in scopes.iter().zip(windows) {
                if self.window_of[scope] == u32::MAX {
                    self.window_of[scope] = window;
                    self.windows[window as usize].scopes.push(scope);
                }
            }
        }
        Ok(())
    }

    /// From here on something may be kept of the scope.
    pub(super) fn enliven(&mut self, scope: usize) {
        if !self.is_live[scope] {
            self.is_live[scope] = true;
            self.n_live += 1;
        }
    }

    /// Nothing is kept of the scope any more.
    pub(super) fn free(&mut self, scope: usize) {
        if self.is_live[scope] {
            self.is_live[scope] = false;
            self.n_live -= 1;
        }
    }

    pub(super) fn window(&self, scope: usize) -> Window {
        match self.window_of.get(scope) {
            Some(&number) => self.windows[number as usize].window,
            None => Window::GLOBAL,
        }
    }

    /// Takes out the windows of which `is_over` is true, and gives the scopes in them that are alive.
    pub(super) fn take_over(&mut self, is_over: impl Fn(Window) -> bool) -> Vec<usize> {
        let mut scopes = Vec::new();
        let over: Vec<Window> = self
            .numbers
            .keys()
            .copied()
            .filter(|w| is_over(*w))
            .collect();
        for window in over {
            if let Some(number) = self.numbers.remove(&window) {
                let of = std::mem::take(&mut self.windows[number as usize].scopes);
                scopes.extend(of.into_iter().filter(|scope| self.is_live[*scope]));
            }
        }
        scopes
    }

    /// The scopes that are alive, in their order.
    pub(super) fn live(&self) -> Vec<usize> {
        (0..self.len())
            .filter(|scope| self.is_live[*scope])
            .collect()
    }

    /// Moves the scopes that are alive together if most are free, or if there is none; they have been these.
    pub(super) fn compact(&mut self) -> Result<Option<Vec<usize>>> {
        let n_free = self.len() - self.n_live;
        let is_worth = n_free > FREE_SCOPES && n_free > self.n_live;
        let has_numbers = self.is_windowed || !self.key_fields.is_empty();
        if !is_worth && (self.n_live > 0 || n_free == 0 || !has_numbers) {
            return Ok(None);
        }
        let live = self.live();
        let mut new = Self::new(self.key_fields.clone(), self.is_windowed)?;
        let keys = self.key_columns(&live)?;
        let windows: Vec<Window> = live.iter().map(|scope| self.window(*scope)).collect();
        let numbers = self.is_windowed.then(|| {
            let all = windows.iter().map(|window| new.window_number(*window));
            all.collect::<Vec<u32>>()
        });
        let mut scopes = Vec::new();
        new.number(&keys, numbers.as_deref(), live.len(), &mut scopes)?;
        scopes.iter().for_each(|scope| new.enliven(*scope));
        *self = new;
        Ok(Some(live))
    }

    /// The key columns of these scopes.
    pub(super) fn key_columns(&self, scopes: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut columns = self.keys.columns_of(scopes)?;
        columns.truncate(self.key_fields.len());
        Ok(columns)
    }

    /// The start and the end of the windows of these scopes.
    pub(super) fn window_columns(&self, scopes: &[usize]) -> [ArrayRef; 2] {
        let times = |of: fn(Window) -> i64| -> ArrayRef {
            let times = scopes.iter().map(|scope| of(self.window(*scope)));
            Arc::new(TimestampMillisecondArray::from_iter_values(times))
        };
        [times(|window| window.start), times(|window| window.end)]
    }

    /// The key and the window of a scope, for messages: `k = 1, window 0 to 10`.
    pub(super) fn show(&self, scope: usize) -> String {
        let options = FormatOptions::default().with_null("null");
        let keys = self.key_columns(&[scope]).unwrap_or_default();
        let mut parts: Vec<String> = Vec::new();
        for (field, key) in self.key_fields.iter().zip(&keys) {
            if let Ok(cells) = ArrayFormatter::try_new(key.as_ref(), &options) {
                parts.push(format!("{} = {}", field.name(), cells.value(0)));
            }
        }
        if self.is_windowed {
            let Window { start, end } = self.window(scope);
            parts.push(format!("window {start} to {end}"));
        }
        parts.join(", ")
    }

    pub(super) fn n_bytes(&self) -> usize {
        let of_windows: usize = self
            .windows
            .iter()
            .map(|w| size_of::<OneWindow>() + w.scopes.capacity() * size_of::<usize>())
            .sum();
        let by_scope = self.is_live.capacity() + self.window_of.capacity() * size_of::<u32>();
        self.keys.n_bytes() + by_scope + of_windows
    }
}

fn types(key_fields: &[FieldRef], is_windowed: bool) -> Vec<DataType> {
    let keys = key_fields.iter().map(|f| f.data_type().clone());
    keys.chain(is_windowed.then_some(DataType::UInt32))
        .collect()
}
