//! What is measured on: births in Parquet files, and a Predictor of 25 features and a small network.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float32Type};
use arrow::record_batch::RecordBatch;
use mainstem::engine::expression::cast;
use mainstem::ml_stages::model::{FEATURES, SCORE, Task, TrainedModel};
use mainstem::prelude::*;
use mainstem::transforms::onnx_graph::{
    Attribute, Dim, ElementType, OnnxGraph, Tensor, TensorValues, Value,
};
use mainstem::transforms::{FeatureLayout, FittedPreprocess};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::births::GeneratedBirths;

/// Width of the feature matrix and sizes of the layers behind it.
const LAYERS: [usize; 4] = [25, 64, 32, 1];
const SEED: u64 = 1;
const ROWS_TO_FIT: usize = 100_000;

/// The folders of a benchmark over so many rows.
pub(crate) struct Dataset {
    n_rows: usize,
    root: PathBuf,
}

impl Dataset {
    pub(crate) fn of(n_rows: usize) -> Self {
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-data");
        Self {
            n_rows,
            root: data.join(format!("natality-{n_rows}")),
        }
    }

    pub(crate) fn births(&self) -> PathBuf {
        self.root.join("births")
    }

    pub(crate) fn predictor(&self) -> PathBuf {
        self.root.join("predictor")
    }

    pub(crate) fn out(&self, contender: &str) -> PathBuf {
        self.root.join(format!("out-{contender}"))
    }

    /// Makes what is not there yet; gives the name of the back-end.
    pub(crate) fn prepare(&self, workers: usize) -> Result<String> {
        let run = RunOptions::new().workers(workers);
        if !self.births().is_dir() {
            let pipeline = Pipeline::new("births");
            pipeline
                .read("births", GeneratedBirths::new(SEED, self.n_rows)?)
                .write(connectors::parquet_sink(self.births()));
            pipeline.run(&run)?;
        }
        if !self.predictor().is_dir() {
            let fitted = fit(self.n_rows.min(ROWS_TO_FIT), &run)?;
            let model = random_network(fitted.layout())?;
            let golden = first_rows(64)?;
            Predictor::assemble(&fitted, &model, &golden, Backend::Auto)?
                .save(&self.predictor())?;
        }
        let predictor = Predictor::load(&self.predictor(), Backend::Auto)?;
        Ok(predictor.backend_name())
    }
}

fn preprocess() -> Preprocess {
    let sex = feature(cast(col("is_male"), DataType::Utf8))
        .compute_and_apply_vocabulary(VocabularyOptions::new());
    let plurality = feature(cast(col("plurality"), DataType::Utf8))
        .compute_and_apply_vocabulary(VocabularyOptions::new());
    Preprocess::new()
        .feature("age", feature(col("mother_age")).scale_to_z_score())
        .feature("weeks", feature(col("gestation_weeks")).scale_to_z_score())
        .feature("sex", sex.one_hot())
        .feature("plurality", plurality.one_hot())
        .feature(
            "weeks_bucket",
            feature(col("gestation_weeks")).bucketize(10).one_hot(),
        )
        .feature(
            "age_bucket",
            feature(col("mother_age")).bucketize(10).one_hot(),
        )
}

fn fit(n_rows: usize, run: &RunOptions) -> Result<FittedPreprocess> {
    let pipeline = Pipeline::new("fit");
    let fitted = pipeline
        .read("births", GeneratedBirths::new(SEED, n_rows)?)
        .fit(&preprocess());
    let report = pipeline.run(run)?;
    Ok(FittedPreprocess::clone(&*report.artifact(&fitted)?))
}

fn first_rows(n_rows: usize) -> Result<RecordBatch> {
    let pipeline = Pipeline::new("golden rows");
    let (sink, rows) = connectors::collect();
    pipeline
        .read("births", GeneratedBirths::new(SEED, n_rows)?)
        .write(sink);
    pipeline.run(&RunOptions::new().workers(1))?;
    rows.take()
        .into_iter()
        .next()
        .ok_or_else(|| Error::bug("the generator gave no rows"))
}

/// A network with weights drawn at random: what it predicts does not matter here.
fn random_network(layout: &FeatureLayout) -> Result<TrainedModel> {
    if layout.width() != LAYERS[0] {
        let width = layout.width();
        return Err(Error::bug(format!(
            "the features take {width} columns, not {}",
            LAYERS[0]
        )));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut graph = OnnxGraph::new();
    let shape = |width| [Dim::Rows, Dim::Size(width)];
    let mut value = graph.input(FEATURES, ElementType::Float, &shape(LAYERS[0]));
    for (layer, sizes) in LAYERS.windows(2).enumerate() {
        let (n_in, n_out) = (sizes[0], sizes[1]);
        let weights = random_tensor(&mut rng, &mut graph, &[n_in, n_out]);
        let bias = random_tensor(&mut rng, &mut graph, &[n_out]);
        value = graph.op(
            "Gemm",
            &[value, weights, bias],
            Vec::<(&str, Attribute)>::new(),
        );
        if layer + 2 < LAYERS.len() {
            value = graph.op("Relu", &[value], Vec::new());
        }
    }
    graph.output(SCORE, &value, ElementType::Float, &shape(1));
    Ok(TrainedModel {
        kind: "random_network",
        task: Task::Regression,
        layout: layout.clone(),
        graph,
        losses: Vec::new(),
    })
}

fn random_tensor(rng: &mut ChaCha8Rng, graph: &mut OnnxGraph, dims: &[usize]) -> Value {
    let scale = 1.0 / (dims[0] as f32).sqrt();
    let draw = |_| {
        let z: f32 = StandardNormal.sample(rng);
        z * scale
    };
    let values = (0..dims.iter().product::<usize>()).map(draw).collect();
    graph.constant(Tensor {
        dims: dims.into(),
        values: TensorValues::Float(values),
    })
}

/// Both contenders must have written the same predictions, whatever the order of their files.
///
/// # Errors
/// If they have not.
pub(crate) fn check_agreement(data: &Dataset) -> Result<(), Box<dyn std::error::Error>> {
    let ours = predictions(&data.out("mainstem"))?;
    let theirs = predictions(&data.out("bare"))?;
    if ours.len() != data.n_rows || theirs.len() != data.n_rows {
        return Err(format!(
            "{} rows in, {} and {} predictions",
            data.n_rows,
            ours.len(),
            theirs.len()
        )
        .into());
    }
    let differ = |(a, b): &(&f32, &f32)| (*a - *b).abs() > 1e-5 * b.abs().max(1.0);
    match ours.iter().zip(&theirs).find(differ) {
        Some((a, b)) => {
            Err(format!("the engine predicts {a} where the bare loop predicts {b}").into())
        }
        None => Ok(()),
    }
}

/// All predictions in a folder, sorted.
fn predictions(folder: &Path) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(entry?.path())?)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["prediction"]);
        for rows in builder.with_projection(mask).build()? {
            found.extend_from_slice(rows?.column(0).as_primitive::<Float32Type>().values());
        }
    }
    found.sort_by(f32::total_cmp);
    Ok(found)
}
