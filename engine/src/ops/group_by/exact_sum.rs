//! Sums of integers, decimals and durations that are exact whatever the order, and that notice where the result does
//! not fit.
//!
//! A sum is kept as `low + carry * 2^bits`. A sum on the way may pass the ends of the type: only the result
//! counts, so that the outcome does not depend on how rows were dealt to workers.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, Int32Array, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{not, nullif};
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type,
    Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Field, FieldRef, Int32Type, Int64Type, TimeUnit, UInt64Type, i256,
};
use datafusion_common::{DataFusionError, Result, internal_datafusion_err};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr::GroupsAccumulatorAdapter;

use crate::expression::null_as_false;

/// An integer whose sums are exact.
pub(super) trait Summed: ArrowNativeTypeOp {
    /// The sum modulo the size of the type, and how often it passed the upper (1) or lower (-1) end.
    fn add(self, other: Self) -> (Self, i32);
}

macro_rules! summed {
    ($($native:ty),*) => {
        $(impl Summed for $native {
            #[inline]
            fn add(self, other: Self) -> (Self, i32) {
                let (sum, passed) = self.overflowing_add(other);
                let end = if other < <$native>::default() { -1 } else { 1 };
                (sum, if passed { end } else { 0 })
            }
        })*
    };
}

summed!(i32, i64, u64, i128);

impl Summed for i256 {
    #[inline]
    fn add(self, other: Self) -> (Self, i32) {
        let end = if other.is_negative() { -1 } else { 1 };
        match self.checked_add(other) {
            Some(sum) => (sum, 0),
            None => (self.wrapping_add(other), end),
        }
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

/// What to do where a sum of this type does not fit.
pub(super) fn wider_sum(data_type: &DataType) -> &'static str {
    match data_type.is_decimal() {
        true => "Cast the values to Float64 or to a decimal of more digits before they are summed.",
        false => "Cast the values to Float64 or to a decimal before they are summed.",
    }
}

/// The columns of a state.
pub(super) fn exact_sum_states(data_type: &DataType) -> Vec<FieldRef> {
    vec![
        Arc::new(Field::new("sum", data_type.clone(), true)),
        Arc::new(Field::new("carry", DataType::Int32, true)),
    ]
}

/// True if sums of this type are exact.
pub(super) fn has_exact_sum(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int64 | DataType::UInt64 | DataType::Duration(_)
    ) || data_type.is_decimal()
}

/// The accumulator of sums of this type, which are exact.
pub(super) fn exact_sum(data_type: &DataType) -> Result<Box<dyn GroupsAccumulator>> {
    macro_rules! of {
        ($primitive:ty) => {
            Ok(Box::new(ExactSum::<$primitive>::new(data_type)))
        };
    }
    match data_type {
        DataType::Int64 => of!(Int64Type),
        DataType::UInt64 => of!(UInt64Type),
        DataType::Decimal32(..) => of!(Decimal32Type),
        DataType::Decimal64(..) => of!(Decimal64Type),
        DataType::Decimal128(..) => of!(Decimal128Type),
        DataType::Decimal256(..) => of!(Decimal256Type),
        DataType::Duration(TimeUnit::Second) => of!(DurationSecondType),
        DataType::Duration(TimeUnit::Millisecond) => of!(DurationMillisecondType),
        DataType::Duration(TimeUnit::Microsecond) => of!(DurationMicrosecondType),
        DataType::Duration(TimeUnit::Nanosecond) => of!(DurationNanosecondType),
        other => Err(internal_datafusion_err!("a sum of {other} is not exact")),
    }
}

/// The sums of many groups; null for a group without a value.
struct ExactSum<T: ArrowPrimitiveType> {
    data_type: DataType,
    /// Of a decimal, the least number of more digits than it has.
    end: Option<T::Native>,
    low: Vec<T::Native>,
    /// Empty while all are 0.
    carry: Vec<i32>,
    /// Which groups have a value; `None` while all have.
    seen: Option<Vec<bool>>,
}

impl<T: ArrowPrimitiveType<Native: Summed>> ExactSum<T> {
    fn new(data_type: &DataType) -> Self {
        let digits = match data_type {
            DataType::Decimal32(digits, _)
            | DataType::Decimal64(digits, _)
            | DataType::Decimal128(digits, _)
            | DataType::Decimal256(digits, _) => Some(u32::from(*digits)),
            _ => None,
        };
        Self {
            data_type: data_type.clone(),
            end: digits.map(|digits| T::Native::usize_as(10).pow_wrapping(digits)),
            low: Vec::new(),
            carry: Vec::new(),
            seen: None,
        }
    }

    /// The group whose sum is the first that does not fit.
    fn misfit(&self, sums: &PrimitiveArray<T>, carry: &[i32]) -> Option<usize> {
        let passed = carry.iter().position(|c| *c != 0);
        let too_long = self.end.and_then(|end| {
            let least = T::Native::ZERO.sub_wrapping(end);
            let mut sums = sums.values().iter();
            sums.position(|sum| sum.is_ge(end) || sum.is_le(least))
        });
        passed.into_iter().chain(too_long).min()
    }

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
        let (sum, passed) = Summed::add(*low, value);
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
        let sums = PrimitiveArray::new(low.into(), nulls);
        (sums.with_data_type(self.data_type.clone()), carry)
    }
}

impl<T: ArrowPrimitiveType<Native: Summed>> GroupsAccumulator for ExactSum<T> {
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
        match self.misfit(&sums, &carry) {
            None => Ok(Arc::new(sums)),
            Some(group) => Err(DataFusionError::External(Box::new(SumOverflow {
                group,
                data_type: self.data_type.clone(),
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
        // A sum has more digits than its values.
        let sums = values[0].as_primitive::<T>().clone();
        let sums: ArrayRef = Arc::new(sums.with_data_type(self.data_type.clone()));
        let sums = match filter {
            None => sums,
            Some(filter) => nullif(&sums, &not(&null_as_false(filter))?)?,
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

/// The sums of the distinct values of many groups, which DataFusion holds apart.
pub(super) struct SumOfDistinct {
    values: GroupsAccumulatorAdapter,
    data_type: DataType,
}

impl SumOfDistinct {
    pub(super) fn new(values: GroupsAccumulatorAdapter, data_type: &DataType) -> Self {
        Self {
            values,
            data_type: data_type.clone(),
        }
    }
}

impl GroupsAccumulator for SumOfDistinct {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        n_groups: usize,
    ) -> Result<()> {
        self.values.update_batch(values, groups, filter, n_groups)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        n_groups: usize,
    ) -> Result<()> {
        self.values.merge_batch(values, groups, n_groups)
    }

    /// DataFusion's own sum of them would wrap.
    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let state = self.values.state(emit)?;
        let values = state.first().and_then(|state| state.as_list_opt::<i32>());
        let values = values
            .ok_or_else(|| internal_datafusion_err!("distinct values are not kept as a list"))?;
        let mut groups = Vec::with_capacity(values.values().len());
        let (first, last) = (
            values.value_offsets()[0],
            values.value_offsets()[values.len()],
        );
        for group in 0..values.len() {
            let n = values.value_length(group);
            groups.extend(std::iter::repeat_n(group, n.as_usize()));
        }
        let (first, n) = (first.as_usize(), (last - first).as_usize());
        let all = values.values().slice(first, n);
        let mut sums = exact_sum(&self.data_type)?;
        // By a filter, since there are groups without a value.
        let taken = BooleanArray::from(vec![true; n]);
        sums.update_batch(&[all], &groups, Some(&taken), values.len())?;
        sums.evaluate(EmitTo::All)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.values.state(emit)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.values.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.values.size()
    }
}
