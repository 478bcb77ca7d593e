//! Apache Beam's transcripts of triggers, played to the aggregation in windows.
//!
//! A transcript tells what happens, an action after the other: rows come (`input`, a row for each time), the
//! watermark or the clock moves, and what has left since the last action (`expect`, each of the panes in part).
//! Each is played with other divisions of the rows, on three workers, and with restarts after each action.
//! What is not expected at once is an error, at the end too; documents with `error:` must fail with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMillisecondType};
use mainstem::engine::StatePart;
use mainstem::engine::aggregates::array_agg;
use mainstem::engine::event_time::{EVENT_TIME, PANE, WINDOW_END, WINDOW_START, time_field};
use mainstem::engine::expression::cast;
use mainstem::engine::testing::{Script, scripted_with, simulate};
use mainstem::engine::windowing::{Accumulation, TimestampCombiner, Windowing};
use mainstem::prelude::*;
use serde_json::{Map, Value, json};

use self::python::SECOND;

mod python;

/// A transcript, and how to play it.
struct Transcript {
    windowing: Windowing,
    /// How much later than by the windowing results are.
    moved_by: Duration,
    actions: Vec<(String, Value)>,
    error: Option<String>,
}

impl Transcript {
    fn new(document: &Value) -> Result<Self, String> {
        let text = |key: &str, default: &str| {
            let found = document.get(key).and_then(Value::as_str);
            found.unwrap_or(default).to_owned()
        };
        let accumulation = match &*text("accumulation_mode", "accumulating").to_lowercase() {
            "accumulating" => Accumulation::Accumulating,
            "discarding" => Accumulation::Discarding,
            other => return Err(format!("unknown accumulation mode {other}")),
        };
        let combiner = match &*text("timestamp_combiner", "OUTPUT_AT_EOW").to_uppercase() {
            "OUTPUT_AT_EOW" => TimestampCombiner::EndOfWindow,
            "OUTPUT_AT_EARLIEST" | "OUTPUT_AT_EARLIEST_TRANSFORMED" => TimestampCombiner::Earliest,
            "OUTPUT_AT_LATEST" => TimestampCombiner::Latest,
            other => return Err(format!("unknown timestamp combiner {other}")),
        };
        // The windows say which time a row counts with, in Beam's Python alone; the only ones that do move all
        // times alike, so the earliest time that is moved is the earliest time, moved.
        let windows = text("window_fn", "GlobalWindows");
        let moved_by = match &*text("timestamp_combiner", "").to_uppercase() {
            "OUTPUT_AT_EARLIEST_TRANSFORMED" => python::moved_by(&windows)?,
            _ => Duration::ZERO,
        };
        let lateness = document.get("allowed_lateness").and_then(Value::as_f64);
        let windowing = python::windows(&windows)?
            .trigger(python::trigger(&text("trigger_fn", "Default"))?)
            .accumulation(accumulation)
            .timestamp_combiner(combiner)
            .allowed_lateness(Duration::from_secs_f64(lateness.unwrap_or(0.0)))
            // As Beam does for its own: some of the triggers finish.
            .allow_data_loss(true);
        let actions = document.get("transcript").and_then(Value::as_array);
        let actions = actions.ok_or("no transcript")?;
        let only = |action: &Value| -> Result<(String, Value), String> {
            let mut entries = action.as_object().into_iter().flatten();
            match (entries.next(), entries.next()) {
                (Some((name, value)), None) => Ok((name.clone(), value.clone())),
                _ => Err(format!("not one action: {action}")),
            }
        };
        Ok(Self {
            windowing,
            moved_by,
            actions: actions.iter().map(only).collect::<Result<_, _>>()?,
            error: document
                .get("error")
                .and_then(Value::as_str)
                .map(Into::into),
        })
    }

    /// True if the result cannot depend on the order of rows and how they are divided into batches.
    fn is_order_agnostic(&self) -> bool {
        let json = self.windowing.to_json();
        json["trigger"] == "default" && json["accumulation"] == "accumulating"
    }

    /// Plays it in a way; the error is that of Beam's test.
    fn play(&self, way: Way) -> Result<(), String> {
        let (script, ends) = self.script(way)?;
        let n_workers = way.n_workers();
        let simulated =
            simulate(&self.pipeline(), &script, n_workers, 7).map_err(|error| error.report())?;
        let mut left = simulated.steps("out").iter();
        let mut panes: Vec<Map<String, Value>> = Vec::new();
        let mut step = 0;
        for ((action, value), end) in self.actions.iter().zip(ends) {
            if action != "expect" && !panes.is_empty() {
                return Err(format!(
                    "Unexpected output: {panes:?} before {action}: {value}"
                ));
            }
            for rows in left.by_ref().take(end - step).flatten() {
                panes.extend(panes_of(rows));
            }
            step = end;
            match action.as_str() {
                "expect" => take_expected(value, &mut panes)?,
                "state" => {
                    let nodes = ["grouped/partial", "grouped"];
                    let parts = nodes.map(|node| simulated.saved(end - 1, node).to_vec());
                    check_state(value, &parts.concat())?;
                }
                _ => {}
            }
        }
        match panes.is_empty() {
            true => Ok(()),
            false => Err(format!("Unexpected output: {panes:?}")),
        }
    }

    /// What happens, and how many steps that are by the end of each action.
    fn script(&self, way: Way) -> Result<(Script, Vec<usize>), String> {
        let mut script = Script::new();
        let (mut clock, mut n_steps, mut ends) = (0, 0, Vec::new());
        for (action, value) in &self.actions {
            match action.as_str() {
                "input" => {
                    for times in way.batches(&numbers(value)?) {
                        script = script.batch("rows", way.split(n_steps), rows(&times));
                        n_steps += 1;
                    }
                }
                "watermark" => {
                    script = script.watermark("rows", number(value)? * SECOND);
                    n_steps += 1;
                }
                "clock" | "processing_time" => {
                    clock += number(value)? * SECOND;
                    script = script.processing_time(clock);
                    n_steps += 1;
                }
                "expect" => {}
                // The state is seen where everything goes on from it.
                "state" => {
                    script = script.restart(way.n_workers());
                    n_steps += 1;
                }
                other => return Err(format!("Unknown action: {other}")),
            }
            if way == Way::Restarted {
                script = script.restart(1 + n_steps % 3);
                n_steps += 1;
            }
            ends.push(n_steps);
        }
        Ok((script, ends))
    }

    fn pipeline(&self) -> Pipeline {
        let pipeline = Pipeline::new("transcript");
        let (sink, _) = connectors::collect();
        let grouped = pipeline
            .read("rows", scripted_with(rows(&[]).schema()))
            .window(self.windowing.clone())
            .named("grouped")
            .group_by([col("key")])
            .agg([array_agg(col("value")).alias("values")]);
        let made = match i64::try_from(self.moved_by.as_millis()) {
            Ok(ms) if ms > 0 => {
                let time = cast(col(EVENT_TIME), DataType::Int64) + lit(ms);
                grouped.with_timestamps(time)
            }
            _ => grouped,
        };
        made.named("out").write(sink);
        pipeline
    }
}

/// How rows are divided into batches.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    AsWritten,
    /// By splits on three workers in turn.
    OnThreeWorkers,
    /// All is saved after each action, and goes on from there with another number of workers.
    Restarted,
    Reversed,
    OneByOne,
    OneByOneReversed,
    TwoByTwo,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::AsWritten,
        Self::OnThreeWorkers,
        Self::Restarted,
        Self::Reversed,
        Self::OneByOne,
        Self::OneByOneReversed,
        Self::TwoByTwo,
    ];

    fn keeps_batches(self) -> bool {
        matches!(
            self,
            Self::AsWritten | Self::OnThreeWorkers | Self::Restarted
        )
    }

    fn n_workers(self) -> usize {
        if self == Self::OnThreeWorkers { 3 } else { 1 }
    }

    fn split(self, n_steps: usize) -> u32 {
        let turn = u32::try_from(n_steps % 3).unwrap_or(0);
        if self == Self::OnThreeWorkers {
            turn
        } else {
            0
        }
    }

    fn batches(self, times: &[i64]) -> Vec<Vec<i64>> {
        let mut times = times.to_vec();
        if matches!(self, Self::Reversed | Self::OneByOneReversed) {
            times.reverse();
        }
        let n_rows = match self {
            Self::OneByOne | Self::OneByOneReversed => 1,
            Self::TwoByTwo => 2,
            _ => times.len().max(1),
        };
        times.chunks(n_rows).map(<[i64]>::to_vec).collect()
    }
}

/// A row for each time, all of one key.
fn rows(times: &[i64]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["key"; times.len()])),
        Arc::new(Int64Array::from(times.to_vec())),
        Arc::new(TimestampMillisecondArray::from_iter_values(
            times.iter().map(|time| time * SECOND),
        )),
    ];
    let fields = vec![
        Arc::new(Field::new("key", DataType::Utf8, false)),
        Arc::new(Field::new("value", DataType::Int64, false)),
        time_field(EVENT_TIME),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn number(value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or(format!("not a number: {value}"))
}

fn numbers(value: &Value) -> Result<Vec<i64>, String> {
    let all = value.as_array().ok_or(format!("not a list: {value}"))?;
    all.iter().map(number).collect()
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    rows.column_by_name(name)
        .unwrap_or_else(|| panic!("there is a column {name}"))
}

fn seconds(rows: &RecordBatch, name: &str) -> Vec<i64> {
    let times = column(rows, name).as_primitive::<TimestampMillisecondType>();
    times.values().iter().copied().collect()
}

/// What has left, as transcripts tell it.
fn panes_of(rows: &RecordBatch) -> Vec<Map<String, Value>> {
    let starts = seconds(rows, WINDOW_START);
    let ends = seconds(rows, WINDOW_END);
    let times = seconds(rows, EVENT_TIME);
    let lists = column(rows, "values").as_list::<i32>();
    let pane = rows.column_by_name(PANE).map(|pane| pane.as_struct());
    let of_pane = |name: &str| -> Option<&ArrayRef> { pane?.column_by_name(name) };
    let pane_number = |name: &str, row: usize| {
        of_pane(name).map_or(0, |column| column.as_primitive::<Int64Type>().value(row))
    };
    let timing = |row: usize| {
        of_pane("timing").map_or("on_time".to_owned(), |column| {
            let text = arrow::compute::cast(column, &DataType::Utf8).unwrap();
            text.as_string::<i32>().value(row).to_owned()
        })
    };
    // A window that may fire only once has no pane: Beam's default trigger never says that it is the last.
    let is_last = |row| of_pane("is_last").is_some_and(|column| column.as_boolean().value(row));
    (0..rows.num_rows())
        .map(|row| {
            let mut values: Vec<i64> = match lists.is_null(row) {
                true => Vec::new(),
                false => lists
                    .value(row)
                    .as_primitive::<Int64Type>()
                    .values()
                    .to_vec(),
            };
            values.sort_unstable();
            let info = json!({
                "window": [starts[row] / SECOND, (ends[row] - 1) / SECOND],
                "values": values,
                "timestamp": times[row] / SECOND,
                "index": pane_number("index", row),
                "nonspeculative_index": pane_number("nonspeculative_index", row),
                "early": timing(row) == "early",
                "late": timing(row) == "late",
                "final": is_last(row),
            });
            info.as_object().cloned().unwrap_or_default()
        })
        .collect()
}

/// Takes out of `panes` one for each that is expected.
fn take_expected(value: &Value, panes: &mut Vec<Map<String, Value>>) -> Result<(), String> {
    for expected in value.as_array().ok_or(format!("not a list: {value}"))? {
        let agrees = |pane: &Map<String, Value>| {
            pane.iter()
                .all(|(key, value)| expected.get(key).is_none_or(|expected| expected == value))
        };
        match panes.iter().position(agrees) {
            Some(at) => panes.remove(at),
            None => return Err(format!("Unmatched output {expected} in {panes:?}")),
        };
    }
    Ok(())
}

/// What is remembered of a window.
#[derive(Debug, Default)]
struct Remembered {
    has_rows: bool,
    is_finished: bool,
}

/// Looks windows up in a snapshot: `present` ones have rows, `absent` ones none, and a `tombstone` is a window
/// that has none because it has finished.
///
/// Beam's tests pass these lines over. The one transcript that has them keeps the watermark where it was, so
/// that even a window that is called absent cannot have been forgotten: another row of it would be dropped
/// for its having finished.
fn check_state(value: &Value, parts: &[StatePart]) -> Result<(), String> {
    let remembered = |start: i64, end: i64| {
        let mut found = Remembered::default();
        for part in parts {
            if part.rows.column_by_name(WINDOW_START).is_none() {
                continue;
            }
            let edges = seconds(&part.rows, WINDOW_START)
                .into_iter()
                .zip(seconds(&part.rows, WINDOW_END));
            let flag = |name: &str, row: usize, default: bool| {
                let column = part.rows.column_by_name(name);
                column.map_or(default, |column| column.as_boolean().value(row))
            };
            for (row, (of_start, of_end)) in edges.enumerate() {
                // Rows of slices belong to all windows over them.
                if start <= of_start && of_end <= end {
                    found.has_rows |= flag("has_state", row, true);
                    found.is_finished |= flag("is_finished", row, false);
                }
            }
        }
        found
    };
    for (what, fits) in [
        (
            "present",
            (|it| it.has_rows && !it.is_finished) as fn(&Remembered) -> bool,
        ),
        ("absent", |it| !it.has_rows),
        ("tombstone", |it| !it.has_rows && it.is_finished),
    ] {
        let windows = value.get(what).and_then(Value::as_array);
        for window in windows.into_iter().flatten() {
            let [start, last] = numbers(window)?[..] else {
                return Err(format!("not a window: {window}"));
            };
            let found = remembered(start * SECOND, (last + 1) * SECOND);
            if !fits(&found) {
                return Err(format!("window {window} is not {what}: {found:?}"));
            }
        }
    }
    Ok(())
}

/// Plays a document in all ways that it allows; why it does not pass, if it does not.
fn check(document: &Value) -> Result<(), String> {
    let transcript = Transcript::new(document)?;
    for way in Way::ALL {
        if !way.keeps_batches() && !transcript.is_order_agnostic() {
            continue;
        }
        match (transcript.play(way), &transcript.error) {
            (Ok(()), None) => {}
            (Err(found), Some(expected)) if found.contains(expected) => {}
            (Ok(()), Some(expected)) => {
                return Err(format!(
                    "played {way:?} it passes, which should fail: {expected}"
                ));
            }
            (Err(found), None) => return Err(format!("played {way:?}: {found}")),
            (Err(found), Some(expected)) => {
                return Err(format!(
                    "played {way:?}: expected {expected}, found {found}"
                ));
            }
        }
    }
    Ok(())
}

/// The documents of a file. Python's YAML takes `key:[` and `key:{` in a line of entries, which YAML 1.2 does not.
fn documents(text: &str) -> Vec<Value> {
    let text = text.replace(":[", ": [").replace(":{", ": {");
    serde_saphyr::from_multiple(&text).unwrap()
}

/// Names of documents that do not pass, with the reason.
fn failures(text: &str) -> (usize, Vec<String>) {
    let documents = documents(text);
    let failures = documents.iter().filter_map(|document| {
        let name = document.get("name").and_then(Value::as_str);
        let name = name.unwrap_or("unnamed");
        let checked = check(document);
        println!(
            "{name}: {}",
            if checked.is_ok() { "passes" } else { "fails" }
        );
        checked.err().map(|reason| format!("{name}: {reason}"))
    });
    (documents.len(), failures.collect())
}

/// The file with transcripts; `None`, aloud, where it is not there and no other was named.
fn transcripts() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MAINSTEM_TRANSCRIPTS") {
        return Some(PathBuf::from(path));
    }
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/beam/trigger_transcripts.yaml");
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: no file {}", path.display());
    None
}

#[test]
fn beams_transcripts_of_triggers_pass() {
    let Some(path) = transcripts() else { return };
    let (n_documents, failures) = failures(&std::fs::read_to_string(path).unwrap());
    assert!(n_documents > 0, "the file has documents");
    assert!(
        failures.is_empty(),
        "{} of {n_documents} transcripts do not pass:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// As Beam's `CustomTimestampingFixedWindowsWindowFn` of trigger_test.py has it, whose times are 100 seconds later:
/// only the combiner that is said to be transformed asks for them.
#[test]
fn windows_that_move_times_are_asked_only_where_the_combiner_says_so() {
    let with = |combiner: &str, times: [i64; 2]| {
        let [first, second] = times;
        format!(
            "name: {combiner}\nwindow_fn: CustomTimestampingFixedWindowsWindowFn(10)\ntrigger_fn: Default\ntimestamp_combiner: {combiner}\ntranscript:\n  - input: [4, 2, 17]\n  - watermark: 50\n  - expect:\n      - {{window: [0, 9], values: [2, 4], timestamp: {first}}}\n      - {{window: [10, 19], values: [17], timestamp: {second}}}\n"
        )
    };
    for (combiner, times, wrong) in [
        ("OUTPUT_AT_EARLIEST_TRANSFORMED", [102, 117], [2, 17]),
        ("OUTPUT_AT_EARLIEST", [2, 17], [102, 117]),
        ("OUTPUT_AT_EOW", [9, 19], [109, 119]),
    ] {
        assert_eq!(failures(&with(combiner, times)), (1, Vec::new()));
        assert_eq!(failures(&with(combiner, wrong)).1.len(), 1, "{combiner}");
    }
    let others = with("OUTPUT_AT_EARLIEST_TRANSFORMED", [102, 117]);
    let others = others.replace("CustomTimestampingFixedWindowsWindowFn", "FixedWindows");
    assert_eq!(
        failures(&others).1,
        ["OUTPUT_AT_EARLIEST_TRANSFORMED: FixedWindows moves no times"]
    );
}

#[test]
fn what_is_wrong_in_a_transcript_is_found() {
    let play = |text: &str| {
        Transcript::new(&documents(text)[0]).and_then(|transcript| transcript.play(Way::AsWritten))
    };
    let with = |lines: &str| {
        format!(
            "window_fn: FixedWindows(10)\ntrigger_fn: AfterWatermark(early=AfterCount(2))\naccumulation_mode: discarding\ntranscript:\n{lines}"
        )
    };
    let rows = "  - input: [1, 2]\n";
    for (lines, expected) in [
        (
            "  - expect: [{window: [0, 9], values:[1, 2], early: true, index: 0, final: false}]",
            "",
        ),
        ("  - expect: [{values: [1]}]", "Unmatched output"),
        (
            "  - expect: [{values: [1, 2]}, {values: [1, 2]}]",
            "Unmatched output",
        ),
        ("  - expect: []", "Unexpected output"),
        ("  - watermark: 5", "before watermark"),
        (
            "  - expect: [{}]\n  - state: {present: [[0, 9]]}",
            "is not present",
        ),
        (
            "  - expect: [{}]\n  - state: {tombstone: [[0, 9]]}",
            "is not tombstone",
        ),
        ("  - expect: [{}]\n  - state: {absent: [[0, 9]]}", ""),
        (
            "  - expect: [{}]\n  - input: [3]\n  - state: {absent: [[0, 9]]}",
            "is not absent",
        ),
        (
            "  - expect: [{}]\n  - input: [3]\n  - state: {present: [[0, 9]]}",
            "",
        ),
        ("  - expect: [{}]\n  - jump: 3", "Unknown action"),
    ] {
        let found = play(&with(&format!("{rows}{lines}")));
        match expected {
            "" => assert_eq!(found, Ok(()), "{lines}"),
            expected => assert!(
                found.as_ref().is_err_and(|error| error.contains(expected)),
                "{lines} should fail with {expected}, found {found:?}"
            ),
        }
    }
    let clock = "window_fn: FixedWindows(10)\ntrigger_fn: AfterProcessingTime(5)\ntranscript:\n  - input: [1]\n  - clock: 4\n  - input: [2]\n  - clock: 1\n  - expect: [{values: [1, 2], early: true, final: true}]";
    assert_eq!(play(clock), Ok(()));
}
