//! One file of results in an object store, put together from shards that wait on the local disk.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use object_store::path::Path as Key;
use serde_json::json;
use tempfile::TempDir;

use super::address::Address;
use super::claim::{Claim, has_come, is_other};
use super::prefix::{PUBLISHING, run_id, writable};
use super::refusals::{Doing, or_else};
use super::store::{Put, Store};
use super::upload::{PART_BYTES, Upload};
use super::writing::{LocalFile, Writing};
use crate::connectors::shards::{Shard, ShardOptions};
use crate::connectors::staged_folder::cannot_write;
use crate::connectors::staging::{Existing, Staging, is_there};
use crate::error::{Error, Result};

/// One file under way. Its shards wait in the folder for temporary files, as its bytes have to stand in
/// their order and each worker writes its own.
pub(crate) struct OneObject {
    store: Store,
    key: Key,
    existing: Existing,
    /// Nothing once it is published or thrown away.
    folder: Mutex<Option<TempDir>>,
}

impl OneObject {
    /// Looks at what stands at the place; nothing is made there yet.
    pub(crate) fn begin(address: &Address, options: &ShardOptions) -> Result<Self> {
        let store = writable(address, options)?;
        let key = address.key()?;
        let url = store.url(&key);
        let below = store.list_below(Doing::Write, &key)?;
        if below.iter().any(|object| object.location != key) {
            return Err(is_other(&url, "folder", "one file"));
        }
        if options.existing == Existing::Refuse && store.head(&key)?.is_some() {
            return Err(is_there(&url));
        }
        let folder = TempDir::new().map_err(|e| cannot_write(&std::env::temp_dir(), e))?;
        Ok(Self {
            store,
            key,
            existing: options.existing,
            folder: Mutex::new(Some(folder)),
        })
    }

    fn path(&self, shard: &Shard) -> Result<PathBuf> {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(folder) = &*folder else {
            return Err(Error::bug("a file was begun after the publication ended"));
        };
        let name = format!("{:05}-{:05}", shard.worker, shard.number);
        Ok(folder.path().join(name))
    }

    fn join(&self, file: &mut dyn Write, preamble: &[u8], shards: &[Shard]) -> Result<()> {
        let failed = |e| self.cannot_write(e);
        file.write_all(preamble).map_err(failed)?;
        for shard in shards {
            let path = self.path(shard)?;
            let mut shard = File::open(&path).map_err(|e| cannot_write(&path, e))?;
            io::copy(&mut shard, file).map_err(failed)?;
        }
        Ok(())
    }

    fn publish_small(&self, preamble: &[u8], shards: &[Shard]) -> Result<u64> {
        let mut bytes = Vec::new();
        self.join(&mut bytes, preamble, shards)?;
        let n_bytes = bytes.len() as u64;
        match self.store.put_new(&self.key, bytes)? {
            Put::Done => Ok(n_bytes),
            Put::Taken => Err(has_come(&self.target())),
        }
    }

    fn publish_large(&self, preamble: &[u8], shards: &[Shard]) -> Result<u64> {
        let upload = Upload::begin(&self.store, self.key.clone())?;
        let mut writer = Box::new(upload.writer());
        let written = self
            .join(&mut *writer, preamble, shards)
            .and_then(|()| writer.close().map_err(|e| self.cannot_write(e)))
            .map(|closed| closed.n_bytes())
            .and_then(|n_bytes| match self.existing {
                Existing::Replace => {
                    let before = self.store.head(&self.key)?;
                    upload.complete_now(before).map(|()| n_bytes)
                }
                Existing::Refuse => self.complete_alone(&upload).map(|()| n_bytes),
            });
        if written.is_err() {
            upload.abort();
        }
        written
    }

    /// Completes an upload where nothing is. The request itself cannot say so.
    fn complete_alone(&self, upload: &Upload) -> Result<()> {
        let name = format!("{PUBLISHING}-{}", self.key.filename().unwrap_or_default());
        let mut folders: Vec<_> = self.key.parts().collect();
        folders.pop();
        let mark = Key::from_iter(folders).join(name.as_str());
        let what = json!({ "run": run_id(&self.key), "files": [self.key.as_ref()] });
        let claim = Claim::take(&self.store, mark, &what)?;
        let completed = match self.store.head(&self.key) {
            Ok(None) => upload.complete_now(None),
            Ok(Some(_)) => Err(has_come(&self.target())),
            Err(error) => Err(error),
        };
        let url = claim.url();
        match (completed, claim.give_back()) {
            (completed, Ok(())) => completed,
            (Ok(()), Err(error)) => Err(error.with_detail(format!(
                "The file is there, and so is the mark {url:?}, which must be removed."
            ))),
            (Err(error), Err(_)) => {
                Err(error.with_detail(format!("The mark {url:?} could not be removed.")))
            }
        }
    }
}

impl Staging for OneObject {
    fn target(&self) -> String {
        self.store.url(&self.key)
    }

    fn create(&self, shard: &Shard) -> Result<Box<dyn Writing>> {
        let path = self.path(shard)?;
        let file = LocalFile::create_new(&path).map_err(|e| cannot_write(&path, e))?;
        Ok(Box::new(file))
    }

    fn publish_shards(&self, _: &[Shard]) -> Result<Vec<PathBuf>> {
        Err(Error::bug("one file is not published as a folder"))
    }

    fn publish_joined(&self, preamble: &[u8], shards: &[Shard]) -> Result<u64> {
        let n_bytes = shards.iter().map(|s| s.n_bytes).sum::<u64>() + preamble.len() as u64;
        let is_small = n_bytes <= PART_BYTES as u64;
        let published = match is_small && self.existing == Existing::Refuse {
            true => self.publish_small(preamble, shards)?,
            false => self.publish_large(preamble, shards)?,
        };
        self.abort();
        Ok(published)
    }

    fn abort(&self) {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropping it removes it.
        folder.take();
    }

    fn cannot_write(&self, error: io::Error) -> Error {
        or_else(error, |error| {
            cannot_write(&PathBuf::from(self.target()), error)
        })
    }
}

impl fmt::Debug for OneObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target())
    }
}
