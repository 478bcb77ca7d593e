//! The report as a table for a terminal, at most 100 columns wide.

use std::fmt;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::{NodeReport, RunReport, units};

/// Columns of a terminal that the table may fill.
const WIDTH: usize = 100;

/// The header of the number of the phase.
const PHASE: &str = "phase";

/// What a column is called, what it shows, and whether it is left out where it would be empty.
struct Column {
    name: &'static str,
    cell: fn(&RunReport, usize, &NodeReport) -> String,
    fill: fn(&NodeReport) -> u64,
}

/// The columns after the phase and the node.
const COLUMNS: &[Column] = &[
    Column {
        name: "rows in",
        cell: |_, _, n| units::count(n.rows_in),
        fill: |_| 1,
    },
    Column {
        name: "rows out",
        cell: |_, _, n| units::count(n.rows_out),
        fill: |_| 1,
    },
    Column {
        name: "bytes",
        cell: |_, _, n| units::bytes(n.bytes_in),
        fill: |_| 1,
    },
    Column {
        name: "state",
        cell: |_, _, n| units::bytes(n.peak_state_bytes),
        fill: |n| n.peak_state_bytes,
    },
    Column {
        name: "behind",
        cell: |_, _, n| {
            n.watermark
                .as_ref()
                .map_or("-".into(), |w| w.lag_in_words())
        },
        fill: |n| u64::from(n.watermark.is_some()),
    },
    Column {
        name: "rate",
        cell: |_, _, n| n.rate(),
        fill: |_| 1,
    },
    Column {
        name: "busy",
        cell: |_, _, n| units::duration(n.busy),
        fill: |_| 1,
    },
    Column {
        name: "share",
        cell: |report, phase, n| {
            let mark = if report.is_slowest(phase, n) {
                "▶ "
            } else {
                ""
            };
            format!("{mark}{}", units::share(report.busy_share(n)))
        },
        fill: |_| 1,
    },
];

/// A table with a line per phase and node, then what was read, published and refused.
///
/// Bytes are those that the rows taken in fill in memory; the rate is rows in for each second in
/// which the node was busy; the share is of the busy time of all nodes, and ▶ stands at the largest.
/// Behind is how far the watermark is behind the clock, where there is one.
impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes().next().is_some() {
            writeln!(f, "{}", self.table())?;
        }
        let verb = if self.error.is_some() {
            "failed after"
        } else {
            "finished in"
        };
        write!(
            f,
            "pipeline {:?} {verb} {} with {}",
            self.pipeline,
            units::duration(self.wall),
            plural(self.workers, "worker"),
        )?;
        if self.peak_memory_bytes > 0 {
            let memory = units::bytes(self.peak_memory_bytes);
            write!(f, ", at most {memory} of memory")?;
        }
        let rows_read = self.rows_read();
        if rows_read > 0 {
            let rate = units::rate(rows_read, self.wall);
            write!(f, "\n{} rows read, {rate}", units::exact(rows_read))?;
        }
        if let Some((phase, node)) = self.slowest() {
            let share = units::share(self.busy_share(node));
            write!(
                f,
                "\n▶ slowest: {} in phase {phase}, {share} of all busy time",
                node.node
            )?;
        }
        for (_, node) in self.nodes().filter(|(_, n)| n.rejected > 0) {
            let (rejected, rows) = (units::exact(node.rejected), units::exact(node.rows_in));
            write!(f, "\n{}: {rejected} of {rows} rows rejected", node.node)?;
        }
        for (_, node) in self.nodes().filter(|(_, n)| n.behind > 0) {
            let (behind, rows) = (units::exact(node.behind), units::exact(node.rows_in));
            write!(
                f,
                "\n{}: {behind} of {rows} rows behind the watermark",
                node.node
            )?;
        }
        for (_, node) in self.nodes().filter(|(_, n)| n.late > 0) {
            let (late, rows) = (units::exact(node.late), units::exact(node.rows_in));
            write!(f, "\n{}: {late} of {rows} rows too late", node.node)?;
        }
        if let Some((phase, node)) = self.furthest_behind()
            && let Some(watermark) = &node.watermark
        {
            let holder = &watermark.held_back_by;
            let stands = match watermark.lag {
                Some(lag) => format!("{} behind the clock", units::duration(lag)),
                None => "not known yet".into(),
            };
            write!(
                f,
                "\nwatermark: {stands} at {} in phase {phase}, held back by {holder}",
                node.node
            )?;
        }
        for (node, published) in &self.published {
            let n_files = published.files.len();
            let rows = units::exact(published.n_rows);
            write!(f, "\n{node}: {rows} rows published")?;
            if n_files > 0 {
                let bytes = units::bytes(published.n_bytes);
                write!(f, " in {}, {bytes}", plural(n_files, "file"))?;
            }
        }
        match &self.error {
            Some(error) => write!(f, "\nerror: {}", error.report()),
            None => Ok(()),
        }
    }
}

impl RunReport {
    fn table(&self) -> Table {
        let columns: Vec<&Column> = COLUMNS
            .iter()
            .filter(|c| self.nodes().any(|(_, n)| (c.fill)(n) > 0))
            .collect();
        let rows: Vec<Vec<String>> = self
            .nodes()
            .map(|(phase, n)| columns.iter().map(|c| (c.cell)(self, phase, n)).collect())
            .collect();
        let widest = |(i, column): (usize, &&Column)| {
            let cells = rows.iter().map(|row| row[i].chars().count());
            cells.max().unwrap_or(0).max(column.name.len())
        };
        let others: usize = columns.iter().enumerate().map(widest).sum();
        // Each column has a border and two blanks; the phase has its header's width.
        let for_ids = WIDTH.saturating_sub(others + PHASE.len() + 3 * (columns.len() + 2) + 1);

        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let names = columns.iter().map(|c| c.name);
        table.set_header([PHASE, "node"].into_iter().chain(names));
        for ((phase, node), cells) in self.nodes().zip(rows) {
            let id = shorten(&node.node, for_ids.max(8));
            table.add_row([phase.to_string(), id].into_iter().chain(cells));
        }
        for (i, column) in table.column_iter_mut().enumerate() {
            // Words to the left, numbers to the right.
            if i > 1 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// `text` in at most `most` characters, the middle left out: both ends of an id tell it apart.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(1);
    let (head, tail) = (kept / 2, kept - kept / 2);
    let mut short: String = text.chars().take(head).collect();
    short.push('…');
    short.extend(text.chars().skip(length - tail));
    short
}

fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
