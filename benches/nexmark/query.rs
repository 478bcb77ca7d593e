//! The queries of Nexmark, as a user of Mainstem writes them; `benches/peers/nexmark_*.py` has them for the peers.
//!
//! What they ask is as in Tucker et al., with the sizes of windows of the suite for Apache Flink
//! (`github.com/nexmark/nexmark`).

use clap::ValueEnum;
use mainstem::engine::aggregates::{avg, max};
use mainstem::engine::ops::{Join, JoinKind};
use mainstem::prelude::*;

use crate::dataset::{Dataset, Format};
use crate::digest::Digest;
use crate::events::Events;
use crate::tally::Tally;

/// How long a window of query 5 is.
pub(crate) const HOT_SIZE_MS: i64 = 10_000;
/// How often a window of query 5 begins.
pub(crate) const HOT_PERIOD_MS: i64 = 2_000;
/// How long a window of query 8 is.
pub(crate) const NEW_USERS_SIZE_MS: i64 = 10_000;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Query {
    /// All bids.
    Q0,
    /// All bids, with their price in another currency.
    Q1,
    /// The bids on one auction in 123.
    Q2,
    /// Auctions of one category by people of three states, with where they live.
    Q3,
    /// The mean price at which auctions of a category have closed.
    Q4,
    /// The auctions with most bids in 10 seconds, every 2 seconds.
    Q5,
    /// The mean price at which the auctions of a seller have closed.
    Q6,
    /// The highest bids of each 10 seconds.
    Q7,
    /// People who have joined and opened an auction in the same 10 seconds.
    Q8,
}

impl Query {
    pub(crate) const ALL: [Self; 9] = [
        Self::Q0,
        Self::Q1,
        Self::Q2,
        Self::Q3,
        Self::Q4,
        Self::Q5,
        Self::Q6,
        Self::Q7,
        Self::Q8,
    ];

    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }

    fn rows(self, events: &Events) -> Result<Collection> {
        Ok(match self {
            Self::Q0 => events.bids().select([
                col("auction"),
                col("bidder"),
                col("price"),
                col("date_time"),
                col("extra"),
            ]),
            Self::Q1 => events.bids().select([
                col("auction"),
                col("bidder"),
                (col("price") * lit(0.908)).alias("price"),
                col("date_time"),
                col("extra"),
            ]),
            Self::Q2 => events
                .bids()
                .filter((col("auction") % lit(123_i64)).eq(lit(0_i64)))
                .select([col("auction"), col("price")]),
            Self::Q3 => {
                let people = events
                    .people()
                    .filter(col("state").in_list(["OR", "ID", "CA"].map(lit).to_vec(), false))
                    .select([col("id"), col("name"), col("city"), col("state")]);
                events
                    .auctions()
                    .filter(col("category").eq(lit(10_i64)))
                    .select([col("seller"), col("id").alias("auction")])
                    .join(&people, JoinKind::Inner, [(col("seller"), col("id"))])
                    .select([col("name"), col("city"), col("state"), col("auction")])
            }
            Self::Q4 => mean_of_closed(events, "category"),
            Self::Q6 => mean_of_closed(events, "seller"),
            _ => return Err(Error::pipeline("the query needs windows")),
        })
    }

    /// Runs the query.
    ///
    /// # Errors
    /// If the run fails.
    pub(crate) fn answer(
        self,
        data: &Dataset,
        format: Format,
        workers: usize,
        hashed: bool,
    ) -> Result<Digest> {
        let pipeline = Pipeline::new(self.name());
        let tally = Tally::new(hashed);
        self.rows(&Events::read(&pipeline, data, format))?
            .write(tally.clone());
        pipeline.run(&RunOptions::new().workers(workers))?;
        Ok(tally.digest())
    }
}

/// The mean price at which auctions have closed, by one of their columns.
fn mean_of_closed(events: &Events, by: &str) -> Collection {
    let bids = events
        .bids()
        .select([col("auction"), col("price"), col("date_time").alias("at")]);
    let while_open = col("at").between(col("date_time"), col("expires"));
    events
        .auctions()
        .select([col("id"), col(by), col("date_time"), col("expires")])
        .join_with(
            &bids,
            Join::new(JoinKind::Inner, [(col("id"), col("auction"))]).filter(while_open),
        )
        .group_by([col("id"), col(by)])
        .agg([max(col("price")).alias("final")])
        .group_by([col(by)])
        .agg([avg(col("final")).alias("mean")])
}
