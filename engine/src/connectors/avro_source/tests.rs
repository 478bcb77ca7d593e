//! What an Avro source reads, and the messages by which it refuses.

use arrow_avro::writer::AvroWriter;
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::connectors::every_type::every_type;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_source, read_source, show, table};

/// A file with a block for each batch.
fn file_of(batches: &[RecordBatch]) -> Vec<u8> {
    let schema = batches[0].schema().as_ref().clone();
    let mut writer = AvroWriter::new(Vec::new(), schema).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner()
}

fn numbers(from: usize, n_rows: usize) -> RecordBatch {
    let numbers: Vec<String> = (from..from + n_rows).map(|i| i.to_string()).collect();
    table(&format!("x: {0}; y: {0}", numbers.join(",")))
}

#[test]
fn the_laws_of_sources_hold_whatever_the_size_of_splits() {
    let folder = TestFolder::new();
    let batches: Vec<RecordBatch> = (0..40).map(|i| numbers(500 * i, 500)).collect();
    let source = avro(folder.write("a.avro", file_of(&batches)));
    let whole = check_source(&source).unwrap();
    assert_eq!(whole, numbers(0, 20_000));
    for split_bytes in [700, 5_000, 40_000] {
        let cut = source.clone().split_bytes(split_bytes);
        assert_eq!(check_source(&cut).unwrap(), whole);
    }
    let names: Vec<String> = source
        .split_bytes(60_000)
        .splits()
        .unwrap()
        .into_iter()
        .map(|s| folder.hide(s.name))
        .collect();
    expect![[r#"
        file "FOLDER/a.avro", part 1 of 3
        file "FOLDER/a.avro", part 2 of 3
        file "FOLDER/a.avro", part 3 of 3"#]]
    .assert_eq(&names.join("\n"));
}

#[test]
fn nested_columns_and_nulls() {
    let folder = TestFolder::new();
    let rows = every_type(&["list", "struct", "decimal", "bytes"]);
    let source = avro(folder.write("a.avro", file_of(std::slice::from_ref(&rows))));
    assert_eq!(show(&check_source(&source).unwrap()), show(&rows));
}

/// Put together by hand as the specification lays it out: two records, `{x: 1, s: b}` and `{x: null, s: a}`.
#[test]
fn a_file_as_the_specification_has_it() {
    let schema = br#"{"type":"record","name":"r","fields":[{"name":"x","type":["null","long"]},{"name":"s","type":{"type":"enum","name":"e","symbols":["a","b"]}}]}"#;
    let mut file = b"Obj\x01\x04\x14avro.codec\x08null\x16avro.schema".to_vec();
    let length = schema.len() * 2;
    file.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
    file.extend(schema);
    file.push(0);
    file.extend([7; 16]);
    file.extend([4, 10, 2, 2, 2, 0, 0]);
    file.extend([7; 16]);
    let folder = TestFolder::new();
    let source = avro(folder.write("a.avro", file));
    expect![[r#"
        x: 1, null
        s: 'b', 'a'"#]]
    .assert_eq(&show(&check_source(&source).unwrap()));
}

#[test]
fn what_cannot_be_read_is_refused() {
    let folder = TestFolder::new();
    let whole = file_of(&[numbers(0, 100)]);
    folder.write("in/a.avro", &whole);
    folder.write("in/b.avro", "");
    folder.write("in/c.avro", "x,y\n1,2\n");
    folder.write("in/d.avro", &whole[..60]);
    let refusal =
        |source: &AvroSource| folder.hide(Source::schema(source).unwrap_err().to_string());
    expect![[r#"
        3 errors
        1. file "FOLDER/in/b.avro" is empty, expected Avro
             Hint: Leave the file out.
        2. file "FOLDER/in/c.avro": the header cannot be read as Avro
             Avro error: Parser error: Incorrect avro magic.
             Hint: An Avro file begins with "Obj" and its schema.
        3. file "FOLDER/in/d.avro": the header cannot be read as Avro
             Avro error: EOF: Unexpected EOF while reading Avro header.
             Hint: An Avro file begins with "Obj" and its schema."#]]
    .assert_eq(&refusal(&avro(folder.path("in"))));
    folder.write("other/a.avro", file_of(&[table("x: 1")]));
    folder.write("other/b.avro", file_of(&[table("x: 1.5; y: 2")]));
    expect![[r#"
        file "FOLDER/other/b.avro" has other columns than file "FOLDER/other/a.avro"
          Column "x" holds Float64, not Int64.
          Column "y" is only here.
          Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]].assert_eq(&refusal(&avro(folder.path("other"))));
}

#[test]
fn files_that_are_cut_short_or_damaged_end_the_run() {
    let folder = TestFolder::new();
    let whole = file_of(&[numbers(0, 100), numbers(100, 100)]);
    let error = |bytes: &[u8]| {
        let source = avro(folder.write("a.avro", bytes));
        let error = read_source(&source, OnBadRow::Drop).unwrap_err();
        assert!(error.is_data(), "{error:?}");
        folder.hide(error.to_string())
    };
    expect![[r#"
        file "FOLDER/a.avro" ends in the middle of the block at byte 668
          Hint: Copy the file anew, or leave it out."#]]
    .assert_eq(&error(&whole[..whole.len() - 30]));
    let mut damaged = whole.clone();
    let end = damaged.len() - 1;
    damaged[end] ^= 1;
    expect![[r#"
        file "FOLDER/a.avro": the block at byte 668 is damaged: it does not end in the file's sync marker
          Hint: Copy the file anew, or leave it out."#]].assert_eq(&error(&damaged));
    // The block says that it holds 100 rows, 200 as a zigzag number.
    assert_eq!(whole[668..670], [0xc8, 0x01]);
    let saying = |n_rows: u8| {
        let mut damaged = whole.clone();
        damaged[668] = 0x80 | ((2 * n_rows) & 0x7f);
        error(&damaged)
    };
    expect![[r#"
        file "FOLDER/a.avro": the block at byte 668 is damaged: it holds more than the 99 rows that it says
          Hint: Copy the file anew, or leave it out."#]]
    .assert_eq(&saying(99));
    expect![[r#"
        file "FOLDER/a.avro": the rows of the block at byte 668 cannot be decoded
          Avro error: Parser error: bad varint.
          Hint: Copy the file anew, or leave it out."#]]
    .assert_eq(&saying(101));
    damaged = whole.clone();
    damaged.splice(668..670, [0x00]);
    expect![[r#"
        file "FOLDER/a.avro": the block at byte 668 is damaged: it holds more than the 0 rows that it says
          Hint: Copy the file anew, or leave it out."#]]
    .assert_eq(&error(&damaged));
}

#[test]
fn small_blocks_are_one_batch_and_large_ones_are_several() {
    let folder = TestFolder::new();
    let sizes = [5, BATCH_ROWS + 3, 1, 2 * BATCH_ROWS];
    let mut from = 0;
    let blocks = sizes.map(|n_rows| {
        from += n_rows;
        numbers(from - n_rows, n_rows)
    });
    let source = avro(folder.write("a.avro", file_of(&blocks)));
    let splits = source.splits().unwrap();
    let mut reader = source.open(&splits[0], Position(0), None).unwrap();
    let mut sizes = Vec::new();
    while let Some(rows) = reader.next_batch(&mut Output::new(OnBadRow::Fail)).unwrap() {
        sizes.push(rows.num_rows());
    }
    assert_eq!(sizes, [BATCH_ROWS, BATCH_ROWS, BATCH_ROWS, 9]);
    assert_eq!(check_source(&source).unwrap(), numbers(0, from));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any damage is an error or other rows; never a panic.
    #[test]
    fn any_damage_is_no_panic(place in 0_usize..4_000, flip in 1_u8..255) {
        let folder = TestFolder::new();
        let mut bytes = file_of(&[every_type(&["text", "list", "struct", "int64"])]);
        let place = place % bytes.len();
        bytes[place] ^= flip;
        let _ = read_source(&avro(folder.write("a.avro", bytes)), OnBadRow::Fail);
    }
}
