//! The values that an expression may take, from those of its columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_expr::interval_arithmetic::{Interval, NullableInterval};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
    NotExpr, TryCastExpr,
};

use super::Known;
use super::rewrite::is_widening;

/// Longer lists are not looked at.
const LONGEST_LIST: usize = 1_000;

/// What is known of the value of `expr`, where `known` is of the columns by their place.
///
/// Every value that a row can give is in the answer; the answer may hold more.
pub(super) fn of(expr: &Arc<dyn PhysicalExpr>, known: &BTreeMap<usize, Known>) -> Known {
    if let Some(column) = expr.downcast_ref::<Column>() {
        known.get(&column.index())?.clone()
    } else if let Some(literal) = expr.downcast_ref::<Literal>() {
        exactly(literal.value())
    } else if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        of_binary(binary, known)
    } else if let Some(not) = expr.downcast_ref::<NotExpr>() {
        of(not.arg(), known)?.not().ok()
    } else if let Some(is_null) = expr.downcast_ref::<IsNullExpr>() {
        of_is_null(is_null.arg(), known)
    } else if let Some(is_not_null) = expr.downcast_ref::<IsNotNullExpr>() {
        of_is_null(is_not_null.arg(), known)?.not().ok()
    } else if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        of_cast(cast.expr(), cast.cast_type(), known)
    } else if let Some(cast) = expr.downcast_ref::<TryCastExpr>() {
        of_cast(cast.expr(), cast.cast_type(), known)
    } else if let Some(list) = expr.downcast_ref::<InListExpr>() {
        of_list(list, known)
    } else if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        of_like(like, known)
    } else {
        None
    }
}

fn exactly(value: &ScalarValue) -> Known {
    if value.is_null() {
        return Some(NullableInterval::Null {
            datatype: value.data_type(),
        });
    }
    let values = Interval::try_new(value.clone(), value.clone()).ok()?;
    Some(NullableInterval::NotNull { values })
}

fn of_binary(binary: &BinaryExpr, known: &BTreeMap<usize, Known>) -> Known {
    let (left, right) = (of(binary.left(), known), of(binary.right(), known));
    let op = binary.op();
    match op {
        Operator::And | Operator::Or => {
            let any = NullableInterval::ANY_TRUTH_VALUE;
            let (left, right) = (left.unwrap_or(any.clone()), right.unwrap_or(any));
            left.apply_operator(op, &right).ok()
        }
        Operator::Eq
        | Operator::NotEq
        | Operator::Lt
        | Operator::LtEq
        | Operator::Gt
        | Operator::GtEq => {
            let is_null = |k: &Known| matches!(k, Some(NullableInterval::Null { .. }));
            if is_null(&left) || is_null(&right) {
                return Some(NullableInterval::UNKNOWN);
            }
            left?.apply_operator(op, &right?).ok()
        }
        Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => {
            left?.apply_operator(op, &right?).ok()
        }
        Operator::Plus | Operator::Minus | Operator::Multiply => of_arithmetic(op, &left?, &right?),
        _ => None,
    }
}

fn of_is_null(arg: &Arc<dyn PhysicalExpr>, known: &BTreeMap<usize, Known>) -> Known {
    Some(match of(arg, known)? {
        NullableInterval::Null { .. } => NullableInterval::TRUE,
        NullableInterval::NotNull { .. } => NullableInterval::FALSE,
        NullableInterval::MaybeNull { .. } => NullableInterval::TRUE_OR_FALSE,
    })
}

fn of_cast(arg: &Arc<dyn PhysicalExpr>, to: &DataType, known: &BTreeMap<usize, Known>) -> Known {
    let of_arg = of(arg, known)?;
    if !is_widening(&of_arg.data_type(), to) {
        return None;
    }
    let cast = |values: &Interval| values.cast_to(to, &Default::default()).ok();
    Some(match &of_arg {
        NullableInterval::Null { .. } => NullableInterval::Null {
            datatype: to.clone(),
        },
        NullableInterval::MaybeNull { values } => NullableInterval::MaybeNull {
            values: cast(values)?,
        },
        NullableInterval::NotNull { values } => NullableInterval::NotNull {
            values: cast(values)?,
        },
    })
}

/// Integers wrap around at the end of their type, and then bounds say nothing.
fn of_arithmetic(op: &Operator, left: &NullableInterval, right: &NullableInterval) -> Known {
    let (Some(l), Some(r)) = (left.values(), right.values()) else {
        return Some(NullableInterval::Null {
            datatype: left.data_type(),
        });
    };
    let data_type = l.data_type();
    if !data_type.is_integer() || r.data_type() != data_type {
        return None;
    }
    let mut ends = Vec::with_capacity(4);
    for a in [integer(l.lower())?, integer(l.upper())?] {
        for b in [integer(r.lower())?, integer(r.upper())?] {
            ends.push(match op {
                Operator::Plus => a.checked_add(b)?,
                Operator::Minus => a.checked_sub(b)?,
                _ => a.checked_mul(b)?,
            });
        }
    }
    let end = |n: Option<&i128>| -> Option<ScalarValue> {
        let n = i64::try_from(*n?).ok()?;
        ScalarValue::Int64(Some(n)).cast_to(&data_type).ok()
    };
    let (low, high) = (end(ends.iter().min())?, end(ends.iter().max())?);
    let values = Interval::try_new(low, high).ok()?;
    Some(match (left, right) {
        (NullableInterval::NotNull { .. }, NullableInterval::NotNull { .. }) => {
            NullableInterval::NotNull { values }
        }
        _ => NullableInterval::MaybeNull { values },
    })
}

fn integer(value: &ScalarValue) -> Option<i128> {
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(Some(n)) => Some(i128::from(n)),
        _ => None,
    }
}

/// `x IN (a, b)` is `x = a OR x = b`.
fn of_list(list: &InListExpr, known: &BTreeMap<usize, Known>) -> Known {
    if list.list().len() > LONGEST_LIST {
        return None;
    }
    let value = of(list.expr(), known)?;
    let mut is_in = NullableInterval::FALSE;
    for item in list.list() {
        let item = of(item, known)?;
        let equal = match (&value, &item) {
            (NullableInterval::Null { .. }, _) | (_, NullableInterval::Null { .. }) => {
                NullableInterval::UNKNOWN
            }
            _ => value.apply_operator(&Operator::Eq, &item).ok()?,
        };
        is_in = is_in.or(&equal).ok()?;
    }
    match list.negated() {
        true => is_in.not().ok(),
        false => Some(is_in),
    }
}

/// `x LIKE 'abc%'` is false for all that does not begin with `abc`.
fn of_like(like: &LikeExpr, known: &BTreeMap<usize, Known>) -> Known {
    let pattern = like.pattern().downcast_ref::<Literal>()?;
    let pattern = pattern.value().try_as_str()??;
    let prefix: &str = pattern.split(['%', '_', '\\']).next()?;
    if like.negated() || like.case_insensitive() || prefix.is_empty() {
        return None;
    }
    let value = of(like.expr(), known)?;
    let Some(values) = value.values() else {
        return Some(NullableInterval::UNKNOWN);
    };
    let end = |value: &ScalarValue| value.try_as_str().flatten().map(str::to_owned);
    let below = end(values.upper()).is_some_and(|upper| upper.as_str() < prefix);
    let above = end(values.lower())
        .is_some_and(|lower| lower.as_str() > prefix && !lower.starts_with(prefix));
    let truth = match below || above {
        true => Interval::FALSE,
        false => Interval::TRUE_OR_FALSE,
    };
    Some(match value {
        NullableInterval::NotNull { .. } => NullableInterval::NotNull { values: truth },
        _ => NullableInterval::MaybeNull { values: truth },
    })
}
