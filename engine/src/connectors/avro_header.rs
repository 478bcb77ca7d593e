//! The header of an Avro file: its schema, the codec of its blocks, and the marker between them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};

use arrow::error::ArrowError;
use arrow_avro::compression::CompressionCodec;
use arrow_avro::reader::{HeaderInfo, read_header_info};
use serde_json::{Map, Value};

use super::avro_blocks::write_long;
use super::unharmed::unharmed;

/// No header is larger; the schema is in it.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// With more types written out a schema is left as it is: where each holds the one before twice, there is no end of them.
const MAX_WRITTEN_OUT: usize = 10_000;

const SYNC_BYTES: usize = 16;

/// What stands before the first block of a file.
pub(crate) struct AvroHeader {
    /// How long it is in the file.
    pub(crate) n_bytes: u64,
    pub(crate) sync: [u8; SYNC_BYTES],
    /// How blocks are compressed, or the name of a way that is not known.
    pub(crate) codec: Result<&'static str, String>,
    /// A header that says the same, as the library understands it.
    pub(crate) bytes: Vec<u8>,
}

impl AvroHeader {
    /// Reads the header off the beginning of a file.
    ///
    /// # Errors
    /// As the library says where it is no header.
    pub(crate) fn read(file: impl Read) -> Result<Self, ArrowError> {
        let mut taken = Taken {
            bytes: BufReader::new(file.take(MAX_HEADER_BYTES)),
            taken: Vec::new(),
        };
        let info = unharmed(|| Ok(read_header_info(&mut taken)?))?;
        let bytes = taken.taken;
        // What the library says of the marker is wrong where the marker stands across two of its reads.
        let Some((_, sync)) = bytes.split_last_chunk::<SYNC_BYTES>() else {
            return Err(ArrowError::ParseError("The header is too short".to_owned()));
        };
        let (sync, codec) = (*sync, codec(&info));
        let schema = info.writer_schema()?.json_string;
        let written_out = written_out(&schema).zip(codec.as_ref().ok());
        Ok(Self {
            n_bytes: bytes.len() as u64,
            bytes: match written_out {
                Some((schema, codec)) => written(&schema, codec, sync),
                None => bytes,
            },
            sync,
            codec,
        })
    }
}

/// The codec by its name in the format.
fn codec(info: &HeaderInfo) -> Result<&'static str, String> {
    match info.compression() {
        Ok(None) => Ok("null"),
        Ok(Some(CompressionCodec::Deflate)) => Ok("deflate"),
        Ok(Some(CompressionCodec::Snappy)) => Ok("snappy"),
        Ok(Some(CompressionCodec::ZStandard)) => Ok("zstandard"),
        Ok(Some(CompressionCodec::Bzip2)) => Err("\"bzip2\"".to_owned()),
        Ok(Some(CompressionCodec::Xz)) => Err("\"xz\"".to_owned()),
        Err(error) => Err(format!("another codec ({error})")),
    }
}

/// The schema with each type that is named again written out, as the library does not find it by its full name, such as
/// `org.example.Row`, nor where the column in which it was defined is not wanted. Nothing where no type is named again.
fn written_out(schema: &str) -> Option<String> {
    let mut schema: Value = serde_json::from_str(schema).ok()?;
    let mut names = Names::default();
    names.write_out(&mut schema, "");
    let is_any = names.n_written > 0 && names.n_written <= MAX_WRITTEN_OUT;
    let text = is_any.then(|| schema.to_string())?;
    // One that is nested too deeply now is not read by the library.
    serde_json::from_str::<Value>(&text).is_ok().then_some(text)
}

/// The types that were defined so far, by their full names, with those that they are made of written out.
#[derive(Default)]
struct Names {
    /// With how many types they are made of.
    defined: HashMap<String, (Value, usize)>,
    n_written: usize,
}

impl Names {
    /// Goes through a type and those that it is made of, and gives their number; what else stands there, such as a
    /// default, is no type.
    fn write_out(&mut self, schema: &mut Value, namespace: &str) -> usize {
        match schema {
            Value::String(name) => {
                let Some((definition, n)) = self.defined.get(&full_name(name, namespace)) else {
                    return 1;
                };
                self.n_written = self.n_written.saturating_add(*n);
                if self.n_written > MAX_WRITTEN_OUT {
                    return 1;
                }
                *schema = definition.clone();
                *n
            }
            Value::Array(branches) => {
                let each = branches.iter_mut();
                each.map(|branch| self.write_out(branch, namespace)).sum()
            }
            Value::Object(of_type) => match defined_name(of_type, namespace) {
                Some(name) => {
                    let namespace = name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
                    let fields = of_type.get_mut("fields").and_then(Value::as_array_mut);
                    let fields = fields.into_iter().flatten();
                    let types = fields.filter_map(|f| f.get_mut("type"));
                    let n: usize = types.map(|t| self.write_out(t, namespace)).sum();
                    let mut definition = of_type.clone();
                    // It will stand where another namespace may hold.
                    if !namespace.is_empty() && !is_full(of_type) {
                        definition.insert("namespace".to_owned(), namespace.into());
                    }
                    self.defined.insert(name, (definition.into(), n + 1));
                    n + 1
                }
                None => {
                    let mut n = 1;
                    for part in ["type", "items", "values"] {
                        if let Some(part) = of_type.get_mut(part) {
                            n += self.write_out(part, namespace);
                        }
                    }
                    n
                }
            },
            _ => 1,
        }
    }
}

/// The full name of the type that is defined here, if one is.
fn defined_name(of_type: &Map<String, Value>, namespace: &str) -> Option<String> {
    let text = |key: &str| of_type.get(key).and_then(Value::as_str);
    let is_named = ["record", "error", "enum", "fixed"].contains(&text("type")?);
    let namespace = text("namespace").unwrap_or(namespace);
    is_named.then(|| full_name(text("name").unwrap_or_default(), namespace))
}

/// True if the name itself says of which namespace it is.
fn is_full(of_type: &Map<String, Value>) -> bool {
    let name = of_type.get("name").and_then(Value::as_str);
    name.is_some_and(|name| name.contains('.'))
}

fn full_name(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

/// A header as the format has it: a map of two entries, and the marker.
fn written(schema: &str, codec: &str, sync: [u8; SYNC_BYTES]) -> Vec<u8> {
    let mut bytes = b"Obj\x01".to_vec();
    write_long(2, &mut bytes);
    for text in ["avro.schema", schema, "avro.codec", codec] {
        write_long(text.len() as i64, &mut bytes);
        bytes.extend_from_slice(text.as_bytes());
    }
    write_long(0, &mut bytes);
    bytes.extend_from_slice(&sync);
    bytes
}

/// Keeps the bytes that a parser has taken.
struct Taken<R> {
    bytes: R,
    taken: Vec<u8>,
}

impl<R: BufRead> Read for Taken<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let mut there = self.fill_buf()?;
        let n = there.read(bytes)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Taken<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.bytes.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        // What is consumed was filled before.
        if let Ok(there) = self.bytes.fill_buf() {
            self.taken.extend_from_slice(&there[..n.min(there.len())]);
        }
        self.bytes.consume(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_are_named_again_are_written_out_by_their_full_names() {
        let schema = |again: &str| {
            let defined = r#"{"type":"fixed","name":"F","size":2}"#;
            let inner = format!(
                r#"{{"type":"record","name":"x.R","fields":[{{"name":"f","type":{defined}}}]}}"#
            );
            let of = |name: &str, t: &str| format!(r#"{{"name":"{name}","type":{t}}}"#);
            let list = format!(r#"{{"type":"array","items":["null",{again}]}}"#);
            // A default is no type, though it is spelled like one.
            let fields = [
                of("a", &inner),
                of("b", &list),
                r#"{"name":"c","type":"string","default":"x.F"}"#.to_owned(),
            ];
            let fields = fields.join(",");
            format!(r#"{{"type":"record","name":"Rows","namespace":"y","fields":[{fields}]}}"#)
        };
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let expected = schema(r#"{"type":"fixed","name":"F","namespace":"x","size":2}"#);
        let found = written_out(&schema(r#""x.F""#)).unwrap();
        assert_eq!(json(&found), json(&expected));
        // Of its own namespace there is no F, and nothing else is named again.
        for none in [r#""F""#, r#""z.F""#, r#""long""#] {
            assert_eq!(written_out(&schema(none)), None);
        }
    }

    #[test]
    fn a_schema_that_would_grow_without_end_or_too_deep_is_left_as_it_is() {
        // Each record holds the type before so many times.
        let chain = |n_types: usize, n_fields: usize| {
            let mut fields =
                vec![r#"{"name":"f0","type":{"type":"fixed","name":"T0","size":1}}"#.to_owned()];
            for i in 1..=n_types {
                let before =
                    (0..n_fields).map(|f| format!(r#"{{"name":"g{f}","type":"T{}"}}"#, i - 1));
                let before = before.collect::<Vec<_>>().join(",");
                let record = format!(r#"{{"type":"record","name":"T{i}","fields":[{before}]}}"#);
                fields.push(format!(r#"{{"name":"f{i}","type":{record}}}"#));
            }
            let fields = fields.join(",");
            format!(r#"{{"type":"record","name":"Rows","fields":[{fields}]}}"#)
        };
        let small = written_out(&chain(3, 2)).unwrap();
        assert_eq!(small.matches(r#""T0""#).count(), 1 + 2 + 4 + 8);
        assert_eq!(written_out(&chain(60, 2)), None);
        assert!(written_out(&chain(20, 1)).is_some());
        assert_eq!(written_out(&chain(60, 1)), None);
    }
}
