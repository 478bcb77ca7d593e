use std::fs::File;

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, LargeStringArray, StringViewArray};
use arrow::datatypes::Int32Type;
use expect_test::expect;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::connectors::test_folder::{TestFolder, real_data};
use crate::output::OnBadRow;
use crate::testing::{check_source, read_source, show, table};

fn write(folder: &TestFolder, name: &str, rows: &RecordBatch, rows_per_group: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_per_group))
        .build();
    let file = File::create(folder.write(name, "")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

fn numbers(n: i64) -> RecordBatch {
    let x: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
    let y: ArrayRef = Arc::new(Int64Array::from_iter(
        (0..n).map(|i| (i % 3 > 0).then_some(-i)),
    ));
    RecordBatch::try_from_iter_with_nullable([("x", x, false), ("y", y, true)]).unwrap()
}

fn refusal(folder: &TestFolder, place: &str) -> String {
    folder.hide(
        parquet(folder.path(place))
            .schema()
            .unwrap_err()
            .to_string(),
    )
}

#[test]
fn the_laws_of_sources_hold() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(20_000), 3_000);
    write(&folder, "b.parquet", &numbers(0), 10);
    write(&folder, "c.parquet", &numbers(7), 2);
    let rows = check_source(&parquet(folder.path(""))).unwrap();
    assert_eq!(
        rows,
        arrow::compute::concat_batches(&rows.schema(), [&numbers(20_000), &numbers(7)]).unwrap()
    );
}

#[test]
fn the_laws_of_sources_hold_on_real_files() {
    let Some(folder) = real_data("flights") else {
        return;
    };
    let source = parquet(folder);
    let rows = check_source(&source).unwrap();
    expect![""].assert_eq(&format!("{} rows, {}", rows.num_rows(), rows.schema()));
    let splits = source.splits().unwrap();
    expect![""].assert_eq(&format!(
        "{} splits, the first of {:?} rows",
        splits.len(),
        splits[0].n_rows
    ));
}

#[test]
fn small_row_groups_are_read_together() {
    let names = |sizes: &[u64]| {
        let runs = runs(sizes, 100);
        runs.into_iter()
            .map(|(first, n)| group_names(first, n))
            .collect::<Vec<_>>()
            .join("; ")
    };
    expect![""].assert_eq(&names(&[]));
    expect![""].assert_eq(&names(&[40, 40, 40, 300, 10, 10, 90]));
    expect![""].assert_eq(&names(&[100, 100, 1]));
}

#[test]
fn text_is_utf8_however_it_is_stored() {
    let folder = TestFolder::new();
    let texts = ["b", "a", "b"];
    let columns: [(&str, ArrayRef); 3] = [
        (
            "dictionary",
            Arc::new(DictionaryArray::<Int32Type>::from_iter(texts)),
        ),
        ("large", Arc::new(LargeStringArray::from_iter_values(texts))),
        ("view", Arc::new(StringViewArray::from_iter_values(texts))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    write(&folder, "a.parquet", &rows, 10);
    let read = check_source(&parquet(folder.path("a.parquet"))).unwrap();
    expect![""].assert_eq(&format!("{}\n{}", read.schema(), show(&read)));
}

#[test]
fn columns_may_stand_in_any_order_and_be_nullable_in_one_file() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(2), 10);
    write(
        &folder,
        "b.parquet",
        &table("y: 7; x: null, 6").slice(0, 1),
        10,
    );
    write(&folder, "c.parquet", &table("y: 7; x: 8"), 10);
    let read = check_source(&parquet(folder.path("*.parquet"))).unwrap();
    expect![""].assert_eq(&format!("{}\n{}", read.schema(), show(&read)));
}

#[test]
fn all_files_that_differ_are_named() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(2), 10);
    write(&folder, "b.parquet", &table("x: 1.5; y: 1"), 10);
    write(&folder, "c.parquet", &table("x: 1; z: a"), 10);
    expect![""].assert_eq(&refusal(&folder, ""));
}

#[test]
fn what_is_not_there_is_named() {
    let folder = TestFolder::new();
    expect![""].assert_eq(&refusal(&folder, "*.parquet"));
    expect![""].assert_eq(&refusal(&folder, "births/*.parquet"));
    expect![""].assert_eq(&refusal(&folder, "births.parquet"));
}

#[test]
fn all_files_without_a_footer_are_named() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(1_000), 100);
    let whole = std::fs::read(folder.path("a.parquet")).unwrap();
    folder.write("cut.parquet", &whole[..whole.len() - 100]);
    folder.write("empty.parquet", "");
    folder.write("garbage.parquet", "x,y\n1,2\n3,4\n");
    expect![""].assert_eq(&refusal(&folder, ""));
}

#[test]
fn damaged_rows_are_named_by_file_row_group_and_row() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(3_000), 1_000);
    let mut bytes = std::fs::read(folder.path("a.parquet")).unwrap();
    let source = parquet(folder.path("a.parquet"));
    let start = source.loaded().unwrap().files[0].row_groups()[2]
        .column(0)
        .byte_range();
    let end = (start.0 + start.1) as usize;
    bytes[start.0 as usize..end].fill(0xFF);
    folder.write("a.parquet", bytes);
    let error = read_source(&parquet(folder.path("a.parquet")), OnBadRow::Fail).unwrap_err();
    expect![""].assert_eq(&folder.hide(error.to_string()));
    assert!(error.is_data());
}

#[test]
fn a_file_that_changes_meanwhile_is_refused() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(3_000), 1_000);
    let source = parquet(folder.path("a.parquet"));
    let splits = source.splits().unwrap();
    write(&folder, "a.parquet", &numbers(3_001), 1_000);
    let refused = source.open(&splits[0], Position(0), None).err().unwrap();
    expect![""].assert_eq(&folder.hide(refused.to_string()));
    std::fs::remove_file(folder.path("a.parquet")).unwrap();
    let refused = source.open(&splits[0], Position(0), None).err().unwrap();
    expect![""].assert_eq(&folder.hide(refused.to_string()));
}
