//! Which predicates may move to a source, and how they read there.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion_common::ScalarValue;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{Expr, Operator};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
    NotExpr, TryCastExpr,
};

use crate::expression::Expression;

/// True if the expression has a value for every row, always the same for the same row.
///
/// Only then may rows be passed over that it would see: one that it fails on must be rejected.
pub(crate) fn cannot_fail(expr: &Expr, schema: &SchemaRef) -> bool {
    let Ok(compiled) = Expression::compile(expr, schema) else {
        return false;
    };
    let mut can = false;
    let visited = compiled.physical().apply(|node| {
        can |= !node_cannot_fail(node, schema);
        Ok(match can {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    });
    visited.is_ok() && !can
}

/// What `wanted`, a predicate over the output of a transform, says of its input, where `source` gives
/// the expression that each output column is made by (`None`: it cannot be told).
///
/// Conjuncts that read a column which cannot be told are left out; `None` if no conjunct is left.
pub(crate) fn in_terms_of(wanted: &Expr, source: impl Fn(&str) -> Option<Expr>) -> Option<Expr> {
    let rewritten = split_conjunction(wanted).into_iter().filter_map(|part| {
        let mut told = true;
        let part = part.clone().transform_up(|node| {
            let Expr::Column(column) = &node else {
                return Ok(Transformed::no(node));
            };
            Ok(match source(&column.name) {
                Some(expr) => Transformed::yes(expr),
                None => {
                    told = false;
                    Transformed::no(node)
                }
            })
        });
        part.ok().map(|part| part.data).filter(|_| told)
    });
    conjunction(rewritten.collect::<Vec<_>>())
}

fn node_cannot_fail(node: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> bool {
    let type_of = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(schema).ok();
    let widens = |from: &Arc<dyn PhysicalExpr>, to: &DataType| {
        type_of(from).is_some_and(|from| is_widening(&from, to))
    };
    if let Some(binary) = node.downcast_ref::<BinaryExpr>() {
        let number = type_of(binary.left()).is_some_and(|t| t.is_integer() || t.is_floating());
        match binary.op() {
            Operator::And
            | Operator::Or
            | Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => true,
            Operator::Plus | Operator::Minus | Operator::Multiply => number,
            Operator::Divide | Operator::Modulo => {
                let divided = type_of(binary.left());
                divided
                    .is_some_and(|t| t.is_floating() || t.is_integer() && divides(binary.right()))
            }
            _ => false,
        }
    } else if let Some(cast) = node.downcast_ref::<CastExpr>() {
        widens(cast.expr(), cast.cast_type())
    } else {
        node.is::<Column>()
            || node.is::<Literal>()
            || node.is::<NotExpr>()
            || node.is::<IsNullExpr>()
            || node.is::<IsNotNullExpr>()
            || node.is::<InListExpr>()
            || node.is::<LikeExpr>()
            || node.is::<TryCastExpr>()
    }
}

/// True of a constant by which every integer can be divided: not zero, nor -1, whose quotient may be too large.
fn divides(by: &Arc<dyn PhysicalExpr>) -> bool {
    let by = by.downcast_ref::<Literal>().map(Literal::value);
    let by = by.and_then(|value| value.cast_to(&DataType::Int64).ok());
    matches!(by, Some(ScalarValue::Int64(Some(by))) if by != 0 && by != -1)
}

/// True if a cast has a value for every value, and a larger one or the same for a larger one.
pub(super) fn is_widening(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Date64, Decimal128, Dictionary, Float32, Float64, Timestamp};
    match (from, to) {
        _ if from == to => true,
        (Dictionary(_, from), _) => is_widening(from, to),
        (Float32, Float64) | (Date32, Date64) => true,
        (_, Float32 | Float64) => from.is_integer(),
        (Timestamp(from, zone), Timestamp(to, other_zone)) => {
            zone.is_some() == other_zone.is_some() && fineness(from) >= fineness(to)
        }
        (Decimal128(p, s), Decimal128(to_p, to_s)) => {
            to_s >= s && whole_digits(*to_p, *to_s) >= whole_digits(*p, *s)
        }
        (_, Decimal128(p, s)) => {
            digits(from).is_some_and(|digits| *s >= 0 && whole_digits(*p, *s) >= digits)
        }
        _ => match (integer_bits(from), integer_bits(to)) {
            (Some((signed, bits)), Some((to_signed, to_bits))) => {
                if signed == to_signed {
                    to_bits >= bits
                } else {
                    to_signed && to_bits > bits
                }
            }
            _ => false,
        },
    }
}

fn fineness(unit: &TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

fn whole_digits(precision: u8, scale: i8) -> i16 {
    i16::from(precision) - i16::from(scale)
}

fn digits(integer: &DataType) -> Option<i16> {
    Some(match integer_bits(integer)? {
        (_, 8) => 3,
        (_, 16) => 5,
        (_, 32) => 10,
        (true, _) => 19,
        (false, _) => 20,
    })
}

/// True for signed, and the bits.
fn integer_bits(data_type: &DataType) -> Option<(bool, u8)> {
    Some(match data_type {
        DataType::Int8 => (true, 8),
        DataType::Int16 => (true, 16),
        DataType::Int32 => (true, 32),
        DataType::Int64 => (true, 64),
        DataType::UInt8 => (false, 8),
        DataType::UInt16 => (false, 16),
        DataType::UInt32 => (false, 32),
        DataType::UInt64 => (false, 64),
        _ => return None,
    })
}
