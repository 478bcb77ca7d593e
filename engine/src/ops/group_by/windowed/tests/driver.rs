//! Both halves of an aggregation in windows on several workers, without an engine.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_expr::Expr;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::{EVENT_TIME, PANE, WINDOW_END, WINDOW_START};
use crate::expression::col;
use crate::ops::group_by::windowed::{
    Asked, WindowedFinalAggregate, WindowedGrouping, WindowedPartialAggregate,
};
use crate::output::{OnBadRow, Output};
use crate::state::{StatePart, worker_of};
use crate::testing::table;
use crate::transform::{Operator, Transform, Watermark};
use crate::windowing::{Window, Windowing};

struct Halves {
    partial: Box<dyn Operator>,
    finish: Box<dyn Operator>,
}

/// Workers with both halves each, and an exchange between them.
pub(in crate::ops::group_by::windowed) struct Driver {
    partial: WindowedPartialAggregate,
    finish: WindowedFinalAggregate,
    keys: Vec<String>,
    workers: Vec<Halves>,
    out: Output,
    watermark: i64,
    late: u64,
    /// How many of them only the second halves found to be late.
    pub(in crate::ops::group_by::windowed) late_in_finish: u64,
    made: Vec<String>,
    /// The watermark behind the aggregation.
    pub(in crate::ops::group_by::windowed) behind: i64,
}

impl Driver {
    pub(in crate::ops::group_by::windowed) fn planned(
        windowing: &Windowing,
        keys: &[Expr],
        aggregates: Vec<Expr>,
        schema: &SchemaRef,
    ) -> Result<(WindowedPartialAggregate, WindowedFinalAggregate)> {
        let asked = Asked::Aggregates {
            keys: keys.to_vec(),
            outputs: aggregates,
        };
        let (_, partial, finish) = Self::halves(windowing, asked, schema)?;
        Ok((partial, finish))
    }

    /// The columns by which rows are dealt between both halves, and these.
    pub(in crate::ops::group_by::windowed) fn halves(
        windowing: &Windowing,
        asked: Asked,
        schema: &SchemaRef,
    ) -> Result<(
        Vec<String>,
        WindowedPartialAggregate,
        WindowedFinalAggregate,
    )> {
        let grouping = Arc::new(WindowedGrouping::new(asked, windowing));
        let partial = WindowedPartialAggregate::new(&grouping);
        let finish = WindowedFinalAggregate::new(&grouping);
        let states = partial.output_schema(&[Arc::clone(schema)])?;
        finish.output_schema(&[states])?;
        Ok((grouping.key_names(), partial, finish))
    }

    pub(in crate::ops::group_by::windowed) fn new(
        windowing: &Windowing,
        n_workers: usize,
        keys: &[&str],
        aggregates: Vec<Expr>,
    ) -> Result<Self> {
        let schema = table("event_time: 1; k: a; x: 1").schema();
        Self::over(&schema, windowing, n_workers, keys, aggregates)
    }

    /// As [`Driver::new`], over rows of this schema.
    pub(in crate::ops::group_by::windowed) fn over(
        schema: &SchemaRef,
        windowing: &Windowing,
        n_workers: usize,
        keys: &[&str],
        aggregates: Vec<Expr>,
    ) -> Result<Self> {
        let asked = Asked::Aggregates {
            keys: keys.iter().map(|key| col(*key)).collect(),
            outputs: aggregates,
        };
        Self::asking(schema, windowing, n_workers, asked)
    }

    /// As [`Driver::over`], of whatever is asked of rows in windows.
    pub(in crate::ops::group_by::windowed) fn asking(
        schema: &SchemaRef,
        windowing: &Windowing,
        n_workers: usize,
        asked: Asked,
    ) -> Result<Self> {
        let (keys, partial, finish) = Self::halves(windowing, asked, schema)?;
        let mut driver = Self {
            partial,
            finish,
            keys,
            workers: Vec::new(),
            out: Output::new(OnBadRow::Fail),
            watermark: i64::MIN,
            late: 0,
            late_in_finish: 0,
            made: Vec::new(),
            behind: i64::MIN,
        };
        driver.build(n_workers)?;
        Ok(driver)
    }

    fn build(&mut self, n_workers: usize) -> Result<()> {
        let artifacts = Artifacts::none();
        let halves = (0..n_workers).map(|_| {
            Ok(Halves {
                partial: self.partial.build(&artifacts)?,
                finish: self.finish.build(&artifacts)?,
            })
        });
        self.workers = halves.collect::<Result<_>>()?;
        Ok(())
    }

    /// Rows that come to the worker `at`, or to the one that `at` is when it is counted round.
    pub(in crate::ops::group_by::windowed) fn rows(
        &mut self,
        at: usize,
        rows: &RecordBatch,
    ) -> Vec<String> {
        let at = at % self.workers.len();
        let batch = Batch::new(rows.clone());
        self.workers[at]
            .partial
            .on_batch(0, batch, &mut self.out)
            .unwrap();
        self.exchange();
        self.take_made()
    }

    pub(in crate::ops::group_by::windowed) fn watermark(&mut self, time: i64) -> Vec<String> {
        self.try_watermark(time).unwrap()
    }

    /// As [`Driver::watermark`], where the second half may fail.
    pub(in crate::ops::group_by::windowed) fn try_watermark(
        &mut self,
        time: i64,
    ) -> Result<Vec<String>> {
        let between = self.watermark_between(time);
        let mut behind = Watermark::END;
        for at in 0..self.workers.len() {
            let finish = &mut self.workers[at].finish;
            finish.on_watermark(between, &mut self.out)?;
            behind = behind.min(finish.output_watermark(between));
            self.keep_made();
        }
        assert!(behind.0 >= self.behind, "the watermark behind went back");
        self.behind = behind.0;
        Ok(self.take_made())
    }

    /// Tells all first halves, and gives the watermark behind them.
    fn watermark_between(&mut self, time: i64) -> Watermark {
        self.watermark = time;
        for at in 0..self.workers.len() {
            let partial = &mut self.workers[at].partial;
            partial
                .on_watermark(Watermark(time), &mut self.out)
                .unwrap();
            self.exchange();
        }
        let between = self
            .workers
            .iter()
            .map(|w| w.partial.output_watermark(Watermark(time)));
        between.min().unwrap()
    }

    /// As [`Driver::watermark`], of which only the first `n_told` second halves come to hear.
    pub(in crate::ops::group_by::windowed) fn watermark_to_some(
        &mut self,
        time: i64,
        n_told: usize,
    ) -> Vec<String> {
        let between = self.watermark_between(time);
        for at in 0..self.workers.len().min(n_told) {
            let finish = &mut self.workers[at].finish;
            finish.on_watermark(between, &mut self.out).unwrap();
            self.keep_made();
        }
        self.take_made()
    }

    /// The watermark of which only the first `n_told` first halves come to hear, and never all: then all would judge
    /// by it what is late.
    pub(in crate::ops::group_by::windowed) fn watermark_to_some_first_halves(
        &mut self,
        time: i64,
        n_told: usize,
    ) {
        for at in 0..n_told.min(self.workers.len() - 1) {
            let partial = &mut self.workers[at].partial;
            partial
                .on_watermark(Watermark(time), &mut self.out)
                .unwrap();
            self.exchange();
        }
    }

    /// The end of input.
    pub(in crate::ops::group_by::windowed) fn end(&mut self) -> Vec<String> {
        let made = self.watermark(i64::MAX);
        assert_eq!(self.behind, i64::MAX, "nothing holds the end back");
        let bytes = self.workers.iter().map(|w| w.finish.state_bytes());
        assert!(bytes.sum::<u64>() < 1 << 20);
        made
    }

    /// The clock moves; operators that want to hear of it do.
    pub(in crate::ops::group_by::windowed) fn clock(&mut self, now: i64) -> Vec<String> {
        self.out.set_processing_time(now);
        for at in 0..self.workers.len() {
            let finish = &mut self.workers[at].finish;
            if finish.wakes_at().is_some_and(|time| time <= now) {
                finish.on_processing_time(&mut self.out).unwrap();
            }
            assert!(
                finish.wakes_at().is_none_or(|time| time > now),
                "woken, and wants to be woken again"
            );
            self.keep_made();
        }
        self.take_made()
    }

    pub(in crate::ops::group_by::windowed) fn state_bytes(&self) -> u64 {
        let of = |halves: &Halves| halves.partial.state_bytes() + halves.finish.state_bytes();
        self.workers.iter().map(of).sum()
    }

    pub(in crate::ops::group_by::windowed) fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    /// Takes a snapshot and goes on with it on so many new workers.
    pub(in crate::ops::group_by::windowed) fn restore(&mut self, n_workers: usize) {
        let mut parts = [Vec::new(), Vec::new()];
        for Halves { partial, finish } in &mut self.workers {
            for (parts, operator) in parts.iter_mut().zip([partial, finish]) {
                let part = operator.snapshot().unwrap();
                let again = operator.snapshot().unwrap();
                assert_eq!(shown(&part), shown(&again), "a snapshot changes nothing");
                parts.extend(part);
            }
        }
        self.build(n_workers).unwrap();
        let [partial, finish] = parts;
        let dealt = StatePart::deal(&partial, n_workers).into_iter();
        let dealt = dealt.zip(StatePart::deal(&finish, n_workers));
        for (halves, (partial, finish)) in self.workers.iter_mut().zip(dealt) {
            halves.partial.restore(&partial).unwrap();
            halves.finish.restore(&finish).unwrap();
        }
    }

    /// Deals what partial halves have made to the final ones.
    fn exchange(&mut self) {
        self.late += self.out.take_late();
        let made = self.out.take().into_iter();
        for (_, batch) in made.filter(|(port, _)| *port == 0) {
            let parts = StatePart::by_key("rows", batch.rows(), &self.keys).unwrap();
            let n_workers = self.workers.len();
            for at in 0..n_workers {
                let mine = parts
                    .iter()
                    .filter(|part| worker_of(part.key_group.unwrap(), n_workers) == at);
                let mine: Vec<RecordBatch> = mine.map(|part| part.rows.clone()).collect();
                if mine.is_empty() {
                    continue;
                }
                let rows = arrow::compute::concat_batches(&batch.rows().schema(), &mine).unwrap();
                let finish = &mut self.workers[at].finish;
                finish.on_batch(0, Batch::new(rows), &mut self.out).unwrap();
                self.keep_made();
            }
        }
    }

    fn keep_made(&mut self) {
        let n_late = self.out.take_late();
        self.late += n_late;
        self.late_in_finish += n_late;
        let schema = self.finish.output_schema(&[]).unwrap();
        for (_, batch) in self.out.take() {
            assert_eq!(batch.rows().schema().fields(), schema.fields());
            self.made.extend(lines(batch.rows()));
        }
    }

    fn take_made(&mut self) -> Vec<String> {
        let mut made = std::mem::take(&mut self.made);
        made.sort();
        made
    }
}

fn shown(parts: &[StatePart]) -> Vec<String> {
    let mut lines = Vec::new();
    for part in parts {
        let rows = (0..part.rows.num_rows()).map(|row| {
            let columns = part.rows.columns().iter();
            let values: Vec<String> = columns.map(|column| shown_value(column, row)).collect();
            format!("{} {:?} {}", part.table, part.key_group, values.join(" "))
        });
        lines.extend(rows);
    }
    lines.sort();
    lines
}

fn shown_value(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
    formatter.value(row).to_string()
}

/// Results, each as one line.
fn lines(rows: &RecordBatch) -> Vec<String> {
    let time = |name: &str, row: usize| {
        let column = rows.column_by_name(name).unwrap();
        column
            .as_primitive::<arrow::datatypes::TimestampMillisecondType>()
            .value(row)
    };
    let schema = rows.schema();
    let line = |row: usize| {
        let mut parts = Vec::new();
        for (field, column) in schema.fields().iter().zip(rows.columns()) {
            match field.name().as_str() {
                WINDOW_START => {
                    let (start, end) = (time(WINDOW_START, row), time(WINDOW_END, row));
                    let window = Window { start, end };
                    parts.push(match window {
                        Window::GLOBAL => "global".to_owned(),
                        _ => format!("[{start}, {end})"),
                    });
                }
                WINDOW_END => {}
                EVENT_TIME => parts.push(match time(EVENT_TIME, row) {
                    crate::event_time::MAX_TIME => "at the end".to_owned(),
                    time => format!("at {time}"),
                }),
                PANE => {
                    let pane = column.as_struct();
                    let of = |n: usize| shown_value(pane.column(n), row);
                    let flag = |n: usize, name: &str| match of(n).as_str() {
                        "true" => name.to_owned(),
                        _ => String::new(),
                    };
                    let (first, last) = (flag(3, " first"), flag(4, " last"));
                    parts.push(format!("{} {}/{}{first}{last}", of(0), of(1), of(2)));
                }
                _ => parts.push(shown_value(column, row)),
            }
        }
        parts.join(" ")
    };
    (0..rows.num_rows()).map(line).collect()
}
