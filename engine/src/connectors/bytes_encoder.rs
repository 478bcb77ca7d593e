//! Encodes rows that become bytes batch by batch, such as lines of text.

use arrow::record_batch::RecordBatch;

use super::compressed_file::CompressedFile;
use super::compression::FileCompression;
use super::shards::{EncodeError, Encoder};
use super::storage::Writing;

/// A file of rows whose bytes `encode` adds to those that are there.
pub(crate) struct BytesEncoder<F> {
    file: CompressedFile,
    encode: F,
    bytes: Vec<u8>,
}

impl<F> BytesEncoder<F> {
    /// Starts a file with these bytes.
    pub(crate) fn begin(
        file: Box<dyn Writing>,
        compression: FileCompression,
        begin: &[u8],
        encode: F,
    ) -> Result<Self, EncodeError> {
        let mut file = CompressedFile::new(file, compression)?;
        file.write_all(begin)?;
        Ok(Self {
            file,
            encode,
            bytes: Vec::new(),
        })
    }
}

impl<F> Encoder for BytesEncoder<F>
where
    F: FnMut(&RecordBatch, &mut Vec<u8>) -> Result<(), EncodeError> + Send,
{
    fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        self.bytes.clear();
        (self.encode)(rows, &mut self.bytes)?;
        // Not by the library's writer, which makes text of an error such as a full disk.
        Ok(self.file.write_all(&self.bytes)?)
    }

    fn n_bytes(&self) -> u64 {
        self.file.n_bytes()
    }

    fn held_bytes(&self) -> u64 {
        self.file.held_bytes()
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Writing>, EncodeError> {
        Ok(self.file.finish()?)
    }
}
