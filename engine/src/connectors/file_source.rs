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
