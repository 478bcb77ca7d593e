//! A plan in words and as a drawing.

use std::fmt::Write as _;

use super::{Phase, Plan};
use crate::graph::{NodeIndex, Port, Stage};
use crate::output::OnBadRow;
use crate::transform::Description;

pub(super) fn text(plan: &Plan) -> String {
    let graph = &plan.graph;
    let n = plan.phases.len();
    let mut text = format!(
        "pipeline {:?}: {n} phase{}\n",
        graph.name,
        if n == 1 { "" } else { "s" }
    );
    for (i, phase) in plan.phases.iter().enumerate() {
        let _ = write!(text, "\nphase {} of {n}", i + 1);
        if !phase.kept.is_empty() {
            let kept: Vec<&str> = phase.kept.iter().map(|&k| &*graph.nodes[k].id).collect();
            let _ = write!(text, ", from kept rows of {}", kept.join(", "));
        }
        text.push('\n');
        for &step in &phase.steps {
            let description = plan.graph.nodes[step].stage.describe();
            let _ = writeln!(text, "  step      {}", line(plan, step, &description));
        }
        for &node in &phase.nodes {
            let _ = writeln!(text, "  {}", node_line(plan, phase, node));
        }
    }
    text
}

fn line(plan: &Plan, index: NodeIndex, description: &Description) -> String {
    let node = &plan.graph.nodes[index];
    let mut line = format!("{} [{}", node.id, description.kind);
    match &description.config {
        serde_json::Value::Null => {}
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                let value = match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let _ = write!(line, " {name}={}", shorten(&value));
            }
        }
        other => {
            let _ = write!(line, " {}", shorten(&other.to_string()));
        }
    }
    line.push(']');
    let needs = node.stage.needs();
    if !needs.is_empty() {
        let _ = write!(line, " using {}", needs.join(", "));
    }
    line
}

fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}

fn node_line(plan: &Plan, phase: &Phase, index: NodeIndex) -> String {
    let graph = &plan.graph;
    let node = &graph.nodes[index];
    let verb = match &node.stage {
        _ if phase.kept.contains(&index) => "kept     ",
        Stage::Source(_) => "scan     ",
        Stage::Transform(_) => "transform",
        Stage::Analysis(_) => "learn    ",
        Stage::Trainer(_) => "train    ",
        Stage::Sink(_) => "write    ",
        Stage::Step(_) => "step     ",
    };
    let description = match phase.pruned.get(&index) {
        Some(pruned) => pruned.describe(),
        None => node.stage.describe(),
    };
    let mut text = format!("{verb} {}", line(plan, index, &description));
    let inputs: Vec<String> = phase
        .inputs(graph, index)
        .iter()
        .map(|edge| {
            let from = &graph.nodes[edge.from];
            let ports = from.properties().ports;
            match edge.port {
                Port::DeadLetters => format!("{}:dead_letters", from.id),
                Port::Out(i) if ports.len() > 1 => format!("{}:{}", from.id, ports[i]),
                Port::Out(_) => from.id.to_string(),
            }
        })
        .collect();
    if !inputs.is_empty() {
        let _ = write!(text, " <- {}", inputs.join(", "));
    }
    if let Some(columns) = phase.projection.columns.get(&index)
        && let Some(schema) = &plan.schemas[index]
    {
        let _ = write!(
            text,
            ", columns {} of {}: {}",
            columns.len(),
            schema.fields().len(),
            shorten(&columns.join(", "))
        );
    }
    if let Some(chain) = phase
        .chains
        .iter()
        .find(|c| c.members[1..].contains(&index))
    {
        let _ = write!(text, ", fused with {}", graph.nodes[chain.members[0]].id);
    }
    let properties = node.properties();
    for (said, yes) in [
        (
            "kept on disk for later phases",
            phase.keeps.contains(&index),
        ),
        ("on the pool", properties.blocking),
        ("holds a closure", !properties.portable),
        ("bad rows are dropped", node.on_bad_row == OnBadRow::Drop),
    ] {
        if yes {
            let _ = write!(text, ", {said}");
        }
    }
    text
}

pub(super) fn mermaid(plan: &Plan) -> String {
    let graph = &plan.graph;
    let mut text = String::from("flowchart LR\n");
    for (i, phase) in plan.phases.iter().enumerate() {
        let _ = writeln!(text, "  subgraph phase{0}[phase {0}]", i + 1);
        for &index in phase.steps.iter().chain(&phase.nodes) {
            let node = &graph.nodes[index];
            let kind = node.stage.describe().kind;
            let label = format!("{}<br/><i>{kind}</i>", node.id).replace('"', "#quot;");
            let (open, close) = match node.stage {
                Stage::Source(_) => ("[(", ")]"),
                Stage::Sink(_) => ("[[", "]]"),
                Stage::Analysis(_) | Stage::Trainer(_) | Stage::Step(_) => ("([", "])"),
                Stage::Transform(_) => ("[", "]"),
            };
            let _ = writeln!(text, "    p{}n{index}{open}\"{label}\"{close}", i + 1);
        }
        text.push_str("  end\n");
        for &index in &phase.nodes {
            for edge in phase.inputs(graph, index) {
                let arrow = if edge.port == Port::DeadLetters {
                    "-. rejected .->"
                } else {
                    "-->"
                };
                let _ = writeln!(text, "  p{0}n{1} {arrow} p{0}n{index}", i + 1, edge.from);
            }
        }
    }
    for (i, phase) in plan.phases.iter().enumerate() {
        for &index in phase.steps.iter().chain(&phase.nodes) {
            for id in graph.nodes[index].stage.needs() {
                let learner = graph.nodes.iter().position(|n| n.id == id);
                let place = learner.and_then(|l| {
                    let p = plan
                        .phases
                        .iter()
                        .position(|p| p.steps.contains(&l) || p.ends.contains(&l))?;
                    Some((p, l))
                });
                if let Some((p, l)) = place {
                    let _ = writeln!(text, "  p{}n{l} == artifact ==> p{}n{index}", p + 1, i + 1);
                }
            }
        }
    }
    text
}
