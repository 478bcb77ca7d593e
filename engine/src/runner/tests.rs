//! Runs of small graphs: rows, counters, order, faults.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::expression::{col, lit};
use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use proptest::prelude::*;
use serde_json::Value;

use crate::ops::MapBatches;
use crate::testing::show;
use crate::{
    Analysis, Analyzer, ArtifactId, ArtifactRef, Artifacts, Batch, Collection, Description,
    Distribution, Error, OnBadRow, Operator, Output, Pipeline, Position, Progress, Properties,
    Publication, Published, Result, RunOptions, RunReport, Sink, SinkWriter, Source,
    SourceProperties, Split, SplitReader, Trainer, TrainingContext, TrainingRows, Transform,
    Watermark,
};

mod beside_reading;
mod counters;
mod faults;
mod lots;
mod memory;
mod slow_split;
mod stopping;

/// Splits of batches; a split may fail or panic after its last batch.
#[derive(Clone, Debug)]
struct Script {
    splits: Vec<Vec<RecordBatch>>,
    end: End,
    at_hand: bool,
    reads: Arc<AtomicUsize>,
    columns: Arc<Mutex<Vec<Option<Vec<String>>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Fine,
    Error,
    Panic,
}

impl Script {
    fn new(splits: Vec<Vec<RecordBatch>>) -> Self {
        Self {
            splits,
            end: End::Fine,
            at_hand: false,
            reads: Arc::default(),
            columns: Arc::default(),
        }
    }

    /// `n_splits` splits of batches of `sizes` rows: `n` counts all rows, `k` is `n % 7`.
    fn numbers(n_splits: usize, sizes: &[usize]) -> Self {
        let mut next = 0..;
        let mut split = || {
            sizes
                .iter()
                .map(|&s| numbers(next.by_ref().take(s).collect()))
                .collect()
        };
        Self::new((0..n_splits).map(|_| split()).collect())
    }

    fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    fn at_hand(mut self, at_hand: bool) -> Self {
        self.at_hand = at_hand;
        self
    }
}

fn numbers(n: Vec<i64>) -> RecordBatch {
    let k: Int64Array = n.iter().map(|n| Some(n % 7)).collect();
    let field = |name| Field::new(name, DataType::Int64, true);
    let schema = Arc::new(Schema::new(vec![field("k"), field("n")]));
    RecordBatch::try_new(
        schema,
        vec![Arc::new(k) as ArrayRef, Arc::new(Int64Array::from(n))],
    )
    .unwrap()
}

impl Source for Script {
    fn describe(&self) -> Description {
        Description::new("script", Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(self.splits[0][0].schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |(i, batches): (usize, &Vec<RecordBatch>)| Split {
            name: format!("split {i}"),
            locator: Value::from(i),
            n_rows: Some(batches.iter().map(|b| b.num_rows() as u64).sum()),
            n_bytes: None,
        };
        Ok(self.splits.iter().enumerate().map(split).collect())
    }

    fn open(
        &self,
        split: &Split,
        _: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let batches = &self.splits[usize::try_from(split.locator.as_u64().unwrap()).unwrap()];
        self.reads.fetch_add(1, SeqCst);
        self.columns
            .lock()
            .unwrap()
            .push(columns.map(<[String]>::to_vec));
        let wanted = |b: &RecordBatch| match columns {
            Some(names) => {
                let of = |n: &String| b.schema().index_of(n).unwrap();
                b.project(&names.iter().map(of).collect::<Vec<_>>())
                    .unwrap()
            }
            None => b.clone(),
        };
        let left = batches.iter().map(wanted).collect::<Vec<_>>().into_iter();
        Ok(Box::new(ScriptReader {
            left,
            end: self.end,
        }))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            at_hand: self.at_hand,
            ..SourceProperties::default()
        }
    }
}

struct ScriptReader {
    left: std::vec::IntoIter<RecordBatch>,
    end: End,
}

impl SplitReader for ScriptReader {
    fn next_batch(&mut self, _: &mut Output) -> Result<Option<RecordBatch>> {
        match (self.left.next(), self.end) {
            (Some(batch), _) => Ok(Some(batch)),
            (None, End::Fine) => Ok(None),
            (None, End::Error) => Err(Error::environment("the disk is gone")),
            (None, End::Panic) => panic!("the reader broke"),
        }
    }
}

/// Collects rows; visible only after the commit.
#[derive(Clone, Debug, Default)]
struct Basket {
    published: Arc<Mutex<Option<Vec<RecordBatch>>>>,
    aborted: Arc<AtomicBool>,
    fail_write_after: Option<u64>,
}

impl Basket {
    fn rows(&self) -> Option<RecordBatch> {
        let batches = self.published.lock().unwrap().clone()?;
        Some(concat_batches(&batches[0].schema(), &batches).unwrap())
    }

    fn sorted(&self) -> Vec<i64> {
        let rows = self.rows().unwrap();
        let mut n = rows["n"].as_primitive::<Int64Type>().values().to_vec();
        n.sort_unstable();
        n
    }
}

impl Sink for Basket {
    fn describe(&self) -> Description {
        Description::new("basket", Value::Null)
    }

    fn accepts(&self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn begin(&self, _: &SchemaRef) -> Result<Box<dyn Publication>> {
        Ok(Box::new(BasketPublication {
            basket: self.clone(),
            rows: Arc::default(),
            written: Arc::default(),
        }))
    }
}

struct BasketPublication {
    basket: Basket,
    rows: Arc<Mutex<Vec<RecordBatch>>>,
    written: Arc<AtomicU64>,
}

impl Publication for BasketPublication {
    fn writer(&self, _: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(BasketWriter {
            rows: Arc::clone(&self.rows),
            written: Arc::clone(&self.written),
            fail_after: self.basket.fail_write_after,
        }))
    }

    fn commit(&self) -> Result<Published> {
        let rows = self.rows.lock().unwrap().clone();
        let n_rows = rows.iter().map(|r| r.num_rows() as u64).sum();
        *self.basket.published.lock().unwrap() = Some(rows);
        Ok(Published {
            n_rows,
            ..Published::default()
        })
    }

    fn abort(&self) {
        self.basket.aborted.store(true, SeqCst);
    }
}

struct BasketWriter {
    rows: Arc<Mutex<Vec<RecordBatch>>>,
    written: Arc<AtomicU64>,
    fail_after: Option<u64>,
}

impl SinkWriter for BasketWriter {
    fn at_hand(&self) -> bool {
        true
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let written = self.written.fetch_add(rows.num_rows() as u64, SeqCst);
        if self.fail_after.is_some_and(|after| written >= after) {
            return Err(Error::environment("no space left on device"));
        }
        self.rows.lock().unwrap().push(rows.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The rows of `column` in the order in which they were merged: shows the order of the splits.
#[derive(Clone, Debug)]
struct InOrder;

impl Analyzer for InOrder {
    type Accumulator = Vec<i64>;
    type Output = Vec<i64>;

    fn create_accumulator(&self) -> Vec<i64> {
        Vec::new()
    }

    fn add(&self, seen: &mut Vec<i64>, rows: &RecordBatch) -> Result<()> {
        seen.extend(rows["n"].as_primitive::<Int64Type>().values());
        Ok(())
    }

    fn merge(&self, seen: &mut Vec<i64>, other: Vec<i64>) -> Result<()> {
        seen.extend(other);
        Ok(())
    }

    fn finish(&self, seen: Vec<i64>) -> Result<Vec<i64>> {
        Ok(seen)
    }

    fn save(&self, seen: &Vec<i64>) -> Result<RecordBatch> {
        Ok(numbers(seen.clone()))
    }

    fn load(&self, saved: &RecordBatch) -> Result<Vec<i64>> {
        Ok(saved["n"].as_primitive::<Int64Type>().values().to_vec())
    }
}

impl Analysis for InOrder {
    fn describe(&self) -> Description {
        Description::new("in_order", Value::Null)
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        crate::expression::check_column("n", input).map(|_| ())
    }

    fn reads(&self) -> Option<Vec<String>> {
        Some(vec!["n".into()])
    }

    fn build(&self, _: &Artifacts) -> Result<Arc<dyn crate::analyzer::DynAnalyzer>> {
        Ok(Arc::new(InOrder))
    }
}

/// Adds the last learned number to each row.
#[derive(Clone, Debug)]
struct AddLast(ArtifactRef<Vec<i64>>);

impl Transform for AddLast {
    fn describe(&self) -> Description {
        Description::new("add_last", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn needs(&self) -> Vec<ArtifactId> {
        vec![self.0.id().clone()]
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Adder(
            *artifacts.get(&self.0)?.last().unwrap_or(&0),
        )))
    }
}

struct Adder(i64);

impl Operator for Adder {
    fn on_batch(&mut self, _: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let n = batch.rows()["n"]
            .as_primitive::<Int64Type>()
            .values()
            .iter();
        let rows = numbers(n.map(|n| n + self.0).collect());
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

/// All rows of all epochs, in the order in which a trainer meets them.
#[derive(Clone, Debug)]
struct Twice;

impl Trainer for Twice {
    fn describe(&self) -> Description {
        Description::new("twice", Value::Null)
    }

    fn check(&self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn reads(&self) -> Option<Vec<String>> {
        Some(vec!["n".into()])
    }

    fn train(
        &self,
        _: &Artifacts,
        rows: &dyn TrainingRows,
        context: &dyn TrainingContext,
    ) -> Result<crate::artifact::AnyArtifact> {
        let mut seen = vec![
            i64::try_from(rows.n_rows()).unwrap(),
            rows.schema().fields().len() as i64,
        ];
        for _ in 0..2 {
            for batch in rows.epoch() {
                context.check()?;
                seen.extend(batch?["n"].as_primitive::<Int64Type>().values());
            }
        }
        Ok(Arc::new(seen))
    }
}

/// Counts the rows of each key and gives the counts at the end: keyed state in its smallest form.
#[derive(Clone, Debug)]
struct CountByKey;

impl Transform for CountByKey {
    fn describe(&self) -> Description {
        Description::new("count_by_key", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Counts::default()))
    }

    fn properties(&self) -> Properties {
        Properties::default().distribution(Distribution::ByKey(vec!["k".into()]))
    }
}

#[derive(Default)]
struct Counts(BTreeMap<i64, i64>);

impl Operator for Counts {
    fn on_batch(&mut self, _: usize, batch: Batch, _: &mut Output) -> Result<()> {
        for k in batch.rows()["k"].as_primitive::<Int64Type>().values() {
            *self.0.entry(*k).or_default() += 1;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        if watermark.is_end() {
            let (k, n): (Vec<i64>, Vec<i64>) = std::mem::take(&mut self.0).into_iter().unzip();
            let schema = numbers(vec![]).schema();
            let columns: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(k)), Arc::new(Int64Array::from(n))];
            out.push(Batch::new(RecordBatch::try_new(schema, columns)?));
        }
        Ok(())
    }
}

fn options(workers: usize) -> RunOptions {
    RunOptions::new().workers(workers).progress(Progress::Never)
}

fn run(workers: usize, compose: impl FnOnce(&Pipeline)) -> Result<RunReport> {
    let pipeline = Pipeline::new("test");
    compose(&pipeline);
    pipeline.run(&options(workers))
}

#[test]
fn rows_go_from_source_to_sink_and_counters_add_up() {
    for workers in 1..=3 {
        let basket = Basket::default();
        let report = run(workers, |p| {
            let rows = p.read("numbers", Script::numbers(5, &[10, 1, 20]));
            rows.filter(col("k").gt(lit(0))).write(basket.clone());
        })
        .unwrap();
        let expected: Vec<i64> = (0..155).filter(|n| n % 7 > 0).collect();
        assert_eq!(basket.sorted(), expected);
        let filter = report.node("filter").unwrap();
        let counts = (
            filter.rows_in,
            filter.rows_out,
            filter.filtered,
            filter.batches,
        );
        assert_eq!(counts, (155, 132, 23, 15), "{workers} workers");
        assert_eq!(report.node("numbers").unwrap().rows_out, 155);
        assert_eq!(report.published[0].1.n_rows, 132);
    }
}

#[test]
fn counters_add_up_at_every_node_of_one_row_for_one() {
    for workers in 1..=3 {
        let basket = Basket::default();
        let report = run(workers, |p| {
            let rows = p.read("numbers", Script::numbers(4, &[30, 7]));
            let [a, b] = rows.split_by_hash(col("n"), [("a", 1), ("b", 1)]);
            let divided = a
                .filter(col("n").gt(lit(20)))
                .with_column("q", lit(8) / (col("n") % lit(5)))
                .on_bad_row(OnBadRow::Drop);
            divided
                .select([col("n")])
                .union(&[b.select([col("n")])])
                .write(basket.clone());
        })
        .unwrap();
        let nodes = &report.phases[0].nodes;
        assert_eq!(nodes.len(), 8);
        for node in nodes.iter().filter(|n| n.kind != "basket") {
            let left = node.rows_out + node.filtered + node.rejected + node.late;
            assert_eq!(node.rows_in, left, "{node:?}");
        }
        let dropped = report.node("with_column").unwrap().rejected;
        let filtered = report.node("filter").unwrap().filtered;
        assert!(dropped > 0 && filtered > 0);
        assert_eq!(basket.sorted().len() as u64, 148 - dropped - filtered);
    }
}

#[test]
fn dead_letters_carry_node_position_reason_and_row() {
    let (good, dead) = (Basket::default(), Basket::default());
    run(2, |p| {
        let rows = p.read("numbers", Script::numbers(1, &[3, 3]));
        let divided = rows
            .filter(col("n").not_eq(lit(1)))
            .with_column("q", lit(8) / (col("n") - lit(4)));
        divided.dead_letters().write(dead.clone());
        divided.write(good.clone());
    })
    .unwrap();
    expect![[r#"
        k: 0, 2, 3, 5
        n: 0, 2, 3, 5
        q: -2, -4, -8, 8"#]]
    .assert_eq(&show(&good.rows().unwrap()));
    expect![[r#"
        node: 'with_column'
        split: 'split 0'
        row: 4
        reason: 'expression `Int32(8) / (n - Int32(4))` failed on {"n":4}: Divide by zero error'
        data: '{"k":4,"n":4}'"#]]
    .assert_eq(&show(&dead.rows().unwrap()));
}

#[test]
fn an_artifact_cuts_the_graph_and_sources_are_read_again() {
    let source = Script::numbers(4, &[5]);
    let (reads, columns) = (Arc::clone(&source.reads), Arc::clone(&source.columns));
    let basket = Basket::default();
    let report = run(2, |p| {
        let rows = p.read("numbers", source);
        let last = rows.analyze::<Vec<i64>>(InOrder);
        rows.apply(AddLast(last)).write(basket.clone());
    })
    .unwrap();
    assert_eq!(basket.sorted(), (19..39).collect::<Vec<i64>>());
    assert_eq!((report.phases.len(), reads.load(SeqCst)), (2, 8));
    // The analysis reads one column, the sink all.
    let n_narrow = columns
        .lock()
        .unwrap()
        .iter()
        .filter(|c| **c == Some(vec!["n".into()]))
        .count();
    assert_eq!(n_narrow, 4);
}

#[test]
fn kept_rows_are_made_once() {
    let source = Script::numbers(4, &[5]);
    let reads = Arc::clone(&source.reads);
    let (all, divided) = (Basket::default(), Basket::default());
    run(2, |p| {
        let rows = p
            .read("numbers", source)
            .filter(col("n").not_eq(lit(3)))
            .cache();
        let last = rows.analyze::<Vec<i64>>(InOrder);
        let later = rows.apply(AddLast(last.clone()));
        later.write(all.clone());
        later
            .filter((lit(1) / (col("n") - lit(30))).gt_eq(lit(0)))
            .on_bad_row(OnBadRow::Drop)
            .write(divided.clone());
    })
    .unwrap();
    assert_eq!(reads.load(SeqCst), 4);
    assert_eq!(
        all.sorted(),
        (19..39).filter(|n| *n != 22).collect::<Vec<i64>>()
    );
    // 1/(n-30) is -1 for 29, has no value for 30, and is 0 or 1 for the others.
    assert_eq!(divided.sorted().len(), 17);
}

#[test]
fn a_trainer_reads_the_rows_as_often_as_it_likes_in_the_order_of_the_splits() {
    let once: Vec<i64> = (0..36).collect();
    let expected = [vec![36, 1], once.clone(), once].concat();
    for workers in 1..=3 {
        let pipeline = Pipeline::new("test");
        let rows = pipeline.read("numbers", Script::numbers(4, &[5, 1, 3]));
        let model = rows.train::<Vec<i64>>(Twice);
        let report = pipeline.run(&options(workers)).unwrap();
        assert_eq!(
            *report.artifact(&model).unwrap(),
            expected,
            "{workers} workers"
        );
    }
}

#[test]
fn equal_keys_meet_on_one_worker() {
    for workers in 1..=3 {
        let basket = Basket::default();
        run(workers, |p| {
            p.read("numbers", Script::numbers(3, &[10, 18]))
                .apply(CountByKey)
                .write(basket.clone())
        })
        .unwrap();
        // 84 rows, 7 keys: each key once, with 12 rows.
        assert_eq!(basket.sorted(), vec![12; 7], "{workers} workers");
    }
}

#[test]
fn ports_and_unions_bring_every_row_through_once() {
    for workers in 1..=3 {
        let basket = Basket::default();
        run(workers, |p| {
            let rows = p.read("numbers", Script::numbers(3, &[50]));
            let [a, b] = rows.split_by_hash(col("n"), [("a", 3), ("b", 1)]);
            a.union(&[b, rows]).write(basket.clone());
        })
        .unwrap();
        let expected: Vec<i64> = (0..150).flat_map(|n| [n, n]).collect();
        assert_eq!(basket.sorted(), expected);
    }
}

#[test]
fn the_pool_keeps_the_order_however_long_each_batch_takes() {
    let pipeline = Pipeline::new("test");
    let turn = Arc::new(AtomicUsize::new(0));
    let others = Arc::clone(&turn);
    // Even batches wait until an odd one has overtaken them, or nothing is left that could.
    let slow = MapBatches::new(move |rows| {
        let number = rows["n"].as_primitive::<Int64Type>().value(0);
        if number % 2 == 0 && number < 18 {
            while others.load(SeqCst) <= usize::try_from(number).unwrap() {
                std::thread::yield_now();
            }
        } else {
            others.fetch_max(usize::try_from(number).unwrap(), SeqCst);
        }
        Ok(rows)
    });
    let rows = pipeline
        .read("numbers", Script::numbers(1, &[1; 20]))
        .apply(slow.concurrency(4));
    let order = rows.analyze::<Vec<i64>>(InOrder);
    let report = pipeline.run(&options(2)).unwrap();
    assert_eq!(
        *report.artifact(&order).unwrap(),
        (0..20).collect::<Vec<i64>>()
    );
    assert!(turn.load(SeqCst) >= 19);
}

#[test]
fn a_slow_operator_stops_the_source() {
    let basket = Basket::default();
    let pipeline = Pipeline::new("test");
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    pipeline
        .read("numbers", Script::numbers(1, &[1000; 50]))
        .apply(
            MapBatches::new(move |rows| {
                count.fetch_add(1, SeqCst);
                Ok(rows)
            })
            .blocking(true),
        )
        .write(basket.clone());
    // A batch takes 16,000 bytes.
    let report = pipeline.run(&options(1).credit_bytes(40_000)).unwrap();
    assert_eq!((seen.load(SeqCst), basket.sorted().len()), (50, 50_000));
    let peak = report.phases[0].peak_credit_bytes;
    assert!((16_000..=56_000).contains(&peak), "{peak}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn workers_and_batches_change_nothing(
        sizes in prop::collection::vec(1usize..40, 1..5),
        n_splits in 1usize..6,
        workers in 1usize..5,
        at_hand in any::<bool>(),
        computes in any::<bool>(),
    ) {
        let compose = |p: &Pipeline, source: Script| -> ArtifactRef<Vec<i64>> {
            let rows = p.read("numbers", source.at_hand(at_hand));
            let rows = rows.apply(MapBatches::new(Ok).blocking(computes));
            let kept = rows.filter(col("k").lt(lit(5)));
            kept.union(&[rows.filter(col("k").gt(lit(3)))]).analyze(InOrder)
        };
        let run = |source: Script, workers: usize| {
            let pipeline = Pipeline::new("test");
            let learned = compose(&pipeline, source);
            let report = pipeline.run(&options(workers)).unwrap();
            report.artifact(&learned).unwrap().to_vec()
        };
        let many = run(Script::numbers(n_splits, &sizes), workers);
        let whole = run(Script::numbers(n_splits, &[sizes.iter().sum()]), 1);
        prop_assert_eq!(many, whole);
    }
}

// ---- faults

/// Runs a pipeline that must fail, and checks that it ended quickly and published nothing.
fn fail(workers: usize, compose: impl FnOnce(&Pipeline, Basket)) -> Error {
    let basket = Basket::default();
    let start = Instant::now();
    let error = run(workers, |p| compose(p, basket.clone())).unwrap_err();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(basket.rows().is_none() && basket.aborted.load(SeqCst));
    error
}

fn endless_script() -> Script {
    Script::numbers(64, &[100; 50])
}

fn endless(p: &Pipeline) -> Collection {
    p.read("numbers", endless_script())
}

#[test]
fn a_panic_in_a_closure_is_the_error_of_the_run() {
    let cases = [(1, false), (2, false), (3, true), (2, true)];
    for ((workers, blocking), at_hand) in cases.iter().zip([false, true, false, true]) {
        let error = fail(*workers, |p, basket| {
            let map = MapBatches::new(|rows| {
                assert!(
                    rows["n"].as_primitive::<Int64Type>().value(0) < 5_000,
                    "row 5000 is cursed"
                );
                Ok(rows)
            });
            let rows = p.read("numbers", endless_script().at_hand(at_hand));
            rows.apply(map.blocking(*blocking)).write(basket);
        });
        assert!(error.is_bug());
        expect![[r#"
            panicked: row 5000 is cursed
              in transform "map_batches"
              Hint: Return an error instead, or reject the row."#]]
        .assert_eq(&error.to_string());
    }
}

#[test]
fn an_error_of_an_operator_is_the_error_of_the_run() {
    let error = fail(2, |p, basket| {
        endless(p)
            .filter((lit(1) / (col("n") - lit(777))).gt_eq(lit(0)))
            .write(basket)
    });
    expect![[r#"
        split 0, row 777: expression `Int32(1) / (n - Int32(777)) >= Int32(0)` failed on {"n":777}: Divide by zero error
          in transform "filter"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]]
    .assert_eq(&error.to_string());
}

#[test]
fn a_full_disk_is_the_error_of_the_run() {
    for at_hand in [false, true] {
        let basket = Basket {
            fail_write_after: Some(10_000),
            ..Basket::default()
        };
        let full = basket.clone();
        let rows = endless_script().at_hand(at_hand);
        let error = run(2, |p| p.read("numbers", rows).write(full)).unwrap_err();
        assert!(error.is_environment() && basket.rows().is_none());
        assert_eq!(
            error.to_string(),
            "no space left on device\n  in sink \"basket\""
        );
    }
}

#[test]
fn a_source_that_dies_half_way_is_the_error_of_the_run() {
    for end in [End::Error, End::Panic] {
        let error = fail(2, |p, basket| {
            p.read("numbers", Script::numbers(3, &[100; 5]).ending(end))
                .write(basket);
        });
        let expected = if end == End::Error {
            "the disk is gone"
        } else {
            "panicked: the reader broke"
        };
        assert_eq!(error.to_string().lines().next(), Some(expected));
        assert!(error.to_string().contains("in source \"numbers\""));
    }
}

#[test]
fn a_failure_in_a_late_phase_publishes_nothing_of_an_early_one() {
    let error = fail(2, |p, basket| {
        let rows = endless(p);
        rows.write(basket);
        let last = rows.analyze::<Vec<i64>>(InOrder);
        let later = rows
            .apply(AddLast(last))
            .map_batches(|_| Err(Error::data("too late")));
        later.write(Basket::default());
    });
    assert_eq!(error.message(), "too late");
}
