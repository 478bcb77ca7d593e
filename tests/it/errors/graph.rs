//! What is wrong with the graph itself, found before a row is read.

use arrow::array::Array;
use arrow::array::builder::{Int64Builder, MapBuilder, StringBuilder};
use mainstem::engine::ops::JoinKind;

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

/// The entries of a map have no order, so two maps cannot be told to be equal.
#[test]
fn a_key_that_cannot_be_hashed() {
    let mut scores = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    scores.keys().append_value("maths");
    scores.values().append_value(1);
    scores.append(true).unwrap();
    let scores: ArrayRef = Arc::new(scores.finish());
    let columns = schema(&[("scores", scores.data_type().clone(), true)]);
    let pupils = RecordBatch::try_new(columns, vec![scores]).unwrap();
    check(
        &[],
        |p, _| {
            let read = |name| p.read(name, connectors::from_record_batches(vec![pupils.clone()]));
            let on = [(col("scores"), col("scores"))];
            read("left").join(&read("right"), JoinKind::Inner, on)
        },
        Graph,
        expect![[r#"
            key `scores` cannot be hashed: Map("entries": non-null Struct("keys": non-null Utf8, "values": Int64), unsorted)
              in transform "join"
              Hint: Join on a field of it, or on a text form of it."#]],
    );
}
