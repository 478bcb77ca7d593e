//! A real S3 server on the loopback, with faults in front of it, that speaks as Google's store too.
//!
//! ```text
//! object_store ─▶ faults: 500, silence, drops, a log ─▶ s3s (signatures, requests) ─▶ s3s-fs (a folder)
//!           └▶ google_dialect (tokens, headers) ─▶┘
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use object_store::path::Path as Key;

#[cfg(feature = "gcp")]
use super::google_dialect;
use crate::connectors::Storage;

/// A secret that must never stand in a message.
pub(super) const SECRET: &str = "a-secret-key-of-the-test";

pub(super) struct StoreServer {
    dialect: Dialect,
    folder: tempfile::TempDir,
    endpoint: String,
    faults: Arc<Mutex<Faults>>,
    /// Dropping it ends the server.
    _runtime: Runtime,
}

/// What a server speaks, and of whom it takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    S3,
    /// Signed by the service account of the tests.
    #[cfg(feature = "gcp")]
    Google,
    /// Of anybody, as an emulator does.
    #[cfg(feature = "gcp")]
    GoogleForAll,
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
    /// The answer comes byte by byte, and after so many bytes no more of it does.
    Drops(usize),
}

/// An answer of which each byte comes by itself, and after some no more.
struct Drops {
    answer: Pin<Box<Body>>,
    come: Bytes,
    n_left: usize,
}

impl HttpBody for Drops {
    type Data = Bytes;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while self.come.is_empty() {
            match ready!(self.answer.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => self.come = frame.into_data().unwrap_or_default(),
                end => return Poll::Ready(end),
            }
        }
        if self.n_left == 0 {
            return Poll::Pending;
        }
        self.n_left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.come.split_to(1)))))
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

impl StoreServer {
    /// A server of S3 with one empty bucket, `bucket`.
    pub(super) fn s3() -> Self {
        Self::start(Dialect::S3)
    }

    /// A server that speaks as Google's store, with one empty bucket, `bucket`.
    #[cfg(feature = "gcp")]
    pub(super) fn google() -> Self {
        Self::start(Dialect::Google)
    }

    /// The same for everybody, as an emulator is.
    #[cfg(feature = "gcp")]
    pub(super) fn google_for_all() -> Self {
        Self::start(Dialect::GoogleForAll)
    }

    fn start(dialect: Dialect) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bucket")).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        if dialect == Dialect::S3 {
            service.set_auth(SimpleAuth::from_single("test", SECRET));
        }
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
        runtime.spawn(serve(listener, service, dialect, Arc::clone(&faults)));
        Self {
            dialect,
            folder,
            endpoint,
            faults,
            _runtime: runtime,
        }
    }

    /// The URL of the bucket.
    pub(super) fn root(&self) -> &'static str {
        match self.dialect {
            Dialect::S3 => "s3://bucket",
            #[cfg(feature = "gcp")]
            _ => "gs://bucket",
        }
    }

    /// The URL of an object or a folder in the bucket.
    pub(super) fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.root())
    }

    /// How the server is reached, with few and fast retries.
    pub(super) fn storage(&self) -> Storage {
        self.storage_at(&self.endpoint)
    }

    /// The same for a server that is somewhere else.
    pub(super) fn storage_at(&self, endpoint: &str) -> Storage {
        let storage = self.without_credentials();
        match self.dialect {
            Dialect::S3 => storage
                .option("aws_endpoint", endpoint)
                .option("aws_access_key_id", "test")
                .option("aws_secret_access_key", SECRET),
            #[cfg(feature = "gcp")]
            Dialect::Google => storage.option("google_base_url", endpoint).option(
                "google_service_account_key",
                google_dialect::service_account(google_dialect::ACCOUNT),
            ),
            #[cfg(feature = "gcp")]
            Dialect::GoogleForAll => storage
                .option("google_base_url", endpoint)
                .option("google_skip_signature", "true"),
        }
    }

    pub(super) fn without_credentials(&self) -> Storage {
        let storage = match self.dialect {
            Dialect::S3 => Storage::new()
                .option("aws_endpoint", &self.endpoint)
                .option("aws_region", "us-east-1"),
            #[cfg(feature = "gcp")]
            _ => Storage::new().option("google_base_url", &self.endpoint),
        };
        storage.max_retries(2).first_wait(Duration::from_millis(1))
    }

    #[cfg(feature = "gcp")]
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
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

    /// The text without the port, which is another each time, and without the kind of the server.
    pub(super) fn hide(&self, text: String) -> String {
        assert!(!text.contains(SECRET), "a secret is told: {text}");
        #[cfg(feature = "gcp")]
        assert!(
            !google_dialect::tells_secret(&text),
            "a secret is told: {text}"
        );
        text.replace(&self.endpoint, "http://ENDPOINT")
            .replace(self.root(), "ROOT")
    }
}

async fn serve(
    listener: TcpListener,
    service: S3Service,
    dialect: Dialect,
    faults: Arc<Mutex<Faults>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (service, faults) = (service.clone(), Arc::clone(&faults));
        let answer = service_fn(move |request| {
            let (service, faults) = (service.clone(), Arc::clone(&faults));
            async move { Ok::<_, Infallible>(answer(&service, dialect, &faults, request).await) }
        });
        tokio::spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(
    service: &S3Service,
    dialect: Dialect,
    faults: &Mutex<Faults>,
    request: Request<Incoming>,
) -> Response<Body> {
    #[cfg(feature = "gcp")]
    let request = match dialect {
        Dialect::S3 => request,
        Dialect::Google | Dialect::GoogleForAll => {
            let for_all = dialect == Dialect::GoogleForAll;
            match google_dialect::to_s3(request, for_all) {
                Ok(request) => request,
                Err(refused) => return refused.answer(),
            }
        }
    };
    // Google's client escapes all slashes of a key, that of S3 none.
    let path = Key::from_url_path(request.uri().path()).unwrap();
    let query = request.uri().query().map(|q| format!("?{q}"));
    let condition = match request.headers().contains_key(IF_NONE_MATCH) {
        true => " if none",
        false => "",
    };
    let line = format!(
        "{} /{path}{}{condition}",
        request.method(),
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
    let path = root.join(path.as_ref());
    // It looks whether an object is there and then puts it: two requests could both find nothing.
    let one_at_a_time = match request.headers().contains_key(IF_NONE_MATCH) {
        true => Some(CONDITIONAL.lock().await),
        false => None,
    };
    match fault {
        Some(Fault::Fail(status)) => with_status(status),
        Some(Fault::Silence) => pending().await,
        Some(Fault::LoseAnswer) => {
            let _ = pass(service, dialect, &path, request).await;
            drop(one_at_a_time);
            pending().await
        }
        Some(Fault::Drops(n_bytes)) => {
            let answer = pass(service, dialect, &path, request).await;
            answer.map(|answer| {
                Body::http_body_unsync(Drops {
                    answer: Box::pin(answer),
                    come: Bytes::new(),
                    n_left: n_bytes,
                })
            })
        }
        None => pass(service, dialect, &path, request).await,
    }
}

/// Held by a request that puts an object where none is.
static CONDITIONAL: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Passes a request for what is kept at a path on. The server behind does not know conditions of GET, so they
/// are checked here.
async fn pass(
    service: &S3Service,
    dialect: Dialect,
    path: &Path,
    request: Request<Incoming>,
) -> Response<Body> {
    // The server behind takes a folder of its disk for an object, and fails at it.
    if request.method() == Method::HEAD && path.is_dir() {
        return with_status(StatusCode::NOT_FOUND);
    }
    let wanted = request.headers().get(IF_MATCH).cloned();
    let is_get = request.method() == Method::GET;
    #[cfg(feature = "gcp")]
    if dialect != Dialect::S3 && google_dialect::removes_nothing(&request, path) {
        return google_dialect::Refusal(StatusCode::NOT_FOUND, "NoSuchKey").answer();
    }
    let answer: Result<_, HttpError> = service.call(request.map(Body::from)).await;
    let answer = match answer {
        Ok(answer)
            if is_get && wanted.is_some() && answer.headers().get(ETAG) != wanted.as_ref() =>
        {
            with_status(StatusCode::PRECONDITION_FAILED)
        }
        Ok(answer) => answer,
        Err(_) => with_status(StatusCode::INTERNAL_SERVER_ERROR),
    };
    match dialect {
        Dialect::S3 => answer,
        #[cfg(feature = "gcp")]
        Dialect::Google | Dialect::GoogleForAll => google_dialect::to_google(answer, path),
    }
}

fn with_status(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}
