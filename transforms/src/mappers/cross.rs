//! Crosses indexes into one index with a place for each combination.

use crate::mapper::prelude::*;

/// The most combinations of which each has an exact 32-bit float.
const MAX_DEPTH: usize = 1 << 24;

/// Maps several indexes to the index of their combination, the last input changing fastest.
///
/// The places of an input are its categories, and one more at the end where it can be [`UNKNOWN`].
/// Missing in any input is missing. The index is exact, so ONNX can express it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cross {
    inputs: Vec<Feature>,
}

/// The index of the combination of several indexes, the last changing fastest. Missing in any of them
/// is missing; an unknown word has a place of its own. At most 2^24 combinations.
pub fn cross(inputs: impl IntoIterator<Item = Feature>) -> Feature {
    Feature::mapped(Cross {
        inputs: inputs.into_iter().collect(),
    })
}

#[typetag::serde(name = "cross")]
impl Mapper for Cross {
    fn name(&self) -> &'static str {
        "cross"
    }

    fn inputs(&self) -> Vec<&Feature> {
        self.inputs.iter().collect()
    }

    fn check(&self, inputs: &[Shape]) -> Result<Shape> {
        at_least_two(self.name(), inputs)?;
        for shape in inputs {
            expect_shape(self.name(), Shape::Index, *shape)?;
        }
        Ok(Shape::Index)
    }

    fn build(&self, _learned: &Learned, inputs: &[Kind]) -> Result<Box<dyn Kernel>> {
        let places = inputs.iter().map(|kind| kind.slots());
        let depth = places.clone().try_fold(1_usize, usize::checked_mul);
        match depth {
            Some(depth) if depth <= MAX_DEPTH => Ok(Box::new(MixedRadix {
                inputs: inputs.to_vec(),
                depth,
            })),
            depth => {
                let figures: Vec<String> = places.map(|p| p.to_string()).collect();
                let product = depth.map_or_else(|| "more than 2^64".into(), |d| d.to_string());
                Err(Error::pipeline(format!(
                    "`cross` takes at most {MAX_DEPTH} combinations, found {} = {product}",
                    figures.join(" * "),
                ))
                .with_hint("Use fewer buckets, `.top_k(..)`, or `cross_hashed`."))
            }
        }
    }
}

pub(super) fn at_least_two(name: &str, inputs: &[Shape]) -> Result<()> {
    if inputs.len() >= 2 {
        return Ok(());
    }
    Err(Error::pipeline(format!(
        "`{name}` needs at least 2 features, found {}",
        inputs.len()
    )))
}

#[derive(Debug)]
struct MixedRadix {
    inputs: Vec<Kind>,
    depth: usize,
}

impl Kernel for MixedRadix {
    fn kind(&self) -> Kind {
        Kind::Index {
            depth: self.depth,
            unknown: false,
        }
    }

    fn run(&self, inputs: &[&Values]) -> Result<Values> {
        let mut crossed = vec![0_i64; inputs[0].indexes()?.len()];
        for (values, kind) in inputs.iter().zip(&self.inputs) {
            let places = kind.slots() as i64;
            for (at, index) in crossed.iter_mut().zip(values.indexes()?) {
                *at = match *index {
                    _ if *at == MISSING => MISSING,
                    MISSING => MISSING,
                    UNKNOWN => *at * places + places - 1,
                    index => *at * places + index,
                };
            }
        }
        Ok(Values::Indexes(crossed))
    }

    fn to_onnx(&self, inputs: &[Value], graph: &mut OnnxGraph) -> Result<Value> {
        let (none, unknown) = (graph.int64(MISSING), graph.int64(UNKNOWN));
        let mut crossed: Option<Value> = None;
        let mut missing: Option<Value> = None;
        for (index, kind) in inputs.iter().zip(&self.inputs) {
            let places = graph.int64(kind.slots() as i64);
            let is_none = graph.binary("Equal", index, &none);
            missing = Some(match missing {
                Some(before) => graph.binary("Or", &before, &is_none),
                None => is_none,
            });
            let place = if matches!(kind, Kind::Index { unknown: true, .. }) {
                let is_unknown = graph.binary("Equal", index, &unknown);
                let last = graph.int64(kind.slots() as i64 - 1);
                graph.select(&is_unknown, &last, index)
            } else {
                index.clone()
            };
            crossed = Some(match crossed {
                Some(before) => {
                    let high = graph.binary("Mul", &before, &places);
                    graph.binary("Add", &high, &place)
                }
                None => place,
            });
        }
        match (missing, crossed) {
            (Some(missing), Some(crossed)) => Ok(graph.select(&missing, &none, &crossed)),
            _ => Err(Error::bug("`cross` was built without inputs")),
        }
    }
}
