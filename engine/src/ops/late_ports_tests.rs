//! What leaves too late has all its columns, whatever else is read of the rows.

use std::time::Duration;

use crate::aggregates::count;
use crate::connectors::{collect, from_record_batches};
use crate::ops::keyed::{Declared, KeyRows, KeyedTransform, Scope};
use crate::ops::{IntervalJoin, JoinKind, SideInput, Watermarks, WindowedJoin};
use crate::pipeline::{Collection, Pipeline};
use crate::runner::RunOptions;
use crate::testing::{show_rows, table};
use crate::windowing::Windowing;
use crate::{col, lit};

/// What nobody reads but the sink of late rows is `j`.
fn rows(pipeline: &Pipeline, name: &str) -> Collection {
    // The last row comes when the window of the first is over: so many are read before that the watermark has moved.
    let mut batches = vec![table("k: 1, 2; j: 7, 8; t: 0, 100")];
    batches.extend((0..20).map(|n| table(&format!("k: 3; j: 8; t: {}", 200 + n))));
    batches.push(table("k: 1; j: 9; t: 5"));
    pipeline
        .read(name, from_record_batches(batches))
        .assign_timestamps(col("t"), Watermarks::monotone().splits_in_order(true))
        .window(Windowing::fixed(Duration::from_millis(10)))
}

/// The late rows of what `made` makes of rows; of the others one column is written.
fn late(made: impl Fn(&Pipeline) -> (Collection, Collection)) -> String {
    let pipeline = Pipeline::new("late");
    let (others, late) = made(&pipeline);
    others.select([col("k")]).write(collect().0);
    let (sink, found) = collect();
    late.write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    show_rows(&found.take())
}

const LATE: &str = "k=1 j=9 t=5 event_time=5";

#[test]
fn of_aggregates_and_first_rows() {
    let counted = |p: &Pipeline| {
        rows(p, "rows")
            .group_by([col("k")])
            .agg_with_late([count(lit(1))])
    };
    assert_eq!(late(counted), LATE);
    // Others may read some of the late rows, and of other nodes behind them.
    let read_twice = |p: &Pipeline| {
        let (counted, late) = counted(p);
        late.select([col("k")]).write(collect().0);
        (counted, late.filter(col("k").eq(lit(1))))
    };
    assert_eq!(late(read_twice), LATE);
    assert_eq!(late(|p| rows(p, "rows").distinct_with_late()), LATE);
    assert_eq!(
        late(|p| rows(p, "rows").top_k_with_late(1, [col("t").sort(true, true)])),
        LATE
    );
}

#[test]
fn of_joins() {
    let both = |p: &Pipeline| {
        let right = rows(p, "right").select([
            col("k").alias("key"),
            col("j").alias("other"),
            col("t").alias("at"),
            col("event_time"),
        ]);
        (
            rows(p, "left"),
            right.window(Windowing::fixed(Duration::from_millis(10))),
        )
    };
    let on = || [(col("k"), col("key"))];
    for port in ["late", "late_right"] {
        let expected = match port {
            "late" => LATE,
            _ => "key=1 other=9 at=5 event_time=5",
        };
        let windowed = late(|p| {
            let (left, right) = both(p);
            let joined = left.join_windowed(&right, WindowedJoin::new(JoinKind::Inner, on()));
            (joined.clone(), joined.port(port))
        });
        assert_eq!(windowed, expected);
        let interval = late(|p| {
            let (left, right) = both(p);
            let join = IntervalJoin::new(JoinKind::Inner, on()).after(Duration::from_millis(2));
            let joined = left.join_interval(&right, join);
            (joined.clone(), joined.port(port))
        });
        assert_eq!(interval, expected);
    }
}

#[derive(Debug)]
struct Nothing;

impl KeyedTransform for Nothing {
    fn declare(&self, _rows: &arrow::datatypes::SchemaRef) -> crate::Result<Declared> {
        Ok(Declared::rows())
    }

    fn on_rows(&self, _key: &mut Scope<'_>, _rows: &KeyRows<'_>) -> crate::Result<()> {
        Ok(())
    }
}

#[test]
fn of_keyed_transforms_and_side_inputs() {
    let processed = |p: &Pipeline| {
        let processed = rows(p, "rows").group_by([col("k")]).process(Nothing);
        (processed.clone(), processed.port("late"))
    };
    assert_eq!(late(processed), LATE);
    let of_side = |p: &Pipeline| {
        let side = rows(p, "side");
        let list = SideInput::list("ks", col("k")).in_step();
        let seen = rows(p, "rows").with_side_input(&side, list);
        (seen.clone(), seen.port("late_side"))
    };
    assert_eq!(late(of_side), LATE);
}
