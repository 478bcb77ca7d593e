//! Reports in files: whole or not at all.

use std::io::Write as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::RunReport;
use crate::error::{Error, Result};

impl RunReport {
    /// Writes the report as one HTML page, which needs nothing from outside; replaces what is there.
    ///
    /// # Errors
    /// An environment error if the file cannot be written; what was there before stays.
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<()> {
        write(path.as_ref(), &self.to_html())
    }

    /// Writes [`RunReport::to_json`]; replaces what is there.
    ///
    /// # Errors
    /// As [`RunReport::write_html`].
    pub fn write_json(&self, path: impl AsRef<Path>) -> Result<()> {
        write(path.as_ref(), &format!("{:#}\n", self.to_json()))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let written = || {
        let mut file = new_file(folder(path))?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|e| cannot(path, e))
}

/// Fails before a run where its report could not be written after it.
pub(crate) fn check_place(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::environment(format!(
            "the report cannot be written to {:?}, which is a folder",
            path.display()
        ))
        .with_hint("Name a file in it."));
    }
    new_file(folder(path)).map_err(|e| cannot(path, e))?;
    Ok(())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn cannot(path: &Path, error: std::io::Error) -> Error {
    Error::environment(format!(
        "the report cannot be written to {:?}",
        path.display()
    ))
    .with_detail(format!("The system says: {}.", error.kind()))
    .with_hint("Its folder must be there and may be written to.")
    .with_source(error)
}

/// Temporary files are for their owner alone; a report is a file like any other.
#[cfg(unix)]
fn new_file(folder: &Path) -> std::io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let as_asked = std::fs::Permissions::from_mode(0o666);
    tempfile::Builder::new()
        .permissions(as_asked)
        .tempfile_in(folder)
}

#[cfg(not(unix))]
fn new_file(folder: &Path) -> std::io::Result<NamedTempFile> {
    NamedTempFile::new_in(folder)
}
