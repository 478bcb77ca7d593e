//! Which transforms run where the rows are read.

use std::collections::BTreeSet;

use super::*;

/// Lets rows through, and notes on what kind of thread.
#[derive(Clone, Debug)]
struct Where {
    seen: Arc<Mutex<BTreeSet<String>>>,
    properties: Properties,
}

impl Where {
    fn new(properties: Properties) -> Self {
        Self {
            seen: Arc::default(),
            properties,
        }
    }

    fn light() -> Self {
        Self::new(Properties::row_wise().keeps_positions(true))
    }

    /// The names of the threads without their numbers.
    fn threads(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().cloned().collect()
    }
}

impl Transform for Where {
    fn describe(&self) -> Description {
        Description::new("where", Value::Null)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(&inputs[0]))
    }

    fn build(&self, _: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Noter(self.clone())))
    }

    fn properties(&self) -> Properties {
        self.properties.clone()
    }
}

struct Noter(Where);

impl Operator for Noter {
    fn on_batch(&mut self, _: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("nameless");
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        self.0.seen.lock().unwrap().insert(name.to_owned());
        out.push(batch);
        Ok(())
    }
}

const READER: &str = "mainstem-pool";
const WORKER: &str = "timely:work";

#[test]
fn rows_are_taken_one_by_one_where_they_are_read() {
    let by_key = Distribution::ByKey(vec!["k".into()]);
    let [first, next, beside, behind] = [(); 4].map(|()| Where::light());
    let keyed = Where::new(Where::light().properties.distribution(by_key));
    let one_for_many = Where::new(Properties::row_wise());
    let holding = Where::new(Properties::default());
    let baskets = [(); 5].map(|()| Basket::default());
    run(2, |p| {
        let rows = p.read("numbers", Script::numbers(4, &[30, 7]));
        let [a, b, c, d, e] = &baskets;
        let light = rows.apply(first.clone()).apply(next.clone());
        light.write(a.clone());
        rows.apply(beside.clone()).write(b.clone());
        rows.apply(keyed.clone())
            .apply(behind.clone())
            .write(c.clone());
        rows.apply(one_for_many.clone()).write(d.clone());
        rows.apply(holding.clone()).write(e.clone());
    })
    .unwrap();
    for basket in &baskets {
        assert_eq!(basket.sorted(), (0..148).collect::<Vec<_>>());
    }
    for light in [first, next, beside] {
        assert_eq!(light.threads(), [READER]);
    }
    // Rows for other workers, more rows than come, and rows that wait are the workers' own.
    for other in [keyed, behind, one_for_many, holding] {
        assert_eq!(other.threads(), [WORKER]);
    }
}

#[test]
fn rows_that_are_read_as_they_are_reach_everyone() {
    for workers in 1..=3 {
        let [all, some, dead] = [(); 3].map(|()| Basket::default());
        let report = run(workers, |p| {
            let rows = p.read("numbers", Script::numbers(3, &[8, 2]));
            rows.write(all.clone());
            let divided = rows
                .filter(col("n").gt(lit(9)))
                .with_column("q", lit(8) / (col("n") % lit(5)));
            divided.dead_letters().write(dead.clone());
            divided.select([col("n")]).write(some.clone());
        })
        .unwrap();
        assert_eq!(all.sorted(), (0..30).collect::<Vec<_>>());
        let expected: Vec<i64> = (10..30).filter(|n| n % 5 != 0).collect();
        assert_eq!(some.sorted(), expected);
        assert_eq!(dead.rows().unwrap().num_rows(), 4);
        let node = |id: &str| {
            let node = report.node(id).unwrap();
            (node.rows_in, node.rows_out, node.filtered, node.rejected)
        };
        assert_eq!(node("numbers"), (30, 30, 0, 0));
        assert_eq!(node("filter"), (30, 20, 10, 0));
        assert_eq!(node("with_column"), (20, 16, 0, 4));
    }
}

/// Rows that are there, or that are waited for, go through a transform where they are read, and one that computes: on
/// which threads these work.
fn threads(workers: usize, at_hand: bool, waits: bool) -> [Vec<String>; 2] {
    let light = Where::light();
    let computes = Where::new(Properties::row_wise().blocking(true));
    let basket = Basket::default();
    run(workers, |p| {
        let rows = p.read("numbers", Script::numbers(3, &[5; 10]).at_hand(at_hand));
        let also = p.read("others", Script::numbers(3, &[5; 10]).at_hand(!waits));
        let rows = rows.apply(light.clone()).apply(computes.clone());
        rows.union(&[also]).write(basket.clone());
    })
    .unwrap();
    assert_eq!(basket.sorted().len(), 300);
    [light.threads(), computes.threads()]
}

#[test]
fn a_worker_reads_and_computes_what_is_at_hand() {
    let worker = [vec![WORKER.to_owned()], vec![WORKER.to_owned()]];
    let pool = [vec![READER.to_owned()], vec![READER.to_owned()]];
    // One worker never sleeps while there is a job.
    assert_eq!(threads(1, true, false), worker);
    for workers in 1..=3 {
        assert_eq!(threads(workers, false, false), pool);
        assert_eq!(threads(workers, true, true), pool);
    }
}

#[test]
fn a_reader_that_breaks_on_a_worker_ends_the_run_as_on_the_pool() {
    for end in [End::Error, End::Panic] {
        let failed = |workers: usize, at_hand: bool| {
            let basket = Basket::default();
            let script = Script::numbers(3, &[5; 10]).ending(end).at_hand(at_hand);
            let error = run(workers, |p| p.read("numbers", script).write(basket.clone()));
            assert!(basket.rows().is_none());
            error.unwrap_err().to_string()
        };
        for workers in 1..=3 {
            assert_eq!(failed(workers, true), failed(workers, false));
        }
    }
}
