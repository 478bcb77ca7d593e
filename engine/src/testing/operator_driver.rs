//! Operators under the hand of a test: one, or several that share the keys.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::operator_run::Step;
use crate::artifact::Artifacts;
use crate::batch::{Batch, SplitKey};
use crate::error::{Error, Result};
use crate::output::{DeadLetter, OnBadRow, Output};
use crate::runner::deal;
use crate::state::StatePart;
use crate::transform::{Distribution, Operator, Transform, Watermark};

/// An operator is woken at most so often at one instant.
const MAX_WAKES: usize = 10_000;

/// What left an operator in one step.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) rows: Vec<(usize, RecordBatch)>,
    pub(super) rejected: Vec<DeadLetter>,
    pub(super) n_late: u64,
    pub(super) n_filtered: u64,
    pub(super) n_rejected: u64,
    /// The watermark behind the operator, where it has moved in this step and is not the one before it.
    pub(super) held: Option<Watermark>,
}

impl Left {
    pub(super) fn rows_of(&self, port: usize) -> impl Iterator<Item = &RecordBatch> {
        let of = self.rows.iter().filter(move |(to, _)| *to == port);
        of.map(|(_, rows)| rows)
    }

    pub(super) fn add(&mut self, mut other: Self) {
        self.rows.append(&mut other.rows);
        self.rejected.append(&mut other.rejected);
        self.n_late += other.n_late;
        self.n_filtered += other.n_filtered;
        self.n_rejected += other.n_rejected;
        self.held = other.held;
    }

    /// Each row as text, in an order that does not depend on theirs.
    pub(super) fn sorted(&self) -> Result<Vec<String>> {
        let options = FormatOptions::default().with_null("null");
        let mut texts = Vec::new();
        for (port, rows) in &self.rows {
            let schema = rows.schema();
            let columns = rows.columns().iter();
            let formatters = columns
                .map(|c| ArrayFormatter::try_new(c, &options))
                .collect::<Result<Vec<_>, _>>()?;
            for row in 0..rows.num_rows() {
                let mut text = format!("port {port}");
                for (field, cells) in schema.fields().iter().zip(&formatters) {
                    let _ = write!(text, ", {}: {}", field.name(), cells.value(row));
                }
                texts.push(text);
            }
        }
        texts.extend(
            self.rejected
                .iter()
                .map(|l| format!("rejected: {}", l.reason)),
        );
        texts.sort_unstable();
        Ok(texts)
    }
}

/// One operator.
pub(super) struct Driver {
    operator: Box<dyn Operator>,
    worker: usize,
    /// Of each port.
    schemas: Vec<SchemaRef>,
    makes_watermarks: bool,
    out: Output,
    n_rows: Vec<u64>,
    now: i64,
    watermark: Watermark,
    /// That of each input, which is not behind it.
    of_inputs: Vec<Watermark>,
    /// What those behind the operator know.
    pub(super) behind: Watermark,
}

impl Driver {
    pub(super) fn new(transform: &Arc<dyn Transform>, inputs: &[SchemaRef]) -> Result<Self> {
        let mut schemas = vec![transform.output_schema(inputs)?];
        for port in 1..transform.properties().ports.len() {
            schemas.push(transform.port_schema(port, inputs)?);
        }
        Ok(Self {
            operator: transform.build(&Artifacts::none())?,
            worker: 0,
            schemas,
            makes_watermarks: transform.properties().makes_watermarks,
            out: Output::new(OnBadRow::DeadLetter),
            n_rows: vec![0; inputs.len()],
            now: 0,
            watermark: Watermark::START,
            of_inputs: vec![Watermark::START; inputs.len()],
            behind: Watermark::START,
        })
    }

    pub(super) fn play(&mut self, step: &Step) -> Result<Left> {
        match step {
            Step::Rows { port, rows } => {
                let name = Arc::from("rows in memory");
                let first = self.n_rows[*port];
                self.n_rows[*port] += rows.num_rows() as u64;
                let batch = Batch::read(rows.clone(), SplitKey::default(), name, first);
                let batch = batch.for_worker(self.worker).under(self.of_inputs[*port]);
                self.operator.on_batch(*port, batch, &mut self.out)?;
            }
            Step::Watermark(watermark) => {
                self.watermark = self.watermark.max(*watermark);
                for port in 0..self.of_inputs.len() {
                    self.pass_of_input(port, self.watermark)?;
                }
                self.operator.on_watermark(self.watermark, &mut self.out)?;
            }
            Step::InputWatermark { port, watermark } => self.pass_of_input(*port, *watermark)?,
            Step::ProcessingTime(now) => {
                self.now = self.now.max(*now);
                self.out.set_processing_time(self.now);
            }
        }
        self.go_on()?;
        self.wake()?;
        self.take()
    }

    /// Tells the operator of one of several inputs, where its watermark moves.
    fn pass_of_input(&mut self, port: usize, watermark: Watermark) -> Result<()> {
        if watermark <= self.of_inputs[port] {
            return Ok(());
        }
        self.of_inputs[port] = watermark;
        if self.of_inputs.len() > 1 {
            let operator = &mut self.operator;
            operator.on_input_watermark(port, watermark, &mut self.out)?;
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<()> {
        while self.out.take_more() {
            self.operator.resume(&mut self.out)?;
        }
        Ok(())
    }

    fn wake(&mut self) -> Result<()> {
        if self.watermark.is_end() {
            return Ok(());
        }
        for _ in 0..MAX_WAKES {
            match self.operator.wakes_at() {
                Some(time) if time <= self.now => {
                    self.operator.on_processing_time(&mut self.out)?;
                    self.go_on()?;
                }
                _ => return Ok(()),
            }
        }
        Err(Error::bug(format!(
            "the operator was woken {MAX_WAKES} times at {} and wants to be again",
            self.now
        )))
    }

    fn take(&mut self) -> Result<Left> {
        let emitted = self.out.take();
        let rows: Vec<_> = emitted
            .into_iter()
            .map(|(port, batch)| (port, batch.rows().clone()))
            .collect();
        for (port, rows) in &rows {
            assert_eq!(
                rows.schema().fields(),
                self.schemas[*port].fields(),
                "the schema promised is the schema made"
            );
        }
        let said = self.operator.output_watermark(self.watermark);
        assert!(
            said <= self.watermark || self.makes_watermarks,
            "the watermark behind is {}, that before {}",
            said.0,
            self.watermark.0
        );
        let behind = self.behind.max(said);
        let held = (behind != self.watermark && behind != self.behind).then_some(behind);
        self.behind = behind;
        let (n_filtered, n_rejected) = self.out.take_counts();
        Ok(Left {
            rows,
            rejected: self.out.take_dead_letters(),
            n_late: self.out.take_late(),
            n_filtered,
            n_rejected,
            held,
        })
    }

    pub(super) fn state_bytes(&self) -> u64 {
        self.operator.state_bytes()
    }

    /// The state, as it comes back from a file.
    pub(super) fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        let parts = self.operator.snapshot()?;
        parts.into_iter().map(written_and_read).collect()
    }

    /// A new operator with this state, at the same place of the script as `old`.
    pub(super) fn restored(
        transform: &Arc<dyn Transform>,
        inputs: &[SchemaRef],
        old: &Self,
        state: &[StatePart],
    ) -> Result<Self> {
        let mut new = Self::new(transform, inputs)?;
        new.n_rows.clone_from(&old.n_rows);
        new.of_inputs.clone_from(&old.of_inputs);
        (new.now, new.watermark, new.behind) = (old.now, old.watermark, old.behind);
        new.out.set_processing_time(new.now);
        new.operator.restore(state)?;
        Ok(new)
    }
}

fn written_and_read(part: StatePart) -> Result<StatePart> {
    let mut writer = StreamWriter::try_new(Vec::new(), &part.rows.schema())?;
    writer.write(&part.rows)?;
    let bytes = writer.into_inner()?;
    let mut batches = StreamReader::try_new(bytes.as_slice(), None)?;
    let rows = batches
        .next()
        .transpose()?
        .unwrap_or_else(|| RecordBatch::new_empty(part.rows.schema()));
    Ok(StatePart { rows, ..part })
}

/// Several operators of one transform, to which rows are dealt as a run deals them to its workers.
pub(super) struct Fleet<'a> {
    transform: &'a Arc<dyn Transform>,
    inputs: &'a [SchemaRef],
    drivers: Vec<Driver>,
    turn: usize,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(
        transform: &'a Arc<dyn Transform>,
        inputs: &'a [SchemaRef],
        n_workers: usize,
    ) -> Result<Self> {
        let drivers = (0..n_workers).map(|worker| {
            let driver = Driver::new(transform, inputs)?;
            Ok(Driver { worker, ..driver })
        });
        Ok(Self {
            transform,
            inputs,
            drivers: drivers.collect::<Result<_>>()?,
            turn: 0,
        })
    }

    pub(super) fn play(&mut self, step: &Step) -> Result<Left> {
        let mut left = Left::default();
        let n_workers = self.drivers.len();
        for worker in 0..n_workers {
            match step {
                Step::Rows { port, rows } => {
                    let port = *port;
                    if let Some(rows) = self.dealt(port, rows)?.swap_remove(worker) {
                        left.add(self.drivers[worker].play(&Step::Rows { port, rows })?);
                    }
                }
                step => left.add(self.drivers[worker].play(step)?),
            }
        }
        self.turn = (self.turn + 1) % n_workers;
        Ok(left)
    }

    fn dealt(&self, port: usize, rows: &RecordBatch) -> Result<Vec<Option<RecordBatch>>> {
        let n_workers = self.drivers.len();
        let to_one = |one: usize| {
            let all = (0..n_workers).map(|worker| (worker == one).then(|| rows.clone()));
            all.collect()
        };
        Ok(match self.transform.properties().distribution_of(port) {
            Distribution::ByKey(keys) => deal(rows, keys, n_workers)?,
            Distribution::One => to_one(0),
            Distribution::Keep => to_one(self.turn),
            Distribution::Broadcast => vec![Some(rows.clone()); n_workers],
        })
    }

    /// The state of all, dealt to `n_workers` new operators.
    pub(super) fn redealt(mut self, n_workers: usize) -> Result<Self> {
        let mut parts = Vec::new();
        for driver in &mut self.drivers {
            parts.extend(driver.snapshot()?);
        }
        let dealt = StatePart::deal(&parts, n_workers);
        let old = &self.drivers[0];
        let drivers = dealt.iter().enumerate().map(|(worker, state)| {
            let driver = Driver::restored(self.transform, self.inputs, old, state)?;
            Ok(Driver { worker, ..driver })
        });
        let drivers = drivers.collect::<Result<_>>()?;
        Ok(Self {
            drivers,
            turn: 0,
            ..self
        })
    }
}
