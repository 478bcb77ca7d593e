//! What is measured on: births in Parquet files, and a Predictor of 25 features and a model.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Float32Type};
use arrow::record_batch::RecordBatch;
use clap::ValueEnum;
use mainstem::engine::expression::cast;
use mainstem::prelude::*;
use mainstem::transforms::FittedPreprocess;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::births::GeneratedBirths;
use crate::network::random_network;
use crate::trees::random_trees;

const SEED: u64 = 1;
const ROWS_TO_FIT: usize = 100_000;
/// More rows than this are the files of so many rows, listed several times.
const ROWS_ON_DISK: usize = 10_000_000;

/// What scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Model {
    /// A network 25-64-32-1.
    Network,
    /// 200 trees of depth 6.
    Trees,
}

impl Model {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Trees => "trees",
        }
    }
}

/// The folders of a benchmark over so many rows.
pub(crate) struct Dataset {
    n_rows: usize,
    model: Model,
    root: PathBuf,
}

impl Dataset {
    pub(crate) fn of(n_rows: usize, model: Model) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-data");
        Self {
            n_rows,
            model,
            root,
        }
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn of_rows(&self) -> PathBuf {
        self.root.join(format!("natality-{}", self.n_rows))
    }

    pub(crate) fn births(&self) -> PathBuf {
        self.of_rows().join("births")
    }

    pub(crate) fn predictor(&self) -> PathBuf {
        self.root
            .join(format!("natality-predictor-{}", self.model.name()))
    }

    pub(crate) fn out(&self, contender: &str) -> PathBuf {
        self.of_rows().join(format!("out-{contender}"))
    }

    /// Makes what is not there yet; gives the name of the back-end.
    pub(crate) fn prepare(&self, workers: usize) -> Result<String> {
        let run = RunOptions::new().workers(workers);
        if !self.births().is_dir() {
            if self.n_rows > ROWS_ON_DISK && self.n_rows.is_multiple_of(ROWS_ON_DISK) {
                let part = Self::of(ROWS_ON_DISK, self.model);
                part.prepare(workers)?;
                repeat(&part.births(), &self.births(), self.n_rows / ROWS_ON_DISK)?;
            } else {
                let pipeline = Pipeline::new("births");
                pipeline
                    .read("births", GeneratedBirths::new(SEED, self.n_rows)?)
                    .write(connectors::parquet_sink(self.births()));
                pipeline.run(&run)?;
            }
        }
        if !self.predictor().is_dir() {
            let fitted = fit(&run)?;
            let model = match self.model {
                Model::Network => random_network(fitted.layout(), SEED)?,
                Model::Trees => random_trees(fitted.layout(), SEED),
            };
            let golden = first_rows(64)?;
            Predictor::assemble(&fitted, &model, &golden, Backend::Auto)?
                .save(&self.predictor())?;
        }
        let predictor = Predictor::load(&self.predictor(), Backend::Auto)?;
        Ok(predictor.backend_name())
    }

    /// Removes what a contender has written, so that a series does not fill the disk.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub(crate) fn remove_output(&self, contender: &str) -> std::io::Result<()> {
        let out = self.out(contender);
        if out.exists() {
            fs::remove_dir_all(out)?;
        }
        Ok(())
    }
}

/// Lists the files of `from` in `to`, `times` over, by links that take no space.
fn repeat(from: &Path, to: &Path, times: usize) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::environment(format!("files could not be linked into {to:?}")).with_source(e)
    };
    fs::create_dir_all(to).map_err(failed)?;
    let files = fs::read_dir(from)
        .and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>())
        .map_err(failed)?;
    for copy in 0..times {
        for file in &files {
            let name = format!("{copy:03}-{}", file.file_name().to_string_lossy());
            fs::hard_link(file.path(), to.join(name)).map_err(failed)?;
        }
    }
    Ok(())
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

fn fit(run: &RunOptions) -> Result<FittedPreprocess> {
    let pipeline = Pipeline::new("fit");
    let fitted = pipeline
        .read("births", GeneratedBirths::new(SEED, ROWS_TO_FIT)?)
        .fit(&preprocess());
    let report = pipeline.run(run)?;
    Ok(FittedPreprocess::clone(&*report.artifact(&fitted)?))
}

/// The first births, in memory.
///
/// # Errors
/// If there are none.
pub(crate) fn first_rows(n_rows: usize) -> Result<RecordBatch> {
    let pipeline = Pipeline::new("first rows");
    let (sink, rows) = connectors::collect();
    pipeline
        .read("births", GeneratedBirths::new(SEED, n_rows)?)
        .write(sink);
    pipeline.run(&RunOptions::new().workers(1))?;
    let rows = rows.take();
    let first = rows
        .first()
        .ok_or_else(|| Error::bug("the generator gave no rows"))?;
    Ok(concat_batches(&first.schema(), &rows)?)
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
