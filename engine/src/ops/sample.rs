//! Keeps a part of the rows, the same ones in every run.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion_expr::Expr;
use serde_json::json;

use super::join::{can_hash, one_zero};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::check_expressions;
use crate::error::{Error, Result};
use crate::expression::{Evaluator, Expression, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::plan::{Lowered, Place};
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

/// Keeps each row with the same chance, the same rows in every run with the same seed and the same source.
///
/// Which rows are kept follows from the seed and from the place of each row in its source, so it does
/// not depend on workers or batches, nor on what stands in the row. After a transform that makes new
/// rows, such as a join, a grouping or `flat_map`, a row has no place of its own: there its values
/// decide, and equal rows share their fate.
///
/// The part kept is about `fraction`, as with a coin, not exactly.
///
/// Where a source does not give its rows in the same places in every run, as a query of DataFusion may not
/// (`repeatable=false` in `explain()`), other rows are kept in another run; [`SampleByKey`] keeps the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    fraction: f64,
    seed: u64,
}

impl Sample {
    /// Keeps rows with a chance of `fraction`, from 0 to 1.
    pub fn new(fraction: f64, seed: u64) -> Self {
        Self { fraction, seed }
    }
}

/// Keeps each key with the same chance, with all of its rows: equal keys share their fate.
///
/// The key is hashed with FarmHash over its arrow-row bytes; a null key is a key like others, 0.0 and
/// -0.0 are one, and so are all NaN. The same keys are kept in every run with the same seed, and in
/// every collection that is sampled by the same kind of key.
#[derive(Clone, Debug)]
pub struct SampleByKey {
    key: Expr,
    fraction: f64,
    seed: u64,
}

impl SampleByKey {
    /// Keeps keys with a chance of `fraction`, from 0 to 1.
    pub fn new(key: Expr, fraction: f64, seed: u64) -> Self {
        Self {
            key,
            fraction,
            seed,
        }
    }
}

impl Collection {
    /// About this fraction of the rows, the same ones in every run of a source that is repeatable; see [`Sample`].
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, connectors, testing::{show, table}};
    /// let pipeline = Pipeline::new("numbers");
    /// let rows = pipeline.read("numbers", connectors::from_record_batches(vec![table("n: 0, 1, 2, 3, 4, 5, 6, 7")]));
    /// let (sink, some) = connectors::collect();
    /// rows.sample(0.5, 7).write(sink);
    /// pipeline.run(&RunOptions::new())?;
    /// assert_eq!(show(&some.take()[0]), "n: 0, 2, 3, 5, 6, 7");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn sample(&self, fraction: f64, seed: u64) -> Collection {
        self.apply(Sample::new(fraction, seed))
    }

    /// The rows of about this fraction of the keys, the same ones in every run; see [`SampleByKey`].
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, col, connectors, testing::{show, table}};
    /// let pipeline = Pipeline::new("visits");
    /// let rows = pipeline.read("visits", connectors::from_record_batches(vec![table("user: a, b, a, c, b, a")]));
    /// let (sink, some) = connectors::collect();
    /// rows.sample_by_key(col("user"), 0.5, 7).write(sink);
    /// pipeline.run(&RunOptions::new())?;
    /// assert_eq!(show(&some.take()[0]), "user: 'b', 'b'");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn sample_by_key(&self, key: Expr, fraction: f64, seed: u64) -> Collection {
        self.apply(SampleByKey::new(key, fraction, seed))
    }
}

fn check_fraction(fraction: f64) -> Result<()> {
    if (0.0..=1.0).contains(&fraction) {
        return Ok(());
    }
    Err(Error::pipeline(format!(
        "the fraction of a sample must be from 0 to 1, found {fraction}"
    )))
}

/// Keeps a hash with a chance of `fraction`.
#[derive(Clone, Copy, Debug)]
struct Coin {
    seed: u64,
    /// Hashes below are kept.
    limit: u128,
}

impl Coin {
    fn new(fraction: f64, seed: u64) -> Self {
        let limit = (fraction * (u64::MAX as f64 + 1.0)) as u128;
        Self { seed, limit }
    }

    fn keeps(self, hash: u64) -> bool {
        u128::from(mixed(hash ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))) < self.limit
    }
}

/// Spreads every bit over all: the finalizer of SplitMix64.
fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The hash of each row's values.
fn hashes(columns: &[ArrayRef]) -> Result<Vec<u64>> {
    let fields = columns
        .iter()
        .map(|c| SortField::new(c.data_type().clone()));
    let columns: Vec<ArrayRef> = columns.iter().map(one_zero).collect::<Result<_>>()?;
    let rows = RowConverter::new(fields.collect())?.convert_columns(&columns)?;
    let hash = |row: arrow::row::Row<'_>| farmhash::fingerprint64(row.as_ref());
    Ok(rows.iter().map(hash).collect())
}

fn push(
    batch: Batch,
    hashes: impl Iterator<Item = u64>,
    coin: Coin,
    out: &mut Output,
) -> Result<()> {
    let mask: BooleanArray = hashes.map(|hash| Some(coin.keeps(hash))).collect();
    out.filtered(mask.false_count());
    match mask.true_count() {
        0 => {}
        n if n == batch.n_rows() => out.push(batch),
        _ => out.push(batch.filter(&mask)?),
    }
    Ok(())
}

impl Transform for Sample {
    fn describe(&self) -> Description {
        let config = json!({ "fraction": self.fraction, "seed": self.seed });
        Description::new("sample", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        check_fraction(self.fraction)?;
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        SampleRows {
            spec: *self,
            by_place: true,
        }
        .build(artifacts)
    }

    fn properties(&self) -> Properties {
        // A row may be taken back from another place than it was added from.
        Properties::row_wise()
            .keeps_positions(true)
            .on_changelog(OnChangelog::Refuse)
    }

    /// Whether rows have places of their own is seen in the graph alone.
    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        let by_place = place.has_positions(0);
        let unfit = |f: &&std::sync::Arc<arrow::datatypes::Field>| !can_hash(f.data_type());
        if !by_place && let Some(field) = place.inputs()[0].fields().iter().find(unfit) {
            return Err(Error::pipeline(format!(
                "column {:?} cannot be hashed: {}",
                field.name(),
                field.data_type()
            ))
            .with_hint("Sample before new rows are made, or use `sample_by_key`."));
        }
        let planned = SampleRows {
            spec: *self,
            by_place,
        };
        Ok(Some(Lowered::to(planned, 1)))
    }
}

/// A sample that knows whether rows have places of their own.
#[derive(Clone, Copy, Debug)]
struct SampleRows {
    spec: Sample,
    by_place: bool,
}

impl Transform for SampleRows {
    fn describe(&self) -> Description {
        self.spec.describe()
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        self.spec.output_schema(inputs)
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SampleOperator {
            coin: Coin::new(self.spec.fraction, self.spec.seed),
            by_place: self.by_place,
        }))
    }

    fn properties(&self) -> Properties {
        self.spec.properties()
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        // What decides must not depend on what is read further down.
        wanted.filter(|_| self.by_place).map(<[String]>::to_vec)
    }
}

struct SampleOperator {
    coin: Coin,
    by_place: bool,
}

impl Operator for SampleOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        if !self.by_place {
            let hashes = hashes(batch.rows().columns())?;
            return push(batch, hashes.into_iter(), self.coin, out);
        }
        let key = batch.split_key();
        let split = mixed(u64::from(key.split) ^ mixed(key.branch));
        let rows = batch
            .row_numbers()
            .unwrap_or_else(|| vec![batch.position(0).row; batch.n_rows()]);
        let hash = |row: u64| mixed(split.wrapping_add(row.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        push(batch, rows.into_iter().map(hash), self.coin, out)
    }
}

impl Transform for SampleByKey {
    fn describe(&self) -> Description {
        let key = self.key.to_string();
        let config = json!({ "key": key, "fraction": self.fraction, "seed": self.seed });
        Description::new("sample_by_key", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        check_fraction(self.fraction)?;
        let key = Expression::compile(&self.key, &inputs[0])?;
        check_expressions([&self.key], &inputs[0])?;
        let found: &DataType = key.data_type();
        if !can_hash(found) {
            return Err(
                Error::pipeline(format!("key `{}` cannot be hashed: {found}", self.key))
                    .with_hint("Sample by a field of it, or by a text form of it."),
            );
        }
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SampleByKeyOperator {
            key: Evaluator::new(&self.key),
            coin: Coin::new(self.fraction, self.seed),
        }))
    }

    fn properties(&self) -> Properties {
        Properties::row_wise().keeps_positions(true)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        with_columns_of(wanted, [&self.key])
    }
}

struct SampleByKeyOperator {
    key: Evaluator,
    coin: Coin,
}

impl Operator for SampleByKeyOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let (batch, key) = self.key.evaluate(batch, out)?;
        let hashes = hashes(&[key])?;
        push(batch, hashes.into_iter(), self.coin, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{col, lit};
    use crate::ops::JoinKind;
    use crate::testing::{check_transform, refuse_transform, show, table};
    use crate::{Pipeline, RunOptions, connectors};
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use expect_test::expect;

    fn numbers(n: i64) -> RecordBatch {
        let n: Int64Array = (0..n).collect();
        RecordBatch::try_from_iter([("n", std::sync::Arc::new(n) as ArrayRef)]).unwrap()
    }

    /// The numbers that are left, in order.
    fn left(workers: usize, make: impl Fn(&Collection) -> Collection) -> Vec<i64> {
        let pipeline = Pipeline::new("sample");
        let batches = vec![numbers(20_000), numbers(300)];
        let rows = pipeline.read("numbers", connectors::from_record_batches(batches));
        let (sink, made) = connectors::collect();
        make(&rows).select([col("n")]).write(sink);
        pipeline.run(&RunOptions::new().workers(workers)).unwrap();
        let rows = made.take().remove(0);
        let mut n = rows["n"].as_primitive::<Int64Type>().values().to_vec();
        n.sort_unstable();
        n
    }

    #[test]
    fn the_same_rows_on_any_number_of_workers() {
        let one = left(1, |rows| rows.sample(0.25, 1));
        assert!((4_900..5_250).contains(&one.len()), "{}", one.len());
        for workers in 2..=4 {
            assert_eq!(left(workers, |rows| rows.sample(0.25, 1)), one);
        }
        let other = left(1, |rows| rows.sample(0.25, 2));
        let both = one.iter().filter(|n| other.contains(n)).count();
        assert!((1_000..1_600).contains(&both), "{both}");
    }

    /// What stands before it decides which rows there are, not which of them are kept.
    #[test]
    fn a_filter_before_or_after_makes_no_difference() {
        let even = || (col("n") % lit(2)).eq(lit(0));
        assert_eq!(
            left(2, |rows| rows.filter(even()).sample(0.5, 3)),
            left(2, |rows| rows.sample(0.5, 3).filter(even()))
        );
    }

    #[test]
    fn rows_without_a_place_are_sampled_by_their_values() {
        let joined = |rows: &Collection| {
            let two = rows.select([(col("n") % lit(100)).alias("k"), lit(1).alias("one")]);
            rows.filter(col("n").lt(lit(1_000)))
                .join(&two, JoinKind::Inner, [(col("n"), col("k"))])
                .sample(0.5, 9)
        };
        let one = left(1, joined);
        assert!(!one.is_empty() && one.len() < 203 * 200);
        for workers in 2..=4 {
            assert_eq!(left(workers, joined), one);
        }
    }

    #[test]
    fn all_rows_and_none() {
        check_transform(Sample::new(1.0, 5), "a: 1, 2, 3", expect!["a: 1, 2, 3"]);
        check_transform(Sample::new(0.0, 5), "a: 1, 2, 3", expect!["a:"]);
    }

    #[test]
    fn the_same_rows_in_every_version() {
        check_transform(
            Sample::new(0.5, 7),
            "n: 0, 1, 2, 3, 4, 5, 6, 7",
            expect!["n: 0, 2, 3, 5, 6, 7"],
        );
        check_transform(
            SampleByKey::new(col("user"), 0.5, 7),
            "user: a, b, a, c, b, a",
            expect!["user: 'b', 'b'"],
        );
    }

    #[test]
    fn equal_keys_share_their_fate() {
        let keys = "k: a, b, null, c, a, d, null, b, c, d; n: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10";
        check_transform(
            SampleByKey::new(col("k"), 0.5, 1),
            keys,
            expect![[r#"
            k: 'c', 'c'
            n: 4, 9"#]],
        );
        check_transform(
            SampleByKey::new(col("x"), 0.5, 1),
            "x: 0.0, -0.0, 1.0, nan, nan",
            expect!["x: 0.0, -0.0"],
        );
        let kept = left(1, |rows| rows.sample_by_key(col("n") % lit(1_000), 0.1, 4));
        let of_key = |k: i64| kept.iter().filter(|n| **n % 1_000 == k).count();
        let all = |k: i64| if k < 300 { 21 } else { 20 };
        assert!((0..1_000).all(|k| of_key(k) == 0 || of_key(k) == all(k)));
        let n_keys = (0..1_000).filter(|k| of_key(*k) > 0).count();
        assert!((70..130).contains(&n_keys), "{n_keys}");
    }

    #[test]
    fn fractions_are_checked() {
        refuse_transform(
            Sample::new(1.5, 0),
            "a: 1",
            expect!["the fraction of a sample must be from 0 to 1, found 1.5"],
        );
        refuse_transform(
            SampleByKey::new(col("a"), f64::NAN, 0),
            "a: 1",
            expect!["the fraction of a sample must be from 0 to 1, found NaN"],
        );
        refuse_transform(
            SampleByKey::new(col("b"), 0.5, 0),
            "a: 1",
            expect![[r#"
            column "b" is not there
              The columns are "a"."#]],
        );
    }

    #[test]
    fn places_are_kept() {
        let mut operator = Sample::new(0.5, 1).build(&Artifacts::none()).unwrap();
        let mut out = Output::default();
        let batch = Batch::read(table("n: 5, 6, 7, 8, 9"), Default::default(), "s".into(), 5);
        operator.on_batch(0, batch, &mut out).unwrap();
        for (_, batch) in out.take() {
            let at: Vec<String> = (0..batch.n_rows())
                .map(|i| batch.position(i).row.to_string())
                .collect();
            assert_eq!(show(batch.rows()), format!("n: {}", at.join(", ")));
        }
    }
}
