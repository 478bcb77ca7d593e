//! Sessions of each key: rows that are close to each other in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion_expr::Expr;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Declared, FiredTimer, KeyRows, KeyedTransform, Map, Scope, Timer};
use crate::error::Result;
use crate::event_time::{MAX_TIME, WINDOW_END, WINDOW_START, time_field};
use crate::pipeline::Collection;
use crate::transform::Description;

/// The sessions that are open, by their start.
const OPEN: Map<i64, Open> = Map::new("open");
/// The earliest session is over.
const OVER: Timer = Timer::event_time("over");

/// Brings rows of a key together that are less than a gap apart, and emits each session once.
///
/// A session lasts from its first row until `gap` after its last; its columns are those of the key,
/// `window_start`, `window_end`, `n_rows`, and as `event_time` its last instant. It leaves when the watermark has
/// passed its end by the allowed lateness, and holds the watermark behind until then. Two rows exactly `gap`
/// apart are in two sessions. A row so late that a session of its own would be over is late.
#[derive(Clone, Debug)]
pub struct Sessionize {
    gap_ms: i64,
}

/// A session without its start.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Open {
    end: i64,
    n_rows: i64,
}

#[derive(Serialize)]
struct Session {
    window_start: i64,
    window_end: i64,
    n_rows: i64,
}

impl Sessionize {
    /// Sessions that are over when no row has come for `gap`.
    pub fn new(gap: Duration) -> Self {
        Self {
            gap_ms: i64::try_from(gap.as_millis()).unwrap_or(i64::MAX).max(1),
        }
    }

    /// Adds a row to the sessions: all that it touches become one.
    fn add(&self, open: &mut BTreeMap<i64, Open>, time: i64) {
        let mut start = time;
        let mut session = Open {
            end: time.saturating_add(self.gap_ms),
            n_rows: 1,
        };
        // Sessions do not overlap, so those that the row touches are the last ones that begin before its end.
        while let Some((&other_start, &other)) = open.range(..session.end).next_back()
            && other.end > time
        {
            open.remove(&other_start);
            start = start.min(other_start);
            session.end = session.end.max(other.end);
            session.n_rows += other.n_rows;
        }
        open.insert(start, session);
    }

    /// Sets the timer for the session that is over first.
    fn await_first(&self, key: &mut Scope<'_>) -> Result<()> {
        let first = key.map(OPEN)?.read().first_key_value().map(|(_, s)| s.end);
        let lateness = key.allowed_lateness_ms();
        // In windows, a session ends with its window.
        let first = first.map(|end| end.min(key.window().end));
        let timer = key.timer(OVER)?;
        match first {
            // No timer is set behind all times; what lasts longer is over when the input ends.
            Some(end) => timer
                .output_time(end - 1)
                .set(end.saturating_add(lateness).min(MAX_TIME)),
            None => {
                timer.clear();
                Ok(())
            }
        }
    }
}

impl Collection {
    /// The sessions of each key: rows that are less than a gap apart; see
    /// [`Sessionize`](crate::ops::keyed::Sessionize).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainstem_engine::connectors::{collect, from_record_batches};
    /// # use mainstem_engine::testing::{show, table};
    /// # use mainstem_engine::{Pipeline, RunOptions, col};
    /// let pipeline = Pipeline::new("visits");
    /// let rows = table("user: a, a, a; event_time: 0, 400, 2000");
    /// let rows = pipeline.read("rows", from_record_batches(vec![rows]));
    /// let (sink, sessions) = collect();
    /// rows.sessionize([col("user")], Duration::from_secs(1)).write(sink);
    /// pipeline.run(&RunOptions::default())?;
    /// assert_eq!(
    ///     show(&sessions.take()[0]),
    ///     "user: 'a', 'a'\nwindow_start: 0, 2000\nwindow_end: 1400, 3000\nn_rows: 2, 1\nevent_time: 1399, 2999"
    /// );
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn sessionize(&self, keys: impl IntoIterator<Item = Expr>, gap: Duration) -> Collection {
        self.group_by(keys).process(Sessionize::new(gap))
    }
}

impl KeyedTransform for Sessionize {
    fn declare(&self, _rows: &SchemaRef) -> Result<Declared> {
        let n_rows = Arc::new(Field::new("n_rows", DataType::Int64, false));
        let fields = [time_field(WINDOW_START), time_field(WINDOW_END), n_rows];
        let alone = Duration::from_millis((self.gap_ms - 1).unsigned_abs());
        let declared = Declared::emits_fields(fields).cell(OPEN).timer(OVER);
        Ok(declared.late_after(alone))
    }

    fn on_rows(&self, key: &mut Scope<'_>, rows: &KeyRows<'_>) -> Result<()> {
        let mut open = key.map(OPEN)?.take();
        for &time in rows.times()? {
            self.add(&mut open, time);
        }
        let mut cell = key.map(OPEN)?;
        for (start, session) in open {
            cell.put(start, session);
        }
        self.await_first(key)
    }

    fn on_timer(&self, key: &mut Scope<'_>, _timer: FiredTimer<'_>) -> Result<()> {
        let first = key
            .map(OPEN)?
            .read()
            .first_key_value()
            .map(|(k, s)| (*k, *s));
        if let Some((window_start, Open { end, n_rows })) = first {
            key.map(OPEN)?.remove(&window_start);
            let session = Session {
                window_start,
                window_end: end,
                n_rows,
            };
            key.emit(session)?;
        }
        self.await_first(key)
    }

    fn describe(&self) -> Description {
        Description::new("sessionize", json!({ "gap_ms": self.gap_ms }))
    }
}
