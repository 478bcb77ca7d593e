//! What analyzers and trainers learn, and how a node names what it needs.

use std::any::{Any, type_name};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A learned value: statistics, a vocabulary, a model.
///
/// It is shared by all workers, so it is read-only once learned.
pub trait Artifact: Any + Send + Sync + fmt::Debug {}

impl<T: Any + Send + Sync + fmt::Debug> Artifact for T {}

/// An artifact whose type is known only where it is used.
pub type AnyArtifact = Arc<dyn Any + Send + Sync>;

/// The name of an artifact: the id of the node that learns it.
pub type ArtifactId = Arc<str>;

/// A promise of a `T` that a node of the graph will learn.
///
/// It is the edge from what learns to what uses: a transform that holds one names it in
/// [`Transform::needs`](crate::Transform::needs) and reads it from [`Artifacts`] in `build`.
pub struct ArtifactRef<T> {
    id: ArtifactId,
    kind: PhantomData<fn() -> T>,
}

impl<T> ArtifactRef<T> {
    /// A reference to what the node `id` learns.
    pub fn new(id: impl Into<ArtifactId>) -> Self {
        Self {
            id: id.into(),
            kind: PhantomData,
        }
    }

    /// The id of the node that learns it.
    pub fn id(&self) -> &ArtifactId {
        &self.id
    }
}

impl<T> Clone for ArtifactRef<T> {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            kind: PhantomData,
        }
    }
}

impl<T> fmt::Debug for ArtifactRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactRef<{}>({})", type_name::<T>(), self.id)
    }
}

/// Learned values by name.
///
/// In a training run the driver fills it phase by phase; in a prediction run it is loaded from a Predictor.
/// Whatever is built from it is built by the same call in both.
#[derive(Clone, Default)]
pub struct Artifacts {
    values: BTreeMap<ArtifactId, AnyArtifact>,
}

impl Artifacts {
    /// No artifacts: enough to build whatever learns nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a learned value, replacing one of the same name.
    pub fn insert(&mut self, id: impl Into<ArtifactId>, value: AnyArtifact) {
        self.values.insert(id.into(), value);
    }

    /// Drops the value of this name, if there is one.
    pub(crate) fn remove(&mut self, id: &str) {
        self.values.remove(id);
    }

    /// True if the value of this name has been learned.
    pub fn contains(&self, id: &str) -> bool {
        self.values.contains_key(id)
    }

    /// The value that `reference` promises.
    ///
    /// # Errors
    /// A bug if it has not been learned yet or is of another type: the planner orders phases so that it has.
    pub fn get<T: Artifact>(&self, reference: &ArtifactRef<T>) -> Result<Arc<T>> {
        self.get_by_id(reference.id())
    }

    /// The value named `id`, as a `T`; errors as in [`Artifacts::get`].
    pub fn get_by_id<T: Artifact>(&self, id: &str) -> Result<Arc<T>> {
        let value = self
            .values
            .get(id)
            .ok_or_else(|| Error::bug(format!("artifact {id:?} is used before it is learned")))?;
        Arc::clone(value)
            .downcast::<T>()
            .map_err(|_| Error::bug(format!("artifact {id:?} is not a {}", type_name::<T>())))
    }

    /// The names of all learned values, in order.
    pub fn ids(&self) -> impl Iterator<Item = &ArtifactId> {
        self.values.keys()
    }
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}
