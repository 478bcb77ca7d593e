//! Instants of 96 bits, the old kind of timestamp that Impala, Hive and Spark write.
//!
//! They are a day and the nanoseconds in it, so they may lie outside of the years 1677 to 2262 that 64 bits of
//! nanoseconds can say, and often do: 0001-01-01 and 9999-12-31 stand for "never" and "for ever". The library lets such
//! a value wrap around, to another year. Microseconds, which Spark writes and DuckDB reads, hold all of them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::Type;

/// The types of the columns, with instants of 96 bits as microseconds, in columns of structs and lists too.
///
/// A file that was written from Arrow says of which unit they were: that is kept, as no value can lie outside of it.
pub(super) fn types_without_loss(footer: &ArrowReaderMetadata) -> Vec<DataType> {
    let stored = footer.schema().fields().iter();
    let metadata = footer.metadata().file_metadata();
    let leaves = metadata.schema_descr().columns();
    let is_from_arrow = metadata
        .key_value_metadata()
        .is_some_and(|pairs| pairs.iter().any(|pair| pair.key == ARROW_SCHEMA_META_KEY));
    let has_some = leaves.iter().any(|c| c.physical_type() == Type::INT96);
    if is_from_arrow || !has_some {
        return stored.map(|field| field.data_type().clone()).collect();
    }
    let mut leaves = leaves.iter().map(|column| column.physical_type());
    stored
        .map(|field| without_loss(field.data_type(), &mut leaves))
        .collect()
}

/// The type of a column that is made of the next of the leaves.
fn without_loss(data_type: &DataType, leaves: &mut impl Iterator<Item = Type>) -> DataType {
    let mut inner = |field: &Arc<Field>| {
        let data_type = without_loss(field.data_type(), leaves);
        Arc::new(field.as_ref().clone().with_data_type(data_type))
    };
    match data_type {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::List(field) => DataType::List(inner(field)),
        DataType::LargeList(field) => DataType::LargeList(inner(field)),
        DataType::Map(field, sorted) => DataType::Map(inner(field), *sorted),
        leaf => match (leaves.next(), leaf) {
            (Some(Type::INT96), DataType::Timestamp(_, zone)) => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            _ => leaf.clone(),
        },
    }
}
