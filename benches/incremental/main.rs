//! What a change of a large graph costs, where its connected components are kept up to date.
//!
//! ```text
//! all edges ──▶ components          kept up to date: some edges are taken back, and only what follows is computed
//! all but those ──▶ components      computed afresh
//! ```
//!
//! `cargo bench --bench incremental`; both must agree, also with a search by hand.

mod graph;
mod rounds;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int8Type, Int64Type};
use arrow::record_batch::RecordBatch;
use clap::Parser;
use mainstem::engine::aggregates::min;
use mainstem::engine::expression::cast;
use mainstem::engine::expression::functions::math::expr_fn::{ceil, log2};
use mainstem::engine::ops::{JoinKind, Watermarks};
use mainstem::engine::{Relation, RunOptions};
use mainstem::prelude::{Collection, Pipeline, col, connectors, lit};

use graph::{components_by_hand, random_graph};
use rounds::{Heard, Rounds, Tap, changes};

/// Measures a change against a fresh computation.
#[derive(Debug, Parser)]
struct Options {
    /// How many edges the graph has.
    #[arg(long, default_value_t = 1_000_000)]
    edges: usize,
    /// How many nodes.
    #[arg(long, default_value_t = 500_000)]
    nodes: usize,
    /// How many edges are taken back.
    #[arg(long, default_value_t = 1_000)]
    removed: usize,
    /// How many workers; by default one run with 1 and one with 2.
    #[arg(long)]
    workers: Option<usize>,
    /// All nodes enter the loop at once, and not those first whose label spreads.
    #[arg(long)]
    plain: bool,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How many rounds after another the nodes enter whose number has one more bit: as in differential dataflow's
/// `propagate`, and more than any label needs to come everywhere.
const ROUNDS_PER_BIT: i64 = 256;

/// The least node that each node is connected with.
fn components(edges: &Collection, plain: bool) -> Collection {
    let edges = edges.incremental();
    let back = edges.select([col("to").alias("from"), col("from").alias("to")]);
    let both = edges.select([col("from"), col("to")]).union([&back]);
    let nodes = both
        .select([col("from").alias("node"), col("from").alias("least")])
        .distinct();
    let nearer = |least: &Relation, nodes: &Relation| {
        least
            .join(&both, JoinKind::Inner, [(col("node"), col("from"))])
            .select([col("to").alias("node"), col("least")])
            .union([nodes])
            .group_by([col("node")])
            .agg([min(col("least")).alias("least")])
    };
    let least = match plain {
        true => nodes.iterate(|least: &Relation| nearer(least, &nodes)),
        false => {
            let n_bits = cast(ceil(log2(col("least") + lit(1.0))), DataType::Int64);
            nodes.iterate_entering(n_bits * lit(ROUNDS_PER_BIT), nearer)
        }
    };
    least.into_collection("components")
}

/// What came out, and how long each round took until all of it had left.
struct Outcome {
    components: BTreeMap<i64, i64>,
    rounds: Vec<Duration>,
    n_changes: Vec<usize>,
}

/// Gives the rounds one after the other, each once all of the one before has left.
fn run(
    rounds: Vec<Vec<RecordBatch>>,
    n_workers: usize,
    plain: bool,
) -> Result<Outcome, Box<dyn Error>> {
    let n_rounds = rounds.len();
    let open = Arc::new(AtomicUsize::new(0));
    let (sender, passed) = mpsc::channel::<Heard>();
    let ended = sender.clone();
    let rows: Arc<Mutex<Vec<Vec<RecordBatch>>>> = Arc::default();
    let pipeline = Pipeline::new("graph");
    let edges = pipeline
        .read("edges", Rounds::new(rounds, &open)?)
        .assign_timestamps(col("at"), Watermarks::monotone());
    let (sink, _) = connectors::collect();
    components(&edges, plain)
        .apply(Tap::new(sender, n_rounds, &rows))
        .write(sink);
    let options = RunOptions::new().workers(n_workers);
    let running = std::thread::spawn(move || {
        let outcome = pipeline.run(&options);
        let _ = ended.send(Heard::Ended);
        outcome
    });
    let mut times = Vec::new();
    'rounds: for round in 0..n_rounds {
        let start = Instant::now();
        open.store(round + 1, Ordering::Release);
        // A round is over once every worker has heard that event time has passed it.
        let mut n_heard = 0;
        while n_heard < n_workers {
            match passed.recv()? {
                Heard::Passed(heard) => n_heard += usize::from(heard == round),
                // Its outcome says why.
                Heard::Ended => break 'rounds,
            }
        }
        times.push(start.elapsed());
    }
    running.join().map_err(|_| "the run panicked")??;
    if times.len() < n_rounds {
        return Err("the run ended before all rounds were over".into());
    }
    let rows = std::mem::take(&mut *rows.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Outcome {
        components: contents(rows.iter().flatten()),
        n_changes: rows
            .iter()
            .map(|r| r.iter().map(RecordBatch::num_rows).sum())
            .collect(),
        rounds: times,
    })
}

/// What the changes come to.
fn contents<'a>(changes: impl Iterator<Item = &'a RecordBatch>) -> BTreeMap<i64, i64> {
    let mut there: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for rows in changes {
        let int = |name: &str| rows[name].as_primitive::<Int64Type>().values();
        let (nodes, least) = (int("node"), int("least"));
        let diffs = rows["diff"].as_primitive::<Int8Type>().values();
        for row in 0..rows.num_rows() {
            *there.entry((nodes[row], least[row])).or_default() += i64::from(diffs[row]);
        }
    }
    there
        .into_iter()
        .filter(|(_, n)| *n != 0)
        .map(|(row, _)| row)
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options::parse();
    if !options.bench {
        // Cargo only wants to know that the benchmark works.
        (options.edges, options.nodes, options.removed) = (2_000, 1_000, 10);
    }
    let edges = random_graph(options.nodes, options.edges);
    let (removed, left) = edges.split_at(options.removed);
    let workers = options.workers.map_or(vec![1, 2], |n| vec![n]);
    let by_hand = components_by_hand(left);
    for n_workers in workers {
        let kept = run(
            vec![changes(&edges, 0, 1)?, changes(removed, 1, -1)?],
            n_workers,
            options.plain,
        )?;
        let fresh = run(vec![changes(left, 0, 1)?], n_workers, options.plain)?;
        if kept.components != by_hand || fresh.components != by_hand {
            return Err("the components are not those of a search by hand".into());
        }
        let (change, anew) = (kept.rounds[1].as_secs_f64(), fresh.rounds[0].as_secs_f64());
        println!(
            "{} edges, {} nodes, {n_workers} workers: afresh {anew:.2} s; {} edges taken back {:.1} ms, {} rows changed: {:.0} times cheaper",
            options.edges,
            by_hand.len(),
            removed.len(),
            change * 1e3,
            kept.n_changes[1],
            anew / change,
        );
    }
    Ok(())
}
