//! Keys as they are compared: -0.0 is 0.0, all NaN are one, dictionaries stand for their values.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray, StructArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Fields, Float16Type, Float32Type, Float64Type,
};

use crate::error::Result;

/// The type without dictionaries, outside and inside.
pub(crate) fn plain_type(data_type: &DataType) -> DataType {
    let field =
        |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(plain_type(f.data_type())));
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect::<Fields>()),
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(field(item), *n),
        other => other.clone(),
    }
}

/// True if values that are equal as keys may have different bits.
pub(crate) fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => has_floats(values),
        DataType::Struct(fields) => fields.iter().any(|f| has_floats(f.data_type())),
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
            has_floats(f.data_type())
        }
        other => other.is_floating(),
    }
}

/// The values with 0.0 for -0.0 and one NaN for all.
pub(crate) fn normal(values: &ArrayRef) -> Result<ArrayRef> {
    if !has_floats(values.data_type()) {
        return Ok(Arc::clone(values));
    }
    Ok(match values.data_type() {
        DataType::Float16 => floats::<Float16Type>(values, |x| {
            if x.is_nan() {
                Half::NAN
            } else {
                x + Half::ZERO
            }
        }),
        DataType::Float32 => {
            floats::<Float32Type>(values, |x| if x.is_nan() { f32::NAN } else { x + 0.0 })
        }
        DataType::Float64 => {
            floats::<Float64Type>(values, |x| if x.is_nan() { f64::NAN } else { x + 0.0 })
        }
        DataType::Struct(fields) => {
            let array = values.as_struct();
            let columns = array.columns().iter().map(normal).collect::<Result<_>>()?;
            Arc::new(StructArray::try_new(
                fields.clone(),
                columns,
                array.nulls().cloned(),
            )?)
        }
        DataType::List(item) => {
            let array = values.as_list::<i32>();
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Arc::new(ListArray::try_new(
                Arc::clone(item),
                offsets,
                normal(array.values())?,
                nulls,
            )?)
        }
        DataType::LargeList(item) => {
            let array = values.as_list::<i64>();
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Arc::new(LargeListArray::try_new(
                Arc::clone(item),
                offsets,
                normal(array.values())?,
                nulls,
            )?)
        }
        DataType::FixedSizeList(item, n) => {
            let array = values.as_fixed_size_list();
            let inner = normal(array.values())?;
            let nulls = array.nulls().cloned();
            Arc::new(FixedSizeListArray::try_new(
                Arc::clone(item),
                *n,
                inner,
                nulls,
            )?)
        }
        DataType::Dictionary(_, _) => {
            let array = values.as_any_dictionary();
            array.with_values(normal(array.values())?)
        }
        _ => Arc::clone(values),
    })
}

type Half = <Float16Type as ArrowPrimitiveType>::Native;

fn floats<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    to: impl Fn(T::Native) -> T::Native,
) -> ArrayRef {
    Arc::new(values.as_primitive::<T>().unary::<_, T>(to))
}
