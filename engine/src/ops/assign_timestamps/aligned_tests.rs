//! Tests of workers that keep near to each other, where the rows of a source go several ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::Watermarks;
use crate::aggregates::count;
use crate::connectors::collect;
use crate::error::Result;
use crate::expression::{col, lit};
use crate::ops::SideInput;
use crate::output::Output;
use crate::pipeline::{Collection, Pipeline};
use crate::runner::RunOptions;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::testing::table;
use crate::transform::Description;
use crate::windowing::{FixedWindows, Windowing};

/// So many rows has each split, a millisecond apart.
const N_ROWS: i64 = 2_000;
/// The slow split has a row once in so many times that it is asked.
const PATIENCE: i64 = 4;
/// How far the fast split is let ahead, and how much further it may be: by what is on its way.
const WITHIN: i64 = 10;
const ON_ITS_WAY: i64 = 100;

/// A source that never ends, of a fast split and a slow one, which notes how far the fast one was ahead at most.
#[derive(Clone, Debug, Default)]
struct Race(Arc<Stands>);

#[derive(Debug, Default)]
struct Stands {
    slow: AtomicI64,
    most_ahead: AtomicI64,
}

impl Source for Race {
    fn describe(&self) -> Description {
        Description::new("race", serde_json::Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(table("t: 1; flat: 0").schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let names = ["fast", "slow"];
        let split = |name: &str| Split {
            name: name.to_owned(),
            locator: serde_json::Value::Null,
            n_rows: None,
            n_bytes: None,
        };
        Ok(names.map(split).into())
    }

    fn open(
        &self,
        split: &Split,
        _position: Position,
        _columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        Ok(Box::new(Racer {
            is_slow: &*split.name == "slow",
            stands: Arc::clone(&self.0),
            n_asked: 0,
            next: 0,
        }))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            bounded: false,
            ..SourceProperties::default()
        }
    }
}

struct Racer {
    is_slow: bool,
    stands: Arc<Stands>,
    n_asked: i64,
    next: i64,
}

impl SplitReader for Racer {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        if self.next == N_ROWS {
            return Ok(None);
        }
        self.n_asked += 1;
        let row = table(&format!("t: {}; flat: 0", self.next));
        if self.is_slow && self.n_asked % PATIENCE > 0 {
            return Ok(Some(row.slice(0, 0)));
        }
        match self.is_slow {
            true => self.stands.slow.store(self.next, SeqCst),
            false => {
                let ahead = self.next - self.stands.slow.load(SeqCst);
                self.stands.most_ahead.fetch_max(ahead, SeqCst);
            }
        }
        self.next += 1;
        Ok(Some(row))
    }
}

fn aligned(rows: &Collection, time: &str) -> Collection {
    let near = Watermarks::monotone().aligned_within(Duration::from_millis(WITHIN as u64));
    rows.assign_timestamps(col(time), near)
}

/// How far the fast split was ahead at most, and how many rows reached the sink.
fn race(compose: impl FnOnce(&Collection) -> Collection) -> (i64, usize) {
    let race = Race::default();
    let pipeline = Pipeline::new("race");
    let (sink, rows) = collect();
    compose(&pipeline.read("rows", race.clone())).write(sink);
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    let n_rows = rows.take().iter().map(RecordBatch::num_rows).sum();
    (race.0.most_ahead.load(SeqCst), n_rows)
}

fn check(what: &str, compose: impl FnOnce(&Collection) -> Collection) {
    let (ahead, n_rows) = race(compose);
    assert_eq!(n_rows, 2 * N_ROWS as usize, "{what}");
    assert!(ahead <= WITHIN + ON_ITS_WAY, "{what}: {ahead} ms ahead");
}

/// Few rows go one way: what it has shown alone is far behind what was read.
#[test]
fn where_branches_come_together_all_of_them_say_how_far_a_worker_is() {
    let is_rare = || (col("t") % lit(500)).eq(lit(0));
    check("rare rows first", |rows| {
        let others = rows.filter(!is_rare());
        aligned(&rows.filter(is_rare()).union(&[others]), "t")
    });
    check("rare rows last", |rows| {
        let rare = rows.filter(is_rare());
        aligned(&rows.filter(!is_rare()).union(&[rare]), "t")
    });
}

/// On one branch all rows are of one instant, so that its workers are always near to each other.
#[test]
fn each_branch_with_a_watermark_of_its_own_keeps_the_workers_near() {
    let side = SideInput::singleton().or_null().in_step();
    for times in [["flat", "t"], ["t", "flat"]] {
        check(&format!("a side by {times:?}"), |rows| {
            let windows = Windowing::of(FixedWindows::of(Duration::from_secs(3600)));
            let [main, of_side] = times.map(|time| aligned(rows, time).window(windows.clone()));
            let counted = of_side.agg([count(lit(1)).alias("n")]);
            main.with_side_input(&counted, side.clone())
        });
    }
}

/// The fast split comes to its end before the slow one has given half of its rows, or the tests above say nothing.
#[test]
fn workers_that_are_not_kept_near_are_not() {
    let (ahead, _) = race(|rows| rows.assign_timestamps(col("t"), Watermarks::monotone()));
    assert!(ahead > 2 * (WITHIN + ON_ITS_WAY), "{ahead} ms ahead");
}
