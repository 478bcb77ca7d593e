//! The side of a join that is read past the table of the other one.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::build::{JoinBuild, JoinTable, NO_ROW};
use super::keys::Keys;
use super::layout::{Column, Layout, Origin, schema_of};
use super::marks::Marks;
use super::table::Found;
use super::widths::{Lot, Widths};
use super::{JoinKind, Side};
use crate::artifact::{ArtifactId, ArtifactRef, Artifacts};
use crate::batch::{BATCH_ROWS, Batch, SplitKey};
use crate::error::{Error, Result};
use crate::expression::{Expression, OfPairs, check_column, of_pairs, on_good_rows};
use crate::output::Output;
use crate::transform::{Description, Operator, Properties, Transform, Watermark};

/// Looks the rows of one side up in the table of the other.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    description: Description,
    layout: Arc<Layout>,
    side: Side,
    table: ArtifactRef<JoinTable>,
}

impl Probe {
    pub(super) fn new(
        description: Description,
        layout: Arc<Layout>,
        side: Side,
        table: ArtifactRef<JoinTable>,
    ) -> Self {
        Self {
            description,
            layout,
            side,
            table,
        }
    }

    fn gives_rows_at_the_end(&self) -> bool {
        JoinBuild::marks(self.layout.kind, self.side.other())
    }
}

impl Transform for Probe {
    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        for name in self.layout.reads(self.side) {
            check_column(&name, &inputs[0])?;
        }
        Ok(self.layout.schema())
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let table = artifacts.get(&self.table)?;
        let gives_rest = self.gives_rows_at_the_end();
        let (marks, is_first) = table.marks(gives_rest);
        Ok(Box::new(ProbeOperator {
            schema: self.layout.schema(),
            kind: self.layout.kind,
            layout: Arc::clone(&self.layout),
            side: self.side,
            gives_rest,
            marks,
            is_first,
            table,
            compiled: None,
            rest: None,
            widths: None,
        }))
    }

    fn needs(&self) -> Vec<ArtifactId> {
        vec![ArtifactId::clone(self.table.id())]
    }

    fn properties(&self) -> Properties {
        if self.gives_rows_at_the_end() {
            Properties {
                stateful: true,
                ..Properties::default()
            }
        } else {
            Properties::row_wise()
        }
    }

    fn reads(&self, _wanted: Option<&[String]>) -> Option<Vec<String>> {
        Some(self.layout.reads(self.side))
    }
}

struct Compiled {
    schema: SchemaRef,
    keys: Vec<Expression>,
    types: Vec<DataType>,
    filter: Option<Filter>,
}

impl Compiled {
    fn keys_of(&self, rows: &RecordBatch, layout: &Layout) -> Result<Keys> {
        let keys = self.keys.iter().map(|k| k.evaluate(rows));
        layout.encode(&keys.collect::<Result<Vec<_>>>()?, &self.types)
    }
}

struct Filter {
    columns: Vec<Column>,
    schema: SchemaRef,
    predicate: Expression,
}

/// What is left to be made.
enum Rest {
    /// Of a batch: what each row finds, the next row, its next match, and what the filter said of those before.
    Batch {
        batch: Box<Batch>,
        found: Vec<Found>,
        row: usize,
        nth: usize,
        matched: Matched,
    },
    /// Of the table: the part and its next row.
    Table { part: usize, next: u32 },
}

/// What the filter has said of the pairs of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Matched {
    None,
    /// It failed on one, so that nobody knows whether the row matches.
    Unknown,
    Some,
}

struct ProbeOperator {
    layout: Arc<Layout>,
    kind: JoinKind,
    side: Side,
    schema: SchemaRef,
    table: Arc<JoinTable>,
    /// Rows of the table are given at the end, according to the marks.
    gives_rest: bool,
    marks: Arc<Marks>,
    /// The first operator of the phase answers for the memory of the marks; that of the table is counted at
    /// the node that built it, as long as anything reads it.
    is_first: bool,
    compiled: Option<Compiled>,
    rest: Option<Rest>,
    /// Of the rows of the batch whose pairs are made, where some are wide.
    widths: Option<Widths>,
}

impl Operator for ProbeOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let layout = Arc::clone(&self.layout);
        let compiled = self.compiled(&batch.rows().schema())?;
        let has_filter = compiled.filter.is_some();
        let (batch, keys) = on_good_rows(batch, out, |rows| compiled.keys_of(rows, &layout))?;
        let found = self.table.index.find(&keys)?;
        if !has_filter {
            match self.kind.only() {
                Some(side) if side == self.side => return self.push_asked(&batch, &found, out),
                Some(_) => {
                    self.mark(&found);
                    out.filtered(batch.n_rows());
                    return Ok(());
                }
                None => self.mark(&found),
            }
            if found.iter().all(|f| f.count <= 1) && self.fits_one_lot(&found) {
                return self.push_one_each(batch, &found, out);
            }
        }
        self.widths = Widths::of(std::slice::from_ref(batch.rows()));
        self.rest = Some(Rest::Batch {
            batch: Box::new(batch),
            found,
            row: 0,
            nth: 0,
            matched: Matched::None,
        });
        self.resume(out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        // The engine says so once every row of every worker has been taken in, so all marks are set.
        if watermark.is_end() && self.gives_rest {
            self.rest = self.next_part();
            return self.resume(out);
        }
        Ok(())
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        match self.rest.take() {
            None => Ok(()),
            Some(Rest::Batch {
                batch,
                found,
                row,
                nth,
                matched,
            }) => self.push_pairs(*batch, found, row, nth, matched, out),
            Some(Rest::Table { part, next }) => self.push_of_table(part, next, out),
        }?;
        if self.rest.is_some() {
            out.more_follows();
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        if self.is_first {
            self.marks.n_bytes()
        } else {
            0
        }
    }
}

impl ProbeOperator {
    fn compiled(&mut self, schema: &SchemaRef) -> Result<&Compiled> {
        match &mut self.compiled {
            Some(compiled) if compiled.schema.fields() == schema.fields() => {}
            slot => {
                let keys = self.layout.keys.iter();
                let filter = match &self.layout.filter {
                    None => None,
                    Some((predicate, columns)) => {
                        let schema = schema_of(columns);
                        Some(Filter {
                            predicate: Expression::compile_predicate(predicate, &schema)?,
                            columns: columns.clone(),
                            schema,
                        })
                    }
                };
                *slot = Some(Compiled {
                    schema: SchemaRef::clone(schema),
                    keys: keys
                        .clone()
                        .map(|k| Expression::compile(k.of(self.side), schema))
                        .collect::<Result<_>>()?,
                    types: keys.map(|k| k.data_type.clone()).collect(),
                    filter,
                });
            }
        }
        self.compiled
            .as_ref()
            .ok_or_else(|| Error::bug("a join was not compiled"))
    }

    /// Marks all rows of the table that are found.
    fn mark(&self, found: &[Found]) {
        if self.gives_rest {
            for found in found {
                self.marks.set_all(self.table.index.rows(found));
            }
        }
    }

    /// The rows of this side that match, or those that do not: a semi or anti join without a filter.
    fn push_asked(&self, batch: &Batch, found: &[Found], out: &mut Output) -> Result<()> {
        let unmatched = self.kind.keeps_unmatched(self.side);
        let mask: BooleanArray = found
            .iter()
            .map(|f| Some((f.count == 0) == unmatched))
            .collect();
        out.filtered(mask.false_count());
        self.push_kept(batch, &mask, out)
    }

    /// Rows of this side alone.
    fn push_kept(&self, batch: &Batch, mask: &BooleanArray, out: &mut Output) -> Result<()> {
        let kept = match mask.true_count() {
            0 => return Ok(()),
            n if n == batch.n_rows() => batch.clone(),
            _ => batch.filter(mask)?,
        };
        let no_rows = UInt32Array::new_null(kept.n_rows());
        let rows = self.columns(&self.layout.columns, &self.schema, kept.rows(), &no_rows)?;
        self.push(kept.with_columns(rows), out);
        Ok(())
    }

    /// Pairs where no row finds more than one: rows stay in their places.
    fn push_one_each(&self, batch: Batch, found: &[Found], out: &mut Output) -> Result<()> {
        let n_found = found.iter().filter(|f| f.count > 0).count();
        let (batch, of_table) = if n_found == found.len() {
            let rows: Vec<u32> = found.iter().map(|f| f.first).collect();
            (batch, UInt32Array::from(rows))
        } else if self.kind.keeps_unmatched(self.side) {
            let rows = found.iter().map(|f| (f.count > 0).then_some(f.first));
            (batch, rows.collect())
        } else {
            out.filtered(found.len() - n_found);
            if n_found == 0 {
                return Ok(());
            }
            let mask: BooleanArray = found.iter().map(|f| Some(f.count > 0)).collect();
            let rows = found.iter().filter(|f| f.count > 0).map(|f| f.first);
            (batch.filter(&mask)?, UInt32Array::from_iter_values(rows))
        };
        let rows = self.columns(&self.layout.columns, &self.schema, batch.rows(), &of_table)?;
        self.push(batch.with_columns(rows), out);
        Ok(())
    }

    /// A lot of pairs of a batch, and of its rows that are part of none; what is left stays in `rest`.
    fn push_pairs(
        &mut self,
        batch: Batch,
        found: Vec<Found>,
        mut row: usize,
        mut nth: usize,
        mut matched: Matched,
        out: &mut Output,
    ) -> Result<()> {
        let mut pairs = Pairs::default();
        // The rows of which all matches are in the lot, with how many pairs there are up to each.
        let mut ends: Vec<(u32, usize)> = Vec::new();
        let mut lot = Lot::default();
        while row < found.len() && pairs.len() < BATCH_ROWS && !lot.is_full() {
            let rows = self.table.index.rows(&found[row]);
            let own = self.widths.as_ref().map_or(0, |w| w.of_row(row as u32));
            let most = (rows.len() - nth).min(BATCH_ROWS - pairs.len());
            let n = lot.add(own, self.table.widths.as_ref(), &rows[nth..nth + most]);
            pairs.probe.extend(std::iter::repeat_n(row as u32, n));
            pairs.table.extend_from_slice(&rows[nth..nth + n]);
            nth += n;
            if nth == rows.len() {
                ends.push((row as u32, pairs.len()));
                row += 1;
                nth = 0;
            }
        }
        let passes = self.passes(&batch, &pairs, out)?;
        let only = self.kind.only();
        let keeps_unmatched = self.kind.keeps_unmatched(self.side);
        let mut made = Pairs::default();
        let mut asked = vec![
            false;
            if only == Some(self.side) {
                batch.n_rows()
            } else {
                0
            }
        ];
        let mut n_dropped = 0;
        let mut k = 0;
        let table_keeps_unmatched = self.kind.keeps_unmatched(self.side.other());
        let mut take_up_to = |end: usize, matched: &mut Matched, made: &mut Pairs| {
            while k < end {
                if passes.as_ref().is_some_and(|p| p.failed(k)) {
                    *matched = (*matched).max(Matched::Unknown);
                    // Nor does anybody know of the row of the table that it matches none.
                    if self.gives_rest && table_keeps_unmatched {
                        self.marks.set(pairs.table[k]);
                    }
                } else if passes.as_ref().is_none_or(|p| p.passes(k)) {
                    *matched = Matched::Some;
                    if passes.is_some() && self.gives_rest {
                        self.marks.set(pairs.table[k]);
                    }
                    if only.is_none() {
                        made.push(pairs.probe[k], pairs.table[k]);
                    }
                }
                k += 1;
            }
        };
        for (row, end) in ends {
            take_up_to(end, &mut matched, &mut made);
            let given = match only {
                None if matched == Matched::None && keeps_unmatched => {
                    made.push(row, NO_ROW);
                    true
                }
                None => matched == Matched::Some,
                Some(side) if side == self.side => {
                    asked[row as usize] = match keeps_unmatched {
                        true => matched == Matched::None,
                        false => matched == Matched::Some,
                    };
                    asked[row as usize]
                }
                Some(_) => false,
            };
            // Of a row of which nobody knows a pair has been rejected.
            n_dropped += usize::from(!given && matched != Matched::Unknown);
            matched = Matched::None;
        }
        take_up_to(pairs.len(), &mut matched, &mut made);
        out.filtered(n_dropped);
        if only == Some(self.side) {
            self.push_kept(&batch, &BooleanArray::from(asked), out)?;
        } else if made.len() > 0 {
            let rows = take_rows(batch.rows(), &made.probe)?;
            let rows = self.columns(&self.layout.columns, &self.schema, &rows, &made.of_table())?;
            self.push(batch.derive(rows), out);
        }
        if row < found.len() {
            self.rest = Some(Rest::Batch {
                batch: Box::new(batch),
                found,
                row,
                nth,
                matched,
            });
        }
        Ok(())
    }

    /// True if the rows of the table that are found, each once, are not too wide for one lot.
    fn fits_one_lot(&self, found: &[Found]) -> bool {
        let mut lot = Lot::default();
        let mut found = found.iter().filter(|f| f.count > 0);
        let widths = self.table.widths.as_ref();
        widths.is_none() || found.all(|f| lot.add(0, widths, &[f.first]) == 1)
    }

    /// What the filter says of each pair; `None` where there is no filter.
    fn passes(&self, batch: &Batch, pairs: &Pairs, out: &mut Output) -> Result<Option<OfPairs>> {
        let Some(filter) = self.compiled.as_ref().and_then(|c| c.filter.as_ref()) else {
            return Ok(None);
        };
        let rows = take_rows(batch.rows(), &pairs.probe)?;
        let of_table = UInt32Array::from(pairs.table.clone());
        let rows = self.columns(&filter.columns, &filter.schema, &rows, &of_table)?;
        of_pairs(&filter.predicate, &rows, |pair, reason| {
            let read = batch.position(pairs.probe[pair] as usize);
            out.reject_pair(Some(read), &rows, pair, reason)
        })
        .map(Some)
    }

    /// Columns from rows of this side and from rows of the table.
    fn columns(
        &self,
        columns: &[Column],
        schema: &SchemaRef,
        rows: &RecordBatch,
        of_table: &UInt32Array,
    ) -> Result<RecordBatch> {
        let of_probe = |name: &str| {
            let column = rows.column_by_name(name);
            column.ok_or_else(|| Error::bug(format!("column {name:?} was not read")))
        };
        let arrays = columns.iter().map(|column| match &column.from {
            Origin::One(side, name) if *side == self.side => of_probe(name).cloned(),
            Origin::One(_, name) => {
                let data_type = column.field.data_type();
                self.table.columns.gather(name, data_type, of_table)
            }
            Origin::Either(name) => Ok(cast(of_probe(name)?, column.field.data_type())?),
        });
        record_batch(schema, arrays.collect::<Result<_>>()?, rows.num_rows())
    }

    /// The next part of the table that no other worker has taken.
    fn next_part(&self) -> Option<Rest> {
        let part = self.marks.take_part();
        let rows = self.table.parts.get(part)?;
        Some(Rest::Table {
            part,
            next: rows.start,
        })
    }

    /// Rows of a part of the table that no row of this side has matched; of a semi join, those that one has.
    fn push_of_table(&mut self, part: usize, mut next: u32, out: &mut Output) -> Result<()> {
        let Some(of_part) = self.table.parts.get(part).cloned() else {
            return Ok(());
        };
        let marked = !self.kind.keeps_unmatched(self.side.other());
        let start = next;
        let mut given: Vec<u32> = Vec::new();
        let mut lot = Lot::default();
        while next < of_part.end && given.len() < BATCH_ROWS && !lot.is_full() {
            if self.marks.is_set(next) == marked {
                given.push(next);
                lot.add(0, self.table.widths.as_ref(), &[next]);
            }
            next += 1;
        }
        if !given.is_empty() {
            let n_rows = given.len();
            let given = UInt32Array::from(given);
            let arrays = self.layout.columns.iter().map(|column| {
                let data_type = column.field.data_type();
                match &column.from {
                    Origin::One(side, _) if *side == self.side => {
                        Ok(new_null_array(data_type, n_rows))
                    }
                    Origin::One(_, name) => self.table.columns.gather(name, data_type, &given),
                    Origin::Either(name) => {
                        let values = self.table.columns.gather(name, data_type, &given)?;
                        Ok(cast(&values, data_type)?)
                    }
                }
            });
            let rows = record_batch(&self.schema, arrays.collect::<Result<_>>()?, n_rows)?;
            // They stand after all sources, in the order of the parts.
            let key = SplitKey {
                source: u32::MAX,
                split: part as u32,
                branch: 0,
            };
            let name = format!("{} side of a join, part {part}", self.side.other().name());
            let first_row = u64::from(start - of_part.start);
            let batch = Batch::read(rows, key, Arc::from(name), first_row).inexact();
            out.push(batch.in_branch(1));
        }
        self.rest = if next < of_part.end {
            Some(Rest::Table { part, next })
        } else {
            self.next_part()
        };
        Ok(())
    }

    fn push(&self, batch: Batch, out: &mut Output) {
        // Apart from rows of the table that come later, perhaps those of another join.
        out.push(if self.gives_rest {
            batch.in_branch(0)
        } else {
            batch
        });
    }
}

/// Rows of this side and of the table, by number.
#[derive(Default)]
struct Pairs {
    probe: Vec<u32>,
    table: Vec<u32>,
}

impl Pairs {
    fn len(&self) -> usize {
        self.probe.len()
    }

    fn push(&mut self, probe: u32, table: u32) {
        self.probe.push(probe);
        self.table.push(table);
    }

    fn of_table(&self) -> UInt32Array {
        if self.table.contains(&NO_ROW) {
            let rows = self
                .table
                .iter()
                .map(|row| Some(*row).filter(|r| *r != NO_ROW));
            rows.collect()
        } else {
            UInt32Array::from(self.table.clone())
        }
    }
}

fn take_rows(rows: &RecordBatch, numbers: &[u32]) -> Result<RecordBatch> {
    let numbers = UInt32Array::from(numbers.to_vec());
    let columns = rows.columns().iter().map(|c| take(c, &numbers, None));
    record_batch(
        &rows.schema(),
        columns.collect::<Result<_, _>>()?,
        numbers.len(),
    )
}

fn record_batch(schema: &SchemaRef, columns: Vec<ArrayRef>, n_rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    Ok(RecordBatch::try_new_with_options(
        SchemaRef::clone(schema),
        columns,
        &options,
    )?)
}
