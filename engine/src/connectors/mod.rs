//! Sources and sinks, each in a file of its own.
//!
//! ```text
//! parquet, csv, json_lines, avro, ipc, tfrecord ─▶ Source ─▶ … ─▶ Sink ─▶ parquet_sink, csv_sink, …
//! from_record_batches, from_rows, from_stream     ┘                  └─▶ collect, into_stream
//!
//! files       paths, folders, patterns      storage       files wherever they are, also in object stores
//! agreement   one schema of many files      shards        files of a worker, by rows, bytes and partitions
//! selection   the columns that are wanted   staging       results appear whole or not at all
//! compression of whole files, read          compressed_file  and written
//! file_source, file_sink  what all have     held_file     a file that a library writes to
//! text_splits of a large text file          growing_dictionary  one dictionary for all batches
//! tape        text that is being parsed           planned_ranges  few requests for what will be read
//! csv_records of that text, by two parsers
//! ```

mod agreement;
mod avro_blocks;
mod avro_header;
mod avro_sink;
mod avro_source;
mod bytes_encoder;
mod collect;
mod compressed_file;
mod compression;
mod csv_columns;
mod csv_dialect;
mod csv_reader;
mod csv_records;
mod csv_sink;
mod csv_source;
mod csv_types;
#[cfg(feature = "datafusion")]
mod datafusion_source;
#[cfg(test)]
mod every_type;
mod file_sink;
mod file_source;
mod files;
mod growing_dictionary;
mod held_file;
mod hive;
mod ipc_file;
mod ipc_reader;
mod ipc_sink;
mod ipc_source;
mod json_lines_reader;
mod json_lines_sink;
mod json_lines_source;
mod json_types;
mod left_behind;
#[cfg(test)]
mod many_bad_rows;
mod memory_source;
mod parquet_file;
mod parquet_sink;
mod parquet_source;
mod partitions;
mod planned_ranges;
#[cfg(test)]
mod row_order_tests;
mod selection;
mod shards;
mod staged_folder;
mod staging;
mod storage;
mod stream_sink;
mod stream_source;
mod tape;
#[cfg(test)]
pub(crate) mod test_folder;
mod text_splits;
#[cfg(feature = "tfrecord")]
mod tfrecord_reader;
#[cfg(feature = "tfrecord")]
mod tfrecord_sink;
#[cfg(feature = "tfrecord")]
mod tfrecord_source;
#[cfg(feature = "tfrecord")]
mod tfrecord_types;
mod unharmed;

pub use avro_sink::{AvroSink, avro_sink};
pub use avro_source::{AvroSource, avro};
pub use collect::{CollectSink, Collected, collect};
pub use compression::FileCompression;
pub use csv_sink::{CsvSink, csv_sink};
pub use csv_source::{CsvSource, csv};
#[cfg(feature = "datafusion")]
pub use datafusion_source::{DataFusionSource, datafusion};
pub use ipc_sink::{IpcCompression, IpcSink, ipc_sink};
pub use ipc_source::{IpcSource, ipc};
pub use json_lines_sink::{JsonLinesSink, json_lines_sink};
pub use json_lines_source::{JsonLinesSource, json_lines};
pub use memory_source::{MemorySource, from_record_batches, from_rows};
pub use parquet_sink::{ParquetCompression, ParquetSink, parquet_sink};
pub use parquet_source::{ParquetSource, parquet};
pub use storage::Storage;
pub use stream_sink::{RowStream, StreamSink, into_stream};
pub use stream_source::{StreamSource, from_stream};
#[cfg(feature = "tfrecord")]
pub use tfrecord_sink::{TfRecordSink, tfrecord_sink};
#[cfg(feature = "tfrecord")]
pub use tfrecord_source::{TfRecordSource, tfrecord};

/// How many rows a split should hold: enough to be worth its opening, few enough for all workers to
/// have some. It must not depend on the number of workers, nor must anything that splits are made of.
const SPLIT_ROWS: u64 = 131_072;
