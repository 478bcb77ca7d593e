//! What appears in a store at the end of a run, and what does not.

use expect_test::expect;
use hyper::StatusCode;

use super::formats::formats;
use super::store_server::{Fault, StoreServer};
use super::*;
use crate::connectors::{csv_sink, parquet_sink};
use crate::sink::Sink;
use crate::testing::{check_sink_at, table, write_sink};

fn told(server: &StoreServer, sink: &dyn Sink) -> String {
    let error = write_sink(sink, &[vec![table("x: 1")]]).unwrap_err();
    server.hide(error.report());
    server.hide(error.to_string())
}

on_each_server! {
    the_laws_of_sinks_hold,
    a_folder_appears_whole_and_is_marked,
    what_is_there_is_not_written_over,
    overwriting_replaces_the_old_files_and_only_them,
    of_two_runs_that_race_one_publishes,
    a_run_that_comes_second_is_told_so,
    a_part_of_a_folder_that_is_being_published_is_not_read,
    a_failure_is_taken_back,
    what_cannot_be_taken_back_is_marked,
    an_answer_that_is_lost_changes_nothing,
    large_files_are_sent_in_parts,
}

#[test]
fn the_laws_of_sinks_hold_in_memory() {
    check_sinks("memory://sinks", &Storage::new());
}

fn the_laws_of_sinks_hold(server: &StoreServer) {
    check_sinks(server.root(), &server.storage());
    assert_eq!(server.n_uploads(), 0, "uploads that were left");
}

/// Fails unless sinks below `root` keep the laws of sinks.
pub(super) fn check_sinks(root: &str, storage: &Storage) {
    let rows = table("x: 1, 2, null, 4, 5; y: a, null, c, d, e");
    let all = |place: &Path| everything(place, storage);
    for (n_rows, folder) in [(2, "parquet-2"), (1_000, "parquet-1000")] {
        let make = |place: &Path| -> Box<dyn Sink> {
            let sink = parquet_sink(place).rows_per_file(n_rows);
            Box::new(sink.storage(storage.clone()))
        };
        let read_back = |place: &Path| parquet_back(place, storage);
        let root = Path::new(root).join(folder);
        check_sink_at(&rows, &root, all, make, read_back).unwrap();
    }
    // One file, put together from shards.
    let one = |place: &Path| place.join("all.csv");
    let make =
        |place: &Path| -> Box<dyn Sink> { Box::new(csv_sink(one(place)).storage(storage.clone())) };
    let read_back = |place: &Path| match everything(place, storage)?.is_empty() {
        true => Ok(Vec::new()),
        false => {
            let source = csv(one(place))
                .storage(storage.clone())
                .schema(rows.schema());
            let source = source.has_header(true);
            Ok(vec![read_source(&source, OnBadRow::Fail)?.0])
        }
    };
    check_sink_at(&rows, &Path::new(root).join("one"), all, make, read_back).unwrap();
    for format in formats() {
        for n_rows in [2, 1_000] {
            let folder = format!("{}-{n_rows}", format.name);
            let make = |place: &Path| format.sink(place, storage, n_rows);
            let read_back = |place: &Path| match everything(place, storage)?.is_empty() {
                true => Ok(Vec::new()),
                false => {
                    let source = format.source(place, storage, &rows.schema());
                    Ok(vec![read_source(&*source, OnBadRow::Fail)?.0])
                }
            };
            check_sink_at(&rows, &Path::new(root).join(folder), all, make, read_back).unwrap();
        }
    }
}

fn a_folder_appears_whole_and_is_marked(server: &StoreServer) {
    let storage = server.storage();
    let sink = parquet_sink(server.url("out")).storage(storage.clone());
    let publication = sink.begin(&table("x: 1").schema()).unwrap();
    let mut writer = publication.writer(3).unwrap();
    writer.write(&table("x: 1, 2")).unwrap();
    writer.finish().unwrap();
    assert_eq!(tree(&server.url("out"), &storage), "");
    server.log();
    let published = publication.commit().unwrap();
    expect![[r#"
        _SUCCESS
        part-00003-00000-RUN.parquet"#]]
    .assert_eq(&tree(&server.url("out"), &storage));
    let run = &published.files[0].to_str().unwrap()[server.url("out/part-00003-00000-").len()..];
    let run = run.trim_end_matches(".parquet").to_owned();
    let upload = |line: &str| line.split("uploadId=").nth(1).map(|id| id[..36].to_owned());
    let log = server.log().join("\n");
    // S3 removes some objects by one request, Google each by its own.
    let removal = match server.root() {
        "s3://bucket" => "POST /bucket?delete",
        _ => "DELETE /bucket/out/_publishing",
    };
    let log = log
        .replace(&upload(&log).unwrap(), "ID")
        .replace(&run, "RUN")
        .replace(removal, "REMOVAL of _publishing");
    expect![[r#"
        PUT /bucket/out/_publishing if none
        GET /bucket?list-type=2&prefix=out%2F
        POST /bucket/out/part-00003-00000-RUN.parquet?uploadId=ID
        PUT /bucket/out/_SUCCESS if none
        REMOVAL of _publishing
        GET /bucket?list-type=2&prefix=out%2F"#]]
    .assert_eq(&log);
    let success = std::fs::read_to_string(server.path("out/_SUCCESS")).unwrap();
    expect![[r#"{"files":["out/part-00003-00000-RUN.parquet"],"rows":2,"run":"RUN"}"#]]
        .assert_eq(&success.replace(&run, "RUN"));
}

fn what_is_there_is_not_written_over(server: &StoreServer) {
    let storage = server.storage();
    let at = |url: &str| parquet_sink(url).storage(storage.clone());
    server.put("out/notes.txt", "precious");
    server.put("file", "precious");
    expect![[r#"
        folder "ROOT/out" is not empty
          Hint: Choose another place, remove it, or say `.overwrite(true)`."#]]
    .assert_eq(&told(server, &at(&server.url("out"))));
    expect![[r#"
        folder "ROOT/out" holds more than parquet files and is not overwritten
          It holds "notes.txt".
          Hint: Choose another place, or remove it yourself."#]]
    .assert_eq(&told(server, &at(&server.url("out")).overwrite(true)));
    expect![[r#"
        "ROOT/file" is a file, expected a folder of files
          Hint: Choose another place."#]]
    .assert_eq(&told(server, &at(&server.url("file"))));
    expect![[r#"
        "ROOT" is a whole bucket
          Hint: Name a place in it, such as "ROOT/results"."#]]
    .assert_eq(&told(server, &at(server.root())));
    expect![[r#"
        "https://example.org/out" cannot be written to
          Files behind HTTP can only be read.
          Hint: Choose another place."#]]
    .assert_eq(&told(server, &at("https://example.org/out")));
    let one = |url: &str| csv_sink(url).storage(storage.clone());
    server.put("a.csv", "precious");
    server.put("folder.csv/b", "precious");
    expect![[r#"
        file "ROOT/a.csv" is there already
          Hint: Choose another place, remove it, or say `.overwrite(true)`."#]]
    .assert_eq(&told(server, &one(&server.url("a.csv"))));
    expect![[r#"
        "ROOT/folder.csv" is a folder, expected one file
          Hint: Choose another place."#]]
    .assert_eq(&told(server, &one(&server.url("folder.csv"))));
    expect![[r#"
        a.csv
        file
        folder.csv/b
        out/notes.txt"#]]
    .assert_eq(&tree(&server.url(""), &storage));
}

fn overwriting_replaces_the_old_files_and_only_them(server: &StoreServer) {
    let storage = server.storage();
    let sink = parquet_sink(server.url("out"))
        .storage(storage.clone())
        .overwrite(true);
    write_sink(&sink, &[vec![table("x: 1")], vec![table("x: 2")]]).unwrap();
    let first = everything(Path::new(&server.url("out")), &storage).unwrap();
    write_sink(&sink, &[vec![table("x: 3")]]).unwrap();
    expect![[r#"
        _SUCCESS
        part-00000-00000-RUN.parquet"#]]
    .assert_eq(&tree(&server.url("out"), &storage));
    let second = everything(Path::new(&server.url("out")), &storage).unwrap();
    assert!(!first.contains(&second[1]));
    let back = parquet_back(Path::new(&server.url("out")), &storage).unwrap();
    assert_eq!(show(&back[0]), "x: 3");

    let one = csv_sink(server.url("a.csv"))
        .storage(storage.clone())
        .overwrite(true);
    write_sink(&one, &[vec![table("x: 1")]]).unwrap();
    write_sink(&one, &[vec![table("x: 2")], vec![table("x: 3")]]).unwrap();
    assert_eq!(
        read_csv(csv_at(&server.url("a.csv"), &storage)).unwrap(),
        "x: 2, 3"
    );
}

#[test]
fn of_two_runs_that_race_in_memory_one_publishes() {
    race("memory://race", &Storage::new());
}

fn of_two_runs_that_race_one_publishes(server: &StoreServer) {
    race(server.root(), &server.storage());
    assert_eq!(server.n_uploads(), 0, "uploads that were left");
}

fn race(root: &str, storage: &Storage) {
    let folder = format!("{root}/out");
    let file = format!("{root}/out.csv");
    let sinks: [Box<dyn Sink>; 2] = [
        Box::new(parquet_sink(&folder).storage(storage.clone())),
        Box::new(csv_sink(&file).storage(storage.clone())),
    ];
    for sink in sinks {
        let schema = table("x: 1").schema();
        // Both have begun before either ends.
        let runs = [sink.begin(&schema).unwrap(), sink.begin(&schema).unwrap()];
        for (run, rows) in runs.iter().zip(["x: 1", "x: 2"]) {
            let mut writer = run.writer(0).unwrap();
            writer.write(&table(rows)).unwrap();
            writer.finish().unwrap();
        }
        let ends: Vec<_> = std::thread::scope(|scope| {
            let commits = runs.each_ref().map(|run| scope.spawn(|| run.commit()));
            commits.map(|commit| commit.join().unwrap()).into()
        });
        let lost: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        assert_eq!(lost.len(), 1, "{ends:?}");
        assert!(lost[0].is_environment(), "{}", lost[0]);
        runs.iter().for_each(|run| run.abort());
    }
    let won = parquet_back(Path::new(&folder), storage).unwrap();
    assert!(["x: 1", "x: 2"].contains(&show(&won[0]).as_str()));
    expect![[r#"
        out/_SUCCESS
        out/part-00000-00000-RUN.parquet
        out.csv"#]]
    .assert_eq(&tree(root, storage));
}

fn a_run_that_comes_second_is_told_so(server: &StoreServer) {
    let storage = server.storage();
    let sink = parquet_sink(server.url("out")).storage(storage.clone());
    let late = sink.begin(&table("x: 1").schema()).unwrap();
    write_sink(&sink, &[vec![table("x: 1")]]).unwrap();
    let error = late.commit().unwrap_err();
    late.abort();
    expect![[r#"
        cannot write "ROOT/out": something has come to stand there during the run
          Hint: Choose another place, remove it, or say `.overwrite(true)`."#]]
    .assert_eq(&server.hide(error.to_string()));

    // Another is publishing, or was killed while it did.
    server.put("marked/_publishing", "{}");
    server.put("marked/part-00000-00000-0000000000000000.parquet", "");
    let marked = || parquet_sink(server.url("marked")).storage(storage.clone());
    for sink in [marked(), marked().overwrite(true)] {
        expect![[r#"
            "ROOT/marked" is being published by another run
              "ROOT/marked/_publishing" says so, and names the files.
              Hint: Wait for that run. If it was killed, remove what it names, then the mark."#]]
        .assert_eq(&told(server, &sink));
    }
    for place in [server.url("marked"), server.url("marked/*.parquet")] {
        let read = read_parquet(&parquet(place).storage(storage.clone()));
        expect![[r#"
            "ROOT/marked" is being published by another run
              "ROOT/marked/_publishing" says so, and names the files.
              Hint: Wait for that run. If it was killed, remove what it names, then the mark."#]]
        .assert_eq(&server.hide(read.unwrap_err().to_string()));
    }
}

fn a_part_of_a_folder_that_is_being_published_is_not_read(server: &StoreServer) {
    let storage = server.storage();
    let sink = || parquet_sink(server.url("out")).storage(storage.clone());
    let sink = sink().partition_by(["year", "month"]);
    let rows = table("x: 1, 2, 3; year: 2020, 2020, 2021; month: 5, 6, 5");
    write_sink(&sink, &[vec![rows]]).unwrap();
    let read = |place: &str| {
        let source = parquet(server.url(place)).storage(storage.clone());
        let told = read_parquet(&source.hive_columns(false)).map(|rows| show(&rows));
        told.unwrap_or_else(|error| server.hide(error.to_string()))
    };
    let n_looks = || {
        let log = server.log();
        let looks = log.iter().filter(|line| line.contains("_publishing"));
        looks.count()
    };
    let parts = [
        ("out/year=2020", "x: 1, 2", 2),
        ("out/year=2020/", "x: 1, 2", 2),
        ("out/year=2020/month=5", "x: 1", 4),
        ("out/year=2020/month=5/*.parquet", "x: 1", 4),
        ("out/year=2020/*/*.parquet", "x: 1, 2", 2),
    ];
    n_looks();
    for (part, expected, n_expected) in parts {
        assert_eq!(read(part), expected, "{part}");
        assert_eq!(n_looks(), n_expected, "looks for the mark of {part}");
    }
    // The list of a folder of which the rows are shows the mark.
    for whole in ["out", "out/year=*/month=5/*.parquet"] {
        assert!(read(whole).starts_with("x: 1, "), "{whole}");
        assert_eq!(n_looks(), 0, "looks for the mark of {whole}");
    }

    server.put("out/_publishing", "{}");
    for place in parts.map(|(part, ..)| part).into_iter().chain(["out"]) {
        expect![[r#"
            "ROOT/out" is being published by another run
              "ROOT/out/_publishing" says so, and names the files.
              Hint: Wait for that run. If it was killed, remove what it names, then the mark."#]]
        .assert_eq(&read(place));
    }
    // One file is whole by itself.
    let all = everything(Path::new(&server.url("out/year=2021")), &storage).unwrap();
    let file = all[0].strip_prefix(server.root()).unwrap();
    assert_eq!(read(file.to_str().unwrap()), "x: 3");
    // Who may not see the mark reads what may be read.
    server.fault(
        "HEAD /bucket/out/_publishing",
        [Fault::Fail(StatusCode::FORBIDDEN); 9],
    );
    assert_eq!(read("out/year=2020"), "x: 1, 2");
}

/// Runs over three workers, in whose requests such faults come up: while they write, or at the end.
fn run_with_faults(
    server: &StoreServer,
    sink: &dyn Sink,
    only: &str,
    while_writing: bool,
) -> String {
    let fail = || [Fault::Fail(StatusCode::INTERNAL_SERVER_ERROR); 9];
    let publication = sink.begin(&table("x: 1").schema()).unwrap();
    if while_writing {
        server.fault(only, fail());
    }
    let written = (0..3).try_for_each(|worker| {
        let mut writer = publication.writer(worker)?;
        writer.write(&table("x: 1"))?;
        writer.finish()
    });
    if !while_writing {
        server.fault(only, fail());
    }
    let error = written
        .and_then(|()| publication.commit().map(|_| ()))
        .unwrap_err();
    publication.abort();
    server.fault("", []);
    assert_eq!(server.n_uploads(), 0, "uploads that were left after {only}");
    assert!(error.is_environment());
    let (before, rest) = match error.message().split_once("/part-") {
        Some((before, rest)) => (before, format!("/part-{}", &rest[..11])),
        None => (error.message(), String::new()),
    };
    server.hide(format!("{before}{rest}"))
}

fn a_failure_is_taken_back(server: &StoreServer) {
    let storage = server.storage();
    let sink = parquet_sink(server.url("out")).storage(storage.clone());
    for (only, while_writing, expected) in [
        (
            "PUT /bucket/out/part-00001",
            true,
            expect![[r#"cannot write "ROOT/out/part-00001-00000"#]],
        ),
        (
            "PUT /bucket/out/_publishing",
            false,
            expect![[r#"cannot write "ROOT/out/_publishing": the storage fails"#]],
        ),
        (
            "POST /bucket/out/part-00001",
            false,
            expect![[r#"cannot write "ROOT/out/part-00001-00000"#]],
        ),
        (
            "PUT /bucket/out/_SUCCESS",
            false,
            expect![[r#"cannot write "ROOT/out/_SUCCESS": the storage fails"#]],
        ),
    ] {
        let told = run_with_faults(server, &sink, only, while_writing);
        expected.assert_eq(&told);
        assert_eq!(tree(&server.url("out"), &storage), "", "left after {only}");
    }
    // Nothing stands in the way of another try.
    write_sink(&sink, &[vec![table("x: 1")]]).unwrap();
}

fn what_cannot_be_taken_back_is_marked(server: &StoreServer) {
    let storage = server.storage();
    let sink = parquet_sink(server.url("out")).storage(storage.clone());
    write_sink(&sink, &[vec![table("x: 1")]]).unwrap();
    let sink = sink.overwrite(true);
    // The completion fails: the old results are whole, and marked so again.
    let told = run_with_faults(server, &sink, "POST /bucket/out/part-00001", false);
    expect![[r#"cannot write "ROOT/out/part-00001-00000"#]].assert_eq(&told);
    let there = || tree(&server.url("out"), &storage);
    expect![[r#"
        _SUCCESS
        part-00000-00000-RUN.parquet"#]]
    .assert_eq(&there());
    // The last mark fails, after the old results went.
    let told = run_with_faults(server, &sink, "PUT /bucket/out/_SUCCESS", false);
    expect![[r#"cannot write "ROOT/out/_SUCCESS": the storage fails"#]].assert_eq(&told);
    expect![[r#"
        _publishing
        part-00000-00000-RUN.parquet
        part-00001-00000-RUN.parquet
        part-00002-00000-RUN.parquet"#]]
    .assert_eq(&there());
    let read = read_parquet(&parquet(server.url("out")).storage(storage.clone()));
    expect![[r#""ROOT/out" is being published by another run"#]]
        .assert_eq(&server.hide(read.unwrap_err().message().to_owned()));
}

fn an_answer_that_is_lost_changes_nothing(server: &StoreServer) {
    let storage = server.storage().option("timeout", "1s").max_retries(0);
    // The mark is put, though it looks as if it were not.
    let sink = |place: &str| parquet_sink(place).storage(storage.clone());
    for only in ["PUT /bucket/out/_publishing", "PUT /bucket/out/_SUCCESS"] {
        let publication = sink(&server.url("out")).overwrite(true);
        server.fault(only, [Fault::LoseAnswer]);
        write_sink(&publication, &[vec![table("x: 1")]]).unwrap();
        expect![[r#"
            _SUCCESS
            part-00000-00000-RUN.parquet"#]]
        .assert_eq(&tree(&server.url("out"), &storage));
    }
    // The file can be seen, though it looks as if it could not.
    let publish = |sink: &dyn Sink, lost: &str| {
        let begun = sink.begin(&table("x: 1").schema()).unwrap();
        let mut writer = begun.writer(0).unwrap();
        writer.write(&table("x: 1")).unwrap();
        writer.finish().unwrap();
        server.fault(lost, [Fault::LoseAnswer]);
        begun.commit().unwrap()
    };
    let lost = "POST /bucket/other/part-00000-00000";
    assert_eq!(publish(&sink(&server.url("other")), lost).files.len(), 1);
    expect![[r#"
        _SUCCESS
        part-00000-00000-RUN.parquet"#]]
    .assert_eq(&tree(&server.url("other"), &storage));
    // Made again, the request is refused, since the upload is no more; that is no failure either.
    let storage = server.storage().option("timeout", "1s");
    let again = parquet_sink(server.url("again")).storage(storage.clone());
    server.log();
    let lost = "POST /bucket/again/part-00000-00000";
    assert_eq!(publish(&again, lost).files.len(), 1);
    let log = server.log();
    let completions = log
        .iter()
        .filter(|line| line.starts_with(lost) && line.contains("uploadId="));
    assert_eq!(completions.count(), 2);
    expect![[r#"
        _SUCCESS
        part-00000-00000-RUN.parquet"#]]
    .assert_eq(&tree(&server.url("again"), &storage));
    let back = parquet_back(Path::new(&server.url("again")), &storage).unwrap();
    assert_eq!(show(&back[0]), "x: 1");
    // So it is where one file takes the place of another.
    server.put("one.csv", "x\n7\n");
    let one = csv_sink(server.url("one.csv"))
        .storage(storage.clone())
        .overwrite(true);
    publish(&one, "POST /bucket/one.csv?uploadId");
    let read = || read_csv(csv_at(&server.url("one.csv"), &storage)).unwrap();
    assert_eq!(read(), "x: 1");
    // If nothing has come, the old one is no success, even if it is as long.
    let begun = one.begin(&table("x: 1").schema()).unwrap();
    let mut writer = begun.writer(0).unwrap();
    writer.write(&table("x: 2")).unwrap();
    writer.finish().unwrap();
    server.fault(
        "POST /bucket/one.csv?uploadId",
        [Fault::Fail(StatusCode::INTERNAL_SERVER_ERROR); 9],
    );
    let error = begun.commit().unwrap_err();
    begun.abort();
    expect![[r#"cannot write "ROOT/one.csv": the storage fails"#]]
        .assert_eq(&server.hide(error.message().to_owned()));
    assert_eq!(read(), "x: 1");
    assert_eq!(server.n_uploads(), 0, "uploads that were left");
}

fn large_files_are_sent_in_parts(server: &StoreServer) {
    let storage = server.storage();
    let text = "x".repeat(1_000);
    let rows = table(&format!("x: {}", vec![text.as_str(); 1_000].join(", ")));
    let batches = vec![vec![rows.clone(); 10], vec![rows.clone(); 10]];
    let all = 20_000;

    let sink = csv_sink(server.url("out")).storage(storage.clone());
    server.log();
    let published = write_sink(&sink, &batches).unwrap();
    let log = server.log();
    let n_parts = |log: &[String], n: u8| {
        let part = format!("partNumber={n}");
        log.iter().filter(|line| line.contains(&part)).count()
    };
    assert_eq!(
        (n_parts(&log, 1), n_parts(&log, 2), n_parts(&log, 3)),
        (2, 2, 0)
    );
    let on_disk = |url: &PathBuf| {
        let key = url.strip_prefix(server.root()).unwrap();
        server.path(key.to_str().unwrap()).metadata().unwrap().len()
    };
    assert_eq!(
        published.n_bytes,
        published.files.iter().map(on_disk).sum::<u64>()
    );
    let source = csv_at(&server.url("out"), &storage);
    assert_eq!(
        read_source(&source, OnBadRow::Fail).unwrap().0.num_rows(),
        all
    );

    // One file, which no put can hold: another is not written over.
    let sink = csv_sink(server.url("all.csv")).storage(storage.clone());
    let late = sink.begin(&rows.schema()).unwrap();
    let mut writer = late.writer(0).unwrap();
    (0..10).try_for_each(|_| writer.write(&rows)).unwrap();
    writer.finish().unwrap();
    server.log();
    write_sink(&sink, &batches).unwrap();
    let log = server.log();
    assert_eq!(
        (n_parts(&log, 1), n_parts(&log, 3), n_parts(&log, 4)),
        (1, 1, 0)
    );
    expect![[r#"
        cannot write "ROOT/all.csv": something has come to stand there during the run
          Hint: Choose another place, remove it, or say `.overwrite(true)`."#]]
    .assert_eq(&server.hide(late.commit().unwrap_err().to_string()));
    late.abort();
    let source = csv_at(&server.url("all.csv"), &storage);
    assert_eq!(
        read_source(&source, OnBadRow::Fail).unwrap().0.num_rows(),
        all
    );
    expect![[r#"
        all.csv
        out/_SUCCESS
        out/part-00000-00000-RUN.csv
        out/part-00001-00000-RUN.csv"#]]
    .assert_eq(&tree(&server.url(""), &storage));
    assert_eq!(server.n_uploads(), 0, "uploads that were left");
}
