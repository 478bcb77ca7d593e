//! A relation as data: steps, each after those that it reads.

use std::collections::BTreeSet;

use datafusion_expr::Expr;
use serde_json::{Value, json};

use super::iterate::Iterate;
use crate::ops::Join;
use crate::transform::Transform;

/// What is computed of collections that change.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    /// The step whose rows leave.
    pub(crate) output: usize,
}

/// One step; numbers are those of steps before it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The rows of an input.
    Input(usize),
    /// What goes round in a loop; without a beginning where it stands outside of its loop.
    Variable {
        initial: Option<usize>,
        /// It begins with nothing, since the rows enter round by round.
        is_empty: bool,
    },
    /// The rows that have entered a loop so far; none that enter where it stands outside of its loop.
    Enter {
        from: Option<usize>,
        round: Expr,
        options: Iterate,
    },
    Select {
        from: usize,
        columns: Vec<Expr>,
    },
    Filter {
        from: usize,
        predicate: Expr,
    },
    Join {
        left: usize,
        right: usize,
        join: Join,
    },
    Aggregate {
        from: usize,
        keys: Vec<Expr>,
        aggregates: Vec<Expr>,
    },
    Distinct {
        from: usize,
    },
    Union {
        from: Vec<usize>,
    },
    Iterate {
        initial: usize,
        variable: usize,
        /// The rows that enter round by round, where they do.
        entered: Option<usize>,
        body: usize,
        options: Iterate,
    },
}

impl Step {
    /// The steps that it reads.
    pub(crate) fn reads(&self) -> Vec<usize> {
        match self {
            Self::Input(_) => Vec::new(),
            Self::Variable { initial: from, .. } | Self::Enter { from, .. } => {
                from.iter().copied().collect()
            }
            Self::Select { from, .. }
            | Self::Filter { from, .. }
            | Self::Aggregate { from, .. }
            | Self::Distinct { from } => vec![*from],
            Self::Join { left, right, .. } => vec![*left, *right],
            Self::Union { from } => from.clone(),
            Self::Iterate {
                initial,
                variable,
                entered,
                body,
                ..
            } => {
                let all = [Some(*initial), Some(*variable), *entered, Some(*body)];
                all.into_iter().flatten().collect()
            }
        }
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Variable { .. } => "variable",
            Self::Enter { .. } => "enter",
            Self::Select { .. } => "select",
            Self::Filter { .. } => "filter",
            Self::Join { .. } => "join",
            Self::Aggregate { .. } => "group_by",
            Self::Distinct { .. } => "distinct",
            Self::Union { .. } => "union",
            Self::Iterate { .. } => "iterate",
        }
    }

    fn to_json(&self) -> Value {
        let text = |all: &[Expr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut json = match self {
            Self::Input(input) => json!({ "input": input }),
            Self::Select { columns, .. } => json!({ "columns": text(columns) }),
            Self::Filter { predicate, .. } => json!({ "predicate": predicate.to_string() }),
            Self::Join { join, .. } => join.describe().config,
            Self::Aggregate {
                keys, aggregates, ..
            } => json!({ "keys": text(keys), "aggregates": text(aggregates) }),
            Self::Enter { round, .. } => json!({ "round": round.to_string() }),
            Self::Iterate { options, .. } => json!({ "max_rounds": options.n_rounds() }),
            _ => json!({}),
        };
        json["step"] = self.name().into();
        json["reads"] = self.reads().into();
        json
    }
}

impl Program {
    /// For `explain()` and the graph as data.
    pub(crate) fn to_json(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(Step::to_json).collect();
        json!({ "steps": steps, "output": self.output })
    }

    /// The columns of each step's rows that anything reads, by name; `None` for all.
    pub(crate) fn columns_read(&self) -> Vec<Option<BTreeSet<String>>> {
        let mut read = vec![Some(BTreeSet::new()); self.steps.len()];
        read[self.output] = None;
        // Those that read a step stand behind it.
        for (n, step) in self.steps.iter().enumerate().rev() {
            let (from, expressions): (usize, Vec<&Expr>) = match step {
                Step::Select { from, columns } => (*from, columns.iter().collect()),
                Step::Filter { from, predicate } => (*from, vec![predicate]),
                Step::Aggregate {
                    from,
                    keys,
                    aggregates,
                } => (*from, keys.iter().chain(aggregates).collect()),
                _ => {
                    for from in step.reads() {
                        read[from] = None;
                    }
                    continue;
                }
            };
            let mut of_step = match step {
                Step::Filter { .. } => read[n].clone(),
                _ => Some(BTreeSet::new()),
            };
            if let Some(columns) = &mut of_step {
                let refs = expressions.iter().flat_map(|expr| expr.column_refs());
                columns.extend(refs.map(|column| column.name.clone()));
            }
            read[from] = match (read[from].take(), of_step) {
                (Some(known), Some(more)) => Some(known.into_iter().chain(more).collect()),
                _ => None,
            };
        }
        read
    }

    /// True if what a step gives is made of what another gives.
    pub(crate) fn depends(&self, step: usize, on: usize) -> bool {
        let mut is_made_of = vec![false; self.steps.len()];
        is_made_of[on] = true;
        for (n, of) in self.steps.iter().enumerate().skip(on + 1) {
            is_made_of[n] = of.reads().into_iter().any(|read| is_made_of[read]);
        }
        is_made_of[step]
    }

    /// For each step the innermost loop that it stands in: the step that iterates. Only what depends on what goes round
    /// in a loop stands in it; all else is computed once, outside, also where that is another loop.
    pub(crate) fn loops(&self) -> Vec<Option<usize>> {
        let mut goes_round = vec![None; self.steps.len()];
        for (n, step) in self.steps.iter().enumerate() {
            if let Step::Iterate {
                variable, entered, ..
            } = step
            {
                for of_loop in std::iter::once(variable).chain(entered) {
                    goes_round[*of_loop] = Some(n);
                }
            }
        }
        // The loops on whose rounds each step depends.
        let mut all: Vec<BTreeSet<usize>> = Vec::with_capacity(self.steps.len());
        for (n, step) in self.steps.iter().enumerate() {
            let reads = step.reads().into_iter();
            let mut on: BTreeSet<usize> = reads.flat_map(|read| all[read].clone()).collect();
            on.extend(goes_round[n]);
            // What leaves a loop is no longer in its rounds.
            on.remove(&n);
            all.push(on);
        }
        // An inner loop comes to its end before the one around it does.
        all.iter().map(|on| on.first().copied()).collect()
    }
}
