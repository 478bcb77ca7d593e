//! The files of the tree, for tests that read them.

use std::fs;
use std::path::Path;

/// A text file by its path from the root of the tree, with `/` between folders.
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// The lines with their numbers from 1, without what stands behind `//`.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
    }
}

/// Reads one file of the tree.
pub(crate) fn read(path: &str) -> String {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&whole).unwrap_or_else(|e| panic!("{}: {e}", whole.display()))
}

/// All files with this ending, in order of their paths; hidden folders and `target` are left out.
pub(crate) fn files(ending: &str) -> Vec<SourceFile> {
    let mut found = Vec::new();
    collect(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        "",
        ending,
        &mut found,
    );
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no file ends in {ending:?}");
    found
}

fn collect(folder: &Path, prefix: &str, ending: &str, found: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            if !name.starts_with('.') && name != "target" {
                collect(&entry.path(), &format!("{path}/"), ending, found);
            }
        } else if name.ends_with(ending) {
            let text = fs::read_to_string(entry.path()).unwrap();
            found.push(SourceFile { path, text });
        }
    }
}
