//! How a user composes a graph: a pipeline, and the collections that flow through it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::analyzer::Analysis;
use serde_json::json;

use crate::artifact::{AnyArtifact, Artifact, ArtifactId, ArtifactRef, Artifacts};
use crate::error::{Error, Result};
use crate::graph::{Edge, Graph, Node, NodeIndex, Port, Stage};
use crate::output::OnBadRow;
use crate::plan::Plan;
use crate::report::RunReport;
use crate::runner::RunOptions;
use crate::running::Running;
use crate::sink::Sink;
use crate::source::Source;
use crate::trainer::{Step, Trainer};
use crate::transform::{Description, Transform};
use crate::windowing::Windowing;

/// A graph under construction. Cloning gives another handle to the same graph.
///
/// Composing never fails and reads nothing; [`Pipeline::plan`] reports all errors together.
#[derive(Clone)]
pub struct Pipeline {
    graph: Arc<Mutex<Graph>>,
}

impl Pipeline {
    /// An empty pipeline.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            graph: Arc::new(Mutex::new(Graph {
                name: name.into(),
                ..Graph::default()
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: Option<&str>, stage: Stage, inputs: Vec<Edge>) -> (NodeIndex, Arc<str>) {
        let mut graph = self.lock();
        let id = match name {
            Some(name) => Arc::from(name),
            None => free_id(&graph, stage.describe().kind),
        };
        let on_bad_row = OnBadRow::default();
        graph.nodes.push(Node {
            id: Arc::clone(&id),
            stage,
            inputs,
            on_bad_row,
            cached: false,
        });
        (graph.nodes.len() - 1, id)
    }

    /// Rows from a source, as the node `name`.
    pub fn read(&self, name: &str, source: impl Source + 'static) -> Collection {
        let (node, _) = self.add(Some(name), Stage::Source(Arc::new(source)), Vec::new());
        Collection::new(self.clone(), node, Port::Out(0))
    }

    /// A step over artifacts alone, as the node `name`; it ends in a `T`.
    pub fn step<T: Artifact>(&self, name: &str, step: impl Step + 'static) -> ArtifactRef<T> {
        let (_, id) = self.add(Some(name), Stage::Step(Arc::new(step)), Vec::new());
        ArtifactRef::new(id)
    }

    /// A value that is known already, such as a loaded Predictor, as the node `name`.
    pub fn provide<T: Artifact>(&self, name: &str, value: Arc<T>) -> ArtifactRef<T> {
        self.step(name, Provide { value })
    }

    /// The graph as it stands now.
    pub fn graph(&self) -> Graph {
        self.lock().clone()
    }

    /// Checks the whole graph and divides it into phases. Reads headers and footers, no rows.
    ///
    /// # Errors
    /// All pipeline errors of all nodes together.
    pub fn plan(&self) -> Result<Plan> {
        Plan::new(self.graph())
    }

    /// Plans and runs the pipeline.
    ///
    /// # Errors
    /// The errors of the plan, or the first failure of the run. Nothing is published then.
    pub fn run(&self, options: &RunOptions) -> Result<RunReport> {
        self.plan()?.run(options)
    }

    /// Plans and runs the pipeline on threads of its own, starting at once, without blocking the caller.
    ///
    /// Needs no runtime of a certain kind: the future can be awaited anywhere, and is ready with what
    /// [`Pipeline::run`] returns. Dropping it cancels the run. Together with
    /// [`from_stream`](crate::connectors::from_stream) and [`into_stream`](crate::connectors::into_stream)
    /// a program embeds a pipeline in its own runtime.
    pub fn run_async(&self, options: &RunOptions) -> Running {
        Running::start(self.clone(), options)
    }
}

/// A step that reads nothing and ends in a value known from the start.
struct Provide<T> {
    value: Arc<T>,
}

impl<T> fmt::Debug for Provide<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provide").finish_non_exhaustive()
    }
}

impl<T: Artifact> Step for Provide<T> {
    fn describe(&self) -> Description {
        let value = std::any::type_name::<T>().rsplit("::").next();
        Description::new("provide", json!({ "value": value }))
    }

    fn needs(&self) -> Vec<ArtifactId> {
        Vec::new()
    }

    fn run(&self, _artifacts: &Artifacts) -> Result<AnyArtifact> {
        Ok(Arc::clone(&self.value) as AnyArtifact)
    }
}

fn free_id(graph: &Graph, kind: &str) -> Arc<str> {
    let taken = |id: &str| {
        let part = format!("{id}/");
        graph
            .nodes
            .iter()
            .any(|n| &*n.id == id || n.id.starts_with(&part))
    };
    (1usize..)
        .map(|n| {
            if n == 1 {
                kind.to_owned()
            } else {
                format!("{kind}-{n}")
            }
        })
        .find(|id| !taken(id))
        .map_or_else(|| Arc::from(kind), Arc::from)
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

/// Rows between two transforms, bounded or not.
///
/// A collection is a place in the graph, not the rows themselves; using one twice reads it twice or
/// shares it, as the planner decides.
#[derive(Clone)]
pub struct Collection {
    pipeline: Pipeline,
    node: NodeIndex,
    port: Port,
    /// The node whose bad rows are meant: the first half of a transform that is two nodes.
    rejects: NodeIndex,
    /// Others whose bad rows are meant as well: those that compute keys for it.
    rejects_also: Vec<NodeIndex>,
    next_name: Option<String>,
    windowing: Windowing,
}

impl Collection {
    fn new(pipeline: Pipeline, node: NodeIndex, port: Port) -> Self {
        Self {
            pipeline,
            node,
            port,
            rejects: node,
            rejects_also: Vec::new(),
            next_name: None,
            windowing: Windowing::default(),
        }
    }

    /// True if it is the same place in the same graph.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pipeline.graph, &other.pipeline.graph)
            && (self.node, self.port) == (other.node, other.port)
    }

    /// The pipeline it belongs to.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Names the transform that is applied next.
    ///
    /// Without a name a node is called after its kind, with a number where that is taken.
    /// Reports, errors and saved state refer to this name, so name what should stay the same when the
    /// pipeline changes. The first part of a path `a/b` groups nodes in drawings.
    #[must_use]
    pub fn named(&self, name: impl Into<String>) -> Self {
        Self {
            next_name: Some(name.into()),
            ..self.clone()
        }
    }

    /// The name that the next transform would get: that of [`Collection::named`], else `kind`, with a
    /// number where that is taken. For composites, which name their parts `name/part`.
    pub fn next_name(&self, kind: &str) -> String {
        match &self.next_name {
            Some(name) => name.clone(),
            None => free_id(&self.pipeline.lock(), kind).to_string(),
        }
    }

    /// Divides the rows by event time, from here on: keyed operations behind it work window by window.
    ///
    /// Rows need an event time, which [`Collection::assign_timestamps`] gives them.
    #[must_use]
    pub fn window(&self, windowing: Windowing) -> Collection {
        self.with_windowing(&windowing)
    }

    /// The windowing strategy of the rows.
    pub fn windowing(&self) -> &Windowing {
        &self.windowing
    }

    /// The node that the rows come from.
    pub(crate) fn node_id(&self) -> Arc<str> {
        Arc::clone(&self.pipeline.lock().nodes[self.node].id)
    }

    fn with_windowing(&self, windowing: &Windowing) -> Collection {
        Self {
            windowing: windowing.clone(),
            ..self.clone()
        }
    }

    /// The same rows, where the bad rows are those of another node: for a transform that is several nodes.
    pub(crate) fn rejecting_at(self, part: &Collection) -> Collection {
        let rejects = part.node;
        Self { rejects, ..self }
    }

    /// The same rows, where the bad rows of these nodes are meant as well.
    pub(crate) fn rejecting_also_at<'a>(
        mut self,
        parts: impl IntoIterator<Item = &'a Collection>,
    ) -> Collection {
        self.rejects_also
            .extend(parts.into_iter().map(|part| part.node));
        self
    }

    fn edge(&self) -> Edge {
        Edge {
            from: self.node,
            port: self.port,
            windowing: self.windowing.clone(),
        }
    }

    fn add(&self, stage: Stage, others: &[Collection]) -> (NodeIndex, Arc<str>) {
        if others
            .iter()
            .any(|o| !Arc::ptr_eq(&o.pipeline.graph, &self.pipeline.graph))
        {
            let kind = stage.describe().kind;
            let mistake = Error::pipeline(format!(
                "{kind} brings collections of two pipelines together"
            ))
            .with_hint("Read both sources in one pipeline.");
            self.pipeline.lock().mistakes.push(mistake);
        }
        let inputs = std::iter::once(self)
            .chain(others)
            .filter(|c| Arc::ptr_eq(&c.pipeline.graph, &self.pipeline.graph))
            .map(Collection::edge)
            .collect();
        self.pipeline.add(self.next_name.as_deref(), stage, inputs)
    }

    /// The rows after a transform.
    #[must_use]
    pub fn apply(&self, transform: impl Transform + 'static) -> Collection {
        self.apply_with(&[], transform)
    }

    /// The rows after a transform that takes this collection and `others` as its inputs.
    #[must_use]
    pub fn apply_with(
        &self,
        others: &[Collection],
        transform: impl Transform + 'static,
    ) -> Collection {
        let (node, _) = self.add(Stage::Transform(Arc::new(transform)), others);
        Collection::new(self.pipeline.clone(), node, Port::Out(0)).with_windowing(&self.windowing)
    }

    /// The rows of each output port of a transform, in the order of its ports.
    #[must_use]
    pub fn apply_ports(&self, transform: impl Transform + 'static) -> Vec<Collection> {
        let n_ports = transform.properties().ports.len();
        let (node, _) = self.add(Stage::Transform(Arc::new(transform)), &[]);
        (0..n_ports)
            .map(|i| Collection::new(self.pipeline.clone(), node, Port::Out(i)))
            .map(|c| c.with_windowing(&self.windowing))
            .collect()
    }

    /// The rows that leave the last transform by the port of this name, such as `late`.
    #[must_use]
    pub fn port(&self, name: &str) -> Collection {
        let port = {
            let mut graph = self.pipeline.lock();
            let ports = graph.nodes[self.node].properties().ports;
            match ports.iter().position(|port| port == name) {
                Some(port) => port,
                None => {
                    let id = &graph.nodes[self.node].id;
                    let mistake = Error::pipeline(format!("{id:?} has no port {name:?}"))
                        .with_detail(format!("Its ports are {ports:?}."));
                    graph.mistakes.push(mistake);
                    0
                }
            }
        };
        Collection::new(self.pipeline.clone(), self.node, Port::Out(port))
            .with_windowing(&self.windowing)
    }

    /// Learns a `T` by one pass over the rows.
    pub fn analyze<T: Artifact>(&self, analysis: impl Analysis + 'static) -> ArtifactRef<T> {
        let (_, id) = self.add(Stage::Analysis(Arc::new(analysis)), &[]);
        ArtifactRef::new(id)
    }

    /// Learns a `T` by as many passes over the rows as the trainer wants.
    pub fn train<T: Artifact>(&self, trainer: impl Trainer + 'static) -> ArtifactRef<T> {
        let (_, id) = self.add(Stage::Trainer(Arc::new(trainer)), &[]);
        ArtifactRef::new(id)
    }

    /// Writes the rows.
    pub fn write(&self, sink: impl Sink + 'static) {
        self.add(Stage::Sink(Arc::new(sink)), &[]);
    }

    /// Chooses what happens to rows that the last transform, or the source, cannot take.
    #[must_use]
    pub fn on_bad_row(&self, policy: OnBadRow) -> Collection {
        let mut graph = self.pipeline.lock();
        for node in self.rejects_also.iter().chain([&self.rejects]) {
            graph.nodes[*node].on_bad_row = policy;
        }
        drop(graph);
        self.clone()
    }

    /// The rows that the last transform, or the source, has rejected, and sets
    /// [`OnBadRow::DeadLetter`] for it.
    ///
    /// The columns are `node`, `split`, `row`, `reason` and `data`; see [`dead_letter_schema`](crate::dead_letter_schema).
    /// Where the transform is several nodes that may reject rows, these are those of all.
    #[must_use]
    pub fn dead_letters(&self) -> Collection {
        let _ = self.on_bad_row(OnBadRow::DeadLetter);
        let of =
            |node: &NodeIndex| Collection::new(self.pipeline.clone(), *node, Port::DeadLetters);
        let letters = of(&self.rejects);
        if self.rejects_also.is_empty() {
            return letters;
        }
        let others: Vec<Collection> = self.rejects_also.iter().map(of).collect();
        let name = letters.next_name(&format!("{}/bad_rows", self.node_id()));
        letters.named(name).union(&others)
    }

    /// Writes the [`Collection::dead_letters`] to a sink, as the node `…/dead_letters`, and gives the rows
    /// that were not rejected: the rest of the pipeline goes on from here.
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, col, connectors, lit, testing::{show, table}};
    /// let pipeline = Pipeline::new("rates");
    /// let rows = pipeline.read("rows", connectors::from_record_batches(vec![table("n: 2, 0, 4")]));
    /// let (dead, letters) = connectors::collect();
    /// let (sink, good) = connectors::collect();
    /// rows.with_column("part", lit(100) / col("n")).dead_letters_to(dead).write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&good.take()[0]), "n: 2, 4\npart: 50, 25");
    /// assert_eq!(letters.take()[0].num_rows(), 1);
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn dead_letters_to(&self, sink: impl Sink + 'static) -> Collection {
        let of = Arc::clone(&self.pipeline.lock().nodes[self.rejects].id);
        let letters = self.dead_letters();
        letters.named(format!("{of}/dead_letters")).write(sink);
        self.clone()
    }

    /// Keeps the rows on disk once they have been made, so that later phases do not make them anew.
    ///
    /// Worth it where the rows are expensive to make, or where the source cannot be read twice.
    #[must_use]
    pub fn cache(&self) -> Collection {
        self.pipeline.lock().nodes[self.node].cached = true;
        self.clone()
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.pipeline.lock().nodes[self.node].id.clone();
        write!(f, "Collection({id}, {:?})", self.port)
    }
}
