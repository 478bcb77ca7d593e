//! A report for tests: a small run in two phases, with a node whose name is an attack.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;

/// A name that would run a script, were it not escaped.
pub(crate) const ATTACK: &str = "<script>alert('x')</script> & \"out\"";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn from(node: &str) -> Vec<NodeInput> {
    vec![input(node, "out")]
}

fn input(node: &str, port: &str) -> NodeInput {
    NodeInput {
        from: node.into(),
        port: port.into(),
    }
}

fn node(node: &str, kind: &str, role: Role, inputs: Vec<NodeInput>, rows_in: u64) -> NodeReport {
    NodeReport {
        node: node.into(),
        kind: kind.into(),
        role,
        inputs,
        on_bad_row: "fail".into(),
        rows_in,
        rows_out: rows_in,
        bytes_in: rows_in * 40,
        batches: rows_in.div_ceil(8_192),
        busy: ms(rows_in / 1_000),
        ..NodeReport::default()
    }
}

/// The report; of a run that failed, where there is an error.
pub(crate) fn report(error: Option<Error>) -> RunReport {
    let births = NodeReport {
        config: "path=births/*.parquet".into(),
        bytes_read: 31_000_000,
        pruned: 400_000,
        ..node("births", "parquet", Role::Source, Vec::new(), 2_000_000)
    };
    let clean = NodeReport {
        config: "predicate=weight > Float64(0)".into(),
        on_bad_row: "dead_letter".into(),
        rows_out: 1_989_969,
        filtered: 10_000,
        rejected: 31,
        ..node(
            "clean",
            "filter",
            Role::Transform,
            from("births"),
            2_000_000,
        )
    };
    let learn = NodeReport {
        rows_out: 0,
        peak_state_bytes: 1_200_000,
        busy: ms(5_400),
        ..node("features", "fit", Role::Analysis, from("clean"), 1_989_969)
    };
    let letters = vec![input("clean", "dead_letters")];
    let dead = NodeReport {
        rows_out: 0,
        ..node("dead", "csv_sink", Role::Sink, letters, 31)
    };
    let load = NodeReport {
        bytes_in: 0,
        busy: ms(80),
        ..node("load", "provide", Role::Step, Vec::new(), 0)
    };
    let featurize = NodeReport {
        uses: vec!["load".into(), "features".into()],
        ..node(
            ATTACK,
            "featurize",
            Role::Transform,
            from("clean"),
            1_989_969,
        )
    };
    let sink = NodeReport {
        rows_out: 0,
        ..node("out", "parquet_sink", Role::Sink, from(ATTACK), 1_989_969)
    };
    let again = NodeReport {
        on_bad_row: "drop".into(),
        ..clean.clone()
    };
    let phases = vec![
        PhaseReport {
            ends_in: vec!["features".into(), "dead".into()],
            started: ms(2),
            wall: ms(2_100),
            nodes: vec![births.clone(), clean, learn, dead],
            peak_credit_bytes: 33_000_000,
        },
        PhaseReport {
            ends_in: vec!["out".into()],
            started: ms(2_102),
            wall: ms(1_098),
            nodes: vec![load, births, again, featurize, sink],
            peak_credit_bytes: 31_000_000,
        },
    ];
    let published = |files: &[&str], n_rows, n_bytes| Published {
        files: files.iter().map(PathBuf::from).collect(),
        n_rows,
        n_bytes,
    };
    let file = |path: &str, bytes| PublishedFile {
        path: path.into(),
        bytes,
    };
    let series = |node: &str, phase, role, rows: [u64; 4]| Series {
        node: node.into(),
        phase,
        role,
        rows: rows.into(),
    };
    let options = [("workers", json!(2)), ("credit_bytes", json!(33_554_432))];
    let mut report = RunReport {
        pipeline: "learn & predict".into(),
        workers: 2,
        started: Some(UNIX_EPOCH + ms(1_795_547_521_123)),
        wall: ms(3_200),
        error,
        phases,
        published: vec![
            ("dead".into(), published(&["dead.csv"], 31, 4_000)),
            (
                "out".into(),
                published(&["out/0.parquet", "out/1.parquet"], 1_989_969, 50_000_000),
            ),
        ],
        files: vec![
            ("dead".into(), vec![file("dead.csv", Some(4_000))]),
            (
                "out".into(),
                vec![
                    file("out/0.parquet", Some(25_000_000)),
                    file("out/1.parquet", None),
                ],
            ),
        ],
        time_line: TimeLine {
            at: vec![ms(0), ms(1_000), ms(2_102), ms(3_200)],
            memory_bytes: vec![40_000_000, 180_000_000, 175_000_000, 210_000_000],
            series: vec![
                series(
                    "births",
                    1,
                    Role::Source,
                    [0, 900_000, 2_000_000, 2_000_000],
                ),
                series("births", 2, Role::Source, [0, 0, 0, 2_000_000]),
                series("out", 2, Role::Sink, [0, 0, 0, 1_989_969]),
            ],
        },
        peak_memory_bytes: 210_000_000,
        options: options
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
        machine: Machine {
            cores: 2,
            memory_bytes: 16_000_000_000,
            system: "linux".into(),
            architecture: "x86_64".into(),
        },
        artifacts: Artifacts::none(),
    };
    if report.error.is_some() {
        report.published.clear();
        report.files.clear();
        report.phases.truncate(1);
    }
    report
}

/// A pipeline that failed before anything began.
pub(crate) fn nothing() -> RunReport {
    RunReport {
        pipeline: "empty".into(),
        workers: 1,
        error: Some(Error::environment("folder \"in\" is not there")),
        ..RunReport::default()
    }
}
