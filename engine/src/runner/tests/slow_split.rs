//! A split that takes longer than all others together.

use std::sync::Condvar;

use super::*;
use crate::aggregates::sum;

/// Splits of ten rows each, the first of which gives no row before all others have been read to their end.
#[derive(Clone, Debug)]
struct OneSlow {
    n_splits: i64,
    wait: Wait,
    /// How many of the others are over.
    over: Arc<(Mutex<i64>, Condvar)>,
}

/// How the reader of the slow split waits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    /// Within the call, as for a disk.
    Blocked,
    /// By saying that there is no row yet.
    NothingYet,
}

/// No test needs so long; without the limit one that fails would not end.
const LONGEST: Duration = Duration::from_secs(60);

impl Source for OneSlow {
    fn describe(&self) -> Description {
        Description::new("one_slow", Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(numbers(vec![]).schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        let split = |i: i64| Split {
            name: format!("split {i}"),
            locator: Value::from(i),
            n_rows: Some(10),
            n_bytes: None,
        };
        Ok((0..self.n_splits).map(split).collect())
    }

    fn open(
        &self,
        split: &Split,
        _: Position,
        _: Option<&[String]>,
    ) -> Result<Box<dyn SplitReader>> {
        Ok(Box::new(OneSlowReader {
            of: self.clone(),
            split: split.locator.as_i64().unwrap(),
            n_given: 0,
            begun: Instant::now(),
        }))
    }
}

struct OneSlowReader {
    of: OneSlow,
    split: i64,
    n_given: i64,
    begun: Instant,
}

impl OneSlowReader {
    /// False if the others are not over yet.
    fn others_are_over(&self) -> Result<bool> {
        let (over, is_over) = &*self.of.over;
        let wanted = self.of.n_splits - 1;
        let left = LONGEST.saturating_sub(self.begun.elapsed());
        let guard = over.lock().unwrap();
        let n_over = match self.of.wait {
            Wait::Blocked => {
                *is_over
                    .wait_timeout_while(guard, left, |n| *n < wanted)
                    .unwrap()
                    .0
            }
            Wait::NothingYet => *guard,
        };
        match n_over < wanted && (left.is_zero() || self.of.wait == Wait::Blocked) {
            true => Err(Error::environment(format!(
                "only {n_over} of the others were read"
            ))),
            false => Ok(n_over >= wanted),
        }
    }
}

impl SplitReader for OneSlowReader {
    fn next_batch(&mut self, _: &mut Output) -> Result<Option<RecordBatch>> {
        if self.split == 0 && !self.others_are_over()? {
            return Ok(Some(numbers(vec![])));
        }
        // A row at a time.
        if self.n_given < 10 {
            self.n_given += 1;
            return Ok(Some(numbers(vec![10 * self.split + self.n_given - 1])));
        }
        if self.split > 0 {
            let (over, is_over) = &*self.of.over;
            *over.lock().unwrap() += 1;
            is_over.notify_all();
        }
        Ok(None)
    }
}

fn one_slow(n_splits: i64, wait: Wait) -> OneSlow {
    OneSlow {
        n_splits,
        wait,
        over: Arc::default(),
    }
}

#[test]
fn no_worker_waits_for_a_slow_split_while_others_are_left() {
    for workers in 2..=4 {
        for n_splits in [2, 40] {
            let source = one_slow(n_splits, Wait::Blocked);
            let over = Arc::clone(&source.over);
            let basket = Basket::default();
            run(workers, |p| {
                let rows = p
                    .read("rows", source.clone())
                    .filter(col("n").gt_eq(lit(0)));
                rows.write(basket.clone());
            })
            .unwrap();
            let all: Vec<i64> = (0..10 * n_splits).collect();
            assert_eq!(basket.sorted(), all, "{workers} workers");
            assert_eq!(*over.0.lock().unwrap(), n_splits - 1);
        }
    }
}

/// Rows of the other splits go to the worker of the slow one too, which takes them while it has no row of its own.
#[test]
fn a_slow_split_does_not_keep_rows_from_the_worker_that_reads_it() {
    for workers in 2..=4 {
        let source = one_slow(40, Wait::NothingYet);
        let basket = Basket::default();
        run(workers, |p| {
            let rows = p.read("rows", source);
            let sums = rows.group_by([col("k")]).agg([sum(col("n")).alias("n")]);
            sums.write(basket.clone());
        })
        .unwrap();
        let of_key = |k: i64| (0..400).filter(|n| n % 7 == k).sum::<i64>();
        let mut expected: Vec<i64> = (0..7).map(of_key).collect();
        expected.sort_unstable();
        assert_eq!(basket.sorted(), expected, "{workers} workers");
    }
}
