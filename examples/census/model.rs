//! What is learned from the census: features, and three models beside each other.

use mainstem::engine::ArtifactRef;
use mainstem::ml_stages::TrainedModel;
use mainstem::ml_stages::evaluate::Evaluate;
use mainstem::ml_stages::train::{ConstantBaseline, LogisticRegression, WideAndDeep};
use mainstem::prelude::*;
use mainstem::transforms::{Feature, FittedPreprocess};

use crate::inputs::{CATEGORIES, LABEL, NUMBERS};

/// The features of a person.
pub(crate) fn preprocess() -> Preprocess {
    let number = |column: &str| feature(col(column));
    let age = || number("age").bucketize(10);
    let mut preprocess = Preprocess::new();
    for column in NUMBERS {
        preprocess = preprocess.feature(column, number(column).scale_to_z_score());
    }
    for column in CATEGORIES {
        preprocess = preprocess.feature(column, words(column).one_hot());
    }
    // Most people gain and lose nothing, so fine quantiles are needed to tell the others apart.
    preprocess
        .feature("age_bucket", age().one_hot())
        .feature(
            "hours_bucket",
            number("hours_per_week").bucketize(8).one_hot(),
        )
        .feature(
            "gain_bucket",
            number("capital_gain").bucketize(100).one_hot(),
        )
        .feature(
            "loss_bucket",
            number("capital_loss").bucketize(100).one_hot(),
        )
        .feature(
            "education_and_occupation",
            cross([words("education"), words("occupation")]),
        )
        .feature(
            "relationship_and_age",
            cross([words("relationship"), age()]),
        )
}

fn words(column: &str) -> Feature {
    feature(col(column)).compute_and_apply_vocabulary(VocabularyOptions::new())
}

/// A constant, logistic regression, and wide-and-deep, which is the one that is kept.
pub(crate) fn train(
    rows: &Collection,
    fitted: &ArtifactRef<FittedPreprocess>,
    seed: u64,
) -> [(&'static str, ArtifactRef<TrainedModel>); 3] {
    let wide_and_deep = WideAndDeep::classification(fitted, LABEL)
        .wide(["education_and_occupation", "relationship_and_age"])
        .ensemble(2)
        .seed(seed);
    [
        (
            "constant",
            rows.named("constant")
                .train(ConstantBaseline::classification(fitted, LABEL)),
        ),
        (
            "logistic",
            rows.named("logistic")
                .train(LogisticRegression::new(fitted, LABEL).l2(1.0)),
        ),
        (
            "wide_and_deep",
            rows.named("wide_and_deep").train(wide_and_deep),
        ),
    ]
}

/// Compared over all people, and for each sex and race.
pub(crate) fn evaluate() -> Evaluate {
    Evaluate::classification(LABEL, "wide_and_deep").by(["sex", "race"])
}
