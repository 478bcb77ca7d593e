//! Mainstem alone, over more and more rows or workers: what grows, and what must not.

use std::error::Error;

use crate::contest::{Run, table};
use crate::dataset::Dataset;
use crate::figures::Figures;

/// The heads of [`cells`].
pub(crate) const HEADER: [&str; 5] = ["rows/s", "seconds", "CPU s", "CPU ns/row", "peak MB"];

/// Runs `once` for each size in turn, `rounds` times over, and prints a line per size.
///
/// Peak memory is to stay the same, and so is the processor time per row.
///
/// # Errors
/// If a run fails.
pub(crate) fn of_rows(
    sizes: &[Dataset],
    rounds: usize,
    once: impl Fn(&Dataset) -> Result<Run, Box<dyn Error>>,
) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut runs = vec![Vec::new(); sizes.len()];
    for round in 1..=rounds {
        for (size, runs) in sizes.iter().zip(&mut runs) {
            let run = once(size)?;
            size.remove_output("mainstem")?;
            eprintln!("round {round}: {run:?}");
            runs.push(run);
        }
    }
    let figures: Vec<Figures> = runs.iter().map(|runs| Figures::of(runs)).collect();
    let named = sizes.iter().zip(&figures);
    println!(
        "{}",
        table(
            ["rows"].into_iter().chain(HEADER),
            named.map(|(size, figures)| line(&size.n_rows().to_string(), figures)),
        )
    );
    let of = |figure: fn(&Figures) -> f64| figures.iter().map(figure).collect::<Vec<f64>>();
    let (peak, cpu) = (of(|f| f.peak_rss_bytes as f64), of(|f| f.cpu_ns_per_row));
    let spread = ratio(
        peak.iter().copied().fold(f64::MIN, f64::max),
        peak.iter().copied().fold(f64::MAX, f64::min),
    );
    // Small jobs pay their start, so the last is held against ten million rows where they are there.
    let base = sizes
        .iter()
        .position(|s| s.n_rows() == 10_000_000)
        .unwrap_or(0);
    let growth = ratio(cpu[cpu.len() - 1], cpu[base]);
    println!("most over least peak memory: {spread:.2}");
    println!(
        "CPU per row of {} rows over that of {}: {growth:.3}",
        sizes[sizes.len() - 1].n_rows(),
        sizes[base].n_rows()
    );
    Ok(serde_json::json!({
        "bench": "batch_predict_series",
        "rows": sizes.iter().map(Dataset::n_rows).collect::<Vec<_>>(),
        "figures": figures, "peak_rss_spread": spread, "cpu_per_row_growth": growth,
    }))
}

/// Runs `once` for each number of workers in turn, `rounds` times over, and prints a line for each.
///
/// # Errors
/// If a run fails.
pub(crate) fn of_workers(
    workers: &[usize],
    rounds: usize,
    once: impl Fn(usize) -> Result<Run, Box<dyn Error>>,
) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut runs = vec![Vec::new(); workers.len()];
    for round in 1..=rounds {
        for (n, runs) in workers.iter().zip(&mut runs) {
            let run = once(*n)?;
            eprintln!("round {round}, {n} workers: {run:?}");
            runs.push(run);
        }
    }
    let figures: Vec<Figures> = runs.iter().map(|runs| Figures::of(runs)).collect();
    let speed = |i: usize| ratio(figures[i].rows_per_second, figures[0].rows_per_second);
    let lines = (0..workers.len()).map(|i| {
        let mut cells = line(&workers[i].to_string(), &figures[i]);
        cells.push(format!("{:.2}", speed(i)));
        cells
    });
    let header = ["workers"].into_iter().chain(HEADER).chain(["speed-up"]);
    println!("{}", table(header, lines));
    Ok(serde_json::json!({
        "bench": "batch_predict_workers", "workers": workers, "figures": figures,
        "speed_up": speed(workers.len() - 1),
    }))
}

/// Cells under [`HEADER`].
pub(crate) fn cells(figures: &Figures) -> Vec<String> {
    vec![
        format!("{:.0}", figures.rows_per_second),
        format!("{:.2}", figures.seconds),
        format!("{:.2}", figures.cpu_seconds),
        format!("{:.0}", figures.cpu_ns_per_row),
        format!("{:.0}", figures.peak_rss_bytes as f64 / 1e6),
    ]
}

fn line(name: &str, figures: &Figures) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    cells.extend(self::cells(figures));
    cells
}

fn ratio(a: f64, b: f64) -> f64 {
    a / b
}
