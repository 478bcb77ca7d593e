//! Compressed files, whole, truncated and damaged.

use std::io::Write;

use expect_test::expect;

use crate::connectors::csv;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_source, read_source, show};

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zst(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

/// Text that does not compress to nothing.
fn numbers() -> String {
    let mut text = "x,y\n".to_owned();
    for i in 0..20_000_u64 {
        text.push_str(&format!("{},{i}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    text
}

#[test]
fn compressed_files_hold_the_same_rows() {
    let folder = TestFolder::new();
    let text = numbers();
    let plain = check_source(&csv(folder.write("plain/a.csv", &text))).unwrap();
    let gz = check_source(&csv(folder.write("b.csv.gz", gzip(text.as_bytes())))).unwrap();
    let zst = check_source(&csv(folder.write("c.csv.ZST", zst(text.as_bytes())))).unwrap();
    assert_eq!(plain, gz);
    assert_eq!(plain, zst);
}

#[test]
fn a_folder_may_hold_both_and_files_of_several_members() {
    let folder = TestFolder::new();
    folder.write("in/a.csv.gz", [gzip(b"x\n1\n"), gzip(b"2\n")].concat());
    folder.write("in/b.csv.zst", [zst(b"x\n3\n"), zst(b"4\n")].concat());
    folder.write("in/c.csv", "x\n5\n");
    folder.write("in/d.gz", "no CSV");
    let rows = check_source(&csv(folder.path("in"))).unwrap();
    assert_eq!(show(&rows), "x: 1, 2, 3, 4, 5");
    folder.write("empty.csv.gz", "");
    let empty = csv(folder.path("empty.csv.gz"));
    expect![[r#"
        file "FOLDER/empty.csv.gz" is empty, expected a header
          Hint: Leave the file out, or give the columns by `.schema(…)`."#]]
    .assert_eq(&folder.hide(check_source(&empty).unwrap_err().to_string()));
}

#[test]
fn truncated_and_damaged_files_are_told_as_such() {
    let folder = TestFolder::new();
    let error = |name: &str, bytes: Vec<u8>| {
        let source = csv(folder.write(name, bytes));
        let error = read_source(&source, OnBadRow::DeadLetter).unwrap_err();
        assert!(error.is_data(), "{error:?}");
        folder.hide(error.to_string())
    };
    let text = numbers();
    let (gz, zst) = (gzip(text.as_bytes()), zst(text.as_bytes()));
    let cut = |bytes: &[u8]| bytes[..200_000].to_vec();
    let broken = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[200_000..200_400].fill(0x55);
        bytes
    };
    let all = [
        error("a.csv.gz", cut(&gz)),
        error("b.csv.zst", cut(&zst)),
        error("c.csv.gz", broken(&gz)),
        error("d.csv.zst", broken(&zst)),
        error("e.csv.gz", b"x,y\n1,2\n".to_vec()),
        error("f.csv.zst", b"x,y\n1,2\n".to_vec()),
    ];
    expect![[r#"
        file "FOLDER/a.csv.gz" ends in the middle of its compressed data, after 200000 bytes
          The decompression reports: incomplete deflate stream.
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/b.csv.zst" ends in the middle of its compressed data, after 200000 bytes
          The decompression reports: incomplete frame.
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/c.csv.gz" is damaged: its compressed data cannot be read at or before byte 371778
          The decompression reports: corrupt gzip stream does not have a matching checksum.
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/d.csv.zst" is damaged: its compressed data cannot be read at or before byte 220972
          The decompression reports: Data corruption detected.
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/e.csv.gz" ends in the middle of its compressed data, after 8 bytes
          The decompression reports: unexpected end of file.
          Hint: Copy the file anew, or leave it out.
        file "FOLDER/f.csv.zst" is damaged: its compressed data cannot be read at or before byte 8
          The decompression reports: Unknown frame descriptor.
          Hint: Copy the file anew, or leave it out."#]].assert_eq(&all.join("\n"));
}
