//! Rows that wait until event time has passed them.
//!
//! ```text
//! add ─▶ run │ run │ run      each sorted by time, in the order in which they came
//! take_before(w) ◀─ the first part of each run, as one batch sorted by time
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::{ArrayRef, AsArray, Int64Array, PrimitiveArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

use crate::batch::{BATCH_ROWS, Batch};
use crate::error::{Error, Result};
use crate::event_time::{EVENT_TIME, event_times};
use crate::state::StatePart;
use crate::transform::Watermark;

/// So many changes are taken in before those behind get to see what follows from them.
const LOT_ROWS: usize = 8 * BATCH_ROWS;

/// The table of state that holds changes that wait.
const WAITING: &str = "waiting";
/// The table of state that holds the watermark.
const WATERMARK: &str = "watermark";

/// Where there are more runs, the last are made one.
const MAX_RUNS: usize = 64;

/// Rows by their event time; rows of one time in the order in which they came.
#[derive(Default)]
pub(in crate::ops) struct RowsByTime {
    runs: VecDeque<RecordBatch>,
    n_bytes: usize,
}

impl RowsByTime {
    /// Keeps rows. Those from before `now` wait as if they were from then.
    pub(in crate::ops) fn add(&mut self, rows: RecordBatch, now: i64) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let rows = not_before(rows, now)?;
        self.push(sorted(rows)?);
        match self.runs.len() > MAX_RUNS {
            true => self.merge_last(),
            false => Ok(()),
        }
    }

    /// Makes the last runs one, with those before that are not much larger, so that each row is merged few times.
    fn merge_last(&mut self) -> Result<()> {
        let (mut n_rows, mut start) = (0, self.runs.len());
        while start > 0
            && (self.runs.len() - start < MAX_RUNS / 2
                || self.runs[start - 1].num_rows() <= 2 * n_rows)
        {
            start -= 1;
            n_rows += self.runs[start].num_rows();
        }
        let last: Vec<RecordBatch> = self.runs.drain(start..).collect();
        self.n_bytes = self
            .runs
            .iter()
            .map(RecordBatch::get_array_memory_size)
            .sum();
        if let Some(first) = last.first() {
            let all = concat_batches(&first.schema(), &last)?;
            self.push(sorted(all)?);
        }
        Ok(())
    }

    fn push(&mut self, run: RecordBatch) {
        self.n_bytes += run.get_array_memory_size();
        self.runs.push_back(run);
    }

    /// Takes the rows from before `time`, sorted by time; `None` where there are none.
    pub(in crate::ops) fn take_before(&mut self, time: i64) -> Result<Option<RecordBatch>> {
        let mut taken = Vec::new();
        let mut left = VecDeque::with_capacity(self.runs.len());
        for run in std::mem::take(&mut self.runs) {
            let n = event_times(&run)?.partition_point(|t| *t < time);
            if n > 0 {
                taken.push(run.slice(0, n));
            }
            if n < run.num_rows() {
                left.push_back(run.slice(n, run.num_rows() - n));
            }
        }
        self.runs = left;
        let share = |run: &RecordBatch| run.get_array_memory_size();
        self.n_bytes = self.runs.iter().map(share).sum();
        match taken.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => Ok(Some(sorted(concat_batches(
                &several[0].schema(),
                several,
            )?)?)),
        }
    }

    /// All rows, which stay.
    pub(in crate::ops) fn rows(&self) -> impl Iterator<Item = &RecordBatch> {
        self.runs.iter()
    }

    /// How many bytes of memory they take, about.
    pub(in crate::ops) fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

/// Changes that wait for the watermark, and then leave lot by lot, each of whole instants.
pub(in crate::ops) struct Instants {
    waiting: RowsByTime,
    due: VecDeque<RecordBatch>,
    watermark: i64,
}

impl Default for Instants {
    fn default() -> Self {
        Self {
            waiting: RowsByTime::default(),
            due: VecDeque::new(),
            watermark: i64::MIN,
        }
    }
}

impl Instants {
    /// Keeps changes that have a time; what comes late takes effect at the watermark under which it was sent.
    pub(in crate::ops) fn add(&mut self, batch: &Batch) -> Result<()> {
        let now = self.watermark.max(batch.watermark().0);
        self.waiting.add(batch.rows().clone(), now)
    }

    /// Makes those due that the watermark has passed, or that which was heard of before a restart.
    pub(in crate::ops) fn pass(&mut self, watermark: Watermark) -> Result<()> {
        self.watermark = self.watermark.max(watermark.0);
        if let Some(rows) = self.waiting.take_before(self.watermark)? {
            self.due = lots(&rows)?;
        }
        Ok(())
    }

    /// Makes changes due at once.
    pub(in crate::ops) fn add_due(&mut self, rows: RecordBatch) {
        self.due.push_back(rows);
    }

    /// The next lot of those that are due.
    pub(in crate::ops) fn next(&mut self) -> Option<RecordBatch> {
        self.due.pop_front()
    }

    /// True if more are due.
    pub(in crate::ops) fn has_more(&self) -> bool {
        !self.due.is_empty()
    }

    /// True once no change will come any more.
    pub(in crate::ops) fn is_over(&self) -> bool {
        Watermark(self.watermark).is_end()
    }

    /// The watermark that has been passed.
    pub(in crate::ops) fn watermark(&self) -> i64 {
        self.watermark
    }

    pub(in crate::ops) fn n_bytes(&self) -> usize {
        self.waiting.n_bytes()
    }

    /// The changes that wait, by these columns, and the watermark.
    pub(in crate::ops) fn parts(&self, keys: &[String]) -> Result<Vec<StatePart>> {
        let mut parts = vec![watermark_part(self.watermark)?];
        for rows in self.waiting.rows() {
            parts.extend(StatePart::by_key(WAITING, rows, keys)?);
        }
        Ok(parts)
    }

    pub(in crate::ops) fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        for part in state.iter().filter(|part| part.table == WAITING) {
            self.waiting.add(part.rows.clone(), i64::MIN)?;
        }
        // The latest: who had heard of it has given the changes up to then, and forgotten what was over.
        self.watermark = told_of(state).max().unwrap_or(self.watermark);
        Ok(())
    }
}

/// The rows of one group and one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ops) struct Run {
    pub(in crate::ops) group: usize,
    pub(in crate::ops) rows: Range<usize>,
}

/// The rows with those of one group and one instant next to each other, and where each such run is.
pub(in crate::ops) fn in_runs(
    rows: &RecordBatch,
    groups: &[usize],
    has_time: bool,
) -> Result<(RecordBatch, Vec<Run>)> {
    let times = match has_time {
        true => event_times(rows)?,
        false => &[],
    };
    let time = |row: usize| times.get(row).copied().unwrap_or_default();
    let mut order: Vec<(i64, usize, usize)> = groups
        .iter()
        .enumerate()
        .map(|(row, group)| (time(row), *group, row))
        .collect();
    let is_sorted = order.is_sorted();
    if !is_sorted {
        order.sort_unstable();
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut last = None;
    for (place, (time, group, _)) in order.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if last == Some((*time, *group)) => run.rows.end = place + 1,
            _ => runs.push(Run {
                group: *group,
                rows: place..place + 1,
            }),
        }
        last = Some((*time, *group));
    }
    if is_sorted {
        return Ok((rows.clone(), runs));
    }
    let order: Result<Vec<u32>, _> = order
        .iter()
        .map(|(_, _, row)| u32::try_from(*row))
        .collect();
    let order = order.map_err(|_| Error::data("more than 4 billion changes of one instant"))?;
    Ok((take_record_batch(rows, &UInt32Array::from(order))?, runs))
}

/// Rows sorted by time in lots, none of which ends inside of an instant.
pub(in crate::ops) fn lots(rows: &RecordBatch) -> Result<VecDeque<RecordBatch>> {
    let times = event_times(rows)?;
    let mut lots = VecDeque::new();
    let mut start = 0;
    while start < times.len() {
        let wanted = (start + LOT_ROWS).min(times.len());
        let last = times[wanted - 1];
        let end = start + times[start..].partition_point(|t| *t <= last);
        lots.push_back(rows.slice(start, end - start));
        start = end;
    }
    Ok(lots)
}

/// The rows sorted by time; those of one time keep their order.
fn sorted(rows: RecordBatch) -> Result<RecordBatch> {
    let times = event_times(&rows)?;
    if times.is_sorted() {
        return Ok(rows);
    }
    let n_rows = u32::try_from(rows.num_rows())
        .map_err(|_| Error::data("more than 4 billion changes wait for the watermark"))?;
    let mut order: Vec<(i64, u32)> = times.iter().copied().zip(0..n_rows).collect();
    order.sort_unstable();
    let order = UInt32Array::from_iter_values(order.into_iter().map(|(_, row)| row));
    Ok(take_record_batch(&rows, &order)?)
}

/// The rows, none of them from before `now`.
pub(in crate::ops) fn not_before(rows: RecordBatch, now: i64) -> Result<RecordBatch> {
    if event_times(&rows)?.iter().all(|t| *t >= now) {
        return Ok(rows);
    }
    let schema: SchemaRef = rows.schema();
    let at = schema.index_of(EVENT_TIME)?;
    let times: PrimitiveArray<TimestampMillisecondType> = event_times(&rows)?
        .iter()
        .map(|t| Some((*t).max(now)))
        .collect();
    let mut columns = rows.columns().to_vec();
    columns[at] = Arc::new(times.slice(0, rows.num_rows()));
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The watermark that an operator has heard of, as a part of its state.
pub(crate) fn watermark_part(watermark: i64) -> Result<StatePart> {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![watermark]));
    let rows = RecordBatch::try_from_iter([(WATERMARK, column)])?;
    Ok(StatePart::of_worker(WATERMARK, rows))
}

/// The least of the watermarks that operators had heard of; `None` where the state says nothing of it.
pub(crate) fn watermark_of(state: &[StatePart]) -> Option<i64> {
    told_of(state).min()
}

fn told_of(state: &[StatePart]) -> impl Iterator<Item = i64> {
    let parts = state.iter().filter(|part| part.table == WATERMARK);
    let columns = parts.filter_map(|p| p.rows.column(0).as_primitive_opt::<Int64Type>());
    columns.flat_map(|c| c.values()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{changelog, show};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    /// One had given the changes up to 10; what the other had still to give leaves next, and what comes late, from
    /// whoever has not heard of it, after that.
    #[test]
    fn after_a_restart_the_latest_watermark_counts_that_one_of_several_had_heard_of() {
        let keys = ["n".to_owned()];
        let mut parts = Vec::new();
        for (watermark, rows) in [(10, "n: 2; event_time: 12"), (5, "n: 1; event_time: 7")] {
            let mut instants = Instants::default();
            instants.add(&Batch::new(changelog(rows))).unwrap();
            instants.pass(Watermark(watermark)).unwrap();
            parts.extend(instants.parts(&keys).unwrap());
        }
        let mut both = Instants::default();
        both.restore(&parts).unwrap();
        let mut left = Vec::new();
        let late = changelog("n: 3; event_time: 4");
        both.add(&Batch::new(late).under(Watermark(3))).unwrap();
        for watermark in [6, 11, 13] {
            both.pass(Watermark(watermark)).unwrap();
            while let Some(rows) = both.next() {
                left.push(format!("{watermark}: {}", show(&rows).replace('\n', ", ")));
            }
        }
        assert_eq!(
            left,
            [
                "6: n: 1, event_time: 7",
                "11: n: 3, event_time: 10",
                "13: n: 2, event_time: 12"
            ]
        );
    }

    proptest! {
        #[test]
        fn rows_leave_by_time_and_those_of_one_time_in_the_order_in_which_they_came(
            batches in prop::collection::vec(prop::collection::vec(0i64..20, 1..4), 1..200),
            every in 1usize..150,
        ) {
            let mut waiting = RowsByTime::default();
            let mut expected: Vec<(i64, i64)> = Vec::new();
            let (mut n, mut watermark) = (0, 0);
            let mut left: Vec<(i64, i64)> = Vec::new();
            for (number, times) in batches.iter().enumerate() {
                let rows: Vec<(i64, i64)> = times.iter().map(|t| { n += 1; (*t, n) }).collect();
                let column = |of: fn(&(i64, i64)) -> i64| {
                    rows.iter().map(|r| of(r).to_string()).collect::<Vec<_>>().join(", ")
                };
                let (n, time) = (column(|r| r.1), column(|r| r.0));
                let text = format!("n: {n}; event_time: {time}");
                waiting.add(changelog(&text), watermark).unwrap();
                expected.extend(rows.iter().map(|(t, n)| ((*t).max(watermark), *n)));
                let is_last = number + 1 == batches.len();
                if number % every == 0 || is_last {
                    watermark = if is_last { i64::MAX } else { (watermark + 3).min(20) };
                    if let Some(rows) = waiting.take_before(watermark).unwrap() {
                        let n = rows["n"].as_primitive::<Int64Type>().values();
                        left.extend(event_times(&rows).unwrap().iter().copied().zip(n.iter().copied()));
                    }
                }
            }
            expected.sort_unstable();
            prop_assert_eq!(left, expected);
        }
    }
}
