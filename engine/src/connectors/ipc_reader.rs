//! Reads record batches of one Arrow IPC file.

use std::io::{BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use arrow::ipc::reader::{FileDecoder, StreamReader};
use arrow::record_batch::RecordBatch;

use super::ipc_file::{IpcFile, stream};
use super::selection::Selection;
use super::unharmed::unharmed;
use crate::batch::BATCH_ROWS;
use crate::error::Result;
use crate::output::Output;
use crate::source::SplitReader;

/// An open file, or some record batches of one.
pub(crate) struct IpcReader {
    file: Arc<IpcFile>,
    rows: Rows,
    selection: Selection,
    to_skip: u64,
    /// Of a large batch, what has not been given yet.
    left: Option<RecordBatch>,
    n_bytes: u64,
}

enum Rows {
    File {
        decoder: Box<FileDecoder>,
        batches: Range<usize>,
    },
    Stream {
        reader: Box<StreamReader<BufReader<Box<dyn Read + Send>>>>,
        n_batches: usize,
    },
}

impl IpcReader {
    pub(crate) fn open(
        file: &Arc<IpcFile>,
        batches: Option<(usize, usize)>,
        selection: Selection,
        position: u64,
    ) -> Result<Self> {
        let rows = match batches {
            None => Rows::Stream {
                reader: Box::new(stream(&file.stored)?),
                n_batches: 0,
            },
            Some((from, to)) => {
                let mut columns: Vec<usize> = selection
                    .fields()
                    .filter_map(|f| file.schema.index_of(f.name()).ok())
                    .collect();
                columns.sort_unstable();
                Rows::File {
                    decoder: Box::new(file.decoder(columns)?),
                    batches: from..to,
                }
            }
        };
        Ok(Self {
            file: Arc::clone(file),
            rows,
            selection,
            to_skip: position,
            left: None,
            n_bytes: 0,
        })
    }

    /// The next record batch, of whatever size.
    fn read(&mut self) -> Result<Option<RecordBatch>> {
        let (number, decoded) = match &mut self.rows {
            Rows::File { decoder, batches } => {
                let Some(number) = batches.next() else {
                    return Ok(None);
                };
                let Some((block, bytes)) = self.file.batch(number)? else {
                    return Ok(None);
                };
                self.n_bytes += bytes.len() as u64;
                let decoded = unharmed(|| decoder.read_record_batch(&block, &bytes));
                (number, decoded)
            }
            Rows::Stream { reader, n_batches } => {
                *n_batches += 1;
                (*n_batches - 1, unharmed(|| reader.next().transpose()))
            }
        };
        let part = format!("record batch {number}");
        let Some(rows) = decoded.map_err(|e| self.file.damaged(&part, e))? else {
            self.file.check_end(&part)?;
            return Ok(None);
        };
        self.selection.arrange(&rows).map(Some)
    }
}

impl SplitReader for IpcReader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        loop {
            let rows = match self.left.take() {
                Some(left) => left,
                None => match self.read()? {
                    Some(rows) => rows,
                    None => return Ok(None),
                },
            };
            let skipped = self.to_skip.min(rows.num_rows() as u64) as usize;
            self.to_skip -= skipped as u64;
            let n = (rows.num_rows() - skipped).min(BATCH_ROWS);
            let rest = rows.num_rows() - skipped - n;
            if rest > 0 {
                self.left = Some(rows.slice(skipped + n, rest));
            }
            if n > 0 {
                return Ok(Some(rows.slice(skipped, n)));
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.n_bytes
    }
}
