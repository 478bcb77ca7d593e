//! What a killed process leaves is told from what a living one uses.

use super::*;
use crate::connectors::parquet_sink;
use crate::connectors::test_folder::TestFolder;
use crate::sink::Sink;
use crate::testing::{table, write_sink};

/// As a process that was killed leaves it: nobody holds a lock.
fn leave(folder: &TestFolder, name: &str) {
    folder.write(&format!("{name}/00000-00000"), "half a file");
}

#[test]
#[cfg(unix)]
fn what_dead_processes_left_is_removed_and_nothing_else() {
    let folder = TestFolder::new();
    leave(&folder, ".out.tmp-77-0");
    leave(&folder, ".out.tmp-77-1");
    leave(&folder, ".other.tmp-77-0");
    leave(&folder, ".out.tmp-mine");
    let alive = Locked::make(&folder.path(""), ".out.tmp-").unwrap();
    let publication = parquet_sink(folder.path("out"))
        .begin(&table("x: 1").schema())
        .unwrap();
    assert!(alive.path().exists());
    drop(publication);
    let name = alive
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let left = [
        ".other.tmp-77-0",
        ".other.tmp-77-0/00000-00000",
        &name,
        ".out.tmp-mine",
        ".out.tmp-mine/00000-00000",
    ];
    assert_eq!(folder.tree(), left);

    // Once its process is gone, it is left behind too.
    drop(alive);
    write_sink(&parquet_sink(folder.path("out")), &[vec![table("x: 1")]]).unwrap();
    assert!(!folder.tree().iter().any(|n| n.starts_with(&name)));
}

#[test]
#[cfg(unix)]
fn old_results_whose_successors_never_came_are_moved_back() {
    let folder = TestFolder::new();
    folder.write(".out.old-77-0/part-00000-of-00001.parquet", "");
    leave(&folder, ".out.tmp-77-0");
    let sink = parquet_sink(folder.path("out"));
    let refused = sink.begin(&table("x: 1").schema()).map(|_| ()).unwrap_err();
    assert_eq!(
        folder.hide(refused.message().to_owned()),
        r#"folder "FOLDER/out" is not empty"#
    );
    assert_eq!(folder.tree(), ["out", "out/part-00000-of-00001.parquet"]);

    // Where the successors are there, the old results are only in the way.
    folder.write(".out.old-77-0/part-00000-of-00001.parquet", "");
    write_sink(&sink.overwrite(true), &[vec![table("x: 1")]]).unwrap();
    assert_eq!(folder.tree(), ["out", "out/part-00000-of-00001.parquet"]);
}

#[test]
#[cfg(unix)]
fn a_folder_that_is_held_is_not_taken_for_dead_under_another_name() {
    let folder = TestFolder::new();
    folder.write("out/a.parquet", "");
    let held = hold(&folder.path("out")).unwrap();
    fs::rename(folder.path("out"), folder.path(".out.old-77-0")).unwrap();
    tidy(&folder.path(""), "out", &folder.path("out"));
    assert_eq!(folder.tree(), [".out.old-77-0", ".out.old-77-0/a.parquet"]);
    drop(held);
    tidy(&folder.path(""), "out", &folder.path("out"));
    assert_eq!(folder.tree(), ["out", "out/a.parquet"]);
}
