//! Files behind plain HTTP: a server on the loopback that knows ranges.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use expect_test::expect;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::Body;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::connectors::parquet_sink;
use crate::connectors::test_folder::TestFolder;
use crate::testing::{check_source, table, write_sink};

struct HttpServer {
    folder: TestFolder,
    root: String,
    /// So many requests are answered by 503 first.
    n_failures: Arc<Mutex<usize>>,
    /// Dropping it ends the server.
    _runtime: Runtime,
}

impl HttpServer {
    fn start() -> Self {
        let folder = TestFolder::new();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        let n_failures = Arc::new(Mutex::new(0));
        runtime.spawn(serve(listener, folder.path(""), Arc::clone(&n_failures)));
        Self {
            folder,
            root,
            n_failures,
            _runtime: runtime,
        }
    }

    fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    fn hide(&self, text: String) -> String {
        text.replace(&self.root, "http://SERVER")
    }
}

async fn serve(listener: TcpListener, folder: PathBuf, n_failures: Arc<Mutex<usize>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (folder, n_failures) = (folder.clone(), Arc::clone(&n_failures));
        let answer = service_fn(move |request: Request<Incoming>| {
            let fails = {
                let mut left = n_failures.lock().unwrap();
                let fails = *left > 0;
                *left = left.saturating_sub(1);
                fails
            };
            let answer = match fails {
                true => with_status(StatusCode::SERVICE_UNAVAILABLE),
                false => answer(&folder, &request),
            };
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn with_status(status: StatusCode) -> Response<Body> {
    let answer = Response::builder().status(status);
    answer.body(Body::empty()).unwrap()
}

fn answer(folder: &Path, request: &Request<Incoming>) -> Response<Body> {
    let Ok(content) = std::fs::read(folder.join(request.uri().path().trim_start_matches('/')))
    else {
        return with_status(StatusCode::NOT_FOUND);
    };
    let answer = Response::builder()
        .header(LAST_MODIFIED, "Sat, 28 Nov 2026 12:00:00 GMT")
        .header(ETAG, format!("\"{}\"", farmhash::fingerprint64(&content)));
    if request.method() == Method::HEAD {
        return answer
            .header(CONTENT_LENGTH, content.len())
            .body(Body::empty())
            .unwrap();
    }
    let Some(range) = request.headers().get(RANGE) else {
        return answer.body(Body::from(content)).unwrap();
    };
    let range = range.to_str().unwrap().trim_start_matches("bytes=");
    let (from, to) = match range.split_once('-').unwrap() {
        ("", last) => (
            content.len() - last.parse::<usize>().unwrap(),
            content.len(),
        ),
        (from, "") => (from.parse().unwrap(), content.len()),
        (from, to) => (from.parse().unwrap(), to.parse::<usize>().unwrap() + 1),
    };
    let to = to.min(content.len());
    answer
        .status(StatusCode::PARTIAL_CONTENT)
        .header(
            CONTENT_RANGE,
            format!("bytes {from}-{}/{}", to - 1, content.len()),
        )
        .body(Body::from(content[from..to].to_vec()))
        .unwrap()
}

#[test]
fn the_laws_of_sources_hold_behind_http() {
    let server = HttpServer::start();
    let rows = table("x: 1, 2, null, 4, 5; y: a, b, c, d, e");
    server
        .folder
        .write("a.csv", "x,y\n1,a\n2,b\n,c\n4,d\n5,e\n");
    let source = csv(server.url("a.csv"));
    assert_eq!(show(&check_source(&source).unwrap()), show(&rows));
    let sink = parquet_sink(server.folder.path("p")).row_group_rows(2);
    let published = write_sink(&sink, &[vec![rows.clone()]]).unwrap();
    let name = published.files[0].file_name().unwrap();
    let source = parquet(server.url(&format!("p/{}", name.display())));
    assert_eq!(show(&check_source(&source).unwrap()), show(&rows));
}

#[test]
fn a_web_server_that_fails_is_asked_again_and_one_without_the_file_is_named() {
    let server = HttpServer::start();
    server.folder.write("a.csv", "x\n7\n");
    let storage = Storage::new()
        .max_retries(2)
        .first_wait(Duration::from_millis(1));
    *server.n_failures.lock().unwrap() = 2;
    assert_eq!(
        read_csv(csv_at(&server.url("a.csv"), &storage)).unwrap(),
        "x: 7"
    );
    *server.n_failures.lock().unwrap() = 3;
    let error = read_csv(csv_at(&server.url("a.csv"), &storage)).unwrap_err();
    expect![[r#"
        cannot read "http://SERVER/a.csv": the storage fails
          the storage was tried 3 times.
          It answers 503 Service Unavailable.
          Hint: Try again later."#]]
    .assert_eq(&server.hide(error.to_string()));
    let error = read_csv(csv_at(&server.url("b.csv"), &storage)).unwrap_err();
    expect![[r#"
        "http://SERVER/b.csv" does not exist
          Hint: Name a file, a folder, or a pattern such as "births/*.csv"."#]]
    .assert_eq(&server.hide(error.to_string()));
    let error = read_csv(csv_at(&server.url("*.csv"), &storage)).unwrap_err();
    expect![[r#"
        "http://SERVER/*.csv" is no single file, expected one
          Files behind HTTP cannot be listed.
          Hint: Read each file by its name, and bring them together with `union`."#]]
    .assert_eq(&server.hide(error.to_string()));
}
