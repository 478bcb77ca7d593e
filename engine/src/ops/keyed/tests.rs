//! Keyed transforms, step by step and under the laws of stateful operators.

mod beam_tests;
mod distinct;
mod everything;
mod limits;
mod sessions;

use std::fmt;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use super::*;
use crate::error::Result;
use crate::testing::OperatorRun;
use crate::windowing::Windowing;

type OnRows = fn(&mut Scope<'_>, &KeyRows<'_>) -> Result<()>;
type OnTimer = fn(&mut Scope<'_>, FiredTimer<'_>) -> Result<()>;

/// A keyed transform of functions.
pub(super) struct Scripted {
    pub(super) declare: fn() -> Declared,
    pub(super) on_rows: OnRows,
    pub(super) on_timer: OnTimer,
}

impl Scripted {
    pub(super) fn of(declare: fn() -> Declared, on_rows: OnRows, on_timer: OnTimer) -> Self {
        Self {
            declare,
            on_rows,
            on_timer,
        }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl KeyedTransform for Scripted {
    fn declare(&self, _rows: &SchemaRef) -> Result<Declared> {
        Ok((self.declare)())
    }

    fn on_rows(&self, key: &mut Scope<'_>, rows: &KeyRows<'_>) -> Result<()> {
        (self.on_rows)(key, rows)
    }

    fn on_timer(&self, key: &mut Scope<'_>, timer: FiredTimer<'_>) -> Result<()> {
        (self.on_timer)(key, timer)
    }
}

/// What most of these transforms emit.
#[derive(Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) said: String,
}

pub(super) fn say(key: &mut Scope<'_>, said: impl Into<String>) -> Result<()> {
    key.emit(Said { said: said.into() })
}

/// Nothing happens when a timer fires.
pub(super) fn silent(_key: &mut Scope<'_>, _timer: FiredTimer<'_>) -> Result<()> {
    Ok(())
}

/// A script for a transform of rows by the column `k`.
pub(super) fn by_k(
    transform: impl KeyedTransform,
    windowing: Windowing,
    columns: &str,
) -> OperatorRun {
    OperatorRun::new(Process::new(transform, ["k"], windowing), &[columns])
}
