//! The formats of which the laws of sources and sinks are looked at on stores, beside Parquet and CSV.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::connectors::{Storage, avro, avro_sink, ipc, ipc_sink, json_lines, json_lines_sink};
#[cfg(feature = "tfrecord")]
use crate::connectors::{tfrecord, tfrecord_sink};
use crate::sink::Sink;
use crate::source::Source;

/// A format by its name, a sink of it whose files have so many rows, and a source.
pub(super) struct Format {
    pub(super) name: &'static str,
    sink: fn(&Path, Storage, u64) -> Box<dyn Sink>,
    source: fn(&Path, Storage, SchemaRef) -> Box<dyn Source>,
}

impl Format {
    pub(super) fn sink(&self, place: &Path, storage: &Storage, n_rows: u64) -> Box<dyn Sink> {
        (self.sink)(place, storage.clone(), n_rows)
    }

    /// A source of rows of this schema, which some formats do not hold.
    pub(super) fn source(
        &self,
        place: &Path,
        storage: &Storage,
        schema: &SchemaRef,
    ) -> Box<dyn Source> {
        (self.source)(place, storage.clone(), Arc::clone(schema))
    }
}

pub(super) fn formats() -> Vec<Format> {
    vec![
        Format {
            name: "jsonl",
            sink: |place, storage, n| {
                Box::new(json_lines_sink(place).storage(storage).rows_per_file(n))
            },
            source: |place, storage, schema| {
                Box::new(json_lines(place).storage(storage).schema(schema))
            },
        },
        Format {
            name: "avro",
            sink: |place, storage, n| Box::new(avro_sink(place).storage(storage).rows_per_file(n)),
            source: |place, storage, _| Box::new(avro(place).storage(storage)),
        },
        Format {
            name: "ipc",
            sink: |place, storage, n| Box::new(ipc_sink(place).storage(storage).rows_per_file(n)),
            source: |place, storage, _| Box::new(ipc(place).storage(storage)),
        },
        #[cfg(feature = "tfrecord")]
        Format {
            name: "tfrecord",
            sink: |place, storage, n| {
                Box::new(tfrecord_sink(place).storage(storage).rows_per_file(n))
            },
            source: |place, storage, schema| {
                Box::new(tfrecord(place).storage(storage).schema(schema))
            },
        },
    ]
}
