//! Learns the smallest and the largest value.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::record_batch::RecordBatch;
use mainstem_engine::{Analyzer, Error, Result};
use serde::{Deserialize, Serialize};

use super::moments::values;
use super::{foreign_save, no_values};

/// Learns the smallest and the largest value of a column of numbers.
///
/// Null and NaN are left out; -0.0 counts as 0.0. Rows cannot be taken out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinMax {}

/// What [`MinMax`] learns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl MinMax {
    /// The only range there is.
    pub fn new() -> Self {
        Self {}
    }
}

impl Default for MinMax {
    fn default() -> Self {
        Self::new()
    }
}

impl Analyzer for MinMax {
    type Accumulator = Option<Range>;
    type Output = Range;

    fn create_accumulator(&self) -> Option<Range> {
        None
    }

    fn add(&self, seen: &mut Option<Range>, rows: &RecordBatch) -> Result<()> {
        for x in values(rows)? {
            // Turns -0.0 into 0.0, so that the order of the rows cannot be seen.
            let x = x + 0.0;
            widen(seen, Range { min: x, max: x });
        }
        Ok(())
    }

    fn merge(&self, seen: &mut Option<Range>, other: Option<Range>) -> Result<()> {
        if let Some(other) = other {
            widen(seen, other);
        }
        Ok(())
    }

    fn finish(&self, seen: Option<Range>) -> Result<Range> {
        let range = seen.ok_or_else(no_values)?;
        if !(range.max - range.min).is_finite() {
            return Err(Error::data("the values span no finite range")
                .with_detail(format!("They go from {:?} to {:?}.", range.min, range.max))
                .with_hint("Filter such rows out, or scale the column down."));
        }
        Ok(range)
    }

    fn save(&self, seen: &Option<Range>) -> Result<RecordBatch> {
        let fields = ["min", "max"].map(|name| Field::new(name, DataType::Float64, false));
        let column = |of: fn(&Range) -> f64| {
            Arc::new(seen.iter().map(of).map(Some).collect::<Float64Array>()) as _
        };
        Ok(RecordBatch::try_new(
            Arc::new(Schema::new(fields.to_vec())),
            vec![column(|r| r.min), column(|r| r.max)],
        )?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<Option<Range>> {
        let column = |name: &str| {
            saved
                .column_by_name(name)?
                .as_primitive_opt::<Float64Type>()
        };
        let (Some(min), Some(max)) = (column("min"), column("max")) else {
            return Err(foreign_save("min_max"));
        };
        Ok((!min.is_empty()).then(|| Range {
            min: min.value(0),
            max: max.value(0),
        }))
    }
}

fn widen(seen: &mut Option<Range>, other: Range) {
    let range = seen.get_or_insert(other);
    range.min = range.min.min(other.min);
    range.max = range.max.max(other.max);
}

crate::column_analyzer!(MinMax, "min_max");
