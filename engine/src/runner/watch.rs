//! Watches a run while it goes on, and reports it when it is over.
//!
//! ```text
//! driver ──begin_phase, nodes, end_phase──▶ state ◀──looks now and then── one thread
//!                                             │        time line, bars, published metrics
//!                                             └──▶ RunReport, also of a run that failed
//! ```
//!
//! A thread of its own, because the driver's is busy with trainers and steps. It sleeps between looks:
//! 20 times a second at first and less often as the run grows longer, 10 times where bars are drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::RunOptions;
use super::clock::Clock;
use super::event_time_standing::standings;
use super::machine::{ProcessMemory, this_machine};
use super::metrics::NodeMetrics;
use super::progress::{Display, Standing};
use super::time_line::Recorder;
use crate::artifact::Artifacts;
use crate::error::{Error, Result};
use crate::graph::NodeIndex;
use crate::plan::{Phase, Plan};
#[cfg(feature = "prometheus")]
use crate::prometheus::Publisher;
use crate::report::{
    NodeReport, PhaseReport, PublishedFile, Role, RunReport, WatermarkReport, units,
};
use crate::sink::Published;

/// How often metrics are published; collectors ask every few seconds at most.
#[cfg(feature = "prometheus")]
const PUBLISHING: Duration = Duration::from_secs(1);

/// Files whose sizes are asked for at the end; a run that publishes more tells only of their sum.
const MOST_SIZES: usize = 1_000;

/// A run that is being watched.
pub(crate) struct Watch<'a> {
    plan: &'a Plan,
    options: &'a RunOptions,
    start: Instant,
    started: SystemTime,
    state: Arc<Mutex<State>>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    pipeline: String,
    clock: Clock,
    n_phases: usize,
    phases: Vec<WatchedPhase>,
    recorder: Recorder,
    recording: Due,
    display: Display,
    showing: Due,
    memory: ProcessMemory,
    peak_memory_bytes: u64,
    #[cfg(feature = "prometheus")]
    publisher: Publisher,
    #[cfg(feature = "prometheus")]
    publishing: Due,
}

/// When something is to be done next.
#[derive(Default)]
struct Due(Duration);

impl Due {
    /// True if it is to be done now, and then not before `every` has passed; `next` moves to the
    /// earliest moment at which anything is due.
    fn is_due(&mut self, at: Duration, every: Duration, next: &mut Duration) -> bool {
        let is_due = at >= self.0;
        if is_due {
            self.0 = at + every;
        }
        *next = self.0.min(*next);
        is_due
    }
}

struct WatchedPhase {
    ends_in: Vec<String>,
    started: Duration,
    wall: Option<Duration>,
    nodes: Vec<WatchedNode>,
    #[cfg(feature = "prometheus")]
    published: bool,
}

struct WatchedNode {
    outline: NodeReport,
    /// A node before it, or itself, makes watermarks.
    has_event_time: bool,
    metrics: Arc<NodeMetrics>,
    standing: Standing,
}

impl<'a> Watch<'a> {
    /// Begins to watch. Fails where a report that is asked for could not be written at the end.
    pub(crate) fn start(plan: &'a Plan, options: &'a RunOptions) -> Result<Self> {
        options.check_report_places()?;
        let pipeline = plan.graph.name.clone();
        let state = State {
            clock: options.clock.clone(),
            n_phases: plan.phases.len(),
            phases: Vec::new(),
            recorder: Recorder::new(),
            recording: Due::default(),
            showing: Due::default(),
            display: Display::new(options.progress),
            memory: ProcessMemory::new(),
            peak_memory_bytes: 0,
            #[cfg(feature = "prometheus")]
            publisher: Publisher::new(&pipeline),
            #[cfg(feature = "prometheus")]
            publishing: Due::default(),
            pipeline,
        };
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = bounded(0);
        let start = Instant::now();
        let looked_at = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("mainstem-watch".into())
            .spawn(move || look_now_and_then(&looked_at, start, &stopped))
            .map_err(|e| Error::environment("a thread cannot be started").with_source(e))?;
        Ok(Self {
            plan,
            options,
            start,
            started: SystemTime::now(),
            state,
            stop,
            thread: Some(thread),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn begin_phase(&self, phase: &Phase) {
        let ends = phase.steps.iter().chain(&phase.ends);
        let ends_in = ends.map(|&i| self.plan.graph.nodes[i].id.to_string());
        let watched = WatchedPhase {
            ends_in: ends_in.collect(),
            started: self.start.elapsed(),
            wall: None,
            nodes: Vec::new(),
            #[cfg(feature = "prometheus")]
            published: false,
        };
        self.lock().phases.push(watched);
    }

    /// The nodes of the phase that has begun last, in the order in which they are to be reported.
    pub(crate) fn nodes(&self, phase: &Phase, metrics: &BTreeMap<NodeIndex, Arc<NodeMetrics>>) {
        let timed = self.nodes_with_event_time(phase);
        let mut state = self.lock();
        let State {
            phases, recorder, ..
        } = &mut *state;
        let number = phases.len();
        let Some(watched) = phases.last_mut() else {
            return;
        };
        for (&index, metrics) in metrics {
            let outline = self.plan.outline(phase, index);
            let role = outline.role;
            let is_drawn = [Role::Source, Role::Kept, Role::Trainer, Role::Sink].contains(&role);
            if is_drawn {
                let id = Arc::clone(&self.plan.graph.nodes[index].id);
                recorder.watch(id, number, role, Arc::clone(metrics));
            }
            watched.nodes.push(WatchedNode {
                outline,
                has_event_time: timed.contains(&index),
                metrics: Arc::clone(metrics),
                standing: Standing::default(),
            });
        }
    }

    /// The nodes of a phase that make watermarks, and those behind them.
    fn nodes_with_event_time(&self, phase: &Phase) -> BTreeSet<NodeIndex> {
        let graph = &self.plan.graph;
        let mut found = BTreeSet::new();
        for &index in &phase.nodes {
            let makes = graph.nodes[index].properties().makes_watermarks;
            let mut inputs = phase.inputs(graph, index).iter();
            if makes || inputs.any(|edge| found.contains(&edge.from)) {
                found.insert(index);
            }
        }
        found
    }

    pub(crate) fn end_phase(&self) {
        let at = self.start.elapsed();
        let mut state = self.lock();
        state.record(at);
        let place = state.place();
        let now_ms = state.clock.now_ms();
        let State {
            phases, display, ..
        } = &mut *state;
        if let Some(phase) = phases.last_mut() {
            let wall = at.saturating_sub(phase.started);
            phase.wall = Some(wall);
            let done = phase.report(at, now_ms);
            display.over(&place, &format!("done in {}", units::duration(wall)));
            tell(&done);
        }
    }

    /// Ends the watch, and says what has been done until now; writes the reports that were asked for.
    pub(crate) fn finish(
        mut self,
        published: Vec<(String, Published)>,
        artifacts: Artifacts,
        error: Option<&Error>,
    ) -> RunReport {
        self.stop_looking();
        let wall = self.start.elapsed();
        let mut state = self.lock();
        state.record(wall);
        #[cfg(feature = "prometheus")]
        state.publish();
        if error.is_some() {
            let place = state.place();
            state.display.over(&place, "failed");
        }
        let report = RunReport {
            pipeline: state.pipeline.clone(),
            workers: self.options.workers,
            started: Some(self.started),
            wall,
            error: error.cloned(),
            phases: state
                .phases
                .iter()
                .map(|p| p.report(wall, state.clock.now_ms()))
                .collect(),
            files: published.iter().map(files).collect(),
            published,
            time_line: state.recorder.time_line(),
            peak_memory_bytes: state.peak_memory_bytes,
            options: self.options.to_json(),
            machine: this_machine(),
            artifacts,
        };
        #[cfg(feature = "prometheus")]
        state.publisher.run_over(&report);
        drop(state);
        tell_run(&report);
        self.options.write_reports(&report);
        report
    }

    fn stop_looking(&mut self) {
        // The thread waits for this message or for its next look, whichever comes first.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A run that ends without a report, by a panic say, leaves no thread behind.
impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop_looking();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_now_and_then(state: &Mutex<State>, start: Instant, stopped: &Receiver<()>) {
    loop {
        let pause = lock(state).look(start.elapsed());
        match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl State {
    /// Does what is due at the time `at` of the run; gives the pause to the next look.
    fn look(&mut self, at: Duration) -> Duration {
        let mut next = Duration::MAX;
        if self
            .recording
            .is_due(at, self.recorder.interval(), &mut next)
        {
            self.record(at);
        }
        if let Some(every) = self.display.interval()
            && self.showing.is_due(at, every, &mut next)
        {
            self.show(at);
        }
        #[cfg(feature = "prometheus")]
        if self.publishing.is_due(at, PUBLISHING, &mut next) {
            self.publish();
        }
        next.saturating_sub(at)
    }

    fn record(&mut self, at: Duration) {
        let memory = self.memory.now();
        self.peak_memory_bytes = self.peak_memory_bytes.max(memory);
        self.recorder.record(at, memory);
    }

    /// Shows how far the sources and trainers of the phase are that is under way.
    fn show(&mut self, at: Duration) {
        let place = self.place();
        let Some(phase) = self.phases.last_mut().filter(|p| p.wall.is_none()) else {
            return;
        };
        let watermarks = phase.watermarks_of_sources(self.clock.now_ms());
        let mut shown = Vec::new();
        for node in &mut phase.nodes {
            let counts = node.metrics.now();
            let role = node.outline.role;
            let is_shown = match role {
                Role::Source | Role::Kept => true,
                Role::Trainer => counts.to_train > 0,
                _ => false,
            };
            if is_shown {
                let since = at.saturating_sub(phase.started);
                node.standing.look(&counts, role, since);
                let watermark = watermarks.get(&node.outline.node);
                node.standing.stands(watermark.cloned());
                shown.push((node.outline.node.as_str(), &node.standing));
            }
        }
        self.display.show(&place, shown.into_iter());
    }

    #[cfg(feature = "prometheus")]
    fn publish(&mut self) {
        // What is over was published when it ended.
        let under_way = self.phases.iter().enumerate().rev();
        for (i, phase) in under_way.take_while(|(_, p)| !p.published) {
            let watermarks = phase.watermarks(self.clock.now_ms());
            for (node, watermark) in phase.nodes.iter().zip(&watermarks) {
                let counts = node.metrics.now();
                self.publisher
                    .node(i, &node.outline, &counts, watermark.as_ref());
            }
        }
        for phase in &mut self.phases {
            phase.published = phase.wall.is_some();
        }
    }

    fn place(&self) -> String {
        let (pipeline, n_phases) = (&self.pipeline, self.n_phases);
        format!("{pipeline}, phase {} of {n_phases}", self.phases.len())
    }
}

impl WatchedPhase {
    /// Where event time stands behind each node, at this time of the clock; nowhere once the phase is over.
    fn watermarks(&self, now_ms: i64) -> Vec<Option<WatermarkReport>> {
        if self.wall.is_some() {
            return vec![None; self.nodes.len()];
        }
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .map(|n| {
                let known = n.metrics.watermark().filter(|_| n.has_event_time);
                (&n.outline, known)
            })
            .collect();
        standings(&nodes, now_ms)
    }

    /// Of each source, where the watermark stands that is made of its rows, in words.
    fn watermarks_of_sources(&self, now_ms: i64) -> BTreeMap<String, String> {
        let mut words = BTreeMap::new();
        for standing in self.watermarks(now_ms).into_iter().flatten() {
            // What is held back by a split says its source first.
            let holder = &standing.held_back_by;
            let of = |n: &&WatchedNode| {
                n.outline.role == Role::Source && holder.starts_with(&n.outline.node)
            };
            if let Some(source) = self.nodes.iter().find(of) {
                let split = holder[source.outline.node.len()..].trim_start_matches(", ");
                let lag = match standing.lag {
                    Some(lag) => format!("watermark {} behind", units::duration(lag)),
                    None => "no watermark yet".into(),
                };
                let said = match split {
                    "" => lag,
                    split => format!("{lag}, held back by {split}"),
                };
                words.entry(source.outline.node.clone()).or_insert(said);
            }
        }
        words
    }

    /// What the phase has done until the time `at` of the run, or until its end.
    fn report(&self, at: Duration, now_ms: i64) -> PhaseReport {
        let counts: Vec<_> = self.nodes.iter().map(|n| n.metrics.now()).collect();
        let watermarks = self.watermarks(now_ms);
        let nodes = self.nodes.iter().zip(&counts).zip(watermarks);
        PhaseReport {
            ends_in: self.ends_in.clone(),
            started: self.started,
            wall: self.wall.unwrap_or(at.saturating_sub(self.started)),
            nodes: nodes
                .map(|((n, c), watermark)| NodeReport {
                    watermark,
                    ..c.into_report(n.outline.clone())
                })
                .collect(),
            peak_credit_bytes: counts
                .iter()
                .map(|c| c.peak_credit_bytes)
                .max()
                .unwrap_or_default(),
        }
    }
}

/// A run that is over, for who reads the program's log. Its error is returned, so it is not logged as one.
fn tell_run(report: &RunReport) {
    let message = match report.error {
        None => "run finished",
        Some(_) => "run failed",
    };
    tracing::info!(
        rows_read = report.rows_read(),
        rejected = report.rejected(),
        seconds = report.wall.as_secs_f64(),
        error = report.error.as_ref().map(Error::message),
        "{message}"
    );
}

/// A finished phase, for who reads the program's log.
fn tell(phase: &PhaseReport) {
    let sources = phase.nodes.iter().filter(|n| n.role == Role::Source);
    tracing::info!(
        ends_in = phase.ends_in.join(", "),
        rows_read = sources.map(|n| n.rows_in).sum::<u64>(),
        rejected = phase.nodes.iter().map(|n| n.rejected).sum::<u64>(),
        seconds = phase.wall.as_secs_f64(),
        "phase finished"
    );
    for node in &phase.nodes {
        tracing::debug!(
            node = node.node,
            kind = node.kind,
            rows_in = node.rows_in,
            rows_out = node.rows_out,
            filtered = node.filtered,
            rejected = node.rejected,
            busy_seconds = node.busy.as_secs_f64(),
            "node finished"
        );
    }
}

/// The files of a sink, with their sizes where they lie on this machine.
fn files((node, published): &(String, Published)) -> (String, Vec<PublishedFile>) {
    let files = published.files.iter().enumerate().map(|(i, path)| {
        let size = || std::fs::metadata(path).ok().map(|m| m.len());
        PublishedFile {
            path: path.clone(),
            bytes: if i < MOST_SIZES { size() } else { None },
        }
    });
    (node.clone(), files.collect())
}
