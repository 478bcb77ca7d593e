//! Rows of a split stand in their order in the files of a sink, whatever the number of workers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;

use super::test_folder::TestFolder;
use super::*;
use crate::ops::MapBatches;
use crate::output::OnBadRow;
use crate::source::Source;
use crate::testing::{read_source, write_sink};
use crate::{Collection, Pipeline, RunOptions, col, lit};

const N_SPLITS: i64 = 10;

/// Three batches each, about.
const N_ROWS: i64 = 20_000;

/// A file for each split: its number, and that of the row in it.
fn write_splits(folder: &TestFolder) {
    for split in 0..N_SPLITS {
        let of: ArrayRef = Arc::new(Int64Array::from_iter_values((0..N_ROWS).map(|_| split)));
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..N_ROWS));
        let rows = RecordBatch::try_from_iter([("of", of), ("n", n)]).unwrap();
        let sink = parquet_sink(folder.path(&format!("in/{split:02}")));
        write_sink(&sink, &[vec![rows]]).unwrap();
    }
}

/// What a file is read by.
type Read = fn(&Path) -> Box<dyn Source>;

/// Fails unless all rows are there, and in the files of each folder, one after the other as they were published, those
/// of each split in their order.
fn check(files: &[PathBuf], read: Read, told: &str) {
    let mut n_rows = 0;
    let mut last: BTreeMap<(PathBuf, i64), i64> = BTreeMap::new();
    for file in files {
        let (rows, _) = read_source(&*read(file), OnBadRow::Fail).unwrap();
        let numbers = |name: &str| cast(&rows[name], &DataType::Int64).unwrap();
        let (of, n) = (numbers("of"), numbers("n"));
        let (of, n) = (
            of.as_primitive::<Int64Type>(),
            n.as_primitive::<Int64Type>(),
        );
        let folder = file.parent().unwrap().to_owned();
        for (of, n) in of.values().iter().zip(n.values()) {
            let before = last.insert((folder.clone(), *of), *n);
            assert!(
                before.is_none_or(|before| before < *n),
                "{told}: row {n} of split {of} behind {before:?}"
            );
        }
        n_rows += of.len();
    }
    // Every fifth is filtered.
    assert_eq!(n_rows as i64, N_SPLITS * N_ROWS / 5 * 4, "{told}");
}

/// Runs over one to four workers, with and without work that is done in a pool.
fn run(write: impl Fn(&Collection, PathBuf), read: Read) {
    let folder = TestFolder::new();
    write_splits(&folder);
    for workers in 1..=4 {
        for blocking in [false, true] {
            let pipeline = Pipeline::new("copy");
            let rows = pipeline
                .read("rows", parquet(folder.path("in/*/*.parquet")))
                .filter((col("n") % lit(5)).not_eq(lit(0)))
                .with_column("k", col("n") % lit(3))
                .apply(MapBatches::new(Ok).blocking(blocking));
            write(&rows, folder.path(&format!("{workers}-{blocking}")));
            let report = pipeline.run(&RunOptions::new().workers(workers)).unwrap();
            let published = &report.published[0].1;
            let told = format!("{workers} workers, blocking {blocking}");
            check(&published.files, read, &told);
        }
    }
}

#[test]
fn in_parquet() {
    let read: Read = |file| Box::new(parquet(file));
    run(
        |rows, place| rows.write(parquet_sink(place).rows_per_file(7_000)),
        read,
    );
    // Each worker opens files anew, as only two may be open.
    let write = |rows: &Collection, place| {
        rows.write(parquet_sink(place).partition_by(["k"]).max_open_files(2));
    };
    run(write, |file| Box::new(parquet(file).hive_columns(false)));
}

#[test]
fn in_lines_of_one_file_and_of_several() {
    run(
        |rows, place| rows.write(csv_sink(place.with_extension("csv"))),
        |file| Box::new(csv(file)),
    );
    run(
        |rows, place| rows.write(csv_sink(place).rows_per_file(9_000)),
        |file| Box::new(csv(file)),
    );
    let read: Read = |file| Box::new(json_lines(file));
    run(
        |rows, place| rows.write(json_lines_sink(place).rows_per_file(9_000)),
        read,
    );
}

#[test]
fn in_avro_and_arrow() {
    run(
        |rows, place| rows.write(avro_sink(place).rows_per_file(9_000)),
        |file| Box::new(avro(file)),
    );
    run(
        |rows, place| rows.write(ipc_sink(place).rows_per_file(9_000)),
        |file| Box::new(ipc(file)),
    );
}

#[test]
fn in_a_store() {
    let write = |rows: &Collection, place: PathBuf| {
        let name = place.file_name().unwrap().to_str().unwrap();
        rows.write(parquet_sink(format!("memory://row-order/{name}")).rows_per_file(7_000));
    };
    run(write, |file| Box::new(parquet(file)));
}
