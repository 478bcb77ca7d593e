//! A named set of features, to be fitted.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use mainstem_engine::Analysis;
use mainstem_engine::expression::{Expression, check_column};
use mainstem_engine::{Artifacts, Error, Result, Step};
use serde::{Deserialize, Serialize};

use crate::feature::{Feature, Node};
use crate::fit::{AnalyzePhase, Finish};
use crate::fitted::FittedPreprocess;
use crate::learned::Learn;
use crate::program::{expect_feature_type, plain};
use crate::values::Shape;

/// A named set of features, in order: what is learned from the rows, and what the model gets to see.
///
/// It is plain data. Fitted over rows it becomes a [`FittedPreprocess`].
///
/// ```
/// use mainstem_engine::{col, testing::{show, table}};
/// use mainstem_transforms::{Preprocess, VocabularyOptions, feature};
///
/// let preprocess = Preprocess::new()
///     .feature("age", feature(col("age")).scale_to_z_score())
///     .feature("sex", feature(col("sex")).compute_and_apply_vocabulary(VocabularyOptions::new()));
/// let fitted = preprocess.fit_batches(&[table("age: 20.0, 40.0; sex: f, m")])?;
/// assert_eq!(show(&fitted.apply(&table("age: 40.0; sex: f"))?), "age: 1.0\nsex: 1");
/// # Ok::<(), mainstem_engine::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Preprocess {
    features: Vec<NamedFeature>,
}

/// A feature and its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedFeature {
    pub(crate) name: String,
    pub(crate) feature: Feature,
}

impl Preprocess {
    /// No features.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a feature behind those there are.
    #[must_use]
    pub fn feature(mut self, name: impl Into<String>, feature: Feature) -> Self {
        self.features.push(NamedFeature {
            name: name.into(),
            feature,
        });
        self
    }

    pub(crate) fn features(&self) -> &[NamedFeature] {
        &self.features
    }

    /// The names of the features, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(|f| f.name.as_str())
    }

    /// The raw columns it reads, in order of appearance.
    pub fn columns(&self) -> Vec<String> {
        let mut found = Vec::new();
        for named in &self.features {
            named.feature.find_columns(&mut found);
        }
        found
    }

    /// How many passes over the rows fitting takes; at least 1, which learns the columns' types.
    pub fn phases(&self) -> usize {
        let phases = self.features.iter().map(|f| f.feature.phases());
        phases.max().unwrap_or(0).max(1)
    }

    /// What phase `phase`, from 1, has to learn, each once.
    pub(crate) fn analyzers(&self, phase: usize) -> Result<Vec<Learn>> {
        let mut found = Vec::new();
        let mut keys = BTreeSet::new();
        for named in &self.features {
            find_analyzers(&named.feature, phase, &mut keys, &mut found)?;
        }
        Ok(found)
    }

    /// Checks all features against the columns of some rows.
    ///
    /// # Errors
    /// A pipeline error with all that does not fit.
    pub fn check(&self, schema: &Schema) -> Result<()> {
        let mut errors = Vec::new();
        if self.features.is_empty() {
            errors.push(
                Error::pipeline("the preprocessing has no features")
                    .with_hint("Add some with `.feature(name, feature(col(..)))`."),
            );
        }
        let schema = plain(schema);
        let mut names = BTreeSet::new();
        for NamedFeature { name, feature } in &self.features {
            if !names.insert(name) {
                let message = format!("two features are named {name:?}");
                errors.push(Error::pipeline(message));
            }
            if let Err(error) = check_feature(feature, &schema) {
                let located = |e: &Error| e.clone().with_detail(format!("In feature {name:?}."));
                errors.extend(error.errors().iter().map(located));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::all(errors))
        }
    }

    /// Fits over rows in memory, by the same analyses and the same step as in a graph.
    ///
    /// # Errors
    /// If the features do not fit the rows, or the rows hold too little to learn from.
    pub fn fit_batches(&self, batches: &[RecordBatch]) -> Result<FittedPreprocess> {
        self.fit_splits(&[batches])
    }

    /// [`Preprocess::fit_batches`] with one accumulator per split, merged in order.
    pub(crate) fn fit_splits(&self, splits: &[&[RecordBatch]]) -> Result<FittedPreprocess> {
        let first = splits.iter().find_map(|s| s.first());
        let schema = first.map_or_else(|| SchemaRef::new(Schema::empty()), |b| b.schema());
        let phases = AnalyzePhase::all(self, "fit");
        let mut artifacts = Artifacts::none();
        for (id, phase) in &phases {
            phase.check(&schema)?;
            let analyzer = phase.build(&artifacts)?;
            let mut total = analyzer.create();
            for split in splits {
                let mut part = analyzer.create();
                for rows in *split {
                    analyzer.add_rows(&mut part, rows)?;
                }
                analyzer.merge_with(&mut total, part)?;
            }
            artifacts.insert(id.as_str(), analyzer.finish_any(total, 1)?);
        }
        let ids = phases.into_iter().map(|(id, _)| id);
        let fitted = Finish::new(self, ids).run(&artifacts)?;
        let fitted = fitted
            .downcast::<FittedPreprocess>()
            .map_err(|_| Error::bug("fitting ended in something else"))?;
        Ok(FittedPreprocess::clone(&fitted))
    }
}

fn find_analyzers(
    feature: &Feature,
    phase: usize,
    keys: &mut BTreeSet<String>,
    found: &mut Vec<Learn>,
) -> Result<()> {
    let Node::Mapped(mapper) = feature.node() else {
        return Ok(());
    };
    for input in mapper.inputs() {
        find_analyzers(input, phase, keys, found)?;
    }
    for learn in mapper.analyzers() {
        find_analyzers(learn.input(), phase, keys, found)?;
        if learn.input().phases() + 1 == phase && keys.insert(learn.key()?) {
            found.push(learn);
        }
    }
    Ok(())
}

fn check_feature(feature: &Feature, schema: &SchemaRef) -> Result<()> {
    if feature.columns().is_empty() && !matches!(feature.node(), Node::Refused(_)) {
        return Err(Error::pipeline("the feature reads no column")
            .with_hint("A feature that is the same for all rows tells a model nothing."));
    }
    match check_node(feature, schema)? {
        Shape::Text => Err(Error::pipeline("text cannot stand in the feature matrix")
            .with_hint("Add `.compute_and_apply_vocabulary(..)`.")),
        _ => Ok(()),
    }
}

fn check_node(feature: &Feature, schema: &SchemaRef) -> Result<Shape> {
    match feature.node() {
        Node::Refused(refusal) => Err(refusal.error()),
        Node::Expression(base) => {
            let mut names = Vec::new();
            base.columns(&mut names);
            let missing = names.iter().filter_map(|n| check_column(n, schema).err());
            let missing: Vec<Error> = missing.collect();
            if !missing.is_empty() {
                return Err(Error::all(missing));
            }
            let expr = base.to_expr()?;
            let compiled = Expression::compile(&expr, schema)?;
            expect_feature_type(&expr.to_string(), compiled.data_type())
        }
        Node::Mapped(mapper) => {
            let (mut shapes, mut errors) = (Vec::new(), Vec::new());
            for input in mapper.inputs() {
                match check_node(input, schema) {
                    Ok(shape) => shapes.push(shape),
                    Err(error) => errors.push(error),
                }
            }
            if errors.is_empty() {
                mapper.check(&shapes)
            } else {
                Err(Error::all(errors))
            }
        }
    }
}
