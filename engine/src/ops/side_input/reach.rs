//! Which part of the side a row sees, and when that part is complete.

use arrow::array::AsArray;
use arrow::datatypes::{Schema, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::event_time::{WINDOW_END, WINDOW_START, event_times, time_type};
use crate::transform::OnChangelog;
use crate::windowing::{Window, Windowing};

/// Which part of the side a row sees.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    kind: Kind,
    main: Windowing,
    side: Windowing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// All of it, at its end.
    Whole,
    /// A window of it.
    Windows,
    /// The version valid at the row's event time.
    Versions,
}

/// What rows of the main input see, a value a row.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The windows of the side that any of them sees.
    pub(super) windows: Vec<Window>,
    /// Which of these each row sees.
    pub(super) of_row: Vec<u32>,
    /// A row is ready when the side's watermark is greater than this.
    pub(super) needs: Vec<i64>,
}

/// Stands for no window: of a row that is in none, or where the side has none.
const NOWHERE: Window = Window {
    start: i64::MIN,
    end: i64::MIN + 1,
};

/// Greater than the watermark of any input that is not over.
const AT_THE_END: i64 = i64::MAX - 1;

impl Reach {
    pub(super) fn new(versions: bool, [main, side]: &[Windowing; 2]) -> Self {
        let kind = match versions {
            true => Kind::Versions,
            false if is_global(side) => Kind::Whole,
            false => Kind::Windows,
        };
        Self {
            kind,
            main: main.clone(),
            side: side.clone(),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.kind == Kind::Whole
    }

    pub(super) fn is_versions(&self) -> bool {
        self.kind == Kind::Versions
    }

    /// A row that is taken back sees what it saw when it was added only where all rows see the same.
    pub(super) fn on_changelog(&self) -> OnChangelog {
        match self.kind {
            Kind::Whole => OnChangelog::Carry,
            Kind::Windows | Kind::Versions => OnChangelog::Refuse,
        }
    }

    /// What is kept, and what releases it; rows wait where the side `arrives` while they do.
    pub(super) fn keeps(&self, arrives: bool) -> String {
        let rows = match (arrives, self.kind) {
            (false, _) | (true, Kind::Whole) => "",
            (true, Kind::Windows) if self.side.allowed_lateness_ms > 0 => {
                "rows until the side's watermark passes their window by the lateness, "
            }
            (true, Kind::Windows) => "rows until the side's watermark passes their window, ",
            (true, Kind::Versions) => "rows until the side's watermark passes their time, ",
        };
        let side = match self.kind {
            Kind::Whole => "the side to the end",
            Kind::Windows => {
                "windows of the side until the main watermark passes who may ask for them"
            }
            Kind::Versions => "the latest version of each key, and those after the main watermark",
        };
        format!("{rows}{side}")
    }

    /// Checks that windows of the side can be found.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        if self.kind != Kind::Windows {
            return Ok(());
        }
        let instant = Window { start: 0, end: 1 };
        let merges = self.side.window_fn.is_merging();
        if merges && self.side.window_fn.side_input_window(instant).is_none() {
            let kind = self.side.window_fn.describe().kind;
            return Err(Error::pipeline(format!("{kind} windows of side input {name:?} cannot be looked up"))
                .with_detail("Which window a time lies in is not known before all rows have come.")
                .with_hint("Divide the side into fixed windows, or see the version valid at the time of a row with `SideInput::as_of_event_time`."));
        }
        Ok(())
    }

    /// Checks that each row of the main input is in one window.
    pub(super) fn check_main(&self, main: &Schema) -> Result<()> {
        if self.kind != Kind::Windows || is_global(&self.main) || has_windows(main) {
            return Ok(());
        }
        let mut windows = Vec::new();
        for time in [0, 1, 86_400_000 * 365 * 50 + 12_345_678] {
            windows.clear();
            self.main.window_fn.assign(time, &mut windows);
            if windows.len() > 1 {
                return Err(several(&windows));
            }
        }
        Ok(())
    }

    /// What rows of the main input see.
    pub(super) fn of_main(&self, rows: &RecordBatch) -> Result<Seen> {
        let n_rows = rows.num_rows();
        match self.kind {
            Kind::Whole => Ok(Seen {
                windows: vec![Window::GLOBAL],
                of_row: vec![0; n_rows],
                needs: vec![AT_THE_END; n_rows],
            }),
            Kind::Versions => Ok(Seen {
                windows: vec![Window::GLOBAL],
                of_row: vec![0; n_rows],
                needs: event_times(rows)?.to_vec(),
            }),
            Kind::Windows => self.windows_of_main(rows),
        }
    }

    fn windows_of_main(&self, rows: &RecordBatch) -> Result<Seen> {
        let of_results = edges(rows);
        let times = event_times(rows)?;
        let own = |row: usize| {
            of_results.map(|(starts, ends)| Window {
                start: starts[row],
                end: ends[row],
            })
        };
        let mut seen = Seen {
            windows: Vec::new(),
            of_row: Vec::with_capacity(times.len()),
            needs: Vec::with_capacity(times.len()),
        };
        // Rows mostly follow each other within what sees the same.
        let mut row = 0;
        while row < times.len() {
            let window = self.seen_at(times[row], own(row))?.unwrap_or(NOWHERE);
            let end = match (of_results, self.stretch(times[row])) {
                // Results mostly come a window at a time.
                (Some((starts, ends)), _) => [starts, ends, times]
                    .iter()
                    .fold(times.len(), |end, of| row + n_alike(&of[row..end])),
                (None, Some(stretch)) => row + n_within(&times[row..], stretch).max(1),
                (None, None) => row + 1,
            };
            let number = seen.number(window);
            seen.of_row.resize(end, number);
            // As long as late rows count: what a row sees must not hang on whether it came before one of them.
            seen.needs.resize(end, self.complete_at(window));
            row = end;
        }
        Ok(seen)
    }

    /// The window of the side that a row sees, if there is one.
    fn seen_at(&self, time: i64, own: Option<Window>) -> Result<Option<Window>> {
        let mut windows = Vec::new();
        if is_global(&self.main) {
            windows.push(Window {
                start: time,
                end: time.saturating_add(1),
            });
        } else {
            self.main.window_fn.assign(time, &mut windows);
        }
        let own = own.filter(|own| self.main.window_fn.is_merging() || windows.contains(own));
        let window = match (own, windows.as_slice()) {
            (Some(own), _) => own,
            (None, [one]) => *one,
            (None, []) => return Ok(None),
            (None, _) => return Err(several(&windows)),
        };
        Ok(self.side.window_fn.side_input_window(window))
    }

    /// The stretch of time around `time` whose rows all see the same.
    fn stretch(&self, time: i64) -> Option<Window> {
        match is_global(&self.main) {
            true => self.side.window_fn.pane_of(time),
            false => self.main.window_fn.pane_of(time),
        }
    }

    /// The windows that each row of the side is in.
    pub(super) fn of_side(&self, rows: &RecordBatch) -> Result<Vec<(Window, Vec<u32>)>> {
        if self.kind != Kind::Windows {
            let all = (0u32..).take(rows.num_rows()).collect();
            return Ok(vec![(Window::GLOBAL, all)]);
        }
        let of_results = edges(rows);
        let mut found: Vec<(Window, Vec<u32>)> = Vec::new();
        let mut windows = Vec::new();
        let mut stretch: Option<Window> = None;
        for (row, (i, &time)) in (0u32..).zip(event_times(rows)?.iter().enumerate()) {
            let is_same =
                of_results.is_none() && stretch.is_some_and(|s| s.start <= time && time < s.end);
            if !is_same {
                windows.clear();
                self.side.window_fn.assign(time, &mut windows);
                stretch = self.side.window_fn.pane_of(time);
                let own = of_results.map(|(starts, ends)| Window {
                    start: starts[i],
                    end: ends[i],
                });
                if let Some(own) = own.filter(|own| windows.contains(own)) {
                    windows = vec![own];
                }
            }
            for window in &windows {
                match found.iter_mut().rev().find(|(of, _)| of == window) {
                    Some((_, rows)) => rows.push(row),
                    None => found.push((*window, vec![row])),
                }
            }
        }
        Ok(found)
    }

    /// A window of the side has all its rows when the side's watermark is greater than this.
    fn complete_at(&self, window: Window) -> i64 {
        let last = window.max_timestamp();
        let closes = last.saturating_add(self.side.allowed_lateness_ms);
        match window == NOWHERE {
            true => last,
            // The end is after any lateness.
            false => closes.min(AT_THE_END),
        }
    }

    /// True if a row of the side in this window comes too late, with the side's watermark there.
    pub(super) fn is_late(&self, window: Window, side: i64) -> bool {
        self.kind == Kind::Windows && self.complete_at(window) < side
    }

    /// True if no row that is not too late asks for this window of the side any more.
    pub(super) fn is_over(&self, window: Window, main: i64, side: i64) -> bool {
        let closes = window
            .max_timestamp()
            .saturating_add(self.main.allowed_lateness_ms);
        let is_complete = self.complete_at(window) < side;
        self.kind == Kind::Windows && window != NOWHERE && is_complete && closes < main
    }

    /// The earliest time at which a version may still be asked for.
    pub(super) fn horizon(&self, main: i64) -> i64 {
        main.saturating_sub(self.main.allowed_lateness_ms)
    }
}

impl Seen {
    fn number(&mut self, window: Window) -> u32 {
        let found = self.windows.iter().rposition(|w| *w == window);
        let number = found.unwrap_or_else(|| {
            self.windows.push(window);
            self.windows.len() - 1
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }
}

fn is_global(windowing: &Windowing) -> bool {
    windowing.window_fn.describe().kind == "global"
}

fn has_windows(schema: &Schema) -> bool {
    [WINDOW_START, WINDOW_END].iter().all(|name| {
        let field = schema.field_with_name(name);
        field.is_ok_and(|f| *f.data_type() == time_type() && !f.is_nullable())
    })
}

/// How many values in front are as the first.
fn n_alike(values: &[i64]) -> usize {
    match values.first() {
        Some(first) => n_leading(values, |value| value == *first),
        None => 0,
    }
}

/// How many times in front lie in a stretch.
fn n_within(times: &[i64], stretch: Window) -> usize {
    n_leading(times, |time| stretch.start <= time && time < stretch.end)
}

/// How many values in front are good; without a way out of the inner loop many are looked at at once.
fn n_leading(values: &[i64], is_good: impl Fn(i64) -> bool) -> usize {
    let all_good = |part: &&[i64]| part.iter().fold(true, |good, value| good & is_good(*value));
    let parts = values.chunks(64).take_while(all_good);
    let n = parts.map(<[i64]>::len).sum();
    n + values[n..].iter().take_while(|v| is_good(**v)).count()
}

/// The edges of the windows that rows are results of.
fn edges(rows: &RecordBatch) -> Option<(&[i64], &[i64])> {
    if !has_windows(&rows.schema()) {
        return None;
    }
    let column = |name| {
        let column = rows.column_by_name(name)?;
        let times = column.as_primitive_opt::<TimestampMillisecondType>()?;
        Some(&**times.values())
    };
    Some((column(WINDOW_START)?, column(WINDOW_END)?))
}

fn several(windows: &[Window]) -> Error {
    let n = windows.len();
    Error::pipeline(format!("a row is in {n} windows, and can see one window of a side input"))
        .with_hint("Divide the rows by `window` behind `with_side_input`, or add the side input to the results of the windows.")
}
