//! Streams as sources: order, backpressure, errors.

use arrow::compute::concat_batches;
use expect_test::expect;
use futures::stream;

use super::*;
use crate::connectors::collect;
use crate::output::OnBadRow;
use crate::testing::{show, table};
use crate::{Pipeline, RunOptions};

fn numbers(from: usize, n_rows: usize) -> RecordBatch {
    let numbers: Vec<String> = (from..from + n_rows).map(|i| i.to_string()).collect();
    table(&format!(
        "x: {}; y: a{}",
        numbers.join(","),
        ",a".repeat(n_rows - 1)
    ))
}

/// What a run reads of these batches.
fn run(source: StreamSource) -> Result<RecordBatch> {
    let pipeline = Pipeline::new("test");
    let (sink, rows) = collect();
    pipeline.read("stream", source).write(sink);
    pipeline.run(&RunOptions::new().workers(2))?;
    let rows = rows.take();
    Ok(concat_batches(&rows[0].schema(), &rows)?)
}

fn ready(batches: Vec<RecordBatch>) -> StreamSource {
    let schema = batches[0].schema();
    from_stream(
        schema,
        stream::iter(batches.into_iter().map(Ok::<_, Error>)),
    )
}

#[test]
fn rows_keep_their_order_whatever_the_size_of_batches() {
    let batches = vec![
        numbers(0, 3),
        numbers(3, 30_000),
        numbers(0, 1).slice(0, 0),
        numbers(30_003, 1),
    ];
    let whole = concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(run(ready(batches)).unwrap(), whole);
}

#[test]
fn some_columns_after_a_position() {
    let source = ready(vec![
        numbers(0, 2),
        table("y: 'b', 'c'; x: 7, 8"),
        numbers(9, 2),
    ]);
    let split = source.splits().unwrap().remove(0);
    let wanted = ["y".to_owned()];
    let mut reader = source.open(&split, Position(3), Some(&wanted)).unwrap();
    let mut out = Output::new(OnBadRow::Fail);
    let mut shown = Vec::new();
    while let Some(rows) = reader.next_batch(&mut out).unwrap() {
        if rows.num_rows() > 0 {
            shown.push(show(&rows));
        }
    }
    assert_eq!(shown, ["y: 'c'", "y: 'a', 'a'"]);
}

#[test]
fn what_cannot_be_read_ends_the_run() {
    let batches = [Ok(table("x: 1")), Err("the tap is closed")];
    let failing = from_stream(table("x: 1").schema(), stream::iter(batches));
    let error = run(failing).unwrap_err();
    assert!(error.is_environment());
    expect![[r#"
        the stream failed: the tap is closed
          in source "stream""#]]
    .assert_eq(&error.to_string());

    let ours = stream::iter([Err(Error::data("row 7 of the queue is torn"))]);
    let error = run(from_stream(table("x: 1").schema(), ours)).unwrap_err();
    assert!(error.is_data());
    expect![[r#"
        row 7 of the queue is torn
          in source "stream""#]]
    .assert_eq(&error.to_string());

    let other = ready(vec![table("x: 1"), table("x: 1.5; z: a")]);
    expect![[r#"
        batch 1 of the stream has other columns than the schema given
          in source "stream"
          Column "x" holds Float64, not Int64.
          Column "z" is only here.
          Hint: Read what differs apart, make it alike with `select`, and bring it together with `union`."#]].assert_eq(&run(other).unwrap_err().to_string());

    let twice = ready(vec![table("x: 1; x: 2")]);
    expect![[r#"
        the schema of the stream has two columns "x"
          in source "stream"
          Hint: Rename one of them."#]]
    .assert_eq(&run(twice).unwrap_err().to_string());

    let once = ready(vec![table("x: 1")]);
    run(once.clone()).unwrap();
    expect![[r#"
        a stream can be read only once
          in source "stream"
          Hint: Make a new pipeline, with a new stream, for each run."#]]
    .assert_eq(&run(once).unwrap_err().to_string());

    let panics = stream::once(async { panic!("no more") });
    let panics = from_stream::<_, Error>(table("x: 1").schema(), panics);
    expect![[r#"
        the stream stopped before its end
          in source "stream"
          It panicked, or the runtime that polls it was shut down."#]]
    .assert_eq(&run(panics).unwrap_err().to_string());
}

#[test]
fn rows_that_two_phases_need_are_kept() {
    let pipeline = Pipeline::new("test");
    let (sink, rows) = collect();
    let (again, more) = collect();
    let read = pipeline
        .read("stream", ready(vec![numbers(0, 5), numbers(5, 5)]))
        .cache();
    read.write(sink);
    read.write(again);
    pipeline.run(&RunOptions::new()).unwrap();
    assert_eq!(rows.take(), more.take());
}
