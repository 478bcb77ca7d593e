//! Splits without a good row: their letters leave in lots, however long the split is.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};

use super::compression::tests::gzip;
use super::test_folder::TestFolder;
use super::{collect, csv, json_lines};
use crate::batch::BATCH_ROWS;
use crate::output::{OnBadRow, Output};
use crate::pipeline::Pipeline;
use crate::runner::{Progress, RunOptions};
use crate::source::{Position, Source};

/// Checks that a source gives this many letters and not one row, few of them at each call.
pub(crate) fn check_lots(source: &dyn Source, n_letters: usize) {
    let schema = source.schema().unwrap();
    for split in source.splits().unwrap() {
        let mut reader = source.open(&split, Position::default(), None).unwrap();
        let mut out = Output::new(OnBadRow::DeadLetter);
        let mut rows = Vec::new();
        while let Some(batch) = reader.next_batch(&mut out).unwrap() {
            assert_eq!((batch.num_rows(), batch.schema()), (0, Arc::clone(&schema)));
            let letters = out.take_dead_letters();
            assert!(letters.len() <= 2 * BATCH_ROWS, "{} at once", letters.len());
            rows.extend(letters.iter().map(|letter| letter.row));
        }
        assert!(out.take_dead_letters().is_empty());
        assert!(rows.is_sorted_by(|a, b| a < b), "in order, and none twice");
        assert_eq!(rows.len(), n_letters);
    }
}

fn two_columns() -> SchemaRef {
    let columns = ["a", "b"].map(|name| Field::new(name, DataType::Int64, true));
    Arc::new(Schema::new(columns.to_vec()))
}

const N_LINES: usize = 12 * BATCH_ROWS;

/// Lines with another delimiter than the reader is told.
fn text() -> String {
    let mut text = String::new();
    for line in 0..N_LINES {
        writeln!(text, "{line};1").unwrap();
    }
    text
}

#[test]
fn a_split_of_bad_lines_alone_gives_its_letters_in_lots() {
    let folder = TestFolder::new();
    let lines = csv(folder.write("a.csv.gz", gzip(text().as_bytes())));
    check_lots(&lines.schema(two_columns()), N_LINES);
    let lines = json_lines(folder.write("a.jsonl.gz", gzip(text().as_bytes())));
    check_lots(&lines.schema(two_columns()), N_LINES);
}

#[test]
fn a_run_writes_all_letters_in_order_with_their_lines_and_counts_them() {
    let folder = TestFolder::new();
    // One good line, far from both ends.
    let mut text = text();
    text.push_str("1,2\n");
    text.push_str(&"7;8\n".repeat(3 * BATCH_ROWS));
    let source = csv(folder.write("a.csv.gz", gzip(text.as_bytes()))).schema(two_columns());
    let pipeline = Pipeline::new("test");
    let (sink, collected) = collect();
    let (dead, letters) = collect();
    let rows = pipeline.read("lines", source);
    rows.dead_letters_to(dead).write(sink);
    // Credit for a few batches of letters alone.
    let options = RunOptions::new().workers(2).progress(Progress::Never);
    let report = pipeline.run(&options.credit_bytes(2_000_000)).unwrap();
    let n_rows: usize = collected.take().iter().map(RecordBatch::num_rows).sum();
    let mut lines = Vec::new();
    for batch in letters.take() {
        let column = batch.column_by_name("row").unwrap();
        lines.extend(column.as_primitive::<UInt64Type>().values().iter().copied());
    }
    let good = N_LINES as u64 + 1;
    let last = good + 3 * BATCH_ROWS as u64;
    let bad: Vec<u64> = (1..=last).filter(|line| *line != good).collect();
    assert_eq!(n_rows, 1);
    assert!(lines == bad, "{} letters", lines.len());
    assert_eq!(report.node("lines").unwrap().rejected, bad.len() as u64);
    // Four batches of letters at most are read at once, each of less than 2 MB; all have more than 20 MB.
    let peak = report.phases[0].peak_credit_bytes;
    assert!(peak > 0 && peak < 8_000_000, "{peak}");
}
