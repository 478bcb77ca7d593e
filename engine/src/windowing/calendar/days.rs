//! Windows of whole days on the calendar of a time zone.

use chrono::{Datelike, NaiveDate};
use serde_json::json;

use super::super::span::within_range;
use super::super::window::{Window, WindowFn};
use super::window_at;
use super::zone::Zone;
use crate::error::{Error, Result};
use crate::transform::Description;

/// Windows of whole days in a time zone, from midnight to midnight.
///
/// Days on which clocks change have 23 or 25 hours. Where midnight is skipped a day starts when the gap ends;
/// where it comes twice, with the first.
///
/// ```
/// # use mainstem_engine::windowing::{CalendarDays, WindowFn};
/// const HOUR: i64 = 3_600_000;
/// let days = CalendarDays::of(1).in_zone("Europe/Berlin");
/// let mut found = Vec::new();
/// days.assign(1_711_843_200_000, &mut found); // 2024-03-31, 00:00 UTC
/// assert_eq!(found[0].end - found[0].start, 23 * HOUR);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalendarDays {
    n_days: u32,
    zone: Zone,
    first: (i32, u32, u32),
}

impl CalendarDays {
    /// Windows of this many days in UTC, one of which starts on 1970-01-01.
    pub fn of(n_days: u32) -> Self {
        Self {
            n_days,
            zone: Zone::utc(),
            first: (1970, 1, 1),
        }
    }

    /// Sets the time zone by its IANA name, such as "Europe/Berlin". An unknown one is refused while planning.
    #[must_use]
    pub fn in_zone(mut self, name: impl Into<String>) -> Self {
        self.zone = Zone::named(name.into());
        self
    }

    /// Sets a day on which a window starts, so that weeks start on Mondays. A day that the calendar does not
    /// have is refused while planning.
    #[must_use]
    pub fn starting_on(mut self, year: i32, month: u32, day: u32) -> Self {
        self.first = (year, month, day);
        self
    }

    fn window_of(&self, time: i64) -> Window {
        let (year, month, day) = self.first;
        let first = day_number(NaiveDate::from_ymd_opt(year, month, day).unwrap_or_default());
        let n_days = i64::from(self.n_days.max(1));
        let time = within_range(time);
        let guess = (self.zone.day_at(time) - first).div_euclid(n_days);
        window_at(time, guess, |n| self.zone.start_of(first + n * n_days))
    }
}

impl WindowFn for CalendarDays {
    fn describe(&self) -> Description {
        let (year, month, day) = self.first;
        Description::new(
            "calendar_days",
            json!({
                "n_days": self.n_days,
                "time_zone": self.zone.name(),
                "starting_on": format!("{year:04}-{month:02}-{day:02}"),
            }),
        )
    }

    fn check(&self) -> Result<()> {
        if self.n_days == 0 {
            return Err(Error::pipeline(
                "windows of calendar days must be of at least 1 day",
            ));
        }
        let (year, month, day) = self.first;
        if NaiveDate::from_ymd_opt(year, month, day).is_none() {
            return Err(Error::pipeline(format!(
                "windows of calendar days cannot start on {year:04}-{month:02}-{day:02}, which no calendar has"
            )));
        }
        self.zone.check()
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        windows.push(self.window_of(time));
    }

    fn overlaps(&self) -> bool {
        false
    }

    fn pane_of(&self, time: i64) -> Option<Window> {
        Some(self.window_of(time))
    }
}

/// Days since 1970.
pub(super) fn day_number(date: NaiveDate) -> i64 {
    i64::from(date.num_days_from_ce()) - i64::from(NaiveDate::default().num_days_from_ce())
}
