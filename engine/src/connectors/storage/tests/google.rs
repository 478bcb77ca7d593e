//! What only Google's store says, and how an emulator of it is reached.

use std::process::Command;

use expect_test::expect;
use hyper::header::IF_NONE_MATCH;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use super::google_dialect::{STRANGER, removes_nothing, service_account, to_s3};
use super::store_server::{Fault, StoreServer};
use super::*;
use crate::connectors::csv_sink;
use crate::testing::{table, write_sink};

fn told<T: std::fmt::Debug>(server: &StoreServer, result: Result<T>) -> String {
    let error = result.unwrap_err();
    // The chain of causes must not tell a secret either.
    server.hide(error.report());
    server.hide(error.to_string())
}

fn write(server: &StoreServer, storage: &Storage) -> Result<()> {
    let sink = csv_sink(server.url("out.csv")).storage(storage.clone());
    write_sink(&sink, &[vec![table("x: 1")]]).map(|_| ())
}

#[test]
fn an_emulator_is_reached_by_its_address_and_without_a_signature() {
    let server = StoreServer::google_for_all();
    write(&server, &server.storage()).unwrap();
    let source = csv_at(&server.url("out.csv"), &server.storage());
    assert_eq!(read_csv(source).unwrap(), "x: 1");
}

/// The laws that hold on the stores of the environment, here in a process that has one.
#[test]
fn an_emulator_that_the_environment_names_keeps_the_laws() {
    let server = StoreServer::google_for_all();
    let laws = "connectors::storage::tests::other_stores::the_laws_of_sources_and_sinks_hold_on_the_stores_of_the_environment";
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", laws])
        .env("GOOGLE_BASE_URL", server.endpoint())
        .env("GOOGLE_SKIP_SIGNATURE", "true")
        .env("MAINSTEM_TEST_STORES", server.root())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told}");
    assert!(told.contains(": the laws hold"), "{told}");
    assert_eq!(server.n_uploads(), 0, "uploads that were left");
}

#[test]
fn an_emulator_is_reached_by_a_service_account_that_names_it() {
    let server = StoreServer::google_for_all();
    let account = json!({
        "gcs_base_url": server.endpoint(),
        "disable_oauth": true,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    });
    let by_key = Storage::new().option("google_service_account_key", account.to_string());
    write(&server, &by_key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("account.json");
    std::fs::write(&path, account.to_string()).unwrap();
    let by_path = Storage::new().option("google_service_account", path.to_str().unwrap());
    let source = csv_at(&server.url("out.csv"), &by_path);
    assert_eq!(read_csv(source).unwrap(), "x: 1");
}

#[test]
fn credentials_that_are_wrong_are_named_and_never_told() {
    let server = StoreServer::google();
    server.put("in/a.csv", "x\n1\n");
    let of = |email: &str| {
        let key = service_account(email);
        server
            .without_credentials()
            .option("google_service_account_key", key)
    };
    let read = |place: &str, storage: &Storage| {
        told(&server, read_csv(csv_at(&server.url(place), storage)))
    };
    let unknown = of("unknown@mainstem.iam.gserviceaccount.com");
    expect![[r#"
        cannot read "ROOT/in": the credentials are refused
          It answers 401 Unauthorized: AuthenticationRequired: Authentication required.
          Hint: Set GOOGLE_SERVICE_ACCOUNT (the path of a service account's key), or give them by `.storage(Storage::new().option("google_service_account", …))`."#]].assert_eq(&read("in/*.csv", &unknown));
    expect![[r#"
        cannot read "ROOT/in/a.csv": the credentials are refused
          It answers 401 Unauthorized.
          Hint: Set GOOGLE_SERVICE_ACCOUNT (the path of a service account's key), or give them by `.storage(Storage::new().option("google_service_account", …))`."#]].assert_eq(&read("in/a.csv", &unknown));
    expect![[r#"
        cannot write "ROOT/out.csv": the credentials are refused
          It answers 401 Unauthorized: AuthenticationRequired: Authentication required.
          Hint: Set GOOGLE_SERVICE_ACCOUNT (the path of a service account's key), or give them by `.storage(Storage::new().option("google_service_account", …))`."#]].assert_eq(&told(&server, write(&server, &unknown)));
    expect![[r#"
        cannot read "ROOT/in": permission denied
          It answers 403 Forbidden: AccessDenied: Access denied.
          Hint: Ask for the right to list, read and write in "bucket", or use other credentials."#]]
    .assert_eq(&read("in/*.csv", &of(STRANGER)));
    expect![[r#"
        cannot write "ROOT/out.csv": permission denied
          It answers 403 Forbidden: AccessDenied: Access denied.
          Hint: Ask for the right to list, read and write in "bucket", or use other credentials."#]]
    .assert_eq(&told(&server, write(&server, &of(STRANGER))));
    let unsigned = server
        .without_credentials()
        .option("google_skip_signature", "true");
    expect![[r#"
        cannot read "ROOT/in": the credentials are refused
          It answers 401 Unauthorized: AuthenticationRequired: Authentication required.
          Hint: Set GOOGLE_SERVICE_ACCOUNT (the path of a service account's key), or give them by `.storage(Storage::new().option("google_service_account", …))`."#]].assert_eq(&read("in/*.csv", &unsigned));
    expect![[r#"
        cannot write "ROOT/out.csv": the credentials are refused
          It answers 401 Unauthorized: AuthenticationRequired: Authentication required.
          Hint: Set GOOGLE_SERVICE_ACCOUNT (the path of a service account's key), or give them by `.storage(Storage::new().option("google_service_account", …))`."#]].assert_eq(&told(&server, write(&server, &unsigned)));
    let no_key = server
        .without_credentials()
        .option("google_service_account_key", "{}");
    expect![[r#"
        "ROOT/in/*.csv" cannot be reached with these options
          GCP credential error: Unable to decode service account file: missing field `private_key` at line 1 column 2.
          Hint: Correct the options given by `.storage(…)`, or the environment."#]].assert_eq(&read("in/*.csv", &no_key));
    assert_eq!(
        format!("{unknown:?}"),
        r#"Storage {"google_base_url", "google_service_account_key"}"#
    );
}

#[test]
fn a_bucket_that_is_not_there_is_not_made() {
    let server = StoreServer::google();
    for place in ["gs://nowhere/out.csv", "gs://nowhere/out"] {
        let sink = csv_sink(place).storage(server.storage());
        let written = write_sink(&sink, &[vec![table("x: 1")]]);
        expect![[r#"
            cannot write "PLACE": there is no bucket "nowhere"
              It answers 404 Not Found: NoSuchBucket.
              Hint: Check its name, then GOOGLE_BASE_URL."#]]
        .assert_eq(&told(&server, written).replace(place, "PLACE"));
    }
}

#[test]
fn requests_that_come_too_fast_are_made_again() {
    let server = StoreServer::google();
    let too_fast = Fault::Fail(StatusCode::TOO_MANY_REQUESTS);
    server.fault("PUT /bucket/out.csv", [too_fast; 2]);
    write(&server, &server.storage()).unwrap();
    server.fault("PUT /bucket/out.csv", [too_fast; 9]);
    let sink = csv_sink(server.url("out.csv"))
        .storage(server.storage())
        .overwrite(true);
    let written = write_sink(&sink, &[vec![table("x: 2")]]);
    expect![[r#"
        cannot write "ROOT/out.csv": the storage is asked too often
          "http://ENDPOINT" was tried 3 times.
          It answers 429 Too Many Requests.
          Hint: Try again later."#]]
    .assert_eq(&told(&server, written));
    server.fault("", []);
    let source = csv_at(&server.url("out.csv"), &server.storage());
    assert_eq!(read_csv(source).unwrap(), "x: 1");
    assert_eq!(server.n_uploads(), 0, "uploads that were left");
}

#[test]
fn options_are_checked_before_anything_is_asked() {
    let read = |storage: Storage| {
        let error = read_csv(csv_at("gs://b/a.csv", &storage)).unwrap_err();
        assert!(error.is_pipeline(), "{error:?}");
        error.to_string()
    };
    expect![[r#"
        "gs" has no option "google_base_ulr"
          Hint: Options are those of the crate object_store, such as google_service_account, google_base_url or timeout."#]].assert_eq(&read(Storage::new().option("google_base_ulr", "x")));
    expect![[r#"
        "gs://b/a.csv" cannot be reached with these options
          failed to parse "perhaps" as boolean.
          Hint: Correct the options given by `.storage(…)`, or the environment."#]]
    .assert_eq(&read(
        Storage::new().option("google_skip_signature", "perhaps"),
    ));
    expect![[r#"
        "gs://b/a.csv" cannot be reached with these options
          GCP credential error: Unable to open service account file from /no/such/file: No such file or directory (os error 2).
          Hint: Correct the options given by `.storage(…)`, or the environment."#]].assert_eq(&read(
        Storage::new().option("google_service_account", "/no/such/file"),
    ));
}

/// The dialect is no wider than Google's, else these tests would let pass what Google refuses.
#[test]
fn what_google_does_not_know_is_refused_or_passed_over() {
    let condition = "x-goog-if-generation-match";
    let answered = |method: Method, uri: &str, header: (&str, &str)| {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header.0, header.1);
        match to_s3(request.body(()).unwrap(), true) {
            Ok(passed) => format!("{:?}", passed.headers().get(IF_NONE_MATCH)),
            Err(refused) => format!("{refused:?}"),
        }
    };
    let told = [
        answered(Method::PUT, "/b/a", (condition, "0")),
        answered(Method::PUT, "/b/a", ("if-none-match", "*")),
        answered(Method::PUT, "/b/a", (condition, "17")),
        answered(Method::POST, "/b/a?uploads=", (condition, "0")),
        answered(Method::POST, "/b/a?uploadId=1", (condition, "0")),
        answered(Method::POST, "/b?delete", ("accept", "*/*")),
        answered(Method::GET, "/b/a", ("x-amz-date", "20261128T120000Z")),
    ];
    expect![[r#"
        Some("*")
        None
        Refusal(400, "NotImplemented")
        Refusal(400, "NotImplemented")
        Refusal(400, "NotImplemented")
        Refusal(400, "InvalidArgument")
        Refusal(400, "InvalidArgument")"#]]
    .assert_eq(&told.join("\n"));
    let removes_nothing = |uri: &str| {
        let request = Request::builder().method(Method::DELETE).uri(uri);
        removes_nothing(&request.body(()).unwrap(), Path::new("/no/such/file"))
    };
    assert!(removes_nothing("/b/a"));
    assert!(!removes_nothing("/b/a?uploadId=1"));
}

#[test]
fn an_object_has_a_generation_of_its_own() {
    let server = StoreServer::google();
    let url = server.url("a.csv");
    put(&url, &server.storage(), "x\n1\n");
    let (store, key) = store(&url, &server.storage());
    let generation = || store.head(&key).unwrap().unwrap().version.unwrap();
    let first = generation();
    assert!(first.parse::<u64>().unwrap() > 0);
    assert_eq!(generation(), first);
}
