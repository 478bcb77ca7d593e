//! What an Arrow IPC source reads, and the messages by which it refuses.

use arrow::compute::concat_batches;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::record_batch::RecordBatch;
use expect_test::expect;

use super::*;
use crate::connectors::every_type::every_type;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_source, read_source, show, table};

fn file_of(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = FileWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

fn stream_of(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn files_and_streams_hold_the_same_rows() {
    let folder = TestFolder::new();
    let rows = every_type(&[]);
    let file = ipc(folder.write("a.arrow", file_of(std::slice::from_ref(&rows))));
    assert_eq!(check_source(&file).unwrap(), rows);
    // Dictionaries are replaced on the way.
    let parts = [rows.slice(0, 2), rows.slice(2, 4)];
    let stream = ipc(folder.write("b.arrow", stream_of(&parts)));
    assert_eq!(check_source(&stream).unwrap(), rows);
}

#[test]
fn a_large_file_is_several_splits_and_large_batches_are_cut() {
    let folder = TestFolder::new();
    let numbers: Vec<String> = (0..200_000).map(|i| i.to_string()).collect();
    let large = table(&format!("x: {0}; y: {0}; z: {0}", numbers.join(",")));
    let batches = [
        large.slice(0, 0),
        large.slice(0, 10),
        large.clone(),
        large.clone(),
        large.clone(),
        large.clone(),
        large.slice(7, 9),
    ];
    folder.write("in/a.arrow", file_of(&batches));
    folder.write("in/b.feather", file_of(&batches[..2]));
    folder.write("in/c.ipc", file_of(&batches[..1]));
    let source = ipc(folder.path("in"));
    let names: Vec<String> = source
        .splits()
        .unwrap()
        .into_iter()
        .map(|s| folder.hide(s.name))
        .collect();
    expect![[r#"
        file "FOLDER/in/a.arrow", record batches 0 to 5
        file "FOLDER/in/a.arrow", record batch 6
        file "FOLDER/in/b.feather"
        file "FOLDER/in/c.ipc""#]]
    .assert_eq(&names.join("\n"));
    assert_eq!(check_source(&source).unwrap().num_rows(), 800_029);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let folder = TestFolder::new();
    let whole = file_of(&[every_type(&[])]);
    folder.write("in/a.arrow", &whole);
    folder.write("in/b.arrow", "");
    folder.write("in/c.arrow", "x,y\n1,2\n");
    folder.write("in/d.arrow", &whole[..whole.len() - 100]);
    folder.write("in/e.arrow", &whole[..4]);
    let refusal = |source: &IpcSource| folder.hide(Source::schema(source).unwrap_err().to_string());
    expect![[r#"
        4 errors
        1. file "FOLDER/in/b.arrow" is empty, expected Arrow IPC
             Hint: Leave the file out.
        2. file "FOLDER/in/c.arrow": the schema cannot be read as Arrow IPC
             Io error: failed to fill whole buffer.
             Hint: Arrow IPC begins with "ARROW1", or with the schema of a stream.
        3. file "FOLDER/in/d.arrow" has no footer: it is cut short or damaged
             Hint: Copy the file anew, or leave it out.
        4. file "FOLDER/in/e.arrow": the schema cannot be read as Arrow IPC
             Io error: failed to fill whole buffer.
             Hint: Arrow IPC begins with "ARROW1", or with the schema of a stream."#]]
    .assert_eq(&refusal(&ipc(folder.path("in"))));
    folder.write("other/a.arrow", file_of(&[table("x: 1")]));
    folder.write("other/b.arrow", stream_of(&[table("x: 1.5; y: 2")]));
    expect![[r#"
        file "FOLDER/other/b.arrow" has other columns than file "FOLDER/other/a.arrow"
          Column "x" holds Float64, not Int64.
          Column "y" is only here.
          Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]].assert_eq(&refusal(&ipc(folder.path("other"))));
    let twice = ipc(folder.write("twice.arrow", file_of(&[table("x: 1; x: 2")])));
    expect![[r#"
        file "FOLDER/twice.arrow" has two columns "x"
          Hint: Rename one of them."#]]
    .assert_eq(&refusal(&twice));
    let none = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    let none = ipc(folder.write("none.arrow", file_of(&[none])));
    expect![[r#"
        file "FOLDER/none.arrow" has no columns
          Hint: Leave the file out."#]]
    .assert_eq(&refusal(&none));
}

#[test]
fn a_stream_that_is_cut_short_and_a_damaged_batch_are_told() {
    let folder = TestFolder::new();
    let rows = table("x: 1, 2, 3; y: a, b, c");
    let error = |source: IpcSource| {
        let error = read_source(&source, OnBadRow::Drop).unwrap_err();
        assert!(error.is_data(), "{error:?}");
        folder.hide(error.to_string())
    };
    let stream = stream_of(&[rows.clone(), rows.clone()]);
    let cut = ipc(folder.write("a.arrows", &stream[..stream.len() - 60]));
    expect![[r#"
        file "FOLDER/a.arrows": record batch 1 cannot be read as Arrow IPC
          Io error: failed to fill whole buffer."#]]
    .assert_eq(&error(cut));
    // The offsets of text are no offsets any more.
    let mut file = file_of(&[table("y: aaaa, bbbb")]);
    let place = file
        .windows(12)
        .position(|w| w == [0, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0])
        .unwrap();
    file[place + 4] = 200;
    let damaged = ipc(folder.write("b.arrow", file));
    expect![[r#"
        file "FOLDER/b.arrow": record batch 0 cannot be read as Arrow IPC
          Invalid argument error: Offset invariant failure: offset at position 1 out of bounds: 200 > 8."#]].assert_eq(&error(damaged));
}

/// "The stream writer can signal end-of-stream (EOS) either by writing 8 bytes containing the 4-byte continuation
/// indicator (0xFFFFFFFF) followed by 0 metadata length (0x00000000) or closing the stream interface": Arrow's page
/// "Columnar Format", "IPC Streaming Format".
#[test]
fn a_stream_is_whole_between_two_batches_and_cut_short_anywhere_else() {
    let folder = TestFolder::new();
    let rows = table("x: 1, 2, 3; y: a, b, c");
    let batches = [rows.clone(), rows.slice(0, 2), rows.slice(1, 2)];
    let whole = stream_of(&batches);
    let mark = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    assert!(whole.ends_with(&mark));
    let mut none = StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    none.finish().unwrap();
    let mut ends = vec![none.get_ref().len() - mark.len()];
    ends.extend((1..=3).map(|n| stream_of(&batches[..n]).len() - mark.len()));
    for n in 1..whole.len() {
        let source = ipc(folder.write("a.arrows", &whole[..n]));
        let read = read_source(&source, OnBadRow::Fail);
        match ends.iter().position(|end| *end == n) {
            Some(n_batches) => {
                let all = concat_batches(&rows.schema(), &batches[..n_batches]).unwrap();
                assert_eq!(read.unwrap().0, all, "cut after {n} bytes");
            }
            None => {
                let error = read.unwrap_err();
                assert!(error.is_data(), "cut after {n} bytes: {error}");
            }
        }
    }
    let cut = ipc(folder.write("a.arrows", &whole[..ends[1] + 3]));
    let error = read_source(&cut, OnBadRow::Fail).unwrap_err();
    expect![[r#"
        file "FOLDER/a.arrows" ends in the middle of record batch 1
          Hint: Copy the file anew, or leave it out."#]]
    .assert_eq(&folder.hide(error.to_string()));
}

#[test]
fn any_damage_is_an_error_or_other_rows_but_no_panic() {
    let folder = TestFolder::new();
    let whole = file_of(&[every_type(&[
        "text",
        "list",
        "struct",
        "dictionary",
        "int64",
    ])]);
    for place in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x41;
        let source = ipc(folder.write("a.arrow", bytes));
        if let Ok((rows, _)) = read_source(&source, OnBadRow::Fail) {
            show(&rows);
        }
    }
}

/// `compressed/recipe.py` has made the files. That the library can decompress is a feature that DataFusion asks for.
#[test]
fn compressed_buffers_are_read() {
    let folder = TestFolder::new();
    let files: [(&str, &[u8]); 4] = [
        ("a.arrow", include_bytes!("compressed/lz4.arrow")),
        ("b.arrows", include_bytes!("compressed/lz4.arrows")),
        ("c.arrow", include_bytes!("compressed/zstd.arrow")),
        ("d.arrows", include_bytes!("compressed/zstd.arrows")),
    ];
    let expected = table(&format!("x: {}", ["1, 2, 3"; 100].join(", ")));
    for (name, bytes) in files {
        let rows = check_source(&ipc(folder.write(name, bytes))).unwrap();
        assert_eq!(rows.columns(), expected.columns(), "{name}");
        let cut = folder.write(name, &bytes[..bytes.len() / 2]);
        assert!(
            Source::schema(&ipc(&cut)).is_err() || read_source(&ipc(cut), OnBadRow::Fail).is_err()
        );
    }
}
