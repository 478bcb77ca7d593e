//! Tests of first rows of which only some columns are read behind.

use arrow::record_batch::RecordBatch;
use datafusion_expr::SortExpr;
use expect_test::expect;

use super::{fixed, ms};
use crate::aggregates::count;
use crate::connectors::{collect, from_record_batches};
use crate::ops::JoinKind;
use crate::testing::{scripted, show_rows, table};
use crate::windowing::{SlidingWindows, Windowing};
use crate::{Collection, Pipeline, RunOptions, col, lit};

fn by_x() -> [SortExpr; 1] {
    [col("x").sort(true, false)]
}

/// What a plan says of its source, where `compose` ends a pipeline.
fn scanned(compose: impl FnOnce(&Collection)) -> String {
    let pipeline = Pipeline::new("test");
    let rows = scripted("k: a; x: 1; b: 1; c: 1; d: 1; event_time: 1");
    compose(&pipeline.read("rows", rows).window(fixed(10)));
    let plan = pipeline.plan().unwrap().explain();
    let scan = plan.lines().find(|line| line.contains("scan")).unwrap();
    scan.trim().to_owned()
}

fn write(rows: &Collection, columns: &[&str]) {
    let columns = columns.iter().map(|name| col(*name));
    rows.select(columns).write(collect().0);
}

#[test]
fn a_source_reads_what_first_rows_need_and_what_is_read_behind_them() {
    let all = [
        scanned(|rows| write(&rows.top_k(2, by_x()), &["b"])),
        scanned(|rows| write(&rows.group_by([col("k")]).top_k(2, by_x()), &["c"])),
        scanned(|rows| write(&rows.distinct_by([col("k")]), &["b", "window_end"])),
        scanned(|rows| write(&rows.top_k(2, by_x()), &["window_start"])),
        scanned(|rows| write(&rows.top_k(2, []), &["window_start"])),
        // Late rows have what is read of them.
        scanned(|rows| {
            let (first, late) = rows.group_by([col("k")]).top_k_with_late(2, by_x());
            write(&first, &["b"]);
            write(&late, &["d"]);
        }),
        scanned(|rows| {
            let (first, late) = rows.top_k_with_late(2, by_x());
            write(&first, &["b"]);
            late.write(collect().0);
        }),
        scanned(|rows| {
            let grouped = rows.group_by([col("k")]);
            let (counted, late) = grouped.agg_with_late([count(lit(1)).alias("n")]);
            write(&counted, &["n"]);
            write(&late, &["c"]);
        }),
        scanned(|rows| {
            let grouped = rows.group_by([col("k")]);
            let (counted, late) = grouped.agg_with_late([count(lit(1)).alias("n")]);
            write(&counted, &["n"]);
            late.write(collect().0);
        }),
        // All columns make a row what it is.
        scanned(|rows| write(&rows.distinct(), &["b"])),
    ];
    expect![[r#"
        scan      rows [scripted], columns 3 of 6: x, b, event_time
        scan      rows [scripted], columns 4 of 6: k, x, c, event_time
        scan      rows [scripted], columns 3 of 6: k, b, event_time
        scan      rows [scripted], columns 2 of 6: x, event_time
        scan      rows [scripted], columns 2 of 6: k, event_time
        scan      rows [scripted], columns 5 of 6: k, x, b, d, event_time
        scan      rows [scripted]
        scan      rows [scripted], columns 3 of 6: k, c, event_time
        scan      rows [scripted]
        scan      rows [scripted]"#]]
    .assert_eq(&all.join("\n"));
}

/// Rows of which a join has made several have no place in a source, so that all of their columns say which comes first.
#[test]
fn a_tie_does_not_depend_on_which_columns_are_read_behind() {
    let run = |first: fn(&Collection) -> Collection| {
        let pipeline = Pipeline::new("test");
        let read = |name: &str, rows| pipeline.read(name, from_record_batches(vec![table(rows)]));
        let rows = read("rows", "x: 1, 1; a: 9, 1; b: 1, 2; event_time: 1, 1");
        let names = read("names", "x: 1, 1; name: one, one");
        let (sink, made) = collect();
        let joined = rows.join(&names, JoinKind::Inner, [(col("x"), col("x"))]);
        first(&joined).select([col("b")]).write(sink);
        pipeline.run(&RunOptions::new().workers(1)).unwrap();
        show_rows(&made.take())
    };
    let all = [
        run(|rows| rows.top_k(1, by_x())),
        run(|rows| rows.distinct_by([col("name")])),
        run(|rows| rows.window(fixed(10)).top_k(1, by_x())),
        run(|rows| rows.window(fixed(10)).distinct_by([col("name")])),
    ];
    assert_eq!(all, ["b=2"; 4]);
}

/// Where fewer columns do not go together, as in a union of which one side computes a column, all are read.
#[test]
fn first_rows_of_which_all_columns_come_leave_as_they_are_wanted() {
    let run = |compose: fn(&Collection) -> Collection| {
        let pipeline = Pipeline::new("test");
        let read = |name: &str, rows| pipeline.read(name, from_record_batches(vec![table(rows)]));
        let computed = read(
            "computed",
            "y: 1, 2, 3; x: 4, 3, 0; z: 1, 2, 0; event_time: 1, 2, 3",
        )
        .filter(col("z").gt(lit(0)))
        .with_column("y", col("x") * lit(10));
        let others = read("others", "y: 5, 6; x: 9, 2; z: 3, 4; event_time: 3, 14");
        let (sink, made) = collect();
        compose(&computed.union(&[others])).write(sink);
        let plan = pipeline.plan().unwrap().explain();
        assert!(!plan.contains(" of 4"), "{plan}");
        pipeline.run(&RunOptions::new().workers(1)).unwrap();
        show_rows(&made.take())
    };
    let first = run(|rows| rows.top_k(2, by_x()).select([col("y")]));
    assert_eq!(first, "y=30\ny=6");
    let first = run(|rows| {
        let first = rows.window(fixed(10)).top_k(2, by_x());
        first.select([col("y"), col("window_start")])
    });
    expect![[r#"
        y=30 window_start=0
        y=40 window_start=0
        y=6 window_start=10"#]]
    .assert_eq(&first);
}

/// Of rows of several splits, most of them equal under the order.
#[test]
fn the_same_rows_come_first_whichever_of_their_columns_are_read() {
    let rows_of = |split: i64| {
        let text = |name: &str, of: &dyn Fn(i64) -> i64| {
            let values = (0..40).map(|n| of(split * 40 + n).to_string());
            format!("{name}: {}", values.collect::<Vec<_>>().join(", "))
        };
        let columns = [
            text("note", &|n| 1000 - n),
            text("k", &|n| n % 3),
            text("x", &|n| n * 7 % 4),
            text("id", &|n| n),
            text("event_time", &|n| n * 11 % 50),
        ];
        table(&columns.join("; "))
    };
    let run = |columns: &[&str], n_workers: usize| {
        let pipeline = Pipeline::new("test");
        let source = from_record_batches((0..3).map(rows_of).collect());
        let windows = SlidingWindows::of(ms(20)).every(ms(10));
        let rows = pipeline.read("rows", source).window(Windowing::of(windows));
        let first = rows.group_by([col("k")]).top_k(3, by_x());
        let (sink, made) = collect();
        let columns = columns.iter().map(|name| col(*name));
        first.select(columns).write(sink);
        pipeline.run(&RunOptions::new().workers(n_workers)).unwrap();
        let made = made.take().into_iter();
        let of_both = |rows: RecordBatch| {
            let places = ["id", "window_start"].map(|name| rows.schema().index_of(name).unwrap());
            rows.project(&places).unwrap()
        };
        show_rows(&made.map(of_both).collect::<Vec<_>>())
    };
    let all = ["note", "k", "x", "id", "window_start", "event_time"];
    let expected = run(&all, 1);
    // Three of each of three keys in each of six windows.
    assert_eq!(expected.lines().count(), 54);
    for n_workers in 1..=3 {
        assert_eq!(run(&["id", "window_start"], n_workers), expected);
    }
}

/// One phase learns a table of some columns of the same first rows of which the next reads others.
#[test]
fn phases_that_read_different_columns_have_the_same_first_rows() {
    let pipeline = Pipeline::new("test");
    let rows =
        table("k: a, a, b; x: 2, 1, 3; b: 7, 8, 9; c: 4, 5, 6; d: 1, 1, 1; event_time: 1, 2, 13");
    let rows = pipeline.read("rows", from_record_batches(vec![rows]));
    let first = rows.window(fixed(10)).group_by([col("k")]).top_k(1, by_x());
    let first = first.window(Windowing::default());
    let of_b = first.select([col("k").alias("of"), col("b")]);
    let (sink, made) = collect();
    first
        .select([col("k"), col("c")])
        .join(&of_b, JoinKind::Inner, [(col("k"), col("of"))])
        .write(sink);
    let plan = pipeline.plan().unwrap().explain();
    let scans = plan.lines().filter(|line| line.contains("scan"));
    let scans: Vec<&str> = scans.map(str::trim).collect();
    expect![[r#"
        scan      rows [record_batches n_rows=3], columns 5 of 6: k, x, b, c, event_time
        scan      rows [record_batches n_rows=3], columns 5 of 6: k, x, b, c, event_time"#]]
    .assert_eq(&scans.join("\n"));
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    expect![[r#"
        k='a' c=5 of='a' b=8
        k='b' c=6 of='b' b=9"#]]
    .assert_eq(&show_rows(&made.take()));
}
