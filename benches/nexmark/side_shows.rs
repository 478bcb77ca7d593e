//! What is measured besides the queries, each run in a process of its own: latency, and memory over sizes.

use std::error::Error;

use crate::Options;
use crate::contest::{Run, itself, last_line, median, table};
use crate::latency::Latency;

/// The `--latency` of the options: medians over the rounds.
pub(crate) fn latency(options: &Options, workers: usize) -> Result<(), Box<dyn Error>> {
    println!("{workers} workers, medians of {} rounds", options.rounds);
    let (mut lines, mut json) = (Vec::new(), Vec::new());
    for rows_per_second in &options.latency {
        let mut rounds: Vec<Latency> = Vec::new();
        for round in 1..=options.rounds.max(1) {
            let mut child = itself()?;
            child
                .args(["--latency-child", &rows_per_second.to_string()])
                .args(["--workers", &workers.to_string()]);
            let latency = last_line(child)?;
            eprintln!("round {round}: {latency:?}");
            rounds.push(latency);
        }
        let of = |figure: fn(&Latency) -> f64| median(rounds.iter().map(figure));
        let figures = [
            of(|l| l.p50_us),
            of(|l| l.p99_us),
            of(|l| l.p999_us),
            of(|l| l.max_us),
        ];
        let micros = figures.iter().map(|us| format!("{us:.0}"));
        lines.push(
            std::iter::once(rows_per_second.to_string())
                .chain(micros)
                .collect(),
        );
        let [p50_us, p99_us, p999_us, max_us] = figures;
        json.push(serde_json::json!({
            "rows_per_second": rows_per_second,
            "p50_us": p50_us, "p99_us": p99_us, "p999_us": p999_us, "max_us": max_us,
        }));
    }
    let header = ["rows/s", "p50 µs", "p99 µs", "p99.9 µs", "most µs"];
    println!("{}", table(header, lines));
    if options.json {
        println!(
            "{}",
            serde_json::json!({ "bench": "nexmark latency", "runs": json })
        );
    }
    Ok(())
}

/// The `--memory` of the options: one run of each size.
pub(crate) fn memory(options: &Options, workers: usize) -> Result<(), Box<dyn Error>> {
    println!("{workers} workers");
    let mut runs: Vec<Run> = Vec::new();
    for n_rows in &options.memory {
        let mut child = itself()?;
        child
            .args(["--memory-child", &n_rows.to_string()])
            .args(["--workers", &workers.to_string()]);
        let run: Run = last_line(child)?;
        eprintln!("{run:?}");
        runs.push(run);
    }
    let of_first = |run: &Run| run.peak_rss_bytes as f64 / runs[0].peak_rss_bytes as f64;
    let lines = runs.iter().map(|run| {
        vec![
            run.rows.to_string(),
            format!("{:.2}", run.rows as f64 / run.seconds / 1e6),
            format!("{:.0}", run.cpu_seconds / run.rows as f64 * 1e9),
            format!("{:.0}", run.peak_rss_bytes as f64 / 1e6),
            format!("{:.3}", of_first(run)),
        ]
    });
    let header = [
        "rows",
        "M rows/s",
        "CPU ns/row",
        "peak MB",
        "over the first",
    ];
    println!("{}", table(header, lines));
    if options.json {
        println!(
            "{}",
            serde_json::json!({ "bench": "nexmark memory", "runs": runs })
        );
    }
    Ok(())
}
