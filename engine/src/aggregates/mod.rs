//! Aggregates: many values to one, for [`agg`](crate::Collection::agg) and [`group_by`](crate::Collection::group_by).
//!
//! All are DataFusion's, by its names, as expressions: `avg(col("delay") + lit(1)).alias("mean")`.
//! Options come from [`AggregateExt`]: `sum(col("x")).filter(col("y").gt(lit(0))).build()`,
//! `array_agg(col("x")).order_by(vec![col("t").sort(true, false)]).build()`, and `.distinct()`.
//! What is computed from aggregates is an aggregate too: `sum(col("a")) / sum(col("b"))`.
//!
//! **Nulls** are left out by all but `count(lit(1))`, `array_agg`, `first_value` and `last_value`; the
//! result over no value is null, of counts it is 0.
//!
//! **Sums of integers** are Int64 (of unsigned ones UInt64), sums of decimals have up to ten digits more than their
//! values, and both are exact, as are sums of durations: one that does not fit ends the run with an error that names
//! the group, whatever the order of the rows. So does one of distinct values.
//!
//! **Least and greatest** floats: NaN is greater than every number, as in DuckDB and PostgreSQL, and 0.0 stands for
//! -0.0 too.
//!
//! **Floats** are added in the order in which rows arrive, so the last bits of sums, means, variances and
//! the like may differ from run to run where there are several workers or splits, as may what
//! `approx_percentile_cont` and `approx_median` estimate. Counts, minima, maxima, integers, decimals,
//! medians and distinct counts (`approx_distinct` as well) are equal in every run.
//!
//! **Order.** `first_value` and `last_value` need an order, or the answer would depend on timing; rows
//! equal under that order are interchangeable. `array_agg` without one holds its values in any order.

mod analyzed;

use datafusion_expr::Expr;

pub use analyzed::analyzed;

pub use datafusion_expr::ExprFunctionExt as AggregateExt;
use datafusion_expr::SortExpr;
pub use datafusion_functions_aggregate::expr_fn::{
    any_value, approx_distinct, approx_median, approx_percentile_cont,
    approx_percentile_cont_with_weight, array_agg, avg, avg_distinct, bit_and, bit_or, bit_xor,
    bool_and, bool_or, corr, count, count_distinct, covar_pop, covar_samp, max, median, min,
    percentile_cont, regr_avgx, regr_avgy, regr_count, regr_intercept, regr_r2, regr_slope,
    regr_sxx, regr_sxy, regr_syy, stddev, stddev_pop, sum, sum_distinct, var_pop, var_sample,
};

/// The value of `value` in the row that comes first under `order`, null included.
///
/// ```
/// use mainstem_engine::aggregates::first_value;
/// use mainstem_engine::col;
/// let earliest = first_value(col("state"), vec![col("time").sort(true, false)]);
/// ```
pub fn first_value(value: Expr, order: Vec<SortExpr>) -> Expr {
    datafusion_functions_aggregate::expr_fn::first_value(value, order)
}

/// The value of `value` in the row that comes last under `order`, null included.
pub fn last_value(value: Expr, order: Vec<SortExpr>) -> Expr {
    datafusion_functions_aggregate::expr_fn::last_value(value, order)
}
