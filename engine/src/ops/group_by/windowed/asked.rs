//! What is asked of the rows of each window: aggregates by key, or each row once.

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::{Map, Value, json};

use crate::changelog::values_of;
use crate::error::{Error, Result};
use crate::event_time::EVENT_TIME;
use crate::expression::with_columns_of;

/// What leaves of the rows of each window.
#[derive(Clone, Debug)]
pub(in crate::ops::group_by) enum Asked {
    /// For each group its keys and what is computed from aggregates.
    Aggregates { keys: Vec<Expr>, outputs: Vec<Expr> },
    /// Each row once, whenever it was: its columns are the keys, and nothing is aggregated.
    Distinct,
}

/// Keys and outputs of an aggregation.
pub(super) struct Grouped {
    pub(super) keys: Vec<Expr>,
    pub(super) outputs: Vec<Expr>,
}

impl Asked {
    /// What that is of rows with these columns.
    pub(super) fn grouped(&self, schema: &SchemaRef) -> Result<Grouped> {
        let (keys, outputs) = match self {
            Self::Aggregates { keys, outputs } => (keys.clone(), outputs.clone()),
            Self::Distinct => {
                let is_value = |e: &Expr| !matches!(e, Expr::Column(c) if c.name == EVENT_TIME);
                let values = values_of(schema).into_iter().filter(is_value);
                (values.collect(), Vec::new())
            }
        };
        match self {
            Self::Distinct if keys.is_empty() => Err(Error::pipeline(format!(
                "the rows have no column besides {EVENT_TIME:?}, so all of a window are the same"
            ))
            .with_hint("Count them with `agg([count(lit(1))])` if you want to know of them.")),
            _ => Ok(Grouped { keys, outputs }),
        }
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
        }
    }

    /// What nodes before the exchange are called.
    pub(super) fn partial_kind(&self) -> &'static str {
        match self {
            Self::Aggregates { .. } => "partial_aggregate",
            Self::Distinct => "partial_distinct",
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
        }
        config
    }

    /// The names of the columns that are read; `None` for all.
    pub(super) fn reads(&self) -> Option<Vec<String>> {
        match self {
            Self::Aggregates { keys, outputs } => {
                let time = [EVENT_TIME.to_owned()];
                with_columns_of(Some(&time), keys.iter().chain(outputs))
            }
            Self::Distinct => None,
        }
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
