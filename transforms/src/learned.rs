//! What is to be learned of a feature, and what has been.

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
pub use mainstem_engine::analyzer::{Analyzer, AnyAccumulator};
use mainstem_engine::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::feature::Feature;

/// An analyzer of one column, as plain data, with its accumulator's type erased.
///
/// [`column_analyzer!`](crate::column_analyzer) implements it for an
/// [`Analyzer`] that reads column 0 of its rows.
#[typetag::serde(tag = "analyzer")]
pub trait ColumnAnalyzer: fmt::Debug + Send + Sync {
    /// See [`Analyzer::create_accumulator`].
    fn create(&self) -> AnyAccumulator;
    /// See [`Analyzer::add`].
    ///
    /// # Errors
    /// As [`Analyzer::add`].
    fn add_rows(&self, accumulator: &mut AnyAccumulator, rows: &RecordBatch) -> Result<()>;
    /// See [`Analyzer::merge`].
    ///
    /// # Errors
    /// As [`Analyzer::merge`].
    fn merge_with(&self, accumulator: &mut AnyAccumulator, other: AnyAccumulator) -> Result<()>;
    /// See [`Analyzer::retract`].
    ///
    /// # Errors
    /// As [`Analyzer::retract`].
    fn retract_rows(&self, accumulator: &mut AnyAccumulator, rows: &RecordBatch) -> Result<()>;
    /// See [`Analyzer::accumulator_bytes`].
    fn bytes_of(&self, accumulator: &AnyAccumulator) -> u64;
    /// See [`Analyzer::save`].
    ///
    /// # Errors
    /// As [`Analyzer::save`].
    fn save_any(&self, accumulator: &AnyAccumulator) -> Result<RecordBatch>;
    /// See [`Analyzer::load`].
    ///
    /// # Errors
    /// As [`Analyzer::load`].
    fn load_any(&self, saved: &RecordBatch) -> Result<AnyAccumulator>;
    /// What [`Analyzer::finish`] gives, as data.
    ///
    /// # Errors
    /// As [`Analyzer::finish`].
    fn finish_value(&self, accumulator: AnyAccumulator) -> Result<Value>;
}

/// Implements [`ColumnAnalyzer`](crate::learned::ColumnAnalyzer) for an analyzer, under a name.
#[macro_export]
macro_rules! column_analyzer {
    ($analyzer:ty, $name:literal) => {
        #[typetag::serde(name = $name)]
        impl $crate::learned::ColumnAnalyzer for $analyzer {
            fn create(&self) -> $crate::learned::AnyAccumulator {
                Box::new($crate::learned::Analyzer::create_accumulator(self))
            }
            fn add_rows(
                &self,
                accumulator: &mut $crate::learned::AnyAccumulator,
                rows: &arrow::record_batch::RecordBatch,
            ) -> mainstem_engine::Result<()> {
                $crate::learned::Analyzer::add(self, $crate::learned::own(accumulator)?, rows)
            }
            fn merge_with(
                &self,
                accumulator: &mut $crate::learned::AnyAccumulator,
                other: $crate::learned::AnyAccumulator,
            ) -> mainstem_engine::Result<()> {
                let other = $crate::learned::take(other)?;
                $crate::learned::Analyzer::merge(self, $crate::learned::own(accumulator)?, other)
            }
            fn retract_rows(
                &self,
                accumulator: &mut $crate::learned::AnyAccumulator,
                rows: &arrow::record_batch::RecordBatch,
            ) -> mainstem_engine::Result<()> {
                $crate::learned::Analyzer::retract(self, $crate::learned::own(accumulator)?, rows)
            }
            fn bytes_of(&self, accumulator: &$crate::learned::AnyAccumulator) -> u64 {
                $crate::learned::peek(accumulator).map_or(0, |accumulator| {
                    $crate::learned::Analyzer::accumulator_bytes(self, accumulator)
                })
            }
            fn save_any(
                &self,
                accumulator: &$crate::learned::AnyAccumulator,
            ) -> mainstem_engine::Result<arrow::record_batch::RecordBatch> {
                $crate::learned::Analyzer::save(self, $crate::learned::peek(accumulator)?)
            }
            fn load_any(
                &self,
                saved: &arrow::record_batch::RecordBatch,
            ) -> mainstem_engine::Result<$crate::learned::AnyAccumulator> {
                Ok(Box::new($crate::learned::Analyzer::load(self, saved)?))
            }
            fn finish_value(
                &self,
                accumulator: $crate::learned::AnyAccumulator,
            ) -> mainstem_engine::Result<serde_json::Value> {
                let accumulator = $crate::learned::take(accumulator)?;
                let output = $crate::learned::Analyzer::finish(self, accumulator)?;
                Ok(serde_json::to_value(output)?)
            }
        }
    };
}

#[doc(hidden)]
pub fn own<T: 'static>(accumulator: &mut AnyAccumulator) -> Result<&mut T> {
    accumulator.downcast_mut().ok_or_else(foreign)
}

#[doc(hidden)]
pub fn peek<T: 'static>(accumulator: &AnyAccumulator) -> Result<&T> {
    accumulator.downcast_ref().ok_or_else(foreign)
}

#[doc(hidden)]
pub fn take<T: 'static>(accumulator: AnyAccumulator) -> Result<T> {
    accumulator.downcast().map(|a| *a).map_err(|_| foreign())
}

fn foreign() -> Error {
    Error::bug("an accumulator was given to another analyzer")
}

/// What is to be learned: an analyzer over a feature.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learn {
    input: Feature,
    analyzer: Arc<dyn ColumnAnalyzer>,
}

impl Learn {
    /// `analyzer` over `input`.
    pub fn new(input: &Feature, analyzer: impl ColumnAnalyzer + 'static) -> Self {
        Self {
            input: input.clone(),
            analyzer: Arc::new(analyzer),
        }
    }

    /// The feature.
    pub fn input(&self) -> &Feature {
        &self.input
    }

    /// The analyzer.
    pub fn analyzer(&self) -> &Arc<dyn ColumnAnalyzer> {
        &self.analyzer
    }

    /// The same for two that learn the same.
    pub(crate) fn key(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

/// What has been learned: the output of each analyzer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Learned {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    learn: Learn,
    output: Value,
}

impl Learned {
    /// Adds what an analyzer gave.
    pub(crate) fn insert(&mut self, learn: Learn, output: Value) {
        self.entries.push(Entry { learn, output });
    }

    /// Adds what others have learned.
    pub(crate) fn extend(&mut self, others: &Learned) {
        self.entries.extend_from_slice(&others.entries);
    }

    /// How many bytes of memory it keeps, about. It walks through all of it.
    pub(crate) fn n_bytes(&self) -> u64 {
        let outputs = self.entries.iter().map(|e| value_bytes(&e.output));
        outputs.sum::<u64>() + (self.entries.capacity() * size_of::<Entry>()) as u64
    }

    /// What `learn` has given.
    ///
    /// # Errors
    /// A bug if it has not been learned, or is of another type.
    pub fn get<T: DeserializeOwned>(&self, learn: &Learn) -> Result<T> {
        let key = learn.key()?;
        for entry in &self.entries {
            if entry.learn.key()? == key {
                return T::deserialize(&entry.output).map_err(Error::from);
            }
        }
        Err(Error::bug(format!(
            "{:?} is used before it is learned",
            learn.analyzer
        )))
    }
}

/// What a value keeps beyond its own fields, about.
fn value_bytes(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text_bytes(text.capacity()),
        Value::Array(values) => {
            let held = (values.capacity() * size_of::<Value>()) as u64;
            held + values.iter().map(value_bytes).sum::<u64>()
        }
        Value::Object(values) => {
            let entry = (size_of::<String>() + size_of::<Value>()) as u64;
            let entries = values.iter();
            entries
                .map(|(name, value)| entry + text_bytes(name.capacity()) + value_bytes(value))
                .sum()
        }
    }
}

/// What a text on the heap takes, with what an allocation takes besides.
pub(crate) fn text_bytes(capacity: usize) -> u64 {
    const ALLOCATION: u64 = 16;
    match capacity {
        0 => 0,
        n => n as u64 + ALLOCATION,
    }
}

/// Rows of one column, as analyzers take them.
pub(crate) fn one_column(values: ArrayRef) -> Result<RecordBatch> {
    let field = Field::new("value", values.data_type().clone(), true);
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(vec![field])),
        vec![values],
    )?)
}
