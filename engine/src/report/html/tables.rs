//! The tables of the page: phases, nodes, refused rows, what was published, how it was run.

use maud::{Markup, html};
use serde_json::Value;

use super::{anchor, role_word};
use crate::report::{NodeReport, PublishedFile, RunReport, units};
use crate::sink::Published;

/// Files of one sink that are listed at once; more wait until they are asked for.
const FILES_SHOWN: usize = 12;

pub(super) fn phases(report: &RunReport) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Table of phases" {
            table {
                caption { "Phases" }
                thead { tr {
                    th scope="col" { "Phase" }
                    th scope="col" { "Ends in" }
                    @for name in ["Began after", "Took", "Share", "Rows read", "In flight at most"] {
                        th.number scope="col" { (name) }
                    }
                } }
                tbody {
                    @for (i, phase) in report.phases.iter().enumerate() {
                        @let share = phase.wall.as_secs_f64() / report.wall.as_secs_f64();
                        tr {
                            th scope="row" { (i + 1) }
                            td.wrap { (phase.ends_in.join(", ")) }
                            td.number { (units::duration(phase.started)) }
                            td.number { (units::duration(phase.wall)) }
                            td.number { (units::share(share)) }
                            td.number { (units::count(phase.nodes.iter().filter(|n| role_word(n.role) == "source").map(|n| n.rows_in).sum())) }
                            td.number { (units::bytes(phase.peak_credit_bytes)) }
                        }
                    }
                }
            }
        }
    }
}

/// A column of numbers: what it is called, what it sorts by, and what it shows.
type Number = (
    &'static str,
    fn(&NodeReport) -> u64,
    fn(&NodeReport) -> String,
);

/// The columns of numbers, of which those without any are left out.
const NUMBERS: &[Number] = &[
    ("Busy", busy, |n| units::duration(n.busy)),
    ("Rows in", |n| n.rows_in, |n| units::exact(n.rows_in)),
    ("Rows out", |n| n.rows_out, |n| units::exact(n.rows_out)),
    ("Filtered", |n| n.filtered, |n| units::exact(n.filtered)),
    ("Rejected", |n| n.rejected, |n| units::exact(n.rejected)),
    ("Late", |n| n.late, |n| units::exact(n.late)),
    (
        "Behind the watermark",
        |n| n.behind,
        |n| units::exact(n.behind),
    ),
    ("Watermark's lag", lag, |n| {
        n.watermark
            .as_ref()
            .map_or("-".into(), |w| w.lag_in_words())
    }),
    ("Not read", |n| n.pruned, |n| units::exact(n.pruned)),
    (
        "Memory of rows",
        |n| n.bytes_in,
        |n| units::bytes(n.bytes_in),
    ),
    (
        "Storage read",
        |n| n.bytes_read,
        |n| units::bytes(n.bytes_read),
    ),
    (
        "State at most",
        |n| n.peak_state_bytes,
        |n| units::bytes(n.peak_state_bytes),
    ),
    ("Batches", |n| n.batches, |n| units::exact(n.batches)),
    ("Rows per busy s", rate, NodeReport::rate),
];

/// A watermark that is not known yet lags most.
fn lag(node: &NodeReport) -> u64 {
    let of = |lag: std::time::Duration| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
    let watermark = node.watermark.as_ref();
    watermark.map_or(0, |w| w.lag.map_or(u64::MAX, of).max(1))
}

fn busy(node: &NodeReport) -> u64 {
    u64::try_from(node.busy.as_micros()).unwrap_or(u64::MAX)
}

fn rate(node: &NodeReport) -> u64 {
    let seconds = node.busy.as_secs_f64();
    if seconds > 0.0 {
        (node.rows_in as f64 / seconds) as u64
    } else {
        0
    }
}

pub(super) fn nodes(report: &RunReport) -> Markup {
    let numbers: Vec<&Number> = NUMBERS
        .iter()
        .filter(|(_, of, _)| report.nodes().any(|(_, n)| of(n) > 0))
        .collect();
    html! {
        section aria-labelledby="nodes" {
            h2 id="nodes" { "Nodes" }
            div.scroll tabindex="0" role="group" aria-label="Table of nodes" {
                table.sortable {
                    caption { "Every node in every phase; busy time is summed over workers" }
                    thead { tr {
                        th scope="col" { "Phase" }
                        th scope="col" { "Node" }
                        th scope="col" { "What" }
                        th.number scope="col" { "Busy share" }
                        @for (name, ..) in &numbers { th.number scope="col" { (name) } }
                    } }
                    tbody {
                        @for (phase, node) in report.nodes() { (line(report, phase, node, &numbers)) }
                    }
                }
            }
        }
    }
}

fn line(report: &RunReport, phase: usize, node: &NodeReport, numbers: &[&Number]) -> Markup {
    let share = report.busy_share(node);
    let is_slowest = report.is_slowest(phase, node);
    html! {
        tr.slowest[is_slowest] id=(anchor(phase, &node.node)) {
            td data-value=(phase) { (phase) }
            th scope="row" {
                (node.node)
                @if is_slowest { " " span.mark { "slowest" } }
            }
            td.what {
                (role_word(node.role)) " · " (node.kind)
                @if !node.config.is_empty() { br; span.muted.config { (node.config) } }
                @if let Some(watermark) = &node.watermark {
                    br; span.muted { "held back by " (watermark.held_back_by) }
                }
                @if !node.uses.is_empty() { br; span.muted { "uses " (node.uses.join(", ")) } }
            }
            td.number data-value=(format!("{share:.6}")) {
                (units::share(share))
                span.meter aria-hidden="true" { span style={ "width:" (format!("{:.1}%", share * 100.0)) } {} }
            }
            @for (_, of, say) in numbers {
                td.number data-value=(of(node)) { (say(node)) }
            }
        }
    }
}

/// The rows that were refused, and what became of them.
pub(super) fn refused(report: &RunReport) -> Markup {
    let refusing: Vec<_> = report.nodes().filter(|(_, n)| n.rejected > 0).collect();
    html! {
        section aria-labelledby="refused" {
            h2 id="refused" { "Rejected rows" }
            @if refusing.is_empty() {
                p.muted { "None: every node could take every row." }
            } @else {
                div.note {
                    p { b { (units::exact(report.rejected())) " rows were rejected." } }
                    ul {
                        @for (phase, node) in refusing {
                            li {
                                a href={ "#" (anchor(phase, &node.node)) } { (node.node) }
                                " in phase " (phase) ": "
                                (units::exact(node.rejected)) " of " (units::exact(node.rows_in)) " rows, "
                                (fate(report, node)) "."
                            }
                        }
                    }
                }
            }
        }
    }
}

fn fate(report: &RunReport, node: &NodeReport) -> String {
    let reads = |n: &NodeReport| {
        let mut inputs = n.inputs.iter();
        inputs.any(|i| i.from == node.node && i.port == "dead_letters")
    };
    let mut readers: Vec<&str> = report
        .nodes()
        .filter(|(_, n)| reads(n))
        .map(|(_, n)| n.node.as_str())
        .collect();
    readers.dedup();
    match node.on_bad_row.as_str() {
        "dead_letter" if !readers.is_empty() => format!("dead letters for {}", readers.join(", ")),
        "fail" => "where the run failed".into(),
        _ => "dropped".into(),
    }
}

pub(super) fn published(report: &RunReport) -> Markup {
    html! {
        section aria-labelledby="published" {
            h2 id="published" { "Published" }
            @if report.error.is_some() && report.published.is_empty() {
                p.muted { "Nothing: the run failed before it could publish." }
            } @else if report.published.is_empty() {
                p.muted { "The pipeline has no sink." }
            }
            @for (node, done) in &report.published {
                (sink(report, node, done))
            }
        }
    }
}

fn sink(report: &RunReport, node: &str, done: &Published) -> Markup {
    let of_node = report.files.iter().find(|(of, _)| of == node);
    let files = of_node
        .map(|(_, files)| files.as_slice())
        .unwrap_or_default();
    let n_files = done.files.len();
    html! {
        h3 {
            (node)
            span.muted {
                " · " (units::exact(done.n_rows)) " rows"
                @if done.n_bytes > 0 { " · " (units::bytes(done.n_bytes)) }
                @if n_files > 1 { " in " (n_files) " files" }
            }
        }
        @if !files.is_empty() {
            (table_of_files(&files[..files.len().min(FILES_SHOWN)]))
        }
        @if files.len() > FILES_SHOWN {
            details {
                summary { "The other " (files.len() - FILES_SHOWN) " files" }
                (table_of_files(&files[FILES_SHOWN..]))
            }
        }
    }
}

fn table_of_files(files: &[PublishedFile]) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label="Table of files" {
            table {
                thead { tr { th scope="col" { "File" } th.number scope="col" { "Size" } } }
                tbody {
                    @for file in files {
                        tr {
                            td { code { (file.path.display()) } }
                            td.number { (file.bytes.map_or_else(|| "-".into(), units::bytes)) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn run(report: &RunReport) -> Markup {
    let machine = &report.machine;
    let mut facts: Vec<(String, String)> = report
        .options
        .iter()
        .map(|(name, value)| (name.replace('_', " "), option(name, value)))
        .collect();
    facts.push(("cores".into(), machine.cores.to_string()));
    facts.push(("memory".into(), units::bytes(machine.memory_bytes)));
    facts.push((
        "system".into(),
        format!("{} on {}", machine.system, machine.architecture),
    ));
    facts.push((
        "engine".into(),
        format!("mainstem-engine {}", env!("CARGO_PKG_VERSION")),
    ));
    html! {
        section aria-labelledby="run" {
            h2 id="run" { "Run" }
            dl.facts {
                @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// The value of an option; of sizes, in human units.
fn option(name: &str, value: &Value) -> String {
    match value {
        Value::Number(n) if name.ends_with("_bytes") => {
            n.as_u64().map_or_else(|| n.to_string(), units::bytes)
        }
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}
