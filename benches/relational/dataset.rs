//! What is measured on: facts with keys of few and many values, and a table to join them with.
//!
//! ```text
//! facts  low Int32 (100 keys)   high Int64 (a quarter of the rows)   name text (10,000 keys)
//!        id Int64 (of the dimension; one in ten is not there)   x Float64   y Int64
//! ids    id Int64 (a tenth of the rows, shuffled)   weight Float64
//! ```
//!
//! Floats are multiples of 1/1024, so their sums are exact and equal in whatever order they are taken.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Zipf};

const SEED: u64 = 1;
const N_FILES: usize = 8;
const ROWS_PER_GROUP: usize = 131_072;
const LOW_KEYS: usize = 100;
const NAMES: usize = 10_000;
/// Of a Zipf distribution: the most frequent of 100 keys then has a fifth of the rows.
const EXPONENT: f64 = 1.1;

type Failure = Box<dyn Error + Send + Sync>;

/// How often each key stands in the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Skew {
    /// Equally often.
    Uniform,
    /// By a Zipf distribution: a few keys have most rows.
    Zipf,
}

impl Skew {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }
}

/// The folders of a benchmark over so many facts.
pub(crate) struct Dataset {
    pub(crate) n_rows: usize,
    skew: Skew,
    root: PathBuf,
}

impl Dataset {
    pub(crate) fn of(n_rows: usize, skew: Skew) -> Self {
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-data");
        let root = data.join(format!("relational-{}-{n_rows}", skew.name()));
        Self { n_rows, skew, root }
    }

    pub(crate) fn facts(&self) -> PathBuf {
        self.root.join("facts")
    }

    pub(crate) fn ids(&self) -> PathBuf {
        self.root.join("ids")
    }

    /// Keys of many values.
    fn n_high(&self) -> usize {
        (self.n_rows / 4).max(1)
    }

    /// Rows of the dimension.
    pub(crate) fn n_ids(&self) -> usize {
        (self.n_rows / 10).max(1)
    }

    /// Makes what is not there yet.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        if self.root.is_dir() {
            return Ok(());
        }
        let made = self.root.with_extension("part");
        fs::create_dir_all(made.join("facts"))?;
        fs::create_dir_all(made.join("ids"))?;
        std::thread::scope(|scope| {
            let files: Vec<_> = (0..N_FILES)
                .map(|file| {
                    let made = &made;
                    scope.spawn(move || {
                        self.write_facts(made, file)?;
                        self.write_ids(made, file)
                    })
                })
                .collect();
            files.into_iter().try_for_each(|file| match file.join() {
                Ok(outcome) => outcome,
                Err(_) => Err("a thread that wrote a file has panicked".into()),
            })
        })?;
        Ok(fs::rename(made, &self.root)?)
    }

    fn write_facts(&self, made: &Path, file: usize) -> Result<(), Failure> {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(file as u64);
        let low = Keys::new(self.skew, LOW_KEYS)?;
        let high = Keys::new(self.skew, self.n_high())?;
        let names = Keys::new(self.skew, NAMES)?;
        // One key in ten is beyond the dimension.
        let ids = Keys::new(self.skew, self.n_ids() + self.n_ids() / 9)?;
        write(&made.join("facts"), file, self.n_rows, |rows| {
            let n = rows.len();
            let mut keys =
                |keys: &Keys| -> Vec<i64> { (0..n).map(|_| keys.draw(&mut rng)).collect() };
            let (low, high, names, ids) = (keys(&low), keys(&high), keys(&names), keys(&ids));
            let ids = ids
                .into_iter()
                .map(|id| scatter(id, self.n_ids() + self.n_ids() / 9));
            let x: Vec<f64> = (0..n)
                .map(|_| f64::from(rng.random_range(0..1_024_000)) / 1024.0)
                .collect();
            let y: Vec<i64> = (0..n).map(|_| rng.random_range(0..1000)).collect();
            let names = names.iter().map(|name| format!("name-{name:05}"));
            let low: Vec<i32> = low.into_iter().map(|k| k as i32).collect();
            columns([
                ("low", Arc::new(Int32Array::from(low))),
                ("high", Arc::new(Int64Array::from(high))),
                ("name", Arc::new(StringArray::from_iter_values(names))),
                ("id", Arc::new(Int64Array::from_iter_values(ids))),
                ("x", Arc::new(Float64Array::from(x))),
                ("y", Arc::new(Int64Array::from(y))),
            ])
        })
    }

    fn write_ids(&self, made: &Path, file: usize) -> Result<(), Failure> {
        let n_keys = self.n_ids() + self.n_ids() / 9;
        write(&made.join("ids"), file, self.n_ids(), |rows| {
            let ids: Vec<i64> = rows.map(|row| scatter(row as i64, n_keys)).collect();
            let weights: Vec<f64> = ids.iter().map(|id| (id % 16) as f64 / 4.0).collect();
            columns([
                ("id", Arc::new(Int64Array::from(ids))),
                ("weight", Arc::new(Float64Array::from(weights))),
            ])
        })
    }
}

/// Keys from 0 to n - 1.
enum Keys {
    Uniform(i64),
    Zipf(Zipf<f64>),
}

impl Keys {
    fn new(skew: Skew, n_keys: usize) -> Result<Self, Failure> {
        Ok(match skew {
            Skew::Uniform => Self::Uniform(n_keys as i64),
            Skew::Zipf => Self::Zipf(Zipf::new(n_keys as f64, EXPONENT)?),
        })
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> i64 {
        match self {
            Self::Uniform(n) => rng.random_range(0..*n),
            Self::Zipf(zipf) => zipf.sample(rng) as i64 - 1,
        }
    }
}

/// Another order of 0 to n - 1, so that neighbours in the dimension are none as keys.
fn scatter(key: i64, n: usize) -> i64 {
    // A prime that divides no size in use.
    const PRIME: i128 = 2_147_483_647;
    (i128::from(key) * PRIME % n as i128) as i64
}

fn columns<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch, Failure> {
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Writes the rows of one of the files, a row group at a time.
fn write(
    folder: &Path,
    file: usize,
    n_rows: usize,
    mut make: impl FnMut(std::ops::Range<usize>) -> Result<RecordBatch, Failure>,
) -> Result<(), Failure> {
    let rows = file * n_rows / N_FILES..(file + 1) * n_rows / N_FILES;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
        .build();
    let schema = make(rows.start..rows.start)?.schema();
    let to = File::create(folder.join(format!("part-{file}.parquet")))?;
    let mut writer = ArrowWriter::try_new(to, schema, Some(properties))?;
    for first in rows.clone().step_by(ROWS_PER_GROUP) {
        writer.write(&make(first..rows.end.min(first + ROWS_PER_GROUP))?)?;
    }
    writer.close()?;
    Ok(())
}
