//! What the error of a store means to a person: what, where, and what to do.

use std::error::Error as StdError;
use std::io;

use object_store::Error as StoreError;
use object_store::client::{HttpError, HttpErrorKind};

use super::address::Kind;
use super::store::Store;
use super::stored_file::has_changed;
use crate::error::Error;

/// What servers call credentials that are no good, whatever the status.
const REFUSED: [&str; 6] = [
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "NotSignedUp",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
];

/// What servers call a bucket that is somewhere else.
const ELSEWHERE: [&str; 3] = [
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "TemporaryRedirect",
];

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Read,
    Write,
}

/// The error of this crate inside another, such as one that passed through a library as an I/O error.
pub(crate) fn found_within(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<Error>() {
            return Some(found.clone());
        }
        // The source of an I/O error is that of the error it holds, not that error.
        if let Some(held) = inner.downcast_ref::<io::Error>().and_then(|e| e.get_ref())
            && let Some(found) = held.downcast_ref::<Error>()
        {
            return Some(found.clone());
        }
        cause = inner.source();
    }
    None
}

/// The error of a store as an error of ours. No secret stands in it: keys and signatures travel in headers.
pub(super) fn refusal(store: &Store, doing: Doing, url: &str, error: StoreError) -> Error {
    if matches!(error, StoreError::Precondition { .. }) && doing == Doing::Read {
        return has_changed(url);
    }
    let answer = Answer::of(&error);
    let Reason {
        reason,
        detail,
        hint,
    } = reason(store, &error, &answer);
    let what = match doing {
        Doing::Read => "read",
        Doing::Write => "write",
    };
    let mut refused = Error::environment(format!("cannot {what} {url:?}: {reason}"));
    for detail in detail.into_iter().chain(answer.told()) {
        refused = refused.with_detail(detail);
    }
    match hint {
        Some(hint) => refused.with_hint(hint),
        None => refused,
    }
    .with_source(error)
}

struct Reason {
    reason: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Reason {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            detail: None,
            hint: None,
        }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn reason(store: &Store, error: &StoreError, answer: &Answer) -> Reason {
    let code = answer.code.as_deref().unwrap_or_default();
    let no_bucket = ["NoSuchBucket", "ContainerNotFound"].contains(&code);
    if no_bucket || (code == "InvalidBucketName") {
        let bucket = store.bucket();
        return Reason::new(format!("there is no bucket {bucket:?}"))
            .hint(format!("Check its name, then {}.", place_of(store)));
    }
    if answer.no_credentials {
        return Reason::new("there are no credentials for it").hint(credentials_of(store.kind()));
    }
    if REFUSED.contains(&code) {
        return refused_credentials(store);
    }
    if ELSEWHERE.contains(&code) || answer.redirected {
        return Reason::new("the bucket is in another region")
            .hint(format!("Set {}.", place_of(store)));
    }
    if code == "AccessDenied" {
        return Reason::new("permission denied").hint(format!(
            "Ask for the right to list, read and write in {:?}, or use other credentials.",
            store.bucket()
        ));
    }
    match error {
        StoreError::NotFound { .. } => Reason::new("it does not exist any more"),
        StoreError::Unauthenticated { .. } | StoreError::PermissionDenied { .. } => {
            refused_credentials(store)
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            Reason::new("the storage cannot do that").detail(format!("{error}"))
        }
        // What a list is refused with has no kind of its own in the library.
        _ if answer.is_status(&["401", "403"]) => refused_credentials(store),
        _ => failure(store, answer),
    }
}

/// The server could not be asked, or did not know what to say.
fn failure(store: &Store, answer: &Answer) -> Reason {
    let tried = answer.tried.as_deref().unwrap_or("once");
    let endpoint = match store.endpoint() {
        Some(endpoint) => format!("{endpoint:?}"),
        None => "the storage".to_owned(),
    };
    match answer.broken {
        Some(HttpErrorKind::Connect) => Reason::new("the storage cannot be reached")
            .detail(format!("{endpoint} was tried {tried}: {}.", answer.root))
            .hint(format!("Check the network, then {}.", place_of(store))),
        Some(HttpErrorKind::Timeout) => Reason::new("the storage does not answer in time")
            .detail(match answer.is_begun {
                true => format!(
                    "{endpoint} began to answer and did not end."
                ),
                false => format!("{endpoint} was tried {tried}."),
            })
            .hint("Try again later, or give it more time by `.storage(Storage::new().option(\"timeout\", \"60s\"))`."),
        Some(_) => Reason::new("the connection to the storage broke")
            .detail(format!("{endpoint} was tried {tried}: {}.", answer.root))
            .hint("Try again later."),
        None if answer.is_status(&["429"]) => Reason::new("the storage is asked too often")
            .detail(format!("{endpoint} was tried {tried}."))
            .hint("Try again later."),
        None if answer.is_status(&["5"]) => Reason::new("the storage fails")
            .detail(format!("{endpoint} was tried {tried}."))
            .hint("Try again later."),
        None if answer.status.is_some() => Reason::new("the storage refuses it"),
        None => Reason::new(answer.root.clone()),
    }
}

fn refused_credentials(store: &Store) -> Reason {
    Reason::new("the credentials are refused").hint(credentials_of(store.kind()))
}

/// What says who is asking.
pub(super) fn credentials_of(kind: Kind) -> String {
    let (variables, option) = match kind {
        Kind::S3 => (
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are temporary)",
            "aws_access_key_id",
        ),
        Kind::Google => (
            "GOOGLE_SERVICE_ACCOUNT (the path of a service account's key)",
            "google_service_account",
        ),
        Kind::Azure => (
            "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
            "azure_storage_account_name",
        ),
        Kind::Http | Kind::Memory => return "Use a file that anybody may read.".to_owned(),
    };
    format!("Set {variables}, or give them by `.storage(Storage::new().option({option:?}, …))`.")
}

/// What says where the store is.
fn place_of(store: &Store) -> &'static str {
    match store.kind() {
        Kind::S3 => "AWS_ENDPOINT and AWS_REGION",
        Kind::Google => "GOOGLE_BASE_URL",
        Kind::Azure => "AZURE_STORAGE_ACCOUNT_NAME",
        Kind::Http | Kind::Memory => "the URL",
    }
}

/// What the server answered, as far as the library tells.
#[derive(Default)]
struct Answer {
    /// `403 Forbidden`.
    status: Option<String>,
    /// The code of the answer, such as `NoSuchBucket`, and its message.
    code: Option<String>,
    message: Option<String>,
    /// Nothing came back, or not all.
    broken: Option<HttpErrorKind>,
    /// The answer was there, and what it holds did not come: the library does not say how often it asked for the rest.
    is_begun: bool,
    redirected: bool,
    no_credentials: bool,
    /// `3 times`.
    tried: Option<String>,
    /// The innermost error.
    root: String,
}

impl Answer {
    fn of(error: &StoreError) -> Self {
        let mut answer = Self::default();
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(inner) = cause {
            answer.root = inner.to_string();
            if let Some(http) = inner.downcast_ref::<HttpError>() {
                answer.broken = Some(http.kind());
            }
            cause = inner.source();
        }
        // The library keeps its errors to itself: what they hold is found in their text.
        let text = error.to_string();
        answer.is_begun = answer.broken.is_some() && !text.contains("Error performing ");
        if let Some((_, rest)) = text.split_once("Server returned non-2xx status code: ") {
            answer.status = rest.split(':').next().map(str::to_owned);
        }
        answer.code = tag(&text, "Code");
        answer.message = tag(&text, "Message");
        answer.redirected = text.contains("Received redirect without LOCATION");
        answer.no_credentials = text.contains("169.254.169.254");
        if let Some((_, rest)) = text.split_once(", after ") {
            let n: Option<u64> = rest.split(' ').next().and_then(|n| n.parse().ok());
            answer.tried = n.map(|n| format!("{} times", n + 1));
        }
        answer
    }

    /// True if the status begins with one of these.
    fn is_status(&self, beginnings: &[&str]) -> bool {
        let status = self.status.as_deref().unwrap_or_default();
        beginnings
            .iter()
            .any(|beginning| status.starts_with(beginning))
    }

    /// What the server said, as a sentence.
    fn told(&self) -> Option<String> {
        let status = self.status.as_deref()?;
        let said = [self.code.as_deref(), self.message.as_deref()];
        let said: Vec<&str> = said.into_iter().flatten().collect();
        let mut sentence = format!("It answers {status}");
        for said in said {
            sentence.push_str(": ");
            sentence.push_str(said.trim_end_matches('.'));
        }
        Some(sentence + ".")
    }
}

/// What stands in an XML element.
fn tag(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once('<')?;
    Some(value.to_owned())
}

/// An I/O error as an error of ours, if one of ours is in it.
pub(super) fn or_else(error: io::Error, otherwise: impl FnOnce(io::Error) -> Error) -> Error {
    found_within(&error).unwrap_or_else(|| otherwise(error))
}
