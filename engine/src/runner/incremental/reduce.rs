//! The aggregates of one key, from the bytes of its values.
//!
//! The values of an aggregate come as arrow-row writes them, whose order is that of the values: so the least is
//! the first, and results are written in the same form.

use std::borrow::Cow;
use std::collections::BTreeSet;

use arrow::datatypes::DataType;

use super::row::RowBytes;
use crate::error::{Error, Result};
use crate::ops::{End, Retraction};

/// The first byte of a null.
const NULL: u8 = 0;
/// The first byte of a value of fixed width.
const VALID: u8 = 1;

/// The values of several aggregates as one byte string: each after its length.
pub(super) fn join_values(values: &[&RowBytes]) -> RowBytes {
    if let [one] = values {
        return (*one).clone();
    }
    let lengths: Vec<[u8; 4]> = values
        .iter()
        .map(|value| {
            u32::try_from(value.bytes().len())
                .unwrap_or(u32::MAX)
                .to_be_bytes()
        })
        .collect();
    let parts = lengths.iter().zip(values);
    RowBytes::of_parts(parts.flat_map(|(length, value)| [&length[..], value.bytes()]))
}

/// Value `n` of `n_values` that were joined.
fn value(joined: &[u8], n: usize, n_values: usize) -> &[u8] {
    if n_values == 1 {
        return joined;
    }
    let mut rest = joined;
    for _ in 0..n {
        let (_, others) = split(rest);
        rest = others;
    }
    split(rest).0
}

fn split(joined: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = joined.split_first_chunk::<4>() else {
        return (&[], &[]);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.split_at_checked(length).unwrap_or((rest, &[]))
}

/// The results of all aggregates over the values of one key, one after the other. The values are sorted, and
/// each comes with how often it is there.
pub(super) fn reduce(
    retractions: &[Retraction],
    nulls: &[RowBytes],
    input: &[(&RowBytes, isize)],
) -> Result<RowBytes> {
    let n_values = retractions.len();
    let result = |n: usize| {
        let there = input.iter().filter_map(|(joined, times)| {
            let value = value(joined.bytes(), n, n_values);
            let is_value = value.first().is_some_and(|first| *first != NULL);
            is_value.then_some((value, *times))
        });
        one(&retractions[n], there, nulls[n].bytes(), n_values == 1)
    };
    // Most groups of loops have one value, such as the least, which is one of those there.
    if n_values == 1 {
        return Ok(RowBytes::new(&result(0)?));
    }
    let results = (0..n_values).map(result).collect::<Result<Vec<_>>>()?;
    Ok(RowBytes::of_parts(results.iter().map(|result| &**result)))
}

fn one<'a>(
    retraction: &Retraction,
    mut there: impl Iterator<Item = (&'a [u8], isize)>,
    null: &'a [u8],
    is_sorted: bool,
) -> Result<Cow<'a, [u8]>> {
    let made = match retraction {
        Retraction::Count => {
            let n: isize = there.map(|(_, times)| times).sum();
            int64(i64::try_from(n).unwrap_or(i64::MAX))
        }
        Retraction::DistinctCount(_) => {
            let distinct: BTreeSet<&[u8]> = there
                .filter(|(_, times)| *times > 0)
                .map(|(value, _)| value)
                .collect();
            int64(i64::try_from(distinct.len()).unwrap_or(i64::MAX))
        }
        Retraction::Extreme(end, _) => {
            let mut values = there
                .filter(|(_, times)| *times > 0)
                .map(|(value, _)| value);
            let best = match end {
                End::Least if is_sorted => values.next(),
                End::Least => values.min(),
                End::Greatest if is_sorted => values.last(),
                End::Greatest => values.max(),
            };
            return Ok(best.unwrap_or(null).into());
        }
        Retraction::First(..) => return Err(Error::bug("a relation has no first rows")),
        Retraction::IntegerSum(data_type) => {
            let (mut sum, mut n) = (0_i128, 0);
            for (value, times) in there {
                sum += integer(value, data_type)? * times as i128;
                n += times;
            }
            match n {
                0 => return Ok(null.into()),
                _ => sum_of_integers(sum, data_type)?,
            }
        }
        Retraction::FloatSum | Retraction::Average => {
            let (mut sum, mut n) = (0.0, 0_isize);
            for (value, times) in there.by_ref() {
                #[expect(clippy::cast_precision_loss, reason = "a sum of floats is rounded")]
                let times_f = times as f64;
                sum += float(value)? * times_f;
                n += times;
            }
            #[expect(clippy::cast_precision_loss, reason = "a mean is a float")]
            let n_f = n as f64;
            match (n, retraction) {
                (0, _) => return Ok(null.into()),
                (_, Retraction::Average) => float64(sum / n_f),
                _ => float64(sum),
            }
        }
    };
    Ok(made.into())
}

fn torn() -> Error {
    Error::bug("the bytes of a value are torn")
}

fn eight(value: &[u8]) -> Result<[u8; 8]> {
    value
        .get(1..9)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(torn)
}

fn integer(value: &[u8], data_type: &DataType) -> Result<i128> {
    let bits = u64::from_be_bytes(eight(value)?);
    Ok(match data_type {
        DataType::UInt64 => i128::from(bits),
        _ => i128::from((bits ^ (1 << 63)).cast_signed()),
    })
}

fn sum_of_integers(sum: i128, data_type: &DataType) -> Result<Vec<u8>> {
    let overflow = || {
        Error::data(format!("a sum does not fit {data_type}"))
            .with_hint("Cast the values to Float64 before they are summed.")
    };
    Ok(match data_type {
        DataType::UInt64 => with_mark(u64::try_from(sum).map_err(|_| overflow())?),
        _ => int64(i64::try_from(sum).map_err(|_| overflow())?),
    })
}

fn int64(value: i64) -> Vec<u8> {
    with_mark(value.cast_unsigned() ^ (1 << 63))
}

fn with_mark(bits: u64) -> Vec<u8> {
    let mut bytes = vec![VALID];
    bytes.extend(bits.to_be_bytes());
    bytes
}

/// Floats are written so that their bits are ordered as integers.
fn float(value: &[u8]) -> Result<f64> {
    let bits = u64::from_be_bytes(eight(value)?) ^ (1 << 63);
    let bits = bits.cast_signed();
    let bits = bits ^ (((bits >> 63).cast_unsigned()) >> 1).cast_signed();
    Ok(f64::from_bits(bits.cast_unsigned()))
}

fn float64(value: f64) -> Vec<u8> {
    let value = if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    };
    let bits = value.to_bits().cast_signed();
    let bits = bits ^ (((bits >> 63).cast_unsigned()) >> 1).cast_signed();
    int64(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::incremental::codec::RowCodec;
    use arrow::array::{ArrayRef, Float64Array, Int64Array};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn bytes_of(column: ArrayRef) -> Vec<u8> {
        let codec = RowCodec::new([column.data_type().clone()]).unwrap();
        codec.encode(&[column], 1).unwrap()[0].bytes().to_vec()
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_arrow_writes_them(n in any::<i64>(), x in any::<f64>()) {
            let as_int = bytes_of(Arc::new(Int64Array::from(vec![n])));
            prop_assert_eq!(&int64(n), &as_int);
            prop_assert_eq!(integer(&as_int, &DataType::Int64).unwrap(), i128::from(n));
            let as_float = bytes_of(Arc::new(Float64Array::from(vec![x])));
            prop_assert_eq!(&float64(x), &as_float);
            let back = float(&as_float).unwrap();
            prop_assert!(back == x || (back.is_nan() && x.is_nan()));
        }
    }

    #[test]
    fn joined_values_come_apart() {
        let parts: Vec<RowBytes> = [&[1u8, 2][..], &[], &[3]].map(RowBytes::new).to_vec();
        let joined = join_values(&parts.iter().collect::<Vec<_>>());
        let apart: Vec<&[u8]> = (0..3).map(|n| value(joined.bytes(), n, 3)).collect();
        assert_eq!(apart, [&[1u8, 2][..], &[], &[3]]);
    }
}
