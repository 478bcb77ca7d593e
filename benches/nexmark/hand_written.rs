//! Queries as programs for this one purpose: rayon over the row groups of the Parquet file, no engine.
//!
//! Each reads the columns that it needs, as Arrow batches, does what it can by row group and puts the rest
//! together in the end, so that it needs no watermark: it knows that the file ends.

mod count_by_key;
mod hot_items;
mod new_users;
pub(crate) mod streamed;

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Float64Type, Int32Type, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use rayon::prelude::*;

use crate::dataset::{Dataset, Format};
use crate::digest::Digest;
use crate::generator::BID;
use crate::query::Query;

type Failure = Box<dyn Error + Send + Sync>;

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;

/// The file, whose footer is read once.
struct Events {
    file: PathBuf,
    metadata: ArrowReaderMetadata,
}

/// Answers a query of those that are written by hand; `None` for the others.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn answer(
    query: Query,
    data: &Dataset,
    n_threads: usize,
    hashed: bool,
) -> Result<Option<Digest>, Box<dyn Error>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build()?;
    let events = Events::open(data)?;
    let answer = || match query {
        Query::Q0 => events.pass_through(hashed).map(Some),
        Query::Q1 => events.in_euros(hashed).map(Some),
        Query::Q5 => hot_items::answer(&events, hashed).map(Some),
        Query::Q8 => new_users::answer(&events, hashed).map(Some),
        _ => Ok(None),
    };
    pool.install(answer).map_err(|e| e as Box<dyn Error>)
}

/// Whether a query is written by hand.
pub(crate) fn has(query: Query) -> bool {
    matches!(query, Query::Q0 | Query::Q1 | Query::Q5 | Query::Q8)
}

impl Events {
    fn open(data: &Dataset) -> Result<Self, Box<dyn Error>> {
        let file = data.folder(Format::Parquet).join("part-0.parquet");
        let metadata = ArrowReaderMetadata::load(&File::open(&file)?, ArrowReaderOptions::new())?;
        Ok(Self { file, metadata })
    }

    /// What a function makes of the batches of each row group, in any order.
    fn each_group<T: Send>(
        &self,
        columns: &[&str],
        work: impl Fn(&mut dyn Iterator<Item = Result<RecordBatch, Failure>>) -> Result<T, Failure>
        + Sync,
    ) -> Result<Vec<T>, Failure> {
        let n_groups = self.metadata.metadata().num_row_groups();
        let mask = ProjectionMask::columns(self.metadata.parquet_schema(), columns.iter().copied());
        let group = |group| {
            let file = File::open(&self.file)?;
            let reader =
                ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                    .with_projection(mask.clone())
                    .with_row_groups(vec![group])
                    .with_batch_size(BATCH_ROWS)
                    .build()?;
            work(&mut reader.map(|rows| Ok(rows?)))
        };
        (0..n_groups).into_par_iter().map(group).collect()
    }

    /// Query 0: bids as they are.
    fn pass_through(&self, hashed: bool) -> Result<Digest, Failure> {
        self.bids(hashed, Ok)
    }

    /// Query 1: bids with their price in another currency.
    fn in_euros(&self, hashed: bool) -> Result<Digest, Failure> {
        self.bids(hashed, |rows| {
            let prices = rows.column(2).as_primitive::<Int64Type>();
            let prices = prices.unary::<_, Float64Type>(|price| price as f64 * 0.908);
            let mut fields = rows.schema().fields().to_vec();
            fields[2] = Arc::new(Field::new("price", prices.data_type().clone(), true));
            let mut columns = rows.columns().to_vec();
            columns[2] = Arc::new(prices);
            Ok(RecordBatch::try_new(
                Arc::new(Schema::new(fields)),
                columns,
            )?)
        })
    }

    /// The bids, as auction, bidder, price, time and the rest, each batch as a function makes it.
    fn bids(
        &self,
        hashed: bool,
        map: impl Fn(RecordBatch) -> Result<RecordBatch, Failure> + Sync,
    ) -> Result<Digest, Failure> {
        let columns = [
            "kind",
            "date_time",
            "b_auction",
            "b_bidder",
            "b_price",
            "b_extra",
        ];
        let digests = self.each_group(&columns, |batches| {
            let mut digest = Digest::default();
            for rows in batches {
                let rows = rows?;
                let bids = of_kind(&rows, BID);
                let bids = filter_record_batch(&rows.project(&[2, 3, 4, 1, 5])?, &bids)?;
                digest.add(&map(bids)?, hashed).map_err(|e| e.to_string())?;
            }
            Ok(digest)
        })?;
        Ok(sum(digests))
    }
}

fn sum(digests: impl IntoIterator<Item = Digest>) -> Digest {
    let mut all = Digest::default();
    digests.into_iter().for_each(|digest| all.merge(digest));
    all
}

/// Which rows are events of a kind; the first column says.
fn of_kind(rows: &RecordBatch, kind: i32) -> BooleanArray {
    let kinds = rows.column(0).as_primitive::<Int32Type>().values();
    kinds.iter().map(|k| Some(*k == kind)).collect()
}

/// The values of a column of numbers, whatever stands where it is null.
fn numbers(rows: &RecordBatch, column: usize) -> &[i64] {
    rows.column(column).as_primitive::<Int64Type>().values()
}
