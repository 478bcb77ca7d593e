//! Births drawn from a table that was fitted on 38,233 real births in the United States.
//!
//! ```text
//! (seed, block) ─▶ its own random stream ─▶ 8,192 rows, each independent of the others
//! ```
//!
//! A block can be drawn alone and gives the same rows as in the whole, so blocks are drawn in parallel.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::weighted::{Error, WeightedAliasIndex};
use rand_distr::{Distribution, StandardNormal};

/// Rows in a block; the last block of a table may be shorter.
pub(crate) const BLOCK_ROWS: usize = 8_192;

/// The births of one seed, block by block.
#[derive(Debug)]
pub(crate) struct Births {
    seed: u64,
    age: Table,
    weeks: [Table; 3],
    month: Table,
    apgar: Table,
    higher_order: Table,
}

/// One birth, with the columns of BigQuery's `natality` table that models use.
struct Birth {
    weight_pounds: f64,
    is_male: bool,
    mother_age: i64,
    plurality: i64,
    gestation_weeks: i64,
    year: i64,
    month: i64,
    father_age: Option<i64>,
    cigarette_use: bool,
    weight_gain_pounds: Option<i64>,
    apgar_5min: i64,
}

impl Births {
    /// The births that `seed` stands for.
    ///
    /// # Errors
    /// None with the table of this file: the weights are positive.
    pub(crate) fn new(seed: u64) -> Result<Self, Error> {
        Ok(Self {
            seed,
            age: Table::new(MOTHER_AGE)?,
            weeks: [
                Table::new(WEEKS_SINGLE)?,
                Table::new(WEEKS_TWINS)?,
                Table::new(WEEKS_MORE)?,
            ],
            month: Table::new(MONTH)?,
            apgar: Table::new(APGAR_5MIN)?,
            higher_order: Table::new(PLURALITY_OF_MULTIPLES)?,
        })
    }

    /// The columns.
    pub(crate) fn schema() -> SchemaRef {
        let field = |name, kind, nullable| Field::new(name, kind, nullable);
        Arc::new(Schema::new(vec![
            field("weight_pounds", DataType::Float64, false),
            field("is_male", DataType::Boolean, false),
            field("mother_age", DataType::Int64, false),
            field("plurality", DataType::Int64, false),
            field("gestation_weeks", DataType::Int64, false),
            field("year", DataType::Int64, false),
            field("month", DataType::Int64, false),
            field("father_age", DataType::Int64, true),
            field("cigarette_use", DataType::Boolean, false),
            field("weight_gain_pounds", DataType::Int64, true),
            field("apgar_5min", DataType::Int64, false),
        ]))
    }

    /// How many blocks `n_rows` rows take.
    pub(crate) fn n_blocks(n_rows: usize) -> usize {
        n_rows.div_ceil(BLOCK_ROWS)
    }

    /// Block `block` of a table of `n_rows` rows; empty behind the end.
    ///
    /// # Errors
    /// None: the columns are made as [`Births::schema`] says.
    pub(crate) fn block(&self, block: usize, n_rows: usize) -> Result<RecordBatch, ArrowError> {
        let left = n_rows.saturating_sub(block.saturating_mul(BLOCK_ROWS));
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(block as u64);
        let births: Vec<Birth> = (0..left.min(BLOCK_ROWS))
            .map(|_| self.draw(&mut rng))
            .collect();
        rows_of(&births)
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Birth {
        let mother_age = self.age.draw(rng);
        let plurality = if rng.random_bool(multiple_birth(mother_age)) {
            self.higher_order.draw(rng)
        } else {
            1
        };
        let gestation_weeks = self.weeks[(plurality.min(3) - 1) as usize].draw(rng);
        let is_male = rng.random_bool(MALE);
        let cigarette_use = rng.random_bool(SMOKER);
        let weight_pounds = draw_weight(
            rng,
            mother_age,
            plurality,
            gestation_weeks,
            is_male,
            cigarette_use,
        );
        let father_age = (mother_age as f64 + normal(rng, 2.3, 4.7))
            .round()
            .max(12.0) as i64;
        let weight_gain = normal(rng, 30.4, 15.9).round().clamp(0.0, 98.0) as i64;
        Birth {
            weight_pounds,
            is_male,
            mother_age,
            plurality,
            gestation_weeks,
            year: rng.random_range(2001..=2008),
            month: self.month.draw(rng),
            father_age: rng.random_bool(0.91).then_some(father_age),
            cigarette_use,
            weight_gain_pounds: rng.random_bool(0.924).then_some(weight_gain),
            apgar_5min: self.apgar.draw(rng),
        }
    }
}

/// The weight in pounds, on the grid of whole grams that the real column lies on.
fn draw_weight(
    rng: &mut ChaCha8Rng,
    mother_age: i64,
    plurality: i64,
    weeks: i64,
    is_male: bool,
    smokes: bool,
) -> f64 {
    let weeks = weeks as f64;
    let misdated = plurality == 1 && rng.random_bool(interpolate(MISDATED, weeks));
    let true_weeks = if misdated { 39.0 } else { weeks };
    let mean = interpolate(MEAN_WEIGHT, true_weeks);
    let spread = interpolate(SPREAD, true_weeks) * if plurality > 1 { 0.88 } else { 1.0 };

    let size = (mean / 7.5).min(1.0);
    let age = mother_age.clamp(12, 50) as f64 - 27.0;
    let male = f64::from(u8::from(is_male));
    let mut effect =
        -0.008 + size * (0.257 * (male - MALE) + 0.0185 * age - 0.00075 * age * age + 0.0295);
    let crowding = match plurality {
        1 => 0.0,
        2 => 1.22,
        _ => 1.75,
    };
    effect -= size * ((weeks - 26.0) / 8.0).clamp(0.0, 1.0) * crowding;

    // Smoking explains a part of the noise of term singles, so the moments stay those of the table.
    let mut noise_spread = 0.975 * spread;
    if plurality == 1 && true_weeks >= 37.0 {
        effect -= SMOKERS_LOSS * (f64::from(u8::from(smokes)) - SMOKER);
        let explained = SMOKERS_LOSS.powi(2) * SMOKER * (1.0 - SMOKER);
        noise_spread = (noise_spread.powi(2) - explained).sqrt();
    }
    let scale = if rng.random_bool(0.08) { 1.7 } else { 0.915 };
    let z = normal(rng, 0.0, scale);
    let skewed = z + 0.035 * (z * z - 1.0);
    let pounds = (mean + effect + noise_spread * skewed).clamp(0.5, 18.0);
    (pounds * GRAMS_PER_POUND).round() / GRAMS_PER_POUND
}

fn normal(rng: &mut ChaCha8Rng, mean: f64, std_dev: f64) -> f64 {
    let z: f64 = StandardNormal.sample(rng);
    mean + std_dev * z
}

fn multiple_birth(mother_age: i64) -> f64 {
    match mother_age {
        ..=19 => 0.0169,
        20..=24 => 0.0216,
        25..=29 => 0.0316,
        30..=34 => 0.0446,
        35..=39 => 0.0518,
        _ => 0.0728,
    }
}

/// Linear between the anchors, constant outside of them.
fn interpolate(anchors: &[(f64, f64)], x: f64) -> f64 {
    let after = anchors.partition_point(|&(at, _)| at <= x);
    match (
        after.checked_sub(1).and_then(|i| anchors.get(i)),
        anchors.get(after),
    ) {
        (Some(&(x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        (Some(&(_, y)), None) | (None, Some(&(_, y))) => y,
        (None, None) => 0.0,
    }
}

/// Whole numbers with weights that need not add up to 1.
#[derive(Debug)]
struct Table {
    values: &'static [(i64, f64)],
    index: WeightedAliasIndex<f64>,
}

impl Table {
    fn new(values: &'static [(i64, f64)]) -> Result<Self, Error> {
        let index = WeightedAliasIndex::new(values.iter().map(|&(_, weight)| weight).collect())?;
        Ok(Self { values, index })
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> i64 {
        self.values[self.index.sample(rng)].0
    }
}

fn rows_of(births: &[Birth]) -> Result<RecordBatch, ArrowError> {
    let int = |of: fn(&Birth) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(births.iter().map(of)))
    };
    let nullable = |of: fn(&Birth) -> Option<i64>| -> ArrayRef {
        Arc::new(births.iter().map(of).collect::<Int64Array>())
    };
    let boolean = |of: fn(&Birth) -> bool| -> ArrayRef {
        Arc::new(BooleanArray::from_iter(births.iter().map(|b| Some(of(b)))))
    };
    let weights = Float64Array::from_iter_values(births.iter().map(|b| b.weight_pounds));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(weights),
        boolean(|b| b.is_male),
        int(|b| b.mother_age),
        int(|b| b.plurality),
        int(|b| b.gestation_weeks),
        int(|b| b.year),
        int(|b| b.month),
        nullable(|b| b.father_age),
        boolean(|b| b.cigarette_use),
        nullable(|b| b.weight_gain_pounds),
        int(|b| b.apgar_5min),
    ];
    RecordBatch::try_new(Births::schema(), columns)
}

const MALE: f64 = 0.512;
const SMOKER: f64 = 0.117;
/// By how many pounds term singles of smokers are lighter.
const SMOKERS_LOSS: f64 = 0.488;
const GRAMS_PER_POUND: f64 = 453.592_37;

const PLURALITY_OF_MULTIPLES: &[(i64, f64)] = &[(2, 0.9325), (3, 0.0607), (4, 0.0068)];

/// 9, 8 and 10 as published; the rest below is spread by judgement.
#[rustfmt::skip]
const APGAR_5MIN: &[(i64, f64)] = &[
    (9, 0.82), (8, 0.11), (10, 0.03), (7, 0.022), (6, 0.009), (5, 0.004), (4, 0.002), (2, 0.0015), (1, 0.0015),
];

#[rustfmt::skip]
const MONTH: &[(i64, f64)] = &[
    (1, 0.0892), (2, 0.0817), (3, 0.0901), (4, 0.0848), (5, 0.0830), (6, 0.0814),
    (7, 0.0814), (8, 0.0868), (9, 0.0750), (10, 0.0808), (11, 0.0814), (12, 0.0844),
];

#[rustfmt::skip]
const MOTHER_AGE: &[(i64, f64)] = &[
    (12, 0.00003), (13, 0.00024), (14, 0.00139), (15, 0.00398), (16, 0.00973), (17, 0.01632),
    (18, 0.02738), (19, 0.03685), (20, 0.04501), (21, 0.04815), (22, 0.05024), (23, 0.05142),
    (24, 0.05249), (25, 0.05022), (26, 0.05278), (27, 0.05291), (28, 0.05595), (29, 0.05446),
    (30, 0.05448), (31, 0.05082), (32, 0.05009), (33, 0.04376), (34, 0.04051), (35, 0.03549),
    (36, 0.03047), (37, 0.02391), (38, 0.01883), (39, 0.01444), (40, 0.01020), (41, 0.00735),
    (42, 0.00421), (43, 0.00272), (44, 0.00139), (45, 0.00081), (46, 0.00029), (47, 0.00029),
    (48, 0.00016), (49, 0.00010), (50, 0.00005), (51, 0.00005), (52, 0.00003),
];

#[rustfmt::skip]
const WEEKS_SINGLE: &[(i64, f64)] = &[
    (17, 0.00003), (18, 0.00008), (19, 0.00016), (20, 0.00033), (21, 0.00041), (22, 0.00051),
    (23, 0.00073), (24, 0.00081), (25, 0.00103), (26, 0.00106), (27, 0.00122), (28, 0.00154),
    (29, 0.00219), (30, 0.00276), (31, 0.00301), (32, 0.00485), (33, 0.00794), (34, 0.0133),
    (35, 0.02156), (36, 0.04036), (37, 0.08509), (38, 0.18889), (39, 0.25686), (40, 0.20358),
    (41, 0.09777), (42, 0.03134), (43, 0.01623), (44, 0.00878), (45, 0.00428), (46, 0.00209),
    (47, 0.00122),
];

#[rustfmt::skip]
const WEEKS_TWINS: &[(i64, f64)] = &[
    (19, 0.0008), (20, 0.0016), (21, 0.0016), (22, 0.0024), (23, 0.0049), (24, 0.0033),
    (25, 0.0049), (26, 0.0106), (27, 0.0114), (28, 0.0024), (29, 0.0179), (30, 0.0155),
    (31, 0.0179), (32, 0.0423), (33, 0.0513), (34, 0.0911), (35, 0.1457), (36, 0.157),
    (37, 0.1806), (38, 0.1188), (39, 0.0521), (40, 0.0285), (41, 0.013), (42, 0.0106),
    (43, 0.0106), (44, 0.0024), (46, 0.0008),
];

/// Triplets and more.
#[rustfmt::skip]
const WEEKS_MORE: &[(i64, f64)] = &[
    (19, 0.034), (21, 0.022), (25, 0.011), (27, 0.067), (28, 0.135), (29, 0.056),
    (30, 0.157), (31, 0.112), (32, 0.157), (33, 0.056), (34, 0.056), (35, 0.045),
    (36, 0.045), (38, 0.045),
];

/// Singles whose weeks were counted wrong and that are as heavy as at 39 weeks, by recorded week.
#[rustfmt::skip]
const MISDATED: &[(f64, f64)] = &[
    (17.0, 0.0), (26.0, 0.02), (28.0, 0.25), (30.0, 0.25), (33.0, 0.18), (35.0, 0.08), (36.0, 0.0),
];

/// Mean weight in pounds by week.
#[rustfmt::skip]
const MEAN_WEIGHT: &[(f64, f64)] = &[
    (17.0, 0.60), (20.0, 0.74), (22.0, 1.06), (24.0, 1.44), (26.0, 2.05), (28.0, 2.60),
    (30.0, 3.35), (32.0, 4.30), (33.0, 4.80), (34.0, 5.55), (35.0, 6.12), (36.0, 6.508),
    (37.0, 6.889), (38.0, 7.259), (39.0, 7.544), (40.0, 7.716), (41.0, 7.798), (42.0, 7.66),
    (44.0, 7.69), (47.0, 7.53),
];

/// Standard deviation of the weight of singles in pounds by week.
#[rustfmt::skip]
const SPREAD: &[(f64, f64)] = &[
    (17.0, 0.12), (20.0, 0.18), (22.0, 0.25), (24.0, 0.35), (26.0, 0.55), (28.0, 0.65),
    (30.0, 0.80), (32.0, 0.95), (33.0, 1.05), (34.0, 1.15), (35.0, 1.20), (36.0, 1.15),
    (37.0, 1.04), (38.0, 1.01), (39.0, 0.968), (40.0, 0.996), (41.0, 1.015), (42.0, 1.06),
    (44.0, 1.00), (47.0, 1.00),
];
