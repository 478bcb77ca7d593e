//! For tests, in Mainstem and in your own code: laws that every mapper and every analyzer keeps.

use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float32Type;
use arrow::record_batch::RecordBatch;
use expect_test::Expect;
use mainstem_engine::testing::{show, table};
use mainstem_engine::{Analyzer, Result};

use crate::feature::Feature;
use crate::fitted::FittedPreprocess;
use crate::preprocess::Preprocess;

/// Checks what `feature`, fitted over the rows, gives for them; both as [`table`] writes rows, the
/// feature under the name `x`. Also that nothing changes when it is saved and loaded, and that neither
/// batches nor splits, in fitting and in applying, can be seen in a single bit.
///
/// # Panics
/// If not.
pub fn check(feature: Feature, rows: &str, expected: Expect) {
    let rows = table(rows);
    check_rows(feature, &rows, expected);
}

/// [`check`] for rows that a table cannot write, such as dictionaries.
///
/// # Panics
/// As [`check`].
pub fn check_rows(feature: Feature, rows: &RecordBatch, expected: Expect) {
    let preprocess = Preprocess::new().feature("x", feature);
    let fitted = match preprocess.fit_batches(std::slice::from_ref(rows)) {
        Ok(fitted) => fitted,
        Err(error) => return expected.assert_eq(&error.to_string()),
    };
    expected.assert_eq(&must(fitted.apply(rows).map(|made| show(&made))));
    let bits = must(matrix_bits(&fitted, rows));

    let text = must(serde_json::to_string(&fitted));
    let loaded: FittedPreprocess = must(serde_json::from_str(&text));
    assert_eq!(must(matrix_bits(&loaded, rows)), bits, "saved and loaded");
    assert_eq!(
        loaded.fingerprint(),
        fitted.fingerprint(),
        "saved and loaded"
    );

    for batch_rows in 1..=rows.num_rows() {
        let parts = cut(rows, batch_rows);
        let mut piecewise = Vec::new();
        for part in &parts {
            piecewise.extend(must(matrix_bits(&fitted, part)));
        }
        assert_eq!(piecewise, bits, "applied in batches of {batch_rows} rows");
        let refitted = must(preprocess.fit_batches(&parts));
        assert_eq!(
            refitted.fingerprint(),
            fitted.fingerprint(),
            "fitted in batches of {batch_rows} rows"
        );
        let splits: Vec<&[RecordBatch]> = parts.iter().map(std::slice::from_ref).collect();
        let refitted = must(preprocess.fit_splits(&splits));
        assert_eq!(
            refitted.fingerprint(),
            fitted.fingerprint(),
            "fitted in splits of {batch_rows} rows"
        );
    }
}

/// Checks the message by which a feature refuses rows with the columns of `rows`, while planning.
///
/// # Panics
/// If it does not refuse them, or with another message.
pub fn refuse(feature: Feature, rows: &str, expected: Expect) {
    let preprocess = Preprocess::new().feature("x", feature);
    let message = match preprocess.check(&table(rows).schema()) {
        Ok(()) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&message);
}

/// Checks the laws of an analyzer over rows, compared by what [`Analyzer::save`] gives: any cut into
/// batches and accumulators gives the same, merging is associative, a fresh accumulator is neutral,
/// what was saved is loaded, and rows taken out are as if they had never been (where it can forget).
///
/// # Panics
/// If not.
pub fn check_analyzer<A: Analyzer>(analyzer: &A, rows: &RecordBatch)
where
    A::Output: PartialEq,
{
    let seen = |parts: &[RecordBatch]| {
        let mut seen = analyzer.create_accumulator();
        for part in parts {
            must(analyzer.add(&mut seen, part));
        }
        seen
    };
    let save = |seen: &A::Accumulator| must(analyzer.save(seen));
    let whole = save(&seen(std::slice::from_ref(rows)));
    let learned = |saved: &RecordBatch| {
        let seen = must(analyzer.load(saved));
        analyzer.finish(seen).map_err(|e| e.to_string())
    };
    let direct = analyzer.finish(seen(std::slice::from_ref(rows)));
    assert_eq!(
        learned(&whole),
        direct.map_err(|e| e.to_string()),
        "saved and loaded"
    );
    assert_eq!(
        save(&must(analyzer.load(&whole))),
        whole,
        "saved and loaded"
    );

    let n = rows.num_rows();
    for batch_rows in 1..=n {
        assert_eq!(
            save(&seen(&cut(rows, batch_rows))),
            whole,
            "batches of {batch_rows} rows"
        );
    }
    for (first, second) in [(0, n), (n / 3, 2 * n / 3), (n / 2, n / 2), (0, 0), (n, n)] {
        let part = |from: usize, to: usize| seen(&[rows.slice(from, to - from)]);
        let mut left = part(0, first);
        must(analyzer.merge(&mut left, part(first, second)));
        must(analyzer.merge(&mut left, part(second, n)));
        let mut right = part(first, second);
        must(analyzer.merge(&mut right, part(second, n)));
        let mut total = part(0, first);
        must(analyzer.merge(&mut total, right));
        assert_eq!(
            save(&left),
            whole,
            "merged from the left at {first} and {second}"
        );
        assert_eq!(
            save(&total),
            whole,
            "merged from the right at {first} and {second}"
        );

        let mut fresh = analyzer.create_accumulator();
        must(analyzer.merge(&mut fresh, seen(std::slice::from_ref(rows))));
        must(analyzer.merge(&mut fresh, analyzer.create_accumulator()));
        assert_eq!(save(&fresh), whole, "empty is neutral");

        let mut forgetful = seen(std::slice::from_ref(rows));
        let forgets = analyzer.retract(&mut forgetful, &rows.slice(first, n - first));
        match forgets {
            Ok(()) => assert_eq!(save(&forgetful), save(&part(0, first)), "rows taken out"),
            Err(error) => assert!(error.is_pipeline(), "{error}"),
        }
    }
}

/// The rows in batches of at most `batch_rows`.
pub fn cut(rows: &RecordBatch, batch_rows: usize) -> Vec<RecordBatch> {
    (0..rows.num_rows())
        .step_by(batch_rows)
        .map(|start| rows.slice(start, batch_rows.min(rows.num_rows() - start)))
        .collect()
}

/// The bits of the feature matrix, row by row; NaN in its usual form, whatever made it.
///
/// # Errors
/// As [`FittedPreprocess::matrix`].
pub fn matrix_bits(fitted: &FittedPreprocess, rows: &RecordBatch) -> Result<Vec<u32>> {
    let matrix = fitted.matrix(rows)?;
    assert_eq!(
        matrix.data_type(),
        &crate::features_type(),
        "the type promised is the type made"
    );
    assert_eq!(matrix.len(), rows.num_rows(), "a list for each row");
    let floats = matrix.values().as_primitive::<Float32Type>().values();
    let usual = |x: &f32| if x.is_nan() { f32::NAN } else { *x };
    Ok(floats.iter().map(|x| usual(x).to_bits()).collect())
}

fn must<T, E: fmt::Display>(result: Result<T, E>) -> T {
    #[expect(clippy::panic, reason = "a broken law ends the test")]
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
