//! The accumulators of an aggregate: DataFusion's, but for sums that are exact, which must not wrap, and for least and
//! greatest floats, which must not depend on the order of the rows.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion_common::Result;
use datafusion_expr::GroupsAccumulator;
use datafusion_physical_expr::GroupsAccumulatorAdapter;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use super::changing::End;
use super::exact_sum::{SumOfDistinct, exact_sum, exact_sum_states, has_exact_sum};
use super::float_ends::float_ends;

/// How the values of many groups are accumulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AggregateKind {
    /// DataFusion's accumulator of many groups.
    Groups,
    /// DataFusion's accumulator of one group, one for each: slow where there are many.
    OneByOne,
    /// A sum of integers, decimals or durations that notices an overflow.
    ExactSum,
    /// Of all distinct values.
    ExactSumOfDistinct,
    /// The least or the greatest float.
    FloatEnd(End),
}

impl AggregateKind {
    pub(super) fn of(function: &AggregateFunctionExpr) -> Result<Self> {
        let field = function.field();
        let data_type = field.data_type();
        match function.fun().name() {
            "sum" if has_exact_sum(data_type) => {
                return Ok(match function.is_distinct() {
                    true => Self::ExactSumOfDistinct,
                    false => Self::ExactSum,
                });
            }
            "min" if data_type.is_floating() => return Ok(Self::FloatEnd(End::Least)),
            "max" if data_type.is_floating() => return Ok(Self::FloatEnd(End::Greatest)),
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
            Self::OneByOne => Ok(Box::new(one_by_one(function))),
            Self::ExactSum => exact_sum(function.field().data_type()),
            Self::ExactSumOfDistinct => Ok(Box::new(SumOfDistinct::new(
                one_by_one(function),
                function.field().data_type(),
            ))),
            Self::FloatEnd(end) => float_ends(end, function.field().data_type()),
        }
    }

    pub(super) fn state_fields(self, function: &AggregateFunctionExpr) -> Result<Vec<FieldRef>> {
        match self {
            Self::ExactSum => Ok(exact_sum_states(function.field().data_type())),
            Self::Groups | Self::OneByOne | Self::ExactSumOfDistinct | Self::FloatEnd(_) => {
                function.state_fields()
            }
        }
    }

    /// True if a row becomes a state of its own at little cost.
    pub(super) fn converts_rows(self) -> bool {
        !matches!(self, Self::OneByOne | Self::ExactSumOfDistinct)
    }
}

/// DataFusion's accumulators of one group, one for each.
fn one_by_one(function: &Arc<AggregateFunctionExpr>) -> GroupsAccumulatorAdapter {
    let function = Arc::clone(function);
    GroupsAccumulatorAdapter::new(move || function.create_accumulator())
}
