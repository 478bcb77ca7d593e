//! Rescales numbers to the range from 0 to 1.

use crate::analyzers::{MinMax, Range};
use crate::mapper::prelude::*;

/// Maps each number `x` to `(x - min) / (max - min)`, both taken over all rows.
///
/// Values beyond those seen while fitting leave the range, as in tf.Transform. Where all values are
/// equal every value becomes 0.5 (tf.Transform applies a sigmoid, whose last bits differ between
/// runtimes). Missing stays missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleTo01 {
    input: Feature,
}

impl Feature {
    /// `(x - min) / (max - min)` over all rows; 0.5 where all values are equal. Missing stays missing.
    #[must_use]
    pub fn scale_to_0_1(self) -> Feature {
        Feature::mapped(ScaleTo01 { input: self })
    }
}

impl ScaleTo01 {
    fn range(&self) -> Learn {
        Learn::new(&self.input, MinMax::new())
    }
}

#[typetag::serde(name = "scale_to_0_1")]
impl Mapper for ScaleTo01 {
    fn name(&self) -> &'static str {
        "scale_to_0_1"
    }

    fn inputs(&self) -> Vec<&Feature> {
        vec![&self.input]
    }

    fn analyzers(&self) -> Vec<Learn> {
        vec![self.range()]
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        expect_shape(self.name(), Shape::Number, inputs[0])?;
        Ok(Shape::Number)
    }

    fn build(&self, learned: &Learned, _inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        let Range { min, max } = learned.get(&self.range())?;
        Ok(Box::new(ToRange {
            min,
            span: max - min,
        }))
    }
}

#[derive(Debug)]
struct ToRange {
    min: f64,
    span: f64,
}

impl Kernel for ToRange {
    fn kind(&self) -> Kind {
        Kind::Number
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let Self { min, span } = *self;
        let xs = inputs[0].numbers()?.iter();
        Ok(Values::Numbers(if span > 0.0 {
            xs.map(|x| (x - min) / span).collect()
        } else {
            xs.map(|x| if x.is_nan() { f64::NAN } else { 0.5 })
                .collect()
        }))
    }

    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value> {
        if self.span > 0.0 {
            let (min, span) = (graph.double(self.min), graph.double(self.span));
            let above = graph.binary("Sub", &inputs[0], &min);
            Ok(graph.binary("Div", &above, &span))
        } else {
            let missing = graph.unary("IsNaN", &inputs[0]);
            let (nan, half) = (graph.double(f64::NAN), graph.double(0.5));
            Ok(graph.select(&missing, &nan, &half))
        }
    }
}
