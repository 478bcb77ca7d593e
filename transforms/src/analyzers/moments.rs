//! Learns count, mean and variance.

use std::sync::Arc;

use arrow::array::{AsArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, UInt64Type};
use arrow::record_batch::RecordBatch;
use mainstem_engine::{Analyzer, Error, Result};
use serde::{Deserialize, Serialize};

use super::exact_sum::{self, ExactSum};
use super::{foreign_rows, foreign_save, no_values};

/// Learns count, mean and biased variance (divisor n) of a column of numbers, as tf.Transform does.
///
/// Null and NaN are left out. The sums are exact, so neither order nor grouping can be seen in the
/// result, and rows can be taken out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {}

/// What [`Moments`] learns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MomentsLearned {
    /// How many values there were.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Their mean squared distance from the mean.
    pub variance: f64,
}

/// What [`Moments`] has seen.
#[derive(Clone, Debug)]
pub struct MomentsSeen {
    count: u64,
    infinite: u64,
    sum: ExactSum,
    squares: ExactSum,
}

impl Moments {
    /// The only moments there are.
    pub fn new() -> Self {
        Self {}
    }
}

impl Default for Moments {
    fn default() -> Self {
        Self::new()
    }
}

impl MomentsLearned {
    /// The biased standard deviation.
    pub fn std_dev(&self) -> f64 {
        self.variance.sqrt()
    }
}

impl Analyzer for Moments {
    type Accumulator = MomentsSeen;
    type Output = MomentsLearned;

    fn create_accumulator(&self) -> MomentsSeen {
        MomentsSeen {
            count: 0,
            infinite: 0,
            sum: ExactSum::zero(),
            squares: ExactSum::zero(),
        }
    }

    fn add(&self, seen: &mut MomentsSeen, rows: &RecordBatch) -> Result<()> {
        for x in values(rows)? {
            seen.take(x, false);
        }
        Ok(())
    }

    fn merge(&self, seen: &mut MomentsSeen, other: MomentsSeen) -> Result<()> {
        seen.count += other.count;
        seen.infinite += other.infinite;
        seen.sum.merge(other.sum);
        seen.squares.merge(other.squares);
        Ok(())
    }

    fn retract(&self, seen: &mut MomentsSeen, rows: &RecordBatch) -> Result<()> {
        for x in values(rows)? {
            if seen.count == 0 {
                return Err(Error::data("more rows were taken out than there were"));
            }
            seen.take(x, true);
        }
        Ok(())
    }

    fn finish(&self, seen: MomentsSeen) -> Result<MomentsLearned> {
        if seen.count == 0 {
            return Err(no_values());
        }
        let mean = exact_sum::mean(&seen.sum, seen.count);
        let variance = exact_sum::variance(&seen.sum, &seen.squares, seen.count);
        if seen.infinite > 0 || !mean.is_finite() || !variance.is_finite() {
            return Err(
                Error::data("the mean or the variance is not a finite number")
                    .with_detail(format!(
                        "{} of {} values are infinite.",
                        seen.infinite, seen.count
                    ))
                    .with_hint("Filter such rows out, or scale the column down."),
            );
        }
        Ok(MomentsLearned {
            count: seen.count,
            mean,
            variance,
        })
    }

    fn save(&self, seen: &MomentsSeen) -> Result<RecordBatch> {
        let sum = seen.sum.save();
        let n = sum.len();
        let fields = vec![
            Field::new("count", DataType::UInt64, false),
            Field::new("infinite", DataType::UInt64, false),
            Field::new("sum", DataType::Int64, false),
            Field::new("squares", DataType::Int64, false),
        ];
        Ok(RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            vec![
                Arc::new(UInt64Array::from(vec![seen.count; n])),
                Arc::new(UInt64Array::from(vec![seen.infinite; n])),
                Arc::new(sum),
                Arc::new(seen.squares.save()),
            ],
        )?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<MomentsSeen> {
        let number = |name: &str| {
            let column = saved
                .column_by_name(name)?
                .as_primitive_opt::<UInt64Type>()?;
            (!column.is_empty()).then(|| column.value(0))
        };
        let sum = |name: &str| {
            ExactSum::load(
                saved
                    .column_by_name(name)?
                    .as_primitive_opt::<Int64Type>()?,
            )
        };
        let load = || {
            Some(MomentsSeen {
                count: number("count")?,
                infinite: number("infinite")?,
                sum: sum("sum")?,
                squares: sum("squares")?,
            })
        };
        load().ok_or_else(|| foreign_save("moments"))
    }
}

impl MomentsSeen {
    fn take(&mut self, x: f64, away: bool) {
        let step = |n: u64| if away { n.wrapping_sub(1) } else { n + 1 };
        self.count = step(self.count);
        if x.is_finite() {
            self.sum.add(x, away);
            self.squares.add_square(x, away);
        } else {
            self.infinite = step(self.infinite);
        }
    }
}

pub(super) fn values(rows: &RecordBatch) -> Result<impl Iterator<Item = f64>> {
    let column = rows
        .column(0)
        .as_primitive_opt::<Float64Type>()
        .ok_or_else(|| foreign_rows("moments"))?;
    Ok(column.iter().flatten().filter(|x| !x.is_nan()))
}

crate::column_analyzer!(Moments, "moments");
