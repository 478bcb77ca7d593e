//! A feature: a tree of mappers over expressions.

use std::fmt;
use std::sync::Arc;

use mainstem_engine::{Error, Expr, Result};
use serde::{Deserialize, Serialize};

use crate::expression::BaseExpression;
use crate::mapper::Mapper;

/// What one feature is, from raw columns on: a tree of mappers over expressions.
///
/// Missing values (null, NaN, the empty text) are ignored by analyzers and stay missing in mappers,
/// unless a mapper says otherwise.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Feature {
    node: Node,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Node {
    Expression(BaseExpression),
    Mapped(Arc<dyn Mapper>),
    /// An expression that cannot be part of a feature, kept so that planning reports it.
    Refused(Refusal),
}

/// Why an expression cannot be part of a feature.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    message: String,
    #[serde(skip)]
    error: Option<Error>,
}

/// The feature that an expression gives for each row.
///
/// Columns, literals, arithmetic, comparisons, `and`, `or`, `not`, casts, `case`, `is null` and
/// DataFusion's scalar functions may stand in it; anything else is refused while planning.
pub fn feature(expr: Expr) -> Feature {
    let node = match BaseExpression::from_expr(&expr) {
        Ok(base) => Node::Expression(base),
        Err(error) => Node::Refused(Refusal {
            message: error.message().to_owned(),
            error: Some(error),
        }),
    };
    Feature { node }
}

impl Feature {
    /// The feature that a mapper gives, for mappers of your own.
    pub fn mapped(mapper: impl Mapper + 'static) -> Self {
        Self {
            node: Node::Mapped(Arc::new(mapper)),
        }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The raw columns it reads, in order of appearance.
    pub fn columns(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.find_columns(&mut found);
        found
    }

    pub(crate) fn find_columns(&self, found: &mut Vec<String>) {
        match &self.node {
            Node::Expression(base) => base.columns(found),
            Node::Mapped(mapper) => mapper
                .inputs()
                .into_iter()
                .for_each(|i| i.find_columns(found)),
            Node::Refused(_) => {}
        }
    }

    /// The same text for two features that are the same.
    pub(crate) fn key(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// How many passes over the rows must have ended before its values are known.
    pub(crate) fn phases(&self) -> usize {
        let Node::Mapped(mapper) = &self.node else {
            return 0;
        };
        let inputs = mapper.inputs().into_iter().map(Self::phases);
        let analyzers = mapper
            .analyzers()
            .into_iter()
            .map(|a| a.input().phases() + 1)
            .collect::<Vec<_>>();
        inputs.chain(analyzers).max().unwrap_or(0)
    }
}

impl Refusal {
    pub(crate) fn error(&self) -> Error {
        self.error
            .clone()
            .unwrap_or_else(|| Error::pipeline(self.message.clone()))
    }
}

impl PartialEq for Feature {
    fn eq(&self, other: &Self) -> bool {
        match (self.key(), other.key()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Debug for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Expression(base) => base.fmt(f),
            Node::Mapped(mapper) => mapper.fmt(f),
            Node::Refused(refusal) => refusal.fmt(f),
        }
    }
}
