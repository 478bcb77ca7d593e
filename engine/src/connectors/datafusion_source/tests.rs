//! Queries over a table of five people in two partitions.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::datasource::MemTable;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::physical_plan::displayable;
use datafusion::prelude::{CsvReadOptions, SessionConfig, SessionContext};
use expect_test::expect;

use super::*;
use crate::connectors::collect;
use crate::connectors::test_folder::TestFolder;
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
    let told = |source: DataFusionSource| {
        let pipeline = Pipeline::new("some");
        let (sink, _) = collect();
        let rows = pipeline.read("people", source);
        rows.sample(0.5, 1).write(sink);
        let plan = pipeline.plan().unwrap().explain();
        plan.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(told(source.clone()).contains("repeatable=false"));
    let repeatable = source.repeatable(true);
    assert!(repeatable.properties().repeatable);
    assert!(told(repeatable).contains("repeatable=true"));
}

#[test]
fn fewer_columns_are_those_columns_of_the_same_rows() {
    // Without its second column each of the first two is another plan, with more partitions.
    for sql in [
        "SELECT name, row_number() OVER (ORDER BY name) AS n FROM people",
        "SELECT name, sum(age) OVER () AS total FROM people ORDER BY name",
        "SELECT name, row_number() OVER (PARTITION BY age ORDER BY name) AS n FROM people",
        "SELECT name, age FROM people ORDER BY age, name",
        "SELECT name, age FROM people ORDER BY name DESC LIMIT 3",
        "SELECT name, age FROM people UNION ALL SELECT upper(name), age + 1 FROM people",
        "SELECT a.name, b.age FROM people a JOIN people b ON a.age = b.age ORDER BY a.name",
        "SELECT name, upper(name) AS large, age + 1 AS older FROM people WHERE age > 12",
        "SELECT age, count(*) AS n, max(name) AS last FROM people GROUP BY age ORDER BY age",
    ] {
        let source = query(sql);
        let n_rows = check_source(&source).unwrap().num_rows();
        assert!(n_rows > 0, "{sql}");
    }
}

#[test]
fn no_row_is_lost_where_fewer_columns_are_read() {
    let sql = "SELECT name, row_number() OVER (ORDER BY name) AS n FROM people";
    for workers in 1..=3 {
        let pipeline = Pipeline::new("names");
        let (sink, rows) = collect();
        pipeline
            .read("people", query(sql))
            .select([col("name")])
            .write(sink);
        pipeline.run(&RunOptions::new().workers(workers)).unwrap();
        expect!["name: 'Ada', 'Bob', 'Cy', 'Dora', 'Eve'"].assert_eq(&show(&concat(&rows.take())));
    }
}

/// The CSV files of a folder, which is looked through whenever the query is planned.
fn files(folder: &TestFolder, n_partitions: usize) -> DataFusionSource {
    let config = SessionConfig::new().with_target_partitions(n_partitions);
    let runtime = RuntimeEnvBuilder::new().with_object_list_cache_limit(0);
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc().unwrap());
    let place = folder.path("in").display().to_string();
    let frame = wait_for(async move { context.read_csv(place, CsvReadOptions::new()).await });
    datafusion(frame.unwrap().unwrap())
}

#[test]
fn columns_that_nobody_reads_are_not_read_of_files_either() {
    let folder = TestFolder::new();
    folder.write("in/0.csv", "x,y,z\n1,2,3\n");
    let source = files(&folder, 1);
    let names = ["x".to_owned(), "z".to_owned()];
    let plan = Execution::plan(source.frame.clone(), Some(&names))
        .unwrap()
        .plan;
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    assert!(shown.starts_with("DataSourceExec"), "{shown}");
    assert!(shown.contains("projection=[x, z]"), "{shown}");
}

#[test]
fn partitions_that_have_come_since_are_read_too() {
    let folder = TestFolder::new();
    let write = |i: usize| folder.write(&format!("in/{i}.csv"), format!("x\n{i}\n"));
    write(0);
    let source = files(&folder, 3);
    assert_eq!(source.splits().unwrap().len(), 1);
    let pipeline = Pipeline::new("growing");
    let (sink, rows) = collect();
    pipeline.read("growing", source).write(sink);
    for n_files in 1..=4 {
        write(n_files - 1);
        pipeline.run(&RunOptions::new().workers(2)).unwrap();
        let n_rows: usize = rows.take().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(n_rows, n_files);
    }
}

#[test]
fn each_partition_of_a_folder_of_files_gives_its_own_rows_each_time() {
    let folder = TestFolder::new();
    for i in 0..6 {
        folder.write(&format!("in/{i}.csv"), format!("x\n{i}\n"));
    }
    let source = files(&folder, 3);
    assert_eq!(source.splits().unwrap().len(), 3);
    let rows = check_source(&source).unwrap();
    expect!["x: 0, 1, 2, 3, 4, 5"].assert_eq(&show(&rows));
}

#[test]
fn a_query_that_panics_is_an_error_and_nothing_is_published() {
    let function = create_udf(
        "brittle",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(|arguments| {
            let ages = ColumnarValue::values_to_arrays(arguments)?;
            let is_twelve = |age: &Option<i64>| *age == Some(12);
            let has = ages[0].as_primitive::<Int64Type>().iter();
            assert!(
                !has.collect::<Vec<_>>().iter().any(is_twelve),
                "twelve is too young"
            );
            Ok(ColumnarValue::Array(Arc::clone(&ages[0])))
        }),
    );
    for sql in [
        "SELECT brittle(age) AS age FROM people",
        "SELECT brittle(age) AS age FROM people ORDER BY age",
    ] {
        let context = session();
        context.register_udf(function.clone());
        let sql = sql.to_owned();
        let frame = wait_for(async move { context.sql(&sql).await });
        let pipeline = Pipeline::new("ages");
        let (sink, rows) = collect();
        pipeline
            .read("people", datafusion(frame.unwrap().unwrap()))
            .write(sink);
        let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the query panicked"), "{text}");
        assert!(text.contains("twelve is too young"), "{text}");
        assert!(error.is_bug());
        assert!(rows.take().is_empty());
    }
}

fn concat(batches: &[RecordBatch]) -> RecordBatch {
    arrow::compute::concat_batches(&batches[0].schema(), batches).unwrap()
}
