//! Expressions as ONNX nodes.
//!
//! Each value is of the type that DataFusion computes in, except that all integers are INT64: they give
//! the same values, save where DataFusion fails on an overflow. Beside it goes a mask of the rows where
//! it is null, since ONNX knows no nulls. Where DataFusion would fail on a row (a division of integers
//! by zero, a cast out of range) the value is null.

mod cast;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;
use mainstem_engine::expression::{Expression, check_column};
use mainstem_engine::{Error, Result};

use super::{BaseExpression, BinaryOp, is_text, scalar};
use crate::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph, Tensor, TensorValues, Value};

/// A value in the graph and where it is null (`None`: nowhere).
///
/// A Boolean is false where it is null, so that "true" can be read off without the mask.
#[derive(Clone)]
struct Lowered {
    value: Value,
    data_type: DataType,
    missing: Option<Value>,
    /// A number that is known and not zero.
    not_zero: bool,
    /// The result of a division of floats, and so perhaps NaN without being null.
    divided: bool,
}

impl BaseExpression {
    /// Adds the nodes of the expression: DOUBLE with NaN for null, or STRING with the empty text for null.
    ///
    /// # Errors
    /// A pipeline error for what ONNX cannot express, by name.
    pub(crate) fn to_onnx(&self, schema: &SchemaRef, graph: &mut OnnxGraph) -> Result<Value> {
        let mut lower = Lower { schema, graph };
        if let Self::Column(name) = self
            && let Some(value) = lower.plain_column(name)?
        {
            return Ok(value);
        }
        let lowered = lower.expression(self)?;
        if lowered.data_type == DataType::Utf8 {
            return Ok(match &lowered.missing {
                Some(missing) => {
                    let empty = lower.graph.text("");
                    lower.graph.select(missing, &empty, &lowered.value)
                }
                None => lowered.value,
            });
        }
        let number = lower.cast(lowered, &DataType::Float64)?;
        Ok(match &number.missing {
            Some(missing) => {
                let nan = lower.graph.double(f64::NAN);
                lower.graph.select(missing, &nan, &number.value)
            }
            None => number.value,
        })
    }
}

struct Lower<'a> {
    schema: &'a SchemaRef,
    graph: &'a mut OnnxGraph,
}

fn refused(what: impl std::fmt::Display) -> Error {
    Error::pipeline(format!("ONNX cannot express {what}")).with_hint(
        "Compute it before, with `with_column`, and let the feature start from that column.",
    )
}

impl Lower<'_> {
    fn expression(&mut self, expression: &BaseExpression) -> Result<Lowered> {
        match expression {
            BaseExpression::Column(name) => self.column(name),
            BaseExpression::Literal { value, data_type } => {
                self.literal(&scalar(value.as_deref(), data_type)?)
            }
            BaseExpression::Binary { left, op, right } => {
                let (left, right) = (self.expression(left)?, self.expression(right)?);
                self.binary(left, *op, right)
            }
            BaseExpression::Not(e) => {
                let e = self.expression(e)?;
                let value = self.is_false(&e);
                Ok(boolean(value, e.missing))
            }
            BaseExpression::Negative(e) => {
                let e = self.expression(e)?;
                let value = self.graph.unary("Neg", &e.value);
                Ok(Lowered { value, ..e })
            }
            BaseExpression::IsNull(e) => {
                let e = self.expression(e)?;
                let value = e.missing.unwrap_or_else(|| self.flag(false));
                Ok(boolean(value, None))
            }
            BaseExpression::IsNotNull(e) => {
                let e = self.expression(e)?;
                let value = match e.missing {
                    Some(missing) => self.graph.unary("Not", &missing),
                    None => self.flag(true),
                };
                Ok(boolean(value, None))
            }
            BaseExpression::Cast {
                input, data_type, ..
            } => {
                let input = self.expression(input)?;
                self.cast(input, data_type)
            }
            BaseExpression::Case {
                operand,
                branches,
                otherwise,
            } => self.case(
                expression,
                operand.as_deref(),
                branches,
                otherwise.as_deref(),
            ),
            BaseExpression::Call { function, .. } => {
                Err(refused(format!("the function `{function}`")))
            }
        }
    }

    /// A column that enters as a feature wants it already.
    fn plain_column(&mut self, name: &str) -> Result<Option<Value>> {
        let place = check_column(name, self.schema)?;
        let element = match self.schema.field(place).data_type() {
            text if is_text(text) => ElementType::String,
            number if number.is_integer() || number.is_floating() => ElementType::Double,
            _ => return Ok(None),
        };
        let shape = [Dim::Rows, Dim::Size(1)];
        Ok(Some(self.graph.input(name, element, &shape)))
    }

    fn column(&mut self, name: &str) -> Result<Lowered> {
        let data_type = self
            .schema
            .field(check_column(name, self.schema)?)
            .data_type()
            .clone();
        let shape = [Dim::Rows, Dim::Size(1)];
        match &data_type {
            DataType::Boolean => {
                let value = self.graph.input(name, ElementType::Bool, &shape);
                Ok(boolean(value, None))
            }
            text if is_text(text) => {
                let value = self.graph.input(name, ElementType::String, &shape);
                let missing = self.text_is(&value, "");
                Ok(lowered(value, DataType::Utf8, Some(missing)))
            }
            DataType::UInt64 => Err(refused(format!("the UInt64 column {name:?}"))),
            number if number.is_integer() => {
                let wide = self.graph.input(name, ElementType::Double, &shape);
                let missing = self.graph.unary("IsNaN", &wide);
                let zero = self.graph.double(0.0);
                let there = self.graph.select(&missing, &zero, &wide);
                let value = self.graph.cast(&there, ElementType::Int64);
                Ok(lowered(value, data_type, Some(missing)))
            }
            DataType::Float64 | DataType::Float32 => {
                let wide = self.graph.input(name, ElementType::Double, &shape);
                let missing = self.graph.unary("IsNaN", &wide);
                let value = match data_type {
                    DataType::Float32 => self.graph.cast(&wide, ElementType::Float),
                    _ => wide,
                };
                Ok(lowered(value, data_type, Some(missing)))
            }
            other => Err(refused(format!("the {other} column {name:?}"))),
        }
    }

    fn literal(&mut self, value: &ScalarValue) -> Result<Lowered> {
        if value.is_null() {
            let missing = Some(self.flag(true));
            let data_type = match value.data_type() {
                DataType::Null => DataType::Null,
                text if is_text(&text) => DataType::Utf8,
                other => other,
            };
            let zero = self.zero(&data_type);
            return Ok(lowered(zero, data_type, missing));
        }
        let (values, data_type, not_zero) = match value {
            ScalarValue::Float64(Some(x)) => {
                (TensorValues::Double(vec![*x]), DataType::Float64, *x != 0.0)
            }
            ScalarValue::Float32(Some(x)) => {
                (TensorValues::Float(vec![*x]), DataType::Float32, *x != 0.0)
            }
            ScalarValue::Boolean(Some(x)) => {
                (TensorValues::Bool(vec![*x]), DataType::Boolean, false)
            }
            ScalarValue::Utf8(Some(x))
            | ScalarValue::LargeUtf8(Some(x))
            | ScalarValue::Utf8View(Some(x)) => {
                (TensorValues::String(vec![x.clone()]), DataType::Utf8, false)
            }
            ScalarValue::UInt64(_) => return Err(refused("a UInt64 literal")),
            other => {
                let wide = other.cast_to(&DataType::Int64)?;
                let ScalarValue::Int64(Some(x)) = wide else {
                    return Err(refused(format!("the literal `{other}`")));
                };
                (TensorValues::Int64(vec![x]), other.data_type(), x != 0)
            }
        };
        let value = self.graph.constant(Tensor {
            dims: Vec::new(),
            values,
        });
        Ok(Lowered {
            not_zero,
            ..lowered(value, data_type, None)
        })
    }

    fn binary(&mut self, left: Lowered, op: BinaryOp, right: Lowered) -> Result<Lowered> {
        match op {
            BinaryOp::And => return Ok(self.and(&left, &right)),
            BinaryOp::Or => {
                let (not_left, not_right) = (self.not(&left), self.not(&right));
                let neither = self.and(&not_left, &not_right);
                return Ok(self.not(&neither));
            }
            _ => {}
        }
        let operator = op_of(op);
        let coercer = BinaryTypeCoercer::new(&left.data_type, &operator, &right.data_type);
        let (left_type, right_type) = coercer.get_input_types().map_err(Error::from)?;
        if is_text(&left_type) && is_text(&right_type) {
            return self.compare_text(&left, op, &right);
        }
        let (left, right) = (self.cast(left, &left_type)?, self.cast(right, &right_type)?);
        let missing = self.either(&left.missing, &right.missing);
        match op {
            BinaryOp::Plus => Ok(self.arithmetic("Add", left, &right, missing)),
            BinaryOp::Minus => Ok(self.arithmetic("Sub", left, &right, missing)),
            BinaryOp::Multiply => Ok(self.arithmetic("Mul", left, &right, missing)),
            BinaryOp::Divide | BinaryOp::Modulo if left.data_type.is_integer() => {
                Ok(self.divide_integers(op, left, right))
            }
            BinaryOp::Divide => Ok(self.arithmetic("Div", left, &right, missing)),
            BinaryOp::Modulo => Ok(self.modulo(left, &right, missing)),
            _ if left.divided || right.divided => Err(refused(
                "a comparison with a quotient of floats, in which NaN would be compared",
            )),
            _ => {
                let value = self.compare(op, &left, &right);
                Ok(self.masked(value, missing))
            }
        }
    }

    fn arithmetic(
        &mut self,
        op: &'static str,
        left: Lowered,
        right: &Lowered,
        missing: Option<Value>,
    ) -> Lowered {
        let value = self.graph.binary(op, &left.value, &right.value);
        let float = left.data_type.is_floating();
        Lowered {
            divided: float && (op == "Div" || left.divided || right.divided),
            ..lowered(value, left.data_type, missing)
        }
    }

    fn modulo(&mut self, left: Lowered, right: &Lowered, missing: Option<Value>) -> Lowered {
        let inputs = [left.value, right.value.clone()];
        let value = self
            .graph
            .op("Mod", &inputs, vec![("fmod", Attribute::Int(1))]);
        Lowered {
            divided: left.data_type.is_floating(),
            ..lowered(value, left.data_type, missing)
        }
    }

    /// A division by zero, on which DataFusion fails, is null instead of the end of the process.
    fn divide_integers(&mut self, op: BinaryOp, left: Lowered, mut right: Lowered) -> Lowered {
        if !right.not_zero {
            let (zero, one) = (self.graph.int64(0), self.graph.int64(1));
            let by_zero = self.graph.binary("Equal", &right.value, &zero);
            right.value = self.graph.select(&by_zero, &one, &right.value);
            right.missing = self.either(&right.missing, &Some(by_zero));
        }
        let missing = self.either(&left.missing, &right.missing);
        if op == BinaryOp::Divide {
            self.arithmetic("Div", left, &right, missing)
        } else {
            self.modulo(left, &right, missing)
        }
    }

    fn compare(&mut self, op: BinaryOp, left: &Lowered, right: &Lowered) -> Value {
        let (mut a, mut b) = (left.value.clone(), right.value.clone());
        let ordered = !matches!(op, BinaryOp::Eq | BinaryOp::NotEq);
        if ordered && left.data_type == DataType::Boolean {
            a = self.graph.cast(&a, ElementType::Int64);
            b = self.graph.cast(&b, ElementType::Int64);
        }
        let value = self.graph.binary(compare_op(op), &a, &b);
        match op {
            BinaryOp::NotEq => self.graph.unary("Not", &value),
            _ => value,
        }
    }

    fn compare_text(&mut self, left: &Lowered, op: BinaryOp, right: &Lowered) -> Result<Lowered> {
        let (column, literal) = match (self.constant_text(left), self.constant_text(right)) {
            (_, Some(literal)) => (left, literal),
            (Some(literal), _) => (right, literal),
            _ => return Err(refused("a comparison of two text columns")),
        };
        let equal = self.text_is(&column.value, &literal);
        let missing = self.either(&left.missing, &right.missing);
        let value = match op {
            BinaryOp::Eq => equal,
            BinaryOp::NotEq => self.graph.unary("Not", &equal),
            other => return Err(refused(format!("`{}` between texts", op_of(other)))),
        };
        Ok(self.masked(value, missing))
    }

    fn constant_text(&self, text: &Lowered) -> Option<String> {
        match &self.graph.constants().get(&text.value)?.values {
            TensorValues::String(values) => values.first().cloned(),
            _ => None,
        }
    }

    fn and(&mut self, left: &Lowered, right: &Lowered) -> Lowered {
        let value = self.graph.binary("And", &left.value, &right.value);
        if left.missing.is_none() && right.missing.is_none() {
            return boolean(value, None);
        }
        let (not_left, not_right) = (self.is_false(left), self.is_false(right));
        let is_false = self.graph.binary("Or", &not_left, &not_right);
        let known = self.graph.binary("Or", &value, &is_false);
        let missing = self.graph.unary("Not", &known);
        boolean(value, Some(missing))
    }

    fn not(&mut self, e: &Lowered) -> Lowered {
        boolean(self.is_false(e), e.missing.clone())
    }

    fn is_false(&mut self, e: &Lowered) -> Value {
        let not = self.graph.unary("Not", &e.value);
        self.masked(not, e.missing.clone()).value
    }

    /// A Boolean that is false where it is null.
    fn masked(&mut self, value: Value, missing: Option<Value>) -> Lowered {
        let value = match &missing {
            Some(missing) => {
                let known = self.graph.unary("Not", missing);
                self.graph.binary("And", &value, &known)
            }
            None => value,
        };
        boolean(value, missing)
    }

    fn case(
        &mut self,
        whole: &BaseExpression,
        operand: Option<&BaseExpression>,
        branches: &[(BaseExpression, BaseExpression)],
        otherwise: Option<&BaseExpression>,
    ) -> Result<Lowered> {
        let data_type = match Expression::compile(&whole.to_expr()?, self.schema)?.data_type() {
            text if is_text(text) => DataType::Utf8,
            other => other.clone(),
        };
        let operand = operand.map(|e| self.expression(e)).transpose()?;
        let mut result = match otherwise {
            Some(e) => {
                let e = self.expression(e)?;
                self.cast(e, &data_type)?
            }
            None => {
                let (zero, missing) = (self.zero(&data_type), self.flag(true));
                lowered(zero, data_type.clone(), Some(missing))
            }
        };
        for (when, then) in branches.iter().rev() {
            let when = self.expression(when)?;
            let when = match &operand {
                Some(operand) => self.binary(operand.clone(), BinaryOp::Eq, when)?,
                None => when,
            };
            let then = self.expression(then)?;
            let then = self.cast(then, &data_type)?;
            let value = match &data_type {
                DataType::Boolean => self.select_flag(&when.value, &then.value, &result.value),
                float if float.is_floating() => {
                    self.select_float(&when.value, &then, &result.value)
                }
                _ => self.graph.select(&when.value, &then.value, &result.value),
            };
            let missing = if then.missing.is_none() && result.missing.is_none() {
                None
            } else {
                let a = then.missing.clone().unwrap_or_else(|| self.flag(false));
                let b = result.missing.clone().unwrap_or_else(|| self.flag(false));
                Some(self.select_flag(&when.value, &a, &b))
            };
            result = Lowered {
                divided: then.divided || result.divided,
                ..lowered(value, data_type.clone(), missing)
            };
        }
        Ok(result)
    }

    fn either(&mut self, a: &Option<Value>, b: &Option<Value>) -> Option<Value> {
        match (a, b) {
            (Some(a), Some(b)) if a != b => Some(self.graph.binary("Or", a, b)),
            (a, b) => a.clone().or_else(|| b.clone()),
        }
    }

    /// `Where` for floats: that of ONNX Runtime takes a chosen -0.0 in its second input for 0.0, so
    /// each choice stands in the third, and is multiplied by 1. `Equal` hides a `Not` from the
    /// optimizer, which would exchange the two inputs.
    fn select_float(&mut self, condition: &Value, then: &Lowered, otherwise: &Value) -> Value {
        let one = self.graph.constant(Tensor {
            dims: Vec::new(),
            values: match then.data_type {
                DataType::Float32 => TensorValues::Float(vec![1.0]),
                _ => TensorValues::Double(vec![1.0]),
            },
        });
        let (yes, no) = (self.flag(true), self.flag(false));
        let is = self.graph.binary("Equal", condition, &yes);
        let is_not = self.graph.binary("Equal", condition, &no);
        let then = self.graph.select(&is_not, &one, &then.value);
        let otherwise = self.graph.select(&is, &one, otherwise);
        self.graph.binary("Mul", &then, &otherwise)
    }

    /// `Where` for Booleans, which ONNX Runtime does not have.
    fn select_flag(&mut self, condition: &Value, then: &Value, otherwise: &Value) -> Value {
        let not = self.graph.unary("Not", condition);
        let then = self.graph.binary("And", condition, then);
        let otherwise = self.graph.binary("And", &not, otherwise);
        self.graph.binary("Or", &then, &otherwise)
    }

    /// True where a text is `literal`: ONNX has no `Equal` for text before operator set 19.
    fn text_is(&mut self, value: &Value, literal: &str) -> Value {
        text_is(value, literal, self.graph)
    }

    fn flag(&mut self, value: bool) -> Value {
        self.graph.constant(Tensor {
            dims: Vec::new(),
            values: TensorValues::Bool(vec![value]),
        })
    }

    fn zero(&mut self, data_type: &DataType) -> Value {
        let values = match data_type {
            DataType::Float64 => TensorValues::Double(vec![0.0]),
            DataType::Float32 => TensorValues::Float(vec![0.0]),
            DataType::Boolean => TensorValues::Bool(vec![false]),
            text if is_text(text) => TensorValues::String(vec![String::new()]),
            _ => TensorValues::Int64(vec![0]),
        };
        self.graph.constant(Tensor {
            dims: Vec::new(),
            values,
        })
    }
}

/// True where a text is `literal`: ONNX has no `Equal` for text before operator set 19.
pub(crate) fn text_is(value: &Value, literal: &str, graph: &mut OnnxGraph) -> Value {
    let attributes = vec![
        ("keys_strings", Attribute::Strings(vec![literal.into()])),
        ("values_int64s", Attribute::Ints(vec![1])),
        ("default_int64", Attribute::Int(0)),
    ];
    let found = graph.op_in(
        "ai.onnx.ml",
        "LabelEncoder",
        std::slice::from_ref(value),
        attributes,
    );
    graph.cast(&found, ElementType::Bool)
}

fn lowered(value: Value, data_type: DataType, missing: Option<Value>) -> Lowered {
    Lowered {
        value,
        data_type,
        missing,
        not_zero: false,
        divided: false,
    }
}

fn boolean(value: Value, missing: Option<Value>) -> Lowered {
    lowered(value, DataType::Boolean, missing)
}

fn compare_op(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Eq | BinaryOp::NotEq => "Equal",
        BinaryOp::Lt => "Less",
        BinaryOp::LtEq => "LessOrEqual",
        BinaryOp::Gt => "Greater",
        _ => "GreaterOrEqual",
    }
}

fn op_of(op: BinaryOp) -> datafusion_expr::Operator {
    op.operator()
}

fn element(data_type: &DataType) -> ElementType {
    match data_type {
        DataType::Float32 => ElementType::Float,
        _ => ElementType::Double,
    }
}
