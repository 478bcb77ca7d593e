//! A summary of each column: how many values, how many distinct, least, greatest, mean and spread.

mod distinct;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::array_value_to_string;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use datafusion_common::ScalarValue;
use datafusion_expr::Accumulator;
use datafusion_functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use serde_json::Value;

use self::distinct::{COUNT_BYTES, Distinct};
use crate::analyzer::{Analysis, Analyzer, DynAnalyzer};
use crate::artifact::{ArtifactId, ArtifactRef, Artifacts};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::keys::normal;
use crate::output::Output;
use crate::pipeline::Collection;
use crate::plan::{Learned, Lowered, Place};
use crate::transform::{Description, Operator, Properties, Transform, Watermark};

/// Summarises each column in one pass.
///
/// As an [`Analysis`] it ends in a [`Summary`], which prints as a table; of no rows at all it knows no
/// columns. By [`Collection::describe`] it is a collection with a row per column.
///
/// Null is no value. Means and deviations are those of numbers, taken in 64-bit floats; the deviation
/// is that of a sample (divisor n - 1) and null for fewer than two values. Nested and binary columns have
/// neither least nor greatest; NaN is greater than every number. How many values are distinct is an estimate by
/// HyperLogLog, off by 0.8 % as a rule and near exact for few: -0.0 is 0.0, and all NaN are one. It is null for maps
/// and unions.
#[derive(Clone, Debug, Default)]
pub struct Describe {
    /// The columns, where they are known while planning.
    schema: Option<SchemaRef>,
}

impl Describe {
    /// A summary of all columns.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What [`Describe`] learns.
#[derive(Debug)]
pub struct Summary {
    columns: Vec<ColumnSummary>,
    /// Set by the first operator of a phase to give the rows.
    given: Mutex<Weak<AtomicBool>>,
}

/// The summary of one column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnSummary {
    /// The column's name.
    pub column: String,
    /// Its type.
    pub data_type: DataType,
    /// How many values it has.
    pub count: u64,
    /// How many of its values are null.
    pub nulls: u64,
    /// About how many of its values are distinct.
    pub distinct: Option<u64>,
    /// The least value, as text.
    pub min: Option<String>,
    /// The greatest value, as text.
    pub max: Option<String>,
    /// The mean of the numbers.
    pub mean: Option<f64>,
    /// The standard deviation of the numbers, with the divisor n - 1.
    pub std_dev: Option<f64>,
}

impl Summary {
    /// The columns, in the order of the rows' schema.
    pub fn columns(&self) -> &[ColumnSummary] {
        &self.columns
    }

    /// A row per column: `column`, `type`, `count`, `nulls`, `distinct`, `min`, `max`, `mean`, `std_dev`.
    ///
    /// # Errors
    /// None that is known of.
    pub fn rows(&self) -> Result<RecordBatch> {
        let text = |of: fn(&ColumnSummary) -> Option<String>| -> ArrayRef {
            Arc::new(self.columns.iter().map(of).collect::<StringArray>())
        };
        let count = |of: fn(&ColumnSummary) -> Option<u64>| -> ArrayRef {
            let counts = self.columns.iter().map(|c| i64::try_from(of(c)?).ok());
            Arc::new(counts.collect::<Int64Array>())
        };
        let number = |of: fn(&ColumnSummary) -> Option<f64>| -> ArrayRef {
            Arc::new(self.columns.iter().map(of).collect::<Float64Array>())
        };
        let columns = vec![
            text(|c| Some(c.column.clone())),
            text(|c| Some(c.data_type.to_string())),
            count(|c| Some(c.count)),
            count(|c| Some(c.nulls)),
            count(|c| c.distinct),
            text(|c| c.min.clone()),
            text(|c| c.max.clone()),
            number(|c| c.mean),
            number(|c| c.std_dev),
        ];
        Ok(RecordBatch::try_new(summary_schema(), columns)?)
    }
}

fn summary_schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType, nullable| Field::new(name, data_type, nullable);
    Arc::new(Schema::new(vec![
        field("column", DataType::Utf8, false),
        field("type", DataType::Utf8, false),
        field("count", DataType::Int64, false),
        field("nulls", DataType::Int64, false),
        field("distinct", DataType::Int64, true),
        field("min", DataType::Utf8, true),
        field("max", DataType::Utf8, true),
        field("mean", DataType::Float64, true),
        field("std_dev", DataType::Float64, true),
    ]))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "column", "type", "count", "nulls", "distinct", "min", "max", "mean", "std_dev",
        ]);
        for c in &self.columns {
            let number = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.6}"));
            table.add_row([
                c.column.clone(),
                c.data_type.to_string(),
                c.count.to_string(),
                c.nulls.to_string(),
                c.distinct.map_or_else(String::new, |n| n.to_string()),
                c.min.clone().unwrap_or_default(),
                c.max.clone().unwrap_or_default(),
                number(c.mean),
                number(c.std_dev),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{}", table.trim_fmt())
    }
}

impl Collection {
    /// A row per column: `column`, `type`, `count`, `nulls`, `distinct`, `min`, `max`, `mean`, `std_dev`; see [`Describe`].
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, connectors, testing::{show, table}};
    /// let pipeline = Pipeline::new("people");
    /// let rows = pipeline.read("people", connectors::from_record_batches(vec![table("age: 10, 30, null; name: a, b, c")]));
    /// let (sink, summary) = connectors::collect();
    /// rows.describe().write(sink);
    /// pipeline.run(&RunOptions::new())?;
    /// assert_eq!(show(&summary.take()[0]), "\
    /// column: 'age', 'name'
    /// type: 'Int64', 'Utf8'
    /// count: 2, 3
    /// nulls: 1, 0
    /// distinct: 2, 3
    /// min: '10', 'a'
    /// max: '30', 'c'
    /// mean: 20.0, null
    /// std_dev: 14.142135623730951, null");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn describe(&self) -> Collection {
        self.apply(Describe::new())
    }
}

impl Analysis for Describe {
    fn describe(&self) -> Description {
        Description::new("describe", Value::Null)
    }

    fn check(&self, _input: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Arc<dyn DynAnalyzer>> {
        Ok(Arc::new(self.clone()))
    }
}

/// What has been seen of a column.
#[derive(Debug)]
pub struct Seen {
    column: String,
    data_type: DataType,
    count: u64,
    nulls: u64,
    distinct: Option<Distinct>,
    ends: Option<(MinAccumulator, MaxAccumulator)>,
    /// The number of values, their mean, and the sum of the squared distances from it.
    moments: Option<(f64, f64, f64)>,
}

fn is_ordered(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_ordered(values),
        t => {
            t.is_numeric()
                || t.is_temporal() && !matches!(t, DataType::Interval(_))
                || matches!(
                    t,
                    DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
                )
        }
    }
}

impl Seen {
    fn nothing(field: &Field) -> Result<Self> {
        let data_type = field.data_type();
        let ends = match is_ordered(data_type) {
            true => Some((
                MinAccumulator::try_new(data_type).map_err(failed)?,
                MaxAccumulator::try_new(data_type).map_err(failed)?,
            )),
            false => None,
        };
        Ok(Self {
            column: field.name().clone(),
            data_type: data_type.clone(),
            count: 0,
            nulls: 0,
            distinct: Distinct::nothing(data_type),
            ends,
            moments: data_type.is_numeric().then_some((0.0, 0.0, 0.0)),
        })
    }

    fn add(&mut self, column: &ArrayRef) -> Result<()> {
        let nulls = column.logical_null_count();
        self.nulls += nulls as u64;
        self.count += (column.len() - nulls) as u64;
        if let Some(distinct) = &mut self.distinct {
            distinct.add(column)?;
        }
        self.add_ends(column)?;
        if let Some((n, mean, squares)) = &mut self.moments {
            let numbers = cast(column, &DataType::Float64)?;
            // One after the other, so that the bits do not depend on how rows are cut into batches.
            for x in numbers.as_primitive::<Float64Type>().iter().flatten() {
                *n += 1.0;
                let before = x - *mean;
                *mean += before / *n;
                *squares += before * (x - *mean);
            }
        }
        Ok(())
    }

    fn add_ends(&mut self, column: &ArrayRef) -> Result<()> {
        if let Some((min, max)) = &mut self.ends {
            // One NaN, which is greater than every number, and one zero.
            let column = match column.data_type().is_floating() {
                true => &normal(column)?,
                false => column,
            };
            let column = std::slice::from_ref(column);
            min.update_batch(column).map_err(failed)?;
            max.update_batch(column).map_err(failed)?;
        }
        Ok(())
    }

    fn merge(&mut self, mut other: Self) -> Result<()> {
        self.count += other.count;
        self.nulls += other.nulls;
        if let (Some(distinct), Some(other)) = (&mut self.distinct, &other.distinct) {
            distinct.merge(&other.state()?)?;
        }
        if let Some((min, max)) = &mut other.ends {
            for end in [min.evaluate(), max.evaluate()] {
                self.add_ends(&end.and_then(|e| e.to_array()).map_err(failed)?)?;
            }
        }
        if let (Some((n, mean, squares)), Some((m, other_mean, other_squares))) =
            (&mut self.moments, other.moments)
            && m > 0.0
        {
            let total = *n + m;
            let apart = other_mean - *mean;
            *squares += other_squares + apart * apart * *n * m / total;
            *mean += apart * m / total;
            *n = total;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ColumnSummary> {
        let text = |end: datafusion_common::Result<ScalarValue>| -> Result<Option<String>> {
            let end = end.map_err(failed)?;
            match end.is_null() {
                true => Ok(None),
                false => {
                    let value = end.to_array().map_err(failed)?;
                    Ok(Some(array_value_to_string(&value, 0)?))
                }
            }
        };
        let (min, max) = match &mut self.ends {
            Some((min, max)) => (text(min.evaluate())?, text(max.evaluate())?),
            None => (None, None),
        };
        let moments = self.moments.filter(|(n, ..)| *n > 0.0);
        Ok(ColumnSummary {
            column: self.column,
            data_type: self.data_type,
            count: self.count,
            nulls: self.nulls,
            distinct: match &mut self.distinct {
                Some(distinct) => Some(distinct.count()?),
                None => None,
            },
            min,
            max,
            mean: moments.map(|(_, mean, _)| mean),
            std_dev: moments
                .filter(|(n, ..)| *n > 1.0)
                .map(|(n, _, squares)| (squares / (n - 1.0)).sqrt()),
        })
    }
}

fn failed(error: datafusion_common::DataFusionError) -> Error {
    Error::data("a column cannot be summarised")
        .with_detail(format!("{}.", error.strip_backtrace()))
        .with_source(error)
}

impl Analyzer for Describe {
    type Accumulator = Vec<Seen>;
    type Output = Summary;

    fn create_accumulator(&self) -> Vec<Seen> {
        Vec::new()
    }

    fn add(&self, accumulator: &mut Vec<Seen>, rows: &RecordBatch) -> Result<()> {
        if accumulator.is_empty() {
            let fields = rows.schema();
            let seen = fields.fields().iter().map(|f| Seen::nothing(f));
            *accumulator = seen.collect::<Result<_>>()?;
        }
        for (seen, column) in accumulator.iter_mut().zip(rows.columns()) {
            seen.add(column)?;
        }
        Ok(())
    }

    fn merge(&self, accumulator: &mut Vec<Seen>, other: Vec<Seen>) -> Result<()> {
        if accumulator.is_empty() {
            *accumulator = other;
            return Ok(());
        }
        for (seen, other) in accumulator.iter_mut().zip(other) {
            seen.merge(other)?;
        }
        Ok(())
    }

    fn finish(&self, mut accumulator: Vec<Seen>) -> Result<Summary> {
        if let (true, Some(schema)) = (accumulator.is_empty(), &self.schema) {
            let seen = schema.fields().iter().map(|f| Seen::nothing(f));
            accumulator = seen.collect::<Result<_>>()?;
        }
        let columns = accumulator.into_iter().map(Seen::finish);
        Ok(Summary {
            columns: columns.collect::<Result<_>>()?,
            given: Mutex::default(),
        })
    }

    fn accumulator_bytes(&self, accumulator: &Vec<Seen>) -> u64 {
        accumulator.len() as u64 * COUNT_BYTES
    }

    /// A column for each, with two rows, the least and the greatest values, and one with what was counted of
    /// distinct ones; the counts and moments stand in the fields' metadata.
    fn save(&self, accumulator: &Vec<Seen>) -> Result<RecordBatch> {
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for seen in accumulator {
            let (n, mean, squares) = seen.moments.unwrap_or_default();
            let counts = [
                seen.count,
                seen.nulls,
                n.to_bits(),
                mean.to_bits(),
                squares.to_bits(),
            ];
            let saved = counts.map(|c| c.to_string()).join(" ");
            let field = Field::new(&seen.column, seen.data_type.clone(), true);
            fields.push(field.with_metadata([(SEEN.to_owned(), saved)].into()));
            columns.push(match &seen.ends {
                Some((min, max)) => {
                    let end = |state: datafusion_common::Result<ScalarValue>| {
                        state.and_then(|s| s.to_array()).map_err(failed)
                    };
                    let (mut min, mut max) = (min.clone(), max.clone());
                    let ends = [end(min.evaluate())?, end(max.evaluate())?];
                    arrow::compute::concat(&[&*ends[0], &*ends[1]])?
                }
                None => new_null_array(&seen.data_type, 2),
            });
        }
        for seen in accumulator {
            let state = match &seen.distinct {
                Some(distinct) => {
                    let state = distinct.state()?;
                    let none = new_null_array(state.data_type(), 1);
                    arrow::compute::concat(&[&*state, &*none])?
                }
                None => new_null_array(&DataType::Null, 2),
            };
            fields.push(Field::new("distinct", state.data_type().clone(), true));
            columns.push(state);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(2));
        let schema = Arc::new(Schema::new(fields));
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<Vec<Seen>> {
        let foreign = || Error::bug("these rows are not of a summary");
        let schema = saved.schema();
        let (ends, distinct) = saved.columns().split_at(saved.num_columns() / 2);
        let columns = schema.fields().iter().zip(ends).zip(distinct);
        let seen = columns.map(|((field, ends), distinct)| {
            let counts = field.metadata().get(SEEN).ok_or_else(foreign)?;
            let counts = counts.split(' ').map(str::parse::<u64>);
            let counts = counts
                .collect::<Result<Vec<u64>, _>>()
                .map_err(|_| foreign())?;
            let [count, nulls, n, mean, squares] = counts[..] else {
                return Err(foreign());
            };
            let mut seen = Seen::nothing(field)?;
            seen.add_ends(ends)?;
            (seen.count, seen.nulls) = (count, nulls);
            if let Some(seen) = &mut seen.distinct {
                seen.merge(&distinct.slice(0, 1))?;
            }
            let moments = [n, mean, squares].map(f64::from_bits);
            seen.moments = seen.moments.map(|_| moments.into());
            Ok(seen)
        });
        seen.collect()
    }
}

/// The key of a field's metadata that holds what has been counted.
const SEEN: &str = "seen";

impl Transform for Describe {
    fn describe(&self) -> Description {
        Analysis::describe(self)
    }

    fn output_schema(&self, _inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(summary_schema())
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Err(Error::bug(
            "a summary runs as the two nodes that the planner makes of it",
        ))
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            waits_for_end: true,
            ignores_windows: true,
            ..Properties::default()
        }
    }

    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        let schema = place.inputs().first().cloned();
        Ok(Some(Lowered {
            learns: vec![Learned {
                name: "summary",
                input: 0,
                analysis: Arc::new(Self { schema }),
            }],
            transform: Arc::new(SummaryRows {
                summary: ArtifactRef::new(format!("{}/summary", place.id())),
            }),
            inputs: Vec::new(),
        }))
    }
}

/// The rows of a summary, from no input.
#[derive(Clone, Debug)]
struct SummaryRows {
    summary: ArtifactRef<Summary>,
}

impl Transform for SummaryRows {
    fn describe(&self) -> Description {
        Description::new("describe", Value::Null)
    }

    fn output_schema(&self, _inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(summary_schema())
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let summary = artifacts.get(&self.summary)?;
        let mut slot = summary.given.lock().unwrap_or_else(PoisonError::into_inner);
        let given = slot.upgrade().unwrap_or_default();
        *slot = Arc::downgrade(&given);
        drop(slot);
        Ok(Box::new(SummaryOperator { summary, given }))
    }

    fn needs(&self) -> Vec<ArtifactId> {
        vec![ArtifactId::clone(self.summary.id())]
    }

    fn properties(&self) -> Properties {
        Properties {
            n_inputs: Some(0),
            ..Properties::default()
        }
    }
}

struct SummaryOperator {
    summary: Arc<Summary>,
    given: Arc<AtomicBool>,
}

impl Operator for SummaryOperator {
    fn on_batch(&mut self, _port: usize, _batch: Batch, _out: &mut Output) -> Result<()> {
        Err(Error::bug("a summary has no input"))
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        // One worker gives the rows.
        if watermark.is_end() && !self.given.swap(true, Relaxed) {
            out.push(Batch::new(self.summary.rows()?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
