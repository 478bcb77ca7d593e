//! The report as one HTML page: nothing is loaded from anywhere, and without script only sorting is missing.

mod graph;
mod layout;
mod strips;
mod tables;
#[cfg(test)]
mod tests;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Role, RunReport, units};
use crate::error::Error;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");

/// The page may use what stands in it, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

impl RunReport {
    /// The report as one HTML page, which works offline: the graph with the work of each node, a time
    /// line of throughput, all counters, rejected rows and published files.
    ///
    /// All text of the user is escaped. The page follows the reader's choice of light or dark.
    pub fn to_html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="color-scheme" content="light dark";
                    title { (self.pipeline) " · Mainstem run" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        (header(self))
                        @if let Some(error) = &self.error { (failure(error)) }
                        (figures(self))
                        (graph::graph(self))
                        (strips::time_line(self))
                        @if !self.phases.is_empty() { (tables::phases(self)) }
                        (tables::nodes(self))
                        (tables::refused(self))
                        (tables::published(self))
                        (tables::run(self))
                    }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        };
        page.into_string()
    }
}

fn header(report: &RunReport) -> Markup {
    html! {
        header {
            p.muted.over { "Mainstem run" }
            h1 {
                (report.pipeline) " "
                @if report.error.is_some() {
                    span.state.failed { "✕ failed" }
                } @else {
                    span.state.finished { "✓ finished" }
                }
            }
            p.muted {
                @if let Some(started) = report.started {
                    "started " time { (units::moment(started).replacen('T', " ", 1).replace('Z', " UTC")) } ", "
                }
                (report.workers) @if report.workers == 1 { " worker" } @else { " workers" }
            }
        }
    }
}

fn failure(error: &Error) -> Markup {
    html! {
        section.error aria-labelledby="error" {
            h2 id="error" { "Why it failed" }
            pre { (error.report()) }
            p { "What follows is what had been done until then." }
        }
    }
}

fn figures(report: &RunReport) -> Markup {
    let rows: u64 = report.published.iter().map(|(_, p)| p.n_rows).sum();
    let bytes: u64 = report.published.iter().map(|(_, p)| p.n_bytes).sum();
    let rows_read = report.rows_read();
    let mut figures = vec![
        (
            "Took",
            units::duration(report.wall),
            format!("{} in all nodes", units::duration(report.busy())),
        ),
        (
            "Rows read",
            units::count(rows_read),
            match report.bytes_read() {
                0 => String::new(),
                n => format!("{} of storage", units::bytes(n)),
            },
        ),
        (
            "Throughput",
            units::rate(rows_read, report.wall),
            "rows read, over the whole run".into(),
        ),
        (
            "Published",
            units::count(rows),
            match bytes {
                0 => "rows".into(),
                n => format!("rows, {}", units::bytes(n)),
            },
        ),
    ];
    if report.peak_memory_bytes > 0 {
        let machine = report.machine.memory_bytes;
        let of = match machine {
            0 => String::new(),
            n => format!("of {}", units::bytes(n)),
        };
        figures.push(("Memory at most", units::bytes(report.peak_memory_bytes), of));
    }
    figures.push(("Rejected", units::count(report.rejected()), "rows".into()));
    html! {
        dl.figures {
            @for (name, value, more) in figures {
                div { dt { (name) } dd { (value) } dd.muted { (more) } }
            }
            @if let Some((phase, node)) = report.slowest() {
                div.wide {
                    dt { "Slowest node" }
                    dd { a href={ "#" (anchor(phase, &node.node)) } { (node.node) } }
                    dd.muted {
                        (units::share(report.busy_share(node))) " of all busy time, in phase " (phase)
                    }
                }
            }
        }
    }
}

/// The place of a node on the page. Ids of nodes may hold anything; in an anchor, what is not plain is
/// written as its number.
fn anchor(phase: usize, node: &str) -> String {
    let mut anchor = format!("node-{phase}-");
    for c in node.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '-' => anchor.push(c),
            c => anchor.push_str(&format!("_{:x}_", u32::from(c))),
        }
    }
    anchor
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Source => "source",
        Role::Transform => "transform",
        Role::Kept => "kept",
        Role::Analysis => "analysis",
        Role::Trainer => "trainer",
        Role::Step => "step",
        Role::Sink => "sink",
    }
}
