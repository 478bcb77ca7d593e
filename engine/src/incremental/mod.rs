//! Relations: expressions over collections that change, kept up to date by differential dataflow.
//!
//! ```text
//! Collection ─incremental()─▶ Relation ─select, filter, join, group_by, distinct, union, iterate─▶ Relation
//!                                                                          ─into_collection(name)─▶ Collection
//! ```
//!
//! A relation is what its expression gives for the collections as they are at each instant, and what leaves is
//! the [changelog](crate::changelog) of that: whatever is added to a collection or taken back from it, only what
//! follows from it is computed, also through joins of several changing collections and through
//! [`Relation::iterate`]. The whole expression is one node, and an index that several of its parts need is
//! kept once. Columns that nothing reads are neither read nor kept, unless dead letters show whole rows.
//!
//! Rows that are no changes are additions. With an event time a change takes effect then, and what follows from
//! it at the same instant; it leaves once the watermark has passed. What has no event time has been there
//! always, and where no input has one, all changes take effect together when the input ends.
//!
//! A row on which an expression fails, such as a division by zero, is a bad row of the node, and is left out: of a join
//! it is the pair for which the filter fails, or the row whose key does, which then counts as none that matches
//! nothing; of `group_by` the row whose key or argument fails, or the group whose result does. It may be made of many
//! rows, so in place of a position its dead letter says which step of the relation it is of, and the row has the event
//! time from which on it is there. It is told when it comes to be there, once for each time that it is; since the
//! same row fails when it is taken back, nothing else follows of that, and it is not told. Of a loop, those of all
//! rounds are. A sum that does not fit its type ends the run.
//!
//! What is saved of a relation are its inputs as they are, and the changes that wait for the watermark: all else
//! follows from them, and is computed once more when it goes on. So going on takes as long as a fresh computation
//! over what the inputs hold. Where states are saved, an input that no join reads as it is has an index of its own.
//!
//! Changes that wait, and all indices, count as the state of the node; bytes of the latter are those of as many rows of
//! the inputs.

mod compiled;
mod iterate;
mod join;
mod program;
#[cfg(test)]
mod tests;
mod transform;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion_expr::Expr;

pub(crate) use compiled::{Compiled, JoinPlan, Keying, Kind, Matches};
pub use iterate::Iterate;
pub(crate) use join::join_of_changes;
pub(crate) use program::{Program, Step};
pub use transform::Incremental;

use crate::ops::{Join, JoinKind};
use crate::pipeline::Collection;

/// A collection that changes, as an expression over others.
///
/// Composing never fails; what is wrong is found while planning. Cloning gives the same relation: what is made
/// of it twice is computed once.
///
/// ```
/// use mainstem_engine::aggregates::min;
/// use mainstem_engine::connectors::{collect, from_record_batches};
/// use mainstem_engine::ops::JoinKind;
/// use mainstem_engine::testing::{show, table};
/// use mainstem_engine::{Pipeline, RunOptions, col};
///
/// // The least node that each node of a graph is connected with.
/// let pipeline = Pipeline::new("graph");
/// let edges = table("from: 1, 2, 3, 2, 7, 8; to: 2, 1, 2, 3, 8, 7");
/// let edges = pipeline.read("edges", from_record_batches(vec![edges])).incremental();
/// let nodes = edges.select([col("from").alias("node"), col("from").alias("least")]).distinct();
/// let components = nodes.iterate(|least| {
///     let near = least.join(&edges, JoinKind::Inner, [(col("node"), col("from"))]);
///     near.select([col("to").alias("node"), col("least")])
///         .union([&nodes])
///         .group_by([col("node")])
///         .agg([min(col("least")).alias("least")])
/// });
/// let (sink, rows) = collect();
/// let components = components.group_by([col("least")]).agg([min(col("node")).alias("first")]);
/// components.into_collection("components").write(sink);
/// pipeline.run(&RunOptions::new().workers(1))?;
/// let mut rows: Vec<String> = rows.take().iter().map(show).collect();
/// assert_eq!(rows, ["least: 1, 7\nfirst: 1, 7\ndiff: 1, 1"]);
/// # Ok::<(), mainstem_engine::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Relation(Arc<What>);

/// What a relation is.
#[derive(Debug)]
enum What {
    Input(Collection),
    /// What goes round in a loop that begins with these rows.
    Variable {
        initial: Relation,
        /// It begins with nothing, since these rows enter round by round.
        is_empty: bool,
    },
    /// Those of these rows that have entered a loop so far.
    Enter(Relation, Expr, Iterate),
    Select(Relation, Vec<Expr>),
    Filter(Relation, Expr),
    Join(Relation, Relation, Join),
    Aggregate(Relation, Vec<Expr>, Vec<Expr>),
    Distinct(Relation),
    Union(Vec<Relation>),
    Iterate {
        initial: Relation,
        variable: Relation,
        /// The rows that enter round by round, where they do.
        entered: Option<Relation>,
        body: Relation,
        options: Iterate,
    },
}

impl Collection {
    /// The rows as a [`Relation`], of which others can be made that follow its changes.
    pub fn incremental(&self) -> Relation {
        Relation(Arc::new(What::Input(self.clone())))
    }
}

/// A relation by keys, before it is said what becomes of each group.
#[derive(Clone, Debug)]
#[must_use = "say what becomes of each group with `agg`"]
pub struct GroupedRelation {
    rows: Relation,
    keys: Vec<Expr>,
}

impl GroupedRelation {
    /// One row for each group: the keys, then the [aggregates](crate::aggregates), of which `count`, `sum`,
    /// `avg`, `min` and `max` can be taken.
    #[must_use]
    pub fn agg(&self, aggregates: impl IntoIterator<Item = Expr>) -> Relation {
        let aggregates = aggregates.into_iter().collect();
        Relation::new(What::Aggregate(
            self.rows.clone(),
            self.keys.clone(),
            aggregates,
        ))
    }
}

impl Relation {
    fn new(part: What) -> Self {
        Self(Arc::new(part))
    }

    /// These columns, in this order.
    #[must_use]
    pub fn select(&self, columns: impl IntoIterator<Item = Expr>) -> Relation {
        Self::new(What::Select(self.clone(), columns.into_iter().collect()))
    }

    /// The rows for which `predicate` is true; null counts as false.
    #[must_use]
    pub fn filter(&self, predicate: Expr) -> Relation {
        Self::new(What::Filter(self.clone(), predicate))
    }

    /// These rows with those of `right` where all pairs of keys are equal, under the rules of
    /// [`Join`] for keys, nulls and columns.
    #[must_use]
    pub fn join(
        &self,
        right: &Relation,
        kind: JoinKind,
        on: impl IntoIterator<Item = (Expr, Expr)>,
    ) -> Relation {
        self.join_with(right, Join::new(kind, on))
    }

    /// These rows with those of `right`, as `join` says.
    #[must_use]
    pub fn join_with(&self, right: &Relation, join: Join) -> Relation {
        Self::new(What::Join(self.clone(), right.clone(), join))
    }

    /// The rows by the values of `keys`; null is a key like any other.
    pub fn group_by(&self, keys: impl IntoIterator<Item = Expr>) -> GroupedRelation {
        GroupedRelation {
            rows: self.clone(),
            keys: keys.into_iter().collect(),
        }
    }

    /// Each of the rows once.
    #[must_use]
    pub fn distinct(&self) -> Relation {
        Self::new(What::Distinct(self.clone()))
    }

    /// These rows and those of the others, each as often as it is in all of them together.
    #[must_use]
    pub fn union<'a>(&self, others: impl IntoIterator<Item = &'a Relation>) -> Relation {
        let others = others.into_iter().cloned();
        let all = std::iter::once(self.clone()).chain(others);
        Self::new(What::Union(all.collect()))
    }

    /// What `body` makes of these rows, of the outcome, and so on until nothing changes any more.
    ///
    /// The columns must stay the same. Relations from outside can be used inside, and so can other loops, which come
    /// to their end in each round anew: only what changes from one round to the next is computed. Where `body` never comes to an end,
    /// as one that counts upwards, the run ends with an error after so many rounds as [`Iterate`] says.
    ///
    /// A row that is taken back before it is added, as where the addition comes late and the other change does not, is
    /// not there meanwhile for a loop that reads it from outside. Steps before the loop see it taken back, also where
    /// they make one row of it and of others: `distinct()` first where that matters.
    #[must_use]
    pub fn iterate(&self, body: impl FnOnce(&Relation) -> Relation) -> Relation {
        self.iterate_with(Iterate::new(), body)
    }

    /// As [`Relation::iterate`], as `options` say.
    #[must_use]
    pub fn iterate_with(
        &self,
        options: Iterate,
        body: impl FnOnce(&Relation) -> Relation,
    ) -> Relation {
        let variable = Self::new(What::Variable {
            initial: self.clone(),
            is_empty: false,
        });
        let body = body(&variable);
        Self::new(What::Iterate {
            initial: self.clone(),
            variable,
            entered: None,
            body,
            options,
        })
    }

    /// As [`Relation::iterate`], but these rows enter the loop one after the other, each in the round that `round` gives
    /// for it; 0 is the first.
    ///
    /// `body` is given what the round before has made, which is nothing in the first, and the rows that have entered so
    /// far:
    ///
    /// ```text
    /// made(0) = body(nothing, entered(0))
    /// made(n) = body(made(n - 1), entered(n))      entered(n): the rows whose round is n or less
    /// ```
    ///
    /// It ends when all rows have entered and nothing changes any more. A round in which nothing enters and nothing
    /// changes costs nothing, so rounds may lie far apart.
    ///
    /// This is for loops in which some rows win over others, as the least label of a component does over all others:
    /// `iterate` carries each label along until a better one catches up with it, and keeps how each node came to be
    /// relabelled, round by round. Where the labels that win in the end enter first, and the others once those have
    /// been carried everywhere, hardly anything is relabelled, so that a fresh computation and a change of its
    /// inputs both cost a fraction, of memory too. Where rows that have entered only add to what is made, or make it
    /// better, as `distinct` rows and the least or greatest do, both come to the same; a body for which that is not so
    /// gives what follows from the order in which rows enter.
    ///
    /// The number of bits of a label, times as many rounds as a label needs to come everywhere, is a good round where
    /// the least labels win and most nodes are connected with one of them: each step admits as many labels as
    /// all before it. So does [`propagate`](https://docs.rs/differential-dataflow/0.26.0/differential_dataflow/algorithms/graphs/propagate/)
    /// of differential dataflow, with 256 rounds for each bit.
    ///
    /// ```
    /// use arrow::datatypes::DataType;
    /// use mainstem_engine::aggregates::min;
    /// use mainstem_engine::connectors::{collect, from_record_batches};
    /// use mainstem_engine::expression::{cast, functions::math::expr_fn::{ceil, log2}};
    /// use mainstem_engine::ops::JoinKind;
    /// use mainstem_engine::testing::{show, table};
    /// use mainstem_engine::{Pipeline, RunOptions, col, lit};
    ///
    /// let pipeline = Pipeline::new("graph");
    /// let edges = table("from: 1, 2, 3, 2, 7, 8; to: 2, 1, 2, 3, 8, 7");
    /// let edges = pipeline.read("edges", from_record_batches(vec![edges])).incremental();
    /// let nodes = edges.select([col("from").alias("node"), col("from").alias("least")]).distinct();
    /// let n_bits = cast(ceil(log2(col("least") + lit(1.0))), DataType::Int64);
    /// let components = nodes.iterate_entering(n_bits * lit(256_i64), |least, nodes| {
    ///     let near = least.join(&edges, JoinKind::Inner, [(col("node"), col("from"))]);
    ///     near.select([col("to").alias("node"), col("least")])
    ///         .union([nodes])
    ///         .group_by([col("node")])
    ///         .agg([min(col("least")).alias("least")])
    /// });
    /// let (sink, rows) = collect();
    /// components.into_collection("components").write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// let rows: Vec<String> = rows.take().iter().map(show).collect();
    /// assert_eq!(rows, ["node: 1, 2, 3, 7, 8\nleast: 1, 1, 1, 7, 7\ndiff: 1, 1, 1, 1, 1"]);
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    ///
    /// `round` is an integer of these rows; any other type is refused while planning. A row for which it fails, is null,
    /// is negative or is not less than what [`Iterate::max_rounds`] allows is a bad row, and does not enter. A body that
    /// does not read the rows that enter is refused too.
    #[must_use]
    pub fn iterate_entering(
        &self,
        round: Expr,
        body: impl FnOnce(&Relation, &Relation) -> Relation,
    ) -> Relation {
        self.iterate_entering_with(Iterate::new(), round, body)
    }

    /// As [`Relation::iterate_entering`], as `options` say.
    #[must_use]
    pub fn iterate_entering_with(
        &self,
        options: Iterate,
        round: Expr,
        body: impl FnOnce(&Relation, &Relation) -> Relation,
    ) -> Relation {
        let variable = Self::new(What::Variable {
            initial: self.clone(),
            is_empty: true,
        });
        let entered = Self::new(What::Enter(self.clone(), round, options));
        let body = body(&variable, &entered);
        Self::new(What::Iterate {
            initial: self.clone(),
            variable,
            entered: Some(entered),
            body,
            options,
        })
    }

    /// The changelog of this relation, as the node `name`.
    ///
    /// The columns are those of the relation, then `event_time` where an input has one, then `diff`.
    #[must_use]
    pub fn into_collection(&self, name: impl Into<String>) -> Collection {
        let mut flat = Flat::default();
        let output = flat.add(self);
        let program = Program {
            steps: flat.steps,
            output,
        };
        // Every relation comes from a collection.
        let (first, others) = (&flat.inputs[0], &flat.inputs[1..]);
        first
            .named(name)
            .apply_with(others, Incremental::new(program))
    }
}

/// Turns a relation into steps, each after those that it reads.
#[derive(Default)]
struct Flat {
    steps: Vec<Step>,
    inputs: Vec<Collection>,
    /// The number of each step, by where it lies in memory.
    places: HashMap<*const What, usize>,
}

impl Flat {
    fn add(&mut self, relation: &Relation) -> usize {
        let at = Arc::as_ptr(&relation.0);
        if let Some(place) = self.places.get(&at) {
            return *place;
        }
        let step = match &*relation.0 {
            What::Input(rows) => Step::Input(self.input(rows)),
            // Those of loops that are being added are there already: this one has left its loop.
            What::Variable { initial, is_empty } => {
                self.add(initial);
                Step::Variable {
                    initial: None,
                    is_empty: *is_empty,
                }
            }
            What::Enter(rows, round, options) => {
                self.add(rows);
                Step::Enter {
                    from: None,
                    round: round.clone(),
                    options: *options,
                }
            }
            What::Select(from, columns) => Step::Select {
                from: self.add(from),
                columns: columns.clone(),
            },
            What::Filter(from, predicate) => Step::Filter {
                from: self.add(from),
                predicate: predicate.clone(),
            },
            What::Join(left, right, join) => Step::Join {
                left: self.add(left),
                right: self.add(right),
                join: join.clone(),
            },
            What::Aggregate(from, keys, aggregates) => Step::Aggregate {
                from: self.add(from),
                keys: keys.clone(),
                aggregates: aggregates.clone(),
            },
            What::Distinct(from) => Step::Distinct {
                from: self.add(from),
            },
            What::Union(all) => Step::Union {
                from: all.iter().map(|r| self.add(r)).collect(),
            },
            What::Iterate {
                initial,
                variable,
                entered,
                body,
                options,
            } => {
                let initial = self.add(initial);
                let place = self.push(Step::Variable {
                    initial: Some(initial),
                    is_empty: entered.is_some(),
                });
                self.places.insert(Arc::as_ptr(&variable.0), place);
                let entered = entered
                    .as_ref()
                    .and_then(|entered| self.enter(entered, initial));
                Step::Iterate {
                    initial,
                    variable: place,
                    entered,
                    body: self.add(body),
                    options: *options,
                }
            }
        };
        let place = self.push(step);
        self.places.insert(at, place);
        place
    }

    /// The rows that enter a loop whose body is added next.
    fn enter(&mut self, entered: &Relation, from: usize) -> Option<usize> {
        let What::Enter(_, round, options) = &*entered.0 else {
            return None;
        };
        let place = self.push(Step::Enter {
            from: Some(from),
            round: round.clone(),
            options: *options,
        });
        self.places.insert(Arc::as_ptr(&entered.0), place);
        Some(place)
    }

    fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    fn input(&mut self, rows: &Collection) -> usize {
        let known = self.inputs.iter().position(|known| known.is_same(rows));
        known.unwrap_or_else(|| {
            self.inputs.push(rows.clone());
            self.inputs.len() - 1
        })
    }
}
