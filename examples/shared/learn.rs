//! What the examples have in common: models side by side, their evaluation, and prediction over files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use mainstem::engine::{ArtifactRef, BATCH_ROWS, RunReport};
use mainstem::ml_stages::evaluate::{Evaluate, Evaluation};
use mainstem::ml_stages::{SavePredictor, SkewReport, TrainedModel, skew_check};
use mainstem::prelude::*;
use mainstem::transforms::{FEATURES_COLUMN, FittedPreprocess, features_type};

use crate::options::Common;

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

/// Runs the learning graph; `--explain` shows its plan before and the work of its nodes after, and
/// `--report` writes a page about it.
pub(crate) fn run(pipeline: &Pipeline, run: &RunOptions, options: &Common) -> Result<RunReport> {
    let plan = pipeline.plan()?;
    if options.explain {
        println!("{}", plan.explain());
    }
    let report = match &options.report {
        Some(file) => plan.run(&run.clone().report_html(file))?,
        None => plan.run(run)?,
    };
    if options.explain {
        println!("{report}\n");
    }
    Ok(report)
}

/// Compares the ways to a prediction over all rows, and writes them to `reference` where one is given.
pub(crate) fn skew(
    predictor: &Predictor,
    rows: impl Fn(&Pipeline) -> Result<Collection>,
    reference: Option<&Path>,
    run: &RunOptions,
) -> Result<SkewReport> {
    let pipeline = Pipeline::new("rows to compare");
    let (sink, batches) = connectors::collect();
    rows(&pipeline)?.write(sink);
    pipeline.run(run)?;
    let batches: Vec<RecordBatch> = batches.take().iter().flat_map(in_batches).collect();
    if let Some(file) = reference {
        write_reference(predictor, &batches, file)?;
    }
    skew_check(predictor, batches.into_iter().map(Ok))
}

/// Parts of the size in which rows flow, so that features of all rows never stand in memory at once.
fn in_batches(rows: &RecordBatch) -> impl Iterator<Item = RecordBatch> + '_ {
    let n_rows = rows.num_rows();
    (0..n_rows)
        .step_by(BATCH_ROWS)
        .map(move |first| rows.slice(first, BATCH_ROWS.min(n_rows - first)))
}

/// Writes raw columns, `features` and `prediction` as Arrow IPC.
fn write_reference(predictor: &Predictor, batches: &[RecordBatch], file: &Path) -> Result<()> {
    let mut writer: Option<FileWriter<File>> = None;
    for rows in batches {
        let scored = predictor.predict_batch(rows)?;
        let mut fields = scored.schema().fields().to_vec();
        fields.push(Arc::new(Field::new(
            FEATURES_COLUMN,
            features_type(),
            false,
        )));
        let schema = Arc::new(Schema::new(fields));
        let mut columns = scored.columns().to_vec();
        columns.push(Arc::new(predictor.fitted().matrix(&scored)?));
        let whole = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let open = match &mut writer {
            Some(open) => open,
            none => none.insert(FileWriter::try_new(File::create(file)?, &schema)?),
        };
        open.write(&whole)?;
    }
    if let Some(mut writer) = writer {
        writer.finish()?;
    }
    Ok(())
}
