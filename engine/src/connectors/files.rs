//! Finds the files of a source by path, folder or pattern.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::storage::{self, Address, Storage, StoredFile};
use crate::error::{Error, Result};
use crate::source::SourceProperties;

/// One file, the files of a folder, or the files that match a pattern, at a path or a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    place: PathBuf,
    /// How a place that is a URL is reached.
    storage: Storage,
    /// What the files of a folder end in, one of these; the first is named in messages.
    extensions: &'static [&'static str],
}

impl Files {
    pub(crate) fn new(place: impl AsRef<Path>, extensions: &'static [&'static str]) -> Self {
        Self {
            place: storage::local_path(place.as_ref()),
            storage: Storage::default(),
            extensions,
        }
    }

    #[must_use]
    pub(crate) fn storage(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// What the planner wants to know: they end, can be read again, and may be in this machine's file system.
    pub(crate) fn properties(&self) -> SourceProperties {
        SourceProperties {
            at_hand: matches!(Address::of(&self.place), Ok(None)),
            ..SourceProperties::default()
        }
    }

    pub(crate) fn place(&self) -> String {
        self.place.display().to_string()
    }

    /// The file or the folder in which all files stand, as one text for all paths and URLs that name it.
    pub(crate) fn root(&self) -> String {
        let place = self.place();
        let root = match place.find(['*', '?', '[']) {
            Some(at) if !self.place.exists() => {
                let fixed = &place[..at];
                let folder = match fixed.ends_with('/') {
                    true => Some(Path::new(fixed)),
                    false => Path::new(fixed).parent(),
                };
                let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
                folder.unwrap_or(Path::new(".")).to_owned()
            }
            _ => self.place.clone(),
        };
        storage::same_place(&root)
    }

    /// The files, sorted by name; never none. Hidden files, of a folder also those whose name begins
    /// with `_`, are passed over, unless named. Of a folder, the folders of partitions in it, such as
    /// `year=2024`, are read too.
    ///
    /// A path that exists is taken as it is, even if it holds characters of a pattern.
    pub(crate) fn list(&self) -> Result<Vec<StoredFile>> {
        match Address::of(&self.place)? {
            Some(address) => storage::list(&address, &self.storage, self.extensions),
            None => all(self.paths()?, StoredFile::local),
        }
    }

    /// What `look` makes of each file; all that it refuses are named together.
    pub(crate) fn each<T>(&self, look: impl FnMut(StoredFile) -> Result<T>) -> Result<Vec<T>> {
        all(self.list()?, look)
    }

    fn paths(&self) -> Result<Vec<PathBuf>> {
        match fs::metadata(&self.place) {
            Ok(found) if found.is_dir() => self.list_folder(),
            Ok(_) => Ok(vec![self.place.clone()]),
            Err(_) if self.place().contains(['*', '?', '[']) => self.list_matches(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.does_not_exist()),
            Err(error) => Err(cannot_read(&self.place, error)),
        }
    }

    fn extension(&self) -> &'static str {
        self.extensions.first().copied().unwrap_or("*")
    }

    fn does_not_exist(&self) -> Error {
        let error = Error::environment(format!("{:?} does not exist", self.place));
        match self.place.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
                error.with_detail(format!("The folder {folder:?} does not exist either."))
            }
            _ => error.with_hint(format!(
                "Name a file, a folder, or a pattern such as \"births/*.{}\".",
                self.extension()
            )),
        }
    }

    fn list_folder(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![self.place.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(|e| cannot_read(&folder, e))? {
                let path = entry.map_err(|e| cannot_read(&folder, e))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if is_hidden(&name) {
                    continue;
                }
                if ends_in(&name, self.extensions) && path.is_file() {
                    files.push(path);
                } else if name.contains('=') && path.is_dir() {
                    // A folder of `year=2024` and the like is read with all that is below it.
                    folders.push(path);
                }
            }
        }
        self.sorted(files, &self.place.join(format!("*.{}", self.extension())))
    }

    fn list_matches(&self) -> Result<Vec<PathBuf>> {
        let options = glob::MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            ..glob::MatchOptions::default()
        };
        let matches = glob::glob_with(&self.place(), options)
            .map_err(|error| no_pattern(&self.place(), &error))?;
        let mut files = Vec::new();
        for found in matches {
            let path = found.map_err(|error| {
                let path = error.path().to_owned();
                cannot_read(&path, error.into())
            })?;
            if path.is_file() {
                files.push(path);
            }
        }
        self.sorted(files, &self.place)
    }

    fn sorted(&self, mut files: Vec<PathBuf>, pattern: &Path) -> Result<Vec<PathBuf>> {
        files.sort();
        if files.is_empty() {
            return Err(no_local_match(pattern));
        }
        Ok(files)
    }
}

fn all<F, T>(files: Vec<F>, mut look: impl FnMut(F) -> Result<T>) -> Result<Vec<T>> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        match look(file) {
            Ok(one) => found.push(one),
            Err(error) => errors.push(error),
        }
    }
    match errors.is_empty() {
        true => Ok(found),
        false => Err(Error::all(errors)),
    }
}

/// Files that are passed over where they are not named.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// True if a name ends in one of these extensions, which may have two parts, as `csv.gz` has.
pub(crate) fn ends_in(name: &str, extensions: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    let ends = |x: &&str| name.strip_suffix(x).is_some_and(|e| e.ends_with('.'));
    extensions.iter().any(ends)
}

pub(crate) fn no_match(pattern: &str) -> Error {
    Error::environment(format!("no file matches {pattern:?}"))
}

pub(crate) fn no_pattern(place: &str, error: &glob::PatternError) -> Error {
    Error::pipeline(format!("{place:?} is not a pattern of files")).with_detail(format!(
        "At character {}: {}.",
        error.pos + 1,
        error.msg
    ))
}

fn no_local_match(pattern: &Path) -> Error {
    let error = no_match(&pattern.display().to_string());
    let folder: PathBuf = pattern
        .components()
        .take_while(|c| !c.as_os_str().to_string_lossy().contains(['*', '?', '[']))
        .collect();
    if folder.as_os_str().is_empty() || folder.exists() {
        error.with_hint("Check the pattern; hidden files are passed over.")
    } else {
        error.with_detail(format!("The folder {folder:?} does not exist."))
    }
}

/// The error of a file or folder that is there and cannot be read.
pub(crate) fn cannot_read(path: &Path, error: io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "it does not exist any more".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    Error::environment(format!("cannot read {path:?}: {reason}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::test_folder::TestFolder;
    use expect_test::expect;

    fn list(folder: &TestFolder, place: &str) -> String {
        match Files::new(folder.path(place), &["csv"]).list() {
            Ok(files) => folder.hide(
                files
                    .iter()
                    .map(|f| f.location().to_owned() + "\n")
                    .collect(),
            ),
            Err(error) => folder.hide(error.to_string()),
        }
    }

    #[test]
    fn files_are_found_by_path_folder_and_pattern_in_order_of_their_names() {
        let folder = TestFolder::new();
        for name in [
            "b.csv",
            "a.CSV",
            ".c.csv",
            "_d.csv",
            "e.txt",
            "x[1].csv",
            "sub/f.csv",
        ] {
            folder.write(name, "");
        }
        expect!["FOLDER/e.txt\n"].assert_eq(&list(&folder, "e.txt"));
        expect!["FOLDER/x[1].csv\n"].assert_eq(&list(&folder, "x[1].csv"));
        expect!["FOLDER/a.CSV\nFOLDER/b.csv\nFOLDER/x[1].csv\n"].assert_eq(&list(&folder, ""));
        expect![[r#"
            FOLDER/_d.csv
            FOLDER/a.CSV
            FOLDER/b.csv
            FOLDER/x[1].csv
        "#]]
        .assert_eq(&list(&folder, "*.csv"));
        expect!["FOLDER/sub/f.csv\n"].assert_eq(&list(&folder, "**/f.csv"));
    }

    /// Their names would be shown alike, and by what is shown files are found again.
    #[cfg(target_os = "linux")]
    #[test]
    fn files_whose_names_are_not_utf8_are_refused() {
        use std::os::unix::ffi::OsStrExt;
        let folder = TestFolder::new();
        folder.write("in/b.csv", "x\n1\n");
        for name in [&b"a\xff.csv"[..], b"a\xfe.csv"] {
            let path = folder.path("in").join(std::ffi::OsStr::from_bytes(name));
            fs::write(path, "x\n1\n").unwrap();
        }
        expect![[r#"
            2 errors
            1. the name of "FOLDER/in/a\xFE.csv" is not UTF-8
                 Hint: Rename it.
            2. the name of "FOLDER/in/a\xFF.csv" is not UTF-8
                 Hint: Rename it."#]]
        .assert_eq(&list(&folder, "in"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = TestFolder::new();
        folder.write("empty/x.txt", "");
        expect![[r#"
            no file matches "FOLDER/empty/*.csv"
              Hint: Check the pattern; hidden files are passed over."#]]
        .assert_eq(&list(&folder, "empty"));
        expect![[r#"
            no file matches "FOLDER/births/*.csv"
              The folder "FOLDER/births" does not exist."#]]
        .assert_eq(&list(&folder, "births/*.csv"));
        expect![[r#"
            "FOLDER/births.csv" does not exist
              Hint: Name a file, a folder, or a pattern such as "births/*.csv"."#]]
        .assert_eq(&list(&folder, "births.csv"));
        expect![[r#"
            "FOLDER/births/a.csv" does not exist
              The folder "FOLDER/births" does not exist either."#]]
        .assert_eq(&list(&folder, "births/a.csv"));
        expect![[r#"
            "FOLDER/a[.csv" is not a pattern of files
              At character N: invalid range pattern."#]]
        .assert_eq(&regex_position(&list(&folder, "a[.csv")));
    }

    /// The place in the pattern depends on where the test's folder is.
    fn regex_position(message: &str) -> String {
        let (before, rest) = message.split_once("character ").unwrap();
        let (_, after) = rest.split_once(':').unwrap();
        format!("{before}character N:{after}")
    }
}
