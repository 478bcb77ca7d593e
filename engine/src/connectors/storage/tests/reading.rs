//! What is read from a store, and what it says when it cannot be.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use datafusion_expr::{col, lit};
use expect_test::expect;
use hyper::StatusCode;

use super::formats::formats;
use super::store_server::{Fault, StoreServer};
use super::*;
use crate::connectors::files::Files;
use crate::connectors::planned_ranges::{PlannedRanges, Wanted};
use crate::connectors::test_folder::TestFolder;
use crate::connectors::{csv_sink, parquet_sink};
use crate::source::{Position, Source};
use crate::testing::{check_source, table, write_sink};

on_each_server! {
    the_laws_of_sources_hold,
    a_listing_of_several_pages_is_read_to_its_end,
    a_large_file_is_read_in_order_range_after_range,
    parquet_takes_few_requests_whatever_the_number_of_columns_and_pages,
    a_failure_in_the_middle_of_parquet_names_the_file_and_the_storage,
    pieces_of_a_file_are_let_go_and_what_is_held_is_bounded,
    a_server_that_fails_is_asked_again,
    a_server_that_does_not_answer_is_given_up,
    a_bucket_that_is_not_there_is_named,
    a_server_that_is_not_there_is_named,
    a_file_that_changes_meanwhile_is_refused,
}

fn told(server: &StoreServer, read: Result<String>) -> String {
    let error = read.unwrap_err();
    assert!(error.is_environment(), "{error:?}");
    // The chain of causes must not tell a secret either.
    server.hide(error.report());
    server.hide(error.to_string())
}

#[test]
fn files_are_found_by_name_folder_and_pattern_in_order_of_their_names() {
    let storage = Storage::new();
    for (key, rows) in [
        ("in/b.csv", "2"),
        ("in/a.CSV", "1"),
        ("in/.c.csv", "hidden"),
        ("in/_d.csv", "9"),
        ("in/e.txt", "5"),
        ("in/x[1].csv", "6"),
        ("in/x1.csv", "7"),
        ("in/sub/f.csv", "8"),
        ("in/year=2020/g.csv", "20"),
        ("in/year=2020/month=5/h.csv", "21"),
    ] {
        put(
            &format!("memory://found/{key}"),
            &storage,
            &format!("x\n{rows}\n"),
        );
    }
    let read = |place: &str| {
        let source = csv(format!("memory://found/{place}")).hive_columns(false);
        read_csv(source).unwrap_or_else(|e| e.to_string())
    };
    expect!["x: 5"].assert_eq(&read("in/e.txt"));
    expect!["x: 6"].assert_eq(&read("in/x[1].csv"));
    expect!["x: 1, 2, 7, 6, 20, 21"].assert_eq(&read("in"));
    expect!["x: 1, 2, 7, 6, 20, 21"].assert_eq(&read("in/"));
    expect!["x: 9, 1, 2, 7, 6"].assert_eq(&read("in/*.csv"));
    expect!["x: 8"].assert_eq(&read("**/f.csv"));
    expect![[r#"
        no file matches "memory://found/in/sub/*.txt"
          Hint: Check the pattern; hidden files are passed over."#]]
    .assert_eq(&read("in/sub/*.txt"));
    expect![[r#"
        "memory://found/births" does not exist
          Hint: Name a file, a folder, or a pattern such as "births/*.csv"."#]]
    .assert_eq(&read("births"));
    expect![[r#"
        "memory://found/in/[.csv" is not a pattern of files
          At character 4: invalid range pattern."#]]
    .assert_eq(&read("in/[.csv"));
}

#[test]
fn the_laws_of_sources_hold_in_memory() {
    check_sources("memory://sources", &Storage::new());
}

fn the_laws_of_sources_hold(server: &StoreServer) {
    check_sources(server.root(), &server.storage());
}

/// Fails unless sources below `root` keep the laws of sources.
pub(super) fn check_sources(root: &str, storage: &Storage) {
    let rows = table("x: 1, 2, null, 4, 5; y: a, b, c, d, e");
    let place = |name: &str| format!("{root}/{name}");
    let batches = [vec![rows.slice(0, 2)], vec![rows.slice(2, 3)]];
    let sink = parquet_sink(place("p")).storage(storage.clone());
    write_sink(&sink, &batches).unwrap();
    let sink = csv_sink(place("c")).storage(storage.clone());
    write_sink(&sink, &batches).unwrap();
    let source = parquet(place("p/*.parquet")).storage(storage.clone());
    assert_eq!(show(&check_source(&source).unwrap()), show(&rows));
    let source = csv(place("c")).storage(storage.clone());
    assert_eq!(show(&check_source(&source).unwrap()), show(&rows));
    for format in formats() {
        let place = place(format.name);
        write_sink(&*format.sink(Path::new(&place), storage, 1), &batches).unwrap();
        let source = format.source(Path::new(&place), storage, &rows.schema());
        assert_eq!(check_source(&*source).unwrap(), rows, "{}", format.name);
    }
}

fn a_listing_of_several_pages_is_read_to_its_end(server: &StoreServer) {
    // A page holds 1,000 names.
    const N_FILES: usize = 2_100;
    for n in 0..N_FILES {
        server.put(&format!("in/{n:05}.csv"), format!("x\n{n}\n"));
        server.put(&format!("deep/y={n:05}/a.csv"), "x\n1\n");
    }
    let list = |place: &str| {
        let files = Files::new(server.url(place), &["csv"]);
        files.storage(server.storage()).list().unwrap()
    };
    server.log();
    let found: Vec<String> = list("in/*.csv")
        .iter()
        .map(|file| file.location().to_owned())
        .collect();
    let all = (0..N_FILES).map(|n| server.url(&format!("in/{n:05}.csv")));
    assert_eq!(found, all.collect::<Vec<_>>());
    assert_eq!(n_lists(server), 3);
    // All of a folder, as a sink looks for what is there.
    let below = everything(Path::new(&server.url("deep")), &server.storage()).unwrap();
    assert_eq!(below.len(), N_FILES);
    assert_eq!(n_lists(server), 3);
}

/// Requests for lists since this was last asked.
fn n_lists(server: &StoreServer) -> usize {
    let log = server.log();
    log.iter()
        .filter(|line| line.contains("list-type=2"))
        .count()
}

fn a_large_file_is_read_in_order_range_after_range(server: &StoreServer) {
    let mut text = String::from("n,filler\n");
    for n in 0..20_000 {
        text.push_str(&format!("{n},{}\n", "x".repeat(1_000 + n % 7)));
    }
    server.put("large.csv", &text);
    let source = csv_at(&server.url("large.csv"), &server.storage());
    let (rows, _) = read_source(&source, OnBadRow::Fail).unwrap();
    let folder = TestFolder::new();
    let local = read_source(&csv(folder.write("large.csv", &text)), OnBadRow::Fail).unwrap();
    assert_eq!(rows, local.0);
    // The header and the sample want the first ranges only; the rest is looked through for the ends of
    // rows, and read.
    let n_requests = server.log().len();
    assert!(n_requests < 30, "{n_requests} requests");
}

/// Requests for the bytes of `key` since this was last asked.
fn n_reads(server: &StoreServer, key: &str) -> usize {
    let of_key = |line: &&String| line.starts_with("GET ") && line.contains(key);
    server.log().iter().filter(of_key).count()
}

fn parquet_takes_few_requests_whatever_the_number_of_columns_and_pages(server: &StoreServer) {
    let n_rows = 40_000_i64;
    let columns = (0..12_i64).map(|c| {
        let values = (0..n_rows).map(|row| row.wrapping_mul(0x9E37_79B9 + c) % 100_003);
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        (format!("c{c}"), column)
    });
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let folder = TestFolder::new();
    let sink = parquet_sink(folder.path("p")).row_group_rows(10_000);
    write_sink(&sink, &[vec![rows.clone()]]).unwrap();
    let local = folder.path("p/part-00000-of-00001.parquet");
    server.put("p/a.parquet", std::fs::read(&local).unwrap());
    let source = parquet(server.url("p/*.parquet")).storage(server.storage());

    assert_eq!(source.splits().unwrap().len(), 1);
    assert_eq!(n_reads(server, "a.parquet"), 1, "requests for the footer");
    assert_eq!(read_parquet(&source).unwrap(), rows);
    // Four row groups of 12 columns with several pages each.
    let n = n_reads(server, "a.parquet");
    assert!(n <= 4, "{n} requests for the rows");

    let one = ["c5".to_owned()];
    let split = &source.splits().unwrap()[0];
    let mut reader = source.open(split, Position(25_000), Some(&one)).unwrap();
    let mut out = crate::output::Output::new(OnBadRow::Fail);
    let mut n_read = 0;
    while let Some(rows) = reader.next_batch(&mut out).unwrap() {
        n_read += rows.num_rows();
    }
    assert_eq!(n_read, 15_000);
    let n = n_reads(server, "a.parquet");
    assert!(n <= 2, "{n} requests for one column of two row groups");

    let only = source.prune(&col("c3").eq(lit(77_i64))).unwrap();
    let (kept, _) = read_source(&*only, OnBadRow::Fail).unwrap();
    let of = |rows: &RecordBatch| {
        let c3 = rows.column(3).as_primitive::<Int64Type>();
        c3.iter().filter(|v| *v == Some(77)).count()
    };
    assert_eq!(of(&kept), of(&rows));
    let n = n_reads(server, "a.parquet");
    assert!(n <= 8, "{n} requests for two steps");
}

fn a_failure_in_the_middle_of_parquet_names_the_file_and_the_storage(server: &StoreServer) {
    let folder = TestFolder::new();
    let sink = parquet_sink(folder.path("p"));
    write_sink(&sink, &[vec![table("x: 1, 2, 3")]]).unwrap();
    let local = folder.path("p/part-00000-of-00001.parquet");
    server.put("a.parquet", std::fs::read(&local).unwrap());
    let source = parquet(server.url("a.parquet")).storage(server.storage());
    let splits = source.splits().unwrap();
    let unavailable = Fault::Fail(StatusCode::SERVICE_UNAVAILABLE);
    let read = || {
        let mut reader = source.open(&splits[0], Position(0), None)?;
        let rows = reader.next_batch(&mut crate::output::Output::new(OnBadRow::Fail))?;
        Ok(rows.map_or_else(String::new, |rows| show(&rows)))
    };
    server.fault("a.parquet", [unavailable; 2]);
    assert_eq!(read().unwrap(), "x: 1, 2, 3");
    server.fault("a.parquet", [unavailable; 9]);
    expect![[r#"
        cannot read "ROOT/a.parquet": the storage fails
          "http://ENDPOINT" was tried 3 times.
          It answers 503 Service Unavailable.
          Hint: Try again later."#]]
    .assert_eq(&told(server, read()));
}

fn pieces_of_a_file_are_let_go_and_what_is_held_is_bounded(server: &StoreServer) {
    const MIB: usize = 1 << 20;
    let mut content = vec![0_u8; 80 * MIB];
    for (i, page) in content.chunks_mut(4_096).enumerate() {
        page.fill(i as u8);
    }
    server.put("large.bin", &content);
    let files = Files::new(server.url("large.bin"), &["bin"]);
    let file = files.storage(server.storage()).list().unwrap().remove(0);
    // Two groups of two lanes of 20 MiB each, read in turns of 256 KiB.
    let wanted = (0..4).map(|i| Wanted {
        lane: i % 2,
        group: i / 2,
        range: (i * 20 * MIB) as u64..((i + 1) * 20 * MIB) as u64,
    });
    let mut planned = PlannedRanges::begin(&file, wanted.collect()).unwrap();
    const STEP: usize = 256 << 10;
    for group in 0..2 {
        for at in (0..20 * MIB).step_by(STEP) {
            for lane in 0..2 {
                let start = (group * 2 + lane) * 20 * MIB + at;
                let bytes = planned.read(start as u64..(start + STEP) as u64).unwrap();
                assert!(bytes.unwrap() == content[start..start + STEP], "{start}");
            }
        }
    }
    let most_held = planned.most_held_bytes();
    assert!(most_held <= 48 << 20, "{most_held}");
    let n = n_reads(server, "large.bin");
    assert!(n <= 13, "{n} requests for 80 MiB");
}

fn a_server_that_fails_is_asked_again(server: &StoreServer) {
    server.put("in/a.csv", "x\n1\n2\n");
    server.fault("", [Fault::Fail(StatusCode::INTERNAL_SERVER_ERROR); 2]);
    let source = csv_at(&server.url("in/*.csv"), &server.storage());
    assert_eq!(read_csv(source).unwrap(), "x: 1, 2");

    server.fault("", [Fault::Fail(StatusCode::SERVICE_UNAVAILABLE); 9]);
    let source = csv_at(&server.url("in/*.csv"), &server.storage());
    expect![[r#"
        cannot read "ROOT/in": the storage fails
          "http://ENDPOINT" was tried 3 times.
          It answers 503 Service Unavailable.
          Hint: Try again later."#]]
    .assert_eq(&told(server, read_csv(source)));
}

fn a_server_that_does_not_answer_is_given_up(server: &StoreServer) {
    server.put("in/a.csv", "x\n1\n2\n");
    // A second is long enough for an answer on a busy machine.
    let storage = server.storage().option("timeout", "1s");
    server.fault("a.csv", [Fault::Silence]);
    assert_eq!(
        read_csv(csv_at(&server.url("in/a.csv"), &storage)).unwrap(),
        "x: 1, 2"
    );

    let storage = server.storage().option("timeout", "100ms");
    server.fault("", [Fault::Silence; 9]);
    let source = csv_at(&server.url("in/a.csv"), &storage);
    expect![[r#"
        cannot read "ROOT/in/a.csv": the storage does not answer in time
          "http://ENDPOINT" was tried 3 times.
          Hint: Try again later, or give it more time by `.storage(Storage::new().option("timeout", "60s"))`."#]].assert_eq(&told(server, read_csv(source)));
}

#[test]
fn credentials_that_are_wrong_are_named_and_never_told() {
    let server = StoreServer::s3();
    server.put("in/a.csv", "x\n1\n");
    let wrong_secret = server
        .storage()
        .option("aws_secret_access_key", "another-secret");
    let source = csv_at("s3://bucket/in/*.csv", &wrong_secret);
    expect![[r#"
        cannot read "ROOT/in": the credentials are refused
          It answers 403 Forbidden: SignatureDoesNotMatch.
          Hint: Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are temporary), or give them by `.storage(Storage::new().option("aws_access_key_id", …))`."#]]
    .assert_eq(&told(&server, read_csv(source)));
    let wrong_id = server.storage().option("aws_access_key_id", "nobody");
    let source = csv_at("s3://bucket/in/*.csv", &wrong_id);
    expect![[r#"
        cannot read "ROOT/in": the credentials are refused
          It answers 403 Forbidden: NotSignedUp: Your account is not signed up.
          Hint: Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are temporary), or give them by `.storage(Storage::new().option("aws_access_key_id", …))`."#]]
    .assert_eq(&told(&server, read_csv(source)));
    let anonymous = server
        .without_credentials()
        .option("aws_skip_signature", "true");
    let source = csv_at("s3://bucket/in/a.csv", &anonymous);
    expect![[r#"
        cannot read "ROOT/in/a.csv": the credentials are refused
          It answers 403 Forbidden.
          Hint: Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are temporary), or give them by `.storage(Storage::new().option("aws_access_key_id", …))`."#]].assert_eq(&told(&server, read_csv(source)));
    assert_eq!(
        format!("{wrong_id:?}"),
        r#"Storage {"aws_access_key_id", "aws_endpoint", "aws_region", "aws_secret_access_key"}"#
    );
}

fn a_bucket_that_is_not_there_is_named(server: &StoreServer) {
    let nowhere = server.root().replace("bucket", "nowhere");
    let read = |place: &str| {
        let source = csv_at(&format!("{nowhere}/{place}"), &server.storage());
        told(server, read_csv(source)).replace(&nowhere, "NOWHERE")
    };
    let place = place_of(server);
    assert_eq!(
        read("in/*.csv"),
        format!(
            "cannot read \"NOWHERE/in\": there is no bucket \"nowhere\"
  It answers 404 Not Found: NoSuchBucket.
  Hint: Check its name, then {place}."
        )
    );
    assert_eq!(
        read("in/a.csv"),
        format!(
            "cannot read \"NOWHERE/in/a.csv\": there is no bucket \"nowhere\"
  It answers 404 Not Found: NoSuchBucket.
  Hint: Check its name, then {place}."
        )
    );
}

fn a_server_that_is_not_there_is_named(server: &StoreServer) {
    // A port where nobody listens any more.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{port}");
    let source = csv_at(&server.url("in/*.csv"), &server.storage_at(&endpoint));
    let told = told(server, read_csv(source)).replace(&endpoint, "http://NOWHERE");
    let place = place_of(server);
    assert_eq!(
        told,
        format!(
            "cannot read \"ROOT/in\": the storage cannot be reached
  \"http://NOWHERE\" was tried 3 times: Connection refused (os error 111).
  Hint: Check the network, then {place}."
        )
    );
}

/// What says where the store is.
fn place_of(server: &StoreServer) -> &'static str {
    match server.root() {
        "s3://bucket" => "AWS_ENDPOINT and AWS_REGION",
        _ => "GOOGLE_BASE_URL",
    }
}

#[test]
fn a_file_that_changes_meanwhile_in_memory_is_refused() {
    change("memory://changing/in", &Storage::new());
}

fn a_file_that_changes_meanwhile_is_refused(server: &StoreServer) {
    change(&server.url("in"), &server.storage());
}

fn change(folder: &str, storage: &Storage) {
    let url = format!("{folder}/a.csv");
    for place in [&url, &format!("{folder}/*.csv")] {
        put(&url, storage, "x\n1\n");
        let source = csv_at(place, storage);
        let splits = source.splits().unwrap();
        put(&url, storage, "x\n1\n2\n");
        let open = source.open(&splits[0], Position(0), None);
        let read = open.and_then(|mut reader| {
            reader.next_batch(&mut crate::output::Output::new(OnBadRow::Fail))
        });
        let error = read.unwrap_err();
        assert!(error.is_data());
        expect![[r#"
            file "URL" has changed since it was first read
              Hint: Build the pipeline anew, and write new files beside those that are being read."#]].assert_eq(&error.to_string().replace(&url, "URL"));
    }
}

#[test]
fn options_are_checked_before_anything_is_asked() {
    let told = |url: &str, storage: Storage| {
        let error = read_csv(csv_at(url, &storage)).unwrap_err();
        assert!(error.is_pipeline(), "{error:?}");
        error.to_string()
    };
    let storage = || Storage::new().first_wait(Duration::from_millis(1));
    expect![[r#"
        "s3" has no option "aws_endpont"
          Hint: Options are those of the crate object_store, such as aws_region, aws_endpoint or timeout."#]].assert_eq(&told("s3://b/a.csv", storage().option("aws_endpont", "x")));
    expect![[r#"
        "memory" has no option "aws_region"
          Hint: Options are those of the crate object_store, such as aws_region, aws_endpoint or timeout."#]].assert_eq(&told(
        "memory://b/a.csv",
        storage().option("aws_region", "x"),
    ));
    expect![[r#"
        "s3://b/a.csv" cannot be reached with these options
          Missing SecretAccessKey.
          Hint: Correct the options given by `.storage(…)`, or the environment."#]]
    .assert_eq(&told(
        "s3://b/a.csv",
        storage().option("aws_access_key_id", "x"),
    ));
    expect![[r#"
        "s3://b/a.csv" cannot be reached with these options
          failed to parse "soon" as Duration.
          Hint: Correct the options given by `.storage(…)`, or the environment."#]]
    .assert_eq(&told("s3://b/a.csv", storage().option("timeout", "soon")));
    #[cfg(not(feature = "gcp"))]
    expect![[r#"
        "gs://b/a.csv" needs a storage that is not built in
          Hint: Build Mainstem with the feature "gcp"."#]]
    .assert_eq(&told("gs://b/a.csv", storage()));
    expect![[r#"
        "s3://b/a//b.csv" cannot be the name of a file
          Path "a//b.csv" contained empty path segment."#]]
    .assert_eq(&told("s3://b/a//b.csv", storage()));
}
