//! Tests of consolidation.

use expect_test::expect;

use crate::connectors::{collect, from_record_batches};
use crate::testing::{Script, changelog, contents_at, scripted_with, show, show_rows, simulate};
use crate::{Pipeline, RunOptions};

#[test]
fn changes_that_cancel_each_other_do_not_leave() {
    let pipeline = Pipeline::new("test");
    let rows = changelog("a: x, y, x, z, y, z; diff: 1, 1, -1, 1, 1, -1");
    let (sink, made) = collect();
    let rows = pipeline.read("rows", from_record_batches(vec![rows]));
    rows.consolidate().write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    let made: Vec<String> = made.take().iter().map(show).collect();
    assert_eq!(made, ["a: 'y', 'y'\ndiff: 1, 1"]);
}

#[test]
fn each_instant_is_consolidated_alone_and_late_changes_at_the_watermark() {
    let rows = changelog("a: x, x, y, x; event_time: 1, 1, 2, 3; diff: 1, -1, 1, 1");
    let late = changelog("a: y; event_time: 0; diff: -1");
    let pipeline = Pipeline::new("test");
    let (sink, _) = collect();
    let source = pipeline.read("rows", scripted_with(rows.schema()));
    source.named("net").consolidate().named("out").write(sink);
    let script = Script::new()
        .batch("rows", 0, rows)
        .watermark("rows", 3)
        .restart(2)
        .batch("rows", 0, late)
        .end("rows");
    let made = simulate(&pipeline, &script, 1, 5).unwrap();
    expect![[r#"
        a='x' event_time=3 diff=1
        a='y' event_time=2 diff=1
        a='y' event_time=3 diff=-1"#]]
    .assert_eq(&show_rows(&made.rows("out")));
    assert_eq!(contents_at(&made.rows("out"), None), "a='x'");
}
