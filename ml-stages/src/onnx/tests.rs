//! Both back-ends on small graphs.

mod any_split;

use std::collections::BTreeMap;

use expect_test::expect;
use mainstem_transforms::onnx_graph::{
    Attribute, Dim, ElementType, OnnxGraph, Tensor, TensorValues, Value,
};

use super::*;
use crate::testing::onnx_runtime;

fn floats(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor {
        dims: dims.into(),
        values: TensorValues::Float(values.into()),
    }
}

/// Two numbers and an index with an embedding of two: `[N, 3]` to a sigmoid.
pub(crate) fn small_model() -> OnnxGraph {
    let mut g = OnnxGraph::with_prefix("m/");
    let x = g.input("features", ElementType::Float, &[Dim::Rows, Dim::Size(3)]);
    let int = |g: &mut OnnxGraph, v: i64| {
        g.constant(Tensor {
            dims: vec![1],
            values: TensorValues::Int64(vec![v]),
        })
    };
    let (zero, two, three, one) = (
        int(&mut g, 0),
        int(&mut g, 2),
        int(&mut g, 3),
        int(&mut g, 1),
    );
    let numbers = g.op(
        "Slice",
        &[x.clone(), zero, two.clone(), one.clone()],
        vec![],
    );
    let column = g.op("Slice", &[x, two, three, one.clone()], vec![]);
    let flat = g.op("Squeeze", &[column, one], vec![]);
    let index = g.op("Cast", &[flat], vec![("to", Attribute::Int(7))]);
    let table = g.constant(floats(&[3, 2], &[0.1, -0.2, 0.3, 0.4, -0.5, 0.6]));
    let embedded = g.op("Gather", &[table, index], vec![("axis", Attribute::Int(0))]);
    let all = g.op(
        "Concat",
        &[numbers, embedded],
        vec![("axis", Attribute::Int(1))],
    );
    let weights = (0..20).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
    let w0 = g.constant(floats(&[4, 5], &weights));
    let b0 = g.constant(floats(&[5], &weights[..5]));
    let hidden = g.op("Gemm", &[all, w0, b0], vec![]);
    let hidden = g.op("Relu", &[hidden], vec![]);
    let w1 = g.constant(floats(&[5, 1], &weights[5..10]));
    let b1 = g.constant(floats(&[1], &[0.25]));
    let logit = g.op("Gemm", &[hidden, w1, b1], vec![]);
    let score = g.op("Sigmoid", &[logit], vec![]);
    g.output(
        "score",
        &score,
        ElementType::Float,
        &[Dim::Rows, Dim::Size(1)],
    );
    g
}

fn rows(n_rows: usize) -> Vec<f32> {
    (0..n_rows)
        .flat_map(|i| [(i as f32).cos(), i as f32 / 100.0, (i % 3) as f32])
        .collect()
}

fn scores(session: &mut dyn InferenceSession, features: &[f32]) -> Vec<f32> {
    let view = TensorView::new(TensorValuesRef::Float(features), 3).unwrap();
    let mut made = session.run(&[("features", view)]).unwrap();
    assert_eq!(
        (made.len(), made[0].0.as_str(), made[0].1.width),
        (1, "score", 1)
    );
    made.remove(0).1.values
}

#[test]
fn both_back_ends_agree_for_any_number_of_rows() {
    let bytes = encode(&small_model(), "small", &BTreeMap::new());
    let Some(runtime) = onnx_runtime() else {
        return;
    };
    let mut theirs = runtime.load(&bytes).unwrap();
    let mut ours = Embedded::new().load(&bytes).unwrap();
    for n_rows in [1, 2, 7, 1000, 3] {
        let features = rows(n_rows);
        let (a, b) = (
            scores(&mut *theirs, &features),
            scores(&mut *ours, &features),
        );
        assert_eq!((a.len(), b.len()), (n_rows, n_rows));
        for (a, b) in a.iter().zip(&b) {
            assert!(((a - b) / a).abs() < 1e-5, "{a} and {b}");
        }
    }
}

#[test]
fn the_embedded_back_end_gives_the_scores_of_the_formula() {
    let mut g = OnnxGraph::with_prefix("m/");
    let x = g.input("features", ElementType::Float, &[Dim::Rows, Dim::Size(3)]);
    let w = g.constant(floats(&[3, 1], &[1.0, 10.0, 100.0]));
    let b = g.constant(floats(&[1], &[0.5]));
    let y = g.op("Gemm", &[x, w, b], vec![]);
    g.output("score", &y, ElementType::Float, &[Dim::Rows, Dim::Size(1)]);
    let bytes = encode(&g, "linear", &BTreeMap::new());
    let mut session = Embedded::new().load(&bytes).unwrap();
    let made = scores(&mut *session, &[1.0, 2.0, 3.0, 0.0, 0.0, 1.0]);
    assert_eq!(made, [321.5, 100.5]);
}

#[test]
fn an_operator_that_is_lacking_is_named() {
    let mut g = OnnxGraph::new();
    let x = g.input("city", ElementType::String, &[Dim::Rows, Dim::Size(1)]);
    let y = g.op_in("ai.onnx.ml", "LabelEncoder", &[x], vec![]);
    g.output("score", &y, ElementType::Float, &[Dim::Rows, Dim::Size(1)]);
    let error = Embedded::new()
        .load(&encode(&g, "g", &BTreeMap::new()))
        .err()
        .unwrap();
    expect![[r#"
        the embedded back-end lacks the operators "LabelEncoder"
          Hint: Use ONNX Runtime: `OnnxRuntime::install()`."#]]
    .assert_eq(&error.to_string());
    assert!(error.is_environment());
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    let error = Embedded::new().load(b"not a model").err().unwrap();
    assert!(error.is_data(), "{error}");
    if let Some(runtime) = onnx_runtime() {
        let error = runtime.load(b"not a model").err().unwrap();
        assert_eq!(error.message(), "ONNX Runtime does not accept the model");
    }
}

#[test]
fn a_wrong_input_is_an_error_of_the_run() {
    let bytes = encode(&small_model(), "small", &BTreeMap::new());
    let wrong = [1.0f32, 2.0];
    let view = TensorView::new(TensorValuesRef::Float(&wrong), 2).unwrap();
    let mut sessions = vec![Embedded::new().load(&bytes).unwrap()];
    if let Some(runtime) = onnx_runtime() {
        sessions.push(runtime.load(&bytes).unwrap());
    }
    for mut session in sessions {
        assert!(session.run(&[("features", view)]).unwrap_err().is_data());
        assert!(session.run(&[("x", view)]).unwrap_err().is_data());
    }
}

#[test]
fn a_fused_graph_takes_raw_columns_and_gives_features_and_score() {
    let Some(runtime) = onnx_runtime() else {
        return;
    };
    let mut pre = OnnxGraph::with_prefix(fuse::FUSED_PREFIX);
    let columns: Vec<Value> = ["a", "b", "city"]
        .iter()
        .map(|name| {
            let element = if *name == "city" {
                ElementType::String
            } else {
                ElementType::Double
            };
            pre.input(name, element, &[Dim::Rows, Dim::Size(1)])
        })
        .collect();
    let to_float = |g: &mut OnnxGraph, v: &Value| {
        g.op(
            "Cast",
            std::slice::from_ref(v),
            vec![("to", Attribute::Int(1))],
        )
    };
    let (a, b) = (
        to_float(&mut pre, &columns[0]),
        to_float(&mut pre, &columns[1]),
    );
    let city = pre.op_in(
        "ai.onnx.ml",
        "LabelEncoder",
        &[columns[2].clone()],
        vec![
            (
                "keys_strings",
                Attribute::Strings(vec!["oslo".into(), "bergen".into()]),
            ),
            ("values_floats", Attribute::Floats(vec![0.0, 1.0])),
            ("default_float", Attribute::Float(2.0)),
        ],
    );
    let matrix = pre.op("Concat", &[a, b, city], vec![("axis", Attribute::Int(1))]);
    let fused = fuse(pre, &matrix, 3, &small_model()).unwrap();
    let mut session = runtime
        .load(&encode(&fused, "fused", &BTreeMap::new()))
        .unwrap();
    let text = ["bergen", "", "oslo"];
    let column = |v: TensorValuesRef<'static>| TensorView::new(v, 1).unwrap();
    let made = session
        .run(&[
            ("a", column(TensorValuesRef::Double(&[0.5, 1.5, f64::NAN]))),
            ("b", column(TensorValuesRef::Double(&[1.0, 2.0, 3.0]))),
            (
                "city",
                TensorView::new(TensorValuesRef::String(&text), 1).unwrap(),
            ),
        ])
        .unwrap();
    assert_eq!(
        (made[0].0.as_str(), made[1].0.as_str()),
        ("features", "score")
    );
    expect!["[0.5, 1.0, 1.0, 1.5, 2.0, 2.0, NaN, 3.0, 0.0]"]
        .assert_eq(&format!("{:?}", made[0].1.values));
    let mut alone = runtime
        .load(&encode(&small_model(), "small", &BTreeMap::new()))
        .unwrap();
    assert_eq!(
        scores(&mut *alone, &[0.5, 1.0, 1.0, 1.5, 2.0, 2.0]),
        made[1].1.values[..2]
    );
}

#[test]
fn a_raw_column_named_like_an_output_cannot_be_fused() {
    let mut pre = OnnxGraph::with_prefix(fuse::FUSED_PREFIX);
    let x = pre.input("score", ElementType::Double, &[Dim::Rows, Dim::Size(1)]);
    let error = fuse(pre, &x, 3, &small_model()).unwrap_err();
    expect![[r#"
        the raw column "score" is named like a tensor of the fused graph
          Hint: Rename the column before it is preprocessed."#]]
    .assert_eq(&error.to_string());
}

#[test]
fn back_ends_go_by_their_names() {
    for backend in [Backend::Auto, Backend::OnnxRuntime, Backend::Embedded] {
        assert_eq!(backend.to_string().parse::<Backend>().unwrap(), backend);
    }
    expect![[r#"
        there is no back-end "tract"
          Hint: Choose "onnxruntime", "embedded" or "auto"."#]]
    .assert_eq(&"tract".parse::<Backend>().unwrap_err().to_string());
}
