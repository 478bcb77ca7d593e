//! Tests of what is refused while planning.

use expect_test::expect;

use crate::aggregates::{array_agg, min};
use crate::connectors::{collect, from_record_batches};
use crate::incremental::Relation;
use crate::ops::JoinKind;
use crate::testing::{scripted, table};
use crate::{Pipeline, col, lit};

/// What planning says of a relation over rows with the columns `a` (integers) and `b` (text).
fn refused(make: impl FnOnce(&Relation) -> Relation) -> String {
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", from_record_batches(vec![table("a: 1; b: x")]));
    let (sink, _) = collect();
    make(&rows.incremental())
        .into_collection("made")
        .write(sink);
    match pipeline.plan() {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn columns_are_checked_in_each_step() {
    expect![[r#"
        column "c" is not there
          in transform "made"
          The columns are "a", "b".
          It is in step 1 of the relation, select."#]]
    .assert_eq(&refused(|rows| rows.select([col("c")])));
    expect![[r#"
        key `a` is Int64, key `b` is Utf8
          in transform "made"
          It is in step 2 of the relation, join.
          Hint: Bring both to one type with `cast`."#]]
    .assert_eq(&refused(|rows| {
        let texts = rows.select([col("b")]);
        rows.join(&texts, JoinKind::Inner, [(col("a"), col("b"))])
    }));
    expect![[r#"
        `array_agg(a)` cannot take rows of a changelog back
          in transform "made"
          It is in step 1 of the relation, group_by.
          Hint: Count, sum, avg, min, max and count_distinct can; for others aggregate before the rows become changes."#]]
    .assert_eq(&refused(|rows| rows.group_by([col("b")]).agg([array_agg(col("a"))])));
    expect![[r#"
        part 1 of a union has other columns
          in transform "made"
          Expected: Field { "a": nullable Int64 }.
          Found: Field { "b": nullable Utf8 }.
          It is in step 3 of the relation, union.
          Hint: Bring them to the same columns with `select`."#]]
    .assert_eq(&refused(|rows| {
        rows.select([col("a")]).union([&rows.select([col("b")])])
    }));
}

#[test]
fn loops_keep_their_columns_and_what_is_in_them() {
    expect![[r#"
        what an iteration makes has other columns
          in transform "made"
          Expected: Field { "a": nullable Int64 }, Field { "b": nullable Utf8 }.
          Found: Field { "b": nullable Utf8 }, Field { "a": nullable Int64 }.
          It is in step 3 of the relation, iterate.
          Hint: Bring them to the same columns with `select`."#]]
    .assert_eq(&refused(|rows| {
        rows.iterate(|round| round.group_by([col("b")]).agg([min(col("a")).alias("a")]))
    }));
    expect![[r#"
        what goes round in an iteration is used outside of it
          in transform "made"
          Hint: Use what `iterate` returns."#]]
    .assert_eq(&refused(|rows| {
        let mut leaked = None;
        let made = rows.iterate(|round| leaked.insert(round.filter(col("a").gt(lit(0)))).clone());
        made.union(&leaked)
    }));
    expect![[r#"
        what goes round in an iteration is used outside of it
          in transform "made"
          Hint: Use what `iterate` returns."#]]
    .assert_eq(&refused(|rows| {
        rows.iterate(|outer| {
            let mut leaked = None;
            let made = outer.iterate(|inner| leaked.insert(inner.distinct()).clone());
            made.union(&leaked)
        })
    }));
}

#[test]
fn what_never_ends_needs_an_event_time() {
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", scripted("a: 1")).incremental();
    rows.distinct().into_collection("each").write(collect().0);
    expect![[r#"
        a relation without an event time waits for the end, but source "rows" never ends
          in transform "each"
          Hint: Give the rows their event time with `assign_timestamps`."#]]
    .assert_eq(&pipeline.plan().unwrap_err().to_string());
}
