//! Panes that are taken back, joined with another collection that changes.

use expect_test::expect;

use super::*;
use crate::Collection;
use crate::ops::JoinKind;
use crate::testing::contents_at;

/// Takings of each shop in windows of 10, corrected, and with early results.
fn takings(pipeline: &Pipeline) -> Collection {
    let schema = changelog("shop: a; amount: 1; event_time: 1").schema();
    let windowing = fixed(10)
        .trigger(
            Trigger::after_watermark()
                .early(Trigger::after_count(1))
                .late(Trigger::after_count(1)),
        )
        .accumulation(Accumulation::AccumulatingAndRetracting)
        .allowed_lateness(ms(20));
    let sales = pipeline
        .read("sales", scripted_with(schema))
        .window(windowing);
    let takings = sales.group_by([col("shop")]);
    let takings = takings.agg([sum(col("amount")).alias("taken")]);
    takings.select([col("shop"), col("taken"), col("window_start"), col("diff")])
}

fn towns(pipeline: &Pipeline) -> Collection {
    let schema = changelog("id: a; town: x; event_time: 1").schema();
    pipeline
        .read("shops", scripted_with(schema))
        .upserts(["id"])
}

#[test]
fn panes_that_are_taken_back_are_joined_as_any_changes_once_windows_do_not_divide_them() {
    let pipeline = Pipeline::new("takings");
    let by_town = takings(&pipeline).window(Windowing::global()).join(
        &towns(&pipeline),
        JoinKind::Inner,
        [(col("shop"), col("id"))],
    );
    by_town.named("out").write(collect().0);
    let of_towns = by_town.group_by([col("town")]);
    let of_towns = of_towns.agg([sum(col("taken")).alias("taken")]);
    of_towns.named("towns").write(collect().0);
    let script = Script::new()
        .batch(
            "shops",
            0,
            changelog("id: a, b; town: x, y; event_time: 0, 0"),
        )
        .batch(
            "sales",
            0,
            changelog("shop: a, a, b; amount: 5, 1, 7; event_time: 1, 12, 2"),
        )
        .batch("sales", 1, changelog("shop: a; amount: 2; event_time: 3"))
        .restart(3)
        .watermark("sales", 10)
        .watermark("shops", 10)
        // Late: the pane of the first window is taken back, as of 10.
        .batch("sales", 0, changelog("shop: a; amount: 10; event_time: 4"))
        .restart(2)
        .batch("shops", 0, changelog("id: a; town: z; event_time: 11"))
        .watermark("sales", 20)
        .end("shops")
        .end("sales");
    for seed in 0..20 {
        let made = simulate(&pipeline, &script, 1 + seed as usize % 3, seed).unwrap();
        let out = made.rows("out");
        let at = |time| contents_at(&out, Some(time));
        expect![[r#"
            shop='a' taken=7 window_start=0 id='a' town='x'
            shop='b' taken=7 window_start=0 id='b' town='y'"#]]
        .assert_eq(&at(9));
        expect![[r#"
            shop='a' taken=17 window_start=0 id='a' town='x'
            shop='b' taken=7 window_start=0 id='b' town='y'"#]]
        .assert_eq(&at(10));
        expect![[r#"
            shop='a' taken=1 window_start=10 id='a' town='z'
            shop='a' taken=17 window_start=0 id='a' town='z'
            shop='b' taken=7 window_start=0 id='b' town='y'"#]]
        .assert_eq(&at(19));
        let towns = contents_at(&made.rows("towns"), None);
        assert_eq!(towns, "town='y' taken=7\ntown='z' taken=18");
    }
}

#[test]
fn a_join_of_results_of_windows_asks_whether_it_is_to_join_across_them() {
    let pipeline = Pipeline::new("takings");
    let on = [(col("shop"), col("id"))];
    let joined = takings(&pipeline).join(&towns(&pipeline), JoinKind::Inner, on);
    joined.named("out").write(collect().0);
    let error = pipeline.plan().unwrap_err();
    expect![[r#"
        join takes all rows together, but windows divide them
          in transform "join"
          The rows are divided into fixed windows size=10 ms, fires when the watermark passes its end, early after 1 row, late after 1 row, accumulating and retracting, lateness 20 ms.
          Hint: Put `.window(Windowing::global())` before it if that is what you want, where the windows of results stay in their columns; or use what works in windows: aggregates, `distinct`, `top_k`, or `join_windowed`."#]].assert_eq(&error.to_string());
}
