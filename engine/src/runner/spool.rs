//! Rows kept on disk between phases, in the order of their splits.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::container::{decode, encode};
use super::ends::EndWriter;
use super::feed::{Feed, FeedReader};
use super::metrics::Expected;
use crate::batch::{Batch, RowUnit, SplitKey};
use crate::error::{Error, Result};
use crate::output::Output;
use crate::trainer::TrainingRows;
use crate::transform::SplitEvent;

/// Where a batch stands in a file, and where its rows came from.
#[derive(Clone)]
struct Block {
    key: SplitKey,
    /// The number of the file, then of the block in it: the order in which a worker met the split's rows.
    file: usize,
    place: usize,
    offset: u64,
    n_bytes: usize,
    n_rows: usize,
    split: Arc<str>,
    first_row: u64,
    unit: RowUnit,
    contiguous: bool,
}

/// Rows under way to disk: a file per worker, an Arrow IPC stream per batch.
pub(crate) struct Spool {
    folder: PathBuf,
    schema: SchemaRef,
    done: Mutex<Vec<(PathBuf, Vec<Block>)>>,
}

impl Spool {
    /// Keeps the columns of `schema`, which the rows may have more than.
    pub(crate) fn new(folder: &Path, name: &str, schema: SchemaRef) -> Result<Arc<Self>> {
        let folder = folder.join(name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        std::fs::create_dir_all(&folder).map_err(|e| cannot_keep(&folder, e))?;
        Ok(Arc::new(Self {
            folder,
            schema,
            done: Mutex::default(),
        }))
    }

    pub(crate) fn writer(self: &Arc<Self>, worker: usize) -> Result<Box<dyn EndWriter>> {
        let path = self.folder.join(format!("worker-{worker}.arrows"));
        let file = File::create(&path).map_err(|e| cannot_keep(&path, e))?;
        Ok(Box::new(SpoolWriter {
            spool: Arc::clone(self),
            path,
            worker,
            file: BufWriter::with_capacity(1 << 20, file),
            offset: 0,
            blocks: Vec::new(),
        }))
    }

    /// The rows, once all writers have finished.
    pub(crate) fn rows(&self) -> Result<Spooled> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = Vec::new();
        let mut blocks: Vec<Block> = Vec::new();
        for (path, of_file) in done.iter() {
            files.push(Mutex::new(
                File::open(path).map_err(|e| cannot_keep(path, e))?,
            ));
            let file = files.len() - 1;
            blocks.extend(of_file.iter().cloned().map(|b| Block { file, ..b }));
        }
        blocks.sort_by_key(|b| (b.key, b.file, b.place));
        Ok(Spooled(Arc::new(Kept {
            schema: SchemaRef::clone(&self.schema),
            files,
            blocks,
        })))
    }
}

fn cannot_keep(path: &Path, error: std::io::Error) -> Error {
    Error::environment(format!("rows cannot be kept in {}", path.display()))
        .with_detail(format!("{error}."))
        .with_hint("Free space there, or point TMPDIR to a larger disk.")
        .with_source(error)
}

struct SpoolWriter {
    spool: Arc<Spool>,
    path: PathBuf,
    worker: usize,
    file: BufWriter<File>,
    offset: u64,
    blocks: Vec<Block>,
}

impl EndWriter for SpoolWriter {
    fn at_hand(&self) -> bool {
        true
    }

    fn write(&mut self, batch: &Batch) -> Result<()> {
        let columns = project(batch.rows(), &self.spool.schema)?;
        let bytes = encode(&columns)?;
        self.file
            .write_all(&bytes)
            .map_err(|e| cannot_keep(&self.path, e))?;
        let position = batch.position(0);
        self.blocks.push(Block {
            key: batch.split_key(),
            file: self.worker,
            place: self.blocks.len(),
            offset: self.offset,
            n_bytes: bytes.len(),
            n_rows: batch.n_rows(),
            split: position.split,
            first_row: position.row,
            unit: position.unit,
            contiguous: batch.is_contiguous(),
        });
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| cannot_keep(&self.path, e))?;
        let mut done = self
            .spool
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        done.push((self.path.clone(), std::mem::take(&mut self.blocks)));
        done.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(())
    }
}

fn project(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if rows.schema().fields() == schema.fields() {
        return Ok(rows.clone());
    }
    let indices: Vec<usize> = schema
        .fields()
        .iter()
        .map(|f| crate::expression::check_column(f.name(), &rows.schema()))
        .collect::<Result<_>>()?;
    Ok(rows.project(&indices)?)
}

struct Kept {
    schema: SchemaRef,
    files: Vec<Mutex<File>>,
    blocks: Vec<Block>,
}

impl Kept {
    fn read(&self, block: &Block) -> Result<RecordBatch> {
        let mut file = self.files[block.file]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; block.n_bytes];
        let read = file
            .seek(SeekFrom::Start(block.offset))
            .and_then(|_| file.read_exact(&mut bytes));
        drop(file);
        read.map_err(|e| Error::environment("kept rows cannot be read back").with_source(e))?;
        decode(bytes)
    }
}

/// Rows on disk, in the order of their splits: the same with any number of workers.
#[derive(Clone)]
pub(crate) struct Spooled(Arc<Kept>);

impl Spooled {
    /// The rows as a feed for a later phase, which tells of its splits by `number`, with the columns that are
    /// wanted.
    pub(crate) fn feed(&self, number: u32, columns: Option<Vec<String>>) -> Box<dyn Feed> {
        let blocks = &self.0.blocks;
        let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
        for (place, block) in blocks.iter().enumerate() {
            match parts.last_mut() {
                Some(part) if blocks[part.start].key == block.key => part.end = place + 1,
                _ => parts.push(place..place + 1),
            }
        }
        Box::new(SpoolFeed {
            rows: self.clone(),
            number,
            columns,
            parts,
            taken: AtomicUsize::new(0),
        })
    }
}

impl TrainingRows for Spooled {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.0.schema)
    }

    fn n_rows(&self) -> u64 {
        self.0.blocks.iter().map(|b| b.n_rows as u64).sum()
    }

    fn epoch(&self) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send + '_> {
        Box::new(self.0.blocks.iter().map(|block| self.0.read(block)))
    }
}

/// Rows that are read back: those of one split that came by one way are a split of this feed.
struct SpoolFeed {
    rows: Spooled,
    number: u32,
    columns: Option<Vec<String>>,
    parts: Vec<std::ops::Range<usize>>,
    taken: AtomicUsize,
}

impl Feed for SpoolFeed {
    fn next_part(&self, _worker: usize) -> Result<Option<Box<dyn FeedReader>>> {
        let place = self.taken.fetch_add(1, SeqCst);
        let Some(part) = self.parts.get(place) else {
            return Ok(None);
        };
        let key = SplitKey {
            source: self.number,
            split: u32::try_from(place)
                .map_err(|_| Error::pipeline(format!("{place} splits are too many")))?,
            branch: 0,
        };
        let name = Arc::clone(&self.rows.0.blocks[part.start].split);
        let wanted = match &self.columns {
            Some(names) => Some(
                names
                    .iter()
                    .map(|n| crate::expression::check_column(n, &self.rows.0.schema))
                    .collect::<Result<Vec<usize>>>()?,
            ),
            None => None,
        };
        Ok(Some(Box::new(SpoolReader {
            rows: self.rows.clone(),
            wanted,
            left: part.clone(),
            key,
            events: vec![SplitEvent::Opened { key, name }],
        })))
    }

    fn all_opened(&self, _worker: usize) -> Option<u32> {
        (self.taken.load(SeqCst) >= self.parts.len()).then_some(self.number)
    }

    fn at_hand(&self) -> bool {
        true
    }

    fn expected(&self) -> Expected {
        Expected {
            n_rows: Some(TrainingRows::n_rows(&self.rows)),
            n_bytes: None,
        }
    }
}

struct SpoolReader {
    rows: Spooled,
    wanted: Option<Vec<usize>>,
    left: std::ops::Range<usize>,
    key: SplitKey,
    events: Vec<SplitEvent>,
}

impl FeedReader for SpoolReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<Batch>> {
        let Some(place) = self.left.next() else {
            self.events.push(SplitEvent::Ended { key: self.key });
            return Ok(None);
        };
        let block = &self.rows.0.blocks[place];
        let mut rows = self.rows.0.read(block)?;
        if let Some(wanted) = &self.wanted {
            rows = rows.project(wanted)?;
        }
        let split = Arc::clone(&block.split);
        let batch = Batch::read(rows, block.key, split, block.first_row)
            .of_part(self.key)
            .counted_in(block.unit);
        Ok(Some(if block.contiguous {
            batch
        } else {
            batch.inexact()
        }))
    }

    fn take_events(&mut self) -> Vec<SplitEvent> {
        std::mem::take(&mut self.events)
    }
}
