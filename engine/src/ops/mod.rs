//! Transforms that every pipeline needs, each in a file of its own.

mod count;
mod describe;
mod distinct;
mod filter;
mod group_by;
mod join;
pub mod keyed;
mod map_batches;
mod map_rows;
mod partition;
#[cfg(test)]
pub(crate) mod relational_tests;
mod row_key;
mod sample;
mod select;
mod split_by_hash;
mod top_k;
mod union;
mod with_column;

pub use describe::{ColumnSummary, Describe, Summary};
pub use distinct::Distinct;
pub use filter::Filter;
pub use group_by::{FinalAggregate, GroupedRows, PartialAggregate};
pub use join::{Join, JoinKind, Side};
pub use map_batches::MapBatches;
pub use map_rows::MapRows;
pub(crate) use map_rows::rows_from;
pub use partition::Partition;
pub use sample::{Sample, SampleByKey};
pub use select::Select;
pub use split_by_hash::{SplitByHash, farm_fingerprint};
pub use top_k::TopK;
pub use union::Union;
pub use with_column::WithColumn;
