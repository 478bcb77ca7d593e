//! The first rows under an order, of all rows or of each key.
//!
//! ```text
//! rows ──▶ top_k/partial ──▶ by key, or to one worker ──▶ top_k
//!           at most n a key on every worker                the n of them that come first
//! ```

mod best_rows;
mod changing;
#[cfg(test)]
mod changing_tests;
mod first_of_groups;
mod ranking;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion_expr::{Expr, SortExpr};
use serde_json::json;

pub(super) use self::first_of_groups::FirstOfGroups;
pub(super) use self::ranking::{Ranking, check_first};

use self::best_rows::BestRows;
use self::changing::{Changes, ChangingTopK, Plan};
use self::ranking::order_key;
use super::group_by::{GroupedRows, first_in_windows};
use super::row_key::{RowKey, with_bytes};
use crate::artifact::Artifacts;
use crate::batch::Batch;
use crate::changelog::is_changelog;
use crate::error::Result;
use crate::expression::{on_good_rows, with_columns_of};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::plan::{Lowered, Place};
use crate::state::StatePart;
use crate::transform::{
    Description, Distribution, OnChangelog, Operator, Properties, Transform, Watermark,
};

/// The bytes of a row's key, and of its place in the order, on the way to the worker of the key.
const KEY: &str = "$key";
const ORDER: &str = "$order";
/// Before the exchange as many rows are kept at most; then they are sent on.
const MAX_ROWS: usize = 1 << 17;

/// Before or after the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Partial,
    Final,
}

/// Keeps the first `n_rows` rows under an order, of all rows or of each key.
#[derive(Clone, Debug)]
pub struct TopK {
    kind: &'static str,
    n_rows: usize,
    keys: Vec<Expr>,
    order: Vec<SortExpr>,
    stage: Stage,
    changes: Changes,
}

impl Collection {
    /// The first `n_rows` rows under `order`, in that order: `top_k(10, [col("x").sort(false, false)])`.
    ///
    /// Rows equal under `order` are taken as they stand in the source: sources in the order of the graph,
    /// splits in that of their source. Rows that no longer have a place of their own in a source, such as
    /// those of a `group_by` or of a changelog, are then ordered by their values. So the result is the same in
    /// every run, but for equal rows of a source that gives them in other places then, as a query of DataFusion may
    /// (`repeatable=false` in `explain()`). Where each row has its place, only the columns of `order` and those that are
    /// read of the result are asked for of what is before it; of other rows all are, since with fewer values others
    /// would come first.
    /// Nulls come where `sort` says, NaN is the greatest float, -0.0 equals 0.0. A row on which `order` fails is
    /// a bad row of the node `NAME/partial`, for which `on_bad_row` and `dead_letters` of the result speak.
    ///
    /// Where the rows have [windows](Collection::window), the first of each window, as Beam's `Top`: they leave when
    /// its trigger fires, with all their columns but `event_time`, then those that
    /// [aggregates](crate::ops::GroupedRows::agg) have: `window_start`, `window_end`, the `event_time` of the
    /// result, `pane` and `diff`. Say `with_column` before it to keep the time of a row under another name. A later
    /// pane has the first of the rows that have come since or of all, as the accumulation says. Where that takes back
    /// what the last has said, each row of a pane is another one, as it tells in the column `pane` which it is of: all
    /// rows of the last are taken back, and all of the next given. Where nothing reads that column, only rows that are
    /// no longer among the first with the same values, window and event time are taken back, and only those given that
    /// have come to be. At most `n_rows` rows are kept of each window, until the watermark has passed its
    /// end by the allowed lateness; those that are too late are left out and counted, see
    /// [`Collection::top_k_with_late`]. Of a changelog all rows of a window are kept, as one that is taken back makes
    /// room for another; it changes as aggregates in windows do, and is
    /// corrected in the same way.
    ///
    /// Of a [changelog](crate::changelog) it makes another: a row is added when it comes to be among the first and
    /// taken back when it is no longer, in no order that is promised. A row that is there twice takes two places,
    /// and -0.0 leaves as 0.0. All rows are kept while they are there. A row that is taken back more often than it
    /// was added ends the run.
    #[must_use]
    pub fn top_k(&self, n_rows: usize, order: impl IntoIterator<Item = SortExpr>) -> Collection {
        TopK::new(n_rows, order.into_iter().collect()).add_to(self)
    }

    /// As [`Collection::top_k`] in windows, and the rows that came too late for all of theirs, as they came in.
    ///
    /// In the global window with the default trigger there are none, and first rows leave when the input ends.
    #[must_use]
    pub fn top_k_with_late(
        &self,
        n_rows: usize,
        order: impl IntoIterator<Item = SortExpr>,
    ) -> (Collection, Collection) {
        self.group_by([]).top_k_with_late(n_rows, order)
    }
}

impl GroupedRows {
    /// The first `n_rows` rows of each group under `order`, as [`Collection::top_k`] takes them.
    ///
    /// Rows of one group leave in order; the order of the groups is not promised.
    ///
    /// ```
    /// # use mainstem_engine::connectors::{collect, from_record_batches};
    /// # use mainstem_engine::testing::{show_rows, table};
    /// # use mainstem_engine::windowing::{FixedWindows, Windowing};
    /// # use mainstem_engine::{Pipeline, RunOptions, col};
    /// # use std::time::Duration;
    /// let pipeline = Pipeline::new("offers");
    /// let offers = table("shop: a, b, a, a; price: 3, 2, 1, 5; event_time: 1, 2, 9, 11");
    /// let offers = pipeline.read("offers", from_record_batches(vec![offers]));
    /// let (sink, cheapest) = collect();
    /// let windows = Windowing::of(FixedWindows::of(Duration::from_millis(10)));
    /// let offers = offers.window(windows).group_by([col("shop")]);
    /// offers.top_k(1, [col("price").sort(true, false)]).write(sink);
    /// pipeline.run(&RunOptions::default())?;
    /// assert_eq!(show_rows(&cheapest.take()), "\
    /// shop='a' price=1 window_start=0 window_end=10 event_time=9
    /// shop='a' price=5 window_start=10 window_end=20 event_time=19
    /// shop='b' price=2 window_start=0 window_end=10 event_time=9");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn top_k(&self, n_rows: usize, order: impl IntoIterator<Item = SortExpr>) -> Collection {
        TopK::new(n_rows, order.into_iter().collect())
            .by(self.keys().to_vec())
            .add_to(self.rows())
    }

    /// As [`GroupedRows::top_k`] in windows, and the rows that came too late for all of theirs, as they came in.
    #[must_use]
    pub fn top_k_with_late(
        &self,
        n_rows: usize,
        order: impl IntoIterator<Item = SortExpr>,
    ) -> (Collection, Collection) {
        let order = order.into_iter().collect();
        first_in_windows(self.rows(), "top_k", n_rows, self.keys().to_vec(), order)
    }
}

impl TopK {
    pub(super) fn new(n_rows: usize, order: Vec<SortExpr>) -> Self {
        Self {
            kind: "top_k",
            n_rows,
            keys: Vec::new(),
            order,
            stage: Stage::Partial,
            changes: Changes::default(),
        }
    }

    pub(super) fn by(self, keys: Vec<Expr>) -> Self {
        Self { keys, ..self }
    }

    pub(super) fn called(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// Both halves, applied to rows.
    pub(super) fn add_to(self, rows: &Collection) -> Collection {
        if !rows.windowing().is_default() {
            let Self {
                kind,
                n_rows,
                keys,
                order,
                ..
            } = self;
            return first_in_windows(rows, kind, n_rows, keys, order).0;
        }
        let name = rows.next_name(self.kind);
        let last = Self {
            stage: Stage::Final,
            ..self.clone()
        };
        let partial = rows.named(format!("{name}/partial")).apply(self);
        partial.named(name).apply(last).rejecting_at(&partial)
    }

    fn order_key(&self, schema: &SchemaRef) -> Result<RowKey> {
        order_key(&self.order, schema)
    }

    fn check(&self, schema: &SchemaRef) -> Result<()> {
        check_first(self.kind, self.n_rows, &self.keys, &self.order, schema)
    }
}

impl TopK {
    fn distribution(&self) -> Distribution {
        match self.stage {
            Stage::Partial => Distribution::Keep,
            Stage::Final if self.keys.is_empty() => Distribution::One,
            Stage::Final => Distribution::ByKey(vec![KEY.into()]),
        }
    }
}

impl Transform for TopK {
    fn describe(&self) -> Description {
        if self.stage == Stage::Partial {
            return Description::new("partial_top_k", json!({ "n_rows": self.n_rows }));
        }
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let order: Vec<String> = self.order.iter().map(ToString::to_string).collect();
        let config = json!({ "n_rows": self.n_rows, "keys": keys, "order": order });
        Description::new(self.kind, config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        if self.stage == Stage::Partial {
            self.check(&inputs[0])?;
            let is_changes = is_changelog(&inputs[0]);
            let plan = is_changes.then(|| Plan::new(self, &inputs[0]));
            self.changes.set(plan.transpose()?);
        }
        if let Some(plan) = self.changes.plan() {
            return Ok(plan.schema(self.stage));
        }
        match self.stage {
            Stage::Partial => with_bytes(&inputs[0], &[KEY, ORDER]),
            Stage::Final => {
                let columns: Vec<usize> = (0..inputs[0].fields().len().saturating_sub(2)).collect();
                Ok(Arc::new(inputs[0].project(&columns)?))
            }
        }
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let best = BestRows::new(self.n_rows)?;
        Ok(match self.stage {
            Stage::Partial => Box::new(PartialTopK {
                spec: self.clone(),
                keys: None,
                best,
            }),
            Stage::Final => Box::new(FinalTopK {
                best,
                left: VecDeque::new(),
            }),
        })
    }

    fn lower(&self, _place: &Place<'_>) -> Result<Option<Lowered>> {
        Ok(self.changes.plan().map(|plan| {
            let spec = self.clone();
            Lowered::to(ChangingTopK { spec, plan }, 1)
        }))
    }

    fn properties(&self) -> Properties {
        let is_final = self.stage == Stage::Final;
        Properties {
            stateful: true,
            // Changes leave as they take effect. The first half has been checked before.
            waits_for_end: is_final && self.changes.plan().is_none(),
            on_changelog: OnChangelog::Understand,
            distribution: self.distribution(),
            orders_as_rows_stand: !is_final,
            ..Properties::default()
        }
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        // A change is that of a whole row.
        if self.changes.plan().is_some() {
            return None;
        }
        let order = self.order.iter().map(|s| &s.expr);
        match self.stage {
            Stage::Partial => {
                let wanted: Vec<String> = wanted?
                    .iter()
                    .filter(|name| *name != KEY && *name != ORDER)
                    .cloned()
                    .collect();
                with_columns_of(Some(&wanted), self.keys.iter().chain(order))
            }
            Stage::Final => {
                let mut columns = wanted?.to_vec();
                columns.extend([KEY.to_owned(), ORDER.to_owned()]);
                Some(columns)
            }
        }
    }
}

/// What keys and order become for the columns that arrive.
struct Compiled {
    key: RowKey,
    ranking: Ranking,
    schema: SchemaRef,
}

struct PartialTopK {
    spec: TopK,
    keys: Option<Compiled>,
    best: BestRows,
}

impl PartialTopK {
    fn compile(&mut self, schema: &SchemaRef) -> Result<&Compiled> {
        match &mut self.keys {
            Some(compiled) => Ok(compiled),
            slot => Ok(slot.insert(Compiled {
                key: RowKey::of(&self.spec.keys, schema)?,
                ranking: Ranking::new(&self.spec.order, schema)?,
                schema: with_bytes(schema, &[KEY, ORDER])?,
            })),
        }
    }

    /// The rows that have one, with their key and their order, that of the source last.
    fn with_order(&mut self, batch: Batch, out: &mut Output) -> Result<Batch> {
        let compiled = self.compile(&batch.rows().schema())?;
        let (batch, (keys, asked)) = on_good_rows(batch, out, |rows| {
            Ok((compiled.key.bytes(rows)?, compiled.ranking.asked(rows)?))
        })?;
        let order = compiled.ranking.complete(&asked, &batch)?;
        let mut columns = batch.rows().columns().to_vec();
        columns.push(Arc::new(keys) as ArrayRef);
        columns.push(Arc::new(order) as ArrayRef);
        let rows = RecordBatch::try_new(Arc::clone(&compiled.schema), columns)?;
        Ok(batch.with_columns(rows))
    }
}

impl Operator for PartialTopK {
    fn on_batch(&mut self, _port: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let batch = self.with_order(batch, out)?;
        self.best.add(batch.rows())?;
        if self.best.n_rows() > MAX_ROWS {
            for rows in self.best.take()? {
                out.push(batch.derive(rows));
            }
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        if watermark.is_end() {
            for rows in self.best.take()? {
                out.push(Batch::new(rows).inexact());
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        self.best.n_bytes()
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        self.best.parts()
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.best.restore(state)
    }
}

struct FinalTopK {
    best: BestRows,
    /// Rows that have not been given yet, once all have come.
    left: VecDeque<RecordBatch>,
}

impl Operator for FinalTopK {
    fn on_batch(&mut self, _port: usize, batch: Batch, _out: &mut Output) -> Result<()> {
        self.best.add(batch.rows())
    }

    fn on_watermark(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        if watermark.is_end() {
            self.left = self.best.take()?.into();
            self.resume(out)?;
        }
        Ok(())
    }

    /// Gives the next batch of rows, and says whether more follow.
    fn resume(&mut self, out: &mut Output) -> Result<()> {
        if let Some(mut rows) = self.left.pop_front() {
            rows.remove_column(rows.num_columns() - 1);
            rows.remove_column(rows.num_columns() - 1);
            out.push(Batch::new(rows).inexact());
        }
        if !self.left.is_empty() {
            out.more_follows();
        }
        Ok(())
    }

    fn state_bytes(&self) -> u64 {
        let left = self.left.iter().map(RecordBatch::get_array_memory_size);
        self.best.n_bytes() + left.sum::<usize>() as u64
    }

    fn snapshot(&mut self) -> Result<Vec<StatePart>> {
        self.best.parts()
    }

    fn restore(&mut self, state: &[StatePart]) -> Result<()> {
        self.best.restore(state)
    }
}

/// The bytes of key and order of rows as they travel.
fn bytes_of(rows: &RecordBatch) -> (&BinaryArray, &BinaryArray) {
    let n = rows.num_columns();
    (
        rows.column(n - 2).as_binary(),
        rows.column(n - 1).as_binary(),
    )
}
