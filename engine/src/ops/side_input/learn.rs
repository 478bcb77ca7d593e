//! A side that ends, as an artifact: it is read in a phase of its own, and no row waits for it.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde_json::Value;

use super::compiled;
use super::layout::Layout;
use super::operator::{PORTS, SideInputOperator, Stored, late_schema};
use crate::analyzer::{Analysis, Analyzer, DynAnalyzer};
use crate::artifact::{ArtifactId, ArtifactRef, Artifacts};
use crate::error::Result;
use crate::transform::{ChangeTimes, Description, Operator, Properties, Transform};

/// Learns the rows of a side input.
#[derive(Clone, Debug)]
pub(super) struct SideRows {
    layout: Arc<Layout>,
}

impl SideRows {
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        Self { layout }
    }
}

impl Analysis for SideRows {
    fn describe(&self) -> Description {
        Description::new("side_rows", Value::Null)
    }

    fn check(&self, _input: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn reads(&self) -> Option<Vec<String>> {
        Some(self.layout.reads_of_side())
    }

    fn is_transient(&self) -> bool {
        true
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Arc<dyn DynAnalyzer>> {
        Ok(Arc::new(self.clone()))
    }
}

/// Rows of a side, as they came.
#[derive(Debug, Default)]
pub(super) struct Rows {
    batches: Vec<RecordBatch>,
    n_bytes: u64,
}

/// All rows of a side, as the operators keep them.
pub(super) struct LearnedSide {
    stored: Vec<Stored>,
    n_bytes: u64,
}

impl fmt::Debug for LearnedSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n_rows: usize = self.stored.iter().map(|s| s.rows.num_rows()).sum();
        write!(f, "LearnedSide({n_rows} rows, {} bytes)", self.n_bytes)
    }
}

impl Analyzer for SideRows {
    type Accumulator = Rows;
    type Output = LearnedSide;

    fn create_accumulator(&self) -> Rows {
        Rows::default()
    }

    fn add(&self, accumulator: &mut Rows, rows: &RecordBatch) -> Result<()> {
        accumulator.n_bytes += n_bytes(rows);
        accumulator.batches.push(rows.clone());
        Ok(())
    }

    fn merge(&self, accumulator: &mut Rows, other: Rows) -> Result<()> {
        accumulator.n_bytes += other.n_bytes;
        accumulator.batches.extend(other.batches);
        Ok(())
    }

    fn finish(&self, accumulator: Rows) -> Result<LearnedSide> {
        let mut stored = Vec::with_capacity(accumulator.batches.len());
        let mut compiled: Option<compiled::SideRows> = None;
        for rows in &accumulator.batches {
            let schema = rows.schema();
            let compiled = match compiled.take().filter(|side| side.fits(&schema)) {
                Some(fits) => compiled.insert(fits),
                None => compiled.insert(compiled::SideRows::new(&self.layout, &schema)?),
            };
            stored.push(Stored::new(&self.layout, compiled, rows)?);
        }
        Ok(LearnedSide {
            n_bytes: stored.iter().map(|s| n_bytes(&s.rows)).sum(),
            stored,
        })
    }

    fn accumulator_bytes(&self, accumulator: &Rows) -> u64 {
        accumulator.n_bytes
    }

    fn artifact_bytes(&self, side: &LearnedSide) -> u64 {
        side.n_bytes
    }

    fn save(&self, accumulator: &Rows) -> Result<RecordBatch> {
        Ok(match accumulator.batches.first() {
            Some(first) => concat_batches(&first.schema(), &accumulator.batches)?,
            None => RecordBatch::new_empty(Arc::clone(&self.layout.stored)),
        })
    }

    fn load(&self, saved: &RecordBatch) -> Result<Rows> {
        let mut rows = Rows::default();
        if saved.num_rows() > 0 {
            self.add(&mut rows, saved)?;
        }
        Ok(rows)
    }
}

fn n_bytes(rows: &RecordBatch) -> u64 {
    let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    rows.columns().iter().map(of).sum::<usize>() as u64
}

/// Adds what is known of the side to each row.
#[derive(Clone, Debug)]
pub(super) struct WithLearnedSide {
    description: Description,
    layout: Arc<Layout>,
    side: ArtifactRef<LearnedSide>,
}

impl WithLearnedSide {
    pub(super) fn new(
        description: Description,
        layout: Arc<Layout>,
        side: ArtifactRef<LearnedSide>,
    ) -> Self {
        Self {
            description,
            layout,
            side,
        }
    }
}

impl Transform for WithLearnedSide {
    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(self.layout.output(&inputs[0]))
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(late_schema(&self.layout, port, &inputs[0]))
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let side = artifacts.get(&self.side)?;
        Ok(Box::new(SideInputOperator::learned(
            &self.layout,
            &side.stored,
        )?))
    }

    fn needs(&self) -> Vec<ArtifactId> {
        vec![ArtifactId::clone(self.side.id())]
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        Some(self.layout.reads_of_main(wanted?))
    }

    fn keeps(&self) -> Option<String> {
        Some(self.layout.reach.keeps(false))
    }

    fn properties(&self) -> Properties {
        Properties {
            keeps_positions: true,
            stateful: true,
            on_changelog: self.layout.reach.on_changelog(),
            change_times: ChangeTimes::Kept,
            ..Properties::default()
        }
        .ports(PORTS)
    }
}
