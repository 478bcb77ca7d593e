//! One side of a stream goes away before the other.

use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use arrow::compute::concat_batches;
use expect_test::expect;
use futures::stream;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::connectors::collect;
use crate::ops::MapBatches;
use crate::testing::{show, table};
use crate::{CancelToken, Pipeline, RunOptions};

/// No test needs so long; without the limit one that fails would not end.
const LONGEST: Duration = Duration::from_secs(60);

/// Says that it was dropped.
struct Said(mpsc::Sender<()>);

impl Drop for Said {
    fn drop(&mut self) {
        // Nobody may listen any more.
        let _ = self.0.send(());
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap()
}

/// A stream of some batches of one row, which then goes on without another one, and what tells that it was dropped.
fn goes_on(
    n_batches: i64,
) -> (
    impl Stream<Item = Result<RecordBatch>> + Send,
    mpsc::Receiver<()>,
) {
    let (said, dropped) = mpsc::channel();
    let said = Said(said);
    let mut next = 0;
    let stream = stream::poll_fn(move |_| {
        let _ = &said;
        next += 1;
        match next <= n_batches {
            true => Poll::Ready(Some(Ok(table(&format!("x: {next}"))))),
            // Nothing wakes it again.
            false => Poll::Pending,
        }
    });
    (stream, dropped)
}

/// The error of a run over the stream in which this is called at the second batch, within a runtime or on a thread of its own.
fn ended_by(
    is_in_runtime: bool,
    options: &RunOptions,
    at_two: impl Fn() -> Result<()> + Send + Sync + 'static,
) -> Error {
    let runtime = is_in_runtime.then(runtime);
    let entered = runtime.as_ref().map(Runtime::enter);
    let (stream, dropped) = goes_on(3);
    let pipeline = Pipeline::new("test");
    let (sink, rows) = collect();
    let map = MapBatches::new(move |rows| match show(&rows).as_str() {
        "x: 2" => at_two().map(|()| rows),
        _ => Ok(rows),
    });
    let read = pipeline.read("stream", from_stream(table("x: 1").schema(), stream));
    read.apply(map).write(sink);
    let error = pipeline.run(options).unwrap_err();
    assert_eq!(rows.take().len(), 0);
    drop(pipeline);
    dropped
        .recv_timeout(LONGEST)
        .expect("the stream is dropped");
    drop(entered);
    error
}

#[test]
fn a_run_that_fails_or_is_stopped_drops_the_stream() {
    for is_in_runtime in [true, false] {
        for workers in [1, 2] {
            let options = RunOptions::new().workers(workers);
            let fail = || Err(Error::environment("the lamp is broken"));
            let error = ended_by(is_in_runtime, &options, fail);
            assert_eq!(error.message(), "the lamp is broken");

            let token = CancelToken::new();
            let options = options.cancel(token.clone());
            let stop = move || {
                token.cancel();
                Ok(())
            };
            assert!(ended_by(is_in_runtime, &options, stop).is_stopped());
        }
    }
}

#[test]
fn a_stream_that_is_never_read_is_dropped_with_its_source() {
    let (stream, dropped) = goes_on(3);
    drop(from_stream(table("x: 1").schema(), stream));
    dropped.recv_timeout(LONGEST).unwrap();
    // So it is where planning fails, and where the reader is dropped that has read nothing.
    let (stream, dropped) = goes_on(3);
    let pipeline = Pipeline::new("test");
    pipeline.read("stream", from_stream(table("x: 1").schema(), stream));
    assert!(pipeline.plan().is_err());
    drop(pipeline);
    dropped.recv_timeout(LONGEST).unwrap();
    let (stream, dropped) = goes_on(3);
    let source = from_stream(table("x: 1").schema(), stream);
    let split = source.splits().unwrap().remove(0);
    drop(source.open(&split, Position(0), None).unwrap());
    dropped.recv_timeout(LONGEST).unwrap();
}

/// A sender of the program, as of a channel that requests come through.
#[test]
fn a_sender_notices_that_the_run_is_over() {
    let runtime = runtime();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let stream = stream::poll_fn(move |context| receiver.poll_recv(context));
    let entered = runtime.enter();
    let source = from_stream::<_, Error>(table("x: 1").schema(), stream);
    let sending = runtime.spawn(async move {
        let mut n_sent = 0_u64;
        // Without an end: only that nobody receives ends it.
        while sender.send(Ok(table("x: 1"))).await.is_ok() {
            n_sent += 1;
        }
        n_sent
    });
    let pipeline = Pipeline::new("test");
    let token = CancelToken::new();
    let (map, stop) = (Arc::new(Mutex::new(0)), token.clone());
    let count = MapBatches::new(move |rows| {
        let mut n = map.lock().unwrap();
        *n += rows.num_rows();
        if *n >= 100 {
            stop.cancel();
        }
        Ok(rows)
    });
    pipeline
        .read("stream", source)
        .apply(count)
        .write(collect().0);
    let error = pipeline
        .run(&RunOptions::new().workers(2).cancel(token))
        .unwrap_err();
    assert!(error.is_stopped());
    drop(entered);
    let n_sent = runtime.block_on(async { tokio::time::timeout(LONGEST, sending).await });
    assert!(n_sent.unwrap().unwrap() >= 100);
}

#[test]
fn a_sender_that_is_dropped_ends_the_rows() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    let stream = stream::poll_fn(move |context| receiver.poll_recv(context));
    let source = from_stream::<_, Error>(table("x: 1").schema(), stream);
    let pipeline = Pipeline::new("test");
    let (sink, rows) = collect();
    pipeline.read("stream", source).write(sink);
    let sending = std::thread::spawn(move || {
        for n in 0..5 {
            sender.blocking_send(Ok(table(&format!("x: {n}")))).unwrap();
        }
    });
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    sending.join().unwrap();
    let rows = rows.take();
    let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
    assert_eq!(show(&rows), "x: 0, 1, 2, 3, 4");
}

#[test]
fn a_runtime_that_is_shut_down_ends_the_run() {
    let runtime = runtime();
    let entered = runtime.enter();
    let (stream, dropped) = goes_on(2);
    let source = from_stream(table("x: 1").schema(), stream);
    drop(entered);
    let runtime = Mutex::new(Some(runtime));
    let shut_down = MapBatches::new(move |rows| {
        if let Some(runtime) = runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
        Ok(rows)
    });
    let pipeline = Pipeline::new("test");
    pipeline
        .read("stream", source)
        .apply(shut_down)
        .write(collect().0);
    let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
    expect![[r#"
        the stream stopped before its end
          in source "stream"
          It panicked, or the runtime that polls it was shut down."#]]
    .assert_eq(&error.to_string());
    dropped.recv_timeout(LONGEST).unwrap();
}
