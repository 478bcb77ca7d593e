//! Replaces numbers by the index of their quantile bucket.

use crate::analyzers::{Boundaries, Quantiles};
use crate::mapper::prelude::*;
use crate::onnx_graph::{Attribute, ElementType, Tensor, TensorValues};

/// Maps each number to the index of the bucket that holds it, where buckets hold equal numbers of rows.
///
/// A value equal to a boundary goes to the bucket above. Equal boundaries count once, so a column of
/// few distinct values gets fewer than `n_buckets` buckets. Missing (NaN too) stays missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucketize {
    input: Feature,
    n_buckets: usize,
}

impl Feature {
    /// The index of one of `n_buckets` buckets that hold equal numbers of rows. Missing stays missing.
    #[must_use]
    pub fn bucketize(self, n_buckets: usize) -> Feature {
        Feature::mapped(Bucketize {
            input: self,
            n_buckets,
        })
    }
}

impl Bucketize {
    fn boundaries(&self) -> Learn {
        Learn::new(&self.input, Quantiles::new(self.n_buckets))
    }
}

#[typetag::serde(name = "bucketize")]
impl Mapper for Bucketize {
    fn name(&self) -> &'static str {
        "bucketize"
    }

    fn inputs(&self) -> Vec<&Feature> {
        vec![&self.input]
    }

    fn analyzers(&self) -> Vec<Learn> {
        vec![self.boundaries()]
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        if !(1..=65_536).contains(&self.n_buckets) {
            return Err(Error::pipeline(format!(
                "`bucketize` takes 1 to 65536 buckets, found {}",
                self.n_buckets
            )));
        }
        expect_shape(self.name(), Shape::Number, inputs[0])?;
        Ok(Shape::Index)
    }

    fn build(&self, learned: &Learned, _inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        let Boundaries(boundaries) = learned.get(&self.boundaries())?;
        Ok(Box::new(Buckets { boundaries }))
    }
}

#[derive(Debug)]
struct Buckets {
    boundaries: Vec<f64>,
}

/// Of so few boundaries counting those that are reached is faster than a search, whose steps cannot be foretold.
const FEW: usize = 32;

impl Buckets {
    /// How many boundaries a number reaches.
    fn place(&self, x: f64) -> usize {
        match self.boundaries.len() <= FEW {
            true => self.boundaries.iter().map(|b| usize::from(x >= *b)).sum(),
            false => self.boundaries.partition_point(|b| x >= *b),
        }
    }
}

impl Kernel for Buckets {
    fn kind(&self) -> Kind {
        Kind::Index {
            depth: self.boundaries.len() + 1,
            unknown: false,
        }
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let index = |x: &f64| {
            if x.is_nan() {
                MISSING
            } else {
                self.place(*x) as i64
            }
        };
        Ok(Values::Indexes(
            inputs[0].numbers()?.iter().map(index).collect(),
        ))
    }

    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value> {
        let missing = graph.unary("IsNaN", &inputs[0]);
        let index = if self.boundaries.is_empty() {
            graph.int64(0)
        } else {
            let boundaries = graph.constant(Tensor {
                dims: vec![1, self.boundaries.len()],
                values: TensorValues::Double(self.boundaries.clone()),
            });
            let above = graph.binary("GreaterOrEqual", &inputs[0], &boundaries);
            let above = graph.cast(&above, ElementType::Int64);
            let axis = graph.constant(Tensor {
                dims: vec![1],
                values: TensorValues::Int64(vec![1]),
            });
            let keep = vec![("keepdims", Attribute::Int(1))];
            graph.op("ReduceSum", &[above, axis], keep)
        };
        let none = graph.int64(MISSING);
        Ok(graph.select(&missing, &none, &index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(boundaries: &[f64], numbers: &[f64]) -> Vec<i64> {
        let boundaries = boundaries.to_vec();
        let placed = Buckets { boundaries }.run(&[&Values::Numbers(numbers.to_vec())]);
        placed.unwrap().indexes().unwrap().to_vec()
    }

    #[test]
    fn a_boundary_belongs_to_the_bucket_above_however_many_there_are() {
        let numbers = [
            f64::NEG_INFINITY,
            0.5,
            1.0,
            1.5,
            2.0,
            f64::INFINITY,
            f64::NAN,
        ];
        assert_eq!(places(&[1.0, 2.0], &numbers), [0, 0, 1, 1, 2, 2, MISSING]);
        assert_eq!(places(&[], &numbers), [0, 0, 0, 0, 0, 0, MISSING]);
        let many: Vec<f64> = (1..=40).map(f64::from).collect();
        assert!(many.len() > FEW);
        assert_eq!(places(&many, &numbers), [0, 0, 1, 1, 2, 40, MISSING]);
    }
}
