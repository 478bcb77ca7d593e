//! Searches the sources for what the style guide and the boundaries between crates forbid.

use crate::sources::{SourceFile, files, read};

/// Fails with all findings at once.
#[track_caller]
fn none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// The places where the path `name` begins in code, not where it is the end of a longer path or name.
fn names(file: &SourceFile, name: &str) -> Vec<usize> {
    let is_begin = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || "_:\"".contains(c))
            && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    };
    let is_used = |line: &str, at: usize| {
        let after = &line[at + name.len()..];
        let before = line[..at].trim_end();
        after.starts_with("::") || before.ends_with("use") || before.ends_with("crate")
    };
    file.code_lines()
        .filter(|(_, line)| {
            line.match_indices(name)
                .any(|(at, _)| is_begin(line, at) && is_used(line, at))
        })
        .map(|(number, _)| number)
        .collect()
}

/// Libraries whose names may stand only at some places of the crates' sources.
const BOUNDARIES: &[(&str, &[&str])] = &[
    ("timely", &["engine/src/runner/"]),
    ("differential_dataflow", &["engine/src/runner/incremental"]),
    (
        "parquet",
        &[
            "engine/src/connectors/parquet",
            "engine/src/connectors/mod.rs",
        ],
    ),
    ("object_store", &["engine/src/connectors/storage/"]),
    ("arrow_avro", &["engine/src/connectors/avro"]),
    ("maud", &["engine/src/report/html"]),
    ("ctrlc", &["engine/src/runner/cancel"]),
    ("sysinfo", &["engine/src/runner/"]),
    (
        "datafusion",
        &[
            "engine/src/connectors/datafusion_source",
            "engine/src/connectors/mod.rs",
            "engine/src/lib.rs",
        ],
    ),
    ("ort", &["ml-stages/src/onnx/"]),
    ("tract_onnx", &["ml-stages/src/onnx/"]),
    ("prost", &["ml-stages/src/onnx/"]),
    ("candle_core", &["ml-stages/src/train/"]),
    ("candle_nn", &["ml-stages/src/train/"]),
    (
        "mainstem_transforms",
        &[
            "transforms/",
            "ml-stages/",
            "src/",
            "tests/",
            "examples/",
            "benches/",
        ],
    ),
    (
        "mainstem_ml_stages",
        &["ml-stages/", "src/", "tests/", "examples/", "benches/"],
    ),
];

#[test]
fn each_library_is_named_only_behind_its_boundary() {
    let mut findings = Vec::new();
    for file in files(".rs") {
        let measures_by_hand = file.path.starts_with("benches/") || file.path.starts_with("tests/");
        for (library, places) in BOUNDARIES {
            if measures_by_hand || places.iter().any(|place| file.path.starts_with(place)) {
                continue;
            }
            for line in names(&file, library) {
                findings.push(format!(
                    "{}:{line} names `{library}`, allowed in {places:?}",
                    file.path
                ));
            }
        }
    }
    none("a library is named outside of its boundary", findings);
}

#[test]
fn a_boundary_is_seen_where_it_is_crossed_and_only_there() {
    let lines = |text: &str| {
        let file = SourceFile {
            path: String::new(),
            text: text.into(),
        };
        names(&file, "parquet")
    };
    assert_eq!(
        lines("use parquet::file;\nlet x = parquet::open();\npub use parquet;"),
        [1, 2, 3]
    );
    assert_eq!(
        lines("// parquet::open\nconnectors::parquet::read()\nmy_parquet::x\n\"parquet\""),
        [0usize; 0]
    );
}

#[test]
fn clocks_and_chance_are_arguments() {
    let mut findings = Vec::new();
    for file in files(".rs") {
        let may = ["engine/src/runner/", "benches/", "examples/", "tests/"];
        if may.iter().any(|place| file.path.starts_with(place)) {
            continue;
        }
        for (number, line) in file.code_lines() {
            for call in [
                "Instant::now",
                "SystemTime::now",
                "rand::rng(",
                "thread_rng(",
            ] {
                if line.contains(call) {
                    findings.push(format!("{}:{number} calls `{call}`", file.path));
                }
            }
        }
    }
    none("a real clock or chance outside of the runner", findings);
}

#[test]
fn no_lint_of_clippy_is_switched_off() {
    let mut findings = Vec::new();
    for file in files(".rs").iter().filter(|f| !f.path.ends_with("tidy.rs")) {
        for (number, line) in file.code_lines() {
            if line.contains("allow(clippy::") || line.contains("allow(missing_docs") {
                findings.push(format!("{}:{number}", file.path));
            }
        }
    }
    none(
        "`allow` hides a lint; an invariant takes `expect` with a reason",
        findings,
    );
}

#[test]
fn tests_are_all_run() {
    let mut findings = Vec::new();
    for file in files(".rs").iter().filter(|f| !f.path.ends_with("tidy.rs")) {
        for (number, line) in file.code_lines() {
            for mark in ["#[ignore", "#[should_panic", "todo!(", "unimplemented!("] {
                if line.contains(mark) {
                    findings.push(format!("{}:{number} has `{mark}`", file.path));
                }
            }
        }
    }
    none(
        "a test that does not run, or code that is not there",
        findings,
    );
}

#[test]
fn every_file_begins_with_what_it_is() {
    let findings = files(".rs")
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    none("a file does not begin with a `//!` sentence", findings);
}

#[test]
fn no_file_is_long() {
    let findings = files(".rs")
        .into_iter()
        .filter(|file| !file.path.ends_with("tests.rs"))
        .map(|file| {
            let own = file
                .text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .unwrap_or_default();
            (own.lines().count(), file.path)
        })
        .filter(|&(n_lines, _)| n_lines > 600)
        .map(|(n_lines, path)| format!("{path}: {n_lines} lines before its tests"))
        .collect();
    none("there is a second idea in a long file", findings);
}

/// True if a second sentence begins on the line: a full stop, a space, a capital letter.
fn has_two_sentences(line: &str) -> bool {
    let mut outside_code = String::new();
    for (i, part) in line.split('`').enumerate() {
        outside_code.push_str(if i % 2 == 0 { part } else { "x" });
    }
    let text = outside_code.trim_start();
    let is_number = |word: &str| word.trim_end_matches('.').parse::<u32>().is_ok();
    let text = match text.split_once(' ') {
        Some((marker, rest)) if marker == "-" || is_number(marker) => rest,
        _ => text,
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(2).any(|pair| {
        let ends = pair[0]
            .trim_end_matches([')', '"', '*'])
            .ends_with(['.', '?', '!']);
        let short = ["e.g.", "i.e.", "vs.", "No."].contains(&pair[0]);
        ends && !short
            && pair[1]
                .trim_start_matches(['(', '"', '*'])
                .starts_with(char::is_uppercase)
    })
}

#[test]
fn a_line_of_markdown_holds_one_sentence() {
    assert!(has_two_sentences("One. Two."));
    assert!(!has_two_sentences("1. One `a. B` and e.g. Two."));
    let mut findings = Vec::new();
    for file in files(".md") {
        let mut in_code = false;
        for (i, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if !in_code && !line.starts_with('|') && has_two_sentences(line) {
                findings.push(format!("{}:{}", file.path, i + 1));
            }
        }
    }
    none("two sentences on a line", findings);
}

#[test]
fn a_decision_is_titled_as_a_question_and_says_what_was_given_up() {
    let mut findings = Vec::new();
    let decisions: Vec<SourceFile> = files(".md")
        .into_iter()
        .filter(|file| file.path.starts_with("docs/decisions/"))
        .collect();
    assert!(
        decisions.len() >= 4,
        "the decisions are not where this test looks"
    );
    for SourceFile { path, text } in decisions {
        let title = text.lines().next().unwrap_or_default();
        if !(title.starts_with("# ") && title.ends_with('?')) {
            findings.push(format!("{path}: the title is {title:?}"));
        }
        if !text.contains("\n## What we gave up\n") {
            findings.push(format!("{path}: no heading \"What we gave up\""));
        }
    }
    none("a decision is a question with its price", findings);
}

#[test]
fn the_prelude_has_at_most_twenty_names() {
    let source = read("src/lib.rs");
    let (_, prelude) = source
        .split_once("pub mod prelude {")
        .expect("src/lib.rs has a prelude");
    let (prelude, _) = prelude.split_once("\n}").unwrap();
    let names: Vec<&str> = prelude
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split([',', '{', '}', ';']))
        .map(|name| name.trim().rsplit("::").next().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(
        (1..=20).contains(&names.len()),
        "{} names: {names:?}",
        names.len()
    );
}
