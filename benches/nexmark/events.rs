//! The events as collections of people, auctions and bids, each with its event time.

use std::time::Duration;

use mainstem::engine::ops::Watermarks;
use mainstem::prelude::*;

use crate::dataset::{Dataset, Format};
use crate::generator::{self, AUCTION, BID, PERSON};

/// How much an event may stand behind later ones, as the suite for Flink has it.
const DISORDER: Duration = Duration::from_secs(4);

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

    pub(crate) fn people(&self) -> Collection {
        self.of_kind(PERSON, "p_", &["id", "name", "city", "state"])
    }

    pub(crate) fn auctions(&self) -> Collection {
        self.of_kind(AUCTION, "a_", &["id", "seller", "category", "expires"])
    }

    pub(crate) fn bids(&self) -> Collection {
        self.of_kind(BID, "b_", &["auction", "bidder", "price", "extra"])
    }

    fn of_kind(&self, kind: i32, prefix: &str, columns: &[&str]) -> Collection {
        let column = |name: &&str| col(format!("{prefix}{name}")).alias(*name);
        let columns = std::iter::once(col("date_time")).chain(columns.iter().map(column));
        self.rows
            .filter(col("kind").eq(lit(kind)))
            .select(columns)
            .assign_timestamps(col("date_time"), self.watermarks.clone())
    }
}
