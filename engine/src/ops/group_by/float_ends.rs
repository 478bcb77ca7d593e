//! Least and greatest floats of many groups, the same whatever the order of the rows.
//!
//! NaN is greater than every number, as in DuckDB and PostgreSQL, and of zeros of both signs the one without is given.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::{not, nullif};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type};
use datafusion_common::{DataFusionError, Result, internal_datafusion_err};
use datafusion_expr::{EmitTo, GroupsAccumulator};

use super::changing::End;
use crate::expression::null_as_false;
use crate::keys::normal;

/// The accumulator for floats of this type; an error for what are none.
pub(super) fn float_ends(end: End, data_type: &DataType) -> Result<Box<dyn GroupsAccumulator>> {
    match data_type {
        DataType::Float16 => Ok(Box::new(FloatEnds::<Float16Type>::new(end))),
        DataType::Float32 => Ok(Box::new(FloatEnds::<Float32Type>::new(end))),
        DataType::Float64 => Ok(Box::new(FloatEnds::<Float64Type>::new(end))),
        other => Err(internal_datafusion_err!("{other} is no float")),
    }
}

/// The least or the greatest value of each group; null for a group without a value.
struct FloatEnds<T: ArrowPrimitiveType> {
    end: End,
    best: Vec<T::Native>,
    /// Which groups have a value.
    seen: Vec<bool>,
}

impl<T: ArrowPrimitiveType> FloatEnds<T> {
    fn new(end: End) -> Self {
        Self {
            end,
            best: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn take(&mut self, emit: EmitTo) -> ArrayRef {
        let best = emit.take_needed(&mut self.best);
        let seen = NullBuffer::from(emit.take_needed(&mut self.seen));
        let nulls = (seen.null_count() > 0).then_some(seen);
        Arc::new(PrimitiveArray::<T>::new(best.into(), nulls))
    }
}

/// With one zero and one NaN, which Arrow's total order puts behind infinity.
fn comparable(values: &ArrayRef) -> Result<ArrayRef> {
    normal(values).map_err(|error| DataFusionError::External(Box::new(error)))
}

impl<T: ArrowPrimitiveType> GroupsAccumulator for FloatEnds<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        n_groups: usize,
    ) -> Result<()> {
        let values = comparable(&values[0])?;
        let values = values.as_primitive::<T>();
        self.best.resize(n_groups, T::Native::ZERO);
        self.seen.resize(n_groups, false);
        for (row, (&group, &value)) in groups.iter().zip(values.values()).enumerate() {
            let taken = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if !taken || values.is_null(row) {
                continue;
            }
            let best = &mut self.best[group];
            let is_better = match self.end {
                End::Least => value.is_lt(*best),
                End::Greatest => value.is_gt(*best),
            };
            if is_better || !self.seen[group] {
                *best = value;
                self.seen[group] = true;
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        n_groups: usize,
    ) -> Result<()> {
        self.update_batch(values, groups, None, n_groups)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        Ok(self.take(emit))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.take(emit)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = comparable(&values[0])?;
        Ok(vec![match filter {
            None => values,
            Some(filter) => nullif(&values, &not(&null_as_false(filter))?)?,
        }])
    }

    fn size(&self) -> usize {
        self.best.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}
