//! What documents say that reports and metrics hold is what a run gives, neither less nor more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstem::engine::ops::Watermarks;
use mainstem::engine::testing::table;
use mainstem::engine::{Error, Progress};
use mainstem::prelude::*;
use serde_json::Value;

use crate::sources::read;

type Names = BTreeSet<String>;

/// The lines of the first table of a document whose head begins so, as the names in quotes of each cell.
fn rows_of(document: &str, head: &str) -> Vec<Vec<Vec<String>>> {
    let lines = document.lines().map(|line| {
        let line = line.trim_start().trim_start_matches('/');
        line.trim_start_matches('!').trim()
    });
    let table = lines.skip_while(|line| !line.starts_with(head));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(|cell| quoted(cell).collect()).collect()
    })
    .collect()
}

fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn fields(value: &Value) -> Names {
    let object = value.as_object();
    assert!(object.is_some(), "no object: {value}");
    object
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

fn names(all: &[&str]) -> Names {
    all.iter().map(|name| (*name).to_owned()).collect()
}

/// Runs a small pipeline in event time that writes a file, or fails on a row.
fn run(name: &str, divide: i32) -> Result<Value, Error> {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new(name);
    let rows = table("at: 3000, 12000, 8000; n: 5, 7, 9");
    pipeline
        .read("sales", connectors::from_record_batches(vec![rows]))
        .assign_timestamps(
            col("at"),
            Watermarks::bounded_out_of_orderness(Duration::from_secs(5)),
        )
        .with_column("share", lit(1) / (col("n") - lit(divide)))
        .write(connectors::csv_sink(folder.path().join("out")));
    let report = folder.path().join("report.json");
    let options = RunOptions::new().workers(1).progress(Progress::Never);
    let outcome = pipeline.run(&options.report_json(&report));
    let json = std::fs::read_to_string(report).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(outcome.is_err(), json["outcome"] == "failed");
    Ok(json)
}

#[test]
fn the_json_of_a_report_has_the_fields_that_its_documentation_lists() {
    let documented = read("engine/src/report/json.rs");
    let rows = rows_of(&documented, "| field |");
    let of_report: Names = rows.iter().flat_map(|row| row[0].clone()).collect();
    let (finished, failed) = (run("finished", 0).unwrap(), run("failed", 7).unwrap());
    for json in [&finished, &failed] {
        assert_eq!(fields(json), of_report);
    }
    // The second cell names the fields of what the first one names.
    let inside: BTreeMap<&str, Names> = rows
        .iter()
        .map(|row| (row[0][0].as_str(), row[1].iter().cloned().collect()))
        .collect();
    assert_eq!(fields(&finished["machine"]), inside["machine"]);
    assert_eq!(fields(&failed["error"]), inside["error"]);
    assert_eq!(fields(&finished["slowest"]), inside["slowest"]);
    for (outer, inner) in [("time_line", "series"), ("published", "files")] {
        let outer = match &finished[outer] {
            Value::Array(all) => (outer, &all[0]),
            one => (outer, one),
        };
        let mut found = fields(outer.1);
        found.extend(fields(&outer.1[inner][0]));
        assert_eq!(found, inside[outer.0]);
    }
    // What is below the table speaks of phases and nodes, one sentence after the other.
    let below = documented.split("A phase has a `number`").nth(1).unwrap();
    let (of_phase, below) = below.split_once(". A node has the fields of").unwrap();
    let mut phase: Names = quoted(of_phase).collect();
    phase.insert("number".into());
    assert_eq!(fields(&finished["phases"][0]), phase);
    let node = read("engine/src/report/mod.rs");
    let node = node.split("pub struct NodeReport {").nth(1).unwrap();
    let node = node.split("\n}").next().unwrap();
    let own = node
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub "));
    let mut of_node: Names = own
        .filter_map(|field| Some(field.split_once(':')?.0.to_owned()))
        .map(|field| {
            if field == "busy" {
                "busy_seconds".into()
            } else {
                field
            }
        })
        .collect();
    of_node.insert("busy_share".into());
    // A node whose rows have no event time has no watermark.
    for node in finished["phases"][0]["nodes"].as_array().unwrap() {
        let mut found = fields(node);
        found.insert("watermark".into());
        assert_eq!(found, of_node, "{node}");
    }
    let (_, of_watermark) = below.split_once("its `watermark` has").unwrap();
    let of_watermark: Names = quoted(of_watermark.split("pub fn").next().unwrap()).collect();
    // At the end of a run none will come any more.
    let watermark = &failed["phases"][0]["nodes"][1]["watermark"];
    assert_eq!(fields(watermark), of_watermark);
    assert_eq!(
        fields(&finished["phases"][0]["nodes"][1]["inputs"][0]),
        names(&["from", "port"])
    );
}

/// Those of a metric that is not a counter of all runs stand with labels, of which the page names each.
#[cfg(feature = "prometheus")]
#[test]
fn prometheus_collects_the_metrics_that_its_page_lists() {
    use mainstem::engine::prometheus;

    prometheus::install().unwrap();
    // It ends in the midst of its rows, so event time stands somewhere.
    run("documented", 7).unwrap();
    let text = prometheus::metrics_text();
    let rows = rows_of(&read("engine/src/prometheus.rs"), "| metric |");
    let mut labels: Vec<String> = Vec::new();
    let documented: BTreeMap<String, Names> = rows
        .iter()
        .map(|row| {
            // A ditto mark stands for the labels above, after which others may follow.
            let more = row[2]
                .iter()
                .filter(|name| *name != "finished" && *name != "failed");
            let more: Vec<String> = more.cloned().collect();
            let all = match more.first().map(String::as_str) {
                Some("pipeline") => more,
                _ => labels.iter().cloned().chain(more).collect(),
            };
            if labels.is_empty() {
                labels.clone_from(&all);
            }
            (row[0][0].clone(), all.into_iter().collect())
        })
        .collect();
    let mut found: BTreeMap<String, Names> = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| line.contains("pipeline=\"documented\""))
    {
        let (name, rest) = line.split_once('{').unwrap();
        let labels = rest.split('}').next().unwrap().split("\",");
        let labels = labels.map(|label| label.split('=').next().unwrap().to_owned());
        found.entry(name.to_owned()).or_default().extend(labels);
    }
    assert_eq!(found, documented, "{text}");
}
