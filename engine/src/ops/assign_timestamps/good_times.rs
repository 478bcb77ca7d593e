//! Values of many types as instants, without rows that have none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use datafusion_common::ScalarValue;
use datafusion_expr::Expr;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::event_time::{Extent, MAX_TIME, MIN_TIME, extent};
use crate::expression::Expression;
use crate::output::Output;

const MS_PER_DAY: i64 = 86_400_000;

/// The event times of the rows that have one.
pub(in crate::ops) struct GoodTimes {
    /// In milliseconds since 1970.
    pub(in crate::ops) times: PrimitiveArray<Int64Type>,
    /// Which rows these are; `None` for all.
    pub(in crate::ops) rows: Option<BooleanArray>,
    /// The earliest and the latest of them.
    pub(in crate::ops) extent: Extent,
}

impl GoodTimes {
    pub(super) fn new(times: PrimitiveArray<Int64Type>, rows: Option<BooleanArray>) -> Self {
        Self {
            extent: extent(times.values()),
            times,
            rows,
        }
    }
}

/// The times of the rows that have an instant in range.
///
/// The others are rejected; `text` is what the values were computed by.
pub(in crate::ops) fn good_times(
    values: &ArrayRef,
    text: &str,
    batch: &Batch,
    out: &mut Output,
) -> Result<GoodTimes> {
    let millis = to_millis(values)?;
    let in_range = |t: i64| (MIN_TIME..=MAX_TIME).contains(&t);
    let is_good = |row: usize| millis.is_valid(row) && in_range(millis.value(row));
    if millis.null_count() == 0 {
        let all = GoodTimes::new(millis.clone(), None);
        let is_good = |(earliest, latest)| in_range(earliest) && in_range(latest);
        if all.extent.is_none_or(is_good) {
            return Ok(all);
        }
    }
    for row in (0..millis.len()).filter(|row| !is_good(*row)) {
        let reason = match values.is_null(row) {
            true => format!("event time `{text}` is null"),
            false => format!(
                "event time `{text}` is out of range, {MIN_TIME} to {MAX_TIME} milliseconds since 1970"
            ),
        };
        out.reject(batch, row, reason)?;
    }
    let good: BooleanArray = (0..millis.len()).map(|row| Some(is_good(row))).collect();
    let times = filter(&millis, &good)?.as_primitive::<Int64Type>().clone();
    Ok(GoodTimes::new(times, Some(good)))
}

/// What is true of the rows that [`good_times`] rejects; nothing where it can reject none.
pub(super) fn rejected(time: &Expr, schema: &SchemaRef) -> Result<Vec<Expr>> {
    use DataType::{Date32, Timestamp};
    let compiled = Expression::compile(time, schema)?;
    let data_type = compiled.data_type();
    let range = match data_type {
        Timestamp(TimeUnit::Nanosecond, _) => None,
        Timestamp(TimeUnit::Microsecond, _) => {
            let latest = MAX_TIME.saturating_mul(1_000).saturating_add(999);
            Some((MIN_TIME.saturating_mul(1_000), latest))
        }
        // Division is towards zero, and so inwards.
        Timestamp(TimeUnit::Second, _) => Some((MIN_TIME / 1_000, MAX_TIME / 1_000)),
        Date32 => Some((MIN_TIME / MS_PER_DAY, MAX_TIME / MS_PER_DAY)),
        _ => Some((MIN_TIME, MAX_TIME)),
    };
    let mut rejected = Vec::new();
    if compiled.nullable() {
        rejected.push(time.clone().is_null());
    }
    if let Some((earliest, latest)) = range {
        let literal = |value: i64| -> Result<Expr> {
            let value = ScalarValue::Int64(Some(value)).cast_to(data_type)?;
            Ok(Expr::Literal(value, None))
        };
        rejected.push(time.clone().lt(literal(earliest)?));
        rejected.push(time.clone().gt(literal(latest)?));
    }
    Ok(rejected)
}

/// Values that are all good as a column of the type of event times.
pub(in crate::ops) fn as_instants(values: &ArrayRef) -> Result<ArrayRef> {
    let millis = to_millis(values)?;
    Ok(Arc::new(
        millis.reinterpret_cast::<TimestampMillisecondType>(),
    ))
}

/// Refuses what cannot be an event time.
pub(in crate::ops) fn check_type(time: &Expr, data_type: &DataType) -> Result<()> {
    use DataType::{Date32, Date64, Int64, Timestamp};
    if matches!(data_type, Timestamp(_, _) | Date32 | Date64 | Int64) {
        return Ok(());
    }
    Err(Error::pipeline(format!(
        "event time `{time}` must be a timestamp, a date or an Int64 of milliseconds, found {data_type}"
    ))
    .with_hint("Convert it, for example with `to_timestamp_millis`."))
}

/// Milliseconds since 1970, rounded down; null where the value is null or does not fit.
pub(super) fn to_millis(values: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
    let plain = |values: &ArrayRef| -> Result<PrimitiveArray<Int64Type>> {
        Ok(cast(values, &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .clone())
    };
    let finer = |per_ms: i64| -> Result<PrimitiveArray<Int64Type>> {
        Ok(plain(values)?.unary(|t: i64| t.div_euclid(per_ms)))
    };
    let coarser = |ms: i64| -> Result<PrimitiveArray<Int64Type>> {
        Ok(plain(values)?.unary_opt(|t: i64| t.checked_mul(ms)))
    };
    match values.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => finer(1_000_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => finer(1_000),
        DataType::Timestamp(TimeUnit::Second, _) => coarser(1_000),
        DataType::Date32 => Ok(cast(values, &DataType::Int32)?
            .as_primitive::<arrow::datatypes::Int32Type>()
            .unary(|day: i32| i64::from(day) * MS_PER_DAY)),
        _ => plain(values),
    }
}
