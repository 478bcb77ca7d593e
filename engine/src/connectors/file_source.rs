//! What all sources of files have: what files tell is found out once, by the first who needs it.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;

use super::agreement::agree_on_columns;
use super::files::Files;
use super::hive::{HiveColumns, HiveOptions};
use super::storage::{StoredFile, has_changed};
use crate::error::Result;

/// A value that is made by the first who needs it; an error is not kept.
#[derive(Clone, Debug)]
pub(crate) struct Once<T>(OnceLock<T>);

impl<T> Once<T> {
    pub(crate) fn of(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        match self.0.get() {
            Some(value) => Ok(value),
            None => {
                let value = make()?;
                Ok(self.0.get_or_init(|| value))
            }
        }
    }

    /// The value, if it has been made.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get()
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

/// Files that tell their columns themselves, all the same ones.
pub(crate) struct Described<F> {
    /// The columns of the files, then those of their folders.
    pub(crate) schema: SchemaRef,
    pub(crate) file_schema: SchemaRef,
    pub(crate) hive: HiveColumns,
    pub(crate) files: Vec<Arc<F>>,
}

/// The files are shared, whether they can be cloned or not.
impl<F> Clone for Described<F> {
    fn clone(&self) -> Self {
        Self {
            schema: Arc::clone(&self.schema),
            file_schema: Arc::clone(&self.file_schema),
            hive: self.hive.clone(),
            files: self.files.clone(),
        }
    }
}

impl<F> Described<F> {
    /// Opens all files; `tells` says of each where it is stored and what its columns are.
    pub(crate) fn load(
        files: &Files,
        hive: &HiveOptions,
        open: impl Fn(&StoredFile) -> Result<F>,
        tells: impl Fn(&F) -> (StoredFile, SchemaRef),
    ) -> Result<Self> {
        let place = files.place();
        let files = files.each(|stored| open(&stored).map(Arc::new))?;
        let (stored, schemas): (Vec<_>, Vec<_>) = files.iter().map(|file| tells(file)).unzip();
        let names = stored.iter().map(StoredFile::name);
        let file_schema = agree_on_columns(&names.zip(schemas).collect::<Vec<_>>())?;
        let hive = hive.columns(&place, &stored)?;
        Ok(Self {
            schema: hive.schema(&file_schema),
            file_schema,
            hive,
            files,
        })
    }
}

/// The file of a split and its number among `files`, if it is still as it was.
pub(crate) fn file_of_split<'a, F>(
    files: &'a [F],
    location: &str,
    stored: impl Fn(&F) -> &StoredFile,
) -> Result<(usize, &'a F)> {
    let mut numbered = files.iter().enumerate();
    let found = numbered.find(|(_, file)| stored(file).location() == location);
    let (number, file) = found.ok_or_else(|| has_changed(location))?;
    stored(file).check()?;
    Ok((number, file))
}

/// Gives a source with the fields `files: Files` and `loaded: Once<Loaded>` and the function `load` what all
/// sources of files have, and the name that `Debug` shows.
macro_rules! file_source {
    ($source:ty, $name:literal) => {
        impl $source {
            /// How an object store is reached, where the place is a URL: by default as the environment says.
            #[must_use]
            pub fn storage(mut self, storage: $crate::connectors::Storage) -> Self {
                self.files = self.files.storage(storage);
                self.afresh()
            }

            /// Forgets what was found with other options.
            fn afresh(mut self) -> Self {
                self.loaded = Default::default();
                self
            }

            fn loaded(&self) -> $crate::error::Result<&Loaded> {
                self.loaded.of(|| self.load())
            }
        }

        impl std::fmt::Debug for $source {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($name, "({:?})"), self.files.place())
            }
        }
    };
}

pub(crate) use file_source;

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use expect_test::expect;

    use crate::connectors::compression::tests::gzip;
    use crate::connectors::test_folder::TestFolder;
    use crate::connectors::{csv, json_lines};
    use crate::error::Result;
    use crate::output::Output;
    use crate::source::{Position, Source};

    /// How many rows are read where `change` happens after the first batch.
    fn read(source: &dyn Source, change: impl FnOnce()) -> Result<usize> {
        let split = source.splits()?.remove(0);
        let mut reader = source.open(&split, Position(0), None)?;
        let (mut n_rows, mut change) = (0, Some(change));
        let mut out = Output::default();
        while let Some(rows) = reader.next_batch(&mut out)? {
            n_rows += rows.num_rows();
            if let Some(change) = change.take() {
                change();
            }
        }
        Ok(n_rows)
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_refused() {
        const N_ROWS: usize = 300_000;
        let rows = |row: fn(u64) -> String| -> String {
            let scattered = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (0..N_ROWS).map(|i| row(scattered(i))).collect()
        };
        let lines = format!("x\n{}", rows(|n| format!("{n}\n")));
        let objects = rows(|n| format!("{{\"x\":{n}}}\n"));
        let folder = TestFolder::new();
        let files = [
            ("a.csv", lines.clone().into_bytes()),
            ("b.csv.gz", gzip(lines.as_bytes())),
            ("c.jsonl", objects.into_bytes()),
        ];
        for (name, bytes) in files {
            let path = folder.write(name, &bytes);
            let source: Box<dyn Source> = match name {
                "c.jsonl" => Box::new(json_lines(&path)),
                _ => Box::new(csv(&path)),
            };
            assert_eq!(read(source.as_ref(), || ()).unwrap(), N_ROWS, "{name}");
            let open = || OpenOptions::new().append(true).open(&path).unwrap();
            let cut_short = || open().set_len(bytes.len() as u64 - 2).unwrap();
            let grow = || open().write_all(&bytes[bytes.len() - 1..]).unwrap();
            let is_cut = read(source.as_ref(), cut_short).unwrap_err();
            folder.write(name, &bytes);
            let source: Box<dyn Source> = match name {
                "c.jsonl" => Box::new(json_lines(&path)),
                _ => Box::new(csv(&path)),
            };
            let has_grown = read(source.as_ref(), grow).unwrap_err();
            for error in [is_cut, has_grown] {
                let told = folder.hide(error.to_string()).replace(name, "FILE");
                expect![[r#"
                    file "FOLDER/FILE" has changed since it was first read
                      Hint: Build the pipeline anew, and write new files beside those that are being read."#]]
                .assert_eq(&told);
            }
        }
    }
}
