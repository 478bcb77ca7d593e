//! The same job with the same kernels and no engine: threads that take row groups from a list.

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem::engine::BATCH_ROWS;
use mainstem::ml_stages::model::FEATURES;
use mainstem::ml_stages::onnx::{InferenceSession, TensorValuesRef, TensorView};
use mainstem::prelude::*;
use mainstem::transforms::FittedPreprocess;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::dataset::Dataset;

type Failure = Box<dyn Error + Send + Sync>;

/// A row group of a file.
struct Part {
    file: PathBuf,
    row_group: usize,
}

/// Predicts over all births; gives the number of rows.
pub(crate) fn run(data: &Dataset, n_threads: usize) -> Result<u64, Box<dyn Error>> {
    let predictor = Predictor::load(&data.predictor(), Backend::Auto)?;
    let model = fs::read(data.predictor().join("model.onnx"))?;
    let (parts, schema) = parts(data)?;
    let out = data.out("bare");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    let (next, n_rows) = (AtomicUsize::new(0), AtomicU64::new(0));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build()?;
    let outcomes: Vec<Result<(), Failure>> = pool.broadcast(|thread| {
        let file = out.join(format!("part-{}.parquet", thread.index()));
        let mut writer = writer(File::create(file)?, &schema)?;
        let mut scorer = Scorer::new(predictor.fitted(), &model)?;
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            for rows in reader(part)? {
                let scored = scorer.score(&rows?, &schema)?;
                n_rows.fetch_add(scored.num_rows() as u64, Ordering::Relaxed);
                writer.write(&scored)?;
            }
        }
        writer.close()?;
        Ok(())
    });
    for outcome in outcomes {
        outcome.map_err(|e| e as Box<dyn Error>)?;
    }
    Ok(n_rows.into_inner())
}

/// All row groups of all files, and the schema of what is written.
fn parts(data: &Dataset) -> Result<(Vec<Part>, SchemaRef), Box<dyn Error>> {
    let mut files = fs::read_dir(data.births())?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.sort();
    let (mut parts, mut schema) = (Vec::new(), None);
    for file in files {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&file)?)?;
        schema.get_or_insert_with(|| Arc::clone(builder.schema()));
        parts.extend(
            (0..builder.metadata().num_row_groups()).map(|row_group| Part {
                file: file.clone(),
                row_group,
            }),
        );
    }
    let input = schema.ok_or("no births")?;
    let prediction = Arc::new(Field::new("prediction", DataType::Float32, false));
    let fields: Vec<_> = input.fields().iter().cloned().chain([prediction]).collect();
    Ok((parts, Arc::new(Schema::new(fields))))
}

fn reader(part: &Part) -> Result<ParquetRecordBatchReader, Failure> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&part.file)?)?;
    let reader = builder
        .with_row_groups(vec![part.row_group])
        .with_batch_size(BATCH_ROWS);
    Ok(reader.build()?)
}

fn writer(file: File, schema: &SchemaRef) -> Result<ArrowWriter<File>, Failure> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    Ok(ArrowWriter::try_new(
        file,
        Arc::clone(schema),
        Some(properties),
    )?)
}

/// The kernels, called by hand.
struct Scorer<'a> {
    fitted: &'a FittedPreprocess,
    session: Box<dyn InferenceSession>,
    matrix: Vec<f32>,
}

impl<'a> Scorer<'a> {
    fn new(fitted: &'a FittedPreprocess, model: &[u8]) -> Result<Self, Failure> {
        Ok(Self {
            fitted,
            session: Backend::Auto.resolve()?.load(model)?,
            matrix: Vec::new(),
        })
    }

    fn score(&mut self, rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Failure> {
        self.fitted.write_floats(rows, &mut self.matrix)?;
        let values = TensorValuesRef::Float(&self.matrix);
        let view = TensorView::new(values, self.fitted.layout().width())?;
        let outputs = self.session.run(&[(FEATURES, view)])?;
        let (_, scores) = outputs
            .into_iter()
            .next()
            .ok_or("the model has no output")?;
        let scores: ArrayRef = Arc::new(Float32Array::from(scores.values));
        let columns = rows.columns().iter().cloned().chain([scores]).collect();
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}
