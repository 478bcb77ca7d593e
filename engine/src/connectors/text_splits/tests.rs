//! Splits of text files begin where rows do.

use expect_test::{Expect, expect};

use super::*;
use crate::connectors::test_folder::TestFolder;

const CSV: RowEnds = RowEnds::Csv {
    quote: Some(b'"'),
    delimiter: b',',
};

/// Checks the parts of a text, each with the number of its first line, from 0.
fn check(text: &str, ends: RowEnds, split_bytes: u64, expected: Expect) {
    let folder = TestFolder::new();
    let file = StoredFile::local(folder.write("a.csv", text)).unwrap();
    let splits = TextSplits::new(&file, ends, Place::default(), split_bytes);
    let mut found = String::new();
    // Backwards: a split can be opened before those that it depends on.
    for split in (0..splits.n_splits()).rev() {
        let (from, to) = splits.range(split).unwrap();
        let part = &text[from.byte as usize..to as usize];
        found.insert_str(0, &format!("{} {part:?}\n", from.line));
    }
    expected.assert_eq(&found);
}

#[test]
fn line_breaks_inside_of_quotes_divide_nothing() {
    check(
        "a,b\n1,2\n3,\"x\ny\nz\"\n4,5\n6,\"7\"\"\n\"\n8,9\n",
        CSV,
        6,
        expect![[r#"
            0 "a,b\n1,2"
            1 "\n3,\"x\ny\nz\""
            4 ""
            4 "\n4,5\n6,\"7\"\"\n\""
            7 ""
            7 "\n8,9\n"
        "#]],
    );
}

#[test]
fn a_quote_in_the_middle_of_a_field_is_none() {
    check(
        "5\" pipe,x\r\ny,\"\"\r\n\"z\",\"\r\n\"\r\n1,\"2\"\"",
        CSV,
        9,
        expect![[r#"
            0 "5\" pipe,x\r"
            0 "\ny,\"\"\r\n\"z\",\"\r\n\"\r"
            3 ""
            3 "\n1,\"2\"\""
        "#]],
    );
}

#[test]
fn without_quotes_every_line_feed_ends_a_row() {
    check(
        "{\"a\":1}\n\n\n{\"b\":\"\r\"}\n{}",
        RowEnds::Lines,
        4,
        expect![[r#"
            0 "{\"a\":1}\n\n"
            2 ""
            2 "\n{\"b\":\"\r\"}"
            3 ""
            3 ""
            3 "\n{}"
        "#]],
    );
}
