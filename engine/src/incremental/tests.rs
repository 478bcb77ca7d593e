//! Tests of what is refused while planning.

use arrow::datatypes::DataType;
use expect_test::expect;

use crate::aggregates::{array_agg, count, min};
use crate::connectors::{collect, from_record_batches};
use crate::expression::{cast, functions::math::expr_fn::random};
use crate::graph::Stage;
use crate::incremental::Relation;
use crate::ops::JoinKind;
use crate::output::OnBadRow;
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
fn rows_that_enter_round_by_round_have_a_round_and_are_read() {
    let all = |made: &Relation, entered: &Relation| made.union([entered]).distinct();
    expect![[r#"
        a round must be an integer, `b` is Utf8
          in transform "made"
          It is in step 2 of the relation, enter.
          Hint: Bring it to `Int64` with `cast`."#]]
    .assert_eq(&refused(|rows| rows.iterate_entering(col("b"), all)));
    expect![[r#"
        a round must be an integer, `a / Float64(2)` is Float64
          in transform "made"
          It is in step 2 of the relation, enter.
          Hint: Bring it to `Int64` with `cast`."#]]
    .assert_eq(&refused(|rows| {
        rows.iterate_entering(col("a") / lit(2.0), all)
    }));
    expect![[r#"
        column "c" is not there
          in transform "made"
          The columns are "a", "b".
          It is in step 2 of the relation, enter."#]]
    .assert_eq(&refused(|rows| rows.iterate_entering(col("c"), all)));
    expect![[r#"
        `CAST(random() * Float64(9) AS Int64)` may give another value each time
          in transform "made"
          A row that is taken back must be the row that was added.
          It is in step 2 of the relation, enter."#]]
    .assert_eq(&refused(|rows| {
        let chance = cast(random() * lit(9.0), DataType::Int64);
        rows.iterate_entering(chance, all)
    }));
    expect![[r#"
        the rows that enter an iteration round by round are not read in it
          in transform "made"
          It is in step 5 of the relation, iterate.
          Hint: Use the second relation that the body is given in place of the rows outside, or `iterate`."#]].assert_eq(&refused(|rows| {
        rows.iterate_entering(col("a"), |made, _| made.union([rows]).distinct())
    }));
    expect![[r#"
        what an iteration makes has other columns
          in transform "made"
          Expected: Field { "a": nullable Int64 }, Field { "b": nullable Utf8 }.
          Found: Field { "a": nullable Int64 }.
          It is in step 6 of the relation, iterate.
          Hint: Bring them to the same columns with `select`."#]]
    .assert_eq(&refused(|rows| {
        rows.iterate_entering(col("a"), |made, entered| {
            all(made, entered).select([col("a")])
        })
    }));
    expect![[r#"
        what goes round in an iteration is used outside of it
          in transform "made"
          Hint: Use what `iterate` returns."#]]
    .assert_eq(&refused(|rows| {
        let mut leaked = None;
        let made = rows.iterate_entering(col("a"), |made, entered| {
            all(made, leaked.insert(entered.clone()))
        });
        made.union(&leaked)
    }));
    assert_eq!(
        refused(|rows| rows.iterate_entering(cast(col("a"), DataType::UInt8), all)),
        "accepted"
    );
}

#[test]
fn the_graph_as_data_says_in_which_round_rows_enter() {
    let pipeline = Pipeline::new("test");
    let rows = pipeline.read("rows", from_record_batches(vec![table("a: 1")]));
    let made = rows
        .incremental()
        .iterate_entering(col("a") * lit(2_i64), |made, entered| {
            made.union([entered]).distinct()
        });
    made.into_collection("made").write(collect().0);
    let plan = pipeline.plan().unwrap();
    let config = plan.graph.nodes[1].stage.describe().config;
    let steps = config["steps"].as_array().unwrap().iter();
    let lines: Vec<String> = steps.map(ToString::to_string).collect();
    expect![[r#"
        {"input":0,"reads":[],"step":"input"}
        {"reads":[0],"step":"variable"}
        {"reads":[0],"round":"a * Int64(2)","step":"enter"}
        {"reads":[1,2],"step":"union"}
        {"reads":[3],"step":"distinct"}
        {"max_rounds":100000,"reads":[0,1,2,4],"step":"iterate"}"#]]
    .assert_eq(&lines.join("\n"));
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

/// The columns that are read of rows with the columns `a` to `d`, and those that are kept of them.
fn read_and_kept(make: impl FnOnce(&Relation) -> Relation) -> [String; 2] {
    let pipeline = Pipeline::new("test");
    let rows = table("a: 1; b: 2; c: 3; d: 4");
    let schema = rows.schema();
    let rows = pipeline.read("rows", from_record_batches(vec![rows]));
    let (sink, _) = collect();
    let made = make(&rows.incremental());
    made.into_collection("made").write(sink);
    let plan = pipeline.plan().unwrap();
    let of_source = plan.phases[0].projection.columns.get(&0);
    let Stage::Transform(transform) = &plan.graph.nodes[1].stage else {
        return [const { String::new() }; 2];
    };
    let relation = transform.incremental().unwrap();
    let compiled = relation.compile(&[schema], OnBadRow::Fail).unwrap();
    let kept = compiled.input_schema(0);
    let kept: Vec<&str> = kept.fields().iter().map(|f| f.name().as_str()).collect();
    [
        of_source.map_or("all".into(), |all| all.join(" ")),
        kept.join(" "),
    ]
}

#[test]
fn columns_that_nothing_reads_are_neither_read_nor_kept() {
    let some = |read: &str| [read, read].map(str::to_owned);
    assert_eq!(
        read_and_kept(|rows| rows.select([col("c"), col("a")])),
        some("a c")
    );
    assert_eq!(
        read_and_kept(|rows| {
            let few = rows.filter(col("d").gt(lit(0)).and(col("b").gt(lit(0))));
            few.group_by([col("a")]).agg([min(col("b")).alias("least")])
        }),
        some("a b d")
    );
    assert_eq!(
        read_and_kept(|rows| rows
            .select([col("a")])
            .union([&rows.select([col("b").alias("a")])])),
        some("a b")
    );
    // Whole rows are looked at, by one reader of two.
    let all = ["all", "a b c d"].map(str::to_owned);
    assert_eq!(read_and_kept(|rows| rows.filter(col("a").gt(lit(0)))), all);
    assert_eq!(
        read_and_kept(|rows| {
            let one = rows.select([col("a").alias("x")]);
            rows.join(&one, JoinKind::LeftSemi, [(col("b"), col("x"))])
        }),
        all
    );
    // Some column says which rows are the same.
    assert_eq!(
        read_and_kept(|rows| rows.group_by([]).agg([count(lit(1)).alias("n")])),
        ["all", "a"].map(str::to_owned)
    );
}

#[test]
fn joins_give_only_what_is_selected_of_their_pairs() {
    let columns = |make: &dyn Fn(&Relation) -> Relation| {
        let pipeline = Pipeline::new("test");
        let rows = table("a: 1; b: 2; c: 3");
        let schema = rows.schema();
        let rows = pipeline.read("rows", from_record_batches(vec![rows]));
        make(&rows.incremental())
            .into_collection("made")
            .write(collect().0);
        let plan = pipeline.plan().unwrap();
        let Stage::Transform(transform) = &plan.graph.nodes[1].stage else {
            return Vec::new();
        };
        let relation = transform.incremental().unwrap();
        let compiled = relation.compile(&[schema], OnBadRow::Fail).unwrap();
        let joins = compiled.steps.iter().filter(|step| step.name == "join");
        let names = joins.map(|join| {
            let fields = join.schema.fields().iter();
            fields
                .map(|f| f.name().as_str())
                .collect::<Vec<_>>()
                .join(" ")
        });
        names.collect()
    };
    let pairs = |rows: &Relation| {
        let others = rows.select([col("b").alias("x"), col("c").alias("y")]);
        rows.join(&others, JoinKind::Inner, [(col("a"), col("x"))])
    };
    let selected = |pairs: &Relation| pairs.select([col("y").alias("z"), col("a")]);
    assert_eq!(columns(&|rows| selected(&pairs(rows))), ["z a"]);
    // Something else reads all columns, or something is computed.
    let all = ["a b c x y"];
    assert_eq!(columns(&|rows| pairs(rows)), all);
    assert_eq!(
        columns(&|rows| pairs(rows).select([col("a") + col("y")])),
        all
    );
    assert_eq!(
        columns(&|rows| {
            let pairs = pairs(rows);
            let counts = pairs.group_by([col("b")]).agg([count(lit(1)).alias("n")]);
            let both = selected(&pairs);
            both.join(&counts, JoinKind::LeftSemi, [(col("a"), col("b"))])
        })[0],
        all[0]
    );
}
