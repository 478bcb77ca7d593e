//! Fitting in a graph: an analysis per phase, and a step that puts together what they learned.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{AsArray, BinaryArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use mainstem_engine::analyzer::{AnyAccumulator, DynAnalyzer};
use mainstem_engine::artifact::AnyArtifact;
use mainstem_engine::{
    Analysis, Analyzer, ArtifactId, Artifacts, Description, Error, Result, Step,
};
use serde_json::json;

use crate::fitted::FittedPreprocess;
use crate::learned::{Learn, Learned, one_column};
use crate::preprocess::Preprocess;
use crate::program::Program;
use crate::stored_schema;

/// What one phase has learned, and the raw columns it saw.
#[derive(Clone, Debug)]
pub(crate) struct PhaseLearned {
    schema: SchemaRef,
    learned: Learned,
}

/// One pass over the rows, with all analyzers whose inputs are known by then.
#[derive(Clone, Debug)]
pub(crate) struct AnalyzePhase {
    preprocess: Arc<Preprocess>,
    phase: usize,
    /// The ids of the phases before.
    earlier: Vec<ArtifactId>,
}

impl AnalyzePhase {
    /// All phases of fitting as the node `name`, each with its id.
    pub(crate) fn all(preprocess: &Preprocess, name: &str) -> Vec<(String, Self)> {
        let shared = Arc::new(preprocess.clone());
        let id = |phase: usize| format!("{name}/analyze-{phase}");
        (1..=preprocess.phases())
            .map(|phase| {
                let analysis = Self {
                    preprocess: Arc::clone(&shared),
                    phase,
                    earlier: (1..phase).map(|p| Arc::from(id(p))).collect(),
                };
                (id(phase), analysis)
            })
            .collect()
    }
}

impl Analysis for AnalyzePhase {
    fn describe(&self) -> Description {
        let analyzers = self.preprocess.analyzers(self.phase).unwrap_or_default();
        let config = json!({ "phase": self.phase, "analyzers": analyzers });
        Description::new("analyze", config)
    }

    fn check(&self, input: &SchemaRef) -> Result<()> {
        self.preprocess.check(input)
    }

    fn needs(&self) -> Vec<ArtifactId> {
        self.earlier.clone()
    }

    fn reads(&self) -> Option<Vec<String>> {
        Some(self.preprocess.columns())
    }

    fn build(&self, artifacts: &Artifacts) -> Result<Arc<dyn DynAnalyzer>> {
        let mut earlier = Learned::default();
        for id in &self.earlier {
            earlier.extend(&artifacts.get_by_id::<PhaseLearned>(id)?.learned);
        }
        Ok(Arc::new(PhaseAnalyzer {
            columns: self.preprocess.columns(),
            learns: self.preprocess.analyzers(self.phase)?,
            earlier,
            compiled: OnceLock::new(),
        }))
    }
}

/// All analyzers of a phase side by side, each over the feature it learns from.
pub(crate) struct PhaseAnalyzer {
    columns: Vec<String>,
    learns: Vec<Learn>,
    earlier: Learned,
    /// The features' program and the place of each analyzer's input, made when the first rows come.
    compiled: OnceLock<(Program, Vec<usize>)>,
}

/// What the analyzers of a phase have seen, and the columns, once there were rows.
pub(crate) struct PhaseSeen {
    schema: Option<SchemaRef>,
    parts: Vec<AnyAccumulator>,
}

impl fmt::Debug for PhaseAnalyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let analyzers = self.learns.iter().map(Learn::analyzer);
        f.debug_list().entries(analyzers).finish()
    }
}

impl PhaseAnalyzer {
    fn compile(&self, schema: &SchemaRef) -> Result<&(Program, Vec<usize>)> {
        if let Some(compiled) = self.compiled.get() {
            return Ok(compiled);
        }
        let mut program = Program::new(schema);
        let places = self
            .learns
            .iter()
            .map(|l| program.add(l.input(), &self.earlier))
            .collect::<Result<_>>()?;
        Ok(self.compiled.get_or_init(|| (program, places)))
    }

    fn seen<'a>(&self, seen: &'a mut PhaseSeen, rows: &RecordBatch) -> Result<&'a SchemaRef> {
        let schema = match seen.schema.take() {
            Some(schema) => schema,
            None => stored_schema::project(&rows.schema(), &self.columns)?,
        };
        Ok(seen.schema.insert(schema))
    }
}

impl Analyzer for PhaseAnalyzer {
    type Accumulator = PhaseSeen;
    type Output = PhaseLearned;

    fn create_accumulator(&self) -> PhaseSeen {
        PhaseSeen {
            schema: None,
            parts: self.learns.iter().map(|l| l.analyzer().create()).collect(),
        }
    }

    fn add(&self, seen: &mut PhaseSeen, rows: &RecordBatch) -> Result<()> {
        let (program, places) = self.compile(self.seen(seen, rows)?)?;
        let values = program.run(rows)?;
        for ((learn, place), part) in self.learns.iter().zip(places).zip(&mut seen.parts) {
            let column = one_column(values[program.values_of(*place)].to_array())?;
            learn.analyzer().add_rows(part, &column)?;
        }
        Ok(())
    }

    fn merge(&self, seen: &mut PhaseSeen, other: PhaseSeen) -> Result<()> {
        seen.schema = seen.schema.take().or(other.schema);
        for ((learn, part), other) in self.learns.iter().zip(&mut seen.parts).zip(other.parts) {
            learn.analyzer().merge_with(part, other)?;
        }
        Ok(())
    }

    fn retract(&self, seen: &mut PhaseSeen, rows: &RecordBatch) -> Result<()> {
        let (program, places) = self.compile(self.seen(seen, rows)?)?;
        let values = program.run(rows)?;
        for ((learn, place), part) in self.learns.iter().zip(places).zip(&mut seen.parts) {
            let column = one_column(values[program.values_of(*place)].to_array())?;
            learn.analyzer().retract_rows(part, &column)?;
        }
        Ok(())
    }

    fn finish(&self, seen: PhaseSeen) -> Result<PhaseLearned> {
        let Some(schema) = seen.schema else {
            return Err(Error::data("there are no rows to fit on")
                .with_hint("Look at what comes before: has a filter dropped all rows?"));
        };
        let mut learned = Learned::default();
        let mut errors = Vec::new();
        for (learn, part) in self.learns.iter().zip(seen.parts) {
            match learn.analyzer().finish_value(part) {
                Ok(output) => learned.insert(learn.clone(), output),
                Err(error) => {
                    let columns = learn.input().columns().join(", ");
                    let analyzer = learn.analyzer().typetag_name();
                    let place = format!("Learning `{analyzer}` of a feature over {columns}.");
                    errors.push(error.with_detail(place));
                }
            }
        }
        if errors.is_empty() {
            Ok(PhaseLearned { schema, learned })
        } else {
            Err(Error::all(errors))
        }
    }

    fn accumulator_bytes(&self, seen: &PhaseSeen) -> u64 {
        let parts = self.learns.iter().zip(&seen.parts);
        parts
            .map(|(learn, part)| learn.analyzer().bytes_of(part))
            .sum()
    }

    fn artifact_bytes(&self, phase: &PhaseLearned) -> u64 {
        phase.learned.n_bytes()
    }

    fn save(&self, seen: &PhaseSeen) -> Result<RecordBatch> {
        let states = self
            .learns
            .iter()
            .zip(&seen.parts)
            .map(|(learn, part)| to_ipc(&learn.analyzer().save_any(part)?))
            .collect::<Result<Vec<_>>>()?;
        let schema = match &seen.schema {
            Some(schema) => stored_schema::to_json(schema)?,
            None => String::new(),
        };
        let fields = vec![Field::new("state", DataType::Binary, false)];
        let schema = Schema::new(fields).with_metadata([("columns".into(), schema)].into());
        let states = BinaryArray::from_iter_values(states);
        Ok(RecordBatch::try_new(
            Arc::new(schema),
            vec![Arc::new(states)],
        )?)
    }

    fn load(&self, saved: &RecordBatch) -> Result<PhaseSeen> {
        let foreign = || Error::data("the saved state is not of this preprocessing");
        let states = saved
            .column_by_name("state")
            .and_then(|c| c.as_binary_opt::<i32>())
            .filter(|c| c.iter().len() == self.learns.len())
            .ok_or_else(foreign)?;
        let metadata = saved.schema();
        let schema = metadata.metadata().get("columns").ok_or_else(foreign)?;
        let schema = if schema.is_empty() {
            None
        } else {
            Some(stored_schema::from_json(schema)?)
        };
        let parts = self
            .learns
            .iter()
            .zip(states.iter().flatten())
            .map(|(learn, state)| learn.analyzer().load_any(&from_ipc(state)?))
            .collect::<Result<_>>()?;
        Ok(PhaseSeen { schema, parts })
    }
}

fn to_ipc(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(rows)?;
    Ok(writer.into_inner()?)
}

fn from_ipc(bytes: &[u8]) -> Result<RecordBatch> {
    let mut reader = StreamReader::try_new(bytes, None)?;
    match reader.next() {
        Some(rows) => Ok(rows?),
        None => Ok(RecordBatch::new_empty(reader.schema())),
    }
}

/// Puts together what all phases have learned.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    preprocess: Arc<Preprocess>,
    phases: Vec<ArtifactId>,
}

impl Finish {
    pub(crate) fn new(preprocess: &Preprocess, phases: impl IntoIterator<Item = String>) -> Self {
        Self {
            preprocess: Arc::new(preprocess.clone()),
            phases: phases.into_iter().map(Arc::from).collect(),
        }
    }
}

impl Step for Finish {
    fn describe(&self) -> Description {
        let config = json!({ "features": *self.preprocess, "columns": self.preprocess.columns() });
        Description::new("fit", config)
    }

    fn needs(&self) -> Vec<ArtifactId> {
        self.phases.clone()
    }

    fn run(&self, artifacts: &Artifacts) -> Result<AnyArtifact> {
        let mut learned = Learned::default();
        let mut schema = None;
        for id in &self.phases {
            let phase = artifacts.get_by_id::<PhaseLearned>(id)?;
            learned.extend(&phase.learned);
            schema = Some(SchemaRef::clone(&phase.schema));
        }
        let schema = schema.ok_or_else(|| Error::bug("fitting has no phases"))?;
        let fitted = FittedPreprocess::new((*self.preprocess).clone(), schema, learned)?;
        Ok(Arc::new(fitted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{VocabularyOptions, feature};
    use mainstem_engine::col;
    use mainstem_engine::testing::table;

    #[test]
    fn a_phase_tells_how_much_memory_takes_what_it_has_learned() {
        let words: Vec<String> = (0..1_000).map(|i| format!("word-{i:04}")).collect();
        let rows = table(&format!("word: {}", words.join(", ")));
        let vocabulary =
            feature(col("word")).compute_and_apply_vocabulary(VocabularyOptions::new());
        let preprocess = Preprocess::new().feature("word", vocabulary);
        let (_, phase) = AnalyzePhase::all(&preprocess, "fit").remove(0);
        let analyzer = phase.build(&Artifacts::none()).unwrap();
        let mut seen = analyzer.create();
        analyzer.add_rows(&mut seen, &rows).unwrap();
        let learned = analyzer.finish_any(seen, 1).unwrap();
        let n_bytes = analyzer.bytes_of_artifact(&learned);
        assert!((9_000..200_000).contains(&n_bytes), "{n_bytes} bytes");
    }
}
