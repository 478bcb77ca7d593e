//! Rows that are made in lots: few are under way at once, however many follow from a batch.

use super::*;
use crate::ops::{Join, JoinKind};
use arrow::array::UInt8Array;
use arrow::buffer::{Buffer, ScalarBuffer};
use bytes::Bytes;

const LOT_ROWS: usize = 1_000;
const LOTS: usize = 300;

/// Lots that are alive, and the most that ever were.
#[derive(Debug, Default)]
struct Alive {
    now: AtomicUsize,
    peak: AtomicUsize,
}

/// The memory of one lot.
struct Lot {
    rows: Vec<u8>,
    alive: Arc<Alive>,
}

impl AsRef<[u8]> for Lot {
    fn as_ref(&self) -> &[u8] {
        &self.rows
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        self.alive.now.fetch_sub(1, SeqCst);
    }
}

fn lot(alive: &Arc<Alive>) -> RecordBatch {
    let now = alive.now.fetch_add(1, SeqCst) + 1;
    alive.peak.fetch_max(now, SeqCst);
    let memory = Buffer::from(Bytes::from_owner(Lot {
        rows: vec![7; LOT_ROWS],
        alive: Arc::clone(alive),
    }));
    let n = UInt8Array::new(ScalarBuffer::new(memory, 0, LOT_ROWS), None);
    RecordBatch::try_new(lot_schema(), vec![Arc::new(n)]).unwrap()
}

fn lot_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::UInt8, true)]))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// From each batch, on the worker.
    Inline,
    /// From each batch, on the pool.
    Pooled,
    /// At the end of input.
    End,
}

/// Makes many lots, of each batch or of nothing.
#[derive(Clone, Debug)]
struct Maker {
    when: When,
    alive: Arc<Alive>,
    origin: Option<Batch>,
    left: usize,
}

impl Transform for Maker {
    fn describe(&self) -> Description {
        Description::new("maker", Value::Null)
    }

    fn output_schema(&self, _: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(lot_schema())
    }

    fn build(&self, _: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn properties(&self) -> Properties {
        match self.when {
            When::Inline => Properties::row_wise(),
            When::Pooled => Properties::row_wise().blocking(true).concurrency(2),
            When::End => Properties::default(),
        }
    }
}

impl Operator for Maker {
    fn on_batch(&mut self, _: usize, batch: Batch, out: &mut Output) -> Result<()> {
        if self.when == When::End {
            return Ok(());
        }
        self.origin = Some(batch);
        self.left = LOTS;
        self.resume(out)
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        if self.when == When::End && watermark.is_end() {
            self.left = LOTS;
            return self.resume(out);
        }
        Ok(())
    }

    fn resume(&mut self, out: &mut Output) -> Result<()> {
        let rows = lot(&self.alive);
        out.push(match &self.origin {
            Some(origin) => origin.derive(rows),
            None => Batch::new(rows),
        });
        self.left -= 1;
        match self.left {
            0 => self.origin = None,
            _ => out.more_follows(),
        }
        Ok(())
    }
}

/// Counts rows, and keeps none.
#[derive(Clone, Debug, Default)]
struct Counter(Arc<AtomicU64>);

impl Sink for Counter {
    fn describe(&self) -> Description {
        Description::new("counter", Value::Null)
    }

    fn accepts(&self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn begin(&self, _: &SchemaRef) -> Result<Box<dyn Publication>> {
        Ok(Box::new(self.clone()))
    }
}

impl Publication for Counter {
    fn writer(&self, _: usize) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }

    fn commit(&self) -> Result<Published> {
        Ok(Published::default())
    }

    fn abort(&self) {}
}

impl SinkWriter for Counter {
    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.0.fetch_add(rows.num_rows() as u64, SeqCst);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn few_lots_are_alive_at_once() {
    for when in [When::Inline, When::Pooled, When::End] {
        for workers in [1, 3] {
            let (alive, counter) = (Arc::new(Alive::default()), Counter::default());
            let pipeline = Pipeline::new("test");
            let maker = Maker {
                when,
                alive: Arc::clone(&alive),
                origin: None,
                left: 0,
            };
            pipeline
                .read("numbers", Script::numbers(6, &[10, 10]))
                .apply(maker)
                .write(counter.clone());
            // Ten lots of 1,000 bytes.
            pipeline
                .run(&options(workers).credit_bytes(10_000))
                .unwrap();
            let n_made = if when == When::End { workers } else { 12 };
            let n_rows = (n_made * LOTS * LOT_ROWS) as u64;
            assert_eq!(counter.0.load(SeqCst), n_rows, "{when:?}, {workers}");
            // Each worker may exceed its credit by a lot, and has one in each instance that waits.
            let peak = alive.peak.load(SeqCst);
            assert!(peak <= workers * 14, "{when:?}, {workers}: {peak}");
            assert_eq!(alive.now.load(SeqCst), 0);
        }
    }
}

#[test]
fn a_join_of_many_matches_has_few_rows_under_way() {
    for workers in [1, 3] {
        let counter = Counter::default();
        let pipeline = Pipeline::new("test");
        // Each of 16,384 rows finds the 300 rows of its `k`: 4.9 million pairs, 150 MB.
        let left = pipeline.read("left", Script::numbers(2, &[8_192]));
        let right = pipeline.read("right", Script::numbers(1, &[2_100]));
        let on = [(col("k"), col("k"))];
        let join = Join::new(JoinKind::Inner, on).suffix("_2");
        left.join_with(&right, join).write(counter.clone());
        let report = pipeline
            .run(&options(workers).credit_bytes(1_000_000))
            .unwrap();
        assert_eq!(counter.0.load(SeqCst), 16_384 * 300);
        let peak = report.phases.iter().map(|p| p.peak_credit_bytes).max();
        assert!(
            peak.is_some_and(|peak| peak < 1_500_000),
            "{peak:?} with {workers} workers"
        );
    }
}
