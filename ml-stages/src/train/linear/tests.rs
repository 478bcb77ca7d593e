//! Linear regression against known coefficients.

use super::*;
use crate::train::testing::{Fixture, constants};
use arrow::array::{ArrayRef, Float64Array};
use arrow::record_batch::RecordBatch;
use expect_test::expect;
use mainstem_transforms::{FeatureKind, FeatureLayout};

fn rounded(model: &TrainedModel) -> Vec<Vec<f32>> {
    let round = |x: f32| (x * 1e4).round() / 1e4 + 0.0;
    let constants = constants(model).into_iter();
    constants
        .map(|c| c.into_iter().map(round).collect())
        .collect()
}

#[test]
fn a_plane_is_found_again() {
    let fixture = Fixture::new(
        "a: 1000.0, 1001.0, 1002.0, 1003.0; b: 0.0, 1.0, 0.0, 4.0",
        "y: 2001.0, 2000.0, 2005.0, 1995.0",
    );
    let model = fixture
        .train(&LinearRegression::new(&fixture.layout(), "y"))
        .unwrap();
    assert_eq!(rounded(&model), [vec![2.0, -3.0], vec![1.0]]);
    assert!(model.losses[0] < 1e-8, "{:?}", model.losses);
}

#[test]
fn a_category_has_a_coefficient_and_none_has_its_own() {
    let fixture = Fixture::new(
        "color#2: 0.0, 0.0, 1.0, 1.0, -1.0, -1.0; x: 0.0, 1.0, 0.0, 1.0, 0.0, 1.0",
        "y: 1.0, 2.0, 4.0, 5.0, 7.0, 8.0",
    );
    let model = fixture
        .train(&LinearRegression::new(&fixture.layout(), "y"))
        .unwrap();
    // Three lines of slope 1, one per color and one for none: no error is left.
    for (found, y) in fixture
        .predict(&model)
        .iter()
        .zip([1.0, 2.0, 4.0, 5.0, 7.0, 8.0])
    {
        assert!((found - y).abs() < 1e-5, "{found} for {y}");
    }
    assert!(model.losses[0] < 1e-8, "{:?}", model.losses);
    assert!((constants(&model)[0][0] - 1.0).abs() < 1e-6);
}

#[test]
fn too_many_columns_are_refused() {
    let fixture = Fixture::new("word#5000: 0.0, 1.0", "y: 1.0, 2.0");
    expect![[r#"
        a linear model takes at most 4096 columns, the features make 5002
          Feature "word" alone makes 5001.
          Hint: Keep fewer categories, or train WideAndDeep, which has no such limit."#]]
    .assert_eq(&fixture.refused(&LinearRegression::new(&fixture.layout(), "y")));
}

#[test]
fn weights_count_as_repeated_rows() {
    let once = Fixture::new("x: 1.0, 2.0, 4.0", "y: 1.0, 3.0, 2.0; w: 2, 1, 0");
    let again = Fixture::new("x: 1.0, 1.0, 2.0", "y: 1.0, 1.0, 3.0");
    let weighted = LinearRegression::new(&once.layout(), "y").weight("w");
    let repeated = LinearRegression::new(&again.layout(), "y");
    assert_eq!(
        rounded(&once.train(&weighted).unwrap()),
        rounded(&again.train(&repeated).unwrap())
    );
}

#[test]
fn no_rows_and_a_missing_number_are_errors() {
    let empty = Fixture::new("x: ", "y: ");
    let spec = LinearRegression::new(&empty.layout(), "y");
    expect![[r#"
        there are no training rows of a weight over 0 to learn "y" from
          Hint: Look for a filter or a join before the trainer that keeps no row."#]]
    .assert_eq(&empty.refused(&spec));
    let missing = Fixture::new("a: 1.0, 2.0; b: 1.0, nan", "y: 1.0, 2.0");
    expect![[r#"
        training row 1: feature "b" is NaN
          Hint: Impute it in the preprocessing, or filter such rows out."#]]
    .assert_eq(&missing.refused(&spec));
}

/// A row of the real births, in the terms of the reference regression.
fn birth(line: &str) -> Option<([f32; 8], f64)> {
    let cells: Vec<&str> = line.split(',').collect();
    let [weight, male, age, plurality, weeks] = cells.as_slice() else {
        return None;
    };
    let number = |cell: &str| cell.parse::<f64>().ok();
    let weeks = number(weeks)?;
    let (short, age) = ((weeks - 39.0).min(0.0), (number(age)? - 27.0) / 10.0);
    let n_children = number(plurality)?;
    let is = |yes: bool| f64::from(u8::from(yes));
    let row = [
        short,
        short * short,
        (weeks - 39.0).max(0.0),
        is(*male == "true"),
        age,
        age * age,
        is(n_children == 2.0),
        is(n_children > 2.0),
    ];
    ((24.0..=44.0).contains(&weeks)).then_some((row.map(|x| x as f32), number(weight)?))
}

// The coefficients are those of ordinary least squares in NumPy, as GENERATOR.md beside the data has them.
#[test]
fn real_births_give_the_reference_coefficients() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/natality");
    let Ok(text) = std::fs::read_to_string(format!("{folder}/bigquery_natality_known_sex.csv"))
    else {
        println!("skipped: {folder} is not there");
        return;
    };
    let births: Vec<_> = text.lines().skip(1).filter_map(birth).collect();
    let names = [
        "short", "short2", "long", "male", "age", "age2", "twin", "triplet",
    ];
    let layout = FeatureLayout::new(names.map(|n| (n.to_owned(), FeatureKind::Number)));
    let matrix: Vec<f32> = births.iter().flat_map(|(row, _)| *row).collect();
    let labels: ArrayRef = Arc::new(births.iter().map(|b| Some(b.1)).collect::<Float64Array>());
    let labels = RecordBatch::try_from_iter([("weight", labels)]).unwrap();
    let fixture = Fixture::of(layout, &matrix, labels).in_batches(1000);
    let model = fixture
        .train(&LinearRegression::new(&fixture.layout(), "weight"))
        .unwrap();
    let expected = [
        0.3357, -0.0030, 0.0675, 0.2687, 0.2114, -0.0919, -1.1245, -1.5824, 7.4713,
    ];
    for (found, expected) in constants(&model).concat().iter().zip(expected) {
        assert!((found - expected).abs() < 1e-3, "{found} for {expected}");
    }
    assert!((model.losses[0].sqrt() - 1.0261).abs() < 1e-3);
}
