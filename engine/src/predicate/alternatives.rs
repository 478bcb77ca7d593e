//! What of a predicate is left for rows of which bounds are known.
//!
//! ```text
//! time: 3 to 9, no nulls      x = 1 AND (y = 2 OR time IS NULL OR time > 100)   ─▶ x = 1 AND y = 2
//! ```
//!
//! Columns that are only read by what is left out need not be read for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion_expr::{BinaryExpr, Expr, Operator};

use super::Predicate;
use crate::error::Result;

/// Of a predicate with more parts than this nothing is left out: the statistics of each file are read once for each.
const MOST_PARTS: usize = 16;

/// A predicate with each of the alternatives (`a OR b`) in it, to be asked about many files.
pub(crate) struct Alternatives {
    whole: Arc<Predicate>,
    schema: SchemaRef,
    parts: HashMap<Expr, Predicate>,
    /// What was left for the files so far.
    left: Mutex<HashMap<Expr, Arc<Predicate>>>,
}

impl Alternatives {
    /// The alternatives of a predicate over rows of `schema`.
    pub(crate) fn compile(expr: &Expr, schema: &SchemaRef) -> Result<Self> {
        let mut parts = Vec::new();
        without(expr, &mut |part| {
            parts.push(part.clone());
            true
        });
        if parts.len() > MOST_PARTS {
            parts.clear();
        }
        let compiled = |part: Expr| Ok((part.clone(), Predicate::compile(&part, schema)?));
        Ok(Self {
            whole: Arc::new(Predicate::compile(expr, schema)?),
            schema: SchemaRef::clone(schema),
            parts: parts.into_iter().map(compiled).collect::<Result<_>>()?,
            left: Mutex::default(),
        })
    }

    /// The predicate with nothing left out.
    pub(crate) fn whole(&self) -> &Predicate {
        &self.whole
    }

    /// The predicate for rows of which `may_hold` tells whether any makes such a part true.
    pub(crate) fn left(&self, may_hold: impl Fn(&Predicate) -> bool) -> Result<Arc<Predicate>> {
        let whole = || Arc::clone(&self.whole);
        let expr = without(&self.whole.expr, &mut |part| {
            self.parts.get(part).is_none_or(&may_hold)
        });
        // Where nothing is left no row is wanted, which the whole says as well.
        let Some(expr) = expr.filter(|expr| *expr != self.whole.expr) else {
            return Ok(whole());
        };
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = left.get(&expr) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Predicate::compile(&expr, &self.schema)?);
        left.insert(expr, Arc::clone(&made));
        Ok(made)
    }
}

/// What is true of the same rows if no row makes an alternative true that `keep` leaves out.
///
/// Such a part is false or null for all rows, and only `AND` and `OR` stand above it: what makes the whole true
/// does so without it.
fn without(expr: &Expr, keep: &mut impl FnMut(&Expr) -> bool) -> Option<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if *op == Operator::And => {
            let (left, right) = (without(left, keep), without(right, keep));
            Some(left?.and(right?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if *op == Operator::Or => {
            let mut kept = |side: &Expr| match is_or(side) || keep(side) {
                true => without(side, keep),
                false => None,
            };
            match (kept(left), kept(right)) {
                (Some(left), Some(right)) => Some(left.or(right)),
                (left, right) => left.or(right),
            }
        }
        other => Some(other.clone()),
    }
}

fn is_or(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { op, .. }) if *op == Operator::Or)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{col, lit};
    use crate::testing::table;

    /// What is left of `a = 1 AND (b = 2 OR (c = 3 AND (d = 4 OR e = 5)) OR f = 6)` where these columns' parts cannot
    /// be true.
    fn left_without(never: &[&str]) -> String {
        let is = |name: &str, value: i64| col(name).eq(lit(value));
        let inner = is("c", 3).and(is("d", 4).or(is("e", 5)));
        let expr = is("a", 1).and(is("b", 2).or(inner).or(is("f", 6)));
        let schema = table("a: 1; b: 1; c: 1; d: 1; e: 1; f: 1").schema();
        let all = Alternatives::compile(&expr, &schema).unwrap();
        let holds = |part: &Predicate| !part.columns().any(|name| never.contains(&name));
        let left = all.left(holds).unwrap();
        let again = all.left(holds).unwrap();
        assert!(Arc::ptr_eq(&left, &again), "compiled once");
        let columns: Vec<&str> = left.columns().collect();
        format!("{} [{}]", left.expr, columns.join(" "))
    }

    #[test]
    fn of_many_alternatives_none_is_asked_about() {
        let schema = table("a: 1").schema();
        let asked_of = |n_parts: usize| {
            let parts = (0..n_parts as i64).map(|n| col("a").eq(lit(n)));
            let expr = parts.reduce(Expr::or).unwrap();
            let n_asked = std::cell::Cell::new(0);
            let all = Alternatives::compile(&expr, &schema).unwrap();
            let left = all.left(|_| {
                n_asked.set(n_asked.get() + 1);
                true
            });
            assert_eq!(left.unwrap().expr, expr);
            n_asked.get()
        };
        assert_eq!([MOST_PARTS, MOST_PARTS + 1].map(asked_of), [MOST_PARTS, 0]);
    }

    #[test]
    fn what_no_row_makes_true_is_left_out() {
        let said: Vec<String> = [
            &[][..],
            &["f"],
            &["b", "f"],
            &["d"],
            &["c"],
            &["a"],
            &["b", "d", "e"],
            &["b", "c", "f"],
        ]
        .map(|never| format!("without {never:?}: {}", left_without(never)))
        .to_vec();
        expect_test::expect![[r#"
            without []: a = Int64(1) AND (b = Int64(2) OR c = Int64(3) AND (d = Int64(4) OR e = Int64(5)) OR f = Int64(6)) [a b c d e f]
            without ["f"]: a = Int64(1) AND (b = Int64(2) OR c = Int64(3) AND (d = Int64(4) OR e = Int64(5))) [a b c d e]
            without ["b", "f"]: a = Int64(1) AND c = Int64(3) AND (d = Int64(4) OR e = Int64(5)) [a c d e]
            without ["d"]: a = Int64(1) AND (b = Int64(2) OR f = Int64(6)) [a b f]
            without ["c"]: a = Int64(1) AND (b = Int64(2) OR f = Int64(6)) [a b f]
            without ["a"]: a = Int64(1) AND (b = Int64(2) OR c = Int64(3) AND (d = Int64(4) OR e = Int64(5)) OR f = Int64(6)) [a b c d e f]
            without ["b", "d", "e"]: a = Int64(1) AND f = Int64(6) [a f]
            without ["b", "c", "f"]: a = Int64(1) AND (b = Int64(2) OR c = Int64(3) AND (d = Int64(4) OR e = Int64(5)) OR f = Int64(6)) [a b c d e f]"#]].assert_eq(&said.join("\n"));
    }
}
