//! Reads Arrow IPC files, many at a time by a folder or a pattern.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::file_source::{Described, Once, file_of_split, file_source};
use super::files::Files;
use super::hive::{HiveOptions, hive_options};
use super::ipc_file::IpcFile;
use super::ipc_reader::IpcReader;
use crate::error::Result;
use crate::source::{Position, Source, SourceProperties, Split, SplitReader};
use crate::transform::Description;

/// How many bytes of record batches are one split; it must not depend on the number of workers.
const SPLIT_BYTES: u64 = 16 << 20;

/// Rows of Arrow IPC files (also known as Feather 2): of one file, of all `*.arrow`, `*.arrows`,
/// `*.feather` and `*.ipc` of a folder, or of those that match a pattern, at a path or a URL (see
/// [`Storage`](super::Storage)).
///
/// Both formats are read, that of files and that of streams, whatever the names. Of a file, so many record
/// batches as make up about 16 MiB are a split; a stream is one split. All files must have the same
/// columns, in any order. Types are kept as they are, dictionaries and nested columns too; nulls are nulls.
/// Buffers may be compressed by LZ4 or zstd.
///
/// A file or stream that is cut short ends the run, but for one case: a stream that ends between two record
/// batches is taken as whole. The format leaves it to the writer whether to mark the end or only to close the
/// stream, so a stream that was cut there cannot be told from a whole one: write files where that matters.
///
/// Folders named `column=value` below the place are columns: see [`IpcSource::hive_columns`].
///
/// ```no_run
/// # use mainstem_engine::{Pipeline, connectors};
/// let pipeline = Pipeline::new("births");
/// let births = pipeline.read("births", connectors::ipc("births/*.arrow"));
/// ```
#[derive(Clone)]
pub struct IpcSource {
    files: Files,
    hive: HiveOptions,
    /// Footers are read once, by the first who needs them.
    loaded: Once<Loaded>,
}

/// The rows of Arrow IPC files: see [`IpcSource`].
pub fn ipc(place: impl AsRef<Path>) -> IpcSource {
    IpcSource {
        files: Files::new(place, &["arrow", "arrows", "feather", "ipc"]),
        hive: HiveOptions::default(),
        loaded: Once::default(),
    }
}

impl IpcSource {
    fn load(&self) -> Result<Loaded> {
        let tells = |file: &IpcFile| (file.stored.clone(), Arc::clone(&file.schema));
        Described::load(&self.files, &self.hive, IpcFile::open, tells)
    }
}

hive_options!(IpcSource, afresh);

file_source!(IpcSource, "ipc");

type Loaded = Described<IpcFile>;

#[derive(Serialize, Deserialize)]
struct Locator {
    file: String,
    /// The record batches, from the first to before the last; of a stream all.
    batches: Option<(usize, usize)>,
}

impl Source for IpcSource {
    fn describe(&self) -> Description {
        Description::new("ipc", json!({ "files": self.files.place() }))
    }

    fn place(&self) -> Option<String> {
        Some(self.files.root())
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(Arc::clone(&self.loaded()?.schema))
    }

    fn properties(&self) -> SourceProperties {
        self.files.properties()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for file in &self.loaded()?.files {
            let name = file.stored.name();
            let Some(sizes) = file.batch_bytes() else {
                let locator = Locator {
                    file: file.stored.location().to_owned(),
                    batches: None,
                };
                splits.push(Split {
                    name,
                    locator: serde_json::to_value(locator)?,
                    n_rows: None,
                    n_bytes: Some(file.stored.n_bytes()),
                });
                continue;
            };
            for (from, to, n_bytes) in pieces(&sizes) {
                splits.push(Split {
                    name: match (from, to) {
                        (0, to) if to == sizes.len() => name.clone(),
                        (from, to) if from + 1 == to => format!("{name}, record batch {from}"),
                        (from, to) => format!("{name}, record batches {from} to {}", to - 1),
                    },
                    locator: serde_json::to_value(Locator {
                        file: file.stored.location().to_owned(),
                        batches: Some((from, to)),
                    })?,
                    n_rows: None,
                    n_bytes: Some(n_bytes),
                });
            }
        }
        Ok(splits)
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let loaded = self.loaded()?;
        let locator: Locator = serde_json::from_value(split.locator.clone())?;
        let (number, file) = file_of_split(&loaded.files, &locator.file, |f| &f.stored)?;
        let selection = loaded.hive.of_file(&loaded.file_schema, columns)?;
        let reader = IpcReader::open(file, locator.batches, selection, position.0)?;
        let reader = Box::new(reader);
        loaded.hive.reader(number, reader, &loaded.schema, columns)
    }
}

/// Runs of record batches that make up a split each, with their bytes.
fn pieces(sizes: &[u64]) -> Vec<(usize, usize, u64)> {
    let mut pieces = Vec::new();
    let (mut from, mut n_bytes) = (0, 0);
    for (i, size) in sizes.iter().enumerate() {
        n_bytes += size;
        if n_bytes >= SPLIT_BYTES || i + 1 == sizes.len() {
            pieces.push((from, i + 1, n_bytes));
            (from, n_bytes) = (i + 1, 0);
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
