//! Rescales numbers to mean 0 and standard deviation 1.

use crate::analyzers::{Moments, MomentsLearned};
use crate::mapper::prelude::*;

/// Maps each number `x` to `(x - mean) / std_dev`, both taken over all rows.
///
/// `std_dev` is the biased one (divisor n), as in tf.Transform's `scale_to_z_score`. Where it is 0,
/// `x` becomes `x - mean`. Missing stays missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleToZScore {
    input: Feature,
}

impl Feature {
    /// `(x - mean) / std_dev` over all rows; `x - mean` where all values are equal. Missing stays missing.
    #[must_use]
    pub fn scale_to_z_score(self) -> Feature {
        Feature::mapped(ScaleToZScore { input: self })
    }
}

impl ScaleToZScore {
    fn moments(&self) -> Learn {
        Learn::new(&self.input, Moments::new())
    }
}

#[typetag::serde(name = "scale_to_z_score")]
impl Mapper for ScaleToZScore {
    fn name(&self) -> &'static str {
        "scale_to_z_score"
    }

    fn inputs(&self) -> Vec<&Feature> {
        vec![&self.input]
    }

    fn analyzers(&self) -> Vec<Learn> {
        vec![self.moments()]
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        expect_shape(self.name(), Shape::Number, inputs[0])?;
        Ok(Shape::Number)
    }

    fn build(&self, learned: &Learned, _inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        let moments: MomentsLearned = learned.get(&self.moments())?;
        let std_dev = moments.std_dev();
        Ok(Box::new(ZScore {
            mean: moments.mean,
            divisor: (std_dev != 0.0).then_some(std_dev),
        }))
    }
}

#[derive(Debug)]
struct ZScore {
    mean: f64,
    divisor: Option<f64>,
}

impl Kernel for ZScore {
    fn kind(&self) -> Kind {
        Kind::Number
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let xs = inputs[0].numbers()?.iter();
        let mean = self.mean;
        Ok(Values::Numbers(match self.divisor {
            Some(divisor) => xs.map(|x| (x - mean) / divisor).collect(),
            None => xs.map(|x| x - mean).collect(),
        }))
    }

    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value> {
        let mean = graph.double(self.mean);
        let centred = graph.binary("Sub", &inputs[0], &mean);
        Ok(match self.divisor {
            Some(divisor) => {
                let divisor = graph.double(divisor);
                graph.binary("Div", &centred, &divisor)
            }
            None => centred,
        })
    }
}
