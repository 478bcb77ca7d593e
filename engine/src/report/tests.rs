//! The report as a table, as JSON, and in files.

use std::time::Duration;

use expect_test::expect;
use serde_json::json;

use super::{WatermarkReport, sample};
use crate::error::Error;

#[test]
fn the_table_fits_a_terminal_and_marks_the_slowest_node() {
    let text = sample::report(None).to_string();
    expect![[r#"
        ┌───────┬──────────────────────┬─────────┬──────────┬─────────┬────────┬─────────┬────────┬────────┐
        │ phase ┆ node                 ┆ rows in ┆ rows out ┆   bytes ┆  state ┆    rate ┆   busy ┆  share │
        ╞═══════╪══════════════════════╪═════════╪══════════╪═════════╪════════╪═════════╪════════╪════════╡
        │ 1     ┆ births               ┆     2 M ┆      2 M ┆   80 MB ┆    0 B ┆   1 M/s ┆    2 s ┆   11 % │
        │ 1     ┆ clean                ┆     2 M ┆   1.99 M ┆   80 MB ┆    0 B ┆   1 M/s ┆    2 s ┆   11 % │
        │ 1     ┆ features             ┆  1.99 M ┆        0 ┆ 79.6 MB ┆ 1.2 MB ┆ 369 k/s ┆  5.4 s ┆ ▶ 31 % │
        │ 1     ┆ dead                 ┆      31 ┆        0 ┆ 1.24 kB ┆    0 B ┆       - ┆    0 s ┆    0 % │
        │ 2     ┆ load                 ┆       0 ┆        0 ┆     0 B ┆    0 B ┆       - ┆  80 ms ┆  < 1 % │
        │ 2     ┆ births               ┆     2 M ┆      2 M ┆   80 MB ┆    0 B ┆   1 M/s ┆    2 s ┆   11 % │
        │ 2     ┆ clean                ┆     2 M ┆   1.99 M ┆   80 MB ┆    0 B ┆   1 M/s ┆    2 s ┆   11 % │
        │ 2     ┆ <script>a…t> & "out" ┆  1.99 M ┆   1.99 M ┆ 79.6 MB ┆    0 B ┆   1 M/s ┆ 1.99 s ┆   11 % │
        │ 2     ┆ out                  ┆  1.99 M ┆        0 ┆ 79.6 MB ┆    0 B ┆   1 M/s ┆ 1.99 s ┆   11 % │
        └───────┴──────────────────────┴─────────┴──────────┴─────────┴────────┴─────────┴────────┴────────┘
        pipeline "learn & predict" finished in 3.2 s with 2 workers, at most 210 MB of memory
        4,000,000 rows read, 1.25 M/s
        ▶ slowest: features in phase 1, 31 % of all busy time
        clean: 31 of 2,000,000 rows rejected
        clean: 31 of 2,000,000 rows rejected
        dead: 31 rows published in 1 file, 4 kB
        out: 1,989,969 rows published in 2 files, 50 MB"#]].assert_eq(&text);
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}");
}

#[test]
fn a_failed_run_says_so_and_why() {
    let error = Error::data("file \"a.csv\", line 7: x is not a number").with_hint("Correct it.");
    let text = sample::report(Some(error)).to_string();
    let last: Vec<&str> = text
        .lines()
        .skip_while(|l| !l.starts_with("pipeline"))
        .collect();
    expect![[r#"
        pipeline "learn & predict" failed after 3.2 s with 2 workers, at most 210 MB of memory
        2,000,000 rows read, 625 k/s
        ▶ slowest: features in phase 1, 57 % of all busy time
        clean: 31 of 2,000,000 rows rejected
        error: file "a.csv", line 7: x is not a number
          Hint: Correct it."#]]
    .assert_eq(&last.join("\n"));
    expect![[r#"
        pipeline "empty" failed after 0 s with 1 worker
        error: folder "in" is not there"#]]
    .assert_eq(&sample::nothing().to_string());
}

#[test]
fn the_json_has_stable_names_with_units() {
    let report = sample::report(None);
    let mut json = report.to_json();
    json["mainstem"] = json!("-");
    // The second phase has the same fields as the first.
    let phases = json["phases"].as_array_mut().unwrap();
    assert_eq!(phases.len(), 2);
    phases[0]["nodes"].as_array_mut().unwrap().truncate(2);
    phases.truncate(1);
    expect![[r#"
        {
          "busy_seconds": 17.458,
          "bytes_read": 62000000,
          "error": null,
          "machine": {
            "architecture": "x86_64",
            "cores": 2,
            "memory_bytes": 16000000000,
            "system": "linux"
          },
          "mainstem": "-",
          "options": {
            "credit_bytes": 33554432,
            "workers": 2
          },
          "outcome": "finished",
          "peak_memory_bytes": 210000000,
          "phases": [
            {
              "ends_in": [
                "features",
                "dead"
              ],
              "nodes": [
                {
                  "batches": 245,
                  "behind": 0,
                  "busy_seconds": 2.0,
                  "busy_share": 0.11456065986940085,
                  "bytes_in": 80000000,
                  "bytes_read": 31000000,
                  "config": "path=births/*.parquet",
                  "filtered": 0,
                  "inputs": [],
                  "kind": "parquet",
                  "late": 0,
                  "node": "births",
                  "on_bad_row": "fail",
                  "peak_state_bytes": 0,
                  "pruned": 400000,
                  "rejected": 0,
                  "role": "source",
                  "rows_in": 2000000,
                  "rows_out": 2000000,
                  "uses": []
                },
                {
                  "batches": 245,
                  "behind": 0,
                  "busy_seconds": 2.0,
                  "busy_share": 0.11456065986940085,
                  "bytes_in": 80000000,
                  "bytes_read": 0,
                  "config": "predicate=weight > Float64(0)",
                  "filtered": 10000,
                  "inputs": [
                    {
                      "from": "births",
                      "port": "out"
                    }
                  ],
                  "kind": "filter",
                  "late": 0,
                  "node": "clean",
                  "on_bad_row": "dead_letter",
                  "peak_state_bytes": 0,
                  "pruned": 0,
                  "rejected": 31,
                  "role": "transform",
                  "rows_in": 2000000,
                  "rows_out": 1989969,
                  "uses": []
                }
              ],
              "number": 1,
              "peak_credit_bytes": 33000000,
              "started_seconds": 0.002,
              "wall_seconds": 2.1
            }
          ],
          "pipeline": "learn & predict",
          "published": [
            {
              "bytes": 4000,
              "files": [
                {
                  "bytes": 4000,
                  "path": "dead.csv"
                }
              ],
              "node": "dead",
              "rows": 31
            },
            {
              "bytes": 50000000,
              "files": [
                {
                  "bytes": 25000000,
                  "path": "out/0.parquet"
                },
                {
                  "bytes": null,
                  "path": "out/1.parquet"
                }
              ],
              "node": "out",
              "rows": 1989969
            }
          ],
          "rejected": 62,
          "rows_per_second": 1250000.0,
          "rows_read": 4000000,
          "slowest": {
            "busy_share": 0.3093137816473823,
            "node": "features",
            "phase": 1
          },
          "started_at": "2026-11-24T19:12:01.123Z",
          "time_line": {
            "at_seconds": [
              0.0,
              1.0,
              2.102,
              3.2
            ],
            "memory_bytes": [
              40000000,
              180000000,
              175000000,
              210000000
            ],
            "series": [
              {
                "node": "births",
                "phase": 1,
                "role": "source",
                "rows": [
                  0,
                  900000,
                  2000000,
                  2000000
                ]
              },
              {
                "node": "births",
                "phase": 2,
                "role": "source",
                "rows": [
                  0,
                  0,
                  0,
                  2000000
                ]
              },
              {
                "node": "out",
                "phase": 2,
                "role": "sink",
                "rows": [
                  0,
                  0,
                  0,
                  1989969
                ]
              }
            ]
          },
          "version": 1,
          "wall_seconds": 3.2,
          "workers": 2
        }"#]]
    .assert_eq(&format!("{json:#}"));
}

#[test]
fn the_json_of_a_failed_run_has_the_error() {
    let error = Error::data("x is not a number").with_hint("Correct it.");
    let json = sample::report(Some(error)).to_json();
    assert_eq!(json["outcome"], "failed");
    assert_eq!(
        json["error"],
        json!({ "message": "x is not a number", "report": "x is not a number\n  Hint: Correct it." })
    );
    let empty = sample::nothing().to_json();
    assert_eq!(
        (&empty["started_at"], &empty["slowest"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(empty["rows_per_second"], 0.0);
}

#[test]
fn counters_of_a_node_are_summed_over_phases_and_states_are_not() {
    let report = sample::report(None);
    let clean = report.node("clean").unwrap();
    assert_eq!((clean.rows_in, clean.rejected), (4_000_000, 62));
    assert_eq!(report.node("features").unwrap().peak_state_bytes, 1_200_000);
    assert_eq!(
        (report.rows_read(), report.bytes_read()),
        (4_000_000, 62_000_000)
    );
    assert_eq!(report.rejected(), 62);
    let (phase, slowest) = report.slowest().unwrap();
    assert_eq!((phase, slowest.node.as_str()), (1, "features"));
    let shares: f64 = report.nodes().map(|(_, n)| report.busy_share(n)).sum();
    assert!((shares - 1.0).abs() < 1e-9);
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (html, json) = (
        folder.path().join("run.html"),
        folder.path().join("run.json"),
    );
    let report = sample::report(None);
    std::fs::write(&html, "older").unwrap();
    report.write_html(&html).unwrap();
    report.write_json(&json).unwrap();
    assert_eq!(std::fs::read_to_string(&html).unwrap(), report.to_html());
    let read: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(read, report.to_json());
    let nowhere = folder.path().join("not there").join("run.html");
    let error = report.write_html(nowhere).unwrap_err().to_string();
    let place = folder.path().display().to_string();
    expect![[r#"
        the report cannot be written to "…/not there/run.html"
          The system says: entity not found.
          Hint: Its folder must be there and may be written to."#]]
    .assert_eq(&error.replace(&place, "…"));
    let error = super::check_place(folder.path()).unwrap_err().to_string();
    expect![[r#"
        the report cannot be written to "…", which is a folder
          Hint: Name a file in it."#]]
    .assert_eq(&error.replace(&place, "…"));
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "temporary files stay");
}

/// A report of two nodes in event time, one of which waits for the first row of a split.
#[test]
fn event_time_is_in_the_table_the_json_and_the_page() {
    let at = |at_ms, lag, held_back_by: &str| {
        Some(WatermarkReport {
            at_ms,
            lag,
            held_back_by: held_back_by.into(),
        })
    };
    let mut report = sample::report(None);
    let nodes = &mut report.phases[0].nodes;
    nodes.truncate(2);
    report.phases.truncate(1);
    let nodes = &mut report.phases[0].nodes;
    nodes[0].behind = 120;
    nodes[0].watermark = at(
        Some(1_700_000_000_000),
        Some(Duration::from_secs(12)),
        "births, file \"a.csv\"",
    );
    nodes[1].late = 7;
    nodes[1].watermark = at(None, None, "births, file \"b.csv\"");
    expect![[r#"
        ┌───────┬────────┬─────────┬──────────┬───────┬──────────┬───────┬──────┬────────┐
        │ phase ┆ node   ┆ rows in ┆ rows out ┆ bytes ┆   behind ┆  rate ┆ busy ┆  share │
        ╞═══════╪════════╪═════════╪══════════╪═══════╪══════════╪═══════╪══════╪════════╡
        │ 1     ┆ births ┆     2 M ┆      2 M ┆ 80 MB ┆     12 s ┆ 1 M/s ┆  2 s ┆ ▶ 50 % │
        │ 1     ┆ clean  ┆     2 M ┆   1.99 M ┆ 80 MB ┆ none yet ┆ 1 M/s ┆  2 s ┆   50 % │
        └───────┴────────┴─────────┴──────────┴───────┴──────────┴───────┴──────┴────────┘
        pipeline "learn & predict" finished in 3.2 s with 2 workers, at most 210 MB of memory
        2,000,000 rows read, 625 k/s
        ▶ slowest: births in phase 1, 50 % of all busy time
        clean: 31 of 2,000,000 rows rejected
        births: 120 of 2,000,000 rows behind the watermark
        clean: 7 of 2,000,000 rows too late
        watermark: not known yet at clean in phase 1, held back by births, file "b.csv"
        dead: 31 rows published in 1 file, 4 kB
        out: 1,989,969 rows published in 2 files, 50 MB"#]]
    .assert_eq(&report.to_string());
    let json = report.to_json();
    expect![[
        r#"{"at_ms":1700000000000,"held_back_by":"births, file \"a.csv\"","lag_seconds":12.0}"#
    ]]
    .assert_eq(&json["phases"][0]["nodes"][0]["watermark"].to_string());
    expect![[r#"{"at_ms":null,"held_back_by":"births, file \"b.csv\"","lag_seconds":null}"#]]
        .assert_eq(&json["phases"][0]["nodes"][1]["watermark"].to_string());
    let page = report.to_html();
    for said in [
        "held back by births, file &quot;b.csv&quot;",
        "Watermark's lag",
        "none yet",
    ] {
        assert!(page.contains(said), "{said}");
    }
}
