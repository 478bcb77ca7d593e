//! Counts rows.

use crate::aggregates::count;
use crate::expression::lit;
use crate::pipeline::Collection;

impl Collection {
    /// One row with how many rows there are, as Int64 in column `count`; 0 where there are none.
    #[must_use]
    pub fn count(&self) -> Collection {
        self.named(self.next_name("count"))
            .agg([count(lit(1)).alias("count")])
    }
}
