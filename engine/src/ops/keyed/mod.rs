//! State and timers by key, for transforms of one's own.
//!
//! ```text
//! rows of a key, all that a batch has ─▶ on_rows ─┬▶ cells: value, bag, set, map, ordered list, combining
//!                                                 ├▶ timers: at a time of the watermark or of the clock
//! time comes ──────────────────────────▶ on_timer ┴▶ rows out
//! ```
//!
//! A [`KeyedTransform`] says what it keeps and what it emits, and is called with the rows of one key in one
//! window, and when a timer is due. The rest is the engine's: rows meet on the worker of their key, state is
//! saved and dealt anew, and it is released when the watermark says so. The model is that of Apache Beam's
//! stateful `DoFn`, but that a call has all rows of the key that a batch has.
//!
//! **Windows.** What is kept is kept for each key and window; of a row in several windows, each is called.
//! Windows that merge, as sessions do, are refused. What is kept of a window, timers included, goes when the
//! watermark has passed its end by the allowed lateness. Rows that come later leave by the port `late`; one that
//! is too late for some of its windows is taken by the others. Triggers do not matter here.
//!
//! **Timers** fire in the order of their times, those of one time in the order in which they are declared. One
//! that is set to a time that has passed fires after the rows at hand. At the end of input all timers of
//! event time fire, and those that they set; a timer that sets itself again and again asks
//! [`Scope::input_ended`] and stops. Timers of processing time do not fire any more then, as
//! what is kept of their window is over, which is what Beam's runners do (`StatefulDoFnRunner`): what must not
//! be lost is emitted by a timer of event time.
//!
//! **Watermark.** A timer with an [output time](TimerState::output_time) earlier than its own time holds the
//! watermark behind the transform back, and so does each timer of processing time.
//!
//! ```
//! use mainstem_engine::connectors::{collect, from_record_batches};
//! use mainstem_engine::ops::keyed::{Declared, KeyRows, KeyedTransform, Scope, Value};
//! use mainstem_engine::testing::{show, table};
//! use mainstem_engine::{Pipeline, Result, RunOptions, col};
//! use arrow::datatypes::{Int64Type, SchemaRef};
//! use serde::{Deserialize, Serialize};
//!
//! /// Says by how much each price differs from the last one of the same item.
//! #[derive(Debug)]
//! struct Change;
//!
//! #[derive(Serialize, Deserialize)]
//! struct By {
//!     change: Option<i64>,
//! }
//!
//! const LAST: Value<i64> = Value::new("last");
//!
//! impl KeyedTransform for Change {
//!     fn declare(&self, _rows: &SchemaRef) -> Result<Declared> {
//!         Ok(Declared::rows_with::<By>().cell(LAST))
//!     }
//!
//!     fn on_rows(&self, key: &mut Scope<'_>, rows: &KeyRows<'_>) -> Result<()> {
//!         for (row, price) in rows.values::<Int64Type>("price")?.iter().enumerate() {
//!             let last = key.value(LAST)?.read().copied();
//!             key.keep_with(rows, row, By { change: last.map(|last| price - last) })?;
//!             key.value(LAST)?.write(*price);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let pipeline = Pipeline::new("prices");
//! let rows = table("item: tea, jam, tea; price: 5, 3, 4");
//! let rows = pipeline.read("rows", from_record_batches(vec![rows]));
//! let (sink, changes) = collect();
//! rows.group_by([col("item")]).process(Change).write(sink);
//! pipeline.run(&RunOptions::new().workers(1))?;
//! assert_eq!(
//!     show(&changes.take()[0]),
//!     "item: 'tea', 'jam', 'tea'\nprice: 5, 3, 4\nchange: null, null, -1"
//! );
//! # Ok::<(), mainstem_engine::Error>(())
//! ```

mod cells;
mod declared;
mod distinct_within;
mod emit;
mod expiry;
mod heap_bytes;
mod lateness;
mod operator;
mod plan;
mod process;
mod rows;
mod saved;
mod scope;
mod scopes;
mod sessionize;
#[cfg(test)]
mod tests;
mod timers;

use std::fmt;

use arrow::datatypes::SchemaRef;
use serde_json::Value as Json;

pub use cells::{
    Aggregates, AggregatesState, Bag, BagState, Cell, CellValue, Combining, CombiningState,
    DeclaredCell, Map, MapState, OrderedList, OrderedListState, RowBag, RowBagState, Set, SetState,
    Value, ValueState,
};
pub use declared::Declared;
pub use distinct_within::DistinctWithin;
pub use process::Process;
pub use rows::KeyRows;
pub use scope::{FiredTimer, Scope, TimerState};
pub use sessionize::Sessionize;
pub use timers::{TimeDomain, Timer};

use crate::error::Result;
use crate::transform::Description;

/// A transform with state and timers for each key and window.
///
/// Applied by [`GroupedRows::process`](crate::ops::GroupedRows::process). The same transform works for all
/// keys, on all workers: what it keeps must be in cells, and not in itself.
pub trait KeyedTransform: Send + Sync + fmt::Debug + 'static {
    /// What it keeps, reads and emits, where rows of this schema come in.
    ///
    /// # Errors
    /// A pipeline error if it cannot take such rows.
    fn declare(&self, rows: &SchemaRef) -> Result<Declared>;

    /// Takes in the rows of one key and window that a batch has, in the order in which they came.
    ///
    /// # Errors
    /// Ends the run, with the key in the error. A row that is wrong goes to [`Scope::reject`] instead.
    fn on_rows(&self, key: &mut Scope<'_>, rows: &KeyRows<'_>) -> Result<()>;

    /// Called when a timer of the key and window is due; it is not set any more.
    ///
    /// # Errors
    /// Ends the run, with the key in the error.
    fn on_timer(&self, _key: &mut Scope<'_>, _timer: FiredTimer<'_>) -> Result<()> {
        Ok(())
    }

    /// What it is, for `explain()` and for the graph as data; `process` by default.
    fn describe(&self) -> Description {
        Description::new("process", Json::Null)
    }
}
