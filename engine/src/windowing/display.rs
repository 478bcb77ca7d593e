//! Windowing strategies in words, as plans and messages show them.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::{Accumulation, Closing, TimestampCombiner, Trigger, Windowing};
use crate::report::units;

/// The windows, then whatever is not the default: `fixed windows size_ms=60000, lateness 1 h, accumulating`.
impl fmt::Display for Windowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = self.window_fn.describe();
        match window.kind {
            "global" => f.write_str("one global window")?,
            kind => write!(f, "{kind} windows")?,
        }
        if let Value::Object(config) = &window.config {
            // An offset of nothing goes without saying.
            let said = |value: &Value| !value.is_null() && value.as_i64() != Some(0);
            for (name, value) in config.iter().filter(|(_, value)| said(value)) {
                match (name.strip_suffix("_ms"), value.as_i64()) {
                    (Some(name), Some(ms)) => write!(f, " {name}={}", of_ms(ms))?,
                    _ => match value {
                        Value::String(text) => write!(f, " {name}={text}")?,
                        other => write!(f, " {name}={other}")?,
                    },
                }
            }
        }
        if let Some(time) = &self.row_time {
            write!(f, " of the row time {time}")?;
        }
        if self.trigger != Trigger::Default {
            write!(f, ", fires {}", Fires(&self.trigger))?;
        }
        match self.accumulation {
            Accumulation::Discarding => {}
            Accumulation::Accumulating => f.write_str(", accumulating")?,
            Accumulation::AccumulatingAndRetracting => {
                f.write_str(", accumulating and retracting")?
            }
        }
        match self.timestamp_combiner {
            TimestampCombiner::EndOfWindow => {}
            TimestampCombiner::Earliest => f.write_str(", at the earliest row")?,
            TimestampCombiner::Latest => f.write_str(", at the latest row")?,
        }
        if self.allowed_lateness_ms > 0 {
            write!(f, ", lateness {}", of_ms(self.allowed_lateness_ms))?;
        }
        match self.closing {
            Closing::FireIfNonEmpty => Ok(()),
            Closing::FireAlways => f.write_str(", always fires when it closes"),
        }
    }
}

/// A trigger in words that follow `fires`.
struct Fires<'a>(&'a Trigger);

impl fmt::Display for Fires<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Trigger::Default => f.write_str("when the watermark passes its end, and for late rows"),
            Trigger::AfterWatermark { early, late } => {
                f.write_str("when the watermark passes its end")?;
                if let Some(early) = early {
                    write!(f, ", early {}", Fires(early))?;
                }
                late.as_ref()
                    .map_or(Ok(()), |late| write!(f, ", late {}", Fires(late)))
            }
            Trigger::AfterCount(n) => write!(f, "after {}", rows(*n)),
            Trigger::AfterProcessingTime { delay_ms } => {
                write!(f, "{} after its first row", of_ms(*delay_ms))
            }
            Trigger::Repeatedly(inner) => write!(f, "again and again {}", Fires(inner)),
            Trigger::AfterAny(all) => write!(f, "when any of ({})", list(all)),
            Trigger::AfterAll(all) => write!(f, "when all of ({})", list(all)),
            Trigger::AfterEach(all) => write!(f, "one after the other ({})", list(all)),
            Trigger::OrFinally(first, end) => {
                write!(f, "{}, at last {}", Fires(first), Fires(end))
            }
            Trigger::Never => f.write_str("never"),
        }
    }
}

fn list(all: &[Trigger]) -> String {
    let all: Vec<String> = all
        .iter()
        .map(|trigger| Fires(trigger).to_string())
        .collect();
    all.join("; ")
}

fn rows(n: u64) -> String {
    match n {
        1 => "1 row".into(),
        n => format!("{} rows", units::exact(n)),
    }
}

fn of_ms(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    match ms.unsigned_abs() {
        A_LONG_TIME_MS.. => "for ever".into(),
        ms => format!("{sign}{}", units::duration(Duration::from_millis(ms))),
    }
}

/// A thousand years.
const A_LONG_TIME_MS: u64 = 365 * 86_400_000 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn only_what_is_not_the_default_is_said() {
        let shown = [
            Windowing::global(),
            Windowing::global()
                .trigger(Trigger::after_count(1000).repeatedly())
                .accumulation(Accumulation::Accumulating)
                .allowed_lateness(Duration::from_secs(3600)),
            Windowing::global().trigger(
                Trigger::after_watermark()
                    .early(Trigger::after_processing_time(Duration::from_secs(5)))
                    .late(Trigger::after_count(1)),
            ),
            Windowing::global()
                .trigger(
                    Trigger::AfterAny(vec![Trigger::after_count(1), Trigger::Never])
                        .or_finally(Trigger::Default),
                )
                .timestamp_combiner(TimestampCombiner::Earliest)
                .accumulation(Accumulation::AccumulatingAndRetracting)
                .closing(Closing::FireAlways),
        ];
        let lines: Vec<String> = shown.iter().map(ToString::to_string).collect();
        expect![[r#"
            one global window
            one global window, fires again and again after 1,000 rows, accumulating, lateness 1 h 0 min
            one global window, fires when the watermark passes its end, early 5 s after its first row, late after 1 row
            one global window, fires when any of (after 1 row; never), at last when the watermark passes its end, and for late rows, accumulating and retracting, at the earliest row, always fires when it closes"#]]
        .assert_eq(&lines.join("\n"));
    }
}
