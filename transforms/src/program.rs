//! Features compiled into steps, each run once however many features share it.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{CastOptions, cast, cast_with_options, nullif};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::expression::{Expression, check_column};
use mainstem_engine::{Error, Result};

use crate::by_value::ByValue;
use crate::expression::{BaseExpression, is_text};
use crate::feature::{Feature, Node};
use crate::learned::Learned;
use crate::mapper::Kernel;
use crate::onnx_graph::{OnnxGraph, Value};
use crate::values::{Kind, Shape, Values};

/// Steps in an order in which each stands behind its inputs.
#[derive(Debug)]
pub(crate) struct Program {
    /// The raw columns as they were fitted.
    schema: SchemaRef,
    /// The same, as expressions see them: all text is Utf8.
    plain: SchemaRef,
    steps: Vec<Step>,
    by_key: BTreeMap<String, usize>,
    /// Raw columns that compiled expressions read.
    evaluated: Vec<bool>,
}

#[derive(Debug)]
struct Step {
    op: Op,
    kind: Kind,
    /// The step whose values are those of this one: itself, unless its kernel only says what they mean.
    values_of: usize,
}

#[derive(Debug)]
enum Op {
    Column(usize),
    Expression(Box<Evaluated>),
    Map(Box<dyn Kernel>, Vec<usize>),
}

/// An expression, compiled for rows and, where that is possible, for the distinct values of its column.
#[derive(Debug)]
struct Evaluated {
    base: BaseExpression,
    by_row: Expression,
    by_value: Option<ByValue>,
}

impl Program {
    /// No steps yet, over these raw columns.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        Self {
            schema: SchemaRef::clone(schema),
            plain: plain(schema),
            steps: Vec::new(),
            by_key: BTreeMap::new(),
            evaluated: vec![false; schema.fields().len()],
        }
    }

    /// Adds what `feature` needs and gives its place.
    ///
    /// # Errors
    /// If it does not fit the columns or what was learned.
    pub(crate) fn add(&mut self, feature: &Feature, learned: &Learned) -> Result<usize> {
        let key = feature.key()?;
        if let Some(place) = self.by_key.get(&key) {
            return Ok(*place);
        }
        let (op, kind, values_of) = match feature.node() {
            Node::Refused(refusal) => return Err(refusal.error()),
            Node::Expression(base) => {
                let (op, kind) = self.base(base)?;
                (op, kind, None)
            }
            Node::Mapped(mapper) => {
                let places = mapper
                    .inputs()
                    .into_iter()
                    .map(|input| self.add(input, learned))
                    .collect::<Result<Vec<_>>>()?;
                let kinds: Vec<Kind> = places.iter().map(|p| self.steps[*p].kind).collect();
                let kernel = mapper.build(learned, &kinds)?;
                let same = kernel.keeps_values().then(|| places.first().copied());
                let values_of = same.flatten().map(|p| self.steps[p].values_of);
                let kind = kernel.kind();
                (Op::Map(kernel, places), kind, values_of)
            }
        };
        let place = self.steps.len();
        self.steps.push(Step {
            op,
            kind,
            values_of: values_of.unwrap_or(place),
        });
        self.by_key.insert(key, place);
        Ok(place)
    }

    fn base(&mut self, base: &BaseExpression) -> Result<(Op, Kind)> {
        if let BaseExpression::Column(name) = base {
            let place = check_column(name, &self.schema)?;
            let shape = expect_feature_type(name, self.schema.field(place).data_type())?;
            return Ok((Op::Column(place), kind_of(shape)));
        }
        let expr = base.to_expr()?;
        let compiled = Expression::compile(&expr, &self.plain)?;
        let shape = expect_feature_type(&expr.to_string(), compiled.data_type())?;
        let mut names = Vec::new();
        base.columns(&mut names);
        for name in names {
            self.evaluated[check_column(&name, &self.schema)?] = true;
        }
        let evaluated = Evaluated {
            base: base.clone(),
            by_row: compiled,
            by_value: ByValue::compile(base, &self.plain)?,
        };
        Ok((Op::Expression(Box::new(evaluated)), kind_of(shape)))
    }

    /// What the step at `place` gives.
    pub(crate) fn kind(&self, place: usize) -> Kind {
        self.steps[place].kind
    }

    /// Where in the result of [`Program::run`] the values of the step at `place` are.
    pub(crate) fn values_of(&self, place: usize) -> usize {
        self.steps[place].values_of
    }

    /// The values of all steps, at [`Program::values_of`] each.
    ///
    /// # Errors
    /// If a column is missing or of another type, or an expression fails on a row.
    pub(crate) fn run(&self, rows: &RecordBatch) -> Result<Vec<Values>> {
        let columns = self.columns(rows)?;
        // Made only if an expression is evaluated row by row.
        let mut plain = None;
        let mut values: Vec<Values> = Vec::with_capacity(self.steps.len());
        for (place, step) in self.steps.iter().enumerate() {
            let made = match &step.op {
                _ if step.values_of != place => Values::Indexes(Vec::new()),
                Op::Column(place) => Values::from_array(&columns[*place])?,
                Op::Expression(evaluated) => {
                    let by_value = match &evaluated.by_value {
                        Some(by_value) => by_value.evaluate(&columns[by_value.column])?,
                        None => None,
                    };
                    let made = match (by_value, &plain) {
                        (Some(made), _) => made,
                        (None, Some(rows)) => evaluated.by_row.evaluate(rows)?,
                        (None, None) => {
                            let rows = self.plain_rows(&columns, rows.num_rows())?;
                            evaluated.by_row.evaluate(plain.insert(rows))?
                        }
                    };
                    Values::from_array(&made)?
                }
                Op::Map(kernel, places) => {
                    let input = |p: &usize| &values[self.steps[*p].values_of];
                    let inputs: Vec<&Values> = places.iter().map(input).collect();
                    kernel.run(&inputs)?
                }
            };
            values.push(made);
        }
        Ok(values)
    }

    /// Writes all steps as ONNX nodes.
    ///
    /// # Errors
    /// A pipeline error where ONNX cannot express a step.
    pub(crate) fn to_onnx(&self, graph: &mut OnnxGraph) -> Result<Vec<Value>> {
        let mut values: Vec<Value> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let made = match &step.op {
                Op::Column(place) => {
                    let name = self.schema.field(*place).name().clone();
                    BaseExpression::Column(name).to_onnx(&self.plain, graph)?
                }
                Op::Expression(evaluated) => evaluated.base.to_onnx(&self.plain, graph)?,
                Op::Map(kernel, places) => {
                    let inputs: Vec<Value> = places.iter().map(|p| values[*p].clone()).collect();
                    kernel.to_onnx(&inputs, graph)?
                }
            };
            values.push(made);
        }
        Ok(values)
    }

    fn columns(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let found = rows.schema();
        let column = |field: &std::sync::Arc<Field>| {
            let column = rows.column(check_column(field.name(), &found)?);
            as_fitted(field, column)
        };
        self.schema.fields().iter().map(column).collect()
    }

    /// The columns that expressions read, as they see them; the others are only placeholders.
    fn plain_rows(&self, columns: &[ArrayRef], n_rows: usize) -> Result<RecordBatch> {
        let column = |(i, column): (usize, &ArrayRef)| {
            let data_type = self.plain.field(i).data_type();
            if self.evaluated[i] {
                without_missing(&cast(column, data_type)?)
            } else {
                Ok(arrow::array::new_null_array(data_type, n_rows))
            }
        };
        if !self.evaluated.contains(&true) {
            return Ok(RecordBatch::new_empty(SchemaRef::clone(&self.plain)));
        }
        let columns = columns
            .iter()
            .enumerate()
            .map(column)
            .collect::<Result<_>>()?;
        Ok(RecordBatch::try_new(
            SchemaRef::clone(&self.plain),
            columns,
        )?)
    }
}

fn kind_of(shape: Shape) -> Kind {
    if shape == Shape::Text {
        Kind::Text
    } else {
        Kind::Number
    }
}

/// What a feature that starts from `data_type` is.
///
/// # Errors
/// A pipeline error for a type that must be cast first.
pub(crate) fn expect_feature_type(what: &str, data_type: &DataType) -> Result<Shape> {
    Shape::of(data_type).ok_or_else(|| {
        Error::pipeline(format!(
            "a feature starts from numbers, Booleans or text, `{what}` is {data_type}"
        ))
        .with_hint("Cast it, or compute a number from it.")
    })
}

/// The schema as expressions see it: all text is Utf8, and everything may be null.
pub(crate) fn plain(schema: &Schema) -> SchemaRef {
    let field = |f: &std::sync::Arc<Field>| {
        let data_type = if is_text(f.data_type()) {
            DataType::Utf8
        } else {
            f.data_type().clone()
        };
        Field::new(f.name(), data_type, true)
    };
    SchemaRef::new(Schema::new(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
    ))
}

/// The column in the type it was fitted with. Text stays as it is, as its form makes no difference.
fn as_fitted(field: &Field, column: &ArrayRef) -> Result<ArrayRef> {
    let (wanted, found) = (field.data_type(), column.data_type());
    if wanted == found || is_text(wanted) && is_text(found) {
        return Ok(ArrayRef::clone(column));
    }
    let widens = found.is_null()
        || found.is_integer() && (wanted.is_integer() || wanted.is_floating())
        || found.is_floating() && wanted.is_floating();
    if !widens {
        return Err(Error::data(format!(
            "column {:?} must hold {wanted}, found {found}",
            field.name()
        ))
        .with_hint("The preprocessing was fitted on that type: cast the column before."));
    }
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(column, wanted, &strict)?)
}

/// NaN and the empty text as null, as ONNX cannot tell them apart.
pub(crate) fn without_missing(column: &ArrayRef) -> Result<ArrayRef> {
    let missing: BooleanArray = match column.data_type() {
        DataType::Float64 => missing(column.as_primitive::<Float64Type>(), |x: f64| x.is_nan()),
        DataType::Float32 => missing(column.as_primitive::<Float32Type>(), |x: f32| x.is_nan()),
        DataType::Utf8 => missing(column.as_string::<i32>(), str::is_empty),
        _ => return Ok(ArrayRef::clone(column)),
    };
    if missing.true_count() == 0 {
        return Ok(ArrayRef::clone(column));
    }
    Ok(nullif(column, &missing)?)
}

fn missing<T>(
    column: impl IntoIterator<Item = Option<T>>,
    is_missing: impl Fn(T) -> bool,
) -> BooleanArray {
    column
        .into_iter()
        .map(|x| Some(x.is_some_and(&is_missing)))
        .collect()
}
