//! Columns for keys that are computed, made in front of what deals or matches rows by their keys.
//!
//! Each is a node of its own, `NAME/…`, so that a row whose key has no value is a bad row there, with its
//! position, and whoever comes behind reads keys that cannot fail.

use datafusion_expr::Expr;

use crate::expression::col;
use crate::pipeline::Collection;

/// How the name of such a column begins.
const MADE: &str = "$key_";

/// Rows with a column for each of their keys.
pub(super) struct KeyColumns {
    pub(super) rows: Collection,
    /// What the keys are called now: all are columns.
    pub(super) keys: Vec<Expr>,
    /// The nodes that make columns, which reject rows.
    pub(super) made: Vec<Collection>,
}

impl KeyColumns {
    /// The rows with a column at their end for each key that `is_made` of; the nodes are called
    /// `prefix` and the number of the key.
    pub(super) fn of(
        rows: &Collection,
        keys: &[Expr],
        prefix: &str,
        is_made: impl Fn(&Expr) -> bool,
    ) -> Self {
        let mut rows = rows.clone();
        let mut made = Vec::new();
        let mut columns = Vec::with_capacity(keys.len());
        for (n, key) in keys.iter().enumerate() {
            match key.clone().unalias() {
                key if is_made(&key) => {
                    let column = format!("{MADE}{n} {key}");
                    let node = rows.named(format!("{prefix}{n}"));
                    rows = node.with_column(&column, key);
                    made.push(rows.clone());
                    columns.push(col(column));
                }
                key => columns.push(key),
            }
        }
        Self {
            rows,
            keys: columns,
            made,
        }
    }
}

/// True of a key that is not a column yet.
pub(super) fn is_computed(key: &Expr) -> bool {
    !matches!(key, Expr::Column(_))
}

/// True of a column that was made for a key.
pub(super) fn is_made(column: &str) -> bool {
    column.starts_with(MADE)
}

/// A key as it was written, for messages.
pub(super) fn key_text(key: &Expr) -> String {
    let text = match key {
        Expr::Column(column) => column.name.strip_prefix(MADE),
        _ => None,
    };
    match text.and_then(|numbered| numbered.split_once(' ')) {
        Some((_, text)) => text.to_owned(),
        None => key.to_string(),
    }
}

#[cfg(test)]
mod tests;
