//! Records by both parsers, against those of csv-core alone and of the crate `csv`.

use std::io::Read;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// Gives a text piece by piece.
struct Pieces {
    text: Vec<u8>,
    at: usize,
    n_bytes: usize,
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let rest = &self.text[self.at..];
        let n = rest.len().min(self.n_bytes).min(bytes.len());
        bytes[..n].copy_from_slice(&rest[..n]);
        self.at += n;
        Ok(n)
    }
}

/// What is seen of a record.
#[derive(Debug, PartialEq)]
struct Seen {
    fields: Vec<Vec<u8>>,
    /// The same as text, where all are.
    text: Option<Vec<String>>,
    /// As it stands in the file, without what ends its line.
    raw: Vec<u8>,
    line: u64,
    last_line: u64,
    is_open_ended: bool,
}

fn records(text: &[u8], dialect: &Dialect, n_bytes: usize) -> CsvRecords {
    let (text, at) = (text.to_vec(), 0);
    let input = Box::new(Pieces { text, at, n_bytes });
    CsvRecords::new(Tape::new(input, dialect.max_row_bytes), dialect)
}

fn see(record: &Record<'_>, text: &[u8]) -> Seen {
    let (fields, stretch) = (&record.fields, &record.stretch);
    let raw = &text[stretch.from as usize..stretch.to as usize];
    let is_end = |b: &u8| matches!(b, b'\n' | b'\r');
    let n_raw = raw.len() - raw.iter().rev().take_while(|b| is_end(b)).count();
    let all = 0..fields.len();
    Seen {
        fields: all.clone().map(|i| fields.bytes(i).to_vec()).collect(),
        text: fields.is_utf8().then(|| {
            all.map(|i| String::from_utf8(fields.bytes(i).to_vec()).unwrap())
                .collect()
        }),
        raw: raw[..n_raw].to_vec(),
        line: stretch.line,
        last_line: stretch.last_line,
        is_open_ended: record.is_open_ended,
    }
}

/// All records, of which the reader gives no more than so many at once.
fn all_of(text: &[u8], dialect: &Dialect, n_bytes: usize, at_once: usize) -> Vec<Seen> {
    let mut records = records(text, dialect, n_bytes);
    let mut seen = Vec::new();
    loop {
        let mut n = 0;
        let more = records.read(&mut |record| {
            seen.push(see(&record, text));
            n += 1;
            n < at_once
        });
        assert!(n <= at_once, "{n} records instead of {at_once}");
        records.forget();
        if !more.unwrap() {
            return seen;
        }
    }
}

/// All records as csv-core alone reads them.
fn by_core(text: &[u8], dialect: &Dialect) -> Vec<Seen> {
    let mut records = records(text, dialect, usize::MAX);
    let mut seen = Vec::new();
    let mut take = |record: Record<'_>| {
        seen.push(see(&record, text));
        true
    };
    while records.read_any(&mut take).unwrap() {}
    seen
}

/// The fields of all records and the line after each, by the crate `csv`.
fn by_csv(text: &[u8], dialect: &Dialect) -> Vec<(Vec<Vec<u8>>, u64)> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(dialect.delimiter)
        .quote(dialect.quote.unwrap_or(b'"'))
        .quoting(dialect.quote.is_some())
        .comment(dialect.comment)
        .has_headers(false)
        .flexible(true)
        .from_reader(text);
    let (mut record, mut read) = (csv::ByteRecord::new(), Vec::new());
    while reader.read_byte_record(&mut record).unwrap() {
        let to = reader.position().byte() as usize;
        let ends_line = text[..to].ends_with(b"\n");
        let last_line = reader.position().line() - u64::from(ends_line);
        read.push((record.iter().map(<[u8]>::to_vec).collect(), last_line));
    }
    read
}

fn dialect(delimiter: u8, quote: Option<u8>, comment: Option<u8>) -> Dialect {
    Dialect {
        delimiter,
        quote,
        comment,
        ..Dialect::default()
    }
}

fn check(text: impl AsRef<[u8]>, dialect: &Dialect, expected: Expect) {
    let shown = |seen: &Seen| {
        let fields = seen.fields.iter().map(|f| String::from_utf8_lossy(f));
        let fields: Vec<_> = fields.collect();
        let open = if seen.is_open_ended { " open" } else { "" };
        format!("{}-{}{open} {fields:?}", seen.line, seen.last_line)
    };
    let seen = all_of(text.as_ref(), dialect, 3, usize::MAX);
    let seen: Vec<String> = seen.iter().map(shown).collect();
    expected.assert_eq(&seen.join("\n"));
}

#[test]
fn lines_that_are_plain_and_lines_that_are_not_follow_each_other() {
    let text =
        "a,b\n1,2\n\n3,4\r\n\"5\n5\",\"6\"\"\"\n7\n,\n8,9\r10,\"11\n12,é\n\"\n\u{feff}x,y\nz";
    check(
        text,
        &Dialect::default(),
        expect![[r#"
            1-1 ["a", "b"]
            2-2 ["1", "2"]
            4-4 ["3", "4"]
            5-6 ["5\n5", "6\""]
            7-7 ["7"]
            8-8 ["", ""]
            9-9 ["8", "9"]
            9-11 ["10", "11\n12,é\n"]
            12-12 ["\u{feff}x", "y"]
            13-13 ["z"]"#]],
    );
    check(
        "a\n#,\"\n\n# b\nc;d\n#\ne;\"f",
        &dialect(b';', None, Some(b'#')),
        expect![[r#"
            1-1 ["a"]
            5-5 ["c", "d"]
            7-7 ["e", "\"f"]"#]],
    );
    check(
        b"a,b\n\xff,1\n2,\xc3\n\xa9,\xe9,\n3,4\n5,\"\n",
        &Dialect::default(),
        expect![[r#"
            1-1 ["a", "b"]
            2-2 ["�", "1"]
            3-3 ["2", "�"]
            4-4 ["�", "�", ""]
            5-5 ["3", "4"]
            6-6 ["5", "\n"]"#]],
    );
}

#[test]
fn plain_lines_are_given_on_together() {
    let text = "a,b\n".repeat(1_000);
    let mut records = records(text.as_bytes(), &Dialect::default(), usize::MAX);
    let mut of_each = Vec::new();
    loop {
        let mut n = 0;
        let more = records.read(&mut |_| {
            n += 1;
            true
        });
        if !more.unwrap() {
            break;
        }
        of_each.push(n);
    }
    assert_eq!(of_each, [1, 999]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Both parsers together read what csv-core reads, and that is what the crate `csv` reads.
    #[test]
    fn records_are_those_of_csv_core(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "1", "ab", ",", ",", ";", "\n", "\n", "\n", "\r\n", "\r\n", "\r", "\"", "\"\"", "'", "#", " ",
            "\u{e9}", "\u{feff}", "\0",
        ]), 0..60),
        broken in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        delimiter in prop::sample::select(vec![b',', b',', b';', b'\xa9', b'\xff']),
        quote in prop::sample::select(vec![Some(b'"'), Some(b'"'), Some(b'\''), None]),
        comment in prop::sample::select(vec![None, None, Some(b'#')]),
        n_times in prop::sample::select(vec![1_usize, 1, 1, 2, 1_000]),
        n_bytes in prop::sample::select(vec![3_usize, 7, 100, 10_007, usize::MAX]),
        at_once in prop::sample::select(vec![1_usize, 2, 50, usize::MAX]),
    ) {
        let mut text = tokens.concat().into_bytes();
        if let Some((at, byte)) = broken && !text.is_empty() {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let text = text.repeat(n_times);
        let dialect = dialect(delimiter, quote, comment);
        let seen = all_of(&text, &dialect, n_bytes, at_once);
        prop_assert_eq!(&seen, &by_core(&text, &dialect));
        let fields = seen.into_iter().map(|seen| (seen.fields, seen.last_line));
        prop_assert_eq!(fields.collect::<Vec<_>>(), by_csv(&text, &dialect));
    }
}
