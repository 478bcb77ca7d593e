//! A keyed transform in a graph.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use datafusion_expr::Expr;
use serde_json::json;

use super::KeyedTransform;
use super::operator::ProcessOperator;
use super::plan::Plan;
use crate::artifact::Artifacts;
use crate::error::{Error, Result};
use crate::ops::GroupedRows;
use crate::ops::key_columns::{KeyColumns, is_computed};
use crate::pipeline::Collection;
use crate::transform::{Description, Distribution, Operator, Properties, Transform};
use crate::windowing::Windowing;

/// A key: a column of the rows, under the name that it leaves by.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) column: String,
    pub(super) name: String,
}

/// A keyed transform with its keys and the windows of its rows.
#[derive(Debug)]
pub(super) struct Keyed<T> {
    pub(super) transform: T,
    pub(super) keys: Vec<Key>,
    /// How many columns at the end of the rows are keys that were computed.
    pub(super) n_hidden: usize,
    pub(super) windowing: Windowing,
}

impl<T> Keyed<T> {
    pub(super) fn distribution(&self) -> Distribution {
        match self.keys.as_slice() {
            [] => Distribution::One,
            keys => Distribution::ByKey(keys.iter().map(|key| key.column.clone()).collect()),
        }
    }
}

/// A [`KeyedTransform`] with its keys and the windows of its rows, as a transform of the graph.
///
/// [`GroupedRows::process`] adds it to a pipeline; it is public for tests, which drive it alone.
pub struct Process<T> {
    keyed: Arc<Keyed<T>>,
    /// What the schema of the rows makes of it.
    plan: Mutex<Option<Arc<Plan>>>,
}

impl<T: KeyedTransform> Process<T> {
    /// The transform for rows with these key columns, divided by these windows.
    pub fn new(
        transform: T,
        keys: impl IntoIterator<Item = impl Into<String>>,
        windowing: Windowing,
    ) -> Self {
        let key = |column: String| Key {
            name: column.clone(),
            column,
        };
        Self::of(&Arc::new(Keyed {
            transform,
            keys: keys.into_iter().map(|name| key(name.into())).collect(),
            n_hidden: 0,
            windowing,
        }))
    }

    fn of(keyed: &Arc<Keyed<T>>) -> Self {
        Self {
            keyed: Arc::clone(keyed),
            plan: Mutex::new(None),
        }
    }

    fn planned(&self) -> Result<Arc<Plan>> {
        let slot = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
            .ok_or_else(|| Error::bug("a keyed transform is built before it is checked"))
    }
}

impl GroupedRows {
    /// The rows of each key through a transform with state and timers of its own; see
    /// [`keyed`](crate::ops::keyed).
    ///
    /// Rows that come too late leave by the port `late`, which [`Collection::port`] reads. A row on which a key
    /// fails is a bad row of the node that computes it, `NAME/key_0` for the first, for which
    /// [`on_bad_row`](Collection::on_bad_row) and [`dead_letters`](Collection::dead_letters) of the result speak.
    #[must_use]
    pub fn process(&self, transform: impl KeyedTransform) -> Collection {
        let rows = self.rows();
        let name = rows.next_name(transform.describe().kind);
        let columns = KeyColumns::of(rows, self.keys(), &format!("{name}/key_"), is_computed);
        let keys = self.keys().iter().zip(&columns.keys);
        let keys = keys.map(|(key, column)| Key {
            column: name_of(column),
            name: name_of(key),
        });
        let keyed = Arc::new(Keyed {
            transform,
            keys: keys.collect(),
            n_hidden: columns.made.len(),
            windowing: rows.windowing().clone(),
        });
        let processed = columns.rows.named(name).apply(Process::of(&keyed));
        processed.rejecting_also_at(&columns.made)
    }
}

/// The name of a key: its alias, the column, or the text of the expression.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        other => other.schema_name().to_string(),
    }
}

impl<T: KeyedTransform> Transform for Process<T> {
    fn describe(&self) -> Description {
        let own = self.keyed.transform.describe();
        let keys: Vec<&String> = self.keyed.keys.iter().map(|key| &key.name).collect();
        let mut config = json!({ "keys": keys });
        if !own.config.is_null() {
            config["config"] = own.config;
        }
        if let Ok(plan) = self.planned() {
            let cells = plan.cells.iter();
            let cells = cells.map(|cell| (cell.name.to_owned(), json!(cell.kind)));
            config["cells"] = serde_json::Map::from_iter(cells).into();
            let timers = plan.timers.iter();
            let timers = timers.map(|t| (t.name().to_owned(), json!(t.domain())));
            config["timers"] = serde_json::Map::from_iter(timers).into();
            config["released"] = plan.lateness.released().into();
        }
        Description { config, ..own }
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let plan = Arc::new(Plan::new(&self.keyed, &inputs[0])?);
        let mut slot = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::clone(&plan));
        Ok(Arc::clone(&plan.output))
    }

    fn port_schema(&self, _port: usize, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        let places: Vec<usize> = (0..inputs[0].fields().len() - self.keyed.n_hidden).collect();
        Ok(Arc::new(inputs[0].project(&places)?))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        let plan = self.planned()?;
        Ok(Box::new(ProcessOperator::new(&self.keyed, &plan)?))
    }

    fn keeps(&self) -> Option<String> {
        Some(self.planned().ok()?.lateness.keeps())
    }

    fn properties(&self) -> Properties {
        Properties {
            stateful: true,
            portable: false,
            distribution: self.keyed.distribution(),
            ports: vec!["out".into(), "late".into()],
            ..Properties::default()
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Process<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({:?})", self.keyed)
    }
}
