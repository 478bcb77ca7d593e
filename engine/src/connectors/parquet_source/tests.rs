//! What a Parquet source reads, and the messages by which it refuses.

use std::fs::File;

use arrow::array::{ArrayRef, DictionaryArray, Int64Array, LargeStringArray, StringViewArray};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::connectors::test_folder::{TestFolder, real_data};
use crate::output::{OnBadRow, Output};
use crate::testing::{check_source, read_source, show, table};

fn write(folder: &TestFolder, name: &str, rows: &RecordBatch, rows_per_group: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_per_group))
        .build();
    let file = File::create(folder.write(name, "")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    // The library recurses over the row groups that it makes of a batch.
    for first in (0..rows.num_rows()).step_by(1_000.max(rows_per_group)) {
        let n = (rows.num_rows() - first).min(1_000.max(rows_per_group));
        writer.write(&rows.slice(first, n)).unwrap();
    }
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
    expect![[r#"3000000 rows, Field { "date": nullable Timestamp(µs) }, Field { "delay": nullable Int64 }, Field { "distance": nullable Int64 }, Field { "origin": nullable Utf8 }, Field { "destination": nullable Utf8 }"#]].assert_eq(&format!("{} rows, {}", rows.num_rows(), rows.schema()));
    let splits = source.splits().unwrap();
    expect!["24 splits, the first of Some(125000) rows"].assert_eq(&format!(
        "{} splits, the first of {:?} rows",
        splits.len(),
        splits[0].n_rows
    ));
}

#[test]
fn small_row_groups_are_read_together() {
    let names = |sizes: &[u64]| {
        let runs = splits::runs(sizes, 100);
        runs.into_iter()
            .map(|(first, n)| splits::group_names(first, n))
            .collect::<Vec<_>>()
            .join("; ")
    };
    expect![""].assert_eq(&names(&[]));
    expect!["row groups 0 to 1; row group 2; row group 3; row groups 4 to 5; row group 6"]
        .assert_eq(&names(&[40, 40, 40, 300, 10, 10, 90]));
    expect!["row group 0; row group 1; row group 2"].assert_eq(&names(&[100, 100, 1]));
}

#[test]
fn a_large_row_group_is_cut_into_splits() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(300_001), 1_000_000);
    let source = parquet(folder.path("a.parquet"));
    assert_eq!(check_source(&source).unwrap(), numbers(300_001));
    let splits: Vec<String> = source
        .splits()
        .unwrap()
        .into_iter()
        .map(|split| format!("{}: {:?} rows", split.name, split.n_rows))
        .collect();
    expect![[r#"
        file "FOLDER/a.parquet", row group 0, from row 0: Some(150001) rows
        file "FOLDER/a.parquet", row group 0, from row 150001: Some(150000) rows"#]]
    .assert_eq(&folder.hide(splits.join("\n")));
    let sizes = |n_rows| {
        splits::pieces(n_rows, 100)
            .iter()
            .map(|p| p.1)
            .collect::<Vec<_>>()
    };
    assert!(sizes(0).is_empty());
    assert_eq!(sizes(199), [199]);
    assert_eq!(sizes(200), [100, 100]);
    assert_eq!(sizes(301), [101, 101, 99]);
}

#[test]
fn text_is_utf8_or_a_dictionary_as_it_is_stored() {
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
    expect![[r#"
        Field { "dictionary": Dictionary(Int32, Utf8) }, Field { "large": Utf8 }, Field { "view": Utf8 }
        dictionary: 'b', 'a', 'b'
        large: 'b', 'a', 'b'
        view: 'b', 'a', 'b'"#]]
    .assert_eq(&format!("{}\n{}", read.schema(), show(&read)));
}

#[test]
fn columns_may_stand_in_any_order_and_be_nullable_in_one_file() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(2), 10);
    write(
        &folder,
        "b.parquet",
        &table("y: 7, 8; x: null, 9").slice(0, 1),
        10,
    );
    write(&folder, "c.parquet", &table("y: 7; x: 8"), 10);
    let read = check_source(&parquet(folder.path("*.parquet"))).unwrap();
    expect![[r#"
        Field { "x": nullable Int64 }, Field { "y": nullable Int64 }
        x: 0, 1, null, 8
        y: null, -1, 7, 7"#]]
    .assert_eq(&format!("{}\n{}", read.schema(), show(&read)));
}

#[test]
fn all_files_that_differ_are_named() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(2), 10);
    write(&folder, "b.parquet", &table("x: 1.5; y: 1"), 10);
    write(&folder, "c.parquet", &table("x: 1; z: a"), 10);
    expect![[r#"
        2 errors
        1. file "FOLDER/b.parquet" has other columns than file "FOLDER/a.parquet"
             Column "x" holds Float64, not Int64.
             Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`.
        2. file "FOLDER/c.parquet" has other columns than file "FOLDER/a.parquet"
             Column "y" is missing.
             Column "z" is only here.
             Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]].assert_eq(&refusal(&folder, ""));
}

#[test]
fn what_is_not_there_is_named() {
    let folder = TestFolder::new();
    expect![[r#"
        no file matches "FOLDER/*.parquet"
          Hint: Check the pattern; hidden files are passed over."#]]
    .assert_eq(&refusal(&folder, "*.parquet"));
    expect![[r#"
        no file matches "FOLDER/births/*.parquet"
          The folder "FOLDER/births" does not exist."#]]
    .assert_eq(&refusal(&folder, "births/*.parquet"));
    expect![[r#"
        "FOLDER/births.parquet" does not exist
          Hint: Name a file, a folder, or a pattern such as "births/*.parquet"."#]]
    .assert_eq(&refusal(&folder, "births.parquet"));
}

#[test]
fn all_files_without_a_footer_are_named() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(1_000), 100);
    let whole = std::fs::read(folder.path("a.parquet")).unwrap();
    folder.write("cut.parquet", &whole[..whole.len() - 100]);
    folder.write("empty.parquet", "");
    folder.write("garbage.parquet", "x,y\n1,2\n3,4\n");
    expect![[r#"
        3 errors
        1. file "FOLDER/cut.parquet" is cut short or damaged
             Parquet error: Invalid Parquet file. Corrupt footer.
             Hint: Write it again; a file that is still being written cannot be read.
        2. file "FOLDER/empty.parquet" is not a Parquet file
             EOF: Parquet file too small. Size is 0 but need 8.
             Hint: Name only Parquet files, for example by the pattern "*.parquet".
        3. file "FOLDER/garbage.parquet" is not a Parquet file
             Parquet error: Invalid Parquet file. Corrupt footer.
             Hint: Name only Parquet files, for example by the pattern "*.parquet"."#]]
    .assert_eq(&refusal(&folder, ""));
}

#[test]
fn footers_for_which_there_is_no_room_are_read_again() {
    let folder = TestFolder::new();
    let text: DictionaryArray<Int32Type> = (0..40).map(|i| Some(["a", "b"][i % 2])).collect();
    let text: ArrayRef = Arc::new(text);
    for (i, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let x: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (0..40).map(|n| n + 100 * i as i64),
        ));
        let rows =
            RecordBatch::try_from_iter([("x", x), ("text", ArrayRef::clone(&text))]).unwrap();
        write(&folder, &format!("{name}.parquet"), &rows, 10);
    }
    let all = parquet(folder.path(""));
    let expected = check_source(&all).unwrap();
    assert_eq!(all.loaded().unwrap().n_kept(), 4);
    let one = all.loaded().unwrap().footer(0).unwrap();
    let n_bytes = one.footer.metadata().memory_size();
    for (room, n_kept) in [(0, 0), (n_bytes, 1), (2 * n_bytes + 1, 2)] {
        let few = parquet(folder.path("")).keep_footers(room);
        assert_eq!(few.loaded().unwrap().n_kept(), n_kept);
        assert_eq!(check_source(&few).unwrap(), expected);
        // The last that was asked for is kept in any case.
        assert_eq!(few.loaded().unwrap().n_kept(), n_kept.max(1));
        let only = crate::col("x").gt(crate::lit(215_i64));
        let (all, few) = (all.prune(&only).unwrap(), few.prune(&only).unwrap());
        assert_eq!(few.splits().unwrap(), all.splits().unwrap());
        assert_eq!(few.n_pruned_rows(), 2 * 40);
        assert_eq!(few.describe().config["reads"], "7 of 16 row groups");
    }
}

#[test]
fn a_footer_that_is_another_one_when_it_is_read_again_is_refused() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(10), 10);
    let source = parquet(folder.path("")).keep_footers(0);
    let loaded = source.loaded().unwrap();
    write(&folder, "a.parquet", &numbers(10), 5);
    let error = loaded.footer(0).unwrap_err();
    expect![[r#"
        file "FOLDER/a.parquet" has changed since it was first read
          Hint: Build the pipeline anew, and write new files beside those that are being read."#]]
    .assert_eq(&folder.hide(error.to_string()));
}

#[test]
fn damaged_rows_are_named_by_file_row_group_and_row() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(3_000), 1_000);
    let mut bytes = std::fs::read(folder.path("a.parquet")).unwrap();
    let source = parquet(folder.path("a.parquet"));
    let footer = source.loaded().unwrap().footer(0).unwrap();
    let start = footer.row_groups()[2].column(0).byte_range();
    let end = (start.0 + start.1) as usize;
    bytes[start.0 as usize..end].fill(0xFF);
    folder.write("a.parquet", bytes);
    let error = read_source(&parquet(folder.path("a.parquet")), OnBadRow::Fail).unwrap_err();
    expect![[r#"
        file "FOLDER/a.parquet", row groups 0 to 2, at or after row 0: the rows cannot be decoded
          Parquet argument error: Parquet error: Unexpected struct field type 15.
          Hint: The file is damaged: write it again."#]]
    .assert_eq(&folder.hide(error.to_string()));
    assert!(error.is_data());
}

#[test]
fn damaged_bytes_are_an_error_or_rows_and_never_a_panic() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(600), 200);
    let whole = std::fs::read(folder.path("a.parquet")).unwrap();
    let source = parquet(folder.path("a.parquet"));
    let groups = source
        .loaded()
        .unwrap()
        .footer(0)
        .unwrap()
        .row_groups()
        .to_vec();
    let (mut n_refused, mut n_read) = (0, 0);
    for group in &groups {
        for column in group.columns() {
            let (start, n_bytes) = column.byte_range();
            for at in (start..start + n_bytes).step_by(13) {
                for flipped in [0x01, 0xFF] {
                    let mut bytes = whole.clone();
                    bytes[at as usize] ^= flipped;
                    folder.write("a.parquet", bytes);
                    let damaged = parquet(folder.path("a.parquet"));
                    match read_source(&damaged, OnBadRow::Fail) {
                        Ok(_) => n_read += 1,
                        Err(error) => {
                            let told = error.to_string();
                            assert!(error.is_data(), "{told}");
                            assert!(
                                told.contains("a.parquet\", row groups 0 to 2, at or after row")
                            );
                            n_refused += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(
        n_refused > 10 && n_read > 10,
        "{n_refused} refused, {n_read} read"
    );
}

#[test]
fn a_file_without_columns_is_refused() {
    let folder = TestFolder::new();
    let none = RecordBatch::new_empty(Arc::new(Schema::empty()));
    write(&folder, "a.parquet", &none, 1_000);
    expect![[r#"
        file "FOLDER/a.parquet" has no columns
          Hint: Leave the file out."#]]
    .assert_eq(&refusal(&folder, "a.parquet"));
}

#[test]
fn a_file_that_changes_meanwhile_is_refused() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(3_000), 1_000);
    let source = parquet(folder.path("a.parquet"));
    let splits = source.splits().unwrap();
    write(&folder, "a.parquet", &numbers(3_001), 1_000);
    let refused = source.open(&splits[0], Position(0), None).err().unwrap();
    expect![[r#"
        file "FOLDER/a.parquet" has changed since it was first read
          Hint: Build the pipeline anew, and write new files beside those that are being read."#]]
    .assert_eq(&folder.hide(refused.to_string()));
    std::fs::remove_file(folder.path("a.parquet")).unwrap();
    let refused = source.open(&splits[0], Position(0), None).err().unwrap();
    expect![[r#"cannot read "FOLDER/a.parquet": it does not exist any more"#]]
        .assert_eq(&folder.hide(refused.to_string()));
}

#[test]
fn text_is_read_as_a_dictionary_where_it_is_asked_for_or_the_first_file_has_one() {
    let folder = TestFolder::new();
    write(
        &folder,
        "b/2.parquet",
        &table("s: x, y, null, x; n: 1, 2, 3, 4"),
        10,
    );
    let read = |source: &ParquetSource| match check_source(source) {
        Ok(rows) => format!("{}\n{}", rows.schema(), show(&rows)),
        Err(error) => folder.hide(error.to_string()),
    };
    expect![[r#"
        Field { "s": nullable Dictionary(Int32, Utf8) }, Field { "n": nullable Int64 }
        s: 'x', 'y', null, 'x'
        n: 1, 2, 3, 4"#]]
    .assert_eq(&read(&parquet(folder.path("b")).read_dictionary(["s"])));
    expect![[r#"
        2 errors
        1. column "n" must hold text to be read as a dictionary, found Int64
        2. column "t" is not there
             The columns are "s", "n"."#]]
    .assert_eq(&read(
        &parquet(folder.path("b")).read_dictionary(["n", "t"]),
    ));

    let s: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter(["z", "z"]));
    let n: ArrayRef = Arc::new(Int64Array::from(vec![5, 6]));
    let first = RecordBatch::try_from_iter([("s", s), ("n", n)]).unwrap();
    write(&folder, "b/1.parquet", &first, 10);
    expect![[r#"
        Field { "s": nullable Dictionary(Int32, Utf8) }, Field { "n": nullable Int64 }
        s: 'z', 'z', 'x', 'y', null, 'x'
        n: 5, 6, 1, 2, 3, 4"#]]
    .assert_eq(&read(&parquet(folder.path("b"))));
}

#[test]
fn nested_columns_are_read_as_they_are() {
    let folder = TestFolder::new();
    let fields = vec![Field::new("a", DataType::LargeUtf8, true)];
    let a: ArrayRef = Arc::new(LargeStringArray::from(vec![Some("x"), None]));
    let of: ArrayRef = Arc::new(arrow::array::StructArray::new(fields.into(), vec![a], None));
    let list: ArrayRef = Arc::new(arrow::array::ListArray::from_iter_primitive::<
        Int32Type,
        _,
        _,
    >([Some(vec![Some(1), None]), None]));
    let rows = RecordBatch::try_from_iter_with_nullable([("of", of, true), ("list", list, true)]);
    let rows = rows.unwrap();
    write(&folder, "a.parquet", &rows, 10);
    assert_eq!(
        check_source(&parquet(folder.path("a.parquet"))).unwrap(),
        rows
    );
}

#[test]
fn a_file_of_ten_thousand_row_groups_is_read_in_one_split() {
    let folder = TestFolder::new();
    write(&folder, "a.parquet", &numbers(20_000), 2);
    let source = parquet(folder.path("a.parquet"));
    assert_eq!(source.loaded().unwrap().files[0].row_groups.len(), 10_000);
    assert_eq!(source.splits().unwrap().len(), 1);
    let (rows, _) = read_source(&source, OnBadRow::Fail).unwrap();
    assert_eq!(rows, numbers(20_000));
}

#[test]
fn files_in_folders_of_one_column_must_have_the_same_columns() {
    let folder = TestFolder::new();
    write(&folder, "k=1/a.parquet", &table("x: 1; k: 7"), 10);
    write(&folder, "k=2/a.parquet", &table("x: 2; k: 8"), 10);
    // What the folder says counts, not what the file says.
    expect![[r#"
        x: 1, 2
        k: 1, 2"#]]
    .assert_eq(&show(&check_source(&parquet(folder.path(""))).unwrap()));
    expect![[r#"
        x: 1, 2
        k: 7, 8"#]]
    .assert_eq(&show(
        &check_source(&parquet(folder.path("")).hive_columns(false)).unwrap(),
    ));
    write(&folder, "k=2/a.parquet", &table("x: 2.5; k: 8"), 10);
    let error = parquet(folder.path("")).splits().unwrap_err();
    expect![[r#"
        file "FOLDER/k=2/a.parquet" has other columns than file "FOLDER/k=1/a.parquet"
          Column "x" holds Float64, not Int64.
          Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]].assert_eq(&folder.hide(error.to_string()));
}

#[test]
fn text_that_a_split_holds_as_a_dictionary_may_come_as_one_and_is_grouped_alike() {
    use crate::aggregates::sum;
    use crate::{Pipeline, RunOptions, col, connectors::collect};
    let folder = TestFolder::new();
    let rows = table("s: b, null, a, b, null, b; n: 1, 2, 3, 4, 5, 6");
    write(&folder, "a.parquet", &rows, 10);
    let plain = WriterProperties::builder().set_dictionary_enabled(false);
    let file = File::create(folder.write("b.parquet", "")).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(plain.build())).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let source = parquet(folder.path(""));
    let encoded = source.encoded(&["s".into()]).unwrap();
    let columns = ["s".to_owned()];
    let types: Vec<String> = source
        .splits()
        .unwrap()
        .iter()
        .map(|split| {
            let open = encoded.open(split, Position::default(), Some(&columns));
            let batch = open.unwrap().next_batch(&mut Output::new(OnBadRow::Fail));
            let batch = batch.unwrap().unwrap();
            batch.schema().field(0).data_type().to_string()
        })
        .collect();
    expect![[r#"
        Dictionary(Int32, Utf8)
        Utf8"#]]
    .assert_eq(&types.join("\n"));
    let pipeline = Pipeline::new("sums");
    let (sink, sums) = collect();
    let rows = pipeline.read("rows", source);
    rows.group_by([col("s")])
        .agg([sum(col("n")).alias("n")])
        .write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    let mut shown: Vec<String> = Vec::new();
    for rows in sums.take() {
        shown.extend((0..rows.num_rows()).map(|row| show(&rows.slice(row, 1)).replace('\n', "; ")));
    }
    shown.sort();
    expect![[r#"
        s: 'a'; n: 6
        s: 'b'; n: 22
        s: null; n: 14"#]]
    .assert_eq(&shown.join("\n"));
}
