//! Casts between types as ONNX nodes: what does not fit is null.

use arrow::datatypes::DataType;
use mainstem_engine::Result;

use super::{Lower, Lowered, element, lowered, refused};
use crate::expression::is_text;
use crate::onnx_graph::{ElementType, Value};

impl Lower<'_> {
    pub(super) fn cast(&mut self, input: Lowered, to: &DataType) -> Result<Lowered> {
        let from = input.data_type.clone();
        if from == *to || is_text(&from) && is_text(to) {
            return Ok(input);
        }
        if from == DataType::Null {
            let to = if is_text(to) { &DataType::Utf8 } else { to };
            let zero = self.zero(to);
            return Ok(lowered(zero, to.clone(), input.missing));
        }
        match (&from, to) {
            (_, DataType::UInt64) => Err(refused("a cast to UInt64")),
            (DataType::Boolean, text) if is_text(text) => {
                let (yes, no) = (self.graph.text("true"), self.graph.text("false"));
                let value = self.graph.select(&input.value, &yes, &no);
                Ok(lowered(value, DataType::Utf8, input.missing))
            }
            (integer, text) if integer.is_integer() && is_text(text) => {
                let value = self.graph.cast(&input.value, ElementType::String);
                Ok(lowered(value, DataType::Utf8, input.missing))
            }
            (from, DataType::Boolean) if !is_text(from) => {
                let zero = self.zero(from);
                let is_zero = self.graph.binary("Equal", &input.value, &zero);
                let value = self.graph.unary("Not", &is_zero);
                Ok(self.masked(value, input.missing))
            }
            (DataType::Boolean, to) if to.is_integer() => {
                let value = self.graph.cast(&input.value, ElementType::Int64);
                Ok(lowered(value, to.clone(), input.missing))
            }
            (from, to) if from.is_floating() && to.is_integer() => self.truncate(input, to),
            (from, to) if from.is_integer() && to.is_integer() => {
                let missing = self.out_of_range(&input, to);
                let missing = self.either(&input.missing, &missing);
                Ok(Lowered {
                    data_type: to.clone(),
                    missing,
                    ..input
                })
            }
            (from, DataType::Float64 | DataType::Float32) if !is_text(from) => {
                let value = self.graph.cast(&input.value, element(to));
                Ok(Lowered {
                    value,
                    data_type: to.clone(),
                    ..input
                })
            }
            _ => Err(refused(format!("a cast from {from} to {to}"))),
        }
    }

    fn truncate(&mut self, input: Lowered, to: &DataType) -> Result<Lowered> {
        let wide = self.graph.cast(&input.value, ElementType::Double);
        let (low, high) = bounds(to);
        // The bounds are those of the truncated value; 2^63 itself is the first float that is too large.
        let (low, high) = if *to == DataType::Int64 {
            (
                self.graph.double(-(2f64.powi(63))),
                self.graph.double(2f64.powi(63)),
            )
        } else {
            (
                self.graph.double(low as f64 - 1.0),
                self.graph.double(high as f64 + 1.0),
            )
        };
        let above = match to {
            DataType::Int64 => self.graph.binary("GreaterOrEqual", &wide, &low),
            _ => self.graph.binary("Greater", &wide, &low),
        };
        let below = self.graph.binary("Less", &wide, &high);
        let fits = self.graph.binary("And", &above, &below);
        let zero = self.graph.double(0.0);
        let safe = self.graph.select(&fits, &wide, &zero);
        let value = self.graph.cast(&safe, ElementType::Int64);
        let outside = self.graph.unary("Not", &fits);
        let missing = self.either(&input.missing, &Some(outside));
        Ok(lowered(value, to.clone(), missing))
    }

    fn out_of_range(&mut self, input: &Lowered, to: &DataType) -> Option<Value> {
        let ((from_low, from_high), (low, high)) = (bounds(&input.data_type), bounds(to));
        if from_low >= low && from_high <= high {
            return None;
        }
        let (low, high) = (self.graph.int64(low), self.graph.int64(high));
        let below = self.graph.binary("Less", &input.value, &low);
        let above = self.graph.binary("Greater", &input.value, &high);
        Some(self.graph.binary("Or", &below, &above))
    }
}

fn bounds(data_type: &DataType) -> (i64, i64) {
    match data_type {
        DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::UInt8 => (0, i64::from(u8::MAX)),
        DataType::UInt16 => (0, i64::from(u16::MAX)),
        DataType::UInt32 => (0, i64::from(u32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}
