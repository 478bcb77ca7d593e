//! The little of Python in which Apache Beam's transcripts name windows and triggers.

use std::time::Duration;

use mainstem::engine::Trigger;
use mainstem::engine::windowing::{FixedWindows, Sessions, SlidingWindows, Windowing};

/// Transcripts count in seconds.
pub(crate) const SECOND: i64 = 1000;

/// `AfterWatermark(early=AfterCount(2))`, `Default`, `10`.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(i64),
    Call {
        name: String,
        positional: Vec<Value>,
        named: Vec<(String, Value)>,
    },
}

/// The windows that a transcript names.
pub(crate) fn windows(text: &str) -> Result<Windowing, String> {
    let value = parse(text)?;
    let call = Call::new(&value)?;
    Ok(match call.name {
        "GlobalWindows" => Windowing::global(),
        // The second is Beam's, for its tests: see `moved_by`.
        "FixedWindows" | "CustomTimestampingFixedWindowsWindowFn" => {
            let windows = FixedWindows::of(call.seconds("size", 0)?);
            Windowing::of(windows.offset(call.seconds_or_zero("offset", 1)?))
        }
        "SlidingWindows" => {
            let windows = SlidingWindows::of(call.seconds("size", 0)?);
            let windows = windows.every(call.seconds("period", 1)?);
            Windowing::of(windows.offset(call.seconds_or_zero("offset", 2)?))
        }
        "Sessions" => Windowing::of(Sessions::with_gap(call.seconds("gap_size", 0)?)),
        name => return Err(format!("Unknown function: {name}")),
    })
}

/// How much later than it is these windows say that a row counts.
pub(crate) fn moved_by(windows: &str) -> Result<Duration, String> {
    let value = parse(windows)?;
    match Call::new(&value)?.name {
        "CustomTimestampingFixedWindowsWindowFn" => Ok(Duration::from_secs(100)),
        name => Err(format!("{name} moves no times")),
    }
}

/// The trigger that a transcript names.
pub(crate) fn trigger(text: &str) -> Result<Trigger, String> {
    trigger_of(&parse(text)?)
}

fn trigger_of(value: &Value) -> Result<Trigger, String> {
    let call = Call::new(value)?;
    let all =
        || -> Result<Vec<Trigger>, String> { call.positional.iter().map(trigger_of).collect() };
    let inner = |name: &str, place: usize| -> Result<Trigger, String> {
        trigger_of(call.argument(name, place).ok_or(format!("no {name}"))?)
    };
    Ok(match call.name {
        "Default" | "DefaultTrigger" => Trigger::Default,
        "AfterWatermark" => {
            let mut trigger = Trigger::after_watermark();
            if let Some(early) = call.argument("early", 0) {
                trigger = trigger.early(trigger_of(early)?);
            }
            if let Some(late) = call.argument("late", 1) {
                trigger = trigger.late(trigger_of(late)?);
            }
            trigger
        }
        "AfterCount" => {
            let n_rows = call.number("count", 0)?;
            Trigger::after_count(u64::try_from(n_rows).map_err(|e| e.to_string())?)
        }
        "AfterProcessingTime" => Trigger::after_processing_time(call.seconds_or_zero("delay", 0)?),
        "Repeatedly" => inner("underlying", 0)?.repeatedly(),
        "AfterAny" => Trigger::after_any(all()?),
        "AfterAll" => Trigger::after_all(all()?),
        "AfterEach" => Trigger::after_each(all()?),
        "OrFinally" => inner("main", 0)?.or_finally(inner("finally", 1)?),
        "Always" => Trigger::always(),
        "_Never" => Trigger::Never,
        name => return Err(format!("Unknown function: {name}")),
    })
}

struct Call<'a> {
    name: &'a str,
    positional: &'a [Value],
    named: &'a [(String, Value)],
}

impl<'a> Call<'a> {
    fn new(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::Call {
                name,
                positional,
                named,
            } => Ok(Self {
                name,
                positional,
                named,
            }),
            Value::Number(number) => Err(format!("Unknown function: {number}")),
        }
    }

    fn argument(&self, name: &str, place: usize) -> Option<&'a Value> {
        let named = self.named.iter().find(|(known, _)| known == name);
        self.positional.get(place).or(named.map(|(_, value)| value))
    }

    fn number(&self, name: &str, place: usize) -> Result<i64, String> {
        match self.argument(name, place) {
            Some(Value::Number(number)) => Ok(*number),
            other => Err(format!("{name} must be a number, found {other:?}")),
        }
    }

    fn seconds(&self, name: &str, place: usize) -> Result<Duration, String> {
        let seconds = self.number(name, place)?;
        u64::try_from(seconds)
            .map(Duration::from_secs)
            .map_err(|_| format!("{name} must not be below zero, found {seconds}"))
    }

    fn seconds_or_zero(&self, name: &str, place: usize) -> Result<Duration, String> {
        match self.argument(name, place) {
            Some(_) => self.seconds(name, place),
            None => Ok(Duration::ZERO),
        }
    }
}

fn parse(text: &str) -> Result<Value, String> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Ok(Value::Number(number));
    }
    let (name, arguments) = match text.split_once('(') {
        None => (text, None),
        Some((name, rest)) => {
            let inside = rest.strip_suffix(')').ok_or(format!("no end: {text}"))?;
            (name.trim(), Some(inside))
        }
    };
    let (mut positional, mut named) = (Vec::new(), Vec::new());
    for argument in arguments.into_iter().flat_map(split_arguments) {
        let is_name = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
        match argument
            .split_once('=')
            .filter(|(name, _)| is_name(name.trim()))
        {
            Some((name, value)) => named.push((name.trim().to_owned(), parse(value)?)),
            None if argument.trim().is_empty() => {}
            None => positional.push(parse(argument)?),
        }
    }
    Ok(Value::Call {
        name: name.to_owned(),
        positional,
        named,
    })
}

/// `a, f(b, c)` at the commas outside of brackets.
fn split_arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[test]
fn python_is_read_as_far_as_transcripts_need() {
    let read = |text| trigger(text).map(|trigger| trigger.to_string());
    for (text, expected) in [
        ("Default", "Default"),
        ("AfterWatermark()", "AfterWatermark"),
        (
            "AfterWatermark(early=AfterCount(3), late = Repeatedly(AfterAny(AfterCount(1), AfterProcessingTime(2))))",
            "AfterWatermark(early=AfterCount(3), late=Repeatedly(AfterAny(AfterCount(1), AfterProcessingTime(2000 ms))))",
        ),
        (
            "AfterEach(AfterAll(AfterCount(1), AfterWatermark), _Never)",
            "AfterEach(AfterAll(AfterCount(1), AfterWatermark), Never)",
        ),
    ] {
        assert_eq!(read(text), Ok(expected.to_owned()));
    }
    for text in [
        "AfterCout(3)",
        "AfterCount(3",
        "AfterCount(x)",
        "10",
        "AfterCount(-1)",
    ] {
        assert!(trigger(text).is_err(), "{text}");
    }
    assert_eq!(
        windows("SlidingWindows(size=10, period=5)"),
        Ok(Windowing::sliding(
            Duration::from_secs(10),
            Duration::from_secs(5)
        ))
    );
}
