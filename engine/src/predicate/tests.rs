//! What predicates say of bounds, and which may move to a source.

use expect_test::{Expect, expect};

use super::*;
use crate::expression::{cast, col, lit};
use crate::testing::table;

fn schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("i", DataType::Int64),
        field("small", DataType::Int8),
        field("u", DataType::UInt64),
        field("f", DataType::Float64),
        field("s", DataType::Utf8),
        field("b", DataType::Boolean),
        field("decimal", DataType::Decimal128(10, 2)),
    ]))
}

/// What is known of a column: minimum, maximum, and whether there may be nulls.
fn known(of: &[(&str, &str, &str, bool)], name: &str) -> Known {
    let (_, min, max, nulls) = of.iter().find(|(n, ..)| *n == name)?;
    let data_type = schema().field_with_name(name).unwrap().data_type().clone();
    let value = |text: &str| {
        let text = ScalarValue::Utf8((!text.is_empty()).then(|| text.to_owned()));
        text.cast_to(&data_type).unwrap()
    };
    let values = Interval::try_new(value(min), value(max)).unwrap();
    Some(match nulls {
        true => NullableInterval::MaybeNull { values },
        false => NullableInterval::NotNull { values },
    })
}

fn check(of: &[(&str, &str, &str, bool)], predicates: &[Expr], expected: Expect) {
    let said: Vec<String> = predicates
        .iter()
        .map(|expr| {
            let predicate = Predicate::compile(expr, &schema()).unwrap();
            let may = predicate.may_hold(|name| known(of, name));
            format!("{}  {expr}", if may { "may  " } else { "never" })
        })
        .collect();
    expected.assert_eq(&said.join("\n"));
}

#[test]
fn comparisons_are_with_minimum_and_maximum() {
    check(
        &[("i", "3", "9", false), ("s", "b", "d", true)],
        &[
            col("i").gt(lit(9)),
            col("i").gt_eq(lit(9)),
            lit(3).gt(col("i")),
            col("i").eq(lit(10)),
            col("i").not_eq(lit(5)),
            col("i").between(lit(10), lit(20)),
            col("i").in_list(vec![lit(1), lit(2), lit(10), lit(11), lit(12)], false),
            col("i").in_list(vec![lit(1), lit(2), lit(10), lit(11), lit(4)], false),
            col("i").is_null(),
            col("s").is_null(),
            col("s").gt(lit("d")).and(col("i").eq(lit(5))),
            col("s").gt(lit("d")).or(col("i").eq(lit(5))),
            !col("i").lt(lit(100)),
            col("s").like(lit("da%")),
            col("s").like(lit("d%x")),
            col("s").like(lit("e%")),
            col("s").like(lit("a_")),
            col("s").like(lit("%")),
            col("u").eq(lit(1)),
            lit(false).and(col("u").eq(lit(1))),
        ],
        expect![[r#"
            never  i > Int32(9)
            may    i >= Int32(9)
            never  Int32(3) > i
            never  i = Int32(10)
            may    i != Int32(5)
            never  i BETWEEN Int32(10) AND Int32(20)
            never  i IN ([Int32(1), Int32(2), Int32(10), Int32(11), Int32(12)])
            may    i IN ([Int32(1), Int32(2), Int32(10), Int32(11), Int32(4)])
            never  i IS NULL
            may    s IS NULL
            never  s > Utf8("d") AND i = Int32(5)
            may    s > Utf8("d") OR i = Int32(5)
            never  NOT i < Int32(100)
            never  s LIKE Utf8("da%")
            may    s LIKE Utf8("d%x")
            never  s LIKE Utf8("e%")
            never  s LIKE Utf8("a_")
            may    s LIKE Utf8("%")
            may    u = Int32(1)
            never  Boolean(false) AND u = Int32(1)"#]],
    );
}

#[test]
fn integers_wrap_and_wider_types_do_not() {
    check(
        &[
            ("small", "100", "120", false),
            ("i", "1", "2", false),
            ("decimal", "1.50", "2.00", false),
        ],
        &[
            (col("small") + cast(lit(10), DataType::Int8)).lt(lit(0)),
            (col("small") - cast(lit(10), DataType::Int8)).lt(lit(0)),
            (col("i") * lit(2_i64)).gt(lit(4_i64)),
            (col("i") * lit(2_i64)).gt(lit(3_i64)),
            cast(col("small"), DataType::Int64).gt(lit(120_i64)),
            col("decimal").gt(lit(2)),
            col("decimal").gt(lit(1)),
        ],
        expect![[r#"
            may    small + CAST(Int32(10) AS Int8) < Int32(0)
            never  small - CAST(Int32(10) AS Int8) < Int32(0)
            never  i * Int64(2) > Int64(4)
            may    i * Int64(2) > Int64(3)
            never  CAST(small AS Int64) > Int64(120)
            never  decimal > Int32(2)
            may    decimal > Int32(1)"#]],
    );
}

#[test]
fn floats_may_be_nan_beside_what_is_known() {
    check(
        &[("f", "1", "2", false)],
        &[
            col("f").gt(lit(3.0)),
            col("f").lt(lit(0.0)),
            col("f").eq(lit(3.0)),
            col("f").eq(lit(1.5)),
            col("f").gt(lit(3.0)).and(col("f").lt(lit(4.0))),
            col("f").eq(lit(f64::NAN)),
            col("f").is_null(),
        ],
        expect![[r#"
            may    f > Float64(3)
            may    f < Float64(0)
            never  f = Float64(3)
            may    f = Float64(1.5)
            never  f > Float64(3) AND f < Float64(4)
            may    f = Float64(NaN)
            never  f IS NULL"#]],
    );
}

#[test]
fn what_has_no_values_is_never_compared() {
    let null = |name: &str| {
        let datatype = schema().field_with_name(name).unwrap().data_type().clone();
        Some(NullableInterval::Null { datatype })
    };
    let said = [
        col("i").gt(lit(1)),
        col("f").gt(lit(1.0)),
        col("i").is_null(),
        col("i").is_not_null(),
        col("b"),
        !col("b"),
        col("b").is_not_true(),
        col("i").in_list(vec![lit(1), lit(2), lit(3), lit(4)], true),
    ]
    .map(|expr| {
        let may = Predicate::compile(&expr, &schema()).unwrap().may_hold(null);
        format!("{may} {expr}")
    });
    expect![[r#"
        false i > Int32(1)
        false f > Float64(1)
        true i IS NULL
        false i IS NOT NULL
        false b
        false NOT b
        true b IS NOT TRUE
        false i NOT IN ([Int32(1), Int32(2), Int32(3), Int32(4)])"#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn only_what_cannot_fail_may_move() {
    let rows = table("a: 1; b: 2; s: x").schema();
    let said = [
        col("a").gt(lit(1)).and(col("s").is_null()),
        (col("a") + col("b")).gt(lit(1)),
        (lit(10) / col("a")).gt(lit(1)),
        (col("a") / lit(10_i64)).gt(col("b") % lit(3_i64)),
        (col("a") % lit(0_i64)).gt(lit(1)),
        (col("a") / lit(-1_i64)).gt(lit(1)),
        (cast(col("a"), DataType::Float64) % lit(0.0)).gt(lit(1.0)),
        cast(col("s"), DataType::Int64).gt(lit(1)),
        cast(col("a"), DataType::Int32).gt(lit(1)),
        cast(col("a"), DataType::Float64).gt(lit(1.5)),
        col("missing").gt(lit(1)),
    ]
    .map(|expr| format!("{} {expr}", cannot_fail(&expr, &rows)));
    expect![[r#"
        true a > Int32(1) AND s IS NULL
        true a + b > Int32(1)
        false Int32(10) / a > Int32(1)
        true a / Int64(10) > b % Int64(3)
        false a % Int64(0) > Int32(1)
        false a / Int64(-1) > Int32(1)
        true CAST(a AS Float64) % Float64(0) > Float64(1)
        false CAST(s AS Int64) > Int32(1)
        true CAST(a AS Int32) > Int32(1)
        true CAST(a AS Float64) > Float64(1.5)
        false missing > Int32(1)"#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn conjuncts_are_told_in_terms_of_the_input() {
    let wanted = col("x")
        .gt(lit(1))
        .and(col("y").eq(lit(2)))
        .and(col("x").lt(col("z")));
    let source = |name: &str| match name {
        "x" => Some(col("a") + lit(1)),
        "z" => Some(col("b")),
        _ => None,
    };
    let told = |wanted: &Expr| in_terms_of(wanted, source).map(|e| e.to_string());
    expect!["a + Int32(1) > Int32(1) AND a + Int32(1) < b"]
        .assert_eq(&told(&wanted).unwrap_or_default());
    assert_eq!(told(&col("y").eq(lit(1))), None);
}
