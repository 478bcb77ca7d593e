//! The side columns of main rows, made from what each of them has found.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, ListArray, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;

use super::Missing;
use super::layout::{Layout, Values};
use super::lookup::Coded;
use super::reach::Seen;
use super::table::{Entry, Table};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::output::Output;

/// Answers the rows of a batch from the tables of [`Seen::windows`]. Rows without an answer are rejected.
pub(super) fn answer(
    layout: &Layout,
    batch: &Batch,
    seen: &Seen,
    tables: &[Option<&Table>],
    keys: Option<&Coded>,
    schema: &SchemaRef,
    out: &mut Output,
) -> Result<Option<Batch>> {
    if let Some(places) = singletons(layout, seen, tables, keys) {
        return with_values(
            layout,
            batch.clone(),
            &Sources::new(tables),
            &places,
            None,
            schema,
        );
    }
    let found = |row: usize| -> &[Entry] {
        match tables[seen.of_row[row] as usize] {
            None => &[],
            Some(table) if layout.reach.is_versions() => table.version(keys, row, seen.needs[row]),
            Some(table) => table.entries(keys, row),
        }
    };
    let mut rejected = Vec::new();
    let picked = match layout.values {
        Values::Columns(_) => pick(layout, batch.n_rows(), found, &mut rejected),
        Values::List(_) => gather(layout, batch.n_rows(), found, &mut rejected),
    };
    let mut batch = batch.clone();
    if !rejected.is_empty() {
        let mut good = vec![true; batch.n_rows()];
        for (row, reason) in rejected {
            out.reject(&batch, row, reason)?;
            good[row] = false;
        }
        batch = batch.filter(&BooleanArray::from(good))?;
    }
    if batch.n_rows() == 0 {
        return Ok(None);
    }
    let sources = Sources::new(tables);
    let places = Places::Each(picked.places(&sources, &seen.of_row));
    with_values(layout, batch, &sources, &places, picked.ends, schema)
}

/// Where the one row of the window that each row sees is, if no row is to be rejected.
fn singletons(
    layout: &Layout,
    seen: &Seen,
    tables: &[Option<&Table>],
    keys: Option<&Coded>,
) -> Option<Places> {
    let is_one = matches!(layout.values, Values::Columns(_)) && layout.n_keys() == 0;
    if !is_one || layout.reach.is_versions() || seen.of_row.is_empty() {
        return None;
    }
    let sources = Sources::new(tables);
    let of_window = tables.iter().enumerate().map(|(window, table)| {
        match table.map_or(&[] as &[Entry], |table| table.entries(keys, 0)) {
            [one] => Some(sources.place(window, one.row)),
            [] if layout.missing == Missing::Null => Some((sources.n_chunks, 0)),
            _ => None,
        }
    });
    let of_window: Vec<(usize, usize)> = of_window.collect::<Option<_>>()?;
    if let [place] = of_window[..] {
        return Some(Places::Same(place, seen.of_row.len()));
    }
    let places = seen.of_row.iter().map(|&window| of_window[window as usize]);
    Some(Places::Each(places.collect()))
}

/// Where values are, as the chunk and the place in it.
enum Places {
    /// Of so many rows in one place, as all rows of a window see it.
    Same((usize, usize), usize),
    /// One after the other.
    Each(Vec<(usize, usize)>),
}

impl Places {
    /// Where all of them are, and how many.
    fn same(&self) -> Option<((usize, usize), usize)> {
        match self {
            Self::Same(place, n) => Some((*place, *n)),
            Self::Each(places) => {
                let first = places.first()?;
                let same = places.iter().all(|place| place == first);
                same.then_some((*first, places.len()))
            }
        }
    }

    fn each(&self) -> Cow<'_, [(usize, usize)]> {
        match self {
            Self::Same(place, n) => Cow::Owned(vec![*place; *n]),
            Self::Each(places) => Cow::Borrowed(places),
        }
    }
}

/// The rows with the side columns from these places, or with lists of them that end there.
fn with_values(
    layout: &Layout,
    batch: Batch,
    sources: &Sources<'_>,
    places: &Places,
    ends: Option<Vec<usize>>,
    schema: &SchemaRef,
) -> Result<Option<Batch>> {
    let mut columns = batch.rows().columns().to_vec();
    for (n, field) in layout.added.iter().enumerate() {
        columns.push(match (&ends, field.data_type()) {
            (None, data_type) => sources.take(n, data_type, places)?,
            (Some(ends), DataType::List(item)) => {
                let values = sources.take(n, item.data_type(), places)?;
                let lengths = ends
                    .iter()
                    .scan(0, |start, end| Some(end - std::mem::replace(start, *end)));
                let offsets = OffsetBuffer::from_lengths(lengths);
                Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, None)?)
            }
            (Some(_), other) => return Err(Error::bug(format!("a list became {other}"))),
        });
    }
    let rows = RecordBatch::try_new(Arc::clone(schema), columns)?;
    Ok(Some(batch.with_columns(rows)))
}

/// The ends of parts of a batch that each give not too many values of lists.
pub(super) fn parts(
    layout: &Layout,
    seen: &Seen,
    tables: &[Option<&Table>],
    keys: Option<&Coded>,
) -> Vec<usize> {
    let n_rows = seen.of_row.len();
    let mut ends = Vec::new();
    if let Values::List(_) = layout.values {
        let mut n_values = 0;
        for row in 0..n_rows {
            let table = tables[seen.of_row[row] as usize];
            n_values += table.map_or(0, |table| table.entries(keys, row).len());
            if n_values >= MAX_VALUES {
                ends.push(row + 1);
                n_values = 0;
            }
        }
    }
    if ends.last() != Some(&n_rows) {
        ends.push(n_rows);
    }
    ends
}

/// How many values the lists of one batch hold, about: many rows may each see many.
const MAX_VALUES: usize = 1 << 18;

/// The rows with nulls for the side columns.
pub(super) fn unanswered(layout: &Layout, batch: Batch) -> Result<Batch> {
    let schema = layout.output(&batch.rows().schema());
    let n_rows = batch.n_rows();
    let mut columns = batch.rows().columns().to_vec();
    let added = layout.added.iter();
    columns.extend(added.map(|field| new_null_array(field.data_type(), n_rows)));
    let rows = RecordBatch::try_new(schema, columns)?;
    Ok(batch.with_columns(rows))
}

/// The entries that the rows which are answered get, one after the other.
struct Picked {
    /// With the row each is for; `None` is null.
    entries: Vec<(usize, Option<Entry>)>,
    /// Where the entries of each answered row end, if it may get several.
    ends: Option<Vec<usize>>,
}

fn nothing_for(layout: &Layout) -> String {
    format!("side input {:?} has no row for this one", &*layout.side)
}

/// One entry a row.
fn pick<'a>(
    layout: &Layout,
    n_rows: usize,
    found: impl Fn(usize) -> &'a [Entry],
    rejected: &mut Vec<(usize, String)>,
) -> Picked {
    let mut entries = Vec::with_capacity(n_rows);
    for row in 0..n_rows {
        match found(row) {
            [one] => entries.push((row, Some(*one))),
            [] if layout.missing == Missing::Null => entries.push((row, None)),
            [] => rejected.push((row, nothing_for(layout))),
            several => {
                let n = several.len();
                let (side, shape) = (
                    &layout.side,
                    if layout.n_keys() == 0 {
                        "singleton"
                    } else {
                        "map"
                    },
                );
                rejected.push((
                    row,
                    format!(
                        "side input {side:?} has {n} rows for this one, and a {shape} gives one"
                    ),
                ));
            }
        }
    }
    Picked {
        entries,
        ends: None,
    }
}

/// All entries of a row.
fn gather<'a>(
    layout: &Layout,
    n_rows: usize,
    found: impl Fn(usize) -> &'a [Entry],
    rejected: &mut Vec<(usize, String)>,
) -> Picked {
    let mut entries = Vec::new();
    let mut ends = Vec::with_capacity(n_rows);
    for row in 0..n_rows {
        let all = found(row);
        if all.is_empty() && layout.missing == Missing::Reject {
            rejected.push((row, nothing_for(layout)));
            continue;
        }
        entries.extend(all.iter().map(|entry| (row, Some(*entry))));
        ends.push(entries.len());
    }
    Picked {
        entries,
        ends: Some(ends),
    }
}

impl Picked {
    fn places(&self, sources: &Sources<'_>, of_row: &[u32]) -> Vec<(usize, usize)> {
        let place = |(row, entry): &(usize, Option<Entry>)| match entry {
            Some(entry) => sources.place(of_row[*row] as usize, entry.row),
            None => (sources.n_chunks, 0),
        };
        self.entries.iter().map(place).collect()
    }
}

/// The chunks of several tables, one after the other.
struct Sources<'a> {
    tables: &'a [Option<&'a Table>],
    /// The number of the first chunk of each table.
    firsts: Vec<usize>,
    n_chunks: usize,
}

impl<'a> Sources<'a> {
    fn new(tables: &'a [Option<&'a Table>]) -> Self {
        let mut firsts = Vec::with_capacity(tables.len());
        let mut n_chunks = 0;
        for table in tables {
            firsts.push(n_chunks);
            n_chunks += table.map_or(0, Table::n_chunks);
        }
        Self {
            tables,
            firsts,
            n_chunks,
        }
    }

    fn place(&self, table: usize, row: u32) -> (usize, usize) {
        match self.tables[table] {
            Some(of) => {
                let (chunk, row) = of.place(row);
                (self.firsts[table] + chunk, row)
            }
            None => (self.n_chunks, 0),
        }
    }

    /// The values of a column at places; the place behind the last chunk is null.
    fn take(&self, column: usize, data_type: &DataType, places: &Places) -> Result<ArrayRef> {
        let tables = self.tables.iter().flatten();
        let mut arrays: Vec<&dyn Array> = tables
            .flat_map(|t| t.values(column))
            .map(|a| &**a)
            .collect();
        // What all rows of a window see needs no look at each of them.
        if data_type.is_primitive()
            && let Some(((chunk, row), n)) = places.same()
        {
            return match arrays.get(chunk) {
                Some(values) => {
                    let one = ScalarValue::try_from_array(*values, row)?;
                    Ok(one.to_array_of_size(n)?)
                }
                None => Ok(new_null_array(data_type, n)),
            };
        }
        let null = new_null_array(data_type, 1);
        arrays.push(&*null);
        Ok(interleave(&arrays, &places.each())?)
    }
}
