//! How an object store is reached.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How an object store is reached, where the environment does not say it.
///
/// A source or a sink takes its place as a path or as a URL:
///
/// | URL | store | from the environment |
/// |---|---|---|
/// | `s3://bucket/key` | Amazon S3 and what speaks like it | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT`, … |
/// | `gs://bucket/key` | Google Cloud Storage, by feature `gcp` | `GOOGLE_SERVICE_ACCOUNT`, `GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_BASE_URL`, … |
/// | `az://container/key`, `abfs://…` | Azure Blob Storage, by feature `azure` | `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, … |
/// | `http://…`, `https://…` | single files to read, by feature `http` | |
/// | `memory://name/key` | this process, until it ends | |
/// | `file:///path` | the local file system | |
///
/// Options are those of the crate `object_store`, in any case; an option given here goes before the
/// environment. Keys are as they are in the store, not escaped. The files `~/.aws/config` and
/// `~/.aws/credentials` are not read.
///
/// An emulator of Google's store is reached by `GOOGLE_BASE_URL` and, where it knows no accounts, by
/// `GOOGLE_SKIP_SIGNATURE` set to `true`; to be written to, it must know the whole XML API, uploads in parts
/// too.
///
/// A request that fails for no fault of ours is made again, after a wait that doubles each time, and
/// ends the run if it fails still. Values of options never stand in messages.
///
/// ```no_run
/// # use mainstem_engine::connectors::{self, Storage};
/// let storage = Storage::new()
///     .option("aws_endpoint", "http://localhost:9000")
///     .option("aws_region", "eu-central-1");
/// let births = connectors::csv("s3://hospital/births/*.csv").storage(storage);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Storage {
    options: BTreeMap<String, String>,
    max_retries: Option<usize>,
    first_wait: Option<Duration>,
}

impl Storage {
    /// Nothing but what the environment says.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an option, such as `aws_region`, or `timeout` (of one request) to `"30s"`.
    #[must_use]
    pub fn option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into().to_ascii_lowercase();
        self.options.insert(key, value.into());
        self
    }

    /// How often a request is made again: by default 10 times, within three minutes.
    #[must_use]
    pub fn max_retries(mut self, n: usize) -> Self {
        self.max_retries = Some(n);
        self
    }

    /// The wait before a request is made again for the first time: by default 100 ms.
    #[must_use]
    pub fn first_wait(mut self, wait: Duration) -> Self {
        self.first_wait = Some(wait);
        self
    }

    pub(super) fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    pub(super) fn retries(&self) -> object_store::RetryConfig {
        let mut retries = object_store::RetryConfig::default();
        retries.max_retries = self.max_retries.unwrap_or(retries.max_retries);
        retries.backoff.init_backoff = self.first_wait.unwrap_or(retries.backoff.init_backoff);
        retries
    }
}

/// Without the values, which may be secrets.
impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Storage ")?;
        f.debug_set().entries(self.options.keys()).finish()
    }
}
