//! Where the watermark stood, and who held it back, as a report and the metrics of a run tell it.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use crate::ops::Watermarks;
use crate::testing::table;
use crate::transform::Watermark;
use crate::{
    Artifacts, Batch, Clock, Description, Error, Operator, Output, Pipeline, Position, Progress,
    Result, RunOptions, Source, SourceProperties, Split, SplitReader, Transform, col, connectors,
};

/// Two splits of a batch each, which then have no rows for ever.
#[derive(Debug)]
struct Meters;

struct Meter(Option<RecordBatch>);

impl Source for Meters {
    fn describe(&self) -> Description {
        Description::new("meters", Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(table("at: 0").schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |name: &str| Split {
            name: name.to_owned(),
            locator: Value::Null,
            n_rows: None,
            n_bytes: None,
        };
        Ok(["fast", "slow"].map(split).to_vec())
    }

    fn open(
        &self,
        split: &Split,
        _: Position,
        _: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let rows = match &*split.name {
            "fast" => "at: 7000, 9000",
            _ => "at: 2000, 3000, 1000",
        };
        Ok(Box::new(Meter(Some(table(rows)))))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            bounded: false,
            ..SourceProperties::default()
        }
    }
}

impl SplitReader for Meter {
    fn next_batch(&mut self, _: &mut Output) -> Result<Option<RecordBatch>> {
        let none = || table("at: 0").slice(0, 0);
        Ok(Some(self.0.take().unwrap_or_else(none)))
    }
}

/// Ends the run when the watermark has come to 2.5 seconds.
#[derive(Clone, Debug)]
struct Stop;

impl Transform for Stop {
    fn describe(&self) -> Description {
        Description::new("stop", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Stop))
    }
}

impl Operator for Stop {
    fn on_batch(&mut self, _: usize, batch: Batch, out: &mut Output) -> Result<()> {
        out.push(batch);
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, _: &mut Output) -> Result<()> {
        match watermark.0 {
            ..2_500 => Ok(()),
            _ => Err(Error::data("it is late enough")),
        }
    }
}

/// A run that has come to the watermark of the slower meter; its report.
fn stopped(name: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    let pipeline = Pipeline::new(name);
    pipeline
        .read("meters", Meters)
        .named("timed")
        .assign_timestamps(
            col("at"),
            Watermarks::bounded_out_of_orderness(Duration::from_millis(500)),
        )
        .apply(Stop)
        .write(connectors::collect().0);
    let options = RunOptions::new()
        .workers(1)
        .progress(Progress::Never)
        .clock(Clock::manual(10_000))
        .report_json(&json);
    let error = pipeline.run(&options).unwrap_err();
    assert!(error.to_string().contains("it is late enough"), "{error}");
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

#[test]
fn a_report_says_where_event_time_stood_and_who_held_it_back() {
    let report = stopped("meters");
    let nodes = report["phases"][0]["nodes"].as_array().unwrap();
    let timed = nodes.iter().find(|node| node["node"] == "timed").unwrap();
    assert_eq!(
        timed["watermark"],
        json!({ "at_ms": 2_500, "lag_seconds": 7.5, "held_back_by": "meters, slow" })
    );
    // The row of the first second stands behind that of the third.
    assert_eq!(timed["behind"], 1);
}

#[cfg(feature = "prometheus")]
#[test]
fn metrics_say_where_event_time_stood_and_who_held_it_back() {
    crate::prometheus::install().unwrap();
    stopped("metered");
    let text = crate::prometheus::metrics_text();
    let of_node = "pipeline=\"metered\",node=\"timed\",kind=\"assign_timestamps\"";
    for line in [
        format!("mainstem_node_watermark_seconds{{{of_node}}} 2.5"),
        format!("mainstem_node_watermark_lag_seconds{{{of_node}}} 7.5"),
        format!("mainstem_node_watermark_held_back{{{of_node},by=\"meters, slow\"}} 1"),
        format!("mainstem_node_rows_behind_total{{{of_node}}} 1"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}
