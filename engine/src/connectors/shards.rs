//! Results in shards, each written by one worker, published together.
//!
//! ```text
//!  worker 0 ─▶ .NAME.tmp-…/00000-00000 ┐           NAME/part-00000-of-00003.parquet
//!              .NAME.tmp-…/00000-00001 ├─ commit ─▶ NAME/part-00001-of-00003.parquet
//!  worker 1 ─▶ .NAME.tmp-…/00001-00000 ┘           NAME/part-00002-of-00003.parquet
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::agreement::column_twice;
use super::partitions::Partitions;
use super::staging::{self, Existing, Staging};
use super::storage::{self, Address, Closed, Storage, Writing, found_within};
use crate::error::{Error, Result};
use crate::sink::{Publication, Published, SinkWriter};

/// An error of a library that encodes rows.
pub(crate) type EncodeError = Box<dyn std::error::Error + Send + Sync>;

/// How rows become the bytes of a file.
pub(crate) trait FileFormat: Send + Sync + fmt::Debug {
    /// What the files end in.
    fn extension(&self) -> &'static str;

    /// Starts a file of this schema.
    fn create(
        &self,
        file: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError>;

    /// What stands once before the shards where they are put together to one file.
    fn preamble(&self, _schema: &SchemaRef) -> Result<Vec<u8>, EncodeError> {
        Ok(Vec::new())
    }
}

/// A file being written.
pub(crate) trait Encoder: Send {
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError>;

    /// How many bytes the file has so far, those still to be written included as far as they are known.
    fn n_bytes(&self) -> u64;

    /// How many bytes of memory are held until they can be written, about, such as a row group.
    fn held_bytes(&self) -> u64 {
        0
    }

    /// True if the file should end soon, although nobody has asked for it: what must be kept of it until then
    /// has grown.
    fn has_grown(&self) -> bool {
        false
    }

    /// Writes what is still held and gives the file back.
    fn finish(self: Box<Self>) -> Result<Box<dyn Writing>, EncodeError>;
}

/// Of how many folders each worker keeps the file open, unless it is told otherwise.
const MAX_OPEN_FILES: usize = 64;

/// Where shards go and how they are written.
#[derive(Clone, Debug)]
pub(crate) struct ShardOptions {
    /// A path or a URL.
    pub(crate) target: PathBuf,
    /// How a target that is a URL is reached.
    pub(crate) storage: Storage,
    pub(crate) existing: Existing,
    /// The shards are put together to one file.
    pub(crate) one_file: bool,
    /// A shard is closed when it holds so many rows.
    pub(crate) rows_per_file: Option<u64>,
    /// A shard is closed when it has so many bytes.
    pub(crate) max_bytes_per_file: Option<u64>,
    /// The columns by whose values shards are put into folders.
    pub(crate) partition_by: Vec<String>,
    /// How many files each worker keeps open.
    pub(crate) max_open_files: usize,
}

impl ShardOptions {
    pub(crate) fn new(target: impl AsRef<Path>) -> Self {
        Self {
            target: storage::local_path(target.as_ref()),
            storage: Storage::default(),
            existing: Existing::default(),
            one_file: false,
            rows_per_file: None,
            max_bytes_per_file: None,
            partition_by: Vec::new(),
            max_open_files: MAX_OPEN_FILES,
        }
    }

    /// The target as one text for all that name the same place.
    pub(crate) fn place(&self) -> String {
        storage::same_place(&self.target)
    }

    /// The columns that stand in the files, which are those that a format has to hold.
    ///
    /// # Errors
    /// If the rows cannot be divided as the options say.
    pub(crate) fn file_schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        Ok(match self.partitions(schema)? {
            Some(partitions) => Arc::clone(partitions.file_schema()),
            None => Arc::clone(schema),
        })
    }

    fn partitions(&self, schema: &Schema) -> Result<Option<Partitions>> {
        if self.partition_by.is_empty() {
            return Ok(None);
        }
        if self.one_file {
            let target = self.target.display().to_string();
            return Err(Error::pipeline(format!(
                "{target:?} is one file and cannot be divided by columns"
            ))
            .with_hint("Name a folder."));
        }
        let partitions = Partitions::new(schema, &self.partition_by)?;
        Ok(Some(match Address::of(&self.target)? {
            None => partitions.on_disk(),
            Some(_) => partitions,
        }))
    }
}

/// Checks that a file format can hold these columns; `refuses` gives the reason where it cannot.
pub(crate) fn accept_columns(
    schema: &Schema,
    format: &str,
    refuses: impl Fn(&Field) -> Option<String>,
) -> Result<()> {
    if schema.fields().is_empty() {
        return Err(Error::pipeline(format!(
            "rows without columns cannot be written to {format}"
        )));
    }
    let mut errors: Vec<Error> = schema
        .fields()
        .iter()
        .filter_map(|field| {
            let (name, data_type) = (field.name(), field.data_type());
            let message =
                format!("column {name:?} of type {data_type} cannot be written to {format}");
            let reason = refuses(field)?;
            let refused = Error::pipeline(message).with_detail(reason);
            Some(refused.with_hint("Cast it, or leave it out with `select`."))
        })
        .collect();
    if let Some(twice) = column_twice(schema) {
        errors.push(
            Error::pipeline(format!("two columns are called {twice:?}"))
                .with_hint("Rename one of them with `select`."),
        );
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::all(errors)),
    }
}

/// A file of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    /// The folder it is in, below the target: `year=2020/month=5`, or nothing.
    pub(crate) folder: String,
    pub(crate) worker: usize,
    /// Which one of the worker's.
    pub(crate) number: usize,
    pub(crate) n_rows: u64,
    pub(crate) n_bytes: u64,
}

/// A folder of shards under way.
#[derive(Debug)]
pub(crate) struct Shards(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    staging: Box<dyn Staging>,
    format: Arc<dyn FileFormat>,
    /// The columns of the files.
    schema: SchemaRef,
    partitions: Option<Partitions>,
    options: ShardOptions,
    finished: Mutex<Vec<Shard>>,
    /// The last file of each worker, which may not be durable yet.
    closed: Mutex<Vec<Closed>>,
}

impl Shards {
    pub(crate) fn begin(
        options: &ShardOptions,
        format: Arc<dyn FileFormat>,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let partitions = options.partitions(schema)?;
        let schema = match &partitions {
            Some(partitions) => partitions.file_schema(),
            None => schema,
        };
        Ok(Self(Arc::new(Shared {
            staging: staging::begin(options, format.extension())?,
            format,
            schema: Arc::clone(schema),
            partitions,
            options: options.clone(),
            finished: Mutex::new(Vec::new()),
            closed: Mutex::new(Vec::new()),
        })))
    }
}

impl Shared {
    fn finished(&self) -> MutexGuard<'_, Vec<Shard>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, folder: &str, worker: usize, number: usize) -> Result<OpenShard> {
        let shard = Shard {
            folder: folder.to_owned(),
            worker,
            number,
            n_rows: 0,
            n_bytes: 0,
        };
        let file = self.staging.create(&shard)?;
        let encoder = self.format.create(file, &self.schema);
        Ok(OpenShard {
            encoder: encoder.map_err(|e| self.failed(e))?,
            shard,
            used: 0,
        })
    }

    fn is_full(&self, open: &OpenShard) -> bool {
        let n_rows = self.options.rows_per_file.unwrap_or(u64::MAX);
        let n_bytes = self.options.max_bytes_per_file.unwrap_or(u64::MAX);
        let n_bytes = n_bytes.min(self.staging.max_bytes_per_file());
        let may_grow = self.options.one_file || !open.encoder.has_grown();
        open.shard.n_rows >= n_rows || open.encoder.n_bytes() >= n_bytes || !may_grow
    }

    fn close(&self, open: OpenShard) -> Result<Closed> {
        let mut shard = open.shard;
        let file = open.encoder.finish().map_err(|e| self.failed(e))?;
        let closed = file.close().map_err(|e| self.failed(e))?;
        shard.n_bytes = closed.n_bytes();
        self.finished().push(shard);
        Ok(closed)
    }

    fn closed(&self) -> MutexGuard<'_, Vec<Closed>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, closed: Closed) -> Result<()> {
        closed.durable().map_err(|e| self.failed(e))
    }

    /// What a failure of the disk, perhaps deep inside an error of a library, means to the user.
    fn failed(&self, error: impl Into<EncodeError>) -> Error {
        let error = error.into();
        if let Some(found) = found_within(error.as_ref()) {
            return found;
        }
        match io_kind(error.as_ref()) {
            Some(found) => self.staging.cannot_write(found),
            None => Error::data(format!("cannot write {:?}", self.staging.target()))
                .with_detail(format!("{error}."))
                .with_source(error),
        }
    }
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<io::Error>() {
            return Some(match found.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(found.kind(), found.to_string()),
            });
        }
        cause = inner.source();
    }
    None
}

impl Publication for Shards {
    fn writer(&self, worker: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(ShardWriter {
            shared: Arc::clone(&self.0),
            worker,
            n_files: 0,
            n_writes: 0,
            open: HashMap::new(),
            closed: None,
        }))
    }

    fn commit(&self) -> Result<Published> {
        let shared = &self.0;
        if shared.finished().is_empty() {
            let empty = shared.close(shared.open("", 0, 0)?)?;
            shared.closed().push(empty);
        }
        let closed = std::mem::take(&mut *shared.closed());
        closed
            .into_iter()
            .try_for_each(|closed| shared.wait_for(closed))?;
        let mut shards = std::mem::take(&mut *shared.finished());
        shards.sort_by(|a, b| {
            let place = |s: &Shard| (s.worker, s.number);
            a.folder.cmp(&b.folder).then(place(a).cmp(&place(b)))
        });
        let mut published = Published {
            files: Vec::new(),
            n_rows: shards.iter().map(|s| s.n_rows).sum(),
            n_bytes: shards.iter().map(|s| s.n_bytes).sum(),
        };
        if shared.options.one_file {
            let preamble = shared.format.preamble(&shared.schema);
            let preamble = preamble.map_err(|e| shared.failed(e))?;
            published.n_bytes = shared.staging.publish_joined(&preamble, &shards)?;
            published.files.push(shared.staging.target().into());
        } else {
            published.files = shared.staging.publish_shards(&shards)?;
        }
        Ok(published)
    }

    fn abort(&self) {
        self.0.staging.abort();
    }
}

struct OpenShard {
    encoder: Box<dyn Encoder>,
    shard: Shard,
    /// When it was last written to.
    used: u64,
}

/// The shards of one worker; none where it gets no rows.
///
/// One is open of each folder that rows go to, up to the most that may be: then the one that has not been
/// written to for longest is closed, and rows that come for it later begin another.
struct ShardWriter {
    shared: Arc<Shared>,
    worker: usize,
    n_files: usize,
    n_writes: u64,
    /// By folder.
    open: HashMap<String, OpenShard>,
    /// The file before, which goes to the disk while the next one is written.
    closed: Option<Closed>,
}

impl ShardWriter {
    fn write_to(&mut self, folder: &str, rows: &RecordBatch) -> Result<()> {
        let mut start = 0;
        while start < rows.num_rows() {
            let mut open = match self.open.remove(folder) {
                Some(open) => open,
                None => self.begin(folder)?,
            };
            let left = rows.num_rows() - start;
            let room = self.shared.options.rows_per_file.unwrap_or(u64::MAX) - open.shard.n_rows;
            let n = usize::try_from(room).unwrap_or(usize::MAX).min(left);
            open.encoder
                .write(&rows.slice(start, n))
                .map_err(|e| self.shared.failed(e))?;
            open.shard.n_rows += n as u64;
            start += n;
            self.n_writes += 1;
            open.used = self.n_writes;
            if self.shared.is_full(&open) {
                self.close(open)?;
            } else {
                self.open.insert(folder.to_owned(), open);
            }
        }
        Ok(())
    }

    /// Ends a file, and waits for the one before.
    fn close(&mut self, open: OpenShard) -> Result<()> {
        let closed = self.shared.close(open)?;
        match self.closed.replace(closed) {
            Some(before) => self.shared.wait_for(before),
            None => Ok(()),
        }
    }

    fn begin(&mut self, folder: &str) -> Result<OpenShard> {
        if self.open.len() >= self.shared.options.max_open_files {
            let longest = self.open.values().min_by_key(|open| open.used);
            let folder = longest.map(|open| open.shard.folder.clone());
            if let Some(open) = folder.and_then(|folder| self.open.remove(&folder)) {
                self.close(open)?;
            }
        }
        self.n_files += 1;
        self.shared.open(folder, self.worker, self.n_files - 1)
    }
}

impl SinkWriter for ShardWriter {
    fn at_hand(&self) -> bool {
        self.shared.staging.is_local()
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let Some(partitions) = &shared.partitions else {
            return self.write_to("", rows);
        };
        for (folder, part) in partitions.divide(rows)? {
            self.write_to(&folder, &part)?;
        }
        Ok(())
    }

    fn buffered_bytes(&self) -> u64 {
        self.open
            .values()
            .map(|open| open.encoder.held_bytes())
            .sum()
    }

    fn finish(&mut self) -> Result<()> {
        let mut open: Vec<OpenShard> = self.open.drain().map(|(_, open)| open).collect();
        open.sort_by_key(|open| open.shard.number);
        open.into_iter().try_for_each(|open| self.close(open))?;
        self.shared.closed().extend(self.closed.take());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
