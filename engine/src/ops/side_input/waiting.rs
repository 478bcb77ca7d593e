//! Rows of the main input for which the side is not ready.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;

use crate::batch::Batch;
use crate::error::Result;

/// Rows that wait for the watermark of the side, in the order in which they become ready.
#[derive(Default)]
pub(super) struct Waiting {
    /// By what the next row of each needs, and by their number.
    lots: BTreeMap<(i64, u64), Lot>,
    /// The earliest event time of each lot, by its number.
    earliest: BTreeSet<(i64, u64)>,
    n_lots: u64,
    n_bytes: usize,
}

/// Rows of one batch, in the order of what they need.
struct Lot {
    batch: Batch,
    needs: Vec<i64>,
    /// The earliest event time from each row on; empty where rows have none.
    earliest: Vec<i64>,
    /// How many rows have left.
    n_left: usize,
}

impl Waiting {
    /// Adds rows with what each needs, and with their event times if they have any.
    ///
    /// They give their credit back: the side may come from the same source, which waits for it.
    pub(super) fn add(
        &mut self,
        batch: &Batch,
        needs: &[i64],
        times: Option<&[i64]>,
    ) -> Result<()> {
        if needs.is_empty() {
            return Ok(());
        }
        let mut order: Vec<u32> = (0u32..).take(needs.len()).collect();
        let is_ordered = needs.is_sorted();
        if !is_ordered {
            order.sort_by_key(|&row| needs[row as usize]);
        }
        let mut earliest = Vec::new();
        if let Some(times) = times {
            let mut least = i64::MAX;
            earliest = order
                .iter()
                .rev()
                .map(|&row| {
                    least = least.min(times[row as usize]);
                    least
                })
                .collect();
            earliest.reverse();
        }
        let needs = order.iter().map(|&row| needs[row as usize]).collect();
        // Most batches lie within one window, and need no copy.
        let rows = match is_ordered {
            true => batch.rows().clone(),
            false => take_record_batch(batch.rows(), &UInt32Array::from(order))?,
        };
        self.n_bytes += rows.get_array_memory_size();
        let batch = batch.derive(rows).with_permit(None);
        let number = self.n_lots;
        self.n_lots += 1;
        self.put(
            number,
            Lot {
                batch,
                needs,
                earliest,
                n_left: 0,
            },
        );
        Ok(())
    }

    fn put(&mut self, number: u64, lot: Lot) {
        if let Some(&earliest) = lot.earliest.get(lot.n_left) {
            self.earliest.insert((earliest, number));
        }
        self.lots.insert((lot.needs[lot.n_left], number), lot);
    }

    /// The next rows that need less than `watermark`.
    pub(super) fn take_ready(&mut self, watermark: i64) -> Option<Batch> {
        let (&(need, number), _) = self.lots.first_key_value()?;
        if need >= watermark {
            return None;
        }
        let mut lot = self.lots.remove(&(need, number))?;
        if let Some(&earliest) = lot.earliest.get(lot.n_left) {
            self.earliest.remove(&(earliest, number));
        }
        let from = lot.n_left;
        lot.n_left = lot.needs.partition_point(|need| *need < watermark);
        let ready = lot.batch.rows().slice(from, lot.n_left - from);
        let ready = lot.batch.derive(ready);
        if lot.n_left < lot.needs.len() {
            self.put(number, lot);
        } else {
            self.n_bytes -= lot.batch.rows().get_array_memory_size();
        }
        Some(ready)
    }

    /// What the row needs that is ready next.
    pub(super) fn earliest_need(&self) -> Option<i64> {
        self.lots.first_key_value().map(|((need, _), _)| *need)
    }

    /// The earliest event time among the rows.
    pub(super) fn earliest(&self) -> Option<i64> {
        self.earliest.first().map(|(time, _)| *time)
    }

    pub(super) fn n_bytes(&self) -> u64 {
        let needs = self
            .lots
            .values()
            .map(|lot| lot.needs.capacity() + lot.earliest.capacity());
        (self.n_bytes + needs.sum::<usize>() * size_of::<i64>()) as u64
    }

    /// The rows that wait, by the batches they came in.
    pub(super) fn rows(&self) -> impl Iterator<Item = RecordBatch> + '_ {
        self.lots.values().map(|lot| {
            let rows = lot.batch.rows();
            rows.slice(lot.n_left, rows.num_rows() - lot.n_left)
        })
    }
}
