use super::*;
use crate::train::testing::Fixture;
use expect_test::expect;

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
