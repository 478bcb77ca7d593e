//! Sums of integers that are exact whatever the order, and that notice where the result does not fit.
//!
//! A sum is kept as `low + carry * 2^64`. A sum on the way may pass the ends of the type: only the result
//! counts, so that the outcome does not depend on how rows were dealt to workers.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, Int32Array, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Int32Type, Int64Type, UInt64Type,
};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{EmitTo, GroupsAccumulator};

use crate::expression::null_as_false;

/// An integer type whose sums are exact.
pub(super) trait Summed: ArrowPrimitiveType {
    /// The sum modulo 2^64, and how often it passed the upper (1) or lower (-1) end.
    fn add(a: Self::Native, b: Self::Native) -> (Self::Native, i32);
}

impl Summed for Int64Type {
    #[inline]
    fn add(a: i64, b: i64) -> (i64, i32) {
        let (sum, passed) = a.overflowing_add(b);
        (
            sum,
            if !passed {
                0
            } else if b < 0 {
                -1
            } else {
                1
            },
        )
    }
}

impl Summed for UInt64Type {
    #[inline]
    fn add(a: u64, b: u64) -> (u64, i32) {
        let (sum, passed) = a.overflowing_add(b);
        (sum, i32::from(passed))
    }
}

/// The sum of a group does not fit its type.
#[derive(Debug)]
pub(super) struct SumOverflow {
    pub(super) group: usize,
    pub(super) data_type: DataType,
}

impl fmt::Display for SumOverflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the sum does not fit {}", self.data_type)
    }
}

impl std::error::Error for SumOverflow {}

/// The columns of a state.
pub(super) fn exact_sum_states(data_type: DataType) -> Vec<FieldRef> {
    vec![
        Arc::new(Field::new("sum", data_type, true)),
        Arc::new(Field::new("carry", DataType::Int32, true)),
    ]
}

/// The sums of many groups; null for a group without a value.
pub(super) struct ExactSum<T: Summed> {
    low: Vec<T::Native>,
    /// Empty while all are 0.
    carry: Vec<i32>,
    /// Which groups have a value; `None` while all have.
    seen: Option<Vec<bool>>,
}

impl<T: Summed> Default for ExactSum<T> {
    fn default() -> Self {
        Self {
            low: Vec::new(),
            carry: Vec::new(),
            seen: None,
        }
    }
}

impl<T: Summed> ExactSum<T> {
    fn grow(&mut self, n_groups: usize, all_seen: bool) {
        if !all_seen && self.seen.is_none() {
            self.seen = Some(vec![true; self.low.len()]);
        }
        self.low.resize(n_groups, T::Native::ZERO);
        if let Some(seen) = &mut self.seen {
            seen.resize(n_groups, false);
        }
        if !self.carry.is_empty() {
            self.carry.resize(n_groups, 0);
        }
    }

    #[inline]
    fn add(&mut self, group: usize, value: T::Native) {
        let low = &mut self.low[group];
        let (sum, passed) = T::add(*low, value);
        *low = sum;
        if passed != 0 {
            self.add_carry(group, passed);
        }
    }

    #[cold]
    fn add_carry(&mut self, group: usize, carry: i32) {
        self.carry.resize(self.low.len(), 0);
        self.carry[group] += carry;
    }

    fn add_all(
        &mut self,
        values: &PrimitiveArray<T>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        n_groups: usize,
    ) {
        // A new group has a row here, and so a value if every row has.
        let all = values.null_count() == 0 && filter.is_none();
        self.grow(n_groups, all && !groups.is_empty());
        if all && self.seen.is_none() {
            for (&group, &value) in groups.iter().zip(values.values()) {
                self.add(group, value);
            }
            return;
        }
        let mut seen = self.seen.take().unwrap_or_default();
        for (row, (&group, &value)) in groups.iter().zip(values.values()).enumerate() {
            let taken = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if taken && values.is_valid(row) {
                self.add(group, value);
                seen[group] = true;
            }
        }
        self.seen = Some(seen);
    }

    /// The sums of the first groups, their carries, and which have a value; the others move up.
    fn take(&mut self, emit: EmitTo) -> (PrimitiveArray<T>, Vec<i32>) {
        let low = emit.take_needed(&mut self.low);
        let carry = if self.carry.is_empty() {
            Vec::new()
        } else {
            emit.take_needed(&mut self.carry)
        };
        let nulls = self
            .seen
            .as_mut()
            .map(|s| NullBuffer::from(emit.take_needed(s)));
        if self.low.is_empty() {
            self.seen = None;
        }
        (PrimitiveArray::new(low.into(), nulls), carry)
    }
}

impl<T: Summed> GroupsAccumulator for ExactSum<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        n_groups: usize,
    ) -> Result<()> {
        self.add_all(values[0].as_primitive::<T>(), groups, filter, n_groups);
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        n_groups: usize,
    ) -> Result<()> {
        self.add_all(values[0].as_primitive::<T>(), groups, None, n_groups);
        for (&group, &carry) in groups
            .iter()
            .zip(values[1].as_primitive::<Int32Type>().values())
        {
            if carry != 0 {
                self.add_carry(group, carry);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (sums, carry) = self.take(emit);
        match carry.iter().position(|c| *c != 0) {
            None => Ok(Arc::new(sums)),
            Some(group) => Err(DataFusionError::External(Box::new(SumOverflow {
                group,
                data_type: T::DATA_TYPE,
            }))),
        }
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, mut carry) = self.take(emit);
        carry.resize(sums.len(), 0);
        Ok(vec![Arc::new(sums), Arc::new(Int32Array::from(carry))])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let sums = match filter {
            None => Arc::clone(&values[0]),
            Some(filter) => {
                arrow::compute::nullif(&values[0], &arrow::compute::not(&null_as_false(filter))?)?
            }
        };
        let carry = Int32Array::from(vec![0; sums.len()]);
        Ok(vec![sums, Arc::new(carry)])
    }

    fn size(&self) -> usize {
        self.low.capacity() * size_of::<T::Native>()
            + self.carry.capacity() * size_of::<i32>()
            + self.seen.as_ref().map_or(0, Vec::capacity)
    }
}
