//! A hidden folder where results are written, and its publication by one rename.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::files::ends_in;
use super::left_behind::{Locked, hold, tidy};
use super::shards::{Shard, ShardOptions};
use super::staging::{Existing, Staging, is_not_empty, is_there, not_replaceable};
use super::storage::{LocalFile, Writing, found_within};
use crate::error::{Error, Result};

/// A folder `.NAME.tmp-…` beside the target, on the same file system, so that a rename publishes it.
///
/// Dropping it without a commit removes it. A process that is killed leaves it behind, hidden, and the
/// next run that writes to the same place removes it.
#[derive(Debug)]
pub(crate) struct StagedFolder {
    target: PathBuf,
    folder: Locked,
    extension: &'static str,
    existing: Existing,
    /// Folders that were made on the way to the target, outermost first.
    made: Vec<PathBuf>,
    closed: Mutex<bool>,
}

/// The one file, while it is being put together.
const JOINED: &str = "joined";

impl StagedFolder {
    /// Makes the hidden folder, after a look at what stands at the target.
    pub(crate) fn begin(options: &ShardOptions, extension: &'static str) -> Result<Self> {
        let existing = options.existing;
        // What a link points to is replaced, not the link.
        let target = match options.target.is_symlink() {
            true => fs::canonicalize(&options.target),
            false => Ok(options.target.clone()),
        };
        let target = target.map_err(|e| cannot_write(&options.target, e))?;
        let Some(name) = target.file_name() else {
            return Err(
                Error::environment(format!("{target:?} cannot be written to"))
                    .with_detail("It does not end in a name that the results could get."),
            );
        };
        let parent = parent_of(&target);
        let name = name.to_string_lossy();
        tidy(&parent, &name, &target);
        check_target(&target, options, extension)?;
        let made = make_folders(&parent).map_err(|e| cannot_write(&target, e))?;
        let folder = Locked::make(&parent, &format!(".{name}.tmp-")).map_err(|e| {
            remove_empty(&made);
            cannot_write(&target, e)
        })?;
        Ok(Self {
            target,
            folder,
            extension,
            existing,
            made,
            closed: Mutex::new(false),
        })
    }

    /// Where a shard is written before it is published.
    fn path(&self, shard: &Shard) -> PathBuf {
        let (worker, number) = (shard.worker, shard.number);
        self.folder.path().join(format!("{worker:05}-{number:05}"))
    }

    /// Gives each shard the name it is published under, and these names below the target.
    fn name(&self, shards: &[Shard]) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for alike in shards.chunk_by(|a, b| a.folder == b.folder) {
            for (i, shard) in alike.iter().enumerate() {
                let (n, extension) = (alike.len(), self.extension);
                let folder = Path::new(&shard.folder);
                let name = folder.join(format!("part-{i:05}-of-{n:05}.{extension}"));
                let path = self.folder.path().join(&name);
                if i == 0 {
                    fs::create_dir_all(parent_of(&path))?;
                }
                fs::rename(self.path(shard), &path)?;
                files.push(name);
            }
        }
        // Each folder once: they are few, and their parents are among them or above.
        for alike in shards.chunk_by(|a, b| a.folder == b.folder) {
            let folder = Path::new(&alike[0].folder);
            let inside = folder.ancestors().filter(|f| !f.as_os_str().is_empty());
            for folder in inside {
                sync_folder(&self.folder.path().join(folder))?;
            }
        }
        Ok(files.iter().map(|name| self.target.join(name)).collect())
    }

    /// Puts the shards together to one file.
    fn join(&self, preamble: &[u8], shards: &[Shard]) -> io::Result<u64> {
        let mut joined = File::create_new(self.folder.path().join(JOINED))?;
        joined.write_all(preamble)?;
        for shard in shards {
            io::copy(&mut File::open(self.path(shard))?, &mut joined)?;
        }
        joined.sync_all()?;
        Ok(joined.metadata()?.len())
    }

    fn publish(&self, from: &Path) -> Result<()> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(Error::bug(
                "results were published twice, or after an abort",
            ));
        }
        self.rename(from)
            .map_err(|e| cannot_write(&self.target, e))?;
        *closed = true;
        // A file leaves its hidden folder empty behind; a folder has taken its place.
        let _ = fs::remove_dir_all(self.folder.path());
        Ok(())
    }

    fn rename(&self, from: &Path) -> io::Result<()> {
        sync_folder(self.folder.path())?;
        let parent = parent_of(&self.target);
        let taken = is_taken(&self.target)?;
        if taken && self.existing == Existing::Refuse {
            return Err(io::Error::other(
                "something has come to stand there during the run",
            ));
        }
        let mut old = None;
        if taken && self.target.is_dir() {
            let name = self
                .target
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            let aside = Locked::make(&parent, &format!(".{name}.old-"))?;
            // Held before it gets the name by which another run may take it for one of a dead process.
            let held = hold(&self.target);
            fs::rename(&self.target, aside.path())?;
            old = Some((aside, held));
        }
        if let Err(error) = fs::rename(from, &self.target) {
            if let Some((aside, _)) = &old {
                fs::rename(aside.path(), &self.target)?;
            }
            return Err(error);
        }
        // The results can be seen by now: a failure here would be a lie.
        let _ = sync_folder(&parent);
        if let Some((aside, _held)) = old {
            // The new results are in place; what cannot be removed stays hidden.
            remove_with_all(aside.path());
        }
        Ok(())
    }
}

/// Removes a folder, what it holds several at once: the system takes long to give back the memory that large files were
/// read or written through.
fn remove_with_all(folder: &Path) {
    let entries: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    let next = AtomicUsize::new(0);
    let remove_some = || {
        while let Some(path) = entries.get(next.fetch_add(1, Relaxed)) {
            // What cannot be removed stays, hidden.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
        }
    };
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        // Where a thread cannot be started this one removes all.
        for _ in 1..n_threads.min(entries.len()) {
            let _ = thread::Builder::new().spawn_scoped(scope, remove_some);
        }
        remove_some();
    });
    let _ = fs::remove_dir_all(folder);
}

impl Staging for StagedFolder {
    fn target(&self) -> String {
        self.target.display().to_string()
    }

    fn is_local(&self) -> bool {
        true
    }

    fn create(&self, shard: &Shard) -> Result<Box<dyn Writing>> {
        let file = LocalFile::create_new(&self.path(shard));
        Ok(Box::new(file.map_err(|e| self.cannot_write(e))?))
    }

    fn publish_shards(&self, shards: &[Shard]) -> Result<Vec<PathBuf>> {
        let files = self.name(shards).map_err(|e| self.cannot_write(e))?;
        self.publish(self.folder.path())?;
        Ok(files)
    }

    fn publish_joined(&self, preamble: &[u8], shards: &[Shard]) -> Result<u64> {
        let joined = self.join(preamble, shards);
        let n_bytes = joined.map_err(|e| self.cannot_write(e))?;
        self.publish(&self.folder.path().join(JOINED))?;
        Ok(n_bytes)
    }

    /// Removes all that was written, and the folders made for it.
    fn abort(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return;
        }
        *closed = true;
        let _ = fs::remove_dir_all(self.folder.path());
        remove_empty(&self.made);
    }

    fn cannot_write(&self, error: io::Error) -> Error {
        found_within(&error).unwrap_or_else(|| cannot_write(&self.target, error))
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        self.abort();
    }
}

fn parent_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// True if something stands at the target that is not an empty folder.
fn is_taken(target: &Path) -> io::Result<bool> {
    match fs::metadata(target) {
        Ok(found) if found.is_dir() => Ok(fs::read_dir(target)?.next().is_some()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn check_target(target: &Path, options: &ShardOptions, extension: &str) -> Result<()> {
    let is_folder = target.is_dir();
    if target.exists() && is_folder == options.one_file {
        let (found, wanted) = match is_folder {
            true => ("folder", "one file"),
            false => ("file", "a folder of files"),
        };
        return Err(
            Error::environment(format!("{target:?} is a {found}, expected {wanted}"))
                .with_hint("Choose another place."),
        );
    }
    if !is_taken(target).map_err(|e| cannot_write(target, e))? {
        return Ok(());
    }
    if options.existing == Existing::Refuse {
        let told = target.display().to_string();
        return Err(match is_folder {
            true => is_not_empty(&told),
            false => is_there(&told),
        });
    }
    match is_folder {
        true => check_replaceable(target, extension),
        false => Ok(()),
    }
}

/// A mistyped path must not cost a folder of other things.
fn check_replaceable(folder: &Path, extension: &str) -> Result<()> {
    let failed = |e| cannot_write(folder, e);
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && name.contains('=') {
                folders.push(path);
            } else if path.is_dir() || !ends_in(&name, &[extension]) {
                let found = path.strip_prefix(folder).unwrap_or(&path);
                let (folder, found) = (folder.display(), found.display());
                return Err(not_replaceable(
                    &folder.to_string(),
                    extension,
                    &found.to_string(),
                ));
            }
        }
    }
    Ok(())
}

fn make_folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut missing: Vec<PathBuf> = folder
        .ancestors()
        .take_while(|f| !f.as_os_str().is_empty() && !f.exists())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    fs::create_dir_all(folder)?;
    Ok(missing)
}

/// Removes folders that were made, outermost first, as far as nothing has come to stand in them.
fn remove_empty(made: &[PathBuf]) {
    for folder in made.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

/// Makes the names in a folder as durable as the files; elsewhere than on Unix a folder has no such call.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The error of a place that cannot be written to.
pub(crate) fn cannot_write(target: &Path, error: io::Error) -> Error {
    let (reason, hint) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
            "no space is left on the disk".to_owned(),
            Some("Free space there, or write to another disk."),
        ),
        io::ErrorKind::PermissionDenied => (
            "permission denied".to_owned(),
            Some("Choose a folder that you may write to."),
        ),
        io::ErrorKind::ReadOnlyFilesystem => (
            "the file system is read-only".to_owned(),
            Some("Choose another place."),
        ),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => (
            "a part of the path is a file, not a folder".to_owned(),
            Some("Choose another place."),
        ),
        _ => (error.to_string(), None),
    };
    let refused = Error::environment(format!("cannot write {target:?}: {reason}"));
    match hint {
        Some(hint) => refused.with_hint(hint),
        None => refused,
    }
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_reason_and_a_way_out_are_told() {
        let told = |kind: io::ErrorKind| cannot_write(Path::new("out"), kind.into()).to_string();
        expect![[r#"
            cannot write "out": no space is left on the disk
              Hint: Free space there, or write to another disk."#]]
        .assert_eq(&told(io::ErrorKind::StorageFull));
        expect![[r#"
            cannot write "out": permission denied
              Hint: Choose a folder that you may write to."#]]
        .assert_eq(&told(io::ErrorKind::PermissionDenied));
        expect![[r#"
            cannot write "out": the file system is read-only
              Hint: Choose another place."#]]
        .assert_eq(&told(io::ErrorKind::ReadOnlyFilesystem));
        expect![[r#"cannot write "out": operation interrupted"#]]
            .assert_eq(&told(io::ErrorKind::Interrupted));
    }
}
