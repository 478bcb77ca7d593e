//! Google's XML API as a server of S3 has it: only what differs is translated.
//!
//! Google's XML API has the form of S3's: the same paths, methods, lists, parts and errors. So all of that is left to
//! the server behind. Each difference is what Google documents below <https://cloud.google.com/storage/docs/>:
//!
//! | Google | where it says so | here |
//! |---|---|---|
//! | a request without a good token is 401 | `xml-api/reference-methods`, `-status` | the token is checked |
//! | `x-goog-if-generation-match: 0` puts where nothing is | `request-preconditions` | `If-None-Match: *` |
//! | `If-None-Match` is for reading alone | `request-preconditions` | it is taken away |
//! | an upload in parts with a condition is 400 `NotImplemented` | `request-preconditions` | it is refused |
//! | to remove what is not there is 404 `NoSuchKey` | `xml-api/delete-object` | it is looked for |
//! | answers name the generation of an object | `xml-api/reference-headers` | when it was put |
//!
//! What only S3 has is refused, so that a client of S3 would not pass for one of Google's.

use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use ring::rsa::KeyPair;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use s3s::Body;
use serde_json::{Value, json};

/// The service account that may do everything.
pub(super) const ACCOUNT: &str = "tests@mainstem.iam.gserviceaccount.com";

/// A service account that is known and may do nothing.
pub(super) const STRANGER: &str = "stranger@mainstem.iam.gserviceaccount.com";

const GENERATION_MATCH: &str = "x-goog-if-generation-match";

/// Made by `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`; it opens nothing.
const PRIVATE_KEY: &str = include_str!("service_account.pem");

/// An error, by its status and code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str);

impl Refusal {
    /// The error as Google answers it.
    pub(super) fn answer(&self) -> Response<Body> {
        let message = match self.1 {
            "AuthenticationRequired" => "Authentication required.",
            "AccessDenied" => "Access denied.",
            "NoSuchKey" => "The specified key does not exist.",
            "NotImplemented" => {
                "A header you provided implies functionality that is not implemented."
            }
            _ => "Invalid argument.",
        };
        let text = format!(
            "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>{message}</Message></Error>",
            self.1
        );
        let answer = Response::builder().status(self.0);
        let answer = answer.header(CONTENT_TYPE, "application/xml; charset=UTF-8");
        answer.body(Body::from(text)).unwrap()
    }
}

/// The key of a service account as Google gives it: the text of a JSON file.
pub(super) fn service_account(email: &str) -> String {
    json!({
        "type": "service_account",
        "client_email": email,
        "private_key_id": "the-key-of-the-tests",
        "private_key": PRIVATE_KEY,
    })
    .to_string()
}

/// True if a text holds a line of the private key or the beginning of a token, which is `{"` in base 64.
pub(super) fn tells_secret(text: &str) -> bool {
    text.contains("eyJ") || secret_lines().any(|line| text.contains(line))
}

fn secret_lines() -> impl Iterator<Item = &'static str> {
    let lines = PRIVATE_KEY.lines();
    lines.filter(|line| !line.is_empty() && !line.contains(['-', ' ']))
}

/// The request as the server behind knows it, or the answer that refuses it.
///
/// Nobody is asked who he is where a server is `for_all`.
pub(super) fn to_s3<B>(mut request: Request<B>, for_all: bool) -> Result<Request<B>, Refusal> {
    if !for_all {
        may_pass(request.headers())?;
    }
    let query = request.uri().query().unwrap_or_default();
    let is_upload = query.contains("uploads=") || query.contains("uploadId=");
    let is_s3 = |name: &str| name.starts_with("x-amz-");
    if request.headers().keys().any(|name| is_s3(name.as_str())) || query == "delete" {
        return Err(Refusal(StatusCode::BAD_REQUEST, "InvalidArgument"));
    }
    let headers = request.headers_mut();
    headers.remove(AUTHORIZATION);
    headers.remove(IF_NONE_MATCH);
    match headers.remove(GENERATION_MATCH) {
        None => Ok(request),
        Some(none) if none == "0" && !is_upload => {
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
            Ok(request)
        }
        Some(_) => Err(Refusal(StatusCode::BAD_REQUEST, "NotImplemented")),
    }
}

/// The answer of the server behind as Google gives it, to a request for what is kept at `path`.
pub(super) fn to_google(mut answer: Response<Body>, path: &Path) -> Response<Body> {
    let is_there = answer.status().is_success() && path.is_file();
    if let Ok(put) = path.metadata().and_then(|found| found.modified())
        && let Ok(since) = put.duration_since(SystemTime::UNIX_EPOCH)
        && is_there
    {
        // As with Google, microseconds; nothing here needs two puts to differ, which a disk's clock may not tell.
        let generation = HeaderValue::from_str(&since.as_micros().to_string()).unwrap();
        answer.headers_mut().insert("x-goog-generation", generation);
    }
    answer
}

/// True for a request that removes an object that is not there.
pub(super) fn removes_nothing<B>(request: &Request<B>, path: &Path) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == Method::DELETE && !query.contains("uploadId=") && !path.is_file()
}

/// Who may do it: the service account whose key has signed the token.
///
/// The token is a JWT that the account has made itself, for the scope of the whole cloud, with RS256:
/// <https://google.aip.dev/auth/4111>.
fn may_pass(headers: &HeaderMap) -> Result<(), Refusal> {
    let unknown = || Refusal(StatusCode::UNAUTHORIZED, "AuthenticationRequired");
    let claims = headers
        .get(AUTHORIZATION)
        .and_then(claims)
        .ok_or_else(unknown)?;
    let is_valid = claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        && claims["exp"].as_u64() > claims["iat"].as_u64();
    match claims["iss"].as_str() {
        Some(ACCOUNT) if is_valid => Ok(()),
        Some(STRANGER) if is_valid => Err(Refusal(StatusCode::FORBIDDEN, "AccessDenied")),
        _ => Err(unknown()),
    }
}

/// What a token says, if its signature is right.
fn claims(authorization: &HeaderValue) -> Option<Value> {
    let token = authorization.to_str().ok()?.strip_prefix("Bearer ")?;
    let (signed, signature) = token.rsplit_once('.')?;
    let (_, claims) = signed.split_once('.')?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
    PUBLIC_KEY.verify(signed.as_bytes(), &signature).ok()?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

static PUBLIC_KEY: LazyLock<UnparsedPublicKey<Vec<u8>>> = LazyLock::new(|| {
    let key = BASE64_STANDARD
        .decode(secret_lines().collect::<String>())
        .unwrap();
    let key = KeyPair::from_pkcs8(&key).unwrap();
    let public = ring::signature::KeyPair::public_key(&key)
        .as_ref()
        .to_owned();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
});
