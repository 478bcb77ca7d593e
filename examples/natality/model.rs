//! What is learned from births: features, and three models beside each other.

use mainstem::engine::ArtifactRef;
use mainstem::ml_stages::TrainedModel;
use mainstem::ml_stages::evaluate::Evaluate;
use mainstem::ml_stages::train::{ConstantBaseline, LinearRegression, WideAndDeep};
use mainstem::prelude::*;
use mainstem::transforms::FittedPreprocess;

const LABEL: &str = "weight_pounds";

/// The features of a birth.
pub(crate) fn preprocess() -> Preprocess {
    let words =
        |column: &str| feature(col(column)).compute_and_apply_vocabulary(VocabularyOptions::new());
    let weeks = || feature(col("gestation_weeks"));
    let age = || feature(col("mother_age"));
    Preprocess::new()
        .feature("age", age().scale_to_z_score())
        .feature("weeks", weeks().scale_to_z_score())
        .feature("sex", words("is_male").one_hot())
        .feature("plurality", words("plurality").one_hot())
        .feature("age_bucket", age().bucketize(10).one_hot())
        .feature("weeks_bucket", weeks().bucketize(20).one_hot())
        .feature(
            "sex_and_plurality",
            cross([words("is_male"), words("plurality")]),
        )
        .feature(
            "plurality_and_weeks",
            cross([words("plurality"), weeks().bucketize(20)]),
        )
}

/// A constant, a linear model, and wide-and-deep, which is the one that is kept.
pub(crate) fn train(
    rows: &Collection,
    fitted: &ArtifactRef<FittedPreprocess>,
    seed: u64,
) -> [(&'static str, ArtifactRef<TrainedModel>); 3] {
    let wide_and_deep = WideAndDeep::regression(fitted, LABEL)
        .wide(["sex_and_plurality", "plurality_and_weeks"])
        .batch_size(2048)
        .seed(seed);
    [
        (
            "constant",
            rows.named("constant")
                .train(ConstantBaseline::regression(fitted, LABEL)),
        ),
        (
            "linear",
            rows.named("linear")
                .train(LinearRegression::new(fitted, LABEL)),
        ),
        (
            "wide_and_deep",
            rows.named("wide_and_deep").train(wide_and_deep),
        ),
    ]
}

/// Compared over all births, and for each sex and plurality.
pub(crate) fn evaluate() -> Evaluate {
    Evaluate::regression(LABEL, "wide_and_deep").by(["is_male", "plurality"])
}
