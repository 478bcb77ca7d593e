//! Where event time stands behind each node of a phase, and who holds it back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::metrics::WorkerWatermark;
use crate::event_time::{MAX_TIME, MIN_TIME};
use crate::report::{NodeReport, Role, WatermarkReport};

/// Where the watermark of each node stands at the time `now_ms` of the clock; nothing of a node behind which
/// no rows will come any more, or of which no watermark is known.
///
/// ```text
/// source ─▶ assign_timestamps ─▶ window ─▶ sink        from a node on to the input with the least watermark,
///            knows its splits      ◀──── who? ────     until one that stands behind all of its inputs
/// ```
pub(super) fn standings(
    nodes: &[(&NodeReport, Option<WorkerWatermark>)],
    now_ms: i64,
) -> Vec<Option<WatermarkReport>> {
    let places = nodes.iter().enumerate();
    let places: BTreeMap<&str, usize> = places.map(|(n, (of, _))| (of.node.as_str(), n)).collect();
    let all = Standings { nodes, places };
    let of = |(n, (_, watermark)): (usize, &(&NodeReport, Option<WorkerWatermark>))| {
        let at = watermark.as_ref()?.0;
        let is_known = at >= MIN_TIME;
        (at <= MAX_TIME).then(|| WatermarkReport {
            at_ms: is_known.then_some(at),
            lag: is_known.then(|| {
                let lag = u64::try_from(now_ms.saturating_sub(at)).unwrap_or(0);
                Duration::from_millis(lag)
            }),
            held_back_by: all.holder(n),
        })
    };
    nodes.iter().enumerate().map(of).collect()
}

struct Standings<'a> {
    nodes: &'a [(&'a NodeReport, Option<WorkerWatermark>)],
    places: BTreeMap<&'a str, usize>,
}

impl Standings<'_> {
    fn inputs(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let inputs = self.nodes[node].0.inputs.iter();
        inputs.filter_map(|input| self.places.get(input.from.as_str()).copied())
    }

    /// Who holds the watermark of a node back: a split of a source, or a node.
    fn holder(&self, node: usize) -> String {
        let (report, watermark) = &self.nodes[node];
        let sources = || {
            let mut sources = Vec::new();
            self.find_sources(node, &mut sources);
            sources.join(", ")
        };
        let at = match watermark {
            Some((_, Some(split))) => return describe(&sources(), split),
            Some((at, None)) => *at,
            None => i64::MAX,
        };
        let marked = self.inputs(node).filter_map(|input| {
            let (of_input, _) = self.watermark_before(input)?;
            Some((of_input, input))
        });
        match marked.min_by_key(|(at, _)| *at) {
            Some((of_input, input)) if of_input <= at => self.holder(input),
            Some(_) => report.node.clone(),
            None => sources(),
        }
    }

    /// The watermark of a node, or of what stands before it where it has none of its own.
    fn watermark_before(&self, node: usize) -> Option<(i64, Option<Arc<str>>)> {
        if let Some(own) = &self.nodes[node].1 {
            return Some(own.clone());
        }
        let before = self
            .inputs(node)
            .filter_map(|input| self.watermark_before(input));
        before.min_by_key(|(at, _)| *at)
    }

    fn find_sources(&self, node: usize, found: &mut Vec<String>) {
        let report = self.nodes[node].0;
        if matches!(report.role, Role::Source | Role::Kept) && !found.contains(&report.node) {
            found.push(report.node.clone());
        }
        for input in self.inputs(node) {
            self.find_sources(input, found);
        }
    }
}

fn describe(sources: &str, split: &str) -> String {
    match sources {
        "" => split.to_owned(),
        sources => format!("{sources}, {split}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::NodeInput;

    fn node(node: &str, role: Role, inputs: &[&str]) -> NodeReport {
        let input = |from: &&str| NodeInput {
            from: (*from).into(),
            port: "out".into(),
        };
        NodeReport {
            node: node.into(),
            role,
            inputs: inputs.iter().map(input).collect(),
            ..NodeReport::default()
        }
    }

    #[test]
    fn the_split_that_holds_back_is_found_from_far_behind_it() {
        let nodes = [
            node("clicks", Role::Source, &[]),
            node("clicks/times", Role::Transform, &["clicks"]),
            node("rates", Role::Source, &[]),
            node("rates/times", Role::Transform, &["rates"]),
            node("priced", Role::Transform, &["clicks/times", "rates/times"]),
            node("rounded", Role::Transform, &["priced"]),
            node("hourly", Role::Transform, &["rounded"]),
            node("held", Role::Transform, &["hourly"]),
            node("out", Role::Sink, &["held"]),
            node("over", Role::Transform, &["hourly"]),
            node("early", Role::Transform, &["rounded"]),
        ];
        let split = |at, name: &str| Some((at, Some(Arc::from(name))));
        let watermarks = [
            None,
            split(9_000, "partition 3"),
            None,
            split(5_000, "file \"b.csv\""),
            Some((5_000, None)),
            None,
            Some((5_000, None)),
            Some((4_000, None)),
            None,
            Some((i64::MAX, None)),
            Some((i64::MIN, None)),
        ];
        let nodes: Vec<_> = nodes.iter().zip(watermarks).collect();
        let lines: Vec<String> = standings(&nodes, 10_000)
            .iter()
            .zip(&nodes)
            .filter_map(|(standing, (node, _))| {
                let s = standing.as_ref()?;
                Some(format!(
                    "{}: {:?} {:?} {}",
                    node.node, s.at_ms, s.lag, s.held_back_by
                ))
            })
            .collect();
        expect_test::expect![[r#"
            clicks/times: Some(9000) Some(1s) clicks, partition 3
            rates/times: Some(5000) Some(5s) rates, file "b.csv"
            priced: Some(5000) Some(5s) rates, file "b.csv"
            hourly: Some(5000) Some(5s) rates, file "b.csv"
            held: Some(4000) Some(6s) held
            early: None None early"#]]
        .assert_eq(&lines.join("\n"));
    }
}
