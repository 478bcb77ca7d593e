//! An aggregate from which rows can be taken back.

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::DataType;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use std::sync::Arc;

use super::distinct_count::DistinctCount;
use super::extreme::{End, Extreme};
use super::first::First;
use super::sum::{Average, FloatSum, IntegerSum};
use crate::error::{Error, Result};
use crate::ops::group_by::exact_sum::SumOverflow;
use crate::ops::group_by::first_rows::n_rows_of_changes;
use crate::ops::group_by::planned::Planned;
use crate::ops::group_by::table::too_large;
use crate::ops::rows_by_time::Run;

/// The rows of many runs, as one aggregate reads them.
pub(in crate::ops::group_by) struct Changed<'a> {
    pub(in crate::ops::group_by) runs: &'a [Run],
    pub(in crate::ops::group_by) values: &'a ArrayRef,
    pub(in crate::ops::group_by) taken: Option<&'a BooleanArray>,
    pub(in crate::ops::group_by) diffs: &'a [i8],
}

impl Changed<'_> {
    /// By how much row `row` changes how often its value is there; 0 where it is none.
    #[inline]
    pub(super) fn weight(&self, row: usize) -> i64 {
        let is_taken = self.taken.is_none_or(|t| t.is_valid(row) && t.value(row));
        match is_taken && self.values.is_valid(row) {
            true => i64::from(self.diffs[row]),
            false => 0,
        }
    }
}

/// Why an aggregate cannot go on.
#[derive(Debug)]
pub(in crate::ops::group_by) enum Misfit {
    /// The sum of a group does not fit its type.
    Sum(SumOverflow),
    Other(Error),
}

impl<E: Into<Error>> From<E> for Misfit {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl Misfit {
    /// The error of aggregate `n`, where `show` says which group a number is of.
    pub(in crate::ops::group_by) fn named(
        self,
        planned: &Planned,
        n: usize,
        show: impl FnOnce(usize) -> Option<String>,
    ) -> Error {
        match self {
            Self::Sum(overflow) => {
                let group = show(overflow.group);
                too_large(planned, n, &overflow, group)
            }
            Self::Other(error) => error,
        }
    }
}

/// An aggregate of many groups from which rows can be taken back.
pub(in crate::ops::group_by) trait Retractable: Send {
    /// Makes room for groups up to this number.
    fn grow(&mut self, n_groups: usize);

    /// Takes in the rows of all runs in order; the values of each run's group before it and after it.
    ///
    /// # Errors
    /// If a result does not fit its type.
    fn change(&mut self, changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef), Misfit>;

    /// Takes in the rows of all runs, which need not be all there are: a row that is taken back may come before
    /// the one that adds it.
    ///
    /// # Errors
    /// If what is kept does not fit its type.
    fn add(&mut self, changed: &Changed<'_>) -> Result<(), Misfit>;

    /// The values of these groups.
    ///
    /// # Errors
    /// If a result does not fit its type.
    fn values(&self, groups: &[usize]) -> Result<ArrayRef, Misfit>;

    /// True if some row of the group, which has so many, was taken back that was never added, as far as can be told
    /// of its values.
    fn is_unsound(&self, group: usize, n_rows: i64) -> bool;

    /// The state as rows, each with the group that it belongs to.
    ///
    /// # Errors
    /// If it cannot be written.
    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)>;

    /// Adds to the state what [`Retractable::state`] gave, for these groups.
    ///
    /// # Errors
    /// If the columns are others.
    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()>;

    /// Keeps these groups, in this order, and forgets all others.
    fn keep(&mut self, groups: &[usize]);

    /// How many bytes of memory it keeps, about.
    fn n_bytes(&self) -> usize;
}

/// How an aggregate is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Retraction {
    Count,
    DistinctCount(DataType),
    IntegerSum(DataType),
    FloatSum,
    Average,
    Extreme(End, DataType),
    /// So many first rows, of structs.
    First(usize, DataType),
}

impl Retraction {
    /// The kind of `function` over values of type `argument`; `None` where rows cannot be taken back from it.
    pub(super) fn of(function: &AggregateFunctionExpr, argument: &DataType) -> Option<Self> {
        let result = function.field().data_type().clone();
        if let Some(n_rows) = n_rows_of_changes(function) {
            return Some(Self::First(n_rows, argument.clone()));
        }
        Some(match (function.fun().name(), function.is_distinct()) {
            ("count", false) => Self::Count,
            ("count", true) => Self::DistinctCount(argument.clone()),
            ("sum", false) => match result {
                DataType::Int64 | DataType::UInt64 | DataType::Decimal128(_, _)
                    if same_numbers(argument, &result) =>
                {
                    Self::IntegerSum(result)
                }
                DataType::Float64 if *argument == DataType::Float64 => Self::FloatSum,
                _ => return None,
            },
            ("avg", false) if *argument == DataType::Float64 => Self::Average,
            ("min", _) => Self::Extreme(End::Least, argument.clone()),
            ("max", _) => Self::Extreme(End::Greatest, argument.clone()),
            _ => return None,
        })
    }

    pub(in crate::ops::group_by) fn create(&self) -> Result<Box<dyn Retractable>> {
        Ok(match self {
            Self::Count => Box::new(Count::default()),
            Self::DistinctCount(of) => Box::new(DistinctCount::new(of)?),
            Self::IntegerSum(of) => Box::new(IntegerSum::new(of.clone())),
            Self::FloatSum => Box::new(FloatSum::default()),
            Self::Average => Box::new(Average::default()),
            Self::Extreme(end, of) => Box::new(Extreme::new(*end, of)?),
            Self::First(n_rows, of) => Box::new(First::new(*n_rows, of)?),
        })
    }
}

/// True if the sum of `argument` is kept in units of `result`.
fn same_numbers(argument: &DataType, result: &DataType) -> bool {
    match (argument, result) {
        (DataType::Decimal128(_, a), DataType::Decimal128(_, b)) => a == b,
        _ => argument == result,
    }
}

/// A column of state.
pub(in crate::ops::group_by) fn column<T: 'static>(state: &[ArrayRef], n: usize) -> Result<&T> {
    state
        .get(n)
        .and_then(|column| column.as_any().downcast_ref::<T>())
        .ok_or_else(|| Error::bug("the state of an aggregate has other columns"))
}

/// The values of the groups that are kept, in their new order.
pub(super) fn kept<T: Clone>(values: &[T], groups: &[usize]) -> Vec<T> {
    groups.iter().map(|g| values[*g].clone()).collect()
}

/// How many values there are.
#[derive(Default)]
pub(super) struct Count {
    n: Vec<i64>,
}

impl Retractable for Count {
    fn grow(&mut self, n_groups: usize) {
        self.n.resize(n_groups, 0);
    }

    fn change(&mut self, changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef), Misfit> {
        let mut before = Vec::with_capacity(changed.runs.len());
        let mut after = Vec::with_capacity(changed.runs.len());
        for run in changed.runs {
            let n = &mut self.n[run.group];
            before.push(*n);
            *n += run.rows.clone().map(|row| changed.weight(row)).sum::<i64>();
            after.push(*n);
        }
        Ok((
            Arc::new(Int64Array::from(before)),
            Arc::new(Int64Array::from(after)),
        ))
    }

    fn add(&mut self, changed: &Changed<'_>) -> Result<(), Misfit> {
        for run in changed.runs {
            self.n[run.group] += run.rows.clone().map(|row| changed.weight(row)).sum::<i64>();
        }
        Ok(())
    }

    fn values(&self, groups: &[usize]) -> Result<ArrayRef, Misfit> {
        Ok(Arc::new(Int64Array::from(kept(&self.n, groups))))
    }

    fn is_unsound(&self, group: usize, n_rows: i64) -> bool {
        !(0..=n_rows).contains(&self.n[group])
    }

    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        let n = Arc::new(Int64Array::from(self.n.clone()));
        Ok(((0..self.n.len()).collect(), vec![n]))
    }

    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()> {
        let n: &Int64Array = column(state, 0)?;
        for (group, n) in groups.iter().zip(n.values()) {
            self.n[*group] += n;
        }
        Ok(())
    }

    fn keep(&mut self, groups: &[usize]) {
        self.n = kept(&self.n, groups);
    }

    fn n_bytes(&self) -> usize {
        self.n.capacity() * size_of::<i64>()
    }
}
