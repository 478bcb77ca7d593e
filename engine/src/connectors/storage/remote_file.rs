//! A file in an object store, as it was when it was listed.

use std::ops::Range;

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{Error as StoreError, GetOptions, ObjectMeta};

use super::address::Kind;
use super::background::wait;
use super::refusals::Doing;
use super::store::Store;
use super::stored_file::has_changed;
use crate::error::{Error, Result};

/// A file in an object store, as it was when it was listed.
///
/// Each request says which version it wants, by the file's tag, and looks at what it got: a file that
/// is replaced while it is read is an error, never a mixture.
#[derive(Clone)]
pub(super) struct RemoteFile {
    store: Store,
    listed: ObjectMeta,
}

impl RemoteFile {
    pub(super) fn new(store: Store, listed: ObjectMeta) -> Self {
        Self { store, listed }
    }

    pub(super) fn url(&self) -> String {
        self.store.url(self.key())
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.listed.size
    }

    fn key(&self) -> &Key {
        &self.listed.location
    }

    /// The bytes of a range, all of them.
    pub(super) fn range(&self, range: Range<u64>) -> Result<Bytes> {
        let this = self.clone();
        wait(async move { this.fetch(range).await })?
    }

    pub(super) async fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if range.end > self.n_bytes() {
            return Err(self.ends_early(range.end));
        }
        let n_bytes = range.end - range.start;
        let options = GetOptions {
            if_match: self.strong_tag(),
            range: Some(range.into()),
            ..GetOptions::default()
        };
        match self.store.get(self.key(), options).await {
            Ok((now, bytes)) if self.is_same(&now) && bytes.len() as u64 == n_bytes => Ok(bytes),
            Ok(_) | Err(StoreError::Precondition { .. }) => Err(has_changed(&self.url())),
            Err(error) => Err(self.store.refusal(Doing::Read, self.key(), error)),
        }
    }

    /// A weak tag never matches in a request.
    fn strong_tag(&self) -> Option<String> {
        let tag = self.listed.e_tag.as_ref()?;
        if tag.starts_with("W/") {
            return None;
        }
        Some(match self.store.kind() {
            // Lists tags without the quotes that belong to them.
            Kind::Azure => format!("\"{}\"", bare(tag)),
            _ => tag.clone(),
        })
    }

    /// Some stores pass over the condition of a request, and some give no tags.
    fn is_same(&self, now: &ObjectMeta) -> bool {
        if now.size != self.listed.size {
            return false;
        }
        match (&self.listed.e_tag, &now.e_tag) {
            (Some(listed), Some(now)) => bare(listed) == bare(now),
            // Headers hold whole seconds.
            _ => self.listed.last_modified.timestamp() == now.last_modified.timestamp(),
        }
    }

    fn ends_early(&self, wanted: u64) -> Error {
        let (url, n_bytes) = (self.url(), self.n_bytes());
        Error::data(format!(
            "file {url:?} ends after {n_bytes} bytes, expected at least {wanted}"
        ))
    }
}

/// A tag without the quotes that some answers of a store leave out.
fn bare(tag: &str) -> &str {
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    inner.unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_same_with_its_quotes_and_without() {
        assert_eq!(["0x8D", "\"0x8D\""].map(bare), ["0x8D", "0x8D"]);
        assert_eq!(["W/\"0x8D\"", "\"", ""].map(bare), ["W/\"0x8D\"", "\"", ""]);
    }
}
