//! Batch prediction, Parquet in and Parquet out, beside a bare loop over the same kernels.
//!
//! ```text
//! parent ─▶ births and Predictor, made once under target/bench-data
//!       └─▶ child process per run: mainstem, bare, mainstem, bare, ...   (peak memory is the child's own)
//! ```
//!
//! `cargo bench --bench batch_predict -- --rows 10000000 --json`

mod bare_loop;
#[path = "../../examples/natality/births.rs"]
mod births;
mod dataset;
#[path = "../../examples/natality/generator.rs"]
mod generator;
#[path = "../../examples/shared/usage.rs"]
mod usage;
mod with_mainstem;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

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
    /// How many workers and threads; by default one per core.
    #[arg(long)]
    workers: Option<usize>,
    /// Also runs Polars with onnxruntime by hand; needs a Python with benches/peers/requirements.txt.
    #[arg(long)]
    peer: bool,
    /// The Python for `--peer`.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Contender {
    Mainstem,
    Bare,
}

/// What one run has taken.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Run {
    rows: u64,
    seconds: f64,
    cpu_seconds: f64,
    peak_rss_bytes: u64,
}

/// Medians over the rounds.
#[derive(Debug, Serialize)]
struct Figures {
    rows_per_second: f64,
    cpu_seconds: f64,
    peak_rss_bytes: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let n_rows = options
        .rows
        .unwrap_or(if options.bench { ROWS } else { ROWS_AS_TEST });
    let workers = match options.workers {
        Some(n) => n.max(1),
        None => std::thread::available_parallelism()?.get(),
    };
    let data = dataset::Dataset::of(n_rows);
    if let Some(contender) = options.child {
        let run = measure(contender, &data, workers)?;
        println!("{}", serde_json::to_string(&run)?);
        return Ok(());
    }
    let backend = data.prepare(workers)?;
    let (mut mainstem, mut bare, mut polars) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds.max(1) {
        let (ours, theirs) = (
            child("mainstem", n_rows, workers)?,
            child("bare", n_rows, workers)?,
        );
        eprintln!("round {round}: mainstem {ours:?}\n         bare     {theirs:?}");
        mainstem.push(ours);
        bare.push(theirs);
        if options.peer {
            let theirs = peer(&options.python, &data)?;
            eprintln!("         polars   {theirs:?}");
            polars.push(theirs);
        }
    }
    dataset::check_agreement(&data)?;
    print(
        &options,
        backend,
        n_rows,
        workers,
        [&mainstem, &bare, &polars],
    )
}

fn measure(
    contender: Contender,
    data: &dataset::Dataset,
    workers: usize,
) -> Result<Run, Box<dyn Error>> {
    let cpu = usage::cpu_seconds();
    let started = Instant::now();
    let rows = match contender {
        Contender::Mainstem => with_mainstem::run(data, workers)?,
        Contender::Bare => bare_loop::run(data, workers)?,
    };
    Ok(Run {
        rows,
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: usage::cpu_seconds() - cpu,
        peak_rss_bytes: usage::peak_rss_bytes(),
    })
}

fn child(contender: &str, n_rows: usize, workers: usize) -> Result<Run, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--child", contender, "--rows", &n_rows.to_string()])
        .args(["--workers", &workers.to_string()]);
    last_line(command)
}

fn peer(python: &Path, data: &dataset::Dataset) -> Result<Run, Box<dyn Error>> {
    let mut command = Command::new(python);
    command
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/benches/peers/polars_onnxruntime.py"
        ))
        .args([
            data.births(),
            data.predictor().join("model.onnx"),
            data.out("polars"),
        ]);
    last_line(command)
}

/// Runs a command and reads the JSON object on the last line of its output.
fn last_line(mut command: Command) -> Result<Run, Box<dyn Error>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}", output.status).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().ok_or("no output")?;
    Ok(serde_json::from_str(line)?)
}

fn figures(runs: &[Run]) -> Figures {
    Figures {
        rows_per_second: median(runs.iter().map(|r| r.rows as f64 / r.seconds)),
        cpu_seconds: median(runs.iter().map(|r| r.cpu_seconds)),
        peak_rss_bytes: median(runs.iter().map(|r| r.peak_rss_bytes as f64)) as u64,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(
    options: &Options,
    backend: String,
    n_rows: usize,
    workers: usize,
    runs: [&[Run]; 3],
) -> Result<(), Box<dyn Error>> {
    let named = ["mainstem", "bare loop", "polars"].into_iter().zip(runs);
    println!(
        "{n_rows} rows, {workers} workers, back-end {backend}, medians of {} rounds",
        options.rounds
    );
    println!(
        "{:<10} {:>14} {:>12} {:>10}",
        "", "rows/s", "CPU seconds", "peak MB"
    );
    for (name, runs) in named.filter(|(_, runs)| !runs.is_empty()) {
        let Figures {
            rows_per_second,
            cpu_seconds,
            peak_rss_bytes,
        } = figures(runs);
        let megabytes = peak_rss_bytes as f64 / 1e6;
        println!("{name:<10} {rows_per_second:>14.0} {cpu_seconds:>12.2} {megabytes:>10.0}");
    }
    let (ours, bare) = (figures(runs[0]), figures(runs[1]));
    let ratio_to_bare_loop = ours.cpu_seconds / bare.cpu_seconds;
    println!("CPU seconds over the bare loop's: {ratio_to_bare_loop:.3}");
    if options.json {
        let mut json = serde_json::json!({
            "bench": "batch_predict", "rows": n_rows, "workers": workers, "backend": backend,
            "rows_per_second": ours.rows_per_second, "cpu_seconds": ours.cpu_seconds,
            "peak_rss_bytes": ours.peak_rss_bytes, "ratio_to_bare_loop": ratio_to_bare_loop,
            "bare_loop": bare,
        });
        if !runs[2].is_empty() {
            let theirs = figures(runs[2]);
            json["ratio_to_polars"] = (ours.rows_per_second / theirs.rows_per_second).into();
            json["polars"] = serde_json::to_value(theirs)?;
        }
        println!("{json}");
    }
    Ok(())
}
