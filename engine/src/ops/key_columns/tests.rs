//! A row whose key or argument has no value is a bad row, whatever is keyed: in windows, over changes, by keyed
//! transforms, and on both sides of every join.

use std::time::Duration;

use arrow::datatypes::DataType;
use expect_test::expect;

use crate::aggregates::{count, sum};
use crate::connectors::from_record_batches;
use crate::expression::{cast, col, lit};
use crate::ops::relational_tests::check_bad_rows;
use crate::ops::{AsOf, IntervalJoin, Join, JoinKind, LookUp, Side, WindowedJoin};
use crate::pipeline::Collection;
use crate::testing::table;
use crate::windowing::{FixedWindows, Sessions, SlidingWindows, TimestampCombiner, Windowing};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Rows of another source of the same pipeline.
fn beside(rows: &Collection, name: &str, text: &str) -> Collection {
    let source = from_record_batches(vec![table(text)]);
    rows.pipeline().read(name, source)
}

const SALES: &str = "event_time: 1, 12, 5, 19, 3, 8; k: 1, 2, 1, 300, 2, 1; x: 1, 2, 0, 1, 5, 2";

fn sums(rows: &Collection) -> Collection {
    let key = cast(col("k"), DataType::Int8).alias("k");
    let outputs = [sum(lit(10) / col("x")).alias("s"), count(lit(1)).alias("n")];
    rows.group_by([key]).agg(outputs)
}

#[test]
fn of_aggregates_in_fixed_windows() {
    check_bad_rows(
        SALES,
        |rows| sums(&rows.window(Windowing::of(FixedWindows::of(ms(10))))),
        expect![[r#"
            k: 1, 2, 2
            s: 15, 2, 5
            n: 2, 1, 1
            window_start: 0, 0, 10
            window_end: 10, 10, 20
            event_time: 9, 9, 19
            group_by/partial: record batch 0, row 2: expression `CAST(Int32(10) AS Int64) / x` failed on {"x":0}: Divide by zero error
            group_by/partial: record batch 1, row 0: expression `CAST(k AS Int8) AS k` failed on {"k":300}: Cast error: Can't cast value 300 to type Int8"#]],
    );
}

#[test]
fn of_aggregates_in_sliding_windows_whose_results_have_the_latest_time() {
    check_bad_rows(
        SALES,
        |rows| {
            let windows = SlidingWindows::of(ms(10)).every(ms(5));
            let windowing = Windowing::of(windows).timestamp_combiner(TimestampCombiner::Latest);
            sums(&rows.window(windowing))
        },
        expect![[r#"
            k: 1, 1, 1, 2, 2, 2, 2
            s: 5, 10, 15, 2, 2, 5, 5
            n: 1, 1, 2, 1, 1, 1, 1
            window_start: 5, -5, 0, -5, 0, 5, 10
            window_end: 15, 5, 10, 5, 10, 15, 20
            event_time: 8, 1, 8, 3, 3, 12, 12
            group_by/partial: record batch 0, row 2: expression `CAST(Int32(10) AS Int64) / x` failed on {"x":0}: Divide by zero error
            group_by/partial: record batch 1, row 0: expression `CAST(k AS Int8) AS k` failed on {"k":300}: Cast error: Can't cast value 300 to type Int8"#]],
    );
}

/// The row at 5 would have brought those at 1 and 8 together.
#[test]
fn of_aggregates_in_sessions() {
    check_bad_rows(
        SALES,
        |rows| sums(&rows.window(Windowing::of(Sessions::with_gap(ms(5))))),
        expect![[r#"
            k: 1, 1, 2, 2
            s: 5, 10, 2, 5
            n: 1, 1, 1, 1
            window_start: 8, 1, 3, 12
            window_end: 13, 6, 8, 17
            event_time: 12, 5, 7, 16
            group_by/partial: record batch 0, row 2: expression `CAST(Int32(10) AS Int64) / x` failed on {"x":0}: Divide by zero error
            group_by/partial: record batch 1, row 0: expression `CAST(k AS Int8) AS k` failed on {"k":300}: Cast error: Can't cast value 300 to type Int8"#]],
    );
}

#[test]
fn of_aggregates_of_changes() {
    check_bad_rows(
        "k: 1, 2, 1, 300, 3, 5; x: 1, 2, 0, 1, 5, 2",
        |rows| sums(&rows.as_changelog()),
        expect![[r#"
            k: 1, 2, 3, 5
            s: 10, 5, 2, 5
            n: 1, 1, 1, 1
            diff: 1, 1, 1, 1
            group_by/partial: record batch 0, row 2: expression `CAST(Int32(10) AS Int64) / x` failed on {"x":0}: Divide by zero error
            group_by/partial: record batch 1, row 0: expression `CAST(k AS Int8) AS k` failed on {"k":300}: Cast error: Can't cast value 300 to type Int8"#]],
    );
}

#[test]
fn of_keyed_transforms() {
    check_bad_rows(
        SALES,
        |rows| {
            let keys = [lit(10) / col("x"), cast(col("k"), DataType::Int8)];
            rows.sessionize(keys, ms(5))
        },
        expect![[r#"
            Int32(10) / x: 2, 5, 5, 10
            k: 2, 1, 2, 1
            window_start: 3, 8, 12, 1
            window_end: 8, 13, 17, 6
            n_rows: 1, 1, 1, 1
            event_time: 7, 12, 16, 5
            sessionize/key_0: record batch 0, row 2: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            sessionize/key_1: record batch 1, row 0: expression `CAST(k AS Int8)` failed on {"k":300}: Cast error: Can't cast value 300 to type Int8"#]],
    );
}

const NAMES: &str = "event_time: 4, 0, 11, 2; of: 5, 0, 10, 2; name: a, b, c, d";

/// `10 / x` of the rows with `10 / of` of the names.
fn keys() -> [(crate::Expr, crate::Expr); 1] {
    [(lit(10) / col("x"), lit(10) / col("of"))]
}

#[test]
fn of_both_sides_of_a_join_whichever_is_held() {
    for held in [Side::Left, Side::Right] {
        check_bad_rows(
            "x: 5, 0, 2, 3, 0, 10",
            |rows| {
                let names = beside(rows, "names", NAMES).select([col("of"), col("name")]);
                rows.join_with(&names, Join::new(JoinKind::Left, keys()).build_side(held))
            },
            expect![[r#"
                x: 2, 3, 5, 10
                of: 2, null, 5, 10
                name: 'd', null, 'a', 'c'
                join/left_key_0: record batch 0, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
                join/left_key_0: record batch 1, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
                join/right_key_0: record batch 0, row 1: expression `Int32(10) / of` failed on {"of":0}: Divide by zero error"#]],
        );
    }
}

#[test]
fn of_joins_of_changes() {
    check_bad_rows(
        "x: 5, 0, 2, 3, 0, 10",
        |rows| {
            let names = beside(rows, "names", NAMES).select([col("of"), col("name")]);
            rows.as_changelog()
                .join(&names.as_changelog(), JoinKind::Inner, keys())
        },
        expect![[r#"
            x: 2, 5, 10
            of: 2, 5, 10
            name: 'd', 'a', 'c'
            diff: 1, 1, 1
            join/left_key_0: record batch 0, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            join/left_key_0: record batch 1, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            join/right_key_0: record batch 0, row 1: expression `Int32(10) / of` failed on {"of":0}: Divide by zero error"#]],
    );
}

const TIMED: &str = "event_time: 5, 5, 2, 13, 8, 12; x: 5, 0, 2, 3, 0, 10";

#[test]
fn of_joins_in_windows() {
    check_bad_rows(
        TIMED,
        |rows| {
            let windowing = Windowing::of(FixedWindows::of(ms(10)));
            let names = beside(rows, "names", NAMES).window(windowing.clone());
            let join = WindowedJoin::new(JoinKind::Full, keys());
            rows.window(windowing).join_windowed(&names, join)
        },
        expect![[r#"
            x: 2, 3, 5, 10
            of: 2, null, 5, 10
            name: 'd', null, 'a', 'c'
            window_start: 0, 10, 0, 10
            window_end: 10, 20, 10, 20
            event_time: 9, 19, 9, 19
            windowed_join/left_key_0: record batch 0, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            windowed_join/left_key_0: record batch 1, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            windowed_join/right_key_0: record batch 0, row 1: expression `Int32(10) / of` failed on {"of":0}: Divide by zero error"#]],
    );
}

#[test]
fn of_joins_by_intervals() {
    check_bad_rows(
        TIMED,
        |rows| {
            let join = IntervalJoin::new(JoinKind::Inner, keys()).before(ms(3));
            rows.join_interval(&beside(rows, "names", NAMES), join)
        },
        expect![[r#"
            x: 2, 5, 10
            of: 2, 5, 10
            name: 'd', 'a', 'c'
            event_time: 2, 5, 12
            interval_join/left_key_0: record batch 0, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            interval_join/left_key_0: record batch 1, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            interval_join/right_key_0: record batch 0, row 1: expression `Int32(10) / of` failed on {"of":0}: Divide by zero error"#]],
    );
}

#[test]
fn of_as_of_joins_and_look_ups() {
    let names = |rows: &Collection| {
        let names = beside(rows, "names", NAMES);
        names.select([col("of"), col("name"), col("event_time")])
    };
    check_bad_rows(
        TIMED,
        |rows| rows.join_as_of(&names(rows), AsOf::on_pairs(keys())),
        expect![[r#"
            event_time: 2, 5, 12, 13
            x: 2, 5, 10, 3
            of: 2, 5, 10, null
            name: 'd', 'a', 'c', null
            as_of_join/left_key_0: record batch 0, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            as_of_join/left_key_0: record batch 1, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            as_of_join/right_key_0: record batch 0, row 1: expression `Int32(10) / of` failed on {"of":0}: Divide by zero error"#]],
    );
    check_bad_rows(
        TIMED,
        |rows| rows.look_up(&names(rows), LookUp::on_pairs(keys())),
        expect![[r#"
            event_time: 2, 5, 12, 13
            x: 2, 5, 10, 3
            of: 2, 5, 10, null
            name: 'd', 'a', 'c', null
            look_up/left_key_0: record batch 0, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            look_up/left_key_0: record batch 1, row 1: expression `Int32(10) / x` failed on {"x":0}: Divide by zero error
            look_up/right_key_0: record batch 0, row 1: expression `Int32(10) / of` failed on {"of":0}: Divide by zero error"#]],
    );
}
