//! The queries of Nexmark, as a user of Mainstem writes them; `benches/peers/nexmark_*.py` has them for the peers.
//!
//! What they ask is as in Tucker et al., with the sizes of windows of the suite for Apache Flink
//! (`github.com/nexmark/nexmark`).

use std::time::Duration;

use arrow::datatypes::DataType;
use clap::ValueEnum;
use mainstem::engine::aggregates::{avg, count, max};
use mainstem::engine::expression::cast;
use mainstem::engine::ops::{AsOf, IntervalJoin, JoinKind, SideInput, WindowedJoin};
use mainstem::engine::{Accumulation, Trigger, Windowing};
use mainstem::prelude::*;

use crate::dataset::{Dataset, Format};
use crate::digest::Digest;
use crate::events::Events;
use crate::tally::Tally;

/// How long a window of query 5 is, and how often one begins.
pub(crate) const HOT_SIZE: Duration = Duration::from_secs(10);
pub(crate) const HOT_PERIOD: Duration = Duration::from_secs(2);
/// How long a window of query 7 is.
const HIGHEST_SIZE: Duration = Duration::from_secs(10);
/// How long a window of query 8 is.
pub(crate) const NEW_USERS_SIZE: Duration = Duration::from_secs(10);

const BID_COLUMNS: [&str; 4] = ["auction", "bidder", "price", "extra"];

/// The generator lets no auction be open for longer.
const LONGEST_AUCTION: Duration = Duration::from_secs(1);
/// Auctions that close within the same second are told together.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// Nor anyone open an auction this long after, or before, they have joined.
const SELLERS_JOIN: Duration = Duration::from_secs(10);

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

    fn rows(self, events: &Events) -> Collection {
        match self {
            Self::Q0 => events.bids(BID_COLUMNS).select([
                col("auction"),
                col("bidder"),
                col("price"),
                col("date_time"),
                col("extra"),
            ]),
            Self::Q1 => events.bids(BID_COLUMNS).select([
                col("auction"),
                col("bidder"),
                (col("price") * lit(0.908)).alias("price"),
                col("date_time"),
                col("extra"),
            ]),
            Self::Q2 => events
                .bids(["auction", "price"])
                .filter((col("auction") % lit(123_i64)).eq(lit(0_i64)))
                .select([col("auction"), col("price")]),
            Self::Q3 => {
                let people = events
                    .people(["id", "name", "city", "state"])
                    .filter(col("state").in_list(["OR", "ID", "CA"].map(lit).to_vec(), false));
                // Sellers have joined a moment before or after.
                let join = IntervalJoin::new(JoinKind::Inner, [(col("seller"), col("id"))])
                    .before(SELLERS_JOIN)
                    .after(SELLERS_JOIN);
                events
                    .auctions(["id", "seller", "category"])
                    .filter(col("category").eq(lit(10_i64)))
                    .select([col("seller"), col("id").alias("auction"), col("event_time")])
                    .join_interval(&people, join)
                    .select([col("name"), col("city"), col("state"), col("auction")])
            }
            Self::Q4 => mean_of_closed(events, "category"),
            Self::Q5 => {
                let counts = events
                    .bids(["auction"])
                    .window(Windowing::sliding(HOT_SIZE, HOT_PERIOD))
                    .group_by([col("auction")])
                    .agg([count(lit(1)).alias("n")])
                    // One window ends in each of these.
                    .window(Windowing::fixed(HOT_PERIOD));
                let most = counts.agg([max(col("n")).alias("most")]);
                let of_window = counts.with_side_input(&most, SideInput::singleton().in_step());
                let start = millis(col("window_end")) - lit(HOT_SIZE.as_millis() as i64);
                of_window.filter(col("n").eq(col("most"))).select([
                    col("auction"),
                    col("n"),
                    start.alias("window_start"),
                ])
            }
            Self::Q6 => mean_of_closed(events, "seller"),
            Self::Q7 => {
                let bids = events
                    .bids(BID_COLUMNS)
                    .window(Windowing::fixed(HIGHEST_SIZE));
                let most = bids.agg([max(col("price")).alias("most")]);
                let of_window = bids.with_side_input(&most, SideInput::singleton().in_step());
                let highest = of_window.filter(col("price").eq(col("most")));
                highest.select([
                    col("auction"),
                    col("price"),
                    col("bidder"),
                    col("date_time"),
                    col("extra"),
                ])
            }
            Self::Q8 => {
                let windows = Windowing::fixed(NEW_USERS_SIZE);
                let people = events
                    .people(["id", "name"])
                    .window(windows.clone())
                    .group_by([col("id"), col("name")])
                    .agg([]);
                let sellers = events
                    .auctions(["seller"])
                    .window(windows)
                    .group_by([col("seller")])
                    .agg([]);
                let same = WindowedJoin::new(JoinKind::Inner, [(col("id"), col("seller"))]);
                people.join_windowed(&sellers, same).select([
                    col("id"),
                    col("name"),
                    millis(col("window_start")).alias("window_start"),
                ])
            }
        }
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
        self.rows(&Events::read(&pipeline, data, format))
            .write(tally.clone());
        pipeline.run(&RunOptions::new().workers(workers))?;
        Ok(tally.digest())
    }
}

/// The mean price at which auctions have closed, by one of their columns; whenever some have, a mean takes the
/// place of that before.
fn mean_of_closed(events: &Events, by: &str) -> Collection {
    let auctions = events.auctions(["id", by, "expires"]).select([
        col("id"),
        col(by),
        col("expires"),
        col("event_time"),
    ]);
    let auction = AsOf::on_pairs([(col("auction"), col("id"))]).ttl(LONGEST_AUCTION);
    let changes = Windowing::global()
        .trigger(Trigger::after_count(1).repeatedly())
        .accumulation(Accumulation::AccumulatingAndRetracting);
    events
        .bids(["auction", "price"])
        .join_as_of(&auctions, auction)
        .filter(col("date_time").lt_eq(col("expires")))
        // Its highest bid is known when an auction closes.
        .with_timestamps(col("expires"))
        .window(Windowing::fixed(CLOSED_WITHIN))
        .group_by([col("auction"), col(by)])
        .agg([max(col("price")).alias("final")])
        .window(changes)
        .group_by([col(by)])
        .agg([avg(col("final")).alias("mean")])
        .select([col(by), col("mean")])
}

/// A time as milliseconds since 1970.
fn millis(time: Expr) -> Expr {
    cast(time, DataType::Int64)
}
