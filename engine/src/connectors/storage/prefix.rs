//! A folder of results in an object store, published without a rename.
//!
//! ```text
//! while the run writes     parts of uploads, which nobody can see
//! at its end, in order     1  put _publishing where none is      one run only; our readers wait
//!                          2  complete the uploads               each file appears whole
//!                          3  remove the files that are replaced
//!                          4  put _SUCCESS                       readers of others' may go
//!                          5  remove _publishing                 our readers may go
//! ```
//!
//! See docs/decisions/how-does-output-to-an-object-store-appear-at-once.md.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectMeta};
use serde_json::json;

use super::address::{Address, Kind};
use super::background::wait;
use super::claim::{Claim, being_published, has_come, is_other};
use super::connect::connect;
use super::refusals::{Doing, or_else};
use super::store::{Put, Store};
use super::upload::{Completing, MAX_FILE_BYTES, Upload};
use super::writing::Writing;
use crate::connectors::files::is_hidden;
use crate::connectors::shards::{Shard, ShardOptions};
use crate::connectors::staged_folder::cannot_write;
use crate::connectors::staging::{Existing, Staging, is_not_empty, not_replaceable};
use crate::error::{Error, Result};

/// Says that all files of a folder are there.
pub(super) const SUCCESS: &str = "_SUCCESS";

/// Says that a folder is being published.
pub(super) const PUBLISHING: &str = "_publishing";

/// How many uploads are completed at the same time.
const N_COMPLETING: usize = 16;

/// A folder of results under way.
pub(crate) struct Prefix {
    store: Store,
    key: Key,
    extension: &'static str,
    existing: Existing,
    /// Part of the names of the files, so that those of two runs are never the same.
    run: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By worker and number.
    uploads: HashMap<(usize, usize), Upload>,
    closed: bool,
}

impl Prefix {
    /// Looks at what stands at the place; nothing is made there yet.
    pub(crate) fn begin(
        address: &Address,
        options: &ShardOptions,
        extension: &'static str,
    ) -> Result<Self> {
        let store = writable(address, options)?;
        let key = address.key()?;
        let prefix = Self {
            run: run_id(&key),
            store,
            key,
            extension,
            existing: options.existing,
            state: Mutex::default(),
        };
        // First what lists, since only that tells a bucket that is not there.
        prefix.check_place(None)?;
        match prefix.store.head(&prefix.key)? {
            Some(_) => Err(is_other(&prefix.target(), "file", "a folder of files")),
            None => Ok(prefix),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn child(&self, name: &str) -> Key {
        self.key.clone().join(name)
    }

    /// What stands at the place, apart from our own mark, if it may be replaced.
    fn check_place(&self, claim: Option<&Key>) -> Result<Vec<ObjectMeta>> {
        let mut found = self.store.list_below(Doing::Write, &self.key)?;
        // Some tools put an empty object in the place of a folder.
        found.retain(|object| object.location != self.key && Some(&object.location) != claim);
        let mark = self.child(PUBLISHING);
        if found.iter().any(|object| object.location == mark) {
            return Err(being_published(&self.store.url(&mark)));
        }
        if found.is_empty() {
            return Ok(found);
        }
        if self.existing == Existing::Refuse {
            return Err(match claim {
                Some(_) => has_come(&self.target()),
                None => is_not_empty(&self.target()),
            });
        }
        for object in &found {
            let below = object.location.prefix_match(&self.key);
            let names: Vec<String> = below
                .map(|parts| parts.map(|p| p.as_ref().to_owned()).collect())
                .unwrap_or_default();
            if !self.is_replaceable(&names) {
                return Err(not_replaceable(
                    &self.target(),
                    self.extension,
                    &names.join("/"),
                ));
            }
        }
        Ok(found)
    }

    /// A mistyped URL must not cost other things.
    fn is_replaceable(&self, names: &[String]) -> bool {
        let Some((file, folders)) = names.split_last() else {
            return false;
        };
        let end = format!(".{}", self.extension);
        let is_ours = (file.ends_with(&end) && !is_hidden(file)) || file == SUCCESS;
        is_ours && folders.iter().all(|folder| folder.contains('='))
    }

    fn key_of(&self, shard: &Shard) -> Key {
        let folders = shard.folder.split('/').filter(|f| !f.is_empty());
        let folder = folders.fold(self.key.clone(), literal);
        let (worker, number, run) = (shard.worker, shard.number, &self.run);
        folder.join(format!("part-{worker:05}-{number:05}-{run}.{}", self.extension).as_str())
    }

    /// Makes all uploads visible, or none.
    fn publish(&self, uploads: &[Upload], n_rows: u64) -> Result<()> {
        let keys: Vec<Key> = uploads.iter().map(|u| u.key().clone()).collect();
        let files: Vec<&str> = keys.iter().map(Key::as_ref).collect();
        let what = json!({ "run": self.run, "files": files, "rows": n_rows });
        let mark = self.child(PUBLISHING);
        let claim = Claim::take(&self.store, mark.clone(), &what)?;
        let replaced = match self.check_place(Some(&mark)) {
            Ok(replaced) => replaced,
            Err(error) => return Err(given_back(claim, error)),
        };
        let old_success = match self.remove_success(&replaced) {
            Ok(bytes) => bytes,
            Err(error) => return Err(given_back(claim, error)),
        };
        if let Err(error) = complete(uploads) {
            return Err(self.undo(claim, keys, old_success, error));
        }
        let old = replaced.into_iter().map(|object| object.location);
        let old: Vec<Key> = old.filter(|k| k.filename() != Some(SUCCESS)).collect();
        let replaces = !old.is_empty();
        if let Err(error) = self.store.delete(old) {
            return Err(half_done(&claim, error));
        }
        let success = self.child(SUCCESS);
        let failed = match self.store.put_new(&success, what.to_string()) {
            Ok(Put::Done) => None,
            Ok(Put::Taken) => Some(has_come(&self.store.url(&success))),
            Err(error) => Some(error),
        };
        match failed {
            Some(error) if replaces => return Err(half_done(&claim, error)),
            Some(error) => return Err(self.undo(claim, keys, None, error)),
            None => {}
        }
        let url = claim.url();
        claim.give_back().map_err(|error| {
            error.with_detail(format!("All files are there, and so is the mark {url:?}."))
        })
    }

    /// Removes the mark of the results that are replaced, and gives what it held.
    fn remove_success(&self, replaced: &[ObjectMeta]) -> Result<Option<Bytes>> {
        let key = self.child(SUCCESS);
        if !replaced.iter().any(|object| object.location == key) {
            return Ok(None);
        }
        let (store, wanted) = (self.store.clone(), key.clone());
        let held = wait(async move { store.get(&wanted, GetOptions::default()).await })?;
        let (_, bytes) = held.map_err(|e| self.store.refusal(Doing::Read, &key, e))?;
        self.store.delete(vec![key])?;
        Ok(Some(bytes))
    }

    /// Takes back what can be seen of an unfinished publication.
    fn undo(&self, claim: Claim, keys: Vec<Key>, success: Option<Bytes>, error: Error) -> Error {
        if let Err(left) = self.store.delete(keys) {
            let error =
                error.with_detail(format!("Nor could it be taken back: {}.", left.message()));
            return half_done(&claim, error);
        }
        if let Some(bytes) = success {
            let _ = self.store.put_new(&self.child(SUCCESS), bytes);
        }
        given_back(claim, error)
    }
}

impl Staging for Prefix {
    fn target(&self) -> String {
        self.store.url(&self.key)
    }

    fn max_bytes_per_file(&self) -> u64 {
        MAX_FILE_BYTES
    }

    fn create(&self, shard: &Shard) -> Result<Box<dyn Writing>> {
        let upload = Upload::begin(&self.store, self.key_of(shard))?;
        let writer = upload.writer();
        let mut state = self.state();
        if state.closed {
            upload.abort();
            return Err(Error::bug("a file was begun after the publication ended"));
        }
        state.uploads.insert((shard.worker, shard.number), upload);
        Ok(Box::new(writer))
    }

    fn publish_shards(&self, shards: &[Shard]) -> Result<Vec<PathBuf>> {
        let uploads: Vec<Upload> = {
            let mut state = self.state();
            if std::mem::replace(&mut state.closed, true) {
                return Err(Error::bug(
                    "results were published twice, or after an abort",
                ));
            }
            let upload = |shard: &Shard| state.uploads.remove(&(shard.worker, shard.number));
            shards.iter().filter_map(upload).collect()
        };
        let published = self.publish(&uploads, shards.iter().map(|s| s.n_rows).sum());
        if let Err(error) = published {
            // Those that were completed are none any more.
            uploads.iter().for_each(Upload::abort);
            return Err(error);
        }
        let url = |upload: &Upload| self.store.url(upload.key()).into();
        Ok(uploads.iter().map(url).collect())
    }

    fn publish_joined(&self, _: &[u8], _: &[Shard]) -> Result<u64> {
        Err(Error::bug("a folder is not published as one file"))
    }

    fn abort(&self) {
        let uploads = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.uploads)
        };
        uploads.values().for_each(Upload::abort);
    }

    fn cannot_write(&self, error: io::Error) -> Error {
        or_else(error, |error| {
            cannot_write(&PathBuf::from(self.target()), error)
        })
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target())
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        self.abort();
    }
}

/// The store of a place that results can be written to.
pub(super) fn writable(address: &Address, options: &ShardOptions) -> Result<Store> {
    if address.kind == Kind::Http {
        return Err(
            Error::pipeline(format!("{:?} cannot be written to", address.url()))
                .with_detail("Files behind HTTP can only be read.")
                .with_hint("Choose another place."),
        );
    }
    if address.key.is_empty() {
        let url = &address.root;
        return Err(Error::pipeline(format!("{url:?} is a whole bucket"))
            .with_hint(format!("Name a place in it, such as \"{url}/results\".")));
    }
    connect(address, &options.storage)
}

/// Completes uploads, some at the same time.
fn complete(uploads: &[Upload]) -> Result<()> {
    let mut under_way = VecDeque::new();
    let mut completed = Ok(());
    for upload in uploads {
        if under_way.len() == N_COMPLETING
            && let Some(first) = under_way.pop_front()
        {
            completed = completed.and(upload_result(first));
        }
        if completed.is_err() {
            break;
        }
        // Its name is this run's, so nothing was there before.
        under_way.push_back((upload, upload.complete(None)));
    }
    // All that have begun are waited for: what is to be taken back must not appear afterwards.
    for pending in under_way {
        completed = completed.and(upload_result(pending));
    }
    completed
}

fn upload_result((upload, pending): (&Upload, Result<Completing>)) -> Result<()> {
    upload.completed(pending?)
}

/// A value is escaped already, and must not be once more.
fn literal(key: Key, name: &str) -> Key {
    let joined = format!("{key}/{name}");
    Key::parse(&joined).unwrap_or_else(|_| key.join(name))
}

fn given_back(claim: Claim, error: Error) -> Error {
    let url = claim.url();
    match claim.give_back() {
        Ok(()) => error,
        Err(_) => error.with_detail(format!("The mark {url:?} could not be removed.")),
    }
}

/// The mark stays, so that nobody takes what is there for the whole.
fn half_done(claim: &Claim, error: Error) -> Error {
    let url = claim.url();
    error
        .with_detail(format!(
            "Some files can be seen; the mark {url:?} names them."
        ))
        .with_hint("Remove what it names, then the mark, and run again.")
}

/// A name that no other run has; it need not be secret.
pub(super) fn run_id(key: &Key) -> String {
    format!("{:016x}", RandomState::new().hash_one(key.as_ref()))
}
