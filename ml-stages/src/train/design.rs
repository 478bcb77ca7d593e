//! The columns of a linear model, and least squares over them.

use mainstem_engine::{Error, Result};
use mainstem_transforms::{FeatureKind, FeatureLayout};
use nalgebra::{Cholesky, DMatrix, DVector};

/// The most columns of a linear model: the normal equations take the square of it in memory.
pub(crate) const MAX_COLUMNS: usize = 4_096;

/// Added to each diagonal of the normal equations but the intercept's, relative to it.
///
/// It picks one of the many equal solutions where columns depend on each other, as a full set of
/// one-hot columns and the intercept do.
const RELATIVE_RIDGE: f64 = 1e-10;

/// Checks a penalty.
pub(crate) fn check_l2(l2: f64) -> Result<()> {
    if l2.is_finite() && l2 >= 0.0 {
        return Ok(());
    }
    Err(Error::pipeline(format!("l2 must be 0 or more, found {l2}")))
}

/// The row of the weight table of a feature that an index stands for.
///
/// Row 0 is for values without a category, which are -1. An index past the end is taken as the last.
pub(crate) fn table_row(index: f32, depth: usize) -> usize {
    (index as i64).clamp(-1, depth as i64 - 1).wrapping_add(1) as usize
}

/// A value of a row that is not zero.
pub(crate) type Entry = (usize, f64);

/// A row of features as the sparse columns of a linear model.
///
/// Column 0 is the intercept. Numbers keep their column, less their value in the first row so that
/// large values of little spread keep their digits. An index becomes as many columns as it has
/// categories, and one for no category.
pub(crate) struct Design {
    features: Vec<(usize, FeatureKind, usize)>,
    origin: Vec<f64>,
    n_columns: usize,
}

impl Design {
    pub(crate) fn new(layout: &FeatureLayout) -> Result<Self> {
        let mut n_columns = 1;
        let mut widest: Option<(&str, usize)> = None;
        let mut features = Vec::new();
        for column in layout.columns() {
            features.push((column.offset, column.kind, n_columns));
            let width = match column.kind {
                FeatureKind::Index { depth } => depth + 1,
                kind => kind.width(),
            };
            n_columns += width;
            if widest.is_none_or(|(_, w)| width > w) {
                widest = Some((&column.name, width));
            }
        }
        if n_columns > MAX_COLUMNS {
            let (name, width) = widest.unwrap_or_default();
            return Err(Error::pipeline(format!(
                "a linear model takes at most {MAX_COLUMNS} columns, the features make {n_columns}"
            ))
            .with_detail(format!("Feature {name:?} alone makes {width}."))
            .with_hint("Keep fewer categories, or train WideAndDeep, which has no such limit."));
        }
        Ok(Self {
            features,
            origin: Vec::new(),
            n_columns,
        })
    }

    pub(crate) fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// The entries of a row, by column; the first row of all sets the origin.
    pub(crate) fn expand(&mut self, row: &[f32], entries: &mut Vec<Entry>) {
        if self.origin.is_empty() {
            self.origin = row.iter().map(|x| f64::from(*x)).collect();
        }
        entries.clear();
        entries.push((0, 1.0));
        for &(offset, kind, first) in &self.features {
            match kind {
                FeatureKind::Number => {
                    let x = f64::from(row[offset]) - self.origin[offset];
                    entries.push((first, x));
                }
                FeatureKind::OneHot { depth } => entries.extend(
                    row[offset..offset + depth]
                        .iter()
                        .enumerate()
                        .filter(|(_, x)| **x != 0.0)
                        .map(|(i, x)| (first + i, f64::from(*x))),
                ),
                FeatureKind::Index { depth } => {
                    entries.push((first + table_row(row[offset], depth), 1.0));
                }
            }
        }
    }

    /// The model in terms of the features as they are.
    pub(crate) fn coefficients(&self, solution: &[f64]) -> Coefficients {
        let mut intercept = solution.first().copied().unwrap_or(0.0);
        let mut columns = Vec::new();
        for &(offset, kind, first) in &self.features {
            match kind {
                FeatureKind::Number => {
                    let origin = self.origin.get(offset).copied().unwrap_or(0.0);
                    intercept -= solution[first] * origin;
                    columns.push(solution[first..=first].to_vec());
                }
                FeatureKind::OneHot { depth } => {
                    columns.push(solution[first..first + depth].to_vec());
                }
                FeatureKind::Index { depth } => {
                    columns.push(solution[first..=first + depth].to_vec());
                }
            }
        }
        Coefficients { intercept, columns }
    }
}

/// What a linear model has learned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Coefficients {
    pub(crate) intercept: f64,
    /// For each feature a value per column; for an index first that of no category.
    pub(crate) columns: Vec<Vec<f64>>,
}

/// Weighted sums of products of columns, and of columns with a target.
pub(crate) struct NormalEquations {
    n: usize,
    /// The upper triangle is kept.
    products: DMatrix<f64>,
    targets: DVector<f64>,
}

impl NormalEquations {
    pub(crate) fn new(n_columns: usize) -> Self {
        Self {
            n: n_columns,
            products: DMatrix::zeros(n_columns, n_columns),
            targets: DVector::zeros(n_columns),
        }
    }

    /// Adds a row: `weight` times its products, and `target` times its entries.
    pub(crate) fn add(&mut self, entries: &[Entry], weight: f64, target: f64) {
        let products = self.products.as_mut_slice();
        for (at, &(j, xj)) in entries.iter().enumerate() {
            self.targets[j] += target * xj;
            let scaled = weight * xj;
            // Entries are in order of their columns, so these stand above the diagonal of column j.
            let column = &mut products[j * self.n..(j + 1) * self.n];
            for &(i, xi) in &entries[..=at] {
                column[i] += scaled * xi;
            }
        }
    }

    /// Penalises the squares of all coefficients but the intercept: at `current`, by `l2 / 2` each.
    pub(crate) fn penalise(&mut self, l2: f64, current: &[f64]) {
        for (j, coefficient) in current.iter().enumerate().skip(1) {
            self.products[(j, j)] += l2;
            self.targets[j] -= l2 * coefficient;
        }
    }

    pub(crate) fn targets(&self) -> &DVector<f64> {
        &self.targets
    }

    /// The coefficients that solve the equations.
    pub(crate) fn solve(mut self) -> Result<Vec<f64>> {
        // To a diagonal of ones: columns of very different size are then alike.
        let scale: Vec<f64> = (0..self.n)
            .map(|j| self.products[(j, j)])
            .map(|d| if d > 0.0 { d.sqrt().recip() } else { 0.0 })
            .collect();
        for j in 0..self.n {
            for i in 0..j {
                let product = self.products[(i, j)] * scale[i] * scale[j];
                self.products[(i, j)] = product;
                self.products[(j, i)] = product;
            }
            // The intercept is free, or a large label would be drawn to 0.
            self.products[(j, j)] = if j == 0 { 1.0 } else { 1.0 + RELATIVE_RIDGE };
            self.targets[j] *= scale[j];
        }
        let factors = Cholesky::new(self.products).ok_or_else(|| {
            Error::data("the features are too large or too alike for a linear model")
                .with_hint("Scale them by `scale_to_z_score`, or raise `l2`.")
        })?;
        let solution = factors.solve(&self.targets);
        Ok(solution.iter().zip(&scale).map(|(b, s)| b * s).collect())
    }
}
