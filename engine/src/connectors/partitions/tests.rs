//! Rows divided by columns, and columns that cannot divide them.

use expect_test::{Expect, expect};

use super::*;
use crate::testing::{show, table};

fn check(rows: &str, by: &[&str], expected: Expect) {
    let rows = table(rows);
    let by: Vec<String> = by.iter().map(|name| (*name).to_owned()).collect();
    let told = Partitions::new(&rows.schema(), &by).and_then(|p| p.divide(&rows));
    let told = match told {
        Ok(parts) => parts
            .iter()
            .map(|(folder, rows)| format!("{folder}  {}", show(rows)))
            .collect::<Vec<_>>()
            .join("\n"),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&told);
}

#[test]
fn rows_keep_their_order_and_null_is_a_folder() {
    check(
        "year: 2020, 2021, 2020, null, 2021; month: 5, 5, 5, 6, 5; x: 1, 2, 3, 4, 5",
        &["year", "month"],
        expect![[r#"
            year=2020/month=5  x: 1, 3
            year=2021/month=5  x: 2, 5
            year=__HIVE_DEFAULT_PARTITION__/month=6  x: 4"#]],
    );
}

#[test]
fn null_and_empty_text_share_a_folder_and_keep_their_order() {
    check(
        "k: '', null, a, null, ''; x: 1, 2, 3, 4, 5",
        &["k"],
        expect![[r#"
            k=__HIVE_DEFAULT_PARTITION__  x: 1, 2, 4, 5
            k=a  x: 3"#]],
    );
}

#[test]
fn no_rows_are_in_no_folder() {
    let rows = table("k: 1; x: 1").slice(0, 0);
    let partitions = Partitions::new(&rows.schema(), &["k".to_owned()]).unwrap();
    assert!(partitions.divide(&rows).unwrap().is_empty());
}

#[test]
fn what_a_path_cannot_hold_is_escaped() {
    let told = |text: &str| escaped(text);
    assert_eq!(told("a/b:c=d%e"), "a%2Fb%3Ac%3Dd%25e");
    assert_eq!(told("line\nbreak\u{7f}"), "line%0Abreak%7F");
    assert_eq!(told("é ü.x"), "é ü.x");
    assert_eq!(told("\"#'*?\\{[]^"), "%22%23%27%2A%3F%5C%7B%5B%5D%5E");
}

#[test]
fn columns_that_cannot_divide_are_named_together() {
    check(
        "f: 1.5; _k: 1; x: 1",
        &["f", "_k", "x", "x", "y"],
        expect![[r#"
            4 errors
            1. column "f" of type Float64 cannot divide the rows
                 Folders are named by whole numbers, text, booleans, dates or times.
                 Hint: Cast it, or divide by another column.
            2. column "_k" cannot divide the rows
                 Readers pass over folders whose name begins with "." or "_".
                 Hint: Rename it with `select`.
            3. column "x" divides the rows twice
            4. column "y" is not there
                 The columns are "f", "_k", "x"."#]],
    );
    check(
        "x: 1; y: 2",
        &["x", "y"],
        expect![[r#"
            no column is left for the files
              The columns by which rows are divided stand in the names of folders.
              Hint: Divide by fewer columns."#]],
    );
}
