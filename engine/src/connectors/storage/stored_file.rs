//! A file of a source, as it was when it was listed.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;

use super::background::{Pending, start};
use super::read_ahead::ReadAhead;
use super::refusals::or_else;
use super::remote_file::RemoteFile;
use crate::connectors::files::cannot_read;
use crate::error::{Error, Result};

/// A file of a source, wherever it is, as it was when it was listed.
#[derive(Clone)]
pub(crate) struct StoredFile {
    location: String,
    n_bytes: u64,
    place: Place,
}

/// Where the bytes are, and what tells that they are others than those that were listed.
#[derive(Clone)]
enum Place {
    Local {
        path: PathBuf,
        modified: Option<SystemTime>,
    },
    Remote(RemoteFile),
}

impl StoredFile {
    /// A file of the local file system.
    ///
    /// # Errors
    /// If it is not there, or its path is not UTF-8: two of those may be shown alike.
    pub(crate) fn local(path: PathBuf) -> Result<Self> {
        let found = fs::metadata(&path).map_err(|e| cannot_read(&path, e))?;
        let Some(location) = path.to_str() else {
            return Err(
                Error::environment(format!("the name of {path:?} is not UTF-8"))
                    .with_hint("Rename it."),
            );
        };
        Ok(Self {
            location: location.to_owned(),
            n_bytes: found.len(),
            place: Place::Local {
                path,
                modified: found.modified().ok(),
            },
        })
    }

    pub(super) fn remote(file: RemoteFile) -> Self {
        Self {
            location: file.url(),
            n_bytes: file.n_bytes(),
            place: Place::Remote(file),
        }
    }

    /// The file in messages and in the names of splits: `file "births/a.csv"`.
    pub(crate) fn name(&self) -> String {
        file_name(&self.location)
    }

    /// Its path or URL, by which it is found again among the files that were listed.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The path of a local file, for libraries that read files by themselves.
    pub(crate) fn local_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Local { path, .. } => Some(path),
            Place::Remote(_) => None,
        }
    }

    /// The bytes from `from` to the end, in order.
    ///
    /// A reader gives its failures to [`StoredFile::cannot_read`]. One of them is that the file has changed: a
    /// local file that is cut short, or that is another one than was listed when its last byte is read.
    pub(crate) fn open(&self, from: u64) -> Result<Box<dyn Read + Send>> {
        match &self.place {
            Place::Local { path, modified } => {
                let file = open_at(path, from).map_err(|e| self.cannot_read(e))?;
                let found = file.metadata().map_err(|e| self.cannot_read(e))?;
                if !found.is_file() {
                    // A pipe has no size.
                    return Ok(Box::new(file));
                }
                Ok(Box::new(AsListed {
                    file,
                    location: self.location.clone(),
                    n_left: self.n_bytes.saturating_sub(from),
                    n_bytes: self.n_bytes,
                    modified: *modified,
                }))
            }
            Place::Remote(file) => Ok(Box::new(ReadAhead::new(file.clone(), from))),
        }
    }

    /// The bytes of a range, all of them; a range that the file does not have is an error.
    pub(crate) fn range(&self, range: Range<u64>) -> Result<Bytes> {
        match &self.place {
            Place::Local { path, .. } => read_range(path, range).map_err(|e| self.cannot_read(e)),
            Place::Remote(file) => file.range(range),
        }
    }

    /// Begins to fetch a range of a remote file; of a local one it is read at once.
    pub(crate) fn fetch(&self, range: Range<u64>) -> Result<Fetch> {
        match &self.place {
            Place::Local { .. } => Ok(Fetch::Here(self.range(range)?)),
            Place::Remote(file) => {
                let file = file.clone();
                let request = start(async move { file.fetch(range).await })?;
                Ok(Fetch::UnderWay(request))
            }
        }
    }

    /// Checks that the file is still the one that was listed.
    ///
    /// Of a remote file nothing is asked here: each read of it checks that.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.place {
            Place::Local { path, modified } => {
                let found = fs::metadata(path).map_err(|e| self.cannot_read(e))?;
                match found.len() == self.n_bytes && found.modified().ok() == *modified {
                    true => Ok(()),
                    false => Err(has_changed(&self.location)),
                }
            }
            Place::Remote(_) => Ok(()),
        }
    }

    /// The error of a file that is there and cannot be read.
    pub(crate) fn cannot_read(&self, error: io::Error) -> Error {
        or_else(error, |error| cannot_read(Path::new(&self.location), error))
    }
}

/// A local file, no further than to where it ended when it was listed.
struct AsListed {
    file: File,
    location: String,
    n_left: u64,
    /// Of the whole file.
    n_bytes: u64,
    modified: Option<SystemTime>,
}

impl Read for AsListed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.n_left).unwrap_or(usize::MAX);
        let most = most.min(bytes.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.file.read(&mut bytes[..most])?;
        self.n_left -= n as u64;
        // Not later: whoever reads no further than to the last byte does not ask again.
        if n == 0 || self.n_left == 0 {
            let found = self.file.metadata()?;
            let is_as_listed = self.n_left == 0
                && found.len() == self.n_bytes
                && found.modified().ok() == self.modified;
            if !is_as_listed {
                return Err(io::Error::other(has_changed(&self.location)));
            }
        }
        Ok(n)
    }
}

/// A range on its way; dropping it gives the request up.
pub(crate) enum Fetch {
    Here(Bytes),
    UnderWay(Pending<Result<Bytes>>),
}

impl Fetch {
    /// Waits for the bytes of the range, all of them.
    pub(crate) fn wait(self) -> Result<Bytes> {
        match self {
            Self::Here(bytes) => Ok(bytes),
            Self::UnderWay(request) => request.wait()?,
        }
    }
}

impl fmt::Debug for StoredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The error of a file that is not what it was.
pub(crate) fn has_changed(location: &str) -> Error {
    let name = file_name(location);
    Error::data(format!("{name} has changed since it was first read"))
        .with_hint("Build the pipeline anew, and write new files beside those that are being read.")
}

fn file_name(location: &str) -> String {
    format!("file {location:?}")
}

fn open_at(path: &Path, from: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    if from > 0 {
        file.seek(SeekFrom::Start(from))?;
    }
    Ok(file)
}

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let n_bytes = range.end.saturating_sub(range.start);
    let mut bytes = Vec::with_capacity(usize::try_from(n_bytes).unwrap_or(0));
    open_at(path, range.start)?
        .take(n_bytes)
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 == n_bytes {
        true => Ok(bytes.into()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
