//! What an Arrow IPC file tells of itself before its rows are read.

use std::io::{BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, StreamReader, read_footer_length};
use arrow::ipc::{Block, MetadataVersion, root_as_footer};

use super::storage::StoredFile;
use super::unharmed::unharmed;
use crate::error::{Error, Result};

/// Ends a file, and begins it.
const MAGIC: &[u8] = b"ARROW1";

/// A file of either format.
pub(crate) struct IpcFile {
    pub(crate) stored: StoredFile,
    pub(crate) schema: SchemaRef,
    /// Nothing for a stream.
    footer: Option<Footer>,
}

/// Where the parts of a file are.
struct Footer {
    version: MetadataVersion,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
}

impl IpcFile {
    pub(crate) fn open(stored: &StoredFile) -> Result<Self> {
        let n_bytes = stored.n_bytes();
        if n_bytes == 0 {
            return Err(
                Error::data(format!("{} is empty, expected Arrow IPC", stored.name()))
                    .with_hint("Leave the file out."),
            );
        }
        let begin = stored.range(0..n_bytes.min(MAGIC.len() as u64))?;
        match begin == MAGIC {
            true => Self::open_file(stored),
            false => Self::open_stream(stored),
        }
    }

    fn open_stream(stored: &StoredFile) -> Result<Self> {
        let reader = stream(stored)?;
        Ok(Self {
            schema: reader.schema(),
            stored: stored.clone(),
            footer: None,
        })
    }

    fn open_file(stored: &StoredFile) -> Result<Self> {
        let cut = || {
            Error::data(format!(
                "{} has no footer: it is cut short or damaged",
                stored.name()
            ))
            .with_hint("Copy the file anew, or leave it out.")
        };
        let n_bytes = stored.n_bytes();
        let end: Vec<u8> = stored.range(n_bytes.saturating_sub(10)..n_bytes)?.to_vec();
        let end: [u8; 10] = end.try_into().map_err(|_| cut())?;
        let n_footer = read_footer_length(end).map_err(|_| cut())? as u64;
        let from = (n_bytes - 10).checked_sub(n_footer).ok_or_else(cut)?;
        let bytes = stored.range(from..n_bytes - 10)?;
        let footer = root_as_footer(&bytes).map_err(|_| cut())?;
        let schema = footer.schema().ok_or_else(cut)?;
        let found = Footer {
            version: footer.version(),
            dictionaries: footer.dictionaries().iter().flatten().copied().collect(),
            batches: footer.recordBatches().iter().flatten().copied().collect(),
        };
        for block in found.dictionaries.iter().chain(&found.batches) {
            if range(block).is_none_or(|r| r.end > n_bytes) {
                return Err(cut());
            }
        }
        Ok(Self {
            schema: Arc::new(unharmed(|| Ok(fb_to_schema(schema))).map_err(|_| cut())?),
            stored: stored.clone(),
            footer: Some(found),
        })
    }

    /// How many bytes each record batch takes; nothing for a stream.
    pub(crate) fn batch_bytes(&self) -> Option<Vec<u64>> {
        let footer = self.footer.as_ref()?;
        let size = |block: &Block| range(block).map_or(0, |r| r.end - r.start);
        Some(footer.batches.iter().map(size).collect())
    }

    /// What decodes the record batches, with the dictionaries in it.
    pub(crate) fn decoder(&self, columns: Vec<usize>) -> Result<FileDecoder> {
        let version = self
            .footer
            .as_ref()
            .map_or(MetadataVersion::V5, |f| f.version);
        let mut decoder =
            FileDecoder::new(Arc::clone(&self.schema), version).with_projection(columns);
        for (i, block) in self
            .footer
            .iter()
            .flat_map(|f| f.dictionaries.iter().enumerate())
        {
            let bytes = self.read(block)?;
            unharmed(|| decoder.read_dictionary(block, &bytes))
                .map_err(|e| self.damaged(&format!("dictionary {i}"), e))?;
        }
        Ok(decoder)
    }

    /// The place of a record batch and its bytes.
    pub(crate) fn batch(&self, number: usize) -> Result<Option<(Block, Buffer)>> {
        let block = self.footer.as_ref().and_then(|f| f.batches.get(number));
        match block {
            Some(block) => Ok(Some((*block, self.read(block)?))),
            None => Ok(None),
        }
    }

    fn read(&self, block: &Block) -> Result<Buffer> {
        let range = range(block).ok_or_else(|| Error::bug("a block was not checked"))?;
        Ok(Buffer::from(self.stored.range(range)?))
    }

    /// Refuses a stream that ends within the length of the message that would follow, which the library takes for the
    /// end: all messages are multiples of eight bytes long, but for the mark of the end of old writers, four zeros.
    pub(crate) fn check_end(&self, part: &str) -> Result<()> {
        let n_bytes = self.stored.n_bytes();
        if self.footer.is_some() || n_bytes.is_multiple_of(8) {
            return Ok(());
        }
        let last = self.stored.range(n_bytes.saturating_sub(4)..n_bytes)?;
        if n_bytes.is_multiple_of(4) && *last == [0; 4] {
            return Ok(());
        }
        let name = self.stored.name();
        Err(Error::data(format!("{name} ends in the middle of {part}"))
            .with_hint("Copy the file anew, or leave it out."))
    }

    /// The error of a part that cannot be decoded.
    pub(crate) fn damaged(&self, part: &str, error: ArrowError) -> Error {
        damaged(&self.stored, part, error)
    }
}

/// The rows of a stream, in order.
pub(crate) fn stream(stored: &StoredFile) -> Result<StreamReader<BufReader<Box<dyn Read + Send>>>> {
    let bytes = BufReader::with_capacity(1 << 20, stored.open(0)?);
    unharmed(|| StreamReader::try_new(bytes, None)).map_err(|error| {
        damaged(stored, "the schema", error)
            .with_hint("Arrow IPC begins with \"ARROW1\", or with the schema of a stream.")
    })
}

fn damaged(stored: &StoredFile, part: &str, error: ArrowError) -> Error {
    let failure = match error {
        ArrowError::IoError(_, io) if io.kind() != std::io::ErrorKind::UnexpectedEof => {
            return super::compression::read_failed(stored, io);
        }
        other => other,
    };
    let message = format!("{}: {part} cannot be read as Arrow IPC", stored.name());
    Error::data(message)
        .with_detail(format!("{failure}."))
        .with_source(failure)
}

/// The bytes of a block, if they are a range at all.
fn range(block: &Block) -> Option<Range<u64>> {
    let from = u64::try_from(block.offset()).ok()?;
    let meta = u64::try_from(block.metaDataLength()).ok()?;
    let body = u64::try_from(block.bodyLength()).ok()?;
    // The library slices the message without a look.
    (meta >= 8).then_some(())?;
    Some(from..from.checked_add(meta)?.checked_add(body)?)
}
