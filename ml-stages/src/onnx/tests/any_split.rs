//! A row's score is the same to the last bit, however many rows are given to the model with it.

use std::collections::BTreeMap;

use mainstem_transforms::onnx_graph::{
    Attribute, Dim, ElementType, OnnxGraph, Tensor, TensorValues, Value,
};
use proptest::prelude::*;

use super::super::*;
use crate::testing::onnx_runtime;

const WIDTH: usize = 25;

/// Numbers between -1 and 1 that differ in all their bits.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let number = |i: usize| ((i as f32 + 1.0) * (0.7 + seed as f32)).sin();
    (0..n).map(number).collect()
}

fn weights(graph: &mut OnnxGraph, dims: &[usize]) -> Value {
    let values = numbers(dims.iter().product(), dims[0] as u32);
    graph.constant(Tensor {
        dims: dims.into(),
        values: TensorValues::Float(values),
    })
}

/// A network 25-64-32-1.
fn network() -> OnnxGraph {
    let mut graph = OnnxGraph::new();
    let mut value = graph.input(
        "features",
        ElementType::Float,
        &[Dim::Rows, Dim::Size(WIDTH)],
    );
    for (n_in, n_out) in [(WIDTH, 64), (64, 32), (32, 1)] {
        let weights_and_bias = [
            weights(&mut graph, &[n_in, n_out]),
            weights(&mut graph, &[n_out]),
        ];
        let [weights, bias] = weights_and_bias;
        value = graph.op("Gemm", &[value, weights, bias], vec![]);
        if n_out > 1 {
            value = graph.op("Relu", &[value], vec![]);
        }
    }
    let score = graph.op("Sigmoid", &[value], vec![]);
    graph.output(
        "score",
        &score,
        ElementType::Float,
        &[Dim::Rows, Dim::Size(1)],
    );
    graph
}

/// 200 complete trees of depth 6; the children of node `i` are `2 i + 1` and `2 i + 2`.
fn trees() -> OnnxGraph {
    let (n_trees, n_nodes, n_splits) = (200, 127, 63);
    let all = |of: &dyn Fn(i64) -> i64| -> Vec<i64> {
        (0..n_trees).flat_map(|_| (0..n_nodes).map(of)).collect()
    };
    let child = |which: i64| move |i: i64| if i < n_splits { 2 * i + which } else { 0 };
    let tree_of =
        |n: i64| -> Vec<i64> { (0..n_trees).flat_map(|t| (0..n).map(move |_| t)).collect() };
    let n_leaves = n_nodes - n_splits;
    let ints = Attribute::Ints;
    let mode = |i: i64| if i < n_splits { "BRANCH_LEQ" } else { "LEAF" };
    let modes = (0..n_trees).flat_map(|_| (0..n_nodes).map(|i| mode(i).to_owned()));
    let leaves = (0..n_trees).flat_map(|_| n_splits..n_nodes);
    let thresholds = numbers((n_trees * n_nodes) as usize, 1);
    let values = numbers((n_trees * n_leaves) as usize, 2);
    let attributes = vec![
        ("n_targets", Attribute::Int(1)),
        ("nodes_treeids", ints(tree_of(n_nodes))),
        ("nodes_nodeids", ints(all(&|i| i))),
        ("nodes_modes", Attribute::Strings(modes.collect())),
        ("nodes_featureids", ints(all(&|i| i * 7 % WIDTH as i64))),
        ("nodes_values", Attribute::Floats(thresholds)),
        ("nodes_truenodeids", ints(all(&child(1)))),
        ("nodes_falsenodeids", ints(all(&child(2)))),
        ("target_treeids", ints(tree_of(n_leaves))),
        ("target_nodeids", ints(leaves.collect())),
        ("target_ids", ints(vec![0; (n_trees * n_leaves) as usize])),
        ("target_weights", Attribute::Floats(values)),
    ];
    let mut graph = OnnxGraph::new();
    let shape = |width| [Dim::Rows, Dim::Size(width)];
    let features = graph.input("features", ElementType::Float, &shape(WIDTH));
    let score = graph.op_in(
        "ai.onnx.ml",
        "TreeEnsembleRegressor",
        &[features],
        attributes,
    );
    graph.output("score", &score, ElementType::Float, &shape(1));
    graph
}

fn sessions() -> Vec<(String, Box<dyn InferenceSession>)> {
    let mut sessions = Vec::new();
    let models = [("network", network()), ("trees", trees())];
    for (name, model) in models {
        let bytes = encode(&model, name, &BTreeMap::new());
        let embedded: Box<dyn InferenceBackend> = Box::new(Embedded::new());
        let mut backends = vec![embedded];
        if let Some(runtime) = onnx_runtime() {
            backends.push(Box::new(runtime));
        }
        for backend in backends {
            match backend.load(&bytes) {
                Ok(session) => sessions.push((format!("{name} in {}", backend.name()), session)),
                // Trees are not for the embedded one, and it says so.
                Err(error) => assert!(error.is_environment() && name == "trees", "{error}"),
            }
        }
    }
    sessions
}

fn scores(session: &mut dyn InferenceSession, features: &[f32]) -> Vec<u32> {
    let view = TensorView::new(TensorValuesRef::Float(features), WIDTH).unwrap();
    let made = session.run(&[("features", view)]).unwrap();
    made[0].1.values.iter().map(|x| x.to_bits()).collect()
}

fn check(session: &mut dyn InferenceSession, features: &[f32], cuts: &[usize]) -> bool {
    let n_rows = features.len() / WIDTH;
    let mut parts = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([n_rows]) {
        if to > from {
            parts.extend(scores(session, &features[from * WIDTH..to * WIDTH]));
            from = to;
        }
    }
    parts == scores(session, features)
}

#[test]
fn a_score_has_the_same_bits_in_a_part_of_any_size() {
    let features = numbers(8192 * WIDTH, 3);
    for (name, mut session) in sessions() {
        // Kernels take rows by fours, eights and so on, and single rows in another way.
        for n_rows in (1..70).chain([127, 128, 129, 255, 256, 1000, 4096, 8191]) {
            assert!(
                check(&mut *session, &features, &[n_rows]),
                "{name}, {n_rows}"
            );
        }
    }
}

#[test]
fn a_score_has_the_same_bits_however_rows_are_split() {
    let features = numbers(500 * WIDTH, 4);
    let sessions = std::cell::RefCell::new(sessions());
    let cuts = prop::collection::btree_set(1usize..500, 0..12);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
    runner
        .run(&cuts, |cuts| {
            let cuts: Vec<usize> = cuts.into_iter().collect();
            for (name, session) in sessions.borrow_mut().iter_mut() {
                prop_assert!(
                    check(&mut **session, &features, &cuts),
                    "{} {:?}",
                    name,
                    cuts
                );
            }
            Ok(())
        })
        .unwrap();
}
