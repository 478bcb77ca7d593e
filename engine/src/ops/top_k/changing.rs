//! The first rows of a changelog, kept up to date: a changelog of those rows.
//!
//! ```text
//! changes ──▶ top_k/partial ──▶ by key, or to one worker ──▶ top_k ──▶ a row that is no longer among the first -1,
//!             bytes of key,                                    │       one that has come to be +1
//!             order and values                                 │ all rows of each key, in order
//! ```
//!
//! The first rows of a key change at the instants at which its rows do. Where one of them is taken back, another
//! takes its place: so all rows are kept, as long as they are there. Without an event time each batch is an instant.
//! A row that is taken back before it is added, because that comes late, is not there meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int8Array, Int64Array, PrimitiveArray, UInt32Array,
};
use arrow::datatypes::{
    DataType, FieldRef, Int64Type, Schema, SchemaRef, TimestampMillisecondType, UInt32Type,
};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};

use super::{KEY, ORDER, Stage, TopK};
use crate::artifact::Artifacts;
use crate::batch::{BATCH_ROWS, Batch};
use crate::changelog::{
    check_expressions, diffs, never_added, own_columns, show_values, values_of,
};
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME, event_times};
use crate::expression::on_good_rows;
use crate::keys::{Keys, keys_of, plain_type};
use crate::ops::by_instant::{ByInstant, TakesInstants};
use crate::ops::row_key::{RowKey, with_bytes};
use crate::ops::rows_by_time::{Run, in_runs};
use crate::output::Output;
use crate::state::StatePart;
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

/// The bytes of a row's values, on the way to the worker of its key.
const ROW: &str = "$row";
/// In state: where the bytes of the order end, and how often the row is there.
const ORDER_LENGTH: &str = "$order_length";
const TIMES: &str = "$times";

/// Keys of which no rows are left are forgotten once there are more of them than others, and than this.
const MAX_GONE: usize = BATCH_ROWS;
/// What an entry takes besides its bytes, about.
const ENTRY_BYTES: usize = 64;

/// What the schema of a changelog makes of a [`TopK`].
#[derive(Debug)]
pub(super) struct Plan {
    /// The columns of the rows, without dictionaries.
    values: Vec<FieldRef>,
    has_time: bool,
    /// The columns that travel: key, order, values, when, by how much.
    travelling: SchemaRef,
    /// The columns that leave: those of the rows, when, by how much.
    output: SchemaRef,
}

/// What both halves share: the plan, once the first has been found to read changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes(Arc<Mutex<Option<Arc<Plan>>>>);

impl Changes {
    /// The plan; `None` where the rows are no changes.
    pub(super) fn plan(&self) -> Option<Arc<Plan>> {
        let plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plan.clone()
    }

    pub(super) fn set(&self, plan: Option<Plan>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = plan.map(Arc::new);
    }
}

impl Plan {
    /// Checks keys and order against the schema of a changelog.
    pub(super) fn new(spec: &TopK, schema: &SchemaRef) -> Result<Self> {
        let order = spec.order.iter().map(|s| &s.expr);
        check_expressions(spec.keys.iter().chain(order), schema)?;
        // A row that is taken back is found by its values.
        RowKey::of(&values_of(schema), schema)?;
        let own = own_columns(schema);
        let (own, values): (Vec<&FieldRef>, Vec<&FieldRef>) = schema
            .fields()
            .iter()
            .partition(|f| own.contains(&f.name().as_str()));
        let plain = |f: &&FieldRef| {
            let data_type = plain_type(f.data_type());
            Arc::new(f.as_ref().clone().with_data_type(data_type))
        };
        let values: Vec<FieldRef> = values.iter().map(plain).collect();
        let has_time = own.iter().any(|f| f.name() == EVENT_TIME);
        let mut own: Vec<FieldRef> = own.into_iter().cloned().collect();
        own.sort_by_key(|f| f.name() == DIFF);
        let output = values.iter().chain(&own).cloned().collect::<Vec<_>>();
        let none = Arc::new(Schema::empty());
        let bytes = with_bytes(&none, &[KEY, ORDER, ROW])?;
        let travelling = bytes
            .fields()
            .iter()
            .chain(&own)
            .cloned()
            .collect::<Vec<_>>();
        Ok(Self {
            values,
            has_time,
            travelling: Arc::new(Schema::new(travelling)),
            output: Arc::new(Schema::new(output)),
        })
    }

    pub(super) fn schema(&self, stage: Stage) -> SchemaRef {
        Arc::clone(match stage {
            Stage::Partial => &self.travelling,
            Stage::Final => &self.output,
        })
    }
}

/// What takes the place of a half of a [`TopK`] that reads changes.
#[derive(Debug)]
pub(super) struct ChangingTopK {
    pub(super) spec: TopK,
    pub(super) plan: Arc<Plan>,
}

impl Transform for ChangingTopK {
    fn describe(&self) -> Description {
        self.spec.describe()
    }

    fn output_schema(&self, _inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(self.plan.schema(self.spec.stage))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(match self.spec.stage {
            Stage::Partial => Box::new(PrepareOperator {
                spec: self.spec.clone(),
                plan: Arc::clone(&self.plan),
                keys: None,
            }),
            Stage::Final => Box::new(ChangingOperator::by_instant(&self.spec, &self.plan)?),
        })
    }

    fn keeps(&self) -> Option<String> {
        Some("all rows while they are there, and changes until the watermark passes them".into())
    }

    fn properties(&self) -> Properties {
        match self.spec.stage {
            Stage::Partial => Properties::row_wise().on_changelog(OnChangelog::Understand),
            Stage::Final => Properties {
                stateful: true,
                on_changelog: OnChangelog::Understand,
                distribution: self.spec.distribution(),
                ..Properties::default()
            },
        }
    }
}

/// Gives each row the bytes of its key, of its order and of its values.
struct PrepareOperator {
    spec: TopK,
    plan: Arc<Plan>,
    keys: Option<[RowKey; 3]>,
}

impl Operator for PrepareOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let schema = batch.rows().schema();
        let [key, order, row] = match &mut self.keys {
            Some(keys) => keys,
            slot => slot.insert([
                RowKey::of(&self.spec.keys, &schema)?,
                self.spec.order_key(&schema)?,
                RowKey::of(&values_of(&schema), &schema)?,
            ]),
        };
        let (batch, [key, order, row]) = on_good_rows(batch, out, |rows| {
            Ok([key.bytes(rows)?, order.bytes(rows)?, row.bytes(rows)?])
        })?;
        let bytes = [key, order, row].into_iter();
        let mut columns: Vec<ArrayRef> = bytes.map(|b| Arc::new(b) as ArrayRef).collect();
        for own in self.plan.travelling.fields().iter().skip(columns.len()) {
            let column = batch.rows().column_by_name(own.name());
            columns.push(Arc::clone(column.ok_or_else(|| {
                Error::bug("rows that are no changes came to a node that needs changes")
            })?));
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.plan.travelling), columns)?;
        out.push(batch.with_columns(rows));
        Ok(())
    }
}

/// A row by its bytes: those of its order, then those of its values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    bytes: Arc<[u8]>,
    /// Where the bytes of the order end: the same where the bytes are.
    order_length: u32,
}

impl Ranked {
    fn new(order: &[u8], row: &[u8]) -> Result<Self> {
        Ok(Self {
            bytes: [order, row].concat().into(),
            order_length: u32::try_from(order.len())
                .map_err(|_| Error::data("an order has more than 4 billion bytes"))?,
        })
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.order_length as usize)
    }
}

/// The rows of one key in order, each with how often it is there.
type Rows = BTreeMap<Ranked, i64>;

/// The second half of a top_k of changes.
struct ChangingOperator {
    n_rows: usize,
    plan: Arc<Plan>,
    key_names: Vec<String>,
    converter: RowConverter,
    keys: Box<dyn Keys>,
    groups: Vec<Rows>,
    n_gone: usize,
    /// What the entries of all groups take.
    n_bytes: usize,
}

/// A row that has come to be among the first, or is no longer; when, and by how much.
type Change = (Ranked, i64, i64);

impl ChangingOperator {
    fn by_instant(spec: &TopK, plan: &Arc<Plan>) -> Result<ByInstant<Self>> {
        let fields = plan.values.iter();
        let fields = fields.map(|f| SortField::new(f.data_type().clone()));
        let key_names = match spec.keys.is_empty() {
            true => Vec::new(),
            false => vec![KEY.into()],
        };
        let operator = Self {
            n_rows: spec.n_rows,
            plan: Arc::clone(plan),
            key_names: key_names.clone(),
            converter: RowConverter::new(fields.collect())?,
            keys: keys_of(&[DataType::Binary])?,
            groups: Vec::new(),
            n_gone: 0,
            n_bytes: 0,
        };
        Ok(ByInstant::new(operator, plan.has_time, &key_names))
    }

    /// The number of each row's group.
    fn number(&mut self, keys: &BinaryArray) -> Result<Vec<usize>> {
        let (mut groups, n_rows) = (Vec::new(), keys.len());
        let keys: ArrayRef = Arc::new(keys.clone());
        self.keys.number(&[keys], n_rows, &mut groups)?;
        self.n_gone += self.keys.len() - self.groups.len();
        self.groups.resize(self.keys.len(), Rows::new());
        Ok(groups)
    }

    fn add(&mut self, group: usize, row: Ranked, times: i64) {
        let n_bytes = row.bytes.len() + ENTRY_BYTES;
        let rows = &mut self.groups[group];
        let was_gone = rows.is_empty();
        match rows.get_mut(&row) {
            Some(n) if *n + times == 0 => {
                rows.remove(&row);
                self.n_bytes -= n_bytes;
            }
            Some(n) => *n += times,
            None if times == 0 => {}
            None => {
                rows.insert(row, times);
                self.n_bytes += n_bytes;
            }
        }
        match (was_gone, self.groups[group].is_empty()) {
            (true, false) => self.n_gone -= 1,
            (false, true) => self.n_gone += 1,
            _ => {}
        }
    }

    /// The first rows of a group, each with how often it is among them.
    fn first(&self, group: usize) -> Vec<(Ranked, i64)> {
        let mut left = i64::try_from(self.n_rows).unwrap_or(i64::MAX);
        let mut first = Vec::new();
        for (row, n) in self.groups[group].iter().filter(|(_, n)| **n > 0) {
            let n = left.min(*n);
            first.push((row.clone(), n));
            left -= n;
            if left == 0 {
                break;
            }
        }
        first
    }

    fn never_added(&self, row: &Ranked) -> Error {
        let names: Vec<String> = self.plan.values.iter().map(|f| f.name().clone()).collect();
        let values = self.values([row].into_iter()).ok();
        match values.and_then(|values| show_values(&names, &values)) {
            Some(shown) => never_added().with_detail(format!("The row is {shown}.")),
            None => never_added(),
        }
    }

    fn values<'a>(&self, rows: impl Iterator<Item = &'a Ranked>) -> Result<Vec<ArrayRef>> {
        if self.plan.values.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        Ok(self
            .converter
            .convert_rows(rows.map(|row| parser.parse(row.parts().1)))?)
    }

    fn give(&self, changes: &[Change], out: &mut Output) -> Result<()> {
        let each = |change| {
            let (_, _, times): &Change = change;
            std::iter::repeat_n(change, usize::try_from(times.unsigned_abs()).unwrap_or(0))
        };
        let all: Vec<&Change> = changes.iter().flat_map(each).collect();
        for part in all.chunks(BATCH_ROWS) {
            let mut columns = self.values(part.iter().map(|(row, ..)| row))?;
            if self.plan.has_time {
                let times = part.iter().map(|(_, time, _)| *time);
                columns.push(Arc::new(
                    PrimitiveArray::<TimestampMillisecondType>::from_iter_values(times),
                ));
            }
            let signs = part.iter().map(|(.., n)| if *n < 0 { -1 } else { 1 });
            columns.push(Arc::new(Int8Array::from_iter_values(signs)));
            let rows = RecordBatch::try_new(Arc::clone(&self.plan.output), columns)?;
            out.push(Batch::new(rows).inexact());
        }
        Ok(())
    }

    fn forget_those_gone(&mut self) -> Result<()> {
        let n_there = self.groups.len() - self.n_gone;
        if self.n_gone <= MAX_GONE.max(n_there) {
            return Ok(());
        }
        let there = (0..self.groups.len()).filter(|g| !self.groups[*g].is_empty());
        let there: Vec<usize> = there.collect();
        let keys = self.keys.columns_of(&there)?;
        self.keys = keys_of(&[DataType::Binary])?;
        self.keys.number(&keys, there.len(), &mut Vec::new())?;
        let groups = there.iter().map(|g| std::mem::take(&mut self.groups[*g]));
        self.groups = groups.collect();
        self.n_gone = 0;
        Ok(())
    }
}

/// What makes the rows after of those before: what is taken back first.
fn differences(before: &[(Ranked, i64)], after: &[(Ranked, i64)], time: i64) -> Vec<Change> {
    let mut more: BTreeMap<&Ranked, i64> = after.iter().map(|(row, n)| (row, *n)).collect();
    for (row, n) in before {
        *more.entry(row).or_default() -= n;
    }
    let mut changes: Vec<Change> = more
        .into_iter()
        .filter(|(_, n)| *n != 0)
        .map(|(row, n)| (row.clone(), time, n))
        .collect();
    changes.sort_by_key(|(.., n)| *n > 0);
    changes
}

fn bytes(rows: &RecordBatch, column: usize) -> Result<&BinaryArray> {
    rows.column(column)
        .as_binary_opt()
        .ok_or_else(|| Error::bug("rows came without the bytes of their keys"))
}

impl TakesInstants for ChangingOperator {
    fn take_in(&mut self, rows: &RecordBatch, out: &mut Output) -> Result<()> {
        let groups = self.number(bytes(rows, 0)?)?;
        let (rows, runs) = in_runs(rows, &groups, self.plan.has_time)?;
        let (order, values) = (bytes(&rows, 1)?, bytes(&rows, 2)?);
        let diffs = diffs(&rows)?;
        let times = match self.plan.has_time {
            true => event_times(&rows)?,
            false => &[],
        };
        let mut changes: Vec<Change> = Vec::new();
        for Run { group, rows } in runs {
            let before = self.first(group);
            let time = times.get(rows.start).copied().unwrap_or_default();
            for row in rows {
                let ranked = Ranked::new(order.value(row), values.value(row))?;
                self.add(group, ranked, i64::from(diffs[row]));
            }
            changes.extend(differences(&before, &self.first(group), time));
        }
        self.give(&changes, out)?;
        self.forget_those_gone()
    }

    fn end(&mut self) -> Result<()> {
        let mut rows = self.groups.iter().flatten();
        if let Some((row, _)) = rows.find(|(_, n)| **n < 0) {
            return Err(self.never_added(row));
        }
        self.keys = keys_of(&[DataType::Binary])?;
        (self.groups, self.n_gone, self.n_bytes) = (Vec::new(), 0, 0);
        Ok(())
    }

    fn n_bytes(&self) -> usize {
        let groups = self.groups.capacity() * size_of::<Rows>();
        self.keys.n_bytes() + groups + self.n_bytes
    }

    fn parts(&self) -> Result<Vec<StatePart>> {
        let mut parts = Vec::new();
        let numbers: Vec<usize> = (0..self.groups.len()).collect();
        for numbers in numbers.chunks(BATCH_ROWS) {
            let of = |&g: &usize| self.groups[g].iter().map(move |row| (g, row));
            let all: Vec<(usize, (&Ranked, &i64))> = numbers.iter().flat_map(of).collect();
            let groups: Vec<usize> = all.iter().map(|(g, _)| *g).collect();
            let keys = self.keys.columns_of(&groups)?;
            let bytes = all.iter().map(|(_, (row, _))| &*row.bytes);
            let lengths = all.iter().map(|(_, (row, _))| row.order_length);
            let times = all.iter().map(|(_, (_, n))| **n);
            let columns: [(&str, ArrayRef); 4] = [
                (KEY, Arc::clone(&keys[0])),
                (ROW, Arc::new(BinaryArray::from_iter_values(bytes))),
                (
                    ORDER_LENGTH,
                    Arc::new(UInt32Array::from_iter_values(lengths)),
                ),
                (TIMES, Arc::new(Int64Array::from_iter_values(times))),
            ];
            let rows = RecordBatch::try_from_iter(columns)?;
            parts.extend(StatePart::by_key("rows", &rows, &self.key_names)?);
        }
        Ok(parts)
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        for StatePart { rows, .. } in state.iter().filter(|part| part.table == "rows") {
            let other = || Error::pipeline("the state is that of another node");
            let groups = self.number(bytes(rows, 0)?)?;
            let all = bytes(rows, 1)?;
            let lengths = rows.column(2).as_primitive_opt::<UInt32Type>();
            let times = rows.column(3).as_primitive_opt::<Int64Type>();
            let (lengths, times) = lengths.zip(times).ok_or_else(other)?;
            for (row, group) in groups.into_iter().enumerate() {
                let ranked = Ranked {
                    bytes: all.value(row).into(),
                    order_length: lengths.value(row),
                };
                self.add(group, ranked, times.value(row));
            }
        }
        Ok(())
    }
}
