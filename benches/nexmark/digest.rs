//! What a query has answered, as a number of rows and a sum of hashes that does not depend on their order.
//!
//! `benches/peers/nexmark_digest.py` computes the same.

use std::error::Error;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int8Type, Int64Type};
use arrow::record_batch::RecordBatch;
use mainstem::engine::event_time::{DIFF, EVENT_TIME};
use serde::{Deserialize, Serialize};

const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
const OF_NULL: u64 = 0xD1B5_4A32_D192_ED03;

/// Rows, and the sum of their hashes modulo 2^64.
///
/// The rows of a changelog count by their `diff`, so that what is left once all changes are done counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest {
    pub(crate) n_rows: i64,
    pub(crate) hash: u64,
}

impl Digest {
    /// Adds rows, and their hashes too where that is wanted.
    ///
    /// # Errors
    /// If a column is of another type than numbers, times and text.
    pub(crate) fn add(&mut self, rows: &RecordBatch, hashed: bool) -> Result<(), Box<dyn Error>> {
        let diffs = diffs(rows);
        self.n_rows += match &diffs {
            Some(diffs) => diffs.values().iter().map(|d| i64::from(*d)).sum(),
            None => rows.num_rows() as i64,
        };
        if !hashed {
            return Ok(());
        }
        let mut hashes = vec![0_u64; rows.num_rows()];
        for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
            // When a change has come is no part of the row.
            let is_own = diffs.is_some() && [DIFF, EVENT_TIME].contains(&field.name().as_str());
            if !is_own {
                mix(&mut hashes, column)?;
            }
        }
        let weight = |row: usize| diffs.as_ref().map_or(1, |d| i64::from(d.value(row)) as u64);
        for (row, hash) in hashes.into_iter().enumerate() {
            self.hash = self.hash.wrapping_add(hash.wrapping_mul(weight(row)));
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.n_rows += other.n_rows;
        self.hash = self.hash.wrapping_add(other.hash);
    }
}

fn diffs(rows: &RecordBatch) -> Option<&Int8Array> {
    rows.column_by_name(DIFF)?.as_primitive_opt::<Int8Type>()
}

/// Takes a column into the hashes of its rows.
fn mix(hashes: &mut [u64], column: &ArrayRef) -> Result<(), Box<dyn Error>> {
    let values: Vec<u64> = match column.data_type() {
        DataType::Float32 | DataType::Float64 => {
            let numbers = cast(column, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>().values();
            // Of both zeros one.
            numbers.iter().map(|x| (x + 0.0).to_bits()).collect()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => {
            let texts = cast(column, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>().iter();
            texts
                .map(|text| of_text(text.unwrap_or_default()))
                .collect()
        }
        _ => {
            let numbers = cast(column, &DataType::Int64)?;
            let numbers = numbers.as_primitive::<Int64Type>().values();
            numbers.iter().map(|n| *n as u64).collect()
        }
    };
    for (row, hash) in hashes.iter_mut().enumerate() {
        let value = if column.is_null(row) {
            OF_NULL
        } else {
            values[row]
        };
        let mixed = (*hash ^ value).wrapping_mul(FACTOR);
        *hash = mixed ^ (mixed >> 32);
    }
    Ok(())
}

/// Its bytes, each times its place.
fn of_text(text: &str) -> u64 {
    let weighed = |(place, byte): (usize, u8)| (place as u64 + 1) * u64::from(byte);
    text.bytes().enumerate().map(weighed).sum()
}
