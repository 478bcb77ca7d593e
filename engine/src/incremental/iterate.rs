//! What a loop may do, and in which round rows enter it.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_expr::Expr;

use super::compiled::check_steady;
use crate::error::{Error, Result};
use crate::expression::{Expression, cast};

/// How many rounds a loop may take, where nothing else is said.
const MAX_ROUNDS: u64 = 100_000;

/// Options of [`Relation::iterate_with`](super::Relation::iterate_with) and
/// [`Relation::iterate_entering_with`](super::Relation::iterate_entering_with).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iterate {
    max_rounds: u64,
}

impl Iterate {
    /// A loop of at most 100,000 rounds.
    pub fn new() -> Self {
        Self {
            max_rounds: MAX_ROUNDS,
        }
    }

    /// Sets in how many rounds the loop must have come to an end: no row may be another after that many than it was
    /// after one more. A loop that carries something from node to node takes as many as the longest of its shortest
    /// paths has edges, and a few more. What has not ended then ends the run with an error. Where rows enter round by
    /// round, those in which none enters count too.
    #[must_use]
    pub fn max_rounds(mut self, n_rounds: u64) -> Self {
        self.max_rounds = n_rounds;
        self
    }

    pub(crate) fn n_rounds(self) -> u64 {
        self.max_rounds
    }
}

impl Default for Iterate {
    fn default() -> Self {
        Self::new()
    }
}

/// The round in which each row enters a loop, as an Int64.
pub(super) fn round_of(round: &Expr, schema: &SchemaRef) -> Result<Expression> {
    check_steady([round])?;
    let compiled = Expression::compile(round, schema)?;
    match compiled.data_type() {
        DataType::Int64 => Ok(compiled),
        integer if integer.is_integer() => {
            Expression::compile(&cast(round.clone(), DataType::Int64), schema)
        }
        other => Err(
            Error::pipeline(format!("a round must be an integer, `{round}` is {other}"))
                .with_hint("Bring it to `Int64` with `cast`."),
        ),
    }
}
