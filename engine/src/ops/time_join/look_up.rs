//! Looks rows up in a table that changes.

use datafusion_expr::Expr;

use super::as_of::{AsOf, Versions};
use crate::pipeline::Collection;

/// How rows are looked up in a table that changes: see [`Collection::look_up`].
#[derive(Clone, Debug)]
pub struct LookUp {
    pub(super) as_of: AsOf,
}

impl LookUp {
    /// Looks up by columns or expressions that are the same on both sides.
    pub fn on(keys: impl IntoIterator<Item = Expr>) -> Self {
        Self::on_pairs(keys.into_iter().map(|key| (key.clone(), key)))
    }

    /// Looks up by pairs of keys, the first of the rows and the second of the table.
    pub fn on_pairs(keys: impl IntoIterator<Item = (Expr, Expr)>) -> Self {
        let mut as_of = AsOf::on_pairs(keys);
        as_of.versions = Some(Versions::default());
        Self { as_of }
    }

    /// Sets which versions say that the table has no row of the key any more, such as
    /// `col("name").is_null()` where a row without values does. Null counts as false.
    ///
    /// A changelog says by itself which rows it takes back.
    #[must_use]
    pub fn deleted_where(mut self, deleted: Expr) -> Self {
        self.as_of.versions = Some(Versions {
            deleted: Some(deleted),
        });
        self
    }

    /// Sets what orders versions of one key and event time; see [`AsOf::created`].
    #[must_use]
    pub fn created(mut self, created: Expr) -> Self {
        self.as_of = self.as_of.created(created);
        self
    }

    /// Sets what is added to the name of a column of the table where the rows have one of the same name. The
    /// event time from which the version is valid is then a column too, as `event_time` with the suffix.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.as_of = self.as_of.suffix(suffix);
        self
    }
}

impl Collection {
    /// These rows, each with the row of its key as `table` had it at the event time of the row.
    ///
    /// `table` is a collection of versions: each replaces the one before it of the same key, and is valid from
    /// its event time on. Exactly one row leaves for each that comes; where the table has no row of the key at
    /// that time, or only later, its columns are null.
    /// Of versions with one event time the last counts; see [`AsOf`] for the order, and
    /// [`Collection::join_as_of`] for what waits, for late rows, and for the columns.
    ///
    /// **Changelogs.** `table` may be a [changelog](crate::changelog), such as that of
    /// [`upserts`](Collection::upserts), of aggregates or of joins: then the row is looked for among those that
    /// the changelog holds at the event time, all changes of which have taken effect. Where it holds several of
    /// one key, the newest counts by the same order, and when that is taken back the one before it does again.
    /// A change that comes behind the watermark takes effect at the watermark, so none is late. The rows that
    /// are looked up are no changelog: a row that is taken back later might find another row than when it was added.
    ///
    /// **State.** Behind the watermark the newest version of each key that has a row; of a changelog all rows
    /// that are there.
    #[must_use]
    pub fn look_up(&self, table: &Collection, look_up: LookUp) -> Collection {
        self.join_as_of(table, look_up.as_of)
    }
}
