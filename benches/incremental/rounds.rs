//! A source that gives changes in rounds, and a transform that hears when a round is over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int8Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use mainstem::engine::{
    Artifacts, BATCH_ROWS, Batch, Description, OnChangelog, Operator, Output, Position, Properties,
    Result, Source, Split, SplitReader, Transform, Watermark,
};
use serde_json::json;

use crate::graph::Edge;

fn schema() -> SchemaRef {
    let int = |name| Field::new(name, DataType::Int64, false);
    let diff = Field::new("diff", DataType::Int8, false);
    Arc::new(Schema::new(vec![int("from"), int("to"), int("at"), diff]))
}

/// Edges as changes of one round.
///
/// # Errors
/// If Arrow refuses the columns.
pub(crate) fn changes(edges: &[Edge], round: i64, diff: i8) -> Result<Vec<RecordBatch>> {
    let batch = |part: &[Edge]| {
        let ints = |of: fn(&Edge) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(part.iter().map(of)))
        };
        let columns = vec![
            ints(|e| e.0),
            ints(|e| e.1),
            Arc::new(Int64Array::from(vec![round; part.len()])) as ArrayRef,
            Arc::new(Int8Array::from(vec![diff; part.len()])),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    };
    edges.chunks(BATCH_ROWS).map(batch).collect()
}

/// Rounds of changes, each followed by an edge of node -1 with itself that tells that the round is over.
#[derive(Debug)]
pub(crate) struct Rounds {
    rounds: Vec<Vec<RecordBatch>>,
    /// How many rounds may be given.
    open: Arc<AtomicUsize>,
}

impl Rounds {
    /// # Errors
    /// If Arrow refuses the columns.
    pub(crate) fn new(mut rounds: Vec<Vec<RecordBatch>>, open: &Arc<AtomicUsize>) -> Result<Self> {
        for (next, round) in (1..).zip(&mut rounds) {
            // Added and taken back at once: it moves event time and nothing else.
            round.extend(changes(&[(-1, -1)], next, 1)?);
            round.extend(changes(&[(-1, -1)], next, -1)?);
        }
        Ok(Self {
            rounds,
            open: Arc::clone(open),
        })
    }
}

impl Source for Rounds {
    fn describe(&self) -> Description {
        Description::new("rounds", json!({ "n_rounds": self.rounds.len() }))
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        Ok(vec![Split {
            name: "all rounds".into(),
            locator: json!(null),
            n_rows: None,
            n_bytes: None,
        }])
    }

    fn open(
        &self,
        _split: &Split,
        _position: Position,
        _columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        let batches =
            self.rounds.iter().enumerate().flat_map(|(round, batches)| {
                batches.iter().map(move |batch| (round, batch.clone()))
            });
        let mut batches: Vec<(usize, RecordBatch)> = batches.collect();
        batches.reverse();
        Ok(Box::new(Reader {
            batches,
            open: Arc::clone(&self.open),
        }))
    }
}

struct Reader {
    /// The next last.
    batches: Vec<(usize, RecordBatch)>,
    open: Arc<AtomicUsize>,
}

impl SplitReader for Reader {
    fn next_batch(&mut self, _out: &mut Output) -> Result<Option<RecordBatch>> {
        match self.batches.last() {
            Some((round, _)) if *round >= self.open.load(Ordering::Acquire) => {
                std::thread::sleep(std::time::Duration::from_micros(100));
                Ok(Some(RecordBatch::new_empty(schema())))
            }
            _ => Ok(self.batches.pop().map(|(_, batch)| batch)),
        }
    }
}

/// What whoever waits for rounds hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A worker has heard that event time has passed a round.
    Passed(usize),
    /// The run has ended, by itself or by an error.
    Ended,
}

/// Keeps what passes by round, and tells when a round is over.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    sender: Sender<Heard>,
    n_rounds: usize,
    rows: Arc<Mutex<Vec<Vec<RecordBatch>>>>,
}

impl Tap {
    pub(crate) fn new(
        sender: Sender<Heard>,
        n_rounds: usize,
        rows: &Arc<Mutex<Vec<Vec<RecordBatch>>>>,
    ) -> Self {
        Self {
            sender,
            n_rounds,
            rows: Arc::clone(rows),
        }
    }
}

impl Transform for Tap {
    fn describe(&self) -> Description {
        Description::new("tap", json!(null))
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(TapOperator {
            tap: self.clone(),
            n_passed: 0,
        }))
    }

    fn properties(&self) -> Properties {
        Properties::default().on_changelog(OnChangelog::Carry)
    }
}

struct TapOperator {
    tap: Tap,
    n_passed: usize,
}

impl Operator for TapOperator {
    fn on_batch(&mut self, _port: usize, batch: Batch, _out: &mut Output) -> Result<()> {
        let mut rows = self.tap.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let round = self.n_passed;
        if rows.len() <= round {
            rows.resize(round + 1, Vec::new());
        }
        rows[round].push(batch.rows().clone());
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, _out: &mut Output) -> Result<()> {
        // When nothing more comes the watermark is behind all rounds there could be.
        while self.n_passed < self.tap.n_rounds
            && i64::try_from(self.n_passed).is_ok_and(|n| n < watermark.0)
        {
            // Nobody listens any more once the last round is over.
            let _ = self.tap.sender.send(Heard::Passed(self.n_passed));
            self.n_passed += 1;
        }
        Ok(())
    }
}
