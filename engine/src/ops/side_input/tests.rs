//! Both ways to run a side input, streaming and learned, against a plain search, row by row.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Field, Int64Type, Schema, SchemaRef};
use datafusion_expr::Expr;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::{SideInput, WithSideInput};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::connectors;
use crate::event_time::{EVENT_TIME, WINDOW_END, WINDOW_START, time_field, time_type};
use crate::expression::{col, lit};
use crate::ops::Watermarks;
use crate::output::{OnBadRow, Output};
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::state::StatePart;
use crate::testing::{Laws, Script, check_operator, scripted, show_rows, simulate, table};
use crate::transform::{Description, Operator, Transform, Watermark};
use crate::windowing::{FixedWindows, Trigger, Window, WindowFn, Windowing};
use crate::{Pipeline, RunOptions};

/// Windows of one size, one after the other or overlapping.
#[derive(Debug)]
pub(super) struct Every {
    pub(super) size: i64,
    pub(super) period: i64,
}

impl WindowFn for Every {
    fn describe(&self) -> Description {
        Description::new("every", json!({ "size": self.size, "period": self.period }))
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        let last = time - time.rem_euclid(self.period);
        let starts = (0..)
            .map(|n| last - n * self.period)
            .take_while(|start| start + self.size > time);
        windows.extend(starts.map(|start| Window {
            start,
            end: start + self.size,
        }));
        windows.reverse();
    }

    fn pane_of(&self, time: i64) -> Option<Window> {
        let start = time - time.rem_euclid(self.period);
        Some(Window {
            start,
            end: start + self.period,
        })
    }
}

#[derive(Debug)]
struct Merging;

impl WindowFn for Merging {
    fn describe(&self) -> Description {
        Description::new("sessions", serde_json::Value::Null)
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        windows.push(Window {
            start: time,
            end: time + 10,
        });
    }

    fn is_merging(&self) -> bool {
        true
    }
}

pub(super) fn fixed(size: i64) -> Windowing {
    Windowing::of(Every { size, period: size })
}

pub(super) fn sliding(size: i64, period: i64) -> Windowing {
    Windowing::of(Every { size, period })
}

/// A table whose columns of time are times.
pub(super) fn timed(text: &str) -> RecordBatch {
    let rows = table(text);
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if [EVENT_TIME, WINDOW_START, WINDOW_END].contains(&field.name().as_str()) {
            fields.push(time_field(field.name()));
            let numbers = cast(column, &arrow::datatypes::DataType::Int64).unwrap();
            columns.push(cast(&numbers, &time_type()).unwrap());
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// What happens to an operator.
#[derive(Clone, Debug)]
enum Event {
    Rows(usize, RecordBatch),
    Watermark(usize, i64),
}

/// An operator at work, and what it has given.
struct Driven {
    operator: Box<dyn Operator>,
    out: Output,
    made: Vec<(usize, RecordBatch)>,
    watermarks: [i64; 2],
    /// Of what the operator says stands behind it.
    promised: i64,
}

impl Driven {
    fn new(operator: Box<dyn Operator>, policy: OnBadRow) -> Self {
        Self {
            operator,
            out: Output::new(policy),
            made: Vec::new(),
            watermarks: [i64::MIN; 2],
            promised: i64::MIN,
        }
    }

    fn on(&mut self, event: &Event) -> crate::Result<()> {
        match event {
            Event::Rows(port, rows) => {
                self.operator
                    .on_batch(*port, Batch::new(rows.clone()), &mut self.out)?;
                self.take()?;
            }
            Event::Watermark(port, watermark) => {
                self.watermarks[*port] = *watermark;
                self.operator
                    .on_input_watermark(*port, Watermark(*watermark), &mut self.out)?;
                self.take()?;
                let least = Watermark(self.watermarks[0].min(self.watermarks[1]));
                self.operator.on_watermark(least, &mut self.out)?;
                self.take()?;
                self.promised = self.operator.output_watermark(least).0;
            }
        }
        Ok(())
    }

    fn take(&mut self) -> crate::Result<()> {
        loop {
            for (port, batch) in self.out.take() {
                if port == 0
                    && let Some(times) = batch.rows().column_by_name(EVENT_TIME)
                {
                    let times = cast(times, &arrow::datatypes::DataType::Int64).unwrap();
                    for time in times.as_primitive::<Int64Type>().values() {
                        assert!(
                            *time >= self.promised,
                            "{time} leaves behind {}",
                            self.promised
                        );
                    }
                }
                self.made.push((port, batch.rows().clone()));
            }
            if !self.out.take_more() {
                return Ok(());
            }
            self.operator.resume(&mut self.out)?;
        }
    }

    fn end(&mut self) -> crate::Result<()> {
        self.on(&Event::Watermark(0, i64::MAX))?;
        self.on(&Event::Watermark(1, i64::MAX))
    }

    /// Each row that left a port as a line, in order.
    fn lines(&self, port: usize) -> Vec<String> {
        let mut lines: Vec<String> = self
            .made
            .iter()
            .filter(|(of, _)| *of == port)
            .flat_map(|(_, rows)| lines_of(rows))
            .collect();
        lines.sort();
        lines
    }
}

fn lines_of(rows: &RecordBatch) -> Vec<String> {
    let line = |row: usize| {
        let values = rows
            .columns()
            .iter()
            .map(|column| arrow::util::display::array_value_to_string(column, row).unwrap());
        values
            .map(|v| if v.is_empty() { "null".into() } else { v })
            .collect::<Vec<_>>()
            .join(" | ")
    };
    (0..rows.num_rows()).map(line).collect()
}

pub(super) fn transform(input: &SideInput, windowings: [Windowing; 2]) -> WithSideInput {
    WithSideInput {
        input: input.clone(),
        side: Arc::from("side"),
        windowings,
        layout: Arc::default(),
    }
}

/// The rows for all inputs at once, by an operator that gets them in several orders and by a run that learns the side.
pub(super) fn run_both(
    input: &SideInput,
    windowings: [Windowing; 2],
    main: &RecordBatch,
    side: &RecordBatch,
) -> Result<Vec<String>, String> {
    let transform = transform(input, windowings.clone());
    transform
        .output_schema(&[main.schema(), side.schema()])
        .map_err(|e| e.to_string())?;
    let rows = [Event::Rows(0, main.clone()), Event::Rows(1, side.clone())];
    let ends = [Event::Watermark(0, i64::MAX), Event::Watermark(1, i64::MAX)];
    let orders = [[0, 1], [1, 0]]
        .into_iter()
        .flat_map(|a| [[0, 1], [1, 0]].map(|b| (a, b)));
    let mut results = Vec::new();
    for (of_rows, of_ends) in orders {
        let mut driven = Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::Fail);
        let run = of_rows
            .iter()
            .map(|n| &rows[*n])
            .chain(of_ends.iter().map(|n| &ends[*n]));
        let run = run.into_iter().try_for_each(|event| driven.on(event));
        results.push(match run {
            Ok(()) => Ok(driven.lines(0)),
            Err(error) => Err(error.message().to_owned()),
        });
    }

    let pipeline = Pipeline::new("both");
    let [of_main, of_side] = windowings;
    let read = |name, rows: &RecordBatch| {
        pipeline.read(name, connectors::from_record_batches(vec![rows.clone()]))
    };
    let (sink, made) = connectors::collect();
    let main = read("main", main).window(of_main);
    main.with_side_input(&read("side", side).window(of_side), input.clone())
        .write(sink);
    let learned = match pipeline.run(&RunOptions::new().workers(2)) {
        Ok(_) => {
            let mut lines: Vec<String> = made.take().iter().flat_map(lines_of).collect();
            lines.sort();
            Ok(lines)
        }
        Err(error) => Err(error.message().to_owned()),
    };
    for result in &results {
        let strip = |r: &Result<Vec<String>, String>| {
            r.clone()
                .map_err(|e| e.split(": ").last().map(str::to_owned))
        };
        assert_eq!(strip(result), strip(&learned));
    }
    learned
}

fn refuse(
    input: &SideInput,
    windowings: [Windowing; 2],
    main: &RecordBatch,
    side: &RecordBatch,
    expected: Expect,
) {
    let transform = transform(input, windowings);
    let refused = transform.output_schema(&[main.schema(), side.schema()]);
    expected
        .assert_eq(&refused.map_or_else(|e| e.to_string(), |schema| format!("accepted: {schema}")));
}

fn globals() -> [Windowing; 2] {
    [Windowing::default(), Windowing::default()]
}

/// Key, time, value.
type Row = (Option<i64>, i64, i64);

fn rows_of(rows: &[Row], names: [&str; 2]) -> RecordBatch {
    let column = |of: fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Int64Array>())
    };
    let times = cast(&column(|r| Some(r.1)), &time_type()).unwrap();
    let schema = Schema::new(vec![
        Arc::new(Field::new(
            names[0],
            arrow::datatypes::DataType::Int64,
            true,
        )),
        time_field(EVENT_TIME),
        Arc::new(Field::new(
            names[1],
            arrow::datatypes::DataType::Int64,
            true,
        )),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![column(|r| r.0), times, column(|r| Some(r.2))],
    )
    .unwrap()
}

/// What a test of any interleaving asks for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Map,
    Multimap,
    List,
    Singleton,
    Versions,
    Version,
}

impl Ask {
    fn input(self) -> SideInput {
        let on = || [(col("k"), col("key"))];
        match self {
            Self::Map => SideInput::map(on()),
            Self::Multimap => SideInput::multimap("l", on(), col("v")),
            Self::List => SideInput::list("l", col("v")),
            Self::Singleton => SideInput::singleton().columns(["v"]),
            Self::Versions => SideInput::map(on()).as_of_event_time(),
            Self::Version => SideInput::singleton()
                .columns(["v"])
                .as_of_event_time()
                .or_null(),
        }
    }

    fn windowings(self, main: i64, side: i64, lateness: i64) -> [Windowing; 2] {
        let late = std::time::Duration::from_millis(lateness.unsigned_abs());
        let main = if main == 0 {
            Windowing::default()
        } else {
            fixed(main)
        };
        let main = main.allowed_lateness(late);
        match self {
            Self::Versions | Self::Version => [main, Windowing::default()],
            _ if side == 0 => [main, Windowing::default()],
            _ => [main, fixed(side)],
        }
    }

    /// The line of a row that is answered; none of one that is rejected.
    fn answer(self, row: Row, side: &[Row], main_size: i64, side_size: i64) -> Option<String> {
        let (key, time, value) = row;
        let last = match main_size {
            0 => time,
            size => time - time.rem_euclid(size) + size - 1,
        };
        let has_key = |r: &&Row| match self {
            Self::List | Self::Singleton | Self::Version => true,
            _ => key.is_some() && r.0 == key,
        };
        let is_seen = |r: &&Row| match self {
            Self::Versions | Self::Version => r.1 <= time,
            _ if side_size == 0 => true,
            _ => r.1.div_euclid(side_size) == last.div_euclid(side_size),
        };
        let mut found: Vec<(i64, i64)> = side
            .iter()
            .filter(has_key)
            .filter(is_seen)
            .map(|r| (r.1, r.2))
            .collect();
        found.sort_unstable();
        let shown = match self {
            Self::Multimap | Self::List => {
                let all: Vec<String> = found.iter().map(|(_, v)| v.to_string()).collect();
                format!("[{}]", all.join(", "))
            }
            Self::Versions => found.last().map_or("null".into(), |(_, v)| v.to_string()),
            Self::Version => found.last().map_or("null".into(), |(_, v)| v.to_string()),
            Self::Map | Self::Singleton => match (found.as_slice(), self) {
                ([(_, v)], _) => v.to_string(),
                ([], Self::Map) => "null".into(),
                _ => return None,
            },
        };
        let key = key.map_or("null".into(), |k| k.to_string());
        let time = cast(
            &(Arc::new(Int64Array::from(vec![time])) as ArrayRef),
            &time_type(),
        )
        .unwrap();
        let time = arrow::util::display::array_value_to_string(&time, 0).unwrap();
        Some(format!("{key} | {time} | {value} | {shown}"))
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    prop::sample::select(vec![
        Ask::Map,
        Ask::Multimap,
        Ask::List,
        Ask::Singleton,
        Ask::Versions,
        Ask::Version,
    ])
}

fn row() -> impl Strategy<Value = Row> {
    (prop::option::weighted(0.9, 0i64..4), 0i64..60, 0i64..5)
}

/// Rows of both inputs in batches, each with watermarks that no later row of the input is behind.
fn events(inputs: [&[Row]; 2], batch_rows: usize, order: &[bool]) -> Vec<Event> {
    let names = [["k", "m"], ["key", "v"]];
    let mut queues: [Vec<Event>; 2] = [0, 1].map(|port| {
        let rows: &[Row] = inputs[port];
        let mut queue = Vec::new();
        for (n, batch) in rows.chunks(batch_rows.max(1)).enumerate() {
            queue.push(Event::Rows(port, rows_of(batch, names[port])));
            let rest = rows.iter().skip((n + 1) * batch_rows.max(1));
            if let Some(least) = rest.map(|r| r.1).min() {
                queue.push(Event::Watermark(port, least));
            }
        }
        queue.push(Event::Watermark(port, i64::MAX));
        queue.reverse();
        queue
    });
    let mut merged = Vec::new();
    let mut turns = order.iter().copied().cycle();
    loop {
        let turn = usize::from(turns.next().unwrap_or_default());
        match queues[turn].pop().or_else(|| queues[1 - turn].pop()) {
            Some(event) => merged.push(event),
            None => return merged,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However both inputs and their watermarks interleave, wherever it is stopped and restored on however many
    /// workers: each row is answered once, as by a search through all side rows.
    #[test]
    fn any_interleaving_gives_what_a_search_gives(
        ask in ask(),
        main in prop::collection::vec(row(), 0..25),
        side in prop::collection::vec(row(), 0..25),
        sizes in (prop::sample::select(vec![0i64, 5, 10]), prop::sample::select(vec![0i64, 5, 10, 20])),
        sorted in any::<bool>(),
        batch_rows in 1usize..8,
        order in prop::collection::vec(any::<bool>(), 1..40),
        stop in (0usize..60, 1usize..4),
    ) {
        let (mut main, mut side) = (main, side);
        if sorted {
            main.sort_by_key(|r| r.1);
            side.sort_by_key(|r| r.1);
        }
        let transform = transform(&ask.input(), ask.windowings(sizes.0, sizes.1, 0));
        let schemas: [SchemaRef; 2] = [rows_of(&[], ["k", "m"]).schema(), rows_of(&[], ["key", "v"]).schema()];
        transform.output_schema(&schemas).unwrap();
        let build = || Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::DeadLetter);
        let events = events([&main, &side], batch_rows, &order);
        let (before, after) = events.split_at(stop.0.min(events.len()));

        let mut first = build();
        for event in before {
            first.on(event).unwrap();
        }
        let state = first.operator.snapshot().unwrap();
        prop_assert_eq!(&state, &first.operator.snapshot().unwrap());
        // One worker becomes several: each gets all side rows, and a main row goes to one of them.
        let mut workers: Vec<Driven> = StatePart::deal(&state, stop.1).into_iter().map(|parts| {
            let mut driven = build();
            driven.operator.restore(&parts).unwrap();
            driven.watermarks = first.watermarks;
            driven
        }).collect();
        for (n, event) in after.iter().enumerate() {
            let n_workers = workers.len();
            match event {
                Event::Rows(0, _) => workers[n % n_workers].on(event).unwrap(),
                _ => workers.iter_mut().for_each(|w| w.on(event).unwrap()),
            }
        }
        // And several become one again: what each of them kept of the side is there once.
        let parts: Vec<StatePart> = workers.iter_mut().flat_map(|w| w.operator.snapshot().unwrap()).collect();
        let mut last = build();
        last.operator.restore(&parts).unwrap();
        last.end().unwrap();

        let mut made: Vec<String> = first.lines(0);
        let mut rejected = first.out.take_dead_letters().len();
        for worker in workers.iter_mut().chain([&mut last]) {
            made.extend(worker.lines(0));
            rejected += worker.out.take_dead_letters().len();
            prop_assert_eq!(worker.lines(1), Vec::<String>::new(), "none is late");
            prop_assert_eq!(worker.out.take_late(), 0);
        }
        made.sort();
        let answers: Vec<Option<String>> =
            main.iter().map(|row| ask.answer(*row, &side, sizes.0, sizes.1)).collect();
        let mut expected: Vec<String> = answers.iter().flatten().cloned().collect();
        expected.sort();
        prop_assert_eq!(made, expected);
        prop_assert_eq!(rejected, answers.iter().filter(|a| a.is_none()).count());
    }
}

/// Two workers with the whole side become one with one side.
#[test]
fn the_copies_of_several_workers_become_one() {
    let transform = transform(
        &SideInput::list("l", col("v")),
        [Windowing::default(), fixed(10)],
    );
    let rows = rows_of(&[(None, 1, 7), (None, 1, 7), (None, 12, 8)], ["key", "v"]);
    let main = rows_of(&[(None, 2, 0), (None, 13, 1)], ["k", "m"]);
    transform
        .output_schema(&[main.schema(), rows.schema()])
        .unwrap();
    let mut parts = Vec::new();
    for watermark in [5, 10] {
        let mut driven = Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::Fail);
        driven.on(&Event::Rows(1, rows.clone())).unwrap();
        driven.on(&Event::Watermark(1, watermark)).unwrap();
        parts.extend(driven.operator.snapshot().unwrap());
    }
    let mut driven = Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::Fail);
    driven.operator.restore(&parts).unwrap();
    driven.on(&Event::Rows(0, main)).unwrap();
    driven.end().unwrap();
    assert_eq!(
        driven.lines(0),
        [
            "null | 1970-01-01T00:00:00.002 | 0 | [7, 7]",
            "null | 1970-01-01T00:00:00.013 | 1 | [8]"
        ]
    );
}

/// Of two workers one has heard that the side is complete up to 20, and has answered rows without what comes late; main
/// rows may still come for which only the other keeps the window.
#[test]
fn a_late_row_of_the_side_is_late_for_all_where_one_of_two_workers_had_heard_of_its_watermark() {
    let windowings = [fixed(10), fixed(10)];
    let transform = transform(&SideInput::map([(col("k"), col("key"))]), windowings);
    let main = rows_of(&[(Some(1), 3, 0), (Some(2), 3, 1)], ["k", "m"]);
    let side = rows_of(&[(Some(1), 4, 7)], ["key", "v"]);
    transform
        .output_schema(&[main.schema(), side.schema()])
        .unwrap();
    let new = || Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::Fail);
    let mut parts = Vec::new();
    for (of_main, of_side) in [(20, 20), (2, 5)] {
        let mut driven = new();
        driven.on(&Event::Rows(1, side.clone())).unwrap();
        driven.on(&Event::Watermark(0, of_main)).unwrap();
        driven.on(&Event::Watermark(1, of_side)).unwrap();
        if of_side == 5 {
            let waiting = rows_of(&[(Some(2), 3, 2)], ["k", "m"]);
            driven.on(&Event::Rows(0, waiting)).unwrap();
        }
        parts.extend(driven.operator.snapshot().unwrap());
    }
    let mut driven = new();
    driven.operator.restore(&parts).unwrap();
    let late = rows_of(&[(Some(2), 4, 8)], ["key", "v"]);
    driven.on(&Event::Rows(1, late)).unwrap();
    assert_eq!(driven.lines(2), ["2 | 1970-01-01T00:00:00.004 | 8"]);
    driven.on(&Event::Rows(0, main)).unwrap();
    driven.on(&Event::Watermark(0, 6)).unwrap();
    assert_eq!(
        driven.lines(0),
        [
            "1 | 1970-01-01T00:00:00.003 | 0 | 7",
            "2 | 1970-01-01T00:00:00.003 | 1 | null",
            "2 | 1970-01-01T00:00:00.003 | 2 | null"
        ]
    );
    driven.end().unwrap();
}

fn memory_of(driven: &Driven) -> u64 {
    driven.operator.state_bytes()
}

/// Ten thousand windows and as many versions pass, and what is kept stays what a few of them take.
#[test]
fn what_nobody_asks_for_any_more_is_released() {
    for ask in [Ask::List, Ask::Versions] {
        let transform = transform(&ask.input(), ask.windowings(10, 10, 0));
        let empty = |names| rows_of(&[], names).schema();
        transform
            .output_schema(&[empty(["k", "m"]), empty(["key", "v"])])
            .unwrap();
        let mut driven = Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::Fail);
        let mut most = 0;
        for step in 0..10_000i64 {
            let time = step * 10;
            let side: Vec<Row> = (0..10).map(|n| (Some(n), time + n, step)).collect();
            driven
                .on(&Event::Rows(1, rows_of(&side, ["key", "v"])))
                .unwrap();
            driven
                .on(&Event::Rows(
                    0,
                    rows_of(&[(Some(3), time + 5, step)], ["k", "m"]),
                ))
                .unwrap();
            driven.on(&Event::Watermark(0, time + 10)).unwrap();
            driven.on(&Event::Watermark(1, time + 10)).unwrap();
            most = most.max(memory_of(&driven));
        }
        assert!(most < 500_000, "{ask:?} keeps {most} bytes");
        driven.end().unwrap();
        assert_eq!(driven.lines(0).len(), 10_000);
    }
}

#[test]
fn rows_that_come_when_the_side_is_released_are_late() {
    let windowings = [fixed(10), fixed(10)];
    let transform = transform(&SideInput::map([(col("k"), col("key"))]), windowings);
    let main = rows_of(&[(Some(1), 3, 0), (Some(1), 13, 1)], ["k", "m"]);
    let side = rows_of(&[(Some(1), 4, 7), (Some(1), 14, 8)], ["key", "v"]);
    transform
        .output_schema(&[main.schema(), side.schema()])
        .unwrap();
    let mut driven = Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::Fail);
    driven.on(&Event::Rows(1, side.clone())).unwrap();
    driven.on(&Event::Watermark(0, 10)).unwrap();
    driven.on(&Event::Watermark(1, 20)).unwrap();
    driven.on(&Event::Rows(0, main)).unwrap();
    assert_eq!(driven.lines(0), ["1 | 1970-01-01T00:00:00.013 | 1 | 8"]);
    assert_eq!(driven.lines(1), ["1 | 1970-01-01T00:00:00.003 | 0 | null"]);
    assert_eq!(driven.out.take_late(), 1);
    // Rows of the side that nobody may see any more leave as they came.
    driven.on(&Event::Rows(1, side)).unwrap();
    assert_eq!(
        driven.lines(2),
        [
            "1 | 1970-01-01T00:00:00.004 | 7",
            "1 | 1970-01-01T00:00:00.014 | 8"
        ]
    );
    assert_eq!(driven.out.take_late(), 2);
}

/// Each late row of the side leaves once, on any number of workers, with the columns that nobody else reads.
#[test]
fn late_rows_of_the_side_leave_by_a_port_of_their_own() {
    use crate::windowing::SlidingWindows;
    let ms = std::time::Duration::from_millis;
    let pipeline = Pipeline::new("prices");
    let orders = pipeline.read("orders", scripted("k: 1; event_time: 0"));
    let rates = pipeline.read("rates", scripted("key: 1; v: 1; from: a; event_time: 0"));
    // From 4 to 9, from 14 to 19 and so on is no window.
    let windows = SlidingWindows::of(ms(4)).every(ms(10));
    let windowing = Windowing::of(windows).allowed_lateness(ms(5));
    let answered = orders.with_side_input(
        &rates.window(windowing),
        SideInput::multimap("vs", [(col("k"), col("key"))], col("v")),
    );
    for (rows, name) in [
        (answered.clone(), "seen"),
        (answered.port("late"), "late"),
        (answered.port("late_side"), "late side"),
    ] {
        let (sink, _) = connectors::collect();
        rows.named(name).write(sink);
    }
    let script = Script::new()
        .rows("rates", "key: 1, 2; v: 1, 2; from: a, b; event_time: 1, 2")
        .watermark("orders", 3)
        .watermark("rates", 3)
        // Behind the watermark, in no window, and without a key.
        .rows(
            "rates",
            "key: 1, 1, null; v: 3, 4, 5; from: c, d, e; event_time: 2, 5, 1",
        )
        .rows("orders", "k: 1; event_time: 3")
        .watermark("orders", 9)
        .watermark("rates", 9)
        .rows(
            "rates",
            "key: 2, null, 1, 1; v: 6, 7, 8, 9; from: f, g, h, i; event_time: 11, 1, 3, 3",
        )
        .rows("orders", "k: 2, 1; event_time: 12, 3")
        .end("rates")
        .end("orders");
    let run = |n_workers, seed| {
        let simulated = simulate(&pipeline, &script, n_workers, seed).unwrap();
        let of = |name| format!("{name}\n{}\n", show_rows(&simulated.rows(name)));
        ["seen", "late", "late side"].map(of).concat()
    };
    let one = run(1, 0);
    expect![[r#"
        seen
        k=1 event_time=3 vs=[1, 3]
        k=2 event_time=12 vs=[6]
        late
        k=1 event_time=3 vs=null
        late side
        key=1 v=8 from='h' event_time=3
        key=1 v=9 from='i' event_time=3
    "#]]
    .assert_eq(&one);
    for seed in 1..12 {
        let n_workers = 1 + usize::try_from(seed).unwrap() % 3;
        assert_eq!(
            run(n_workers, seed),
            one,
            "{n_workers} workers, seed {seed}"
        );
    }
}

/// A side that ends is whole before the first row is answered.
#[test]
fn no_row_of_a_side_that_ends_is_late() {
    let pipeline = Pipeline::new("prices");
    let read = |name: &str, rows: &str| {
        pipeline.read(name, connectors::from_record_batches(vec![timed(rows)]))
    };
    let orders = read("orders", "k: 1, 1; event_time: 25, 3");
    let rates = read("rates", "key: 1, 1, 1; v: 1, 2, 3; event_time: 25, 30, 1").window(fixed(10));
    let answered = orders.with_side_input(
        &rates,
        SideInput::multimap("vs", [(col("k"), col("key"))], col("v")),
    );
    let (sink, late) = connectors::collect();
    answered.port("late_side").write(sink);
    let (sink, seen) = connectors::collect();
    answered.select([col("k"), col("vs")]).write(sink);
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    assert_eq!(show_rows(&seen.take()), "k=1 vs=[1]\nk=1 vs=[3]");
    assert!(late.take().iter().all(|rows| rows.num_rows() == 0));
}

#[test]
fn a_row_sees_no_version_from_its_future_and_waits_for_that_of_its_time() {
    let transform = transform(
        &SideInput::map([(col("k"), col("key"))]).as_of_event_time(),
        globals(),
    );
    let main = rows_of(&[(Some(1), 5, 0), (Some(1), 9, 1)], ["k", "m"]);
    let side = rows_of(&[(Some(1), 10, 100), (Some(1), 5, 50)], ["key", "v"]);
    transform
        .output_schema(&[main.schema(), side.schema()])
        .unwrap();
    let mut driven = Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::Fail);
    driven.on(&Event::Rows(0, main)).unwrap();
    driven.on(&Event::Rows(1, side)).unwrap();
    driven.on(&Event::Watermark(1, 5)).unwrap();
    assert_eq!(driven.lines(0), Vec::<String>::new());
    driven.on(&Event::Watermark(1, 6)).unwrap();
    assert_eq!(driven.lines(0), ["1 | 1970-01-01T00:00:00.005 | 0 | 50"]);
    assert_eq!(
        driven.operator.output_watermark(Watermark(100)),
        Watermark(9)
    );
    driven
        .on(&Event::Rows(1, rows_of(&[(Some(1), 8, 80)], ["key", "v"])))
        .unwrap();
    driven.on(&Event::Watermark(1, 11)).unwrap();
    assert_eq!(driven.lines(0)[1], "1 | 1970-01-01T00:00:00.009 | 1 | 80");
}

#[test]
fn lists_that_are_long_for_many_rows_come_in_parts() {
    let side: Vec<Row> = (0..2_000).map(|n| (None, 0, n)).collect();
    let main: Vec<Row> = (0..500).map(|n| (None, 0, n)).collect();
    let transform = transform(&SideInput::list("l", col("v")), globals());
    let (main, side) = (rows_of(&main, ["k", "m"]), rows_of(&side, ["key", "v"]));
    transform
        .output_schema(&[main.schema(), side.schema()])
        .unwrap();
    let mut driven = Driven::new(transform.build(&Artifacts::none()).unwrap(), OnBadRow::Fail);
    for event in [Event::Rows(0, main), Event::Rows(1, side)] {
        driven.on(&event).unwrap();
    }
    driven.end().unwrap();
    let sizes: Vec<usize> = driven
        .made
        .iter()
        .map(|(_, rows)| rows.num_rows())
        .collect();
    assert_eq!(sizes, [132, 132, 132, 104]);
}

#[test]
fn keys_are_compared_in_one_type_and_null_finds_nothing() {
    let main = table("k: 1, 2, null, 7; t: a, b, c, 'a key that is longer than its code'");
    let side = table(
        "key: 1.0, 7.0, null, 7.0; u: a, 'a key that is longer than its code', c, x; v: x, y, z, w",
    );
    let input = SideInput::map([(col("k"), col("key")), (col("t"), col("u"))]);
    assert_eq!(
        run_both(&input, globals(), &main, &side).unwrap(),
        [
            "1 | a | x",
            "2 | b | null",
            "7 | a key that is longer than its code | y",
            "null | c | null"
        ]
    );
}

#[test]
fn a_key_that_is_there_twice_is_an_error_that_names_the_side() {
    let (main, side) = (table("k: 1"), table("key: 1, 1; v: 2, 3"));
    let refused = run_both(
        &SideInput::map([(col("k"), col("key"))]),
        globals(),
        &main,
        &side,
    );
    expect![[
        r#"record batch 0, row 0: side input "side" has 2 rows for this one, and a map gives one"#
    ]]
    .assert_eq(&refused.unwrap_err());
    let required = SideInput::map([(col("k") + lit(1), col("key"))]).required();
    let refused = run_both(&required, globals(), &main, &side);
    expect![[r#"record batch 0, row 0: side input "side" has no row for this one"#]]
        .assert_eq(&refused.unwrap_err());
}

#[test]
fn columns_are_chosen_and_told_apart() {
    let main = table("id: 1; name: a");
    let side = table("id: 1; name: x; city: y");
    let on = || [(col("id"), col("id"))];
    let both = run_both(
        &SideInput::map(on()).suffix("_side"),
        globals(),
        &main,
        &side,
    );
    assert_eq!(both.unwrap(), ["1 | a | x | y"]);
    let one = run_both(
        &SideInput::map(on()).columns(["city"]),
        globals(),
        &main,
        &side,
    );
    assert_eq!(one.unwrap(), ["1 | a | y"]);
    refuse(
        &SideInput::map(on()),
        globals(),
        &main,
        &side,
        expect![[r#"
        column "name" is there before side input "side" adds it
          Hint: Tell them apart with `SideInput::suffix`, or name others with `columns`."#]],
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let main = table("k: 1");
    let timed_main = timed("k: 1; event_time: 1");
    let side = timed("key: 1; v: 2; event_time: 1");
    let on = |key: Expr| [(col("k"), key)];
    refuse(
        &SideInput::map(on(col("kee"))),
        globals(),
        &main,
        &side,
        expect![[r#"
        column "kee" is not there
          The columns are "key", "v", "event_time".
          Key `kee` is of side input "side"."#]],
    );
    refuse(
        &SideInput::map(on(lit("x"))),
        globals(),
        &main,
        &side,
        expect![[r#"
        key `k` is Int64, key `Utf8("x")` is Utf8
          Hint: Bring both to one type with `cast`."#]],
    );
    refuse(
        &SideInput::map([]),
        globals(),
        &main,
        &side,
        expect![[r#"
        a map needs at least one pair of keys
          Hint: For all rows of the side, take a singleton or a list."#]],
    );
    refuse(
        &SideInput::map(on(col("key"))).columns(["key", "w"]),
        globals(),
        &main,
        &side,
        expect![[r#"
        column "w" is not there
          The columns are "key", "v", "event_time".
          It is read of side input "side"."#]],
    );
    refuse(
        &SideInput::singleton().as_of_event_time(),
        globals(),
        &main,
        &side,
        expect![[r#"
        the rows have no event time
          They are the main rows.
          Hint: Give it to them with `assign_timestamps`, and keep the column "event_time" up to here."#]],
    );
    refuse(
        &SideInput::list("l", col("v")).as_of_event_time(),
        globals(),
        &timed_main,
        &side,
        expect![[r#"
        a list has no version valid at a time
          Hint: Take a singleton or a map, or divide the side by `window`."#]],
    );
    let windowed = || [Windowing::default(), fixed(10)];
    refuse(
        &SideInput::singleton().as_of_event_time(),
        windowed(),
        &timed_main,
        &side,
        expect![[r#"
        side input "side" is divided into windows, and its versions are not
          Hint: Leave out `window` before it, or `SideInput::as_of_event_time`."#]],
    );
    let sessions = [fixed(10), Windowing::of(Merging)];
    refuse(
        &SideInput::list("l", col("v")),
        sessions,
        &timed_main,
        &side,
        expect![[r#"
        sessions windows of side input "side" cannot be looked up
          Which window a time lies in is not known before all rows have come.
          Hint: Divide the side into fixed windows, or see the version valid at the time of a row with `SideInput::as_of_event_time`."#]],
    );
    let overlapping = [sliding(6, 2), fixed(10)];
    refuse(
        &SideInput::list("l", col("v")),
        overlapping,
        &timed_main,
        &side,
        expect![[r#"
        a row is in 3 windows, and can see one window of a side input
          Hint: Divide the rows by `window` behind `with_side_input`, or add the side input to the results of the windows."#]],
    );
    let early = fixed(10).trigger(Trigger::after_count(1).repeatedly());
    refuse(
        &SideInput::list("l", col("v")),
        [fixed(10), early],
        &timed_main,
        &side,
        expect![[r#"
        side input "side" has a trigger of its own
          Which of its results a row saw would depend on when they arrive.
          Hint: Put `window` with the default trigger behind it to see whole windows, or see the version valid at the time of a row with `SideInput::as_of_event_time`."#]],
    );
    let changes = timed("key: 1; v: 2; event_time: 1; diff: 1");
    refuse(
        &SideInput::list("l", col("v")),
        globals(),
        &timed_main,
        &changes,
        expect![[r#"
        side input "side" takes rows back
          Its column "diff" says which rows are added and which are taken back.
          Hint: Give the versions themselves, and see the one valid at the time of a row with `SideInput::as_of_event_time`."#]],
    );
    let taken_back = timed("k: 1; event_time: 1; diff: 1");
    refuse(
        &SideInput::singleton().as_of_event_time(),
        globals(),
        &taken_back,
        &side,
        expect![[r#"
        rows that are taken back would see another part of the side
          What a row sees depends on its event time, and a row is taken back later than it is added.
          Hint: Add the side input before the rows become changes."#]],
    );
}

#[test]
fn the_plan_shows_the_side_as_an_edge_and_how_it_is_seen() {
    let pipeline = Pipeline::new("prices");
    let read = |name, rows: &RecordBatch| {
        pipeline.read(name, connectors::from_record_batches(vec![rows.clone()]))
    };
    let orders = read("orders", &timed("k: 1; event_time: 1"));
    let rates = read("rates", &timed("key: 1; v: 2; event_time: 1"));
    let (sink, _) = connectors::collect();
    let input = SideInput::map([(col("k"), col("key"))]).as_of_event_time();
    orders
        .named("priced")
        .with_side_input(&rates, input)
        .write(sink);
    expect![[r#"
        pipeline "prices": 2 phases

        phase 1 of 2
          scan      rates [record_batches n_rows=1], columns 3 of 3: key, v, event_time
          learn     priced/side [side_rows] <- rates

        phase 2 of 2
          scan      orders [record_batches n_rows=1]
          transform priced [side_input] using priced/side <- orders
                      as_of=event time, on=["k = key"], shape=map, side=rates
          write     collect [collect] <- priced:out
    "#]]
    .assert_eq(&pipeline.plan().unwrap().explain());
}

/// Rows that are read as those of a source that never ends, although these do.
#[derive(Debug)]
struct Live(Box<dyn Source>);

impl Source for Live {
    fn describe(&self) -> Description {
        Description::new("live", serde_json::Value::Null)
    }

    fn schema(&self) -> crate::Result<SchemaRef> {
        self.0.schema()
    }

    fn splits(&self) -> crate::Result<Vec<Split>> {
        self.0.splits()
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> crate::Result<Box<dyn SplitReader>> {
        self.0.open(split, position, columns)
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            bounded: false,
            ..SourceProperties::default()
        }
    }
}

/// Rows of 2,000 instants in 20 splits, out of order by less than 50.
fn live_rows(names: [&str; 2], seed: i64) -> Vec<RecordBatch> {
    let row = |n: i64| {
        let mixed = (n * 7_919 + seed) % 104_729;
        (Some(mixed % 5), n / 50 * 50 + mixed % 50, n)
    };
    let rows: Vec<Row> = (0..2_000).map(row).collect();
    let splits = (0..20).map(|split| {
        let of_split: Vec<Row> = rows.iter().skip(split).step_by(20).copied().collect();
        rows_of(&of_split, names)
    });
    splits.collect()
}

/// A side that never ends, or that goes in step, is seen as one that has ended, on any number of workers, and nothing
/// is late.
#[test]
fn a_run_over_rows_that_never_end_gives_what_one_over_their_end_does() {
    let asks = [
        (Ask::Versions, 100, 0),
        (Ask::Multimap, 0, 100),
        (Ask::List, 100, 200),
    ];
    for (ask, main_size, side_size) in asks {
        let run = |is_live: bool, in_step: bool, n_workers: usize| {
            let pipeline = Pipeline::new("live");
            let read = |name: &str, rows: Vec<RecordBatch>| {
                let memory = connectors::from_record_batches(rows);
                let rows = match is_live {
                    true => pipeline.read(name, Live(Box::new(memory))),
                    false => pipeline.read(name, memory),
                };
                let disorder = std::time::Duration::from_millis(50);
                let watermarks = Watermarks::bounded_out_of_orderness(disorder);
                rows.named(format!("{name}/times"))
                    .assign_timestamps(col(EVENT_TIME), watermarks)
            };
            let [of_main, of_side] = ask.windowings(main_size, side_size, 0);
            let side = read("side", live_rows(["key", "v"], 3)).window(of_side);
            let (sink, made) = connectors::collect();
            let (late_sink, late) = connectors::collect();
            let answered = read("main", live_rows(["k", "m"], 11))
                .window(of_main)
                .named("seen")
                .with_side_input(&side, in_step_if(in_step, ask.input()));
            answered.port("late").named("late").write(late_sink);
            answered.named("out").write(sink);
            let report = pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
            assert_eq!(report.node("seen").unwrap().late, 0, "{ask:?}");
            assert!(late.take().iter().all(|rows| rows.num_rows() == 0));
            let mut lines: Vec<String> = made.take().iter().flat_map(lines_of).collect();
            lines.sort();
            lines
        };
        let expected = run(false, false, 1);
        assert_eq!(expected.len(), 2_000);
        for n_workers in 1..=3 {
            for (is_live, in_step) in [(true, false), (false, true)] {
                assert!(
                    run(is_live, in_step, n_workers) == expected,
                    "{ask:?}, live: {is_live}, with {n_workers} workers"
                );
            }
        }
    }
}

fn in_step_if(in_step: bool, input: SideInput) -> SideInput {
    match in_step {
        true => input.in_step(),
        false => input,
    }
}

/// What is true of the window as a whole is added to its rows; the source is read twice, or once in step.
#[test]
fn a_side_in_step_reads_a_source_once_that_both_are_made_of() {
    for (in_step, n_read) in [(false, 4_000), (true, 2_000)] {
        for n_workers in 1..=3 {
            let pipeline = Pipeline::new("highest");
            let disorder = std::time::Duration::from_millis(50);
            let rows = live_rows(["k", "m"], 3);
            let rows = pipeline
                .read("rows", connectors::from_record_batches(rows))
                .assign_timestamps(
                    col(EVENT_TIME),
                    Watermarks::bounded_out_of_orderness(disorder),
                )
                .window(fixed(100));
            let most = rows.agg([crate::aggregates::max(col("m")).alias("most")]);
            let (sink, made) = connectors::collect();
            rows.with_side_input(&most, in_step_if(in_step, SideInput::singleton()))
                .filter(col("m").eq(col("most")))
                .select([col("m")])
                .write(sink);
            let report = pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
            let made = made.take();
            let mut highest: Vec<i64> = made
                .iter()
                .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            highest.sort_unstable();
            // Each 50 rows are in the same 50 milliseconds, in some order.
            let expected: Vec<i64> = (0..20).map(|window| 99 + 100 * window).collect();
            assert_eq!(highest, expected, "in step: {in_step}, {n_workers} workers");
            let read = report.node("rows").unwrap().rows_out;
            assert_eq!(read, n_read, "in step: {in_step}, {n_workers} workers");
        }
    }
}

#[test]
fn a_side_in_step_needs_windows_or_versions() {
    let pipeline = Pipeline::new("whole");
    let read = |name, rows| pipeline.read(name, connectors::from_record_batches(vec![table(rows)]));
    let (sink, _) = connectors::collect();
    read("orders", "k: 1")
        .named("priced")
        .with_side_input(&read("rates", "v: 2"), SideInput::singleton().in_step())
        .write(sink);
    let error = pipeline.run(&RunOptions::new()).unwrap_err();
    expect![[r#"
        side input "rates" is in step and has no windows: all rows would wait for its end
          in transform "priced"
          Hint: Divide the side by `window`, or see the version valid at the time of a row with `SideInput::as_of_event_time`."#]].assert_eq(&error.to_string());
}

/// The laws of stateful operators; rows that come late are counted or seen by those behind them.
#[test]
fn it_keeps_the_laws_of_operators() {
    for ask in [Ask::Multimap, Ask::List, Ask::Versions, Ask::Version] {
        for (main, side) in [(0, 0), (0, 20), (10, 20)] {
            let inputs = [
                "k: 1, 2, null; event_time: 0; m: 1, 2",
                "key: 1, 2, null; event_time: 0; v: 1, 2, 3",
            ];
            let laws = Laws::new().on_time(false).runs(6);
            check_operator(
                transform(&ask.input(), ask.windowings(main, side, 5)),
                &inputs,
                &laws,
            );
        }
    }
}

#[test]
fn the_plan_says_what_is_kept_and_what_releases_it() {
    let pipeline = Pipeline::new("endless");
    let read = |name, rows: RecordBatch| {
        let memory = connectors::from_record_batches(vec![rows]);
        pipeline.read(name, Live(Box::new(memory)))
    };
    let orders = read("orders", timed("k: 1; event_time: 1"));
    let rates = read("rates", timed("key: 1; v: 2; event_time: 1"));
    let (sink, _) = connectors::collect();
    let on = || [(col("k"), col("key"))];
    let late = Windowing::of(FixedWindows::of(std::time::Duration::from_secs(60)))
        .allowed_lateness(std::time::Duration::from_secs(5));
    orders
        .named("priced")
        .with_side_input(&rates, SideInput::map(on()).as_of_event_time())
        .window(late.clone())
        .named("rated")
        .with_side_input(
            &rates.window(late),
            SideInput::multimap("all", on(), col("v")),
        )
        .group_by([col("k")])
        .agg([crate::aggregates::count(lit(1)).alias("n")])
        .write(sink);
    expect![[r#"
        pipeline "endless": 1 phase

        phase 1 of 1
          scan      orders [live], columns 2 of 2: k, event_time
          scan      rates [live], columns 3 of 3: key, v, event_time
          transform priced [side_input] <- orders, rates
                      as_of=event time, on=["k = key"], shape=map, side=rates,
                        keeps rows until the side's watermark passes their time,
                        the latest version of each key, and those after the main watermark
          transform rated [side_input] <- priced:out, rates
                      list=all of v, on=["k = key"], shape=multimap, side=rates,
                        in fixed windows size=1 min 0 s, lateness 5 s,
                        keeps rows until the side's watermark passes their window by the lateness,
                        windows of the side until the main watermark passes who may ask for them
          transform group_by/partial [partial_aggregate] <- rated:out
                      keys=["k"], window=fixed, window_config={"offset_ms":0,"size_ms":60000},
                        in fixed windows size=1 min 0 s, lateness 5 s,
                        keeps state until the watermark passes a window's end by the lateness
          transform group_by [group_by] <- group_by/partial:out
                      accumulation=discarding, aggregates=["count(Int32(1)) AS n"], allowed_lateness_ms=5000,
                        keys=["k"], timestamp_combiner=end_of_window, trigger=Default, window=fixed,
                        window_config={"offset_ms":0,"size_ms":60000}, in fixed windows size=1 min 0 s,
                        lateness 5 s, keeps state until the watermark passes a window's end by the lateness
          write     collect [collect] <- group_by
    "#]].assert_eq(&pipeline.plan().unwrap().explain());
    let drawn = pipeline.plan().unwrap().explain_mermaid();
    let edges = drawn.lines().filter(|line| line.contains("-->|"));
    let edges: Vec<&str> = edges.map(str::trim).collect();
    expect![[r#"
          p1n2 -->|"fixed windows size=1 min 0 s, lateness 5 s"| p1n3
          p1n1 -->|"fixed windows size=1 min 0 s, lateness 5 s"| p1n3
          p1n3 -->|"fixed windows size=1 min 0 s, lateness 5 s"| p1n4
          p1n4 -->|"fixed windows size=1 min 0 s, lateness 5 s"| p1n5
          p1n5 -->|"fixed windows size=1 min 0 s, lateness 5 s"| p1n6"#]]
    .assert_eq(&edges.join("\n"));
}
