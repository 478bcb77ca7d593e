//! How the run went on: phases, rows a second of each source and sink, and memory, over one time axis.

use std::fmt::Write as _;
use std::time::Duration;

use maud::{Markup, html};

use super::role_word;
use crate::report::{RunReport, TimeLine, units};

/// Parts of the run that are too short to tell a rate from: a look just after another one.
const SHORTEST: f64 = 1.0 / 240.0;

/// The size of a strip in its own units; it is stretched to the width of the page.
const SIZE: (f64, f64) = (1_000.0, 100.0);

/// A value that holds for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    from: Duration,
    until: Duration,
    value: f64,
}

pub(super) fn time_line(report: &RunReport) -> Markup {
    let line = &report.time_line;
    html! {
        section aria-labelledby="time" {
            h2 id="time" { "Time line" }
            @if report.phases.is_empty() {
                p.muted { "No phase had begun." }
            } @else {
                div.strips {
                    (phases(report))
                    @for (node, role, steps, n_rows) in by_node(report) {
                        (strip(report, &node, role, &format!("{} rows", units::count(n_rows)), units::per_second, &steps))
                    }
                    @if line.memory_bytes.iter().any(|&m| m > 0) {
                        (strip(report, "memory", "whole process", "", |m| units::bytes(m as u64), &memory(line)))
                    }
                    (axis(report.wall))
                }
                p.muted { "Each strip has a scale of its own, from 0 to its peak." }
            }
        }
    }
}

/// The phases as a bar, and as a list that says the same.
fn phases(report: &RunReport) -> Markup {
    let wall = report.wall.as_secs_f64().max(f64::MIN_POSITIVE);
    let part = |time: Duration| time.as_secs_f64() / wall;
    html! {
        div.strip {
            div.head { b { "phases" } }
            div.bands aria-hidden="true" {
                @for (i, phase) in report.phases.iter().enumerate() {
                    div.band style={ "left:" (percent(part(phase.started))) ";width:" (percent(part(phase.wall))) } {
                        @if part(phase.wall) > 0.03 { (i + 1) }
                    }
                }
            }
        }
    }
}

fn percent(part: f64) -> String {
    format!("{:.2}%", part.clamp(0.0, 1.0) * 100.0)
}

/// The rows a second of each source and sink, over all phases, with the sum of its rows.
fn by_node(report: &RunReport) -> Vec<(String, &'static str, Vec<Step>, u64)> {
    let line = &report.time_line;
    let mut found: Vec<(String, &'static str, Vec<u64>)> = Vec::new();
    for series in &line.series {
        let role = role_word(series.role);
        match found
            .iter_mut()
            .find(|(n, r, _)| *n == series.node && *r == role)
        {
            Some((_, _, rows)) => {
                let pairs = rows.iter_mut().zip(&series.rows);
                pairs.for_each(|(sum, more)| *sum += more);
            }
            None => found.push((series.node.clone(), role, series.rows.clone())),
        }
    }
    let with_steps = found.into_iter().map(|(node, role, rows)| {
        let steps = rates(&line.at, &rows, report.wall.mul_f64(SHORTEST));
        (node, role, steps, rows.last().copied().unwrap_or_default())
    });
    with_steps.collect()
}

/// Rows a second from one moment to the next; moments less than `shortest` apart are taken together.
fn rates(at: &[Duration], rows: &[u64], shortest: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    // A short run may be looked at for the first time when its rows have been read.
    let (mut from, mut before) = (&Duration::ZERO, &0);
    let mut rest = at.iter().zip(rows).peekable();
    while let Some((until, after)) = rest.next() {
        let time = until.saturating_sub(*from);
        if time.is_zero() || (time < shortest && rest.peek().is_some()) {
            continue;
        }
        steps.push(Step {
            from: *from,
            until: *until,
            value: after.saturating_sub(*before) as f64 / time.as_secs_f64(),
        });
        (from, before) = (until, after);
    }
    // A last look that came too soon after another one joins it.
    if let [.., a, b] = steps.as_mut_slice()
        && b.until.saturating_sub(b.from) < shortest
    {
        let time = |s: &Step| s.until.saturating_sub(s.from).as_secs_f64();
        let all = a.value * time(a) + b.value * time(b);
        a.until = b.until;
        a.value = all / time(a);
        steps.pop();
    }
    steps
}

/// The memory from one moment to the next: the more of both.
fn memory(line: &TimeLine) -> Vec<Step> {
    let moments: Vec<_> = line.at.iter().zip(&line.memory_bytes).collect();
    let step = |pair: &[(&Duration, &u64)]| Step {
        from: *pair[0].0,
        until: *pair[1].0,
        value: *pair[0].1.max(pair[1].1) as f64,
    };
    moments.windows(2).map(step).collect()
}

fn strip(
    report: &RunReport,
    name: &str,
    role: &str,
    sum: &str,
    say: impl Fn(f64) -> String,
    steps: &[Step],
) -> Markup {
    let peak = steps.iter().map(|s| s.value).fold(0.0, f64::max);
    let peak_words = format!("peak {}", say(peak));
    let view = format!("0 0 {} {}", SIZE.0, SIZE.1);
    html! {
        div.strip {
            div.head {
                span { b { (name) } " " span.muted { (role) } }
                span.muted { @if !sum.is_empty() { (sum) " · " } (peak_words) }
            }
            svg.area viewBox=(view) preserveAspectRatio="none" role="img"
                aria-label={ (name) ", " (role) ", over time: " (peak_words) } {
                path d=(area(steps, peak, report.wall)) {}
            }
        }
    }
}

/// The outline of the steps, down to the axis.
fn area(steps: &[Step], peak: f64, wall: Duration) -> String {
    let wall = wall.as_secs_f64();
    let mut path = String::new();
    if peak <= 0.0 || wall <= 0.0 {
        return path;
    }
    let x = |time: Duration| (time.as_secs_f64() / wall).clamp(0.0, 1.0) * SIZE.0;
    let y = |value: f64| SIZE.1 - value / peak * (SIZE.1 - 4.0);
    for (i, step) in steps.iter().enumerate() {
        let (left, right, top) = (x(step.from), x(step.until), y(step.value));
        if i == 0 {
            let _ = write!(path, "M{left:.1} {}", SIZE.1);
        }
        let _ = write!(path, "L{left:.1} {top:.1}H{right:.1}");
    }
    if let Some(last) = steps.last() {
        let _ = write!(path, "L{:.1} {}Z", x(last.until), SIZE.1);
    }
    path
}

fn axis(wall: Duration) -> Markup {
    html! {
        div.axis aria-hidden="true" {
            @for quarter in 0..=4u32 {
                span { (units::duration(wall * quarter / 4)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn looks_that_follow_too_soon_are_taken_together() {
        let at = [0, 100, 101, 200, 201].map(ms);
        let steps = rates(&at, &[0, 10, 20, 20, 30], ms(10));
        let said: Vec<_> = steps
            .iter()
            .map(|s| (s.from, s.until, s.value.round() as u64))
            .collect();
        assert_eq!(said, [(ms(0), ms(100), 100), (ms(100), ms(201), 198)]);
        assert_eq!(rates(&[], &[], ms(10)), []);
        let late = rates(&[ms(500)], &[10], ms(10));
        assert_eq!((late.len(), late[0].from, late[0].value), (1, ms(0), 20.0));
        assert_eq!(rates(&[ms(0)], &[5], ms(10)), []);
    }

    #[test]
    fn an_outline_begins_and_ends_on_the_axis() {
        let steps = rates(&[ms(0), ms(500), ms(1_000)], &[0, 100, 150], ms(1));
        assert_eq!(
            area(&steps, 200.0, ms(1_000)),
            "M0.0 100L0.0 4.0H500.0L500.0 52.0H1000.0L1000.0 100Z"
        );
        assert_eq!(area(&steps, 0.0, ms(1_000)), "");
    }
}
