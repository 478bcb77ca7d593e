//! Rows with features: positions, missing values and what is refused.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use mainstem_engine::connectors::from_record_batches;
use mainstem_engine::testing::{show, table};
use mainstem_engine::{
    ArtifactRef, Artifacts, Batch, OnBadRow, Output, Pipeline, RunOptions, Transform, col, lit,
};

use super::*;
use crate::onnx_graph::OnnxGraph;
use crate::{VocabularyOptions, cross, cross_hashed, feature};

fn preprocess() -> Preprocess {
    Preprocess::new()
        .feature("age", feature(col("age")).scale_to_z_score())
        .feature("half", feature(lit(10) / col("n")))
}

#[test]
fn a_row_without_a_feature_is_rejected_with_the_reason() {
    let rows = table("age: 1.0, null, 3.0, 1.0; n: 2, 1, 1, 0; other: a, b, c, d");
    let fitted = preprocess().fit_batches(&[rows.slice(0, 3)]).unwrap();
    let reference = ArtifactRef::new("fit");
    let mut artifacts = Artifacts::none();
    artifacts.insert("fit", Arc::new(fitted));
    let featurize = Featurize::new(&reference);
    let mut out = Output::new(OnBadRow::DeadLetter);
    let mut operator = featurize.build(&artifacts).unwrap();
    operator
        .on_batch(0, Batch::new(rows.clone()), &mut out)
        .unwrap();
    let (_, made) = out.take().remove(0);
    assert_eq!(
        made.rows().schema(),
        featurize.output_schema(&[rows.schema()]).unwrap()
    );
    expect![[r#"
        age: 1.0, 3.0
        n: 2, 1
        other: 'a', 'c'
        features: [-1.0, 5.0], [1.0, 10.0]"#]]
    .assert_eq(&show(made.rows()));
    let reasons: Vec<String> = out
        .take_dead_letters()
        .into_iter()
        .map(|l| format!("{} {}", l.row, l.reason))
        .collect();
    expect![[r#"
        3 expression `Int32(10) / n` failed on {"n":0}: Divide by zero error.
        1 feature "age" is missing: age is null"#]]
    .assert_eq(&reasons.join("\n"));
}

#[test]
fn fitting_names_its_nodes_and_reads_only_what_it_needs() {
    let pipeline = Pipeline::new("p");
    let fitted = Arc::new(
        preprocess()
            .fit_batches(&[table("age: 1.0; n: 1")])
            .unwrap(),
    );
    let loaded = pipeline.provide("loaded", fitted);
    let graph = pipeline.graph();
    assert_eq!(&*graph.nodes[0].id, &**loaded.id());
    let phases = AnalyzePhase::all(
        &Preprocess::new().feature("x", feature(col("x")).scale_to_z_score().bucketize(3)),
        "fit",
    );
    let ids: Vec<&str> = phases.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["fit/analyze-1", "fit/analyze-2"]);
    let featurize = Featurize {
        fitted: loaded,
        columns: Some(vec!["age".into(), "n".into()]),
    };
    assert_eq!(featurize.reads(None), None);
    let wanted = ["label".to_owned(), FEATURES_COLUMN.to_owned()];
    assert_eq!(
        featurize.reads(Some(&wanted)).unwrap(),
        ["age", "n", "label"]
    );
}

#[test]
fn what_onnx_cannot_express_is_refused_by_name() {
    let words = |n| {
        feature(col("w")).compute_and_apply_vocabulary(VocabularyOptions::new().num_oov_buckets(n))
    };
    let refused = |f| {
        let fitted = Preprocess::new()
            .feature("f", f)
            .fit_batches(&[table("w: a, b; x: 1.0, 2.0")])
            .unwrap();
        fitted
            .to_onnx(&mut OnnxGraph::new())
            .unwrap_err()
            .to_string()
    };
    expect![[r#"
        ONNX cannot express 2 out-of-vocabulary buckets, as it has no FarmHash
          Hint: Use `.num_oov_buckets(1)`, or 0."#]]
    .assert_eq(&refused(words(2)));
    expect![[r#"
        ONNX cannot express `cross_hashed`, as it has no FarmHash
          Hint: Use `cross`, whose index is exact."#]]
    .assert_eq(&refused(cross_hashed([words(0), words(1)], 5)));
    expect![[r#"
        ONNX cannot express a comparison with a quotient of floats, in which NaN would be compared
          Hint: Compute it before, with `with_column`, and let the feature start from that column."#]].assert_eq(&refused(feature((col("x") / col("x")).gt(lit(1.0)))));
    expect![[r#"
        ONNX cannot express the function `sqrt`
          Hint: Compute it before, with `with_column`, and let the feature start from that column."#]].assert_eq(&refused(feature(
        mainstem_engine::expression::functions::expr_fn::sqrt(col("x")),
    )));
}

#[test]
fn the_onnx_graph_takes_raw_columns_and_gives_the_matrix() {
    let words = || feature(col("w")).compute_and_apply_vocabulary(VocabularyOptions::new());
    let preprocess = Preprocess::new()
        .feature("z", feature(col("x")).scale_to_z_score())
        .feature(
            "c",
            cross([words(), feature(col("x")).bucketize(2)]).one_hot(),
        );
    let fitted = preprocess
        .fit_batches(&[table("w: a, b; x: 1.0, 2.0")])
        .unwrap();
    let mut graph = OnnxGraph::new();
    fitted.to_onnx(&mut graph).unwrap();
    let inputs: Vec<String> = graph
        .inputs()
        .iter()
        .map(|i| format!("{} {:?}", i.name, i.element))
        .collect();
    let nodes: Vec<&str> = graph.nodes().iter().map(|n| n.op_type).collect();
    expect![[r#"
        x Double, w String
        Sub Div LabelEncoder IsNaN GreaterOrEqual Cast ReduceSum Where Equal Equal Where Equal Or Mul Add Where Cast Equal Cast Concat"#]].assert_eq(&format!("{}\n{}", inputs.join(", "), nodes.join(" ")));
}

/// A vocabulary is counted against the memory of the run while it grows.
#[test]
fn a_vocabulary_beyond_the_budget_ends_the_run_with_the_node_and_the_remedy() {
    let words = |from: u32| -> RecordBatch {
        let words = (from..from + 10_000).map(|i| format!("a word of some length, number {i}"));
        let words: ArrayRef = Arc::new(StringArray::from_iter_values(words));
        RecordBatch::try_from_iter([("w", words)]).unwrap()
    };
    let batches: Vec<RecordBatch> = (0..20).map(|i| words(i * 10_000)).collect();
    let run = |memory_bytes| {
        let pipeline = Pipeline::new("p");
        let rows = pipeline.read("words", from_record_batches(batches.clone()));
        let indices = feature(col("w")).compute_and_apply_vocabulary(VocabularyOptions::new());
        let _ = rows.fit(&Preprocess::new().feature("w", indices));
        let options = RunOptions::new().workers(1).memory_bytes(memory_bytes);
        pipeline.run(&options)
    };
    let error = run(8_000_000).unwrap_err();
    assert!(error.is_environment());
    let text = error.to_string();
    let (_, place) = text.split_once('\n').unwrap();
    assert!(
        place.starts_with("  in analysis \"fit/analyze-1\"\n"),
        "{text}"
    );
    assert!(text.contains("Hint: Raise `RunOptions::memory_bytes`"));
    // 200,000 words of about 36 bytes, each with an allocation, a pointer, a length and a count.
    let report = run(200_000_000).unwrap();
    let peak = report.node("fit/analyze-1").unwrap().peak_state_bytes;
    assert!((12_000_000..60_000_000).contains(&peak), "{peak}");
}
