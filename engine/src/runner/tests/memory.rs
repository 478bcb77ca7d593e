//! The budget of a run: what is counted, what happens where it does not suffice, and what does not pile up.

use super::*;

/// Keeps all rows until the input ends.
#[derive(Clone, Debug)]
struct Hoard;

impl Transform for Hoard {
    fn describe(&self) -> Description {
        Description::new("hoard", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Hoarder::default()))
    }
}

#[derive(Default)]
struct Hoarder {
    rows: Vec<RecordBatch>,
    n_bytes: u64,
}

impl Operator for Hoarder {
    fn on_batch(&mut self, _: usize, batch: Batch, _: &mut Output) -> Result<()> {
        self.n_bytes += batch.n_bytes();
        self.rows.push(batch.rows().clone());
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        if watermark.is_end() {
            self.n_bytes = 0;
            for rows in self.rows.drain(..) {
                out.push(Batch::new(rows));
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        self.n_bytes
    }
}

/// 40 batches of 1,000 rows of 16 bytes: 640,000 bytes.
fn rows(p: &Pipeline) -> Collection {
    p.read("numbers", Script::numbers(20, &[1000, 1000]))
}

#[test]
fn the_peak_of_what_a_node_kept_is_reported() {
    for workers in 1..=3 {
        let basket = Basket::default();
        let report = run(workers, |p| {
            let kept = rows(p).apply(Hoard);
            kept.write(basket.clone());
        })
        .unwrap();
        let peak = report.node("hoard").unwrap().peak_state_bytes;
        assert_eq!((peak, basket.sorted().len()), (640_000, 40_000));
        assert_eq!(report.node("numbers").unwrap().peak_state_bytes, 0);
    }
}

#[test]
fn a_state_beyond_the_budget_ends_the_run_with_node_figure_and_remedy() {
    for workers in 1..=3 {
        let pipeline = Pipeline::new("test");
        let basket = Basket::default();
        let kept = rows(&pipeline).apply(Hoard);
        kept.write(basket.clone());
        let small = options(workers).credit_bytes(20_000).memory_bytes(500_000);
        let error = pipeline.run(&small).unwrap_err();
        assert!(error.is_environment() && basket.rows().is_none());
        if workers == 1 {
            expect![[r#"
                the nodes of the run keep 496 kB in memory, expected at most 480 kB
                  in transform "hoard"
                  The budget is 500 kB, of which 20 kB are for rows in flight.
                  Kept most: 496 kB by "hoard".
                  Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&error.to_string());
        }
        assert!(
            error.to_string().contains("in transform \"hoard\""),
            "{error}"
        );
    }
}

#[test]
fn many_sources_share_what_is_for_rows_in_flight() {
    let pipeline = Pipeline::new("test");
    let basket = Basket::default();
    let all: Vec<Collection> = (0..10)
        .map(|i| pipeline.read(&format!("numbers-{i}"), Script::numbers(4, &[1000; 10])))
        .collect();
    all[0].union(&all[1..]).write(basket.clone());
    let small = options(2).credit_bytes(40_000).memory_bytes(3_200_000);
    let report = pipeline.run(&small).unwrap();
    assert_eq!(basket.sorted().len(), 400_000);
    // 40,000 bytes each; the last batch that is let in may exceed them.
    let peak = report.phases[0].peak_credit_bytes;
    assert!(peak < 56_000, "{peak}");

    let error = pipeline
        .run(&options(2).memory_bytes(3_200_000))
        .unwrap_err();
    assert!(error.is_pipeline());
    expect![[r#"
        a memory budget of 3.2 MB is too small for this pipeline, expected at least 21 MB
          A quarter of it is for rows in flight, 262 kB for each of 10 sources on each of 2 workers.
          Hint: Raise it with `RunOptions::memory_bytes`, or run fewer workers."#]]
    .assert_eq(&error.to_string());
}

/// [`InOrder`], which keeps a megabyte for each split besides.
#[derive(Clone, Debug)]
struct Heavy;

impl Analyzer for Heavy {
    type Accumulator = Vec<i64>;
    type Output = Vec<i64>;

    fn create_accumulator(&self) -> Vec<i64> {
        Vec::new()
    }

    fn add(&self, seen: &mut Vec<i64>, rows: &RecordBatch) -> Result<()> {
        InOrder.add(seen, rows)
    }

    fn merge(&self, seen: &mut Vec<i64>, other: Vec<i64>) -> Result<()> {
        InOrder.merge(seen, other)
    }

    fn finish(&self, seen: Vec<i64>) -> Result<Vec<i64>> {
        Ok(seen)
    }

    fn accumulator_bytes(&self, _: &Vec<i64>) -> u64 {
        1_000_000
    }

    fn artifact_bytes(&self, _: &Vec<i64>) -> u64 {
        7_000_000
    }

    fn save(&self, seen: &Vec<i64>) -> Result<RecordBatch> {
        InOrder.save(seen)
    }

    fn load(&self, saved: &RecordBatch) -> Result<Vec<i64>> {
        InOrder.load(saved)
    }
}

impl Analysis for Heavy {
    fn describe(&self) -> Description {
        Description::new("heavy", Value::Null)
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        crate::expression::check_column("n", input).map(|_| ())
    }

    fn build(&self, _: &Artifacts) -> Result<Arc<dyn crate::analyzer::DynAnalyzer>> {
        Ok(Arc::new(Heavy))
    }
}

#[test]
fn accumulators_of_splits_that_are_over_do_not_pile_up() {
    let peak = |workers| {
        let pipeline = Pipeline::new("test");
        let rows = pipeline.read("numbers", Script::numbers(1000, &[3]));
        let [low, high] = rows.split_by_hash(col("n"), [("low", 1), ("high", 1)]);
        let both = low.union(&[high, rows.filter(col("k").gt(lit(2)))]);
        let learned = both.analyze::<Vec<i64>>(Heavy);
        let report = pipeline.run(&options(workers).credit_bytes(2_000)).unwrap();
        // Split by split, and in each of them branch by branch.
        let learned = report.artifact(&learned).unwrap();
        let splits: Vec<i64> = learned.iter().map(|n| n / 3).collect();
        assert!(splits.is_sorted());
        assert_eq!(learned.len(), 3000 + 3000 / 7 * 4 + 1);
        report.node("heavy").unwrap().peak_state_bytes
    };
    let alone = peak(1);
    assert!(alone <= 300_000_000, "{alone}");
    for workers in 2..=3 {
        // One of them may fall behind, and what comes after its split has to wait: but not in each of five runs for
        // a third of all splits, of which more than two gigabytes would pile up.
        let least = (0..5).map(|_| peak(workers)).min().unwrap();
        assert!(least <= 1_000_000_000, "{least} with {workers} workers");
    }
}

#[test]
fn two_sources_are_merged_one_after_the_other() {
    let mut all = Vec::new();
    for workers in 1..=3 {
        let pipeline = Pipeline::new("test");
        let one = pipeline.read("one", Script::numbers(50, &[2, 1]));
        let two = pipeline.read("two", Script::numbers(50, &[4]));
        let learned = two.union(&[one]).analyze::<Vec<i64>>(Heavy);
        let report = pipeline.run(&options(workers)).unwrap();
        all.push(report.artifact(&learned).unwrap().to_vec());
    }
    let expected: Vec<i64> = (0..150).chain(0..200).collect();
    assert!(all.iter().all(|seen| *seen == expected));
}

#[test]
fn an_artifact_counts_to_the_end_of_the_run() {
    let pipeline = Pipeline::new("test");
    let rows = rows(&pipeline);
    let last = rows.analyze::<Vec<i64>>(Heavy);
    rows.apply(AddLast(last))
        .apply(Hoard)
        .write(Basket::default());
    let report = pipeline.run(&options(1).memory_bytes(80_000_000)).unwrap();
    assert_eq!(report.node("heavy").unwrap().peak_state_bytes, 7_000_000);
    let small = options(1).credit_bytes(20_000).memory_bytes(7_400_000);
    let error = pipeline.run(&small).unwrap_err();
    expect![[r#"
        the nodes of the run keep 7.38 MB in memory, expected at most 7.38 MB
          in analysis "heavy"
          The budget is 7.4 MB, of which 20 kB are for rows in flight.
          Kept most: 7 MB by "heavy", 384 kB by "hoard".
          Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&error.to_string());
}

/// 10 MB in rows of 16 bytes.
fn ten_megabytes(p: &Pipeline) -> Collection {
    p.read("numbers", Script::numbers(320, &[1000, 1000]))
}

/// The message of a run that keeps more than 5 MB.
fn beyond(compose: impl FnOnce(&Collection)) -> String {
    let pipeline = Pipeline::new("test");
    compose(&ten_megabytes(&pipeline));
    let small = options(1).credit_bytes(20_000).memory_bytes(5_000_000);
    let error = pipeline.run(&small).unwrap_err();
    assert!(error.is_environment(), "{error}");
    error.to_string()
}

#[test]
fn whatever_keeps_rows_is_held_to_the_budget_and_named() {
    use crate::aggregates::count;
    use crate::connectors::{collect, parquet_sink};
    use crate::ops::{Join, JoinKind};
    let collected = beyond(|rows| rows.write(collect().0));
    expect![[r#"
        the nodes of the run keep 4.99 MB in memory, expected at most 4.98 MB
          in sink "collect"
          The budget is 5 MB, of which 20 kB are for rows in flight.
          Kept most: 4.99 MB by "collect".
          Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&collected);
    let grouped = beyond(|rows| {
        rows.group_by([col("n")])
            .agg([count(lit(1)).alias("count")])
            .write(Basket::default());
    });
    expect![[r#"
        the nodes of the run keep 6.42 MB in memory, expected at most 4.98 MB
          in transform "group_by"
          The budget is 5 MB, of which 20 kB are for rows in flight.
          Kept most: 6.42 MB by "group_by".
          Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&grouped);
    let joined = beyond(|rows| {
        let on = [(col("n"), col("n"))];
        rows.join_with(&rows.select([col("n")]), Join::new(JoinKind::LeftSemi, on))
            .write(Basket::default());
    });
    expect![[r#"
        the nodes of the run keep 5.04 MB in memory, expected at most 4.98 MB
          in analysis "join/build"
          The budget is 5 MB, of which 20 kB are for rows in flight.
          Kept most: 5.04 MB by "join/build".
          Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&joined);
    let distinct = beyond(|rows| rows.distinct().write(Basket::default()));
    expect![[r#"
        the nodes of the run keep 5.95 MB in memory, expected at most 4.98 MB
          in transform "distinct/partial"
          The budget is 5 MB, of which 20 kB are for rows in flight.
          Kept most: 2.97 MB by "distinct/partial", 2.97 MB by "distinct".
          Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&distinct);
    let top = beyond(|rows| {
        rows.top_k(600_000, [col("n").sort(true, false)])
            .write(Basket::default())
    });
    expect![[r#"
        the nodes of the run keep 5 MB in memory, expected at most 4.98 MB
          in transform "top_k/partial"
          The budget is 5 MB, of which 20 kB are for rows in flight.
          Kept most: 5 MB by "top_k/partial".
          Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&top);
    let folder = tempfile::tempdir().unwrap();
    let folders = beyond(|rows| {
        let rows = rows.with_column("part", col("n") % lit(50));
        let sink = parquet_sink(folder.path().join("rows")).partition_by(["part"]);
        rows.write(sink);
    });
    expect![[r#"
        the nodes of the run keep 7.43 MB in memory, expected at most 4.98 MB
          in sink "parquet_sink"
          The budget is 5 MB, of which 20 kB are for rows in flight.
          Kept most: 7.43 MB by "parquet_sink".
          Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&folders);
    assert!(!folder.path().join("rows").exists());
}
