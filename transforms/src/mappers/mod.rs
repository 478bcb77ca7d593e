//! Mappers: one file each, with the method of [`Feature`](crate::Feature) that makes it.

mod bucketize;
mod compute_and_apply_vocabulary;
mod cross;
mod cross_hashed;
mod impute;
mod missing_indicator;
mod one_hot;
mod scale_to_0_1;
mod scale_to_z_score;

pub use bucketize::Bucketize;
pub use compute_and_apply_vocabulary::{ComputeAndApplyVocabulary, VocabularyOptions};
pub use cross::{Cross, cross};
pub use cross_hashed::{CrossHashed, cross_hashed};
pub use impute::{Impute, ImputeMissing};
pub use missing_indicator::MissingIndicator;
pub use one_hot::OneHot;
pub use scale_to_0_1::ScaleTo01;
pub use scale_to_z_score::ScaleToZScore;

#[cfg(test)]
mod tests;
