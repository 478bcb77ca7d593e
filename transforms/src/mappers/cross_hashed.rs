//! Crosses indexes and deals their combinations to buckets by hash.

use super::cross::at_least_two;
use crate::mapper::prelude::*;

/// Maps several indexes to one of `n_buckets` indexes by the hash of their combination.
///
/// The hash is FarmHash `Fingerprint64` of the indexes as little-endian 64-bit integers, one after the
/// other, modulo `n_buckets`. Missing in any input is missing; [`UNKNOWN`] is hashed as it is. ONNX
/// cannot express it: use [`cross`](crate::cross) for that.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossHashed {
    inputs: Vec<Feature>,
    n_buckets: usize,
}

/// One of `n_buckets` indexes by the hash of the combination of several indexes. Missing in any of
/// them is missing. ONNX cannot express it.
pub fn cross_hashed(inputs: impl IntoIterator<Item = Feature>, n_buckets: usize) -> Feature {
    Feature::mapped(CrossHashed {
        inputs: inputs.into_iter().collect(),
        n_buckets,
    })
}

#[typetag::serde(name = "cross_hashed")]
impl Mapper for CrossHashed {
    fn name(&self) -> &'static str {
        "cross_hashed"
    }

    fn inputs(&self) -> Vec<&Feature> {
        self.inputs.iter().collect()
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        at_least_two(self.name(), inputs)?;
        if !(1..=1 << 24).contains(&self.n_buckets) {
            return Err(Error::pipeline(format!(
                "`cross_hashed` takes 1 to 16777216 buckets, found {}",
                self.n_buckets
            )));
        }
        for shape in inputs {
            expect_shape(self.name(), Shape::Index, *shape)?;
        }
        Ok(Shape::Index)
    }

    fn build(&self, _learned: &Learned, _inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        Ok(Box::new(Hashed {
            n_buckets: self.n_buckets,
        }))
    }
}

#[derive(Debug)]
struct Hashed {
    n_buckets: usize,
}

impl Kernel for Hashed {
    fn kind(&self) -> Kind {
        Kind::Index {
            depth: self.n_buckets,
            unknown: false,
        }
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let columns: Vec<&[i64]> = inputs.iter().map(|i| i.indexes()).collect::<Result<_>>()?;
        let mut bytes = vec![0; columns.len() * 8];
        let hashed = |row: usize| {
            for (place, column) in bytes.chunks_exact_mut(8).zip(&columns) {
                if column[row] == MISSING {
                    return MISSING;
                }
                place.copy_from_slice(&column[row].to_le_bytes());
            }
            (farmhash::fingerprint64(&bytes) % self.n_buckets as u64) as i64
        };
        Ok(Values::Indexes((0..columns[0].len()).map(hashed).collect()))
    }

    fn to_onnx(&self, _inputs: &[Value], _graph: &mut OnnxGraph) -> Result<Value> {
        Err(
            Error::pipeline("ONNX cannot express `cross_hashed`, as it has no FarmHash")
                .with_hint("Use `cross`, whose index is exact."),
        )
    }
}
