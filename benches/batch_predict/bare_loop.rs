//! The same job with the same kernels and no engine: threads that take row groups from a list.

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem::engine::BATCH_ROWS;
use mainstem::prelude::*;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
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
    let (parts, schema) = parts(data)?;
    let out = data.out("bare");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    let (next, n_rows) = (AtomicUsize::new(0), AtomicU64::new(0));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?;
    let outcomes: Vec<Result<(), Failure>> = pool.broadcast(|thread| {
        let file = out.join(format!("part-{}.parquet", thread.index()));
        let mut writer = writer(File::create(file)?, &schema)?;
        let mut score = Scorer::new(&predictor)?;
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            for rows in reader(part)? {
                let scored = score.score(&rows?, &schema)?;
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
