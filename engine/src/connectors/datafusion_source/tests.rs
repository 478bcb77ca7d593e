//! Queries over a table of five people in two partitions.

use std::sync::Arc;

use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use expect_test::expect;

use super::*;
use crate::connectors::collect;
use crate::testing::{check_source, show, table};
use crate::{Pipeline, RunOptions, col, lit};

/// People in two partitions, as a table of a session.
fn session() -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let parts = vec![
        vec![table("name: Ada, Bob; age: 36, null")],
        vec![table("name: Cy, Dora, Eve; age: 12, 40, 55")],
    ];
    let people = MemTable::try_new(parts[0][0].schema(), parts).unwrap();
    context.register_table("people", Arc::new(people)).unwrap();
    context
}

fn query(sql: &str) -> DataFusionSource {
    let sql = sql.to_owned();
    let frame = wait_for(async move { session().sql(&sql).await }).unwrap();
    datafusion(frame.unwrap())
}

#[test]
fn each_partition_is_a_split_that_keeps_the_laws_of_sources() {
    let rows = check_source(&query("SELECT * FROM people")).unwrap();
    expect![[r#"
        name: 'Ada', 'Bob', 'Cy', 'Dora', 'Eve'
        age: 36, null, 12, 40, 55"#]]
    .assert_eq(&show(&rows));
}

#[test]
fn a_query_runs_before_the_pipeline_on_any_number_of_workers() {
    for workers in 1..=3 {
        let sql = "SELECT upper(name) AS name, age * 2 AS \"Double.Age\" FROM people ORDER BY name";
        let pipeline = Pipeline::new("ages");
        let (sink, rows) = collect();
        pipeline
            .read("people", query(sql))
            .filter(col("Double.Age").gt(lit(50)))
            .write(sink);
        pipeline.run(&RunOptions::new().workers(workers)).unwrap();
        expect![[r#"
            name: 'ADA', 'DORA', 'EVE'
            Double.Age: 72, 80, 110"#]]
        .assert_eq(&show(&rows.take()[0]));
    }
}

#[test]
fn views_arrive_as_plain_text() {
    let source = query("SELECT arrow_cast(name, 'Utf8View') AS name FROM people WHERE age < 20");
    assert_eq!(
        source.schema().unwrap().field(0).data_type(),
        &DataType::Utf8
    );
    expect!["name: 'Cy'"].assert_eq(&show(&check_source(&source).unwrap()));
}

#[test]
fn large_batches_are_cut() {
    let source = query("SELECT value FROM generate_series(1, 20000)");
    let context = SessionContext::new_with_config(SessionConfig::new().with_batch_size(50_000));
    let frame = wait_for(async move {
        context
            .sql("SELECT value FROM generate_series(1, 20000)")
            .await
    });
    assert_eq!(check_source(&source).unwrap().num_rows(), 20_000);
    let large = check_source(&datafusion(frame.unwrap().unwrap())).unwrap();
    assert_eq!(large.num_rows(), 20_000);
}

#[test]
fn a_query_that_fails_on_a_row_says_so() {
    let pipeline = Pipeline::new("ages");
    let (sink, _) = collect();
    pipeline
        .read("people", query("SELECT 10 / (age - 12) AS x FROM people"))
        .write(sink);
    let error = pipeline.run(&RunOptions::new().workers(1)).unwrap_err();
    expect![[r#"
        partition 1 of the query: the query failed
          in source "people"
          Arrow error: Divide by zero error."#]]
    .assert_eq(&error.to_string());
    assert!(error.is_data());
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let source = query("SELECT a.age, b.age FROM people a, people b");
    expect![[r#"
        the query gives two columns called "age"
          Hint: Rename one of them in the query, such as by `AS`."#]]
    .assert_eq(&source.schema().unwrap_err().to_string());
}

#[test]
fn a_pipeline_runs_its_query_anew_each_time() {
    let pipeline = Pipeline::new("again");
    let source = query("SELECT count(*) AS n FROM people");
    let (sink, rows) = collect();
    pipeline.read("people", source).write(sink);
    for _ in 0..3 {
        pipeline.run(&RunOptions::new().workers(2)).unwrap();
    }
    let all: Vec<String> = rows.take().iter().map(show).collect();
    assert_eq!(all, ["n: 5"; 3]);
}

#[test]
fn later_phases_do_not_run_a_query_again_unless_it_is_said_to_be_repeatable() {
    let source = query("SELECT age FROM people");
    assert!(!source.properties().repeatable);
    assert!(source.repeatable(true).properties().repeatable);
}
