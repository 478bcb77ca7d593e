//! The queries, as a user of Mainstem writes them; `benches/peers/relational.py` has them for the peers.

use clap::ValueEnum;
use mainstem::engine::aggregates::{avg, count, max, min, sum};
use mainstem::engine::ops::JoinKind;
use mainstem::prelude::*;

use crate::dataset::Dataset;
use crate::keep::Keep;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Query {
    /// Five rows in a hundred, three of six columns.
    Filter,
    /// Two computed columns of all rows.
    Project,
    /// Four aggregates by 100 keys.
    GroupLow,
    /// Two aggregates by as many keys as a quarter of the rows.
    GroupHigh,
    /// Three aggregates by 10,000 keys that are text.
    GroupName,
    /// Facts with ids a tenth as many, and two aggregates over all that match.
    Join,
}

impl Query {
    pub(crate) const ALL: [Self; 6] = [
        Self::Filter,
        Self::Project,
        Self::GroupLow,
        Self::GroupHigh,
        Self::GroupName,
        Self::Join,
    ];

    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }

    fn rows(self, pipeline: &Pipeline, data: &Dataset) -> Collection {
        let facts = pipeline.read("facts", connectors::parquet(data.facts()));
        match self {
            Self::Filter => facts
                .filter(col("y").lt(lit(100_i64)).and(col("x").gt_eq(lit(500.0))))
                .select([col("low"), col("x"), col("y")]),
            Self::Project => facts.select([
                (col("x") * lit(2.0) + col("y")).alias("a"),
                (col("x") - col("y")).alias("b"),
            ]),
            Self::GroupLow => facts.group_by([col("low")]).agg([
                sum(col("x")).alias("sum_x"),
                avg(col("y")).alias("mean_y"),
                max(col("x")).alias("max_x"),
                count(lit(1)).alias("n"),
            ]),
            Self::GroupHigh => facts
                .group_by([col("high")])
                .agg([sum(col("x")).alias("sum_x"), count(lit(1)).alias("n")]),
            Self::GroupName => facts.group_by([col("name")]).agg([
                sum(col("x")).alias("sum_x"),
                min(col("y")).alias("min_y"),
                count(lit(1)).alias("n"),
            ]),
            Self::Join => {
                let ids = pipeline.read("ids", connectors::parquet(data.ids()));
                facts
                    .join(&ids, JoinKind::Inner, [(col("id"), col("id"))])
                    .agg([
                        sum(col("x") * col("weight")).alias("sum_xw"),
                        count(lit(1)).alias("n"),
                    ])
            }
        }
    }

    /// Runs the query; gives its rows in memory.
    ///
    /// # Errors
    /// If the run fails.
    pub(crate) fn run(
        self,
        data: &Dataset,
        workers: usize,
    ) -> Result<Vec<arrow::record_batch::RecordBatch>> {
        let pipeline = Pipeline::new(self.name());
        let rows = Keep::default();
        self.rows(&pipeline, data).write(rows.clone());
        pipeline.run(&RunOptions::new().workers(workers))?;
        Ok(rows.take())
    }
}
