//! Sources and sinks, each in a file of its own.
//!
//! ```text
//! parquet, csv                 ─▶ Source ─▶ … ─▶ Sink ─▶ parquet_sink, csv_sink
//! from_record_batches, from_rows ┘                  └─▶ collect
//!
//! files       paths, folders, patterns      storage       files wherever they are, also in object stores
//! agreement   one schema of many files      shards        files of a worker, by rows, bytes and partitions
//! selection   the columns that are wanted   staging       results appear whole or not at all
//! ```

mod agreement;
mod collect;
mod csv_reader;
mod csv_sink;
mod csv_source;
mod csv_types;
mod file_sink;
mod files;
mod hive;
mod left_behind;
mod memory_source;
mod parquet_file;
mod parquet_sink;
mod parquet_source;
mod partitions;
mod selection;
mod shards;
mod staged_folder;
mod staging;
mod storage;
#[cfg(test)]
pub(crate) mod test_folder;

pub use collect::{CollectSink, Collected, collect};
pub use csv_sink::{CsvSink, csv_sink};
pub use csv_source::{CsvSource, csv};
pub use memory_source::{MemorySource, from_record_batches, from_rows};
pub use parquet_sink::{ParquetCompression, ParquetSink, parquet_sink};
pub use parquet_source::{ParquetSource, parquet};
pub use storage::Storage;

/// How many rows a split should hold: enough to be worth its opening, few enough for all workers to
/// have some. It must not depend on the number of workers, nor must anything that splits are made of.
const SPLIT_ROWS: u64 = 131_072;
