//! Writes a file of an object store in parts, without ever holding much of it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path as Key;
use object_store::{Error as StoreError, MultipartUpload, ObjectMeta};

use super::background::{Pending, start, wait};
use super::refusals::Doing;
use super::store::Store;
use super::writing::{Closed, Writing};
use crate::error::{Error, Result};

/// All parts but the last have this size. Stores want 5 MiB at least, and all alike.
pub(super) const PART_BYTES: usize = 8 << 20;

/// How many parts are on their way while the next is filled: at most 24 MiB per file, all in all.
const N_AHEAD: usize = 2;

/// About 76 GiB: stores take 10,000 parts of a file, of which some are left for the last rows.
pub(super) const MAX_FILE_BYTES: u64 = 9_800 * PART_BYTES as u64;

/// A file that is uploaded and cannot be seen, for whoever publishes it or throws it away.
#[derive(Clone)]
pub(super) struct Upload {
    store: Store,
    key: Key,
    /// Nothing once it is completed or thrown away.
    parts: Arc<Mutex<Option<Box<dyn MultipartUpload>>>>,
    /// What was written so far.
    n_bytes: Arc<AtomicU64>,
}

/// An upload that is becoming visible.
pub(super) type Completing = Pending<Result<(), StoreError>>;

/// The same file, for whoever writes it.
pub(super) struct UploadWriter {
    upload: Upload,
    /// The part being filled; it takes memory only as it fills.
    part: Vec<u8>,
    ahead: VecDeque<Pending<Result<(), StoreError>>>,
}

impl Upload {
    pub(super) fn begin(store: &Store, key: Key) -> Result<Self> {
        let parts = store.upload(&key)?;
        Ok(Self {
            store: store.clone(),
            key,
            parts: Arc::new(Mutex::new(Some(parts))),
            n_bytes: Arc::default(),
        })
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn writer(&self) -> UploadWriter {
        UploadWriter {
            upload: self.clone(),
            part: Vec::new(),
            ahead: VecDeque::new(),
        }
    }

    fn take(&self) -> Option<Box<dyn MultipartUpload>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.take()
    }

    /// Makes the file visible, whole, in the place of `before`; [`Upload::completed`] waits for it.
    ///
    /// An answer may be lost, and the request that is then made again is refused, since the parts are gone. So what is
    /// there is looked at: another file than before, of our length, counts as completed. After any other failure the
    /// parts are thrown away.
    pub(super) fn complete(&self, before: Option<ObjectMeta>) -> Result<Completing> {
        let Some(mut parts) = self.take() else {
            return Err(Error::bug("a file was published twice, or after an abort"));
        };
        let this = self.clone();
        start(async move {
            let Err(error) = parts.complete().await else {
                return Ok(());
            };
            let n_bytes = this.n_bytes.load(Ordering::Acquire);
            let is_ours = |now: &ObjectMeta| {
                let is_another = before.is_none_or(|old| {
                    (old.e_tag, old.last_modified) != (now.e_tag.clone(), now.last_modified)
                });
                now.size == n_bytes && is_another
            };
            match this.store.look(&this.key).await {
                Ok(now) if is_ours(&now) => Ok(()),
                _ => {
                    let _ = parts.abort().await;
                    Err(error)
                }
            }
        })
    }

    pub(super) fn completed(&self, completing: Completing) -> Result<()> {
        completing.wait()?.map_err(|e| self.refusal(e))
    }

    pub(super) fn complete_now(&self, before: Option<ObjectMeta>) -> Result<()> {
        self.completed(self.complete(before)?)
    }

    /// Throws the parts away. What a store keeps of them even so, it keeps hidden.
    pub(super) fn abort(&self) {
        if let Some(mut parts) = self.take() {
            let _ = wait(async move { parts.abort().await });
        }
    }

    fn refusal(&self, error: StoreError) -> Error {
        self.store.refusal(Doing::Write, &self.key, error)
    }

    fn put_part(&self, part: Vec<u8>) -> Result<Pending<Result<(), StoreError>>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *parts {
            Some(parts) => start(parts.put_part(part.into())),
            None => Err(Error::bug("a file was written to after its end")),
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.store.url(&self.key))
    }
}

impl UploadWriter {
    fn n_bytes(&self) -> u64 {
        self.upload.n_bytes.load(Ordering::Acquire)
    }

    fn send(&mut self) -> Result<()> {
        while self.ahead.len() >= N_AHEAD {
            self.await_one()?;
        }
        let part = std::mem::take(&mut self.part);
        self.ahead.push_back(self.upload.put_part(part)?);
        Ok(())
    }

    fn await_one(&mut self) -> Result<()> {
        match self.ahead.pop_front() {
            Some(sent) => sent.wait()?.map_err(|e| self.upload.refusal(e)),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<()> {
        if !self.part.is_empty() || self.n_bytes() == 0 {
            self.send()?;
        }
        while !self.ahead.is_empty() {
            self.await_one()?;
        }
        Ok(())
    }
}

impl Write for UploadWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..n]);
        self.upload.n_bytes.fetch_add(n as u64, Ordering::Release);
        if self.part.len() == PART_BYTES {
            self.send().map_err(io::Error::other)?;
        }
        Ok(n)
    }

    /// Parts are sent when they are full: a store takes no small ones.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writing for UploadWriter {
    fn close(mut self: Box<Self>) -> io::Result<Closed> {
        self.finish().map_err(io::Error::other)?;
        Ok(Closed::now(self.n_bytes()))
    }
}
