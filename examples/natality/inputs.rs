//! Where the births come from, and how they become rows that a model can learn from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mainstem::engine::expression::{cast, functions::string::expr_fn::concat, when};
use mainstem::prelude::*;

use crate::births::GeneratedBirths;

/// Births in files.
#[derive(Debug)]
pub(crate) enum Inputs {
    /// Parquet files with the columns of BigQuery's table, neither split nor masked.
    Table(PathBuf),
    /// The workshop's two CSV files, split already; `masked` if they hold the rows of unknown sex.
    Workshop { folder: PathBuf, masked: bool },
}

impl Inputs {
    /// Writes `n_rows` births of a seed to a folder of Parquet files.
    pub(crate) fn generate(
        folder: &Path,
        seed: u64,
        n_rows: usize,
        run: &RunOptions,
    ) -> Result<Self> {
        // One worker: the files then hold the births in the order in which they are drawn, and what is
        // learned from them depends on the seed alone.
        let run = &run.clone().workers(1);
        let pipeline = Pipeline::new("generate births");
        pipeline
            .read("births", GeneratedBirths::new(seed, n_rows)?)
            .write(connectors::parquet_sink(folder).overwrite(true));
        pipeline.run(run)?;
        Ok(Self::Table(folder.to_owned()))
    }

    /// Looks at what a folder holds.
    pub(crate) fn find(folder: &Path, run: &RunOptions) -> Result<Self> {
        let holds = |name: &str| folder.join(name).is_file();
        if holds("babyweight_train.csv") && holds("babyweight_eval.csv") {
            let masked = n_unknown(&folder.join("babyweight_train.csv"), run)? > 0;
            return Ok(Self::Workshop {
                folder: folder.to_owned(),
                masked,
            });
        }
        let is_parquet = |path: &Path| path.extension().is_some_and(|e| e == "parquet");
        let mut entries = std::fs::read_dir(folder).map_err(|e| {
            Error::environment(format!("cannot read folder {:?}", folder.display())).with_source(e)
        })?;
        if entries.any(|entry| entry.is_ok_and(|entry| is_parquet(&entry.path()))) {
            return Ok(Self::Table(folder.to_owned()));
        }
        Err(Error::environment(format!("folder {:?} holds no births", folder.display()))
            .with_detail("It should hold babyweight_train.csv and babyweight_eval.csv, or Parquet files with the columns of BigQuery's natality table.")
            .with_hint("Leave `--data` out to generate births."))
    }

    /// The rows to learn from and the rows to evaluate on, both with copies whose sex is unknown.
    pub(crate) fn train_and_eval(&self, pipeline: &Pipeline) -> Result<[Collection; 2]> {
        match self {
            Self::Table(folder) => {
                let rows = pipeline.read("births", connectors::parquet(folder));
                let month = concat(vec![text("year"), text("month")]);
                let parts = clean(&rows)
                    .named("split")
                    .split_by_hash(month, [("train", 3), ("eval", 1)]);
                let [train, eval] = parts.each_ref().map(labelled);
                Ok([with_masked_copies(&train?)?, with_masked_copies(&eval?)?])
            }
            Self::Workshop { folder, masked } => {
                let part = |name: &str| -> Result<Collection> {
                    let file = folder.join(format!("babyweight_{name}.csv"));
                    let rows = pipeline.read(name, connectors::csv(file).schema(workshop_schema()));
                    let rows = clean(&rows).select(MODEL_COLUMNS.map(col));
                    if *masked {
                        Ok(rows)
                    } else {
                        with_masked_copies(&rows)
                    }
                };
                Ok([part("train")?, part("eval")?])
            }
        }
    }

    /// All rows in the files, as the model takes them.
    pub(crate) fn all(&self, pipeline: &Pipeline) -> Result<Collection> {
        match self {
            Self::Table(folder) => labelled(&clean(
                &pipeline.read("births", connectors::parquet(folder)),
            )),
            Self::Workshop { folder, .. } => {
                let files = folder.join("babyweight_*.csv");
                let rows =
                    pipeline.read("births", connectors::csv(files).schema(workshop_schema()));
                Ok(clean(&rows).select(MODEL_COLUMNS.map(col)))
            }
        }
    }
}

/// The label and what it is predicted from.
const MODEL_COLUMNS: [&str; 5] = [
    "weight_pounds",
    "is_male",
    "mother_age",
    "plurality",
    "gestation_weeks",
];

fn workshop_schema() -> SchemaRef {
    let field = |name, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("weight_pounds", DataType::Float64),
        field("is_male", DataType::Utf8),
        field("mother_age", DataType::Int64),
        field("plurality", DataType::Utf8),
        field("gestation_weeks", DataType::Float64),
        field("key", DataType::Int64),
    ]))
}

/// How many rows of a workshop file are copies whose sex is unknown.
fn n_unknown(file: &Path, run: &RunOptions) -> Result<usize> {
    let pipeline = Pipeline::new("look for masked rows");
    let rows = pipeline.read("births", connectors::csv(file).schema(workshop_schema()));
    let (sink, unknown) = connectors::collect();
    rows.filter(col("is_male").eq(lit("Unknown"))).write(sink);
    pipeline.run(run)?;
    Ok(unknown.take().iter().map(|rows| rows.num_rows()).sum())
}

fn text(column: &str) -> Expr {
    cast(col(column), DataType::Utf8)
}

/// Leaves out births whose weight, or what it is predicted from, is not known.
fn clean(rows: &Collection) -> Collection {
    let known = ["is_male", "plurality"].map(|name| col(name).is_not_null());
    let positive =
        ["weight_pounds", "mother_age", "gestation_weeks"].map(|name| col(name).gt(lit(0)));
    let all = known.into_iter().chain(positive).reduce(Expr::and);
    match all {
        Some(all) => rows.filter(all),
        None => rows.clone(),
    }
}

/// Sex and plurality in the workshop's words.
fn labelled(rows: &Collection) -> Result<Collection> {
    let sex = when(col("is_male"), lit("True")).otherwise(lit("False"))?;
    let plurality = when(col("plurality").eq(lit(1)), lit("Single(1)"))
        .when(col("plurality").eq(lit(2)), lit("Twins(2)"))
        .when(col("plurality").eq(lit(3)), lit("Triplets(3)"))
        .when(col("plurality").eq(lit(4)), lit("Quadruplets(4)"))
        .otherwise(lit("Quintuplets(5)"))?;
    Ok(rows.select([
        col("weight_pounds"),
        sex.alias("is_male"),
        col("mother_age"),
        plurality.alias("plurality"),
        cast(col("gestation_weeks"), DataType::Float64).alias("gestation_weeks"),
    ]))
}

/// The rows, and each again as it looks before an ultrasound: the sex unknown, multiples not counted.
fn with_masked_copies(rows: &Collection) -> Result<Collection> {
    let is_single = col("plurality").eq(lit("Single(1)"));
    let plurality = when(is_single, lit("Single(1)")).otherwise(lit("Multiple(2+)"))?;
    let copies = rows.select([
        col("weight_pounds"),
        lit("Unknown").alias("is_male"),
        col("mother_age"),
        plurality.alias("plurality"),
        col("gestation_weeks"),
    ]);
    Ok(rows.union(&[copies]))
}
