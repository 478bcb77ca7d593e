//! What is wrong with the graph itself, found before a row is read.

use arrow::array::Array;
use arrow::array::builder::{Int64Builder, MapBuilder, StringBuilder};
use mainstem::engine::ops::{JoinKind, SideInput};

use super::*;

#[test]
fn a_column_that_is_not_there() {
    check(
        &[PEOPLE],
        |p, dir| {
            people_of(p, dir)
                .filter(col("Age").gt(lit(18)))
                .with_column("x", col("years") + lit(1))
        },
        Graph,
        expect![[r#"
            column "Age" is not there
              in transform "filter"
              The columns are "name", "age".
              Hint: Names are case-sensitive: did you mean "age"?"#]],
    );
}

#[test]
fn a_selection_without_columns() {
    check(
        &[PEOPLE],
        |p, dir| people_of(p, dir).select(Vec::<mainstem::engine::Expr>::new()),
        Graph,
        expect![[r#"
            select needs at least one column
              in transform "select""#]],
    );
}

#[test]
fn a_column_that_is_made_twice() {
    check(
        &[PEOPLE],
        |p, dir| people_of(p, dir).select([col("age"), col("name").alias("age")]),
        Graph,
        expect![[r#"
            column "age" is made twice
              in transform "select"
              Hint: Give one of them another name with `.alias(name)`."#]],
    );
}

/// Rows with a map, whose entries have no order, so two of them cannot be told to be equal.
fn pupils(p: &Pipeline, name: &str) -> Collection {
    let mut scores = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    scores.keys().append_value("maths");
    scores.values().append_value(1);
    scores.append(true).unwrap();
    let scores: ArrayRef = Arc::new(scores.finish());
    let columns = schema(&[("scores", scores.data_type().clone(), true)]);
    let pupils = RecordBatch::try_new(columns, vec![scores]).unwrap();
    p.read(name, connectors::from_record_batches(vec![pupils]))
}

#[test]
fn a_key_that_cannot_be_hashed() {
    check(
        &[],
        |p, _| {
            let on = [(col("scores"), col("scores"))];
            pupils(p, "left").join(&pupils(p, "right"), JoinKind::Inner, on)
        },
        Graph,
        expect![[r#"
            key `scores` cannot be hashed: Map("entries": non-null Struct("keys": non-null Utf8, "values": Int64), unsorted)
              in transform "join"
              Hint: Join on a field of it, or on a text form of it."#]],
    );
}

#[test]
fn a_key_of_a_sample_and_of_a_look_up_that_cannot_be_hashed() {
    check(
        &[],
        |p, _| pupils(p, "pupils").sample_by_key(col("scores"), 0.5, 1),
        Graph,
        expect![[r#"
            key `scores` cannot be hashed: Map("entries": non-null Struct("keys": non-null Utf8, "values": Int64), unsorted)
              in transform "sample_by_key"
              Hint: Sample by a field of it, or by a text form of it."#]],
    );
    check(
        &[],
        |p, _| {
            let on = SideInput::map([(col("scores"), col("scores"))]);
            let found = pupils(p, "pupils").with_side_input(&pupils(p, "rates"), on);
            found.select([lit(1).alias("one")])
        },
        Graph,
        expect![[r#"
            2 errors
            1. key `scores` cannot be hashed: Map("entries": non-null Struct("keys": non-null Utf8, "values": Int64), unsorted)
                 in transform "side_input"
                 Hint: Take a field of it, or a text form of it.
            2. side input "rates" adds no columns
                 in transform "side_input"
                 Hint: Name some with `columns`, or keep rows by a semi join instead."#]],
    );
}

#[test]
fn record_batches_of_which_there_are_none() {
    check(
        &[],
        |p, _| p.read("rows", connectors::from_record_batches(Vec::new())),
        Graph,
        expect![[r#"
            a source in memory was given no record batch
              in source "rows"
              Hint: Give it an empty one, which tells the columns."#]],
    );
}

#[test]
fn record_batches_without_columns() {
    check(
        &[],
        |p, _| {
            let options = RecordBatchOptions::new().with_row_count(Some(3));
            let none = RecordBatch::try_new_with_options(schema(&[]), vec![], &options).unwrap();
            p.read("rows", connectors::from_record_batches(vec![none]))
        },
        Graph,
        expect![[r#"
            rows without columns cannot be written to CSV
              in sink "csv_sink""#]],
    );
}

#[test]
fn a_schema_and_a_file_with_a_name_twice() {
    let twice = schema(&[("n", DataType::Int64, true), ("n", DataType::Int64, true)]);
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let rows = RecordBatch::try_new(Arc::clone(&twice), vec![Arc::clone(&n), n]).unwrap();
    check(
        &[PEOPLE],
        |p, dir| {
            let file = connectors::csv(dir.join("people.csv"));
            p.read("people", file.schema(Arc::clone(&twice)))
        },
        Graph,
        expect![[r#"
            the schema given has two columns "n"
              in source "people"
              Hint: Rename one of them."#]],
    );
    check(
        &[("n.parquet", &parquet_bytes(&rows))],
        |p, dir| p.read("n", connectors::parquet(dir.join("n.parquet"))),
        Data,
        expect![[r#"
            file "DIR/n.parquet" has two columns "n"
              in source "n"
              Hint: Rename one of them."#]],
    );
}
