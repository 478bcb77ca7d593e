//! Key columns as codes of a fixed size, equal where the keys are.
//!
//! ```text
//! one number, date, time, Boolean   the value's 8 bytes
//! one text, binary                  up to 12 bytes: length and bytes; longer: length, prefix, hash
//! anything else, several columns    arrow-row bytes, as a binary
//! ```
//!
//! A code of the first two forms up to 12 bytes *is* the key. Of longer ones the bytes are compared too.

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BooleanArray, PrimitiveArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion_expr::binary::comparison_coercion;

use crate::error::{Error, Result};

/// The type in which two keys are compared; `None` where they do not go together.
pub(in crate::ops) fn common_type(left: &DataType, right: &DataType) -> Option<DataType> {
    let (left, right) = (plain(left), plain(right));
    match (class(&left), class(&right)) {
        _ if left.equals_datatype(&right) => Some(left),
        (Class::Null, _) => Some(right),
        (_, Class::Null) => Some(left),
        (Class::Other, _) => None,
        (l, r) if l == r => comparison_coercion(&left, &right),
        _ => None,
    }
}

/// The type of the values, where a column only says which.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        other => other.clone(),
    }
}

pub(in crate::ops) fn can_hash(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => can_hash(values),
        DataType::RunEndEncoded(_, values) => can_hash(values.data_type()),
        // The entries of a map have no order.
        DataType::Map(..) | DataType::Union(..) => false,
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _) => can_hash(f.data_type()),
        DataType::Struct(fields) => fields.iter().all(|f| can_hash(f.data_type())),
        other => RowConverter::supports_fields(&[SortField::new(other.clone())]),
    }
}

/// Types whose values can be compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Null,
    Number,
    Text,
    Bytes,
    Moment,
    Time,
    Other,
}

fn class(data_type: &DataType) -> Class {
    match data_type {
        DataType::Null => Class::Null,
        t if t.is_numeric() => Class::Number,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Class::Text,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Class::Bytes,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Class::Moment,
        DataType::Time32(_) | DataType::Time64(_) => Class::Time,
        _ => Class::Other,
    }
}

/// How keys of these types become codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    Word,
    Bytes,
    Rows,
}

impl KeyForm {
    pub(super) fn of(types: &[DataType]) -> Self {
        match types {
            [t] if is_word(t) => Self::Word,
            [t] if matches!(class(t), Class::Text | Class::Bytes)
                && !matches!(t, DataType::FixedSizeBinary(_)) =>
            {
                Self::Bytes
            }
            _ => Self::Rows,
        }
    }
}

fn is_word(data_type: &DataType) -> bool {
    data_type == &DataType::Boolean
        || (data_type.primitive_width().is_some_and(|w| w <= 8)
            && !matches!(data_type, DataType::Interval(_)))
}

/// The keys of some rows.
pub(in crate::ops) enum Keys {
    Words(Vec<u64>, Option<NullBuffer>),
    Bytes(Vec<u128>, Option<NullBuffer>, KeyBytes),
}

impl Keys {
    /// Encodes key columns, which may be of other types than those in which they are compared.
    ///
    /// The type in which two are compared holds all values of one of them. So a value that it does not hold, such
    /// as a day of the year 9999 among moments in nanoseconds, is of the other and equal to none of the first:
    /// it stands here as null, which matches nothing either.
    pub(in crate::ops) fn encode(columns: &[ArrayRef], types: &[DataType]) -> Result<Self> {
        Self::encode_as(columns, types, &CastOptions::default())
    }

    /// Encodes key columns of which the result has one for both sides, of the type in which they are compared.
    ///
    /// # Errors
    /// If a value is beyond that type.
    pub(super) fn encode_all(columns: &[ArrayRef], types: &[DataType]) -> Result<Self> {
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        Self::encode_as(columns, types, &strict)
    }

    fn encode_as(
        columns: &[ArrayRef],
        types: &[DataType],
        options: &CastOptions<'_>,
    ) -> Result<Self> {
        let columns: Vec<ArrayRef> = columns
            .iter()
            .zip(types)
            .map(|(column, to)| match column.data_type() == to {
                true => Ok(ArrayRef::clone(column)),
                false => cast_with_options(column, to, options).map_err(|e| {
                    Error::data(format!(
                        "a key does not fit {to}, in which both are compared"
                    ))
                    .with_detail(e.to_string())
                    .with_hint("Give the keys two names, or bring both to one type with `cast`.")
                }),
            })
            .collect::<Result<_>>()?;
        let nulls = columns.iter().fold(None, |nulls, column| {
            NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
        });
        let nulls = nulls.filter(|n| n.null_count() > 0);
        match (KeyForm::of(types), columns.as_slice()) {
            (KeyForm::Word, [column]) => Ok(Self::Words(words(column), nulls)),
            (KeyForm::Bytes, [column]) => {
                let bytes = KeyBytes::Column(ArrayRef::clone(column));
                Ok(Self::Bytes(codes_of(column), nulls, bytes))
            }
            _ => {
                let fields = types.iter().cloned().map(SortField::new).collect();
                let columns: Vec<ArrayRef> = columns.iter().map(one_zero).collect::<Result<_>>()?;
                let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
                let codes = rows.iter().map(|row| code(row.as_ref())).collect();
                Ok(Self::Bytes(codes, nulls, KeyBytes::Rows(rows)))
            }
        }
    }
}

/// The bytes behind codes.
pub(in crate::ops) enum KeyBytes {
    Column(ArrayRef),
    Rows(Rows),
}

impl KeyBytes {
    pub(in crate::ops) fn value(&self, row: usize) -> &[u8] {
        match self {
            Self::Rows(rows) => rows.row(row).data(),
            Self::Column(column) => match column.data_type() {
                DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes(),
                DataType::LargeUtf8 => column.as_string::<i64>().value(row).as_bytes(),
                DataType::Utf8View => column.as_string_view().value(row).as_bytes(),
                DataType::Binary => column.as_binary::<i32>().value(row),
                DataType::LargeBinary => column.as_binary::<i64>().value(row),
                _ => column.as_binary_view().value(row),
            },
        }
    }
}

/// Keys up to this length are wholly in their code.
const INLINE: usize = 12;

/// The code of a key of bytes.
pub(super) fn code(bytes: &[u8]) -> u128 {
    let mut code = [0u8; 16];
    // Codes of keys that long are compared by their bytes too.
    let n = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    code[..4].copy_from_slice(&n.to_le_bytes());
    if bytes.len() <= INLINE {
        code[4..4 + bytes.len()].copy_from_slice(bytes);
    } else {
        code[4..8].copy_from_slice(&bytes[..4]);
        code[8..].copy_from_slice(&farmhash::fingerprint64(bytes).to_le_bytes());
    }
    u128::from_le_bytes(code)
}

/// True if the code does not hold the whole key.
pub(in crate::ops) fn is_long(code: u128) -> bool {
    code as u32 as usize > INLINE
}

fn codes_of(column: &ArrayRef) -> Vec<u128> {
    fn all<'a>(values: impl Iterator<Item = Option<&'a [u8]>>) -> Vec<u128> {
        values.map(|v| v.map_or(0, code)).collect()
    }
    match column.data_type() {
        DataType::Utf8 => all(column
            .as_string::<i32>()
            .iter()
            .map(|v| v.map(str::as_bytes))),
        DataType::LargeUtf8 => all(column
            .as_string::<i64>()
            .iter()
            .map(|v| v.map(str::as_bytes))),
        DataType::Utf8View => all(column.as_string_view().iter().map(|v| v.map(str::as_bytes))),
        DataType::Binary => all(column.as_binary::<i32>().iter()),
        DataType::LargeBinary => all(column.as_binary::<i64>().iter()),
        _ => all(column.as_binary_view().iter()),
    }
}

/// Each value as 8 bytes, equal where the values are: integers keep their differences.
fn words(column: &ArrayRef) -> Vec<u64> {
    fn all<T: ArrowPrimitiveType>(column: &ArrayRef, word: impl Fn(T::Native) -> u64) -> Vec<u64> {
        let values = column.as_primitive::<T>().values();
        values.iter().map(|v| word(*v)).collect()
    }
    macro_rules! signed {
        ($t:ty) => {
            all::<$t>(column, |v| i64::from(v).cast_unsigned())
        };
    }
    use DataType as D;
    match column.data_type() {
        D::Int8 => signed!(Int8Type),
        D::Int16 => signed!(Int16Type),
        D::Int32 => signed!(Int32Type),
        D::Int64 => signed!(Int64Type),
        D::UInt8 => all::<UInt8Type>(column, u64::from),
        D::UInt16 => all::<UInt16Type>(column, u64::from),
        D::UInt32 => all::<UInt32Type>(column, u64::from),
        D::UInt64 => all::<UInt64Type>(column, |v| v),
        D::Float16 => all::<Float16Type>(column, |v| float_word(v.to_f64())),
        D::Float32 => all::<Float32Type>(column, |v| float_word(f64::from(v))),
        D::Float64 => all::<Float64Type>(column, float_word),
        D::Date32 => signed!(Date32Type),
        D::Date64 => signed!(Date64Type),
        D::Decimal32(..) => signed!(Decimal32Type),
        D::Decimal64(..) => signed!(Decimal64Type),
        D::Time32(TimeUnit::Second) => signed!(Time32SecondType),
        D::Time32(_) => signed!(Time32MillisecondType),
        D::Time64(TimeUnit::Microsecond) => signed!(Time64MicrosecondType),
        D::Time64(_) => signed!(Time64NanosecondType),
        D::Timestamp(TimeUnit::Second, _) => signed!(TimestampSecondType),
        D::Timestamp(TimeUnit::Millisecond, _) => signed!(TimestampMillisecondType),
        D::Timestamp(TimeUnit::Microsecond, _) => signed!(TimestampMicrosecondType),
        D::Timestamp(TimeUnit::Nanosecond, _) => signed!(TimestampNanosecondType),
        D::Duration(TimeUnit::Second) => signed!(DurationSecondType),
        D::Duration(TimeUnit::Millisecond) => signed!(DurationMillisecondType),
        D::Duration(TimeUnit::Microsecond) => signed!(DurationMicrosecondType),
        D::Duration(TimeUnit::Nanosecond) => signed!(DurationNanosecondType),
        _ => {
            let values: &BooleanArray = column.as_boolean();
            values.values().iter().map(u64::from).collect()
        }
    }
}

/// The bits of a number, with one zero and one NaN.
fn float_word(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        (value + 0.0).to_bits()
    }
}

/// The column with one zero and one NaN among its floats, nested ones too.
pub(in crate::ops) fn one_zero(column: &ArrayRef) -> Result<ArrayRef> {
    if !has_floats(column.data_type()) {
        return Ok(ArrayRef::clone(column));
    }
    Ok(make_array(with_one_zero(column.to_data())?))
}

fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        t if t.is_floating() => true,
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _) => has_floats(f.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_floats(f.data_type())),
        DataType::Dictionary(_, values) => has_floats(values),
        DataType::RunEndEncoded(_, values) => has_floats(values.data_type()),
        _ => false,
    }
}

fn with_one_zero(data: ArrayData) -> Result<ArrayData> {
    fn all<T: ArrowPrimitiveType>(
        data: ArrayData,
        one: impl Fn(T::Native) -> T::Native,
    ) -> ArrayData {
        PrimitiveArray::<T>::from(data)
            .unary::<_, T>(one)
            .into_data()
    }
    match data.data_type() {
        // `x + 0.0` is 0.0 for both zeros.
        DataType::Float16 => Ok(all::<Float16Type>(data, |v| match v.is_nan() {
            true => <Float16Type as ArrowPrimitiveType>::Native::NAN,
            false => v + <Float16Type as ArrowPrimitiveType>::Native::ZERO,
        })),
        DataType::Float32 => Ok(all::<Float32Type>(data, |v| {
            if v.is_nan() { f32::NAN } else { v + 0.0 }
        })),
        DataType::Float64 => Ok(all::<Float64Type>(data, |v| {
            if v.is_nan() { f64::NAN } else { v + 0.0 }
        })),
        t if has_floats(t) => {
            let children = data.child_data().iter().cloned().map(with_one_zero);
            let children = children.collect::<Result<Vec<_>>>()?;
            Ok(data.into_builder().child_data(children).build()?)
        }
        _ => Ok(data),
    }
}
