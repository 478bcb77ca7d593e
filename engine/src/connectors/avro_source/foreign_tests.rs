//! Files of another Avro library, fastavro: see `fastavro/recipe.py`.

use expect_test::expect;

use super::*;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_source, read_source, show, table};

macro_rules! written {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("fastavro/", $name)).as_slice(),
        )
    };
}

/// The source of a file that is copied into the folder.
fn source(folder: &TestFolder, (name, bytes): (&str, &[u8])) -> AvroSource {
    avro(folder.write(name, bytes))
}

#[test]
fn blocks_compressed_by_each_codec_hold_the_same_rows() {
    let folder = TestFolder::new();
    let list = |of: &dyn Fn(usize) -> String| (0..60).map(of).collect::<Vec<_>>().join(",");
    let x = list(&|i| i.to_string());
    let s = list(&|i| format!("'row {i:03}'"));
    let expected = table(&format!("x: {x}; s: {s}"));
    for file in [
        written!("null.avro"),
        written!("deflate.avro"),
        written!("snappy.avro"),
        written!("zstandard.avro"),
    ] {
        let source = source(&folder, file);
        assert_eq!(show(&check_source(&source).unwrap()), show(&expected));
        let parts = source.split_bytes(60);
        assert!(parts.splits().unwrap().len() > 3, "{}", file.0);
        assert_eq!(show(&check_source(&parts).unwrap()), show(&expected));
    }
}

#[test]
fn codecs_that_are_not_read_are_named_before_a_row_is() {
    let folder = TestFolder::new();
    source(&folder, written!("bzip2.avro"));
    source(&folder, written!("xz.avro"));
    let (name, deflated) = written!("deflate.avro");
    // A codec of the same length, so that the header stays whole.
    let place = deflated.windows(7).position(|w| w == b"deflate").unwrap();
    let mut other = deflated.to_vec();
    other[place..place + 7].copy_from_slice(b"brotli2");
    folder.write(name, other);
    let error = Source::schema(&avro(folder.path(""))).unwrap_err();
    assert!(error.is_data());
    expect![[r#"
        3 errors
        1. file "FOLDER/bzip2.avro": its blocks are compressed by "bzip2", which is not read
             Hint: Write it anew with deflate, snappy, zstandard or no compression.
        2. file "FOLDER/deflate.avro": its blocks are compressed by another codec (Parser error: Unrecognized compression codec 'brotli2'), which is not read
             Hint: Write it anew with deflate, snappy, zstandard or no compression.
        3. file "FOLDER/xz.avro": its blocks are compressed by "xz", which is not read
             Hint: Write it anew with deflate, snappy, zstandard or no compression."#]]
    .assert_eq(&folder.hide(error.to_string()));
}

#[test]
fn every_type_of_the_format_has_one_here() {
    let folder = TestFolder::new();
    let rows = check_source(&source(&folder, written!("types.avro"))).unwrap();
    let schema = rows.schema();
    let types = schema.fields().iter().map(|f| {
        let null = if f.is_nullable() { " or null" } else { "" };
        format!("{}: {}{null}", f.name(), f.data_type())
    });
    expect![[r#"
        id: Int32
        millis: Time32(ms)
        micros: Time64(µs) or null
        day: Date32
        at_millis: Timestamp(ms, "+00:00")
        at_micros: Timestamp(µs, "+00:00") or null
        local: Timestamp(µs)
        uuid: FixedSizeBinary(16)
        fixed: FixedSizeBinary(4)
        price: Decimal128(10, 2)
        rate: Decimal128(12, 4) or null
        suit: Dictionary(Int32, Utf8) or null
        counts: Map("entries": non-null Struct("key": non-null Utf8, "value": non-null Int64), unsorted)
        tags: List(Utf8) or null
        of: Struct("name": non-null Utf8, "inner": non-null Struct("x": Float64, "again": non-null List(non-null Dictionary(Int32, Utf8), metadata: {"avro.enum.symbols": "[\"SPADES\",\"HEARTS\"]", "avro.name": "org.example.Suit"})), metadata: {"avro.name": "org.example.Inner"}) or null
        last_null: Int64 or null"#]].assert_eq(&types.collect::<Vec<_>>().join("\n"));
    expect![[r#"
        id: 1, 2
        millis: 23:59:59.999, 00:00:00
        micros: 12:00:00.000001, null
        day: 2024-02-29, 0001-01-01
        at_millis: 1969-12-31T23:59:59.999Z, 0001-01-01T00:00:00Z
        at_micros: 2262-04-12T00:00:00.000001Z, null
        local: 2024-03-31T02:30:00, 9999-12-31T23:59:59.999999
        uuid: f81d4fae7dec11d0a76500a0c91e6bf6, 00000000000000000000000000000000
        fixed: 00ff1020, 00000000
        price: -12345.67, 0.01
        rate: 99999999.9999, null
        suit: 'HEARTS', null
        counts: {a: 1, b: -2}, {}
        tags: [x, null, ], null
        of: {name: n, inner: {x: 0.5, again: [SPADES, HEARTS]}}, null
        last_null: 7, null"#]]
    .assert_eq(&show(&rows));
}

#[test]
fn unions_of_several_types_are_read_as_unions() {
    let folder = TestFolder::new();
    let rows = check_source(&source(&folder, written!("unions.avro"))).unwrap();
    expect![[r#"
        Field { "id": Int32 }, Field { "two": Union(Dense, 0: ("long": non-null Int64), 1: ("string": non-null Utf8)) }, Field { "three": nullable Union(Dense, 0: ("null": non-null Null), 1: ("double": non-null Float64), 2: ("string": non-null Utf8)) }
        id: 1, 2, 3
        two: {long=5}, {string=b}, {long=-1}
        three: {string=a}, {null=null}, {double=0.5}"#]].assert_eq(&format!("{}\n{}", rows.schema(), show(&rows)));
}

/// The header ends behind the 16 bytes of the marker: here these stand across each border of 8,192 bytes, which is how
/// much is read at once.
#[test]
fn a_header_may_end_anywhere() {
    let folder = TestFolder::new();
    let (name, whole) = written!("null.avro");
    let named = b"{\"name\": \"x\", ";
    let place = whole.windows(named.len()).position(|w| w == named).unwrap() + named.len();
    let expected = read_source(&source(&folder, (name, whole)), OnBadRow::Fail)
        .unwrap()
        .0;
    let header = whole
        .windows(16)
        .position(|w| (0..16).eq(w.iter().copied()))
        .unwrap();
    for end in 8_190..8_210 {
        let doc = |n: usize| format!("\"doc\": \"{}\", ", "x".repeat(n));
        // The length of the schema takes another byte.
        let n_added = end - header - 16 - 1;
        let doc = doc(n_added - doc(0).len());
        let mut bytes = whole.to_vec();
        bytes.splice(place..place, doc.into_bytes());
        let key = bytes.windows(11).position(|w| w == b"avro.schema").unwrap() + 11;
        let n_schema = u64::from(bytes[key] & 0x7f) | u64::from(bytes[key + 1]) << 7;
        let n_schema = n_schema + 2 * n_added as u64;
        let length = [
            n_schema as u8 | 0x80,
            (n_schema >> 7) as u8 | 0x80,
            (n_schema >> 14) as u8,
        ];
        bytes.splice(key..key + 2, length);
        assert!(
            bytes[..end].ends_with(&(0..16).collect::<Vec<u8>>()),
            "{end}"
        );
        let read = read_source(&avro(folder.write(name, &bytes)), OnBadRow::Fail);
        assert_eq!(read.unwrap().0, expected, "{end}");
    }
}

#[test]
fn a_file_cut_anywhere_gives_an_error_or_its_whole_blocks() {
    let folder = TestFolder::new();
    for (name, whole) in [
        written!("null.avro"),
        written!("snappy.avro"),
        written!("zstandard.avro"),
    ] {
        let read = |bytes: &[u8]| {
            let source = avro(folder.write(name, bytes));
            read_source(&source, OnBadRow::Drop).map(|(rows, _)| rows)
        };
        let all = read(whole).unwrap();
        // Blocks end in the marker, as the header does.
        let marker: Vec<u8> = (0..16).collect();
        let is_end = |n: usize| whole[..n].ends_with(&marker);
        let (mut n_ends, mut n_rows) = (0, 0);
        for n in 1..whole.len() {
            match read(&whole[..n]) {
                Ok(rows) => {
                    assert!(is_end(n), "{name} cut after {n} bytes");
                    assert_eq!(rows, all.slice(0, rows.num_rows()), "{name}");
                    assert!(n_ends == 0 || rows.num_rows() > n_rows);
                    (n_ends, n_rows) = (n_ends + 1, rows.num_rows());
                }
                Err(error) => {
                    assert!(!is_end(n), "{name} cut after {n} bytes: {error}");
                    assert!(error.is_data(), "{error}");
                    let told = error.to_string();
                    let is_told = told.contains("ends in the middle of the block at byte")
                        || told.contains("the header cannot be read as Avro");
                    assert!(is_told, "{told}");
                }
            }
        }
        assert!(n_ends > 2, "{name}: {n_ends}");
    }
}

#[test]
fn a_wrong_sync_marker_ends_the_run_however_the_file_is_split() {
    let folder = TestFolder::new();
    let (name, whole) = written!("deflate.avro");
    let marker: Vec<u8> = (0..16).collect();
    let ends: Vec<usize> = (16..=whole.len())
        .filter(|n| whole[..*n].ends_with(&marker))
        .collect();
    // The first marker is the header's, which says what the others are.
    for end in &ends[1..] {
        let mut damaged = whole.to_vec();
        damaged[end - 1] ^= 1;
        for split_bytes in [1 << 20, 60, 7] {
            let source = avro(folder.write(name, &damaged)).split_bytes(split_bytes);
            let error = read_source(&source, OnBadRow::Drop).unwrap_err();
            let told = "is damaged: it does not end in the file's sync marker";
            assert!(
                error.is_data() && error.to_string().contains(told),
                "{error}"
            );
        }
    }
    let mut damaged = whole.to_vec();
    damaged[ends[0] - 1] ^= 1;
    let error = read_source(&avro(folder.write(name, &damaged)), OnBadRow::Drop).unwrap_err();
    expect![[r#"
        file "FOLDER/deflate.avro": the block at byte 164 is damaged: it does not end in the file's sync marker
          Hint: Copy the file anew, or leave it out."#]].assert_eq(&folder.hide(error.to_string()));
}
