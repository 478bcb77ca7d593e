//! Spreads an index over one column per category.

use crate::mapper::prelude::*;

/// Maps an index to as many columns as there are categories, 1 in the column of its own, else 0.
///
/// [`UNKNOWN`] and missing give zeros alone, so the feature is never missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneHot {
    input: Feature,
}

impl Feature {
    /// One column per category of an index, 1 in its own; unknown and missing give zeros alone.
    #[must_use]
    pub fn one_hot(self) -> Feature {
        Feature::mapped(OneHot { input: self })
    }
}

#[typetag::serde(name = "one_hot")]
impl Mapper for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn inputs(&self) -> Vec<&Feature> {
        vec![&self.input]
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        expect_shape(self.name(), Shape::Index, inputs[0])?;
        Ok(Shape::OneHot)
    }

    fn build(&self, _learned: &Learned, inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        match inputs[0] {
            Kind::Index { depth, .. } => Ok(Box::new(Spread { depth })),
            _ => Err(Error::bug("`one_hot` was built over what is no index")),
        }
    }
}

/// Only the kind changes: an index is widened where it is written into the matrix.
#[derive(Debug)]
struct Spread {
    depth: usize,
}

impl Kernel for Spread {
    fn kind(&self) -> Kind {
        Kind::OneHot { depth: self.depth }
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        Ok(inputs[0].clone())
    }

    fn keeps_values(&self) -> bool {
        true
    }

    fn to_onnx(&self, inputs: &[Value], _graph: &mut OnnxGraph) -> Result<Value> {
        Ok(inputs[0].clone())
    }
}
