//! Gives each row the newest row of another collection that was known at its event time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_expr::Expr;
use serde_json::{Value, json};

use super::as_of_operator::AsOfOperator;
use super::late::late_schema;
use super::layout::{Pairing, ResultTime, TimeLayout};
use crate::artifact::Artifacts;
use crate::changelog::{check_expressions, is_changelog, values_of};
use crate::error::{Error, Result};
use crate::event_time::DIFF;
use crate::expression::Expression;
use crate::ops::JoinKind;
use crate::ops::good_rows::GoodRows;
use crate::ops::row_key::RowKey;
use crate::pipeline::Collection;
use crate::plan::{Lowered, Place};
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

/// How rows are given the features that were known at their event time: see [`Collection::join_as_of`].
///
/// The rules are those of Feast's point-in-time join. Of the features with the row's key, the one counts
/// that is newest at the row's event time: `feature time <= row time`. Of two with the same event time the
/// one counts that was created last ([`AsOf::created`]; one without a time of creation is older than all
/// others), and then the one that stands last in its source; where features have no place in a source, as
/// the results of a `group_by`, the one with the greater values. A feature that is older than
/// [`AsOf::ttl`] counts as none. A null key equals none.
#[derive(Clone, Debug)]
pub struct AsOf {
    pub(super) pairing: Pairing,
    ttl: Option<Duration>,
    created: Option<Expr>,
    pub(super) versions: Option<Versions>,
    /// The columns of the table, once it has been found to be a changelog: a change is that of a whole row.
    whole: Arc<Mutex<Vec<String>>>,
}

/// The right rows are versions of the rows of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    /// True where a version says that there is no row any more.
    pub(super) deleted: Option<Expr>,
}

impl AsOf {
    /// Joins on columns or expressions that are the same on both sides.
    pub fn on(keys: impl IntoIterator<Item = Expr>) -> Self {
        Self::on_pairs(keys.into_iter().map(|key| (key.clone(), key)))
    }

    /// Joins on pairs of keys, the first of the rows and the second of the features.
    pub fn on_pairs(keys: impl IntoIterator<Item = (Expr, Expr)>) -> Self {
        Self {
            pairing: Pairing::new(JoinKind::Left, keys, ResultTime::Left),
            ttl: None,
            created: None,
            versions: None,
            whole: Arc::default(),
        }
    }

    /// Sets the age up to which a feature counts, in event time: `row time - ttl <= feature time`, as in
    /// Feast. Without it a feature counts until there is a newer one, and the newest of each key is kept.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets when a feature was created, which decides between features of one key and event time: a
    /// timestamp, a date or an integer of the feature's columns.
    #[must_use]
    pub fn created(mut self, created: Expr) -> Self {
        self.created = Some(created);
        self
    }

    /// Sets what is added to the name of a feature's column where the rows have one of the same name. The
    /// feature's event time is then a column too, as `event_time` with the suffix.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.pairing.suffix = Some(suffix.into());
        self
    }

    fn plan(
        &self,
        left: &SchemaRef,
        right: &SchemaRef,
        wanted: Option<&[String]>,
    ) -> Result<AsOfAt> {
        if is_changelog(left) {
            return Err(Error::pipeline(format!(
                "rows of {} are a changelog",
                self.kind()
            ))
            .with_detail("A row that is taken back later would find another row than it did when it was added.")
            .with_hint("Take its `changes()` for plain rows, or use `join`, which keeps what follows from changes of both sides."));
        }
        let deleted = self.deleted(right)?;
        let whole = match is_changelog(right) {
            true => values_of(right),
            false => Vec::new(),
        };
        // A row that is taken back is found by its values.
        RowKey::of(&whole, right)?;
        let also: Vec<&Expr> = self.created.iter().chain(&deleted).chain(&whole).collect();
        if let Some(created) = &self.created {
            check_created(created, right)?;
        }
        let ttl_ms = match self.ttl {
            Some(Duration::ZERO) => {
                return Err(
                    Error::pipeline("a ttl of 0 leaves features of the very instant only")
                        .with_detail("In Feast a ttl of 0 is none at all.")
                        .with_hint(
                            "Leave `ttl` out for no limit, or say `Duration::from_millis(1)`.",
                        ),
                );
            }
            ttl => ttl.map(|t| i64::try_from(t.as_millis()).unwrap_or(i64::MAX)),
        };
        let layout = TimeLayout::new(&self.pairing, left, right, wanted, &also)?;
        Ok(AsOfAt {
            spec: self.clone(),
            layout: Arc::new(layout),
            ttl_ms,
            deleted,
            is_in_order: true,
        })
    }

    /// What says of a right row that there is no row any more.
    fn deleted(&self, right: &SchemaRef) -> Result<Option<Expr>> {
        let has_diff = right.index_of(DIFF).is_ok();
        if let (true, Some(versions)) = (is_changelog(right), &self.versions) {
            let keys = self.pairing.on.iter().map(|(_, key)| key);
            let computed = self.created.iter().chain(&versions.deleted);
            check_expressions(keys.chain(computed), right)?;
        }
        match &self.versions {
            None if has_diff => Err(Error::pipeline("features are a changelog")
                .with_detail(
                    "Column \"diff\" says which rows are taken back, and a feature never is.",
                )
                .with_hint("Look rows up in a changing table with `look_up`.")),
            None => Ok(None),
            Some(Versions { deleted: None }) if !has_diff => Ok(None),
            Some(Versions { deleted }) => {
                let by_diff = has_diff.then(|| crate::col(DIFF).lt(crate::lit(0i8)));
                let both = [by_diff, deleted.clone()].into_iter().flatten();
                let deleted = both.reduce(Expr::or);
                if let Some(expr) = &deleted {
                    Expression::compile_predicate(expr, right)?;
                }
                Ok(deleted)
            }
        }
    }
}

fn check_created(created: &Expr, right: &SchemaRef) -> Result<()> {
    let data_type = Expression::compile(created, right)?.data_type().clone();
    let fits = match &data_type {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => true,
        other => other.is_signed_integer(),
    };
    match fits {
        true => Ok(()),
        false => Err(Error::pipeline(format!(
            "`created` must be a timestamp, a date or a signed integer, `{created}` is {data_type}"
        ))),
    }
}

impl Collection {
    /// These rows, each with the newest row of `features` at or before its event time: what was known then,
    /// and never a value from the future. Exactly one row leaves for each that comes; where there is no
    /// feature, its columns are null. See [`AsOf`] for the rules.
    ///
    /// Columns are those of the rows, then those of the features without their event time. Rows leave when the
    /// watermark of both collections has passed their event time, and at the end of input.
    ///
    /// **Late.** A feature that comes behind the watermark may already have been missed by rows that have left,
    /// so it changes nothing and goes to the port `late_right`. A row that comes behind the watermark is answered
    /// at once where what is kept tells its answer for sure: where the newest feature of its key is not newer than
    /// the row, or, without a ttl, where there is none. Otherwise it goes to the port `late`.
    ///
    /// **Bad rows.** A feature on which [`AsOf::created`] or [`LookUp::deleted_where`](super::LookUp::deleted_where)
    /// fails is a bad row of the node `NAME/features`, for which [`on_bad_row`](Collection::on_bad_row) and
    /// [`dead_letters`](Collection::dead_letters) of the result speak.
    ///
    /// **State.** Rows and features ahead of the watermark, and behind it the newest feature of each
    /// key, until it is older than the ttl.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainstem_engine::ops::AsOf;
    /// # use mainstem_engine::{Pipeline, col};
    /// # fn training_rows(trips: mainstem_engine::Collection, stats: mainstem_engine::Collection) -> mainstem_engine::Collection {
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// trips.join_as_of(&stats, AsOf::on([col("driver")]).ttl(day).created(col("created")))
    /// # }
    /// ```
    #[must_use]
    pub fn join_as_of(&self, features: &Collection, as_of: AsOf) -> Collection {
        let name = self.next_name(as_of.kind());
        let pairing = as_of.pairing.clone();
        let deleted = as_of.versions.as_ref().and_then(|v| v.deleted.as_ref());
        let computed = as_of.created.iter().chain(deleted);
        let good = GoodRows::of(features, computed, &format!("{name}/features"));
        let features = good.as_ref().unwrap_or(features).clone();
        let whole = Arc::default();
        let made = |pairing| AsOf {
            pairing,
            whole,
            ..as_of
        };
        pairing
            .applied(self, &features, name, made)
            .rejecting_also_at(&good)
    }
}

impl AsOf {
    fn kind(&self) -> &'static str {
        match self.versions {
            None => "as_of_join",
            Some(_) => "look_up",
        }
    }
}

impl Transform for AsOf {
    fn describe(&self) -> Description {
        let mut config = json!({ "on": self.pairing.shown() });
        if let Some(ttl) = self.ttl {
            config["ttl_ms"] = Value::from(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(created) = &self.created {
            config["created"] = created.to_string().into();
        }
        if let Some(suffix) = &self.pairing.suffix {
            config["suffix"] = suffix.as_str().into();
        }
        if let Some(Versions {
            deleted: Some(deleted),
        }) = &self.versions
        {
            config["deleted_where"] = deleted.to_string().into();
        }
        Description::new(self.kind(), config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let planned = self.plan(&inputs[0], &inputs[1], None)?;
        let whole = match is_changelog(&inputs[1]) {
            true => inputs[1]
                .fields()
                .iter()
                .map(|f| f.name().clone())
                .collect(),
            false => Vec::new(),
        };
        *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = whole;
        Ok(SchemaRef::clone(&planned.layout.schema))
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        late_schema(port, inputs)
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Err(Error::bug(
            "an as-of join runs as the node that the planner makes of it",
        ))
    }

    fn properties(&self) -> Properties {
        Properties {
            // What it does not take of them is refused for the reason.
            on_changelog: OnChangelog::Understand,
            ..self.pairing.properties()
        }
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let deleted = self.versions.iter().flat_map(|v| &v.deleted);
        let mut columns = self
            .pairing
            .reads(wanted, self.created.iter().chain(deleted))?;
        columns.push(DIFF.into());
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        columns.extend(whole.iter().cloned());
        Some(columns)
    }

    /// Late rows leave as they came.
    fn reads_for_port(&self, _late: usize, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }

    fn keeps(&self) -> Option<String> {
        let newest = "rows until the watermark passes them, and the newest right one of each key";
        Some(match self.ttl {
            None => newest.into(),
            Some(_) => format!("{newest} until it is older than the ttl"),
        })
    }

    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        let [left, right] = place.inputs() else {
            return Err(Error::bug("an as-of join has two inputs"));
        };
        let planned = AsOfAt {
            is_in_order: place.has_positions(1),
            ..self.plan(left, right, place.wanted())?
        };
        Ok(Some(Lowered::to(planned, 2)))
    }
}

/// An as-of join that knows its columns.
#[derive(Clone, Debug)]
struct AsOfAt {
    spec: AsOf,
    layout: Arc<TimeLayout>,
    ttl_ms: Option<i64>,
    deleted: Option<Expr>,
    /// Features stand in the order of a source, which decides between those that are else equal.
    is_in_order: bool,
}

impl Transform for AsOfAt {
    fn describe(&self) -> Description {
        self.spec.describe()
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        self.layout.check_inputs(inputs)
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        late_schema(port, inputs)
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let right = &self.layout.right.schema;
        let created = self.spec.created.as_ref();
        let deleted = self.deleted.as_ref();
        Ok(Box::new(AsOfOperator::new(
            Arc::clone(&self.layout),
            self.ttl_ms,
            self.is_in_order,
            created.map(|e| Expression::compile(e, right)).transpose()?,
            deleted
                .map(|e| Expression::compile_predicate(e, right))
                .transpose()?,
        )?))
    }

    fn properties(&self) -> Properties {
        self.spec.properties()
    }

    fn keeps(&self) -> Option<String> {
        match is_changelog(&self.layout.right.schema) {
            true => Some("rows until the watermark passes them, and all rows of the table while they are there".into()),
            false => self.spec.keeps(),
        }
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        Some(self.layout.reads(wanted))
    }

    /// Late rows leave as they came.
    fn reads_for_port(&self, _late: usize, wanted: Option<&[String]>) -> Option<Vec<String>> {
        wanted.map(<[String]>::to_vec)
    }
}

#[cfg(test)]
mod tests;
