//! Windows of whole months on the calendar of a time zone.

use chrono::{Datelike, NaiveDate};
use serde_json::json;

use super::super::span::within_range;
use super::super::window::{Window, WindowFn};
use super::days::day_number;
use super::window_at;
use super::zone::{LAST_DAY, Zone};
use crate::error::{Error, Result};
use crate::transform::Description;

/// Windows of whole months in a time zone, from midnight to midnight; twelve of them are a year.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalendarMonths {
    n_months: u32,
    zone: Zone,
    first: (i32, u32),
    day: u32,
}

impl CalendarMonths {
    /// Windows of this many months in UTC, one of which starts on 1970-01-01.
    pub fn of(n_months: u32) -> Self {
        Self {
            n_months,
            zone: Zone::utc(),
            first: (1970, 1),
            day: 1,
        }
    }

    /// Sets the time zone by its IANA name, such as "Europe/Berlin". An unknown one is refused while planning.
    #[must_use]
    pub fn in_zone(mut self, name: impl Into<String>) -> Self {
        self.zone = Zone::named(name.into());
        self
    }

    /// Sets a month in which a window starts, so that years start in April.
    #[must_use]
    pub fn starting_in(mut self, year: i32, month: u32) -> Self {
        self.first = (year, month);
        self
    }

    /// Sets the day of the month on which windows start, 1 by default and at most 28.
    #[must_use]
    pub fn on_day(mut self, day: u32) -> Self {
        self.day = day;
        self
    }

    fn window_of(&self, time: i64) -> Window {
        let (year, month) = self.first;
        let n_months = i64::from(self.n_months.max(1));
        let first = month_number(year, month.clamp(1, 12));
        let day = self.day.clamp(1, 28);
        let time = within_range(time);
        let guess = (month_of(self.zone.day_at(time), day) - first).div_euclid(n_months);
        window_at(time, guess, |n| {
            self.zone
                .start_of(start_of_month(first + n * n_months, day))
        })
    }
}

impl WindowFn for CalendarMonths {
    fn describe(&self) -> Description {
        let (year, month) = self.first;
        Description::new(
            "calendar_months",
            json!({
                "n_months": self.n_months,
                "time_zone": self.zone.name(),
                "starting_on": format!("{year:04}-{month:02}-{:02}", self.day),
            }),
        )
    }

    fn check(&self) -> Result<()> {
        if self.n_months == 0 {
            return Err(Error::pipeline(
                "windows of calendar months must be of at least 1 month",
            ));
        }
        let (year, month) = self.first;
        if NaiveDate::from_ymd_opt(year, month, 1).is_none() {
            return Err(Error::pipeline(format!(
                "windows of calendar months cannot start in {year:04}-{month:02}, which no calendar has"
            )));
        }
        if !(1..=28).contains(&self.day) {
            return Err(Error::pipeline(format!(
                "windows of calendar months cannot start on day {}, which not every month has",
                self.day
            ))
            .with_hint("Choose a day from 1 to 28."));
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

/// Months since the year 0.
fn month_number(year: i32, month: u32) -> i64 {
    i64::from(year) * 12 + i64::from(month) - 1
}

/// The month that has begun on its day `day` by the day with this number.
fn month_of(day_of_all: i64, day: u32) -> i64 {
    let since_ce = day_of_all + i64::from(NaiveDate::default().num_days_from_ce());
    let date = i32::try_from(since_ce)
        .ok()
        .and_then(NaiveDate::from_num_days_from_ce_opt)
        .unwrap_or_default();
    month_number(date.year(), date.month()) - i64::from(date.day() < day)
}

/// The number of the day on which a month starts; one beyond the last where the calendar ends before.
fn start_of_month(month: i64, day: u32) -> i64 {
    let year = i32::try_from(month.div_euclid(12)).ok();
    let of_year = u32::try_from(month.rem_euclid(12) + 1).ok();
    year.zip(of_year)
        .and_then(|(year, of_year)| NaiveDate::from_ymd_opt(year, of_year, day))
        .map_or((LAST_DAY + 1) * month.signum(), day_number)
}
