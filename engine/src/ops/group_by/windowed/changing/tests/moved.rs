//! Rows that move from window to window, as those of `upserts` do.

use expect_test::{Expect, expect};

use super::{correcting, fixed, ms};
use crate::aggregates::*;
use crate::connectors::{collect, from_record_batches};
use crate::error::Result;
use crate::expression::{col, lit};
use crate::ops::{AsChangelog, JoinKind, Upserts, Watermarks};
use crate::output::OnBadRow;
use crate::testing::{Script, changelog, scripted, scripted_with, show_rows, simulate};
use crate::windowing::{Accumulation, FixedWindows, Sessions, Windowing};
use crate::{Collection, Expr, Pipeline};

/// Three rows of two windows, the first of which then moves to the second.
fn moves() -> Script {
    Script::new()
        .batch(
            "rows",
            0,
            changelog("id: 1, 2, 3; k: a, a, a; at: 5, 6, 16; event_time: 5, 6, 16"),
        )
        .watermark("rows", 8)
        .batch("rows", 0, changelog("id: 1; k: a; at: 15; event_time: 15"))
        .end("rows")
}

fn by_row_time(windowing: Windowing) -> Windowing {
    windowing.row_time(col("at"))
}

/// What is made of rows of which each replaces that of its `id`.
fn run(script: Script, make: impl FnOnce(&Collection) -> Collection) -> Result<String> {
    let pipeline = Pipeline::new("test");
    let schema = changelog("id: 1; k: a; at: 1; event_time: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema));
    make(&rows.upserts_with(Upserts::new(["id"])))
        .named("out")
        .write(collect().0);
    Ok(show_rows(&simulate(&pipeline, &script, 2, 7)?.rows("out")))
}

fn counted(rows: &Collection) -> Collection {
    let counted = rows.group_by([col("k")]).agg([count(lit(1)).alias("n")]);
    let columns = ["k", "n", "window_start", "window_end", "diff"];
    counted.select(columns.map(col))
}

#[test]
fn a_row_is_taken_back_in_the_window_in_which_it_was() {
    let of = |windowing| {
        run(moves(), |rows| {
            counted(&rows.window(by_row_time(windowing)))
        })
    };
    expect![[r#"
        k='a' n=1 window_start=0 window_end=10 diff=1 event_time=9
        k='a' n=2 window_start=0 window_end=10 diff=-1 event_time=9
        k='a' n=2 window_start=0 window_end=10 diff=1 event_time=9
        k='a' n=2 window_start=10 window_end=20 diff=1 event_time=19"#]]
    .assert_eq(&of(correcting(fixed(10), 20)).unwrap());
    // Without lateness the window is over when the row moves: it holds what was there then.
    expect![[r#"
        k='a' n=2 window_start=0 window_end=10 diff=1 event_time=9
        k='a' n=2 window_start=10 window_end=20 diff=1 event_time=19"#]]
    .assert_eq(&of(fixed(10)).unwrap());
    // The change takes effect at 15, when the first window is over, or is not.
    for (lateness, n_rows) in [(5, 2), (6, 4)] {
        let made = of(correcting(fixed(10), lateness)).unwrap();
        assert_eq!(made.lines().count(), n_rows, "{lateness}: {made}");
    }
}

#[test]
fn what_takes_effect_when_its_window_is_over_leaves_as_late() {
    let pipeline = Pipeline::new("test");
    let schema = changelog("id: 1; k: a; at: 1; event_time: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema));
    let there = rows.upserts(["id"]).window(by_row_time(fixed(10)));
    let (made, late) = there
        .group_by([col("k")])
        .agg_with_late([count(lit(1)).alias("n")]);
    made.named("out").write(collect().0);
    late.named("late").write(collect().0);
    let made = simulate(&pipeline, &moves(), 3, 1).unwrap();
    expect!["id=1 k='a' at=5 event_time=15 diff=-1"].assert_eq(&show_rows(&made.rows("late")));
}

#[test]
fn distinct_rows_first_rows_and_sessions_are_of_the_rows_that_are_there() {
    let windowing = || by_row_time(correcting(fixed(10), 20));
    let of = |make: &dyn Fn(&Collection) -> Collection| run(moves(), |rows| make(rows)).unwrap();
    let distinct = |rows: &Collection| {
        let distinct = rows.window(windowing()).distinct();
        distinct.select(["id", "at", "window_start", "diff"].map(col))
    };
    expect![[r#"
        id=1 at=15 window_start=10 diff=1 event_time=19
        id=1 at=5 window_start=0 diff=-1 event_time=9
        id=1 at=5 window_start=0 diff=1 event_time=9
        id=2 at=6 window_start=0 diff=1 event_time=9
        id=3 at=16 window_start=10 diff=1 event_time=19"#]]
    .assert_eq(&of(&distinct));
    let first = |rows: &Collection| {
        let windowed = rows.window(windowing()).group_by([col("k")]);
        let first = windowed.top_k(1, [col("at").sort(true, true)]);
        first.select(["id", "at", "window_start", "diff"].map(col))
    };
    expect![[r#"
        id=1 at=15 window_start=10 diff=1 event_time=19
        id=1 at=5 window_start=0 diff=-1 event_time=9
        id=1 at=5 window_start=0 diff=1 event_time=9
        id=2 at=6 window_start=0 diff=1 event_time=9"#]]
    .assert_eq(&of(&first));
    // From 5 on until the gap is over.
    let sessions = |rows: &Collection| {
        let sessions = Windowing::of(Sessions::with_gap(ms(4)));
        counted(&rows.window(by_row_time(correcting(sessions, 20))))
    };
    expect![[r#"
        k='a' n=1 window_start=6 window_end=10 diff=1 event_time=9
        k='a' n=2 window_start=15 window_end=20 diff=1 event_time=19
        k='a' n=2 window_start=5 window_end=10 diff=-1 event_time=9
        k='a' n=2 window_start=5 window_end=10 diff=1 event_time=9"#]]
    .assert_eq(&of(&sessions));
}

#[test]
fn rows_without_a_time_are_bad_when_they_come_and_when_they_go() {
    let script = Script::new()
        .batch(
            "rows",
            0,
            changelog("id: 1, 2, 3; k: a, a, a; at: 5, null, 6; event_time: 5, 5, 6"),
        )
        .batch("rows", 0, changelog("id: 2; k: a; at: 7; event_time: 7"))
        .end("rows");
    let pipeline = Pipeline::new("test");
    let schema = changelog("id: 1; k: a; at: 1; event_time: 1").schema();
    let rows = pipeline.read("rows", scripted_with(schema));
    let there = rows.upserts(["id"]).window(by_row_time(fixed(10)));
    let made = there
        .group_by([col("k")])
        .agg([count(lit(1)).alias("n")])
        .on_bad_row(OnBadRow::DeadLetter);
    made.dead_letters().named("bad").write(collect().0);
    made.named("out").write(collect().0);
    let made = simulate(&pipeline, &script, 1, 1).unwrap();
    expect!["k='a' n=3 window_start=0 window_end=10 event_time=9 diff=1"]
        .assert_eq(&show_rows(&made.rows("out")));
    expect![[r#"
        node='group_by/partial' split='rows in memory' row=0 reason='event time `at` is null' data='{"id":2,"k":"a","event_time":"1970-01-01T00:00:00.005","diff":1}'
        node='group_by/partial' split='rows in memory' row=0 reason='event time `at` is null' data='{"id":2,"k":"a","event_time":"1970-01-01T00:00:00.007","diff":-1}'"#]].assert_eq(&show_rows(&made.rows("bad")));
}

fn refused(make: impl FnOnce(&Collection) -> Collection) -> String {
    run(Script::new(), make).unwrap_err().to_string()
}

fn check_refused(make: impl FnOnce(&Collection) -> Collection, expected: Expect) {
    expected.assert_eq(&refused(make));
}

#[test]
fn windows_of_changes_that_have_the_time_of_their_effect_are_refused() {
    check_refused(
        |rows| counted(&rows.window(fixed(10))),
        expect![[r#"
        windows would deal the changes of "upserts" by when they take effect
          in transform "group_by/partial"
          A row that is taken back has the event time at which it is no longer there, which may be in a window in which the row never was.
          Hint: Say with `Windowing::row_time(col("…"))` which column says when a row was, such as that from which its event time was assigned; or aggregate without windows, which says at each instant what is there."#]],
    );
    let of = |make: &dyn Fn(&Collection) -> Collection| {
        let text = refused(|rows| make(rows));
        text.lines().next().unwrap_or_default().to_owned()
    };
    let windowed = |rows: &Collection| counted(&rows.window(fixed(10)));
    let total = |rows: &Collection| {
        let total = rows.group_by([col("k")]).agg([count(lit(1)).alias("id")]);
        total.named("total")
    };
    let made: Vec<String> = vec![
        // Whatever is asked of windows, and whatever carries changes there.
        of(&|rows| rows.window(fixed(10)).distinct()),
        of(&|rows| {
            rows.window(fixed(10))
                .top_k(1, [col("at").sort(true, true)])
        }),
        of(&|rows| windowed(&rows.filter(col("id").gt(lit(1))).select([col("k")]))),
        of(&|rows| windowed(&rows.union(&[rows.filter(col("id").gt(lit(1)))]))),
        // Other nodes whose changes take effect one after the other.
        of(&|rows| windowed(&total(rows))),
        of(&|rows| windowed(&rows.consolidate())),
        of(&|rows| windowed(&rows.in_rounds(ms(5)))),
        of(&|rows| windowed(&rows.distinct())),
        of(&|rows| {
            let on = || [(col("id"), col("id"))];
            windowed(&rows.join(rows, JoinKind::LeftSemi, on()))
        }),
        of(&|rows| windowed(&rows.changes().apply(AsChangelog::by("change")))),
        of(&|rows| {
            let changes = changelog("id: 1; k: a; event_time: 1; diff: 1");
            let read = rows
                .pipeline()
                .read("changes", from_record_batches(vec![changes]));
            windowed(&read)
        }),
    ];
    expect![[r#"
        windows would deal the changes of "upserts" by when they take effect
        windows would deal the changes of "upserts" by when they take effect
        windows would deal the changes of "upserts" by when they take effect
        windows would deal the changes of "upserts" by when they take effect
        windows would deal the changes of "group_by" by when they take effect
        windows would deal the changes of "consolidate" by when they take effect
        windows would deal the changes of "rounds" by when they take effect
        windows would deal the changes of "distinct" by when they take effect
        windows would deal the changes of "join" by when they take effect
        windows would deal the changes of "as_changelog" by when they take effect
        windows would deal the changes of "changes" by when they take effect"#]]
    .assert_eq(&made.join("\n"));
}

#[test]
fn changes_that_have_the_time_of_their_rows_are_taken() {
    let sums = |rows: &Collection| {
        let rows = rows
            .changes()
            .select(["id", "k", "at", "event_time"].map(col));
        let sums = rows.window(correcting(fixed(5), 10)).group_by([col("k")]);
        sums.agg([count(lit(1)).alias("id")])
    };
    let windowed = |rows: &Collection| {
        let rows = rows.filter(col("id").gt(lit(0))).select([col("k")]);
        counted(&rows.window(fixed(10)))
    };
    assert!(run(moves(), |rows| windowed(&sums(rows))).is_ok());
    // Nothing is taken back of rows that are only added.
    let added = |rows: &Collection| {
        let rows = rows.changes();
        windowed(
            &rows
                .select(["id", "k", "event_time"].map(col))
                .as_changelog(),
        )
    };
    assert!(run(moves(), added).is_ok());
    // All of time is one window.
    let all = Windowing::global().allowed_lateness(ms(1));
    let all = all.accumulation(crate::windowing::Accumulation::AccumulatingAndRetracting);
    let made = run(moves(), |rows| counted(&rows.window(all)));
    assert!(made.unwrap().contains("n=3"));
}

#[test]
fn a_row_time_that_does_not_fit_is_refused() {
    let of = |time: Expr| refused(move |rows| counted(&rows.window(fixed(10).row_time(time))));
    let made = [of(col("when")), of(col("k")), of(col("event_time"))];
    expect![[r#"
        column "when" is not there
          in transform "group_by/partial"
          The columns are "id", "k", "at", "event_time", "diff".

        event time `k` must be a timestamp, a date or an Int64 of milliseconds, found Utf8
          in transform "group_by/partial"
          Hint: Convert it, for example with `to_timestamp_millis`.

        `event_time` reads column "event_time" of a changelog
          in transform "group_by/partial"
          It is another when the same row is taken back, which would then be a row that was never added.
          Hint: Copy it to another name before the rows become changes, or take `changes()` first, where "diff" is a column like any other."#]].assert_eq(&made.join("\n\n"));
    // Rows that are no changes have but one time.
    check_refused(
        |rows| {
            let rows = rows.changes().window(by_row_time(fixed(10)));
            rows.group_by([col("k")]).agg([count(lit(1)).alias("n")])
        },
        expect![[r#"
            windows have the row time `at`, but the rows are no changes
              in transform "group_by/partial"
              Rows that are no changes are in the windows of their event time.
              Hint: Give them this time with `assign_timestamps`; of changes, put `window` behind what makes them, such as `upserts`."#]],
    );
    let windowing = by_row_time(Windowing::of(FixedWindows::of(ms(10))));
    assert_eq!(
        windowing.to_string(),
        "fixed windows size=10 ms of the row time at"
    );
    assert!(windowing.continuation().row_time.is_none());
}

/// Changes wait until they take effect, which no window says.
#[test]
fn a_plan_says_that_changes_are_kept_until_they_take_effect() {
    let plan = |lateness| {
        let pipeline = Pipeline::new("moved");
        let windowing = Windowing::of(FixedWindows::of(ms(10)))
            .row_time(col("at"))
            .accumulation(Accumulation::AccumulatingAndRetracting)
            .allowed_lateness(ms(lateness));
        pipeline
            .read("rows", scripted("id: 0; at: 0"))
            .assign_timestamps(col("at"), Watermarks::monotone())
            .upserts(["id"])
            .window(windowing)
            .group_by([])
            .agg([count(lit(1)).alias("n")])
            .changes()
            .write(collect().0);
        let text = pipeline.plan().unwrap().explain();
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ")
    };
    let kept = "keeps changes until the watermark passes when they take effect, and state until it passes a window's end";
    for (lateness, then) in [
        (0, " transform changes"),
        (5, " by the lateness transform changes"),
    ] {
        let text = plan(lateness);
        assert!(text.contains(&format!("{kept}{then}")), "{text}");
    }
}
