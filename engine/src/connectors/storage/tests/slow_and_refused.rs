//! Servers that answer slowly, and those that let nobody write.

use expect_test::expect;
use hyper::StatusCode;

use super::formats::formats;
use super::store_server::{Fault, StoreServer};
use super::*;
use crate::connectors::{csv_sink, parquet_sink};
use crate::sink::Sink;
use crate::testing::{check_source, table, write_sink};
use crate::{Pipeline, RunOptions};

on_each_server! {
    a_server_that_gives_its_bytes_drop_by_drop_is_read,
    what_has_come_before_the_time_was_up_is_kept,
    a_server_that_is_slower_than_the_time_out_is_given_up,
    a_bucket_that_is_not_there_is_named_before_a_row_is_read,
    a_place_where_nobody_may_write_is_named,
}

/// A file of 1,000 rows, and its rows.
fn put_file(server: &StoreServer) -> String {
    let rows: Vec<String> = (0..1_000).map(|n| format!("{n}")).collect();
    server.put("in/a.csv", format!("x\n{}\n", rows.join("\n")));
    format!("x: {}", rows.join(", "))
}

fn a_server_that_gives_its_bytes_drop_by_drop_is_read(server: &StoreServer) {
    let expected = put_file(server);
    let storage = server.storage();
    server.fault("a.csv", [Fault::Drops(usize::MAX); 99]);
    assert_eq!(
        read_csv(csv_at(&server.url("in/a.csv"), &storage)).unwrap(),
        expected
    );
    // All formats, and the lists of files too.
    let rows = table("x: 1, 2, null, 4, 5; y: a, b, c, d, e");
    for format in formats() {
        let url = server.url(format.name);
        server.fault("", []);
        write_sink(
            &*format.sink(Path::new(&url), &storage, 2),
            &[vec![rows.clone()]],
        )
        .unwrap();
        server.fault("", [Fault::Drops(usize::MAX); 999]);
        let source = format.source(Path::new(&url), &storage, &rows.schema());
        assert_eq!(check_source(&*source).unwrap(), rows, "{}", format.name);
    }
}

fn what_has_come_before_the_time_was_up_is_kept(server: &StoreServer) {
    let expected = put_file(server);
    // A second is long enough for an answer on a busy machine.
    let storage = server.storage().option("timeout", "1s");
    server.log();
    server.fault("GET /bucket/in/a.csv", [Fault::Drops(3_000)]);
    let read = read_csv(csv_at(&server.url("in/a.csv"), &storage));
    assert_eq!(read.unwrap(), expected);
}

fn a_server_that_is_slower_than_the_time_out_is_given_up(server: &StoreServer) {
    put_file(server);
    let storage = server.storage().option("timeout", "200ms");
    server.fault("GET /bucket/in/a.csv", [Fault::Drops(10); 9]);
    let error = read_csv(csv_at(&server.url("in/a.csv"), &storage)).unwrap_err();
    assert!(error.is_environment());
    expect![[r#"
        cannot read "ROOT/in/a.csv": the storage does not answer in time
          "http://ENDPOINT" began to answer and did not end.
          Hint: Try again later, or give it more time by `.storage(Storage::new().option("timeout", "60s"))`."#]].assert_eq(&server.hide(error.to_string()));
    let parquet = parquet_sink(server.url("p")).storage(server.storage());
    server.fault("", []);
    write_sink(&parquet, &[vec![table("x: 1, 2, 3")]]).unwrap();
    server.fault("GET /bucket/p/part", [Fault::Drops(1); 9]);
    let error = parquet_back(Path::new(&server.url("p")), &storage).unwrap_err();
    assert!(error.is_environment());
    let told = server.hide(error.to_string());
    let run = told.split("-00000-00000-").nth(1).unwrap()[..16].to_owned();
    expect![[r#"
        cannot read "ROOT/p/part-00000-00000-RUN.parquet": the storage does not answer in time
          "http://ENDPOINT" began to answer and did not end.
          Hint: Try again later, or give it more time by `.storage(Storage::new().option("timeout", "60s"))`."#]].assert_eq(&told.replace(&run, "RUN"));
}

/// What a run says that reads a file in which a row is wrong: the sink is asked first, so that is what is told.
fn run(server: &StoreServer, sink: impl Sink + 'static) -> String {
    server.put("in/wrong.csv", "x\n1\nno number\n");
    let pipeline = Pipeline::new("copy");
    let schema = table("x: 1").schema();
    let source = csv_at(&server.url("in/wrong.csv"), &server.storage()).schema(schema);
    pipeline.read("rows", source).write(sink);
    let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
    assert!(error.is_environment(), "{error:?}");
    server.hide(error.report());
    server.hide(error.to_string())
}

#[test]
fn credentials_that_are_wrong_are_named_before_a_row_is_read() {
    let server = StoreServer::s3();
    let wrong_secret = || {
        let storage = server.storage();
        storage.option("aws_secret_access_key", "another-secret")
    };
    let wrong_id = server.storage().option("aws_access_key_id", "nobody");
    let told = [
        run(
            &server,
            parquet_sink("s3://bucket/out").storage(wrong_secret()),
        ),
        run(
            &server,
            parquet_sink("s3://bucket/out")
                .storage(wrong_secret())
                .overwrite(true),
        ),
        run(&server, csv_sink("s3://bucket/out.csv").storage(wrong_id)),
    ];
    expect![[r#"
        cannot write "ROOT/out": the credentials are refused
          in sink "parquet_sink"
          It answers 403 Forbidden: SignatureDoesNotMatch.
          Hint: Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are temporary), or give them by `.storage(Storage::new().option("aws_access_key_id", …))`.
        cannot write "ROOT/out": the credentials are refused
          in sink "parquet_sink"
          It answers 403 Forbidden: SignatureDoesNotMatch.
          Hint: Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are temporary), or give them by `.storage(Storage::new().option("aws_access_key_id", …))`.
        cannot write "ROOT/out.csv": the credentials are refused
          in sink "csv_sink"
          It answers 403 Forbidden: NotSignedUp: Your account is not signed up.
          Hint: Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are temporary), or give them by `.storage(Storage::new().option("aws_access_key_id", …))`."#]].assert_eq(&told.join("\n"));
    assert_eq!(tree("s3://bucket", &server.storage()), "in/wrong.csv");
}

fn a_bucket_that_is_not_there_is_named_before_a_row_is_read(server: &StoreServer) {
    let nowhere = server.root().replace("bucket", "nowhere");
    let place = |name: &str| format!("{nowhere}/{name}");
    let told = [
        run(server, parquet_sink(place("out")).storage(server.storage())),
        run(server, csv_sink(place("out.csv")).storage(server.storage())),
    ];
    let told = told.join("\n").replace(&nowhere, "NOWHERE");
    let told = told.replace("GOOGLE_BASE_URL", "AWS_ENDPOINT and AWS_REGION");
    expect![[r#"
        cannot write "NOWHERE/out": there is no bucket "nowhere"
          in sink "parquet_sink"
          It answers 404 Not Found: NoSuchBucket.
          Hint: Check its name, then AWS_ENDPOINT and AWS_REGION.
        cannot write "NOWHERE/out.csv": there is no bucket "nowhere"
          in sink "csv_sink"
          It answers 404 Not Found: NoSuchBucket.
          Hint: Check its name, then AWS_ENDPOINT and AWS_REGION."#]]
    .assert_eq(&told);
}

/// What may be listed need not be written to, which only shows when the first file is begun.
fn a_place_where_nobody_may_write_is_named(server: &StoreServer) {
    let forbidden = [Fault::Fail(StatusCode::FORBIDDEN); 9];
    let sink = parquet_sink(server.url("out")).storage(server.storage());
    server.fault("?uploads", forbidden);
    let error = write_sink(&sink, &[vec![table("x: 1")]]).unwrap_err();
    assert!(error.is_environment());
    let told = server.hide(error.to_string());
    let run = told.split("-00000-00000-").nth(1).unwrap()[..16].to_owned();
    let hint = told.split("Hint: ").nth(1).unwrap().to_owned();
    expect![[r#"
        cannot write "ROOT/out/part-00000-00000-RUN.parquet": the credentials are refused
          It answers 403 Forbidden.
          Hint: …"#]]
    .assert_eq(&told.replace(&run, "RUN").replace(&hint, "…"));
    server.fault("", []);
    assert_eq!(tree(&server.url("out"), &server.storage()), "");
}
