//! The days of a time zone as spans of time.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::error::{Error, Result};
use crate::event_time::{MAX_TIME, MIN_TIME};

/// Days this far from 1970 are the first and the last: beyond them, some 200,000 years away, the calendar has
/// only "before" and "after".
pub(super) const LAST_DAY: i64 = 73_000_000;

const DAY_SECONDS: i64 = 86_400;

/// A time zone by its IANA name; an unknown one is kept as UTC, and refused while planning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    name: String,
    tz: Tz,
}

impl Zone {
    pub(super) fn utc() -> Self {
        Self::named("UTC".into())
    }

    pub(super) fn named(name: String) -> Self {
        let tz = name.parse().unwrap_or(Tz::UTC);
        Self { name, tz }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.name.parse::<Tz>() {
            Ok(_) => Ok(()),
            Err(_) => Err(
                Error::pipeline(format!("there is no time zone \"{}\"", self.name))
                    .with_hint("Name it as in the IANA database, such as \"Europe/Berlin\"."),
            ),
        }
    }

    /// The day that a calendar on the wall shows at `time`, in days since 1970.
    pub(super) fn day_at(&self, time: i64) -> i64 {
        let seconds = time.div_euclid(1000);
        let day = (seconds + self.offset_at(seconds)).div_euclid(DAY_SECONDS);
        day.clamp(-LAST_DAY - 1, LAST_DAY)
    }

    /// The first instant of a day: midnight, the earlier one where there are two, or the end of the gap where
    /// clocks skip it. A day that a zone has skipped whole starts and ends at once.
    pub(super) fn start_of(&self, day: i64) -> i64 {
        if day < -LAST_DAY {
            return MIN_TIME;
        }
        if day > LAST_DAY {
            return MAX_TIME + 1;
        }
        let midnight = day * DAY_SECONDS;
        let seconds = match self.tz.from_local_datetime(&calendar_time(midnight)) {
            MappedLocalTime::Single(time) => time.timestamp(),
            MappedLocalTime::Ambiguous(one, other) => one.timestamp().min(other.timestamp()),
            MappedLocalTime::None => self.end_of_gap(midnight),
        };
        seconds * 1000
    }

    /// The instant at which clocks are put forward over this local time.
    fn end_of_gap(&self, local: i64) -> i64 {
        // Offsets and gaps are of a day at most.
        let (mut before, mut after) = (local - 2 * DAY_SECONDS, local + 2 * DAY_SECONDS);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if middle + self.offset_at(middle) < local {
                before = middle;
            } else {
                after = middle;
            }
        }
        after
    }

    fn offset_at(&self, seconds: i64) -> i64 {
        let offset = self.tz.offset_from_utc_datetime(&calendar_time(seconds));
        i64::from(offset.fix().local_minus_utc())
    }
}

/// Seconds since 1970 as a date and a time; those beyond the last day as that.
fn calendar_time(seconds: i64) -> NaiveDateTime {
    let last = (LAST_DAY + 2) * DAY_SECONDS;
    DateTime::from_timestamp(seconds.clamp(-last, last), 0)
        .unwrap_or_default()
        .naive_utc()
}
