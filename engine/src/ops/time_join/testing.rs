//! Drives joins in tests: rows and watermarks in any order, on several workers, with restarts.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::{EVENT_TIME, event_times, time_field, time_type};
use crate::ops::LOT_BYTES;
use crate::output::{OnBadRow, Output};
use crate::runner::key_groups;
use crate::state::{StatePart, worker_of};
use crate::testing::{show, table};
use crate::transform::{Distribution, Operator, Transform, Watermark};

/// Rows from text, in which the column `t` is the event time in milliseconds.
pub(super) fn events(text: &str) -> RecordBatch {
    let rows = table(text);
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    let t = rows.schema().index_of("t").unwrap();
    fields[t] = time_field(EVENT_TIME);
    columns[t] = cast(&cast(&columns[t], &DataType::Int64).unwrap(), &time_type()).unwrap();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The rows as text, with instants as milliseconds.
pub(super) fn shown(rows: &RecordBatch) -> String {
    show(&plain(rows))
}

fn plain(rows: &RecordBatch) -> RecordBatch {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let (fields, columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = columns
        .map(|(field, column)| match field.data_type() {
            DataType::Timestamp(..) => {
                let column = cast(column, &DataType::Int64).unwrap();
                let field = field.as_ref().clone().with_data_type(DataType::Int64);
                (Arc::new(field), column)
            }
            _ => (Arc::clone(field), Arc::clone(column)),
        })
        .unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The rows as text, a line each, in order of the text.
pub(super) fn lines(rows: &RecordBatch) -> Vec<String> {
    if rows.num_rows() == 0 {
        return Vec::new();
    }
    let rows = plain(rows);
    let options = FormatOptions::default().with_null("null");
    let cells: Vec<ArrayFormatter<'_>> = rows
        .columns()
        .iter()
        .map(|c| ArrayFormatter::try_new(c, &options).unwrap())
        .collect();
    let line = |row| {
        let cells = cells.iter().map(|c| c.value(row).to_string());
        cells.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

/// What happens to a join.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Left(RecordBatch),
    Right(RecordBatch),
    Watermark(i64),
    /// Only the first worker hears of a watermark; a restart is to follow.
    WatermarkOfFirst(i64),
    /// Stopped, and restored from its snapshot on so many workers.
    Restart(usize),
}

/// What has left a join.
pub(super) struct Left {
    pub(super) rows: RecordBatch,
    pub(super) late: Vec<RecordBatch>,
    pub(super) n_late: u64,
    pub(super) n_filtered: u64,
}

/// A join on some workers.
struct Workers<'a> {
    transform: &'a dyn Transform,
    operators: Vec<Box<dyn Operator>>,
    watermark: i64,
    out: Output,
    rows: Vec<RecordBatch>,
    late: Vec<RecordBatch>,
}

impl Workers<'_> {
    fn keys(&self, side: usize) -> Vec<String> {
        match self.transform.properties().distribution_of(side) {
            Distribution::ByKey(keys) => keys.clone(),
            other => panic!("dealt by {other:?}"),
        }
    }

    fn take_in(&mut self, side: usize, rows: &RecordBatch) -> Result<()> {
        let groups = key_groups(rows, &self.keys(side))?;
        let n_workers = self.operators.len();
        for worker in 0..n_workers {
            let numbered = (0u32..).zip(&groups);
            let of_worker = numbered.filter(|(_, g)| worker_of(**g, n_workers) == worker);
            let numbers: UInt32Array = of_worker.map(|(row, _)| Some(row)).collect();
            let part = take_record_batch(rows, &numbers)?;
            if part.num_rows() > 0 {
                self.operators[worker].on_batch(side, Batch::new(part), &mut self.out)?;
                self.go_on(worker)?;
            }
        }
        Ok(())
    }

    fn go_on(&mut self, worker: usize) -> Result<()> {
        while self.out.take_more() {
            self.operators[worker].resume(&mut self.out)?;
        }
        for (port, batch) in self.out.take() {
            let rows = batch.rows().clone();
            match port {
                0 => self.rows.push(rows),
                _ => self.late.push(rows),
            }
        }
        Ok(())
    }

    fn watermark(&mut self, to: i64) -> Result<()> {
        for worker in 0..self.operators.len() {
            // Whatever leaves now and later must not be earlier than what was promised.
            let promised = self.operators[worker].output_watermark(Watermark(self.watermark));
            let n_before = self.rows.len();
            self.operators[worker].on_watermark(Watermark(to), &mut self.out)?;
            self.go_on(worker)?;
            for rows in &self.rows[n_before..] {
                let earliest = event_times(rows)?.iter().min();
                assert!(
                    earliest.is_none_or(|t| *t >= promised.0),
                    "behind {promised:?}"
                );
            }
        }
        self.watermark = to;
        Ok(())
    }

    fn restart(&mut self, n_workers: usize) -> Result<()> {
        let mut parts: Vec<StatePart> = Vec::new();
        for operator in &mut self.operators {
            parts.extend(operator.snapshot()?);
        }
        self.operators = build(self.transform, n_workers)?;
        let dealt = StatePart::deal(&parts, n_workers);
        for (operator, parts) in self.operators.iter_mut().zip(&dealt) {
            operator.restore(parts)?;
        }
        Ok(())
    }
}

fn build(transform: &dyn Transform, n_workers: usize) -> Result<Vec<Box<dyn Operator>>> {
    let operators = (0..n_workers).map(|_| transform.build(&Artifacts::none()));
    operators.collect()
}

/// What leaves `transform` in these steps, the end of input after them.
pub(super) fn run(transform: &dyn Transform, n_workers: usize, steps: &[Step]) -> Result<Left> {
    let mut workers = Workers {
        transform,
        operators: build(transform, n_workers)?,
        watermark: i64::MIN,
        out: Output::new(OnBadRow::Fail),
        rows: Vec::new(),
        late: Vec::new(),
    };
    for step in steps.iter().chain([&Step::Watermark(i64::MAX)]) {
        match step {
            Step::Left(rows) => workers.take_in(0, rows)?,
            Step::Right(rows) => workers.take_in(1, rows)?,
            Step::Watermark(to) => workers.watermark(*to)?,
            Step::WatermarkOfFirst(to) => {
                workers.operators[0].on_watermark(Watermark(*to), &mut workers.out)?;
                workers.go_on(0)?;
            }
            Step::Restart(n) => workers.restart(*n)?,
        }
    }
    let n_late = workers.out.take_late();
    let (n_filtered, _) = workers.out.take_counts();
    let schema = match workers.rows.first() {
        Some(rows) => rows.schema(),
        None => Arc::new(Schema::empty()),
    };
    Ok(Left {
        rows: concat_batches(&schema, &workers.rows)?,
        late: workers.late,
        n_late,
        n_filtered,
    })
}

/// Wide rows, of which some match each other and many match none, leave in lots that are not much larger than one,
/// and so they are saved: however many rows would fit.
pub(super) fn check_lots_of_wide_rows(transform: &dyn Transform) {
    const N_BYTES: usize = 1 << 16;
    let wide = |keys: Vec<i64>, number: &str, place: &str| {
        let n = keys.len();
        let texts = StringArray::from_iter_values(std::iter::repeat_n("x".repeat(N_BYTES), n));
        let times = Int64Array::from(vec![5; n]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("k", Arc::new(Int64Array::from(keys))),
            (EVENT_TIME, cast(&times, &time_type()).unwrap()),
            (number, Arc::new(texts)),
            (place, Arc::new(Int64Array::from_iter_values(0..n as i64))),
        ];
        let columns = columns
            .into_iter()
            .map(|(name, column)| (name, column, true));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    };
    let left = wide([vec![1; 40], vec![2; 1_100]].concat(), "a", "i");
    let right = wide(vec![1; 30], "b", "j");
    let mut out = Output::new(OnBadRow::Fail);
    let mut operator = transform.build(&Artifacts::none()).unwrap();
    let (mut n_rows, mut n_lots) = (0, 0);
    let mut leave = |operator: &mut Box<dyn Operator>, out: &mut Output| loop {
        for (_, batch) in out.take() {
            n_rows += batch.n_rows();
            n_lots += 1;
            let most = LOT_BYTES + 4 * N_BYTES as u64;
            assert!(batch.n_bytes() <= most, "{} bytes", batch.n_bytes());
        }
        if !out.take_more() {
            return;
        }
        operator.resume(out).unwrap();
    };
    operator.on_batch(0, Batch::new(left), &mut out).unwrap();
    leave(&mut operator, &mut out);
    operator.on_batch(1, Batch::new(right), &mut out).unwrap();
    leave(&mut operator, &mut out);
    let saved = operator.snapshot().unwrap();
    for part in &saved {
        let n_bytes = part.rows.get_array_memory_size() as u64;
        assert!(n_bytes <= 2 * LOT_BYTES, "{n_bytes} bytes are saved");
    }
    operator = build(transform, 1).unwrap().remove(0);
    operator.restore(&saved).unwrap();
    operator.on_watermark(Watermark::END, &mut out).unwrap();
    leave(&mut operator, &mut out);
    assert_eq!(n_rows, 40 * 30 + 1_100);
    assert!(n_lots > 3, "{n_lots} lots");
}

/// A row of a random history: side, key, event time, and numbers.
pub(super) type Row = (bool, Option<i64>, i64, i64, i64);

pub(super) fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        any::<bool>(),
        prop::option::weighted(0.9, 0i64..4),
        0i64..40,
        0i64..12,
        0i64..1000,
    );
    prop::collection::vec(row, 0..60)
}

/// Decides how a history is cut into steps.
pub(super) fn cuts() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((any::<u8>(), any::<u8>()), 1..40)
}

/// The rows of one side as a batch: `k`, event time, a number and the place in the history.
pub(super) fn batch_of(rows: &[(usize, Row)], is_left: bool) -> RecordBatch {
    let of_side: Vec<&(usize, Row)> = rows.iter().filter(|(_, r)| r.0 == is_left).collect();
    let column = |of: fn(&(usize, Row)) -> Option<i64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(of_side.iter().map(|row| of(row))))
    };
    let times = column(|(_, r)| Some(r.2));
    let number = if is_left { "a" } else { "b" };
    let place = if is_left { "i" } else { "j" };
    let fields = vec![
        Arc::new(Field::new("k", DataType::Int64, true)),
        time_field(EVENT_TIME),
        Arc::new(Field::new(number, DataType::Int64, true)),
        Arc::new(Field::new(place, DataType::Int64, true)),
    ];
    let columns = vec![
        column(|(_, r)| r.1),
        cast(&times, &time_type()).unwrap(),
        column(|(_, r)| (r.4 % 7 != 0).then_some(r.4 % 10)),
        column(|(place, _)| i64::try_from(*place).ok()),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The rows in an order in which none is behind the watermarks, in batches as `cuts` says, with watermarks and
/// restarts between them. Rows that are equal but for their number keep the order in which they stand.
pub(super) fn schedule(rows: &[Row], cuts: &[(u8, u8)]) -> Vec<Step> {
    schedule_of(rows, cuts, batch_of)
}

/// The same with other columns, which `batch_of` makes of the rows of a side.
pub(super) fn schedule_of(
    rows: &[Row],
    cuts: &[(u8, u8)],
    batch_of: impl Fn(&[(usize, Row)], bool) -> RecordBatch,
) -> Vec<Step> {
    let mut order: Vec<(usize, Row)> = rows.iter().copied().enumerate().collect();
    // Rows of one side, key and time come as they stand: of them the last may be the one that counts.
    let delay = |r: &Row| (r.2 * 7 + r.1.unwrap_or(9) * 5 + i64::from(r.0) * 3) % 12;
    order.sort_by_key(|(_, r)| r.2 + delay(r));
    let mut steps = Vec::new();
    let mut rest = order.as_slice();
    let mut cuts = cuts.iter().cycle();
    let mut watermark = i64::MIN;
    while !rest.is_empty() {
        let &(cut, what) = cuts.next().unwrap();
        let n = (1 + usize::from(cut) % 9).min(rest.len());
        let (batch, others) = rest.split_at(n);
        let sides = if what % 2 == 0 {
            [true, false]
        } else {
            [false, true]
        };
        for is_left in sides {
            let rows = batch_of(batch, is_left);
            if rows.num_rows() > 0 {
                steps.push(if is_left {
                    Step::Left(rows)
                } else {
                    Step::Right(rows)
                });
            }
        }
        rest = others;
        let earliest = rest.iter().map(|(_, r)| r.2).min().unwrap_or(45);
        if what % 3 > 0 {
            let to = earliest - i64::from(what % 5);
            if to > watermark {
                watermark = to;
                steps.push(Step::Watermark(to));
            }
        }
        if what % 7 == 0 {
            steps.push(Step::Restart(1 + usize::from(cut) % 4));
        }
    }
    steps
}

/// Where a watermark comes before a restart, only one worker has heard of it.
pub(super) fn told_one_before_restarts(mut steps: Vec<Step>) -> Vec<Step> {
    for n in 1..steps.len() {
        if let ([Step::Watermark(to)], Step::Restart(_)) = (&steps[n - 1..n], &steps[n]) {
            steps[n - 1] = Step::WatermarkOfFirst(*to);
        }
    }
    steps
}
