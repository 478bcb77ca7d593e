//! Filter, project, group and join over Parquet files, beside DuckDB and Polars.
//!
//! ```text
//! parent ─▶ facts and ids, made once under target/bench-data
//!       └─▶ child process per query and run: mainstem, duckdb, polars, mainstem, ...
//!             reads the files once to warm up, then is measured; the answers must agree
//! ```
//!
//! `cargo bench --bench relational -- --peers duckdb,polars --json`; `benches/README.md` has the rest.

mod answer;
#[path = "../shared/contest.rs"]
mod contest;
mod dataset;
#[path = "../shared/figures.rs"]
mod figures;
mod keep;
mod query;
#[path = "../../examples/shared/usage.rs"]
mod usage;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Parser, ValueEnum};

use answer::{Answer, Answered};
use contest::{Run, itself, last_line, table};
use dataset::{Dataset, Skew};
use figures::Figures;
use query::Query;

/// Facts when nothing else is said.
const ROWS: usize = 10_000_000;
/// Facts when cargo only wants to know that the benchmark works.
const ROWS_AS_TEST: usize = 20_000;

/// Measures relational queries, alternating with the peers, each run in its own process.
#[derive(Debug, Parser)]
struct Options {
    /// How many facts.
    #[arg(long)]
    rows: Option<usize>,
    /// How often each contender answers each query.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many workers and threads; by default one per core.
    #[arg(long)]
    workers: Option<usize>,
    /// How often each key stands in the facts.
    #[arg(long, value_enum, default_value_t = Skew::Uniform)]
    skew: Skew,
    /// Only these queries.
    #[arg(long, value_enum, value_delimiter = ',')]
    queries: Vec<Query>,
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
    /// Set for a child process: make the data. Its memory would count as that of children of this process.
    #[arg(long, hide = true)]
    prepare: bool,
    /// Set for a child process: answer this once and print an `Answered`.
    #[arg(long, hide = true)]
    child: Option<Query>,
}

/// Another engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Duckdb,
    Polars,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Duckdb => "duckdb",
            Self::Polars => "polars",
        }
    }
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
    let data = Dataset::of(n_rows, options.skew);
    if let Some(query) = options.child {
        let answered = answer(query, &data, workers)?;
        println!("{}", serde_json::to_string(&answered)?);
        return Ok(());
    }
    if options.prepare {
        data.prepare().map_err(|e| e as Box<dyn Error>)?;
        println!("{}", data.n_rows);
        return Ok(());
    }
    let mut make = itself()?;
    make.arg("--prepare")
        .args(arguments(&options, &data, workers));
    last_line::<usize>(make)?;
    let (skew, rounds) = (options.skew.name(), options.rounds.max(1));
    println!("{n_rows} facts, keys {skew}, {workers} workers, medians of {rounds} rounds");
    let queries = match options.queries.as_slice() {
        [] => Query::ALL.to_vec(),
        some => some.to_vec(),
    };
    let mut json = serde_json::json!({
        "bench": "relational", "rows": n_rows, "skew": skew, "workers": workers,
    });
    let mut lines = Vec::new();
    for query in queries {
        let figures = contest(query, &options, &data, workers)?;
        lines.extend(lines_of(query, &options, &figures));
        json[query.name()] = json_of(&options, &figures)?;
    }
    let header = [
        "query",
        "by",
        "ms",
        "CPU ms",
        "peak MB",
        "mainstem's speed over it",
    ];
    println!("{}", table(header, lines));
    if options.json {
        println!("{json}");
    }
    Ok(())
}

/// What a child does: the query once to warm up, and once to be measured.
fn answer(query: Query, data: &Dataset, workers: usize) -> Result<Answered, Box<dyn Error>> {
    query.run(data, workers)?;
    let mut rows = Vec::new();
    let run = Run::of(|| {
        rows = query.run(data, workers)?;
        Ok(data.n_rows as u64)
    })?;
    let answer = Answer::of(&rows)?;
    Ok(Answered { run, answer })
}

/// All contenders in turn; Mainstem's figures come first.
fn contest(
    query: Query,
    options: &Options,
    data: &Dataset,
    workers: usize,
) -> Result<Vec<Figures>, Box<dyn Error>> {
    let mut runs = vec![Vec::new(); 1 + options.peers.len()];
    let mut first: Option<Answer> = None;
    for round in 1..=options.rounds.max(1) {
        for (place, runs) in runs.iter_mut().enumerate() {
            let peer = place.checked_sub(1).map(|p| options.peers[p]);
            let answered = match peer {
                None => ask_child(query, options, data, workers)?,
                Some(peer) => ask_peer(peer, query, options, data, workers)?,
            };
            let by = peer.map_or("mainstem", Peer::name);
            let query = query.name();
            eprintln!("round {round}: {query:<10} {by:<8} {:?}", answered.run);
            let expected = first.get_or_insert_with(|| answered.answer.clone());
            if !expected.agrees(&answered.answer) {
                let (a, b) = (expected, answered.answer);
                return Err(format!("{by} answers {query} by {b:?}, not {a:?}").into());
            }
            runs.push(answered.run);
        }
    }
    Ok(runs.iter().map(|runs| Figures::of(runs)).collect())
}

fn ask_child(
    query: Query,
    options: &Options,
    data: &Dataset,
    workers: usize,
) -> Result<Answered, Box<dyn Error>> {
    let mut command = itself()?;
    command
        .args(["--child", &query.name()])
        .args(arguments(options, data, workers));
    last_line(command)
}

/// What tells a child which data it works on.
fn arguments(options: &Options, data: &Dataset, workers: usize) -> [String; 6] {
    let (n_rows, workers) = (data.n_rows.to_string(), workers.to_string());
    let skew = options.skew.name();
    ["--skew", skew, "--rows", &n_rows, "--workers", &workers].map(str::to_owned)
}

fn ask_peer(
    peer: Peer,
    query: Query,
    options: &Options,
    data: &Dataset,
    workers: usize,
) -> Result<Answered, Box<dyn Error>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/relational.py");
    let mut command = Command::new(&options.python);
    command
        .arg(script)
        .args([peer.name(), &query.name()])
        .args([data.facts(), data.ids()])
        .arg(workers.to_string());
    last_line(command)
}

fn names(options: &Options) -> impl Iterator<Item = &'static str> {
    ["mainstem"]
        .into_iter()
        .chain(options.peers.iter().map(|p| p.name()))
}

fn lines_of(query: Query, options: &Options, figures: &[Figures]) -> Vec<Vec<String>> {
    let line = |(place, (name, f)): (usize, (&str, &Figures))| {
        let speed = f.seconds / figures[0].seconds;
        vec![
            if place == 0 {
                query.name()
            } else {
                String::new()
            },
            name.to_owned(),
            format!("{:.0}", f.seconds * 1e3),
            format!("{:.0}", f.cpu_seconds * 1e3),
            format!("{:.0}", f.peak_rss_bytes as f64 / 1e6),
            if place == 0 {
                String::new()
            } else {
                format!("{speed:.2}")
            },
        ]
    };
    names(options).zip(figures).enumerate().map(line).collect()
}

fn json_of(options: &Options, figures: &[Figures]) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut json = serde_json::json!({});
    for (name, figures) in names(options).zip(figures) {
        json[name] = serde_json::to_value(figures)?;
    }
    let best = figures
        .iter()
        .skip(1)
        .map(|f| f.seconds)
        .fold(f64::INFINITY, f64::min);
    if best.is_finite() {
        json["speed_over_best_peer"] = (best / figures[0].seconds).into();
    }
    Ok(json)
}
