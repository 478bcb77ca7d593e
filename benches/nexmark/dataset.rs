//! The events as files, made once: Parquet in the order of time, and CSV as the two halves of a log.
//!
//! ```text
//! parquet/part-0.parquet   all blocks of events, one after the other
//! csv/part-0.csv           blocks 0, 2, 4, …   ┐ what two readers, each of a file of its own, read
//! csv/part-1.csv           blocks 1, 3, 5, …   ┘ in step, as those of a log with two partitions
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow::csv::WriterBuilder;
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::generator::{self, BLOCK};

/// Blocks of events in a row group of the Parquet file.
const BLOCKS_PER_GROUP: u64 = 16;

/// Each wants a reader of its own, so that none is read behind the time of another.
pub(crate) const N_CSV_FILES: u64 = 2;

type Failure = Box<dyn Error + Send + Sync>;

/// What the events are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Parquet,
    Csv,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// The files of so many events.
pub(crate) struct Dataset {
    pub(crate) n_events: u64,
    root: PathBuf,
}

impl Dataset {
    pub(crate) fn of(n_events: u64) -> Self {
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-data");
        let root = data.join(format!("nexmark-{n_events}"));
        Self { n_events, root }
    }

    pub(crate) fn folder(&self, format: Format) -> PathBuf {
        self.root.join(format.name())
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
        let folder = |format: Format| made.join(format.name());
        fs::create_dir_all(folder(Format::Parquet))?;
        fs::create_dir_all(folder(Format::Csv))?;
        std::thread::scope(|scope| {
            let parquet = folder(Format::Parquet).join("part-0.parquet");
            let mut files = vec![scope.spawn(|| self.write_parquet(parquet))];
            for part in 0..N_CSV_FILES {
                let file = folder(Format::Csv).join(format!("part-{part}.csv"));
                files.push(scope.spawn(move || self.write_csv(file, part)));
            }
            files.into_iter().try_for_each(|file| match file.join() {
                Ok(outcome) => outcome,
                Err(_) => Err("a thread that wrote a file has panicked".into()),
            })
        })?;
        Ok(fs::rename(made, &self.root)?)
    }

    fn write_parquet(&self, file: PathBuf) -> Result<(), Failure> {
        let plain = ["p_extra", "a_description", "a_extra", "b_extra"];
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some((BLOCKS_PER_GROUP * BLOCK) as usize));
        let properties = plain.into_iter().fold(properties, |properties, column| {
            properties.set_column_dictionary_enabled(ColumnPath::from(column), false)
        });
        let to = File::create(file)?;
        let mut writer = ArrowWriter::try_new(to, generator::schema(), Some(properties.build()))?;
        for number in 0..generator::n_blocks(self.n_events) {
            writer.write(&generator::block(number, self.n_events)?)?;
        }
        writer.close()?;
        Ok(())
    }

    fn write_csv(&self, file: PathBuf, part: u64) -> Result<(), Failure> {
        let to = BufWriter::with_capacity(1 << 20, File::create(file)?);
        let mut writer = WriterBuilder::new().with_header(false).build(to);
        for number in (part..generator::n_blocks(self.n_events)).step_by(N_CSV_FILES as usize) {
            writer.write(&generator::block(number, self.n_events)?)?;
        }
        Ok(())
    }
}
