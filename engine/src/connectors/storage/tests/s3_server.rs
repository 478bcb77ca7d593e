//! A real S3 server on the loopback, with faults in front of it.
//!
//! ```text
//! object_store ─▶ faults: 500, silence, a log ─▶ s3s (signatures, requests) ─▶ s3s-fs (a folder)
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::connectors::Storage;

/// A secret that must never stand in a message.
pub(super) const SECRET: &str = "a-secret-key-of-the-test";

pub(super) struct S3Server {
    folder: tempfile::TempDir,
    endpoint: String,
    faults: Arc<Mutex<Faults>>,
    /// Dropping it ends the server.
    _runtime: Runtime,
}

#[derive(Default)]
struct Faults {
    /// What requests come to; those that find nothing here come through.
    next: VecDeque<Fault>,
    /// Which requests are counted and may fail: those whose line holds this.
    only: String,
    /// Method, path and query of each request.
    log: Vec<String>,
    root: PathBuf,
}

#[derive(Clone, Copy)]
pub(super) enum Fault {
    Fail(StatusCode),
    /// No answer, ever.
    Silence,
    /// The request is carried out, and the answer lost.
    LoseAnswer,
}

impl S3Server {
    /// A server with one empty bucket, `bucket`.
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bucket")).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("test", SECRET));
        let service = service.build();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let faults = Arc::new(Mutex::new(Faults {
            root: folder.path().to_owned(),
            ..Faults::default()
        }));
        runtime.spawn(serve(listener, service, Arc::clone(&faults)));
        Self {
            folder,
            endpoint,
            faults,
            _runtime: runtime,
        }
    }

    /// How the server is reached, with few and fast retries.
    pub(super) fn storage(&self) -> Storage {
        self.without_credentials()
            .option("aws_access_key_id", "test")
            .option("aws_secret_access_key", SECRET)
    }

    pub(super) fn without_credentials(&self) -> Storage {
        Storage::new()
            .option("aws_endpoint", &self.endpoint)
            .option("aws_region", "us-east-1")
            .max_retries(2)
            .first_wait(Duration::from_millis(1))
    }

    /// The next requests whose method, path and query hold `only` come to this.
    pub(super) fn fault(&self, only: &str, faults: impl IntoIterator<Item = Fault>) {
        let mut now = self.faults.lock().unwrap();
        now.only = only.to_owned();
        now.next = faults.into_iter().collect();
    }

    /// The requests since this was last called.
    pub(super) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.faults.lock().unwrap().log)
    }

    /// Where an object is kept.
    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join("bucket").join(key)
    }

    /// Puts an object, behind the back of the server.
    pub(super) fn put(&self, key: &str, content: impl AsRef<[u8]>) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// How many uploads are neither completed nor thrown away.
    pub(super) fn n_uploads(&self) -> usize {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".upload-")).count()
    }

    /// The text without the port, which is another each time.
    pub(super) fn hide(&self, text: String) -> String {
        assert!(!text.contains(SECRET), "a secret is told: {text}");
        text.replace(&self.endpoint, "http://ENDPOINT")
    }
}

async fn serve(listener: TcpListener, service: S3Service, faults: Arc<Mutex<Faults>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (service, faults) = (service.clone(), Arc::clone(&faults));
        let answer = service_fn(move |request| {
            let (service, faults) = (service.clone(), Arc::clone(&faults));
            async move { Ok::<_, Infallible>(answer(&service, &faults, request).await) }
        });
        tokio::spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(
    service: &S3Service,
    faults: &Mutex<Faults>,
    request: Request<Incoming>,
) -> Response<Body> {
    let query = request.uri().query().map(|q| format!("?{q}"));
    let condition = match request.headers().contains_key(IF_NONE_MATCH) {
        true => " if none",
        false => "",
    };
    let line = format!(
        "{} {}{}{condition}",
        request.method(),
        request.uri().path(),
        query.unwrap_or_default()
    );
    let (fault, root) = {
        let mut faults = faults.lock().unwrap();
        let fault = match line.contains(&faults.only) {
            true => faults.next.pop_front(),
            false => None,
        };
        faults.log.push(line);
        (fault, faults.root.clone())
    };
    // The server behind takes a folder of its disk for an object, and fails at it.
    let path = root.join(request.uri().path().trim_start_matches('/'));
    if request.method() == hyper::Method::HEAD && path.is_dir() {
        return with_status(StatusCode::NOT_FOUND);
    }
    // It looks whether an object is there and then puts it: two requests could both find nothing.
    let one_at_a_time = match request.headers().contains_key(IF_NONE_MATCH) {
        true => Some(CONDITIONAL.lock().await),
        false => None,
    };
    match fault {
        Some(Fault::Fail(status)) => with_status(status),
        Some(Fault::Silence) => pending().await,
        Some(Fault::LoseAnswer) => {
            let _ = pass(service, request).await;
            drop(one_at_a_time);
            pending().await
        }
        None => pass(service, request).await,
    }
}

/// Held by a request that puts an object where none is.
static CONDITIONAL: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Passes a request on. The server behind does not know conditions of GET, so they are checked here.
async fn pass(service: &S3Service, request: Request<Incoming>) -> Response<Body> {
    let wanted = request.headers().get(IF_MATCH).cloned();
    let is_get = request.method() == hyper::Method::GET;
    let answer: Result<_, HttpError> = service.call(request.map(Body::from)).await;
    match answer {
        Ok(answer)
            if is_get && wanted.is_some() && answer.headers().get(ETAG) != wanted.as_ref() =>
        {
            with_status(StatusCode::PRECONDITION_FAILED)
        }
        Ok(answer) => answer,
        Err(_) => with_status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn with_status(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}
