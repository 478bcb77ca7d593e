//! Puts a value where one is missing.

use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::analyzers::{Boundaries, Moments, MomentsLearned, Quantiles, Vocabulary, Words};
use crate::expression::onnx::text_is;
use crate::mapper::prelude::*;

/// Maps missing values to a value that stands for them; all others stay as they are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImputeMissing {
    input: Feature,
    with: Impute,
}

/// What stands for a missing value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Impute {
    /// The mean of the numbers that are there.
    Mean,
    /// Their median: of an even number of rows the upper of the two in the middle.
    Median,
    /// A number.
    Constant(f64),
    /// A text, not empty.
    Text(String),
    /// The most frequent text; of several the last by byte order.
    MostFrequent,
}

impl Feature {
    /// The same feature with a value where one is missing.
    #[must_use]
    pub fn impute(self, with: Impute) -> Feature {
        Feature::mapped(ImputeMissing { input: self, with })
    }
}

impl ImputeMissing {
    fn learn(&self) -> Option<Learn> {
        match self.with {
            Impute::Mean => Some(Learn::new(&self.input, Moments::new())),
            Impute::Median => Some(Learn::new(&self.input, Quantiles::new(2))),
            Impute::MostFrequent => Some(Learn::new(&self.input, Vocabulary::new().top_k(Some(1)))),
            Impute::Constant(_) | Impute::Text(_) => None,
        }
    }
}

#[typetag::serde(name = "impute")]
impl Mapper for ImputeMissing {
    fn name(&self) -> &'static str {
        "impute"
    }

    fn inputs(&self) -> Vec<&Feature> {
        vec![&self.input]
    }

    fn analyzers(&self) -> Vec<Learn> {
        self.learn().into_iter().collect()
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        let shape = match &self.with {
            Impute::Constant(x) if !x.is_finite() => {
                return Err(Error::pipeline(format!(
                    "`impute` needs a finite number, found {x:?}"
                )));
            }
            Impute::Text(text) if text.is_empty() => {
                return Err(Error::pipeline(
                    "`impute` cannot put the empty text, which counts as missing",
                ));
            }
            Impute::Mean | Impute::Median | Impute::Constant(_) => Shape::Number,
            Impute::Text(_) | Impute::MostFrequent => Shape::Text,
        };
        expect_shape(self.name(), shape, inputs[0])?;
        Ok(shape)
    }

    fn build(&self, learned: &Learned, _inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        let nothing = || Error::data("there is no finite value to impute");
        let learned = |_: ()| self.learn().map(|l| (learned, l)).ok_or_else(nothing);
        Ok(match &self.with {
            Impute::Mean => {
                let (learned, learn) = learned(())?;
                let MomentsLearned { mean, .. } = learned.get(&learn)?;
                Box::new(FillNumbers { value: mean })
            }
            Impute::Median => {
                let (learned, learn) = learned(())?;
                let Boundaries(middle) = learned.get(&learn)?;
                let value = middle.first().copied().ok_or_else(nothing)?;
                Box::new(FillNumbers { value })
            }
            Impute::MostFrequent => {
                let (learned, learn) = learned(())?;
                let Words(words) = learned.get(&learn)?;
                let value = words.into_iter().next().ok_or_else(nothing)?;
                Box::new(FillText { value })
            }
            // ONNX Runtime's `Where` takes a chosen -0.0 for 0.0, so -0.0 is imputed nowhere.
            Impute::Constant(value) => Box::new(FillNumbers { value: value + 0.0 }),
            Impute::Text(value) => Box::new(FillText {
                value: value.clone(),
            }),
        })
    }
}

#[derive(Debug)]
struct FillNumbers {
    value: f64,
}

impl Kernel for FillNumbers {
    fn kind(&self) -> Kind {
        Kind::Number
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let xs = inputs[0].numbers()?.iter();
        let filled = xs.map(|x| if x.is_nan() { self.value } else { *x });
        Ok(Values::Numbers(filled.collect()))
    }

    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value> {
        let missing = graph.unary("IsNaN", &inputs[0]);
        let value = graph.double(self.value);
        Ok(graph.select(&missing, &value, &inputs[0]))
    }
}

#[derive(Debug)]
struct FillText {
    value: String,
}

impl Kernel for FillText {
    fn kind(&self) -> Kind {
        Kind::Text
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let plain = cast(inputs[0].text()?, &DataType::Utf8)?;
        let filled: StringArray = plain
            .as_string::<i32>()
            .iter()
            .map(|w| Some(w.filter(|w| !w.is_empty()).unwrap_or(&self.value)))
            .collect();
        Ok(Values::Text(Arc::new(filled)))
    }

    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value> {
        let value = graph.text(&self.value);
        let missing = text_is(&inputs[0], "", graph);
        Ok(graph.select(&missing, &value, &inputs[0]))
    }
}
