//! How long a small job takes from the start of its process to its first row out.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Once;
use std::time::Instant;

use mainstem::prelude::*;

use crate::Contender;
use crate::contest::{itself, median, table};
use crate::dataset::Dataset;

/// How many rows the small job has.
pub(crate) const ROWS: usize = 1_000;
/// What the child prints when the first row has come through.
const MARK: &str = "first row";

/// The child: the job itself, which tells when its first row has come through the graph.
///
/// # Errors
/// If the job fails.
pub(crate) fn job(data: &Dataset, with_model: bool, workers: usize) -> Result<()> {
    let pipeline = Pipeline::new("small job");
    let births = pipeline.read("births", connectors::parquet(data.births()));
    let rows = if with_model {
        births.predict(&Predictor::load(&data.predictor(), Backend::Auto)?)
    } else {
        births.filter(col("mother_age").gt(lit(20)))
    };
    let tell = Once::new();
    let (sink, _rows) = connectors::collect();
    rows.map_batches(move |rows| {
        tell.call_once(|| {
            println!("{MARK}");
            // Nobody listens any more if this fails, and then nothing is measured.
            std::io::stdout().flush().unwrap_or_default();
        });
        Ok(rows)
    })
    .write(sink);
    pipeline.run(&RunOptions::new().workers(workers))?;
    Ok(())
}

/// The parent: starts the job `rounds` times with and without a model and prints milliseconds.
///
/// # Errors
/// If a child fails.
pub(crate) fn measure(
    arguments: &[String],
    rounds: usize,
) -> Result<serde_json::Value, Box<dyn Error>> {
    let contenders = [
        ("filter", Contender::FirstRowFiltered),
        ("predict", Contender::FirstRowPredicted),
    ];
    let mut taken = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for ((_, contender), taken) in contenders.iter().zip(&mut taken) {
            taken.push(once(contender.name(), arguments)?);
        }
    }
    let mut json = serde_json::json!({ "bench": "first_row", "rows": ROWS });
    let mut lines = Vec::new();
    for ((name, _), taken) in contenders.iter().zip(&taken) {
        let first = median(taken.iter().map(|(first, _)| *first));
        let whole = median(taken.iter().map(|(_, whole)| *whole));
        lines.push(vec![
            (*name).into(),
            format!("{first:.1}"),
            format!("{whole:.1}"),
        ]);
        json[format!("{name}_first_row_ms")] = first.into();
        json[format!("{name}_whole_ms")] = whole.into();
    }
    println!(
        "{}",
        table(["job of 1000 rows", "ms to first row", "ms to end"], lines)
    );
    Ok(json)
}

/// Milliseconds from before the start of the process to its first row, and to its end.
fn once(contender: String, arguments: &[String]) -> Result<(f64, f64), Box<dyn Error>> {
    let mut command = itself()?;
    command
        .args(["--child", &contender])
        .args(arguments)
        .stdout(Stdio::piped());
    let started = Instant::now();
    let elapsed = || started.elapsed().as_secs_f64() * 1e3;
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or("the child has no output")?;
    let mut first = None;
    for line in BufReader::new(stdout).lines() {
        if line? == MARK {
            first.get_or_insert_with(elapsed);
        }
    }
    let status = child.wait()?;
    let whole = elapsed();
    if !status.success() {
        return Err(format!("{command:?} ended with {status}").into());
    }
    Ok((first.ok_or("the child told of no row")?, whole))
}
