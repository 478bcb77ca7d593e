//! The cells of all scopes, one after the other, by the number of the scope.

use std::any::Any;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Cells, DeclaredCell};
use crate::error::{Error, Result};
use crate::ops::map_rows::fields_of;

/// What one cell holds, as rows.
pub(in crate::ops::keyed) trait Content: Default + Send + 'static {
    /// A saved row.
    type Row: DeserializeOwned + 'static;
    /// A row while it is saved.
    type RowRef<'a>: Serialize
    where
        Self: 'a;

    fn is_empty(&self) -> bool;

    /// About how many bytes are kept, besides the cell itself.
    fn n_bytes(&self) -> usize;

    fn save<'a>(&'a self, rows: &mut Vec<Self::RowRef<'a>>);

    fn restore(&mut self, row: Self::Row);
}

/// The cells of one name.
pub(in crate::ops::keyed) struct Slab<C> {
    cells: Vec<C>,
    fields: Vec<FieldRef>,
    /// What the contents keep, besides the cells.
    pub(super) n_bytes: usize,
}

impl<C: Content> Slab<C> {
    /// The declaration of such cells.
    ///
    /// # Errors
    /// If the values cannot be columns.
    pub(super) fn declare(kind: &'static str, name: &'static str) -> Result<DeclaredCell> {
        let cannot = |error: Error| {
            let why = error.to_string();
            Error::pipeline(format!("{kind} {name:?} cannot be kept as columns"))
                .with_detail(format!("{}.", why.lines().next().unwrap_or_default()))
                .with_hint("A cell holds numbers, text, Booleans, and options, lists, maps or structs of them.")
        };
        let fields = fields_of::<C::Row>().map_err(cannot)?;
        let columns = fields.clone();
        Ok(DeclaredCell {
            name,
            kind,
            fields,
            build: Arc::new(move || {
                Ok(Box::new(Self {
                    cells: Vec::new(),
                    fields: columns.clone(),
                    n_bytes: 0,
                }))
            }),
        })
    }

    pub(super) fn get(&self, scope: usize) -> &C {
        &self.cells[scope]
    }

    pub(super) fn get_mut(&mut self, scope: usize) -> &mut C {
        &mut self.cells[scope]
    }
}

impl<C: Content> Cells for Slab<C> {
    fn make_room(&mut self, n_scopes: usize) {
        if self.cells.len() < n_scopes {
            self.cells.resize_with(n_scopes, C::default);
        }
    }

    fn is_empty(&self, scope: usize) -> bool {
        self.cells[scope].is_empty()
    }

    fn clear(&mut self, scope: usize) {
        let old = std::mem::take(&mut self.cells[scope]);
        self.n_bytes -= old.n_bytes();
    }

    fn keep(&mut self, scopes: &[usize]) {
        let kept = scopes
            .iter()
            .map(|scope| std::mem::take(&mut self.cells[*scope]));
        self.cells = kept.collect();
    }

    fn n_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<C>() + self.n_bytes
    }

    fn save(&mut self, scopes: &[usize]) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let mut rows = Vec::new();
        let mut places = Vec::new();
        for (place, &scope) in (0u32..).zip(scopes) {
            self.cells[scope].save(&mut rows);
            places.resize(rows.len(), place);
        }
        let columns = serde_arrow::to_arrow(&self.fields, &rows).map_err(|error| {
            Error::data("the values of a cell do not fit their own type")
                .with_detail(format!("{}.", error.message()))
        })?;
        Ok((places, columns))
    }

    fn restore(&mut self, scopes: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let schema = Arc::new(Schema::new(self.fields.clone()));
        let saved = RecordBatch::try_new(schema, columns.to_vec())?;
        let rows: Vec<C::Row> = serde_arrow::from_record_batch(&saved).map_err(|error| {
            Error::data("the saved rows of a cell are of another type")
                .with_detail(format!("{}.", error.message()))
        })?;
        for (scope, row) in scopes.iter().zip(rows) {
            let cell = &mut self.cells[*scope];
            self.n_bytes -= cell.n_bytes();
            cell.restore(row);
            self.n_bytes += cell.n_bytes();
        }
        Ok(())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
