//! Summaries of columns, also against DuckDB's.

use super::*;
use crate::testing::{show, table};
use crate::{Pipeline, RunOptions, connectors};
use expect_test::expect;

fn rows() -> RecordBatch {
    table(
        "n: 1, 2, null, 4; x: 0.5, -1.5, 2.0, null; name: b, null, a, c; yes: true, false, true, null; none: null, null, null, null",
    )
}

fn described(batches: Vec<RecordBatch>, workers: usize) -> String {
    let pipeline = Pipeline::new("describe");
    let read = pipeline.read("rows", connectors::from_record_batches(batches));
    let (sink, made) = connectors::collect();
    read.describe().write(sink);
    pipeline.run(&RunOptions::new().workers(workers)).unwrap();
    show(&made.take()[0])
}

#[test]
fn each_column_has_a_row() {
    let all = described(vec![rows()], 1);
    expect![[r#"
        column: 'n', 'x', 'name', 'yes', 'none'
        type: 'Int64', 'Float64', 'Utf8', 'Boolean', 'Float64'
        count: 3, 3, 3, 3, 0
        nulls: 1, 1, 1, 1, 4
        distinct: 3, 3, 3, 2, 0
        min: '1', '-1.5', 'a', 'false', null
        max: '4', '2.0', 'c', 'true', null
        mean: 2.3333333333333335, 0.33333333333333337, null, null, null
        std_dev: 1.5275252316519465, 1.755942292142123, null, null, null"#]]
    .assert_eq(&all);
    let cut: Vec<RecordBatch> = (0..4).map(|i| rows().slice(i, 1)).collect();
    for workers in 1..=4 {
        assert_eq!(described(cut.clone(), workers).lines().count(), 9);
    }
}

#[test]
fn a_summary_under_way_can_be_kept() {
    let describe = Describe::new();
    let mut kept = describe.create_accumulator();
    describe.add(&mut kept, &rows().slice(0, 3)).unwrap();
    let mut kept = describe.load(&describe.save(&kept).unwrap()).unwrap();
    let mut rest = describe.create_accumulator();
    describe.add(&mut rest, &rows().slice(3, 1)).unwrap();
    describe.merge(&mut kept, rest).unwrap();
    let mut whole = describe.create_accumulator();
    describe.add(&mut whole, &rows()).unwrap();
    let [kept, whole] = [kept, whole].map(|a| describe.finish(a).unwrap());
    let text = |s: &Summary| s.to_string();
    assert_eq!(text(&kept), text(&whole));
}

#[test]
fn no_rows_still_have_columns() {
    expect![[r#"
        column: 'n', 'x', 'name', 'yes', 'none'
        type: 'Int64', 'Float64', 'Utf8', 'Boolean', 'Float64'
        count: 0, 0, 0, 0, 0
        nulls: 0, 0, 0, 0, 0
        distinct: 0, 0, 0, 0, 0
        min: null, null, null, null, null
        max: null, null, null, null, null
        mean: null, null, null, null, null
        std_dev: null, null, null, null, null"#]]
    .assert_eq(&described(vec![rows().slice(0, 0)], 2));
}

#[test]
fn the_artifact_is_a_table() {
    let pipeline = Pipeline::new("describe");
    let read = pipeline.read("rows", connectors::from_record_batches(vec![rows()]));
    let summary = read.analyze::<Summary>(Describe::new());
    let report = pipeline.run(&RunOptions::new()).unwrap();
    let text = report.artifacts.get(&summary).unwrap().to_string();
    expect![[r#"
        ┌────────┬─────────┬───────┬───────┬──────────┬───────┬──────┬──────────┬──────────┐
        │ column ┆ type    ┆ count ┆ nulls ┆ distinct ┆   min ┆  max ┆     mean ┆  std_dev │
        ╞════════╪═════════╪═══════╪═══════╪══════════╪═══════╪══════╪══════════╪══════════╡
        │ n      ┆ Int64   ┆     3 ┆     1 ┆        3 ┆     1 ┆    4 ┆ 2.333333 ┆ 1.527525 │
        │ x      ┆ Float64 ┆     3 ┆     1 ┆        3 ┆  -1.5 ┆  2.0 ┆ 0.333333 ┆ 1.755942 │
        │ name   ┆ Utf8    ┆     3 ┆     1 ┆        3 ┆     a ┆    c ┆          ┆          │
        │ yes    ┆ Boolean ┆     3 ┆     1 ┆        2 ┆ false ┆ true ┆          ┆          │
        │ none   ┆ Float64 ┆     0 ┆     4 ┆        0 ┆       ┆      ┆          ┆          │
        └────────┴─────────┴───────┴───────┴──────────┴───────┴──────┴──────────┴──────────┘"#]]
    .assert_eq(&text);
}

/// What DuckDB says of the same rows; `reference/recipe.py` has made the table, from the rows of `group_by`.
#[test]
fn summaries_agree_with_duckdb() {
    let rows = table(include_str!("../group_by/reference/rows.txt"));
    let expected = table(include_str!("reference/expected.txt"));
    let parts: Vec<RecordBatch> = (0..rows.num_rows())
        .step_by(37)
        .map(|from| rows.slice(from, 37.min(rows.num_rows() - from)))
        .collect();
    for workers in 1..=3 {
        let found = table(&described(parts.clone(), workers));
        assert_eq!(found.num_columns(), expected.num_columns());
        for (field, column) in expected.schema().fields().iter().zip(expected.columns()) {
            let name = field.name().as_str();
            let found = found.column_by_name(name).unwrap();
            // Exact there; the last bits of means depend on the order of the rows.
            let tolerance = match name {
                "distinct" => 0.02,
                "mean" | "std_dev" => 1e-12,
                _ => {
                    assert_eq!(found, column, "{name}");
                    continue;
                }
            };
            let [found, exact] = [found, column].map(|c| cast(c, &DataType::Float64).unwrap());
            let [found, exact] = [&found, &exact].map(|c| c.as_primitive::<Float64Type>().iter());
            for (found, exact) in found.zip(exact) {
                let off = found.zip(exact).map(|(f, e)| ((f - e) / e).abs());
                assert!(found.is_some() == exact.is_some() && off.unwrap_or(0.0) <= tolerance);
            }
        }
    }
}

#[test]
fn many_distinct_values_are_counted_to_a_percent_or_two_and_the_same_in_any_parts() {
    let n = 200_000_i64;
    let numbers: ArrayRef = Arc::new((0..2 * n).map(|i| i % n).collect::<Int64Array>());
    let floats = cast(&numbers, &DataType::Float64).unwrap();
    let texts = cast(&numbers, &DataType::Utf8).unwrap();
    let keyed = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let keyed = cast(&texts, &keyed).unwrap();
    let columns = [("i", numbers), ("x", floats), ("t", texts), ("k", keyed)];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let describe = Describe::new();
    let counts = |batch_rows: usize| -> Vec<u64> {
        let mut whole = describe.create_accumulator();
        for from in (0..rows.num_rows()).step_by(batch_rows) {
            let mut part = describe.create_accumulator();
            let n_rows = batch_rows.min(rows.num_rows() - from);
            describe.add(&mut part, &rows.slice(from, n_rows)).unwrap();
            describe.merge(&mut whole, part).unwrap();
        }
        let summary = describe.finish(whole).unwrap();
        let columns = summary.columns().iter();
        columns.map(|c| c.distinct.unwrap()).collect()
    };
    let whole = counts(rows.num_rows());
    for n_distinct in &whole {
        assert!(n_distinct.abs_diff(200_000) < 4_000, "{n_distinct}");
    }
    assert_eq!(whole[2], whole[3], "a dictionary stands for its values");
    assert_eq!(counts(17_001), whole);
}

#[test]
fn zeros_are_one_value_and_so_are_nans_and_nested_columns_are_counted() {
    let rows = table("x: 0.0, -0.0, nan, nan, null; y: 1, 1, 2, 2, 2");
    let list = Arc::new(arrow::array::ListArray::from_iter_primitive::<
        arrow::datatypes::Int32Type,
        _,
        _,
    >([1, 1, 2, 2, 3].map(|n| Some(vec![Some(n)]))));
    let mut columns: Vec<(&str, ArrayRef)> = vec![("list", list)];
    columns.push(("x", Arc::clone(rows.column(0))));
    columns.push(("y", Arc::clone(rows.column(1))));
    let rows = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let describe = Describe::new();
    let mut seen = describe.create_accumulator();
    describe.add(&mut seen, &rows).unwrap();
    let summary = describe.finish(seen).unwrap();
    let counts: Vec<_> = summary.columns().iter().map(|c| c.distinct).collect();
    assert_eq!(counts, [Some(3), Some(2), Some(2)]);
}

#[test]
fn nan_is_greater_than_every_number_whatever_its_sign_and_order() {
    let x = [2.0, -f64::NAN, f64::NEG_INFINITY, -0.0, 1.0];
    let y = [-0.0, -0.0, -0.0, -0.0, -0.0];
    let z = [f64::NEG_INFINITY; 5];
    let floats = |values: [f64; 5]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    let columns = [("x", floats(x)), ("y", floats(y)), ("z", floats(z))];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    for size in 1..=5 {
        let parts = (0..5).step_by(size);
        let parts = parts.map(|start| rows.slice(start, size.min(5 - start)));
        let shown = described(parts.collect(), 2);
        let ends: Vec<&str> = shown
            .lines()
            .filter(|l| l.starts_with('m'))
            .take(2)
            .collect();
        assert_eq!(
            ends,
            ["min: '-inf', '0.0', '-inf'", "max: 'NaN', '0.0', '-inf'"]
        );
    }
}
