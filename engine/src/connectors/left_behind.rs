//! Hidden folders, locked by the process that uses them, so that those of dead processes can be told.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A hidden folder that its process holds locked; the lock goes when the process does, however it ends.
///
/// Where folders cannot be locked, as on Windows, nothing is locked and nothing is ever taken for dead.
#[derive(Debug)]
pub(crate) struct Locked {
    path: PathBuf,
    _lock: Option<File>,
}

impl Locked {
    /// Makes an empty folder that nobody else has, with a name that begins so.
    pub(crate) fn make(parent: &Path, begin: &str) -> io::Result<Self> {
        let process = std::process::id();
        let mut n = 0u64;
        loop {
            let path = parent.join(format!("{begin}{process}-{n}"));
            n += 1;
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            match lock(&path) {
                Lock::Ours(lock) => {
                    return Ok(Self {
                        path,
                        _lock: Some(lock),
                    });
                }
                Lock::Unsupported => return Ok(Self { path, _lock: None }),
                // Another run took it for one of a dead process, before we could lock it.
                Lock::Others => {}
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes what killed processes left of their writing to `target`, in the folder it stands in.
///
/// Old results that were moved aside to be replaced are moved back if the new ones never came.
/// What cannot be removed stays; it is hidden.
pub(crate) fn tidy(parent: &Path, name: &str, target: &Path) {
    for path in hidden(parent, &format!(".{name}.old-")) {
        if let Lock::Ours(_lock) = lock(&path) {
            let is_empty = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
            let _ = match target.exists() || is_empty {
                true => fs::remove_dir_all(&path),
                false => fs::rename(&path, target),
            };
        }
    }
    for path in hidden(parent, &format!(".{name}.tmp-")) {
        if let Lock::Ours(_lock) = lock(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Holds a folder until the lock is dropped, whatever it is called by then.
pub(crate) fn hold(folder: &Path) -> Option<File> {
    match lock(folder) {
        Lock::Ours(lock) => Some(lock),
        Lock::Others | Lock::Unsupported => None,
    }
}

/// Folders whose name is this begin, a process and a number.
fn hidden(parent: &Path, begin: &str) -> Vec<PathBuf> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_ours = |name: &str| {
        let rest = name.strip_prefix(begin);
        let numbers = rest.and_then(|rest| rest.split_once('-'));
        numbers.is_some_and(|(process, n)| is_number(process) && is_number(n))
    };
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| is_ours(&n.to_string_lossy()))
        })
        .collect()
}

enum Lock {
    Ours(File),
    /// A process that lives has it, or the folder is gone.
    Others,
    Unsupported,
}

fn lock(folder: &Path) -> Lock {
    if !cfg!(unix) {
        return Lock::Unsupported;
    }
    let Ok(file) = File::open(folder) else {
        return Lock::Others;
    };
    match file.try_lock() {
        // It may have been removed between our opening it and our locking it.
        Ok(()) if is_still(&file, folder) => Lock::Ours(file),
        Ok(()) | Err(TryLockError::WouldBlock) => Lock::Others,
        Err(TryLockError::Error(_)) => Lock::Unsupported,
    }
}

#[cfg(unix)]
fn is_still(file: &File, folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(folder)) {
        (Ok(opened), Ok(found)) => (opened.dev(), opened.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still(_: &File, _: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests;
