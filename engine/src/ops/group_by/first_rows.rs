//! An aggregate that keeps whole rows: the first of each group, as a list.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray, UInt32Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, Result, internal_err, not_impl_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, GroupsAccumulator, Signature,
    Volatility,
};
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use crate::batch::BATCH_ROWS;
use crate::error::Error;
use crate::expression::col;
use crate::ops::top_k::FirstOfGroups;

/// The first `n_rows` rows of a group, by the bytes in the column `order`: a list of structs with these columns.
pub(super) fn first_rows(n_rows: usize, order: &str, columns: &[String]) -> Expr {
    let arguments = std::iter::once(order).chain(columns.iter().map(String::as_str));
    let arguments: Vec<Expr> = arguments.map(col).collect();
    let function = FirstRows {
        n_rows,
        name: format!("first {n_rows} rows"),
        order: order.to_owned(),
        columns: columns.to_vec(),
        signature: Signature::any(arguments.len(), Volatility::Immutable),
    };
    AggregateUDF::from(function).call(arguments)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FirstRows {
    n_rows: usize,
    name: String,
    order: String,
    columns: Vec<String>,
    signature: Signature,
}

impl FirstRows {
    /// The columns of rows of these types, and the bytes by which they are ordered at the end.
    fn kept(&self, columns: &[DataType]) -> Fields {
        let columns = self.columns.iter().zip(columns);
        let columns = columns.map(|(name, of)| Field::new(name, of.clone(), true));
        columns
            .chain([Field::new(&self.order, DataType::Binary, false)])
            .collect()
    }
}

impl AggregateUDFImpl for FirstRows {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let kept = self.kept(arguments.get(1..).unwrap_or_default());
        Ok(list_of(&kept[..kept.len() - 1].into()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let columns = args.input_fields.iter().skip(1);
        let columns: Vec<DataType> = columns.map(|f| f.data_type().clone()).collect();
        let of = list_of(&self.kept(&columns));
        let name = format!("{}[rows]", args.name);
        Ok(vec![Arc::new(Field::new(name, of, true))])
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("the first rows of one group alone")
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let columns = args.expr_fields.iter().skip(1);
        let columns: Vec<DataType> = columns.map(|f| f.data_type().clone()).collect();
        Ok(Box::new(FirstRowsAccumulator {
            schema: Arc::new(Schema::new(self.kept(&columns))),
            first: FirstOfGroups::new(self.n_rows),
            n_rows: self.n_rows,
            n_groups: 0,
        }))
    }
}

/// As [`first_rows`] of a changelog, by the struct in the column `row`: its first field is the order, which does not
/// leave, and then the others are.
pub(super) fn first_rows_of_changes(n_rows: usize, row: &str) -> Expr {
    let function = FirstOfChanges {
        n_rows,
        name: format!("first {n_rows} rows"),
        signature: Signature::any(1, Volatility::Immutable),
    };
    AggregateUDF::from(function).call(vec![col(row)])
}

/// How many rows [`first_rows_of_changes`] wants, if that is the function.
pub(super) fn n_rows_of_changes(function: &AggregateFunctionExpr) -> Option<usize> {
    let of = function.fun().inner().downcast_ref::<FirstOfChanges>()?;
    Some(of.n_rows)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FirstOfChanges {
    n_rows: usize,
    name: String,
    signature: Signature,
}

impl AggregateUDFImpl for FirstOfChanges {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::Struct(fields)] if !fields.is_empty() => Ok(list_of(&fields[1..].into())),
            _ => internal_err!("first rows of a changelog are structs"),
        }
    }

    /// What keeps rows that may be taken back is no accumulator of the library's.
    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("the first rows of a changelog without windows")
    }
}

fn list_of(fields: &Fields) -> DataType {
    DataType::List(item_of(fields))
}

fn item_of(fields: &Fields) -> FieldRef {
    Arc::new(Field::new_list_field(
        DataType::Struct(fields.clone()),
        true,
    ))
}

/// The first rows of many groups.
struct FirstRowsAccumulator {
    /// The columns of rows, that of their order last.
    schema: SchemaRef,
    first: FirstOfGroups,
    n_rows: usize,
    n_groups: usize,
}

impl fmt::Debug for FirstRowsAccumulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FirstRows({} of {})", self.n_rows, self.n_groups)
    }
}

impl FirstRowsAccumulator {
    /// Rows as they are kept, from the columns of arguments: the order comes last.
    fn rows(&self, values: &[ArrayRef]) -> Result<RecordBatch> {
        let mut columns = values.to_vec();
        columns.rotate_left(1);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn add(&mut self, rows: &RecordBatch, groups: &[usize], n_groups: usize) -> Result<()> {
        self.n_groups = self.n_groups.max(n_groups);
        self.first.add(rows, groups, n_groups).map_err(external)
    }

    /// The rows of each group as a list; none are left.
    fn take(&mut self, emit_to: EmitTo) -> Result<ListArray> {
        if emit_to != EmitTo::All {
            return internal_err!("the first rows of some groups only are asked for");
        }
        let (batches, n_rows) = self.first.sorted().map_err(external)?;
        let rows = concat_batches(&self.schema, batches)?;
        let n_rows = n_rows.into_iter().chain(std::iter::repeat(0));
        let lists = lists_of(&rows, n_rows.take(self.n_groups))?;
        self.first = FirstOfGroups::new(self.n_rows);
        self.n_groups = 0;
        Ok(lists)
    }
}

/// Rows that follow each other as lists of so many.
pub(super) fn lists_of(
    rows: &RecordBatch,
    n_rows: impl Iterator<Item = usize>,
) -> Result<ListArray> {
    let mut offsets = vec![0_i32];
    let mut end = 0_i32;
    for n_rows in n_rows {
        let n_rows = i32::try_from(n_rows).ok();
        end = n_rows
            .and_then(|n| end.checked_add(n))
            .ok_or_else(|| external(Error::data("first rows of groups are more than 2 billion")))?;
        offsets.push(end);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let fields = rows.schema().fields().clone();
    let rows: ArrayRef = Arc::new(StructArray::from(rows.clone()));
    Ok(ListArray::try_new(item_of(&fields), offsets, rows, None)?)
}

impl GroupsAccumulator for FirstRowsAccumulator {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        n_groups: usize,
    ) -> Result<()> {
        if filter.is_some() {
            return internal_err!("first rows are filtered before they are aggregated");
        }
        let rows = self.rows(values)?;
        self.add(&rows, groups, n_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (_, offsets, rows, nulls) = self.take(emit_to)?.into_parts();
        let (fields, mut columns, _) = rows.as_struct().clone().into_parts();
        // The order stays behind.
        columns.pop();
        let fields: Fields = fields[..columns.len()].into();
        let rows = StructArray::try_new_with_length(fields.clone(), columns, None, rows.len())?;
        let lists = ListArray::try_new(item_of(&fields), offsets, Arc::new(rows), nulls)?;
        Ok(Arc::new(lists))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(self.take(emit_to)?)])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        n_groups: usize,
    ) -> Result<()> {
        self.n_groups = self.n_groups.max(n_groups);
        let lists = values
            .first()
            .and_then(|column| column.as_list_opt::<i32>());
        let Some(lists) = lists else {
            return internal_err!("states of first rows are missing");
        };
        let (rows, of_rows) = rows_of_lists(lists);
        let groups: Vec<usize> = of_rows.map(|list| groups[list]).collect();
        let rows = RecordBatch::from(rows.as_struct());
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec())?;
        self.add(&rows, &groups, n_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        if filter.is_some() {
            return internal_err!("first rows are filtered before they are aggregated");
        }
        let rows = self.rows(values)?;
        let n_rows = std::iter::repeat_n(1, rows.num_rows());
        Ok(vec![Arc::new(lists_of(&rows, n_rows)?)])
    }

    fn size(&self) -> usize {
        usize::try_from(self.first.n_bytes()).unwrap_or(usize::MAX / 2)
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What stands in lists, and in which of them each stands.
fn rows_of_lists(lists: &ListArray) -> (ArrayRef, impl Iterator<Item = usize>) {
    let offsets = lists.value_offsets();
    let first = offsets.first().map_or(0, |first| *first as usize);
    let last = offsets.last().map_or(0, |last| *last as usize);
    let rows = lists.values().slice(first, last - first);
    let lengths: Vec<usize> = lists.offsets().lengths().collect();
    let of = lengths.into_iter().enumerate();
    (
        rows,
        of.flat_map(|(list, n_rows)| std::iter::repeat_n(list, n_rows)),
    )
}

/// The rows of these lists, in batches that are not too large.
///
/// The column `at` are the lists. Those before it stay behind, and those after it stand in each row; `leaving` are the
/// columns that come of it.
pub(super) fn unnested(
    lists: &[RecordBatch],
    at: usize,
    leaving: &SchemaRef,
) -> crate::error::Result<Vec<RecordBatch>> {
    let mut left = Vec::with_capacity(lists.len());
    for lists in lists {
        let rows = all_rows(lists, at, leaving)?;
        let starts = (0..rows.num_rows()).step_by(BATCH_ROWS);
        left.extend(starts.map(|from| rows.slice(from, BATCH_ROWS.min(rows.num_rows() - from))));
    }
    Ok(left)
}

fn all_rows(
    rows: &RecordBatch,
    at: usize,
    leaving: &SchemaRef,
) -> crate::error::Result<RecordBatch> {
    let lists = rows.column(at).as_list_opt::<i32>();
    let lists = lists.ok_or_else(|| Error::bug("first rows of groups are no lists"))?;
    let (values, of_rows) = rows_of_lists(lists);
    let of_rows = of_rows.map(|row| u32::try_from(row).unwrap_or(u32::MAX));
    let of_rows = UInt32Array::from_iter_values(of_rows);
    let mut columns = values.as_struct().columns().to_vec();
    for column in &rows.columns()[at + 1..] {
        columns.push(take(column, &of_rows, None)?);
    }
    Ok(RecordBatch::try_new(Arc::clone(leaving), columns)?)
}
