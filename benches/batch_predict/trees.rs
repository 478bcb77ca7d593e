//! Boosted trees, whose scoring costs far more than everything around it.

use mainstem::ml_stages::model::{FEATURES, SCORE, Task, TrainedModel};
use mainstem::transforms::onnx_graph::{Attribute, Dim, ElementType, OnnxGraph};
use mainstem::transforms::{FeatureKind, FeatureLayout};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};

const N_TREES: usize = 200;
const DEPTH: u32 = 6;
/// Splits on numbers rather than on a category: such columns carry most splits of trees that were learned.
const SHARE_OF_NUMBERS: f64 = 0.5;

/// The columns of a `TreeEnsembleRegressor`, a line per node.
#[derive(Default)]
struct Nodes {
    trees: Vec<i64>,
    ids: Vec<i64>,
    modes: Vec<String>,
    features: Vec<i64>,
    thresholds: Vec<f32>,
    if_true: Vec<i64>,
    if_false: Vec<i64>,
}

/// The columns of its leaves.
#[derive(Default)]
struct Leaves {
    trees: Vec<i64>,
    ids: Vec<i64>,
    weights: Vec<f32>,
}

/// Complete trees with splits drawn at random from values that the features take: what they predict does
/// not matter here, how far rows have to walk does.
pub(crate) fn random_trees(layout: &FeatureLayout, seed: u64) -> TrainedModel {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut nodes, mut leaves) = (Nodes::default(), Leaves::default());
    for tree in 0..N_TREES {
        grow(tree as i64, layout, &mut rng, &mut nodes, &mut leaves);
    }
    let mut graph = OnnxGraph::new();
    let shape = |width| [Dim::Rows, Dim::Size(width)];
    let features = graph.input(FEATURES, ElementType::Float, &shape(layout.width()));
    let n_leaves = leaves.ids.len();
    let attributes = vec![
        ("n_targets", Attribute::Int(1)),
        ("nodes_treeids", Attribute::Ints(nodes.trees)),
        ("nodes_nodeids", Attribute::Ints(nodes.ids)),
        ("nodes_modes", Attribute::Strings(nodes.modes)),
        ("nodes_featureids", Attribute::Ints(nodes.features)),
        ("nodes_values", Attribute::Floats(nodes.thresholds)),
        ("nodes_truenodeids", Attribute::Ints(nodes.if_true)),
        ("nodes_falsenodeids", Attribute::Ints(nodes.if_false)),
        ("target_treeids", Attribute::Ints(leaves.trees)),
        ("target_nodeids", Attribute::Ints(leaves.ids)),
        ("target_ids", Attribute::Ints(vec![0; n_leaves])),
        ("target_weights", Attribute::Floats(leaves.weights)),
    ];
    let score = graph.op_in(
        "ai.onnx.ml",
        "TreeEnsembleRegressor",
        &[features],
        attributes,
    );
    graph.output(SCORE, &score, ElementType::Float, &shape(1));
    TrainedModel {
        kind: "random_trees",
        task: Task::Regression,
        layout: layout.clone(),
        graph,
        losses: Vec::new(),
    }
}

/// Adds a complete tree; the children of node `i` are `2 i + 1` and `2 i + 2`.
fn grow(
    tree: i64,
    layout: &FeatureLayout,
    rng: &mut ChaCha8Rng,
    nodes: &mut Nodes,
    leaves: &mut Leaves,
) {
    let n_splits = (1_i64 << DEPTH) - 1;
    for id in 0..2 * n_splits + 1 {
        let is_leaf = id >= n_splits;
        nodes.trees.push(tree);
        nodes.ids.push(id);
        let (feature, threshold) = if is_leaf {
            (0, 0.0)
        } else {
            split(layout, rng)
        };
        nodes.features.push(feature as i64);
        nodes.thresholds.push(threshold);
        nodes
            .modes
            .push(if is_leaf { "LEAF" } else { "BRANCH_LEQ" }.into());
        nodes.if_true.push(if is_leaf { 0 } else { 2 * id + 1 });
        nodes.if_false.push(if is_leaf { 0 } else { 2 * id + 2 });
        if is_leaf {
            let z: f32 = StandardNormal.sample(rng);
            leaves.trees.push(tree);
            leaves.ids.push(id);
            leaves.weights.push(z / N_TREES as f32);
        }
    }
}

/// A column of the matrix and a threshold that divides what stands there.
fn split(layout: &FeatureLayout, rng: &mut ChaCha8Rng) -> (usize, f32) {
    let share = |rng: &mut ChaCha8Rng| -> f64 {
        Uniform::new(0.0, 1.0).map_or(0.5, |between| between.sample(rng))
    };
    let place = |rng: &mut ChaCha8Rng, n: usize| ((share(rng) * n as f64) as usize).min(n - 1);
    let numbers: Vec<usize> = layout
        .columns()
        .iter()
        .filter(|c| c.kind == FeatureKind::Number)
        .map(|c| c.offset)
        .collect();
    if !numbers.is_empty() && share(rng) < SHARE_OF_NUMBERS {
        // They are rescaled to mean 0 and standard deviation 1.
        let z: f32 = StandardNormal.sample(rng);
        return (numbers[place(rng, numbers.len())], z);
    }
    (place(rng, layout.width()), 0.5)
}
