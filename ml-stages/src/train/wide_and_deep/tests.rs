//! What wide-and-deep learns, the same bytes for a seed, and what it refuses.

use super::inputs::Inputs;
use super::minibatch::Block;
use super::*;
use crate::model::TrainedModel;
use crate::onnx::{Embedded, InferenceBackend};
use crate::testing::onnx_runtime;
use crate::train::testing::Fixture;
use expect_test::expect;
use mainstem_engine::{ArtifactRef, Pipeline, RunOptions, connectors};

/// Two categories of which the label is the exclusive or: no linear model tells it.
fn crossed() -> Fixture {
    let mut features = [String::from("a#2:"), String::from("b#2:")];
    let mut label = String::from("y:");
    for i in 0..400 {
        let (a, b) = (i % 2, (i / 2) % 2);
        let comma = if i == 0 { " " } else { ", " };
        features[0] += &format!("{comma}{a}.0");
        features[1] += &format!("{comma}{b}.0");
        label += &format!("{comma}{}.0", (a ^ b) * 3 + 10);
    }
    Fixture::new(&features.join(";"), &label)
}

fn small(fixture: &Fixture) -> WideAndDeep {
    WideAndDeep::regression(&fixture.layout(), "y")
        .hidden_layers([8])
        .batch_size(50)
        .learning_rate(0.03)
        .epochs(30)
}

#[test]
fn a_crossed_function_is_learned_that_a_linear_model_cannot() {
    let fixture = crossed();
    let deep = fixture.train(&small(&fixture)).unwrap();
    let linear = fixture.train(&small(&fixture).hidden_layers([])).unwrap();
    // Losses are in units of the label's variance.
    assert!(deep.losses[29] < 1e-3, "{:?}", deep.losses);
    assert!(linear.losses[29] > 0.9, "{:?}", linear.losses);
}

#[test]
fn same_seed_same_model_with_any_threads_and_batches() {
    let spec = small(&crossed()).epochs(2).wide(["b"]).ensemble(2);
    let one = crossed().train(&spec).unwrap();
    for threads in [2, 3] {
        let other = crossed().threads(threads).in_batches(7 * threads);
        assert_eq!(other.train(&spec).unwrap(), one);
    }
    assert_ne!(crossed().train(&spec.seed(1)).unwrap(), one);
}

#[test]
fn rows_beyond_the_memory_budget_are_learned_from_in_blocks() {
    // 100 rows at a time: two index values, a label and a weight of 4 bytes each.
    let fit = |fixture: &Fixture| {
        let layout = fixture.columns_layout();
        fit::fit_within(1600, &small(fixture), layout, fixture, fixture).unwrap()
    };
    let trained = fit(&crossed());
    assert!(trained.losses[29] < 1e-3, "{:?}", trained.losses);
    assert_eq!(fit(&crossed().in_batches(33)).losses, trained.losses);
    let whole = crossed().train(&small(&crossed())).unwrap();
    assert_ne!(whole.losses, trained.losses);
}

#[test]
fn a_model_learned_in_a_graph_is_the_same_with_any_number_of_workers() {
    let fixture = crossed().in_batches(64);
    let expected = fixture.train(&small(&fixture).epochs(2)).unwrap();
    for workers in [1, 2, 3] {
        let pipeline = Pipeline::new("births");
        let layout = Arc::new(fixture.columns_layout().clone());
        let layout = pipeline.provide("layout", layout);
        let model: ArtifactRef<TrainedModel> = pipeline
            .read("rows", connectors::from_record_batches(fixture.batches()))
            .train(small(&fixture).epochs(2));
        assert_eq!(layout.id(), fixture.layout().id());
        let report = pipeline.run(&RunOptions::new().workers(workers)).unwrap();
        assert_eq!(report.artifact(&model).unwrap(), expected);
    }
}

#[test]
fn weights_count_as_repeated_rows() {
    let once = Fixture::new("x: 1.0, 2.0, 4.0", "y: 1.0, 3.0, 2.0; w: 2, 1, 0");
    let again = Fixture::new("x: 1.0, 1.0, 2.0", "y: 1.0, 1.0, 3.0");
    // One step an epoch, so that the order of rows does not count.
    let once_model = once.train(&small(&once).weight("w")).unwrap();
    let again_model = again.train(&small(&again)).unwrap();
    for (a, b) in once_model.losses.iter().zip(&again_model.losses) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
}

#[test]
fn a_specification_is_plain_data() {
    let spec = small(&crossed()).wide(["a"]).weight("w").seed(7);
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<WideAndDeep>(&json).unwrap(), spec);
    let unknown = json.replacen("\"seed\"", "\"sead\"", 1);
    assert!(serde_json::from_str::<WideAndDeep>(&unknown).is_err());
}

#[test]
fn what_is_refused() {
    let fixture = crossed();
    expect![[r#"
        wide feature "c" is not there
          The features are "a", "b"."#]]
    .assert_eq(&fixture.refused(&small(&fixture).wide(["c"])));
    expect![[r#"
        2 errors
        1. hidden_layers must be at least 1, found 0
        2. learning_rate must be over 0, found NaN
             Hint: Start with 0.003."#]]
    .assert_eq(&fixture.refused(&small(&fixture).hidden_layers([0]).learning_rate(f64::NAN)));
    let empty = Fixture::new("x: ", "y: ");
    expect![[r#"
        there are no training rows of a weight over 0 to learn "y" from
          Hint: Look for a filter or a join before the trainer that keeps no row."#]]
    .assert_eq(&empty.refused(&small(&empty)));
}

#[test]
fn a_loss_that_is_not_a_number_ends_training() {
    let fixture = Fixture::new("x: 1e30, -1e30, 1e30", "y: 1.0, 2.0, 3.0");
    expect![[r#"
        the loss of "y" became inf in epoch 1
          The learning rate is 0.03.
          Hint: Lower `learning_rate`, and scale the numeric features by `scale_to_z_score`."#]]
    .assert_eq(&fixture.refused(&small(&fixture)));
}

/// Numbers, one-hots and indexes, some without a category or past the last, for both parts.
fn mixed() -> Fixture {
    Fixture::new(
        "a: 0.5, -1.5, 2.0, 0.0, 1.0, -0.5
         b@3: 0.0, 1.0, 2.0, -1.0, 1.0, 0.0
         c#4: 0.0, 3.0, -1.0, 2.0, 7.0, 1.0
         d#2: 1.0, -1.0, 0.0, 1.0, 5.0, 0.0
         e@2: 0.0, 1.0, -1.0, 1.0, 0.0, 0.0
         f: 1.0, 2.0, 3.0, -4.0, 5.0, 6.0",
        "y: 100.0, 103.0, 95.0, 101.0, 108.0, 99.0; hit: 1, 0, 0, 1, 1, 0",
    )
}

/// The scores of candle's forward pass, and the exported model.
fn both_ways(spec: &WideAndDeep, fixture: &Fixture) -> (Vec<f32>, TrainedModel) {
    let layout = fixture.columns_layout();
    let trained = fit::fit(spec, layout, fixture, fixture).unwrap();
    let inputs = Inputs::new(layout, &spec.wide).unwrap();
    let mut block = Block::default();
    for features in fixture.matrix().chunks(layout.width()) {
        block.push(&inputs, features, 0.0, 1.0);
    }
    let rows: Vec<u32> = (0..block.n_rows() as u32).collect();
    let minibatch = block.minibatch(&inputs, &rows).unwrap();
    let mut scores = vec![0.0; rows.len()];
    for network in &trained.networks {
        let own = network.forward(&minibatch).unwrap().flatten_all().unwrap();
        for (sum, score) in scores.iter_mut().zip(own.to_vec1::<f32>().unwrap()) {
            *sum += f64::from(score) / trained.networks.len() as f64;
        }
    }
    let label = trained.label;
    let give_back = |score: f64| match spec.task {
        Task::Regression => score * label.std_dev + label.mean,
        Task::BinaryClassification => 1.0 / (1.0 + (-score).exp()),
    };
    let scores = scores.into_iter().map(|s| give_back(s) as f32).collect();
    let model = export::export(spec, layout.clone(), trained).unwrap();
    (scores, model)
}

fn check_export(spec: &WideAndDeep, fixture: &Fixture, backend: &dyn InferenceBackend) {
    let (expected, model) = both_ways(spec, fixture);
    let found = fixture.predict_on(backend, &model);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let difference = (found - expected).abs() / expected.abs().max(1.0);
        assert!(difference < 1e-5, "{found} for {expected} by {spec:?}");
    }
}

fn check_exports(backend: &dyn InferenceBackend) {
    let fixture = mixed();
    let regression = WideAndDeep::regression(&fixture.layout(), "y")
        .epochs(3)
        .batch_size(2);
    let classification = WideAndDeep::classification(&fixture.layout(), "hit").epochs(3);
    for spec in [
        regression.clone(),
        regression.clone().wide(["c", "e", "f"]).ensemble(3),
        regression.clone().wide(["a", "b", "c", "d", "e", "f"]),
        regression.hidden_layers([]).wide(["a"]),
        classification.clone().wide(["d"]),
        classification.hidden_layers([8]).embedding_dims(1),
    ] {
        check_export(&spec, &fixture, backend);
    }
}

#[test]
fn the_exported_model_gives_what_was_trained_on_the_embedded_back_end() {
    check_exports(&Embedded::new());
}

#[test]
fn the_exported_model_gives_what_was_trained_on_onnx_runtime() {
    if let Some(runtime) = onnx_runtime() {
        check_exports(&runtime);
    }
}
