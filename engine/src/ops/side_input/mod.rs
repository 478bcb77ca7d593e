//! Adds to each row what a second, smaller collection says of it.
//!
//! ```text
//! main rows ─────────────▶ ready?  ── yes ──▶ look up ──▶ rows with the side columns
//!                            │ no: wait          ▲
//!                            └──▶ waiting rows ──┤ when the side's watermark has passed what they need
//! side rows ── broadcast ──▶ tables by window, or versions by key
//!                            └─ released when the main watermark has passed who may ask for them
//! ```
//!
//! Whether a row is ready is asked of the side's watermark alone, so the main input never waits for itself.
//! A side that ends is read in a phase of its own first, unless it goes in step; then no row waits at all.
//!
//! - `layout`: which columns come out, and what is compared with what; `compiled`: for the columns that arrive.
//! - `lookup`: keys to numbers; `table`: the rows of a window, or the versions of each key.
//! - `reach`: which part of the side a row sees; `waiting`: rows that are not ready; `operator`: all of it at work.
//! - `learn`: the side as an artifact, where it ends.

mod answer;
mod compiled;
mod layout;
mod learn;
mod lookup;
mod operator;
mod reach;
mod table;
mod waiting;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::json;

use self::layout::Layout;
use self::learn::{SideRows, WithLearnedSide};
use self::operator::{PORTS, SideInputOperator, late_schema};
use self::reach::Reach;
use crate::artifact::{ArtifactRef, Artifacts};
use crate::error::{Error, Result};
use crate::ops::good_rows::GoodRows;
use crate::pipeline::Collection;
use crate::plan::{Learned, Lowered, Place};
use crate::transform::{ChangeTimes, Description, Distribution, Operator, Properties, Transform};
use crate::windowing::Windowing;

/// What a row sees of a side input, for [`Collection::with_side_input`].
///
/// **Which rows.** Without windows, a row sees the whole side, once that has ended. Where the side is divided
/// by [`Collection::window`], a row sees the window that [`WindowFn::side_input_window`](crate::windowing::WindowFn::side_input_window)
/// says for its own window, or, where the main rows are not divided, the window its event time lies in. With
/// [`SideInput::as_of_event_time`] it sees the version valid at its event time.
///
/// **Which columns.** Those of the side that are no keys, or a list; all are nullable.
#[derive(Clone, Debug)]
#[must_use = "give it to `with_side_input`"]
pub struct SideInput {
    shape: Shape,
    columns: Option<Vec<String>>,
    suffix: Option<String>,
    missing: Option<Missing>,
    versions: bool,
    in_step: bool,
}

/// How the rows that are seen become columns.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Singleton,
    Map {
        on: Vec<(Expr, Expr)>,
    },
    List {
        name: String,
        value: Expr,
    },
    Multimap {
        name: String,
        on: Vec<(Expr, Expr)>,
        value: Expr,
    },
}

impl Shape {
    fn name(&self) -> &'static str {
        match self {
            Self::Singleton => "singleton",
            Self::Map { .. } => "map",
            Self::List { .. } => "list",
            Self::Multimap { .. } => "multimap",
        }
    }

    pub(super) fn on(&self) -> &[(Expr, Expr)] {
        match self {
            Self::Map { on } | Self::Multimap { on, .. } => on,
            Self::Singleton | Self::List { .. } => &[],
        }
    }

    /// What is computed of the rows of the side.
    fn of_side(&self) -> impl Iterator<Item = &Expr> {
        let value = match self {
            Self::List { value, .. } | Self::Multimap { value, .. } => Some(value),
            Self::Singleton | Self::Map { .. } => None,
        };
        self.on().iter().map(|(_, side)| side).chain(value)
    }
}

/// What becomes of a row for which the side has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The side columns are null, a list is empty.
    Null,
    /// The row is rejected.
    Reject,
}

impl SideInput {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            columns: None,
            suffix: None,
            missing: None,
            versions: false,
            in_step: false,
        }
    }

    /// The one row of the side.
    ///
    /// Where the side has none, or more than one, the row that sees it is rejected and says so; see
    /// [`SideInput::or_null`].
    pub fn singleton() -> Self {
        Self::new(Shape::Singleton)
    }

    /// The one row of the side with equal keys: pairs of expressions, the first over the main columns and the
    /// second over those of the side.
    ///
    /// Keys are compared as those of a [`Join`](super::Join): a null key finds nothing. Where there is none,
    /// the side columns are null; see [`SideInput::required`]. Where there are several, the row is rejected
    /// and says so: use [`SideInput::multimap`].
    pub fn map(on: impl IntoIterator<Item = (Expr, Expr)>) -> Self {
        let on = on.into_iter().collect();
        Self::new(Shape::Map { on })
    }

    /// The column `name` with a list of `value`, an expression over the side columns, for all rows of the side.
    ///
    /// The order is that of the side's event times, if it has them, and then of the values, nulls first.
    pub fn list(name: impl Into<String>, value: Expr) -> Self {
        let name = name.into();
        Self::new(Shape::List { name, value })
    }

    /// As [`SideInput::list`], of the rows with equal keys, which are those of [`SideInput::map`]. Where there
    /// are none, the list is empty.
    pub fn multimap(
        name: impl Into<String>,
        on: impl IntoIterator<Item = (Expr, Expr)>,
        value: Expr,
    ) -> Self {
        let (name, on) = (name.into(), on.into_iter().collect());
        Self::new(Shape::Multimap { name, on, value })
    }

    /// For a side that changes slowly: its rows are versions, each valid from its event time until that of
    /// the next one, of the same key in a [`SideInput::map`].
    ///
    /// A row sees the version valid at its event time, never a later one. It waits until the side's watermark
    /// has passed that, so that the version cannot change any more. Of two versions of one time the one with
    /// the greater values counts, column by column. Only for a singleton or a map.
    pub fn as_of_event_time(mut self) -> Self {
        self.versions = true;
        self
    }

    /// The side goes along with the main rows, by event time, even where it ends.
    ///
    /// By default a side that ends is read to its end before the first main row, so that no row waits. Where both are
    /// made of the same source, such as rows and what is true of their window as a whole, it is then read twice. In
    /// step it is read once, and main rows wait for the side's watermark as they do where the side never ends: use
    /// it for sources that are about in the order of time, since all rows that are ahead of the watermark are kept.
    /// For a side that is divided by windows, or seen [as of event time](SideInput::as_of_event_time).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainstem_engine::{Pipeline, RunOptions, Windowing, aggregates::max, col, connectors, lit};
    /// # use mainstem_engine::{ops::{SideInput, Watermarks}, testing::{show, table}};
    /// // The highest bid of every minute.
    /// let pipeline = Pipeline::new("highest");
    /// let rows = table("second: 1, 7, 55, 61, 90; price: 5, 9, 7, 3, 4");
    /// let bids = pipeline
    ///     .read("bids", connectors::from_record_batches(vec![rows]))
    ///     .assign_timestamps(col("second") * lit(1_000), Watermarks::monotone())
    ///     .window(Windowing::fixed(Duration::from_secs(60)));
    /// let most = bids.agg([max(col("price")).alias("most")]);
    /// let (sink, highest) = connectors::collect();
    /// bids.with_side_input(&most, SideInput::singleton().in_step())
    ///     .filter(col("price").eq(col("most")))
    ///     .select([col("second"), col("price")])
    ///     .write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&highest.take()[0]), "\
    /// second: 7, 90
    /// price: 9, 4");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    pub fn in_step(mut self) -> Self {
        self.in_step = true;
        self
    }

    /// Adds only these columns of the side; by default all that are no keys, but for the event time and the
    /// edges of windows.
    pub fn columns(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// What is added to the name of a side column where a main one has the same name.
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = Some(suffix.into());
        self
    }

    /// Rows for which the side has nothing get nulls, or an empty list: the default of all but a singleton.
    pub fn or_null(mut self) -> Self {
        self.missing = Some(Missing::Null);
        self
    }

    /// Rows for which the side has nothing are rejected, as the policy of the node says: the default of a
    /// singleton.
    pub fn required(mut self) -> Self {
        self.missing = Some(Missing::Reject);
        self
    }

    pub(super) fn missing(&self) -> Missing {
        self.missing.unwrap_or(match self.shape {
            Shape::Singleton => Missing::Reject,
            _ => Missing::Null,
        })
    }
}

impl Collection {
    /// The rows with what `side` says of each of them, as `input` says.
    ///
    /// Every worker keeps the side, so it should be the smaller one. Where it ends, it is read before the main
    /// rows; where it never ends, rows wait for its watermark, and it is kept as long as the main watermark
    /// allows that somebody may ask for it.
    ///
    /// **Late.** Rows that come when what they would see has been let go leave by the port `late` of
    /// [`Collection::port`], with nulls for the side. Rows of the side that come when the side's watermark has passed
    /// their windows by the allowed lateness, or when no row may ask for these any more, leave by the port `late_side`
    /// as they came, each once: those that are late for the first worker. One that is late for another worker only is
    /// counted there, and is seen by the rows of the first. Versions are never late, nor are rows of a side that ends.
    ///
    /// **Bad rows.** A row of the side whose key, or value of a list, cannot be computed is a bad row of the node
    /// `NAME/side_rows`, and a main row whose key cannot be is one of the side input itself; for both
    /// [`on_bad_row`](Collection::on_bad_row) and [`dead_letters`](Collection::dead_letters) of the result speak.
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, col, connectors, ops::SideInput, testing::{show, table}};
    /// let pipeline = Pipeline::new("orders");
    /// let read = |name, rows| pipeline.read(name, connectors::from_record_batches(vec![table(rows)]));
    /// let orders = read("orders", "currency: EUR, USD, XAU; amount: 5, 7, 9");
    /// let rates = read("rates", "code: USD, EUR; rate: 1.0, 1.25");
    /// let (sink, priced) = connectors::collect();
    /// orders
    ///     .with_side_input(&rates, SideInput::map([(col("currency"), col("code"))]))
    ///     .write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&priced.take()[0]), "\
    /// currency: 'EUR', 'USD', 'XAU'
    /// amount: 5, 7, 9
    /// rate: 1.25, 1.0, null");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn with_side_input(&self, side: &Collection, input: SideInput) -> Collection {
        let name = self.next_name("side_input");
        let good = GoodRows::of(side, input.shape.of_side(), &format!("{name}/side_rows"));
        let rows = good.as_ref().unwrap_or(side);
        let transform = WithSideInput {
            input,
            side: side.node_id(),
            windowings: [self.windowing().clone(), side.windowing().clone()],
            layout: Arc::default(),
        };
        self.named(name)
            .apply_with(std::slice::from_ref(rows), transform)
            .rejecting_also_at(&good)
    }
}

/// Adds what the second input says to each row of the first.
#[derive(Clone, Debug)]
pub struct WithSideInput {
    input: SideInput,
    /// The node that the side comes from, for messages.
    side: Arc<str>,
    /// Of the main input and of the side.
    windowings: [Windowing; 2],
    /// What the schemas make of it, once it has been checked.
    layout: Arc<Mutex<Option<Arc<Layout>>>>,
}

impl WithSideInput {
    fn plan(&self, inputs: &[SchemaRef]) -> Result<Arc<Layout>> {
        let [main, side] = inputs else {
            return Err(Error::bug("a side input is the second of two inputs"));
        };
        let layout = Layout::new(&self.input, &self.side, &self.windowings, main, side)?;
        let layout = Arc::new(layout);
        let mut slot = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::clone(&layout));
        Ok(layout)
    }

    fn planned(&self) -> Result<Arc<Layout>> {
        let slot = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
            .ok_or_else(|| Error::bug("a side input was built before it was checked"))
    }
}

impl Transform for WithSideInput {
    fn describe(&self) -> Description {
        let SideInput {
            shape,
            columns,
            suffix,
            missing,
            versions,
            in_step,
        } = &self.input;
        let mut config = json!({ "side": &*self.side, "shape": shape.name() });
        if !shape.on().is_empty() {
            let on: Vec<String> = shape
                .on()
                .iter()
                .map(|(m, s)| format!("{m} = {s}"))
                .collect();
            config["on"] = on.into();
        }
        if let Shape::List { name, value } | Shape::Multimap { name, value, .. } = shape {
            config["list"] = format!("{name} of {value}").into();
        }
        if let Some(columns) = columns {
            config["columns"] = columns.clone().into();
        }
        if let Some(suffix) = suffix {
            config["suffix"] = suffix.as_str().into();
        }
        match missing {
            Some(Missing::Null) => config["missing"] = "null".into(),
            Some(Missing::Reject) => config["missing"] = "rejected".into(),
            None => {}
        }
        if *versions {
            config["as_of"] = "event time".into();
        }
        if *in_step {
            config["in_step"] = true.into();
        }
        Description::new("side_input", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(self.plan(inputs)?.output(&inputs[0]))
    }

    fn port_schema(&self, port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(late_schema(&*self.planned()?, port, &inputs[0]))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SideInputOperator::new(&self.planned()?)))
    }

    fn properties(&self) -> Properties {
        let reach = Reach::new(self.input.versions, &self.windowings);
        Properties {
            stateful: true,
            on_changelog: reach.on_changelog(),
            change_times: ChangeTimes::Kept,
            other_distributions: vec![Distribution::Broadcast],
            n_inputs: Some(2),
            ..Properties::default()
        }
        .ports(PORTS)
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let layout = self.planned().ok()?;
        // Both inputs are asked for the same columns: where a name is on both sides it stays so, and with it
        // the suffix.
        let mut columns = layout.reads_of_main(wanted?);
        columns.extend(layout.reads_of_side());
        columns.sort_unstable();
        columns.dedup();
        Some(columns)
    }

    fn keeps(&self) -> Option<String> {
        let reach = Reach::new(self.input.versions, &self.windowings);
        Some(reach.keeps(true))
    }

    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        let layout = self.plan(place.inputs())?;
        if self.input.in_step || !place.is_bounded(1) {
            layout.check_in_step(place.is_bounded(1))?;
            return Ok(None);
        }
        let rows = ArtifactRef::new(format!("{}/side", place.id()));
        Ok(Some(Lowered {
            learns: vec![Learned {
                name: "side",
                input: 1,
                analysis: Arc::new(SideRows::new(Arc::clone(&layout))),
            }],
            transform: Arc::new(WithLearnedSide::new(self.describe(), layout, rows)),
            inputs: vec![0],
        }))
    }
}

#[cfg(test)]
mod beam_tests;
#[cfg(test)]
mod lateness_tests;
#[cfg(test)]
mod tests;
