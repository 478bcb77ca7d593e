//! What the statistics of row groups and pages say of the rows in them.
//!
//! Minima and maxima may be cut short or missing, and never speak of NaN. What cannot be trusted, such
//! as the order of text in files of old writers, is taken as not known.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::interval_arithmetic::{Interval, NullableInterval};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::basic::{SortOrder, Type};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use super::footers::n_rows;
use super::ranges::Ranges;
use crate::predicate::{Known, Predicate};

/// Bounds of a column in many parts of a file.
struct Bounds {
    mins: ArrayRef,
    maxes: ArrayRef,
    n_nulls: UInt64Array,
    /// False where the order of minima and maxima is not known.
    ordered: Vec<bool>,
}

impl Bounds {
    /// What is known of part `i`, which holds so many rows.
    fn known(&self, i: usize, n_rows: u64) -> Known {
        let n_nulls = self.n_nulls.is_valid(i).then(|| self.n_nulls.value(i));
        let datatype = self.mins.data_type().clone();
        if n_nulls == Some(n_rows) {
            return Some(NullableInterval::Null { datatype });
        }
        let ends = || {
            let min = ScalarValue::try_from_array(&self.mins, i).ok()?;
            let max = ScalarValue::try_from_array(&self.maxes, i).ok()?;
            Interval::try_new(below_zero(min), above_zero(max)).ok()
        };
        let bounded = if self.ordered[i] { ends() } else { None };
        let values = match bounded {
            Some(values) => values,
            None => Interval::make_unbounded(&datatype).ok()?,
        };
        Some(match n_nulls {
            Some(0) => NullableInterval::NotNull { values },
            _ => NullableInterval::MaybeNull { values },
        })
    }
}

/// Writers may take the two zeros for one: a smallest zero may stand for the negative one.
fn below_zero(min: ScalarValue) -> ScalarValue {
    match min {
        ScalarValue::Float32(Some(0.0)) => ScalarValue::Float32(Some(-0.0)),
        ScalarValue::Float64(Some(0.0)) => ScalarValue::Float64(Some(-0.0)),
        other => other,
    }
}

/// As [`below_zero`], for the largest value.
fn above_zero(max: ScalarValue) -> ScalarValue {
    // This makes 0.0 of -0.0 and leaves all others as they are.
    match max {
        ScalarValue::Float32(Some(x)) => ScalarValue::Float32(Some(x + 0.0)),
        ScalarValue::Float64(Some(x)) => ScalarValue::Float64(Some(x + 0.0)),
        other => other,
    }
}

/// For each row group, whether it may hold a row for which the predicate is true.
///
/// `constant` tells of columns that are not in the file.
pub(super) fn row_groups_that_may_hold(
    footer: &ArrowReaderMetadata,
    predicate: &Predicate,
    constant: impl Fn(&str) -> Known,
) -> Vec<bool> {
    let groups = footer.metadata().row_groups();
    let columns: HashMap<&str, Bounds> = predicate
        .columns()
        .filter_map(|name| Some((name, bounds_of_groups(footer, predicate, name)?)))
        .collect();
    groups
        .iter()
        .enumerate()
        .map(|(i, group)| {
            let n_rows = n_rows(group);
            n_rows > 0
                && predicate.may_hold(|name| match columns.get(name) {
                    Some(bounds) => constant(name).or_else(|| bounds.known(i, n_rows)),
                    None => constant(name),
                })
        })
        .collect()
}

/// The rows of row group `group` that may make the predicate true, from the pages they stand in.
///
/// The footer must hold the page index; all rows where it does not.
pub(super) fn rows_that_may_hold(
    footer: &ArrowReaderMetadata,
    group: usize,
    predicate: &Predicate,
    constant: impl Fn(&str) -> Known,
) -> Ranges {
    let n_rows = n_rows(footer.metadata().row_group(group));
    let columns: HashMap<&str, Pages> = predicate
        .columns()
        .filter(|name| constant(name).is_none())
        .filter_map(|name| Some((name, Pages::of(footer, group, predicate, name, n_rows)?)))
        .collect();
    // Between two of these rows each column is in one page.
    let mut ends: Vec<u64> = columns
        .values()
        .flat_map(|p| &p.first_rows)
        .copied()
        .collect();
    ends.extend([0, n_rows]);
    ends.sort_unstable();
    ends.dedup();
    let mut kept = Ranges::default();
    for rows in ends.windows(2).map(|ends| ends[0]..ends[1]) {
        let known = |name: &str| match columns.get(name) {
            Some(pages) => pages.known(rows.start),
            None => constant(name),
        };
        if predicate.may_hold(known) {
            kept.push(rows);
        }
    }
    kept
}

/// The pages of a column in one row group.
struct Pages {
    first_rows: Vec<u64>,
    rows: Vec<Range<u64>>,
    bounds: Bounds,
}

impl Pages {
    fn of(
        footer: &ArrowReaderMetadata,
        group: usize,
        predicate: &Predicate,
        name: &str,
        n_rows: u64,
    ) -> Option<Self> {
        let metadata = footer.metadata();
        let (pages, places) = (metadata.column_index()?, metadata.offset_index()?);
        let converter = converter(footer, name)?;
        let leaf = converter.parquet_column_index()?;
        let (of_column, places_of_column) =
            (pages.get(group)?.get(leaf)?, places.get(group)?.get(leaf)?);
        let first_rows: Vec<u64> = places_of_column
            .page_locations()
            .iter()
            .map(|page| u64::try_from(page.first_row_index).ok())
            .collect::<Option<_>>()?;
        let n_pages = first_rows.len();
        let ordered = first_rows.first() == Some(&0)
            && first_rows.windows(2).all(|w| w[0] < w[1])
            && first_rows.last() < Some(&n_rows)
            && !matches!(of_column, ColumnIndexMetaData::NONE)
            && of_column.num_pages() == n_pages as u64
            && of_column.null_counts().is_none_or(|n| n.len() == n_pages);
        if !ordered {
            return None;
        }
        let groups = [group];
        let mins = converter.data_page_mins(pages, places, &groups).ok()?;
        let maxes = converter.data_page_maxes(pages, places, &groups).ok()?;
        let n_nulls = converter
            .data_page_null_counts(pages, places, &groups)
            .ok()?;
        let order = metadata
            .file_metadata()
            .schema_descr()
            .column(leaf)
            .sort_order();
        let ends = first_rows.iter().skip(1).chain([&n_rows]);
        Some(Self {
            rows: first_rows.iter().zip(ends).map(|(a, b)| *a..*b).collect(),
            bounds: bounds(
                predicate,
                name,
                mins,
                maxes,
                n_nulls,
                vec![order != SortOrder::UNDEFINED; n_pages],
            )?,
            first_rows,
        })
    }

    fn known(&self, row: u64) -> Known {
        let page = self
            .first_rows
            .partition_point(|first| *first <= row)
            .checked_sub(1)?;
        let rows = &self.rows[page];
        self.bounds.known(page, rows.end - rows.start)
    }
}

fn bounds_of_groups(
    footer: &ArrowReaderMetadata,
    predicate: &Predicate,
    name: &str,
) -> Option<Bounds> {
    let converter = converter(footer, name)?;
    let leaf = converter.parquet_column_index()?;
    let groups = footer.metadata().row_groups();
    let (mins, maxes) = (
        converter.row_group_mins(groups).ok()?,
        converter.row_group_maxes(groups).ok()?,
    );
    let n_nulls = converter.row_group_null_counts(groups).ok()?;
    let ordered = groups.iter().map(|group| is_ordered(group, leaf)).collect();
    bounds(predicate, name, mins, maxes, n_nulls, ordered)
}

fn converter<'a>(footer: &'a ArrowReaderMetadata, name: &str) -> Option<StatisticsConverter<'a>> {
    let converter =
        StatisticsConverter::try_new(name, footer.schema(), footer.parquet_schema()).ok()?;
    Some(converter.with_missing_null_counts_as_zero(false))
}

/// Bounds of the type that the predicate reads; `None` if there is no way there or parts are missing.
fn bounds(
    predicate: &Predicate,
    name: &str,
    mins: ArrayRef,
    maxes: ArrayRef,
    n_nulls: UInt64Array,
    ordered: Vec<bool>,
) -> Option<Bounds> {
    let data_type = predicate.data_type(name)?;
    let as_read = |array: ArrayRef| match array.data_type() == data_type {
        true => Some(array),
        false if is_text(array.data_type()) && is_text(data_type) => cast(&array, data_type).ok(),
        false => None,
    };
    let (mins, maxes) = (as_read(mins)?, as_read(maxes)?);
    let n = ordered.len();
    (mins.len() == n && maxes.len() == n && n_nulls.len() == n).then_some(Bounds {
        mins,
        maxes,
        n_nulls,
        ordered,
    })
}

fn is_text(data_type: &DataType) -> bool {
    use DataType::{LargeUtf8, Utf8, Utf8View};
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, Utf8 | LargeUtf8 | Utf8View),
    }
}

/// False where minima and maxima were found in an order that is not that of the column's type.
///
/// The first version of the format compared all bytes as signed numbers.
fn is_ordered(group: &RowGroupMetaData, leaf: usize) -> bool {
    let column = group.column(leaf);
    let is_old = column
        .statistics()
        .is_some_and(Statistics::is_min_max_deprecated);
    let in_bytes = matches!(
        column.column_type(),
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY | Type::INT96
    );
    match column.column_descr().sort_order() {
        SortOrder::SIGNED => !is_old || !in_bytes,
        SortOrder::UNSIGNED => !is_old,
        SortOrder::UNDEFINED => false,
    }
}
