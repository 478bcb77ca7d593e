//! The events as collections of people, auctions and bids, each with its event time.

use std::time::Duration;

use mainstem::engine::ops::Watermarks;
use mainstem::prelude::*;

use crate::dataset::{Dataset, Format};
use crate::generator::{self, AUCTION, BID, PERSON};

/// How much an event may stand behind later ones, as the suite for Flink has it.
pub(crate) const DISORDER: Duration = Duration::from_secs(4);

/// The events of a dataset in a pipeline.
pub(crate) struct Events {
    rows: Collection,
    watermarks: Watermarks,
}

impl Events {
    pub(crate) fn read(pipeline: &Pipeline, data: &Dataset, format: Format) -> Self {
        let folder = data.folder(format);
        let watermarks = Watermarks::bounded_out_of_orderness(DISORDER);
        match format {
            Format::Parquet => Self {
                rows: pipeline.read("events", connectors::parquet(folder)),
                watermarks: watermarks.splits_in_order(true),
            },
            Format::Csv => {
                // One reader for each file, from the first event to the last.
                let files = connectors::csv(folder).split_bytes(u64::MAX);
                let files = files.schema(generator::schema()).quoting(false);
                Self {
                    rows: pipeline.read("events", files),
                    watermarks,
                }
            }
        }
    }

    /// These columns of the people, without the `p_` before their names.
    pub(crate) fn people<const N: usize>(&self, columns: [&str; N]) -> Collection {
        self.of_kind(PERSON, "p_", &columns)
    }

    /// These columns of the auctions, without the `a_` before their names.
    pub(crate) fn auctions<const N: usize>(&self, columns: [&str; N]) -> Collection {
        self.of_kind(AUCTION, "a_", &columns)
    }

    /// These columns of the bids, without the `b_` before their names.
    pub(crate) fn bids<const N: usize>(&self, columns: [&str; N]) -> Collection {
        self.of_kind(BID, "b_", &columns)
    }

    /// The events of a kind, as these columns, `date_time` in milliseconds since 1970, and `event_time`.
    ///
    /// A select makes all of its columns, so a query asks for those alone that it needs.
    fn of_kind(&self, kind: i32, prefix: &str, columns: &[&str]) -> Collection {
        let columns = columns
            .iter()
            .map(|name| col(format!("{prefix}{name}")).alias(*name));
        self.rows
            .filter(col("kind").eq(lit(kind)))
            .select(columns.chain([col("date_time")]))
            .assign_timestamps(col("date_time"), self.watermarks.clone())
    }
}
