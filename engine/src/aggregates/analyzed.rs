//! An analyzer as an aggregate: what it learns of the rows of each group, and of each window.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use crate::analyzer::Analyzer;
use crate::error::Error;
use crate::ops::{fields_of, to_rows};
use crate::runner::{decode, encode};

type Result<T> = std::result::Result<T, DataFusionError>;

/// What `analyzer` learns of the values of `columns`, as a struct with the fields of its output; null for a group
/// without rows.
///
/// The analyzer sees the columns in this order, under the names of the expressions. It is the same one that
/// learns from a whole collection by [`analyze`](crate::Collection::analyze), so what is learned of a group over
/// all its rows is what it would learn of them alone. Rows reach it in the order in which they arrive.
///
/// An output that cannot be learned from the rows there are ends the run, with the analyzer's own error; leave
/// such rows out by [`filter`](super::AggregateExt::filter).
pub fn analyzed<A>(analyzer: A, columns: impl IntoIterator<Item = Expr>) -> Expr
where
    A: Analyzer + 'static,
    A::Output: Serialize + DeserializeOwned,
{
    let columns: Vec<Expr> = columns.into_iter().collect();
    let name = format!("analyzed {analyzer:?}");
    let names = columns.iter().map(|c| c.qualified_name().1).collect();
    let signature = match columns.len() {
        0 => Signature::nullary(Volatility::Immutable),
        n => Signature::any(n, Volatility::Immutable),
    };
    let function = Analyzed {
        analyzer: Arc::new(analyzer),
        name,
        names,
        signature,
    };
    let arguments = columns.into_iter().map(Expr::unalias).collect();
    AggregateUDF::from(function).call(arguments)
}

struct Analyzed<A> {
    analyzer: Arc<A>,
    name: String,
    names: Vec<String>,
    signature: Signature,
}

/// Two are one if their analyzers look the same and read columns of the same names.
impl<A> PartialEq for Analyzed<A> {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.names) == (&other.name, &other.names)
    }
}

impl<A> Eq for Analyzed<A> {}

impl<A> Hash for Analyzed<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.names).hash(state);
    }
}

impl<A> fmt::Debug for Analyzed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn output_fields<A>() -> Result<Fields>
where
    A: Analyzer,
    A::Output: Serialize + DeserializeOwned,
{
    Ok(fields_of::<A::Output>().map_err(external)?.into())
}

impl<A> AggregateUDFImpl for Analyzed<A>
where
    A: Analyzer + 'static,
    A::Output: Serialize + DeserializeOwned,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(output_fields::<A>()?))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let fields = self.names.iter().zip(args.expr_fields);
        let fields = fields.map(|(name, field)| field.as_ref().clone().with_name(name));
        Ok(Box::new(Seen {
            analyzer: Arc::clone(&self.analyzer),
            schema: Arc::new(Schema::new(fields.collect::<Vec<Field>>())),
            seen: Mutex::new(None),
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[seen]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::Binary, true))])
    }
}

/// What the analyzer has seen of one group; nothing before the first row.
struct Seen<A: Analyzer> {
    analyzer: Arc<A>,
    schema: SchemaRef,
    /// Behind a lock only since DataFusion wants to share accumulators, which nothing does.
    seen: Mutex<Option<A::Accumulator>>,
}

impl<A: Analyzer> fmt::Debug for Seen<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seen({:?})", self.analyzer)
    }
}

impl<A: Analyzer> Seen<A> {
    fn seen(&mut self) -> &mut Option<A::Accumulator> {
        self.seen.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self, values: &[ArrayRef]) -> Result<RecordBatch> {
        let n_rows = values.first().map_or(0, |column| column.len());
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(
            schema,
            values.to_vec(),
            &options,
        )?)
    }
}

impl<A> Accumulator for Seen<A>
where
    A: Analyzer + 'static,
    A::Output: Serialize + DeserializeOwned,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = self.rows(values)?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let analyzer = Arc::clone(&self.analyzer);
        let seen = self.seen();
        let seen = seen.get_or_insert_with(|| analyzer.create_accumulator());
        analyzer.add(seen, &rows).map_err(external)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let fields = output_fields::<A>()?;
        let analyzer = Arc::clone(&self.analyzer);
        let Some(seen) = self.seen() else {
            return ScalarValue::try_from(DataType::Struct(fields));
        };
        // What has been seen may still be added to, so it is a copy that ends in an output.
        let copy = analyzer.save(seen).map_err(external)?;
        let copy = analyzer.load(&copy).map_err(external)?;
        let learned = analyzer.finish(copy).map_err(external)?;
        let fields: Vec<FieldRef> = fields.iter().cloned().collect();
        let row = to_rows(&fields, &[learned]).map_err(external)?;
        let row = arrow::array::StructArray::from(row);
        Ok(ScalarValue::Struct(Arc::new(row)))
    }

    fn size(&self) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = seen
            .as_ref()
            .map_or(0, |seen| self.analyzer.accumulator_bytes(seen));
        size_of_val(self) + usize::try_from(bytes).unwrap_or(usize::MAX / 2)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let analyzer = Arc::clone(&self.analyzer);
        let saved = match self.seen() {
            None => None,
            Some(seen) => {
                let rows = analyzer.save(seen).map_err(external)?;
                Some(encode(&rows).map_err(external)?)
            }
        };
        Ok(vec![ScalarValue::Binary(saved)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let saved = states
            .first()
            .and_then(|column| column.as_binary_opt::<i32>());
        let saved =
            saved.ok_or_else(|| external(Error::bug("states of an analyzer are missing")))?;
        for bytes in saved.iter().flatten() {
            let rows = decode(bytes.to_vec()).map_err(external)?;
            let analyzer = Arc::clone(&self.analyzer);
            let other = analyzer.load(&rows).map_err(external)?;
            match self.seen() {
                Some(seen) => analyzer.merge(seen, other).map_err(external)?,
                none => *none = Some(other),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregates::AggregateExt;
    use crate::connectors::{collect, from_record_batches};
    use crate::error::Result;
    use crate::expression::{col, lit};
    use crate::pipeline::Pipeline;
    use crate::runner::RunOptions;
    use crate::testing::{show_rows, table};
    use arrow::array::Int64Array;
    use arrow::datatypes::Int64Type;
    use serde::Deserialize;

    /// Learns the least and the greatest number.
    #[derive(Debug)]
    struct Extent;

    #[derive(Debug, Serialize, Deserialize)]
    struct Learned {
        least: i64,
        greatest: i64,
    }

    impl Analyzer for Extent {
        type Accumulator = Vec<i64>;
        type Output = Learned;

        fn create_accumulator(&self) -> Vec<i64> {
            Vec::new()
        }

        fn add(&self, seen: &mut Vec<i64>, rows: &RecordBatch) -> Result<()> {
            seen.extend(rows["x"].as_primitive::<Int64Type>().iter().flatten());
            Ok(())
        }

        fn merge(&self, seen: &mut Vec<i64>, other: Vec<i64>) -> Result<()> {
            seen.extend(other);
            Ok(())
        }

        fn finish(&self, seen: Vec<i64>) -> Result<Learned> {
            let none = || Error::data("no number was seen");
            Ok(Learned {
                least: *seen.iter().min().ok_or_else(none)?,
                greatest: *seen.iter().max().ok_or_else(none)?,
            })
        }

        fn save(&self, seen: &Vec<i64>) -> Result<RecordBatch> {
            let seen: ArrayRef = Arc::new(Int64Array::from(seen.clone()));
            Ok(RecordBatch::try_from_iter([("seen", seen)])?)
        }

        fn load(&self, saved: &RecordBatch) -> Result<Vec<i64>> {
            Ok(saved["seen"].as_primitive::<Int64Type>().values().to_vec())
        }
    }

    fn extents(rows: &str, extent: Expr, workers: usize) -> Result<String> {
        let pipeline = Pipeline::new("extents");
        let (sink, made) = collect();
        let rows = table(rows);
        let batches = (0..rows.num_rows()).map(|row| rows.slice(row, 1)).collect();
        pipeline
            .read("rows", from_record_batches(batches))
            .group_by([col("k")])
            .agg([extent.alias("extent")])
            .write(sink);
        pipeline.run(&RunOptions::new().workers(workers))?;
        Ok(show_rows(&made.take()))
    }

    #[test]
    fn it_learns_of_each_group_on_any_number_of_workers() {
        let rows = "k: 'a', 'b', 'a', 'b', 'a', 'c'; n: 3, 7, -1, 7, 2, null";
        let extent = || analyzed(Extent, [(col("n") * lit(10)).alias("x")]);
        let some = extent().filter(col("n").is_not_null()).build().unwrap();
        for workers in [1, 3] {
            let expected = "k='a' extent={least: -10, greatest: 30}\n\
                            k='b' extent={least: 70, greatest: 70}\n\
                            k='c' extent=null";
            assert_eq!(extents(rows, some.clone(), workers).unwrap(), expected);
        }
        let error = extents(rows, extent(), 1).unwrap_err();
        assert!(error.message().contains("no number was seen"), "{error}");
        assert!(error.is_data());
    }
}
