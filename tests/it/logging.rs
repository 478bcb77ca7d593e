//! What `RUST_LOG` makes a program tell on standard error: the examples' way, in a process of its own.

use std::process::{Command, Stdio};

use expect_test::expect;
use mainstem::engine::testing::table;
use mainstem::engine::{OnBadRow, Progress};
use mainstem::prelude::*;

#[path = "../../examples/shared/trace.rs"]
mod trace;

/// Asks a process to be the one that is listened to: see [`a_process_that_tells`].
const TELLS: &str = "MAINSTEM_TEST_LOGGING";

/// Not a test of its own: the process that the others start. Runs a small pipeline, and says so at its end.
#[test]
fn a_process_that_tells() {
    if std::env::var_os(TELLS).is_none() {
        return;
    }
    trace::as_rust_log_asks();
    let pipeline = Pipeline::new("shares");
    let (sink, _) = connectors::collect();
    pipeline
        .read(
            "numbers",
            connectors::from_record_batches(vec![table("n: 0, 1, 2")]),
        )
        .with_column("share", lit(12) / col("n"))
        .on_bad_row(OnBadRow::Drop)
        .write(sink);
    let options = RunOptions::new().workers(1).memory_bytes(1_000_000_000);
    let options = options.progress(Progress::Never);
    let report = pipeline.run(&options).unwrap();
    println!("\nrejected {}", report.rejected());
    std::process::exit(0);
}

/// What the process tells on standard error under this `RUST_LOG`, without what differs from run to run.
fn told(rust_log: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "logging::a_process_that_tells", "--nocapture"])
        .env_remove("RUST_LOG")
        .env(TELLS, "")
        .stdin(Stdio::null());
    if let Some(directives) = rust_log {
        command.env("RUST_LOG", directives);
    }
    let output = command.output().unwrap();
    let (said, told) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{said}{told}");
    assert!(said.ends_with("\nrejected 1\n"), "{said}");
    let mut lines = Vec::new();
    for line in told.lines() {
        // A moment, as `2026-01-01T00:00:00.000000Z`, stands before what is traced.
        let line = match line.split_once("Z ") {
            Some((moment, rest)) if moment.starts_with("20") => rest.trim_start(),
            _ => line,
        };
        // A phase is over for its log once the last thread has let go of it, which is a matter of chance.
        if line.contains(": close time.busy=") {
            continue;
        }
        let is_time =
            |word: &&str| word.starts_with("seconds=") || word.starts_with("busy_seconds=");
        lines.push(
            line.split(' ')
                .filter(|w| !is_time(w))
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    lines.join("\n")
}

#[test]
fn info_tells_of_the_run_and_debug_of_its_nodes_besides() {
    expect![[r#"
        INFO run{pipeline="shares"}: mainstem_engine::runner::driver: run starts workers=1 memory="1 GB" phases=1
        INFO run{pipeline="shares"}:phase{number=1}: mainstem_engine::runner::watch: phase finished ends_in="collect" rows_read=3 rejected=1
        INFO run{pipeline="shares"}: mainstem_engine::runner::watch: run finished rows_read=3 rejected=1"#]].assert_eq(&told(Some("info")));
    expect![[r#"
        INFO run{pipeline="shares"}: mainstem_engine::runner::driver: run starts workers=1 memory="1 GB" phases=1
        DEBUG run{pipeline="shares"}:phase{number=1}: mainstem_engine::runner::driver: rows in flight each="33.6 MB" all="33.6 MB"
        DEBUG run{pipeline="shares"}:phase{number=1}: mainstem_engine::runner::feed: split opened node="numbers" split="record batch 0"
        INFO run{pipeline="shares"}:phase{number=1}: mainstem_engine::runner::watch: phase finished ends_in="collect" rows_read=3 rejected=1
        DEBUG run{pipeline="shares"}:phase{number=1}: mainstem_engine::runner::watch: node finished node="numbers" kind="record_batches" rows_in=3 rows_out=3 filtered=0 rejected=0
        DEBUG run{pipeline="shares"}:phase{number=1}: mainstem_engine::runner::watch: node finished node="with_column" kind="with_column" rows_in=3 rows_out=2 filtered=0 rejected=1
        DEBUG run{pipeline="shares"}:phase{number=1}: mainstem_engine::runner::watch: node finished node="collect" kind="collect" rows_in=2 rows_out=0 filtered=0 rejected=0
        INFO run{pipeline="shares"}: mainstem_engine::runner::watch: run finished rows_read=3 rejected=1"#]].assert_eq(&told(Some("mainstem_engine=debug")));
}

#[test]
fn nothing_is_told_unasked() {
    for rust_log in [
        None,
        Some(""),
        Some("off"),
        Some("warn"),
        Some("info,mainstem_engine=off"),
    ] {
        assert_eq!(told(rust_log), "", "{rust_log:?}");
    }
}

#[test]
fn a_directive_that_is_none_is_named_and_the_others_are_obeyed() {
    expect![[r#"
        RUST_LOG takes directives such as "info" or "mainstem_engine=debug", found "mainstem_engine=loud"
        ignoring `mainstem_engine=loud`: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5"#]].assert_eq(&told(Some("mainstem_engine=loud")));
    expect![[r#"
        RUST_LOG takes directives such as "info" or "mainstem_engine=debug", found "info,mainstem_engine=loud"
        ignoring `mainstem_engine=loud`: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
        INFO run{pipeline="shares"}: mainstem_engine::runner::driver: run starts workers=1 memory="1 GB" phases=1
        INFO run{pipeline="shares"}:phase{number=1}: mainstem_engine::runner::watch: phase finished ends_in="collect" rows_read=3 rejected=1
        INFO run{pipeline="shares"}: mainstem_engine::runner::watch: run finished rows_read=3 rejected=1"#]].assert_eq(&told(Some("info,mainstem_engine=loud")));
}
