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

    /// The people, as `person`, `name`, `city` and `state`.
    pub(crate) fn people(&self) -> Collection {
        let columns = [
            col("p_id").alias("person"),
            col("p_name").alias("name"),
            col("p_city").alias("city"),
            col("p_state").alias("state"),
        ];
        self.of_kind(PERSON, columns)
    }

    /// The auctions, as `auction`, `seller`, `category` and `expires`.
    pub(crate) fn auctions(&self) -> Collection {
        let columns = [
            col("a_id").alias("auction"),
            col("a_seller").alias("seller"),
            col("a_category").alias("category"),
            col("a_expires").alias("expires"),
        ];
        self.of_kind(AUCTION, columns)
    }

    /// The bids, as `auction`, `bidder`, `price` and `extra`.
    pub(crate) fn bids(&self) -> Collection {
        let columns = [
            col("b_auction").alias("auction"),
            col("b_bidder").alias("bidder"),
            col("b_price").alias("price"),
            col("b_extra").alias("extra"),
        ];
        self.of_kind(BID, columns)
    }

    /// The events of a kind, as these columns, `date_time` in milliseconds since 1970, and `event_time`.
    fn of_kind(&self, kind: i32, columns: [Expr; 4]) -> Collection {
        self.rows
            .filter(col("kind").eq(lit(kind)))
            .select(columns.into_iter().chain([col("date_time")]))
            .assign_timestamps(col("date_time"), self.watermarks.clone())
    }
}
