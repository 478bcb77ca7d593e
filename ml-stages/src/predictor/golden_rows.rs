//! Keeps the first rows, for a Predictor to replay.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem_engine::analyzer::DynAnalyzer;
use mainstem_engine::expression::check_column;
use mainstem_engine::{Analysis, Analyzer, Artifacts, Description, Error, Result};
use serde_json::json;

/// Keeps the first rows in split order, by default 64 with all their columns.
///
/// It needs no other artifact, so it runs in the first pass over the rows together with the fit.
/// Nulls are kept as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldenRows {
    n_rows: usize,
    columns: Option<Vec<String>>,
}

impl Default for GoldenRows {
    fn default() -> Self {
        Self::new()
    }
}

impl GoldenRows {
    /// The first 64 rows.
    pub fn new() -> Self {
        Self {
            n_rows: 64,
            columns: None,
        }
    }

    /// Sets how many rows are kept.
    #[must_use]
    pub fn n_rows(mut self, n_rows: usize) -> Self {
        self.n_rows = n_rows;
        self
    }

    /// Sets which columns are kept: the raw columns of the preprocessing are enough. Sources then
    /// read no others for it.
    #[must_use]
    pub fn columns(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    fn select(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let Some(columns) = &self.columns else {
            return Ok(rows.clone());
        };
        let places = columns
            .iter()
            .map(|name| check_column(name, &rows.schema()))
            .collect::<Result<Vec<usize>>>()?;
        Ok(rows.project(&places)?)
    }
}

impl Analysis for GoldenRows {
    fn describe(&self) -> Description {
        Description::new(
            "golden_rows",
            json!({ "n_rows": self.n_rows, "columns": self.columns }),
        )
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        let columns = self.columns.iter().flatten();
        let wrong: Vec<Error> = columns
            .filter_map(|name| check_column(name, input).err())
            .collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::all(wrong))
        }
    }

    fn reads(&self) -> Option<Vec<String>> {
        self.columns.clone()
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Arc<dyn DynAnalyzer>> {
        Ok(Arc::new(self.clone()))
    }
}

impl Analyzer for GoldenRows {
    type Accumulator = Vec<RecordBatch>;
    type Output = RecordBatch;

    fn create_accumulator(&self) -> Vec<RecordBatch> {
        Vec::new()
    }

    fn add(&self, kept: &mut Vec<RecordBatch>, rows: &RecordBatch) -> Result<()> {
        let missing = self.n_rows - n_rows(kept);
        if missing > 0 && rows.num_rows() > 0 {
            let first = rows.slice(0, missing.min(rows.num_rows()));
            kept.push(self.select(&first)?);
        }
        Ok(())
    }

    fn merge(&self, kept: &mut Vec<RecordBatch>, other: Vec<RecordBatch>) -> Result<()> {
        other.iter().try_for_each(|rows| self.add(kept, rows))
    }

    fn finish(&self, kept: Vec<RecordBatch>) -> Result<RecordBatch> {
        if kept.is_empty() {
            return Err(Error::data("there are no rows to keep as golden rows"));
        }
        self.save(&kept)
    }

    fn save(&self, kept: &Vec<RecordBatch>) -> Result<RecordBatch> {
        let schema = kept
            .first()
            .map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        Ok(concat_batches(&schema, kept)?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let rows = (saved.num_rows() > 0).then(|| saved.clone());
        Ok(rows.into_iter().collect())
    }
}

fn n_rows(kept: &[RecordBatch]) -> usize {
    kept.iter().map(RecordBatch::num_rows).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use mainstem_engine::testing::{show, table};

    #[test]
    fn the_first_rows_in_split_order_are_kept() {
        let golden = GoldenRows::new().n_rows(3).columns(["b", "a"]);
        let (mut first, mut second) = (golden.create_accumulator(), golden.create_accumulator());
        golden
            .add(&mut second, &table("a: 5, 6; b: v, w; c: 0, 0"))
            .unwrap();
        golden
            .add(&mut second, &table("a: 7, 8; b: x, y; c: 0, 0"))
            .unwrap();
        golden.add(&mut first, &table("a: 4; b: z; c: 0")).unwrap();
        golden.merge(&mut first, second).unwrap();
        let saved = golden.load(&golden.save(&first).unwrap()).unwrap();
        expect![[r#"
            b: 'z', 'v', 'w'
            a: 4, 5, 6"#]]
        .assert_eq(&show(&golden.finish(saved).unwrap()));
    }

    #[test]
    fn no_rows_are_an_error_and_missing_columns_too() {
        let golden = GoldenRows::new().columns(["a", "x"]);
        assert!(golden.finish(Vec::new()).unwrap_err().is_data());
        expect![[r#"
            column "x" is not there
              The columns are "a"."#]]
        .assert_eq(
            &golden
                .check(&table("a: 1").schema())
                .unwrap_err()
                .to_string(),
        );
    }
}
