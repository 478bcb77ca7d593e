//! Takes out the rows that are too late for all of their windows.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::not;
use arrow::datatypes::SchemaRef;
use serde_json::json;

use super::slices::{Lateness, Slicer};
use super::{earliest_watermark, watermark_part};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::{EVENT_TIME, check_event_time, event_times};
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Description, Operator, Properties, Transform, Watermark};
use crate::windowing::Windowing;

/// Rows that some window still takes go to the first port, those that are too late for all to the second.
///
/// They leave with all their columns, and are counted as late.
#[derive(Clone, Debug)]
pub struct SplitLate {
    windowing: Windowing,
}

impl SplitLate {
    pub(in crate::ops::group_by) fn new(windowing: &Windowing) -> Self {
        Self {
            windowing: windowing.clone(),
        }
    }
}

impl Transform for SplitLate {
    fn describe(&self) -> Description {
        let window = self.windowing.window_fn.describe();
        Description::new(
            "split_late",
            json!({
                "window": window.kind,
                "window_config": window.config,
                "allowed_lateness_ms": self.windowing.allowed_lateness_ms,
            }),
        )
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        self.windowing.check()?;
        check_event_time(&inputs[0])?;
        Ok(Arc::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SplitLateOperator {
            slicer: Slicer::new(&self.windowing.window_fn),
            lateness: Lateness::of(&self.windowing),
            watermark: Watermark::START.0,
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            immediate: true,
            ..Properties::default()
        }
        .keeps_positions(true)
        .ports(["on_time", "late"])
    }

    fn keeps(&self) -> Option<String> {
        Some("nothing but the watermark".into())
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let mut columns = wanted?.to_vec();
        if !columns.iter().any(|column| column == EVENT_TIME) {
            columns.push(EVENT_TIME.to_owned());
        }
        Some(columns)
    }
}

struct SplitLateOperator {
    slicer: Slicer,
    lateness: Lateness,
    watermark: i64,
}

impl Operator for SplitLateOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let sliced = self.slicer.slice(event_times(batch.rows())?);
        let Some(fates) = sliced.fates(batch.n_rows(), self.lateness, self.watermark) else {
            out.push(batch);
            return Ok(());
        };
        let late = BooleanArray::from(fates.late);
        if late.true_count() == 0 {
            out.push(batch);
            return Ok(());
        }
        out.push_late(1, batch.filter(&late)?);
        out.push(batch.filter(&not(&late)?)?);
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, _out: &mut Output) -> Result<()> {
        self.watermark = self.watermark.max(watermark.0);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        Ok(vec![watermark_part(self.watermark)?])
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.watermark = earliest_watermark(state);
        Ok(())
    }
}
