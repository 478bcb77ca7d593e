//! The ports of joins in event time: results, and the late rows of each side as they came.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::ops::Side;
use crate::ops::key_columns::is_made;

/// The names of the ports.
pub(super) const PORTS: [&str; 3] = ["out", "late", "late_right"];

/// The port of the late rows of a side.
pub(super) fn late_port(side: Side) -> usize {
    match side {
        Side::Left => 1,
        Side::Right => 2,
    }
}

/// The rows of a side, without the key columns that were made for the join.
pub(super) fn as_they_came(batch: Batch) -> Result<Batch> {
    let schema = batch.rows().schema();
    let rows = batch.rows().project(&own_columns(&schema))?;
    Ok(batch.with_columns(rows))
}

fn own_columns(schema: &Schema) -> Vec<usize> {
    let fields = schema.fields().iter().enumerate();
    let own = fields.filter(|(_, f)| !is_made(f.name()));
    own.map(|(i, _)| i).collect()
}

/// The columns of late rows: those of their side.
pub(super) fn late_schema(port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
    let input = port.checked_sub(1).and_then(|input| inputs.get(input));
    match input {
        Some(input) => Ok(Arc::new(input.project(&own_columns(input))?)),
        None => Err(Error::bug(format!(
            "a join has no port {port} of late rows"
        ))),
    }
}
