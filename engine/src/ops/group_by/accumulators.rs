//! The accumulators of an aggregate: DataFusion's, but for sums of integers, which must not wrap, and for least and
//! greatest floats, which must not depend on the order of the rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Int64Type, UInt64Type};
use datafusion_common::Result;
use datafusion_expr::GroupsAccumulator;
use datafusion_physical_expr::GroupsAccumulatorAdapter;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use super::changing::End;
use super::exact_sum::{ExactSum, exact_sum_states};
use super::float_ends::float_ends;

/// How the values of many groups are accumulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AggregateKind {
    /// DataFusion's accumulator of many groups.
    Groups,
    /// DataFusion's accumulator of one group, one for each: slow where there are many.
    OneByOne,
    /// A sum of Int64 that notices an overflow.
    SumOfInt64,
    /// A sum of UInt64 that notices an overflow.
    SumOfUInt64,
    /// The least or the greatest float.
    FloatEnd(End),
}

impl AggregateKind {
    pub(super) fn of(function: &AggregateFunctionExpr) -> Result<Self> {
        if function.fun().name() == "sum" && !function.is_distinct() {
            match function.field().data_type() {
                DataType::Int64 => return Ok(Self::SumOfInt64),
                DataType::UInt64 => return Ok(Self::SumOfUInt64),
                _ => {}
            }
        }
        match function.fun().name() {
            "min" if function.field().data_type().is_floating() => {
                return Ok(Self::FloatEnd(End::Least));
            }
            "max" if function.field().data_type().is_floating() => {
                return Ok(Self::FloatEnd(End::Greatest));
            }
            _ => {}
        }
        if function.groups_accumulator_supported() {
            return Ok(Self::Groups);
        }
        function.create_accumulator().map(|_| Self::OneByOne)
    }

    pub(super) fn create(
        self,
        function: &Arc<AggregateFunctionExpr>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        match self {
            Self::Groups => function.create_groups_accumulator(),
            Self::OneByOne => {
                let function = Arc::clone(function);
                let factory = move || function.create_accumulator();
                Ok(Box::new(GroupsAccumulatorAdapter::new(factory)))
            }
            Self::SumOfInt64 => Ok(Box::new(ExactSum::<Int64Type>::default())),
            Self::SumOfUInt64 => Ok(Box::new(ExactSum::<UInt64Type>::default())),
            Self::FloatEnd(end) => float_ends(end, function.field().data_type()),
        }
    }

    pub(super) fn state_fields(self, function: &AggregateFunctionExpr) -> Result<Vec<FieldRef>> {
        match self {
            Self::Groups | Self::OneByOne | Self::FloatEnd(_) => function.state_fields(),
            Self::SumOfInt64 => Ok(exact_sum_states(DataType::Int64)),
            Self::SumOfUInt64 => Ok(exact_sum_states(DataType::UInt64)),
        }
    }

    /// True if a row becomes a state of its own at little cost.
    pub(super) fn converts_rows(self) -> bool {
        self != Self::OneByOne
    }
}
