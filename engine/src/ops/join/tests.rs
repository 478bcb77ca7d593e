//! Joins against references: DuckDB's results, and pairs found by comparing every row with every other.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampNanosecondArray,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_expr::Expr;
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::expression::{col, lit};
use crate::ops::relational_tests::check_letters;
use crate::testing::{show, table};
use crate::{Analyzer, Batch, Output, Pipeline, Plan, RunOptions, connectors};

const KINDS: [JoinKind; 8] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::LeftSemi,
    JoinKind::LeftAnti,
    JoinKind::RightSemi,
    JoinKind::RightAnti,
];

/// The rows as text, a line each, in order of the text.
fn lines(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let cells: Vec<ArrayFormatter<'_>> = rows
        .columns()
        .iter()
        .map(|c| ArrayFormatter::try_new(c, &options).unwrap())
        .collect();
    let line = |row| {
        let cells = cells.iter().map(|c| c.value(row).to_string());
        cells.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

/// `rows` in batches of at most `size` rows: each is a split of its own.
fn cut(rows: &RecordBatch, size: usize) -> Vec<RecordBatch> {
    let mut parts: Vec<RecordBatch> = (0..rows.num_rows())
        .step_by(size)
        .map(|start| rows.slice(start, size.min(rows.num_rows() - start)))
        .collect();
    if parts.is_empty() {
        parts.push(rows.clone());
    }
    parts
}

fn run_cut(
    join: &Join,
    left: &RecordBatch,
    right: &RecordBatch,
    size: usize,
    workers: usize,
) -> RecordBatch {
    let pipeline = Pipeline::new("join");
    let read =
        |name: &str, rows| pipeline.read(name, connectors::from_record_batches(cut(rows, size)));
    let (sink, made) = connectors::collect();
    read("left", left)
        .join_with(&read("right", right), join.clone())
        .write(sink);
    pipeline.run(&RunOptions::new().workers(workers)).unwrap();
    made.take().remove(0)
}

fn run(join: &Join, left: &RecordBatch, right: &RecordBatch) -> RecordBatch {
    run_cut(join, left, right, 1000, 1)
}

fn plan(join: Join, left: &RecordBatch, right: &RecordBatch) -> Result<Plan> {
    let pipeline = Pipeline::new("join");
    let read = |name: &str, rows: &RecordBatch| {
        pipeline.read(name, connectors::from_record_batches(vec![rows.clone()]))
    };
    let (sink, _) = connectors::collect();
    read("left", left)
        .join_with(&read("right", right), join)
        .write(sink);
    pipeline.plan()
}

fn refuse(join: Join, left: &RecordBatch, right: &RecordBatch, expected: Expect) {
    let message = match plan(join, left, right) {
        Ok(plan) => format!("accepted: {}", plan.schema_of("join").unwrap()),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&message);
}

fn on(name: &str) -> [(Expr, Expr); 1] {
    [(col(name), col(name))]
}

/// ```text
/// pip install duckdb==2.0.1
/// create table l(k bigint, v varchar); insert into l values (1,'a'),(2,'b'),(2,'c'),(null,'d'),(4,'e');
/// create table r(j bigint, w varchar); insert into r values (2,'x'),(2,'y'),(1,'z'),(null,'u'),(5,'t');
/// select * from l <KIND> join r on k = j;     -- inner, left, right, full
/// select * from l <semi|anti> join r on k = j;             -- left semi and anti; right ones from r join l
/// ```
#[test]
fn all_kinds_are_those_of_duckdb() {
    let left = table("k: 1, 2, 2, null, 4; v: a, b, c, d, e");
    let right = table("j: 2, 2, 1, null, 5; w: x, y, z, u, t");
    let mut text = String::new();
    for kind in KINDS {
        let mut sides = Vec::new();
        for side in [Side::Left, Side::Right] {
            let join = Join::new(kind, [(col("k"), col("j"))]).build_side(side);
            sides.push(lines(&run(&join, &left, &right)));
        }
        assert_eq!(sides[0], sides[1], "{kind:?}");
        text.push_str(&format!("{}: {}\n", kind.name(), sides[0].join(", ")));
    }
    expect![[r#"
        inner: 1 a 1 z, 2 b 2 x, 2 b 2 y, 2 c 2 x, 2 c 2 y
        left: 1 a 1 z, 2 b 2 x, 2 b 2 y, 2 c 2 x, 2 c 2 y, 4 e null null, null d null null
        right: 1 a 1 z, 2 b 2 x, 2 b 2 y, 2 c 2 x, 2 c 2 y, null null 5 t, null null null u
        full: 1 a 1 z, 2 b 2 x, 2 b 2 y, 2 c 2 x, 2 c 2 y, 4 e null null, null d null null, null null 5 t, null null null u
        left semi: 1 a, 2 b, 2 c
        left anti: 4 e, null d
        right semi: 1 z, 2 x, 2 y
        right anti: 5 t, null u
    "#]].assert_eq(&text);
}

#[test]
fn keys_of_one_name_appear_once() {
    let left = table("k: 1, 2; v: a, b");
    let right = table("k: 2, 3; w: x, y");
    let mut text = String::new();
    for kind in &KINDS[..4] {
        for side in [Side::Left, Side::Right] {
            let made = run(&Join::new(*kind, on("k")).build_side(side), &left, &right);
            let names: Vec<String> = made
                .schema()
                .fields()
                .iter()
                .map(|f| f.name().clone())
                .collect();
            text.push_str(&format!(
                "{} ({}): {}\n",
                kind.name(),
                names.join(" "),
                lines(&made).join(", ")
            ));
        }
    }
    expect![[r#"
        inner (k v w): 2 b x
        inner (k v w): 2 b x
        left (k v w): 1 a null, 2 b x
        left (k v w): 1 a null, 2 b x
        right (k v w): 2 b x, 3 null y
        right (k v w): 2 b x, 3 null y
        full (k v w): 1 a null, 2 b x, 3 null y
        full (k v w): 1 a null, 2 b x, 3 null y
    "#]]
    .assert_eq(&text);
}

#[test]
fn other_columns_of_one_name_need_a_suffix() {
    let rows = table("k: 1; v: a; v_right: b");
    refuse(
        Join::new(JoinKind::Left, on("k")),
        &rows,
        &rows,
        expect![[r#"
            columns "v", "v_right" are on both sides of the join
              in transform "join"
              Hint: Rename with `select`, or tell the right one apart with `Join::suffix("_right")`."#]],
    );
    refuse(
        Join::new(JoinKind::Left, on("k")).suffix("_right"),
        &rows,
        &rows,
        expect![[r#"
            column "v_right" is on both sides of the join
              in transform "join"
              Hint: Rename with `select`, or tell the right one apart with `Join::suffix("_2")`."#]],
    );
    refuse(
        Join::new(JoinKind::Left, on("k")).suffix("_2"),
        &rows,
        &rows,
        expect![[
            r#"accepted: Field { "k": nullable Int64 }, Field { "v": nullable Utf8 }, Field { "v_right": nullable Utf8 }, Field { "v_2": nullable Utf8 }, Field { "v_right_2": nullable Utf8 }"#
        ]],
    );
    refuse(
        Join::new(JoinKind::LeftSemi, on("k")),
        &rows,
        &rows,
        expect![[
            r#"accepted: Field { "k": nullable Int64 }, Field { "v": nullable Utf8 }, Field { "v_right": nullable Utf8 }"#
        ]],
    );
    let made = run(
        &Join::new(JoinKind::Left, on("k")).suffix("_2"),
        &rows,
        &rows,
    );
    expect![[r#"
        k: 1
        v: 'a'
        v_right: 'b'
        v_2: 'a'
        v_right_2: 'b'"#]]
    .assert_eq(&show(&made));
}

#[test]
fn keys_must_go_together() {
    let left = table("a: 1; t: x; f: 1.5");
    let right = table("b: 1; u: y; g: true");
    let join = |l: &str, r: &str| Join::new(JoinKind::Inner, [(col(l), col(r))]);
    refuse(
        join("t", "b"),
        &left,
        &right,
        expect![[r#"
            key `t` is Utf8, key `b` is Int64
              in transform "join"
              Hint: Bring both to one type with `cast`."#]],
    );
    refuse(
        join("a", "g"),
        &left,
        &right,
        expect![[r#"
            key `a` is Int64, key `g` is Boolean
              in transform "join"
              Hint: Bring both to one type with `cast`."#]],
    );
    refuse(
        join("A", "c"),
        &left,
        &right,
        expect![[r#"
        2 errors
        1. column "A" is not there
             in transform "join"
             The columns are "a", "t", "f".
             Key `A` is of the left side.
             Hint: Names are case-sensitive: did you mean "a"?
        2. column "c" is not there
             in transform "join"
             The columns are "b", "u", "g".
             Key `c` is of the right side."#]],
    );
    refuse(
        Join::new(JoinKind::Inner, []),
        &left,
        &right,
        expect![[r#"
        a join needs at least one pair of keys
          in transform "join"
          Hint: For all pairs of rows, join on `lit(1)` of both sides."#]],
    );
    refuse(
        join("a", "b").filter(col("a") + col("b")),
        &left,
        &right,
        expect![[r#"
            a predicate must be Boolean, `a + b` is Int64
              in transform "join"
              Hint: Compare it with something, such as `.gt(lit(0))`."#]],
    );
    refuse(
        join("a", "b").filter(col("c").gt(lit(1))),
        &left,
        &right,
        expect![[r#"
            column "c" is not there
              in transform "join"
              The columns are "a", "t", "f", "b", "u", "g"."#]],
    );
    refuse(
        join("f", "b"),
        &left,
        &right,
        expect![[
            r#"accepted: Field { "a": nullable Int64 }, Field { "t": nullable Utf8 }, Field { "f": nullable Float64 }, Field { "b": nullable Int64 }, Field { "u": nullable Utf8 }, Field { "g": nullable Boolean }"#
        ]],
    );
}

#[test]
fn a_map_cannot_be_a_key() {
    let entries = arrow::array::MapBuilder::new(
        None,
        arrow::array::StringBuilder::new(),
        arrow::array::Int32Builder::new(),
    );
    let mut entries = entries;
    entries.append(true).unwrap();
    let column: ArrayRef = Arc::new(entries.finish());
    let rows = RecordBatch::try_from_iter([("m", column)]).unwrap();
    refuse(
        Join::new(JoinKind::Inner, on("m")),
        &rows,
        &rows,
        expect![[r#"
            key `m` cannot be hashed: Map("entries": non-null Struct("keys": non-null Utf8, "values": Int32), unsorted)
              in transform "join"
              Hint: Join on a field of it, or on a text form of it."#]],
    );
}

#[test]
fn the_plan_says_which_side_is_held_and_why() {
    let left = table("k: 1, 2, 3; v: a, b, c; x: 1, 2, 3");
    let right = table("k: 1, 2; w: a, b; y: 1, 2");
    let pipeline = Pipeline::new("join");
    let read = |name: &str, rows: &RecordBatch| {
        pipeline.read(name, connectors::from_record_batches(vec![rows.clone()]))
    };
    let (sink, _) = connectors::collect();
    read("left", &left)
        .filter(col("x").gt(lit(1)))
        .join(&read("right", &right), JoinKind::Left, on("k"))
        .select([col("v"), col("w")])
        .write(sink);
    expect![[r#"
        pipeline "join": 2 phases

        phase 1 of 2
          scan      right [record_batches n_rows=2], columns 2 of 3: k, w
          learn     join/build [join_build because=2 rows against 3 side=right] <- right

        phase 2 of 2
          scan      left [record_batches n_rows=3], columns 3 of 3: k, v, x
          transform filter [filter predicate=x > Int32(1)] <- left
          transform join [join kind=left on=["k = k"]] using join/build <- filter, fused with filter
          transform select [select columns=["v","w"]] <- join, fused with filter
          write     collect [collect] <- select
    "#]]
    .assert_eq(&pipeline.plan().unwrap().explain());
}

#[test]
fn a_part_of_a_join_cannot_have_the_name_of_another_node() {
    let pipeline = Pipeline::new("join");
    let rows = table("k: 1");
    let left = pipeline.read(
        "j/build",
        connectors::from_record_batches(vec![rows.clone()]),
    );
    let right = pipeline.read("right", connectors::from_record_batches(vec![rows]));
    let (sink, _) = connectors::collect();
    left.named("j")
        .join(&right, JoinKind::Inner, on("k"))
        .write(sink);
    expect![[r#"
        2 nodes are named "j/build"
          Hint: Give each a name of its own with `named`."#]]
    .assert_eq(&pipeline.plan().unwrap_err().to_string());
}

/// Zeros of both signs are one key, and so are NaN of all kinds, alone and as a part of a key.
#[test]
fn floats_have_one_zero_and_one_nan() {
    let other_nan = f64::from_bits(f64::NAN.to_bits() ^ 1 ^ (1 << 63));
    let rows = |values: Vec<f64>| -> RecordBatch {
        let n: Int64Array = (0..values.len() as i64).collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("x", Arc::new(Float64Array::from(values))),
            ("n", Arc::new(n)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let left = rows(vec![0.0, -0.0, f64::NAN, other_nan, 1.0]);
    let right = rows(vec![-0.0, other_nan]);
    let one = Join::new(JoinKind::LeftSemi, on("x"));
    let two = Join::new(JoinKind::LeftSemi, [(col("x"), col("x")), (lit(1), lit(1))]);
    for join in [one, two] {
        let n = run(&join, &left, &right).column(1).clone();
        assert_eq!(&*n, &Int64Array::from(vec![0, 1, 2, 3]) as &dyn Array);
    }
}

#[test]
fn keys_of_two_types_are_compared_in_the_wider() {
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(-2), None]));
    let left = RecordBatch::try_from_iter([("k", narrow)]).unwrap();
    let right = table("k: -2, 5000000000");
    for kind in &KINDS[..4] {
        for side in [Side::Left, Side::Right] {
            let made = run(&Join::new(*kind, on("k")).build_side(side), &left, &right);
            let n = lines(&made);
            let expected: &[&str] = match kind {
                JoinKind::Inner => &["-2"],
                JoinKind::Left => &["-2", "1", "null"],
                JoinKind::Right => &["-2", "5000000000"],
                _ => &["-2", "1", "5000000000", "null"],
            };
            assert_eq!(n, expected, "{kind:?}");
        }
    }
}

/// Days, of which the last is often said to be for ever, and moments in nanoseconds, which end in 2262.
fn days_and_moments(day: &str, moment: &str) -> (RecordBatch, RecordBatch) {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![
        Some(0),
        Some(2_932_896),
        None,
        Some(1),
    ]));
    let moments = vec![Some(0), Some(86_400_000_000_000), Some(i64::MAX), None];
    let moments: ArrayRef = Arc::new(TimestampNanosecondArray::from(moments));
    (
        RecordBatch::try_from_iter_with_nullable([(day, days, true)]).unwrap(),
        RecordBatch::try_from_iter_with_nullable([(moment, moments, true)]).unwrap(),
    )
}

/// In whichever type two keys are compared: what it does not reach to is of no value of the other side.
#[test]
fn a_key_beyond_the_type_of_the_comparison_matches_nothing() {
    let (days, moments) = days_and_moments("day", "moment");
    let mut all = Vec::new();
    for kind in KINDS {
        let mut sides = Vec::new();
        for (held, size) in [(Side::Left, 9), (Side::Right, 9), (Side::Left, 1)] {
            let join = Join::new(kind, [(col("day"), col("moment"))]).build_side(held);
            sides.push(lines(&run_cut(&join, &days, &moments, size, 2)));
        }
        assert_eq!(sides[0], sides[1], "{kind:?}");
        assert_eq!(sides[0], sides[2], "{kind:?}");
        all.push(format!("{}\n  {}", kind.name(), sides[0].join("\n  ")));
    }
    expect![[r#"
        inner
          1970-01-01 1970-01-01T00:00:00
          1970-01-02 1970-01-02T00:00:00
        left
          1970-01-01 1970-01-01T00:00:00
          1970-01-02 1970-01-02T00:00:00
          9999-12-31 null
          null null
        right
          1970-01-01 1970-01-01T00:00:00
          1970-01-02 1970-01-02T00:00:00
          null 2262-04-11T23:47:16.854775807
          null null
        full
          1970-01-01 1970-01-01T00:00:00
          1970-01-02 1970-01-02T00:00:00
          9999-12-31 null
          null 2262-04-11T23:47:16.854775807
          null null
          null null
        left semi
          1970-01-01
          1970-01-02
        left anti
          9999-12-31
          null
        right semi
          1970-01-01T00:00:00
          1970-01-02T00:00:00
        right anti
          2262-04-11T23:47:16.854775807
          null"#]]
    .assert_eq(&all.join("\n"));
}

/// A full join has one column for keys of one name, of the type in which they are compared.
#[test]
fn a_key_that_the_column_of_a_full_join_cannot_hold_is_a_bad_row() {
    let (days, moments) = days_and_moments("at", "at");
    let mut messages = Vec::new();
    for held in [Side::Left, Side::Right] {
        let pipeline = Pipeline::new("join");
        let join = Join::new(JoinKind::Full, on("at")).build_side(held);
        let (sink, _) = connectors::collect();
        read(&pipeline, "days", &days, 9)
            .join_with(&read(&pipeline, "moments", &moments, 9), join)
            .write(sink);
        let error = pipeline.run(&RunOptions::new().workers(2)).unwrap_err();
        assert!(error.is_data());
        messages.push(error.to_string());
    }
    expect![[r#"
        record batch 0, row 1: a key does not fit Timestamp(ns), in which both are compared
          in analysis "join/build"
          Arithmetic overflow: Overflow happened on: 2932896 * 86400000000000
          Hint: Give the keys two names, or bring both to one type with `cast`.
        record batch 0, row 1: a key does not fit Timestamp(ns), in which both are compared: Arithmetic overflow: Overflow happened on: 2932896 * 86400000000000
          in transform "join"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]].assert_eq(&messages.join("\n"));
}

/// Keys of bytes up to 12 are their code, longer ones share prefixes.
#[test]
fn texts_of_all_lengths_are_keys() {
    let texts: Vec<String> = (0..40)
        .flat_map(|n| ["a".repeat(n), format!("{}b", "a".repeat(n))])
        .collect();
    let rows = |texts: Vec<&str>, name: &str| {
        let column: ArrayRef = Arc::new(StringArray::from(texts));
        RecordBatch::try_from_iter([(name, column)]).unwrap()
    };
    let left = rows(texts.iter().map(String::as_str).collect(), "l");
    let right = rows(texts.iter().rev().map(String::as_str).collect(), "r");
    let join = Join::new(JoinKind::Inner, [(col("l"), col("r"))]);
    let made = run(&join, &left, &right);
    assert_eq!(made.num_rows(), texts.len());
    assert_eq!(made.column(0), made.column(1));
}

#[test]
fn a_filter_decides_which_pairs_match() {
    let left = table("k: 1, 1, 2; a: 5, 1, 5");
    let right = table("j: 1, 1, 2; b: 3, 4, 9");
    let mut text = String::new();
    for kind in KINDS {
        let mut sides = Vec::new();
        for side in [Side::Left, Side::Right] {
            let join = Join::new(kind, [(col("k"), col("j"))])
                .filter(col("a").gt(col("b")))
                .build_side(side);
            sides.push(lines(&run(&join, &left, &right)));
        }
        assert_eq!(sides[0], sides[1], "{kind:?}");
        text.push_str(&format!("{}: {}\n", kind.name(), sides[0].join(", ")));
    }
    expect![[r#"
        inner: 1 5 1 3, 1 5 1 4
        left: 1 1 null null, 1 5 1 3, 1 5 1 4, 2 5 null null
        right: 1 5 1 3, 1 5 1 4, null null 2 9
        full: 1 1 null null, 1 5 1 3, 1 5 1 4, 2 5 null null, null null 2 9
        left semi: 1 5
        left anti: 1 1, 2 5
        right semi: 1 3, 1 4
        right anti: 2 9
    "#]]
    .assert_eq(&text);
}

#[test]
fn rows_keep_their_order_and_matches_that_of_the_table() {
    let left = table("k: 2, 1, 3, 2; n: 0, 1, 2, 3");
    let right = table("j: 1, 2, 1, 2; m: 0, 1, 2, 3");
    let join = Join::new(JoinKind::Left, [(col("k"), col("j"))]);
    let made = run_cut(&join, &left, &right, 2, 1);
    expect![[r#"
        k: 2, 2, 1, 1, 3, 2, 2
        n: 0, 0, 1, 1, 2, 3, 3
        j: 2, 2, 1, 1, null, 2, 2
        m: 1, 3, 0, 2, null, 1, 3"#]]
    .assert_eq(&show(&made));
}

#[test]
fn a_row_of_very_many_matches_leaves_in_lots() {
    let many: Int64Array = std::iter::repeat_n(7, 100_000).collect();
    let columns: [(&str, ArrayRef); 1] = [("j", Arc::new(many))];
    let right = RecordBatch::try_from_iter(columns).unwrap();
    let left = table("k: 7, 8, 7");
    let join = Join::new(JoinKind::Left, [(col("k"), col("j"))]).build_side(Side::Right);
    let layout = Arc::new(Layout::new(&join, &left.schema(), &right.schema(), None).unwrap());
    let build = JoinBuild::new(Arc::clone(&layout), Side::Right, String::new());
    let mut rows = build.create_accumulator();
    build.add(&mut rows, &right).unwrap();
    let mut artifacts = Artifacts::none();
    let built = build.finish(rows).unwrap();
    artifacts.insert("t", Arc::new(built));
    let probe = Probe::new(join.describe(), layout, Side::Left, ArtifactRef::new("t"));
    let mut operator = probe.build(&artifacts).unwrap();
    let mut out = Output::default();
    operator.on_batch(0, Batch::new(left), &mut out).unwrap();
    let mut n_rows = 0;
    loop {
        let lot: usize = out.take().iter().map(|(_, b)| b.n_rows()).sum();
        assert!(lot <= 8193, "{lot}");
        n_rows += lot;
        if !out.take_more() {
            break;
        }
        operator.resume(&mut out).unwrap();
    }
    assert_eq!(n_rows, 200_001);
}

fn read(pipeline: &Pipeline, name: &str, rows: &RecordBatch, size: usize) -> Collection {
    pipeline.read(name, connectors::from_record_batches(cut(rows, size)))
}

/// The rows that `make` gives of left and right, on each number of workers.
fn same_on_workers(
    left: &RecordBatch,
    right: &RecordBatch,
    make: impl Fn(&Collection, &Collection) -> Collection,
    expected: Expect,
) {
    let mut all = Vec::new();
    for workers in 1..=4 {
        let pipeline = Pipeline::new("join");
        let (sink, made) = connectors::collect();
        make(
            &read(&pipeline, "left", left, 2),
            &read(&pipeline, "right", right, 2),
        )
        .write(sink);
        let plan = pipeline.plan().unwrap();
        // Twice, as nothing of a run may be left in its plan.
        for _ in 0..2 {
            plan.run(&RunOptions::new().workers(workers)).unwrap();
        }
        all.extend(made.take().iter().map(|rows| lines(rows).join("\n")));
    }
    assert!(all.iter().all(|rows| *rows == all[0]), "{all:#?}");
    expected.assert_eq(&all[0]);
}

fn employees() -> RecordBatch {
    table("id: 1, 2, 3, 4; name: Ada, Bob, Cyd, Dee; boss: null, 1, 1, 2")
}

#[test]
fn a_collection_joins_itself() {
    same_on_workers(
        &employees(),
        &employees(),
        |left, _| {
            let join = Join::new(JoinKind::Left, [(col("boss"), col("id"))]).suffix("_of_boss");
            left.join_with(left, join)
                .select([col("name"), col("name_of_boss")])
        },
        expect![[r#"
            Ada null
            Bob Ada
            Cyd Ada
            Dee Bob"#]],
    );
}

fn join_of_join(held: Side, expected: Expect) {
    same_on_workers(
        &employees(),
        &table("k: 1, 2, 2; a: x, y, z"),
        |left, right| {
            let first = Join::new(JoinKind::Full, [(col("id"), col("k"))]).build_side(held);
            let first = left.join_with(right, first).select([col("k"), col("boss")]);
            let second = Join::new(JoinKind::Full, on("k")).build_side(held.other());
            right.join_with(&first, second)
        },
        expected,
    );
}

#[test]
fn a_join_of_a_join_on_either_side() {
    let expected = expect![[r#"
        1 x null
        2 y 1
        2 y 1
        2 z 1
        2 z 1
        null null 1
        null null 2"#]];
    join_of_join(Side::Left, expected);
    let expected = expect![[r#"
        1 x null
        2 y 1
        2 y 1
        2 z 1
        2 z 1
        null null 1
        null null 2"#]];
    join_of_join(Side::Right, expected);
}

#[test]
fn sides_may_be_empty() {
    let some = employees();
    let mut text = String::new();
    for kind in KINDS {
        for (name, left, right) in [
            ("left", some.slice(0, 0), some.clone()),
            ("right", some.clone(), some.slice(0, 0)),
            ("both", some.slice(0, 0), some.slice(0, 0)),
        ] {
            let n_rows: Vec<usize> = [Side::Left, Side::Right]
                .map(|side| {
                    let join = Join::new(kind, on("id")).suffix("_2").build_side(side);
                    run_cut(&join, &left, &right, 3, 2).num_rows()
                })
                .into();
            assert_eq!(n_rows[0], n_rows[1]);
            text.push_str(&format!("{} of empty {name}: {}\n", kind.name(), n_rows[0]));
        }
    }
    expect![[r#"
        inner of empty left: 0
        inner of empty right: 0
        inner of empty both: 0
        left of empty left: 0
        left of empty right: 4
        left of empty both: 0
        right of empty left: 4
        right of empty right: 0
        right of empty both: 0
        full of empty left: 4
        full of empty right: 4
        full of empty both: 0
        left semi of empty left: 0
        left semi of empty right: 0
        left semi of empty both: 0
        left anti of empty left: 0
        left anti of empty right: 4
        left anti of empty both: 0
        right semi of empty left: 0
        right semi of empty right: 0
        right semi of empty both: 0
        right anti of empty left: 4
        right anti of empty right: 0
        right anti of empty both: 0
    "#]]
    .assert_eq(&text);
}

/// The rows of a right join are made in three phases; what one has matched is nothing to the next.
#[test]
fn a_join_may_run_in_several_phases() {
    use crate::ops::{Describe, Summary};
    for (workers, cached) in [(1, false), (3, false), (2, true)] {
        let pipeline = Pipeline::new("join");
        let left = read(&pipeline, "left", &table("k: 1, 2; v: 1, 2"), 1);
        let right = read(&pipeline, "right", &table("k: 2, 3, 4; w: 3, 4, 5"), 2);
        let join = Join::new(JoinKind::Right, on("k")).build_side(Side::Right);
        let mut joined = left.join_with(&right, join);
        if cached {
            joined = joined.cache();
        }
        let summary = joined.named("seen").analyze::<Summary>(Describe::new());
        // Waits for the summary, then reads the join again.
        let later = joined.join(
            &joined.select([col("k")]).describe(),
            JoinKind::LeftAnti,
            [(col("w"), col("count"))],
        );
        let (sink, made) = connectors::collect();
        later.write(sink);
        let report = pipeline.run(&RunOptions::new().workers(workers)).unwrap();
        let counts = report.artifacts.get(&summary).unwrap();
        assert_eq!(counts.columns()[2].count, 3);
        assert_eq!(lines(&made.take()[0]), ["3 null 4", "4 null 5"]);
        // Tables are dropped once no later phase reads them.
        let left: Vec<String> = report.artifacts.ids().map(ToString::to_string).collect();
        assert!(!left.iter().any(|id| id.ends_with("/build")), "{left:?}");
    }
}

/// One input of the union cannot leave columns out, so the join may not either.
#[test]
fn columns_are_left_out_only_where_all_agree() {
    same_on_workers(
        &table("k: 1, 2; v: 1, 2"),
        &table("k: 1, 2; w: 3, 4"),
        |left, right| {
            let joined = left.join(right, JoinKind::Inner, on("k"));
            let other = joined.map_batches(Ok);
            joined.union(&[other]).select([col("w")])
        },
        expect![[r#"
            3
            3
            4
            4"#]],
    );
}

/// Whichever side is held; [`key_columns`](crate::ops::key_columns) has tests of rows that may be bad.
#[test]
fn a_key_without_a_value_says_in_which_row() {
    let (left, right) = (table("a: 0, 1"), table("b: 1"));
    let mut messages = Vec::new();
    for side in [Side::Left, Side::Right] {
        let pipeline = Pipeline::new("join");
        let key = (lit(1) / col("a"), col("b"));
        let join = Join::new(JoinKind::Inner, [key]).build_side(side);
        let (sink, _) = connectors::collect();
        read(&pipeline, "left", &left, 9)
            .join_with(&read(&pipeline, "right", &right, 9), join)
            .write(sink);
        let error = pipeline.run(&RunOptions::new().workers(1)).unwrap_err();
        messages.push(error.to_string());
    }
    expect![[r#"
        record batch 0, row 0: expression `Int32(1) / a` failed on {"a":0}: Divide by zero error
          in transform "join/left_key_0"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node.
        record batch 0, row 0: expression `Int32(1) / a` failed on {"a":0}: Divide by zero error
          in transform "join/left_key_0"
          Hint: Clean the row, or choose `OnBadRow::Drop` or `OnBadRow::DeadLetter` for this node."#]]
    .assert_eq(&messages.join("\n"));
}

/// Every worker sees the end only when all rows of all have been looked up.
#[test]
fn marks_of_all_workers_are_seen_at_the_end() {
    let n: Int64Array = (0..50_000).collect();
    let columns: [(&str, ArrayRef); 1] = [("k", Arc::new(n))];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let join = Join::new(JoinKind::RightAnti, on("k")).build_side(Side::Right);
    for _ in 0..10 {
        assert_eq!(run_cut(&join, &rows, &rows, 1_000, 4).num_rows(), 0);
    }
}

#[test]
fn a_table_under_way_can_be_kept() {
    let rows = table("k: a, null, 'a text that is longer', b; n: 1, 2, 3, 4; m: 5, 6, 7, 8");
    for keys in [vec!["k"], vec!["n"], vec!["k", "n"]] {
        let on = keys.iter().map(|k| (col(*k), col(*k)));
        let join = Join::new(JoinKind::Full, on).suffix("_2");
        let layout = Arc::new(Layout::new(&join, &rows.schema(), &rows.schema(), None).unwrap());
        let build = JoinBuild::new(Arc::clone(&layout), Side::Right, String::new());
        let mut fresh = build.create_accumulator();
        build.add(&mut fresh, &rows).unwrap();
        assert!(build.accumulator_bytes(&fresh) > 0);
        let kept = build.load(&build.save(&fresh).unwrap()).unwrap();
        let made = [fresh, kept].map(|table| {
            let mut artifacts = Artifacts::none();
            artifacts.insert("t", Arc::new(build.finish(table).unwrap()));
            let table = ArtifactRef::new("t");
            let probe = Probe::new(join.describe(), Arc::clone(&layout), Side::Left, table);
            let mut operator = probe.build(&artifacts).unwrap();
            let mut out = Output::default();
            operator
                .on_batch(0, Batch::new(rows.clone()), &mut out)
                .unwrap();
            lines(out.take()[0].1.rows())
        });
        assert_eq!(made[0], made[1]);
        let matched = made[0]
            .iter()
            .filter(|line| !line.ends_with("null"))
            .count();
        assert_eq!(matched, if keys.contains(&"k") { 3 } else { 4 });
    }
}

/// What a join gives, by comparing each row with every other: lines in order.
fn naive(
    kind: JoinKind,
    left: &[(Option<i64>, i64)],
    right: &[(Option<i64>, i64)],
    passes: impl Fn(i64, i64) -> bool,
) -> Vec<String> {
    let matches = |l: &(Option<i64>, i64), r: &(Option<i64>, i64)| {
        l.0.is_some() && l.0 == r.0 && passes(l.1, r.1)
    };
    let cell = |k: Option<i64>| k.map_or("null".into(), |k| k.to_string());
    let text = |row: &(Option<i64>, i64)| format!("{} {}", cell(row.0), row.1);
    let mut made = Vec::new();
    if kind.only().is_none() {
        for l in left {
            let pairs = right.iter().filter(|r| matches(l, r));
            made.extend(pairs.map(|r| format!("{} {}", text(l), text(r))));
        }
    }
    for l in left {
        let matched = right.iter().any(|r| matches(l, r));
        match kind {
            JoinKind::Left | JoinKind::Full if !matched => {
                made.push(format!("{} null null", text(l)))
            }
            JoinKind::LeftSemi if matched => made.push(text(l)),
            JoinKind::LeftAnti if !matched => made.push(text(l)),
            _ => {}
        }
    }
    for r in right {
        let matched = left.iter().any(|l| matches(l, r));
        match kind {
            JoinKind::Right | JoinKind::Full if !matched => {
                made.push(format!("null null {}", text(r)))
            }
            JoinKind::RightSemi if matched => made.push(text(r)),
            JoinKind::RightAnti if !matched => made.push(text(r)),
            _ => {}
        }
    }
    made.sort();
    made
}

fn side(names: [&str; 2], rows: &[(Option<i64>, i64)]) -> RecordBatch {
    let k: Int64Array = rows.iter().map(|r| r.0).collect();
    let v: Int64Array = rows.iter().map(|r| Some(r.1)).collect();
    let columns: [(&str, ArrayRef, bool); 2] = [
        (names[0], Arc::new(k), true),
        (names[1], Arc::new(v), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Integers near each other, far from each other, as text, and as two columns: each has a table of its own.
fn keys_of(form: usize, name: &str) -> Vec<Expr> {
    let key = || col(name);
    match form {
        0 => vec![key()],
        1 => vec![key() * lit(1_000_000_007_i64)],
        2 => vec![crate::expression::cast(
            key(),
            arrow::datatypes::DataType::Utf8,
        )],
        3 => vec![
            crate::expression::functions::string::concat().call(vec![
                lit("a text that is longer than twelve bytes "),
                crate::expression::cast(key(), arrow::datatypes::DataType::Utf8),
            ]),
            key(),
        ],
        _ => vec![key() / lit(3), key() % lit(3)],
    }
}

fn some_rows(n: usize) -> impl Strategy<Value = Vec<(Option<i64>, i64)>> {
    prop::collection::vec((prop::option::weighted(0.8, 0i64..12), -5i64..5), 0..n)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_join_is_that_of_every_row_with_every_other(
        left in some_rows(40),
        right in some_rows(40),
        kind in prop::sample::select(KINDS.to_vec()),
        form in 0usize..5,
        has_filter in any::<bool>(),
        size in 1usize..20,
        workers in 1usize..5,
        left_is_held in any::<bool>(),
    ) {
        let on = keys_of(form, "k").into_iter().zip(keys_of(form, "j"));
        let held = if left_is_held { Side::Left } else { Side::Right };
        let mut join = Join::new(kind, on).build_side(held);
        if has_filter {
            join = join.filter(col("v").lt(col("w")));
        }
        let made = run_cut(&join, &side(["k", "v"], &left), &side(["j", "w"], &right), size, workers);
        prop_assert_eq!(lines(&made), naive(kind, &left, &right, |v, w| !has_filter || v < w));
    }
}

#[test]
fn rows_whose_key_fails_are_dead_letters() {
    let names = table("k: 1, 2, 5; name: a, b, c");
    for kind in [JoinKind::Inner, JoinKind::LeftSemi] {
        check_letters(
            "x: 10, 0, 5, 3, 0, 2",
            |rows| {
                let names = connectors::from_record_batches(vec![names.clone()]);
                let names = rows.pipeline().read("names", names).select([col("k")]);
                let on = [(lit(10_i64) / col("x"), col("k"))];
                rows.join_with(&names, Join::new(kind, on).build_side(Side::Right))
            },
            match kind {
                JoinKind::Inner => expect![[r#"
                    x: 2, 5, 10
                    k: 5, 2, 1
                    join/left_key_0: record batch 0, row 1: expression `Int64(10) / x` failed on {"x":0}: Divide by zero error
                    join/left_key_0: record batch 1, row 1: expression `Int64(10) / x` failed on {"x":0}: Divide by zero error"#]],
                _ => expect![[r#"
                    x: 2, 5, 10
                    join/left_key_0: record batch 0, row 1: expression `Int64(10) / x` failed on {"x":0}: Divide by zero error
                    join/left_key_0: record batch 1, row 1: expression `Int64(10) / x` failed on {"x":0}: Divide by zero error"#]],
            },
        );
    }
}

/// Many rows, and one with a text that they all find; which of the sides has it is the question.
fn wide(n_facts: usize, n_bytes: usize, text_in_facts: bool) -> (RecordBatch, RecordBatch) {
    let text = "x".repeat(n_bytes);
    let facts: ArrayRef = Arc::new(Int64Array::from(vec![1; n_facts]));
    let names: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    match text_in_facts {
        false => (
            RecordBatch::try_from_iter([("k", facts)]).unwrap(),
            RecordBatch::try_from_iter([("k", one), ("name", names)]).unwrap(),
        ),
        true => (
            RecordBatch::try_from_iter([("k", one), ("name", names)]).unwrap(),
            RecordBatch::try_from_iter([("k", facts)]).unwrap(),
        ),
    }
}

/// 8,192 rows of 300,000 bytes are more than the offsets of one array of text can tell.
#[test]
fn wide_rows_that_many_rows_find_leave_in_lots_that_fit() {
    for (n_bytes, text_in_facts, held, kind) in [
        (300_000, false, Side::Right, JoinKind::Inner),
        (20_000, true, Side::Right, JoinKind::Inner),
        (20_000, false, Side::Right, JoinKind::Left),
        (20_000, false, Side::Left, JoinKind::Full),
    ] {
        use crate::batch::BATCH_ROWS;
        use crate::connectors::{collect, from_record_batches};
        use crate::expression::functions::unicode::expr_fn::character_length;
        use crate::runner::Progress;
        let (left, right) = wide(BATCH_ROWS, n_bytes, text_in_facts);
        let pipeline = Pipeline::new("test");
        let left = pipeline.read("left", from_record_batches(vec![left]));
        let right = pipeline.read("right", from_record_batches(vec![right]));
        let join = Join::new(kind, [(col("k"), col("k"))]).build_side(held);
        // Only the lengths are kept of what would be 2.4 GB.
        let length = character_length(col("name")).alias("n");
        let (sink, collected) = collect();
        left.join_with(&right, join).select([length]).write(sink);
        let options = RunOptions::new().workers(1).progress(Progress::Never);
        let report = pipeline.run(&options).unwrap();
        let made = collected.take();
        let lengths = made[0]
            .column(0)
            .as_primitive::<arrow::datatypes::Int32Type>();
        assert_eq!(lengths.len(), BATCH_ROWS);
        assert!(lengths.iter().all(|n| n == Some(n_bytes as i32)));
        let peak = report.phases.iter().map(|p| p.peak_credit_bytes).max();
        assert!(peak.unwrap() < 150_000_000, "{peak:?}");
    }
}
