//! A small Predictor, and what happens to it on its way through a folder.

use std::fs;
use std::path::Path;

use arrow::array::{ArrayRef, Float32Array};
use arrow::record_batch::RecordBatch;
use expect_test::{Expect, expect};
use mainstem_engine::graph::Stage;
use mainstem_engine::testing::{show, table};
use mainstem_engine::{Collection, DeadLetter, Pipeline, RunOptions, Step, col, connectors};
use mainstem_transforms::{Impute, Preprocess, PreprocessCollection, VocabularyOptions, feature};

use super::*;
use crate::model::{Task, TrainedModel};
use crate::onnx::tests::small_model;
use crate::onnx::{Backend, Embedded, TensorOut, TensorView};
use crate::predict::PredictCollection;
use crate::testing::onnx_runtime;

pub(crate) fn people() -> RecordBatch {
    table(
        "age: 20, 30, 40, null, 60, 25
         height: 1.5, null, 1.7, 1.8, 1.9, 1.65
         city: oslo, bergen, oslo, bergen, voss, oslo",
    )
}

fn fitted() -> FittedPreprocess {
    let vocabulary = VocabularyOptions::new().top_k(2);
    Preprocess::new()
        .feature("age", feature(col("age")).scale_to_z_score())
        .feature("height", feature(col("height")).impute(Impute::Mean))
        .feature(
            "city",
            feature(col("city")).compute_and_apply_vocabulary(vocabulary),
        )
        .fit_batches(&[people()])
        .unwrap()
}

fn model(fitted: &FittedPreprocess, task: Task) -> TrainedModel {
    TrainedModel {
        kind: "small",
        task,
        layout: fitted.layout().clone(),
        graph: small_model(),
        losses: vec![0.5, 0.25],
    }
}

pub(crate) fn small_predictor(backend: Backend) -> Predictor {
    let fitted = fitted();
    let model = model(&fitted, Task::BinaryClassification);
    Predictor::assemble(&fitted, &model, &people(), backend).unwrap()
}

fn run(
    predict: &Predict,
    predictor: &Predictor,
    rows: &RecordBatch,
    policy: OnBadRow,
) -> Result<(RecordBatch, Vec<DeadLetter>)> {
    let mut artifacts = Artifacts::none();
    artifacts.insert("p", Arc::new(predictor.clone()));
    let schema = predict.output_schema(&[rows.schema()])?;
    let mut operator = predict.build(&artifacts)?;
    let mut out = Output::new(policy);
    operator.on_batch(0, Batch::new(rows.clone()), &mut out)?;
    let made: Vec<RecordBatch> = out.take().iter().map(|(_, b)| b.rows().clone()).collect();
    Ok((concat_batches(&schema, &made)?, out.take_dead_letters()))
}

fn predict() -> Predict {
    Predict::new(ArtifactRef::new("p"))
}

/// The message of an error, without the folder's name, which changes from run to run.
fn message(folder: &Path, error: &mainstem_engine::Error) -> String {
    error.to_string().replace(&format!("{folder:?}"), "FOLDER")
}

fn refuse_load(folder: &Path, expected: Expect) {
    let error = Predictor::load(folder, Backend::Embedded).unwrap_err();
    expected.assert_eq(&message(folder, &error));
}

/// Puts another file into the folder together with its hash, as a careful forger would.
fn forge(folder: &Path, name: &str, bytes: &[u8]) {
    fs::write(folder.join(name), bytes).unwrap();
    let path = folder.join("manifest.json");
    let mut manifest: Manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest.files.insert(name.into(), folder::sha256(bytes));
    fs::write(path, serde_json::to_vec(&manifest).unwrap()).unwrap();
}

fn saved() -> (tempfile::TempDir, std::path::PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("predictor");
    small_predictor(Backend::Embedded).save(&folder).unwrap();
    (parent, folder)
}

#[test]
fn a_row_without_a_feature_is_a_dead_letter_that_names_it() {
    let predictor = small_predictor(Backend::Embedded);
    let (made, dead) = run(&predict(), &predictor, &people(), OnBadRow::DeadLetter).unwrap();
    assert_eq!(made.num_rows(), 5);
    expect!["age: 20, 30, 40, 60, 25"].assert_eq(&show(&made.project(&[0]).unwrap()));
    assert_eq!((dead.len(), dead[0].row), (1, 3));
    expect![[r#"feature "age" is missing"#]].assert_eq(&dead[0].reason);
    let error = predictor.predict_batch(&people()).unwrap_err();
    expect![[r#"rows in memory, row 3: feature "age" is missing"#]].assert_eq(error.message());
}

#[test]
fn batches_and_single_rows_get_the_same_scores_in_order() {
    let predictor = small_predictor(Backend::Embedded);
    let rows = people().slice(0, 3);
    let whole = predictor.predict_batch(&rows).unwrap();
    let single: Vec<RecordBatch> = (0..3)
        .map(|i| predictor.predict_batch(&rows.slice(i, 1)).unwrap())
        .collect();
    assert_eq!(
        show(&concat_batches(&whole.schema(), &single).unwrap()),
        show(&whole)
    );
    assert_eq!(whole.schema().fields().len(), 4);
    assert!(!whole.schema().field(3).is_nullable());
    assert_eq!(
        predictor
            .predict_batch(&rows.slice(0, 0))
            .unwrap()
            .num_rows(),
        0
    );
}

#[test]
fn batches_larger_than_a_minibatch_are_cut() {
    let predictor = small_predictor(Backend::Embedded);
    let n_rows = MINIBATCH_ROWS + 3;
    let ages: Vec<String> = (0..n_rows).map(|i| (i % 70).to_string()).collect();
    let text = ages.join(", ");
    let height = vec!["1.7"; n_rows].join(", ");
    let city = vec!["oslo"; n_rows].join(", ");
    let rows = table(&format!("age: {text}; height: {height}; city: {city}"));
    let whole = predictor.predict_batch(&rows).unwrap();
    let last = predictor
        .predict_batch(&rows.slice(MINIBATCH_ROWS, 3))
        .unwrap();
    assert_eq!(show(&whole.slice(MINIBATCH_ROWS, 3)), show(&last));
}

#[test]
fn a_wrong_schema_is_an_error_of_the_pipeline() {
    let predictor = small_predictor(Backend::Embedded);
    let error = predictor
        .predict_batch(&table("age: 1.5; City: oslo"))
        .unwrap_err();
    assert!(error.is_pipeline());
    expect![[r#"
        3 errors
        1. column "age" must be Int64, as in training, found Float64
             Hint: Cast it before the prediction.
        2. column "height" is not there
             The columns are "age", "City".
        3. column "city" is not there
             The columns are "age", "City".
             Hint: Names are case-sensitive: did you mean "City"?"#]]
    .assert_eq(&error.to_string());
    let error = predict()
        .column("age")
        .output_schema(&[people().schema()])
        .unwrap_err();
    expect![[r#"
        column "age" is there already
          Hint: Choose another name for the score, or leave that column out before."#]]
    .assert_eq(&error.to_string());
}

#[test]
fn only_the_raw_columns_and_what_is_wanted_are_read() {
    let known = predict().inputs(fitted().input_schema());
    let wanted = ["id".to_owned(), "prediction".to_owned()];
    assert_eq!(
        known.reads(Some(&wanted)).unwrap(),
        ["id", "age", "height", "city"]
    );
    assert_eq!(known.reads(None), None);
    assert_eq!(predict().reads(Some(&wanted)), None);
}

#[test]
fn saved_and_loaded_it_gives_the_same_bits() {
    let (_parent, folder) = saved();
    let rows = people().slice(0, 3);
    let before = small_predictor(Backend::Embedded);
    let after = Predictor::load(&folder, Backend::Embedded).unwrap();
    assert_eq!(after.manifest(), before.manifest());
    assert_eq!(
        after.predict_batch(&rows).unwrap(),
        before.predict_batch(&rows).unwrap()
    );
    assert_eq!(after.golden().num_rows(), 5);
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "fused.onnx",
            "golden.arrow",
            "manifest.json",
            "model.onnx",
            "preprocess.json"
        ]
    );
}

#[test]
fn onnx_runtime_replays_what_the_embedded_back_end_has_scored() {
    if onnx_runtime().is_none() {
        return;
    }
    let (_parent, folder) = saved();
    let predictor = Predictor::load(&folder, Backend::OnnxRuntime).unwrap();
    assert!(predictor.backend_name().starts_with("onnxruntime"));
}

#[test]
fn a_changed_file_is_named() {
    for name in [
        "preprocess.json",
        "model.onnx",
        "fused.onnx",
        "golden.arrow",
    ] {
        let (_parent, folder) = saved();
        let mut bytes = fs::read(folder.join(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(folder.join(name), bytes).unwrap();
        let error = Predictor::load(&folder, Backend::Embedded).unwrap_err();
        assert!(error.is_data());
        assert_eq!(
            message(&folder, &error).lines().next(),
            Some(&*format!(
                "the file {name:?} of the Predictor FOLDER has changed since it was saved"
            ))
        );
    }
}

#[test]
fn another_golden_score_is_an_error_that_names_the_row() {
    let (_parent, folder) = saved();
    let golden = golden::from_ipc(&fs::read(folder.join(GOLDEN_FILE)).unwrap()).unwrap();
    let mut columns = golden.columns().to_vec();
    let mut scores = columns[4]
        .as_any()
        .downcast_ref::<Float32Array>()
        .unwrap()
        .values()
        .to_vec();
    scores[2] = 0.125;
    columns[4] = Arc::new(Float32Array::from(scores)) as ArrayRef;
    let changed = RecordBatch::try_new(golden.schema(), columns).unwrap();
    forge(&folder, GOLDEN_FILE, &golden::to_ipc(&changed).unwrap());
    let error = Predictor::load(&folder, Backend::Embedded).unwrap_err();
    assert!(
        error.message().starts_with("golden row 2: the score is "),
        "{error}"
    );
    assert!(error.message().ends_with(", expected 0.125"), "{error}");
}

#[test]
fn another_golden_feature_is_an_error_that_names_row_and_feature() {
    let (_parent, folder) = saved();
    let golden = golden::from_ipc(&fs::read(folder.join(GOLDEN_FILE)).unwrap()).unwrap();
    let mut columns = golden.columns().to_vec();
    columns[1] = Arc::clone(table("height: 1.5, null, 1.7, 1.9, 3.0").column(0));
    let changed = RecordBatch::try_new(golden.schema(), columns).unwrap();
    forge(&folder, GOLDEN_FILE, &golden::to_ipc(&changed).unwrap());
    refuse_load(
        &folder,
        expect![[r#"
            golden row 4: feature "height" is 3.0, expected 1.65
              1 of 15 feature values differ.
              The Predictor is FOLDER.
              Hint: Save the Predictor anew with this release."#]],
    );
}

#[test]
fn a_folder_without_a_predictor_is_an_error_of_the_surroundings() {
    let (_parent, folder) = saved();
    fs::remove_file(folder.join("manifest.json")).unwrap();
    refuse_load(
        &folder,
        expect![[r#"
            there is no Predictor in FOLDER
              No such file or directory (os error 2)
              Hint: Name a folder that `Predictor::save` has written."#]],
    );
    fs::write(
        folder.join("manifest.json"),
        r#"{"format_version": 2, "files": {}}"#,
    )
    .unwrap();
    refuse_load(
        &folder,
        expect![[r#"
            the Predictor FOLDER is of format 2, this release reads format 1
              Hint: Read it with the release that wrote it, named in its manifest."#]],
    );
}

#[test]
fn saving_replaces_a_predictor_and_nothing_else() {
    let (parent, folder) = saved();
    let better =
        small_predictor(Backend::Embedded).with_metrics(serde_json::json!({ "auc": 0.75 }));
    better.save(&folder).unwrap();
    let metrics = Predictor::load(&folder, Backend::Embedded)
        .unwrap()
        .manifest()
        .metrics
        .clone();
    assert_eq!(metrics, serde_json::json!({ "auc": 0.75 }));
    assert_eq!(
        fs::read_dir(parent.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );

    let other = parent.path().join("photos");
    fs::create_dir(&other).unwrap();
    better.save(&other).unwrap();
    fs::remove_file(other.join("manifest.json")).unwrap();
    let error = better.save(&other).unwrap_err();
    expect![[r#"
        FOLDER is there and is not a Predictor
          Hint: Name another folder, or remove it first."#]]
    .assert_eq(&message(&other, &error));
    assert!(other.join("model.onnx").is_file());
}

#[test]
fn a_predictor_that_cannot_be_written_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("file"), "x").unwrap();
    let error = small_predictor(Backend::Embedded)
        .save(&parent.path().join("file").join("predictor"))
        .unwrap_err();
    assert!(error.is_environment());
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn the_same_parts_give_the_same_bytes() {
    let (a, b) = (
        small_predictor(Backend::Embedded),
        small_predictor(Backend::Embedded),
    );
    assert_eq!(a.manifest().files, b.manifest().files);
    assert_eq!(a.manifest().files.len(), 4);
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let fitted = fitted();
    let model = model(&fitted, Task::Regression);
    let other = Preprocess::new()
        .feature("age", feature(col("age")))
        .fit_batches(&[people()])
        .unwrap();
    let error = Predictor::assemble(&other, &model, &people(), Backend::Embedded).unwrap_err();
    assert!(error.is_pipeline());
    expect![[r#"the model "small" takes other features than the preprocessing gives"#]]
        .assert_eq(error.message());
    let bad = people().slice(3, 1);
    let error = Predictor::assemble(&fitted, &model, &bad, Backend::Embedded).unwrap_err();
    expect![[r#"
        none of the golden rows has all features
          1 rows were looked at.
          Hint: Impute the columns that are often missing."#]]
    .assert_eq(&error.to_string());
}

#[test]
fn in_a_graph_it_is_assembled_and_saved_with_what_was_measured() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("p");
    let fitted = fitted();
    let mut artifacts = Artifacts::none();
    artifacts.insert("model", Arc::new(model(&fitted, Task::Regression)));
    artifacts.insert("fit", Arc::new(fitted));
    artifacts.insert("golden", Arc::new(people()));
    artifacts.insert("evaluation", Arc::new(vec![0.5f64]));
    let assemble = AssemblePredictor::new(
        &ArtifactRef::new("fit"),
        &ArtifactRef::new("model"),
        &ArtifactRef::new("golden"),
    )
    .backend(Backend::Embedded);
    artifacts.insert("p", assemble.run(&artifacts).unwrap());
    let evaluation = ArtifactRef::<Vec<f64>>::new("evaluation");
    let save = SavePredictor::new(&ArtifactRef::new("p"), &folder).metrics("rmse", &evaluation);
    let needs: Vec<String> = save.needs().iter().map(ToString::to_string).collect();
    assert_eq!(needs, ["p", "evaluation"]);
    save.run(&artifacts).unwrap();
    let loaded = Predictor::load(&folder, Backend::Embedded).unwrap();
    assert_eq!(
        loaded.manifest().metrics,
        serde_json::json!({ "rmse": [0.5] })
    );
    assert!(loaded.manifest().golden.score_floor > 0.0);
}

#[test]
fn the_manifest_tells_how_raw_columns_enter_onnx() {
    let inputs = small_predictor(Backend::Embedded).manifest().inputs.clone();
    expect![[r#"[{"name":"age","data_type":"Int64","nullable":true,"onnx_type":"double","null_as":"nan"},{"name":"height","data_type":"Float64","nullable":true,"onnx_type":"double","null_as":"nan"},{"name":"city","data_type":"Utf8","nullable":true,"onnx_type":"string","null_as":"empty_text"}]"#]]
        .assert_eq(&serde_json::to_string(&inputs).unwrap());
}

#[test]
fn sessions_are_given_back() {
    let predictor = small_predictor(Backend::Embedded);
    let lent = [predictor.session().unwrap(), predictor.session().unwrap()];
    assert_eq!(predictor.idle().len(), 0);
    drop(lent);
    assert_eq!(predictor.idle().len(), 2);
    predictor.predict_batch(&people().slice(0, 1)).unwrap();
    assert_eq!(predictor.idle().len(), 2);
}

/// One graph that fits, assembles, saves and predicts; the model is given.
fn learning_pipeline(folder: &Path) -> (Pipeline, ArtifactRef<Predictor>, Collection) {
    let pipeline = Pipeline::new("learn");
    let rows = pipeline.read("people", connectors::from_record_batches(vec![people()]));
    let fit = rows.fit(fitted().preprocess());
    let known = Arc::new(model(&fitted(), Task::BinaryClassification));
    let model = pipeline.provide("model", known);
    let predictor = rows.assemble(&fit, &model, Backend::Embedded);
    let saved = pipeline.step("save", SavePredictor::new(&predictor, folder));
    let scored = rows.predict_with(&saved, "chance");
    (pipeline, saved, scored)
}

#[test]
fn a_graph_learns_saves_and_predicts_as_the_loaded_predictor_does() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("p");
    let (pipeline, saved, scored) = learning_pipeline(&folder);
    let (sink, learned) = connectors::collect();
    scored.on_bad_row(OnBadRow::Drop).write(sink);
    let report = pipeline.run(&RunOptions::new().workers(2)).unwrap();
    assert_eq!(report.artifact(&saved).unwrap().golden().num_rows(), 5);

    let loaded = Predictor::load(&folder, Backend::Embedded).unwrap();
    let pipeline = Pipeline::new("predict");
    let rows = pipeline.read("people", connectors::from_record_batches(vec![people()]));
    let (sink, predicted) = connectors::collect();
    let (dead_sink, dead) = connectors::collect();
    let scored = rows.predict(&loaded);
    scored.dead_letters().write(dead_sink);
    scored.write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    let (learned, predicted, dead) = (learned.take(), predicted.take(), dead.take());
    assert_eq!(learned[0].column(3), predicted[0].column(3));
    assert_eq!(predicted[0].num_rows(), 5);
    assert!(
        show(&dead[0]).contains("'feature \"age\" is missing'"),
        "{}",
        show(&dead[0])
    );
}

#[test]
fn in_a_graph_only_the_raw_columns_are_kept_as_golden_rows() {
    let (pipeline, ..) = learning_pipeline(Path::new("nowhere"));
    let graph = pipeline.graph();
    let golden = graph
        .nodes
        .iter()
        .find(|n| n.id.ends_with("/golden"))
        .unwrap();
    let Stage::Analysis(analysis) = &golden.stage else {
        panic!("{golden:?}");
    };
    assert_eq!(analysis.reads().unwrap(), ["age", "height", "city"]);
    assert!(analysis.needs().is_empty(), "it runs in the first pass");
}

#[test]
fn a_missing_column_is_found_while_planning() {
    let pipeline = Pipeline::new("predict");
    let rows = pipeline.read(
        "people",
        connectors::from_record_batches(vec![table("age: 1")]),
    );
    let (sink, _) = connectors::collect();
    rows.predict(&small_predictor(Backend::Embedded))
        .write(sink);
    let error = pipeline.plan().unwrap_err();
    assert!(error.is_pipeline(), "{error}");
    assert!(
        error.to_string().contains("column \"height\" is not there"),
        "{error}"
    );
}

/// The embedded back-end, whose scores are then moved by so much.
#[derive(Debug)]
struct Moved(f32);

impl InferenceBackend for Moved {
    fn name(&self) -> String {
        format!("moved by {}", self.0)
    }

    fn load(&self, model: &[u8]) -> Result<Box<dyn InferenceSession>> {
        let inner = Embedded::new().load(model)?;
        Ok(Box::new(MovedSession { inner, by: self.0 }))
    }
}

struct MovedSession {
    inner: Box<dyn InferenceSession>,
    by: f32,
}

impl InferenceSession for MovedSession {
    fn run(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Vec<(String, TensorOut)>> {
        let mut outputs = self.inner.run(inputs)?;
        for (_, output) in &mut outputs {
            output.values.iter_mut().for_each(|v| *v += self.by);
        }
        Ok(outputs)
    }
}

#[test]
fn a_back_end_of_the_callers_own_scores_if_it_gives_the_golden_scores() {
    let (_parent, folder) = saved();
    let rows = people().slice(0, 3);
    let same = Predictor::load_with(&folder, Arc::new(Moved(0.0))).unwrap();
    assert_eq!(same.backend_name(), "moved by 0");
    assert_eq!(
        same.predict_batch(&rows).unwrap(),
        small_predictor(Backend::Embedded)
            .predict_batch(&rows)
            .unwrap()
    );
    let error = Predictor::load_with(&folder, Arc::new(Moved(0.5))).unwrap_err();
    expect![[r#"
        golden row 0: the score is 1.452033, expected 0.952033
          The relative difference is 3.443448219355864e-1, at most 1e-5 is allowed, on the back-end moved by 0.5.
          The Predictor is FOLDER.
          Hint: Choose another back-end, or save the Predictor anew."#]].assert_eq(&message(&folder, &error));
}
