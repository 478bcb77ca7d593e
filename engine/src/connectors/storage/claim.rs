//! A mark that one run at a time may publish at a place.

use object_store::path::Path as Key;
use serde_json::Value;

use super::prefix::PUBLISHING;
use super::store::{Put, Store};
use crate::error::{Error, Result};

/// An object that only one of several runs can put, while it publishes.
#[derive(Debug)]
pub(super) struct Claim {
    store: Store,
    key: Key,
}

impl Claim {
    /// Puts the mark, with what is about to be published, or says that another run has it.
    pub(super) fn take(store: &Store, key: Key, what: &Value) -> Result<Self> {
        match store.put_new(&key, what.to_string())? {
            Put::Done => Ok(Self {
                store: store.clone(),
                key,
            }),
            Put::Taken => Err(being_published(&store.url(&key))),
        }
    }

    pub(super) fn url(&self) -> String {
        self.store.url(&self.key)
    }

    pub(super) fn give_back(self) -> Result<()> {
        self.store.delete(vec![self.key])
    }
}

/// The error of a place where a run publishes, or died while it did.
pub(super) fn being_published(mark: &str) -> Error {
    let place = mark
        .rsplit_once(PUBLISHING)
        .map_or(mark, |(before, _)| before);
    Error::environment(format!(
        "{:?} is being published by another run",
        place.trim_end_matches('/')
    ))
    .with_detail(format!("{mark:?} says so, and names the files."))
    .with_hint("Wait for that run. If it was killed, remove what it names, then the mark.")
}

/// The error of results that came while ours were made.
pub(super) fn has_come(url: &str) -> Error {
    Error::environment(format!(
        "cannot write {url:?}: something has come to stand there during the run"
    ))
    .with_hint("Choose another place, remove it, or say `.overwrite(true)`.")
}

/// The error of a place that must be something else.
pub(super) fn is_other(url: &str, found: &str, wanted: &str) -> Error {
    Error::environment(format!("{url:?} is a {found}, expected {wanted}"))
        .with_hint("Choose another place.")
}
