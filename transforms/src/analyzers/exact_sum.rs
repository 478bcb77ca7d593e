//! A sum of floats without rounding, so that order and grouping cannot be seen in it.

use arrow::array::Int64Array;

const LIMBS: usize = 136;
/// The weight of bit 0 is 2^-BIAS: below the square of the smallest float.
const BIAS: i32 = 68 * 32;
/// Limbs hold signed 64 bits and each addition adds less than 2^33 to one, so carries may wait so long.
const ADDITIONS_BETWEEN_CARRIES: u32 = 1 << 29;

/// An exact sum of finite floats, or of their squares: a fixed-point number of 4,352 bits.
///
/// This is the small superaccumulator of R. M. Neal, "Fast exact summation using small and large
/// superaccumulators" (2015), wide enough for squares. What was added can be taken away again.
#[derive(Clone, Debug)]
pub(crate) struct ExactSum {
    limbs: Box<[i64]>,
    pending: u32,
}

impl ExactSum {
    pub(crate) fn zero() -> Self {
        Self {
            limbs: vec![0; LIMBS].into(),
            pending: 0,
        }
    }

    /// Adds a finite number, or takes it away.
    pub(crate) fn add(&mut self, x: f64, take_away: bool) {
        let (mantissa, exponent) = parts(x);
        self.add_scaled(mantissa, exponent, (x < 0.0) != take_away);
        self.settle();
    }

    /// Adds the square of a finite number, or takes it away.
    pub(crate) fn add_square(&mut self, x: f64, take_away: bool) {
        let (mantissa, exponent) = parts(x);
        let square = u128::from(mantissa) * u128::from(mantissa);
        self.add_scaled(square as u64, 2 * exponent, take_away);
        self.add_scaled((square >> 64) as u64, 2 * exponent + 64, take_away);
        self.settle();
    }

    pub(crate) fn merge(&mut self, mut other: Self) {
        self.carry();
        other.carry();
        for (a, b) in self.limbs.iter_mut().zip(&other.limbs) {
            *a += b;
        }
    }

    fn add_scaled(&mut self, mantissa: u64, exponent: i32, negative: bool) {
        let position = (exponent + BIAS) as usize;
        let (limb, shift) = (position / 32, position % 32);
        let shifted = u128::from(mantissa) << shift;
        let sign = if negative { -1 } else { 1 };
        for (i, limb) in self.limbs[limb..limb + 3].iter_mut().enumerate() {
            *limb += sign * i64::from((shifted >> (32 * i)) as u32);
        }
    }

    fn settle(&mut self) {
        self.pending += 1;
        if self.pending >= ADDITIONS_BETWEEN_CARRIES {
            self.carry();
        }
    }

    /// Makes all limbs but the last non-negative and below 2^32: the one way to write each sum.
    fn carry(&mut self) {
        let mut carry = 0;
        let last = LIMBS - 1;
        for limb in &mut self.limbs[..last] {
            let value = *limb + carry;
            *limb = value & 0xFFFF_FFFF;
            carry = value >> 32;
        }
        self.limbs[last] += carry;
        self.pending = 0;
    }

    /// The limbs, the same for equal sums.
    pub(crate) fn save(&self) -> Int64Array {
        let mut settled = self.clone();
        settled.carry();
        Int64Array::from(settled.limbs.to_vec())
    }

    /// What [`ExactSum::save`] gave; `None` if the length is another.
    pub(crate) fn load(saved: &Int64Array) -> Option<Self> {
        (saved.len() == LIMBS).then(|| Self {
            limbs: saved.values().to_vec().into(),
            pending: 0,
        })
    }

    /// The sign and the size in units of 2^-BIAS.
    fn magnitude(&self) -> (bool, Natural) {
        let mut settled = self.clone();
        settled.carry();
        let negative = settled.limbs[LIMBS - 1] < 0;
        if negative {
            settled.limbs.iter_mut().for_each(|l| *l = -*l);
            settled.carry();
        }
        let mut limbs: Vec<u32> = settled.limbs.iter().map(|l| *l as u32).collect();
        limbs.push((settled.limbs[LIMBS - 1] >> 32) as u32);
        (negative, Natural(limbs))
    }
}

/// The mean of `n` numbers, rounded twice at most.
pub(crate) fn mean(sum: &ExactSum, n: u64) -> f64 {
    let (negative, size) = sum.magnitude();
    let (top, exponent) = size.top(-BIAS);
    let mean = scale(top / n as f64, exponent);
    if negative { -mean } else { mean }
}

/// The mean squared distance from the mean, `(n Σx² - (Σx)²) / n²`: exact up to the last divisions.
pub(crate) fn variance(sum: &ExactSum, squares: &ExactSum, n: u64) -> f64 {
    let (_, sum) = sum.magnitude();
    let (_, squares) = squares.magnitude();
    let spread = squares
        .times(n)
        .shifted((BIAS / 32) as usize)
        .minus(&sum.squared());
    let (top, exponent) = spread.top(-2 * BIAS);
    scale(top / n as f64 / n as f64, exponent)
}

/// A finite float as `mantissa * 2^exponent`, without its sign.
fn parts(x: f64) -> (u64, i32) {
    let bits = x.to_bits();
    let mantissa = bits & ((1 << 52) - 1);
    match ((bits >> 52) & 0x7FF) as i32 {
        0 => (mantissa, -1074),
        biased => (mantissa | (1 << 52), biased - 1075),
    }
}

/// `x * 2^exponent`, in steps that do not overflow before the result does.
fn scale(mut x: f64, mut exponent: i32) -> f64 {
    while exponent != 0 && x != 0.0 && x.is_finite() {
        let step = exponent.clamp(-900, 900);
        x *= 2f64.powi(step);
        exponent -= step;
    }
    x
}

/// A natural number of any size, the lowest 32 bits first.
struct Natural(Vec<u32>);

impl Natural {
    fn times(&self, n: u64) -> Self {
        let mut product = Vec::with_capacity(self.0.len() + 3);
        let mut carry = 0_u128;
        for limb in self.0.iter().chain(&[0, 0, 0]) {
            carry += u128::from(*limb) * u128::from(n);
            product.push(carry as u32);
            carry >>= 32;
        }
        Self(product)
    }

    fn squared(&self) -> Self {
        let n = self.0.len();
        let mut square = vec![0_u32; 2 * n + 1];
        for (i, a) in self.0.iter().enumerate().filter(|(_, a)| **a != 0) {
            let mut carry = 0_u64;
            for (j, b) in self.0.iter().enumerate() {
                carry += u64::from(square[i + j]) + u64::from(*a) * u64::from(*b);
                square[i + j] = carry as u32;
                carry >>= 32;
            }
            square[i + n] = carry as u32;
        }
        Self(square)
    }

    fn shifted(&self, n_limbs: usize) -> Self {
        let mut limbs = vec![0; n_limbs];
        limbs.extend_from_slice(&self.0);
        Self(limbs)
    }

    /// The difference; `other` is not larger, as the mean of squares is not below the squared mean.
    fn minus(&self, other: &Self) -> Self {
        let n = self.0.len().max(other.0.len());
        let at = |limbs: &[u32], i: usize| i64::from(limbs.get(i).copied().unwrap_or(0));
        let mut borrow = 0_i64;
        let limbs = (0..n)
            .map(|i| {
                let value = at(&self.0, i) - at(&other.0, i) + borrow;
                borrow = value >> 32;
                value as u32
            })
            .collect();
        Self(limbs)
    }

    /// The number as a float and a power of two; `unit` is the power of its lowest bit.
    fn top(&self, unit: i32) -> (f64, i32) {
        let Some(high) = self.0.iter().rposition(|l| *l != 0) else {
            return (0.0, 0);
        };
        let low = high.saturating_sub(2);
        let three = self.0[low..=high]
            .iter()
            .rev()
            .fold(0_u128, |n, l| (n << 32) | u128::from(*l));
        let rest = self.0[..low].iter().any(|l| *l != 0);
        // The lowest of at least 65 bits only breaks ties, so what lies below it may be folded in.
        let top = (three << 1) | u128::from(rest);
        (top as f64, unit + 32 * low as i32 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(xs: &[f64]) -> (ExactSum, ExactSum) {
        let (mut sum, mut squares) = (ExactSum::zero(), ExactSum::zero());
        for x in xs {
            sum.add(*x, false);
            squares.add_square(*x, false);
        }
        (sum, squares)
    }

    #[test]
    fn what_cancels_leaves_nothing() {
        let (sum, _) = sums(&[1e300, 1.0, -1e300, 1e-300, -1.0]);
        assert_eq!(mean(&sum, 1), 1e-300);
        let (sum, squares) = sums(&[1e9, 1e9 + 1.0, 1e9 + 2.0]);
        assert_eq!(mean(&sum, 3), 1e9 + 1.0);
        // numpy.var of the three numbers minus 1e9.
        assert_eq!(variance(&sum, &squares, 3), 2.0 / 3.0);
    }

    #[test]
    fn extremes_fit() {
        let (sum, squares) = sums(&[f64::MAX, f64::MAX, -f64::MAX, f64::MIN_POSITIVE, 5e-324]);
        assert!(mean(&sum, 5) > 0.0);
        assert_eq!(variance(&sum, &squares, 5), f64::INFINITY);
        let (sum, squares) = sums(&[-5e-324, 5e-324]);
        assert_eq!((mean(&sum, 2), variance(&sum, &squares, 2)), (0.0, 0.0));
        let (sum, squares) = sums(&[1e-150, -1e-150]);
        assert_eq!(variance(&sum, &squares, 2), 1e-150 * 1e-150);
    }

    proptest! {
        #[test]
        fn order_cannot_be_seen_and_taking_away_undoes(
            xs in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO, 1..40)
        ) {
            let (sum, squares) = sums(&xs);
            let mut reversed = xs.clone();
            reversed.reverse();
            let (back, back_squares) = sums(&reversed);
            prop_assert_eq!(sum.save(), back.save());
            prop_assert_eq!(squares.save(), back_squares.save());
            let mut empty = sum.clone();
            for x in &xs {
                empty.add(*x, true);
            }
            prop_assert_eq!(empty.save(), ExactSum::zero().save());
        }
    }
}
