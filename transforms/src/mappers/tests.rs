//! Each mapper on small tables, and the messages by which they refuse.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use mainstem_engine::{col, lit};

use crate::testing::{check, check_rows, refuse};
use crate::{Impute, VocabularyOptions, cross, cross_hashed, feature};

fn words() -> crate::Feature {
    feature(col("w")).compute_and_apply_vocabulary(VocabularyOptions::new())
}

#[test]
fn z_scores() {
    let z = || feature(col("x")).scale_to_z_score();
    check(z(), "x: 1.0, null, 3.0", expect!["x: -1.0, null, 1.0"]);
    check(z(), "x: 5, 5", expect!["x: 0.0, 0.0"]);
    check(
        feature(col("x") * lit(2)).scale_to_z_score(),
        "x: 1, 3",
        expect!["x: -1.0, 1.0"],
    );
}

#[test]
fn ranges() {
    let scaled = || feature(col("x")).scale_to_0_1();
    check(
        scaled(),
        "x: 1.0, nan, 3.0, 2.0",
        expect!["x: 0.0, null, 1.0, 0.5"],
    );
    check(scaled(), "x: 7.0, null", expect!["x: 0.5, null"]);
}

#[test]
fn buckets() {
    check(
        feature(col("x")).bucketize(2),
        "x: 1.0, 9.0, null",
        expect!["x: 0, 1, null"],
    );
    check(
        feature(col("x")).bucketize(1),
        "x: 1.0, 9.0, null",
        expect!["x: 0, 0, null"],
    );
    check(
        feature(col("x")).scale_to_z_score().bucketize(3),
        "x: 3, 1, 2, -inf",
        expect![[r#"
            the mean or the variance is not a finite number
              1 of 4 values are infinite.
              Learning `moments` of a feature over x.
              Hint: Filter such rows out, or scale the column down."#]],
    );
    check(
        feature(col("x")).scale_to_z_score().bucketize(3),
        "x: 3, 1, 2, 4, 6, 5, null",
        expect!["x: 1, 0, 0, 1, 2, 2, null"],
    );
}

#[test]
fn vocabularies() {
    check(
        words(),
        "w: b, a, null, a, ''",
        expect!["x: 1, 0, null, 0, null"],
    );
    let frequent = VocabularyOptions::new().frequency_threshold(2);
    let known = |options| feature(col("w")).compute_and_apply_vocabulary(options);
    check(
        known(frequent.clone()),
        "w: b, a, null, a",
        expect!["x: -1, 0, null, 0"],
    );
    check(
        known(frequent.clone().num_oov_buckets(1)),
        "w: b, a, a",
        expect!["x: 1, 0, 0"],
    );
    // FarmHash: 2794438866806483259 % 10 for "2applefalse", as published for BigQuery.
    check(
        known(frequent.num_oov_buckets(10)),
        "w: a, 2applefalse, a",
        expect!["x: 0, 10, 0"],
    );
    check(
        known(VocabularyOptions::new().top_k(0)),
        "w: a",
        expect!["x: -1"],
    );
}

#[test]
fn text_may_come_in_any_form() {
    let plain = StringArray::from(vec![Some("b"), Some("a"), None, Some("a"), Some("")]);
    let dictionary: DictionaryArray<Int32Type> = plain.iter().collect();
    let plain: ArrayRef = Arc::new(plain);
    for column in [
        cast(&plain, &DataType::LargeUtf8).unwrap(),
        cast(&plain, &DataType::Utf8View).unwrap(),
        Arc::new(dictionary),
    ] {
        let rows = RecordBatch::try_from_iter([("w", column)]).unwrap();
        check_rows(words(), &rows, expect!["x: 1, 0, null, 0, null"]);
        let filled = feature(col("w")).impute(Impute::MostFrequent);
        let filled = filled.compute_and_apply_vocabulary(VocabularyOptions::new());
        check_rows(filled, &rows, expect!["x: 1, 0, 0, 0, 0"]);
        let equal = feature(col("w").eq(lit("a")));
        check_rows(equal, &rows, expect!["x: 0.0, 1.0, null, 1.0, null"]);
    }
}

#[test]
fn one_hot_leaves_unknown_and_missing_at_zero() {
    check(
        words().one_hot(),
        "w: b, a, null, a",
        expect!["x: [0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]"],
    );
}

#[test]
fn missing_values_are_imputed() {
    let filled = |with| feature(col("x")).impute(with);
    check(
        filled(Impute::Mean),
        "x: 1.0, null, 2.0, nan",
        expect!["x: 1.0, 1.5, 2.0, 1.5"],
    );
    check(
        filled(Impute::Median),
        "x: 1, null, 2, 9",
        expect!["x: 1.0, 2.0, 2.0, 9.0"],
    );
    check(
        filled(Impute::Constant(-1.0)),
        "x: 1, null",
        expect!["x: 1.0, -1.0"],
    );
    check(
        feature(col("x")).missing_indicator(),
        "x: 1, null",
        expect!["x: 0.0, 1.0"],
    );
    check(
        feature(col("w")).missing_indicator(),
        "w: a, null, ''",
        expect!["x: 0.0, 1.0, 1.0"],
    );
    check(
        words().missing_indicator(),
        "w: a, null",
        expect!["x: 0.0, 1.0"],
    );
}

#[test]
fn crosses() {
    let buckets = || feature(col("x")).bucketize(2);
    let rows = "x: 1, 2, null, 1; w: a, a, a, b";
    check(
        cross([buckets(), words()]),
        rows,
        expect!["x: 3, 3, null, 4"],
    );
    let top = feature(col("w")).compute_and_apply_vocabulary(VocabularyOptions::new().top_k(1));
    check(cross([top, buckets()]), rows, expect!["x: 1, 1, null, 3"]);
    // As first computed; the same for ever.
    check(
        cross_hashed([buckets(), words()], 7),
        rows,
        expect!["x: 6, 6, null, 3"],
    );
}

#[test]
fn what_does_not_fit_is_refused_while_planning() {
    refuse(
        feature(col("w")).scale_to_z_score(),
        "w: a",
        expect![[r#"
        `scale_to_z_score` needs numbers, found text
          In feature "x".
          Hint: Cast the text to numbers first: `feature(try_cast(col(..), DataType::Float64))`."#]],
    );
    refuse(
        feature(col("x")).compute_and_apply_vocabulary(VocabularyOptions::new()),
        "x: 1",
        expect![[r#"
            `compute_and_apply_vocabulary` needs text, found numbers
              In feature "x".
              Hint: Cast the numbers to text first: `feature(cast(col(..), DataType::Utf8))`."#]],
    );
    refuse(
        feature(col("x")).one_hot(),
        "x: 1",
        expect![[r#"
        `one_hot` needs an index, found numbers
          In feature "x".
          Hint: Add `.bucketize(..)` before it."#]],
    );
    refuse(
        feature(col("w")),
        "w: a",
        expect![[r#"
        text cannot stand in the feature matrix
          In feature "x".
          Hint: Add `.compute_and_apply_vocabulary(..)`."#]],
    );
    refuse(
        feature(col("y")).bucketize(0),
        "x: 1",
        expect![[r#"
        column "y" is not there
          The columns are "x".
          In feature "x"."#]],
    );
    refuse(
        feature(col("x")).bucketize(0),
        "x: 1",
        expect![[r#"
        `bucketize` takes 1 to 65536 buckets, found 0
          In feature "x"."#]],
    );
    refuse(
        cross([words()]),
        "w: a",
        expect![[r#"
        `cross` needs at least 2 features, found 1
          In feature "x"."#]],
    );
    refuse(
        cross([feature(col("nope")), feature(col("neither"))]),
        "w: a",
        expect![[r#"
            2 errors
            1. column "nope" is not there
                 The columns are "w".
                 In feature "x".
            2. column "neither" is not there
                 The columns are "w".
                 In feature "x"."#]],
    );
    refuse(
        cross_hashed([words(), words()], 0),
        "w: a",
        expect![[r#"
        `cross_hashed` takes 1 to 16777216 buckets, found 0
          In feature "x"."#]],
    );
    refuse(
        feature(col("x")).impute(Impute::Constant(f64::NAN)),
        "x: 1",
        expect![[r#"
            `impute` needs a finite number, found NaN
              In feature "x"."#]],
    );
    refuse(
        feature(col("w")).impute(Impute::Text(String::new())),
        "w: a",
        expect![[r#"
            `impute` cannot put the empty text, which counts as missing
              In feature "x"."#]],
    );
    refuse(
        feature(lit(1)),
        "x: 1",
        expect![[r#"
        the feature reads no column
          In feature "x".
          Hint: A feature that is the same for all rows tells a model nothing."#]],
    );
    refuse(
        feature(col("x").in_list(vec![lit(1)], false)),
        "x: 1",
        expect![[r#"
            a feature cannot hold InList: `x IN ([Int32(1)])`
              In feature "x".
              Hint: Compute it before, with `with_column`, and let the feature start from that column."#]],
    );
    refuse(
        feature(col("x") + col("w")),
        "x: 1; w: a",
        expect![[r#"
        expression `x + w` does not fit the rows
          Error during planning: Cannot coerce arithmetic expression Int64 + Utf8 to valid types.
          In feature "x"."#]],
    );
}

#[test]
fn a_cross_too_large_is_refused_with_its_size() {
    let wide = || feature(col("x")).bucketize(65_536);
    let rows: Vec<String> = (0..5000).map(|i| i.to_string()).collect();
    let rows = mainstem_engine::testing::table(&format!("x: {}", rows.join(", ")));
    let preprocess = crate::Preprocess::new().feature("x", cross([wide(), wide()]));
    let error = preprocess.fit_batches(&[rows]).unwrap_err();
    expect![[r#"
        `cross` takes at most 16777216 combinations, found 5001 * 5001 = 25010001
          In feature "x".
          Hint: Use fewer buckets, `.top_k(..)`, or `cross_hashed`."#]]
    .assert_eq(&error.to_string());
}
