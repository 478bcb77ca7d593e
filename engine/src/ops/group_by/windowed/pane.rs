//! Which firing of its window a result is, as a column.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use crate::error::Result;
use crate::event_time::PANE;

/// Whether a result came before, when or after the watermark passed the end of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    Early,
    OnTime,
    Late,
}

impl Timing {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::OnTime => "on_time",
            Self::Late => "late",
        }
    }

    pub(super) fn of_name(name: &str) -> Self {
        match name {
            "early" => Self::Early,
            "on_time" => Self::OnTime,
            _ => Self::Late,
        }
    }
}

/// Which firing of its window a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pane {
    pub(super) timing: Timing,
    /// The number of the firing, from 0.
    pub(super) index: i64,
    /// Its number among those that are not early; -1 of an early one.
    pub(super) nonspeculative_index: i64,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl Pane {
    /// That of a window that fires once.
    pub(super) const ONLY: Self = Self {
        timing: Timing::OnTime,
        index: 0,
        nonspeculative_index: 0,
        is_first: true,
        is_last: true,
    };
}

/// The column `pane`.
pub(super) fn pane_field() -> FieldRef {
    Arc::new(Field::new(PANE, DataType::Struct(pane_fields()), false))
}

fn pane_fields() -> Fields {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    Fields::from(vec![
        field("timing", DataType::Utf8),
        field("index", DataType::Int64),
        field("nonspeculative_index", DataType::Int64),
        field("is_first", DataType::Boolean),
        field("is_last", DataType::Boolean),
    ])
}

/// Panes as the column `pane`.
pub(super) fn pane_column(panes: &[Pane]) -> Result<ArrayRef> {
    let indices = |of: fn(&Pane) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(panes.iter().map(of)))
    };
    let flags = |of: fn(&Pane) -> bool| -> ArrayRef {
        Arc::new(BooleanArray::from_iter(panes.iter().map(|p| Some(of(p)))))
    };
    let names = panes.iter().map(|pane| pane.timing.name());
    let columns = vec![
        Arc::new(StringArray::from_iter_values(names)) as ArrayRef,
        indices(|pane| pane.index),
        indices(|pane| pane.nonspeculative_index),
        flags(|pane| pane.is_first),
        flags(|pane| pane.is_last),
    ];
    Ok(Arc::new(StructArray::try_new(
        pane_fields(),
        columns,
        None,
    )?))
}
