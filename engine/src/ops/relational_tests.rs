//! Runs a part of a pipeline over rows written as text, in any split and with any number of workers.

use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use expect_test::Expect;

use crate::connectors::{collect, from_record_batches};
use crate::error::Result;
use crate::output::OnBadRow;
use crate::pipeline::{Collection, Pipeline};
use crate::runner::{Progress, RunOptions};
use crate::testing::{changelog, show, table};

/// The rows that `compose` makes of `rows`, which are read in splits of `split_rows`.
pub(crate) fn run_over(
    rows: &RecordBatch,
    split_rows: usize,
    workers: usize,
    compose: &dyn Fn(&Collection) -> Collection,
) -> Result<RecordBatch> {
    let n_rows = rows.num_rows();
    let mut splits: Vec<RecordBatch> = (0..n_rows)
        .step_by(split_rows.max(1))
        .map(|start| rows.slice(start, split_rows.min(n_rows - start)))
        .collect();
    if splits.is_empty() {
        splits.push(rows.clone());
    }
    let pipeline = Pipeline::new("test");
    let made = compose(&pipeline.read("rows", from_record_batches(splits)));
    let (sink, collected) = collect();
    made.write(sink);
    pipeline.run(&RunOptions::new().workers(workers).progress(Progress::Never))?;
    let batches = collected.take();
    let schema = batches
        .first()
        .map_or_else(|| rows.schema(), RecordBatch::schema);
    Ok(concat_batches(&schema, &batches)?)
}

/// What `compose` makes of the changes that are written as text, on one worker, or why it does not.
pub(crate) fn run_changes(rows: &str, compose: impl FnOnce(&Collection) -> Collection) -> String {
    let pipeline = Pipeline::new("test");
    let (sink, made) = collect();
    let rows = pipeline.read("rows", from_record_batches(vec![changelog(rows)]));
    compose(&rows).write(sink);
    match pipeline.run(&RunOptions::new().workers(1)) {
        Ok(_) => made
            .take()
            .iter()
            .map(show)
            .collect::<Vec<_>>()
            .join("\n\n"),
        Err(error) => error.to_string(),
    }
}

/// Checks the rows that `compose` makes, and the dead letters of what it made, for any split and for 1 to 4 workers:
/// those of an input in two splits, each letter as `split, row: reason`. Gives the rows and the letters.
pub(crate) fn check_letters(
    input: &str,
    compose: impl Fn(&Collection) -> Collection,
    expected: Expect,
) -> (String, String) {
    let rows = table(input);
    let half = rows.num_rows().div_ceil(2);
    let splits = vec![
        rows.slice(0, half),
        rows.slice(half, rows.num_rows() - half),
    ];
    let run = |workers: usize| {
        let pipeline = Pipeline::new("test");
        let (sink, collected) = collect();
        let (dead, letters) = collect();
        compose(&pipeline.read("rows", from_record_batches(splits.clone())))
            .dead_letters_to(dead)
            .write(sink);
        let options = RunOptions::new().workers(workers);
        pipeline.run(&options.progress(Progress::Never)).unwrap();
        let mut told = Vec::new();
        for batch in letters.take() {
            let column = |name: &str| batch.column_by_name(name).unwrap();
            let text = |name: &str, row| array_value_to_string(column(name), row).unwrap();
            for row in 0..batch.num_rows() {
                let [node, split, number, reason] =
                    ["node", "split", "row", "reason"].map(|name| text(name, row));
                told.push(format!("{node}: {split}, row {number}: {reason}"));
            }
        }
        told.sort();
        let made = collected.take();
        let made = concat_batches(&made[0].schema(), &made).unwrap();
        (show(&sorted(&made)), told.join("\n"))
    };
    let one = run(1);
    expected.assert_eq(&format!("{}\n{}", one.0, one.1));
    for workers in 2..=4 {
        assert_eq!(run(workers), one, "{workers} workers");
    }
    one
}

/// Checks what [`check_letters`] does; that the same rows are made where bad ones are dropped; and that one of the
/// bad rows ends the run where they are not allowed.
pub(crate) fn check_bad_rows(
    input: &str,
    compose: impl Fn(&Collection) -> Collection,
    expected: Expect,
) {
    let rows = table(input);
    let half = rows.num_rows().div_ceil(2);
    let (made, letters) = check_letters(input, &compose, expected);
    let run = |policy, workers| {
        let with_policy = |rows: &Collection| compose(rows).on_bad_row(policy);
        run_over(&rows, half, workers, &with_policy)
    };
    for workers in 1..=3 {
        let kept = run(OnBadRow::Drop, workers).unwrap();
        assert_eq!(show(&sorted(&kept)), made, "dropped at {workers} workers");
        let failure = run(OnBadRow::Fail, workers).unwrap_err().report();
        let is_told = |letter: &str| {
            let (node, row) = letter.split_once(": ").unwrap();
            failure.starts_with(&format!("{row}\n  in transform {node:?}\n"))
        };
        assert!(letters.lines().any(is_told), "{failure}");
    }
}

/// The rows in the order of all columns that have one.
pub(crate) fn sorted(rows: &RecordBatch) -> RecordBatch {
    let columns: Vec<SortColumn> = rows
        .columns()
        .iter()
        .filter(|c| !c.data_type().is_nested())
        .map(|c| SortColumn {
            values: c.clone(),
            options: None,
        })
        .collect();
    if columns.is_empty() || rows.num_rows() == 0 {
        return rows.clone();
    }
    let order = lexsort_to_indices(&columns, None).unwrap();
    take_record_batch(rows, &order).unwrap()
}

/// Checks the rows, put in order, that `compose` makes of those in `input`: the same for any split and
/// for 1 to 4 workers. An error is compared by its message.
pub(crate) fn check_rows(
    input: &str,
    compose: impl Fn(&Collection) -> Collection,
    expected: Expect,
) {
    let rows = table(input);
    check_batch(&rows, compose, expected);
}

pub(crate) fn check_batch(
    rows: &RecordBatch,
    compose: impl Fn(&Collection) -> Collection,
    expected: Expect,
) {
    let text = |made: Result<RecordBatch>| match made {
        Ok(made) => show(&sorted(&made)),
        Err(error) => error.report(),
    };
    let whole = text(run_over(rows, rows.num_rows(), 1, &compose));
    expected.assert_eq(&whole);
    for workers in 1..=4 {
        for split_rows in [1, 2, 5] {
            let cut = text(run_over(rows, split_rows, workers, &compose));
            assert_eq!(cut, whole, "{workers} workers, splits of {split_rows} rows");
        }
    }
}

/// Checks the message by which the plan refuses what `compose` makes.
pub(crate) fn refuse_rows(
    input: &str,
    compose: impl Fn(&Collection) -> Collection,
    expected: Expect,
) {
    match run_over(&table(input), 1_000, 1, &compose) {
        Ok(made) => panic!("accepted:\n{}", show(&made)),
        Err(error) => expected.assert_eq(&error.report()),
    }
}
