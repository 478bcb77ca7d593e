//! Deals rows to named parts by the hash of a key, so that equal keys always share a part.

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_expr::Expr;
use serde_json::json;

use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::check_expressions;
use crate::error::{Error, Result};
use crate::expression::{Evaluator, Expression, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

/// FarmHash Fingerprint64 of the text as a signed integer: the value of BigQuery's `FARM_FINGERPRINT`.
///
/// ```
/// assert_eq!(mainstem_engine::ops::farm_fingerprint("1footrue"), -1541654101129638711);
/// ```
pub fn farm_fingerprint(text: &str) -> i64 {
    farmhash::fingerprint64(text.as_bytes()).cast_signed()
}

/// Deals rows to named parts by the hash of a key.
///
/// A row goes to the part that holds `abs(mod(FARM_FINGERPRINT(key), total))` where the parts take
/// `0..total` in order, `total` being the sum of their weights: the idiom of BigQuery users, so the
/// same rows fall in the same parts there. The key is taken as text; a null key is a bad row.
#[derive(Clone, Debug)]
pub struct SplitByHash {
    key: Expr,
    parts: Vec<(String, u32)>,
}

impl SplitByHash {
    /// Parts by name and weight, such as `[("train", 8), ("eval", 2)]`.
    pub fn new(key: Expr, parts: impl IntoIterator<Item = (impl Into<String>, u32)>) -> Self {
        Self {
            key,
            parts: parts
                .into_iter()
                .map(|(name, weight)| (name.into(), weight))
                .collect(),
        }
    }

    fn total(&self) -> u64 {
        self.parts
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum()
    }
}

impl Collection {
    /// The rows of each part; rows with equal keys share a part. See [`SplitByHash`].
    #[must_use]
    pub fn split_by_hash<const N: usize>(
        &self,
        key: Expr,
        parts: [(&str, u32); N],
    ) -> [Collection; N] {
        let mut collections = self.apply_ports(SplitByHash::new(key, parts)).into_iter();
        std::array::from_fn(|_| collections.next().unwrap_or_else(|| self.clone()))
    }
}

impl Transform for SplitByHash {
    fn describe(&self) -> Description {
        let config = json!({ "key": self.key.to_string(), "parts": self.parts });
        Description::new("split_by_hash", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        if self.total() == 0 {
            return Err(Error::pipeline("the weights of the parts sum to 0")
                .with_hint("Give at least one part a weight of 1 or more."));
        }
        let key = Expression::compile(&self.key, &inputs[0])?;
        if !arrow::compute::can_cast_types(key.data_type(), &DataType::Utf8) {
            let found = key.data_type();
            return Err(Error::pipeline(format!(
                "key `{}` has no text form: {found}",
                self.key
            )));
        }
        check_expressions([&self.key], &inputs[0])?;
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SplitByHashOperator {
            key: Evaluator::new(&self.key),
            spec: self.clone(),
        }))
    }

    fn properties(&self) -> Properties {
        Properties::default()
            .immediate(true)
            .keeps_positions(true)
            .on_changelog(OnChangelog::Carry)
            .ports(self.parts.iter().map(|(name, _)| name))
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        with_columns_of(wanted, [&self.key])
    }
}

struct SplitByHashOperator {
    key: Evaluator,
    spec: SplitByHash,
}

impl Operator for SplitByHashOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, keys) = self.key.evaluate(batch, out)?;
        let keys = cast(&keys, &DataType::Utf8)?;
        let keys = keys.as_string::<i32>();
        for row in 0..keys.len() {
            if keys.is_null(row) {
                out.reject(&batch, row, format!("key `{}` is null", self.spec.key))?;
            }
        }
        let total = self.spec.total().cast_signed();
        let places: Vec<Option<u64>> = keys
            .iter()
            .map(|key| key.map(|key| (farm_fingerprint(key) % total).unsigned_abs()))
            .collect();
        let mut start = 0;
        for (port, (_, weight)) in self.spec.parts.iter().enumerate() {
            let end = start + u64::from(*weight);
            let mask: BooleanArray = places
                .iter()
                .map(|p| Some(p.is_some_and(|p| (start..end).contains(&p))))
                .collect();
            if mask.true_count() > 0 {
                out.push_to(port, batch.filter(&mask)?);
            }
            start = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::col;
    use crate::output::OnBadRow;
    use crate::testing::{show, table};
    use expect_test::expect;

    /// The values are those in BigQuery's documentation of `FARM_FINGERPRINT`.
    #[test]
    fn fingerprints_are_those_of_bigquery() {
        for (text, fingerprint) in [
            ("1footrue", -1_541_654_101_129_638_711),
            ("2applefalse", 2_794_438_866_806_483_259),
            ("3true", -4_880_158_226_897_771_312),
        ] {
            assert_eq!(farm_fingerprint(text), fingerprint, "{text}");
        }
    }

    #[test]
    fn rows_go_where_the_last_digit_of_their_fingerprint_says() {
        let split = SplitByHash::new(col("k"), [("low", 5), ("high", 5)]);
        let mut operator = split.build(&Artifacts::none()).unwrap();
        let mut out = Output::new(OnBadRow::Drop);
        let rows = table("k: 1footrue, 2applefalse, null, 3true; n: 1, 2, 3, 4");
        operator.on_batch(0, Batch::new(rows), &mut out).unwrap();
        let parts: Vec<String> = out
            .take()
            .iter()
            .map(|(port, b)| format!("{port}\n{}", show(b.rows())))
            .collect();
        // The fingerprints end in 1, 9 and 2.
        expect![[r#"
            0
            k: '1footrue', '3true'
            n: 1, 4
            1
            k: '2applefalse'
            n: 2"#]]
        .assert_eq(&parts.join("\n"));
        assert_eq!(out.take_counts(), (0, 1));
    }

    #[test]
    fn weights_must_not_sum_to_nothing() {
        let split = SplitByHash::new(col("k"), [("a", 0)]);
        let error = split.output_schema(&[table("k: 1").schema()]).unwrap_err();
        assert_eq!(error.message(), "the weights of the parts sum to 0");
    }
}
