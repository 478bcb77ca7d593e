//! The report as JSON.

use serde_json::{Map, Value, json};

use super::{PhaseReport, RunReport, units};

/// The version of the names and units below. Grows when a field changes or goes, not when one is added.
const VERSION: u32 = 1;

impl RunReport {
    /// The report as JSON, for programs. Artifacts are left out.
    ///
    /// Fields are added without notice; when one changes or goes, `version` grows.
    /// Counts and bytes are whole numbers, times are seconds, shares go from 0 to 1.
    ///
    /// | field | what |
    /// |---|---|
    /// | `version` | 1 |
    /// | `mainstem` | the engine's version |
    /// | `pipeline`, `workers`, `options` | what ran and how |
    /// | `machine` | `cores`, `memory_bytes`, `system`, `architecture` |
    /// | `outcome` | `finished` or `failed` |
    /// | `error` | null, or the `message` and the whole `report` of why it failed |
    /// | `started_at` | UTC as in RFC 3339 |
    /// | `wall_seconds`, `busy_seconds` | of the run; of all nodes together |
    /// | `rows_read`, `bytes_read` | by all sources, in all phases; bytes of storage |
    /// | `rows_per_second` | `rows_read / wall_seconds` |
    /// | `rejected` | rows refused by any node |
    /// | `peak_memory_bytes` | of the whole process, as seen during the run |
    /// | `slowest` | null, or the `phase`, `node` and `busy_share` that held the run up most |
    /// | `phases` | see below |
    /// | `time_line` | `at_seconds`, `memory_bytes`, and `series` of `node`, `phase`, `role` and `rows` until each moment |
    /// | `published` | by sink: `node`, `rows`, `bytes`, `files` of `path` and `bytes` (null where not known) |
    ///
    /// A phase has a `number` from 1, `ends_in`, `started_seconds` (since the start of the run),
    /// `wall_seconds`, `peak_credit_bytes` and `nodes`. A node has the fields of
    /// [`NodeReport`](super::NodeReport), with `busy_seconds` for `busy`, and its `busy_share` of the
    /// run; its `inputs` are the edges of the graph, `from` a node and a `port` of it. Where rows have an event
    /// time, its `watermark` has `at_ms` (since 1970), `lag_seconds` (both null before there is one) and
    /// `held_back_by`.
    pub fn to_json(&self) -> Value {
        let seconds = self.wall.as_secs_f64();
        let rows_read = self.rows_read();
        let per_second = if seconds > 0.0 {
            rows_read as f64 / seconds
        } else {
            0.0
        };
        let phases = self.phases.iter().enumerate();
        json!({
            "version": VERSION,
            "mainstem": env!("CARGO_PKG_VERSION"),
            "pipeline": self.pipeline,
            "workers": self.workers,
            "options": self.options,
            "machine": self.machine,
            "outcome": if self.error.is_some() { "failed" } else { "finished" },
            "error": self.error.as_ref().map(|e| json!({ "message": e.message(), "report": e.report() })),
            "started_at": self.started.map(units::moment),
            "wall_seconds": seconds,
            "busy_seconds": self.busy().as_secs_f64(),
            "rows_read": rows_read,
            "bytes_read": self.bytes_read(),
            "rows_per_second": per_second,
            "rejected": self.rejected(),
            "peak_memory_bytes": self.peak_memory_bytes,
            "slowest": self.slowest().map(|(phase, n)| {
                json!({ "phase": phase, "node": n.node, "busy_share": self.busy_share(n) })
            }),
            "phases": phases.map(|(i, p)| self.phase(i + 1, p)).collect::<Vec<_>>(),
            "time_line": {
                "at_seconds": self.time_line.at.iter().map(|t| t.as_secs_f64()).collect::<Vec<_>>(),
                "memory_bytes": self.time_line.memory_bytes,
                "series": self.time_line.series,
            },
            "published": self.published_json(),
        })
    }

    fn phase(&self, number: usize, phase: &PhaseReport) -> Value {
        let mut fields = fields(json!(phase));
        fields.insert("number".into(), json!(number));
        let nodes = phase.nodes.iter().map(|node| {
            let mut fields = self::fields(json!(node));
            fields.insert("busy_share".into(), json!(self.busy_share(node)));
            Value::Object(fields)
        });
        fields.insert("nodes".into(), nodes.collect());
        Value::Object(fields)
    }

    fn published_json(&self) -> Value {
        let of = |id: &str| self.files.iter().find(|(node, _)| node == id);
        let sinks = self.published.iter().map(|(node, published)| {
            json!({
                "node": node,
                "rows": published.n_rows,
                "bytes": published.n_bytes,
                "files": of(node).map(|(_, files)| files).cloned().unwrap_or_default(),
            })
        });
        sinks.collect()
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
