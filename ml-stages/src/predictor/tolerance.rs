//! How far two scores of one row may lie apart.

/// The largest relative difference between scores of two back-ends, or of two ways through one.
pub const SCORE_TOLERANCE: f64 = 1e-5;

/// The difference of two scores relative to the larger of them, and to no less than `floor`.
///
/// Zero for equal bits; infinite if one of them is not a number.
pub(crate) fn relative_difference(a: f32, b: f32, floor: f64) -> f64 {
    if a.to_bits() == b.to_bits() {
        return 0.0;
    }
    let (a, b) = (f64::from(a), f64::from(b));
    let difference = (a - b).abs();
    if !difference.is_finite() {
        f64::INFINITY
    } else if difference == 0.0 {
        0.0
    } else {
        difference / a.abs().max(b.abs()).max(floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_relative_to_the_larger_or_to_the_floor() {
        assert_eq!(relative_difference(1.0, 0.5, 0.0), 0.5);
        assert_eq!(relative_difference(0.25, -0.25, 1.0), 0.5);
        assert_eq!(relative_difference(0.0, -0.0, 0.0), 0.0);
        assert_eq!(relative_difference(f32::NAN, f32::NAN, 0.0), 0.0);
        assert_eq!(relative_difference(f32::NAN, 1.0, 0.0), f64::INFINITY);
    }
}
