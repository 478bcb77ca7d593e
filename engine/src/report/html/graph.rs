//! The graph as a drawing, a group per phase.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::layout::{Layout, NODE, layout};
use super::{anchor, role_word};
use crate::report::{NodeReport, PhaseReport, RunReport, shorten, units};

/// Room around a drawing, for the mark above the slowest node and for outlines.
const MARGIN: f64 = 22.0;

/// The width of the bar in a node.
const BAR: f64 = NODE.0 - 24.0 - 44.0;

/// What an edge carries.
#[derive(Clone, Copy, PartialEq)]
enum Carries {
    Rows,
    DeadLetters,
    Artifact,
}

impl Carries {
    fn class(self) -> &'static str {
        match self {
            Self::Rows => "edge",
            Self::DeadLetters => "edge dead",
            Self::Artifact => "edge artifact",
        }
    }
}

pub(super) fn graph(report: &RunReport) -> Markup {
    html! {
        section aria-labelledby="graph" {
            h2 id="graph" { "Graph" }
            (legend())
            @for (i, phase) in report.phases.iter().enumerate() {
                (group(report, i + 1, phase))
            }
        }
    }
}

fn legend() -> Markup {
    html! {
        ul.legend {
            li { svg.key viewBox="0 0 30 12" aria-hidden="true" { path.edge d="M1 6H29" {} } " rows" }
            li { svg.key viewBox="0 0 30 12" aria-hidden="true" { path.edge.dead d="M1 6H29" {} } " rejected rows" }
            li { svg.key viewBox="0 0 30 12" aria-hidden="true" { path.edge.artifact d="M1 6H29" {} } " what was learned" }
            li {
                svg.key viewBox="0 0 30 12" aria-hidden="true" {
                    rect.track x="0" y="3" width="30" height="6" rx="3" {}
                    rect.fill x="0" y="3" width="18" height="6" rx="3" {}
                }
                " share of the busy time of all nodes"
            }
        }
    }
}

fn group(report: &RunReport, number: usize, phase: &PhaseReport) -> Markup {
    let (layout, kinds) = place(phase);
    let (width, height) = (layout.width + 2.0 * MARGIN, layout.height + 2.0 * MARGIN);
    let n_phases = report.phases.len();
    let n_nodes = phase.nodes.len();
    html! {
        article.phase {
            h3 {
                "Phase " (number) " of " (n_phases)
                span.muted { " · " (units::duration(phase.wall)) " · ends in " (phase.ends_in.join(", ")) }
                @if let Some((_, slowest)) = report.slowest().filter(|(p, _)| *p == number) {
                    span.mark { " · slowest: " (slowest.node) }
                }
            }
            @if n_nodes > 0 {
                div.scroll tabindex="0" role="group" aria-label={ "Drawing of phase " (number) } {
                    svg.graph width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) }
                        aria-label={ "Graph of phase " (number) ", " (n_nodes) " nodes; the table of nodes says the same in text" } {
                        defs {
                            marker.head id={ "head-" (number) } viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" markerWidth="9" markerHeight="9" orient="auto" {
                                path d="M0 0L8 4L0 8z" {}
                            }
                        }
                        g transform={ "translate(" (MARGIN) " " (MARGIN) ")" } {
                            @for (points, carries) in layout.edges.iter().zip(&kinds) {
                                path class=(carries.class()) d=(curve(points)) marker-end={ "url(#head-" (number) ")" } {}
                            }
                            @for (node, corner) in phase.nodes.iter().zip(&layout.nodes) {
                                (self::node(report, number, node, *corner))
                            }
                        }
                    }
                }
            } @else {
                p.muted { "No node had begun." }
            }
        }
    }
}

/// Where the nodes of a phase stand, and what each edge carries.
fn place(phase: &PhaseReport) -> (Layout, Vec<Carries>) {
    let at = |id: &str| phase.nodes.iter().position(|n| n.node == id);
    let (mut edges, mut kinds) = (Vec::new(), Vec::new());
    let mut add = |from: Option<usize>, to: usize, carries: Carries| {
        if let Some(from) = from.filter(|&from| from < to) {
            edges.push((from, to));
            kinds.push(carries);
        }
    };
    for (to, node) in phase.nodes.iter().enumerate() {
        for input in &node.inputs {
            let carries = match input.port.as_str() {
                "dead_letters" => Carries::DeadLetters,
                _ => Carries::Rows,
            };
            add(at(&input.from), to, carries);
        }
        for artifact in &node.uses {
            add(at(artifact), to, Carries::Artifact);
        }
    }
    (layout(phase.nodes.len(), &edges), kinds)
}

/// A smooth line through points that lie left to right.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    let Some((x, y)) = points.first() else {
        return path;
    };
    let _ = write!(path, "M{x:.1} {y:.1}");
    for pair in points.windows(2) {
        let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
        let middle = f64::midpoint(x0, x1);
        let _ = write!(
            path,
            "C{middle:.1} {y0:.1} {middle:.1} {y1:.1} {x1:.1} {y1:.1}"
        );
    }
    path
}

fn node(report: &RunReport, phase: usize, node: &NodeReport, (x, y): (f64, f64)) -> Markup {
    let share = report.busy_share(node);
    let is_slowest = report.is_slowest(phase, node);
    let class = if is_slowest { "node slowest" } else { "node" };
    let (width, height) = NODE;
    let filled = (BAR * share.clamp(0.0, 1.0)).max(if share > 0.0 { 2.0 } else { 0.0 });
    html! {
        a href={ "#" (anchor(phase, &node.node)) } {
            g class=(class) transform={ "translate(" (format!("{x:.1} {y:.1}")) ")" } {
                title { (about(report, node)) }
                @if is_slowest {
                    rect.tag x="-1" y="-19" width="62" height="24" rx="5" {}
                    text.tag x="30" y="-6" text-anchor="middle" { "slowest" }
                }
                rect.box width=(width) height=(height) rx="8" {}
                // Only HTML cuts a text where its box ends, whatever font and alphabet it is written in.
                foreignObject x="12" y="6" width=(width - 24.0) height="68" {
                    div.lines {
                        div.id { (shorten(&node.node, 18)) }
                        div.muted { (shorten(&kind(node), 27)) }
                        div { (rows(node)) }
                        div.muted { (sizes(node)) }
                    }
                }
                rect.track x="12" y="77" width=(BAR) height="6" rx="3" {}
                @if filled > 0.0 {
                    rect.fill x="12" y="77" width=(format!("{filled:.1}")) height="6" rx="3" {}
                }
                text x=(width - 12.0) y="84" text-anchor="end" { (units::share(share)) }
            }
        }
    }
}

fn kind(node: &NodeReport) -> String {
    let role = role_word(node.role);
    if role == "transform" {
        node.kind.clone()
    } else {
        format!("{role} · {}", node.kind)
    }
}

fn rows(node: &NodeReport) -> String {
    let (rows_in, rows_out) = (units::count(node.rows_in), units::count(node.rows_out));
    match role_word(node.role) {
        "step" => format!("took {}", units::duration(node.busy)),
        "source" | "kept" => format!("{rows_in} rows"),
        "transform" => format!("{rows_in} → {rows_out} rows"),
        _ => format!("{rows_in} rows in"),
    }
}

fn sizes(node: &NodeReport) -> String {
    let mut sizes = Vec::new();
    if node.bytes_in > 0 {
        sizes.push(units::bytes(node.bytes_in));
    }
    if node.peak_state_bytes > 0 {
        sizes.push(format!("keeps {}", units::bytes(node.peak_state_bytes)));
    }
    if node.rejected > 0 {
        sizes.push(format!("{} rejected", units::count(node.rejected)));
    }
    sizes.join(" · ")
}

/// What a pointer that rests on a node is told.
fn about(report: &RunReport, node: &NodeReport) -> String {
    let mut text = format!(
        "{}\n{}\nbusy {} ({} of all busy time)",
        node.node,
        kind(node),
        units::duration(node.busy),
        units::share(report.busy_share(node))
    );
    if !node.config.is_empty() {
        let _ = write!(text, "\n{}", node.config);
    }
    if !node.uses.is_empty() {
        let _ = write!(text, "\nuses {}", node.uses.join(", "));
    }
    text
}
