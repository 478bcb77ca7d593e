//! Joins in event time in whole pipelines: keys that are expressions, late rows, and what `explain` says.

use std::time::Duration;

use expect_test::expect;

use super::{AsOf, IntervalJoin, LookUp, WindowedJoin};
use crate::ops::{JoinKind, Upserts, Watermarks};
use crate::testing::{Script, scripted, show_rows, simulate};
use crate::windowing::{Sessions, Windowing};
use crate::{Collection, Pipeline, col, connectors, lit};

fn read(pipeline: &Pipeline, name: &str, columns: &str) -> Collection {
    let rows = pipeline.read(name, scripted(columns));
    rows.assign_timestamps(col("t"), Watermarks::monotone())
}

fn write(rows: &Collection, name: &str) {
    let (sink, _) = connectors::collect();
    rows.named(name).write(sink);
}

#[test]
fn keys_may_be_expressions_and_late_rows_have_the_columns_of_their_side() {
    let pipeline = Pipeline::new("rides");
    let rides = read(&pipeline, "rides", "t: 1; driver: 1; ride: 1");
    let stats = read(&pipeline, "stats", "t: 1; name: a; trips: 1");
    let keys = [(
        crate::expression::functions::string::expr_fn::concat(vec![
            lit("d"),
            crate::expression::cast(col("driver"), arrow::datatypes::DataType::Utf8),
        ]),
        col("name"),
    )];
    let stats = stats.select([col("name"), col("trips"), col("event_time")]);
    let joined = rides
        .named("known")
        .join_as_of(&stats, AsOf::on_pairs(keys));
    write(&joined, "out");
    write(&joined.port("late"), "late_rides");
    write(&joined.port("late_right"), "late_stats");
    let script = Script::new()
        .rows("stats", "t: 3, 8; name: d7, d7; trips: 30, 80")
        .rows("rides", "t: 5; driver: 7; ride: 1")
        .rows("rides", "t: 9; driver: 7; ride: 2")
        // The watermark is at 8 now.
        .rows("stats", "t: 4; name: d7; trips: 40")
        .rows("stats", "t: 9; name: d7; trips: 90")
        .rows("rides", "t: 10, 6; driver: 7, 7; ride: 3, 4")
        .end("rides")
        .end("stats");
    for seed in 0..20 {
        let made = simulate(&pipeline, &script, 1 + seed as usize % 4, seed).unwrap();
        expect![[r#"
            t=10 driver=7 ride=3 event_time=10 name='d7' trips=90
            t=5 driver=7 ride=1 event_time=5 name='d7' trips=30
            t=9 driver=7 ride=2 event_time=9 name='d7' trips=90"#]]
        .assert_eq(&show_rows(&made.rows("out")));
        expect!["name='d7' trips=40 event_time=4"].assert_eq(&show_rows(&made.rows("late_stats")));
        expect!["t=6 driver=7 ride=4 event_time=6"].assert_eq(&show_rows(&made.rows("late_rides")));
    }
}

/// A view and the order that follows, with what lies between them, however far that reaches.
#[test]
fn sessions_span_both_sides_on_any_number_of_workers() {
    let pipeline = Pipeline::new("visits");
    let windowing = Windowing::of(Sessions::with_gap(Duration::from_millis(10)));
    let views = read(&pipeline, "views", "t: 1; user: 1; page: a").window(windowing.clone());
    let orders = read(&pipeline, "orders", "t: 1; by: 1; item: x").select([
        col("by"),
        col("item"),
        col("event_time"),
    ]);
    let join = WindowedJoin::new(JoinKind::Left, [(col("user"), col("by"))]);
    let joined = views.join_windowed(&orders.window(windowing), join);
    write(
        &joined.select([col("user"), col("page"), col("item"), col("window_end")]),
        "out",
    );
    write(&joined.port("late_right"), "late_orders");
    let script = Script::new()
        .rows("views", "t: 1, 2; user: 1, 2; page: a, b")
        .rows("orders", "t: 9; by: 1; item: x")
        .restart(3)
        .rows("views", "t: 18, 19; user: 1, 3; page: c, d")
        .rows("orders", "t: 17; by: 1; item: y")
        // The watermark is at 17, and the session of 5 alone ends at 15.
        .rows("orders", "t: 5; by: 2; item: z")
        .restart(1)
        .rows("views", "t: 40; user: 1; page: e")
        .rows("orders", "t: 41; by: 1; item: u")
        .end("views")
        .end("orders");
    for seed in 0..12 {
        let made = simulate(&pipeline, &script, 1 + seed as usize % 4, seed).unwrap();
        expect![[r#"
            user=1 page='a' item='x' window_end=28
            user=1 page='a' item='y' window_end=28
            user=1 page='c' item='x' window_end=28
            user=1 page='c' item='y' window_end=28
            user=1 page='e' item='u' window_end=51
            user=2 page='b' item=null window_end=12
            user=3 page='d' item=null window_end=29"#]]
        .assert_eq(&show_rows(&made.rows("out")));
        let late = show_rows(&made.rows("late_orders"));
        assert_eq!(late, "by=2 item='z' event_time=5");
    }
}

/// At 10 the rate falls from 7 to 5, and at 20 it is taken away.
#[test]
fn a_table_may_be_a_changelog_and_has_what_it_holds_at_the_time_of_each_row() {
    let pipeline = Pipeline::new("rates");
    let orders = read(&pipeline, "orders", "t: 1; code: a; n: 1");
    let rates = read(&pipeline, "rates", "t: 1; code: a; price: 7");
    let versions = Upserts::new(["code"]).deletes(col("price").eq(lit(0i64)));
    let rates = rates
        .select([col("code"), col("price"), col("event_time")])
        .upserts_with(versions);
    let priced = orders.look_up(&rates, LookUp::on([col("code")]));
    write(&priced, "out");
    write(&priced.port("late"), "late");
    let script = Script::new()
        .rows("rates", "t: 1, 2; code: a, b; price: 7, 30")
        .rows("orders", "t: 0, 9, 10, 12; code: a, a, a, a; n: 0, 1, 2, 3")
        .rows("rates", "t: 10; code: a; price: 5")
        .restart(3)
        .rows("orders", "t: 15, 20, 25; code: a, a, b; n: 4, 5, 6")
        .rows("rates", "t: 20; code: a; price: 0")
        .restart(2)
        .rows("rates", "t: 21; code: a; price: 6")
        .rows("orders", "t: 26; code: a; n: 7")
        .end("rates")
        .end("orders");
    for seed in 0..20 {
        let made = simulate(&pipeline, &script, 1 + seed as usize % 3, seed).unwrap();
        expect![[r#"
            t=0 code='a' n=0 event_time=0 price=null
            t=10 code='a' n=2 event_time=10 price=5
            t=12 code='a' n=3 event_time=12 price=5
            t=15 code='a' n=4 event_time=15 price=5
            t=20 code='a' n=5 event_time=20 price=null
            t=25 code='b' n=6 event_time=25 price=30
            t=26 code='a' n=7 event_time=26 price=6
            t=9 code='a' n=1 event_time=9 price=7"#]]
        .assert_eq(&show_rows(&made.rows("out")));
        assert_eq!(show_rows(&made.rows("late")), "");
    }
}

#[test]
fn rows_that_are_looked_up_are_no_changes() {
    let pipeline = Pipeline::new("rates");
    let orders = read(&pipeline, "orders", "t: 1; code: a; n: 1").upserts(["n"]);
    let rates = read(&pipeline, "rates", "t: 1; code: a; price: 7");
    let rates = rates.select([col("code"), col("price"), col("event_time")]);
    write(&orders.look_up(&rates, LookUp::on([col("code")])), "out");
    let error = pipeline.plan().unwrap_err();
    expect![[r#"
        rows of look_up are a changelog
          in transform "look_up"
          A row that is taken back later would find another row than it did when it was added.
          Hint: Take its `changes()` for plain rows, or use `join`, which keeps what follows from changes of both sides."#]].assert_eq(&error.to_string());

    let pipeline = Pipeline::new("rates");
    let orders = read(&pipeline, "orders", "t: 1; code: a; n: 1");
    let rates = read(&pipeline, "rates", "t: 1; code: a; price: 7");
    let rates = rates.select([col("code"), col("price"), col("event_time")]);
    let as_of = AsOf::on([col("code")]);
    write(&orders.join_as_of(&rates.upserts(["code"]), as_of), "out");
    let error = pipeline.plan().unwrap_err();
    expect![[r#"
        features are a changelog
          in transform "as_of_join"
          Column "diff" says which rows are taken back, and a feature never is.
          Hint: Look rows up in a changing table with `look_up`."#]]
    .assert_eq(&error.to_string());
}

#[test]
fn a_port_that_is_not_there_is_a_mistake() {
    let pipeline = Pipeline::new("rides");
    let rides = read(&pipeline, "rides", "t: 1; k: 1");
    write(&rides.port("late"), "out");
    let error = pipeline.plan().unwrap_err();
    expect![[r#"
        "assign_timestamps" has no port "late"
          Its ports are ["out"]."#]]
    .assert_eq(&error.to_string());
}

#[test]
fn explain_says_what_is_kept_and_until_when() {
    let pipeline = Pipeline::new("joins");
    let left = read(&pipeline, "left", "t: 1; k: 1; a: 1");
    let right = read(&pipeline, "right", "t: 1; k: 1; b: 1");
    let right = right.select([col("k"), col("b"), col("event_time")]);
    let minute = Duration::from_secs(60);
    write(
        &left.join_as_of(&right, AsOf::on([col("k")]).ttl(minute)),
        "a",
    );
    write(&left.look_up(&right, LookUp::on([col("k")])), "b");
    let near = IntervalJoin::new(JoinKind::Left, [(col("k"), col("k"))]).after(minute);
    write(&left.join_interval(&right, near), "c");
    let explained = pipeline.plan().unwrap().explain();
    let first = explained.find("  transform as_of_join").unwrap();
    expect![[r#"
        joins
          transform as_of_join [as_of_join] <- assign_timestamps, select
                      on=["k"], ttl_ms=60000, keeps rows until the watermark passes them,
                        and the newest right one of each key until it is older than the ttl
          write     a [collect] <- as_of_join:out
          transform look_up [look_up] <- assign_timestamps, select
                      on=["k"], keeps rows until the watermark passes them,
                        and the newest right one of each key
          write     b [collect] <- look_up:out
          transform interval_join [interval_join] <- assign_timestamps, select
                      after_ms=60000, before_ms=0, kind=left, on=["k"],
                        keeps rows until the watermark is past the interval in which they match
          write     c [collect] <- interval_join:out
    "#]]
    .assert_eq(&format!("joins\n{}", &explained[first..]));
    let windowed = WindowedJoin::new(JoinKind::Inner, [(col("k"), col("k"))]);
    write(&left.join_windowed(&right, windowed), "d");
    let error = pipeline.plan().unwrap_err();
    expect![[r#"
        a windowed join needs windows that end
          in transform "windowed_join"
          All rows are in one window, which ends with the input.
          Hint: Divide both sides with `window`, or use `join` or `join_interval`."#]]
    .assert_eq(&error.to_string());
}

#[test]
fn sources_read_of_late_rows_what_is_read_behind_them() {
    let scans = |join: fn(&Collection, &Collection) -> Collection| {
        let pipeline = Pipeline::new("joins");
        let left = read(&pipeline, "left", "t: 1; k: 1; a: 1; x: 1; z: 1");
        let right = pipeline.read("right", scripted("s: 1; k: 1; b: 1; y: 1; w: 1"));
        let right = right.assign_timestamps(col("s"), Watermarks::monotone());
        let joined = join(&left, &right);
        write(&joined.select([col("a"), col("b")]), "out");
        write(&joined.port("late").select([col("x")]), "late");
        write(&joined.port("late_right").select([col("y")]), "late_right");
        let explained = pipeline.plan().unwrap().explain();
        let scans = explained.lines().filter(|line| line.contains("scan"));
        scans.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    fn on() -> [(crate::Expr, crate::Expr); 1] {
        [(col("k"), col("k"))]
    }
    let all = [
        scans(|left, right| left.join_as_of(right, AsOf::on([col("k")]))),
        scans(|left, right| left.join_interval(right, IntervalJoin::new(JoinKind::Inner, on()))),
        scans(|left, right| {
            let windowing = Windowing::of(Sessions::with_gap(Duration::from_millis(10)));
            let right = right.window(windowing.clone());
            let join = WindowedJoin::new(JoinKind::Inner, on());
            left.window(windowing).join_windowed(&right, join)
        }),
    ];
    for scans in &all {
        assert_eq!(
            scans,
            &[
                "scan      left [scripted], columns 4 of 5: t, k, a, x",
                "scan      right [scripted], columns 4 of 5: s, k, b, y",
            ]
        );
    }
}
