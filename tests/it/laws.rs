//! Preprocessing on real rows: the same bits by every way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem::engine::{ArtifactRef, Progress};
use mainstem::ml_stages::TrainedModel;
use mainstem::ml_stages::onnx::encode;
use mainstem::ml_stages::train::WideAndDeep;
use mainstem::prelude::*;
use mainstem::transforms::{FEATURES_COLUMN, Feature, FittedPreprocess};

/// A folder of real data beside the checkout; `None`, aloud, where it is not there.
fn data(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no folder {}", folder.display());
    None
}

fn options(workers: usize) -> RunOptions {
    RunOptions::new().workers(workers).progress(Progress::Never)
}

fn words(column: &str) -> Feature {
    feature(col(column)).compute_and_apply_vocabulary(VocabularyOptions::new())
}

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, kind): &(&str, DataType)| Field::new(*name, kind.clone(), true);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

fn births(pipeline: &Pipeline, folder: &Path) -> Collection {
    let columns = schema(&[
        ("weight_pounds", DataType::Float64),
        ("is_male", DataType::Utf8),
        ("mother_age", DataType::Int64),
        ("plurality", DataType::Utf8),
        ("gestation_weeks", DataType::Float64),
        ("key", DataType::Int64),
    ]);
    pipeline.read(
        "births",
        connectors::csv(folder.join("babyweight_*.csv")).schema(columns),
    )
}

fn birth_features() -> Preprocess {
    let age = || feature(col("mother_age"));
    let weeks = || feature(col("gestation_weeks"));
    Preprocess::new()
        .feature("age", age().scale_to_z_score())
        .feature("weeks", weeks().scale_to_0_1())
        .feature(
            "weeks_of_z",
            weeks().scale_to_z_score().bucketize(7).one_hot(),
        )
        .feature("sex", words("is_male").one_hot())
        .feature("cross", cross([words("plurality"), age().bucketize(10)]))
}

fn people(pipeline: &Pipeline, folder: &Path) -> Collection {
    let (number, text) = (DataType::Int64, DataType::Utf8);
    let columns = schema(&[
        ("age", number.clone()),
        ("workclass", text.clone()),
        ("fnlwgt", number.clone()),
        ("education", text.clone()),
        ("education_num", number.clone()),
        ("marital_status", text.clone()),
        ("occupation", text.clone()),
        ("relationship", text.clone()),
        ("race", text.clone()),
        ("sex", text.clone()),
        ("capital_gain", number.clone()),
        ("capital_loss", number.clone()),
        ("hours_per_week", number),
        ("native_country", text.clone()),
        ("income", text),
    ]);
    let part = |name: &str, skip: u64| {
        let file = connectors::csv(folder.join(name)).skip_lines(skip);
        // A question mark is null here, so that missing words are compared too.
        pipeline.read(
            name,
            file.schema(Arc::clone(&columns))
                .trim(true)
                .null_spellings(["?"]),
        )
    };
    part("adult.data", 0).union(&[part("adult.test", 1)])
}

fn person_features() -> Preprocess {
    let number = |column: &str| feature(col(column));
    Preprocess::new()
        .feature("age", number("age").scale_to_z_score())
        .feature("gain", number("capital_gain").bucketize(50).one_hot())
        .feature("work", words("workclass").one_hot())
        .feature("occupation", words("occupation").one_hot())
        .feature("country", words("native_country").one_hot())
        .feature("cross", cross([words("education"), words("relationship")]))
}

fn bits(features: &dyn Array) -> Vec<u32> {
    let values = features
        .as_list::<i32>()
        .values()
        .as_primitive::<Float32Type>();
    values.values().iter().map(|v| v.to_bits()).collect()
}

/// Fits over `rows` with 1, 2 and 3 workers, and compares the features that the graph makes with those of
/// the saved and loaded preprocessing, in batches and one row at a time.
fn check(rows: impl Fn(&Pipeline) -> Collection, preprocess: &Preprocess, n_rows: usize) {
    let mut fingerprints = Vec::new();
    for workers in 1..=3 {
        let pipeline = Pipeline::new("laws");
        let rows = rows(&pipeline);
        let fitted = rows.fit(preprocess);
        let (sink, made) = connectors::collect();
        rows.featurize(&fitted).write(sink);
        let report = pipeline.run(&options(workers)).unwrap();
        let saved = serde_json::to_vec(&*report.artifact(&fitted).unwrap()).unwrap();
        let loaded: FittedPreprocess = serde_json::from_slice(&saved).unwrap();
        let made: Vec<RecordBatch> = made.take();
        let made = arrow::compute::concat_batches(&made[0].schema(), &made).unwrap();
        assert_eq!(made.num_rows(), n_rows);
        let in_graph = bits(&made[FEATURES_COLUMN]);
        assert_eq!(in_graph.len(), n_rows * loaded.layout().width());
        assert!(
            in_graph == bits(&loaded.matrix(&made).unwrap()),
            "{workers} workers, loaded"
        );
        if workers == 1 {
            let one = |row| bits(&loaded.matrix(&made.slice(row, 1)).unwrap());
            let alone: Vec<u32> = (0..n_rows).flat_map(one).collect();
            assert!(in_graph == alone, "one row at a time");
        }
        fingerprints.push(loaded.fingerprint());
    }
    assert!(
        fingerprints.iter().all(|f| *f == fingerprints[0]),
        "{fingerprints:?}"
    );
}

#[test]
fn features_of_all_births_are_the_same_by_every_way() {
    if let Some(folder) = data("natality") {
        check(|p| births(p, &folder), &birth_features(), 33_026);
    }
}

#[test]
fn features_of_all_people_are_the_same_by_every_way() {
    if let Some(folder) = data("census") {
        check(|p| people(p, &folder), &person_features(), 48_842);
    }
}

/// The bytes of the model show whether the rows kept their order.
#[test]
fn a_seed_gives_the_same_model_with_any_number_of_workers() {
    let Some(folder) = data("natality") else {
        return;
    };
    let model_of = |workers: usize, seed: u64| {
        let pipeline = Pipeline::new("model");
        let [train, _] =
            births(&pipeline, &folder).split_by_hash(col("key"), [("train", 1), ("rest", 3)]);
        let fitted = train.fit(&birth_features());
        let trainer = WideAndDeep::regression(&fitted, "weight_pounds").wide(["cross"]);
        let model: ArtifactRef<TrainedModel> =
            train.featurize(&fitted).train(trainer.epochs(1).seed(seed));
        let report = pipeline.run(&options(workers)).unwrap();
        encode(
            &report.artifact(&model).unwrap().graph,
            "model",
            &BTreeMap::new(),
        )
    };
    let first = model_of(1, 7);
    assert!(first == model_of(2, 7) && first == model_of(3, 7));
    assert!(first != model_of(1, 8));
}
