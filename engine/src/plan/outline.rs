//! What explanations and reports say of a node before it has run.

use serde_json::Value;

use super::{Phase, Plan};
use crate::graph::{NodeIndex, Port, Stage};
use crate::output::OnBadRow;
use crate::report::{NodeInput, NodeReport, Role};
use crate::transform::Description;

/// The longest value of a configuration that is shown whole.
const MOST: usize = 60;

impl Plan {
    /// A node of a phase with all counters at zero.
    pub(crate) fn outline(&self, phase: &Phase, index: NodeIndex) -> NodeReport {
        let node = &self.graph.nodes[index];
        let description = self.description(phase, index);
        let on_bad_row = match node.on_bad_row {
            OnBadRow::Fail => "fail",
            OnBadRow::Drop => "drop",
            OnBadRow::DeadLetter => "dead_letter",
        };
        NodeReport {
            node: node.id.to_string(),
            kind: description.kind.into(),
            role: self.role(phase, index),
            config: settings(&description.config).join(" "),
            inputs: self.inputs(phase, index),
            uses: node.stage.needs().iter().map(ToString::to_string).collect(),
            on_bad_row: on_bad_row.into(),
            ..NodeReport::default()
        }
    }

    /// A node as it runs in a phase: a source that leaves rows out says which.
    pub(super) fn description(&self, phase: &Phase, index: NodeIndex) -> Description {
        match phase.pruned.get(&index) {
            Some(pruned) => pruned.describe(),
            None => self.graph.nodes[index].stage.describe(),
        }
    }

    /// Which part a node plays in a phase.
    pub(crate) fn role(&self, phase: &Phase, index: NodeIndex) -> Role {
        match &self.graph.nodes[index].stage {
            _ if phase.kept.contains(&index) => Role::Kept,
            Stage::Source(_) => Role::Source,
            Stage::Transform(_) => Role::Transform,
            Stage::Analysis(_) => Role::Analysis,
            Stage::Trainer(_) => Role::Trainer,
            Stage::Step(_) => Role::Step,
            Stage::Sink(_) => Role::Sink,
        }
    }

    fn inputs(&self, phase: &Phase, index: NodeIndex) -> Vec<NodeInput> {
        let edges = phase.inputs(&self.graph, index).iter();
        let inputs = edges.map(|edge| {
            let from = &self.graph.nodes[edge.from];
            let port = match edge.port {
                Port::Out(i) => from.properties().ports.get(i).cloned().unwrap_or_default(),
                Port::DeadLetters => "dead_letters".into(),
            };
            NodeInput {
                from: from.id.to_string(),
                port,
            }
        });
        inputs.collect()
    }
}

/// A configuration as `name=value`, long values cut.
pub(super) fn settings(config: &Value) -> Vec<String> {
    match config {
        Value::Null => Vec::new(),
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                format!("{name}={}", shorten(&value))
            })
            .collect(),
        other => vec![shorten(&other.to_string())],
    }
}

/// The beginning of a long text.
pub(super) fn shorten(text: &str) -> String {
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}
