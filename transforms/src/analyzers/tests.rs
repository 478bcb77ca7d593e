//! The laws of analyzers, and values learned from small tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use mainstem_engine::Analyzer;
use mainstem_engine::testing::table;
use proptest::prelude::*;

use super::*;
use crate::learned::one_column;
use crate::testing::check_analyzer;

fn learn<A: Analyzer>(analyzer: &A, rows: &RecordBatch) -> mainstem_engine::Result<A::Output> {
    let mut seen = analyzer.create_accumulator();
    analyzer.add(&mut seen, rows)?;
    analyzer.finish(seen)
}

fn numbers(values: Vec<Option<f64>>) -> RecordBatch {
    one_column(Arc::new(Float64Array::from(values)) as ArrayRef).unwrap()
}

#[test]
fn moments_are_biased_and_leave_nulls_out() {
    // numpy: x = [1, 2, 4]; x.mean(), x.var()
    let moments = learn(&Moments::new(), &table("x: 1.0, null, 2.0, nan, 4.0")).unwrap();
    assert_eq!(moments.count, 3);
    assert_eq!(moments.mean, 2.3333333333333335);
    assert_eq!(moments.variance, 1.5555555555555556);
}

#[test]
fn a_boundary_is_the_first_value_of_the_bucket_above() {
    // numpy: np.sort(x)[len(x) * k // n_buckets] for k in 1..n_buckets
    let boundaries = |n, text: &str| learn(&Quantiles::new(n), &table(text)).unwrap().0;
    assert_eq!(
        boundaries(4, "x: 8.0, 1.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0"),
        [3.0, 5.0, 7.0]
    );
    assert_eq!(boundaries(3, "x: 0.0, -0.0, 0.0, 0.0, 5.0, null"), [0.0]);
    assert_eq!(boundaries(2, "x: 1.0, 9.0"), [9.0]);
    assert_eq!(boundaries(3, "x: -inf, -1.0, inf"), [-1.0]);
    assert_eq!(boundaries(1, "x: 1.0, 9.0"), [0.0; 0]);
}

#[test]
fn many_distinct_values_are_rounded_down_a_little() {
    let n = 300_000_u32;
    let mut quantiles = Quantiles::new(4).create_accumulator();
    let values = (1..=n).map(|i| Some(f64::from(i).sqrt())).collect();
    Quantiles::new(4)
        .add(&mut quantiles, &numbers(values))
        .unwrap();
    let Boundaries(found) = Quantiles::new(4).finish(quantiles).unwrap();
    for (k, found) in (1..4).zip(found) {
        let exact = f64::from(n * k / 4 + 1).sqrt();
        assert!((found - exact).abs() / exact < 1e-4, "{found} for {exact}");
    }
}

#[test]
fn the_most_frequent_word_comes_first_then_the_last_by_bytes() {
    // tensorflow_transform/analyzers.py: [('a', 5), ('c', 3), ('b', 3)]
    let text = "x: b, a, c, a, null, '', b, c, a, c, a, b, a, é";
    let Words(words) = learn(&Vocabulary::new(), &table(text)).unwrap();
    assert_eq!(words, ["a", "c", "b", "é"]);
    let top = Vocabulary::new().top_k(Some(2));
    assert_eq!(learn(&top, &table(text)).unwrap().0, ["a", "c"]);
    let frequent = Vocabulary::new().frequency_threshold(3);
    assert_eq!(learn(&frequent, &table(text)).unwrap().0, ["a", "c", "b"]);
}

#[test]
fn nothing_to_learn_from_is_an_error() {
    expect![[r#"
        there is no value to learn from: all rows are null
          Hint: Leave the feature out, or `impute` a constant first."#]]
    .assert_eq(
        &learn(&Moments::new(), &table("x: null"))
            .unwrap_err()
            .to_string(),
    );
    expect![[r#"
        the mean or the variance is not a finite number
          1 of 2 values are infinite.
          Hint: Filter such rows out, or scale the column down."#]]
    .assert_eq(
        &learn(&Moments::new(), &table("x: inf, 1.0"))
            .unwrap_err()
            .to_string(),
    );
    expect![[r#"
        the values span no finite range
          They go from -inf to 1.0.
          Hint: Filter such rows out, or scale the column down."#]]
    .assert_eq(
        &learn(&MinMax::new(), &table("x: -inf, 1.0"))
            .unwrap_err()
            .to_string(),
    );
}

#[test]
fn what_is_learned_tells_its_size() {
    let words: Vec<String> = (0..5_000).map(|i| format!("word-{i:05}")).collect();
    let rows = one_column(Arc::new(StringArray::from(words)) as ArrayRef).unwrap();
    let vocabulary = Vocabulary::new();
    let n_bytes = vocabulary.artifact_bytes(&learn(&vocabulary, &rows).unwrap());
    // Ten letters, the text's own 24 bytes, what an allocation takes, and room that is left.
    assert!((250_000..400_000).contains(&n_bytes), "{n_bytes} bytes");
    let quantiles = Quantiles::new(100);
    let values = numbers((0..1_000).map(|i| Some(f64::from(i))).collect());
    let n_bytes = quantiles.artifact_bytes(&learn(&quantiles, &values).unwrap());
    assert!((99 * 8..=128 * 8).contains(&n_bytes), "{n_bytes} bytes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn analyzers_of_numbers_keep_the_laws(
        values in proptest::collection::vec(proptest::option::of(proptest::num::f64::ANY), 0..24)
    ) {
        let rows = numbers(values);
        check_analyzer(&Moments::new(), &rows);
        check_analyzer(&MinMax::new(), &rows);
        check_analyzer(&Quantiles::new(5), &rows);
    }

    #[test]
    fn a_vocabulary_keeps_the_laws(
        values in proptest::collection::vec(proptest::option::of("[ab]{0,2}"), 0..24)
    ) {
        let rows = one_column(Arc::new(StringArray::from(values)) as ArrayRef).unwrap();
        check_analyzer(&Vocabulary::new(), &rows);
        check_analyzer(&Vocabulary::new().top_k(Some(1)), &rows);
    }
}
