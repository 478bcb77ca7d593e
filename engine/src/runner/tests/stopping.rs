//! A run that is stopped from outside.

use super::*;
use crate::CancelToken;

/// Stops the run at row `at`, from inside an operator that goes on.
fn stop_at(at: i64, token: &CancelToken) -> MapBatches {
    let token = token.clone();
    MapBatches::new(move |rows| {
        if rows["n"].as_primitive::<Int64Type>().value(0) >= at {
            token.cancel();
        }
        Ok(rows)
    })
}

#[test]
fn a_token_stops_the_run_and_nothing_is_published() {
    for (workers, blocking) in [(1, false), (2, true), (3, false)] {
        let (pipeline, basket) = (Pipeline::new("test"), Basket::default());
        let (token, unused) = (CancelToken::new(), CancelToken::new());
        endless(&pipeline)
            .apply(stop_at(5_000, &token).blocking(blocking))
            .write(basket.clone());
        let start = Instant::now();
        let options = options(workers).cancel(token).cancel(unused);
        let error = pipeline.run(&options).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(basket.rows().is_none() && basket.aborted.load(SeqCst));
        assert!(error.is_stopped() && error.is_environment() && !error.is_bug());
        expect![[r#"
            the run was stopped from outside
              The program asked for it.
              Nothing was published."#]]
        .assert_eq(&error.to_string());
    }
}

#[test]
fn a_token_that_was_cancelled_before_stops_the_run_at_once() {
    let (pipeline, basket) = (Pipeline::new("test"), Basket::default());
    let source = Script::numbers(3, &[10]);
    let reads = Arc::clone(&source.reads);
    pipeline.read("numbers", source).write(basket.clone());
    let token = CancelToken::new();
    token.cancel();
    let error = pipeline.run(&options(2).cancel(token)).unwrap_err();
    assert!(error.is_stopped() && basket.aborted.load(SeqCst));
    assert_eq!(reads.load(SeqCst), 0);
}

#[test]
fn a_trainer_is_stopped_where_it_looks() {
    let (pipeline, token) = (Pipeline::new("test"), CancelToken::new());
    let rows = endless(&pipeline).apply(stop_at(0, &token));
    let model = rows.train::<Vec<i64>>(Twice);
    let stopped = pipeline.run(&options(2).cancel(token)).unwrap_err();
    assert!(stopped.is_stopped());
    drop(model);
}

/// Gives no rows and never ends.
#[derive(Clone, Debug)]
struct Silent;

impl Source for Silent {
    fn describe(&self) -> Description {
        Description::new("silent", Value::Null)
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(numbers(vec![]).schema())
    }

    fn splits(&self) -> Result<Vec<Split>> {
        Script::numbers(1, &[1]).splits()
    }

    fn open(&self, _: &Split, _: Position, _: Option<&[String]>) -> Result<Box<dyn SplitReader>> {
        Ok(Box::new(Silent))
    }
}

impl SplitReader for Silent {
    fn next_batch(&mut self, _: &mut Output) -> Result<Option<RecordBatch>> {
        Ok(Some(numbers(vec![])))
    }
}

#[test]
fn a_source_that_never_gives_a_row_is_stopped_too() {
    let (pipeline, token) = (Pipeline::new("test"), CancelToken::new());
    pipeline.read("silent", Silent).write(Basket::default());
    endless(&pipeline)
        .apply(stop_at(2_000, &token))
        .write(Basket::default());
    let error = pipeline.run(&options(2).cancel(token)).unwrap_err();
    assert!(error.is_stopped());
}
