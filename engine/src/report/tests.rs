//! The report as a table, as JSON, and in files.

use expect_test::expect;
use serde_json::json;

use super::sample;
use crate::error::Error;

#[test]
fn the_table_fits_a_terminal_and_marks_the_slowest_node() {
    let text = sample::report(None).to_string();
    expect![[""]].assert_eq(&text);
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
    expect![[""]].assert_eq(&last.join("\n"));
    expect![[""]].assert_eq(&sample::nothing().to_string());
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
    expect![[""]].assert_eq(&format!("{json:#}"));
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
    expect![[""]].assert_eq(&error.replace(&place, "…"));
    let error = super::check_place(folder.path()).unwrap_err().to_string();
    expect![[""]].assert_eq(&error.replace(&place, "…"));
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "temporary files stay");
}
