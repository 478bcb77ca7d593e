//! What is reported of runs that go well, and of runs that fail.

use expect_test::expect;
use serde_json::{Value, json};

use crate::testing::table;
use crate::{
    ArtifactId, ArtifactRef, Artifacts, Collection, Description, Error, OnBadRow, Pipeline,
    Progress, Result, Role, RunOptions, Step, artifact::AnyArtifact, col, connectors, lit,
};

fn options() -> RunOptions {
    RunOptions::new().workers(2).progress(Progress::Never)
}

fn numbers(pipeline: &Pipeline) -> Collection {
    let batches = vec![table("n: 0, 1, 2"), table("n: 3, 4")];
    pipeline.read("numbers", connectors::from_record_batches(batches))
}

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_report_has_the_graph_the_time_line_and_the_machine() {
    let pipeline = Pipeline::new("reported");
    let (out, _) = connectors::collect();
    let (dead, _) = connectors::collect();
    let divided = numbers(&pipeline).with_column("q", lit(8) / (col("n") - lit(2)));
    divided.dead_letters().named("dead").write(dead);
    divided.named("out").write(out);
    let report = pipeline.run(&options()).unwrap();
    let nodes: Vec<String> = report.phases[0]
        .nodes
        .iter()
        .map(|n| {
            let inputs: Vec<_> = n
                .inputs
                .iter()
                .map(|i| format!("{}:{}", i.from, i.port))
                .collect();
            format!("{:?} {} {:?} {}", n.role, n.node, inputs, n.on_bad_row)
        })
        .collect();
    expect![[r#"
        Source numbers [] fail
        Transform with_column ["numbers:out"] dead_letter
        Sink dead ["with_column:dead_letters"] fail
        Sink out ["with_column:out"] fail"#]]
    .assert_eq(&nodes.join("\n"));
    let line = &report.time_line;
    let rows: Vec<_> = line
        .series
        .iter()
        .map(|s| (&*s.node, s.role, s.rows.last()))
        .collect();
    assert_eq!(
        rows,
        [
            ("numbers", Role::Source, Some(&5)),
            ("dead", Role::Sink, Some(&1)),
            ("out", Role::Sink, Some(&4)),
        ]
    );
    assert!(line.at.is_sorted() && line.at.len() >= 2);
    assert!(line.at.iter().all(|at| *at <= report.wall));
    assert!(report.started.is_some() && report.peak_memory_bytes > 0);
    assert!(report.machine.cores >= 1 && report.machine.memory_bytes > 0);
    assert_eq!(report.options["workers"], json!(2));
    assert!(report.phases[0].peak_credit_bytes > 0 && report.error.is_none());
}

#[test]
fn reports_are_written_when_the_run_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (html, json) = (
        folder.path().join("run.html"),
        folder.path().join("run.json"),
    );
    let pipeline = Pipeline::new("reported");
    let sink = connectors::parquet_sink(folder.path().join("out"));
    numbers(&pipeline).named("out").write(sink);
    let options = options().report_html(&html).report_json(&json);
    let report = pipeline.run(&options).unwrap();
    assert_eq!(read(&html), report.to_html());
    assert_eq!(
        serde_json::from_str::<Value>(&read(&json)).unwrap(),
        report.to_json()
    );
    let (node, files) = &report.files[0];
    let sizes: u64 = files.iter().filter_map(|f| f.bytes).sum();
    assert_eq!(
        (node.as_str(), sizes),
        ("out", report.published[0].1.n_bytes)
    );
}

#[test]
fn a_run_that_fails_reports_what_was_done_and_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let (html, json) = (
        folder.path().join("run.html"),
        folder.path().join("run.json"),
    );
    let pipeline = Pipeline::new("failing");
    let (sink, _) = connectors::collect();
    let divided = numbers(&pipeline).with_column("q", lit(8) / (col("n") - lit(4)));
    divided.on_bad_row(OnBadRow::Fail).write(sink);
    let options = options().workers(1).report_html(&html).report_json(&json);
    let error = pipeline.run(&options).unwrap_err();
    let json: Value = serde_json::from_str(&read(&json)).unwrap();
    assert_eq!(
        (&json["outcome"], &json["error"]["report"]),
        (&json!("failed"), &json!(error.report()))
    );
    assert_eq!(json["phases"][0]["nodes"][0]["rows_in"], 5);
    assert_eq!(json["published"], json!([]));
    assert!(read(&html).contains("✕ failed"));
}

#[test]
fn a_place_for_the_report_that_is_not_there_is_found_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::new("reported");
    let (sink, rows) = connectors::collect();
    numbers(&pipeline).write(sink);
    let options = options().report_html(folder.path().join("not there/run.html"));
    let error = pipeline.run(&options).unwrap_err();
    assert!(error.is_environment() && rows.take().is_empty());
    let text = error
        .to_string()
        .replace(&folder.path().display().to_string(), "…");
    expect![[r#"
        the report cannot be written to "…/not there/run.html"
          The system says: entity not found.
          Hint: Its folder must be there and may be written to."#]]
    .assert_eq(&text);
}

/// A step that does nothing, or fails.
#[derive(Debug)]
struct Idle(Option<&'static str>);

impl Step for Idle {
    fn describe(&self) -> Description {
        Description::new("idle", Value::Null)
    }

    fn needs(&self) -> Vec<ArtifactId> {
        Vec::new()
    }

    fn run(&self, _: &Artifacts) -> Result<AnyArtifact> {
        match self.0 {
            Some(message) => Err(Error::environment(message)),
            None => Ok(std::sync::Arc::new(7i64)),
        }
    }
}

#[test]
fn steps_are_nodes_of_their_phase() {
    let pipeline = Pipeline::new("steps");
    let seven: ArtifactRef<i64> = pipeline.step("seven", Idle(None));
    let report = pipeline.run(&options()).unwrap();
    assert_eq!(*report.artifact(&seven).unwrap(), 7);
    let node = report.node("seven").unwrap();
    assert_eq!((node.role, node.kind.as_str()), (Role::Step, "idle"));
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    let _: ArtifactRef<i64> = pipeline.step("broken", Idle(Some("gone")));
    pipeline.run(&options().report_json(&json)).unwrap_err();
    let json: Value = serde_json::from_str(&read(&json)).unwrap();
    assert_eq!(json["error"]["message"], "gone");
    assert_eq!(json["phases"][0]["nodes"][1]["node"], "broken");
}
