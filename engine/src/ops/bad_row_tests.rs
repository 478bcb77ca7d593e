//! What reads more than one row, or decides what becomes of one, and fails on it: the row is bad like any other.

use std::time::Duration;

use arrow::datatypes::DataType;
use expect_test::{Expect, expect};

use crate::Expr;
use crate::connectors::{collect, from_record_batches};
use crate::expression::{cast, col, lit};
use crate::ops::relational_tests::{check_bad_rows, check_letters, run_over, sorted};
use crate::ops::{
    AsOf, IntervalJoin, Join, JoinKind, LookUp, Side, SideInput, Upserts, Watermarks, WindowedJoin,
};
use crate::output::OnBadRow;
use crate::pipeline::{Collection, Pipeline};
use crate::runner::RunOptions;
use crate::testing::{show, show_rows, table};
use crate::windowing::{FixedWindows, Windowing};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Rows of another source of the same pipeline.
fn beside(rows: &Collection, name: &str, text: &str) -> Collection {
    let source = from_record_batches(vec![table(text)]);
    rows.pipeline().read(name, source)
}

/// The row 2 of each half meets a name by which nothing can be divided.
const ROWS: &str = "event_time: 1, 2, 3, 4, 5, 6; k: 1, 2, 3, 1, 3, 4; x: 6, 6, 6, 7, 8, 9";
const NAMES: &str = "event_time: 1, 2, 2, 3; j: 1, 2, 3, 3; by: 2, 3, 0, 6; name: a, b, c, d";

/// The filter of joins: `x / by > 1`.
fn divides() -> Expr {
    (col("x") / col("by")).gt(lit(1))
}

fn on() -> [(Expr, Expr); 1] {
    [(col("k"), col("j"))]
}

#[test]
fn a_pair_for_which_a_join_has_no_answer_whichever_side_is_held() {
    let joined = |kind, held| {
        move |rows: &Collection| {
            let names = beside(rows, "names", NAMES).select([col("j"), col("by"), col("name")]);
            let rows = rows.select([col("k"), col("x")]);
            let join = Join::new(kind, on()).filter(divides()).build_side(held);
            rows.join_with(&names, join)
        }
    };
    check_bad_rows(
        ROWS,
        joined(JoinKind::Left, Side::Right),
        expect![[r#"
        k: 1, 1, 2, 4
        x: 6, 7, 6, 9
        j: 1, 1, 2, null
        by: 2, 2, 3, null
        name: 'a', 'a', 'b', null
        join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
        join: record batch 1, row 1: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
    // The rows of the result are the same, and the position is that of the side which is read past the other.
    check_bad_rows(
        ROWS,
        joined(JoinKind::Left, Side::Left),
        expect![[r#"
        k: 1, 1, 2, 4
        x: 6, 7, 6, 9
        j: 1, 1, 2, null
        by: 2, 2, 3, null
        name: 'a', 'a', 'b', null
        join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
        join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
    check_bad_rows(
        ROWS,
        joined(JoinKind::LeftAnti, Side::Right),
        expect![[r#"
            k: 4
            x: 9
            join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
            join: record batch 1, row 1: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
    check_bad_rows(
        ROWS,
        joined(JoinKind::LeftAnti, Side::Left),
        expect![[r#"
            k: 4
            x: 9
            join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
            join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
    check_bad_rows(
        ROWS,
        joined(JoinKind::LeftSemi, Side::Right),
        expect![[r#"
            k: 1, 1, 2
            x: 6, 7, 6
            join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
            join: record batch 1, row 1: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
    check_bad_rows(
        ROWS,
        joined(JoinKind::LeftSemi, Side::Left),
        expect![[r#"
            k: 1, 1, 2
            x: 6, 7, 6
            join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
            join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
    check_bad_rows(
        ROWS,
        joined(JoinKind::Full, Side::Left),
        expect![[r#"
        k: null, 1, 1, 2, 4
        x: null, 6, 7, 6, 9
        j: 3, 1, 1, 2, null
        by: 6, 2, 2, 3, null
        name: 'd', 'a', 'a', 'b', null
        join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
        join: record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
}

/// As [`check_bad_rows`], where the bad rows are pairs of rows that have waited for each other, and stand nowhere.
fn check_pairs(compose: impl Fn(&Collection) -> Collection, expected: Expect) {
    let (made, _) = check_letters(ROWS, &compose, expected);
    let dropped = |rows: &Collection| compose(rows).on_bad_row(OnBadRow::Drop);
    for workers in 1..=3 {
        let kept = run_over(&table(ROWS), 3, workers, &dropped).unwrap();
        assert_eq!(show(&sorted(&kept)), made, "dropped at {workers} workers");
    }
}

#[test]
fn a_pair_for_which_a_join_in_windows_has_no_answer() {
    check_pairs(
        |rows| {
            let windowing = Windowing::of(FixedWindows::of(ms(10)));
            let names = beside(rows, "names", NAMES).window(windowing.clone());
            let join = WindowedJoin::new(JoinKind::Full, on()).filter(divides());
            rows.window(windowing).join_windowed(&names, join)
        },
        expect![[r#"
            k: null, 1, 1, 2, 4
            x: null, 6, 7, 6, 9
            j: 3, 1, 1, 2, null
            by: 6, 2, 2, 3, null
            name: 'd', 'a', 'a', 'b', null
            window_start: 0, 0, 0, 0, 0
            window_end: 10, 10, 10, 10, 10
            event_time: 9, 9, 9, 9, 9
            windowed_join: a pair of rows, row 0: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
            windowed_join: a pair of rows, row 0: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
}

#[test]
fn a_pair_for_which_a_join_by_intervals_has_no_answer() {
    check_pairs(
        |rows| {
            let join = IntervalJoin::new(JoinKind::Full, on())
                .before(ms(3))
                .after(ms(3));
            rows.join_interval(&beside(rows, "names", NAMES), join.filter(divides()))
        },
        expect![[r#"
            k: null, 1, 1, 2, 4
            x: null, 6, 7, 6, 9
            j: 3, 1, 1, 2, null
            by: 6, 2, 2, 3, null
            name: 'd', 'a', 'a', 'b', null
            event_time: 3, 1, 4, 2, 6
            interval_join: a pair of rows, row 0: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
            interval_join: a pair of rows, row 0: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error"#]],
    );
}

#[test]
fn a_row_whose_side_cannot_be_looked_up_and_one_of_the_side_without_a_key() {
    let keys = || [(lit(12) / (col("x") - lit(6)), lit(12) / col("by"))];
    // A side that ends is learned before; main rows are rejected where they are answered.
    check_bad_rows(
        ROWS,
        |rows| {
            let names = beside(rows, "names", NAMES).select([col("by"), col("name")]);
            rows.with_side_input(&names, SideInput::multimap("names", keys(), col("name")))
        },
        expect![[r#"
            event_time: 4, 5, 6
            k: 1, 3, 4
            x: 7, 8, 9
            names: [], [a], [b]
            side_input/side_rows: record batch 0, row 2: expression `Int32(12) / by` failed on {"by":0}: Divide by zero error
            side_input: record batch 0, row 0: expression `Int32(12) / (x - Int32(6))` failed on {"x":6}: Divide by zero error
            side_input: record batch 0, row 1: expression `Int32(12) / (x - Int32(6))` failed on {"x":6}: Divide by zero error
            side_input: record batch 0, row 2: expression `Int32(12) / (x - Int32(6))` failed on {"x":6}: Divide by zero error"#]],
    );
    check_bad_rows(
        ROWS,
        |rows| {
            let names = beside(rows, "names", NAMES).select([col("by")]);
            rows.with_side_input(&names, SideInput::list("parts", lit(12) / col("by")))
        },
        expect![[r#"
            event_time: 1, 2, 3, 4, 5, 6
            k: 1, 2, 3, 1, 3, 4
            x: 6, 6, 6, 7, 8, 9
            parts: [2, 4, 6], [2, 4, 6], [2, 4, 6], [2, 4, 6], [2, 4, 6], [2, 4, 6]
            side_input/side_rows: record batch 0, row 2: expression `Int32(12) / by` failed on {"by":0}: Divide by zero error"#]],
    );
}

#[test]
fn what_is_left_of_a_batch_sees_the_windows_of_its_own_rows() {
    let keys = || [(lit(12) / (col("x") - lit(7)), lit(12) / col("by"))];
    check_bad_rows(
        "event_time: 1, 12, 2, 13, 3; x: 7, 11, 11, 10, 7",
        |rows| {
            let windowing = Windowing::of(FixedWindows::of(ms(10)));
            let names = "event_time: 1, 1, 12; by: 4, 3, 4; name: a, b, c";
            let names = beside(rows, "names", names).window(windowing.clone());
            let side = SideInput::multimap("names", keys(), col("name"));
            rows.window(windowing).with_side_input(&names, side)
        },
        expect![[r#"
            event_time: 2, 12, 13
            x: 11, 11, 10
            names: [a], [c], []
            side_input: record batch 0, row 0: expression `Int32(12) / (x - Int32(7))` failed on {"x":7}: Divide by zero error
            side_input: record batch 1, row 1: expression `Int32(12) / (x - Int32(7))` failed on {"x":7}: Divide by zero error"#]],
    );
}

#[test]
fn a_version_of_a_side_without_a_key() {
    let keys = [(col("k"), lit(12) / col("by"))];
    check_bad_rows(
        ROWS,
        |rows| {
            let names = beside(rows, "names", NAMES);
            let names = names.select([col("by"), col("name"), col("event_time")]);
            rows.with_side_input(&names, SideInput::map(keys.clone()).as_of_event_time())
        },
        expect![[r#"
            event_time: 1, 2, 3, 4, 5, 6
            k: 1, 2, 3, 1, 3, 4
            x: 6, 6, 6, 7, 8, 9
            by: null, null, null, null, null, 3
            name: null, null, null, null, null, 'b'
            side_input/side_rows: record batch 0, row 2: expression `Int32(12) / by` failed on {"by":0}: Divide by zero error"#]],
    );
}

#[test]
fn a_row_of_which_nobody_knows_whether_it_deletes() {
    let deletes = (lit(12) / (col("x") - lit(7))).gt(lit(10));
    check_bad_rows(
        ROWS,
        |rows| rows.upserts_with(Upserts::new(["k"]).deletes(deletes.clone())),
        expect![[r#"
            event_time: 1, 2, 3, 5, 6
            k: 1, 2, 3, 3, 4
            x: 6, 6, 6, 6, 9
            diff: 1, 1, 1, -1, 1
            upserts/rows: record batch 1, row 0: expression `Int32(12) / (x - Int32(7)) > Int32(10)` failed on {"x":7}: Divide by zero error"#]],
    );
    // Without a time the rows of a key count in the order in which they come, so all are of one split, and those of
    // a batch take effect at once.
    check_bad_rows(
        "k: 1, 3, 3, 4, 2, 4; x: 6, 6, 8, 7, 6, 9",
        |rows| rows.upserts_with(Upserts::new(["k"]).deletes(deletes.clone())),
        expect![[r#"
            k: 1, 2, 4
            x: 6, 6, 9
            diff: 1, 1, 1
            upserts/rows: record batch 1, row 0: expression `Int32(12) / (x - Int32(7)) > Int32(10)` failed on {"x":7}: Divide by zero error"#]],
    );
}

#[test]
fn a_feature_of_which_nobody_knows_when_it_was_created_or_whether_it_deletes() {
    let names = |rows: &Collection| beside(rows, "names", NAMES);
    check_bad_rows(
        ROWS,
        |rows| {
            let as_of = AsOf::on_pairs(on()).created(lit(12) / col("by"));
            rows.join_as_of(&names(rows), as_of)
        },
        expect![[r#"
            event_time: 1, 2, 3, 4, 5, 6
            k: 1, 2, 3, 1, 3, 4
            x: 6, 6, 6, 7, 8, 9
            j: 1, 2, 3, 1, 3, null
            by: 2, 3, 6, 2, 6, null
            name: 'a', 'b', 'd', 'a', 'd', null
            as_of_join/features: record batch 0, row 2: expression `Int32(12) / by` failed on {"by":0}: Divide by zero error"#]],
    );
    check_bad_rows(
        ROWS,
        |rows| {
            let look_up = LookUp::on_pairs(on());
            let look_up = look_up.deleted_where((lit(12) / col("by")).gt(lit(5)));
            rows.look_up(&names(rows), look_up.created(lit(12) / col("by")))
        },
        expect![[r#"
            event_time: 1, 2, 3, 4, 5, 6
            k: 1, 2, 3, 1, 3, 4
            x: 6, 6, 6, 7, 8, 9
            j: null, 2, 3, null, 3, null
            by: null, 3, 6, null, 6, null
            name: null, 'b', 'd', null, 'd', null
            look_up/features: record batch 0, row 2: expression `Int32(12) / by` failed on {"by":0}: Divide by zero error"#]],
    );
}

#[test]
fn a_row_that_does_not_say_where_the_watermark_is() {
    // By a time, and by a condition.
    check_bad_rows(
        ROWS,
        |rows| punctuated(rows, mark()),
        expect![[r#"
        at[ms]: 1, 2, 3, 5, 6
        k: 1, 2, 3, 3, 4
        x: 6, 6, 6, 8, 9
        event_time: 1, 2, 3, 5, 6
        assign_timestamps: record batch 1, row 0: expression `CAST(Int32(12) / (x - Int32(7)) AS Int64)` failed on {"x":7}: Divide by zero error"#]],
    );
    check_bad_rows(
        ROWS,
        |rows| punctuated(rows, mark().gt(lit(5))),
        expect![[r#"
            at[ms]: 1, 2, 3, 5, 6
            k: 1, 2, 3, 3, 4
            x: 6, 6, 6, 8, 9
            event_time: 1, 2, 3, 5, 6
            assign_timestamps: record batch 1, row 0: expression `CAST(Int32(12) / (x - Int32(7)) AS Int64) > Int32(5)` failed on {"x":7}: Divide by zero error"#]],
    );
}

fn mark() -> Expr {
    cast(lit(12) / (col("x") - lit(7)), DataType::Int64)
}

fn punctuated(rows: &Collection, mark: Expr) -> Collection {
    let rows = rows.select([col("event_time").alias("at"), col("k"), col("x")]);
    rows.assign_timestamps(col("at"), Watermarks::punctuated(mark))
}

/// The whole message where bad rows are not allowed, of each place that is no node of its own for keys.
#[test]
fn the_message_says_where_the_row_stands_and_what_to_do() {
    let rows = table(ROWS);
    let fails = |compose: &dyn Fn(&Collection) -> Collection| {
        let composed = |rows: &Collection| compose(rows).on_bad_row(OnBadRow::Fail);
        run_over(&rows, 3, 1, &composed).unwrap_err().report()
    };
    let names = |rows: &Collection| beside(rows, "names", NAMES);
    expect![[r#"
        record batch 0, row 2: expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error
          in transform "join"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&fails(&|rows| {
        let names = names(rows).select([col("j"), col("by")]);
        rows.join_with(&names, Join::new(JoinKind::Inner, on()).filter(divides()))
    }));
    expect![[r#"
        a pair of rows: expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error
          in transform "interval_join"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&fails(&|rows| {
        let join = IntervalJoin::new(JoinKind::Inner, on()).before(ms(3));
        rows.join_interval(&names(rows), join.filter(divides()))
    }));
    expect![[r#"
        record batch 0, row 2: expression `Int32(12) / by` failed on {"by":0}: Divide by zero error
          in transform "side_input/side_rows"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&fails(&|rows| {
        let names = names(rows).select([col("by"), col("name")]);
        let keys = [(col("k"), lit(12) / col("by"))];
        rows.with_side_input(&names, SideInput::map(keys))
    }));
    expect![[r#"
        record batch 1, row 0: expression `Int32(12) / (x - Int32(7)) > Int32(10)` failed on {"x":7}: Divide by zero error
          in transform "upserts/rows"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&fails(&|rows| {
        rows.upserts_with(Upserts::new(["k"]).deletes((lit(12) / (col("x") - lit(7))).gt(lit(10))))
    }));
    expect![[r#"
        record batch 0, row 2: expression `Int32(12) / by` failed on {"by":0}: Divide by zero error
          in transform "as_of_join/features"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&fails(&|rows| {
        let as_of = AsOf::on_pairs(on()).created(lit(12) / col("by"));
        rows.join_as_of(&names(rows), as_of)
    }));
    expect![[r#"
        record batch 1, row 0: expression `CAST(Int32(12) / (x - Int32(7)) AS Int64)` failed on {"x":7}: Divide by zero error
          in transform "assign_timestamps"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&fails(&|rows| punctuated(rows, mark())));
}

/// Of each case all that a dead letter says.
#[test]
fn a_dead_letter_has_the_position_the_reason_and_the_row() {
    let letters = |compose: &dyn Fn(&Collection) -> Collection| {
        let pipeline = Pipeline::new("test");
        let (dead, letters) = collect();
        let rows = pipeline.read("rows", from_record_batches(vec![table(ROWS)]));
        let made = compose(&rows).dead_letters_to(dead);
        made.write(collect().0);
        pipeline.run(&RunOptions::new().workers(1)).unwrap();
        show_rows(&letters.take())
    };
    let names = |rows: &Collection| beside(rows, "names", NAMES);
    expect![[r#"
        node='join' split='record batch 0' row=2 reason='expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0}'
        node='join' split='record batch 0' row=4 reason='expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error' data='{"x":8,"by":0}'"#]].assert_eq(&letters(&|rows| {
        let names = names(rows).select([col("j"), col("by")]);
        rows.join_with(&names, Join::new(JoinKind::Inner, on()).filter(divides()))
    }));
    expect![[r#"
        node='windowed_join' split='a pair of rows' row=0 reason='expression `x / by > Int32(1)` failed on {"x":6,"by":0}: Divide by zero error' data='{"x":6,"by":0}'
        node='windowed_join' split='a pair of rows' row=0 reason='expression `x / by > Int32(1)` failed on {"x":8,"by":0}: Divide by zero error' data='{"x":8,"by":0}'"#]].assert_eq(&letters(&|rows| {
        let windowing = Windowing::of(FixedWindows::of(ms(10)));
        let join = WindowedJoin::new(JoinKind::Inner, on()).filter(divides());
        let names = names(rows).window(windowing.clone());
        rows.window(windowing).join_windowed(&names, join)
    }));
    expect![[r#"
        node='side_input' split='record batch 0' row=3 reason='expression `Int32(12) / (x - Int32(7))` failed on {"x":7}: Divide by zero error' data='{"event_time":"1970-01-01T00:00:00.004","k":1,"x":7}'
        node='side_input/side_rows' split='record batch 0' row=2 reason='expression `Int32(12) / by` failed on {"by":0}: Divide by zero error' data='{"by":0,"name":"c"}'"#]].assert_eq(&letters(&|rows| {
        let names = names(rows).select([col("by"), col("name")]);
        let keys = [(lit(12) / (col("x") - lit(7)), lit(12) / col("by"))];
        rows.with_side_input(&names, SideInput::map(keys))
    }));
    expect![[r#"node='upserts/rows' split='record batch 0' row=3 reason='expression `Int32(12) / (x - Int32(7)) > Int32(10)` failed on {"x":7}: Divide by zero error' data='{"event_time":"1970-01-01T00:00:00.004","k":1,"x":7}'"#]].assert_eq(&letters(&|rows| {
        rows.upserts_with(Upserts::new(["k"]).deletes((lit(12) / (col("x") - lit(7))).gt(lit(10))))
    }));
    expect![[r#"node='look_up/features' split='record batch 0' row=2 reason='expression `Int32(12) / by` failed on {"by":0}: Divide by zero error' data='{"event_time":"1970-01-01T00:00:00.002","j":3,"by":0,"name":"c"}'"#]].assert_eq(&letters(&|rows| {
        let by = lit(12) / col("by");
        let look_up = LookUp::on_pairs(on()).deleted_where(by.clone().gt(lit(5)));
        rows.look_up(&names(rows), look_up.created(by))
    }));
    expect![[r#"node='assign_timestamps' split='record batch 0' row=3 reason='expression `CAST(Int32(12) / (x - Int32(7)) AS Int64)` failed on {"x":7}: Divide by zero error' data='{"at":"1970-01-01T00:00:00.004","k":1,"x":7}'"#]].assert_eq(&letters(&|rows| punctuated(rows, mark())));
}
