//! Checks that no sink of a graph writes where another one does, or where a source reads.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Error;
use crate::graph::{Graph, Node, Stage};
use crate::runner::guard;

/// The sinks by their places.
type Sinks<'a> = BTreeMap<String, Vec<&'a Node>>;

/// The second of two sinks at one place would fail after the first was published, or replace what it wrote. So it would
/// be where one place lies in the other, and a sink at the place of a source would replace what is read.
pub(super) fn check(graph: &Graph, errors: &mut Vec<Error>) {
    let mut sinks = Sinks::new();
    let mut sources: Vec<(String, &Node)> = Vec::new();
    for node in &graph.nodes {
        let place = guard(&node.id, || {
            Ok(match &node.stage {
                Stage::Sink(sink) => sink.place(),
                Stage::Source(source) => source.place(),
                _ => None,
            })
        });
        match (place.ok().flatten(), &node.stage) {
            (Some(place), Stage::Sink(_)) => sinks.entry(place).or_default().push(node),
            (Some(place), _) => sources.push((place, node)),
            (None, _) => {}
        }
    }
    check_alike(&sinks, errors);
    check_within(&sinks, &sources, errors);
}

fn check_alike(sinks: &Sinks<'_>, errors: &mut Vec<Error>) {
    for (place, nodes) in sinks.iter().filter(|(_, nodes)| nodes.len() > 1) {
        let names: Vec<String> = nodes.iter().map(|n| format!("{:?}", &*n.id)).collect();
        errors.push(
            Error::pipeline(format!("{} sinks write to {place:?}", nodes.len()))
                .with_detail(format!("They are {}.", names.join(", ")))
                .with_hint("Give each a place of its own, or write the `union` of the rows."),
        );
    }
}

fn check_within(sinks: &Sinks<'_>, sources: &[(String, &Node)], errors: &mut Vec<Error>) {
    let each = || {
        sinks
            .iter()
            .flat_map(|(place, nodes)| nodes.iter().map(move |n| (place, *n)))
    };
    let is_in = |inner: &str, outer: &str| Path::new(inner).starts_with(outer);
    for (outer, node) in each() {
        let (name, others) = (&*node.id, each().filter(|(inner, _)| *inner != outer));
        for (inner, other) in others.filter(|(inner, _)| is_in(inner, outer)) {
            let other = &*other.id;
            errors.push(
                Error::pipeline(format!(
                    "sink {other:?} writes into the place of sink {name:?}"
                ))
                .with_detail(format!("{inner:?} lies in {outer:?}."))
                .with_hint("Give each a place of its own, beside that of the other."),
            );
        }
        for (read, source) in sources.iter().filter(|(read, _)| is_in(read, outer)) {
            let source = &*source.id;
            errors.push(
                Error::pipeline(format!(
                    "sink {name:?} writes over what source {source:?} reads"
                ))
                .with_detail(format!(
                    "The sink writes to {outer:?}, the source reads {read:?}."
                ))
                .with_hint("Write to another place; what was read can be removed after the run."),
            );
        }
    }
}
