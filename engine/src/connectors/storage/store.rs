//! What is asked of a store, one blocking call each, with errors that name the file.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{
    Error as StoreError, GetOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode,
};

use super::address::{Address, Kind};
use super::background::wait;
use super::refusals::{Doing, refusal};
use crate::error::{Error, Result};

/// A bucket or container.
#[derive(Clone)]
pub(super) struct Store(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    kind: Kind,
    root: String,
    bucket: String,
    endpoint: Option<String>,
}

/// Whether an object has been put where none was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    /// Something is there already, and stays as it is.
    Taken,
}

impl Store {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        address: &Address,
        endpoint: Option<String>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            kind: address.kind,
            root: address.root.clone(),
            bucket: address.host().to_owned(),
            endpoint,
        }))
    }

    pub(super) fn kind(&self) -> Kind {
        self.0.kind
    }

    pub(super) fn bucket(&self) -> &str {
        &self.0.bucket
    }

    /// The URL of the server, where it is not the usual one.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// The URL of an object.
    pub(super) fn url(&self, key: &Key) -> String {
        format!("{}/{key}", self.0.root)
    }

    pub(super) fn refusal(&self, doing: Doing, key: &Key, error: StoreError) -> Error {
        refusal(self, doing, &self.url(key), error)
    }

    /// What is known of an object.
    pub(super) async fn look(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.0.store.head(key).await
    }

    /// What is known of an object, or nothing where there is none.
    pub(super) fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        let (this, key) = (self.clone(), key.clone());
        wait(async move {
            match this.look(&key).await {
                Ok(found) => Ok(Some(found)),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(this.refusal(Doing::Read, &key, error)),
            }
        })?
    }

    /// True if there is an object, as far as we may know.
    pub(super) fn may_see(&self, key: &Key) -> Result<bool> {
        let (this, key) = (self.clone(), key.clone());
        wait(async move {
            match this.look(&key).await {
                Ok(_) => Ok(true),
                Err(StoreError::NotFound { .. } | StoreError::PermissionDenied { .. }) => Ok(false),
                Err(error) => Err(this.refusal(Doing::Read, &key, error)),
            }
        })?
    }

    /// All objects below a key, however deep; none is no error.
    pub(super) fn list_below(&self, doing: Doing, key: &Key) -> Result<Vec<ObjectMeta>> {
        let (this, key) = (self.clone(), key.clone());
        wait(async move {
            let listed = this.0.store.list(Some(&key));
            let found: Result<Vec<ObjectMeta>, StoreError> = listed.try_collect().await;
            found.map_err(|e| this.refusal(doing, &key, e))
        })?
    }

    /// The objects that stand right below a key, and the folders.
    pub(super) fn list_folder(&self, key: &Key) -> Result<(Vec<ObjectMeta>, Vec<Key>)> {
        let (this, key) = (self.clone(), key.clone());
        wait(async move {
            let found = this.0.store.list_with_delimiter(Some(&key)).await;
            let found = found.map_err(|e| this.refusal(Doing::Read, &key, e))?;
            Ok((found.objects, found.common_prefixes))
        })?
    }

    /// The bytes that a request gives, and what the object is now.
    pub(super) async fn get(
        &self,
        key: &Key,
        options: GetOptions,
    ) -> Result<(ObjectMeta, Bytes), StoreError> {
        let found = self.0.store.get_opts(key, options).await?;
        let now = found.meta.clone();
        Ok((now, found.bytes().await?))
    }

    /// Puts a small object where none is.
    ///
    /// An answer may be lost, or be a failure though the object was put. So what is there is looked at: the
    /// same bytes count as put.
    pub(super) fn put_new(&self, key: &Key, bytes: impl Into<Bytes>) -> Result<Put> {
        let (this, key, bytes) = (self.clone(), key.clone(), bytes.into());
        wait(async move {
            let create = PutMode::Create.into();
            let put = this.0.store.put_opts(&key, bytes.clone().into(), create);
            let Err(error) = put.await else {
                return Ok(Put::Done);
            };
            let there = this.get(&key, GetOptions::default()).await;
            match error {
                _ if there.is_ok_and(|(_, there)| there == bytes) => Ok(Put::Done),
                StoreError::AlreadyExists { .. } => Ok(Put::Taken),
                error => Err(this.refusal(Doing::Write, &key, error)),
            }
        })?
    }

    /// Starts the upload of an object in parts; it cannot be seen until it is completed.
    pub(super) fn upload(&self, key: &Key) -> Result<Box<dyn MultipartUpload>> {
        let (this, key) = (self.clone(), key.clone());
        wait(async move {
            let upload = this.0.store.put_multipart(&key).await;
            upload.map_err(|e| this.refusal(Doing::Write, &key, e))
        })?
    }

    /// Removes objects; one that is not there is no error.
    pub(super) fn delete(&self, keys: Vec<Key>) -> Result<()> {
        let this = self.clone();
        wait(async move {
            let Some(first) = keys.first().cloned() else {
                return Ok(());
            };
            let keys = futures::stream::iter(keys).map(Ok).boxed();
            let mut removed = this.0.store.delete_stream(keys);
            let mut refused = Ok(());
            while let Some(one) = removed.next().await {
                match one {
                    Ok(_) | Err(StoreError::NotFound { .. }) => {}
                    Err(error) => refused = Err(this.refusal(Doing::Write, &first, error)),
                }
            }
            refused
        })?
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.root)
    }
}
