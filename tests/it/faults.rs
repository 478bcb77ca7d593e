//! Faults of a whole process: what a person sees, and what is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The example `census`, which `cargo test` builds beside this test.
fn census() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors()
        .nth(2)
        .unwrap()
        .join("examples")
        .join("census")
}

/// A census of 600 people, whose line `bad` in adult.data is cut short.
fn folder(bad: Option<usize>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let line = |i: usize| {
        let (age, gain, hours) = (17 + i * 7 % 70, (i % 9) * 1_000, 20 + i % 41);
        let work = ["Private", "State-gov", "?"][i % 3];
        let school = ["Bachelors", "HS-grad", "Masters", "11th"][i % 4];
        let job = [
            "Sales",
            "Tech-support",
            "Craft-repair",
            "?",
            "Other-service",
        ][i % 5];
        let label = if age + gain / 100 > 60 {
            ">50K"
        } else {
            "<=50K"
        };
        format!(
            "{age}, {work}, 77516, {school}, {}, Never-married, {job}, Own-child, White, Male, {gain}, 0, {hours}, Peru, {label}\n",
            i % 16
        )
    };
    let mut lines: Vec<String> = (0..600).map(line).collect();
    fs::write(
        folder.path().join("adult.test"),
        format!("a header\n{}", lines.concat()),
    )
    .unwrap();
    if let Some(bad) = bad {
        lines[bad - 1] = "39, Private, 77516\n".into();
    }
    fs::write(folder.path().join("adult.data"), lines.concat()).unwrap();
    folder
}

fn run(command: &mut Command, data: &Path, out: &Path) -> Output {
    let options = ["--backend", "embedded", "--json", "--data"];
    command
        .args(options)
        .arg(data)
        .arg("--out")
        .arg(out)
        .output()
        .unwrap()
}

/// Everything that stands in a folder, hidden or not.
fn left_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn without_a_fault_predictor_and_predictions_are_left() {
    let (data, out) = (folder(None), tempfile::tempdir().unwrap());
    let output = run(&mut Command::new(census()), data.path(), out.path());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut left = left_in(out.path());
    left.sort_unstable();
    assert_eq!(left, ["predictions", "predictor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (
            figures["rows"].as_u64(),
            figures["features_differing"].as_u64()
        ),
        (Some(600), Some(0))
    );
}

/// No file may grow beyond 4 KiB, as on a disk that is full: the system refuses the write.
#[test]
fn a_full_disk_ends_the_run_with_an_error_and_leaves_nothing() {
    let (data, out) = (folder(None), tempfile::tempdir().unwrap());
    let script = r#"trap "" XFSZ; ulimit -f 4; exec "$0" "$@""#;
    let mut limited = Command::new("bash");
    let output = run(
        limited.args(["-c", script]).arg(census()),
        data.path(),
        out.path(),
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("error: ") && said.contains("File too large"),
        "{said}"
    );
    assert_eq!(left_in(out.path()), [""; 0], "{said}");
}

#[test]
fn a_malformed_line_is_named_by_file_and_line() {
    let (data, out) = (folder(Some(321)), tempfile::tempdir().unwrap());
    let output = run(&mut Command::new(census()), data.path(), out.path());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("adult.data\", line 321: ") && said.contains("found 3"),
        "{said}"
    );
    assert_eq!(left_in(out.path()), [""; 0]);
}

#[test]
fn a_wrong_folder_is_named_with_what_it_should_hold() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let output = run(&mut Command::new(census()), data.path(), out.path());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("has no file \"adult.data\"") && said.contains("--data FOLDER"),
        "{said}"
    );
}

/// The error is told in any case, and what the run did before it where that is asked for.
#[test]
fn the_example_tells_what_rust_log_asks_for() {
    let (data, out) = (folder(Some(321)), tempfile::tempdir().unwrap());
    let told = |rust_log: &str| {
        let mut example = Command::new(census());
        let output = run(example.env("RUST_LOG", rust_log), data.path(), out.path());
        String::from_utf8(output.stderr).unwrap()
    };
    let (off, info, debug) = (told("off"), told("info"), told("mainstem_engine=debug"));
    let of_runs = ["run starts", "run failed"];
    let of_nodes = ["rows in flight", "split opened"];
    for (said, tells_runs, tells_nodes) in [
        (&off, false, false),
        (&info, true, false),
        (&debug, true, true),
    ] {
        assert!(said.contains("adult.data\", line 321: "), "{said}");
        let tells = |words: &str| said.contains(words);
        assert_eq!(of_runs.map(tells), [tells_runs; 2], "{said}");
        assert_eq!(of_nodes.map(tells), [tells_nodes; 2], "{said}");
    }
}
