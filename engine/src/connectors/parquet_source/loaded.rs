//! The files of a source: the little that is kept of all, and the footers of those that are read.
//!
//! ```text
//! footer ─▶ how large its row groups are, kept ─▶ splits
//!        └▶ itself, while there is room        ─▶ readers, for which it is read again where there was none
//! ```
//!
//! A footer takes some 400 bytes for each column of each row group, which for a terabyte is more than all that is
//! read of it at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use arrow::datatypes::{Schema, SchemaRef};

use super::super::agreement::agree;
use super::super::hive::HiveColumns;
use super::super::storage::{StoredFile, has_changed};
use super::footers::{ParquetFile, check_dictionaries, is_text_dictionary, n_rows, unsigned};
use crate::error::{Error, Result};

/// How many footers are read at once: reading one is mostly waiting for it, for a server even more.
const AT_ONCE: usize = 8;
const REMOTE_AT_ONCE: usize = 32;

/// So many bytes of footers are kept.
pub(super) const KEPT_BYTES: usize = 16 << 20;

/// The files of a source, before any of them is opened.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) files: Vec<StoredFile>,
    pub(super) hive: HiveColumns,
}

/// Files whose footers have been read.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The columns of the files, then those of their folders.
    pub(super) schema: SchemaRef,
    pub(super) files: Vec<KnownFile>,
    places: HashMap<String, usize>,
    /// Columns that are read as dictionaries.
    dictionaries: Vec<String>,
    footers: Footers,
}

/// What is kept of a file.
#[derive(Debug)]
pub(super) struct KnownFile {
    /// Its number among all files that were listed.
    pub(super) number: usize,
    pub(super) file: StoredFile,
    pub(super) schema: SchemaRef,
    pub(super) row_groups: Box<[GroupSize]>,
}

/// How large a row group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupSize {
    pub(super) n_rows: u64,
    /// In the file.
    pub(super) n_bytes: u64,
}

impl KnownFile {
    /// `first` is the schema of another file, which most share.
    fn of(file: &ParquetFile, first: Option<&SchemaRef>) -> Self {
        let own = file.footer.schema();
        Self {
            number: file.number,
            file: file.file.clone(),
            schema: Arc::clone(first.filter(|first| *first == own).unwrap_or(own)),
            row_groups: sizes(file),
        }
    }
}

fn sizes(file: &ParquetFile) -> Box<[GroupSize]> {
    let of = |group| GroupSize {
        n_rows: n_rows(group),
        n_bytes: unsigned(group.compressed_size()),
    };
    file.row_groups().iter().map(of).collect()
}

impl Loaded {
    /// Reads the footers of the files with these numbers, at least one, several at once, and keeps about
    /// `kept_bytes` of them.
    ///
    /// `speaker` is the file that speaks for all, where it is not the first of these.
    pub(super) fn read(
        listed: &Listed,
        numbers: &[usize],
        speaker: Option<&Loaded>,
        dictionaries: &[String],
        kept_bytes: usize,
    ) -> Result<Self> {
        let read = |number: usize| ParquetFile::read(number, listed.files[number].clone());
        let first = numbers.first().map(|number| read(*number)).transpose();
        // One file tells which text is read as dictionaries: all others can be read so too.
        let mut as_dictionaries = match speaker {
            Some(speaker) => speaker.dictionaries.clone(),
            None => dictionaries.to_vec(),
        };
        if let (None, Ok(Some(first))) = (speaker, &first) {
            let stored = first.footer.schema().fields().iter();
            let stored = stored.filter(|f| is_text_dictionary(f.data_type()));
            as_dictionaries.extend(stored.map(|f| f.name().clone()));
        }
        let footers = Footers::new(kept_bytes);
        let known = |place: usize, file: Result<ParquetFile>, first: Option<&SchemaRef>| {
            let file = file?.with_types_read(|name| as_dictionaries.iter().any(|of| of == name))?;
            let known = KnownFile::of(&file, first);
            footers.keep_if_there_is_room(place, file);
            Ok(known)
        };
        let first = first.transpose().map(|file| known(0, file, None));
        let schema = match &first {
            Some(Ok(first)) => Some(&first.schema),
            _ => None,
        };
        let others = in_turn(
            numbers.len().saturating_sub(1),
            at_once(&listed.files),
            |n| known(n + 1, read(numbers[n + 1]), schema),
        );
        let files = all_or_errors(first.into_iter().chain(others))?;
        let schemas: Vec<(String, SchemaRef)> = files
            .iter()
            .map(|f| (f.file.name(), Arc::clone(&f.schema)))
            .collect();
        let schema = listed.hive.schema(&*agree(&schemas)?);
        if schema.fields().is_empty() {
            return Err(Error::data(format!("{} has no columns", schemas[0].0))
                .with_hint("Leave the file out."));
        }
        check_dictionaries(&schema, dictionaries)?;
        let places = files.iter().enumerate();
        Ok(Self {
            schema,
            places: places
                .map(|(i, f)| (f.file.location().to_owned(), i))
                .collect(),
            files,
            dictionaries: as_dictionaries,
            footers,
        })
    }

    /// No files: folders rule them all out.
    pub(super) fn none() -> Self {
        Self {
            schema: Arc::new(Schema::empty()),
            files: Vec::new(),
            places: HashMap::new(),
            dictionaries: Vec::new(),
            footers: Footers::new(0),
        }
    }

    /// The place of a file among these.
    pub(super) fn place(&self, location: &str) -> Option<usize> {
        self.places.get(location).copied()
    }

    /// A file with its footer, to read from.
    ///
    /// # Errors
    /// If the footer has to be read again, and cannot be or is another one.
    pub(super) fn footer(&self, place: usize) -> Result<Arc<ParquetFile>> {
        if let Some(kept) = self.footers.get(place) {
            return Ok(kept);
        }
        let file = Arc::new(self.read_again(place)?);
        self.footers.keep(place, &file);
        Ok(file)
    }

    fn read_again(&self, place: usize) -> Result<ParquetFile> {
        let known = &self.files[place];
        known.file.check()?;
        let file = ParquetFile::read(known.number, known.file.clone())?;
        let file = file.with_types_read(|name| self.dictionaries.iter().any(|of| of == name))?;
        match *sizes(&file) == *known.row_groups && *file.footer.schema() == known.schema {
            true => Ok(file),
            false => Err(has_changed(known.file.location())),
        }
    }

    /// What `tell` makes of the footer of each file, in order; those that are not kept are read again, several at
    /// once.
    ///
    /// # Errors
    /// As [`Loaded::footer`], of all files together.
    pub(super) fn of_footers<T: Send>(
        &self,
        tell: impl Fn(&ParquetFile) -> T + Sync,
    ) -> Result<Vec<T>> {
        let at_once = match self.footers.len() == self.files.len() {
            true => 1,
            false => at_once(self.files.iter().map(|f| &f.file)),
        };
        let told = in_turn(self.files.len(), at_once, |place| {
            Ok(match self.footers.get(place) {
                Some(kept) => tell(&kept),
                None => tell(&self.read_again(place)?),
            })
        });
        all_or_errors(told)
    }
}

/// All values, or all errors together.
fn all_or_errors<T>(results: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    match errors.is_empty() {
        true => Ok(values),
        false => Err(Error::all(errors)),
    }
}

fn at_once<'a>(files: impl IntoIterator<Item = &'a StoredFile>) -> usize {
    let is_remote = files.into_iter().any(|f| f.local_path().is_none());
    if is_remote { REMOTE_AT_ONCE } else { AT_ONCE }
}

/// What `of` gives for all numbers below `n`, in their order, so many at once.
fn in_turn<T: Send>(
    n: usize,
    at_once: usize,
    of: impl Fn(usize) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let n_threads = at_once.min(n);
    if n_threads <= 1 {
        return (0..n).map(of).collect();
    }
    let (taken, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(n)));
    thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let number = taken.fetch_add(1, Relaxed);
                    if number >= n {
                        break;
                    }
                    let one = of(number);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((number, one));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, one)| one).collect()
}

/// Footers by the place of their file, as many as there is room for.
#[derive(Debug)]
struct Footers {
    most_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    footers: HashMap<usize, KeptFooter>,
    n_bytes: usize,
    /// How often a footer has been asked for.
    n_asked: u64,
}

#[derive(Debug)]
struct KeptFooter {
    file: Arc<ParquetFile>,
    n_bytes: usize,
    last_asked: u64,
}

impl Footers {
    fn new(most_bytes: usize) -> Self {
        let kept = Mutex::default();
        Self { most_bytes, kept }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.kept().footers.len()
    }

    fn get(&self, place: usize) -> Option<Arc<ParquetFile>> {
        let mut kept = self.kept();
        kept.n_asked += 1;
        let now = kept.n_asked;
        let footer = kept.footers.get_mut(&place)?;
        footer.last_asked = now;
        Some(Arc::clone(&footer.file))
    }

    /// Keeps a footer unless there are many: files are read in their order, so the first are asked for first.
    fn keep_if_there_is_room(&self, place: usize, file: ParquetFile) {
        let mut kept = self.kept();
        if kept.n_bytes + bytes_of(&file) <= self.most_bytes {
            kept.add(place, Arc::new(file));
        }
    }

    /// Keeps a footer in the place of those that have not been asked for the longest.
    fn keep(&self, place: usize, file: &Arc<ParquetFile>) {
        let mut kept = self.kept();
        kept.add(place, Arc::clone(file));
        while kept.n_bytes > self.most_bytes && kept.footers.len() > 1 {
            let all = kept.footers.iter();
            let Some((&oldest, _)) = all.min_by_key(|(_, footer)| footer.last_asked) else {
                return;
            };
            kept.remove(oldest);
        }
    }
}

impl Kept {
    fn add(&mut self, place: usize, file: Arc<ParquetFile>) {
        self.remove(place);
        let n_bytes = bytes_of(&file);
        self.n_bytes += n_bytes;
        let last_asked = self.n_asked;
        let footer = KeptFooter {
            file,
            n_bytes,
            last_asked,
        };
        self.footers.insert(place, footer);
    }

    fn remove(&mut self, place: usize) {
        if let Some(gone) = self.footers.remove(&place) {
            self.n_bytes -= gone.n_bytes;
        }
    }
}

fn bytes_of(file: &ParquetFile) -> usize {
    file.footer.metadata().memory_size()
}

#[cfg(test)]
impl Loaded {
    /// Of how many files the footer is kept.
    pub(super) fn n_kept(&self) -> usize {
        self.footers.len()
    }
}
