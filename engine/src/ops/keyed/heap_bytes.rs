//! How much memory a value holds besides itself, found by walking over it as if it were written.

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// How many bytes a value holds on the heap, about: the length of its texts and the items of its lists.
///
/// Costs nothing for numbers, which hold none.
pub(super) fn heap_bytes<T: Serialize + ?Sized>(value: &T) -> usize {
    // Nothing is written, so nothing can fail.
    value.serialize(Counter).unwrap_or(0)
}

/// The value itself and what it holds.
pub(super) fn bytes_of<T: Serialize>(value: &T) -> usize {
    size_of::<T>() + heap_bytes(value)
}

/// An item of a list lies on the heap, a field of a struct in the struct.
const ITEM: usize = 8;

#[derive(Clone, Copy)]
struct Counter;

#[derive(Debug)]
struct Never;

impl std::fmt::Display for Never {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value cannot be walked over")
    }
}

impl std::error::Error for Never {}

impl Error for Never {
    fn custom<T: std::fmt::Display>(_message: T) -> Self {
        Self
    }
}

macro_rules! nothing {
    ($($method:ident: $of:ty),* $(,)?) => {$(
        #[inline]
        fn $method(self, _value: $of) -> Result<usize, Never> {
            Ok(0)
        }
    )*};
}

impl Serializer for Counter {
    type Ok = usize;
    type Error = Never;
    type SerializeSeq = Sum;
    type SerializeTuple = Sum;
    type SerializeTupleStruct = Sum;
    type SerializeTupleVariant = Sum;
    type SerializeMap = Sum;
    type SerializeStruct = Sum;
    type SerializeStructVariant = Sum;

    nothing!(
        serialize_bool: bool, serialize_char: char,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_f32: f32, serialize_f64: f64, serialize_unit_struct: &'static str,
    );

    fn serialize_str(self, value: &str) -> Result<usize, Never> {
        Ok(value.len())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<usize, Never> {
        Ok(value.len())
    }

    fn serialize_none(self) -> Result<usize, Never> {
        Ok(0)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<usize, Never> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<usize, Never> {
        Ok(0)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<usize, Never> {
        Ok(0)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<usize, Never> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<usize, Never> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Sum, Never> {
        Ok(Sum {
            total: 0,
            item: ITEM,
        })
    }

    fn serialize_tuple(self, _: usize) -> Result<Sum, Never> {
        Ok(Sum::default())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Sum, Never> {
        Ok(Sum::default())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Sum, Never> {
        Ok(Sum::default())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Sum, Never> {
        Ok(Sum {
            total: 0,
            item: ITEM,
        })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Sum, Never> {
        Ok(Sum::default())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Sum, Never> {
        Ok(Sum::default())
    }
}

/// The sum over the parts of a value.
#[derive(Default)]
struct Sum {
    total: usize,
    item: usize,
}

impl Sum {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
        self.total += self.item + value.serialize(Counter)?;
        Ok(())
    }
}

macro_rules! parts {
    ($($of:ident: $method:ident),* $(,)?) => {$(
        impl $of for Sum {
            type Ok = usize;
            type Error = Never;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
                self.add(value)
            }

            fn end(self) -> Result<usize, Never> {
                Ok(self.total)
            }
        }
    )*};
}
parts!(
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
);

macro_rules! fields {
    ($($of:ident),*) => {$(
        impl $of for Sum {
            type Ok = usize;
            type Error = Never;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), Never> {
                self.add(value)
            }

            fn end(self) -> Result<usize, Never> {
                Ok(self.total)
            }
        }
    )*};
}
fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Sum {
    type Ok = usize;
    type Error = Never;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Never> {
        self.add(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Never> {
        self.add(value)
    }

    fn end(self) -> Result<usize, Never> {
        Ok(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;
    use std::collections::BTreeMap;

    #[derive(Serialize)]
    struct Order {
        id: i64,
        item: String,
        prices: Vec<f64>,
        note: Option<String>,
    }

    #[test]
    fn texts_and_items_count_and_numbers_do_not() {
        assert_eq!(heap_bytes(&7i64), 0);
        assert_eq!(heap_bytes("seven"), 5);
        let order = Order {
            id: 1,
            item: "tea".into(),
            prices: vec![1.0, 2.0],
            note: Some("hot".into()),
        };
        assert_eq!(heap_bytes(&order), 3 + 16 + 3);
        assert_eq!(heap_bytes(&BTreeMap::from([("a".to_owned(), 1)])), 17);
    }
}
