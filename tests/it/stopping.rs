//! Ctrl-C, as a whole process meets it: what a person sees, and what is left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use mainstem::engine::testing::table;
use mainstem::engine::{
    Description, Output, Position, Progress, Result, Source, Split, SplitReader,
};
use mainstem::prelude::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Names the folder to a process that runs this test for another: see [`a_process_to_be_stopped`].
const FOLDER: &str = "MAINSTEM_TEST_STOPPING";

/// The rows 1, 2, 3, without end.
#[derive(Clone, Debug)]
struct Endless;

impl Source for Endless {
    fn describe(&self) -> Description {
        Description::new("endless", serde_json::Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(table("n: 1").schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |i: u64| Split {
            name: format!("split {i}"),
            locator: i.into(),
            n_rows: None,
            n_bytes: None,
        };
        Ok((0..4).map(split).collect())
    }

    fn open(&self, _: &Split, _: Position, _: Option<&[String]>) -> Result<Box<dyn SplitReader>> {
        Ok(Box::new(Self))
    }
}

impl SplitReader for Endless {
    fn next_batch(&mut self, _: &mut Output) -> Result<Option<RecordBatch>> {
        Ok(Some(table("n: 1, 2, 3")))
    }
}

/// Not a test of its own: the process that the others start. Runs without end, says when rows flow, and
/// then what `run()` returned; where the folder holds a file `hang`, its operator never returns.
#[test]
fn a_process_to_be_stopped() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let hangs = folder.join("hang").exists();
    let pipeline = Pipeline::new("endless");
    let rows = pipeline.read("rows", Endless).map_batches(move |rows| {
        println!("\nrows flow");
        while hangs {
            std::thread::park();
        }
        Ok(rows)
    });
    rows.write(connectors::parquet_sink(folder.join("parquet")));
    rows.write(connectors::csv_sink(folder.join("csv")));
    // Kept rows lie in temporary files.
    rows.cache()
        .write(connectors::csv_sink(folder.join("kept")));
    let options = RunOptions::new().workers(2).progress(Progress::Never);
    let error = pipeline.run(&options.stop_on_ctrl_c(true)).unwrap_err();
    println!("\nstopped: {}\n{error}\nend", error.is_stopped());
    std::process::exit(3);
}

/// The process, once rows flow in it.
fn start(folder: &Path) -> (Child, BufReader<impl Read + use<>>) {
    fs::create_dir_all(folder.join("temporary")).unwrap();
    let name = "stopping::a_process_to_be_stopped";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(FOLDER, folder)
        .env("TMPDIR", folder.join("temporary"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line != "rows flow\n" {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended before");
    }
    (child, said)
}

fn send(child: &Child, signal: Signal) {
    let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(process, signal).unwrap();
}

/// What it says between `stopped` and `end`, how it ended, and when.
fn end(mut child: Child, said: BufReader<impl Read>) -> (String, ExitStatus, Duration) {
    let since = Instant::now();
    let lines = said.lines().map_while(std::io::Result::ok);
    let said: Vec<String> = lines
        .skip_while(|l| !l.starts_with("stopped"))
        .take_while(|l| l != "end")
        .collect();
    let status = child.wait().unwrap();
    (said.join("\n"), status, since.elapsed())
}

/// Everything below a folder, hidden or not.
fn left_in(folder: &TempDir) -> Vec<String> {
    let mut left = Vec::new();
    let mut open = vec![folder.path().to_owned()];
    while let Some(place) = open.pop() {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder.path()).unwrap();
            left.push(name.to_str().unwrap().to_owned());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    left
}

#[test]
fn ctrl_c_and_a_request_to_terminate_stop_the_run_and_leave_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().unwrap();
        let (child, said) = start(folder.path());
        send(&child, signal);
        let (said, status, wall) = end(child, said);
        expect![[r#"
            stopped: true
            the run was stopped from outside
              By Ctrl-C, or by a signal to terminate.
              Nothing was published."#]]
        .assert_eq(&said);
        assert_eq!(status.code(), Some(3));
        println!("{signal} to the end of the process: {wall:?}");
        assert!(wall < Duration::from_secs(3), "{wall:?}");
        assert_eq!(left_in(&folder), ["temporary"]);
    }
}

#[test]
fn a_second_ctrl_c_ends_a_process_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hang"), "").unwrap();
    let (child, said) = start(folder.path());
    send(&child, Signal::SIGINT);
    send(&child, Signal::SIGTERM);
    let (said, status, wall) = end(child, said);
    assert_eq!((said.as_str(), status.code()), ("", Some(130)));
    assert!(wall < Duration::from_secs(3), "{wall:?}");
}
