//! A trigger at work: what it remembers of a key and window, and when it fires.

use std::ops::Range;

use super::Trigger;
use crate::windowing::window::Window;

/// No processing time has been set.
const UNSET: i64 = i64::MIN;

/// What a trigger is told of the window that it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TriggerContext {
    /// The window, after merging.
    pub window: Window,
    /// Event time up to which all rows have arrived; `i64::MIN` before any.
    pub watermark: i64,
    /// The time on the clock, in milliseconds.
    pub processing_time: i64,
}

/// What a trigger remembers of one key and window: [`CompiledTrigger::n_slots`] numbers, none of which needs
/// more than being copied.
pub type TriggerState = Vec<i64>;

/// A trigger, ready to be asked about many keys and windows.
///
/// It holds nothing of any of them. Each has a state of [`CompiledTrigger::n_slots`] numbers, which the caller
/// keeps as it likes: a `Vec` each, or all of them in one with that stride, or a column for each number. A
/// snapshot of the state is these numbers. Many triggers need none at all, among them the default one.
///
/// For each key and window the caller
/// 1. calls [`on_elements`](Self::on_elements) when rows have come, then asks [`should_fire`](Self::should_fire);
/// 2. asks again when the watermark reaches what [`next_watermark`](Self::next_watermark) said, and when the
///    clock reaches what [`next_processing_time`](Self::next_processing_time) said, once for each;
/// 3. where it should fire, lets the pane go and calls [`on_fire`](Self::on_fire), once for each time it has
///    asked. A trigger that has finished is not asked any more: later rows of the window are dropped;
/// 4. where windows are merged, makes one state of theirs with [`on_merge`](Self::on_merge), before the rows
///    that caused it are told of. If one of them has finished, so has what they became.
///
/// The rules are those of Apache Beam (`trigger.py`), with two differences: a trigger after processing time
/// counts as fired in a composite one whatever it was that made the caller ask, and the end of the window makes
/// the caller ask even if no row has come since the last firing, as in Beam's Java SDK.
#[derive(Clone, Debug)]
pub struct CompiledTrigger {
    root: Node,
    slots: Slots,
}

impl CompiledTrigger {
    /// Makes a trigger ready. One that [`Trigger::check`] refuses never fires, or always.
    pub fn new(trigger: &Trigger) -> Self {
        let mut slots = Slots::default();
        let root = Node::new(trigger, &mut slots);
        Self { root, slots }
    }

    /// How many numbers the state of a key and window has.
    pub fn n_slots(&self) -> usize {
        self.slots.initial.len()
    }

    /// The state of a key and window that has had no rows.
    pub fn new_state(&self) -> TriggerState {
        self.slots.initial.clone()
    }

    /// The state of a key and window that has had no rows, to be copied.
    pub fn initial_state(&self) -> &[i64] {
        &self.slots.initial
    }

    /// True if it fires only because the watermark has passed the end of the window, so that it need not be
    /// asked about rows that come before that.
    pub fn fires_only_at_end(&self) -> bool {
        matches!(self.root.kind, Kind::AtEnd { .. } | Kind::Never)
    }

    /// True if it promises a pane at the end of the window even if no row has come since the last firing.
    pub fn has_on_time_pane(&self) -> bool {
        self.root.has_on_time_pane()
    }

    /// Takes note of rows that have come.
    pub fn on_elements(&self, state: &mut [i64], n_rows: u64, ctx: &TriggerContext) {
        self.root.on_elements(state, n_rows, ctx);
    }

    /// Takes the states of windows into that of the window which they become: that of the window with its edges
    /// if there was one, otherwise a new one.
    ///
    /// Counts are added, the earliest processing time counts, and what is late or further on stays so. The order
    /// makes no difference.
    pub fn on_merge<'a>(
        &self,
        into: &mut [i64],
        others: impl IntoIterator<Item = &'a [i64]>,
        _ctx: &TriggerContext,
    ) {
        for other in others {
            for ((into, other), combine) in into.iter_mut().zip(other).zip(&self.slots.combine) {
                *into = combine.both(*into, *other);
            }
        }
    }

    /// True if a pane should leave now.
    pub fn should_fire(&self, state: &[i64], ctx: &TriggerContext) -> bool {
        self.root.should_fire(state, ctx)
    }

    /// Takes note that a pane has left; true if the trigger has finished, and with it the window.
    pub fn on_fire(&self, state: &mut [i64], ctx: &TriggerContext) -> bool {
        self.root.on_fire(state, ctx, &self.slots)
    }

    /// The event time at which it must be asked again; `None` if it need not be. Always after the watermark.
    pub fn next_watermark(&self, state: &[i64], ctx: &TriggerContext) -> Option<i64> {
        let end = ctx.window.end;
        (ctx.watermark < end && self.root.awaits_end(state)).then_some(end)
    }

    /// The time on the clock at which it must be asked again; `None` if it need not be. Always after now.
    pub fn next_processing_time(&self, state: &[i64], ctx: &TriggerContext) -> Option<i64> {
        self.root.next_processing_time(state, ctx.processing_time)
    }
}

/// What the numbers of a state are.
#[derive(Clone, Debug, Default)]
struct Slots {
    /// Before any row.
    initial: Vec<i64>,
    /// How those of windows become one.
    combine: Vec<Combine>,
}

impl Slots {
    fn add(&mut self, initial: i64, combine: Combine) -> usize {
        self.initial.push(initial);
        self.combine.push(combine);
        self.initial.len() - 1
    }
}

#[derive(Clone, Copy, Debug)]
enum Combine {
    Sum,
    Largest,
    EarliestSet,
}

impl Combine {
    fn both(self, one: i64, other: i64) -> i64 {
        match self {
            Self::Sum => one.saturating_add(other),
            Self::Largest => one.max(other),
            Self::EarliestSet if one == UNSET => other,
            Self::EarliestSet if other == UNSET => one,
            Self::EarliestSet => one.min(other),
        }
    }
}

/// A trigger, and which numbers are its own and those of its inner ones.
#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    slots: Range<usize>,
}

#[derive(Clone, Debug)]
enum Kind {
    /// At the end of the window.
    AtEnd {
        finishes: bool,
    },
    /// Before the end, at the end, and after the end of the window. Both inner ones begin anew when finished.
    AroundEnd {
        /// 1 once it has fired at the end; only where there is a trigger for what comes late.
        is_late: usize,
        early: Option<Box<Node>>,
        late: Option<Box<Node>>,
    },
    Count {
        n_rows: i64,
        counted: usize,
    },
    ProcessingTime {
        delay_ms: i64,
        due: usize,
    },
    Repeatedly(Box<Node>),
    Any(Vec<Node>),
    All(Vec<Node>),
    Each {
        nodes: Vec<Node>,
        current: usize,
    },
    Never,
}

impl Node {
    fn new(trigger: &Trigger, slots: &mut Slots) -> Self {
        let start = slots.initial.len();
        let kind = Kind::new(trigger, slots);
        Self {
            kind,
            slots: start..slots.initial.len(),
        }
    }

    fn has_on_time_pane(&self) -> bool {
        match &self.kind {
            Kind::AtEnd { .. } | Kind::AroundEnd { .. } => true,
            Kind::Count { .. } | Kind::ProcessingTime { .. } | Kind::Never => false,
            Kind::Repeatedly(inner) => inner.has_on_time_pane(),
            Kind::Any(nodes) | Kind::All(nodes) | Kind::Each { nodes, .. } => {
                nodes.iter().any(Self::has_on_time_pane)
            }
        }
    }

    fn on_elements(&self, state: &mut [i64], n_rows: u64, ctx: &TriggerContext) {
        match &self.kind {
            Kind::AtEnd { .. } | Kind::Never => {}
            Kind::AroundEnd {
                is_late,
                early,
                late,
            } => {
                if let Some(node) = around_end(state, *is_late, early, late) {
                    node.on_elements(state, n_rows, ctx);
                }
            }
            Kind::Count { counted, .. } => {
                let n_rows = i64::try_from(n_rows).unwrap_or(i64::MAX);
                state[*counted] = state[*counted].saturating_add(n_rows);
            }
            Kind::ProcessingTime { delay_ms, due } => {
                if state[*due] == UNSET && n_rows > 0 {
                    state[*due] = ctx.processing_time.saturating_add(*delay_ms);
                }
            }
            Kind::Repeatedly(inner) => inner.on_elements(state, n_rows, ctx),
            Kind::Any(nodes) | Kind::All(nodes) => {
                for node in nodes {
                    node.on_elements(state, n_rows, ctx);
                }
            }
            Kind::Each { nodes, current } => {
                if let Some(node) = current_of(nodes, state, *current) {
                    node.on_elements(state, n_rows, ctx);
                }
            }
        }
    }

    fn should_fire(&self, state: &[i64], ctx: &TriggerContext) -> bool {
        let at_end = ctx.watermark >= ctx.window.end;
        match &self.kind {
            Kind::AtEnd { .. } => at_end,
            Kind::AroundEnd {
                is_late,
                early,
                late,
            } => {
                let inner = around_end(state, *is_late, early, late);
                let after_end = late.is_some() && state[*is_late] != 0;
                (at_end && !after_end) || inner.is_some_and(|node| node.should_fire(state, ctx))
            }
            Kind::Count { n_rows, counted } => state[*counted] >= *n_rows,
            Kind::ProcessingTime { due, .. } => {
                state[*due] != UNSET && ctx.processing_time >= state[*due]
            }
            Kind::Repeatedly(inner) => inner.should_fire(state, ctx),
            Kind::Any(nodes) => nodes.iter().any(|node| node.should_fire(state, ctx)),
            Kind::All(nodes) => nodes.iter().all(|node| node.should_fire(state, ctx)),
            Kind::Each { nodes, current } => {
                current_of(nodes, state, *current).is_some_and(|node| node.should_fire(state, ctx))
            }
            Kind::Never => false,
        }
    }

    fn on_fire(&self, state: &mut [i64], ctx: &TriggerContext, slots: &Slots) -> bool {
        match &self.kind {
            Kind::AtEnd { finishes } => *finishes,
            Kind::AroundEnd {
                is_late,
                early,
                late,
            } => {
                if let Some(late) = late.as_ref().filter(|_| state[*is_late] != 0) {
                    return late.on_fire(state, ctx, slots);
                }
                if ctx.watermark >= ctx.window.end {
                    if late.is_some() {
                        state[*is_late] = 1;
                    }
                    return late.is_none();
                }
                if let Some(early) = early {
                    early.on_fire(state, ctx, slots);
                }
                false
            }
            Kind::Count { .. } | Kind::ProcessingTime { .. } | Kind::Never => true,
            Kind::Repeatedly(inner) => {
                if inner.on_fire(state, ctx, slots) {
                    let own = inner.slots.clone();
                    state[own.clone()].copy_from_slice(&slots.initial[own]);
                }
                false
            }
            Kind::Any(nodes) => {
                // All that would fire do, so that each takes note.
                let mut finished = false;
                for node in nodes {
                    finished |= node.should_fire(state, ctx) && node.on_fire(state, ctx, slots);
                }
                finished
            }
            Kind::All(nodes) => {
                let mut finished = true;
                for node in nodes {
                    finished &= !node.should_fire(state, ctx) || node.on_fire(state, ctx, slots);
                }
                finished
            }
            Kind::Each { nodes, current } => {
                let Some(node) = current_of(nodes, state, *current) else {
                    return true;
                };
                if node.on_fire(state, ctx, slots) {
                    state[*current] += 1;
                }
                current_of(nodes, state, *current).is_none()
            }
        }
    }

    /// True if the end of the window may make it fire.
    fn awaits_end(&self, state: &[i64]) -> bool {
        match &self.kind {
            Kind::AtEnd { .. } => true,
            Kind::AroundEnd { is_late, late, .. } => match late {
                Some(late) if state[*is_late] != 0 => late.awaits_end(state),
                _ => true,
            },
            Kind::Count { .. } | Kind::ProcessingTime { .. } | Kind::Never => false,
            Kind::Repeatedly(inner) => inner.awaits_end(state),
            Kind::Any(nodes) | Kind::All(nodes) => nodes.iter().any(|node| node.awaits_end(state)),
            Kind::Each { nodes, current } => {
                current_of(nodes, state, *current).is_some_and(|node| node.awaits_end(state))
            }
        }
    }

    fn next_processing_time(&self, state: &[i64], now: i64) -> Option<i64> {
        match &self.kind {
            Kind::AtEnd { .. } | Kind::Count { .. } | Kind::Never => None,
            Kind::AroundEnd {
                is_late,
                early,
                late,
            } => around_end(state, *is_late, early, late)?.next_processing_time(state, now),
            Kind::ProcessingTime { due, .. } => {
                Some(state[*due]).filter(|due| *due != UNSET && *due > now)
            }
            Kind::Repeatedly(inner) => inner.next_processing_time(state, now),
            Kind::Any(nodes) | Kind::All(nodes) => nodes
                .iter()
                .filter_map(|node| node.next_processing_time(state, now))
                .min(),
            Kind::Each { nodes, current } => {
                current_of(nodes, state, *current)?.next_processing_time(state, now)
            }
        }
    }
}

impl Kind {
    fn new(trigger: &Trigger, slots: &mut Slots) -> Self {
        let nodes = |triggers: &[Trigger], slots: &mut Slots| -> Vec<Node> {
            triggers.iter().map(|t| Node::new(t, slots)).collect()
        };
        match trigger {
            Trigger::Default => Self::AtEnd { finishes: false },
            Trigger::AfterWatermark {
                early: None,
                late: None,
            } => Self::AtEnd { finishes: true },
            Trigger::AfterWatermark { early, late } => {
                let is_late = match late {
                    Some(_) => slots.add(0, Combine::Largest),
                    None => 0,
                };
                let mut repeated = |trigger: &Option<Box<Trigger>>| {
                    let trigger = trigger.as_deref()?.clone();
                    Some(Box::new(Node::new(&trigger.repeatedly(), slots)))
                };
                Self::AroundEnd {
                    is_late,
                    early: repeated(early),
                    late: repeated(late),
                }
            }
            Trigger::AfterCount(n_rows) => Self::Count {
                n_rows: i64::try_from(*n_rows).unwrap_or(i64::MAX),
                counted: slots.add(0, Combine::Sum),
            },
            Trigger::AfterProcessingTime { delay_ms } => Self::ProcessingTime {
                delay_ms: *delay_ms,
                due: slots.add(UNSET, Combine::EarliestSet),
            },
            Trigger::Repeatedly(inner) => Self::Repeatedly(Box::new(Node::new(inner, slots))),
            Trigger::AfterAny(triggers) => Self::Any(nodes(triggers, slots)),
            Trigger::AfterAll(triggers) => Self::All(nodes(triggers, slots)),
            Trigger::AfterEach(triggers) => Self::Each {
                current: slots.add(0, Combine::Largest),
                nodes: nodes(triggers, slots),
            },
            Trigger::OrFinally(trigger, end) => {
                Self::Any(vec![Node::new(trigger, slots), Node::new(end, slots)])
            }
            Trigger::Never => Self::Never,
        }
    }
}

/// The trigger that counts before or after the end of the window, whichever it is.
fn around_end<'a>(
    state: &[i64],
    is_late: usize,
    early: &'a Option<Box<Node>>,
    late: &'a Option<Box<Node>>,
) -> Option<&'a Node> {
    match late {
        Some(late) if state[is_late] != 0 => Some(late),
        _ => early.as_deref(),
    }
}

fn current_of<'a>(nodes: &'a [Node], state: &[i64], current: usize) -> Option<&'a Node> {
    usize::try_from(state[current])
        .ok()
        .and_then(|current| nodes.get(current))
}
