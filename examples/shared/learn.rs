//! What the examples have in common: models side by side, their evaluation, and prediction over files.

use std::path::Path;

use mainstem::engine::ArtifactRef;
use mainstem::ml_stages::evaluate::{Evaluate, Evaluation};
use mainstem::ml_stages::{SavePredictor, SkewReport, TrainedModel, skew_check};
use mainstem::prelude::*;
use mainstem::transforms::FittedPreprocess;

/// A model that is learned in the graph, by its name.
pub(crate) type NamedModel = (&'static str, ArtifactRef<TrainedModel>);

/// Assembles each model into a Predictor and compares all of them on the rows of `eval`.
///
/// The last model is the one that is kept, in `folder`, with the evaluation in its manifest.
pub(crate) fn evaluate_and_keep(
    train: &Collection,
    eval: &Collection,
    fitted: &ArtifactRef<FittedPreprocess>,
    models: &[NamedModel],
    (backend, folder): (Backend, &Path),
    evaluate: Evaluate,
) -> ArtifactRef<Evaluation> {
    let mut scored = eval.clone();
    let mut kept = None;
    for (name, model) in models {
        let predictor = train
            .named(format!("{name}/predictor"))
            .assemble(fitted, model, backend);
        scored = scored
            .named(format!("{name}/predict"))
            .predict_with(&predictor, name);
        kept = Some(predictor);
    }
    let names = models.iter().map(|(name, _)| *name);
    let evaluation = scored
        .named("evaluate")
        .evaluate(evaluate.predictions(names));
    if let Some(predictor) = kept {
        let save = SavePredictor::new(&predictor, folder).metrics("evaluation", &evaluation);
        let _saved = train.pipeline().step::<Predictor>("save", save);
    }
    evaluation
}

/// Predicts over rows into a folder of Parquet files, in a graph of its own; gives the number of rows.
pub(crate) fn predict(
    predictor: &Predictor,
    rows: impl Fn(&Pipeline) -> Result<Collection>,
    folder: &Path,
    run: &RunOptions,
) -> Result<u64> {
    let pipeline = Pipeline::new("predict");
    rows(&pipeline)?
        .predict(predictor)
        .write(connectors::parquet_sink(folder).overwrite(true));
    let report = pipeline.run(run)?;
    Ok(report
        .published
        .iter()
        .map(|(_, published)| published.n_rows)
        .sum())
}

/// Compares the ways to a prediction over all rows.
pub(crate) fn skew(
    predictor: &Predictor,
    rows: impl Fn(&Pipeline) -> Result<Collection>,
    run: &RunOptions,
) -> Result<SkewReport> {
    let pipeline = Pipeline::new("rows to compare");
    let (sink, batches) = connectors::collect();
    rows(&pipeline)?.write(sink);
    pipeline.run(run)?;
    skew_check(predictor, batches.take().into_iter().map(Ok))
}
