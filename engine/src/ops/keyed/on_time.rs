//! Takes rows that come too late out of the way of a keyed transform.
//!
//! It stands before the transform on the same worker, so that both know the same watermark.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::compute::not;
use arrow::datatypes::SchemaRef;
use serde_json::json;

use super::KeyedTransform;
use super::lateness::Lateness;
use super::plan::Plan;
use super::process::Keyed;
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Description, Operator, Properties, Transform, Watermark};

/// The port of rows that come too late.
const LATE: usize = 1;

/// Rows that are in time to its first port, those that are late to its second.
pub(super) struct OnTime<T> {
    keyed: Arc<Keyed<T>>,
    lateness: Mutex<Option<Lateness>>,
}

impl<T> OnTime<T> {
    pub(super) fn new(keyed: &Arc<Keyed<T>>) -> Self {
        Self {
            keyed: Arc::clone(keyed),
            lateness: Mutex::new(None),
        }
    }
}

impl<T> fmt::Debug for OnTime<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OnTime({:?})", self.keyed.windowing)
    }
}

impl<T: KeyedTransform> Transform for OnTime<T> {
    fn describe(&self) -> Description {
        let lateness = self.keyed.windowing.allowed_lateness_ms;
        Description::new("on_time", json!({ "allowed_lateness_ms": lateness }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        // What is wrong with the transform is said by the transform itself.
        let plan = Plan::new(&self.keyed, &inputs[0]).ok();
        let mut slot = self.lateness.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = plan.map(|plan| plan.lateness);
        Ok(Arc::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let lateness = self.lateness.lock().unwrap_or_else(PoisonError::into_inner);
        let lateness = lateness.clone();
        Ok(Box::new(OnTimeOperator {
            lateness: lateness
                .ok_or_else(|| Error::bug("a transform is built before it is checked"))?,
            watermark: Watermark::START,
        }))
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            immediate: true,
            keeps_positions: true,
            portable: false,
            distribution: self.keyed.distribution(),
            ports: vec!["out".into(), "late".into()],
            ..Properties::default()
        }
    }
}

struct OnTimeOperator {
    lateness: Lateness,
    watermark: Watermark,
}

impl Operator for OnTimeOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        match self.lateness.late(batch.rows(), self.watermark.0)? {
            None => out.push(batch),
            Some(late) => {
                out.push_late(LATE, batch.filter(&late)?);
                out.push(batch.filter(&not(&late)?)?);
            }
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, _out: &mut Output) -> Result<()> {
        self.watermark = self.watermark.max(watermark);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        super::saved::save_watermark(self.watermark).map(|part| vec![part])
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.watermark = super::saved::least_watermark(state)?;
        Ok(())
    }
}
