//! The table of one side of a join: its rows, and an index of their keys.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::{Array, ArrayRef, BooleanArray, LargeBinaryArray, UInt32Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat, filter, filter_record_batch, interleave, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::keys::{KeyForm, Keys, code};
use super::layout::Layout;
use super::marks::Marks;
use super::table::{Index, KeyLists};
use super::widths::Widths;
use super::{JoinKind, Side};
use crate::analyzer::{Analysis, Analyzer, DynAnalyzer};
use crate::artifact::Artifacts;
use crate::error::{Error, Result};
use crate::expression::{Expression, check_column};
use crate::transform::Description;

/// Learns the table of one side of a join.
#[derive(Clone, Debug)]
pub(super) struct JoinBuild {
    layout: Arc<Layout>,
    side: Side,
    because: String,
}

impl JoinBuild {
    pub(super) fn new(layout: Arc<Layout>, side: Side, because: String) -> Self {
        Self {
            layout,
            side,
            because,
        }
    }

    fn key_types(&self) -> Vec<DataType> {
        let keys = self.layout.keys.iter();
        keys.map(|k| k.data_type.clone()).collect()
    }

    /// True if the rows themselves are needed, not only whether there are any with a key.
    fn wants_rows(&self) -> bool {
        let only_asks = self.layout.kind.only() == Some(self.side.other());
        !only_asks || self.layout.filter.is_some()
    }

    /// True if rows of this side may be given that are part of no pair.
    pub(super) fn marks(kind: JoinKind, side: Side) -> bool {
        kind.keeps_unmatched(side) || kind.only() == Some(side)
    }
}

impl Analysis for JoinBuild {
    fn describe(&self) -> Description {
        let config = json!({ "side": self.side.name(), "because": self.because });
        Description::new("join_build", config)
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        for key in &self.layout.keys {
            Expression::compile(key.of(self.side), input)?;
        }
        for name in self.layout.taken(self.side) {
            check_column(&name, input)?;
        }
        Ok(())
    }

    fn reads(&self) -> Option<Vec<String>> {
        Some(self.layout.reads(self.side))
    }

    fn is_transient(&self) -> bool {
        true
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Arc<dyn DynAnalyzer>> {
        Ok(Arc::new(self.clone()))
    }
}

/// The rows of one side so far, in parts whose rows stand in the order of a split.
#[derive(Debug, Default)]
pub(super) struct Rows {
    parts: Vec<Part>,
    compiled: Option<(SchemaRef, Arc<Compiled>)>,
    n_bytes: u64,
}

#[derive(Debug)]
struct Compiled {
    keys: Vec<Expression>,
    taken: Vec<usize>,
}

#[derive(Debug, Default)]
struct Part {
    n_rows: usize,
    batches: Vec<RecordBatch>,
    keys: PartKeys,
}

#[derive(Debug, Default)]
enum PartKeys {
    #[default]
    None,
    Words(KeyLists<u64>),
    Bytes(KeyLists<u128>),
}

impl PartKeys {
    fn n_bytes(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Words(lists) => lists.n_bytes(),
            Self::Bytes(lists) => lists.n_bytes(),
        }
    }

    fn add(&mut self, keys: &Keys, first_row: u32) -> Result<()> {
        match (self, keys) {
            (Self::Words(lists), Keys::Words(codes, nulls)) => {
                lists.add(codes, nulls.as_ref(), |_| &[], first_row)
            }
            (Self::Bytes(lists), Keys::Bytes(codes, nulls, bytes)) => {
                lists.add(codes, nulls.as_ref(), |i| bytes.value(i), first_row)
            }
            (slot @ Self::None, Keys::Words(..)) => {
                *slot = Self::Words(KeyLists::default());
                slot.add(keys, first_row)
            }
            (slot @ Self::None, Keys::Bytes(..)) => {
                *slot = Self::Bytes(KeyLists::default());
                slot.add(keys, first_row)
            }
            _ => Err(Error::bug("keys of two forms in one table")),
        }
    }
}

impl JoinBuild {
    fn compile(&self, rows: &mut Rows, schema: &SchemaRef) -> Result<Arc<Compiled>> {
        if let Some((of, compiled)) = &rows.compiled
            && Arc::ptr_eq(of, schema)
        {
            return Ok(Arc::clone(compiled));
        }
        let key = |k: &super::layout::Key| Expression::compile(k.of(self.side), schema);
        let compiled = Arc::new(Compiled {
            keys: self.layout.keys.iter().map(key).collect::<Result<_>>()?,
            taken: self
                .layout
                .taken(self.side)
                .iter()
                .map(|name| check_column(name, schema))
                .collect::<Result<_>>()?,
        });
        rows.compiled = Some((SchemaRef::clone(schema), Arc::clone(&compiled)));
        Ok(compiled)
    }

    fn append(&self, rows: &mut Rows, taken: RecordBatch, keys: &Keys) -> Result<()> {
        if rows.parts.is_empty() {
            rows.parts.push(Part::default());
        }
        let Some(part) = rows.parts.last_mut() else {
            return Ok(());
        };
        let before = part.keys.n_bytes();
        let first_row = u32::try_from(part.n_rows).map_err(|_| too_many())?;
        part.keys.add(keys, first_row)?;
        part.n_rows += taken.num_rows();
        rows.n_bytes += part.keys.n_bytes() - before;
        if taken.num_columns() > 0 {
            let of = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
            // Twice: once as they came, and once more while they are brought together in one array a column.
            rows.n_bytes += 2 * taken.columns().iter().map(of).sum::<usize>() as u64;
            part.batches.push(taken);
        }
        Ok(())
    }
}

fn too_many() -> Error {
    Error::environment(format!(
        "a side of a join holds more than {} rows",
        u32::MAX - 1
    ))
    .with_hint("Hold the other side with `Join::build_side`, or join by parts of the key.")
}

impl Analyzer for JoinBuild {
    type Accumulator = Rows;
    type Output = JoinTable;

    fn create_accumulator(&self) -> Rows {
        Rows::default()
    }

    fn add(&self, accumulator: &mut Rows, rows: &RecordBatch) -> Result<()> {
        let compiled = self.compile(accumulator, &rows.schema())?;
        let mut keys: Vec<ArrayRef> = compiled
            .keys
            .iter()
            .map(|k| k.evaluate(rows))
            .collect::<Result<_>>()?;
        let mut taken = rows.project(&compiled.taken)?;
        // A row with a null key is part of no pair.
        if !self.layout.kind.keeps_unmatched(self.side) {
            let nulls = keys.iter().fold(None, |nulls, key| {
                NullBuffer::union(nulls.as_ref(), key.logical_nulls().as_ref())
            });
            if let Some(nulls) = nulls.filter(|n| n.null_count() > 0) {
                let mask = BooleanArray::new(nulls.into_inner(), None);
                taken = filter_record_batch(&taken, &mask)?;
                keys = keys
                    .iter()
                    .map(|k| filter(k, &mask))
                    .collect::<Result<_, _>>()?;
            }
        }
        let keys = self.layout.encode(&keys, &self.key_types())?;
        self.append(accumulator, taken, &keys)
    }

    fn merge(&self, accumulator: &mut Rows, other: Rows) -> Result<()> {
        accumulator.parts.extend(other.parts);
        accumulator.n_bytes += other.n_bytes;
        Ok(())
    }

    fn finish(&self, accumulator: Rows) -> Result<JoinTable> {
        self.finish_on(accumulator, 1)
    }

    fn finish_on(&self, accumulator: Rows, n_threads: usize) -> Result<JoinTable> {
        let mut parts: Vec<Range<u32>> = Vec::with_capacity(accumulator.parts.len());
        let mut batches = Vec::new();
        let (mut words, mut bytes) = (Vec::new(), Vec::new());
        let mut n_rows = 0u32;
        for part in accumulator.parts {
            let first = n_rows;
            // The greatest number stands for no row.
            n_rows = u32::try_from(part.n_rows)
                .ok()
                .and_then(|n| n_rows.checked_add(n))
                .filter(|n| *n < u32::MAX)
                .ok_or_else(too_many)?;
            parts.push(first..n_rows);
            batches.extend(part.batches);
            match part.keys {
                PartKeys::Words(lists) => words.push((first, lists)),
                PartKeys::Bytes(lists) => bytes.push((first, lists)),
                PartKeys::None => {}
            }
        }
        let index = match KeyForm::of(&self.key_types()) {
            KeyForm::Word => Index::of_words(words, self.wants_rows(), n_threads)?,
            KeyForm::Bytes | KeyForm::Rows => Index::of_bytes(bytes, self.wants_rows(), n_threads)?,
        };
        let columns = Columns::new(batches, n_threads)?;
        Ok(JoinTable {
            widths: Widths::of(&columns.chunks),
            columns,
            parts,
            n_rows,
            index,
            marks: Mutex::default(),
        })
    }

    fn accumulator_bytes(&self, accumulator: &Rows) -> u64 {
        accumulator.n_bytes
    }

    fn artifact_bytes(&self, table: &JoinTable) -> u64 {
        table.n_bytes()
    }

    /// The rows, and their keys as bytes in a last column.
    fn save(&self, accumulator: &Rows) -> Result<RecordBatch> {
        let mut keys: Vec<Option<Vec<u8>>> = Vec::new();
        for part in &accumulator.parts {
            let first = keys.len();
            keys.resize(first + part.n_rows, None);
            match &part.keys {
                PartKeys::None => {}
                PartKeys::Words(lists) => lists.each(|row, code, _| {
                    keys[first + row as usize] = Some(code.to_le_bytes().to_vec());
                }),
                PartKeys::Bytes(lists) => lists.each(|row, code, long| {
                    let inline = code.to_le_bytes();
                    let bytes = match long {
                        [] => &inline[4..4 + code as u32 as usize],
                        long => long,
                    };
                    keys[first + row as usize] = Some(bytes.to_vec());
                }),
            }
        }
        let key: ArrayRef = Arc::new(
            keys.iter()
                .map(Option::as_deref)
                .collect::<LargeBinaryArray>(),
        );
        let batches: Vec<&RecordBatch> =
            accumulator.parts.iter().flat_map(|p| &p.batches).collect();
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        if let Some(first) = batches.first() {
            fields.extend(first.schema().fields().iter().cloned());
            for i in 0..first.num_columns() {
                let arrays: Vec<&dyn Array> = batches.iter().map(|b| &**b.column(i)).collect();
                columns.push(concat(&arrays)?);
            }
        }
        fields.push(Arc::new(Field::new("key", DataType::LargeBinary, true)));
        columns.push(key);
        Ok(RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            columns,
        )?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<Rows> {
        let foreign = || Error::bug("these rows are not of a join");
        let n_columns = saved.num_columns().checked_sub(1).ok_or_else(foreign)?;
        let keys = saved
            .column(n_columns)
            .as_any()
            .downcast_ref::<LargeBinaryArray>()
            .ok_or_else(foreign)?;
        let nulls = keys.nulls().cloned();
        let keys = match KeyForm::of(&self.key_types()) {
            KeyForm::Word => {
                let word = |key: Option<&[u8]>| match key {
                    Some(key) => key
                        .try_into()
                        .map(u64::from_le_bytes)
                        .map_err(|_| foreign()),
                    None => Ok(0),
                };
                Keys::Words(keys.iter().map(word).collect::<Result<_>>()?, nulls)
            }
            KeyForm::Bytes | KeyForm::Rows => {
                let codes = keys.iter().map(|key| key.map_or(0, code)).collect();
                let bytes = super::keys::KeyBytes::Column(Arc::new(keys.clone()));
                Keys::Bytes(codes, nulls, bytes)
            }
        };
        let mut rows = Rows::default();
        let taken: Vec<usize> = (0..n_columns).collect();
        self.append(&mut rows, saved.project(&taken)?, &keys)?;
        Ok(rows)
    }
}

/// The rows of one side of a join and an index of their keys; read-only but for what is matched.
pub(super) struct JoinTable {
    pub(super) columns: Columns,
    /// Of all rows, where some are wide.
    pub(super) widths: Option<Widths>,
    /// The rows of each split, or of what one worker saw of it.
    pub(super) parts: Vec<Range<u32>>,
    pub(super) n_rows: u32,
    pub(super) index: Index,
    /// Those of the operators at work.
    marks: Mutex<Weak<Marks>>,
}

impl JoinTable {
    /// The marks that the operators of this phase share, and whether these are the first to ask.
    ///
    /// All operators of a phase are built before it begins and dropped before the next, so marks live
    /// as long as any of them and never leak into another phase.
    pub(super) fn marks(&self, of_rows: bool) -> (Arc<Marks>, bool) {
        let mut slot = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.upgrade() {
            Some(marks) => (marks, false),
            None => {
                let n_rows = if of_rows { self.n_rows as usize } else { 0 };
                let marks = Arc::new(Marks::new(n_rows));
                *slot = Arc::downgrade(&marks);
                (marks, true)
            }
        }
    }

    pub(super) fn n_bytes(&self) -> u64 {
        let of_widths = self.widths.as_ref().map_or(0, Widths::n_bytes);
        self.columns.n_bytes() + self.index.n_bytes() + of_widths
    }
}

impl fmt::Debug for JoinTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "JoinTable({} rows, {} bytes)",
            self.n_rows,
            self.n_bytes()
        )
    }
}

/// Stands for no row among the numbers of rows.
pub(super) const NO_ROW: u32 = u32::MAX;

/// The columns of a table, in as few arrays as their types allow.
pub(super) struct Columns {
    names: Vec<String>,
    chunks: Vec<RecordBatch>,
    starts: Vec<u32>,
}

/// Bytes of one column that fit in one array of 32-bit offsets.
const CHUNK_BYTES: usize = i32::MAX as usize;

impl Columns {
    fn new(batches: Vec<RecordBatch>, n_threads: usize) -> Result<Self> {
        let Some(schema) = batches.first().map(RecordBatch::schema) else {
            return Ok(Self {
                names: Vec::new(),
                chunks: Vec::new(),
                starts: Vec::new(),
            });
        };
        let chunks = on_threads(group(batches), n_threads, |chunk| {
            let columns: Vec<usize> = (0..schema.fields().len()).collect();
            let columns = on_threads(columns, n_threads, |i| {
                let arrays: Vec<&dyn Array> = chunk.iter().map(|b| &**b.column(i)).collect();
                concat(&arrays)
            });
            match columns {
                Ok(columns) => Ok(vec![RecordBatch::try_new(
                    SchemaRef::clone(&schema),
                    columns,
                )?]),
                // Dictionaries whose values are too many for their keys together.
                Err(_) => Ok::<_, Error>(chunk),
            }
        })?;
        let chunks: Vec<RecordBatch> = chunks.into_iter().flatten().collect();
        let starts = chunks.iter().scan(0u32, |next, chunk| {
            let start = *next;
            *next += chunk.num_rows() as u32;
            Some(start)
        });
        Ok(Self {
            names: schema.fields().iter().map(|f| f.name().clone()).collect(),
            starts: starts.collect(),
            chunks,
        })
    }

    /// The values of a column in these rows; null for [`NO_ROW`].
    pub(super) fn gather(
        &self,
        name: &str,
        data_type: &DataType,
        rows: &UInt32Array,
    ) -> Result<ArrayRef> {
        let Some(column) = self.names.iter().position(|n| n == name) else {
            return Ok(new_null_array(data_type, rows.len()));
        };
        if let [chunk] = self.chunks.as_slice() {
            return Ok(take(chunk.column(column), rows, None)?);
        }
        let null = new_null_array(data_type, 1);
        let mut arrays: Vec<&dyn Array> = self.chunks.iter().map(|c| &**c.column(column)).collect();
        arrays.push(&*null);
        let places: Vec<(usize, usize)> = rows
            .iter()
            .map(|row| match row {
                None => (arrays.len() - 1, 0),
                Some(row) => {
                    let chunk = self.starts.partition_point(|start| *start <= row) - 1;
                    (chunk, (row - self.starts[chunk]) as usize)
                }
            })
            .collect();
        Ok(interleave(&arrays, &places)?)
    }

    fn n_bytes(&self) -> u64 {
        self.chunks
            .iter()
            .map(RecordBatch::get_array_memory_size)
            .sum::<usize>() as u64
    }
}

/// Batches that go into one array each.
fn group(batches: Vec<RecordBatch>) -> Vec<Vec<RecordBatch>> {
    let bytes_of = |batch: &RecordBatch| -> usize {
        let columns = batch.columns().iter();
        let of_varying = columns
            .filter(|c| !c.data_type().is_primitive() && c.data_type() != &DataType::Boolean);
        of_varying
            .map(|c| c.to_data().get_slice_memory_size().unwrap_or(0))
            .max()
            .unwrap_or(0)
    };
    let mut groups: Vec<Vec<RecordBatch>> = Vec::new();
    let mut n_bytes = 0;
    for batch in batches {
        let more = bytes_of(&batch);
        match groups.last_mut() {
            Some(group) if n_bytes + more <= CHUNK_BYTES => {
                n_bytes += more;
                group.push(batch);
            }
            _ => {
                n_bytes = more;
                groups.push(vec![batch]);
            }
        }
    }
    groups
}

/// Each item through `work`, in order, on up to `n_threads` threads.
pub(super) fn on_threads<I: Send, O: Send, E: Send + Into<Error>>(
    items: Vec<I>,
    n_threads: usize,
    work: impl Fn(I) -> Result<O, E> + Sync,
) -> Result<Vec<O>> {
    let n_threads = n_threads.min(items.len());
    if n_threads <= 1 {
        return items
            .into_iter()
            .map(|i| work(i).map_err(Into::into))
            .collect();
    }
    let n_items = items.len();
    let items = Mutex::new(items.into_iter().enumerate());
    let run = || {
        let mut done: Vec<(usize, Result<O>)> = Vec::new();
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some((place, item)) = next() {
            done.push((place, work(item).map_err(Into::into)));
        }
        done
    };
    let mut done: Vec<(usize, Result<O>)> = Vec::with_capacity(n_items);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            match thread.join() {
                Ok(of_thread) => done.extend(of_thread),
                Err(_) => done.push((n_items, Err(Error::bug("a thread panicked")))),
            }
        }
    });
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}
