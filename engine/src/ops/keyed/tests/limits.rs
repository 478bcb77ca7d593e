//! What is refused, what is rejected, and where timers and state end.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use expect_test::{Expect, expect};
use serde::Deserialize;

use super::*;
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::connectors::collect;
use crate::expression::col;
use crate::ops::Watermarks;
use crate::output::{OnBadRow, Output};
use crate::pipeline::Pipeline;
use crate::testing::{scripted, table};
use crate::transform::{Transform, Watermark};
use crate::windowing::SlidingWindows;

const COLUMNS: &str = "k: 1; x: 1; event_time: 0";
const BAG: Bag<i64> = Bag::new("bag");
const TICK: Timer = Timer::event_time("tick");
const CLOCK: Timer = Timer::processing_time("clock");

fn nothing(_key: &mut Scope<'_>, _rows: &KeyRows<'_>) -> Result<()> {
    Ok(())
}

fn refused(declare: fn() -> Declared, windowing: Windowing, columns: &str, expected: Expect) {
    let transform = Scripted::of(declare, nothing, silent);
    by_k(transform, windowing, columns).check(expected);
}

#[test]
fn what_does_not_fit_is_refused_while_planning() {
    refused(
        || {
            Declared::rows()
                .cell(BAG)
                .cell(Set::<i64>::new("bag"))
                .timer(TICK)
                .timer(TICK)
        },
        Windowing::sessions(Duration::from_secs(1)),
        "k: 1; x: 1",
        expect![[r#"
            4 errors
            1. state cannot be kept in sessions windows, which merge
                 What is kept of two windows has no way to become one.
                 Hint: Window the rows otherwise, or keep sessions in cells and close them by timers, as `sessionize` does.
            2. the rows have no event time
                 Hint: Give it to them with `assign_timestamps`, and keep the column "event_time" up to here.
            3. two cells are named "bag"
                 Hint: Saved state goes by these names: give each its own.
            4. two timers are named "tick"
                 Hint: Saved state goes by these names: give each its own."#]],
    );
    #[derive(Deserialize)]
    struct Row {
        #[expect(dead_code, reason = "read by nobody")]
        missing: i64,
    }
    refused(
        || {
            Declared::rows()
                .reads::<Row>()
                .cell(Value::<Box<dyn_value::Any>>::new("any"))
        },
        Windowing::global(),
        "k: 1; x: 1",
        expect![[r#"
            2 errors
            1. value "any" cannot be kept as columns
                 type mainstem_engine::ops::keyed::cells::value::SavedValue<alloc::boxed::Box<mainstem_engine::ops::keyed::tests::limits::dyn_value::Any>> cannot be rows.
                 Hint: A cell holds numbers, text, Booleans, and options, lists, maps or structs of them.
            2. column "missing" is not there
                 The columns are "k", "x"."#]],
    );
}

/// A type that has no columns.
mod dyn_value {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) enum Any {
        Number(i64),
        Other {
            inner: std::collections::BTreeMap<String, Vec<Any>>,
        },
    }
}

#[test]
fn what_was_not_declared_cannot_be_used() {
    let run = |on_rows: OnRows| {
        let transform = Scripted::of(|| Declared::rows().cell(BAG), on_rows, silent);
        let run = by_k(transform, Windowing::global(), COLUMNS);
        run.rows(0, "k: 7; x: 1; event_time: 0")
            .transcript()
            .unwrap()
    };
    let found = [
        run(|key, _| key.value(Value::<i64>::new("bag")).map(|_| ())),
        run(|key, _| key.timer(TICK)?.set(1)),
        run(|key, _| say(key, "hello")),
    ];
    expect![[r#"
        rows
        error: value "bag" is used, which is not declared so
          The key is k = 7.
          Hint: Declare the cell, with the same type, by `Declared::cell`.
        rows
        error: Timer("tick", EventTime) is used, which is not declared so
          The key is k = 7.
          Hint: Declare the timer by `Declared::timer`.
        rows
        error: values are emitted, which is not declared
          The key is k = 7.
          Hint: Say what is emitted where the transform is declared, as with `Declared::emits`."#]]
    .assert_eq(&found.join("\n"));
}

#[test]
fn a_rejected_row_names_its_key_and_an_error_too() {
    let transform = Scripted::of(
        || Declared::rows().cell(BAG),
        |key, rows| {
            for (row, x) in rows.values::<Int64Type>("x")?.iter().enumerate() {
                match x {
                    13 => key.reject(rows, row, "x brings bad luck")?,
                    14 => return Err(crate::Error::data("x cannot be")),
                    _ => key.keep(rows, row)?,
                }
            }
            Ok(())
        },
        silent,
    );
    by_k(
        transform,
        Windowing::fixed(Duration::from_millis(10)),
        COLUMNS,
    )
    .rows(0, "k: 1, 2, 1, 2; x: 1, 13, 2, 3; event_time: 1, 2, 3, 4")
    .rows(0, "k: 5; x: 14; event_time: 5")
    .check(expect![[r#"
        rows
        k: 1, 1, 2
        x: 1, 2, 3
        event_time: 1, 3, 4
        rows, rejected
        1: x brings bad luck (k = 2, window 0 to 10)
        rows
        error: x cannot be
          The key is k = 5, window 0 to 10."#]]);
}

#[derive(Deserialize)]
struct Row {
    x: i64,
}

#[test]
fn rows_are_read_as_values_and_those_that_are_none_are_rejected() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().reads::<Row>(),
        |key, rows| {
            let total: i64 = rows.read::<Row>()?.iter().map(|row| row.x).sum();
            say(key, total.to_string())
        },
        silent,
    );
    by_k(transform, Windowing::global(), COLUMNS)
        .rows(0, "k: 1, 2, 1; x: 1, null, 5; event_time: 1, 2, 3")
        .check(expect![[r#"
            rows
            k: 1
            said: '6'
            event_time: 1
            rows, rejected
            1: {"k":2,"event_time":"1970-01-01T00:00:00.002"} is not a Row: required array value is null"#]]);
}

#[test]
fn a_timer_may_not_outlive_its_window() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().timer(TICK),
        |key, rows| {
            for x in rows.values::<Int64Type>("x")? {
                key.timer(TICK)?.set(*x)?;
            }
            Ok(())
        },
        |key, timer| say(key, timer.time().to_string()),
    );
    let windows = Windowing::fixed(Duration::from_millis(10));
    by_k(
        transform,
        windows.allowed_lateness(Duration::from_millis(5)),
        COLUMNS,
    )
    .rows(0, "k: 1; x: 15; event_time: 1")
    .watermark(15)
    .rows(0, "k: 1; x: 31; event_time: 15")
    .check(expect![[r#"
        watermark 15
        k: 1
        said: '15'
        window_start: 0
        window_end: 10
        event_time: 9
        rows
        error: timer "tick" is set to 31, but what is kept of its window goes at 25
          The key is k = 1, window 10 to 20.
          Hint: Set it to the end of the window at most, or allow more lateness."#]]);
}

#[test]
fn a_looping_timer_goes_on_until_it_stops() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().timer(TICK),
        |key, rows| {
            let first = rows.times()?[0];
            key.timer(TICK)?.set(first + 10)
        },
        |key, timer| {
            say(key, "tick")?;
            match key.input_ended() {
                true => Ok(()),
                false => key.timer(TICK)?.set(timer.time() + 10),
            }
        },
    );
    by_k(transform, Windowing::global(), COLUMNS)
        .rows(0, "k: 1; x: 1; event_time: 0")
        .watermark(35)
        .watermark(40)
        .end()
        .check(expect![[r#"
            watermark 35
            k: 1, 1, 1
            said: 'tick', 'tick', 'tick'
            event_time: 10, 20, 30
            watermark 40
            k: 1
            said: 'tick'
            event_time: 40
            end
            k: 1
            said: 'tick'
            event_time: 50"#]]);
}

#[test]
fn a_timer_that_never_stops_is_an_error() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().timer(TICK),
        |key, _| key.timer(TICK)?.set(1),
        |key, timer| key.timer(TICK)?.set(timer.time() + 1),
    );
    by_k(transform, Windowing::global(), COLUMNS)
        .rows(0, "k: 1; x: 1; event_time: 0")
        .end()
        .check(expect![[r#"
            end
            error: timer "tick" has set itself again 100000 times since the input ended
              The key is k = 1.
              Hint: Ask `Scope::input_ended` before it is set again."#]]);
}

#[test]
fn timers_hold_the_watermark_back_and_those_of_the_clock_are_dropped_at_the_end() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().timer(TICK).timer(CLOCK),
        |key, rows| {
            for x in rows.values::<Int64Type>("x")? {
                match x {
                    1 => key.timer(TICK)?.output_time(12).set(20)?,
                    _ => key.timer(CLOCK)?.set(1_000)?,
                }
            }
            Ok(())
        },
        |key, timer| say(key, timer.name()),
    );
    by_k(transform, Windowing::global(), COLUMNS)
        .rows(0, "k: 1; x: 1; event_time: 10")
        .watermark(15)
        .rows(0, "k: 2; x: 2; event_time: 17")
        .watermark(30)
        .processing_time(1_000)
        .rows(0, "k: 2; x: 2; event_time: 40")
        .processing_time(1_500)
        .rows(0, "k: 3; x: 3; event_time: 50")
        .end()
        .check(expect![[r#"
            watermark 15, watermark behind it 12
            watermark 30, watermark behind it 17
            k: 1
            said: 'tick'
            event_time: 12
            processing time 1000
            k: 2
            said: 'clock'
            event_time: 17
            rows
            k: 2
            said: 'clock'
            event_time: 40
            rows
            k: 3
            said: 'clock'
            event_time: 50"#]]);
}

/// Ten batches of new keys each, of which all but the last are over.
#[test]
fn memory_follows_the_keys_that_are_alive() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().cell(BAG).timer(TICK),
        |key, rows| {
            let time = rows.times()?[0];
            key.bag(BAG)?.add(time);
            key.timer(TICK)?.set(time + 10)
        },
        |key, _| {
            key.bag(BAG)?.clear();
            Ok(())
        },
    );
    let process = Process::new(transform, ["k"], Windowing::global());
    let schema = table("k: 0; event_time: 0").schema();
    process.output_schema(&[schema]).unwrap();
    let mut operator = process.build(&Artifacts::none()).unwrap();
    let mut out = Output::new(OnBadRow::Fail);
    let mut bytes = Vec::new();
    for step in 0i64..10 {
        let keys: Vec<String> = (0..4000).map(|n| (step * 4000 + n).to_string()).collect();
        let times = vec![(step * 100).to_string(); 4000];
        let rows = format!("k: {}; event_time: {}", keys.join(", "), times.join(", "));
        operator
            .on_batch(0, Batch::new(table(&rows)), &mut out)
            .unwrap();
        operator
            .on_watermark(Watermark(step * 100), &mut out)
            .unwrap();
        bytes.push(operator.state_bytes());
    }
    let most = bytes.iter().max().unwrap();
    assert!(most <= &(2 * bytes[1]), "{bytes:?}");
    operator.on_watermark(Watermark::END, &mut out).unwrap();
    assert!(
        operator.state_bytes() < 1 << 10,
        "{}",
        operator.state_bytes()
    );
}

#[test]
fn many_rows_leave_in_batches_as_timers_fire() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().timer(TICK),
        |key, rows| key.timer(TICK)?.set(rows.times()?[0]),
        |key, _| say(key, "x"),
    );
    let process = Process::new(transform, ["k"], Windowing::global());
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        crate::event_time::time_field("event_time").as_ref().clone(),
    ]));
    process.output_schema(&[schema]).unwrap();
    let mut operator = process.build(&Artifacts::none()).unwrap();
    let mut out = Output::new(OnBadRow::Fail);
    let keys: Vec<String> = (0..20_000).map(|n: i64| n.to_string()).collect();
    let times = vec!["5"; 20_000];
    let rows = format!("k: {}; event_time: {}", keys.join(", "), times.join(", "));
    operator
        .on_batch(0, Batch::new(table(&rows)), &mut out)
        .unwrap();
    operator.on_watermark(Watermark(9), &mut out).unwrap();
    let mut sizes = Vec::new();
    loop {
        // Nothing behind may believe that all has left.
        let more = out.take_more();
        let behind = operator.output_watermark(Watermark(9));
        assert_eq!(behind, if more { Watermark::START } else { Watermark(9) });
        sizes.extend(out.take().iter().map(|(_, batch)| batch.n_rows()));
        if !more {
            break;
        }
        operator.resume(&mut out).unwrap();
    }
    assert_eq!(sizes, [8192, 8192, 3616]);
}

/// Sliding windows with gaps between them: a row in a gap is in no window, and so never too late for one.
#[test]
fn rows_in_no_window_are_left_out_and_not_late() {
    let of = |domain: Windowing| {
        let transform = Scripted::of(
            Declared::emits::<Said>,
            |key, rows| say(key, rows.len().to_string()),
            silent,
        );
        let transform = Process::new(transform, ["k"], domain);
        transform.output_schema(&[table(COLUMNS).schema()]).unwrap();
        let mut operator = transform.build(&Artifacts::none()).unwrap();
        let mut out = Output::new(OnBadRow::Fail);
        operator.on_watermark(Watermark(8), &mut out).unwrap();
        let rows = table("k: 1, 1, 1, 1, 1; x: 1, 1, 1, 1, 1; event_time: 2, 5, 11, 15, 12");
        operator.on_batch(0, Batch::new(rows), &mut out).unwrap();
        let n_made: Vec<(usize, usize)> = out
            .take()
            .into_iter()
            .map(|(port, batch)| (port, batch.n_rows()))
            .collect();
        (n_made, out.take_counts(), out.take_late())
    };
    let sliding = SlidingWindows::of(Duration::from_millis(4)).every(Duration::from_millis(10));
    // Of five rows one is late, two stand in gaps, and two are told of once.
    assert_eq!(
        of(Windowing::of(sliding)),
        (vec![(1, 1), (0, 1)], (2, 0), 1)
    );
}

/// Nothing is said to be kept to the end that is let go before.
#[test]
fn a_plan_says_what_is_kept_and_what_releases_it() {
    let pipeline = Pipeline::new("kept");
    let rows = pipeline
        .read("rows", scripted("k: 1; at: 0"))
        .assign_timestamps(col("at"), Watermarks::monotone());
    let late = Windowing::fixed(Duration::from_secs(1)).allowed_lateness(Duration::from_secs(2));
    let distinct = rows.distinct_within([col("k")], Duration::from_secs(3));
    let sessions = rows.sessionize([col("k")], Duration::from_secs(4));
    let in_windows = rows
        .window(late)
        .distinct_within([col("k")], Duration::from_secs(4));
    let forgetful = Scripted::of(
        || Declared::rows().cell(BAG).ttl(Duration::from_secs(5)),
        nothing,
        silent,
    );
    let forgetful = rows.group_by([col("k")]).process(forgetful);
    for kept in [distinct, sessions, in_windows, forgetful] {
        kept.write(collect().0);
    }
    let text = pipeline.plan().unwrap().explain();
    let text: Vec<&str> = text.lines().map(str::trim).collect();
    let text = text.join(" ");
    let kept: Vec<&str> = text.split("keeps ").skip(1).collect();
    let kept = kept
        .iter()
        .filter_map(|kept| kept.split(" transform ").next());
    let kept = kept.filter_map(|kept| kept.split(", holds").next());
    let kept = kept.filter_map(|kept| kept.split(" write ").next());
    expect![[r#"
        the watermark of each open split
        cells and timers of a key until the watermark passes its last row by 3000 ms
        what is in cells, and timers until they fire
        cells and timers of a key until the watermark passes its last row by 4000 ms and the lateness
        cells and timers of a key until the watermark passes its last row by 5000 ms"#]].assert_eq(&kept.collect::<Vec<_>>().join("\n"));
}
