//! A plan in words and as a drawing.

use std::fmt::Write as _;

use super::outline::{settings, shorten};
use super::streaming::never_ends;
use super::{Phase, Plan};
use crate::graph::{Edge, NodeIndex, Port, Stage};
use crate::output::OnBadRow;
use crate::report::{NodeReport, Role};

/// Columns of a terminal that a node's line may fill before what else is told of it stands below.
const WIDTH: usize = 100;

/// Where that stands.
const INDENT: &str = "              ";

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
        for &index in phase.steps.iter().chain(&phase.nodes) {
            push_node(&mut text, plan, phase, index);
        }
    }
    text
}

/// A node on one line; where that would be too long, what is told of it stands on lines below.
fn push_node(text: &mut String, plan: &Plan, phase: &Phase, index: NodeIndex) {
    let NodeReport {
        node, kind, uses, ..
    } = plan.outline(phase, index);
    let verb = match plan.role(phase, index) {
        Role::Kept => "kept",
        Role::Source => "scan",
        Role::Transform => "transform",
        Role::Analysis => "learn",
        Role::Trainer => "train",
        Role::Sink => "write",
        Role::Step => "step",
    };
    let settings = settings(&plan.description(phase, index).config);
    let inputs = inputs(plan, phase, index);
    let mut told: Vec<String> = Vec::new();
    if !uses.is_empty() {
        told.push(format!("using {}", uses.join(", ")));
    }
    if !inputs.is_empty() {
        told.push(format!("<- {}", inputs.join(", ")));
    }
    let notes = notes(plan, phase, index);

    let kinds: Vec<String> = std::iter::once(kind).chain(settings).collect();
    let head = format!("  {verb:<9} {node}");
    let whole = format!("{head} [{}]", kinds.join(" "));
    let whole = std::iter::once(whole).chain(told.clone());
    let line = whole.collect::<Vec<_>>().join(" ");
    let line = std::iter::once(line).chain(notes.clone());
    let line = line.collect::<Vec<_>>().join(", ");
    if line.chars().count() <= WIDTH {
        let _ = writeln!(text, "{line}");
        return;
    }
    // The edges are what a reader follows, so they stay beside the name.
    let first = format!("{head} [{}]", kinds[0]);
    let whole = std::iter::once(first.clone()).chain(told.clone());
    let whole = whole.collect::<Vec<_>>().join(" ");
    let mut below = Vec::new();
    if whole.chars().count() <= WIDTH {
        let _ = writeln!(text, "{whole}");
    } else {
        let _ = writeln!(text, "{first}");
        below.append(&mut told);
    }
    let rest: Vec<String> = kinds[1..].iter().cloned().chain(notes).collect();
    below.extend((!rest.is_empty()).then(|| rest.join(", ")));
    for line in below {
        push_list(text, &line);
    }
}

/// A line below that of a node; a long list goes on in the next one.
fn push_list(text: &mut String, list: &str) {
    let mut line = String::from(INDENT);
    for (i, item) in list.split(", ").enumerate() {
        if i > 0 {
            line.push(',');
            if line.chars().count() + 1 + item.chars().count() > WIDTH {
                let _ = writeln!(text, "{line}");
                line = format!("{INDENT} ");
            }
            line.push(' ');
        }
        line.push_str(item);
    }
    let _ = writeln!(text, "{line}");
}

/// The nodes that rows come from, with the port where there are several.
fn inputs(plan: &Plan, phase: &Phase, index: NodeIndex) -> Vec<String> {
    let graph = &plan.graph;
    let name = |edge: &Edge| {
        let from = &graph.nodes[edge.from];
        let ports = from.properties().ports;
        match edge.port {
            Port::DeadLetters => format!("{}:dead_letters", from.id),
            Port::Out(i) if ports.len() > 1 => format!("{}:{}", from.id, ports[i]),
            Port::Out(_) => from.id.to_string(),
        }
    };
    phase.inputs(graph, index).iter().map(name).collect()
}

/// What the planner has decided for a node.
fn notes(plan: &Plan, phase: &Phase, index: NodeIndex) -> Vec<String> {
    let graph = &plan.graph;
    let node = &graph.nodes[index];
    let mut notes = Vec::new();
    if let Some(columns) = phase.projection.columns.get(&index)
        && let Some(schema) = &plan.schemas[index]
    {
        notes.push(format!(
            "columns {} of {}: {}",
            columns.len(),
            schema.fields().len(),
            shorten(&columns.join(", "))
        ));
    }
    if let Some(chain) = phase
        .chains
        .iter()
        .find(|c| c.members[1..].contains(&index))
    {
        notes.push(format!("fused with {}", graph.nodes[chain.members[0]].id));
    }
    let properties = node.properties();
    notes.extend(windowing_notes(plan, phase, index));
    notes.extend(state_note(plan, phase, index));
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
            notes.push(said.into());
        }
    }
    notes
}

/// How event time divides what comes in: said where that begins, and where state is kept by it.
fn windowing_notes(plan: &Plan, phase: &Phase, index: NodeIndex) -> Vec<String> {
    let graph = &plan.graph;
    let edges = phase.inputs(graph, index);
    let begins = |edge: &Edge| {
        let before = phase.inputs(graph, edge.from);
        before.is_empty() || before.iter().any(|b| b.windowing != edge.windowing)
    };
    let is_said = |edge: &&Edge| {
        !edge.windowing.is_default() && (begins(edge) || graph.nodes[index].properties().stateful)
    };
    let divided: Vec<&Edge> = edges.iter().filter(is_said).collect();
    match divided.as_slice() {
        [] => Vec::new(),
        all if all.len() == edges.len() && all.iter().all(|e| e.windowing == all[0].windowing) => {
            vec![format!("in {}", all[0].windowing)]
        }
        some => some
            .iter()
            .map(|e| format!("{} in {}", graph.nodes[e.from].id, e.windowing))
            .collect(),
    }
}

/// What a node keeps and what releases it, where its rows never end or windows divide them.
fn state_note(plan: &Plan, phase: &Phase, index: NodeIndex) -> Option<String> {
    let graph = &plan.graph;
    let Stage::Transform(transform) = &graph.nodes[index].stage else {
        return None;
    };
    let edges = phase.inputs(graph, index);
    let is_divided = edges.iter().any(|e| !e.windowing.is_default());
    let is_endless = edges.iter().any(|e| never_ends(graph, e.from).is_some());
    if !transform.properties().stateful || !(is_divided || is_endless) {
        return None;
    }
    if let Some(said) = transform.keeps() {
        return Some(format!("keeps {said}"));
    }
    let windowing = &edges.first()?.windowing;
    Some(match windowing.window_fn.describe().kind {
        "global" => "keeps state to the end".into(),
        _ if windowing.allowed_lateness_ms > 0 => {
            "keeps state until the watermark passes a window's end by the lateness".into()
        }
        _ => "keeps state until the watermark passes a window's end".into(),
    })
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
                let arrow = match edge.port {
                    Port::DeadLetters => "-. rejected .->".to_owned(),
                    Port::Out(_) if edge.windowing.is_default() => "-->".to_owned(),
                    Port::Out(_) => format!("-->|\"{}\"|", edge.windowing),
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
