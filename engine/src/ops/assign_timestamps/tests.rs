//! What event time rows are given, and the watermark that follows.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{BooleanArray, Int64Array};
use datafusion_common::ScalarValue;
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::aggregates::count;
use crate::batch::SplitKey;
use crate::connectors::{collect, from_record_batches};
use crate::expression::col;
use crate::ops::MapBatches;
use crate::output::OnBadRow;
use crate::pipeline::Pipeline;
use crate::runner::RunOptions;
use crate::testing::{
    Script, refuse_transform, run_transform, scripted, show_rows, simulate, table,
};
use crate::windowing::{FixedWindows, Windowing};

fn bounded(ms: u64) -> Watermarks {
    Watermarks::bounded_out_of_orderness(Duration::from_millis(ms))
}

fn millis_of(rows: &RecordBatch) -> Vec<i64> {
    crate::event_time::event_times(rows).unwrap().to_vec()
}

#[test]
fn times_of_any_unit_become_milliseconds_rounded_down() {
    use arrow::array::{Date32Array, TimestampMicrosecondArray, TimestampSecondArray};
    let columns: [ArrayRef; 3] = [
        Arc::new(TimestampMicrosecondArray::from(vec![-1, 1_999])),
        Arc::new(TimestampSecondArray::from(vec![2, -2])),
        Arc::new(Date32Array::from(vec![1, -1])),
    ];
    let times = columns.map(|column| {
        let rows = RecordBatch::try_from_iter([("t", column)]).unwrap();
        let assign = AssignTimestamps::new(col("t"), bounded(0));
        millis_of(&run_transform(&assign, &rows, OnBadRow::Fail).unwrap().0)
    });
    assert_eq!(
        times,
        [
            vec![-1, 1],
            vec![2_000, -2_000],
            vec![86_400_000, -86_400_000]
        ]
    );
}

/// Of each type the last values on both ends that are good, 9,223,372,036,854,775 ms from 1970, with the bad ones next
/// to them where there are any: whether these are rejected, and whether sources are told that they are.
#[test]
fn a_source_is_told_of_the_very_rows_that_are_rejected() {
    use arrow::datatypes::{DataType, TimeUnit};
    let timestamp = |unit| DataType::Timestamp(unit, Some("UTC".into()));
    let least = 9_223_372_036_854_775_i64;
    let cases: [(DataType, [i64; 4]); 6] = [
        (DataType::Int64, [-least - 1, -least, least, least + 1]),
        (
            timestamp(TimeUnit::Millisecond),
            [-least - 1, -least, least, least + 1],
        ),
        (
            timestamp(TimeUnit::Second),
            [
                -9_223_372_036_855,
                -9_223_372_036_854,
                9_223_372_036_854,
                9_223_372_036_855,
            ],
        ),
        (
            DataType::Date32,
            [-106_751_992, -106_751_991, 106_751_991, 106_751_992],
        ),
        (
            timestamp(TimeUnit::Microsecond),
            [
                -9_223_372_036_854_775_001,
                -9_223_372_036_854_775_000,
                i64::MAX,
                i64::MAX,
            ],
        ),
        (
            timestamp(TimeUnit::Nanosecond),
            [i64::MIN, i64::MIN, i64::MAX, i64::MAX],
        ),
    ];
    for (data_type, values) in cases {
        let of_type = |value: i64| ScalarValue::Int64(Some(value)).cast_to(&data_type).unwrap();
        let values = values
            .map(of_type)
            .into_iter()
            .chain([ScalarValue::try_from(&data_type).unwrap()]);
        let times = ScalarValue::iter_to_array(values).unwrap();
        let rows = RecordBatch::try_from_iter_with_nullable([("t", times, true)]).unwrap();
        let bad = match &data_type {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => [false, false, false, false, true],
            DataType::Timestamp(TimeUnit::Microsecond, _) => [true, false, false, false, true],
            _ => [true, false, false, true, true],
        };
        let told = rejected(&col("t"), &rows.schema()).unwrap();
        let told = told.into_iter().reduce(Expr::or).unwrap();
        let told = Expression::compile_predicate(&told, &rows.schema()).unwrap();
        let told = told.evaluate_mask(&rows).unwrap();
        assert_eq!(told, BooleanArray::from(bad.to_vec()), "{data_type}");
        let assign = AssignTimestamps::new(col("t"), bounded(0));
        let (made, _) = run_transform(&assign, &rows, OnBadRow::Drop).unwrap();
        let is_good = BooleanArray::from(bad.map(|bad| !bad).to_vec());
        let good = filter(&rows["t"], &is_good).unwrap();
        assert_eq!(&made["t"], &good, "{data_type}");
    }
}

#[test]
fn rows_without_a_good_time_are_rejected_with_their_position() {
    let rows = table("t: 5, null, 9223372036854775807, 7");
    let assign = AssignTimestamps::new(col("t"), bounded(0));
    let (made, mut out) = run_transform(&assign, &rows, OnBadRow::DeadLetter).unwrap();
    assert_eq!(millis_of(&made), [5, 7]);
    let letters: Vec<String> = out
        .take_dead_letters()
        .iter()
        .map(|l| format!("row {}: {}", l.row, l.reason))
        .collect();
    expect![[r#"
        row 1: event time `t` is null
        row 2: event time `t` is out of range, -9223372036854775 to 9223372036854775 milliseconds since 1970"#]]
    .assert_eq(&letters.join("\n"));
}

#[test]
fn what_is_no_time_is_refused() {
    refuse_transform(
        AssignTimestamps::new(col("t"), bounded(0)),
        "t: 'noon'",
        expect![[r#"
            event time `t` must be a timestamp, a date or an Int64 of milliseconds, found Utf8
              Hint: Convert it, for example with `to_timestamp_millis`."#]],
    );
    refuse_transform(
        AssignTimestamps::new(col("t"), Watermarks::punctuated(col("s"))),
        "t: 1; s: 'x'",
        expect![
            "watermark `s` must be a Boolean, a timestamp or an Int64 of milliseconds, found Utf8"
        ],
    );
}

/// What the operator says while it hears and takes in what these lines say: `open 0`, `rows 0: 5, 9`,
/// `end 0`, `all` and `at 100` of processing time.
fn watermarks(of: Watermarks, script: &str) -> String {
    let assign = AssignTimestamps::new(col("t"), of);
    let mut operator = assign.build(&Artifacts::none()).unwrap();
    let mut out = Output::new(OnBadRow::Fail);
    let key = |split: &str| SplitKey {
        source: 0,
        split: split.trim().parse().unwrap(),
        branch: 0,
    };
    let sources = SplitEvent::Sources([(0, 1)].into());
    operator.on_split(&sources, &mut out).unwrap();
    let mut seen = Vec::new();
    for line in script.split(';').map(str::trim) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "open" => {
                let (key, name) = (key(rest), Arc::from(rest));
                operator.on_split(&SplitEvent::Opened { key, name }, &mut out)
            }
            "end" => operator.on_split(&SplitEvent::Ended { key: key(rest) }, &mut out),
            "all" => operator.on_split(&SplitEvent::AllOpened { source: 0 }, &mut out),
            "at" => {
                let now = rest.parse().unwrap();
                out.set_processing_time(now);
                match operator.wakes_at() {
                    Some(at) if at <= now => operator.on_processing_time(&mut out),
                    _ => Ok(()),
                }
            }
            _ => {
                let (split, times) = rest.split_once(':').unwrap();
                let rows = table(&format!("t: {times}"));
                let batch = Batch::read(rows, key(split), Arc::from(""), 0);
                operator.on_batch(0, batch, &mut out)
            }
        }
        .unwrap();
        let at = match operator.output_watermark(Watermark::START).0 {
            i64::MIN => "-".to_owned(),
            at if at == i64::MAX - 1 => "all".to_owned(),
            at => at.to_string(),
        };
        let idle = if operator.is_idle() { " idle" } else { "" };
        seen.push(format!("{at}{idle}"));
    }
    format!("{}; behind {}", seen.join(", "), out.take_behind())
}

#[test]
fn the_watermark_is_the_least_of_the_splits() {
    let seen = watermarks(
        bounded(10),
        "open 0; open 1; all; rows 0: 50, 30, 45; rows 1: 20; rows 1: 60; end 0; rows 1: 49; end 1",
    );
    expect!["-, -, -, -, 10, 40, 50, 50, all; behind 2"].assert_eq(&seen);
}

#[test]
fn splits_that_are_still_unopened_hold_it_back_unless_they_stand_in_order() {
    let script = "open 0; rows 0: 5; end 0; open 1; rows 1: 8; all; rows 1: 9; end 1";
    expect!["-, -, -, -, -, 8, 9, all; behind 0"].assert_eq(&watermarks(bounded(0), script));
    let in_order = bounded(0).splits_in_order(true);
    expect!["-, 5, 5, 5, 8, 8, 9, all; behind 0"].assert_eq(&watermarks(in_order, script));
}

#[test]
fn a_silent_split_is_left_out_after_a_while() {
    let seen = watermarks(
        bounded(0).idle_after(Duration::from_millis(100)),
        "at 0; open 0; open 1; all; rows 0: 5; at 99; rows 0: 7; at 100; rows 1: 6; at 500",
    );
    expect!["-, -, -, -, -, -, -, 7, 7, 7 idle; behind 0"].assert_eq(&seen);
}

#[test]
fn rows_may_mark_the_watermark() {
    let marks = col("t")
        .gt(crate::lit(100))
        .and(col("t").lt(crate::lit(200)));
    let seen = watermarks(
        Watermarks::punctuated(marks),
        "open 0; all; rows 0: 5, 150, 300; rows 0: 149, 160, 120; end 0",
    );
    expect!["-, -, 150, 160, all; behind 2"].assert_eq(&seen);
}

/// A bad row says nothing of the watermark, and those behind it still speak for themselves.
#[test]
fn marks_are_those_of_the_rows_that_are_left() {
    let key = SplitKey::default();
    let watermark_after = |rows: &str, mark: crate::Expr| {
        let assign = AssignTimestamps::new(col("t"), Watermarks::punctuated(mark));
        let mut operator = assign.build(&Artifacts::none()).unwrap();
        let mut out = Output::new(OnBadRow::Drop);
        for event in [
            SplitEvent::Sources([(0, 1)].into()),
            SplitEvent::Opened {
                key,
                name: "split 0".into(),
            },
            SplitEvent::AllOpened { source: 0 },
        ] {
            operator.on_split(&event, &mut out).unwrap();
        }
        let batch = Batch::read(table(rows), key, "split 0".into(), 0);
        operator.on_batch(0, batch, &mut out).unwrap();
        let (_, n_rejected) = out.take_counts();
        (operator.output_watermark(Watermark::START).0, n_rejected)
    };
    // By a null time, and by a mark that is divided by zero.
    assert_eq!(
        watermark_after("t: null, 20, 30; m: 100, 10, null", col("m")),
        (10, 1)
    );
    let divided =
        crate::expression::cast(crate::lit(60) / col("m"), arrow::datatypes::DataType::Int64);
    assert_eq!(
        watermark_after("t: 5, 20, 30; m: 0, 6, 4", divided),
        (15, 1)
    );
}

/// Notes the watermarks that reach it.
#[derive(Debug, Clone)]
struct Notes(Arc<Mutex<Vec<i64>>>);

impl Transform for Notes {
    fn describe(&self) -> Description {
        Description::new("notes", serde_json::Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Notes {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        out.push(batch);
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, _out: &mut Output) -> Result<()> {
        self.0.lock().unwrap().push(watermark.0);
        Ok(())
    }
}

#[test]
fn a_run_carries_the_watermark_from_source_to_operator() {
    let batches = vec![table("t: 10, 30, 20"), table("t: 50, 40"), table("t: 90")];
    for (n_workers, in_order) in [(1, true), (1, false), (3, true), (3, false)] {
        let notes = Notes(Arc::default());
        let pipeline = Pipeline::new("watermarks");
        let (sink, rows) = collect();
        pipeline
            .read("rows", from_record_batches(batches.clone()))
            .assign_timestamps(col("t"), bounded(5).splits_in_order(in_order))
            .apply(notes.clone())
            .write(sink);
        pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
        let n_rows: usize = rows.take().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(n_rows, 6);
        let seen = notes.0.lock().unwrap().clone();
        if n_workers == 1 {
            assert!(seen.is_sorted(), "{seen:?}");
            let expected: &[i64] = match in_order {
                true => &[25, 45, 85],
                false => &[85],
            };
            let inner: Vec<i64> = seen.iter().copied().filter(|w| w.abs() < 1_000).collect();
            // Watermarks that follow each other without a call between may be seen as one.
            assert!(inner.iter().all(|w| expected.contains(w)), "{inner:?}");
        }
        assert_eq!(seen.iter().filter(|w| **w == i64::MAX).count(), n_workers);
    }
}

#[test]
fn it_stands_behind_sources() {
    let pipeline = Pipeline::new("watermarks");
    let (sink, _) = collect();
    pipeline
        .read("rows", from_record_batches(vec![table("t: 1")]))
        .distinct()
        .assign_timestamps(col("t"), bounded(0))
        .write(sink);
    expect![[r#"
        event time is assigned behind "distinct", which brings rows of several splits together
          in transform "assign_timestamps"
          Hint: Assign it right behind the source; row-wise transforms and unions may stand between."#]]
    .assert_eq(&pipeline.plan().unwrap_err().to_string());
}

/// While split 6 was idle the watermark went on to 100 without it. When it resumes, its rows of before are late like any
/// other, and its later rows count; from then on it holds the watermark back again, which never goes back itself. Both splits are
/// of the worker that reads the first of a script: another has nothing to hold back before its first rows.
#[test]
fn rows_of_a_split_that_was_idle_are_late_where_the_watermark_went_on() {
    let watermarks = Watermarks::monotone().idle_after(Duration::from_millis(50));
    for n_workers in 1..=3 {
        for seed in 0..8 {
            let pipeline = Pipeline::new("resumed");
            let windows = Windowing::of(FixedWindows::of(Duration::from_millis(10)))
                .allowed_lateness(Duration::from_millis(5));
            let (counts, late) = pipeline
                .read("rows", scripted("at: 0; n: 0"))
                .assign_timestamps(col("at"), watermarks.clone())
                .window(windows)
                .group_by([])
                .agg_with_late([count(crate::lit(1)).alias("n_rows")]);
            let counts = counts.select([col("n_rows"), col("window_start")]);
            counts.named("counts").write(collect().0);
            late.select([col("n")]).named("late").write(collect().0);
            let rows = |split, text| (split, table(text));
            let steps = [
                rows(0, "at: 1, 8; n: 1, 2"),
                rows(6, "at: 3; n: 3"),
                rows(0, "at: 98, 100; n: 4, 5"),
                // Idle from here on: the watermark is 100, and the first window is over.
                rows(0, "at: 100; n: 6"),
                // 89 is in a window that is over by more than the lateness; that of 96 is not over.
                rows(6, "at: 12, 89, 96; n: 7, 8, 9"),
                // Behind 105, which this split has shown, the window up to 110 waits for it.
                rows(0, "at: 130; n: 10"),
                rows(6, "at: 105; n: 11"),
                rows(6, "at: 131; n: 12"),
            ];
            let mut script = Script::new();
            for (n, (split, rows)) in steps.into_iter().enumerate() {
                script = script.batch("rows", split, rows);
                if n == 2 {
                    script = script.processing_time(60);
                }
            }
            let made = simulate(&pipeline, &script.end("rows"), n_workers, seed).unwrap();
            let of_step = |sink: &str| -> Vec<String> {
                let steps = made.steps(sink).iter().map(|rows| show_rows(rows));
                steps.collect()
            };
            let none = String::new;
            let window = |n_rows, start| format!("n_rows={n_rows} window_start={start}");
            assert_eq!(
                of_step("late"),
                [
                    none(),
                    none(),
                    none(),
                    none(),
                    none(),
                    "n=7\nn=8".to_owned(),
                    none(),
                    none(),
                    none(),
                    none()
                ],
                "{n_workers} workers, seed {seed}"
            );
            assert_eq!(
                of_step("counts"),
                [
                    none(),
                    none(),
                    none(),
                    // The clock leaves split 6 out.
                    window(1, 90) + "\n" + &window(3, 0),
                    none(),
                    window(1, 90),
                    none(),
                    none(),
                    window(3, 100),
                    window(2, 130)
                ],
                "{n_workers} workers, seed {seed}"
            );
        }
    }
}

/// A source in memory that says that it never ends, so that all its splits are read at once.
#[derive(Debug)]
struct Live(crate::connectors::MemorySource);

impl crate::Source for Live {
    fn describe(&self) -> Description {
        Description::new("live", serde_json::Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        self.0.schema()
    }

    fn splits(&self) -> Result<Vec<crate::Split>> {
        self.0.splits()
    }

    fn open(
        &self,
        split: &crate::Split,
        position: crate::Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn crate::SplitReader>> {
        self.0.open(split, position, columns)
    }

    fn properties(&self) -> crate::SourceProperties {
        crate::SourceProperties {
            bounded: false,
            ..crate::SourceProperties::default()
        }
    }
}

#[test]
fn splits_that_are_read_at_once_hold_each_other_back() {
    for n_workers in [1, 2, 3, 5] {
        let batches = (0..4).map(|n| table(&format!("t: {n}, {}", 100 * n + 50)));
        let notes = Notes(Arc::default());
        let pipeline = Pipeline::new("live");
        let (sink, rows) = collect();
        pipeline
            .read("rows", Live(from_record_batches(batches.collect())))
            .assign_timestamps(col("t"), bounded(0))
            .apply(notes.clone())
            .write(sink);
        pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
        let n_rows: usize = rows.take().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(n_rows, 8);
        // The first split shows 50; when it has ended the others hold the watermark back.
        let seen = notes.0.lock().unwrap().clone();
        let first = seen.iter().find(|w| **w > i64::MIN).unwrap();
        assert!(*first >= 50, "{n_workers} workers: {seen:?}");
    }
}

#[test]
fn workers_that_keep_near_to_each_other_read_all_rows() {
    for n_workers in [1, 2, 3, 6] {
        // Some splits have many rows and some few, and one has none of the later times.
        let batches = (0..5).map(|split| {
            let times = (0..1 + 400 * split).map(|n| (n * 50 / (1 + split)).to_string());
            table(&format!("t: {}", times.collect::<Vec<_>>().join(", ")))
        });
        let batches: Vec<RecordBatch> = batches.collect();
        let n_all: usize = batches.iter().map(RecordBatch::num_rows).sum();
        for is_live in [true, false] {
            let pipeline = Pipeline::new("near");
            let (sink, rows) = collect();
            let memory = from_record_batches(batches.clone());
            let read = match is_live {
                true => pipeline.read("rows", Live(memory)),
                false => pipeline.read("rows", memory),
            };
            let near = bounded(0).aligned_within(Duration::from_millis(10));
            read.assign_timestamps(col("t"), near).write(sink);
            pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
            let n_rows: usize = rows.take().iter().map(RecordBatch::num_rows).sum();
            assert_eq!(n_rows, n_all);
        }
    }
}

/// Both ways of one source are one split: what one of them has shown says nothing of what still comes by the other.
#[test]
fn rows_of_two_branches_of_one_source_are_not_late() {
    for n_workers in 1..=3 {
        let pipeline = Pipeline::new("branches");
        let rows = table("id: 1, 2, 3, 4; at: 1, 2, 3, 4");
        let rows = pipeline.read("rows", from_record_batches(vec![rows]));
        let is_odd = || (col("id") % crate::lit(2)).eq(crate::lit(1));
        let (odd, even) = (rows.filter(is_odd()), rows.filter(!is_odd()));
        let (sink, changes) = collect();
        odd.union(&[even])
            .assign_timestamps(col("at"), Watermarks::monotone())
            .named("timed")
            .upserts(["id"])
            .named("upserts")
            .changes()
            .select([col("id"), col("event_time")])
            .write(sink);
        let report = pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
        let changes = show_rows(&changes.take());
        assert_eq!(
            changes,
            "id=1 event_time=1\nid=2 event_time=2\nid=3 event_time=3\nid=4 event_time=4"
        );
        assert_eq!(report.node("upserts").unwrap().late, 0);
    }
}

/// How the rows of a source come to where their times are assigned, by ways that each have some of them.
#[derive(Clone, Debug)]
enum Ways {
    Here,
    /// Rows whose number has this remainder, by the modulus, go the first way, and the others the second.
    Parted {
        by: i64,
        ways: Box<[Ways; 2]>,
    },
}

impl Ways {
    fn lead(&self, rows: &Collection) -> Collection {
        let Self::Parted { by, ways } = self else {
            return rows.clone();
        };
        let is_first = || (col("n") % crate::lit(*by)).eq(crate::lit(0));
        let [first, second] = &**ways;
        let others = second.lead(&rows.filter(!is_first()));
        first.lead(&rows.filter(is_first())).union(&[others])
    }
}

fn ways() -> impl Strategy<Value = Ways> {
    Just(Ways::Here).prop_recursive(3, 8, 2, |ways| {
        // By 1 all rows go one way, and none the other.
        (1i64..4, ways.clone(), ways).prop_map(|(by, first, second)| Ways::Parted {
            by,
            ways: Box::new([first, second]),
        })
    })
}

/// What a script does next: rows of a split, whose times go on by these steps, or something else.
#[derive(Clone, Debug)]
enum Next {
    Rows(u32, Vec<i64>),
    Time(i64),
    Restart(usize),
}

fn next() -> impl Strategy<Value = Next> {
    prop_oneof![
        6 => (0u32..3, prop::collection::vec(-3i64..12, 1..6)).prop_map(|(s, r)| Next::Rows(s, r)),
        1 => (1i64..80).prop_map(Next::Time),
        1 => (1usize..4).prop_map(Next::Restart),
    ]
}

fn script_of(all: &[Next]) -> Script {
    let (mut script, mut now, mut n) = (Script::new(), 0, 0);
    let mut stand = [0; 3];
    for next in all {
        script = match next {
            Next::Rows(split, steps) => {
                let mut rows = Vec::new();
                for step in steps {
                    stand[*split as usize] += step;
                    n += 1;
                    rows.push((n, stand[*split as usize]));
                }
                let column = |of: fn(&(i64, i64)) -> i64| {
                    Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef
                };
                let rows = [("n", column(|r| r.0)), ("at", column(|r| r.1))];
                script.batch("rows", *split, RecordBatch::try_from_iter(rows).unwrap())
            }
            Next::Time(ms) => {
                now += ms;
                script.processing_time(now)
            }
            Next::Restart(n_workers) => script.restart(*n_workers),
        };
    }
    script.end("rows")
}

/// What windows of 10 ms count, and which rows are too late for them, at each step of a script.
fn counted(ways: &Ways, watermarks: Watermarks, script: &Script, seed: u64) -> [Vec<String>; 2] {
    let pipeline = Pipeline::new("ways");
    let rows = pipeline.read("rows", scripted("n: 0; at: 0"));
    let windows = FixedWindows::of(Duration::from_millis(10));
    let (counts, late) = ways
        .lead(&rows)
        .select([col("n"), col("at")])
        .assign_timestamps(col("at"), watermarks)
        .window(Windowing::of(windows))
        .group_by([])
        .agg_with_late([count(crate::lit(1)).alias("n_rows")]);
    for (rows, name) in [(counts, "counts"), (late, "late")] {
        rows.named(name).write(collect().0);
    }
    let run = simulate(&pipeline, script, 2, seed).unwrap();
    ["counts", "late"].map(|sink| run.steps(sink).iter().map(|rows| show_rows(rows)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// By whichever ways the rows of a split come, and however far one way is behind another, each step gives what
    /// it gives where they all come by one: none is late that would not be, and no window waits for longer.
    #[test]
    fn ways_of_one_source_are_as_one(
        ways in ways(),
        all in prop::collection::vec(next(), 1..14),
        less_ms in 0u64..6,
        idle_ms in prop::option::of(20u64..100),
        splits_in_order in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let watermarks = bounded(less_ms).splits_in_order(splits_in_order);
        let watermarks = match idle_ms {
            Some(ms) => watermarks.idle_after(Duration::from_millis(ms)),
            None => watermarks,
        };
        let script = script_of(&all);
        let found = counted(&ways, watermarks.clone(), &script, seed);
        prop_assert_eq!(found, counted(&Ways::Here, watermarks, &script, seed));
    }
}

/// Here a branch gives nothing before all rows of the other have their times: batches, and splits that stand in
/// order, ahead of it.
#[test]
fn a_branch_may_be_slower_than_another_by_all_rows() {
    let numbers = |from: i64, n: i64| {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + n));
        RecordBatch::try_from_iter([("n", Arc::clone(&numbers)), ("at", numbers)]).unwrap()
    };
    let splits = (0..10).map(|split| numbers(3_000 * split, 3_000));
    for batches in [vec![numbers(0, 30_000)], splits.collect()] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (receiver, n_seen) = (Mutex::new(Some(receiver)), Mutex::new(0));
        let slow = MapBatches::new(move |rows| {
            if let Some(receiver) = receiver.lock().unwrap().take() {
                let fast_is_through = receiver.recv_timeout(Duration::from_secs(60));
                fast_is_through.map_err(|_| crate::Error::bug("the other rows are held back"))?;
            }
            Ok(rows)
        });
        let is_odd = || (col("n") % crate::lit(2)).eq(crate::lit(1));
        let pipeline = Pipeline::new("slow");
        let rows = pipeline.read("rows", from_record_batches(batches));
        let (odd, even) = (rows.filter(is_odd()), rows.filter(!is_odd()));
        let (sink, counts) = collect();
        odd.union(&[even.apply(slow.blocking(true).concurrency(2))])
            .assign_timestamps(col("at"), Watermarks::monotone().splits_in_order(true))
            .map_batches(move |rows| {
                let mut n_seen = n_seen.lock().unwrap();
                *n_seen += rows.num_rows();
                if *n_seen == 15_000 {
                    let _ = sender.send(());
                }
                Ok(rows)
            })
            .window(Windowing::of(FixedWindows::of(Duration::from_secs(1))))
            .group_by([])
            .agg([count(crate::lit(1)).alias("n_rows")])
            .select([col("n_rows"), col("window_start")])
            .write(sink);
        let report = pipeline.run(&RunOptions::new().workers(1)).unwrap();
        let all = |of: fn(&crate::NodeReport) -> u64| -> u64 {
            let nodes = report.phases.iter().flat_map(|phase| &phase.nodes);
            nodes.map(of).sum()
        };
        assert_eq!((all(|n| n.late), all(|n| n.behind)), (0, 0));
        let mut expected: Vec<String> = (0..30)
            .map(|window| format!("n_rows=1000 window_start={}", 1_000 * window))
            .collect();
        expected.sort();
        assert_eq!(show_rows(&counts.take()), expected.join("\n"));
    }
}

/// Rows that an earlier phase has kept tell of their splits too, so that nothing waits for the end.
#[test]
fn kept_rows_move_the_watermark_as_they_are_read_back() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
    let batch = RecordBatch::try_from_iter([("t", numbers)]).unwrap();
    let is_odd = || (col("t") % crate::lit(2)).eq(crate::lit(1));
    for by_branches in [false, true] {
        let notes = Notes(Arc::default());
        let pipeline = Pipeline::new("kept");
        let rows = pipeline.read("rows", from_record_batches(vec![batch.clone()]));
        let rows = match by_branches {
            false => rows.cache(),
            // One split, kept in two parts, of which each comes by two ways again.
            true => {
                let kept = rows
                    .filter(is_odd())
                    .union(&[rows.filter(!is_odd())])
                    .cache();
                kept.filter(col("t").lt(crate::lit(7)))
                    .union(&[kept.filter(col("t").gt_eq(crate::lit(7)))])
            }
        };
        let all = rows.agg([count(crate::lit(1)).alias("n_all")]);
        let (sink, made) = collect();
        rows.assign_timestamps(col("t"), bounded(5))
            .apply(notes.clone())
            .with_side_input(&all, crate::ops::SideInput::singleton())
            .write(sink);
        let report = pipeline.run(&RunOptions::new().workers(1)).unwrap();
        assert_eq!(report.phases.len(), 2);
        let n_rows: usize = made.take().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(n_rows, 100_000);
        let seen = notes.0.lock().unwrap().clone();
        assert!(seen.is_sorted());
        let moved = seen.iter().any(|at| (0..100_000).contains(at));
        assert!(moved, "by branches {by_branches}: {seen:?}");
        let nodes = report.phases.iter().flat_map(|phase| &phase.nodes);
        assert_eq!(nodes.map(|node| node.behind).sum::<u64>(), 0);
    }
}
