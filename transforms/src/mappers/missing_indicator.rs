//! Tells where a value is missing.

use crate::expression::onnx::text_is;
use crate::mapper::prelude::*;
use crate::onnx_graph::ElementType;
use crate::text::map_words;

/// Maps a missing value to 1 and any other to 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingIndicator {
    input: Feature,
}

impl Feature {
    /// 1 where the feature is missing, else 0: to stand beside [`Feature::impute`].
    #[must_use]
    pub fn missing_indicator(self) -> Feature {
        Feature::mapped(MissingIndicator { input: self })
    }
}

#[typetag::serde(name = "missing_indicator")]
impl Mapper for MissingIndicator {
    fn name(&self) -> &'static str {
        "missing_indicator"
    }

    fn inputs(&self) -> Vec<&Feature> {
        vec![&self.input]
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        if inputs[0] == Shape::OneHot {
            expect_shape(self.name(), Shape::Index, inputs[0])?;
        }
        Ok(Shape::Number)
    }

    fn build(&self, _learned: &Learned, inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        Ok(Box::new(IsMissing {
            shape: inputs[0].shape(),
        }))
    }
}

#[derive(Debug)]
struct IsMissing {
    shape: Shape,
}

impl Kernel for IsMissing {
    fn kind(&self) -> Kind {
        Kind::Number
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let flag = |missing: bool| f64::from(u8::from(missing));
        Ok(Values::Numbers(match inputs[0] {
            Values::Numbers(xs) => xs.iter().map(|x| flag(x.is_nan())).collect(),
            Values::Indexes(xs) => xs.iter().map(|i| flag(*i == MISSING)).collect(),
            Values::Text(words) => {
                let missing = map_words(words, |w| i64::from(w.is_none()))?;
                missing.into_iter().map(|m| m as f64).collect()
            }
        }))
    }

    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value> {
        let missing = match self.shape {
            Shape::Number => graph.unary("IsNaN", &inputs[0]),
            Shape::Text => text_is(&inputs[0], "", graph),
            Shape::Index | Shape::OneHot => {
                let none = graph.int64(MISSING);
                graph.binary("Equal", &inputs[0], &none)
            }
        };
        Ok(graph.cast(&missing, ElementType::Double))
    }
}
