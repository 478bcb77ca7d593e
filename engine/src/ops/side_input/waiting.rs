//! Rows of the main input for which the side is not ready.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;

use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::extent;

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
    /// Rows that need the same, one run after the other.
    runs: Vec<Run>,
    /// How many runs have left.
    n_left: usize,
}

struct Run {
    need: i64,
    /// Where the run ends among the rows of the batch.
    end: usize,
    /// The earliest event time from this run on; `None` where rows have none.
    earliest: Option<i64>,
}

impl Lot {
    /// Where the rows begin that have not left.
    fn first_row(&self) -> usize {
        let before = self.n_left.checked_sub(1);
        before.map_or(0, |run| self.runs[run].end)
    }
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
        // Most batches lie within one window, and need no copy.
        let (rows, runs) = match needs.is_sorted() {
            true => (batch.rows().clone(), runs(needs, times)),
            false => {
                let mut order: Vec<u32> = (0u32..).take(needs.len()).collect();
                order.sort_by_key(|&row| needs[row as usize]);
                let ordered = |values: &[i64]| -> Vec<i64> {
                    order.iter().map(|&row| values[row as usize]).collect()
                };
                let (needs, times) = (ordered(needs), times.map(ordered));
                let runs = runs(&needs, times.as_deref());
                let order = UInt32Array::from(order);
                (take_record_batch(batch.rows(), &order)?, runs)
            }
        };
        if runs.is_empty() {
            return Ok(());
        }
        self.n_bytes += rows.get_array_memory_size();
        let batch = batch.derive(rows).with_permit(None);
        let number = self.n_lots;
        self.n_lots += 1;
        let n_left = 0;
        self.put(
            number,
            Lot {
                batch,
                runs,
                n_left,
            },
        );
        Ok(())
    }

    fn put(&mut self, number: u64, lot: Lot) {
        let next = &lot.runs[lot.n_left];
        if let Some(earliest) = next.earliest {
            self.earliest.insert((earliest, number));
        }
        self.lots.insert((next.need, number), lot);
    }

    /// The next rows that need less than `watermark`.
    pub(super) fn take_ready(&mut self, watermark: i64) -> Option<Batch> {
        let (&(need, number), _) = self.lots.first_key_value()?;
        if need >= watermark {
            return None;
        }
        let mut lot = self.lots.remove(&(need, number))?;
        if let Some(earliest) = lot.runs[lot.n_left].earliest {
            self.earliest.remove(&(earliest, number));
        }
        let from = lot.first_row();
        lot.n_left = lot.runs.partition_point(|run| run.need < watermark);
        let ready = lot.batch.rows().slice(from, lot.first_row() - from);
        let ready = lot.batch.derive(ready);
        if lot.n_left < lot.runs.len() {
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
        let runs = self.lots.values().map(|lot| lot.runs.capacity());
        (self.n_bytes + runs.sum::<usize>() * size_of::<Run>()) as u64
    }

    /// The rows that wait, by the batches they came in.
    pub(super) fn rows(&self) -> impl Iterator<Item = RecordBatch> + '_ {
        self.lots.values().map(|lot| {
            let (rows, from) = (lot.batch.rows(), lot.first_row());
            rows.slice(from, rows.num_rows() - from)
        })
    }
}

/// Runs of equal needs, which stand in order.
fn runs(needs: &[i64], times: Option<&[i64]>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut from = 0;
    for alike in needs.chunk_by(|a, b| a == b) {
        let end = from + alike.len();
        runs.push(Run {
            need: alike[0],
            end,
            earliest: times
                .and_then(|times| extent(&times[from..end]))
                .map(|(earliest, _)| earliest),
        });
        from = end;
    }
    let mut least = None;
    for run in runs.iter_mut().rev() {
        least = run.earliest.into_iter().chain(least).min();
        run.earliest = least;
    }
    runs
}
