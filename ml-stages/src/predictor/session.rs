//! A model at work for one caller.

use mainstem_engine::{Error, Result};

use super::Predictor;
use crate::model::{FEATURES, SCORE};
use crate::onnx::{InferenceSession, TensorValuesRef, TensorView};

/// A session lent by a Predictor; dropping it gives it back.
///
/// One caller at a time has it, so scoring waits for no lock.
pub(crate) struct LentSession {
    predictor: Predictor,
    session: Option<Box<dyn InferenceSession>>,
}

impl LentSession {
    pub(super) fn new(predictor: Predictor, session: Box<dyn InferenceSession>) -> Self {
        Self {
            predictor,
            session: Some(session),
        }
    }

    /// The score of each row of a matrix, read in place, at most a minibatch at once.
    pub(crate) fn scores(&mut self, features: &[f32]) -> Result<Vec<f32>> {
        let manifest = &self.predictor.manifest;
        let width = manifest.layout.width();
        let session = self
            .session
            .as_mut()
            .ok_or_else(|| Error::bug("a session was used after it was given back"))?;
        let mut scores = Vec::with_capacity(features.len() / width.max(1));
        for part in features.chunks((manifest.minibatch_rows * width).max(1)) {
            let view = TensorView::new(TensorValuesRef::Float(part), width)?;
            let outputs = session.run(&[(FEATURES, view)])?;
            let made = outputs
                .into_iter()
                .find(|(name, _)| name == SCORE)
                .ok_or_else(|| Error::data(format!("the model has no output {SCORE:?}")))?;
            if made.1.values.len() != view.n_rows {
                return Err(Error::data(format!(
                    "the model gave {} scores for {} rows",
                    made.1.values.len(),
                    view.n_rows
                )));
            }
            scores.extend(made.1.values);
        }
        Ok(scores)
    }
}

impl Drop for LentSession {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.predictor.give_back(session);
        }
    }
}
