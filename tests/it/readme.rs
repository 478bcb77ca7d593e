//! What README.md and CONTRIBUTING.md promise: their commands are those of `.ci/run`, their files exist, code is compiled.

use std::path::Path;

use crate::sources::{files, read};

/// The lines of all code blocks of this language.
fn code<'a>(readme: &'a str, language: &str) -> Vec<&'a str> {
    let mut in_block = false;
    readme
        .lines()
        .filter(|line| match line.strip_prefix("```") {
            Some(opened) => {
                in_block = !in_block && opened.split(',').next() == Some(language);
                false
            }
            None => in_block,
        })
        .collect()
}

#[test]
fn its_two_commands_are_run_by_ci() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    let commands = code(&readme, "sh");
    assert_eq!(
        commands,
        ["cargo run --release --example natality", "cargo test"]
    );
    for command in commands {
        let ends = |rest: &str| rest.starts_with("\n") || rest.starts_with(" -- ");
        let runs = ci.split(command).skip(1).any(ends);
        assert!(runs, ".ci/run does not run `{command}`");
    }
}

#[test]
fn the_long_forms_are_run_by_ci_and_their_variables_are_read() {
    let (contributing, ci) = (read("CONTRIBUTING.md"), read(".ci/run"));
    let commands = code(&contributing, "sh");
    assert_eq!(commands.len(), 4);
    let tests: String = files(".rs")
        .into_iter()
        .filter(|file| file.path.starts_with("tests/it/"))
        .map(|file| file.text)
        .collect();
    for command in commands {
        assert!(ci.lines().any(|line| line.ends_with(command)), "{command}");
        if let Some((variable, _)) = command.split_once('=') {
            let read = format!("(\"{variable}\"");
            assert!(tests.contains(&read), "no test reads {variable}");
        }
    }
}

#[test]
fn its_pipeline_is_a_doc_test_of_at_most_thirty_lines() {
    let (readme, facade) = (read("README.md"), read("src/lib.rs"));
    assert!(facade.contains("include_str!(\"../README.md\")"));
    let n_lines = code(&readme, "rust").len();
    assert!((10..=30).contains(&n_lines), "{n_lines} lines of Rust");
    assert!(!readme.contains("```rust,ignore") && !readme.contains("```ignore"));
}

#[test]
fn every_file_it_names_exists() {
    let readme = read("README.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let linked = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let quoted = readme
        .lines()
        .filter(|l| l.starts_with('|'))
        .flat_map(|l| l.split('`').skip(1).step_by(2));
    let paths: Vec<&str> = linked
        .filter(|path| !path.starts_with("http"))
        .chain(quoted.filter(|text| text.contains('/')))
        .collect();
    assert!(!paths.is_empty(), "the status table names no file");
    for path in paths {
        assert!(
            root.join(path).exists(),
            "README.md names {path}, which is not there"
        );
    }
}
