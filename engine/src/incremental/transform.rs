//! The node that keeps a relation up to date.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::compiled::Compiled;
use super::program::Program;
use crate::artifact::Artifacts;
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME};
use crate::output::OnBadRow;
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

/// Keeps a [`Relation`](super::Relation) up to date.
///
/// It does not become an operator: the runner builds a dataflow of several in its place, which exchange rows
/// by different keys and go round in loops.
#[derive(Clone, Debug)]
pub struct Incremental {
    program: Arc<Program>,
}

impl Incremental {
    pub(crate) fn new(program: Program) -> Self {
        Self {
            program: Arc::new(program),
        }
    }

    /// The steps, compiled for inputs of these columns, of which those that nothing reads are left out unless bad rows
    /// are to be seen whole.
    pub(crate) fn compile(&self, inputs: &[SchemaRef], on_bad_row: OnBadRow) -> Result<Compiled> {
        Compiled::new(&self.program, inputs, on_bad_row != OnBadRow::DeadLetter)
    }

    fn n_inputs(&self) -> usize {
        let input = |step: &super::Step| match step {
            super::Step::Input(n) => n + 1,
            _ => 0,
        };
        self.program.steps.iter().map(input).max().unwrap_or(0)
    }
}

impl Transform for Incremental {
    fn describe(&self) -> Description {
        Description::new("incremental", self.program.to_json())
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        Ok(Arc::clone(
            &self.compile(inputs, OnBadRow::default())?.output,
        ))
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Err(
            Error::pipeline("a relation is kept up to date only in a pipeline")
                .with_hint("Run it with `Pipeline::run`."),
        )
    }

    fn reads(&self, _wanted: Option<&[String]>) -> Option<Vec<String>> {
        let read = self.program.columns_read();
        let of_inputs = self.program.steps.iter().zip(read);
        let mut all = vec![EVENT_TIME.to_owned(), DIFF.to_owned()];
        for (_, columns) in of_inputs.filter(|(step, _)| matches!(step, super::Step::Input(_))) {
            // Where only how many rows there are is asked, a row is told apart by some column nevertheless.
            all.extend(columns.filter(|columns| !columns.is_empty())?);
        }
        Some(all)
    }

    fn keeps(&self) -> Option<String> {
        Some("the rows that its joins, groups and loops read, while they are there, and changes until the watermark passes them".into())
    }

    fn incremental(&self) -> Option<&Incremental> {
        Some(self)
    }

    fn properties(&self) -> Properties {
        Properties {
            n_inputs: Some(self.n_inputs()),
            stateful: true,
            ignores_windows: true,
            on_changelog: OnChangelog::Understand,
            ..Properties::default()
        }
    }
}
