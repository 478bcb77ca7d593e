//! A hidden folder where results are written, and its publication by one rename.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::shards::ShardOptions;
use crate::error::{Error, Result};

/// What a publication does with results that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Existing {
    #[default]
    Refuse,
    Replace,
}

impl Existing {
    pub(crate) fn when(overwrite: bool) -> Self {
        if overwrite {
            Self::Replace
        } else {
            Self::Refuse
        }
    }
}

/// A folder `.NAME.tmp-…` beside the target, on the same file system, so that a rename publishes it.
///
/// Dropping it without a commit removes it. A process that is killed leaves it behind, hidden.
#[derive(Debug)]
pub(crate) struct Staging {
    target: PathBuf,
    folder: PathBuf,
    existing: Existing,
    /// Folders that were made on the way to the target, outermost first.
    made: Vec<PathBuf>,
    closed: Mutex<bool>,
}

impl Staging {
    /// Makes the hidden folder, after a look at what stands at the target.
    ///
    /// `extension` is that of the files which may be replaced.
    pub(crate) fn begin(options: &ShardOptions, extension: &str) -> Result<Self> {
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
        check_target(&target, options, extension)?;
        let parent = parent_of(&target);
        let made = make_folders(&parent).map_err(|e| cannot_write(&target, e))?;
        let name = name.to_string_lossy();
        let folder = make_hidden(&parent, &name).map_err(|e| {
            remove_empty(&made);
            cannot_write(&target, e)
        })?;
        Ok(Self {
            target,
            folder,
            existing,
            made,
            closed: Mutex::new(false),
        })
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Where a file of the results is written before they are published.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the hidden folder the target.
    pub(crate) fn publish_folder(&self) -> Result<()> {
        self.publish(&self.folder)
    }

    /// Makes one file of the hidden folder the target.
    pub(crate) fn publish_file(&self, name: &str) -> Result<()> {
        self.publish(&self.path(name))
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
        let _ = fs::remove_dir_all(&self.folder);
        Ok(())
    }

    fn rename(&self, from: &Path) -> io::Result<()> {
        sync_folder(&self.folder)?;
        let parent = parent_of(&self.target);
        let taken = is_taken(&self.target)?;
        if taken && self.existing == Existing::Refuse {
            return Err(io::Error::other(
                "something has come to stand there during the run",
            ));
        }
        let mut old = None;
        if taken && self.target.is_dir() {
            let name = self.target.file_name().unwrap_or_default();
            let aside = make_hidden(&parent, &name.to_string_lossy())?;
            fs::rename(&self.target, &aside)?;
            old = Some(aside);
        }
        if let Err(error) = fs::rename(from, &self.target) {
            if let Some(aside) = &old {
                fs::rename(aside, &self.target)?;
            }
            return Err(error);
        }
        // The results can be seen by now: a failure here would be a lie.
        let _ = sync_folder(&parent);
        if let Some(aside) = old {
            // The new results are in place; what cannot be removed stays hidden.
            let _ = fs::remove_dir_all(aside);
        }
        Ok(())
    }

    /// Removes all that was written, and the folders made for it.
    pub(crate) fn abort(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return;
        }
        *closed = true;
        let _ = fs::remove_dir_all(&self.folder);
        remove_empty(&self.made);
    }
}

impl Drop for Staging {
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
        let state = match is_folder {
            true => format!("folder {target:?} is not empty"),
            false => format!("file {target:?} is there already"),
        };
        return Err(Error::environment(state)
            .with_hint("Choose another place, remove it, or say `.overwrite(true)`."));
    }
    match is_folder {
        true => check_replaceable(target, extension),
        false => Ok(()),
    }
}

/// A mistyped path must not cost a folder of other things.
fn check_replaceable(folder: &Path, extension: &str) -> Result<()> {
    let failed = |e| cannot_write(folder, e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() || path.extension().is_none_or(|e| e != extension) {
            let found = path.file_name().unwrap_or_default();
            return Err(Error::environment(format!(
                "folder {folder:?} holds more than {extension} files and is not overwritten"
            ))
            .with_detail(format!("It holds {found:?}."))
            .with_hint("Choose another place, or remove it yourself."));
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

/// Makes an empty hidden folder for `name` that nobody else has.
fn make_hidden(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let process = std::process::id();
    let mut n = 0u64;
    loop {
        let folder = parent.join(format!(".{name}.tmp-{process}-{n}"));
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
            made => return made.map(|()| folder),
        }
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
