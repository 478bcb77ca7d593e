//! An operator's only way out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;

use crate::batch::{BATCH_ROWS, Batch, RowPosition};
use crate::error::{Error, Result};

/// What happens to a row that a source or a transform cannot take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadRow {
    /// The run ends with the error.
    #[default]
    Fail,
    /// The row is left out and counted.
    Drop,
    /// The row goes to the node's dead letters, with its position and the reason, and is counted.
    DeadLetter,
}

/// A rejected row: where it stood, why it was rejected, and the row itself as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The split as a person would name it.
    pub split: String,
    /// The row in the split, from 0; of a text file the line in which the row begins, from 1.
    pub row: u64,
    /// Why.
    pub reason: String,
    /// The row as a JSON object, or the text that could not be parsed.
    pub data: String,
}

/// Where an operator pushes the rows it makes and the rows it refuses.
#[derive(Debug, Default)]
pub struct Output {
    emitted: Vec<(usize, Batch)>,
    dead: Vec<DeadLetter>,
    policy: OnBadRow,
    filtered: u64,
    rejected: u64,
    late: u64,
    behind: u64,
    more: bool,
    now: i64,
}

impl Output {
    /// An output that applies `policy` to rejected rows.
    pub fn new(policy: OnBadRow) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Sends rows out of the first port. Empty batches are not sent.
    pub fn push(&mut self, batch: Batch) {
        self.push_to(0, batch);
    }

    /// Sends rows out of a port. Empty batches are not sent.
    pub fn push_to(&mut self, port: usize, batch: Batch) {
        if batch.n_rows() > 0 {
            self.emitted.push((port, batch));
        }
    }

    /// Says that more rows follow from what has come in: the engine calls
    /// [`Operator::resume`](crate::Operator::resume) before anything else, once these have gone on.
    pub fn more_follows(&mut self) {
        self.more = true;
    }

    /// Counts rows that were left out on purpose, as a filter does.
    pub fn filtered(&mut self, n_rows: usize) {
        self.filtered += n_rows as u64;
    }

    /// Sends rows that came too late out of a port, and counts them as late.
    pub fn push_late(&mut self, port: usize, batch: Batch) {
        self.late += batch.n_rows() as u64;
        self.push_to(port, batch);
    }

    /// Counts rows as late that leave by no port: of which only an aggregate is left, or a copy of a side input.
    pub fn late(&mut self, n_rows: u64) {
        self.late += n_rows;
    }

    /// Counts rows that stand behind the watermark and go on nevertheless: late, if their windows are over.
    pub fn behind(&mut self, n_rows: u64) {
        self.behind += n_rows;
    }

    /// The time on the clock of the run, in milliseconds since 1970: what operators may know of the real one.
    pub fn processing_time(&self) -> i64 {
        self.now
    }

    /// Sets what [`Output::processing_time`] says: the engine does before each call, and so does a test.
    pub fn set_processing_time(&mut self, now_ms: i64) {
        self.now = now_ms;
    }

    /// Refuses one row of a batch.
    ///
    /// # Errors
    /// The row's error, where the policy is [`OnBadRow::Fail`].
    pub fn reject(&mut self, batch: &Batch, row: usize, reason: impl Into<String>) -> Result<()> {
        let position = batch.position(row);
        let place = (position.split.to_string(), position.row);
        self.refuse_row(
            &position.to_string(),
            place,
            batch.rows(),
            row,
            reason.into(),
        )
    }

    /// Refuses a pair of rows that a join brings together, one of those in `pairs`: it stands where the row stands
    /// that was read, if that is known.
    ///
    /// # Errors
    /// As [`Output::reject`].
    pub(crate) fn reject_pair(
        &mut self,
        read: Option<RowPosition>,
        pairs: &RecordBatch,
        pair: usize,
        reason: impl Into<String>,
    ) -> Result<()> {
        let (shown, place) = match read {
            Some(position) => (
                position.to_string(),
                (position.split.to_string(), position.row),
            ),
            None => (PAIR.to_owned(), (PAIR.to_owned(), 0)),
        };
        self.refuse_row(&shown, place, pairs, pair, reason.into())
    }

    /// Refuses a row that was made of others and stands nowhere: `name` says what it is in place of a position.
    ///
    /// # Errors
    /// As [`Output::reject`].
    pub(crate) fn reject_made(
        &mut self,
        name: &str,
        rows: &RecordBatch,
        row: usize,
        reason: impl Into<String>,
    ) -> Result<()> {
        self.refuse_row(name, (name.to_owned(), 0), rows, row, reason.into())
    }

    fn refuse_row(
        &mut self,
        shown: &str,
        (split, at): (String, u64),
        rows: &RecordBatch,
        row: usize,
        reason: String,
    ) -> Result<()> {
        let reason = shortened(reason, REASON_CHARS);
        match self.policy {
            OnBadRow::Fail => {
                return Err(Error::data(format!("{shown}: {reason}"))
                    .with_hint("Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."));
            }
            OnBadRow::Drop => {}
            OnBadRow::DeadLetter => self.dead.push(DeadLetter {
                split,
                row: at,
                reason,
                data: row_as_json(rows, row),
            }),
        }
        self.rejected += 1;
        Ok(())
    }

    /// Refuses text that did not become a row, such as a malformed line, whose number is the letter's
    /// row; errors as [`Output::reject`].
    pub fn reject_text(&mut self, letter: DeadLetter) -> Result<()> {
        self.refuse(letter, "line")
    }

    /// Refuses a record of a file that did not become a row, whose number, from 0, is the letter's row;
    /// errors as [`Output::reject`].
    pub fn reject_record(&mut self, letter: DeadLetter) -> Result<()> {
        self.refuse(letter, "record")
    }

    fn refuse(&mut self, letter: DeadLetter, unit: &str) -> Result<()> {
        let letter = DeadLetter {
            reason: shortened(letter.reason, REASON_CHARS),
            ..letter
        };
        match self.policy {
            OnBadRow::Fail => {
                return Err(Error::data(format!(
                    "{}, {unit} {}: {}",
                    letter.split, letter.row, letter.reason
                ))
                .with_hint(format!("Correct the {unit}, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this source.")));
            }
            OnBadRow::Drop => {}
            OnBadRow::DeadLetter => self.dead.push(letter),
        }
        self.rejected += 1;
        Ok(())
    }

    /// Takes what was pushed since the last call, in order, with the port of each.
    pub fn take(&mut self) -> Vec<(usize, Batch)> {
        std::mem::take(&mut self.emitted)
    }

    /// Takes whether more rows follow.
    pub fn take_more(&mut self) -> bool {
        std::mem::take(&mut self.more)
    }

    /// Takes the dead letters since the last call.
    pub fn take_dead_letters(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.dead)
    }

    /// Takes the count of late rows since the last call.
    pub fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    /// Takes the count of rows behind the watermark since the last call.
    pub fn take_behind(&mut self) -> u64 {
        std::mem::take(&mut self.behind)
    }

    /// How many rows have been rejected since the counts were last taken.
    pub(crate) fn n_rejected(&self) -> u64 {
        self.rejected
    }

    /// Takes the counts of filtered and of rejected rows since the last call.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.filtered),
            std::mem::take(&mut self.rejected),
        )
    }
}

/// Where a pair of rows stands that have waited for each other.
const PAIR: &str = "a pair of rows";

/// The most of a reason that is kept, in characters: it may quote a value of any size.
const REASON_CHARS: usize = 300;

/// The most of a row that a message shows, in characters.
const SHOWN_CHARS: usize = 200;

fn shortened(text: String, n_chars: usize) -> String {
    match text.char_indices().nth(n_chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A row as a message shows it: as JSON, and cut short where it is long.
pub(crate) fn shown_row(rows: &RecordBatch, row: usize) -> String {
    shortened(row_as_json(rows, row), SHOWN_CHARS)
}

/// A row as a JSON object; a column of a type that JSON does not know stands there as Arrow writes it.
fn row_as_json(rows: &RecordBatch, row: usize) -> String {
    let one = rows.slice(row, 1);
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    let written = writer.write(&one).and_then(|()| writer.finish());
    match written {
        Ok(()) => String::from_utf8_lossy(&writer.into_inner())
            .trim_end()
            .to_owned(),
        Err(_) => {
            let text = |column: &ArrayRef| array_value_to_string(column, 0).unwrap_or_default();
            let schema = one.schema();
            let values = schema.fields().iter().zip(one.columns());
            let values: serde_json::Map<String, serde_json::Value> = values
                .filter(|(_, column)| column.is_valid(0))
                .map(|(field, column)| (field.name().clone(), text(column).into()))
                .collect();
            serde_json::Value::from(values).to_string()
        }
    }
}

/// The columns of dead letters: `node`, `split`, `row`, `reason`, `data`; see [`DeadLetter`].
pub fn dead_letter_schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("node"),
        text("split"),
        Field::new("row", DataType::UInt64, false),
        text("reason"),
        text("data"),
    ]))
}

/// The most bytes of text in a batch of dead letters that holds more than one, far below what offsets can tell.
const LETTERS_BYTES: usize = 64 << 20;

/// Dead letters as rows, in order, in batches of the usual size.
pub(crate) fn dead_letter_rows(node: &str, letters: &[DeadLetter]) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let mut rest = letters;
    while !rest.is_empty() {
        let mut n_bytes = 0;
        let fits = rest.iter().take(BATCH_ROWS).take_while(|letter| {
            n_bytes += node.len() + letter.split.len() + letter.reason.len() + letter.data.len();
            n_bytes <= LETTERS_BYTES
        });
        let (batch, after) = rest.split_at(fits.count().max(1));
        batches.push(letter_batch(node, batch)?);
        rest = after;
    }
    Ok(batches)
}

fn letter_batch(node: &str, letters: &[DeadLetter]) -> Result<RecordBatch> {
    let text = |of: fn(&DeadLetter) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(letters.iter().map(of)))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(letters.iter().map(|_| node))),
        text(|l| &l.split),
        Arc::new(UInt64Array::from_iter_values(letters.iter().map(|l| l.row))),
        text(|l| &l.reason),
        text(|l| &l.data),
    ];
    Ok(RecordBatch::try_new(dead_letter_schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;

    #[test]
    fn dead_letters_are_cut_by_rows_and_by_bytes() {
        let letters = |n: usize, n_bytes: usize| -> Vec<DeadLetter> {
            let letter = |row| DeadLetter {
                split: "file".to_owned(),
                row,
                reason: "it is none".to_owned(),
                data: "x".repeat(n_bytes),
            };
            (0..n as u64).map(letter).collect()
        };
        let sizes = |letters: &[DeadLetter]| -> Vec<usize> {
            let batches = dead_letter_rows("rows", letters).unwrap();
            let rows = batches.iter().flat_map(|b| {
                let column = b.column(2).as_primitive::<UInt64Type>();
                column.values().iter().copied()
            });
            assert!(rows.eq(0..letters.len() as u64), "all, in order");
            batches.iter().map(RecordBatch::num_rows).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        let rest = 20_000 - 2 * BATCH_ROWS;
        assert_eq!(sizes(&letters(20_000, 10)), [BATCH_ROWS, BATCH_ROWS, rest]);
        assert_eq!(sizes(&letters(5, 30_000_000)), [2, 2, 1]);
        assert_eq!(sizes(&letters(2, 70_000_000)), [1, 1]);
    }
}
