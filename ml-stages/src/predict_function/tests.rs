use expect_test::expect;
use mainstem_engine::testing::{show, table};
use mainstem_engine::{Pipeline, RunOptions, col, connectors, lit};

use super::*;
use crate::onnx::Backend;
use crate::predictor::tests::{people, small_predictor};

/// The rows with the function's value as the column `score`.
fn with_score(function: PredictFunction, rows: RecordBatch) -> Result<RecordBatch> {
    let pipeline = Pipeline::new("score");
    let (sink, collected) = connectors::collect();
    let arguments = vec![col("age"), col("height"), col("city")];
    pipeline
        .read("people", connectors::from_record_batches(vec![rows]))
        .with_column("score", function.into_scalar().call(arguments))
        .write(sink);
    pipeline.run(&RunOptions::new().workers(1))?;
    Ok(collected.take().swap_remove(0))
}

#[test]
fn the_function_gives_the_bits_of_the_predictor() {
    let predictor = small_predictor(Backend::Embedded);
    let rows = table("age: 20, 30, 60; height: 1.5, null, 1.9; city: oslo, bergen, rome");
    let expected = predictor.predict_batch(&rows).unwrap();
    let scored = with_score(predictor.function("predict"), rows).unwrap();
    assert_eq!(scored.column(3), expected.column(3));
}

#[test]
fn a_row_without_a_feature_ends_the_query_or_gets_null() {
    let function = || small_predictor(Backend::Embedded).function("predict");
    let error = with_score(function(), people()).unwrap_err();
    expect![[r#"
        record batch 0, row 3: expression `predict(age, height, city)` failed: Execution error: feature "age" is missing.
          in transform "with_column"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&error.to_string());
    let scored = with_score(function().null_on_bad_row(true), people()).unwrap();
    let scored = scored.project(&[0, 3]).unwrap();
    expect![[r#"
        age: 20, 30, 40, null, 60, 25
        score: 0.952033, 0.95286334, 0.98721266, null, 0.997013, 0.97212946"#]]
    .assert_eq(&show(&scored));
}

#[test]
fn arguments_are_cast_and_constants_have_one_score() {
    let scalar = small_predictor(Backend::Embedded)
        .function("predict")
        .into_scalar();
    let pipeline = Pipeline::new("constant");
    let (sink, collected) = connectors::collect();
    let call = |age| scalar.call(vec![age, lit(1.7), lit("oslo")]);
    pipeline
        .read(
            "rows",
            connectors::from_record_batches(vec![table("x: 30, 31")]),
        )
        .with_column("a", call(lit(30)))
        .with_column("b", call(col("x")))
        .write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    let rows = collected.take().swap_remove(0);
    let a = rows.column(1).as_primitive::<Float32Type>();
    let b = rows.column(2).as_primitive::<Float32Type>();
    assert_eq!(a.value(0), b.value(0));
    assert_eq!(a.value(1), a.value(0));
    assert_ne!(b.value(1), b.value(0));
}

#[test]
fn functions_of_one_name_differ_by_their_model() {
    let one = small_predictor(Backend::Embedded);
    assert_eq!(one.function("f"), one.clone().function("f"));
    assert_ne!(one.function("f"), one.function("g"));
    assert_ne!(one.function("f"), one.function("f").null_on_bad_row(true));
}
