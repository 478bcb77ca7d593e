//! Checks that all ways through a Predictor give the same features and scores.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::record_batch::RecordBatch;
use mainstem_engine::{Error, Result};
use serde::Serialize;

use crate::model::{FEATURES, SCORE};
use crate::onnx::{InferenceSession, TensorOut, TensorValuesRef, TensorView};
use crate::predictor::{
    Features, Manifest, OnnxType, PREDICTION_COLUMN, Predictor, raw_columns, relative_difference,
};

/// How the ways through a Predictor compare with its batch path in memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SkewReport {
    /// Rows that were compared.
    pub rows: u64,
    /// Rows that lack a feature, which no way predicts; their features are compared all the same.
    pub rows_without_prediction: u64,
    /// Feature values that were compared, over all ways.
    pub features_compared: u64,
    /// Feature values whose bits differ, over all ways; must be 0.
    pub features_differing: u64,
    /// The largest relative difference of a score, over all ways.
    pub scores_max_relative_difference: f64,
    /// The ways that were compared with the batch path.
    pub paths: Vec<String>,
    /// Why `fused.onnx` was not compared; `None` where it was.
    pub fused_not_run: Option<String>,
    /// The back-end that scored.
    pub backend: String,
}

/// Compares the batch path with one row at a time through a saved and loaded Predictor, and with
/// `fused.onnx` from raw columns where the back-end can run it.
///
/// ```text
///  rows ─┬─ batch path of `predictor` ──────────────────┐
///        ├─ saved, loaded, one row at a time ───────────┼─ features bit by bit, scores relatively
///        └─ fused.onnx from raw columns ────────────────┘
/// ```
///
/// # Errors
/// The errors of the rows and of the predictions, and an environment error if the Predictor cannot be
/// saved into a temporary folder.
pub fn skew_check(
    predictor: &Predictor,
    rows: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<SkewReport> {
    let folder = tempfile::tempdir()?;
    let saved = folder.path().join("predictor");
    predictor.save(&saved)?;
    let loaded = Predictor::load_with(&saved, Arc::clone(predictor.backend()))?;
    let (mut fused, reason) = match fused_session(predictor) {
        Ok(session) => (Some(session), None),
        Err(error) => (None, Some(error.message().to_owned())),
    };
    let mut report = SkewReport {
        backend: predictor.backend_name(),
        fused_not_run: reason,
        ..SkewReport::default()
    };
    for batch in rows {
        let batch = Expected::of(predictor, &batch?)?;
        report.rows += batch.raw.num_rows() as u64;
        report.rows_without_prediction += (batch.raw.num_rows() - batch.usable.true_count()) as u64;
        let compared = batch.one_at_a_time(&loaded)?;
        report.take_in(&batch, &compared);
        if let Some(session) = &mut fused {
            match batch.fused(session.as_mut(), predictor.manifest()) {
                Ok(compared) => report.take_in(&batch, &compared),
                Err(error) => {
                    report.fused_not_run = Some(error.message().to_owned());
                    fused = None;
                }
            }
        }
    }
    report
        .paths
        .push("one row at a time, saved and loaded".into());
    if fused.is_some() {
        report.paths.push("fused.onnx".into());
    }
    Ok(report)
}

fn fused_session(predictor: &Predictor) -> Result<Box<dyn InferenceSession>> {
    let reason = || {
        predictor
            .manifest()
            .fused_refused
            .clone()
            .unwrap_or_default()
    };
    let bytes = predictor
        .fused_onnx()
        .ok_or_else(|| Error::pipeline(reason()))?;
    predictor.backend().load(bytes)
}

impl SkewReport {
    fn take_in(&mut self, expected: &Expected, found: &Found) {
        let pairs = expected.features.values().iter().zip(&found.features);
        self.features_compared += found.features.len() as u64;
        self.features_differing += pairs
            .filter(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()))
            .count() as u64;
        for (&a, &b) in expected.scores.iter().zip(&found.scores) {
            let difference = relative_difference(a, b, expected.score_floor);
            self.scores_max_relative_difference =
                self.scores_max_relative_difference.max(difference);
        }
    }
}

/// What the batch path gives.
struct Expected {
    raw: RecordBatch,
    features: Features,
    usable: BooleanArray,
    scores: Vec<f32>,
    score_floor: f64,
}

/// What another way gives: the features of all rows, the scores of those that are usable.
#[derive(Default)]
struct Found {
    features: Vec<f32>,
    scores: Vec<f32>,
}

impl Expected {
    fn of(predictor: &Predictor, rows: &RecordBatch) -> Result<Self> {
        let raw = raw_columns(rows, &predictor.fitted().input_schema())?;
        let features = Features::of(predictor.fitted(), &raw)?;
        let mut usable = vec![true; raw.num_rows()];
        for (row, _) in features.missing() {
            usable[row] = false;
        }
        let usable = BooleanArray::from(usable);
        let scores = scores(&predictor.predict_batch(&filter_record_batch(&raw, &usable)?)?)?;
        let score_floor = predictor.manifest().golden.score_floor;
        Ok(Self {
            raw,
            features,
            usable,
            scores,
            score_floor,
        })
    }

    /// On all cores: it is the slowest way by far.
    fn one_at_a_time(&self, loaded: &Predictor) -> Result<Found> {
        let n_rows = self.raw.num_rows();
        let n_threads = thread::available_parallelism().map_or(1, usize::from);
        let per_thread = n_rows.div_ceil(n_threads).max(1);
        let parts: Vec<Result<Found>> = thread::scope(|scope| {
            let start = |first| {
                let rows = first..n_rows.min(first + per_thread);
                scope.spawn(move || self.rows_one_at_a_time(rows, loaded))
            };
            let threads: Vec<_> = (0..n_rows).step_by(per_thread).map(start).collect();
            let died = |_| Err(Error::bug("a thread of the skew check panicked"));
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(died))
                .collect()
        });
        let mut found = Found::default();
        for part in parts {
            let part = part?;
            found.features.extend(part.features);
            found.scores.extend(part.scores);
        }
        Ok(found)
    }

    fn rows_one_at_a_time(&self, rows: Range<usize>, loaded: &Predictor) -> Result<Found> {
        let mut found = Found::default();
        for row in rows {
            let one = self.raw.slice(row, 1);
            let features = Features::of(loaded.fitted(), &one)?;
            found.features.extend_from_slice(features.values());
            if self.usable.value(row) {
                found.scores.extend(scores(&loaded.predict_batch(&one)?)?);
            }
        }
        Ok(found)
    }

    fn fused(&self, session: &mut dyn InferenceSession, manifest: &Manifest) -> Result<Found> {
        let inputs = manifest
            .inputs
            .iter()
            .zip(self.raw.columns())
            .map(|(input, column)| {
                Ok((input.name.as_str(), RawColumn::of(input.onnx_type, column)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let texts: Vec<Vec<&str>> = inputs.iter().map(|(_, c)| c.texts()).collect();
        let views = inputs
            .iter()
            .zip(&texts)
            .map(|((name, column), texts)| Ok((*name, TensorView::new(column.values(texts), 1)?)))
            .collect::<Result<Vec<_>>>()?;
        let mut outputs = session.run(&views)?;
        let mut take = |name: &str| -> Result<TensorOut> {
            let place = outputs.iter().position(|(n, _)| n == name);
            let place =
                place.ok_or_else(|| Error::data(format!("fused.onnx has no output {name:?}")))?;
            Ok(outputs.swap_remove(place).1)
        };
        let (features, all) = (take(FEATURES)?.values, take(SCORE)?.values);
        let usable = all.iter().zip(self.usable.iter());
        let scores = usable
            .filter(|(_, u)| *u == Some(true))
            .map(|(s, _)| *s)
            .collect();
        Ok(Found { features, scores })
    }
}

fn scores(predicted: &RecordBatch) -> Result<Vec<f32>> {
    let column = predicted
        .column_by_name(PREDICTION_COLUMN)
        .and_then(|c| c.as_primitive_opt::<Float32Type>())
        .ok_or_else(|| Error::bug("predicted rows have no score"))?;
    Ok(column.values().to_vec())
}

/// A raw column in the form in which it enters `fused.onnx`.
enum RawColumn {
    Double(Vec<f64>),
    String(StringArray),
    Bool(Vec<bool>),
}

impl RawColumn {
    fn of(onnx_type: OnnxType, column: &ArrayRef) -> Result<Self> {
        let bug = || Error::bug(format!("a raw column is {}", column.data_type()));
        match onnx_type {
            OnnxType::Double => {
                let column = cast(column, &DataType::Float64)?;
                let doubles: &Float64Array =
                    column.as_primitive_opt::<Float64Type>().ok_or_else(bug)?;
                Ok(Self::Double(
                    doubles.iter().map(|v| v.unwrap_or(f64::NAN)).collect(),
                ))
            }
            OnnxType::String => {
                let column = cast(column, &DataType::Utf8)?;
                Ok(Self::String(
                    column.as_string_opt::<i32>().ok_or_else(bug)?.clone(),
                ))
            }
            OnnxType::Bool => {
                let column = column.as_boolean_opt().ok_or_else(bug)?;
                if column.null_count() > 0 {
                    return Err(Error::data(
                        "a Boolean column holds null, which ONNX cannot take",
                    ));
                }
                Ok(Self::Bool(
                    column.iter().map(Option::unwrap_or_default).collect(),
                ))
            }
        }
    }

    fn texts(&self) -> Vec<&str> {
        match self {
            Self::String(column) => column.iter().map(Option::unwrap_or_default).collect(),
            _ => Vec::new(),
        }
    }

    fn values<'a>(&'a self, texts: &'a [&'a str]) -> TensorValuesRef<'a> {
        match self {
            Self::Double(values) => TensorValuesRef::Double(values),
            Self::String(_) => TensorValuesRef::String(texts),
            Self::Bool(values) => TensorValuesRef::Bool(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::Backend;
    use crate::predictor::tests::{people, small_predictor};
    use crate::testing::onnx_runtime;

    #[test]
    fn all_ways_give_the_same_on_onnx_runtime() {
        if onnx_runtime().is_none() {
            return;
        }
        let predictor = small_predictor(Backend::OnnxRuntime);
        let (first, last) = (people().slice(0, 3), people().slice(4, 2));
        let report = skew_check(&predictor, [Ok(first), Ok(last)].into_iter()).unwrap();
        assert_eq!(report.paths.len(), 2, "{report:?}");
        assert_eq!((report.rows, report.rows_without_prediction), (5, 0));
        assert_eq!(
            (report.features_compared, report.features_differing),
            (30, 0)
        );
        assert!(report.scores_max_relative_difference <= 1e-5, "{report:?}");
    }

    #[test]
    fn the_embedded_back_end_says_why_it_skips_the_fused_graph() {
        let predictor = small_predictor(Backend::Embedded);
        let report = skew_check(&predictor, std::iter::once(Ok(people()))).unwrap();
        assert_eq!(report.paths, ["one row at a time, saved and loaded"]);
        assert_eq!(
            (report.features_compared, report.features_differing),
            (18, 0)
        );
        let reason = report.fused_not_run.unwrap();
        assert!(reason.starts_with("the embedded back-end "), "{reason}");
    }

    #[test]
    fn a_null_in_a_column_of_integers_is_missing_in_the_fused_graph_too() {
        if onnx_runtime().is_none() {
            return;
        }
        let predictor = small_predictor(Backend::OnnxRuntime);
        let report = skew_check(&predictor, std::iter::once(Ok(people().slice(3, 1)))).unwrap();
        assert_eq!((report.rows, report.rows_without_prediction), (1, 1));
        assert_eq!(report.features_differing, 0);
    }

    #[test]
    fn a_difference_is_counted() {
        let predictor = small_predictor(Backend::Embedded);
        let expected = Expected::of(&predictor, &people().slice(0, 1)).unwrap();
        let mut found = expected.one_at_a_time(&predictor).unwrap();
        found.features[1] += 1.0;
        found.scores[0] *= 2.0;
        let mut report = SkewReport::default();
        report.take_in(&expected, &found);
        assert_eq!(
            (report.features_compared, report.features_differing),
            (3, 1)
        );
        assert_eq!(report.scores_max_relative_difference, 0.5);
    }
}
