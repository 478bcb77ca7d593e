//! Cases of Apache Beam's `test_stream_test.py` (2.77) that apply, under their names, played to [`simulate`] with a
//! [`Script`] in the place of a `TestStream`. Beam's seconds are milliseconds here, but for those of processing time.
//!
//! Differences that hold for all: each row says its own event time, where Beam gives an element that has none the
//! watermark's; an output of a stream under a tag is a source; a pane without rows has a null in place of an empty
//! list.
//!
//! Not here, because they do not apply:
//! - `test_basic_test_stream`: which events a stream holds, of elements with and without times. Rows have a time.
//! - `test_dicts_not_interpreted_as_windowed_values` and `test_instance_check_windowed_value_holder`: which Python
//!   values stand for an element with its window. Rows have types.
//! - `test_roundtrip_proto` and `test_roundtrip_proto_multi`: protocol buffers. A script is a Rust value.
//! - `test_basic_execution_with_service`: a stream that is read from a gRPC service.
//! - `test_basic_execution_in_records_format` of `ReverseTestStreamTest`: events as protocol buffers. The other two
//!   of that class record what arrives as events; here [`Simulated::steps`] tells it, step by step.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::{Script, Simulated, scripted, show_rows, simulate};
use crate::aggregates::array_agg;
use crate::connectors::{collect, from_record_batches};
use crate::ops::{SideInput, Watermarks};
use crate::testing::{show, table};
use crate::windowing::{FixedWindows, Trigger, Windowing};
use crate::{Collection, Pipeline, RunOptions, col};

const COLUMNS: &str = "v: a; event_time: 0";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn fixed(size: u64) -> Windowing {
    Windowing::of(FixedWindows::of(ms(size)))
}

fn write(rows: &Collection, name: &str) {
    let (sink, _) = collect();
    rows.named(name).write(sink);
}

/// Checks what `of` tells of the script, played on 1 to 3 workers in several orders.
fn check(
    pipeline: &Pipeline,
    script: &Script,
    of: impl Fn(&Simulated) -> String,
    expected: &Expect,
) {
    let play = |n_workers, seed| of(&simulate(pipeline, script, n_workers, seed).unwrap());
    let told = play(1, 0);
    expected.assert_eq(&told);
    for seed in 1..12 {
        let n_workers = 1 + usize::try_from(seed).unwrap() % 3;
        assert_eq!(
            play(n_workers, seed),
            told,
            "{n_workers} workers, seed {seed}"
        );
    }
}

/// The panes of each window, in order of the windows and then as they left: what of `v` they hold, sorted.
fn panes(simulated: &Simulated, sink: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for rows in simulated.rows(sink) {
        for row in 0..rows.num_rows() {
            lines.push(show_rows(&[rows.slice(row, 1)]));
        }
    }
    lines.sort_by_key(|line| {
        let start = line.split("window_start=").nth(1).unwrap();
        let start = start.split(' ').next().unwrap();
        start.parse::<i64>().unwrap()
    });
    lines.join("\n")
}

/// What arrives, and at which step.
fn steps(simulated: &Simulated) -> String {
    let steps = simulated.steps("out").iter().enumerate();
    let arrived = steps.filter(|(_, rows)| rows.iter().any(|rows| rows.num_rows() > 0));
    let lines = arrived.map(|(n, rows)| format!("step {n}\n{}", show_rows(rows)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Values by key, in windows.
fn grouped(rows: &Collection, windowing: Windowing) -> Collection {
    let grouped = rows.window(windowing).group_by([]);
    let values = grouped.agg([array_agg(col("v")).alias("vs")]);
    values.select([col("vs"), col("window_start"), col("window_end")])
}

/// `v` of a source in windows, given by this script.
fn check_panes(windowing: Windowing, script: &Script, expected: &Expect) {
    let pipeline = Pipeline::new("panes");
    let rows = pipeline.read("rows", scripted(COLUMNS));
    write(&grouped(&rows, windowing), "out");
    check(&pipeline, script, |made| panes(made, "out"), expected);
}

/// Beam refuses such streams while they are written. Here a watermark and a clock that go back stay where they are,
/// and a time after the last is a bad row.
#[test]
fn test_test_stream_errors() {
    let script = Script::new()
        .watermark("rows", 15)
        .watermark("rows", 4)
        .rows("rows", "v: late; event_time: 14")
        .end("rows");
    check_panes(fixed(15), &script, &expect![[""]]);

    let pipeline = Pipeline::new("clock");
    let trigger = Trigger::after_processing_time(ms(5)).repeatedly();
    let rows = pipeline.read("rows", scripted(COLUMNS));
    write(&grouped(&rows, fixed(15).trigger(trigger)), "out");
    let script = Script::new()
        .processing_time(10)
        .processing_time(5)
        .rows("rows", "v: a; event_time: 1")
        .processing_time(14)
        .processing_time(15);
    check(
        &pipeline,
        &script,
        steps,
        &expect![[r#"
        step 4
        vs=[a] window_start=0 window_end=15"#]],
    );

    let last = crate::event_time::MAX_TIME;
    let pipeline = Pipeline::new("times");
    let rows = pipeline.read("rows", scripted("v: a; t: 0"));
    let timed = rows.assign_timestamps(col("t"), Watermarks::monotone());
    write(
        &timed.dead_letters().select([col("row"), col("reason")]),
        "dead",
    );
    write(&timed.select([col("v")]), "out");
    let script = Script::new()
        .rows("rows", &format!("v: a, b; t: {last}, {}", last + 1))
        .end("rows");
    check(
        &pipeline,
        &script,
        |made| {
            format!(
                "{}\n{}",
                show_rows(&made.rows("out")),
                show_rows(&made.rows("dead"))
            )
        },
        &expect![[r#"
            v='a'
            row=1 reason='event time `t` is out of range, -9223372036854775 to 9223372036854775 milliseconds since 1970'"#]],
    );
}

#[test]
fn test_basic_execution() {
    let pipeline = Pipeline::new("records");
    write(
        &pipeline.read("rows", scripted(COLUMNS)).map_batches(Ok),
        "out",
    );
    let script = Script::new()
        .watermark("rows", 10)
        .rows("rows", "v: a, b, c; event_time: 10, 10, 10")
        .watermark("rows", 20)
        .rows("rows", "v: d; event_time: 20")
        .rows("rows", "v: e; event_time: 20")
        .processing_time(10_000)
        .watermark("rows", 300)
        .rows("rows", "v: late; event_time: 12")
        .rows("rows", "v: last; event_time: 310")
        .end("rows");
    check(
        &pipeline,
        &script,
        |made| show_rows(&made.rows("out")),
        &expect![[r#"
            v='a' event_time=10
            v='b' event_time=10
            v='c' event_time=10
            v='d' event_time=20
            v='e' event_time=20
            v='last' event_time=310
            v='late' event_time=12"#]],
    );
}

#[test]
fn test_multiple_outputs() {
    let pipeline = Pipeline::new("records");
    for name in ["letters", "numbers"] {
        let rows = pipeline.read(name, scripted(COLUMNS));
        write(&rows.map_batches(Ok), &format!("record {name}"));
    }
    let script = Script::new()
        .watermark("letters", 5)
        .rows("letters", "v: a, b, c; event_time: 6, 7, 8")
        .watermark("numbers", 10)
        .rows("numbers", "v: '1', '2', '3'; event_time: 11, 12, 13");
    check(
        &pipeline,
        &script,
        |made| {
            let of = |name| show_rows(&made.rows(name));
            format!("{}\n{}", of("record letters"), of("record numbers"))
        },
        &expect![[r#"
            v='a' event_time=6
            v='b' event_time=7
            v='c' event_time=8
            v='1' event_time=11
            v='2' event_time=12
            v='3' event_time=13"#]],
    );
}

/// The watermark of each source moves on its own: numbers stand in a window that letters have not reached.
#[test]
fn test_multiple_outputs_with_watermark_advancement() {
    let early = || Trigger::after_watermark().early(Trigger::after_count(1));
    let pipeline = Pipeline::new("panes");
    for name in ["letters", "numbers"] {
        let rows = pipeline.read(name, scripted(COLUMNS));
        write(
            &grouped(&rows, fixed(15).trigger(early())),
            &format!("{name} out"),
        );
    }
    let script = Script::new()
        .watermark("letters", 0)
        .watermark("numbers", 0)
        .watermark("numbers", 20)
        .watermark("letters", 5)
        .rows("letters", "v: a, b, c; event_time: 6, 7, 8")
        .watermark("letters", 10)
        .rows("numbers", "v: '1', '2', '3'; event_time: 21, 22, 23")
        .watermark("numbers", 30)
        .end("letters")
        .end("numbers");
    check(
        &pipeline,
        &script,
        |made| {
            format!(
                "{}\n{}",
                panes(made, "letters out"),
                panes(made, "numbers out")
            )
        },
        &expect![[r#"
            vs=[a, b, c] window_start=0 window_end=15
            vs=null window_start=0 window_end=15
            vs=[1, 2, 3] window_start=15 window_end=30
            vs=null window_start=15 window_end=30"#]],
    );
}

/// The window of a row is in its columns.
#[test]
fn test_windowed_values_interpreted_correctly() {
    let pipeline = Pipeline::new("records");
    let columns = "v: a; event_time: 5; window_start: 5; window_end: 10";
    write(
        &pipeline.read("rows", scripted(columns)).map_batches(Ok),
        "out",
    );
    let script = Script::new()
        .processing_time(10_000)
        .watermark("rows", 10)
        .rows("rows", columns)
        .end("rows");
    check(
        &pipeline,
        &script,
        |made| show_rows(&made.rows("out")),
        &expect!["v='a' event_time=5 window_start=5 window_end=10"],
    );
}

#[test]
fn test_gbk_execution_no_triggers() {
    let script = Script::new()
        .watermark("rows", 10)
        .rows("rows", "v: a, b, c; event_time: 10, 10, 10")
        .watermark("rows", 20)
        .rows("rows", "v: d; event_time: 20")
        .rows("rows", "v: e; event_time: 20")
        .processing_time(10_000)
        .watermark("rows", 300)
        .rows("rows", "v: late; event_time: 12")
        .rows("rows", "v: last; event_time: 310")
        .end("rows");
    let windowing = fixed(15).allowed_lateness(ms(300));
    check_panes(
        windowing,
        &script,
        &expect![[r#"
        vs=[a, b, c] window_start=0 window_end=15
        vs=[late] window_start=0 window_end=15
        vs=[d, e] window_start=15 window_end=30
        vs=[last] window_start=300 window_end=315"#]],
    );
}

#[test]
fn test_gbk_execution_after_watermark_trigger() {
    let script = Script::new()
        .watermark("rows", 10)
        .rows("rows", "v: a; event_time: 11")
        .watermark("rows", 20)
        .rows("rows", "v: b; event_time: 21")
        .end("rows");
    let early = Trigger::after_watermark().early(Trigger::after_count(1));
    check_panes(
        fixed(15).trigger(early),
        &script,
        &expect![[r#"
        vs=[a] window_start=0 window_end=15
        vs=null window_start=0 window_end=15
        vs=[b] window_start=15 window_end=30
        vs=null window_start=15 window_end=30"#]],
    );
}

#[test]
fn test_gbk_execution_after_processing_trigger_fired() {
    let script = Script::new()
        .watermark("rows", 10)
        .rows("rows", "v: a; event_time: 10")
        .processing_time(5_100)
        .end("rows");
    let trigger = Trigger::after_processing_time(Duration::from_secs(5));
    let windowing = fixed(15).trigger(trigger).allow_data_loss(true);
    check_panes(
        windowing,
        &script,
        &expect!["vs=[a] window_start=0 window_end=15"],
    );
}

const SIDE: &str = "n: 2, 1, 4; event_time: 2, 1, 4";

/// A side that ends is read before the main rows, in a run: a simulation has one phase.
fn check_batch_side(main: &str, side: &str, windowings: [Windowing; 2], expected: &Expect) {
    let pipeline = Pipeline::new("sides");
    let read = |name: &str, rows: &str| pipeline.read(name, from_record_batches(vec![table(rows)]));
    let [of_main, of_side] = windowings;
    let main = read("main", main).window(of_main);
    let side = read("side", side).window(of_side);
    let (sink, made) = collect();
    let seen = main.with_side_input(&side, SideInput::list("side", col("n")));
    seen.write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    expected.assert_eq(&show(&made.take()[0]));
}

#[test]
fn test_basic_execution_batch_sideinputs() {
    let windowings = [Windowing::global(), Windowing::global()];
    check_batch_side(
        "v: e; event_time: 10",
        SIDE,
        windowings,
        &expect![[r#"
        v: 'e'
        event_time: 10
        side: [1, 2, 4]"#]],
    );
}

#[test]
fn test_basic_execution_batch_sideinputs_fixed_windows() {
    let main = "v: a, b; event_time: 2, 4";
    check_batch_side(
        main,
        SIDE,
        [fixed(1), fixed(2)],
        &expect![[r#"
        v: 'a', 'b'
        event_time: 2, 4
        side: [2], [4]"#]],
    );
}

/// A side that is seen whole is seen at its end, so one that never ends is refused, and one that ends is read first.
/// A list is in the order of its times, not in that of arrival.
#[test]
fn test_basic_execution_sideinputs() {
    check_batch_side(
        "v: e; event_time: 10",
        "n: 2, 1, 7, 4; event_time: 2, 1, 7, 4",
        [Windowing::global(), Windowing::global()],
        &expect![[r#"
            v: 'e'
            event_time: 10
            side: [1, 2, 4, 7]"#]],
    );
    let pipeline = Pipeline::new("sides");
    let main = pipeline.read("main", scripted(COLUMNS));
    let side = pipeline.read("side", scripted("n: 0; event_time: 0"));
    let list = SideInput::list("side", col("n"));
    write(&main.with_side_input(&side, list), "out");
    expect![[r#"
        rows wait for the end of side input "side", which never ends
          in transform "side_input"
          Hint: Divide the side by `window`, or see the version valid at the time of a row with `SideInput::as_of_event_time`."#]].assert_eq(&pipeline.plan().unwrap_err().to_string());
}

/// The row at 10 comes when the side's watermark has passed its window: Beam's runner keeps it, here that is asked
/// for as an allowed lateness.
#[test]
fn test_basic_execution_sideinputs_fixed_windows() {
    let pipeline = Pipeline::new("sides");
    let main = pipeline.read("main", scripted(COLUMNS)).window(fixed(1));
    let side = pipeline.read("side", scripted("s: s0; event_time: 0"));
    let side = side.window(fixed(3).allowed_lateness(ms(1)));
    let list = SideInput::list("side", col("s"));
    write(&main.with_side_input(&side, list), "out");
    let script = Script::new()
        .watermark("side", 12)
        .rows("side", "s: s1; event_time: 10")
        .watermark("side", 20)
        .rows("side", "s: s2; event_time: 20")
        .watermark("main", 9)
        .rows("main", "v: a1, a2, a3, a4; event_time: 9, 9, 9, 9")
        .rows("main", "v: b; event_time: 9")
        .watermark("main", 18)
        .rows("main", "v: c; event_time: 18")
        .end("side")
        .end("main");
    check(
        &pipeline,
        &script,
        |made| show_rows(&made.rows("out")),
        &expect![[r#"
            v='a1' event_time=9 side=[s1]
            v='a2' event_time=9 side=[s1]
            v='a3' event_time=9 side=[s1]
            v='a4' event_time=9 side=[s1]
            v='b' event_time=9 side=[s1]
            v='c' event_time=18 side=[s2]"#]],
    );
}

/// `ReverseTestStreamTest`: what arrives, and when.
mod reverse {
    use super::*;

    #[test]
    fn test_basic_execution() {
        let pipeline = Pipeline::new("records");
        write(
            &pipeline.read("rows", scripted(COLUMNS)).map_batches(Ok),
            "out",
        );
        let mut script = Script::new()
            .watermark("rows", 0)
            .processing_time(5_000)
            .rows("rows", "v: a, b, c; event_time: 0, 0, 0");
        for n in 1..=5 {
            script = script
                .watermark("rows", 2 * n)
                .processing_time(5_000 + n * 1_000);
        }
        script = script.rows("rows", "v: '1', '2', '3'; event_time: 15, 15, 15");
        check(
            &pipeline,
            &script,
            steps,
            &expect![[r#"
            step 2
            v='a' event_time=0
            v='b' event_time=0
            v='c' event_time=0
            step 13
            v='1' event_time=15
            v='2' event_time=15
            v='3' event_time=15"#]],
        );
    }

    /// Results leave when the watermark passes the end of their window, and at no other step.
    #[test]
    fn test_windowing() {
        let pipeline = Pipeline::new("records");
        let rows = pipeline.read("rows", scripted(COLUMNS));
        write(&grouped(&rows, fixed(5)), "out");
        let mut script = Script::new()
            .watermark("rows", 0)
            .rows("rows", "v: a, b, c; event_time: 0, 0, 0");
        for second in 1..=5 {
            script = script.processing_time(second * 1_000);
        }
        script = script
            .watermark("rows", 5)
            .rows("rows", "v: '1', '2', '3'; event_time: 5, 5, 5");
        for time in 6..=15 {
            script = script.processing_time(time * 1_000).watermark("rows", time);
        }
        check(
            &pipeline,
            &script,
            steps,
            &expect![[r#"
            step 7
            vs=[a, b, c] window_start=0 window_end=5
            step 18
            vs=[1, 2, 3] window_start=5 window_end=10"#]],
        );
    }
}
