//! Conditions whose parts are asked in turn, row by row.

use std::fmt;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::kernels::boolean::{and_kleene, not, or_kleene};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Result, internal_datafusion_err};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, InListExpr, Literal, NotExpr, binary};

use super::null_as_false;

/// The expression with each `and`, `or` and list of expressions asked in turn; `None` where it has none.
///
/// DataFusion asks the right side of an `and` of all rows unless the left side is false on all or on most of them,
/// so `x != 0 and 10 / x > 1` fails on a batch of which no row fails alone. What is made here gives each row of a
/// batch what it gives that row alone. It copies the rows that are asked, so it is for batches on which the
/// expression itself fails.
pub(super) fn in_turn(
    expr: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let rewritten = Arc::clone(expr).transform_up(|node| {
        if let Some(condition) = node.downcast_ref::<BinaryExpr>() {
            let decided_by = match condition.op() {
                Operator::And => false,
                Operator::Or => true,
                _ => return Ok(Transformed::no(node)),
            };
            let (left, right) = (condition.left(), condition.right());
            return Ok(Transformed::yes(InTurn::of(left, right, decided_by)));
        }
        match node.downcast_ref::<InListExpr>() {
            Some(list) if !list.list().iter().all(|item| item.is::<Literal>()) => {
                Ok(Transformed::yes(one_after_another(list, schema)?))
            }
            _ => Ok(Transformed::no(node)),
        }
    })?;
    Ok(rewritten.transformed.then_some(rewritten.data))
}

/// Whether a value is one of a list, whose later parts are asked of the rows that have not met it yet.
fn one_after_another(list: &InListExpr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let is = |item| {
        binary(
            Arc::clone(list.expr()),
            Operator::Eq,
            Arc::clone(item),
            schema,
        )
    };
    let met = list.list().iter().map(is);
    let met = met.reduce(|met, next| Ok(InTurn::of(&met?, &next?, true)));
    let met = met.ok_or_else(|| internal_datafusion_err!("a list has no parts"))??;
    Ok(match list.negated() {
        true => Arc::new(NotExpr::new(met)),
        false => met,
    })
}

/// Two conditions, of which the second is asked of the rows on which the first does not decide.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InTurn {
    parts: [Arc<dyn PhysicalExpr>; 2],
    /// What decides: false of an `and`, true of an `or`.
    decided_by: bool,
}

impl InTurn {
    fn of(
        left: &Arc<dyn PhysicalExpr>,
        right: &Arc<dyn PhysicalExpr>,
        decided_by: bool,
    ) -> Arc<dyn PhysicalExpr> {
        Arc::new(Self {
            parts: [Arc::clone(left), Arc::clone(right)],
            decided_by,
        })
    }
}

impl PhysicalExpr for InTurn {
    fn data_type(&self, _input: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        let [left, right] = &self.parts;
        Ok(left.nullable(input)? || right.nullable(input)?)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let n_rows = rows.num_rows();
        let [left, right] = &self.parts;
        let left = left.evaluate(rows)?.into_array(n_rows)?;
        let left = left.as_boolean_opt();
        let left = left.ok_or_else(|| internal_datafusion_err!("a condition is no Boolean"))?;
        let decides = match self.decided_by {
            true => null_as_false(left),
            false => null_as_false(&not(left)?),
        };
        let right = right.evaluate_selection(rows, &not(&decides)?)?;
        // What it says of rows that were not asked does not count, as the first has decided.
        let right = right.into_array(n_rows)?;
        let right = right.as_boolean_opt();
        let right = right.ok_or_else(|| internal_datafusion_err!("a condition is no Boolean"))?;
        let both = match self.decided_by {
            true => or_kleene(left, right)?,
            false => and_kleene(left, right)?,
        };
        Ok(ColumnarValue::Array(Arc::new(both)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.parts.iter().collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        match &*children {
            [left, right] => Ok(Self::of(left, right, self.decided_by)),
            _ => Err(internal_datafusion_err!("a condition has two parts")),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for InTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.decided_by {
            true => "or",
            false => "and",
        };
        let [left, right] = &self.parts;
        write!(f, "({left} {by} {right})")
    }
}
