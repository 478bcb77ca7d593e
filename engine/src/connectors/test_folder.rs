//! A folder of files for one test.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct TestFolder(tempfile::TempDir);

impl TestFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, with the folders it stands in.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The text with this folder, which has another name in each run, written as `FOLDER`.
    pub(crate) fn hide(&self, text: String) -> String {
        text.replace(&self.0.path().display().to_string(), "FOLDER")
    }

    /// All that is in the folder, hidden or not, in order.
    pub(crate) fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(self.0.path(), &mut found);
        let mut names: Vec<String> = found
            .iter()
            .map(|p| p.strip_prefix(self.0.path()).unwrap().display().to_string())
            .collect();
        names.sort();
        names
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        }
        found.push(path);
    }
}

/// A folder of the real data, or nothing, said aloud, where it is not there.
pub(crate) fn real_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(name);
    if !path.exists() {
        println!("skipped: {path:?} is not there");
        return None;
    }
    Some(path)
}
