//! A small network, whose scoring costs about as much as everything around it.

use mainstem::ml_stages::model::{FEATURES, SCORE, Task, TrainedModel};
use mainstem::prelude::*;
use mainstem::transforms::FeatureLayout;
use mainstem::transforms::onnx_graph::{
    Attribute, Dim, ElementType, OnnxGraph, Tensor, TensorValues, Value,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Width of the feature matrix and sizes of the layers behind it.
const LAYERS: [usize; 4] = [25, 64, 32, 1];

/// A network with weights drawn at random: what it predicts does not matter here.
///
/// # Errors
/// If the features are not as wide as the network.
pub(crate) fn random_network(layout: &FeatureLayout, seed: u64) -> Result<TrainedModel> {
    if layout.width() != LAYERS[0] {
        let width = layout.width();
        return Err(Error::bug(format!(
            "the features take {width} columns, not {}",
            LAYERS[0]
        )));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut graph = OnnxGraph::new();
    let shape = |width| [Dim::Rows, Dim::Size(width)];
    let mut value = graph.input(FEATURES, ElementType::Float, &shape(LAYERS[0]));
    for (layer, sizes) in LAYERS.windows(2).enumerate() {
        let (n_in, n_out) = (sizes[0], sizes[1]);
        let weights = random_tensor(&mut rng, &mut graph, &[n_in, n_out]);
        let bias = random_tensor(&mut rng, &mut graph, &[n_out]);
        value = graph.op(
            "Gemm",
            &[value, weights, bias],
            Vec::<(&str, Attribute)>::new(),
        );
        if layer + 2 < LAYERS.len() {
            value = graph.op("Relu", &[value], Vec::new());
        }
    }
    graph.output(SCORE, &value, ElementType::Float, &shape(1));
    Ok(TrainedModel {
        kind: "random_network",
        task: Task::Regression,
        layout: layout.clone(),
        graph,
        losses: Vec::new(),
    })
}

fn random_tensor(rng: &mut ChaCha8Rng, graph: &mut OnnxGraph, dims: &[usize]) -> Value {
    let scale = 1.0 / (dims[0] as f32).sqrt();
    let draw = |_| {
        let z: f32 = StandardNormal.sample(rng);
        z * scale
    };
    let values = (0..dims.iter().product::<usize>()).map(draw).collect();
    graph.constant(Tensor {
        dims: dims.into(),
        values: TensorValues::Float(values),
    })
}
