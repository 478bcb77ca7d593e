//! Pipelines inside of a program's own runtime.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use expect_test::expect;
use futures::{StreamExt, stream};

use super::*;
use crate::connectors::test_folder::TestFolder;
use crate::connectors::{collect, csv_sink, from_record_batches, from_stream};
use crate::testing::{show, table};
use crate::{Pipeline, RunOptions, col, lit};

fn numbers(n_batches: usize) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    stream::iter(0..n_batches).map(|i| Ok(table(&format!("x: {i}"))))
}

/// Options under which hardly anything is in flight.
fn tight() -> RunOptions {
    RunOptions::new().workers(1).credit_bytes(1)
}

async fn doubled(n_batches: usize) {
    let pipeline = Pipeline::new("test");
    let (sink, mut rows) = into_stream();
    pipeline
        .read(
            "numbers",
            from_stream(table("x: 1").schema(), numbers(n_batches)),
        )
        .with_column("y", col("x") * lit(2))
        .write(sink);
    let run = pipeline.run_async(&RunOptions::new().workers(2));
    let mut shown = Vec::new();
    while let Some(batch) = rows.next().await {
        shown.push(show(&batch.unwrap()));
    }
    let report = run.await.unwrap();
    assert_eq!(report.published[0].1.n_rows, n_batches as u64);
    assert_eq!(shown.len(), n_batches);
    for (i, batch) in shown.iter().enumerate() {
        assert_eq!(*batch, format!("x: {i}\ny: {}", 2 * i));
    }
    assert!(rows.next().await.is_none());
}

#[tokio::test(flavor = "current_thread")]
async fn a_pipeline_runs_inside_a_runtime_of_one_thread() {
    doubled(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_runs_inside_a_runtime_of_several_threads() {
    doubled(100).await;
}

#[tokio::test]
async fn a_stream_is_polled_only_as_fast_as_its_rows_are_taken() {
    let polled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polled);
    let counting = numbers(200).inspect(move |_| {
        counted.fetch_add(1, SeqCst);
    });
    let pipeline = Pipeline::new("test");
    let (sink, mut rows) = into_stream();
    pipeline
        .read("numbers", from_stream(table("x: 1").schema(), counting))
        .write(sink);
    let run = pipeline.run_async(&tight());
    let mut taken = 0;
    while let Some(batch) = rows.next().await {
        taken += batch.unwrap().num_rows();
        // Two wait before the pipeline, two behind it, and some are on their way.
        let polled = polled.load(SeqCst);
        assert!(
            polled <= taken + 10,
            "{polled} batches were made when {taken} were taken"
        );
        tokio::task::yield_now().await;
    }
    run.await.unwrap();
    assert_eq!(taken, 200);
}

#[tokio::test]
async fn an_answer_comes_before_the_next_question() {
    let (ask, questions) = mpsc::channel::<RecordBatch>(1);
    let questions = stream::unfold(questions, |mut questions| async {
        let question = questions.recv().await?;
        Some((Ok::<_, Error>(question), questions))
    });
    let pipeline = Pipeline::new("test");
    let (sink, mut answers) = into_stream();
    pipeline
        .read("questions", from_stream(table("x: 1").schema(), questions))
        .with_column("y", col("x") + lit(1))
        .write(sink);
    let run = pipeline.run_async(&tight());
    for i in 0..20 {
        ask.send(table(&format!("x: {i}"))).await.unwrap();
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(show(&answer), format!("x: {i}\ny: {}", i + 1));
    }
    drop(ask);
    assert!(answers.next().await.is_none());
    run.await.unwrap();
}

#[tokio::test]
async fn a_run_that_fails_ends_the_stream_with_an_error() {
    let failing = numbers(3).chain(stream::once(async {
        Err(Error::data("the queue is torn"))
    }));
    let pipeline = Pipeline::new("test");
    let (sink, mut rows) = into_stream();
    pipeline
        .read("numbers", from_stream(table("x: 1").schema(), failing))
        .write(sink);
    let run = pipeline.run_async(&RunOptions::new());
    let mut last = None;
    while let Some(batch) = rows.next().await {
        last = Some(batch);
    }
    expect![[r#"
        the rows of the stream are not all: the run has failed or did not take place
          Hint: The run itself returns why."#]]
    .assert_eq(&last.unwrap().unwrap_err().to_string());
    expect![[r#"
        the queue is torn
          in source "numbers""#]]
    .assert_eq(&run.await.unwrap_err().to_string());
    assert!(rows.next().await.is_none());
}

#[tokio::test]
async fn an_abandoned_stream_stops_the_run_and_leaves_nothing() {
    let folder = TestFolder::new();
    let pipeline = Pipeline::new("test");
    let (sink, rows) = into_stream();
    let endless = stream::repeat_with(|| Ok::<_, Error>(table("x: 1")));
    let read = pipeline.read("ones", from_stream(table("x: 1").schema(), endless));
    read.write(csv_sink(folder.path("out")));
    read.write(sink);
    let run = pipeline.run_async(&tight());
    drop(rows);
    expect![[r#"
        nobody takes the rows: the stream that they go to was dropped
          in sink "stream_sink"
          Hint: Keep the stream until it ends, or cancel the run by a `CancelToken`."#]]
    .assert_eq(&run.await.unwrap_err().to_string());
    assert!(folder.tree().is_empty());
}

#[tokio::test]
async fn a_future_that_is_dropped_cancels_the_run_and_leaves_nothing() {
    let folder = TestFolder::new();
    let pipeline = Pipeline::new("test");
    let (sink, mut rows) = into_stream();
    let endless = stream::repeat_with(|| Ok::<_, Error>(table("x: 1")));
    let read = pipeline.read("ones", from_stream(table("x: 1").schema(), endless));
    // The folder is cleaned before the stream ends.
    read.write(csv_sink(folder.path("out")));
    read.write(sink);
    let run = pipeline.run_async(&tight());
    rows.next().await.unwrap().unwrap();
    drop(run);
    let mut last = None;
    while let Some(batch) = rows.next().await {
        last = Some(batch);
    }
    assert!(last.unwrap().is_err());
    assert!(folder.tree().is_empty());
}

#[tokio::test]
async fn a_run_without_rows_ends_the_stream_and_a_second_run_is_refused() {
    let pipeline = Pipeline::new("test");
    let (sink, mut rows) = into_stream();
    pipeline
        .read("none", from_record_batches(vec![table("x: 1").slice(0, 0)]))
        .write(sink);
    pipeline.run_async(&RunOptions::new()).await.unwrap();
    assert!(rows.next().await.is_none());
    let again = pipeline.run_async(&RunOptions::new()).await.unwrap_err();
    expect![[r#"
        the rows of one run alone can go to a stream
          in sink "stream_sink"
          Hint: Make a new pipeline, with a new stream, for each run."#]]
    .assert_eq(&again.to_string());

    let (sink, mut rows) = into_stream();
    drop(sink);
    assert!(rows.next().await.unwrap().is_err());
}

#[tokio::test]
async fn a_stream_that_waits_does_not_keep_a_failed_run() {
    let pipeline = Pipeline::new("test");
    let (sink, _rows) = collect();
    let silent = stream::pending::<Result<RecordBatch>>();
    pipeline
        .read("silent", from_stream(table("x: 1").schema(), silent))
        .write(sink);
    let token = crate::CancelToken::new();
    let run = pipeline.run_async(&RunOptions::new().cancel(token.clone()));
    token.cancel();
    assert!(run.await.unwrap_err().is_stopped());
}
