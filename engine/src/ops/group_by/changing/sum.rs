//! Sums and means from which rows can be taken back.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type,
};

use super::aggregate::{Changed, Misfit, Retractable, column, kept};
use crate::error::{Error, Result};
use crate::ops::group_by::exact_sum::SumOverflow;
use crate::ops::rows_by_time::Run;

/// Sums of integers and decimals, exact whatever the order.
pub(super) struct IntegerSum {
    data_type: DataType,
    /// A sum on the way may pass the ends of the type: only what leaves must fit.
    sums: Vec<i128>,
    n: Vec<i64>,
}

impl IntegerSum {
    pub(super) fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            sums: Vec::new(),
            n: Vec::new(),
        }
    }

    /// Takes in the rows of all runs, and tells of each group before and after each of its runs.
    fn add_values(
        &mut self,
        changed: &Changed<'_>,
        value: impl Fn(usize) -> i128,
        mut tell: impl FnMut(Option<i128>),
    ) -> Result<(), Misfit> {
        for run in changed.runs {
            let (sum, n) = (&mut self.sums[run.group], &mut self.n[run.group]);
            tell((*n != 0).then_some(*sum));
            for row in run.rows.clone() {
                let weight = changed.weight(row);
                if weight != 0 {
                    *sum = value(row)
                        .checked_mul(i128::from(weight))
                        .and_then(|value| sum.checked_add(value))
                        .ok_or_else(|| too_large(&self.data_type, run.group))?;
                    *n += weight;
                }
            }
            tell((*n != 0).then_some(*sum));
        }
        Ok(())
    }

    fn add_all(
        &mut self,
        changed: &Changed<'_>,
        tell: impl FnMut(Option<i128>),
    ) -> Result<(), Misfit> {
        match &self.data_type {
            DataType::Int64 => {
                let values = changed.values.as_primitive::<Int64Type>().values();
                self.add_values(changed, |row| i128::from(values[row]), tell)
            }
            DataType::UInt64 => {
                let values = changed.values.as_primitive::<UInt64Type>().values();
                self.add_values(changed, |row| i128::from(values[row]), tell)
            }
            _ => {
                let values = changed.values.as_primitive::<Decimal128Type>().values();
                self.add_values(changed, |row| values[row], tell)
            }
        }
    }

    /// The sums as they leave; `group_of` says of which group each is.
    fn array(
        &self,
        sums: Vec<Option<i128>>,
        group_of: impl Fn(usize) -> usize,
    ) -> Result<ArrayRef, Misfit> {
        let (least, greatest) = match &self.data_type {
            DataType::Int64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
            DataType::UInt64 => (0, i128::from(u64::MAX)),
            DataType::Decimal128(precision, _) => {
                let digits = u32::from((*precision).min(DECIMAL128_MAX_PRECISION));
                let greatest = 10_i128.pow(digits) - 1;
                (-greatest, greatest)
            }
            other => {
                return Err(Error::bug(format!("a sum of {other} is kept as integers")).into());
            }
        };
        let fits = |sum: &Option<i128>| sum.is_none_or(|sum| (least..=greatest).contains(&sum));
        if let Some(n) = sums.iter().position(|sum| !fits(sum)) {
            return Err(too_large(&self.data_type, group_of(n)));
        }
        Ok(match &self.data_type {
            DataType::Int64 => {
                let sums = sums
                    .into_iter()
                    .map(|sum| sum.and_then(|s| i64::try_from(s).ok()));
                Arc::new(sums.collect::<Int64Array>())
            }
            DataType::UInt64 => {
                let sums = sums
                    .into_iter()
                    .map(|sum| sum.and_then(|s| u64::try_from(s).ok()));
                Arc::new(sums.collect::<UInt64Array>())
            }
            of => Arc::new(Decimal128Array::from(sums).with_data_type(of.clone())),
        })
    }
}

fn too_large(data_type: &DataType, group: usize) -> Misfit {
    Misfit::Sum(SumOverflow {
        group,
        data_type: data_type.clone(),
    })
}

/// What each run's group had before it and has after it; `None` is null.
struct Pairs<T> {
    before: Vec<Option<T>>,
    after: Vec<Option<T>>,
}

impl<T> Pairs<T> {
    fn with_capacity(n: usize) -> Self {
        Self {
            before: Vec::with_capacity(n),
            after: Vec::with_capacity(n),
        }
    }

    /// What comes is in turn what was before and what is after.
    fn push(&mut self, value: Option<T>) {
        match self.before.len() == self.after.len() {
            true => self.before.push(value),
            false => self.after.push(value),
        }
    }
}

impl Retractable for IntegerSum {
    fn grow(&mut self, n_groups: usize) {
        self.sums.resize(n_groups, 0);
        self.n.resize(n_groups, 0);
    }

    fn change(&mut self, changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef), Misfit> {
        let mut pairs = Pairs::with_capacity(changed.runs.len());
        self.add_all(changed, |sum| pairs.push(sum))?;
        let of_run = |n: usize| changed.runs.get(n).map_or(0, |run: &Run| run.group);
        Ok((
            self.array(pairs.before, of_run)?,
            self.array(pairs.after, of_run)?,
        ))
    }

    fn add(&mut self, changed: &Changed<'_>) -> Result<(), Misfit> {
        self.add_all(changed, |_| {})
    }

    fn values(&self, groups: &[usize]) -> Result<ArrayRef, Misfit> {
        let sum = |group: &usize| (self.n[*group] != 0).then_some(self.sums[*group]);
        let all = groups.iter().map(sum).collect();
        self.array(all, |n| groups.get(n).copied().unwrap_or_default())
    }

    fn is_unsound(&self, group: usize, n_rows: i64) -> bool {
        let n = self.n[group];
        !(0..=n_rows).contains(&n) || (n == 0 && self.sums[group] != 0)
    }

    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        // Halves, since 128 bits of a sum on the way are more than a decimal holds.
        let high = self
            .sums
            .iter()
            .map(|s| i64::try_from(s >> 64).unwrap_or(0));
        let low = self.sums.iter().map(|s| low_half(*s));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(high)),
            Arc::new(UInt64Array::from_iter_values(low)),
            Arc::new(Int64Array::from(self.n.clone())),
        ];
        Ok(((0..self.n.len()).collect(), columns))
    }

    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()> {
        let high: &Int64Array = column(state, 0)?;
        let low: &UInt64Array = column(state, 1)?;
        let n: &Int64Array = column(state, 2)?;
        for (row, &group) in groups.iter().enumerate() {
            self.sums[group] += (i128::from(high.value(row)) << 64) + i128::from(low.value(row));
            self.n[group] += n.value(row);
        }
        Ok(())
    }

    fn keep(&mut self, groups: &[usize]) {
        self.sums = kept(&self.sums, groups);
        self.n = kept(&self.n, groups);
    }

    fn n_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.n.capacity() * size_of::<i64>()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low half"
)]
fn low_half(sum: i128) -> u64 {
    sum as u64
}

/// One sum of floats, with what was lost by rounding, and with what is no number counted apart.
///
/// Without the count an infinity that is taken back would leave NaN for ever.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    sum: f64,
    lost: f64,
    /// Values that are there, those that are no number included.
    n: i64,
    n_nan: i64,
    n_positive: i64,
    n_negative: i64,
    /// A number for each finite value, as often as it is there: where no value is, 0.
    ///
    /// Where a row is taken back before it is added, there may be no values by their count, and a sum all the same.
    fingerprint: u64,
}

impl Sum {
    fn add(&mut self, value: f64, weight: i64) {
        self.n += weight;
        if value.is_finite() {
            let times = weight.cast_unsigned();
            let of_value = fingerprint(value).wrapping_mul(times);
            self.fingerprint = self.fingerprint.wrapping_add(of_value);
            self.add_finite(value * f64::from(i8::try_from(weight).unwrap_or(0)));
        } else if value.is_nan() {
            self.n_nan += weight;
        } else if value > 0.0 {
            self.n_positive += weight;
        } else {
            self.n_negative += weight;
        }
    }

    /// Forgets what rounding has left where no value is there. Not before all changes of an instant are in:
    /// what is taken back may come before what it was.
    fn settle(&mut self) {
        if self.n == 0 && self.fingerprint == 0 {
            (self.sum, self.lost) = (0.0, 0.0);
        }
    }

    /// Neumaier's summation.
    fn add_finite(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += match self.sum.abs() >= value.abs() {
            true => (self.sum - sum) + value,
            false => (value - sum) + self.sum,
        };
        self.sum = sum;
    }

    fn value(&self) -> Option<f64> {
        let (positive, negative) = (self.n_positive > 0, self.n_negative > 0);
        let value = match (self.n_nan > 0, positive, negative) {
            (true, _, _) | (_, true, true) => f64::NAN,
            (_, true, _) => f64::INFINITY,
            (_, _, true) => f64::NEG_INFINITY,
            _ => self.sum + self.lost,
        };
        (self.n != 0).then_some(value)
    }

    fn mean(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a mean is a float")]
        let n = self.n as f64;
        self.value().map(|sum| sum / n)
    }
}

/// A number for a value, the bits of which depend on all of its bits: the last step of SplitMix64.
fn fingerprint(value: f64) -> u64 {
    // Both zeros are one value.
    let mut bits = (value + 0.0).to_bits() ^ 0x9e37_79b9_7f4a_7c15;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Sums of floats.
#[derive(Default)]
pub(super) struct FloatSum {
    sums: Vec<Sum>,
}

impl FloatSum {
    fn change_to(
        &mut self,
        changed: &Changed<'_>,
        result: impl Fn(&Sum) -> Option<f64>,
    ) -> (ArrayRef, ArrayRef) {
        let mut pairs = Pairs::with_capacity(changed.runs.len());
        self.add_all(changed, |sum, is_after| {
            if is_after {
                sum.settle();
            }
            pairs.push(result(sum));
        });
        (
            Arc::new(Float64Array::from(pairs.before)),
            Arc::new(Float64Array::from(pairs.after)),
        )
    }

    /// Takes in the rows of all runs, and tells of each group before and after each of its runs.
    fn add_all(&mut self, changed: &Changed<'_>, mut tell: impl FnMut(&mut Sum, bool)) {
        let values = changed.values.as_primitive::<Float64Type>().values();
        for run in changed.runs {
            let sum = &mut self.sums[run.group];
            tell(sum, false);
            for row in run.rows.clone() {
                let weight = changed.weight(row);
                if weight != 0 {
                    sum.add(values[row], weight);
                }
            }
            tell(sum, true);
        }
    }

    fn values_of(&self, groups: &[usize], result: impl Fn(&Sum) -> Option<f64>) -> ArrayRef {
        let values = groups.iter().map(|group| result(&self.sums[*group]));
        Arc::new(values.collect::<Float64Array>())
    }
}

impl Retractable for FloatSum {
    fn grow(&mut self, n_groups: usize) {
        self.sums.resize(n_groups, Sum::default());
    }

    fn change(&mut self, changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef), Misfit> {
        Ok(self.change_to(changed, Sum::value))
    }

    fn add(&mut self, changed: &Changed<'_>) -> Result<(), Misfit> {
        self.add_all(changed, |_, _| {});
        Ok(())
    }

    fn values(&self, groups: &[usize]) -> Result<ArrayRef, Misfit> {
        Ok(self.values_of(groups, Sum::value))
    }

    fn is_unsound(&self, group: usize, n_rows: i64) -> bool {
        let sum = &self.sums[group];
        let is_none_of = |n: i64| n < 0;
        !(0..=n_rows).contains(&sum.n)
            || [sum.n_nan, sum.n_positive, sum.n_negative]
                .into_iter()
                .any(is_none_of)
            || (sum.n == 0 && sum.fingerprint != 0)
    }

    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        let floats = |of: fn(&Sum) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(self.sums.iter().map(of)))
        };
        let counts = |of: fn(&Sum) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(self.sums.iter().map(of)))
        };
        let columns = vec![
            floats(|s| s.sum),
            floats(|s| s.lost),
            counts(|s| s.n),
            counts(|s| s.n_nan),
            counts(|s| s.n_positive),
            counts(|s| s.n_negative),
            counts(|s| s.fingerprint.cast_signed()),
        ];
        Ok(((0..self.sums.len()).collect(), columns))
    }

    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()> {
        let (sums, lost): (&Float64Array, &Float64Array) = (column(state, 0)?, column(state, 1)?);
        let n: &Int64Array = column(state, 2)?;
        let nan: &Int64Array = column(state, 3)?;
        let positive: &Int64Array = column(state, 4)?;
        let negative: &Int64Array = column(state, 5)?;
        let fingerprints: &Int64Array = column(state, 6)?;
        for (row, &group) in groups.iter().enumerate() {
            let sum = &mut self.sums[group];
            sum.add_finite(sums.value(row));
            sum.lost += lost.value(row);
            sum.n += n.value(row);
            sum.n_nan += nan.value(row);
            sum.n_positive += positive.value(row);
            sum.n_negative += negative.value(row);
            let of_row = fingerprints.value(row).cast_unsigned();
            sum.fingerprint = sum.fingerprint.wrapping_add(of_row);
        }
        Ok(())
    }

    fn keep(&mut self, groups: &[usize]) {
        self.sums = kept(&self.sums, groups);
    }

    fn n_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<Sum>()
    }
}

/// Means of floats.
#[derive(Default)]
pub(super) struct Average {
    sums: FloatSum,
}

impl Retractable for Average {
    fn grow(&mut self, n_groups: usize) {
        self.sums.grow(n_groups);
    }

    fn change(&mut self, changed: &Changed<'_>) -> Result<(ArrayRef, ArrayRef), Misfit> {
        Ok(self.sums.change_to(changed, Sum::mean))
    }

    fn add(&mut self, changed: &Changed<'_>) -> Result<(), Misfit> {
        self.sums.add(changed)
    }

    fn values(&self, groups: &[usize]) -> Result<ArrayRef, Misfit> {
        Ok(self.sums.values_of(groups, Sum::mean))
    }

    fn is_unsound(&self, group: usize, n_rows: i64) -> bool {
        self.sums.is_unsound(group, n_rows)
    }

    fn state(&self) -> Result<(Vec<usize>, Vec<ArrayRef>)> {
        self.sums.state()
    }

    fn restore(&mut self, groups: &[usize], state: &[ArrayRef]) -> Result<()> {
        self.sums.restore(groups, state)
    }

    fn keep(&mut self, groups: &[usize]) {
        self.sums.keep(groups);
    }

    fn n_bytes(&self) -> usize {
        self.sums.n_bytes()
    }
}
