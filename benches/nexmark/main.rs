//! Nexmark: queries over an auction house's events in event time, beside programs written by hand and peers.
//!
//! ```text
//! parent ─▶ events, made once under target/bench-data
//!       └─▶ child process per query and run: mainstem, hand-written, duckdb, flink, mainstem, ...
//!             answers once to warm up and to hash its rows, then is measured; the hashes must agree
//! ```
//!
//! `cargo bench --bench nexmark -- --hand-written --peers duckdb --json`; `benches/README.md` has the rest.

#[path = "../shared/contest.rs"]
mod contest;
mod dataset;
mod digest;
mod events;
#[path = "../shared/figures.rs"]
mod figures;
mod generator;
mod hand_written;
mod latency;
mod live_keys;
mod memory;
mod query;
mod side_shows;
mod tally;
#[path = "../../examples/shared/usage.rs"]
mod usage;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use contest::{Run, itself, last_line, table};
use dataset::{Dataset, Format, N_CSV_FILES};
use digest::Digest;
use figures::Figures;
use query::Query;

/// Events when nothing else is said.
const EVENTS: u64 = 10_000_000;
/// Events when cargo only wants to know that the benchmark works.
const EVENTS_AS_TEST: u64 = 100_000;

/// How long rows are sent to measure latency.
const LATENCY_LASTS: Duration = Duration::from_secs(10);

/// Measures the queries of Nexmark, alternating with the peers, each run in its own process.
#[derive(Debug, Parser)]
struct Options {
    /// How many events.
    #[arg(long)]
    events: Option<u64>,
    /// How often each contender answers each query.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many workers and threads; by default one per core.
    #[arg(long)]
    workers: Option<usize>,
    /// What Mainstem and DuckDB read; programs written by hand read Parquet, and Flink reads CSV.
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    format: Format,
    /// Only these queries.
    #[arg(long, value_enum, value_delimiter = ',')]
    queries: Vec<Query>,
    /// Also runs the programs written by hand.
    #[arg(long)]
    hand_written: bool,
    /// Set for a child process: run the program that is written by hand as a stream.
    #[arg(long, hide = true)]
    streamed: bool,
    /// Also runs these; they need Pythons with benches/peers/requirements.txt and requirements_flink.txt.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// The Python for DuckDB.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The Python for Flink.
    #[arg(long, default_value = "python3")]
    flink_python: PathBuf,
    /// Instead: how long a row takes from when it is due to its result, at so many rows a second.
    #[arg(long, value_delimiter = ',')]
    latency: Vec<u64>,
    /// Instead: how much memory a sliding window takes, over so many rows.
    #[arg(long, value_delimiter = ',')]
    memory: Vec<u64>,
    /// Prints the figures as one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Set for a child process: make the data. Its memory would count as that of children of this process.
    #[arg(long, hide = true)]
    prepare: bool,
    /// Set for a child process: answer this twice and print an `Answered`.
    #[arg(long, hide = true)]
    child: Option<Query>,
    /// Set for a child process: measure so many rows a second and print a `Latency`.
    #[arg(long, hide = true)]
    latency_child: Option<u64>,
    /// Set for a child process: measure so many rows and print a `Run`.
    #[arg(long, hide = true)]
    memory_child: Option<u64>,
}

/// Another engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Duckdb,
    Flink,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Mainstem,
    HandWritten,
    Streamed,
    Peer(Peer),
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Mainstem => "mainstem",
            Self::HandWritten => "hand-written",
            Self::Streamed => "by timely",
            Self::Peer(Peer::Duckdb) => "duckdb",
            Self::Peer(Peer::Flink) => "flink",
        }
    }
}

/// What a child or a peer prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answered {
    #[serde(flatten)]
    run: Run,
    digest: Digest,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let events = match (options.events, options.bench) {
        (Some(events), _) => events,
        (None, true) => EVENTS,
        (None, false) => EVENTS_AS_TEST,
    };
    let workers = match options.workers {
        Some(n) => n.max(1),
        None => std::thread::available_parallelism()?.get(),
    };
    let data = Dataset::of(events);
    if let Some(query) = options.child {
        let answered = answer(query, &options, &data, workers)?;
        println!("{}", serde_json::to_string(&answered)?);
        return Ok(());
    }
    if let Some(rows_per_second) = options.latency_child {
        let latency = latency::run(rows_per_second, LATENCY_LASTS, workers)?;
        println!("{}", serde_json::to_string(&latency)?);
        return Ok(());
    }
    if let Some(n_rows) = options.memory_child {
        let run = memory::run(n_rows, workers)?;
        println!("{}", serde_json::to_string(&run)?);
        return Ok(());
    }
    if !options.latency.is_empty() {
        return side_shows::latency(&options, workers);
    }
    if !options.memory.is_empty() {
        return side_shows::memory(&options, workers);
    }
    if options.prepare {
        data.prepare().map_err(|e| e as Box<dyn Error>)?;
        println!("{events}");
        return Ok(());
    }
    let mut make = itself()?;
    make.arg("--prepare")
        .args(["--events", &events.to_string()]);
    last_line::<u64>(make)?;
    let (format, rounds) = (options.format.name(), options.rounds.max(1));
    println!("{events} events, {format}, {workers} workers, medians of {rounds} rounds");
    let queries = match options.queries.as_slice() {
        [] => Query::ALL.to_vec(),
        some => some.to_vec(),
    };
    let mut json = serde_json::json!({
        "bench": "nexmark", "events": events, "format": format, "workers": workers,
    });
    let mut lines = Vec::new();
    for query in queries {
        let contenders = contenders(query, &options);
        let figures = contest(query, &contenders, &options, &data, workers)?;
        lines.extend(lines_of(query, &contenders, &figures));
        json[query.name()] = json_of(&contenders, &figures)?;
    }
    let header = [
        "query",
        "by",
        "M events/s",
        "CPU ns/event",
        "peak MB",
        "mainstem's speed over it",
        "mainstem's CPU over it",
    ];
    println!("{}", table(header, lines));
    if options.json {
        println!("{json}");
    }
    Ok(())
}

/// What a child does: the query once to warm up and to hash the rows, and once to be measured.
fn answer(
    query: Query,
    options: &Options,
    data: &Dataset,
    workers: usize,
) -> Result<Answered, Box<dyn Error>> {
    let answer = |hashed| -> Result<Digest, Box<dyn Error>> {
        if options.streamed {
            let digest = hand_written::streamed::answer(query, data, workers, hashed);
            let digest = digest.map_err(|e| e as Box<dyn Error>)?;
            return digest.ok_or_else(|| "nobody has written this query as a stream".into());
        }
        if options.hand_written {
            let digest = hand_written::answer(query, data, workers, hashed)?;
            return digest.ok_or_else(|| "nobody has written this query by hand".into());
        }
        Ok(query.answer(data, options.format, workers, hashed)?)
    };
    let digest = answer(true)?;
    let mut n_rows = 0;
    let run = Run::of(|| {
        n_rows = answer(false)?.n_rows;
        Ok(data.n_events)
    })?;
    if n_rows != digest.n_rows {
        return Err(format!("{n_rows} rows, and {} before that", digest.n_rows).into());
    }
    Ok(Answered { run, digest })
}

/// Who answers a query; Mainstem first.
fn contenders(query: Query, options: &Options) -> Vec<Contender> {
    let reads_the_same = options.format == Format::Parquet;
    let by_hand = options.hand_written && reads_the_same && hand_written::has(query);
    let streamed = by_hand && hand_written::streamed::has(query);
    std::iter::once(Contender::Mainstem)
        .chain(by_hand.then_some(Contender::HandWritten))
        .chain(streamed.then_some(Contender::Streamed))
        .chain(options.peers.iter().map(|peer| Contender::Peer(*peer)))
        .collect()
}

/// All contenders in turn.
fn contest(
    query: Query,
    contenders: &[Contender],
    options: &Options,
    data: &Dataset,
    workers: usize,
) -> Result<Vec<Figures>, Box<dyn Error>> {
    let mut runs = vec![Vec::new(); contenders.len()];
    let mut expected: Option<Digest> = None;
    for round in 1..=options.rounds.max(1) {
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            let answered: Answered = last_line(match contender {
                Contender::Mainstem => child(query, options, data, workers)?,
                Contender::HandWritten => {
                    let mut child = child(query, options, data, workers)?;
                    child.arg("--hand-written");
                    child
                }
                Contender::Streamed => {
                    let mut child = child(query, options, data, workers)?;
                    child.arg("--streamed");
                    child
                }
                Contender::Peer(peer) => command_of(*peer, query, options, data, workers),
            })?;
            let (by, query) = (contender.name(), query.name());
            eprintln!(
                "round {round}: {query} {by:<12} {:?} {:?}",
                answered.run, answered.digest
            );
            let expected = *expected.get_or_insert(answered.digest);
            if answered.digest != expected {
                let found = answered.digest;
                return Err(format!("{by} answers {query} by {found:?}, not {expected:?}").into());
            }
            runs.push(answered.run);
        }
    }
    Ok(runs.iter().map(|runs| Figures::of(runs)).collect())
}

fn child(
    query: Query,
    options: &Options,
    data: &Dataset,
    workers: usize,
) -> Result<Command, Box<dyn Error>> {
    let mut command = itself()?;
    command
        .args(["--child", &query.name()])
        .args(["--events", &data.n_events.to_string()])
        .args(["--workers", &workers.to_string()])
        .args(["--format", options.format.name()]);
    Ok(command)
}

fn command_of(
    peer: Peer,
    query: Query,
    options: &Options,
    data: &Dataset,
    workers: usize,
) -> Command {
    let (python, script, format, n_threads) = match peer {
        Peer::Duckdb => {
            let script = "benches/peers/nexmark_duckdb.py";
            (&options.python, script, options.format, workers)
        }
        // Flink's package has no Parquet in it.
        Peer::Flink => {
            let script = "benches/peers/nexmark_flink.py";
            let n_readers = workers.max(N_CSV_FILES as usize);
            (&options.flink_python, script, Format::Csv, n_readers)
        }
    };
    let mut command = Command::new(python);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .arg(query.name())
        .arg(data.folder(format))
        .arg(data.n_events.to_string())
        .arg(n_threads.to_string());
    command
}

fn lines_of(query: Query, contenders: &[Contender], figures: &[Figures]) -> Vec<Vec<String>> {
    let line = |(place, (contender, f)): (usize, (&Contender, &Figures))| {
        let over = |ratio: f64| match place {
            0 => String::new(),
            _ => format!("{ratio:.2}"),
        };
        vec![
            match place {
                0 => query.name(),
                _ => String::new(),
            },
            contender.name().to_owned(),
            format!("{:.2}", f.rows_per_second / 1e6),
            format!("{:.0}", f.cpu_ns_per_row),
            format!("{:.0}", f.peak_rss_bytes as f64 / 1e6),
            over(f.seconds / figures[0].seconds),
            over(figures[0].cpu_seconds / f.cpu_seconds),
        ]
    };
    contenders
        .iter()
        .zip(figures)
        .enumerate()
        .map(line)
        .collect()
}

fn json_of(
    contenders: &[Contender],
    figures: &[Figures],
) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut json = serde_json::json!({});
    for (contender, figures) in contenders.iter().zip(figures) {
        json[contender.name()] = serde_json::to_value(figures)?;
    }
    for (contender, f) in contenders.iter().zip(figures).skip(1) {
        let ratio = f.seconds / figures[0].seconds;
        json[format!("speed_over_{}", contender.name().replace('-', "_"))] = ratio.into();
    }
    Ok(json)
}
