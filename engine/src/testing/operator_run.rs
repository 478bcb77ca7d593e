//! What happens to an operator, step by step, and what leaves it at each step, as text.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::compute::{cast, concat_batches};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use expect_test::Expect;

use super::chance::Chance;
use super::laws::Laws;
use super::operator_driver::{Driver, Left};
use super::{show, table};
use crate::error::{Error, Result};
use crate::event_time::EVENT_TIME;
use crate::transform::{Transform, Watermark};

/// A script for an operator: rows, watermarks and processing time, in their order.
///
/// ```
/// # use expect_test::expect;
/// # use mainstem_engine::{col, ops::Filter, lit, testing::OperatorRun};
/// OperatorRun::new(Filter::new(col("n").gt(lit(1))), &["n: 0; event_time: 0"])
///     .rows(0, "n: 1, 2, 3; event_time: 5, 6, 7")
///     .watermark(7)
///     .rows(0, "n: 4; event_time: 8")
///     .end()
///     .check(expect![[r#"
///         rows
///         n: 2, 3
///         event_time: 6, 7
///         rows
///         n: 4
///         event_time: 8"#]]);
/// ```
#[derive(Clone, Debug)]
pub struct OperatorRun {
    pub(super) transform: Arc<dyn Transform>,
    pub(super) inputs: Vec<SchemaRef>,
    pub(super) steps: Vec<Step>,
}

/// One thing that happens to an operator.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Rows come in.
    Rows { port: usize, rows: RecordBatch },
    /// Event time has passed this instant, on all inputs.
    Watermark(Watermark),
    /// Event time has passed this instant on one of several inputs.
    InputWatermark { port: usize, watermark: Watermark },
    /// The clock of the run shows this instant.
    ProcessingTime(i64),
}

impl OperatorRun {
    /// An empty script for the operator of `transform`, whose inputs have the columns of these tables, as
    /// [`table`] reads them.
    pub fn new(transform: impl Transform + 'static, inputs: &[&str]) -> Self {
        let inputs = inputs.iter().map(|text| pool(text).schema()).collect();
        Self::of(Arc::new(transform), inputs)
    }

    /// An empty script for inputs of these schemas.
    pub fn of(transform: Arc<dyn Transform>, inputs: Vec<SchemaRef>) -> Self {
        Self {
            transform,
            inputs,
            steps: Vec::new(),
        }
    }

    /// A script by chance, for inputs that have the columns of `pools`: the same for the same seed.
    ///
    /// Each value of a row is one of its column in the pool; event times go forward by about `time_step`
    /// milliseconds a step, in disorder. Watermarks follow them and are at times wrong, so that rows are late; each
    /// of several inputs has its own. Processing time goes forward as well, and the input ends.
    pub fn random(
        transform: Arc<dyn Transform>,
        pools: &[RecordBatch],
        time_step: i64,
        seed: u64,
    ) -> Self {
        let mut chance = Chance::new(seed);
        let mut run = Self::of(transform, pools.iter().map(RecordBatch::schema).collect());
        let time_step = time_step.max(1);
        let (mut now, mut clock, mut watermark) = (0, 0, i64::MIN);
        let mut of_inputs = vec![i64::MIN; pools.len()];
        for _ in 0..10 + chance.below(25) {
            now += chance.below(2 * time_step);
            match chance.below(10) {
                0..6 => {
                    let port = chance.index(pools.len());
                    let rows = random_rows(&pools[port], now, time_step, &mut chance);
                    run.steps.push(Step::Rows { port, rows });
                }
                6..9 => {
                    let at = now - chance.below(6 * time_step);
                    if pools.len() > 1 {
                        let port = chance.index(pools.len());
                        of_inputs[port] = of_inputs[port].max(at);
                        run = run.input_watermark(port, of_inputs[port]);
                    } else {
                        of_inputs.fill(watermark.max(at));
                    }
                    let of_all = of_inputs.iter().copied().min().unwrap_or(at);
                    if of_all > watermark || pools.len() == 1 {
                        watermark = of_all;
                        run = run.watermark(watermark);
                    }
                }
                _ => {
                    clock += chance.below(4 * time_step);
                    run = run.processing_time(clock);
                }
            }
        }
        run.end()
    }

    /// Rows come in by an input, as [`table`] reads them; values are cast to the types of the input.
    ///
    /// # Panics
    /// If they are not rows of this input.
    pub fn rows(self, port: usize, rows: &str) -> Self {
        self.batch(port, table(rows))
    }

    /// Rows come in by an input; values are cast to its types.
    ///
    /// # Panics
    /// If they are not rows of this input.
    pub fn batch(mut self, port: usize, rows: RecordBatch) -> Self {
        #[expect(
            clippy::panic,
            reason = "documented: the script is written in the test"
        )]
        match fitted(&rows, &self.inputs[port]) {
            Ok(rows) => self.steps.push(Step::Rows { port, rows }),
            Err(error) => panic!("not rows of input {port}: {error}"),
        }
        self
    }

    /// The watermark of all inputs moves.
    pub fn watermark(mut self, time: i64) -> Self {
        self.steps.push(Step::Watermark(Watermark(time)));
        self
    }

    /// The watermark of one of several inputs moves; that of all is said by [`OperatorRun::watermark`].
    pub fn input_watermark(mut self, port: usize, time: i64) -> Self {
        let watermark = Watermark(time);
        self.steps.push(Step::InputWatermark { port, watermark });
        self
    }

    /// The clock of the run moves, and the operator is woken if it wanted to be.
    pub fn processing_time(mut self, now_ms: i64) -> Self {
        self.steps.push(Step::ProcessingTime(now_ms));
        self
    }

    /// The input ends.
    pub fn end(self) -> Self {
        self.watermark(Watermark::END.0)
    }

    /// What leaves at each step: under the step the rows of each port; with the watermark where the
    /// operator holds it back, and with the rows that it rejected.
    ///
    /// # Errors
    /// What the transform says of the columns.
    pub fn transcript(&self) -> Result<String> {
        let mut driver = Driver::new(&self.transform, &self.inputs)?;
        let mut text = String::new();
        for step in &self.steps {
            match driver.play(step) {
                Ok(left) => text.push_str(&self.show_step(step, &left)?),
                Err(error) => {
                    let _ = writeln!(text, "{}\nerror: {error}", self.name_of(step));
                    break;
                }
            }
        }
        Ok(text.trim_end().to_owned())
    }

    /// Checks the transcript.
    ///
    /// # Panics
    /// If it is another.
    pub fn check(self, expected: Expect) -> Self {
        let found = self.transcript().unwrap_or_else(|error| error.to_string());
        expected.assert_eq(&found);
        self
    }

    /// Checks that the operator keeps the laws in this script; see [`check_operator`](super::check_operator).
    ///
    /// # Panics
    /// If not.
    pub fn check_laws(&self, laws: &Laws) {
        laws.check(self, "in this script");
    }

    /// The steps as text.
    pub(super) fn script(&self) -> String {
        let mut text = String::new();
        for (n, step) in self.steps.iter().enumerate() {
            let _ = writeln!(text, "{n}. {}", self.name_of(step));
            if let Step::Rows { rows, .. } = step {
                let _ = writeln!(text, "{}", show(rows));
            }
        }
        text
    }

    pub(super) fn name_of(&self, step: &Step) -> String {
        match step {
            Step::Rows { port, .. } if self.inputs.len() > 1 => format!("rows to {port}"),
            Step::Rows { .. } => "rows".into(),
            Step::Watermark(watermark) if watermark.is_end() => "end".into(),
            Step::Watermark(Watermark(time)) => format!("watermark {time}"),
            Step::InputWatermark { port, watermark } => {
                format!("watermark {} of input {port}", watermark.0)
            }
            Step::ProcessingTime(time) => format!("processing time {time}"),
        }
    }

    fn show_step(&self, step: &Step, left: &Left) -> Result<String> {
        let mut text = String::new();
        let name = self.name_of(step);
        let held = match left.held {
            Some(Watermark(time)) => format!(", watermark behind it {time}"),
            None => String::new(),
        };
        for (port, port_name) in self.transform.properties().ports.iter().enumerate() {
            let rows: Vec<RecordBatch> = left.rows_of(port).cloned().collect();
            if let Some(first) = rows.first() {
                let rows = concat_batches(&first.schema(), &rows)?;
                let to = if port == 0 {
                    held.clone()
                } else {
                    format!(", {port_name}")
                };
                let _ = writeln!(text, "{name}{to}\n{}", show(&rows));
            }
        }
        if !held.is_empty() && left.rows_of(0).next().is_none() {
            text.insert_str(0, &format!("{name}{held}\n"));
        }
        for letter in &left.rejected {
            let _ = writeln!(text, "{name}, rejected\n{}: {}", letter.row, letter.reason);
        }
        Ok(text)
    }
}

/// A table whose columns are repeated until each has as many values as the longest.
pub(super) fn pool(text: &str) -> RecordBatch {
    let columns = text.split([';', '\n']).filter(|c| !c.trim().is_empty());
    let columns: Vec<(&str, Vec<&str>)> = columns
        .map(|column| column.split_once(':').unwrap_or((column, "null")))
        .map(|(name, values)| (name, values.split(',').map(str::trim).collect()))
        .collect();
    let n_rows = columns.iter().map(|(_, values)| values.len()).max();
    let columns = columns.iter().map(|(name, values)| {
        let values: Vec<&str> = values
            .iter()
            .copied()
            .cycle()
            .take(n_rows.unwrap_or(0))
            .collect();
        format!("{name}: {}", values.join(", "))
    });
    table(&columns.collect::<Vec<_>>().join("; "))
}

/// Rows with the columns of `schema`, in their order and of their types.
fn fitted(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = rows
            .column_by_name(field.name())
            .ok_or_else(|| Error::data(format!("column {:?} is missing", field.name())))?;
        columns.push(cast(column, field.data_type())?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// A few rows whose values are in the pool, at about `now`.
fn random_rows(pool: &RecordBatch, now: i64, time_step: i64, chance: &mut Chance) -> RecordBatch {
    use arrow::array::{ArrayRef, TimestampMillisecondArray, UInt32Array};
    let n_rows = 1 + chance.index(6);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(pool.num_columns());
    for (field, column) in pool.schema().fields().iter().zip(pool.columns()) {
        if field.name() == EVENT_TIME {
            let times = (0..n_rows).map(|_| now + chance.below(4 * time_step) - 3 * time_step);
            columns.push(Arc::new(TimestampMillisecondArray::from_iter_values(times)));
            continue;
        }
        let picked = (0..n_rows).map(|_| u32::try_from(chance.index(pool.num_rows())).unwrap_or(0));
        let picked = UInt32Array::from_iter_values(picked);
        #[expect(clippy::expect_used, reason = "places within the pool")]
        columns
            .push(arrow::compute::take(column, &picked, None).expect("BUG: a place in the pool"));
    }
    #[expect(clippy::expect_used, reason = "columns of the pool")]
    RecordBatch::try_new(pool.schema(), columns).expect("BUG: rows like those of the pool")
}
