//! The driver: runs the phases in order and carries artifacts between them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use tempfile::TempDir;

use super::RunOptions;
use super::allocator;
use super::cancel::{CancelToken, CtrlC};
use super::chain::Exit;
use super::dataflow::{self, Part, Shared};
use super::failure::{Failure, guard};
use super::memory::{Account, Credits, Memory};
use super::metrics::NodeMetrics;
use super::parts::{Kit, Workshop};
use super::pool::WorkPool;
use super::spool::{Spool, Spooled};
use super::time::LogicalTime;
use super::watch::Watch;
use crate::artifact::Artifacts;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeIndex, Port, Stage};
use crate::output::dead_letter_schema;
use crate::plan::{Phase, Plan};
use crate::report::{RunReport, units};
use crate::sink::{Publication, Published};
use crate::trainer::{Trainer, TrainingContext};

/// How long a failed run waits for jobs that are under way before it cleans up after them.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a worker sleeps at most before it looks for a failure elsewhere.
const LOOK_UP: Duration = Duration::from_millis(20);

pub(crate) fn run(plan: &Plan, options: &RunOptions) -> Result<RunReport> {
    let _span = tracing::info_span!("run", pipeline = plan.graph.name).entered();
    let mut stops = options.cancel.clone();
    let _ctrl_c = options.stop_on_ctrl_c.then(|| {
        let token = CancelToken::new();
        stops.push(token.clone());
        CtrlC::cancels(token)
    });
    allocator::accustom();
    let memory = Memory::new(&plan.graph, options.budget());
    for phase in &plan.phases {
        Credits::share(options, memory.budget(), phase.n_feeds(&plan.graph))?;
    }
    tracing::info!(
        workers = options.workers,
        memory = units::bytes(memory.budget()),
        phases = plan.phases.len(),
        "run starts"
    );
    let mut driver = Driver {
        plan,
        options,
        watch: Watch::start(plan, options)?,
        shared: Shared {
            failure: Arc::new(Failure::stopped_by(stops)),
            compute: WorkPool::new("pool", options.workers)?,
        },
        scratch: tempfile::Builder::new().prefix("mainstem-").tempdir()?,
        artifacts: Artifacts::none(),
        memory,
        accounts: BTreeMap::new(),
        kept: BTreeMap::new(),
        publications: Vec::new(),
    };
    let outcome = driver
        .begin()
        .and_then(|()| driver.run_phases())
        .and_then(|()| driver.shared.failure.check())
        .and_then(|()| driver.commit());
    match outcome {
        Ok(published) => Ok(driver.watch.finish(published, driver.artifacts, None)),
        Err(error) => {
            let error = error.in_graph(&plan.graph);
            // Jobs under way may still write: they go quiet, then what they wrote is removed.
            driver.shared.failure.set(error.clone());
            driver.shared.compute.wait_until_idle(PATIENCE);
            driver.abort();
            driver
                .watch
                .finish(Vec::new(), driver.artifacts, Some(&error));
            Err(error)
        }
    }
}

struct Driver<'a> {
    plan: &'a Plan,
    options: &'a RunOptions,
    watch: Watch<'a>,
    shared: Shared,
    scratch: TempDir,
    artifacts: Artifacts,
    memory: Arc<Memory>,
    /// What artifacts keep, to the end of the run.
    accounts: BTreeMap<NodeIndex, Account>,
    kept: BTreeMap<Exit, Spooled>,
    publications: Vec<(NodeIndex, Box<dyn Publication>)>,
}

impl Driver<'_> {
    fn graph(&self) -> &Graph {
        &self.plan.graph
    }

    /// Opens all publications, so that a place that cannot be written to is known before a row is read.
    fn begin(&mut self) -> Result<()> {
        let plan = self.plan;
        for phase in &plan.phases {
            for &index in &phase.ends {
                let node = &plan.graph.nodes[index];
                if let Stage::Sink(sink) = &node.stage {
                    let edge = &node.inputs[0];
                    let schema = schema_at(phase, (edge.from, edge.port))?;
                    let publication = guard(&node.id, || sink.begin(&schema))?;
                    self.publications.push((index, publication));
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Vec<(String, Published)>> {
        let mut published: Vec<(String, Published)> = Vec::new();
        for (index, publication) in &self.publications {
            let id = Arc::clone(&self.graph().nodes[*index].id);
            match guard(&id, || publication.commit()) {
                Ok(done) => published.push((id.to_string(), done)),
                Err(error) if published.is_empty() => return Err(error),
                Err(error) => {
                    let done: Vec<&str> = published.iter().map(|(id, _)| id.as_str()).collect();
                    let seen = format!("Published before it failed: {}.", done.join(", "));
                    return Err(error.with_detail(seen));
                }
            }
        }
        Ok(published)
    }

    fn abort(&self) {
        for (index, publication) in &self.publications {
            let id = &self.graph().nodes[*index].id;
            if let Err(error) = guard(id, || {
                publication.abort();
                Ok(())
            }) {
                tracing::warn!(node = &**id, error = error.message(), "clean-up failed");
            }
        }
    }

    fn run_phases(&mut self) -> Result<()> {
        let plan = self.plan;
        for (number, phase) in plan.phases.iter().enumerate() {
            let _span = tracing::info_span!("phase", number = number + 1).entered();
            self.shared.failure.check()?;
            self.watch.begin_phase(phase);
            self.run_steps(phase)?;
            if !phase.nodes.is_empty() {
                let kit = self.run_dataflow(number, phase)?;
                self.learn(phase, &kit)?;
                self.train(phase, &kit)?;
                self.keep(phase, &kit)?;
            }
            self.watch.end_phase();
            self.forget(&plan.phases[number + 1..]);
        }
        Ok(())
    }

    /// Drops what was learned for this run alone and is read in no later phase.
    fn forget(&mut self, later: &[Phase]) {
        let graph = &self.plan.graph;
        for (index, node) in graph.nodes.iter().enumerate() {
            let transient = matches!(&node.stage, Stage::Analysis(a) if a.is_transient());
            let mut readers = later.iter().flat_map(|p| p.steps.iter().chain(&p.nodes));
            // A phase in which it is learned stands before all that read it.
            let is_read = readers.any(|&i| {
                let reader = &graph.nodes[i];
                reader.id == node.id || reader.stage.needs().contains(&node.id)
            });
            if transient && !is_read {
                self.artifacts.remove(&node.id);
                self.accounts.remove(&index);
            }
        }
    }

    fn run_steps(&mut self, phase: &Phase) -> Result<()> {
        let metrics = phase.steps.iter().map(|&i| (i, Arc::default())).collect();
        self.watch.nodes(phase, &metrics);
        for (&index, metrics) in &metrics {
            let node = &self.plan.graph.nodes[index];
            if let Stage::Step(step) = &node.stage {
                let artifacts = &self.artifacts;
                let value = metrics.timed(|| guard(&node.id, || step.run(artifacts)))?;
                self.artifacts.insert(Arc::clone(&node.id), value);
            }
        }
        Ok(())
    }

    fn run_dataflow(&self, number: usize, phase: &Phase) -> Result<Kit> {
        let budget = self.memory.budget();
        let credits = Credits::share(self.options, budget, phase.n_feeds(self.graph()))?;
        self.memory.begin_phase(credits);
        tracing::debug!(
            each = units::bytes(credits.each),
            all = units::bytes(credits.total),
            "rows in flight"
        );
        let workshop = Workshop {
            graph: self.graph(),
            phase,
            artifacts: &self.artifacts,
            kept: &self.kept,
            publications: &self.publications,
            memory: &self.memory,
            credit_bytes: credits.each,
            n_workers: self.options.workers,
            clock: &self.options.clock,
        };
        let kit = workshop.kit(self.spools(number, phase)?)?;
        self.watch.nodes(phase, &kit.metrics);
        let parts = (0..self.options.workers)
            .map(|worker| workshop.parts(&kit, worker, &self.shared.compute))
            .collect::<Result<Vec<_>>>()?;
        run_workers(parts, &self.shared)?;
        Ok(kit)
    }

    /// A spool for each edge whose rows a trainer or a later phase reads.
    fn spools(&self, number: usize, phase: &Phase) -> Result<BTreeMap<Exit, Arc<Spool>>> {
        let mut columns: BTreeMap<Exit, Option<Vec<String>>> = BTreeMap::new();
        for &index in &phase.ends {
            let node = &self.graph().nodes[index];
            if let Stage::Trainer(trainer) = &node.stage {
                let exit = (node.inputs[0].from, node.inputs[0].port);
                // Trainers on one edge share its rows, with the columns that any of them reads.
                let all = columns.entry(exit).or_insert_with(|| Some(Vec::new()));
                *all = match (all.take(), trainer.reads()) {
                    (Some(a), Some(b)) => Some(a.into_iter().chain(b).collect()),
                    _ => None,
                };
            }
        }
        for node in self.graph().nodes.iter().flat_map(|n| &n.inputs) {
            if phase.keeps.contains(&node.from) {
                columns.insert((node.from, node.port), None);
            }
        }
        let mut spools = BTreeMap::new();
        for (exit, wanted) in columns {
            let made = schema_at(phase, exit)?;
            let schema = match wanted {
                Some(names) => only(&made, &names),
                None => made,
            };
            let name = format!("phase-{number}-{}-{:?}", exit.0, exit.1);
            spools.insert(exit, Spool::new(self.scratch.path(), &name, schema)?);
        }
        Ok(spools)
    }

    fn learn(&mut self, phase: &Phase, kit: &Kit) -> Result<()> {
        for &index in &phase.ends {
            if let Some(analysis) = kit.analyses.get(&index) {
                let id = Arc::clone(&self.graph().nodes[index].id);
                let (value, n_bytes) = guard(&id, || analysis.finish(self.options.workers))?;
                let mut account = self.memory.account(index);
                if let Some(metrics) = kit.metrics.get(&index) {
                    account = account.telling(metrics);
                }
                account.holds(n_bytes)?;
                self.accounts.insert(index, account);
                self.artifacts.insert(id, value);
            }
        }
        Ok(())
    }

    fn train(&mut self, phase: &Phase, kit: &Kit) -> Result<()> {
        for &index in &phase.ends {
            let node = &self.plan.graph.nodes[index];
            if let Stage::Trainer(trainer) = &node.stage {
                let exit = (node.inputs[0].from, node.inputs[0].port);
                let rows = kit
                    .spools
                    .get(&exit)
                    .ok_or_else(|| Error::bug("rows were not kept"))?;
                let value = self.train_one(&node.id, &**trainer, &rows.rows()?, kit, index)?;
                self.artifacts.insert(Arc::clone(&node.id), value);
            }
        }
        Ok(())
    }

    fn train_one(
        &self,
        id: &str,
        trainer: &dyn Trainer,
        rows: &Spooled,
        kit: &Kit,
        index: NodeIndex,
    ) -> Result<crate::artifact::AnyArtifact> {
        let metrics = kit.metrics.get(&index).cloned().unwrap_or_default();
        let context = Training {
            failure: Arc::clone(&self.shared.failure),
            n_threads: self.options.workers,
            metrics: Arc::clone(&metrics),
        };
        let train = || trainer.train(&self.artifacts, rows, &context);
        metrics.timed(|| guard(id, train))
    }

    fn keep(&mut self, phase: &Phase, kit: &Kit) -> Result<()> {
        for (exit, spool) in &kit.spools {
            if phase.keeps.contains(&exit.0) {
                self.kept.insert(*exit, spool.rows()?);
            }
        }
        Ok(())
    }
}

/// The schema of the rows that leave by `exit` in this phase.
pub(super) fn schema_at(phase: &Phase, exit: Exit) -> Result<SchemaRef> {
    match exit.1 {
        Port::DeadLetters => Ok(dead_letter_schema()),
        Port::Out(port) => {
            let projection = &phase.projection;
            let later = projection.ports.get(&(exit.0, port));
            later
                .or_else(|| projection.schemas.get(&exit.0))
                .cloned()
                .ok_or_else(|| Error::bug("an edge has no schema"))
        }
    }
}

fn only(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    let wanted = schema
        .fields()
        .iter()
        .filter(|f| names.contains(f.name()))
        .cloned();
    Arc::new(Schema::new(wanted.collect::<Vec<_>>()))
}

struct Training {
    failure: Arc<Failure>,
    n_threads: usize,
    metrics: Arc<NodeMetrics>,
}

impl TrainingContext for Training {
    fn n_threads(&self) -> usize {
        self.n_threads
    }

    fn check(&self) -> Result<()> {
        self.failure.check()
    }

    fn progress(&self, done: u64, total: u64) {
        self.metrics.trained(done, total);
    }
}

/// Runs one dataflow, a worker per list of parts, until it is over or something fails.
fn run_workers(parts: Vec<Vec<Part>>, shared: &Shared) -> Result<()> {
    let config = match parts.len() {
        1 => timely::Config::thread(),
        n => timely::Config::process(n),
    };
    let parts: Vec<_> = parts.into_iter().map(|p| Mutex::new(Some(p))).collect();
    let of_workers = shared.clone();
    let phase = tracing::Span::current();
    let guards = timely::execute(config, move |worker| {
        let _phase = phase.enter();
        let taken = parts[worker.index()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let dataflow = worker.next_dataflow_index();
        worker.dataflow::<LogicalTime, _, _>(|scope| {
            dataflow::build(scope, taken.unwrap_or_default(), &of_workers);
        });
        let helper = of_workers.compute.help(worker.index());
        while worker.has_dataflows() {
            worker.step();
            // What a step has done stays among the activations up to the next one.
            let was_idle = worker.activations().borrow().empty_for() != Some(Duration::ZERO);
            if was_idle {
                helper.work_or(|| {
                    worker.step_or_park(Some(LOOK_UP));
                });
            }
            if of_workers.failure.has_failed() {
                worker.drop_dataflow(dataflow);
            }
        }
    })
    .map_err(|e| {
        Error::environment("the workers cannot be started").with_detail(format!("{e}."))
    })?;
    for joined in guards.join() {
        if let Err(panic) = joined {
            shared
                .failure
                .set(Error::bug(format!("a worker died: {panic}")));
        }
    }
    shared.failure.check()
}
