//! Joins of changelogs as relations.

use super::{Incremental, Program, Step};
use crate::ops::Join;

/// What takes the place of a join where an input is a changelog.
pub(crate) fn join_of_changes(join: &Join) -> Incremental {
    let join = Step::Join {
        left: 0,
        right: 1,
        join: join.clone(),
    };
    Incremental::new(Program {
        steps: vec![Step::Input(0), Step::Input(1), join],
        output: 2,
    })
}
