//! A batch as timely's container, and as bytes where it leaves the process.

use std::io::Write;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::ContainerBytes;

use crate::batch::{Batch, RowUnit, SplitKey};
use crate::error::{Error, Result};

/// At most one batch, as timely's container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows(pub(crate) Option<Batch>);

/// What builds containers: one container a batch.
pub(crate) type RowsBuilder = CapacityContainerBuilder<Rows>;

impl Accountable for Rows {
    /// Timely drops a container of no records, and so what is told of splits between rows counts as one.
    fn record_count(&self) -> i64 {
        let count = |batch: &Batch| i64::try_from(batch.n_rows().max(1)).unwrap_or(i64::MAX);
        self.0.as_ref().map_or(0, count)
    }
}

/// Where the rows of a batch came from, as it travels beside them.
#[derive(Serialize, Deserialize)]
struct Origin {
    source: u32,
    split: u32,
    branch: u64,
    name: String,
    first_row: u64,
    unit: RowUnit,
    exact: bool,
}

/// Rows as an Arrow IPC stream of their own.
pub(crate) fn encode(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(rows.get_array_memory_size() + 1024);
    let mut writer = StreamWriter::try_new(&mut bytes, &rows.schema())?;
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// The rows of one IPC stream, which share its memory.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<RecordBatch> {
    let mut buffer = Buffer::from_vec(bytes);
    let mut decoder = StreamDecoder::new();
    decoder
        .decode(&mut buffer)?
        .ok_or_else(|| Error::bug("an IPC stream held no rows"))
}

impl Rows {
    /// `[length of origin, length of rows, origin as JSON, rows as IPC]`; all zero without a batch.
    fn to_bytes(&self) -> Result<Vec<u8>> {
        let Some(batch) = &self.0 else {
            return Ok(vec![0; 16]);
        };
        let key = batch.split_key();
        let position = batch.position(0);
        let origin = serde_json::to_vec(&Origin {
            source: key.source,
            split: key.split,
            branch: key.branch,
            name: position.split.to_string(),
            first_row: position.row,
            unit: position.unit,
            exact: batch.is_contiguous(),
        })?;
        let rows = encode(batch.rows())?;
        let mut bytes = Vec::with_capacity(16 + origin.len() + rows.len());
        bytes.extend((origin.len() as u64).to_le_bytes());
        bytes.extend((rows.len() as u64).to_le_bytes());
        bytes.extend(origin);
        bytes.extend(rows);
        Ok(bytes)
    }

    fn from_slice(bytes: &[u8]) -> Result<Self> {
        let torn = || Error::bug("a batch from another process is torn");
        let length = |at: usize| -> Result<usize> {
            let eight = bytes
                .get(at..at + 8)
                .and_then(|b| b.try_into().ok())
                .ok_or_else(torn)?;
            usize::try_from(u64::from_le_bytes(eight)).map_err(|_| torn())
        };
        let (n_origin, n_rows) = (length(0)?, length(8)?);
        if n_rows == 0 {
            return Ok(Self(None));
        }
        let origin = bytes.get(16..16 + n_origin).ok_or_else(torn)?;
        let rows = bytes
            .get(16 + n_origin..16 + n_origin + n_rows)
            .ok_or_else(torn)?;
        let origin: Origin = serde_json::from_slice(origin)?;
        let key = SplitKey {
            source: origin.source,
            split: origin.split,
            branch: origin.branch,
        };
        let batch = Batch::read(
            decode(rows.to_vec())?,
            key,
            Arc::from(origin.name),
            origin.first_row,
        )
        .counted_in(origin.unit);
        Ok(Self(Some(if origin.exact {
            batch
        } else {
            batch.inexact()
        })))
    }
}

// Timely asks for the length first and for the bytes after, and lets neither fail. Workers share a
// process, which moves batches as they are; between processes a failure here must end the peer.
#[expect(clippy::expect_used, reason = "timely's trait has no way to say no")]
impl ContainerBytes for Rows {
    fn from_bytes(bytes: Bytes) -> Self {
        Self::from_slice(&bytes).expect("BUG: a peer sent what is not a batch")
    }

    fn length_in_bytes(&self) -> usize {
        self.to_bytes()
            .expect("BUG: a batch has no IPC form")
            .len()
            .next_multiple_of(8)
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let bytes = self.to_bytes().expect("BUG: a batch has no IPC form");
        let padding = bytes.len().next_multiple_of(8) - bytes.len();
        writer
            .write_all(&bytes)
            .expect("BUG: the channel is too small");
        writer
            .write_all(&[0; 8][..padding])
            .expect("BUG: the channel is too small");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{show, table};
    use crate::transform::SplitEvent;

    fn through_bytes(rows: &Rows) -> Rows {
        let mut bytes = Vec::new();
        rows.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), rows.length_in_bytes());
        let mut bytes = timely::bytes::arc::BytesMut::from(bytes);
        let n = bytes.len();
        Rows::from_bytes(bytes.extract_to(n))
    }

    #[test]
    fn a_batch_keeps_its_rows_and_its_origin() {
        let key = SplitKey {
            source: 3,
            split: 14,
            branch: 15,
        };
        let batch = Batch::read(
            table("a: 1, null; b: 'x', 'y'"),
            key,
            Arc::from("file 9"),
            26,
        );
        let Rows(Some(back)) = through_bytes(&Rows(Some(batch.clone()))) else {
            panic!("no batch")
        };
        assert_eq!(show(back.rows()), show(batch.rows()));
        assert_eq!(back.split_key(), key);
        assert_eq!(back.position(1), batch.position(1));
    }

    #[test]
    fn what_is_told_of_splits_is_no_empty_container() {
        let ended = SplitEvent::AllOpened { source: 0 };
        assert_eq!(Rows(Some(Batch::of_event(ended))).record_count(), 1);
        assert_eq!(Rows(None).record_count(), 0);
    }

    #[test]
    fn no_batch_stays_none() {
        assert!(through_bytes(&Rows(None)).0.is_none());
    }
}
