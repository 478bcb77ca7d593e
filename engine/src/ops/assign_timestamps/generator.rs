//! The watermark of one split, row by row.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use datafusion_expr::Expr;

use super::to_millis;
use super::watermarks::{Follows, Watermarks};
use crate::batch::Batch;
use crate::error::Result;
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::expression::Expression;
use crate::ops::row_key::located;

/// The marks in rows from which watermarks follow.
pub(super) struct Marks {
    expr: Option<Expr>,
    compiled: Option<Expression>,
}

/// The marks of one batch: none where the watermark follows from event times alone.
pub(super) type RowMarks = Option<Vec<Option<i64>>>;

impl Marks {
    pub(super) fn new(watermarks: &Watermarks) -> Self {
        Self {
            expr: watermarks.expr().cloned(),
            compiled: None,
        }
    }

    /// What the rows of a batch say of the watermark.
    ///
    /// # Errors
    /// If the expression fails on a row.
    pub(super) fn of(&mut self, batch: &Batch, times: &[i64]) -> Result<RowMarks> {
        let Some(expr) = &self.expr else {
            return Ok(None);
        };
        let compiled = match &mut self.compiled {
            Some(compiled) => &*compiled,
            slot => slot.insert(Expression::compile(expr, &batch.rows().schema())?),
        };
        let values = located(batch, |rows| compiled.evaluate(rows))?;
        if *values.data_type() == DataType::Boolean {
            let marks = values.as_boolean().iter().zip(times);
            return Ok(Some(
                marks
                    .map(|(is_mark, time)| is_mark.unwrap_or(false).then_some(*time))
                    .collect(),
            ));
        }
        let millis = to_millis(&values)?;
        debug_assert_eq!(millis.len(), times.len());
        Ok(Some(
            millis
                .iter()
                .map(|mark| mark.map(|t| t.clamp(MIN_TIME, MAX_TIME)))
                .collect(),
        ))
    }
}

/// The watermark of one split so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generator {
    less_ms: i64,
    watermark: i64,
}

impl Generator {
    pub(super) fn new(watermarks: &Watermarks) -> Self {
        Self {
            less_ms: match watermarks.follows {
                Follows::Latest { less_ms } => less_ms,
                Follows::Rows(_) => 0,
            },
            watermark: i64::MIN,
        }
    }

    /// Goes on from a watermark that was saved.
    pub(super) fn go_on_from(&mut self, watermark: i64) {
        self.watermark = self.watermark.max(watermark);
    }

    pub(super) fn watermark(&self) -> i64 {
        self.watermark
    }

    /// Takes in rows, and gives how many stand behind the watermark that the rows before them made.
    pub(super) fn take(&mut self, times: &[i64], marks: &RowMarks) -> u64 {
        let mut n_behind = 0;
        for (row, &time) in times.iter().enumerate() {
            n_behind += u64::from(time < self.watermark);
            let mark = match marks {
                None => Some(time.saturating_sub(self.less_ms)),
                Some(marks) => marks.get(row).copied().flatten(),
            };
            if let Some(mark) = mark {
                self.watermark = self.watermark.max(mark);
            }
        }
        n_behind
    }
}
