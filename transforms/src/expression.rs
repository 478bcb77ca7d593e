//! The expressions a feature may start from, as plain data.
//!
//! ```text
//! DataFusion Expr ──from_expr──▶ BaseExpression ──to_expr──▶ mainstem_engine::expression (rows)
//!                                      │        ──to_onnx──▶ ONNX nodes
//!                                   serde
//! ```

pub(crate) mod onnx;
pub(crate) mod type_name;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{BinaryExpr, Case, Cast, Expr, Operator, ScalarUDF, TryCast};
use mainstem_engine::{Error, Result};
use serde::{Deserialize, Serialize};

pub(crate) use type_name::is_text;

/// The part of DataFusion's expressions that a feature may start from.
///
/// Nulls are DataFusion's, with one addition: in a raw column NaN and the empty text count as null, as
/// ONNX has no other way to say it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum BaseExpression {
    Column(String),
    /// The value as text, so that every float keeps its bits; `None` is null.
    Literal {
        value: Option<String>,
        #[serde(with = "type_name")]
        data_type: DataType,
    },
    Binary {
        left: Box<BaseExpression>,
        op: BinaryOp,
        right: Box<BaseExpression>,
    },
    Not(Box<BaseExpression>),
    Negative(Box<BaseExpression>),
    IsNull(Box<BaseExpression>),
    IsNotNull(Box<BaseExpression>),
    Cast {
        input: Box<BaseExpression>,
        #[serde(with = "type_name")]
        data_type: DataType,
        /// What cannot be cast becomes null instead of failing.
        lenient: bool,
    },
    Case {
        operand: Option<Box<BaseExpression>>,
        branches: Vec<(BaseExpression, BaseExpression)>,
        otherwise: Option<Box<BaseExpression>>,
    },
    Call {
        function: String,
        arguments: Vec<BaseExpression>,
    },
}

/// An operator between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BinaryOp {
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    And,
    Or,
}

const OPERATORS: [(BinaryOp, Operator); 13] = [
    (BinaryOp::Plus, Operator::Plus),
    (BinaryOp::Minus, Operator::Minus),
    (BinaryOp::Multiply, Operator::Multiply),
    (BinaryOp::Divide, Operator::Divide),
    (BinaryOp::Modulo, Operator::Modulo),
    (BinaryOp::Eq, Operator::Eq),
    (BinaryOp::NotEq, Operator::NotEq),
    (BinaryOp::Lt, Operator::Lt),
    (BinaryOp::LtEq, Operator::LtEq),
    (BinaryOp::Gt, Operator::Gt),
    (BinaryOp::GtEq, Operator::GtEq),
    (BinaryOp::And, Operator::And),
    (BinaryOp::Or, Operator::Or),
];

static FUNCTIONS: LazyLock<BTreeMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    datafusion_functions::all_default_functions()
        .into_iter()
        .map(|f| (f.name().to_owned(), f))
        .collect()
});

impl BaseExpression {
    /// The expression as data.
    ///
    /// # Errors
    /// A pipeline error that names the part that is not supported.
    pub(crate) fn from_expr(expr: &Expr) -> Result<Self> {
        let inner = |e: &Expr| Self::from_expr(e).map(Box::new);
        Ok(match expr {
            Expr::Alias(alias) => Self::from_expr(&alias.expr)?,
            Expr::Column(column) => Self::Column(column.name.clone()),
            Expr::Literal(value, _) => literal(value)?,
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let Some((op, _)) = OPERATORS.iter().find(|(_, o)| o == op) else {
                    return Err(unsupported(&format!("the operator `{op}`"), expr));
                };
                Self::Binary {
                    left: inner(left)?,
                    op: *op,
                    right: inner(right)?,
                }
            }
            Expr::Not(e) => Self::Not(inner(e)?),
            Expr::Negative(e) => Self::Negative(inner(e)?),
            Expr::IsNull(e) => Self::IsNull(inner(e)?),
            Expr::IsNotNull(e) => Self::IsNotNull(inner(e)?),
            Expr::Cast(Cast { expr, field }) => Self::Cast {
                input: inner(expr)?,
                data_type: field.data_type().clone(),
                lenient: false,
            },
            Expr::TryCast(TryCast { expr, field }) => Self::Cast {
                input: inner(expr)?,
                data_type: field.data_type().clone(),
                lenient: true,
            },
            Expr::Case(case) => Self::Case {
                operand: case.expr.as_deref().map(inner).transpose()?,
                branches: case
                    .when_then_expr
                    .iter()
                    .map(|(when, then)| Ok((Self::from_expr(when)?, Self::from_expr(then)?)))
                    .collect::<Result<_>>()?,
                otherwise: case.else_expr.as_deref().map(inner).transpose()?,
            },
            Expr::ScalarFunction(call) if FUNCTIONS.contains_key(call.func.name()) => Self::Call {
                function: call.func.name().to_owned(),
                arguments: call
                    .args
                    .iter()
                    .map(Self::from_expr)
                    .collect::<Result<_>>()?,
            },
            Expr::ScalarFunction(call) => {
                let function = format!("the function `{}`", call.func.name());
                return Err(unsupported(&function, expr));
            }
            other => return Err(unsupported(other.variant_name(), expr)),
        })
    }

    /// The expression for DataFusion.
    ///
    /// # Errors
    /// If a literal or a function was written by another version.
    pub(crate) fn to_expr(&self) -> Result<Expr> {
        let inner = |e: &Self| e.to_expr().map(Box::new);
        Ok(match self {
            Self::Column(name) => Expr::Column(Column::new_unqualified(name)),
            Self::Literal { value, data_type } => {
                Expr::Literal(scalar(value.as_deref(), data_type)?, None)
            }
            Self::Binary { left, op, right } => {
                Expr::BinaryExpr(BinaryExpr::new(inner(left)?, op.operator(), inner(right)?))
            }
            Self::Not(e) => Expr::Not(inner(e)?),
            Self::Negative(e) => Expr::Negative(inner(e)?),
            Self::IsNull(e) => Expr::IsNull(inner(e)?),
            Self::IsNotNull(e) => Expr::IsNotNull(inner(e)?),
            Self::Cast {
                input,
                data_type,
                lenient: false,
            } => Expr::Cast(Cast::new(inner(input)?, data_type.clone())),
            Self::Cast {
                input, data_type, ..
            } => Expr::TryCast(TryCast::new(inner(input)?, data_type.clone())),
            Self::Case {
                operand,
                branches,
                otherwise,
            } => Expr::Case(Case::new(
                operand.as_deref().map(inner).transpose()?,
                branches
                    .iter()
                    .map(|(when, then)| Ok((inner(when)?, inner(then)?)))
                    .collect::<Result<_>>()?,
                otherwise.as_deref().map(inner).transpose()?,
            )),
            Self::Call {
                function,
                arguments,
            } => {
                let function = FUNCTIONS.get(function).ok_or_else(|| {
                    Error::pipeline(format!("the function `{function}` is not known"))
                        .with_hint("The feature was written by another version of Mainstem.")
                })?;
                Expr::ScalarFunction(ScalarFunction::new_udf(
                    Arc::clone(function),
                    arguments.iter().map(Self::to_expr).collect::<Result<_>>()?,
                ))
            }
        })
    }

    /// Adds the columns it reads, each once, in order of appearance.
    pub(crate) fn columns(&self, found: &mut Vec<String>) {
        match self {
            Self::Column(name) => {
                if !found.contains(name) {
                    found.push(name.clone());
                }
            }
            Self::Literal { .. } => {}
            Self::Binary { left, right, .. } => {
                left.columns(found);
                right.columns(found);
            }
            Self::Not(e) | Self::Negative(e) | Self::IsNull(e) | Self::IsNotNull(e) => {
                e.columns(found);
            }
            Self::Cast { input, .. } => input.columns(found),
            Self::Case {
                operand,
                branches,
                otherwise,
            } => {
                operand.iter().for_each(|e| e.columns(found));
                for (when, then) in branches {
                    when.columns(found);
                    then.columns(found);
                }
                otherwise.iter().for_each(|e| e.columns(found));
            }
            Self::Call { arguments, .. } => arguments.iter().for_each(|e| e.columns(found)),
        }
    }
}

impl BinaryOp {
    fn operator(self) -> Operator {
        OPERATORS
            .iter()
            .find(|(op, _)| *op == self)
            .map_or(Operator::Plus, |(_, operator)| *operator)
    }
}

fn unsupported(what: &str, expr: &Expr) -> Error {
    Error::pipeline(format!("a feature cannot hold {what}: `{expr}`")).with_hint(
        "Compute it before, with `with_column`, and let the feature start from that column.",
    )
}

fn literal(value: &ScalarValue) -> Result<BaseExpression> {
    let data_type = value.data_type();
    let simple = data_type.is_numeric() && !is_decimal(&data_type)
        || is_text(&data_type)
        || matches!(data_type, DataType::Boolean | DataType::Null);
    if !simple {
        let what = format!("a literal of type {data_type}");
        return Err(unsupported(&what, &Expr::Literal(value.clone(), None)));
    }
    let text = if value.is_null() {
        None
    } else {
        match value {
            ScalarValue::Float32(Some(x)) => Some(x.to_string()),
            ScalarValue::Float64(Some(x)) => Some(x.to_string()),
            other => Some(other.to_string()),
        }
    };
    Ok(BaseExpression::Literal {
        value: text,
        data_type,
    })
}

fn is_decimal(data_type: &DataType) -> bool {
    data_type.is_decimal() || *data_type == DataType::Float16
}

fn scalar(value: Option<&str>, data_type: &DataType) -> Result<ScalarValue> {
    match (value, data_type) {
        (None, data_type) => Ok(ScalarValue::try_from(data_type)?),
        (Some(value), DataType::Utf8) => Ok(ScalarValue::Utf8(Some(value.into()))),
        (Some(value), DataType::LargeUtf8) => Ok(ScalarValue::LargeUtf8(Some(value.into()))),
        (Some(value), DataType::Utf8View) => Ok(ScalarValue::Utf8View(Some(value.into()))),
        (Some(value), data_type) => Ok(ScalarValue::try_from_string(value.to_owned(), data_type)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion_expr::{cast, col, lit, try_cast, when};
    use expect_test::expect;
    use mainstem_engine::expression::functions;

    fn round_trip(expr: &Expr) {
        let base = BaseExpression::from_expr(expr).unwrap();
        let text = serde_json::to_string(&base).unwrap();
        let read: BaseExpression = serde_json::from_str(&text).unwrap();
        assert_eq!(read, base);
        assert_eq!(&read.to_expr().unwrap(), expr);
    }

    #[test]
    fn every_supported_part_is_written_and_read() {
        round_trip(&((col("a") + lit(0.1)) * lit(-0.0) / lit(f64::INFINITY) % lit(3_i64)));
        round_trip(&(col("a").gt_eq(lit(1.5_f32)).and(col("b").eq(lit("x'y")))));
        round_trip(&!(col("a").is_null().or(col("b").is_not_null())));
        round_trip(&cast(try_cast(col("a"), DataType::Int64), DataType::Utf8));
        round_trip(
            &when(col("a").lt(lit(1)), lit("low"))
                .otherwise(lit(ScalarValue::Utf8(None)))
                .unwrap(),
        );
        round_trip(&functions::expr_fn::lower(col("a")));
        round_trip(&lit(true));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let refused = |expr: Expr| BaseExpression::from_expr(&expr).unwrap_err().to_string();
        expect![[r#"
            a feature cannot hold InList: `a IN ([Int32(1)])`
              Hint: Compute it before, with `with_column`, and let the feature start from that column."#]]
        .assert_eq(&refused(col("a").in_list(vec![lit(1)], false)));
        expect![[r#"
            a feature cannot hold the operator `IS DISTINCT FROM`: `a IS DISTINCT FROM Int32(1)`
              Hint: Compute it before, with `with_column`, and let the feature start from that column."#]]
        .assert_eq(&refused(Expr::BinaryExpr(BinaryExpr::new(
            Box::new(col("a")),
            Operator::IsDistinctFrom,
            Box::new(lit(1)),
        ))));
    }
}
