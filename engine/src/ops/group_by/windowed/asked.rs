//! What is asked of the rows of each window: aggregates by key, each row once, or those that come first.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion_expr::{Expr, SortExpr};
use serde_json::{Map, Value, json};

use crate::changelog::{check_expressions, is_changelog};
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME};
use crate::expression::{col, with_columns_of};
use crate::keys::plain_type;
use crate::ops::group_by::first_rows::{first_rows, first_rows_of_changes};
use crate::ops::top_k::{Ranking, check_first};

/// What leaves of the rows of each window.
#[derive(Clone, Debug)]
pub(in crate::ops::group_by) enum Asked {
    /// For each group its keys and what is computed from aggregates.
    Aggregates { keys: Vec<Expr>, outputs: Vec<Expr> },
    /// Each row once, whenever it was: its columns are the keys, and nothing is aggregated.
    Distinct,
    /// The rows of each group that come first under an order, and then as they stand in their source.
    First {
        /// What the user calls it.
        kind: &'static str,
        n_rows: usize,
        keys: Vec<Expr>,
        order: Vec<SortExpr>,
    },
}

/// The column with the bytes by which rows are ordered, and that of lists of rows.
///
/// Users' columns may be called anything; what begins with a space is ours.
pub(super) const ORDER: &str = " order";
/// Of a changelog, the column with the whole rows: structs of the order and of all values.
pub(super) const ROW: &str = " row";
const ROWS: &str = " rows";

/// Keys and outputs of an aggregation.
pub(super) struct Grouped {
    pub(super) keys: Vec<Expr>,
    pub(super) outputs: Vec<Expr>,
    /// Gives rows the column [`ORDER`], where it is asked which come first.
    pub(super) ranking: Option<Ranking>,
    /// The columns of rows that leave as they came; nothing where groups leave as rows of their own.
    pub(super) rows: Option<Vec<FieldRef>>,
}

impl Asked {
    /// What that is of rows with these columns, of which only those that are `kept` leave where rows leave as they came;
    /// `None` for all.
    pub(super) fn grouped(&self, schema: &SchemaRef, kept: Option<&[String]>) -> Result<Grouped> {
        Ok(match self {
            Self::Aggregates { keys, outputs } => Grouped {
                keys: keys.clone(),
                outputs: outputs.clone(),
                ranking: None,
                rows: None,
            },
            Self::Distinct => Grouped {
                keys: values_of(schema)?.iter().map(|f| col(f.name())).collect(),
                outputs: Vec::new(),
                ranking: None,
                rows: None,
            },
            Self::First {
                kind,
                n_rows,
                keys,
                order,
            } => {
                check_first(kind, *n_rows, keys, order, schema)?;
                let mut rows = values_of(schema)?;
                let first = if is_changelog(schema) {
                    check_expressions(order.iter().map(|s| &s.expr), schema)?;
                    rows = rows.into_iter().map(plain).collect();
                    first_rows_of_changes(*n_rows, ROW)
                } else {
                    rows.retain(|f| kept.is_none_or(|kept| kept.contains(f.name())));
                    let names: Vec<String> = rows.iter().map(|f| f.name().clone()).collect();
                    first_rows(*n_rows, ORDER, &names)
                };
                Grouped {
                    keys: keys.clone(),
                    outputs: vec![first.alias(ROWS)],
                    ranking: Some(Ranking::new(order, schema)?),
                    rows: Some(rows),
                }
            }
        })
    }

    /// True if a group that has left has said all there is to say of its window.
    pub(super) fn says_all_at_once(&self) -> bool {
        matches!(self, Self::Distinct)
    }

    /// What nodes are called.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Aggregates { keys, .. } if keys.is_empty() => "agg",
            Self::Aggregates { .. } => "group_by",
            Self::Distinct => "distinct",
            Self::First { kind, .. } => kind,
        }
    }

    /// What nodes before the exchange are called.
    pub(super) fn partial_kind(&self) -> &'static str {
        match self {
            Self::Aggregates { .. } => "partial_aggregate",
            Self::Distinct => "partial_distinct",
            Self::First { .. } => "partial_top_k",
        }
    }

    /// Keys and what else is asked, as a plan shows it.
    pub(super) fn config(&self) -> Map<String, Value> {
        let text = |all: &[Expr]| -> Vec<String> { all.iter().map(ToString::to_string).collect() };
        let mut config = Map::new();
        match self {
            Self::Aggregates { keys, outputs } => {
                config.insert("keys".into(), json!(text(keys)));
                config.insert("aggregates".into(), json!(text(outputs)));
            }
            Self::Distinct => {}
            Self::First {
                n_rows,
                keys,
                order,
                ..
            } => {
                config.insert("n_rows".into(), json!(n_rows));
                config.insert("keys".into(), json!(text(keys)));
                let order = order.iter().map(ToString::to_string);
                config.insert("order".into(), json!(order.collect::<Vec<_>>()));
            }
        }
        config
    }

    /// The names of the columns that are read, where those that are `kept` leave of rows that leave as they came;
    /// `None` for all.
    pub(super) fn reads(&self, kept: Option<&[String]>) -> Option<Vec<String>> {
        let time = [EVENT_TIME.to_owned()];
        match self {
            Self::Aggregates { keys, outputs } => {
                with_columns_of(Some(&time), keys.iter().chain(outputs))
            }
            Self::Distinct => None,
            Self::First { keys, order, .. } => {
                let columns = [kept?, &time].concat();
                let order = order.iter().map(|s| &s.expr);
                with_columns_of(Some(&columns), keys.iter().chain(order))
            }
        }
    }

    /// The columns to be kept of rows with these, so that those of `wanted` can leave; `None` where all are.
    ///
    /// One is kept in any case, to count rows by: if possible one that is read.
    pub(super) fn kept(&self, schema: &SchemaRef, wanted: &[String]) -> Option<Vec<String>> {
        let Self::First { .. } = self else {
            return None;
        };
        // A row that may be taken back is found by all of its values.
        if is_changelog(schema) {
            return None;
        }
        let values = values_of(schema).ok()?;
        let names = values.iter().map(|f| f.name());
        let kept: Vec<String> = names
            .clone()
            .filter(|n| wanted.contains(n))
            .cloned()
            .collect();
        if !kept.is_empty() {
            return Some(kept);
        }
        let read = self.reads(Some(&[]))?;
        let one = names.clone().find(|name| read.contains(name));
        Some(one.or_else(|| names.clone().next())?.clone()).map(|one| vec![one])
    }

    /// The column that is the one key and is read by nothing else.
    pub(super) fn plain_key(&self) -> Option<&str> {
        let Self::Aggregates { keys, outputs } = self else {
            return None;
        };
        let [Expr::Column(key)] = keys.as_slice() else {
            return None;
        };
        let mut outputs = outputs.iter();
        let is_read = outputs.any(|e| e.column_refs().iter().any(|c| c.name == key.name));
        (!is_read).then_some(&key.name)
    }
}

/// The columns that make a row what it is, whenever it was.
fn values_of(schema: &SchemaRef) -> Result<Vec<FieldRef>> {
    let is_own = |name: &str| name == EVENT_TIME || (name == DIFF && is_changelog(schema));
    let values = schema.fields().iter().filter(|f| !is_own(f.name()));
    let values: Vec<FieldRef> = values.cloned().collect();
    match values.is_empty() {
        true => Err(Error::pipeline(format!(
            "the rows have no column besides {EVENT_TIME:?}, so all of a window are the same"
        ))
        .with_hint("Count them with `agg([count(lit(1))])` if you want to know of them.")),
        false => Ok(values),
    }
}

/// The column as rows that may be taken back have it: dictionaries are compared by their values.
fn plain(field: FieldRef) -> FieldRef {
    let data_type = plain_type(field.data_type());
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}
