//! One memory budget per run: how it is shared out, and what nodes keep of it.
//!
//! ```text
//! budget ┬─ rows in flight: a credit for each source and worker, at most a quarter in all
//!        └─ state: what operators, analyses, sinks and artifacts say they keep, summed over workers
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::machine::this_machine;
use super::metrics::NodeMetrics;
use super::options::RunOptions;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeIndex};
use crate::report::units;

/// Credit that a source needs on one worker to be of use: a batch of a few narrow columns.
const LEAST_CREDIT: u64 = 256 << 10;

/// Budget where the system does not say how much memory there is.
const UNKNOWN_MACHINE: u64 = 2 << 30;

/// Half of the machine's memory, or of what the control group allows, where that is less.
pub(crate) fn half_of_the_machine() -> u64 {
    match this_machine().memory_bytes {
        0 => UNKNOWN_MACHINE,
        bytes => bytes / 2,
    }
}

/// How the budget is shared out among the sources of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credits {
    /// What one source may have in flight on one worker.
    pub(crate) each: u64,
    /// What all may have together.
    pub(crate) total: u64,
}

impl Credits {
    /// A quarter of the budget in equal parts, none of which exceeds what the options allow.
    ///
    /// # Errors
    /// A pipeline error where the parts would be too small for a batch.
    pub(crate) fn share(options: &RunOptions, budget: u64, n_sources: usize) -> Result<Self> {
        let n = (n_sources * options.workers).max(1) as u64;
        let each = (budget / 4 / n).min(options.credit_bytes);
        let least = LEAST_CREDIT.min(options.credit_bytes);
        if each < least {
            let (sources, workers) = (n_sources, options.workers);
            return Err(Error::pipeline(format!(
                "a memory budget of {} is too small for this pipeline, expected at least {}",
                units::bytes(budget),
                units::bytes(4 * n * least)
            ))
            .with_detail(format!(
                "A quarter of it is for rows in flight, {} for each of {sources} sources on each of {workers} workers.",
                units::bytes(least)
            ))
            .with_hint("Raise it with `RunOptions::memory_bytes`, or run fewer workers."));
        }
        Ok(Self {
            each,
            total: each * n,
        })
    }
}

/// What the nodes of a run keep in memory, held against its budget.
#[derive(Debug)]
pub(crate) struct Memory {
    graph: Arc<Graph>,
    budget: u64,
    in_flight: AtomicU64,
    states: AtomicU64,
    /// The bytes of each node.
    nodes: Vec<AtomicU64>,
}

impl Memory {
    pub(crate) fn new(graph: &Arc<Graph>, budget: u64) -> Arc<Self> {
        Arc::new(Self {
            graph: Arc::clone(graph),
            budget,
            in_flight: AtomicU64::new(0),
            states: AtomicU64::new(0),
            nodes: graph.nodes.iter().map(|_| AtomicU64::new(0)).collect(),
        })
    }

    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// Sets aside what rows in flight may take.
    pub(crate) fn begin_phase(&self, credits: Credits) {
        self.in_flight.store(credits.total, SeqCst);
    }

    /// The account of one instance of a node's operator.
    pub(crate) fn account(self: &Arc<Self>, node: NodeIndex) -> Account {
        Account {
            memory: Arc::clone(self),
            node,
            held: 0,
            metrics: None,
        }
    }

    fn grow(&self, node: NodeIndex, n_bytes: u64) -> Result<()> {
        if let Some(bytes) = self.nodes.get(node) {
            bytes.fetch_add(n_bytes, SeqCst);
        }
        let states = self.states.fetch_add(n_bytes, SeqCst) + n_bytes;
        if states + self.in_flight.load(SeqCst) > self.budget {
            return Err(self.exceeded(states));
        }
        Ok(())
    }

    fn shrink(&self, node: NodeIndex, n_bytes: u64) {
        if let Some(bytes) = self.nodes.get(node) {
            bytes.fetch_sub(n_bytes, SeqCst);
        }
        self.states.fetch_sub(n_bytes, SeqCst);
    }

    /// The error of a run whose states are too large, at the node that keeps most.
    fn exceeded(&self, states: u64) -> Error {
        let mut kept: Vec<(u64, &str)> = self
            .nodes
            .iter()
            .zip(&self.graph.nodes)
            .map(|(bytes, node)| (bytes.load(SeqCst), &*node.id))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        kept.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let for_state = self.budget.saturating_sub(self.in_flight.load(SeqCst));
        let error = Error::environment(format!(
            "the nodes of the run keep {} in memory, expected at most {}",
            units::bytes(states),
            units::bytes(for_state)
        ))
        .with_detail(format!(
            "The budget is {}, of which {} are for rows in flight.",
            units::bytes(self.budget),
            units::bytes(self.in_flight.load(SeqCst))
        ))
        .with_detail(format!(
            "Kept most: {}.",
            kept.iter()
                .take(3)
                .map(|(bytes, id)| format!("{} by {id:?}", units::bytes(*bytes)))
                .collect::<Vec<_>>()
                .join(", ")
        ))
        .with_hint("Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values.");
        match kept.first() {
            Some((_, id)) => error.at_node(id),
            None => error,
        }
    }
}

/// What one instance of a node keeps; given back when it is dropped.
pub(crate) struct Account {
    memory: Arc<Memory>,
    node: NodeIndex,
    held: u64,
    /// What the node keeps stands in its report too.
    metrics: Option<Arc<NodeMetrics>>,
}

impl Account {
    /// Tells the metrics of the node as well.
    pub(crate) fn telling(self, metrics: &Arc<NodeMetrics>) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            node: self.node,
            held: 0,
            metrics: Some(Arc::clone(metrics)),
        }
    }

    /// Says how much is kept now.
    ///
    /// # Errors
    /// An environment error where all nodes together keep more than the budget leaves them.
    pub(crate) fn holds(&mut self, n_bytes: u64) -> Result<()> {
        let before = std::mem::replace(&mut self.held, n_bytes);
        if before == n_bytes {
            return Ok(());
        }
        if let Some(metrics) = &self.metrics {
            metrics.state_changed(before, n_bytes);
        }
        match n_bytes.checked_sub(before) {
            Some(more) => self.memory.grow(self.node, more),
            None => {
                self.memory.shrink(self.node, before - n_bytes);
                Ok(())
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.state_changed(self.held, 0);
        }
        self.memory.shrink(self.node, self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors;
    use crate::testing::table;
    use crate::{Pipeline, RunOptions};
    use expect_test::expect;

    const MB: u64 = 1_000_000;

    fn options(workers: usize) -> RunOptions {
        RunOptions::new().workers(workers)
    }

    #[test]
    fn credits_are_a_quarter_in_equal_parts_and_at_most_what_is_allowed() {
        let share = |budget, workers, n_sources| {
            Credits::share(&options(workers), budget, n_sources).unwrap()
        };
        assert_eq!(
            share(4096 * MB, 2, 1),
            Credits {
                each: 32 << 20,
                total: 64 << 20
            }
        );
        assert_eq!(
            share(80 * MB, 2, 5),
            Credits {
                each: 2 * MB,
                total: 20 * MB
            }
        );
        let narrow = options(1).credit_bytes(10);
        assert_eq!(Credits::share(&narrow, 40, 1).unwrap().each, 10);
    }

    #[test]
    fn a_budget_too_small_for_the_sources_is_refused() {
        expect![[r#"
            a memory budget of 20 MB is too small for this pipeline, expected at least 21 MB
              A quarter of it is for rows in flight, 262 kB for each of 10 sources on each of 2 workers.
              Hint: Raise it with `RunOptions::memory_bytes`, or run fewer workers."#]]
        .assert_eq(
            &Credits::share(&options(2), 20 * MB, 10)
                .unwrap_err()
                .to_string(),
        );
    }

    #[test]
    fn the_node_that_keeps_most_is_named() {
        let pipeline = Pipeline::new("test");
        let rows = pipeline.read("rows", connectors::from_record_batches(vec![table("a: 1")]));
        let _ = rows.named("wide").filter(crate::col("a").gt(crate::lit(0)));
        let memory = Memory::new(&Arc::new(pipeline.graph()), 100 * MB);
        let (each, total) = (10 * MB, 20 * MB);
        memory.begin_phase(Credits { each, total });
        let metrics: [Arc<NodeMetrics>; 2] = Default::default();
        let account = |node: NodeIndex| memory.account(node).telling(&metrics[node]);
        let (mut a, mut b, mut c) = (account(1), account(1), account(0));
        a.holds(30 * MB).unwrap();
        b.holds(30 * MB).unwrap();
        a.holds(20 * MB).unwrap();
        c.holds(30 * MB).unwrap();
        drop(b);
        a.holds(50 * MB).unwrap();
        let error = c.holds(31 * MB).unwrap_err();
        assert!(error.is_environment());
        expect![[r#"
            the nodes of the run keep 81 MB in memory, expected at most 80 MB
              in transform "wide"
              The budget is 100 MB, of which 20 MB are for rows in flight.
              Kept most: 50 MB by "wide", 31 MB by "rows".
              Hint: Raise `RunOptions::memory_bytes` if the machine has more, or give this node less to keep: filter rows, select fewer columns or aggregate before it, or use keys with fewer values."#]].assert_eq(&error.to_string());
        let peaks = [0, 1].map(|node| metrics[node].now().peak_state_bytes);
        assert_eq!(peaks, [31 * MB, 60 * MB]);
        drop((a, c));
        assert_eq!(metrics[1].now().state_bytes, 0);
        assert_eq!(memory.states.load(SeqCst), 0);
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(half_of_the_machine() > 100 * MB);
    }
}
