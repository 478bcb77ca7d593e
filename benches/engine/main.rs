//! What the engine costs per batch and per hop, where the transforms themselves do nothing.
//!
//! ```text
//! bare      batch ─▶ on_batch ─▶ on_batch ─▶ ...              the same operators in a loop
//! fused     source ─▶ [ pass ─▶ pass ─▶ ... ]                 one operator of the dataflow
//! operator  source ─▶ pass ─▶ pass ─▶ ...                     an operator each, on its worker
//! exchange  source ─▶ pass ─by key─▶ pass ─by key─▶ ...       rows dealt to the workers at each hop
//! pool      source ─▶ pass ─pool─▶ pass ─pool─▶ ...           work handed to the pool at each hop
//! ```
//!
//! `cargo bench --bench engine -- --json`; `benches/README.md` says what the figures mean.

#[path = "../shared/contest.rs"]
mod contest;
mod pass;
mod source;
#[path = "../../examples/shared/usage.rs"]
mod usage;

use std::error::Error;
use std::process::Command;

use clap::{Parser, ValueEnum};
use mainstem::engine::{Artifacts, BATCH_ROWS, Batch, Output, Transform};
use mainstem::prelude::*;

use contest::{Run, itself, last_line, median, table};
use pass::Pass;
use source::Repeated;

/// Batches of each size; fewer when cargo only wants to know that the benchmark works.
const BATCHES: [(usize, usize); 2] = [(BATCH_ROWS, 20_000), (1, 100_000)];
const SHARE_AS_TEST: usize = 100;

/// Measures the engine's overhead per batch and hop, alternating, each run in its own process.
#[derive(Debug, Parser)]
struct Options {
    /// How many hops in a chain.
    #[arg(long, default_value_t = 10)]
    hops: usize,
    /// How often each contender runs.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many workers; by default one per core.
    #[arg(long)]
    workers: Option<usize>,
    /// Prints the figures as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Set for a child process: run this once and print a `Run`.
    #[arg(long, hide = true)]
    child: Option<Chain>,
    /// Rows in a batch, for a child.
    #[arg(long, hide = true, default_value_t = 1)]
    batch_rows: usize,
    /// How many batches, for a child.
    #[arg(long, hide = true, default_value_t = 1)]
    batches: usize,
}

/// How the transforms of a chain follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Chain {
    Bare,
    Fused,
    Operator,
    Exchange,
    Pool,
}

impl Chain {
    const ALL: [Self; 5] = [
        Self::Bare,
        Self::Fused,
        Self::Operator,
        Self::Exchange,
        Self::Pool,
    ];

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }

    fn pass(self) -> Pass {
        match self {
            Self::Bare | Self::Fused => Pass::fused(),
            Self::Operator => Pass::operator(),
            Self::Exchange => Pass::by_key(),
            Self::Pool => Pass::pool(),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let workers = match options.workers {
        Some(n) => n.max(1),
        None => std::thread::available_parallelism()?.get(),
    };
    if let Some(chain) = options.child {
        let source = Repeated::new(options.batch_rows, options.batches, workers)?;
        let run = Run::of(|| match chain {
            Chain::Bare => Ok(bare(&source, options.hops)?),
            _ => Ok(through_engine(
                &source,
                chain.pass(),
                options.hops,
                workers,
            )?),
        })?;
        println!("{}", serde_json::to_string(&run)?);
        return Ok(());
    }
    let share = if options.bench { 1 } else { SHARE_AS_TEST };
    let mut json =
        serde_json::json!({ "bench": "engine", "hops": options.hops, "workers": workers });
    for (batch_rows, batches) in BATCHES {
        let batches = batches / share;
        println!(
            "{batches} batches of {batch_rows} rows, {} hops, {workers} workers",
            options.hops
        );
        let measured = measure(&options, workers, batch_rows, batches)?;
        json[format!("batches_of_{batch_rows}")] = measured;
    }
    if options.json {
        println!("{json}");
    }
    Ok(())
}

/// Each chain with no hop and with all hops, in turn: what is more, is what the hops cost.
fn measure(
    options: &Options,
    workers: usize,
    batch_rows: usize,
    batches: usize,
) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut runs = vec![(Vec::new(), Vec::new()); Chain::ALL.len()];
    for round in 1..=options.rounds.max(1) {
        for (chain, (without, with)) in Chain::ALL.iter().zip(&mut runs) {
            for (hops, runs) in [(0, without), (options.hops, with)] {
                let mut command: Command = itself()?;
                command
                    .args(["--child", &chain.name(), "--hops", &hops.to_string()])
                    .args(["--workers", &workers.to_string()])
                    .args(["--batch-rows", &batch_rows.to_string()])
                    .args(["--batches", &batches.to_string()]);
                let run: Run = last_line(command)?;
                eprintln!("round {round}: {:<9} {hops:>3} hops {run:?}", chain.name());
                runs.push(run);
            }
        }
    }
    let per_batch = |runs: &[Run], figure: fn(&Run) -> f64| {
        median(runs.iter().map(figure)) / batches as f64 * 1e9
    };
    let (mut lines, mut json) = (Vec::new(), serde_json::json!({}));
    for (chain, (without, with)) in Chain::ALL.iter().zip(&runs) {
        let hops = options.hops.max(1) as f64;
        let of = |figure: fn(&Run) -> f64| {
            let base = per_batch(without, figure);
            (base, (per_batch(with, figure) - base) / hops)
        };
        let ((base, hop), (base_cpu, hop_cpu)) = (of(|r| r.seconds), of(|r| r.cpu_seconds));
        let cells = [base, base_cpu, hop, hop_cpu].map(|ns| format!("{ns:.0}"));
        lines.push([vec![chain.name()], cells.into()].concat());
        json[chain.name()] = serde_json::json!({
            "ns_per_batch": base, "cpu_ns_per_batch": base_cpu,
            "ns_per_batch_and_hop": hop, "cpu_ns_per_batch_and_hop": hop_cpu,
        });
    }
    let header = [
        "chain",
        "ns/batch, no hop",
        "CPU ns/batch, no hop",
        "ns/batch and hop",
        "CPU ns/batch and hop",
    ];
    println!("{}", table(header, lines));
    Ok(json)
}

/// The chain as a pipeline, whose last transform drops all rows.
fn through_engine(source: &Repeated, pass: Pass, hops: usize, workers: usize) -> Result<u64> {
    let pipeline = Pipeline::new("hops");
    let mut rows = pipeline.read("batches", source.clone());
    for _ in 0..hops {
        rows = rows.apply(pass.clone());
    }
    let (sink, _none) = connectors::collect();
    rows.apply(Pass::drop_all()).write(sink);
    let report = pipeline.run(
        &RunOptions::new()
            .workers(workers)
            .progress(mainstem::engine::Progress::Never),
    )?;
    report
        .node("batches")
        .map(|node| node.rows_out)
        .ok_or_else(|| mainstem::engine::Error::bug("the report lacks the source"))
}

/// The same operators, called one after the other.
fn bare(source: &Repeated, hops: usize) -> Result<u64> {
    let none = Artifacts::none();
    let mut chain = (0..hops)
        .map(|_| Pass::fused().build(&none))
        .collect::<Result<Vec<_>>>()?;
    let mut out = Output::new(OnBadRow::Fail);
    let mut n_rows = 0;
    for rows in source.batches() {
        let mut batch = Batch::new(rows);
        for operator in &mut chain {
            operator.on_batch(0, batch, &mut out)?;
            let made = out.take().into_iter().next();
            let (_, passed) =
                made.ok_or_else(|| mainstem::engine::Error::bug("a batch was lost"))?;
            batch = passed;
        }
        n_rows += batch.n_rows() as u64;
    }
    Ok(n_rows)
}
