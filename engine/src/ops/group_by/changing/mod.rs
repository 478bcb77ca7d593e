//! Aggregates of a changelog, kept up to date: a changelog of groups.
//!
//! ```text
//! changes ──▶ group_by/partial ──▶ by key ──▶ group_by ──▶ changes of groups: the old row -1, the new row +1
//!             keys and arguments                │ changes wait here until the watermark has passed them
//! ```
//!
//! A group changes at the instants at which its rows do, and what leaves has that instant as its event time.
//! So the result does not depend on how often the watermark moves, nor on the worker: what is computed from
//! it further down is as consistent as what came in. Without an event time each batch is an instant.
//!
//! A row may be taken back at an instant before that at which it is added, where the change that adds it came late.
//! Counts and sums hold it against the others meanwhile, and a group with no more rows than none is not there. If
//! that is still so at the end of input, the run ends.

mod aggregate;
mod aggregation;
mod distinct_count;
mod extreme;
mod first;
mod operator;
mod plan;
mod prepare;
mod sum;
mod tallies;
#[cfg(test)]
mod tests;

pub(crate) use aggregate::Retraction;
pub(super) use aggregate::{Changed, Misfit, Retractable, column};
pub(crate) use aggregation::Aggregation;
pub(crate) use extreme::End;
pub(super) use operator::ChangingOperator;
pub(super) use plan::ChangingPlan;
pub(super) use prepare::PrepareOperator;
