//! Pages on runs of every kind, for `tests/report_page.py` to look at in a browser: `.ci/run` names it their folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstem::engine::aggregates::{avg, count, sum};
use mainstem::engine::ops::{JoinKind, Watermarks};
use mainstem::engine::testing::table;
use mainstem::engine::windowing::{FixedWindows, Windowing};
use mainstem::engine::{OnBadRow, Progress, RunReport};
use mainstem::prelude::*;

/// The file of a page; cargo keeps what tests leave in this folder.
fn page(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reports");
    fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{name}.html"))
}

fn options(name: &str) -> RunOptions {
    let options = RunOptions::new().workers(2).progress(Progress::Never);
    options.report_html(page(name))
}

/// Sales of `n_shops` shops, one in 100 without a price and some out of order.
fn sales(n_shops: i64) -> arrow::record_batch::RecordBatch {
    let column = |value: &dyn Fn(i64) -> String| {
        let values: Vec<String> = (0..4_000).map(value).collect();
        values.join(", ")
    };
    let at = column(&|i| ((i ^ 7) * 250).to_string());
    let shop = column(&|i| (i % n_shops).to_string());
    let n = column(&|i| (i % 100).to_string());
    table(&format!("at: {at}; shop: {shop}; n: {n}"))
}

/// Rows of one source on many ways, over all that a node can show: names too long for their box, in
/// other alphabets, bad rows, watermarks, state and artifacts.
#[test]
fn a_graph_of_many_nodes() {
    let pipeline = Pipeline::new(
        "takings of every shop, by hour, by quarter and by whatever else may be asked",
    );
    let sales = pipeline
        .read("sales", connectors::from_record_batches(vec![sales(40); 4]))
        .assign_timestamps(
            col("at"),
            Watermarks::bounded_out_of_orderness(Duration::from_secs(2)),
        );
    let (bad, _) = connectors::collect();
    let priced = sales
        .named("prices/what one piece costs, rounded")
        .with_column("price", lit(10_000) / col("n"))
        .dead_letters_to(bad)
        .named("cheap ones are dropped")
        .with_column("cheap", lit(1) / (col("n") - lit(1)))
        .on_bad_row(OnBadRow::Drop);
    let mut ways = Vec::new();
    for (name, seconds) in [("Stunde", 10), ("часть", 20), ("四半期", 40), ("day", 80)] {
        let windowing = Windowing::of(FixedWindows::of(Duration::from_secs(seconds)));
        let way = priced
            .named(format!("{name}/some"))
            .filter(col("shop").lt(lit(30)))
            .window(windowing)
            .group_by([col("shop")])
            .agg([sum(col("price")).alias("taken"), count(lit(1)).alias("n")])
            .named(format!("{name}/as they are shown"))
            .select([col("shop"), col("taken"), col("n"), col("window_start")]);
        let (sink, _) = connectors::collect();
        way.named(format!("{name}/kept")).write(sink);
        ways.push(way.window(Windowing::global()));
    }
    let names = table("id: 1, 2, 3; name: Nord, Süd, Ost");
    let names = pipeline.read("names", connectors::from_record_batches(vec![names]));
    let (sink, _) = connectors::collect();
    ways[0]
        .union(&ways[1..])
        .group_by([col("shop")])
        .agg([avg(col("taken")).alias("mean")])
        .named("names of shops")
        .join(&names, JoinKind::Left, [(col("shop"), col("id"))])
        .top_k(10, [col("mean").sort(false, false)])
        .write(sink);
    let report = pipeline.run(&options("many-nodes")).unwrap();
    let n_nodes: Vec<usize> = report.phases.iter().map(|p| p.nodes.len()).collect();
    assert!(n_nodes.iter().any(|&n| n >= 25), "{n_nodes:?}");
    // The join's other side is read in a phase of its own, so all rows of its first are read twice.
    assert_eq!(report.rejected(), 2 * 4 * 40 * 2);
    in_the_page("many-nodes", &report);
}

/// The page names every node of the report.
fn in_the_page(name: &str, report: &RunReport) {
    let page = fs::read_to_string(page(name)).unwrap();
    for phase in &report.phases {
        for node in &phase.nodes {
            assert!(page.contains(&node.node), "{}", node.node);
        }
    }
}

#[test]
fn a_run_that_fails() {
    let pipeline = Pipeline::new("shares");
    let (sink, _) = connectors::collect();
    pipeline
        .read("sales", connectors::from_record_batches(vec![sales(40)]))
        .named("prices")
        .with_column("price", lit(10_000) / (col("n") - lit(99)))
        .write(sink);
    let error = pipeline.run(&options("failed")).unwrap_err();
    let page = fs::read_to_string(page("failed")).unwrap();
    assert!(
        page.contains("Divide by zero") && error.is_data(),
        "{error}"
    );
}

/// A program whose rows are all gone before they are read has a page too.
#[test]
fn a_run_without_rows() {
    let pipeline = Pipeline::new("nothing");
    let (sink, _) = connectors::collect();
    let none = sales(1).slice(0, 0);
    pipeline
        .read("none", connectors::from_record_batches(vec![none]))
        .filter(col("n").gt(lit(0)))
        .write(sink);
    let report = pipeline.run(&options("no-rows")).unwrap();
    assert_eq!(report.rows_read(), 0);
    in_the_page("no-rows", &report);
}
