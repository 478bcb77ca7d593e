//! Results in shards, each written by one worker, published together.
//!
//! ```text
//!  worker 0 ─▶ .NAME.tmp-…/00000-00000 ┐           NAME/part-00000-of-00003.parquet
//!              .NAME.tmp-…/00000-00001 ├─ commit ─▶ NAME/part-00001-of-00003.parquet
//!  worker 1 ─▶ .NAME.tmp-…/00001-00000 ┘           NAME/part-00002-of-00003.parquet
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::agreement::column_twice;
use super::staging::{Existing, Staging, cannot_write};
use super::storage::{LocalFile, Writing};
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

    /// Writes what is still held and gives the file back.
    fn finish(self: Box<Self>) -> Result<Box<dyn Writing>, EncodeError>;
}

/// The one file, while it is being put together.
const JOINED: &str = "joined";

/// Where shards go and how they are written.
#[derive(Clone, Debug)]
pub(crate) struct ShardOptions {
    pub(crate) target: PathBuf,
    pub(crate) existing: Existing,
    /// The shards are put together to one file.
    pub(crate) one_file: bool,
    /// A shard is closed when it holds so many rows.
    pub(crate) rows_per_file: Option<u64>,
    /// A shard is closed when it has so many bytes.
    pub(crate) max_bytes_per_file: Option<u64>,
}

impl ShardOptions {
    pub(crate) fn new(target: impl AsRef<Path>) -> Self {
        Self {
            target: target.as_ref().to_owned(),
            existing: Existing::default(),
            one_file: false,
            rows_per_file: None,
            max_bytes_per_file: None,
        }
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

/// A folder of shards under way.
#[derive(Debug)]
pub(crate) struct Shards(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    staging: Staging,
    format: Arc<dyn FileFormat>,
    schema: SchemaRef,
    one_file: bool,
    rows_per_file: u64,
    max_bytes_per_file: u64,
    finished: Mutex<Vec<Shard>>,
}

#[derive(Debug)]
struct Shard {
    worker: usize,
    number: usize,
    n_rows: u64,
}

impl Shards {
    pub(crate) fn begin(
        options: &ShardOptions,
        format: Arc<dyn FileFormat>,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let staging = Staging::begin(options, format.extension())?;
        Ok(Self(Arc::new(Shared {
            staging,
            format,
            schema: Arc::clone(schema),
            one_file: options.one_file,
            rows_per_file: options.rows_per_file.unwrap_or(u64::MAX).max(1),
            max_bytes_per_file: options.max_bytes_per_file.unwrap_or(u64::MAX),
            finished: Mutex::new(Vec::new()),
        })))
    }
}

impl Shared {
    fn finished(&self) -> MutexGuard<'_, Vec<Shard>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, worker: usize, number: usize) -> PathBuf {
        self.staging.path(&format!("{worker:05}-{number:05}"))
    }

    fn open(&self, worker: usize, number: usize) -> Result<OpenShard> {
        let path = self.path(worker, number);
        let file = LocalFile::create_new(&path).map_err(|e| self.failed(e))?;
        let encoder = self
            .format
            .create(Box::new(file), &self.schema)
            .map_err(|e| self.failed(e))?;
        Ok(OpenShard {
            encoder,
            shard: Shard {
                worker,
                number,
                n_rows: 0,
            },
        })
    }

    /// Gives each shard the name it is published under.
    fn name(&self, shards: &[Shard]) -> Result<(u64, Vec<PathBuf>), EncodeError> {
        let (mut n_bytes, mut files) = (0, Vec::new());
        for (i, shard) in shards.iter().enumerate() {
            let (n, extension) = (shards.len(), self.format.extension());
            let name = format!("part-{i:05}-of-{n:05}.{extension}");
            let path = self.staging.path(&name);
            fs::rename(self.path(shard.worker, shard.number), &path)?;
            n_bytes += fs::metadata(&path)?.len();
            files.push(self.staging.target().join(name));
        }
        Ok((n_bytes, files))
    }

    /// Puts the shards together to one file.
    fn join(&self, shards: &[Shard]) -> Result<(u64, Vec<PathBuf>), EncodeError> {
        let mut joined = File::create_new(self.staging.path(JOINED))?;
        joined.write_all(&self.format.preamble(&self.schema)?)?;
        for shard in shards {
            let mut file = File::open(self.path(shard.worker, shard.number))?;
            io::copy(&mut file, &mut joined)?;
        }
        joined.sync_all()?;
        let n_bytes = joined.metadata()?.len();
        Ok((n_bytes, vec![self.staging.target().to_owned()]))
    }

    fn close(&self, open: OpenShard) -> Result<()> {
        let file = open.encoder.finish().map_err(|e| self.failed(e))?;
        file.close().map_err(|e| self.failed(e))?;
        self.finished().push(open.shard);
        Ok(())
    }

    /// What a failure of the disk, perhaps deep inside an error of a library, means to the user.
    fn failed(&self, error: impl Into<EncodeError>) -> Error {
        let error = error.into();
        match io_kind(error.as_ref()) {
            Some(found) => cannot_write(self.staging.target(), found),
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
            open: None,
        }))
    }

    fn commit(&self) -> Result<Published> {
        let shared = &self.0;
        if shared.finished().is_empty() {
            shared.close(shared.open(0, 0)?)?;
        }
        let mut shards = std::mem::take(&mut *shared.finished());
        shards.sort_by_key(|s| (s.worker, s.number));
        let published = if shared.one_file {
            shared.join(&shards)
        } else {
            shared.name(&shards)
        };
        let (n_bytes, files) = published.map_err(|e| shared.failed(e))?;
        match shared.one_file {
            true => shared.staging.publish_file(JOINED)?,
            false => shared.staging.publish_folder()?,
        }
        Ok(Published {
            files,
            n_rows: shards.iter().map(|s| s.n_rows).sum(),
            n_bytes,
        })
    }

    fn abort(&self) {
        self.0.staging.abort();
    }
}

struct OpenShard {
    encoder: Box<dyn Encoder>,
    shard: Shard,
}

/// The shards of one worker, one after the other; none where it gets no rows.
struct ShardWriter {
    shared: Arc<Shared>,
    worker: usize,
    n_files: usize,
    open: Option<OpenShard>,
}

impl SinkWriter for ShardWriter {
    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut start = 0;
        while start < rows.num_rows() {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => {
                    self.n_files += 1;
                    self.shared.open(self.worker, self.n_files - 1)?
                }
            };
            let room = self.shared.rows_per_file - open.shard.n_rows;
            let n = usize::try_from(room)
                .unwrap_or(usize::MAX)
                .min(rows.num_rows() - start);
            open.encoder
                .write(&rows.slice(start, n))
                .map_err(|e| self.shared.failed(e))?;
            open.shard.n_rows += n as u64;
            start += n;
            let is_full = open.shard.n_rows == self.shared.rows_per_file
                || open.encoder.n_bytes() >= self.shared.max_bytes_per_file;
            if is_full {
                self.shared.close(open)?;
            } else {
                self.open = Some(open);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        match self.open.take() {
            Some(open) => self.shared.close(open),
            None => Ok(()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::connectors::test_folder::TestFolder;
    use crate::connectors::{csv_sink, parquet_sink};
    use crate::testing::table;
    use expect_test::expect;

    /// A format whose files are all on a disk without space.
    #[derive(Debug)]
    struct FullDisk(Arc<dyn FileFormat>);

    impl FileFormat for FullDisk {
        fn extension(&self) -> &'static str {
            self.0.extension()
        }

        fn create(
            &self,
            _: Box<dyn Writing>,
            schema: &SchemaRef,
        ) -> Result<Box<dyn Encoder>, EncodeError> {
            let full = File::options().write(true).open("/dev/full")?;
            self.0.create(Box::new(LocalFile::new(full)), schema)
        }
    }

    #[test]
    fn a_full_disk_is_told_as_such_and_leaves_nothing() {
        let folder = TestFolder::new();
        let rows = table("x: 1, 2; y: a, b");
        for format in [parquet_sink("").format(), csv_sink(".csv").format()] {
            let options = ShardOptions::new(folder.path("a/out"));
            let full = Arc::new(FullDisk(format));
            let shards = Shards::begin(&options, full, &rows.schema()).unwrap();
            let mut writer = shards.writer(0).unwrap();
            let written = writer.write(&rows).and_then(|()| writer.finish());
            let error = written.unwrap_err();
            shards.abort();
            assert!(error.is_environment(), "{error:?}");
            expect![[r#"
                cannot write "FOLDER/a/out": no space is left on the disk
                  Hint: Free space there, or write to another disk."#]]
            .assert_eq(&folder.hide(error.to_string()));
            assert!(folder.tree().is_empty());
        }
    }
}
