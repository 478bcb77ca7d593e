//! The laws of stateful operators, kept by both halves together.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};

use super::{aggregates, correcting, fixed, ms};
use crate::Expr;
use crate::aggregates::{AggregateExt, array_agg, min, sum};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::diff_field;
use crate::error::Result;
use crate::expression::col;
use crate::ops::group_by::windowed::tests::driver::Driver;
use crate::ops::group_by::windowed::{Asked, WindowedFinalAggregate, WindowedPartialAggregate};
use crate::output::Output;
use crate::state::StatePart;
use crate::testing::{Laws, changelog, check_operator, table};
use crate::transform::{Description, Operator, Properties, Transform, Watermark};
use crate::windowing::{Sessions, SlidingWindows, TimestampCombiner, Trigger, Windowing};

const COLUMNS: &str = "k: a, b, c; x: 1, 2, 3, null; at: 1, 5, 14, 40; event_time: 0";

/// Makes of each row a change that adds it, and two more that add another and take it back; and aggregates them.
/// Or aggregates the rows as they are.
#[derive(Debug)]
struct Both {
    makes_changes: bool,
    partial: WindowedPartialAggregate,
    finish: WindowedFinalAggregate,
}

impl Both {
    fn of(windowing: &Windowing) -> Self {
        let keys = vec![col("k")];
        let outputs = aggregates();
        Self::asking(windowing, Asked::Aggregates { keys, outputs })
    }

    fn asking(windowing: &Windowing, asked: Asked) -> Self {
        let schema = changes_of(&table("k: a; x: 1; at: 1; event_time: 0"))
            .unwrap()
            .schema();
        let (_, partial, finish) = Driver::halves(windowing, asked, &schema).unwrap();
        Self {
            makes_changes: true,
            partial,
            finish,
        }
    }

    fn of_rows(windowing: &Windowing) -> Self {
        Self::of_rows_by(windowing, aggregates())
    }

    fn of_rows_by(windowing: &Windowing, outputs: Vec<Expr>) -> Self {
        let asked = Asked::Aggregates {
            keys: vec![col("k")],
            outputs,
        };
        let schema = table("k: a; x: 1; at: 1; event_time: 0").schema();
        let (_, partial, finish) = Driver::halves(windowing, asked, &schema).unwrap();
        Self {
            makes_changes: false,
            partial,
            finish,
        }
    }
}

fn changes_of(rows: &RecordBatch) -> Result<RecordBatch> {
    let n_rows = u32::try_from(rows.num_rows()).unwrap();
    let places = (0..n_rows).flat_map(|row| [row; 3]);
    let rows = take_record_batch(rows, &UInt32Array::from_iter_values(places))?;
    let x = cast(&rows["x"], &DataType::Int64)?;
    let x = x.as_any().downcast_ref::<Int64Array>().unwrap().iter();
    let x: Int64Array = x
        .enumerate()
        .map(|(n, x)| if n % 3 == 0 { x } else { Some(50) })
        .collect();
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    columns[rows.schema().index_of("x")?] = Arc::new(x) as ArrayRef;
    fields.push(diff_field());
    let diffs = (0..rows.num_rows()).map(|n| if n % 3 == 2 { -1 } else { 1 });
    columns.push(Arc::new(Int8Array::from_iter_values(diffs)));
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}

impl Transform for Both {
    fn describe(&self) -> Description {
        self.finish.describe()
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        self.finish.output_schema(inputs)
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(BothOperator {
            makes_changes: self.makes_changes,
            halves: [
                self.partial.build(artifacts)?,
                self.finish.build(artifacts)?,
            ],
        }))
    }

    fn properties(&self) -> Properties {
        self.finish.properties()
    }
}

struct BothOperator {
    makes_changes: bool,
    halves: [Box<dyn Operator>; 2],
}

impl BothOperator {
    /// What the first half has made comes to the second.
    fn pass_on(&mut self, mut between: Output, out: &mut Output) -> Result<()> {
        out.late(between.take_late());
        for (_, batch) in between.take().into_iter().filter(|(port, _)| *port == 0) {
            self.halves[1].on_batch(0, batch, out)?;
        }
        Ok(())
    }
}

impl Operator for BothOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = match self.makes_changes {
            true => changes_of(batch.rows())?,
            false => batch.rows().clone(),
        };
        let mut between = Output::default();
        self.halves[0].on_batch(0, batch.derive(rows), &mut between)?;
        self.pass_on(between, out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        let mut between = Output::default();
        self.halves[0].on_watermark(watermark, &mut between)?;
        let behind = self.halves[0].output_watermark(watermark);
        self.pass_on(between, out)?;
        self.halves[1].on_watermark(behind, out)
    }

    fn wakes_at(&self) -> Option<i64> {
        self.halves[1].wakes_at()
    }

    fn on_processing_time(&mut self, out: &mut Output) -> Result<()> {
        self.halves[1].on_processing_time(out)
    }

    fn output_watermark(&self, input: Watermark) -> Watermark {
        let halves = self.halves.iter();
        halves.fold(input, |at, half| half.output_watermark(at))
    }

    fn state_bytes(&self) -> u64 {
        self.halves.iter().map(|half| half.state_bytes()).sum()
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let mut parts = Vec::new();
        for (n, half) in self.halves.iter_mut().enumerate() {
            parts.extend(half.snapshot()?.into_iter().map(|part| StatePart {
                table: format!("{n}{}", part.table),
                ..part
            }));
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        for (n, half) in self.halves.iter_mut().enumerate() {
            let of = |part: &StatePart| {
                let table = part.table.strip_prefix(&n.to_string())?.to_owned();
                Some(StatePart {
                    table,
                    ..part.clone()
                })
            };
            half.restore(&state.iter().filter_map(of).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

#[test]
fn the_laws_of_stateful_operators_are_kept() {
    // Corrections stand at the end of their window, which the watermark has passed.
    // How often a result is corrected depends on which changes come together.
    let late = Laws::new()
        .on_time(false)
        .any_split(false)
        .any_dealing(false);
    check_operator(Both::of(&fixed(10)), &[COLUMNS], &Laws::new());
    check_operator(
        Both::of(&correcting(fixed(10), 25)),
        &[COLUMNS],
        &late.clone(),
    );
    let sessions = Windowing::of(Sessions::with_gap(ms(4)));
    check_operator(Both::of(&sessions), &[COLUMNS], &Laws::new());
    check_operator(Both::of(&correcting(sessions, 25)), &[COLUMNS], &late);
    let sliding = Windowing::of(SlidingWindows::of(ms(20)).every(ms(6)));
    check_operator(Both::of(&sliding), &[COLUMNS], &Laws::new());
    let early = Trigger::after_watermark().early(Trigger::always());
    let early = correcting(fixed(10), 0).trigger(early);
    check_operator(Both::of(&early), &[COLUMNS], &late);
}

#[test]
fn the_laws_of_stateful_operators_are_kept_by_aggregates_of_rows() {
    let sessions = Windowing::of(Sessions::with_gap(ms(4)));
    let sliding = Windowing::of(SlidingWindows::of(ms(20)).every(ms(6)));
    let laws = Laws::new().runs(5);
    for windowing in [fixed(10), sliding.clone(), sessions.clone()] {
        check_operator(Both::of_rows(&windowing), &[COLUMNS], &laws);
        for combiner in [TimestampCombiner::Earliest, TimestampCombiner::Latest] {
            let at = windowing.clone().timestamp_combiner(combiner);
            check_operator(Both::of_rows(&at), &[COLUMNS], &laws);
            check_operator(Both::of_rows_by(&at, lists()), &[COLUMNS], &laws);
        }
        check_operator(Both::of_rows_by(&windowing, lists()), &[COLUMNS], &laws);
    }
    // How often a window fires depends on which rows come together, and what is late has the time of its window.
    let late = laws.on_time(false).any_split(false).any_dealing(false);
    let early = Trigger::after_watermark()
        .early(Trigger::after_count(2))
        .late(Trigger::after_processing_time(ms(15)).repeatedly());
    for windowing in [fixed(10), sliding, sessions] {
        let windowing = correcting(windowing, 25);
        check_operator(Both::of_rows(&windowing), &[COLUMNS], &late);
        check_operator(Both::of_rows_by(&windowing, lists()), &[COLUMNS], &late);
        let windowing = windowing.trigger(early.clone());
        check_operator(Both::of_rows(&windowing), &[COLUMNS], &late);
        for combiner in [TimestampCombiner::Earliest, TimestampCombiner::Latest] {
            let at = windowing.clone().timestamp_combiner(combiner);
            check_operator(Both::of_rows_by(&at, lists()), &[COLUMNS], &late);
        }
    }
}

/// So many groups and so long lists that what is kept of them is far more than room for a few.
#[test]
fn halves_let_go_of_what_was_much() {
    let column = |of: fn(i64) -> i64| {
        let values: Vec<String> = (0..20_000).map(|n| of(n).to_string()).collect();
        values.join(", ")
    };
    let (times, keys, values) = (column(|n| n / 1_000), column(|n| n % 5_000), column(|n| n));
    let rows = changelog(&format!("event_time: {times}; k: {keys}; x: {values}"));
    let sessions = Windowing::of(Sessions::with_gap(ms(4)));
    let sliding = Windowing::of(SlidingWindows::of(ms(20)).every(ms(6)));
    for windowing in [fixed(10), sliding, sessions] {
        for windowing in [windowing.clone(), correcting(windowing, 5)] {
            for combiner in [TimestampCombiner::EndOfWindow, TimestampCombiner::Earliest] {
                let windowing = windowing.clone().timestamp_combiner(combiner);
                let outputs = [lists(), vec![sum(col("x")).alias("sum")]].concat();
                let schema = rows.schema();
                let mut driver = Driver::over(&schema, &windowing, 2, &["k"], outputs).unwrap();
                for (worker, start) in [(0, 0), (1, 10_000)] {
                    driver.rows(worker, &rows.slice(start, 10_000));
                }
                let most = driver.state_bytes();
                driver.watermark(100);
                let over = driver.state_bytes();
                driver.end();
                let left = driver.state_bytes();
                assert!(most > 1 << 20, "{most} bytes");
                assert!(over <= most / 4, "{over} bytes of {most}, {windowing:?}");
                assert!(
                    left <= 2 << 14,
                    "{left} bytes of {most} at the end, {windowing:?}"
                );
            }
        }
    }
}

fn lists() -> Vec<Expr> {
    let all = array_agg(col("x"))
        .order_by(vec![col("x").sort(true, true)])
        .build();
    vec![all.unwrap().alias("all"), min(col("x")).alias("least")]
}

#[test]
fn the_laws_of_stateful_operators_are_kept_where_rows_have_a_time_of_their_own() {
    let sessions = Windowing::of(Sessions::with_gap(ms(4)));
    // A row that comes late may be the earliest, and then its result is late too.
    let of_a_row = Laws::new().on_time(false);
    for (windowing, combiner) in [
        (fixed(10), TimestampCombiner::Latest),
        (sessions, TimestampCombiner::Earliest),
    ] {
        let by_row_time = windowing.clone().row_time(col("at"));
        check_operator(Both::of(&by_row_time), &[COLUMNS], &Laws::new());
        for windowing in [windowing, by_row_time] {
            let at = windowing.timestamp_combiner(combiner);
            check_operator(Both::of(&at), &[COLUMNS], &of_a_row);
        }
    }
}

#[test]
fn the_laws_of_stateful_operators_are_kept_by_distinct_and_first_rows() {
    let first = Asked::First {
        kind: "top_k",
        n_rows: 2,
        keys: vec![col("k")],
        order: vec![col("x").sort(false, false)],
    };
    let sessions = Windowing::of(Sessions::with_gap(ms(4)));
    for (windowing, asked) in [(fixed(10), first), (sessions, Asked::Distinct)] {
        check_operator(Both::asking(&windowing, asked), &[COLUMNS], &Laws::new());
    }
}
