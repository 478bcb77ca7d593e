//! Transforms that every pipeline needs, each in a file of its own.

mod as_changelog;
mod assign_timestamps;
#[cfg(test)]
mod bad_row_tests;
mod by_instant;
mod changes;
mod consolidate;
mod count;
mod describe;
mod distinct;
mod filter;
mod good_rows;
mod group_by;
#[cfg(test)]
mod guarded_tests;
mod join;
mod key_columns;
pub mod keyed;
#[cfg(test)]
mod late_ports_tests;
mod map_batches;
mod map_rows;
mod partition;
#[cfg(test)]
pub(crate) mod relational_tests;
mod rounds;
mod row_key;
mod rows_by_time;
mod sample;
mod select;
mod side_input;
mod split_by_hash;
mod time_join;
mod top_k;
mod union;
mod upserts;
mod with_column;
mod with_timestamps;

pub use as_changelog::AsChangelog;
pub use assign_timestamps::{AssignTimestamps, Watermarks};
pub use changes::Changes;
pub use consolidate::Consolidate;
pub use describe::{ColumnSummary, Describe, Summary};
pub use distinct::Distinct;
pub use filter::Filter;
pub(crate) use group_by::{Aggregation, End, Retraction};
pub use group_by::{
    FinalAggregate, GroupedRows, PartialAggregate, WindowedFinalAggregate, WindowedPartialAggregate,
};
pub use join::{Join, JoinKind, Side};
pub(crate) use join::{JoinColumn, join_columns};
use join::{LOT_BYTES, Lot, Widths};
pub use map_batches::MapBatches;
pub use map_rows::MapRows;
pub(crate) use map_rows::{fields_of, rows_from, to_rows};
pub use partition::Partition;
pub use rounds::Rounds;
pub(crate) use row_key::check_key;
pub(crate) use rows_by_time::{watermark_of, watermark_part};
pub use sample::{Sample, SampleByKey};
pub use select::Select;
pub use side_input::{SideInput, WithSideInput};
pub use split_by_hash::{SplitByHash, farm_fingerprint};
pub use time_join::{AsOf, IntervalJoin, LookUp, WindowedJoin};
pub use top_k::TopK;
pub use union::Union;
pub use upserts::Upserts;
pub use with_column::WithColumn;
pub use with_timestamps::WithTimestamps;
