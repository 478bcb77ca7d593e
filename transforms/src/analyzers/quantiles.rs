//! Learns the boundaries that cut a column into buckets of equal numbers of rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use arrow::array::{AsArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use mainstem_engine::{Analyzer, Error, Result};
use serde::{Deserialize, Serialize};

use super::moments::values;
use super::{foreign_save, no_values, table_bytes};

/// How many distinct values are counted one by one; past it neighbours share a count.
const MAX_DISTINCT: usize = 65_536;

/// Learns the `n_buckets - 1` boundaries between buckets of equal numbers of rows.
///
/// Boundary `k` is the value at place `k * n / n_buckets` of the `n` sorted values, from 0; equal
/// boundaries are given once. Null and NaN are left out.
///
/// While at most 65,536 distinct values are seen the boundaries are exact. Past it, values are
/// rounded down to as many leading bits as leave at most 65,536 distinct ones: a histogram whose
/// buckets are relative in width, as in DDSketch (Masson, Rim and Lee, 2019), with a width that
/// follows the data. That is a function of the rows as a set, which no random sketch is. For a normal
/// distribution some ten bits remain, and a boundary is off by a tenth of a percent of its own value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    n_buckets: usize,
}

/// What [`Quantiles`] learns: finite numbers that ascend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boundaries(pub Vec<f64>);

/// What [`Quantiles`] has seen: how often each value occurs, rounded down by `dropped_bits`.
#[derive(Clone, Debug, Default)]
pub struct ValuesSeen {
    counts: AHashMap<u64, u64>,
    dropped_bits: u32,
}

impl Quantiles {
    /// The boundaries of `n_buckets` buckets.
    pub fn new(n_buckets: usize) -> Self {
        Self { n_buckets }
    }
}

impl Analyzer for Quantiles {
    type Accumulator = ValuesSeen;
    type Output = Boundaries;

    fn create_accumulator(&self) -> ValuesSeen {
        ValuesSeen::default()
    }

    fn add(&self, seen: &mut ValuesSeen, rows: &RecordBatch) -> Result<()> {
        for x in values(rows)? {
            seen.add(ordered(x), 1);
        }
        Ok(())
    }

    fn merge(&self, seen: &mut ValuesSeen, mut other: ValuesSeen) -> Result<()> {
        other.round_to(seen.dropped_bits);
        seen.round_to(other.dropped_bits);
        for (key, n) in other.counts {
            seen.add(key, n);
        }
        Ok(())
    }

    fn retract(&self, seen: &mut ValuesSeen, rows: &RecordBatch) -> Result<()> {
        if seen.dropped_bits > 0 {
            return Err(Error::pipeline(format!(
                "quantiles cannot take rows out again after more than {MAX_DISTINCT} distinct values"
            ))
            .with_hint("Fit anew on the rows that are left."));
        }
        for x in values(rows)? {
            match seen.counts.get_mut(&ordered(x)) {
                Some(n) if *n > 1 => *n -= 1,
                Some(_) => {
                    seen.counts.remove(&ordered(x));
                }
                None => return Err(Error::data("more rows were taken out than there were")),
            }
        }
        Ok(())
    }

    fn finish(&self, seen: ValuesSeen) -> Result<Boundaries> {
        let n: u64 = seen.counts.values().sum();
        if n == 0 {
            return Err(no_values());
        }
        let sorted: BTreeMap<u64, u64> = seen.counts.into_iter().collect();
        let mut boundaries = Vec::with_capacity(self.n_buckets.saturating_sub(1));
        let mut sorted = sorted.into_iter();
        let (mut value, mut below) = (0, 0);
        for k in 1..self.n_buckets {
            let place = (u128::from(n) * k as u128 / self.n_buckets as u128) as u64;
            while below <= place {
                let Some((next, count)) = sorted.next() else {
                    break;
                };
                (value, below) = (next, below + count);
            }
            let boundary = from_ordered(value);
            // Nothing lies beyond an infinite boundary but infinities, which share a bucket then.
            if boundary.is_finite() && boundaries.last() != Some(&boundary) {
                boundaries.push(boundary);
            }
        }
        Ok(Boundaries(boundaries))
    }

    fn accumulator_bytes(&self, seen: &ValuesSeen) -> u64 {
        table_bytes::<(u64, u64)>(seen.counts.capacity())
    }

    fn artifact_bytes(&self, Boundaries(boundaries): &Boundaries) -> u64 {
        (boundaries.capacity() * size_of::<f64>()) as u64
    }

    fn save(&self, seen: &ValuesSeen) -> Result<RecordBatch> {
        let fields = vec![
            Field::new("value", DataType::UInt64, false),
            Field::new("count", DataType::UInt64, false),
            Field::new("dropped_bits", DataType::UInt32, false),
        ];
        let sorted: BTreeMap<u64, u64> = seen.counts.iter().map(|(k, n)| (*k, *n)).collect();
        Ok(RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            vec![
                Arc::new(UInt64Array::from_iter_values(sorted.keys().copied())),
                Arc::new(UInt64Array::from_iter_values(sorted.values().copied())),
                Arc::new(UInt32Array::from(vec![seen.dropped_bits; sorted.len()])),
            ],
        )?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<ValuesSeen> {
        let numbers = |name: &str| saved.column_by_name(name)?.as_primitive_opt::<UInt64Type>();
        let bits = saved
            .column_by_name("dropped_bits")
            .and_then(|c| c.as_primitive_opt::<UInt32Type>());
        let (Some(keys), Some(counts), Some(bits)) = (numbers("value"), numbers("count"), bits)
        else {
            return Err(foreign_save("quantiles"));
        };
        Ok(ValuesSeen {
            counts: keys
                .values()
                .iter()
                .copied()
                .zip(counts.values().iter().copied())
                .collect(),
            dropped_bits: if bits.is_empty() { 0 } else { bits.value(0) },
        })
    }
}

impl ValuesSeen {
    fn add(&mut self, key: u64, n: u64) {
        *self
            .counts
            .entry(round(key, self.dropped_bits))
            .or_default() += n;
        if self.counts.len() > MAX_DISTINCT {
            self.make_room();
        }
    }

    /// Drops one bit after the other until few enough values are distinct.
    fn make_room(&mut self) {
        let mut keys: Vec<u64> = self.counts.keys().copied().collect();
        keys.sort_unstable();
        let mut bits = self.dropped_bits;
        while keys.len() > MAX_DISTINCT {
            bits += 1;
            keys.iter_mut().for_each(|k| *k = round(*k, bits));
            keys.dedup();
        }
        self.round_to(bits);
    }

    fn round_to(&mut self, bits: u32) {
        if bits <= self.dropped_bits {
            return;
        }
        self.dropped_bits = bits;
        let mut rounded = AHashMap::with_capacity(self.counts.len());
        for (key, n) in self.counts.drain() {
            *rounded.entry(round(key, bits)).or_default() += n;
        }
        self.counts = rounded;
    }
}

fn round(key: u64, bits: u32) -> u64 {
    key >> bits << bits
}

/// A number that orders as the float does; -0.0 counts as 0.0.
fn ordered(x: f64) -> u64 {
    let bits = (x + 0.0).to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | (1 << 63)
    }
}

fn from_ordered(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 {
        key & !(1 << 63)
    } else {
        !key
    })
}

crate::column_analyzer!(Quantiles, "quantiles");
