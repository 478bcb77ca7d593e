//! Cases of Apache Beam's `trigger_test.py` and `window_test.py` that group rows, with their names, played to the
//! aggregation in windows. Beam's seconds are milliseconds here, but for those of processing time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMillisecondType};
use expect_test::expect;

use super::*;
use crate::aggregates::{array_agg, avg, sum};
use crate::connectors::collect;
use crate::event_time::{EVENT_TIME, MAX_TIME, WINDOW_END, WINDOW_START, time_field};
use crate::pipeline::{Collection, Pipeline};
use crate::testing::{Script, scripted_with, show_rows, simulate};
use crate::{col, lit};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Rows of a key, a time, and a text.
fn rows(of: &[(&str, i64, &str)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(of.iter().map(|row| row.0))),
        Arc::new(StringArray::from_iter_values(of.iter().map(|row| row.2))),
        Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.1))),
        Arc::new(TimestampMillisecondArray::from_iter_values(
            of.iter().map(|row| row.1),
        )),
    ];
    let fields = vec![
        Arc::new(Field::new("key", DataType::Utf8, false)),
        Arc::new(Field::new("text", DataType::Utf8, false)),
        Arc::new(Field::new("n", DataType::Int64, false)),
        time_field(EVENT_TIME),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// What happens to a pipeline, and what leaves it.
struct Run {
    pipeline: Pipeline,
    script: Script,
}

impl Run {
    /// The transforms behind a source of such rows.
    fn of(transforms: impl FnOnce(Collection) -> Collection) -> Self {
        let pipeline = Pipeline::new("grouped");
        let source = scripted_with(rows(&[]).schema());
        let (sink, _) = collect();
        transforms(pipeline.read("rows", source))
            .named("out")
            .write(sink);
        Self {
            pipeline,
            script: Script::new(),
        }
    }

    fn then(&mut self, step: impl FnOnce(Script) -> Script) {
        self.script = step(std::mem::take(&mut self.script));
    }

    fn rows(&mut self, of: &[(&str, i64, &str)]) {
        self.batch(rows(of));
    }

    fn batch(&mut self, rows: RecordBatch) {
        self.then(|script| script.batch("rows", 0, rows));
    }

    fn watermark(&mut self, time: i64) {
        self.then(|script| script.watermark("rows", time));
    }

    fn processing_time(&mut self, now: i64) {
        self.then(|script| script.processing_time(now));
    }

    fn end(&mut self) {
        self.then(|script| script.end("rows"));
    }

    /// What has left by then.
    fn left(&self) -> Vec<RecordBatch> {
        let simulated = simulate(&self.pipeline, &self.script, 2, 7).unwrap();
        simulated.rows("out")
    }
}

/// Texts by key, in windows.
fn grouped(windowing: &Windowing) -> Run {
    let windowing = windowing.clone();
    Run::of(|rows| {
        let rows = rows.window(windowing).group_by([col("key")]);
        rows.agg([array_agg(col("text")).alias("texts")])
    })
}

fn times(rows: &RecordBatch, name: &str) -> Vec<i64> {
    let column = rows.column_by_name(name).unwrap();
    let times = column.as_primitive::<TimestampMillisecondType>().values();
    times.to_vec()
}

/// What has left, of each key and window in order: the texts of each pane, sorted.
fn texts(batches: &[RecordBatch]) -> BTreeMap<(String, i64, i64), Vec<Vec<String>>> {
    let mut panes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for rows in batches {
        let keys = rows.column(0).as_string::<i32>();
        let lists = rows.column(1).as_list::<i32>();
        let (starts, ends) = (times(rows, WINDOW_START), times(rows, WINDOW_END));
        for row in 0..rows.num_rows() {
            let list = lists.value(row);
            let mut texts: Vec<String> = list
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned)
                .collect();
            texts.sort();
            let window = (keys.value(row).to_owned(), starts[row], ends[row]);
            panes.entry(window).or_default().push(texts);
        }
    }
    panes
}

/// Panes of a window, each as its letters.
type Expected<'a> = &'a [(i64, i64, &'a [&'a str])];

/// Rows, a letter at each time.
fn letters(of: &[(i64, char)]) -> Vec<(i64, String)> {
    of.iter().map(|(time, c)| (*time, c.to_string())).collect()
}

/// Rows at 0, 1, 2 and so on.
fn from_zero(letters: &str) -> Vec<(i64, char)> {
    (0..).zip(letters.chars()).collect()
}

/// As Beam's `run_trigger_simple`: rows come in batches of these sizes, in reverse where below zero, while the
/// watermark stands at the beginning; it moves to the end of time; then late rows come.
#[track_caller]
fn check(
    windowing: &Windowing,
    data: &[(i64, char)],
    late: &[(i64, char)],
    expected: Expected<'_>,
    groupings: &[i64],
) {
    let windowing = windowing
        .clone()
        .allowed_lateness(Duration::MAX)
        .allow_data_loss(true);
    for &grouping in groupings {
        let mut run = grouped(&windowing);
        give(&mut run, &letters(data), grouping);
        run.watermark(MAX_TIME);
        give(&mut run, &letters(late), grouping);
        let left = run.left();
        for rows in &left {
            let lasts = times(rows, WINDOW_END).into_iter().map(|end| end - 1);
            assert!(lasts.eq(times(rows, EVENT_TIME)));
        }
        let found = texts(&left).into_iter().map(|((_, start, end), panes)| {
            let panes: Vec<String> = panes.iter().map(|texts| texts.concat()).collect();
            (start, end, panes)
        });
        let expected = expected.iter().map(|(start, end, panes)| {
            let panes: Vec<String> = panes.iter().map(|&pane| pane.to_owned()).collect();
            (*start, *end, panes)
        });
        assert_eq!(
            found.collect::<Vec<_>>(),
            expected.collect::<Vec<_>>(),
            "{} in batches of {grouping}",
            windowing.trigger
        );
    }
}

fn give(run: &mut Run, data: &[(i64, String)], grouping: i64) {
    let mut data = data.to_vec();
    if grouping < 0 {
        data.reverse();
    }
    let n_rows = usize::try_from(grouping.unsigned_abs()).unwrap();
    for batch in data.chunks(n_rows) {
        let batch: Vec<_> = batch
            .iter()
            .map(|(t, text)| ("key", *t, text.as_str()))
            .collect();
        run.rows(&batch);
    }
}

fn fixed(size: u64, trigger: Trigger) -> Windowing {
    Windowing::fixed(ms(size))
        .trigger(trigger)
        .accumulation(Accumulation::Accumulating)
}

fn sessions(trigger: Trigger) -> Windowing {
    Windowing::sessions(ms(10))
        .trigger(trigger)
        .accumulation(Accumulation::Accumulating)
}

fn count(n_rows: u64) -> Trigger {
    Trigger::after_count(n_rows)
}

const ABC: [(i64, char); 3] = [(1, 'a'), (2, 'b'), (3, 'c')];
const XYZ: [(i64, char); 3] = [(1, 'x'), (2, 'y'), (3, 'z')];

#[test]
fn test_fixed_watermark() {
    check(
        &fixed(10, Trigger::after_watermark()),
        &[(1, 'a'), (2, 'b'), (13, 'c')],
        &[],
        &[(0, 10, &["ab"]), (10, 20, &["c"])],
        &[1, 2, 3, -3, -2, -1],
    );
}

#[test]
fn test_fixed_watermark_with_early() {
    let windowing = fixed(10, Trigger::after_watermark().early(count(2)));
    check(&windowing, &ABC, &[], &[(0, 10, &["ab", "abc"])], &[2]);
    check(&windowing, &ABC, &[], &[(0, 10, &["abc", "abc"])], &[3]);
}

#[test]
fn test_fixed_watermark_with_early_late() {
    let trigger = Trigger::after_watermark().early(count(3)).late(count(2));
    check(
        &fixed(100, trigger).accumulation(Accumulation::Discarding),
        &from_zero("abcdefghi"),
        &from_zero("vwxyz"),
        &[(0, 100, &["abcd", "efgh", "i", "vw", "xy"])],
        &[2],
    );
}

#[test]
fn test_sessions_watermark_with_early_late() {
    check(
        &sessions(Trigger::after_watermark().early(count(2)).late(count(1))),
        &[(1, 'a'), (15, 'b'), (7, 'c'), (30, 'd')],
        &[(1, 'x'), (2, 'y'), (21, 'z')],
        &[
            (1, 25, &["abc", "abc", "abcxy"]),
            (1, 40, &["abcdxyz"]),
            (30, 40, &["d"]),
        ],
        &[2],
    );
}

#[test]
fn test_fixed_after_count() {
    let data = [(1, 'a'), (2, 'b'), (3, 'c'), (11, 'z')];
    let windowing = fixed(10, count(2));
    check(&windowing, &data, &[], &[(0, 10, &["ab"])], &[1, 2]);
    check(&windowing, &data, &[], &[(0, 10, &["abc"])], &[3, 4]);
}

#[test]
fn test_fixed_after_first() {
    let any = |n_rows| Trigger::after_any([count(n_rows), Trigger::after_watermark()]);
    check(&fixed(10, any(2)), &ABC, &[], &[(0, 10, &["ab"])], &[1, 2]);
    check(
        &fixed(10, any(5)),
        &ABC,
        &XYZ,
        &[(0, 10, &["abc"])],
        &[1, 2],
    );
}

#[test]
fn test_repeatedly_after_first() {
    let any = Trigger::after_any([count(3), Trigger::after_watermark()]);
    check(
        &fixed(100, any.repeatedly()),
        &from_zero("abcdefg"),
        &from_zero("xyz"),
        &[(
            0,
            100,
            &[
                "abc",
                "abcdef",
                "abcdefg",
                "abcdefgx",
                "abcdefgxy",
                "abcdefgxyz",
            ],
        )],
        &[1],
    );
}

#[test]
fn test_sessions_after_all() {
    let all = |n_rows| {
        sessions(Trigger::after_all([
            count(n_rows),
            Trigger::after_watermark(),
        ]))
    };
    check(&all(2), &ABC, &[], &[(1, 13, &["abc"])], &[1, 2]);
    check(&all(5), &ABC, &XYZ, &[(1, 13, &["abcxy"])], &[1, 2]);
}

#[test]
fn test_sessions_default() {
    check(
        &sessions(Trigger::Default),
        &[(1, 'a'), (2, 'b')],
        &[],
        &[(1, 12, &["ab"])],
        &[1, 2, -2, -1],
    );
    check(
        &sessions(Trigger::after_watermark()),
        &[
            (1, 'a'),
            (2, 'b'),
            (15, 'c'),
            (16, 'd'),
            (30, 'z'),
            (9, 'e'),
            (10, 'f'),
            (30, 'y'),
        ],
        &[],
        &[(1, 26, &["abcdef"]), (30, 40, &["yz"])],
        &[1, 2, 3, 4, 5, 6, -4, -2, -1],
    );
}

#[test]
fn test_sessions_watermark() {
    check(
        &sessions(Trigger::after_watermark()),
        &[(1, 'a'), (2, 'b')],
        &[],
        &[(1, 12, &["ab"])],
        &[1, 2, -2, -1],
    );
}

#[test]
fn test_sessions_after_count() {
    check(
        &sessions(count(2)),
        &[
            (1, 'a'),
            (15, 'b'),
            (6, 'c'),
            (30, 's'),
            (31, 't'),
            (50, 'z'),
            (50, 'y'),
        ],
        &[],
        &[(1, 25, &["abc"]), (30, 41, &["st"]), (50, 60, &["yz"])],
        &[1, 2, 3],
    );
}

#[test]
fn test_sessions_repeatedly_after_count() {
    let data = [(1, 'a'), (15, 'b'), (6, 'c'), (2, 'd'), (7, 'e')];
    let windowing = sessions(count(2).repeatedly());
    check(
        &windowing,
        &data,
        &[],
        &[(1, 25, &["abc", "abcde"])],
        &[1, 3],
    );
    let discarding = windowing.accumulation(Accumulation::Discarding);
    check(&discarding, &data, &[], &[(1, 25, &["abc", "de"])], &[1, 3]);
}

#[test]
fn test_sessions_after_each() {
    let each = Trigger::after_each([count(2), count(3)]);
    let data = from_zero("abcdefghij");
    check(
        &sessions(each.clone()),
        &data,
        &[],
        &[(0, 11, &["ab"]), (0, 15, &["abcdef"])],
        &[2],
    );
    check(
        &sessions(each.repeatedly()),
        &data,
        &[],
        &[
            (0, 11, &["ab"]),
            (0, 15, &["abcdef"]),
            (0, 17, &["abcdefgh"]),
        ],
        &[2],
    );
}

/// The texts of each pane, in the order in which they have left.
fn panes(run: &Run) -> Vec<String> {
    let left = run.left();
    let mut panes = Vec::new();
    for rows in &left {
        for row in 0..rows.num_rows() {
            let texts = texts(&[rows.slice(row, 1)]);
            panes.extend(texts.into_values().flatten().map(|texts| texts.concat()));
        }
    }
    panes
}

#[test]
fn test_after_processing_time() {
    let delay = Duration::from_secs(2);
    let windowing = Windowing::fixed(ms(10)).trigger(Trigger::after_processing_time(delay));
    let mut run = grouped(&windowing.allow_data_loss(true));
    let mut now = 0;
    for (time, text) in [(0, "0"), (1, "1"), (2, "2"), (3, "3")] {
        now += 500;
        run.processing_time(now);
        run.rows(&[("key", time, text)]);
    }
    run.processing_time(now + 2000);
    for (later, text) in [(2100, "dropped-1"), (2200, "dropped-2")] {
        run.processing_time(now + later);
        run.rows(&[("key", 4, text)]);
    }
    run.processing_time(now + 4200);
    run.end();
    assert_eq!(panes(&run), ["0123"]);
}

#[test]
fn test_repeatedly_after_processing_time() {
    let trigger = Trigger::after_processing_time(Duration::from_secs(2)).repeatedly();
    let mut run = grouped(&Windowing::fixed(ms(10)).trigger(trigger));
    let mut now = 0;
    for (time, text) in (0..).zip(["0", "1", "2", "3", "4", "5", "6"]) {
        now += 1990;
        run.processing_time(now);
        run.rows(&[("key", time, text)]);
    }
    run.processing_time(now + 2000);
    run.end();
    assert_eq!(panes(&run), ["01", "23", "45", "6"]);
}

/// Rows of key A at these times, and of key B 5 later.
fn two_keys(times: &[i64]) -> RecordBatch {
    let texts: Vec<String> = times.iter().map(|t| format!("{t} ")).collect();
    let later: Vec<String> = times.iter().map(|t| format!("{} ", t + 5)).collect();
    let a = times
        .iter()
        .zip(&texts)
        .map(|(t, text)| ("A", *t, text.as_str()));
    let b = times
        .iter()
        .zip(&later)
        .map(|(t, text)| ("B", t + 5, text.as_str()));
    rows(&a.chain(b).collect::<Vec<_>>())
}

/// What leaves when all rows come at once and the input ends.
fn at_once(windowing: &Windowing, rows: &RecordBatch) -> Vec<(String, String)> {
    let mut run = grouped(windowing);
    run.batch(rows.clone());
    run.end();
    texts(&run.left())
        .into_iter()
        .flat_map(|((key, ..), panes)| panes.into_iter().map(move |p| (key.clone(), p.concat())))
        .collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    of.iter().map(owned).collect()
}

/// In Beam's Python runner rows 10 and 11 of A are never seen again, which Beam itself calls a mistake of the
/// runner (`DataLossReason`): a window gives what it has when it closes.
#[test]
fn test_after_count() {
    let windowing = Windowing::fixed(ms(10))
        .trigger(count(3))
        .allow_data_loss(true);
    assert_eq!(
        at_once(&windowing, &two_keys(&[1, 2, 3, 4, 5, 10, 11])),
        pairs(&[
            ("A", "1 2 3 4 5 "),
            ("A", "10 11 "),
            ("B", "6 7 8 9 "),
            ("B", "10 15 16 "),
        ])
    );
}

#[test]
fn test_after_count_streaming() {
    let windowing = fixed(10, count(3)).allow_data_loss(true);
    let mut run = grouped(&windowing);
    run.watermark(0);
    for (key, times) in [("A", [1, 2, 3]), ("A", [4, 5, 6]), ("B", [1, 2, 3])] {
        let texts = times.map(|time| time.to_string());
        let batch: Vec<_> = (0..3).map(|n| (key, times[n], texts[n].as_str())).collect();
        run.rows(&batch);
    }
    run.end();
    assert_eq!(panes(&run), ["123", "123"]);
}

#[test]
fn test_always() {
    let windowing = Windowing::fixed(ms(10)).trigger(Trigger::always());
    assert_eq!(
        at_once(&windowing, &two_keys(&[1, 1, 2, 3, 4, 5, 10, 11])),
        pairs(&[
            ("A", "1 1 2 3 4 5 "),
            ("A", "10 11 "),
            ("B", "6 6 7 8 9 "),
            ("B", "10 15 16 "),
        ])
    );
}

#[test]
fn test_never() {
    let windowing = Windowing::fixed(ms(10)).trigger(Trigger::Never);
    assert_eq!(
        at_once(&windowing, &two_keys(&[1, 1, 2, 3, 4, 5, 10, 11])),
        pairs(&[
            ("A", "1 1 2 3 4 5 "),
            ("A", "10 11 "),
            ("B", "6 6 7 8 9 "),
            ("B", "10 15 16 "),
        ])
    );
}

#[test]
fn test_multiple_accumulating_firings() {
    let early = Trigger::after_processing_time(Duration::from_secs(5));
    let early = Trigger::after_all([count(1), early]);
    let windowing = fixed(10, Trigger::after_watermark().early(early));
    let mut run = grouped(&windowing);
    run.watermark(0);
    for (n, text) in (1_i64..).zip(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]) {
        // All are of one window, as in Beam, whose rows have the watermark as their time.
        run.rows(&[("key", 9, text)]);
        if n % 5 == 0 {
            run.watermark(n);
            run.processing_time(n * 1000);
        }
    }
    run.end();
    assert_eq!(panes(&run), ["abcde", "abcdefghij"]);
}

#[test]
fn test_on_pane_watermark_hold_no_pipeline_stall() {
    let start = 1_534_842_000_000;
    let trigger = Trigger::after_any([
        Trigger::after_processing_time(Duration::from_secs(3600)),
        Trigger::after_watermark(),
    ]);
    let windowing = Windowing::fixed(Duration::from_secs(60)).trigger(trigger);
    let mut run = grouped(&windowing.allow_data_loss(true));
    run.rows(&[("a", start, "a")]);
    run.processing_time(start + 1000);
    run.watermark(start + 1000);
    run.rows(&[("b", start, "b")]);
    run.processing_time(start + 2000);
    run.watermark(start + 2000);
    run.end();
    let mut left = panes(&run);
    left.sort();
    assert_eq!(left, ["a", "b"]);
}

/// Windows of one key, each with the texts in it.
#[track_caller]
fn check_windows(windowing: &Windowing, at: &[i64], expected: &[(i64, i64, &str)]) {
    let names: Vec<String> = at.iter().map(|time| format!("{time} ")).collect();
    let data = at
        .iter()
        .zip(&names)
        .map(|(t, name)| ("key", *t, name.as_str()));
    let mut run = grouped(windowing);
    run.rows(&data.collect::<Vec<_>>());
    run.end();
    let found = texts(&run.left());
    let found: Vec<_> = found
        .iter()
        .map(|((_, start, end), panes)| (*start, *end, panes.concat().concat()))
        .collect();
    let expected = expected
        .iter()
        .map(|(s, e, texts)| (*s, *e, (*texts).to_owned()));
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn test_sliding_windows() {
    check_windows(
        &Windowing::sliding(ms(4), ms(2)),
        &[1, 2, 3],
        &[(-2, 2, "1 "), (0, 4, "1 2 3 "), (2, 6, "2 3 ")],
    );
}

#[test]
fn test_sliding_windows_period_longer_than_size() {
    check_windows(
        &Windowing::sliding(ms(2), ms(4)),
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &[(0, 2, "1 "), (4, 6, "4 5 "), (8, 10, "8 ")],
    );
}

#[test]
fn test_sessions() {
    check_windows(
        &Windowing::sessions(ms(10)),
        &[1, 2, 3, 20, 35, 27],
        &[(1, 13, "1 2 3 "), (20, 45, "20 27 35 ")],
    );
}

#[test]
fn test_timestamped_value() {
    check_windows(
        &Windowing::fixed(ms(5)),
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        &[(0, 5, "0 1 2 3 4 "), (5, 10, "5 6 7 8 9 ")],
    );
}

/// Beam has put each row into three windows by then, so that it stays threefold. Here windows are how rows are
/// grouped, and what counts is how they are where that happens: rows stay single.
#[test]
fn test_rewindow() {
    let mut run = Run::of(|rows| {
        rows.window(Windowing::sliding(ms(6), ms(2)))
            .window(Windowing::fixed(ms(5)))
            .window(Windowing::fixed(ms(5)))
            .group_by([col("key")])
            .agg([array_agg(col("text")).alias("texts")])
    });
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let data = (0..).zip(&names).map(|(n, name)| ("key", n, name.as_str()));
    run.rows(&data.collect::<Vec<_>>());
    run.end();
    assert_eq!(panes(&run), ["01234", "56789"]);
}

/// The sum of `n` by key and window, whatever was done before.
fn sums(run: &Run) -> Vec<(i64, i64, i64)> {
    let mut found = Vec::new();
    for rows in run.left() {
        let sums = rows.column_by_name("n").unwrap();
        let sums = sums.as_primitive::<Int64Type>().values().to_vec();
        let spans = times(&rows, WINDOW_START)
            .into_iter()
            .zip(times(&rows, WINDOW_END));
        found.extend(spans.zip(sums).map(|((start, end), n)| (start, end, n)));
    }
    found.sort_unstable();
    found
}

fn summed(rows: &Collection, windowing: &Windowing) -> Collection {
    rows.window(windowing.clone())
        .group_by([col("key")])
        .agg([sum(col("n")).alias("n")])
}

/// Results have the time of their window, so that to group them again in the same windows changes nothing.
#[test]
fn test_rewindow_regroup() {
    let windowing = Windowing::of(FixedWindows::of(ms(5)).offset(ms(3)));
    for n_times in 1..=3 {
        let mut run = Run::of(|rows| {
            (1..n_times).fold(summed(&rows, &windowing), |rows, _| {
                summed(&rows, &windowing)
            })
        });
        let data: Vec<_> = (0..5).map(|n| ("key", n, "")).collect();
        run.rows(&data);
        run.end();
        assert_eq!(sums(&run), [(-2, 3, 3), (3, 8, 7)]);
    }
}

#[test]
fn test_timestamped_with_combiners() {
    let mut run = Run::of(|rows| {
        rows.window(Windowing::fixed(ms(5)))
            .group_by([(col("n") / lit(5)).alias("key")])
            .agg([sum(col("n")).alias("sum"), avg(col("n")).alias("mean")])
            .select([col("key"), col("sum"), col("mean")])
    });
    let data: Vec<_> = (0..10).map(|n| ("", n, "")).collect();
    run.rows(&data);
    run.end();
    assert_eq!(
        show_rows(&run.left()),
        "key=0 sum=10 mean=2.0\nkey=1 sum=35 mean=7.0"
    );
}

/// [0, 3), [3, 5) and [5, time), which does not hold the time itself: of Beam's test, and against the laws.
#[derive(Debug)]
struct TestCustomWindows;

impl WindowFn for TestCustomWindows {
    fn describe(&self) -> crate::transform::Description {
        crate::transform::Description::new("test_custom_windows", Value::Null)
    }

    fn assign(&self, time: i64, windows: &mut Vec<Window>) {
        let (start, end) = match time {
            ..3 => (0, 3),
            3..5 => (3, 5),
            _ => (5, time),
        };
        windows.push(Window { start, end });
    }
}

#[test]
fn test_custom_windows() {
    check_windows(
        &Windowing::of(TestCustomWindows),
        &[0, 1, 2, 3, 4, 5, 6],
        &[(0, 3, "0 1 2 "), (3, 5, "3 4 "), (5, 5, "5 "), (5, 6, "6 ")],
    );
}

#[test]
fn test_window_assignment_idempotency() {
    let windowing = Windowing::fixed(ms(2));
    let mut run = Run::of(|rows| {
        let rows = rows.window(windowing.clone()).window(windowing.clone());
        summed(&rows, &windowing)
    });
    run.rows(&[("key", 0, ""), ("key", 2, ""), ("key", 4, "")]);
    run.end();
    assert_eq!(sums(&run), [(0, 2, 0), (2, 4, 2), (4, 6, 4)]);
}

#[test]
fn test_window_assignment_through_multiple_gbk_idempotency() {
    let windowing = Windowing::fixed(ms(2));
    let mut run =
        Run::of(|rows| summed(&summed(&summed(&rows, &windowing), &windowing), &windowing));
    run.rows(&[("key", 0, ""), ("key", 2, ""), ("key", 4, "")]);
    run.end();
    assert_eq!(sums(&run), [(0, 2, 0), (2, 4, 2), (4, 6, 4)]);
}

/// A count that has been waited for is not waited for again where results are grouped.
#[test]
fn what_is_made_of_results_leaves_as_soon_as_they_do() {
    let windowing = Windowing::fixed(ms(10)).trigger(count(2).repeatedly());
    let mut run = Run::of(|rows| {
        let summed = summed(&rows, &windowing);
        summed
            .group_by([col("key")])
            .agg([sum(col("n")).alias("n")])
    });
    for n in [1, 2, 3, 4] {
        run.rows(&[("key", n, "")]);
    }
    assert_eq!(sums(&run), [(0, 10, 3), (0, 10, 7)]);
}

/// Sums by key and window, then over all keys in the same windows.
fn summed_twice(windowing: &Windowing) -> Run {
    Run::of(|rows| summed(&rows, windowing).agg([sum(col("n")).alias("n")]))
}

#[test]
fn results_of_overlapping_windows_stay_in_theirs() {
    let mut run = summed_twice(&Windowing::sliding(ms(4), ms(2)));
    run.rows(&[("a", 1, ""), ("b", 2, ""), ("a", 3, "")]);
    run.end();
    assert_eq!(sums(&run), [(-2, 2, 1), (0, 4, 6), (2, 6, 5)]);
}

#[test]
fn results_that_do_not_tell_their_windows_need_new_ones() {
    let refusal = |windowing: &Windowing| {
        let error = summed_twice(windowing).pipeline.plan().unwrap_err();
        error.to_string()
    };
    expect![[r#"
        results of sessions windows cannot be grouped in the same windows again
          in transform "agg/partial"
          Those windows have merged, and are over.
          Hint: Say with `window(..)` in which windows they are to be."#]]
    .assert_eq(&refusal(&Windowing::sessions(ms(10))));
    let earliest = Windowing::sliding(ms(4), ms(2)).timestamp_combiner(TimestampCombiner::Earliest);
    expect![[r#"
        results of sliding windows cannot be grouped in the same windows again
          in transform "agg/partial"
          Their event time does not tell which of the windows over it they came from.
          Hint: Say with `window(..)` in which windows they are to be."#]]
    .assert_eq(&refusal(&earliest));
    let mut run = Run::of(|rows| {
        let sessions = summed(&rows, &Windowing::sessions(ms(10)));
        sessions
            .window(Windowing::fixed(ms(100)))
            .agg([sum(col("n")).alias("n")])
    });
    run.rows(&[("a", 1, ""), ("b", 2, ""), ("a", 30, "")]);
    run.end();
    assert_eq!(sums(&run), [(0, 100, 33)]);
}
