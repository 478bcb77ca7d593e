//! Turns rows into rows by a function on the user's own types.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_arrow::schema::{SchemaLike, TracingOptions};
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::expression::check_column;
use crate::output::{Output, shown_row};
use crate::pipeline::Collection;
use crate::transform::{Description, Operator, Properties, Transform};

type RowFn<I, O> = Arc<dyn Fn(I, &mut Vec<O>) -> Result<(), String> + Send + Sync>;

/// Turns each row into any number of rows by a function on serde types.
///
/// Fields are columns by name. `I` names the columns it wants and may leave others out; `O` gives the
/// columns of the result. Text may be of any Arrow text type. A null where `I` has no `Option` is a bad row.
pub struct MapRows<I, O> {
    kind: &'static str,
    function: RowFn<I, O>,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> MapRows<I, O> {
    /// One row for each row.
    pub fn new(function: impl Fn(I) -> O + Send + Sync + 'static) -> Self {
        Self::with("map_rows", move |row, rows| {
            rows.push(function(row));
            Ok(())
        })
    }

    /// One row for each row, or the reason why a row is bad.
    pub fn fallible(function: impl Fn(I) -> Result<O, String> + Send + Sync + 'static) -> Self {
        Self::with("map_rows", move |row, rows| {
            rows.push(function(row)?);
            Ok(())
        })
    }

    /// Any number of rows for each row.
    pub fn many<R: IntoIterator<Item = O>>(
        function: impl Fn(I) -> R + Send + Sync + 'static,
    ) -> Self {
        Self::with("flat_map", move |row, rows| {
            rows.extend(function(row));
            Ok(())
        })
    }

    fn with(
        kind: &'static str,
        function: impl Fn(I, &mut Vec<O>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            function: Arc::new(function),
            types: PhantomData,
        }
    }
}

impl Collection {
    /// One row for each row, by a function on serde types; see [`MapRows`].
    #[must_use]
    pub fn map_rows<I: DeserializeOwned + 'static, O: Serialize + DeserializeOwned + 'static>(
        &self,
        function: impl Fn(I) -> O + Send + Sync + 'static,
    ) -> Collection {
        self.apply(MapRows::new(function))
    }

    /// Any number of rows for each row, by a function on serde types; see [`MapRows`].
    #[must_use]
    pub fn flat_map<I, O, R>(&self, function: impl Fn(I) -> R + Send + Sync + 'static) -> Collection
    where
        I: DeserializeOwned + 'static,
        O: Serialize + DeserializeOwned + 'static,
        R: IntoIterator<Item = O>,
    {
        self.apply(MapRows::many(function))
    }
}

impl<I, O> fmt::Debug for MapRows<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapRows")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The columns that the fields of a serde type are.
pub(crate) fn fields_of<T: DeserializeOwned>() -> Result<Vec<FieldRef>> {
    let options = TracingOptions::default()
        .strings_as_large_utf8(false)
        .sequence_as_large_list(false)
        .allow_null_fields(true);
    Vec::<FieldRef>::from_type::<T>(options).map_err(|error| {
        Error::pipeline(format!("type {} cannot be rows", std::any::type_name::<T>()))
            .with_detail(error.to_string())
            .with_hint("Rows are structs with named fields of numbers, text, Booleans, options, lists or structs.")
    })
}

impl<I: DeserializeOwned + 'static, O: Serialize + DeserializeOwned + 'static> Transform
    for MapRows<I, O>
{
    fn describe(&self) -> Description {
        let (from, to) = (std::any::type_name::<I>(), std::any::type_name::<O>());
        Description::new(self.kind, json!({ "from": from, "to": to }))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let missing: Vec<Error> = fields_of::<I>()?
            .iter()
            .filter(|f| !f.is_nullable())
            .filter_map(|f| check_column(f.name(), &inputs[0]).err())
            .collect();
        if !missing.is_empty() {
            return Err(Error::all(missing));
        }
        Ok(Arc::new(Schema::new(fields_of::<O>()?)))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let fields = fields_of::<O>()?;
        Ok(Box::new(MapRowsOperator {
            kind: self.kind,
            function: Arc::clone(&self.function),
            fields,
        }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().portable(false)
    }

    fn reads(&self, _wanted: Option<&[String]>) -> Option<Vec<String>> {
        let fields = fields_of::<I>().ok()?;
        Some(fields.iter().map(|f| f.name().clone()).collect())
    }
}

struct MapRowsOperator<I, O> {
    kind: &'static str,
    function: RowFn<I, O>,
    fields: Vec<FieldRef>,
}

impl<I: DeserializeOwned, O: Serialize> Operator for MapRowsOperator<I, O> {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, rows) = read_rows::<I>(batch, out)?;
        let mut made: Vec<O> = Vec::with_capacity(rows.len());
        let mut good = Vec::with_capacity(rows.len());
        for (row, value) in rows.into_iter().enumerate() {
            let outcome = (self.function)(value, &mut made);
            good.push(outcome.is_ok());
            if let Err(reason) = outcome {
                out.reject(&batch, row, reason)?;
            }
        }
        let result = to_rows(&self.fields, &made)?;
        let one_to_one = self.kind == "map_rows";
        if one_to_one && good.iter().all(|g| *g) {
            out.push(batch.with_columns(result));
        } else if one_to_one {
            out.push(
                batch
                    .filter(&BooleanArray::from(good))?
                    .with_columns(result),
            );
        } else {
            out.push(batch.derive(result));
        }
        Ok(())
    }
}

/// Values of a serde type as rows, a column for each field.
pub(crate) fn rows_from<T: Serialize + DeserializeOwned>(values: &[T]) -> Result<RecordBatch> {
    to_rows(&fields_of::<T>()?, values)
}

/// Values of a serde type as rows with these columns, as [`fields_of`] gives them.
pub(crate) fn to_rows<T: Serialize>(fields: &[FieldRef], values: &[T]) -> Result<RecordBatch> {
    serde_arrow::to_record_batch(fields, &values).map_err(|error| {
        Error::data(format!(
            "a {} does not fit its own type",
            std::any::type_name::<T>()
        ))
        .with_detail(error.to_string())
    })
}

/// The rows that can be read as `I`, with the batch reduced to them; the others are rejected.
pub(super) fn read_rows<I: DeserializeOwned>(
    batch: Batch,
    out: &mut Output,
) -> Result<(Batch, Vec<I>)> {
    if let Ok(rows) = serde_arrow::from_record_batch::<Vec<I>>(batch.rows()) {
        return Ok((batch, rows));
    }
    let mut rows = Vec::with_capacity(batch.n_rows());
    let mut good = Vec::with_capacity(batch.n_rows());
    for row in 0..batch.n_rows() {
        let one: RecordBatch = batch.rows().slice(row, 1);
        let outcome = serde_arrow::from_record_batch::<Vec<I>>(&one);
        good.push(outcome.is_ok());
        match outcome {
            Ok(mut one) => rows.append(&mut one),
            Err(error) => {
                let wanted = std::any::type_name::<I>().rsplit("::").next();
                let reason = format!(
                    "{} is not a {}: {}",
                    shown_row(batch.rows(), row),
                    wanted.unwrap_or_default(),
                    error.message()
                );
                out.reject(&batch, row, reason)?;
            }
        }
    }
    let kept = batch.filter(&BooleanArray::from(good))?;
    Ok((kept, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::OnBadRow;
    use crate::testing::{check_transform, refuse_transform, run_transform, show, table};
    use expect_test::expect;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Birth {
        pounds: f64,
        sex: Option<String>,
    }

    #[derive(Serialize, Deserialize)]
    struct Weight {
        grams: f64,
        sex: String,
    }

    fn weigh(birth: Birth) -> Weight {
        Weight {
            grams: birth.pounds * 453.592_37,
            sex: birth.sex.unwrap_or("unknown".into()),
        }
    }

    #[test]
    fn fields_are_columns_by_name() {
        check_transform(
            MapRows::new(weigh),
            "other: 1, 2; sex: f, null; pounds: 1.0, 10.0",
            expect![[r#"
                grams: 453.59237, 4535.9237
                sex: 'f', 'unknown'"#]],
        );
    }

    #[test]
    fn many_rows_may_come_of_one() {
        check_transform(
            MapRows::many(|birth: Birth| {
                (0..birth.pounds as usize).map(|i| Weight {
                    grams: i as f64,
                    sex: "x".into(),
                })
            }),
            "sex: f, m, f; pounds: 2.0, 0.0, 1.0",
            expect![[r#"
                grams: 0.0, 1.0, 0.0
                sex: 'x', 'x', 'x'"#]],
        );
    }

    #[test]
    fn a_null_without_an_option_is_a_bad_row() {
        let map = MapRows::new(weigh);
        let rows = table("sex: f, m; pounds: null, 1.0");
        let (kept, mut out) = run_transform(&map, &rows, OnBadRow::DeadLetter).unwrap();
        assert_eq!(show(&kept), "grams: 453.59237\nsex: 'm'");
        let dead = out.take_dead_letters();
        assert_eq!((dead.len(), dead[0].row), (1, 0));
        let expected = r#"{"sex":"f"} is not a Birth: "#;
        assert!(dead[0].reason.starts_with(expected), "{}", dead[0].reason);
    }

    #[test]
    fn a_missing_column_is_refused_while_planning() {
        refuse_transform(
            MapRows::new(weigh),
            "sex: f",
            expect![[r#"
                column "pounds" is not there
                  The columns are "sex"."#]],
        );
    }
}
