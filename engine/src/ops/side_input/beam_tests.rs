//! Cases of Apache Beam's `sideinputs_test.py` (2.77), under their names.
//!
//! Elements are instants: each has its own value as its event time.

use arrow::array::RecordBatch;

use super::SideInput;
use super::tests::{fixed, run_both, sliding, timed};
use crate::expression::{col, lit};
use crate::testing::table;
use crate::windowing::Windowing;
use crate::{Pipeline, RunOptions, connectors};

fn elements(name: &str, elements: &[i64]) -> RecordBatch {
    let all: Vec<String> = elements.iter().map(ToString::to_string).collect();
    let all = all.join(", ");
    timed(&format!("{name}: {all}; event_time: {all}"))
}

/// Each element with what it sees, without the event time.
fn windowed_side_inputs(
    of: &[i64],
    main: &Windowing,
    side: &Windowing,
    input: &SideInput,
) -> Vec<(i64, String)> {
    let windowings = [main.clone(), side.clone()];
    let lines = run_both(input, windowings, &elements("x", of), &elements("s", of)).unwrap();
    let mut seen: Vec<(i64, String)> = lines
        .iter()
        .map(|line| {
            let parts: Vec<&str> = line.split(" | ").collect();
            (parts[0].parse().unwrap(), parts[2..].join(" | "))
        })
        .collect();
    seen.sort();
    seen
}

fn seen(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
    expected
        .iter()
        .map(|(x, s)| (*x, (*s).to_owned()))
        .collect()
}

fn list() -> SideInput {
    SideInput::list("all", col("s"))
}

#[test]
fn test_global_global_windows() {
    let global = Windowing::default();
    assert_eq!(
        windowed_side_inputs(&[1, 2, 3], &global, &global, &list()),
        seen(&[(1, "[1, 2, 3]"), (2, "[1, 2, 3]"), (3, "[1, 2, 3]")])
    );
}

#[test]
fn test_same_fixed_windows() {
    assert_eq!(
        windowed_side_inputs(&[1, 2, 11], &fixed(10), &fixed(10), &list()),
        seen(&[(1, "[1, 2]"), (2, "[1, 2]"), (11, "[11]")])
    );
}

#[test]
fn test_different_fixed_windows() {
    assert_eq!(
        windowed_side_inputs(&[1, 2, 11, 21, 31], &fixed(10), &fixed(20), &list()),
        seen(&[
            (1, "[1, 2, 11]"),
            (2, "[1, 2, 11]"),
            (11, "[1, 2, 11]"),
            (21, "[21, 31]"),
            (31, "[21, 31]")
        ])
    );
}

#[test]
fn test_fixed_global_window() {
    assert_eq!(
        windowed_side_inputs(&[1, 2, 11], &fixed(10), &Windowing::default(), &list()),
        seen(&[(1, "[1, 2, 11]"), (2, "[1, 2, 11]"), (11, "[1, 2, 11]")])
    );
}

/// Beam treats an element anew for each of its windows. Here rows are in one window once they are results of
/// one, and say which in their columns; rows that are not are refused.
#[test]
fn test_sliding_windows() {
    let windowing = sliding(6, 2);
    let main = timed(
        "x: 1, 1, 1, 2, 2, 2, 4, 4, 4; event_time: 1, 1, 1, 2, 2, 2, 4, 4, 4; \
         window_start: -4, -2, 0, -2, 0, 2, 0, 2, 4; window_end: 2, 4, 6, 4, 6, 8, 6, 8, 10",
    );
    let windowings = [windowing.clone(), windowing];
    let lines = run_both(&list(), windowings, &main, &elements("s", &[1, 2, 4])).unwrap();
    let mut seen: Vec<String> = lines
        .iter()
        .map(|line| {
            let parts: Vec<&str> = line.split(" | ").collect();
            format!("{} {}", parts[0], parts[4])
        })
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "1 [1, 2, 4]",
            "1 [1, 2]",
            "1 [1]",
            "2 [1, 2, 4]",
            "2 [1, 2]",
            "2 [2, 4]",
            "4 [1, 2, 4]",
            "4 [2, 4]",
            "4 [4]"
        ]
    );
}

/// What Beam's `AsIter` gives is a list here.
#[test]
fn test_windowed_iter() {
    test_same_fixed_windows();
}

/// The sum of each window, as a windowed aggregate gives it: at the last instant of its window.
#[test]
fn test_windowed_singleton() {
    let side = timed("event_time: 9, 19; window_start: 0, 10; window_end: 10, 20; sum: 3, 11");
    let lines = run_both(
        &SideInput::singleton(),
        [fixed(10), fixed(10)],
        &elements("x", &[1, 2, 11]),
        &side,
    );
    let sums: Vec<String> = lines
        .unwrap()
        .iter()
        .map(|line| line.split(" | ").last().unwrap().to_owned())
        .collect();
    assert_eq!(sums, ["3", "11", "3"]);
}

#[test]
fn test_windowed_dict() {
    let side = timed("k: k1, k2, k11; v: v1, v2, v11; event_time: 1, 2, 11");
    let main = timed("x: 1, 2, 11, 11; k: k1, k2, k11, k1; event_time: 1, 2, 11, 11");
    let input = SideInput::map([(col("k"), col("k"))]);
    let lines = run_both(&input, [fixed(10), fixed(10)], &main, &side).unwrap();
    let found: Vec<String> = lines
        .iter()
        .map(|line| {
            let parts: Vec<&str> = line.split(" | ").collect();
            format!("{} {} {}", parts[0], parts[1], parts[3])
        })
        .collect();
    assert_eq!(found, ["1 k1 v1", "11 k1 null", "11 k11 v11", "2 k2 v2"]);
}

/// Rows without an event time, the whole side.
fn globally(main: &str, side: &str, input: &SideInput) -> Result<Vec<String>, String> {
    let global = || Windowing::default();
    let side = table(side);
    let none = side.num_rows() == 1 && side.column(0).is_null(0);
    let side = if none { side.slice(0, 0) } else { side };
    run_both(input, [global(), global()], &table(main), &side)
}

/// Beam leaves open whether this should be an error; it is one here, unless asked for otherwise.
#[test]
fn test_empty_singleton_side_input() {
    assert_eq!(
        globally("x: 1, 2", "s: null", &SideInput::singleton()).unwrap_err(),
        "record batch 0, row 0: side input \"side\" has no row for this one"
    );
    assert_eq!(
        globally("x: 1, 2", "s: null", &SideInput::singleton().or_null()).unwrap(),
        ["1 | null", "2 | null"]
    );
}

#[test]
fn test_multi_valued_singleton_side_input() {
    assert_eq!(
        globally("x: 1, 2", "s: 3, 4", &SideInput::singleton()).unwrap_err(),
        "record batch 0, row 0: side input \"side\" has 2 rows for this one, and a singleton gives one"
    );
}

/// The default is that of an expression behind it.
#[test]
fn test_default_value_singleton_side_input() {
    let pipeline = Pipeline::new("default");
    let read =
        |name, rows: RecordBatch| pipeline.read(name, connectors::from_record_batches(vec![rows]));
    let side = read("side", table("s: 1").slice(0, 0));
    let (sink, made) = connectors::collect();
    read("main", table("x: 1, 2"))
        .with_side_input(&side, SideInput::singleton().or_null())
        .select([(col("x")
            * crate::expression::when(col("s").is_null(), lit(10i64))
                .otherwise(col("s"))
                .unwrap())
        .alias("product")])
        .write(sink);
    pipeline.run(&RunOptions::new().workers(1)).unwrap();
    assert_eq!(crate::testing::show(&made.take()[0]), "product: 10, 20");
}

#[test]
fn test_iterable_side_input() {
    assert_eq!(
        globally("x: 1, 2", "s: 3, 4", &list()).unwrap(),
        ["1 | [3, 4]", "2 | [3, 4]"]
    );
}

fn twice(first: (&str, SideInput), second: (&str, SideInput)) -> String {
    let pipeline = Pipeline::new("twice");
    let read =
        |name, rows: RecordBatch| pipeline.read(name, connectors::from_record_batches(vec![rows]));
    let (sink, made) = connectors::collect();
    let (one, two) = (read("one", table(first.0)), read("two", table(second.0)));
    read("main", table("x: 1"))
        .with_side_input(&one, first.1)
        .with_side_input(&two, second.1)
        .write(sink);
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    crate::testing::show(&made.take()[0])
}

#[test]
fn test_as_list_and_as_dict_side_inputs() {
    let pairs = SideInput::map([(lit("crouton"), col("key"))]).columns(["value"]);
    assert_eq!(
        twice(
            ("s: 5, 1, 3, 2, 9", list()),
            ("key: crouton, supreme; value: 17, null", pairs)
        ),
        "x: 1\nall: [1, 2, 3, 5, 9]\nvalue: 17"
    );
}

#[test]
fn test_as_singleton_without_unique_labels() {
    let again = SideInput::singleton().suffix("2");
    assert_eq!(
        twice(("s: 2", SideInput::singleton()), ("s: 2", again)),
        "x: 1\ns: 2\ns2: 2"
    );
}

#[test]
fn test_as_list_twice() {
    let again = SideInput::list("again", col("s"));
    assert_eq!(
        twice(("s: 1, 2, 3", list()), ("s: 1, 2, 3", again)),
        "x: 1\nall: [1, 2, 3]\nagain: [1, 2, 3]"
    );
}

#[test]
fn test_as_dict_twice() {
    let of = |key: &str| {
        SideInput::map([(lit(key), col("k"))])
            .columns(["v"])
            .suffix("_b")
    };
    let rows = "k: a, b; v: 1, 2";
    assert_eq!(
        twice((rows, of("a")), (rows, of("b"))),
        "x: 1\nv: 1\nv_b: 2"
    );
}

#[test]
fn test_flattened_side_input() {
    let pipeline = Pipeline::new("flattened");
    let read =
        |name, rows: &str| pipeline.read(name, connectors::from_record_batches(vec![table(rows)]));
    let (sink, made) = connectors::collect();
    let side = read("side1", "s: a").union(&[read("side2", "s: b")]);
    read("main", "x: 0")
        .with_side_input(&side, list())
        .write(sink);
    pipeline.run(&RunOptions::new().workers(2)).unwrap();
    assert_eq!(crate::testing::show(&made.take()[0]), "x: 0\nall: [a, b]");
}
