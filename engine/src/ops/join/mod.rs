//! Brings the rows of two collections together where their keys are equal.
//!
//! ```text
//! plan   Join ──▶ JoinBuild over the smaller side, Probe on the other
//!
//! phase 1   smaller side ──▶ JoinBuild ──▶ JoinTable (rows, and an index of their keys)
//! phase 2   other side ──▶ Probe: encode keys ─▶ look up ─▶ pairs ─▶ residual filter ─▶ take both sides ──▶
//! ```
//!
//! - `layout`: which column of the result comes from which side.
//! - `keys`: common types, and key columns as integers of a fixed size.
//! - `table`: the index; `build`: the table of one side; `probe`: the other side; `marks`: what was matched;
//!   `widths`: how many pairs are made at once where rows are wide.

mod build;
mod keys;
pub(super) mod layout;
mod marks;
mod probe;
mod table;
mod widths;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion_expr::Expr;
use serde_json::json;

use crate::artifact::{ArtifactRef, Artifacts};
use crate::changelog::is_changelog;
use crate::error::{Error, Result};
use crate::incremental::join_of_changes;
use crate::ops::key_columns::{KeyColumns, is_computed, key_text};
use crate::pipeline::Collection;
use crate::plan::{Learned, Lowered, Place, Size};
use crate::transform::{Description, OnChangelog, Operator, Properties, Transform};

pub(super) use keys::{KeyBytes, Keys, can_hash, common_type, is_long, one_zero};
pub(super) use widths::{LOT_BYTES, Lot, Widths};

use build::JoinBuild;
use layout::{Layout, Origin};
use probe::Probe;

/// Which rows a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// Each pair of a left and a right row that match.
    Inner,
    /// The pairs, and each left row that matches none, with nulls for the right columns.
    Left,
    /// The pairs, and each right row that matches none, with nulls for the left columns.
    Right,
    /// The pairs, and each row of either side that matches none.
    Full,
    /// Each left row that matches, once, with the left columns alone.
    LeftSemi,
    /// Each left row that matches none, with the left columns alone; a row with a null key is one.
    LeftAnti,
    /// Each right row that matches, once, with the right columns alone.
    RightSemi,
    /// Each right row that matches none, with the right columns alone; a row with a null key is one.
    RightAnti,
}

impl JoinKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inner => "inner",
            Self::Left => "left",
            Self::Right => "right",
            Self::Full => "full",
            Self::LeftSemi => "left semi",
            Self::LeftAnti => "left anti",
            Self::RightSemi => "right semi",
            Self::RightAnti => "right anti",
        }
    }

    /// True if rows of `side` that match none are in the result.
    pub(super) fn keeps_unmatched(self, side: Side) -> bool {
        match self {
            Self::Full => true,
            Self::Left | Self::LeftAnti => side == Side::Left,
            Self::Right | Self::RightAnti => side == Side::Right,
            Self::Inner | Self::LeftSemi | Self::RightSemi => false,
        }
    }

    /// The side whose rows alone are given.
    pub(super) fn only(self) -> Option<Side> {
        match self {
            Self::LeftSemi | Self::LeftAnti => Some(Side::Left),
            Self::RightSemi | Self::RightAnti => Some(Side::Right),
            Self::Inner | Self::Left | Self::Right | Self::Full => None,
        }
    }
}

/// A side of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The collection that is joined.
    Left,
    /// The collection it is joined with.
    Right,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    /// The number of the side's input.
    pub(super) fn input(self) -> usize {
        match self {
            Self::Left => 0,
            Self::Right => 1,
        }
    }
}

/// Brings the rows of two collections together where their keys are equal.
///
/// **Keys** are pairs of expressions, the first over the left columns and the second over the right.
/// Rows match where all keys are equal and the filter, if any, is true. A null key matches nothing, not
/// even null; 0.0 and -0.0 are equal, and so are all NaN. Numbers of two types are compared in the wider
/// one, and so are texts, times and dates; numbers with text are refused. A value beyond the type of the
/// comparison, as the day 9999-12-31 is where the other key holds nanoseconds, matches nothing.
///
/// **Columns** are the left ones, then the right ones. Key columns of one name appear once, where the
/// left one stands, with the value of the side that has a row: the left one, in a right join the right one.
/// In a full join that column is of the type in which both are compared, and a row whose key is beyond that type
/// is a bad row of the join; one of the side that is held ends the run.
/// Other columns of one name are refused unless there is a [`Join::suffix`] for the right one.
///
/// **Rows.** The smaller side is held in memory as a table, the other is read past it: it keeps its order,
/// and the matches of one row come in the order of the splits of the table's side. Rows of the table that
/// match none come last. Which side is held does not change which rows there are.
///
/// **Changes.** Where one side is a [changelog](crate::changelog), or both, so is the result, and neither side is
/// held whole before the other: see [relations](crate::incremental). A plain side is rows that are added. A filter
/// is refused unless the join is inner.
///
/// A row whose key has no value, such as a division by zero, is a bad row of the node that computes the key,
/// `NAME/left_key_0` or `NAME/right_key_0`, for which [`on_bad_row`](Collection::on_bad_row) and
/// [`dead_letters`](Collection::dead_letters) of the result speak. So is a pair for which the filter has no value,
/// of the join itself: its position is that of the row which is read past the table. The pair is left out, and
/// neither of its rows counts as one that matches none. Between changelogs such a pair is told at the instant at
/// which it comes to be there, and stands nowhere: its rows may be made of many.
#[derive(Clone, Debug)]
pub struct Join {
    kind: JoinKind,
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
    suffix: Option<String>,
    build_side: Option<Side>,
}

impl Join {
    /// A join on pairs of keys, the first of the left side and the second of the right.
    pub fn new(kind: JoinKind, on: impl IntoIterator<Item = (Expr, Expr)>) -> Self {
        Self {
            kind,
            on: on.into_iter().collect(),
            filter: None,
            suffix: None,
            build_side: None,
        }
    }

    /// Rows match only where this is true too; it reads the columns of both sides by their names in
    /// the result. Null counts as false.
    #[must_use]
    pub fn filter(mut self, filter: Expr) -> Self {
        self.filter = Some(filter);
        self
    }

    /// What is added to the name of a right column where a left one has the same name.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = Some(suffix.into());
        self
    }

    /// The side that is held in memory. By default the one whose sources hold fewer rows, or fewer
    /// bytes where rows are not known; the right one where neither is.
    #[must_use]
    pub fn build_side(mut self, side: Side) -> Self {
        self.build_side = Some(side);
        self
    }

    /// Checks that what is held ends, and that no row waits for the end of a side that never does.
    fn check_end(&self, place: &Place<'_>, held: Side) -> Result<()> {
        let never_ends = |side: Side| !place.is_bounded(side.input());
        if never_ends(held) {
            let side = held.name();
            let error = Error::pipeline(format!(
                "a join holds its {side} side whole, and that never ends"
            ));
            return Err(match never_ends(held.other()) {
                true => error.with_hint("Join windows of both with `join_windowed`, or rows whose times are near to each other with `join_interval`."),
                false => error.with_hint("Hold the other side with `Join::build_side`."),
            });
        }
        if never_ends(held.other()) && JoinBuild::marks(self.kind, held) {
            let (kind, held, read) = (self.kind.name(), held.name(), held.other().name());
            return Err(Error::pipeline(format!(
                "a {kind} join knows which {held} rows match none when its {read} side has ended, which it never does"
            ))
            .with_hint("Leave such rows out, or join with `join_windowed` or `join_interval`."));
        }
        Ok(())
    }

    pub(crate) fn kind(&self) -> JoinKind {
        self.kind
    }

    /// What must be true of a pair besides.
    pub(crate) fn residual(&self) -> Option<&Expr> {
        self.filter.as_ref()
    }

    /// The side to hold, and why.
    fn choose(&self, place: &Place<'_>) -> (Side, String) {
        if let Some(side) = self.build_side {
            return (side, "as asked".into());
        }
        for side in [Side::Left, Side::Right] {
            if !place.is_bounded(side.other().input()) {
                return (side, "the other never ends".into());
            }
        }
        let (left, right) = (place.size(0), place.size(1));
        let smaller = |a: fn(&Size) -> Option<u64>, unit: &str| {
            let (l, r) = (a(&left)?, a(&right)?);
            let side = if l < r { Side::Left } else { Side::Right };
            let (least, most) = (l.min(r), l.max(r));
            Some((side, format!("{least} {unit} against {most}")))
        };
        smaller(|s| s.n_rows, "rows")
            .or_else(|| smaller(|s| s.n_bytes, "bytes"))
            .unwrap_or_else(|| (Side::Right, "sizes are not known".into()))
    }
}

impl Collection {
    /// These rows with those of `right` where all pairs of keys are equal; see [`Join`] for the rules, and
    /// [`Collection::join_with`] for a filter, a suffix and more.
    ///
    /// ```
    /// # use mainstem_engine::{Pipeline, RunOptions, col, connectors, ops::JoinKind, testing::{show, table}};
    /// let pipeline = Pipeline::new("flights");
    /// let read = |name, rows| pipeline.read(name, connectors::from_record_batches(vec![table(rows)]));
    /// let flights = read("flights", "carrier: AA, UA, null; delay: 5, 7, 9");
    /// let carriers = read("carriers", "code: AA, DL; name: American, Delta");
    /// let (sink, named) = connectors::collect();
    /// flights.join(&carriers, JoinKind::Left, [(col("carrier"), col("code"))]).write(sink);
    /// pipeline.run(&RunOptions::new().workers(1))?;
    /// assert_eq!(show(&named.take()[0]), "\
    /// carrier: 'AA', 'UA', null
    /// delay: 5, 7, 9
    /// code: 'AA', null, null
    /// name: 'American', null, null");
    /// # Ok::<(), mainstem_engine::Error>(())
    /// ```
    #[must_use]
    pub fn join(
        &self,
        right: &Collection,
        kind: JoinKind,
        on: impl IntoIterator<Item = (Expr, Expr)>,
    ) -> Collection {
        self.join_with(right, Join::new(kind, on))
    }

    /// These rows with those of `right`, as `join` says.
    #[must_use]
    pub fn join_with(&self, right: &Collection, mut join: Join) -> Collection {
        let name = self.next_name("join");
        let (of_left, of_right): (Vec<Expr>, Vec<Expr>) = join.on.into_iter().unzip();
        // What stands there for all rows cannot fail on some of them.
        let is_made = |key: &Expr| is_computed(key) && !matches!(key, Expr::Literal(..));
        let left = KeyColumns::of(self, &of_left, &format!("{name}/left_key_"), is_made);
        let right = KeyColumns::of(right, &of_right, &format!("{name}/right_key_"), is_made);
        join.on = left.keys.into_iter().zip(right.keys).collect();
        let joined = left.rows.named(name).apply_with(&[right.rows], join);
        joined.rejecting_also_at(left.made.iter().chain(&right.made))
    }
}

/// The columns of a join, for those who join in another way.
pub(crate) struct JoinColumns {
    /// The keys of both sides, with the type in which they are compared.
    pub(crate) keys: Vec<(Expr, Expr, DataType)>,
    pub(crate) columns: Vec<JoinColumn>,
}

/// A column of the result, and where it is from.
pub(crate) struct JoinColumn {
    pub(crate) field: Arc<Field>,
    /// `None` for a key that is taken from whichever side has a row.
    pub(crate) side: Option<Side>,
    pub(crate) name: String,
}

/// Checks a join against the columns of both sides.
pub(crate) fn join_columns(
    join: &Join,
    left: &SchemaRef,
    right: &SchemaRef,
) -> Result<JoinColumns> {
    let layout = Layout::new(join, left, right, None)?;
    let columns = layout.columns.into_iter().map(|column| {
        let (side, name) = match column.from {
            Origin::One(side, name) => (Some(side), name),
            Origin::Either(name) => (None, name),
        };
        JoinColumn {
            field: column.field,
            side,
            name,
        }
    });
    let keys = layout
        .keys
        .into_iter()
        .map(|k| (k.left, k.right, k.data_type));
    Ok(JoinColumns {
        keys: keys.collect(),
        columns: columns.collect(),
    })
}

impl Transform for Join {
    fn describe(&self) -> Description {
        let show = |(l, r): &(Expr, Expr)| format!("{} = {}", key_text(l), key_text(r));
        let on: Vec<String> = self.on.iter().map(show).collect();
        let mut config = json!({ "kind": self.kind.name(), "on": on });
        if let Some(filter) = &self.filter {
            config["filter"] = filter.to_string().into();
        }
        if let Some(suffix) = &self.suffix {
            config["suffix"] = suffix.as_str().into();
        }
        if let Some(side) = self.build_side {
            config["build_side"] = side.name().into();
        }
        Description::new("join", config)
    }

    fn output_schema(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        if inputs.iter().any(|input| is_changelog(input)) {
            return join_of_changes(self).output_schema(inputs);
        }
        let layout = Layout::new(self, &inputs[0], &inputs[1], None)?;
        Ok(layout.schema())
    }

    fn build(&self, _artifacts: &Artifacts) -> Result<Box<dyn Operator>> {
        Err(Error::bug(
            "a join runs as the two nodes that the planner makes of it",
        ))
    }

    fn properties(&self) -> Properties {
        Properties {
            n_inputs: Some(2),
            stateful: true,
            ignores_windows: true,
            on_changelog: OnChangelog::Understand,
            ..Properties::default()
        }
    }

    fn reads(&self, wanted: Option<&[String]>) -> Option<Vec<String>> {
        let mut columns: Vec<String> = wanted?.to_vec();
        if let Some(suffix) = &self.suffix {
            let plain = columns
                .iter()
                .filter_map(|name| name.strip_suffix(suffix.as_str()));
            columns.extend(plain.map(str::to_owned).collect::<Vec<_>>());
        }
        for expr in self.on.iter().flat_map(|(l, r)| [l, r]).chain(&self.filter) {
            for column in expr.column_refs() {
                columns.push(column.name.clone());
                let plain = self
                    .suffix
                    .as_deref()
                    .and_then(|s| column.name.strip_suffix(s));
                columns.extend(plain.map(str::to_owned));
            }
        }
        Some(columns)
    }

    fn lower(&self, place: &Place<'_>) -> Result<Option<Lowered>> {
        let [left, right] = place.inputs() else {
            return Err(Error::bug("a join has two inputs"));
        };
        if is_changelog(left) || is_changelog(right) {
            return Ok(Some(Lowered::to(join_of_changes(self), 2)));
        }
        let layout = Arc::new(Layout::new(self, left, right, place.wanted())?);
        let (side, because) = self.choose(place);
        self.check_end(place, side)?;
        let table = ArtifactRef::new(format!("{}/build", place.id()));
        Ok(Some(Lowered {
            learns: vec![Learned {
                name: "build",
                input: side.input(),
                analysis: Arc::new(JoinBuild::new(Arc::clone(&layout), side, because)),
            }],
            transform: Arc::new(Probe::new(self.describe(), layout, side.other(), table)),
            inputs: vec![side.other().input()],
        }))
    }
}

#[cfg(test)]
mod tests;
