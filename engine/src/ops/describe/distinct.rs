//! About how many values of a column are distinct, in a fixed amount of memory.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, UInt64Type};
use datafusion_common::ScalarValue;
use datafusion_expr::Accumulator;
use datafusion_functions_aggregate::approx_distinct::approx_distinct_udaf;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::expressions::Column;

use super::failed;
use crate::error::{Error, Result};
use crate::keys::{normal, plain_type};

/// What a count keeps, about: the registers of HyperLogLog.
pub(super) const COUNT_BYTES: u64 = 16 << 10;

/// A count of distinct values: HyperLogLog with 16,384 registers, off by 0.8 % as a rule, and exact for
/// Booleans and integers of up to 16 bits.
///
/// What is counted does not depend on the order of the values, nor on how they come in parts.
pub(super) struct Distinct {
    data_type: DataType,
    /// Behind a lock, since its state is read through a shared reference and the library changes it.
    seen: Mutex<Box<dyn Accumulator>>,
}

impl Distinct {
    /// A count of nothing; `None` for a type whose values cannot be told apart.
    pub(super) fn nothing(data_type: &DataType) -> Option<Self> {
        let data_type = counted_type(data_type);
        let schema = Schema::new(vec![Field::new("value", data_type.clone(), true)]);
        let value: Arc<dyn PhysicalExpr> = Arc::new(Column::new("value", 0));
        let function = AggregateExprBuilder::new(approx_distinct_udaf(), vec![value])
            .schema(Arc::new(schema))
            .alias("distinct")
            .build();
        let seen = function.and_then(|f| f.create_accumulator()).ok()?;
        Some(Self {
            data_type,
            seen: Mutex::new(seen),
        })
    }

    pub(super) fn add(&mut self, column: &ArrayRef) -> Result<()> {
        let values = counted(column, &self.data_type)?;
        self.seen().update_batch(&[values]).map_err(failed)
    }

    /// Takes in what [`Distinct::state`] of another gave.
    pub(super) fn merge(&mut self, state: &ArrayRef) -> Result<()> {
        self.seen()
            .merge_batch(std::slice::from_ref(state))
            .map_err(failed)
    }

    pub(super) fn count(&mut self) -> Result<u64> {
        match self.seen().evaluate().map_err(failed)? {
            ScalarValue::UInt64(Some(n)) => Ok(n),
            other => Err(Error::bug(format!("{other:?} is no count"))),
        }
    }

    /// All that was seen, as an array of one value.
    pub(super) fn state(&self) -> Result<ArrayRef> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.state().map_err(failed)?.as_slice() {
            [state] => state.to_array().map_err(failed),
            _ => Err(Error::bug("a count of distinct values has one state")),
        }
    }

    fn seen(&mut self) -> &mut Box<dyn Accumulator> {
        self.seen.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Distinct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Distinct({})", self.data_type)
    }
}

/// The type in which values are told apart: that of their bits, for floats.
fn counted_type(data_type: &DataType) -> DataType {
    match plain_type(data_type) {
        t if t.is_floating() => DataType::UInt64,
        DataType::RunEndEncoded(_, values) => counted_type(values.data_type()),
        t => t,
    }
}

fn counted(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let plain = match column.data_type() {
        DataType::RunEndEncoded(_, values) => &cast(column, values.data_type())?,
        _ => column,
    };
    let floats = plain_type(plain.data_type()).is_floating();
    if floats {
        // One zero and one NaN; each float of fewer bits is one of 64.
        let numbers = normal(&cast(plain, &DataType::Float64)?)?;
        let numbers = numbers.as_primitive::<Float64Type>();
        return Ok(Arc::new(numbers.unary::<_, UInt64Type>(f64::to_bits)));
    }
    match plain.data_type() == to {
        true => normal(plain),
        false => normal(&cast(plain, to)?),
    }
}
