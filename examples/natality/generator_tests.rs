//! The generator against the published moments of its table, and its laws.

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;

use crate::generator::{BLOCK_ROWS, Births};

const N_ROWS: usize = 200_000;
/// Rows behind the published figures, which have a sampling error of their own.
const N_PUBLISHED: f64 = 1_000_000.0;

fn draw(seed: u64, n_rows: usize) -> Vec<RecordBatch> {
    let births = Births::new(seed).unwrap();
    (0..Births::n_blocks(n_rows))
        .map(|block| births.block(block, n_rows).unwrap())
        .collect()
}

struct Row {
    weight: f64,
    male: f64,
    age: f64,
    plurality: f64,
    weeks: f64,
}

fn sample() -> Vec<Row> {
    let number = |rows: &RecordBatch, name: &str| -> Vec<f64> {
        let column = rows.column_by_name(name).unwrap();
        column
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .map(|&v| v as f64)
            .collect()
    };
    let mut sample = Vec::with_capacity(N_ROWS);
    for rows in draw(1, N_ROWS) {
        let weight = rows
            .column_by_name("weight_pounds")
            .unwrap()
            .as_primitive::<Float64Type>();
        let male = rows.column_by_name("is_male").unwrap().as_boolean();
        let (age, plurality, weeks) = (
            number(&rows, "mother_age"),
            number(&rows, "plurality"),
            number(&rows, "gestation_weeks"),
        );
        sample.extend((0..rows.num_rows()).map(|i| Row {
            weight: weight.value(i),
            male: f64::from(u8::from(male.value(i))),
            age: age[i],
            plurality: plurality[i],
            weeks: weeks[i],
        }));
    }
    sample
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The `order`th central moment.
fn moment(values: &[f64], order: i32) -> f64 {
    let m = mean(values);
    values.iter().map(|v| (v - m).powi(order)).sum::<f64>() / values.len() as f64
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let covariance = pairs
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum::<f64>()
        / pairs.len() as f64;
    covariance / (moment(&x, 2) * moment(&y, 2)).sqrt()
}

/// Four standard errors of the difference of two samples, and the rounding of the published figure.
#[track_caller]
fn agrees(what: &str, measured: f64, published: f64, standard_error: f64, digits: i32) {
    let allowed = 4.0 * standard_error * (1.0 + N_ROWS as f64 / N_PUBLISHED).sqrt()
        + 0.5 * 10f64.powi(-digits);
    assert!(
        (measured - published).abs() <= allowed,
        "{what}: measured {measured:.5}, published {published}, allowed difference {allowed:.5}"
    );
}

#[track_caller]
fn mean_agrees(what: &str, values: &[f64], published: f64, digits: i32) {
    let error = (moment(values, 2) / values.len() as f64).sqrt();
    agrees(what, mean(values), published, error, digits);
}

#[track_caller]
fn std_dev_agrees(what: &str, values: &[f64], published: f64, digits: i32) {
    let (variance, fourth) = (moment(values, 2), moment(values, 4));
    let error = ((fourth - variance * variance) / (4.0 * variance * values.len() as f64)).sqrt();
    agrees(what, variance.sqrt(), published, error, digits);
}

fn weights(sample: &[Row], keep: impl Fn(&Row) -> bool) -> Vec<f64> {
    sample
        .iter()
        .filter(|r| keep(r))
        .map(|r| r.weight)
        .collect()
}

type OfRow = fn(&Row) -> f64;

#[test]
fn the_moments_are_those_published() {
    let sample = sample();
    let all = weights(&sample, |_| true);
    mean_agrees("mean", &all, 7.235, 3);
    std_dev_agrees("standard deviation", &all, 1.334, 3);

    let mut sorted = all.clone();
    sorted.sort_by(f64::total_cmp);
    // The standard error of a quantile is sqrt(p (1 - p) / n) over the density there.
    for (p, published, digits, density) in [(0.5, 7.335, 3, 0.36), (0.99, 10.04, 2, 0.025)] {
        let error = (p * (1.0 - p) / N_ROWS as f64).sqrt() / density;
        agrees(
            "quantile",
            sorted[(p * N_ROWS as f64) as usize],
            published,
            error,
            digits,
        );
    }

    let share = |of: fn(&Row) -> bool| -> Vec<f64> {
        sample.iter().map(|r| f64::from(u8::from(of(r)))).collect()
    };
    mean_agrees(
        "share under 5.51 lb",
        &share(|r| r.weight < 5.51),
        0.0791,
        4,
    );
    mean_agrees("share of boys", &share(|r| r.male > 0.5), 0.512, 3);
    mean_agrees(
        "share of multiples",
        &share(|r| r.plurality > 1.0),
        0.0346,
        4,
    );

    let (boys, girls) = (
        weights(&sample, |r| r.male > 0.5),
        weights(&sample, |r| r.male < 0.5),
    );
    let error =
        (moment(&boys, 2) / boys.len() as f64 + moment(&girls, 2) / girls.len() as f64).sqrt();
    agrees(
        "sex difference",
        mean(&boys) - mean(&girls),
        0.244,
        error,
        3,
    );
}

#[test]
fn the_weight_depends_on_the_columns_as_published() {
    let sample = sample();
    let columns: [(&str, OfRow, f64); 3] = [
        ("weeks", |r| r.weeks, 0.576),
        ("age", |r| r.age, 0.053),
        ("plurality", |r| r.plurality, -0.315),
    ];
    for (name, of, published) in columns {
        let pairs: Vec<(f64, f64)> = sample.iter().map(|r| (r.weight, of(r))).collect();
        let rho = correlation(&pairs);
        // Of normal rows it would be (1 - rho^2) / sqrt(n); heavy tails about double it.
        let error = 2.0 * (1.0 - rho * rho) / (N_ROWS as f64).sqrt();
        agrees(name, rho, published, error, 3);
    }
    for (weeks, published, std_dev) in [
        (17.0..=27.0, 1.78, Some(1.19)),
        (28.0..=33.0, 4.51, Some(1.74)),
        (34.0..=36.0, 6.14, None),
        (37.0..=38.0, 7.10, None),
        (39.0..=40.0, 7.62, None),
        (41.0..=47.0, 7.74, None),
    ] {
        let slice = weights(&sample, |r| weeks.contains(&r.weeks));
        mean_agrees(&format!("weeks {weeks:?}"), &slice, published, 2);
        if let Some(std_dev) = std_dev {
            std_dev_agrees(&format!("weeks {weeks:?}"), &slice, std_dev, 2);
        }
    }
    for (plurality, published, std_dev) in [(2.0..=2.0, 5.19, 1.46), (3.0..=4.0, 3.24, 1.33)] {
        let slice = weights(&sample, |r| plurality.contains(&r.plurality));
        mean_agrees(&format!("plurality {plurality:?}"), &slice, published, 2);
        std_dev_agrees(&format!("plurality {plurality:?}"), &slice, std_dev, 2);
    }
}

#[test]
fn term_singles_of_smokers_are_lighter() {
    let (mut smokers, mut others) = (Vec::new(), Vec::new());
    for rows in draw(1, N_ROWS) {
        let column = |name: &str| rows.column_by_name(name).unwrap();
        let weight = column("weight_pounds").as_primitive::<Float64Type>();
        let smokes = column("cigarette_use").as_boolean();
        let weeks = column("gestation_weeks").as_primitive::<Int64Type>();
        let plurality = column("plurality").as_primitive::<Int64Type>();
        for i in (0..rows.num_rows()).filter(|&i| plurality.value(i) == 1 && weeks.value(i) >= 37) {
            if smokes.value(i) {
                &mut smokers
            } else {
                &mut others
            }
            .push(weight.value(i));
        }
    }
    let error = (moment(&smokers, 2) / smokers.len() as f64
        + moment(&others, 2) / others.len() as f64)
        .sqrt();
    agrees("loss", mean(&others) - mean(&smokers), 0.488, error, 3);
}

#[test]
fn the_same_seed_gives_the_same_rows_and_another_seed_others() {
    assert_eq!(draw(7, 20_000), draw(7, 20_000));
    assert_ne!(draw(7, 20_000), draw(8, 20_000));
}

#[test]
fn a_block_alone_is_the_block_of_the_whole() {
    let whole = draw(7, 3 * BLOCK_ROWS);
    let alone = Births::new(7).unwrap().block(2, 3 * BLOCK_ROWS).unwrap();
    assert_eq!(alone, whole[2]);
    let shorter = draw(7, 2 * BLOCK_ROWS + 5);
    assert_eq!(shorter[2], whole[2].slice(0, 5));
    assert_eq!(
        Births::new(7)
            .unwrap()
            .block(3, 3 * BLOCK_ROWS)
            .unwrap()
            .num_rows(),
        0
    );
}
