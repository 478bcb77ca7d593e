//! Panics wherever foreign code is called: the run returns, names the node, and leaves nothing.

use super::*;

/// Where the panic is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Schema,
    Splits,
    Open,
    Build,
    OnBatch,
    OnWatermark,
    StateBytes,
    Add,
    Merge,
    Learn,
    Begin,
    Writer,
    Write,
    FinishSink,
    Commit,
}

const PLACES: [Place; 15] = [
    Place::Schema,
    Place::Splits,
    Place::Open,
    Place::Build,
    Place::OnBatch,
    Place::OnWatermark,
    Place::StateBytes,
    Place::Add,
    Place::Merge,
    Place::Learn,
    Place::Begin,
    Place::Writer,
    Place::Write,
    Place::FinishSink,
    Place::Commit,
];

/// Each noun of a graph, which panics if it is asked for something at `panics`.
#[derive(Clone, Debug)]
struct Fragile {
    panics: Place,
    inner: Script,
    aborted: Arc<AtomicBool>,
}

impl Fragile {
    fn touch(&self, place: Place) {
        assert!(self.panics != place, "{place:?} broke");
    }
}

impl Source for Fragile {
    fn describe(&self) -> Description {
        Description::new("fragile", Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        self.touch(Place::Schema);
        self.inner.schema()
    }

    fn splits(&self) -> Result<Vec<Split>> {
        self.touch(Place::Splits);
        self.inner.splits()
    }

    fn open(
        &self,
        split: &Split,
        position: Position,
        columns: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        self.touch(Place::Open);
        self.inner.open(split, position, columns)
    }
}

impl Transform for Fragile {
    fn describe(&self) -> Description {
        Description::new("fragile", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _: &Artifacts) -> Result<Box<dyn Operator>> {
        self.touch(Place::Build);
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Fragile {
    fn on_batch(&mut self, _: usize, batch: Batch, out: &mut Output) -> Result<()> {
        self.touch(Place::OnBatch);
        out.push(batch);
        Ok(())
    }

    fn on_watermark(&mut self, _: Watermark, _: &mut Output) -> Result<()> {
        self.touch(Place::OnWatermark);
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        self.touch(Place::StateBytes);
        0
    }
}

impl Analyzer for Fragile {
    type Accumulator = Vec<i64>;
    type Output = Vec<i64>;

    fn create_accumulator(&self) -> Vec<i64> {
        Vec::new()
    }

    fn add(&self, seen: &mut Vec<i64>, rows: &RecordBatch) -> Result<()> {
        self.touch(Place::Add);
        InOrder.add(seen, rows)
    }

    fn merge(&self, seen: &mut Vec<i64>, other: Vec<i64>) -> Result<()> {
        self.touch(Place::Merge);
        InOrder.merge(seen, other)
    }

    fn finish(&self, seen: Vec<i64>) -> Result<Vec<i64>> {
        self.touch(Place::Learn);
        Ok(seen)
    }

    fn save(&self, seen: &Vec<i64>) -> Result<RecordBatch> {
        InOrder.save(seen)
    }

    fn load(&self, saved: &RecordBatch) -> Result<Vec<i64>> {
        InOrder.load(saved)
    }
}

impl Analysis for Fragile {
    fn describe(&self) -> Description {
        Description::new("fragile", Value::Null)
    }

    fn check(&self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn build(&self, _: &Artifacts) -> Result<Arc<dyn crate::analyzer::DynAnalyzer>> {
        Ok(Arc::new(self.clone()))
    }
}

impl Sink for Fragile {
    fn describe(&self) -> Description {
        Description::new("fragile", Value::Null)
    }

    fn accepts(&self, _: &SchemaRef) -> Result<()> {
        Ok(())
    }

    fn begin(&self, _: &SchemaRef) -> Result<Box<dyn Publication>> {
        self.touch(Place::Begin);
        Ok(Box::new(self.clone()))
    }
}

impl Publication for Fragile {
    fn writer(&self, _: usize) -> Result<Box<dyn SinkWriter>> {
        self.touch(Place::Writer);
        Ok(Box::new(self.clone()))
    }

    fn commit(&self) -> Result<Published> {
        self.touch(Place::Commit);
        Ok(Published::default())
    }

    fn abort(&self) {
        self.aborted.store(true, SeqCst);
    }
}

impl SinkWriter for Fragile {
    fn write(&mut self, _: &RecordBatch) -> Result<()> {
        self.touch(Place::Write);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.touch(Place::FinishSink);
        Ok(())
    }
}

#[test]
fn a_panic_anywhere_is_an_error_that_names_the_node() {
    for (place, workers) in PLACES.iter().flat_map(|p| (1..=3).map(move |w| (*p, w))) {
        let fragile = Fragile {
            panics: place,
            inner: Script::numbers(12, &[100, 100]),
            aborted: Arc::default(),
        };
        let pipeline = Pipeline::new("test");
        let rows = pipeline.read("source", fragile.clone());
        let rows = rows.named("operator").apply(fragile.clone());
        let learned = rows.named("analysis").analyze::<Vec<i64>>(fragile.clone());
        rows.named("sink").write(fragile.clone());
        let start = Instant::now();
        let error = pipeline.run(&options(workers)).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5), "{place:?}");
        let (noun, node) = match place {
            Place::Schema | Place::Splits | Place::Open => ("source", "source"),
            Place::Build | Place::OnBatch | Place::OnWatermark | Place::StateBytes => {
                ("transform", "operator")
            }
            Place::Add | Place::Merge | Place::Learn => ("analysis", "analysis"),
            _ => ("sink", "sink"),
        };
        assert!(error.is_bug(), "{place:?}, {workers} workers: {error}");
        let expected = format!(
            "panicked: {place:?} broke\n  in {noun} {node:?}\n  Hint: Return an error instead, or reject the row."
        );
        assert_eq!(error.to_string(), expected, "{workers} workers");
        let opened = !matches!(place, Place::Schema | Place::Begin);
        assert_eq!(fragile.aborted.load(SeqCst), opened, "{place:?}");
        drop(learned);
    }
}
