//! Results of changes at the time of a row.

use arrow::array::AsArray;
use arrow::datatypes::{Int8Type, Int64Type};
use expect_test::expect;
use proptest::prelude::*;

use super::random::{Change, changes};
use super::{check, correcting, fixed, ms};
use crate::Pipeline;
use crate::aggregates::{count, sum};
use crate::connectors::collect;
use crate::expression::{col, lit};
use crate::ops::group_by::windowed::tests::script::Event::{End, Rows, Watermark};
use crate::testing::{Script, changelog, scripted_with, show_rows, simulate};
use crate::windowing::{Sessions, SlidingWindows, TimestampCombiner, Trigger, Windowing};

#[test]
fn a_result_has_the_time_of_a_row_that_is_there_and_is_taken_back_at_it() {
    let events = [
        Rows("event_time: 3, 7, 5; k: a, a, b; x: 1, 2, 4; diff: 1, 1, 1"),
        Watermark(10),
        // The earliest is taken back, and a row that comes late is earlier than the other.
        Rows("event_time: 3; k: a; x: 1; diff: -1"),
        Rows("event_time: 4, 9; k: b, b; x: 1, 1; diff: 1, 1"),
        // Another row of the same value: what is counted stays as it is, but not when.
        Rows("event_time: 7, 8; k: a, a; x: 2, 2; diff: -1, 1"),
        End,
    ];
    let of = |combiner| correcting(fixed(10), 5).timestamp_combiner(combiner);
    check(
        of(TimestampCombiner::Earliest),
        &events,
        expect![[r#"
        rows event_time: 3, 7, 5; k: a, a, b; x: 1, 2, 4; diff: 1, 1, 1
        watermark 10
            a 2 3 2 [0, 10) at 3 on_time 0/0 first 1
            b 1 4 4 [0, 10) at 5 on_time 0/0 first 1
        rows event_time: 3; k: a; x: 1; diff: -1
            a 1 2 2 [0, 10) at 7 late 1/1 1
            a 2 3 2 [0, 10) at 3 on_time 0/0 first -1
        rows event_time: 4, 9; k: b, b; x: 1, 1; diff: 1, 1
            b 1 4 4 [0, 10) at 5 on_time 0/0 first -1
            b 3 6 4 [0, 10) at 4 late 1/1 1
        rows event_time: 7, 8; k: a, a; x: 2, 2; diff: -1, 1
            a 1 2 2 [0, 10) at 7 late 1/1 -1
            a 1 2 2 [0, 10) at 8 late 2/2 1
        end
    "#]],
    );
    check(
        of(TimestampCombiner::Latest),
        &events,
        expect![[r#"
        rows event_time: 3, 7, 5; k: a, a, b; x: 1, 2, 4; diff: 1, 1, 1
        watermark 10
            a 2 3 2 [0, 10) at 7 on_time 0/0 first 1
            b 1 4 4 [0, 10) at 5 on_time 0/0 first 1
        rows event_time: 3; k: a; x: 1; diff: -1
            a 1 2 2 [0, 10) at 7 late 1/1 1
            a 2 3 2 [0, 10) at 7 on_time 0/0 first -1
        rows event_time: 4, 9; k: b, b; x: 1, 1; diff: 1, 1
            b 1 4 4 [0, 10) at 5 on_time 0/0 first -1
            b 3 6 4 [0, 10) at 9 late 1/1 1
        rows event_time: 7, 8; k: a, a; x: 2, 2; diff: -1, 1
            a 1 2 2 [0, 10) at 7 late 1/1 -1
            a 1 2 2 [0, 10) at 8 late 2/2 1
        end
    "#]],
    );
    let sessions = Windowing::of(Sessions::with_gap(ms(3)));
    let sessions = correcting(sessions, 20).timestamp_combiner(TimestampCombiner::Earliest);
    check(
        sessions,
        &[
            Rows("event_time: 3, 5, 7; k: a, a, a; x: 1, 2, 4; diff: 1, 1, 1"),
            Watermark(10),
            Rows("event_time: 5; k: a; x: 2; diff: -1"),
            Rows("event_time: 3; k: a; x: 1; diff: -1"),
            End,
        ],
        expect![[r#"
            rows event_time: 3, 5, 7; k: a, a, a; x: 1, 2, 4; diff: 1, 1, 1
            watermark 10
                a 3 7 4 [3, 10) at 3 on_time 0/0 first 1
            rows event_time: 5; k: a; x: 2; diff: -1
                a 1 1 1 [3, 6) at 3 late 0/0 first 1
                a 1 4 4 [7, 10) at 7 late 0/0 first 1
                a 3 7 4 [3, 10) at 3 on_time 0/0 first -1
            rows event_time: 3; k: a; x: 1; diff: -1
                a 1 1 1 [3, 6) at 3 late 0/0 first -1
            end
        "#]],
    );
}

#[test]
fn changes_of_their_effect_and_one_window_of_all_time_need_the_time_of_rows() {
    let pipeline = Pipeline::new("test");
    let schema = changelog("id: 1; at: 1; event_time: 1").schema();
    let there = pipeline.read("rows", scripted_with(schema)).upserts(["id"]);
    let counted = |windowing: Windowing| {
        let grouped = there.window(windowing).group_by([]);
        let counted = grouped.agg([count(lit(1)).alias("n")]);
        counted.named("out").write(collect().0);
    };
    counted(Windowing::global().timestamp_combiner(TimestampCombiner::Latest));
    let error = pipeline.plan().unwrap_err().to_string();
    assert!(
        error.starts_with("windows would deal the changes of"),
        "{error}"
    );
}

#[test]
fn the_watermark_waits_for_a_result_at_the_time_of_a_row_that_has_taken_effect() {
    let pipeline = Pipeline::new("test");
    let schema = changelog("id: 1; at: 1; event_time: 1").schema();
    let there = pipeline.read("rows", scripted_with(schema)).upserts(["id"]);
    let windowing = fixed(10)
        .row_time(col("at"))
        .timestamp_combiner(TimestampCombiner::Earliest);
    let counted = there.window(windowing).group_by([]);
    let counted = counted.agg([count(lit(1)).alias("n")]);
    let again = counted.select([col("n")]).window(fixed(1)).group_by([]);
    let (again, late) = again.agg_with_late([sum(col("n")).alias("n")]);
    again.named("out").write(collect().0);
    late.named("late").write(collect().0);
    let rows = |text| changelog(text);
    let script = Script::new()
        .batch(
            "rows",
            0,
            rows("id: 1, 2, 3; at: 3, 5, 12; event_time: 3, 5, 12"),
        )
        .watermark("rows", 8)
        // Moved on, so that what the watermark waits for is the second.
        .batch("rows", 0, rows("id: 1; at: 9; event_time: 9"))
        .watermark("rows", 11)
        .restart(2)
        .end("rows");
    let made = simulate(&pipeline, &script, 1, 3).unwrap();
    assert_eq!(show_rows(&made.rows("late")), "");
    expect![[r#"
        n=1 window_start=12 window_end=13 event_time=12 diff=1
        n=2 window_start=5 window_end=6 event_time=5 diff=1"#]]
    .assert_eq(&show_rows(&made.rows("out")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    /// Windows behind take in all results of changes that come in time: the watermark waits for them.
    #[test]
    fn results_at_the_time_of_a_row_are_not_late(
        changes in changes(),
        steps in prop::collection::vec((1usize..6, 0i64..15, prop::option::weighted(0.2, 1usize..4)), 1..20),
        windows in prop_oneof![
            Just(fixed(10)),
            Just(Windowing::of(SlidingWindows::of(ms(20)).every(ms(8)))),
            Just(Windowing::of(Sessions::with_gap(ms(4)))),
        ],
        combiner in prop_oneof![Just(TimestampCombiner::Earliest), Just(TimestampCombiner::Latest)],
        early in any::<bool>(),
        n_workers in 1usize..4,
        seed in any::<u64>(),
    ) {
        let windowing = match early {
            false => windows,
            true => correcting(windows, 0).trigger(Trigger::after_watermark().early(Trigger::always())),
        };
        let pipeline = Pipeline::new("test");
        let schema = changelog("k: 1; x: 1; event_time: 1; diff: 1").schema();
        let counted = pipeline
            .read("rows", scripted_with(schema))
            .window(windowing.timestamp_combiner(combiner))
            .group_by([col("k")])
            .agg([count(lit(1)).alias("n")]);
        let columns = ["k", "n", "event_time", "diff"].map(col);
        let (again, late) = counted
            .select(columns)
            .window(fixed(1))
            .group_by([])
            .agg_with_late([count(lit(1)).alias("n")]);
        let first = counted.with_column("one", lit(1i64)).changes();
        first.named("first").write(collect().0);
        again.changes().named("out").write(collect().0);
        late.named("late").write(collect().0);
        let mut script = Script::new();
        let (mut rest, mut watermark) = (&changes[..], 0);
        for (n_rows, by, restart) in steps.iter().cycle() {
            let (part, others) = rest.split_at((*n_rows).min(rest.len()));
            rest = others;
            let column =
                |of: fn(&Change) -> String| part.iter().map(of).collect::<Vec<_>>().join(", ");
            let text = format!(
                "k: 0, {}; x: 0, {}; event_time: 0, {}; diff: 0, {}",
                column(|c| c.k.to_string()),
                column(|c| c.x.map_or("null".into(), |x| x.to_string())),
                column(|c| c.time.to_string()),
                column(|c| c.diff.to_string()),
            );
            script = script.batch("rows", 0, changelog(&text).slice(1, part.len()));
            let promised = rest.iter().map(|c| c.time).min().unwrap_or(i64::MAX);
            watermark = (watermark + by).min(promised).max(watermark);
            script = script.watermark("rows", watermark);
            if let Some(n_workers) = restart {
                script = script.restart(*n_workers);
            }
            if rest.is_empty() {
                break;
            }
        }
        let made = simulate(&pipeline, &script.end("rows"), n_workers, seed).unwrap();
        prop_assert_eq!(show_rows(&made.rows("late")), "");
        let sum = |node: &str, name: &str| -> i64 {
            let rows = made.rows(node);
            let products = rows.iter().flat_map(|rows| {
                let of = rows[name].as_primitive::<Int64Type>().values().to_vec();
                let diffs = rows["change"].as_primitive::<Int8Type>().values().to_vec();
                of.into_iter().zip(diffs).map(|(n, diff)| n * i64::from(diff))
            });
            products.sum()
        };
        prop_assert_eq!(sum("out", "n"), sum("first", "one"));
    }
}
