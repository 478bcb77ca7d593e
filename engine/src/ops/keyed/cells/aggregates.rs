//! A cell with aggregates of rows.

use std::any::Any;

use arrow::array::ArrayRef;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;
use std::sync::Arc;

use super::{Cell, Cells, DeclaredCell, Stored};
use crate::error::Result;
use crate::ops::group_by::{AggregateCell, CellPlan};

/// A cell that holds [aggregates](crate::aggregates) of the rows that were added to it.
///
/// ```
/// use mainstem_engine::aggregates::avg;
/// use mainstem_engine::{col, ops::keyed::Aggregates};
/// let delays = Aggregates::new("delays", [avg(col("delay")).alias("mean")]);
/// ```
#[derive(Clone, Debug)]
pub struct Aggregates {
    name: &'static str,
    outputs: Vec<Expr>,
}

impl Aggregates {
    /// A cell of this name, with aggregates as in [`GroupedRows::agg`](crate::ops::GroupedRows::agg).
    pub fn new(name: &'static str, aggregates: impl IntoIterator<Item = Expr>) -> Self {
        Self {
            name,
            outputs: aggregates.into_iter().collect(),
        }
    }
}

impl Cell for Aggregates {
    fn name(&self) -> &'static str {
        self.name
    }

    fn declare(&self, rows: &SchemaRef) -> Result<DeclaredCell> {
        let plan = CellPlan::new(&self.outputs, rows)?;
        Ok(DeclaredCell {
            name: self.name,
            kind: Self::KIND,
            fields: plan.states().fields().to_vec(),
            build: Arc::new(move || {
                Ok(Box::new(AggregateCells {
                    plan: plan.clone(),
                    cells: Vec::new(),
                }))
            }),
        })
    }
}

impl Stored for Aggregates {
    type Cells = AggregateCells;
    const KIND: &'static str = "aggregates";
}

/// The aggregates of all scopes.
pub(in crate::ops::keyed) struct AggregateCells {
    plan: CellPlan,
    cells: Vec<Option<AggregateCell>>,
}

impl AggregateCells {
    fn cell(&mut self, scope: usize) -> Result<&mut AggregateCell> {
        match &mut self.cells[scope] {
            Some(cell) => Ok(cell),
            slot => Ok(slot.insert(AggregateCell::new(&self.plan)?)),
        }
    }
}

impl Cells for AggregateCells {
    fn make_room(&mut self, n_scopes: usize) {
        if self.cells.len() < n_scopes {
            self.cells.resize_with(n_scopes, || None);
        }
    }

    fn is_empty(&self, scope: usize) -> bool {
        self.cells[scope].is_none()
    }

    fn clear(&mut self, scope: usize) {
        self.cells[scope] = None;
    }

    fn keep(&mut self, scopes: &[usize]) {
        let kept = scopes.iter().map(|scope| self.cells[*scope].take());
        self.cells = kept.collect();
    }

    fn n_bytes(&self) -> usize {
        let held: usize = self
            .cells
            .iter()
            .flatten()
            .map(AggregateCell::n_bytes)
            .sum();
        self.cells.capacity() * size_of::<Option<AggregateCell>>() + held
    }

    fn save(&mut self, scopes: &[usize]) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let mut places = Vec::new();
        let mut states = Vec::new();
        for (place, &scope) in (0u32..).zip(scopes) {
            if let Some(cell) = &mut self.cells[scope] {
                places.push(place);
                states.push(cell.state()?);
            }
        }
        let states = concat_batches(self.plan.states(), &states)?;
        Ok((places, states.columns().to_vec()))
    }

    fn restore(&mut self, scopes: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let states = RecordBatch::try_new(Arc::clone(self.plan.states()), columns.to_vec())?;
        for (row, &scope) in scopes.iter().enumerate() {
            self.cell(scope)?.merge(&states.slice(row, 1))?;
        }
        Ok(())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// The [`Aggregates`] of one key and window.
pub struct AggregatesState<'a> {
    pub(in crate::ops::keyed) cells: &'a mut AggregateCells,
    pub(in crate::ops::keyed) scope: usize,
}

impl AggregatesState<'_> {
    /// Takes in rows with the columns of those that come in.
    ///
    /// # Errors
    /// If an argument of an aggregate fails on a row.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        self.cells.cell(self.scope)?.add(rows)
    }

    /// The aggregates, as one row; `None` if no row has come.
    ///
    /// # Errors
    /// If an aggregate has no value, such as a sum that does not fit its type.
    pub fn read(&mut self) -> Result<Option<RecordBatch>> {
        let cell = &mut self.cells.cells[self.scope];
        cell.as_mut().map(AggregateCell::read).transpose()
    }

    /// Empties the cell.
    pub fn clear(&mut self) {
        self.cells.clear(self.scope);
    }
}
