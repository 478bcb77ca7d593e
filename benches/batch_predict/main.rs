//! Batch prediction, Parquet in and Parquet out, beside a bare loop over the same kernels.
//!
//! ```text
//! parent ─▶ births and Predictor, made once under target/bench-data
//!       └─▶ child process per run: mainstem, bare, onnx, peers, mainstem, ...   (peak memory is the child's own)
//! ```
//!
//! `cargo bench --bench batch_predict -- --rows 10000000 --json`; `benches/README.md` has the rest.

mod bare_loop;
#[path = "../../examples/natality/births.rs"]
mod births;
#[path = "../shared/contest.rs"]
mod contest;
mod dataset;
#[path = "../shared/figures.rs"]
mod figures;
mod first_row;
#[path = "../../examples/natality/generator.rs"]
mod generator;
mod inside;
mod network;
mod only_onnx;
mod series;
mod trees;
#[path = "../../examples/shared/usage.rs"]
mod usage;
mod with_mainstem;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Parser, ValueEnum};
use serde::de::DeserializeOwned;

use contest::{Run, itself, last_line, median, table};
use dataset::{Dataset, Model};
use figures::Figures;
use inside::Inside;
use series::HEADER;

/// Rows when nothing else is said.
const ROWS: usize = 1_000_000;
/// Rows when cargo only wants to know that the benchmark works.
const ROWS_AS_TEST: usize = 20_000;

/// Measures batch prediction with and without the engine, alternating, each run in its own process.
#[derive(Debug, Parser)]
struct Options {
    /// How many births.
    #[arg(long)]
    rows: Option<usize>,
    /// How often each contender runs.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many workers and threads; by default one per core. Several, such as `1,2`, are compared.
    #[arg(long, value_delimiter = ',')]
    workers: Vec<usize>,
    /// What scores.
    #[arg(long, value_enum, default_value_t = Model::Network)]
    model: Model,
    /// Mainstem alone over several numbers of rows, such as `1000000,10000000`: memory, and CPU per row.
    #[arg(long, value_delimiter = ',')]
    series: Vec<usize>,
    /// The time from the start of a process to its first row, of a job of 1,000 rows.
    #[arg(long)]
    first_row: bool,
    /// Also runs these; they need a Python with benches/peers/requirements.txt.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// The Python for `--peers`.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Prints the figures as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Set for a child process: run this once and print a `Run`.
    #[arg(long, hide = true)]
    child: Option<Contender>,
}

/// The same job by hand in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Polars,
    Daft,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Polars => "polars",
            Self::Daft => "daft",
        }
    }

    fn script(self) -> PathBuf {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
        peers.join(format!("{}_onnxruntime.py", self.name()))
    }
}

/// What a child process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Contender {
    /// Makes the data: in a child, as a child's peak memory is no less than its parent's was.
    Prepare,
    Mainstem,
    Bare,
    Onnx,
    Inside,
    FirstRowFiltered,
    FirstRowPredicted,
}

impl Contender {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let n_rows = options
        .rows
        .unwrap_or(if options.bench { ROWS } else { ROWS_AS_TEST });
    let workers = match options.workers.first() {
        Some(n) => *n,
        None => std::thread::available_parallelism()?.get(),
    }
    .max(1);
    let data = Dataset::of(n_rows, options.model);
    if let Some(contender) = options.child {
        return child(contender, &data, workers);
    }
    let rounds = options.rounds.max(1);
    let json = if options.first_row {
        let data = Dataset::of(first_row::ROWS, options.model);
        prepare(&data, workers, options.model)?;
        first_row::measure(&arguments(&data, workers, options.model), rounds)?
    } else if !options.series.is_empty() {
        let of = |n_rows: &usize| Dataset::of(*n_rows, options.model);
        let sizes: Vec<Dataset> = options.series.iter().map(of).collect();
        for size in &sizes {
            prepare(size, workers, options.model)?;
        }
        series::of_rows(&sizes, rounds, |size| {
            start(Contender::Mainstem, size, workers, options.model)
        })?
    } else if options.workers.len() > 1 {
        prepare(&data, workers, options.model)?;
        series::of_workers(&options.workers, rounds, |workers| {
            start(Contender::Mainstem, &data, workers, options.model)
        })?
    } else {
        contest(&options, &data, workers, rounds)?
    };
    if options.json {
        println!("{json}");
    }
    Ok(())
}

/// What a child does: one run, whose figures are its last line.
fn child(contender: Contender, data: &Dataset, workers: usize) -> Result<(), Box<dyn Error>> {
    let run = match contender {
        Contender::Prepare => {
            println!("{}", serde_json::to_string(&data.prepare(workers)?)?);
            return Ok(());
        }
        Contender::Mainstem => Run::of(|| Ok(with_mainstem::run(data, workers)?))?,
        Contender::Bare => Run::of(|| bare_loop::run(data, workers))?,
        Contender::Onnx => only_onnx::run(data, workers)?,
        Contender::Inside => {
            let inside = inside::run(data, workers)?;
            println!("{}", serde_json::to_string(&inside)?);
            return Ok(());
        }
        Contender::FirstRowFiltered => return Ok(first_row::job(data, false, workers)?),
        Contender::FirstRowPredicted => return Ok(first_row::job(data, true, workers)?),
    };
    println!("{}", serde_json::to_string(&run)?);
    Ok(())
}

/// What tells a child which data it works on.
fn arguments(data: &Dataset, workers: usize, model: Model) -> Vec<String> {
    let text = |text: &str| text.to_owned();
    vec![
        text("--rows"),
        data.n_rows().to_string(),
        text("--workers"),
        workers.to_string(),
        text("--model"),
        text(model.name()),
    ]
}

fn start<T: DeserializeOwned>(
    contender: Contender,
    data: &Dataset,
    workers: usize,
    model: Model,
) -> Result<T, Box<dyn Error>> {
    let mut command = itself()?;
    command
        .args(["--child", &contender.name()])
        .args(arguments(data, workers, model));
    last_line(command)
}

/// Makes what is not there yet; gives the name of the back-end.
fn prepare(data: &Dataset, workers: usize, model: Model) -> Result<String, Box<dyn Error>> {
    start(Contender::Prepare, data, workers, model)
}

fn start_peer(peer: Peer, python: &Path, data: &Dataset) -> Result<Run, Box<dyn Error>> {
    let mut command = Command::new(python);
    command.arg(peer.script()).args([
        data.births(),
        data.predictor().join("model.onnx"),
        data.out(peer.name()),
    ]);
    last_line(command)
}

/// Mainstem, the bare loop, ONNX Runtime alone and the peers, in turn.
fn contest(
    options: &Options,
    data: &Dataset,
    workers: usize,
    rounds: usize,
) -> Result<serde_json::Value, Box<dyn Error>> {
    let backend = prepare(data, workers, options.model)?;
    let own = [Contender::Mainstem, Contender::Bare, Contender::Onnx];
    let mut names: Vec<&str> = vec!["mainstem", "bare loop", "onnx alone"];
    names.extend(options.peers.iter().map(|p| p.name()));
    let mut runs = vec![Vec::new(); names.len()];
    let mut shares = Vec::new();
    for round in 1..=rounds {
        for (place, runs) in runs.iter_mut().enumerate() {
            let run = match own.get(place) {
                Some(contender) => start(*contender, data, workers, options.model)?,
                None => start_peer(options.peers[place - own.len()], &options.python, data)?,
            };
            eprintln!("round {round}: {:<10} {run:?}", names[place]);
            if run.rows != data.n_rows() as u64 {
                let n_rows = data.n_rows();
                return Err(format!("{} gave {} of {n_rows} rows", names[place], run.rows).into());
            }
            runs.push(run);
        }
        let inside: Inside = start(Contender::Inside, data, workers, options.model)?;
        eprintln!("round {round}: with a clock around the model {inside:?}");
        shares.push(inside.share());
    }
    dataset::check_agreement(data)?;
    let figures: Vec<Figures> = runs.iter().map(|runs| Figures::of(runs)).collect();
    let ours = figures[0];
    println!(
        "{} rows, {workers} workers, model {}, back-end {backend}, medians of {rounds} rounds",
        data.n_rows(),
        options.model.name(),
    );
    let lines = names.iter().zip(&figures).map(|(name, theirs)| {
        let mut cells = vec![(*name).to_owned()];
        cells.extend(series::cells(theirs));
        cells.push(format!("{:.2}", ours.cpu_seconds / theirs.cpu_seconds));
        cells.push(format!(
            "{:.2}",
            ours.rows_per_second / theirs.rows_per_second
        ));
        cells
    });
    let ratios = ["mainstem's CPU over it", "mainstem's speed over it"];
    let header = [""].into_iter().chain(HEADER).chain(ratios);
    println!("{}", table(header, lines));
    let onnx_share = figures[2].cpu_seconds / ours.cpu_seconds;
    let inside_share = median(shares.into_iter());
    println!("CPU of ONNX Runtime alone over Mainstem's: {onnx_share:.3}");
    println!("share of Mainstem's CPU within calls of ONNX Runtime: {inside_share:.3}");
    let mut json = serde_json::json!({
        "bench": "batch_predict", "rows": data.n_rows(), "workers": workers,
        "model": options.model.name(), "backend": backend,
        "rows_per_second": ours.rows_per_second, "cpu_seconds": ours.cpu_seconds,
        "peak_rss_bytes": ours.peak_rss_bytes,
        "ratio_to_bare_loop": ours.cpu_seconds / figures[1].cpu_seconds,
        "onnx_share": onnx_share, "inside_share": inside_share, "bare_loop": figures[1], "onnx_alone": figures[2],
    });
    for (peer, theirs) in options.peers.iter().zip(&figures[own.len()..]) {
        let ratio = ours.rows_per_second / theirs.rows_per_second;
        json[format!("ratio_to_{}", peer.name())] = ratio.into();
        json[peer.name()] = serde_json::to_value(theirs)?;
    }
    Ok(json)
}
