//! Counts, bytes, durations and times as people read them: three figures and a unit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const COUNTS: [&str; 5] = ["", " k", " M", " G", " T"];
const BYTES: [&str; 6] = [" B", " kB", " MB", " GB", " TB", " PB"];

/// A count in three figures: `999`, `12.6 M`. Below 10,000 all figures are shown, with a comma.
pub(crate) fn count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..10_000 => format!("{},{:03}", n / 1_000, n % 1_000),
        _ => scaled(n as f64, &COUNTS),
    }
}

/// A count with all its figures: `12,600,031`.
pub(crate) fn exact(n: u64) -> String {
    let figures = n.to_string();
    let mut text = String::with_capacity(figures.len() * 4 / 3);
    for (i, figure) in figures.chars().enumerate() {
        if i > 0 && (figures.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(figure);
    }
    text
}

/// Bytes in three figures and decimal units: `310 MB`.
pub(crate) fn bytes(n: u64) -> String {
    scaled(n as f64, &BYTES)
}

/// Rows a second in three figures: `2.1 M/s`; whole rows below 1,000.
pub(crate) fn rate(n: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return "-".into();
    }
    per_second(n as f64 / seconds)
}

/// A rate that is known already, as [`rate`] writes it.
pub(crate) fn per_second(rate: f64) -> String {
    let rate = if rate.is_finite() { rate.max(0.0) } else { 0.0 };
    match rate {
        r if r < 10.0 && r > 0.0 => format!("{r:.1}/s"),
        r => format!("{}/s", count(r.round() as u64)),
    }
}

/// A duration as a person says it: `340 µs`, `12 ms`, `3.2 s`, `1 min 5 s`, `2 h 3 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if time.is_zero() {
        "0 s".into()
    } else if seconds < 0.000_999_5 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 0.999_5 {
        format!("{} ms", three_figures(seconds * 1e3))
    } else if seconds < 59.95 {
        format!("{} s", three_figures(seconds))
    } else {
        let whole = seconds.round() as u64;
        let (hours, minutes, rest) = (whole / 3_600, whole / 60 % 60, whole % 60);
        match hours {
            0 => format!("{minutes} min {rest} s"),
            _ => format!("{hours} h {minutes} min"),
        }
    }
}

/// A part of a whole in per cent: `62 %`, `< 1 %` where it is little but not nothing.
pub(crate) fn share(part: f64) -> String {
    match part * 100.0 {
        p if !p.is_finite() || p <= 0.0 => "0 %".into(),
        p if p < 1.0 => "< 1 %".into(),
        p => format!("{p:.0} %"),
    }
}

/// A moment in UTC to the millisecond: `2026-11-24T19:12:01.123Z`.
pub(crate) fn moment(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    match arrow::temporal_conversions::timestamp_ms_to_datetime(ms) {
        Some(time) => format!("{}Z", time.format("%Y-%m-%dT%H:%M:%S%.3f")),
        None => "-".into(),
    }
}

fn scaled(value: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut place = 0;
    // What rounds to 1,000 is said in the next unit.
    while value >= 999.5 && place + 1 < units.len() {
        value /= 1_000.0;
        place += 1;
    }
    if place == 0 {
        return format!("{value:.0}{}", units[0]);
    }
    format!("{}{}", three_figures(value), units[place])
}

fn three_figures(value: f64) -> String {
    if value < 9.995 {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else if value < 99.95 {
        let text = format!("{value:.1}");
        text.trim_end_matches(".0").to_owned()
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<T>(say: impl Fn(T) -> String, values: impl IntoIterator<Item = T>) -> Vec<String> {
        values.into_iter().map(say).collect()
    }

    #[test]
    fn counts_have_three_figures_once_they_are_long() {
        let values = [0, 999, 1_000, 9_999, 10_000, 999_499, 999_500, 12_600_031];
        assert_eq!(
            all(count, values),
            [
                "0", "999", "1,000", "9,999", "10 k", "999 k", "1 M", "12.6 M"
            ]
        );
        assert_eq!(
            all(exact, [0, 999, 1_000, 12_600_031]),
            ["0", "999", "1,000", "12,600,031"]
        );
        assert_eq!(count(u64::MAX), "18446744 T");
    }

    #[test]
    fn bytes_are_decimal() {
        let values = [0, 999, 1_000, 1_500, 310_000_000, 1_999_000_000];
        assert_eq!(
            all(bytes, values),
            ["0 B", "999 B", "1 kB", "1.5 kB", "310 MB", "2 GB"]
        );
    }

    #[test]
    fn a_rate_without_time_is_not_known() {
        let second = Duration::from_secs(1);
        assert_eq!(rate(12, Duration::ZERO), "-");
        assert_eq!(rate(12, second * 5), "2.4/s");
        assert_eq!(rate(2_100_000, second), "2.1 M/s");
        assert_eq!(per_second(f64::NAN), "0/s");
    }

    #[test]
    fn durations_use_the_unit_a_person_would() {
        let of = |micros| duration(Duration::from_micros(micros));
        let values = [0, 340, 999_600, 12_000, 3_204_000, 59_960_000, 65_000_000];
        assert_eq!(
            all(of, values),
            [
                "0 s",
                "340 µs",
                "1 s",
                "12 ms",
                "3.2 s",
                "1 min 0 s",
                "1 min 5 s"
            ]
        );
        assert_eq!(duration(Duration::from_secs(7_380)), "2 h 3 min");
    }

    #[test]
    fn a_little_is_not_nothing() {
        assert_eq!(
            all(share, [0.0, 0.004, 0.62, 1.0, f64::NAN]),
            ["0 %", "< 1 %", "62 %", "100 %", "0 %"]
        );
    }

    #[test]
    fn moments_are_in_utc() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_547_521_123);
        assert_eq!(moment(time), "2026-11-24T19:12:01.123Z");
        assert_eq!(moment(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
