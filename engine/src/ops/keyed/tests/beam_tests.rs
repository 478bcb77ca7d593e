//! The cases of Apache Beam's `userstate_test.py` (2.77) that apply, under their names.
//!
//! Rows of a step come as one batch, with the watermark as their time, as Beam's `TestStream` gives them. Not
//! here are the cases about Python signatures, coders, protocol buffers and the gRPC state handler: a cell and a
//! timer are constants with a type, and one function gets all timers. They are `test_validate_dofn`,
//! `test_spec_construction`, `test_state_spec_proto_conversion`, `test_param_construction`,
//! `test_stateful_dofn_detection`, `test_good_signatures`, `test_bad_signatures`, `test_validation_typos`, and
//! `test_stateful_set_state_compaction_race_portably`, in which appends and clears of a set are still on their way to
//! the state handler of another process when the set is compacted: here a set is in the memory of its worker.

use arrow::datatypes::Int64Type;
use expect_test::expect;
use serde::Deserialize;

use super::*;
use crate::connectors::{collect, from_record_batches};
use crate::testing::{show, table};
use crate::{Pipeline, RunOptions, col};

const COLUMNS: &str = "k: mykey; v: 1; event_time: 0";

fn values<'a>(rows: &KeyRows<'a>) -> Result<&'a [i64]> {
    rows.values::<Int64Type>("v")
}

fn run(declare: fn() -> Declared, on_rows: OnRows, on_timer: OnTimer) -> OperatorRun {
    let transform = Scripted::of(declare, on_rows, on_timer);
    by_k(transform, Windowing::global(), COLUMNS)
}

#[test]
fn test_simple_stateful_dofn() {
    const BUFFER: Bag<String> = Bag::new("buffer");
    const EXPIRY: Timer = Timer::event_time("expiry");
    run(
        || Declared::emits::<Said>().cell(BUFFER).timer(EXPIRY),
        |key, rows| {
            for value in values(rows)? {
                key.bag(BUFFER)?.add(format!("A{value}"));
                key.timer(EXPIRY)?.set(20)?;
            }
            Ok(())
        },
        |key, _| {
            let mut all = key.bag(BUFFER)?.read().to_vec();
            all.sort();
            say(key, all.concat())
        },
    )
    .watermark(10)
    .rows(0, "k: mykey, mykey; v: 1, 2; event_time: 10, 10")
    .rows(0, "k: mykey; v: 3; event_time: 10")
    .watermark(25)
    .rows(0, "k: mykey; v: 4; event_time: 25")
    .check(expect![[r#"
        watermark 25
        k: 'mykey'
        said: 'A1A2A3'
        event_time: 20
        rows
        k: 'mykey'
        said: 'A1A2A3A4'
        event_time: 20"#]]);
}

const BAG: Bag<i64> = Bag::new("bag");
const SET: Set<i64> = Set::new("set");
const EMIT: Timer = Timer::event_time("emit");
const CLEAR: Timer = Timer::event_time("clear");

#[test]
fn test_clearing_bag_state() {
    run(
        || Declared::emits::<Said>().cell(BAG).timer(EMIT).timer(CLEAR),
        |key, rows| {
            key.bag(BAG)?.extend(values(rows)?.iter().copied());
            key.timer(CLEAR)?.set(100)?;
            key.timer(EMIT)?.set(1000)
        },
        |key, timer| {
            if timer.is(CLEAR) {
                key.bag(BAG)?.clear();
                return Ok(());
            }
            for value in key.bag(BAG)?.read().to_vec() {
                say(key, value.to_string())?;
            }
            say(key, "extra")
        },
    )
    .watermark(0)
    .rows(0, "k: key; v: 7; event_time: 0")
    .watermark(100)
    .end()
    .check(expect![[r#"
        end
        k: 'key'
        said: 'extra'
        event_time: 1000"#]]);
}

#[test]
fn test_two_timers_one_function() {
    run(
        || Declared::emits::<Said>().cell(BAG).timer(EMIT).timer(CLEAR),
        |key, rows| {
            key.bag(BAG)?.extend(values(rows)?.iter().copied());
            key.timer(CLEAR)?.set(100)?;
            key.timer(EMIT)?.set(1000)
        },
        |key, _| {
            for value in key.bag(BAG)?.read().to_vec() {
                say(key, value.to_string())?;
            }
            Ok(())
        },
    )
    .watermark(0)
    .rows(0, "k: key; v: 7; event_time: 0")
    .watermark(100)
    .end()
    .check(expect![[r#"
        watermark 100
        k: 'key'
        said: '7'
        event_time: 100
        end
        k: 'key'
        said: '7'
        event_time: 1000"#]]);
}

const LAST: Value<String> = Value::new("value");

#[test]
fn test_simple_read_modify_write_stateful_dofn() {
    run(
        || Declared::emits::<Said>().cell(LAST),
        |key, rows| {
            for value in values(rows)? {
                key.value(LAST)?.write(format!("a:{value}"));
                let last = key.value(LAST)?.read().cloned().unwrap_or_default();
                say(key, last)?;
            }
            Ok(())
        },
        silent,
    )
    .watermark(0)
    .rows(0, "k: a; v: 1; event_time: 0")
    .watermark(10)
    .rows(0, "k: a; v: 3; event_time: 10")
    .watermark(20)
    .rows(0, "k: a; v: 5; event_time: 20")
    .check(expect![[r#"
        rows
        k: 'a'
        said: 'a:1'
        event_time: 0
        rows
        k: 'a'
        said: 'a:3'
        event_time: 10
        rows
        k: 'a'
        said: 'a:5'
        event_time: 20"#]]);
}

#[test]
fn test_clearing_read_modify_write_state() {
    run(
        || Declared::emits::<Said>().cell(LAST),
        |key, rows| {
            for value in values(rows)? {
                let mut last = key.value(LAST)?;
                let before = last.read().cloned();
                last.clear();
                let none = last.read().map_or("None", String::as_str);
                let now = format!("{none}:{value}");
                last.write(now.clone());
                if let Some(before) = before {
                    say(key, before)?;
                }
                if *value == 5 {
                    say(key, now)?;
                }
            }
            Ok(())
        },
        silent,
    )
    .watermark(0)
    .rows(0, "k: a; v: 1; event_time: 0")
    .watermark(10)
    .rows(0, "k: a; v: 3; event_time: 10")
    .watermark(20)
    .rows(0, "k: a; v: 5; event_time: 20")
    .check(expect![[r#"
        rows
        k: 'a'
        said: 'None:1'
        event_time: 10
        rows
        k: 'a', 'a'
        said: 'None:3', 'None:5'
        event_time: 20, 20"#]]);
}

fn listed(set: &std::collections::BTreeSet<i64>) -> String {
    let all: Vec<String> = set.iter().map(ToString::to_string).collect();
    all.join(" ")
}

#[test]
fn test_simple_set_stateful_dofn() {
    run(
        || Declared::emits::<Said>().cell(SET).timer(EMIT),
        |key, rows| {
            for value in values(rows)? {
                key.set(SET)?.add(*value);
                key.timer(EMIT)?.set(20)?;
            }
            Ok(())
        },
        |key, _| {
            let all = listed(key.set(SET)?.read());
            say(key, all)
        },
    )
    .watermark(10)
    .rows(
        0,
        "k: mykey, mykey, mykey; v: 1, 2, 3; event_time: 10, 10, 10",
    )
    .rows(0, "k: mykey; v: 2; event_time: 10")
    .watermark(24)
    .end()
    .check(expect![[r#"
        watermark 24
        k: 'mykey'
        said: '1 2 3'
        event_time: 20"#]]);
}

#[test]
fn test_clearing_set_state() {
    run(
        || Declared::emits::<Said>().cell(SET).timer(EMIT).timer(CLEAR),
        |key, rows| {
            values(rows)?.iter().try_for_each(|value| {
                key.set(SET)?.add(*value);
                Ok::<(), crate::Error>(())
            })?;
            key.timer(CLEAR)?.set(100)?;
            key.timer(EMIT)?.set(1000)
        },
        |key, timer| {
            if timer.is(CLEAR) {
                key.set(SET)?.clear();
                key.set(SET)?.add(-1);
                return Ok(());
            }
            let all = listed(key.set(SET)?.read());
            say(key, all)
        },
    )
    .watermark(0)
    .rows(0, "k: key1; v: 1; event_time: 0")
    .watermark(100)
    .end()
    .check(expect![[r#"
        end
        k: 'key1'
        said: '-1'
        event_time: 1000"#]]);
}

#[test]
fn test_stateful_set_state_portably() {
    run(
        || Declared::emits::<Said>().cell(SET),
        |key, rows| {
            for value in values(rows)? {
                let mut set = key.set(SET)?;
                set.add(*value);
                let total: i64 = set.read().iter().sum();
                say(key, total.to_string())?;
            }
            Ok(())
        },
        silent,
    )
    .rows(
        0,
        "k: key, key, key, key, key; v: 1, 2, 3, 4, 3; event_time: 0, 0, 0, 0, 0",
    )
    .end()
    .check(expect![[r#"
        rows
        k: 'key', 'key', 'key', 'key', 'key'
        said: '1', '3', '6', '10', '10'
        event_time: 0, 0, 0, 0, 0"#]]);
}

#[test]
fn test_stateful_set_state_clean_portably() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().cell(SET).timer(EMIT),
        |key, rows| {
            for value in values(rows)? {
                let mut set = key.set(SET)?;
                set.add(*value);
                if set.read().len() == 5 {
                    set.clear();
                    set.add(100);
                    key.timer(EMIT)?.set(1)?;
                }
            }
            Ok(())
        },
        |key, _| {
            let all = listed(key.set(SET)?.read());
            say(key, all)
        },
    );
    let windows = Windowing::fixed(std::time::Duration::from_millis(1));
    by_k(transform, windows, COLUMNS)
        .rows(
            0,
            "k: key, key, key, key, key; v: 1, 2, 3, 4, 5; event_time: 1, 1, 1, 1, 1",
        )
        .end()
        .check(expect![[r#"
            end
            k: 'key'
            said: '100'
            window_start: 1
            window_end: 2
            event_time: 1"#]]);
}

#[test]
fn test_stateful_dofn_nonkeyed_input() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().cell(BAG),
        |_, _| Ok(()),
        silent,
    );
    OperatorRun::new(
        Process::new(transform, ["k"], Windowing::global()),
        &["v: 1; event_time: 0"],
    )
    .check(expect![[r#"
        column "k" is not there
          The columns are "v", "event_time"."#]]);
}

#[test]
fn test_generate_sequence_with_realtime_timer() {
    const REAL: Timer = Timer::processing_time("emit_timer");
    const COUNT: Combining<i64, i64> = Combining::new("count", || 0, |count, one| *count += one);
    const FREQUENCY: i64 = 1;
    run(
        || Declared::emits::<Said>().cell(COUNT).timer(REAL),
        |key, rows| {
            for value in values(rows)? {
                key.timer(REAL)?.set(FREQUENCY)?;
                say(key, value.to_string())?;
            }
            Ok(())
        },
        |key, _| {
            let count = key.combining(COUNT)?.read().copied().unwrap_or(0);
            if count == 3 {
                return Ok(());
            }
            key.combining(COUNT)?.add(1);
            key.timer(REAL)?.set(count + 1 + FREQUENCY)?;
            say(key, "value")
        },
    )
    .watermark(0)
    .rows(0, "k: key; v: 0; event_time: 0")
    .processing_time(1)
    .rows(0, "k: key; v: 1; event_time: 0")
    .processing_time(2)
    .rows(0, "k: key; v: 2; event_time: 0")
    .processing_time(3)
    .rows(0, "k: key; v: 3; event_time: 0")
    .check(expect![[r#"
        rows
        k: 'key'
        said: '0'
        event_time: 0
        processing time 1
        k: 'key'
        said: 'value'
        event_time: 0
        rows
        k: 'key', 'key'
        said: '1', 'value'
        event_time: 0, 0
        rows
        k: 'key', 'key'
        said: '2', 'value'
        event_time: 0, 0
        rows
        k: 'key'
        said: '3'
        event_time: 0"#]]);
}

#[test]
fn test_simple_stateful_dofn_combining() {
    const BUFFER: Combining<i64, Vec<i64>> =
        Combining::new("buffer", Vec::new, |all, value| all.push(value));
    run(
        || Declared::emits::<Said>().cell(BUFFER).timer(EMIT),
        |key, rows| {
            for value in values(rows)? {
                key.combining(BUFFER)?.add(*value);
                key.timer(EMIT)?.set(20)?;
            }
            Ok(())
        },
        |key, _| {
            let mut all = key.combining(BUFFER)?.read().cloned().unwrap_or_default();
            all.sort_unstable();
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            say(key, all.concat())
        },
    )
    .watermark(10)
    .rows(0, "k: mykey, mykey; v: 1, 2; event_time: 10, 10")
    .rows(0, "k: mykey; v: 3; event_time: 10")
    .watermark(25)
    .rows(0, "k: mykey; v: 4; event_time: 25")
    .check(expect![[r#"
        watermark 25
        k: 'mykey'
        said: '123'
        event_time: 20
        rows
        k: 'mykey'
        said: '1234'
        event_time: 20"#]]);
}

#[test]
fn test_timer_output_timestamp() {
    const TIMERS: [Timer; 3] = [
        Timer::event_time("emit1"),
        Timer::event_time("emit2"),
        Timer::event_time("emit3"),
    ];
    run(
        || {
            TIMERS
                .into_iter()
                .fold(Declared::emits::<Said>(), Declared::timer)
        },
        |key, _| {
            key.timer(TIMERS[0])?.set(10)?;
            key.timer(TIMERS[1])?.set(20)?;
            key.timer(TIMERS[2])?.set(30)
        },
        |key, timer| say(key, timer.name()),
    )
    .watermark(10)
    .rows(0, "k: mykey; v: 1; event_time: 10")
    .end()
    .check(expect![[r#"
        rows
        k: 'mykey'
        said: 'emit1'
        event_time: 10
        end
        k: 'mykey', 'mykey'
        said: 'emit2', 'emit3'
        event_time: 20, 30"#]]);
}

#[test]
fn test_timer_output_timestamp_and_window() {
    let transform = Scripted::of(
        || Declared::emits::<Said>().timer(EMIT),
        |key, _| key.timer(EMIT)?.set(10),
        |key, _| {
            let key_row = show(&key.key()?);
            say(key, format!("timer1-{key_row}"))
        },
    );
    let windows = Windowing::fixed(std::time::Duration::from_millis(5));
    by_k(transform, windows, COLUMNS)
        .watermark(10)
        .rows(0, "k: mykey; v: 1; event_time: 10")
        .end()
        .check(expect![[r#"
            rows
            k: 'mykey'
            said: 'timer1-k: 'mykey''
            window_start: 10
            window_end: 15
            event_time: 10"#]]);
}

fn say_tag(key: &mut Scope<'_>, timer: FiredTimer<'_>) -> Result<()> {
    say(key, format!("{} {}", timer.tag(), timer.time()))
}

#[test]
fn test_timer_default_tag() {
    run(
        || Declared::emits::<Said>().timer(EMIT),
        |key, _| {
            key.timer(EMIT)?.set(10)?;
            key.timer(EMIT)?.tagged("").set(20)
        },
        say_tag,
    )
    .watermark(10)
    .rows(0, "k: mykey; v: 1; event_time: 10")
    .end()
    .check(expect![[r#"
        end
        k: 'mykey'
        said: ' 20'
        event_time: 20"#]]);
}

#[test]
fn test_dynamic_timer_simple_dofn() {
    run(
        || Declared::emits::<Said>().timer(EMIT),
        |key, _| {
            key.timer(EMIT)?.tagged("emit1").set(10)?;
            key.timer(EMIT)?.tagged("emit2").set(20)?;
            key.timer(EMIT)?.tagged("emit3").set(30)
        },
        say_tag,
    )
    .watermark(10)
    .rows(0, "k: mykey; v: 1; event_time: 10")
    .end()
    .check(expect![[r#"
        rows
        k: 'mykey'
        said: 'emit1 10'
        event_time: 10
        end
        k: 'mykey', 'mykey'
        said: 'emit2 20', 'emit3 30'
        event_time: 20, 30"#]]);
}

/// Two transforms, one behind the other, in a bounded run.
#[test]
fn test_dynamic_timer_clear_then_set_timer() {
    #[derive(Deserialize)]
    struct Event {
        said: String,
    }
    let emit_two = Scripted::of(
        || Declared::emits::<Said>().timer(CLEAR),
        |key, _| {
            say(key, "set")?;
            key.timer(CLEAR)?.set(1)
        },
        |key, _| say(key, "clear"),
    );
    let dynamic = Scripted::of(
        || Declared::emits::<Said>().timer(EMIT).reads::<Event>(),
        |key, rows| {
            for event in rows.read::<Event>()? {
                if event.said == "set" {
                    key.timer(EMIT)?.tagged("emit1").set(10)?;
                    key.timer(EMIT)?.tagged("emit2").set(20)?;
                }
                if event.said == "clear" {
                    key.timer(EMIT)?.tagged("emit3").set(30)?;
                    key.timer(EMIT)?.tagged("emit3").clear();
                    key.timer(EMIT)?.tagged("emit3").set(40)?;
                }
            }
            Ok(())
        },
        say_tag,
    );
    let pipeline = Pipeline::new("timers");
    let rows = from_record_batches(vec![table("k: 1; v: impulse")]);
    let (sink, made) = collect();
    pipeline
        .read("rows", rows)
        .group_by([col("k")])
        .process(emit_two)
        .group_by([col("k")])
        .process(dynamic)
        .write(sink);
    pipeline.run(&RunOptions::default()).unwrap();
    let made: Vec<String> = made.take().iter().map(show).collect();
    assert_eq!(
        made,
        ["k: 1, 1, 1\nsaid: 'emit1 10', 'emit2 20', 'emit3 40'"]
    );
}

#[test]
fn test_dynamic_timer_clear_timer() {
    run(
        || Declared::emits::<Said>().timer(EMIT),
        |key, rows| {
            if values(rows)? == [1] {
                key.timer(EMIT)?.tagged("emit1").set(10)?;
                key.timer(EMIT)?.tagged("emit2").set(20)?;
                key.timer(EMIT)?.tagged("emit3").set(30)?;
            } else {
                key.timer(EMIT)?.tagged("emit3").clear();
            }
            Ok(())
        },
        say_tag,
    )
    .watermark(5)
    .rows(0, "k: mykey; v: 1; event_time: 5")
    .watermark(10)
    .rows(0, "k: mykey; v: 2; event_time: 10")
    .end()
    .check(expect![[r#"
        watermark 10
        k: 'mykey'
        said: 'emit1 10'
        event_time: 10
        end
        k: 'mykey'
        said: 'emit2 20'
        event_time: 20"#]]);
}

#[test]
fn test_dynamic_timer_multiple() {
    const OTHER: Timer = Timer::event_time("other");
    run(
        || Declared::emits::<Said>().timer(EMIT).timer(OTHER),
        |key, _| {
            for (tag, time) in [("emit11", 10), ("emit12", 20), ("emit13", 30)] {
                key.timer(EMIT)?.tagged(tag).set(time)?;
            }
            for (tag, time) in [("emit21", 30), ("emit22", 20), ("emit23", 10)] {
                key.timer(OTHER)?.tagged(tag).set(time)?;
            }
            Ok(())
        },
        say_tag,
    )
    .watermark(5)
    .rows(0, "k: mykey; v: 1; event_time: 5")
    .end()
    .check(expect![[r#"
        end
        k: 'mykey', 'mykey', 'mykey', 'mykey', 'mykey', 'mykey'
        said: 'emit11 10', 'emit23 10', 'emit12 20', 'emit22 20', 'emit13 30', 'emit21 30'
        event_time: 10, 10, 20, 20, 30, 30"#]]);
}

#[test]
fn test_dynamic_timer_and_simple_timer() {
    const GC: Timer = Timer::event_time("gc");
    run(
        || Declared::emits::<Said>().timer(EMIT).timer(GC),
        |key, _| {
            for (tag, time) in [("emit1", 10), ("emit2", 20), ("emit3", 30)] {
                key.timer(EMIT)?.tagged(tag).set(time)?;
            }
            key.timer(GC)?.set(40)
        },
        |key, timer| match timer.is(GC) {
            true => say(key, format!("gc {}", timer.time())),
            false => say_tag(key, timer),
        },
    )
    .watermark(5)
    .rows(0, "k: mykey; v: 1; event_time: 5")
    .end()
    .check(expect![[r#"
        end
        k: 'mykey', 'mykey', 'mykey', 'mykey'
        said: 'emit1 10', 'emit2 20', 'emit3 30', 'gc 40'
        event_time: 10, 20, 30, 40"#]]);
}

#[test]
fn test_index_assignment() {
    const INDEX: Combining<i64, i64> = Combining::new("index", || 0, |index, one| *index += one);
    run(
        || Declared::emits::<Said>().cell(INDEX),
        |key, rows| {
            for value in values(rows)? {
                let index = key.combining(INDEX)?.read().copied().unwrap_or(0);
                say(key, format!("{value} at {index}"))?;
                key.combining(INDEX)?.add(1);
            }
            Ok(())
        },
        silent,
    )
    .watermark(10)
    .rows(0, "k: mykey, mykey; v: 11, 12; event_time: 10, 10")
    .rows(0, "k: mykey; v: 13; event_time: 10")
    .watermark(25)
    .rows(0, "k: mykey; v: 14; event_time: 25")
    .check(expect![[r#"
        rows
        k: 'mykey', 'mykey'
        said: '11 at 0', '12 at 1'
        event_time: 10, 10
        rows
        k: 'mykey'
        said: '13 at 2'
        event_time: 10
        rows
        k: 'mykey'
        said: '14 at 3'
        event_time: 25"#]]);
}

#[test]
fn test_hash_join() {
    run(
        || Declared::emits::<Said>().cell(BAG).timer(EMIT),
        |key, rows| {
            for value in values(rows)? {
                match key.bag(BAG)?.read().first().copied() {
                    None => {
                        key.bag(BAG)?.add(*value);
                        key.timer(EMIT)?.set(100)?;
                    }
                    Some(first) => {
                        say(key, format!("{first} {value}"))?;
                        key.bag(BAG)?.clear();
                        key.timer(EMIT)?.clear();
                    }
                }
            }
            Ok(())
        },
        |key, _| {
            let all = key.bag(BAG)?.take();
            assert_eq!(all.len(), 1);
            say(key, format!("unmatched {}", all[0]))
        },
    )
    .watermark(10)
    .rows(0, "k: A, B; v: 1, 1; event_time: 10, 10")
    .rows(0, "k: A, C; v: 2, 1; event_time: 10, 10")
    .watermark(25)
    .rows(0, "k: A, B; v: 3, 2; event_time: 25, 25")
    .rows(
        0,
        "k: D, D, D, D; v: 1, 2, 3, 4; event_time: 25, 25, 25, 25",
    )
    .watermark(125)
    .rows(0, "k: C; v: 2; event_time: 125")
    .end()
    .check(expect![[r#"
        rows
        k: 'A'
        said: '1 2'
        event_time: 10
        rows
        k: 'B'
        said: '1 2'
        event_time: 25
        rows
        k: 'D', 'D'
        said: '1 2', '3 4'
        event_time: 25, 25
        watermark 125
        k: 'A', 'C'
        said: 'unmatched 3', 'unmatched 1'
        event_time: 100, 100
        rows
        k: 'C'
        said: 'unmatched 2'
        event_time: 100"#]]);
}
