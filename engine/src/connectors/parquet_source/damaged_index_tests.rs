//! Files whose page index is damaged: the rows are read without it, or refused.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::connectors::test_folder::TestFolder;
use crate::expression::{Expression, col, lit};
use crate::output::OnBadRow;
use crate::testing::read_source;

const N_ROWS: i64 = 600;

/// Three row groups of twenty pages of ten rows each, in which values stand near each other.
fn write(folder: &TestFolder) -> Vec<u8> {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..N_ROWS));
    let x = (0..N_ROWS).map(|i| (i % 9 > 0).then_some(1_000 + i));
    let x: ArrayRef = Arc::new(Int64Array::from_iter(x));
    let s: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..N_ROWS).map(|i| format!("text {i:03}")),
    ));
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("id", id, false),
        ("x", x, true),
        ("s", s, false),
    ])
    .unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(200))
        .set_data_page_row_count_limit(10)
        .set_write_batch_size(10)
        .build();
    let path = folder.write("a.parquet", "");
    let mut writer = ArrowWriter::try_new(
        File::create(&path).unwrap(),
        rows.schema(),
        Some(properties),
    )
    .unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    std::fs::read(path).unwrap()
}

/// Where the file says of its pages what they hold, and where they are, over all row groups.
fn indexes(folder: &TestFolder) -> [Range<usize>; 2] {
    let source = parquet(folder.path("a.parquet"));
    let file = source.loaded().unwrap().footer(0).unwrap();
    let columns = || file.row_groups().iter().flat_map(|group| group.columns());
    let bounds = columns().map(|c| {
        (
            c.column_index_offset().unwrap(),
            c.column_index_length().unwrap(),
        )
    });
    let places = columns().map(|c| {
        (
            c.offset_index_offset().unwrap(),
            c.offset_index_length().unwrap(),
        )
    });
    let around = |parts: Vec<(i64, i32)>| {
        let start = parts.iter().map(|(at, _)| *at).min().unwrap();
        let end = parts
            .iter()
            .map(|(at, n)| at + i64::from(*n))
            .max()
            .unwrap();
        usize::try_from(start).unwrap()..usize::try_from(end).unwrap()
    };
    [around(bounds.collect()), around(places.collect())]
}

/// What becomes of a file whose bytes are these.
#[derive(Clone, Debug, Default, PartialEq)]
struct Outcomes {
    right: usize,
    refused: usize,
    wrong: usize,
}

impl Outcomes {
    fn add(&mut self, folder: &TestFolder, bytes: &[u8], predicate: &Expr, expected: &RecordBatch) {
        folder.write("a.parquet", bytes);
        let source = parquet(folder.path("a.parquet")).prune(predicate).unwrap();
        match read_source(source.as_ref(), OnBadRow::Fail) {
            Ok((rows, _)) => match passing(&rows, predicate) == *expected {
                true => self.right += 1,
                false => self.wrong += 1,
            },
            Err(error) => {
                assert!(error.is_data(), "{error}");
                self.refused += 1;
            }
        }
    }
}

fn passing(rows: &RecordBatch, predicate: &Expr) -> RecordBatch {
    let compiled = Expression::compile_predicate(predicate, &rows.schema()).unwrap();
    filter_record_batch(rows, &compiled.evaluate_mask(rows).unwrap()).unwrap()
}

/// The rows that pass `predicate`, over files in which the parts of the page index are damaged by `damage`.
fn outcomes(damage: impl Fn(&[u8], Range<usize>) -> Vec<Vec<u8>>) -> [Outcomes; 2] {
    let folder = TestFolder::new();
    let whole = write(&folder);
    let source = parquet(folder.path("a.parquet"));
    let all = read_source(&source, OnBadRow::Fail).unwrap().0;
    let predicate = col("x")
        .between(lit(1_215), lit(1_262))
        .or(col("s").between(lit("text 395"), lit("text 403")));
    let expected = passing(&all, &predicate);
    assert_eq!(expected.num_rows(), 42 + 9);
    indexes(&folder).map(|part| {
        let mut outcomes = Outcomes::default();
        for bytes in damage(&whole, part) {
            outcomes.add(&folder, &bytes, &predicate, &expected);
        }
        outcomes
    })
}

#[test]
fn a_page_index_without_sense_is_not_believed() {
    let filled = outcomes(|whole, part| {
        let fill = |byte: u8| {
            let mut bytes = whole.to_vec();
            bytes[part.clone()].fill(byte);
            bytes
        };
        let mut moved = whole.to_vec();
        moved[part.clone()].rotate_left(1);
        let mut turned = whole.to_vec();
        turned[part.clone()].reverse();
        vec![fill(0), fill(0x15), fill(0xFF), moved, turned]
    });
    let all_right = Outcomes {
        right: 5,
        ..Outcomes::default()
    };
    assert_eq!(filled, [(); 2].map(|()| all_right.clone()));
}

/// What becomes of files of which each fifth byte has these bits flipped.
fn flipped(bits: u8) -> [Outcomes; 2] {
    outcomes(|whole, part| {
        let flip = |at: usize| {
            let mut bytes = whole.to_vec();
            bytes[at] ^= bits;
            bytes
        };
        part.step_by(5).map(flip).collect()
    })
}

#[test]
fn flipped_bits_of_the_page_index_are_found_out_where_they_make_no_sense() {
    let right = |[bounds, places]: [Outcomes; 2]| {
        let all_right = |o: &Outcomes| o.right > 300 && o.refused + o.wrong == 0;
        assert!(
            all_right(&bounds) && all_right(&places),
            "{bounds:?} {places:?}"
        );
    };
    right(flipped(0x01));
    right(flipped(0xFF));
    // FIXME: The row that a page begins at, moved by one between its neighbours, cannot be told from a true one, as
    // the format has no checksum of the index. The heads of the pages that are left out would have to be read.
    let [bounds, places] = flipped(0x02);
    assert_eq!((bounds.refused, bounds.wrong), (0, 0));
    assert_eq!((places.refused, places.wrong), (0, 1));
}
