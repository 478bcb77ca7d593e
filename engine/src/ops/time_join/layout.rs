//! Which columns a join in event time gives, what each side must bring for them, and how rows are dealt.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion_expr::Expr;

use super::gather::{Gather, record_batch};
use super::late::PORTS;
use crate::error::{Error, Result};
use crate::event_time::{
    DIFF, EVENT_TIME, PANE, WINDOW_END, WINDOW_START, check_event_time, time_field,
};
use crate::expression::{Expression, OfPairs, check_column, col, of_pairs};
use crate::keys::plain_type;
use crate::ops::join::layout::{Column, Layout, Origin, filter_columns};
use crate::ops::key_columns::{KeyColumns, is_computed, key_text};
use crate::ops::{Join, JoinKind, Side};
use crate::output::Output;
use crate::pipeline::Collection;
use crate::transform::{Distribution, Properties, Transform};
use crate::windowing::Window;

/// What the event time of a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResultTime {
    /// That of the left row.
    Left,
    /// The later of the two.
    Later,
    /// The last instant of the window, whose edges are columns too.
    Window,
}

/// Pairs of keys, and what all joins in event time know of their result.
#[derive(Clone, Debug)]
pub(super) struct Pairing {
    pub(super) kind: JoinKind,
    pub(super) on: Vec<(Expr, Expr)>,
    pub(super) filter: Option<Expr>,
    pub(super) suffix: Option<String>,
    pub(super) time: ResultTime,
}

impl Pairing {
    pub(super) fn new(
        kind: JoinKind,
        on: impl IntoIterator<Item = (Expr, Expr)>,
        time: ResultTime,
    ) -> Self {
        Self {
            kind,
            on: on.into_iter().collect(),
            filter: None,
            suffix: None,
            time,
        }
    }

    /// The keys as a message and `explain()` show them.
    pub(super) fn shown(&self) -> Vec<String> {
        let show = |(l, r): &(Expr, Expr)| match l == r {
            true => key_text(l),
            false => format!("{} = {}", key_text(l), key_text(r)),
        };
        self.on.iter().map(show).collect()
    }

    /// Applies the transform that `make` makes of these keys to both collections, with a column for each key
    /// that is not one: rows are dealt by columns. What has no key is rejected for the result.
    pub(super) fn applied<T: Transform + 'static>(
        mut self,
        left: &Collection,
        right: &Collection,
        name: String,
        make: impl FnOnce(Self) -> T,
    ) -> Collection {
        let (of_left, of_right): (Vec<Expr>, Vec<Expr>) = self.on.into_iter().unzip();
        let left = KeyColumns::of(left, &of_left, &format!("{name}/left_key_"), is_computed);
        let right = KeyColumns::of(right, &of_right, &format!("{name}/right_key_"), is_computed);
        self.on = left.keys.into_iter().zip(right.keys).collect();
        let joined = left.rows.named(name).apply_with(&[right.rows], make(self));
        joined.rejecting_also_at(left.made.iter().chain(&right.made))
    }

    /// The key columns of each side; the planner has seen to it that they are columns.
    pub(super) fn key_columns(&self, side: Side) -> Vec<String> {
        let of = |(l, r): &(Expr, Expr)| match (side, l, r) {
            (Side::Left, Expr::Column(column), _) | (Side::Right, _, Expr::Column(column)) => {
                column.name.clone()
            }
            (Side::Left, key, _) | (Side::Right, _, key) => key.to_string(),
        };
        self.on.iter().map(of).collect()
    }

    /// What the planner wants to know of a join of these rows, whose sides are dealt by their keys.
    pub(super) fn properties(&self) -> Properties {
        let dealt = |side| Distribution::ByKey(self.key_columns(side));
        Properties {
            n_inputs: Some(2),
            stateful: true,
            distribution: dealt(Side::Left),
            other_distributions: vec![dealt(Side::Right)],
            ..Properties::default()
        }
        .ports(PORTS)
    }

    /// The input columns behind the columns `wanted` of the result.
    pub(super) fn reads<'a>(
        &self,
        wanted: Option<&[String]>,
        also: impl IntoIterator<Item = &'a Expr>,
    ) -> Option<Vec<String>> {
        let mut columns: Vec<String> = wanted?.to_vec();
        columns.push(EVENT_TIME.into());
        let keys = self.on.iter().flat_map(|(l, r)| [l, r]);
        let read = keys.chain(&self.filter).flat_map(Expr::column_refs);
        columns.extend(read.map(|c| c.name.clone()));
        if let Some(suffix) = &self.suffix {
            let plain = columns.iter().filter_map(|name| name.strip_suffix(suffix));
            columns.extend(plain.map(str::to_owned).collect::<Vec<_>>());
        }
        let read = also.into_iter().flat_map(Expr::column_refs);
        columns.extend(read.map(|c| c.name.clone()));
        Some(columns)
    }
}

/// A join in event time that fits its inputs.
#[derive(Clone, Debug)]
pub(super) struct TimeLayout {
    pub(super) kind: JoinKind,
    /// The types in which keys are numbered.
    pub(super) key_types: Vec<DataType>,
    pub(super) left: SideLayout,
    pub(super) right: SideLayout,
    /// The schema of the result.
    pub(super) schema: SchemaRef,
    columns: Vec<ColumnFrom>,
    filter: Option<(Expr, SchemaRef, Vec<ColumnFrom>)>,
}

/// What a side brings.
#[derive(Clone, Debug)]
pub(super) struct SideLayout {
    /// The columns that are kept of its rows.
    pub(super) schema: SchemaRef,
    /// The key columns among them, by place.
    pub(super) keys: Vec<usize>,
    /// The same by name.
    pub(super) key_names: Vec<String>,
    /// The event time among them.
    pub(super) time: usize,
}

/// Where a column of the result comes from.
#[derive(Clone, Copy, Debug)]
enum ColumnFrom {
    Left(usize),
    Right(usize),
    /// The left value where there is a left row, else the right one.
    Either(usize, usize),
    EventTime,
    WindowStart,
    WindowEnd,
}

/// The values of a result that are in neither row.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) event_times: Vec<i64>,
    /// The window of each row; none where there are no windows.
    pub(super) windows: Vec<Window>,
}

impl TimeLayout {
    /// Checks a join against the columns of both sides. Of the result only columns of `wanted` are made;
    /// `also` are columns that the right side must bring besides.
    pub(super) fn new(
        pairing: &Pairing,
        left: &SchemaRef,
        right: &SchemaRef,
        wanted: Option<&[String]>,
        also: &[&Expr],
    ) -> Result<Self> {
        let mut errors = Vec::new();
        for (side, schema) in [(Side::Left, left), (Side::Right, right)] {
            let of_side = |e: Error| e.with_detail(format!("It is the {} side.", side.name()));
            errors.extend(check_event_time(schema).err().map(of_side));
        }
        if !errors.is_empty() {
            return Err(Error::all(errors));
        }
        let mut join = Join::new(pairing.kind, pairing.on.clone());
        if let Some(suffix) = &pairing.suffix {
            join = join.suffix(suffix);
        }
        let (of_left, of_right) = pairing.time.replaced();
        let plain = Layout::new(
            &join,
            &without(left, of_left),
            &without(right, of_right),
            None,
        )?;
        check_key_types(pairing, left, right)?;
        let columns = plain.columns;
        let made = made_columns(pairing, columns.iter().map(|c| c.field.name().as_str()))?;

        let filter = match &pairing.filter {
            Some(filter) => Some(filter_columns(filter, &columns)?),
            None => None,
        };
        let is_wanted = |name: &str| wanted.is_none_or(|w| w.iter().any(|w| w == name));
        let of_filter = filter.iter().flat_map(|(_, columns)| columns);
        let mut names: [Vec<&str>; 2] = [Vec::new(), Vec::new()];
        let taken = columns.iter().filter(|c| is_wanted(c.field.name()));
        for column in taken.chain(of_filter) {
            for (names, side) in names.iter_mut().zip([Side::Left, Side::Right]) {
                names.extend(column.from.name_on(side));
            }
        }
        let left = SideLayout::new(pairing, Side::Left, left, &names[0], &[])?;
        let right = SideLayout::new(pairing, Side::Right, right, &names[1], also)?;
        let from = |column: &Column| -> Result<ColumnFrom> {
            Ok(match &column.from {
                Origin::One(Side::Left, name) => {
                    ColumnFrom::Left(check_column(name, &left.schema)?)
                }
                Origin::One(Side::Right, name) => {
                    ColumnFrom::Right(check_column(name, &right.schema)?)
                }
                Origin::Either(name) => ColumnFrom::Either(
                    check_column(name, &left.schema)?,
                    check_column(name, &right.schema)?,
                ),
            })
        };
        let mut fields = Vec::new();
        let mut origins = Vec::new();
        for column in columns.iter().filter(|c| is_wanted(c.field.name())) {
            fields.push(Arc::clone(&column.field));
            origins.push(from(column)?);
        }
        for (field, what) in made {
            if is_wanted(field.name()) || field.name() == EVENT_TIME {
                origins.push(match what {
                    ColumnFrom::Right(_) => ColumnFrom::Right(right.time),
                    other => other,
                });
                fields.push(field);
            }
        }
        let filter = match filter {
            None => None,
            Some((expr, columns)) => {
                let fields: Vec<Arc<Field>> =
                    columns.iter().map(|c| Arc::clone(&c.field)).collect();
                let origins = columns.iter().map(from).collect::<Result<_>>()?;
                Some((expr, Arc::new(Schema::new(fields)), origins))
            }
        };
        Ok(Self {
            kind: pairing.kind,
            key_types: plain
                .keys
                .iter()
                .map(|k| plain_type(&k.data_type))
                .collect(),
            left,
            right,
            schema: Arc::new(Schema::new(fields)),
            columns: origins,
            filter,
        })
    }

    pub(super) fn side(&self, side: Side) -> &SideLayout {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    /// Checks that the inputs bring what is needed, which may be less than they had while the layout was made.
    pub(super) fn check_inputs(&self, inputs: &[SchemaRef]) -> Result<SchemaRef> {
        for (side, input) in [&self.left, &self.right].into_iter().zip(inputs) {
            for field in side.schema.fields() {
                check_column(field.name(), input)?;
            }
        }
        Ok(SchemaRef::clone(&self.schema))
    }

    /// The columns that the inputs must bring; late rows have those that are `wanted`, too.
    pub(super) fn reads(&self, wanted: Option<&[String]>) -> Vec<String> {
        let sides = [&self.left, &self.right].into_iter();
        let fields = sides.flat_map(|side| side.schema.fields());
        let names = fields.map(|f| f.name().clone());
        names.chain(wanted.into_iter().flatten().cloned()).collect()
    }

    /// The condition that pairs must meet besides, compiled.
    pub(super) fn residual(&self) -> Result<Option<Residual>> {
        let Some((expr, schema, columns)) = &self.filter else {
            return Ok(None);
        };
        Ok(Some(Residual {
            predicate: Expression::compile_predicate(expr, schema)?,
            schema: SchemaRef::clone(schema),
            columns: columns.clone(),
        }))
    }

    /// Rows of the result, from as many left and right rows.
    pub(super) fn rows(
        &self,
        left: &Gather<'_>,
        right: &Gather<'_>,
        has_left: Option<&BooleanArray>,
        made: Made,
        n_rows: usize,
    ) -> Result<RecordBatch> {
        let times: ArrayRef = Arc::new(PrimitiveArray::<TimestampMillisecondType>::from(
            made.event_times,
        ));
        let edge = |of: fn(&Window) -> i64| -> ArrayRef {
            let edges = made.windows.iter().map(of);
            Arc::new(PrimitiveArray::<TimestampMillisecondType>::from_iter_values(edges))
        };
        let arrays = self.columns.iter().zip(self.schema.fields());
        let arrays = arrays.map(|(from, field)| match from {
            ColumnFrom::EventTime => Ok(ArrayRef::clone(&times)),
            ColumnFrom::WindowStart => Ok(edge(|w| w.start)),
            ColumnFrom::WindowEnd => Ok(edge(|w| w.end)),
            other => other.value(left, right, has_left, field.data_type()),
        });
        record_batch(&self.schema, arrays.collect::<Result<_>>()?, n_rows)
    }
}

impl ColumnFrom {
    fn value(
        self,
        left: &Gather<'_>,
        right: &Gather<'_>,
        has_left: Option<&BooleanArray>,
        data_type: &DataType,
    ) -> Result<ArrayRef> {
        match (self, has_left) {
            (Self::Left(i), _) => left.column(i, data_type),
            (Self::Right(i), _) => right.column(i, data_type),
            (Self::Either(l, _), None) => Ok(cast(&left.column(l, data_type)?, data_type)?),
            (Self::Either(l, r), Some(has_left)) => {
                let of_left = cast(&left.column(l, data_type)?, data_type)?;
                let of_right = cast(&right.column(r, data_type)?, data_type)?;
                Ok(zip(has_left, &of_left, &of_right)?)
            }
            _ => Err(Error::bug("a filter reads a column that is made after it")),
        }
    }
}

/// A condition on pairs of rows.
pub(super) struct Residual {
    predicate: Expression,
    schema: SchemaRef,
    columns: Vec<ColumnFrom>,
}

impl Residual {
    /// Whether each pair meets it; null does not. A pair for which it has no value is rejected.
    pub(super) fn passes(
        &self,
        left: &Gather<'_>,
        right: &Gather<'_>,
        n_rows: usize,
        out: &mut Output,
    ) -> Result<OfPairs> {
        let fields = self.schema.fields();
        let arrays = self.columns.iter().zip(fields);
        let arrays = arrays.map(|(from, f)| from.value(left, right, None, f.data_type()));
        let rows = record_batch(&self.schema, arrays.collect::<Result<_>>()?, n_rows)?;
        of_pairs(&self.predicate, &rows, |pair, reason| {
            out.reject_pair(None, &rows, pair, reason)
        })
    }
}

impl SideLayout {
    fn new(
        pairing: &Pairing,
        side: Side,
        input: &SchemaRef,
        taken: &[&str],
        also: &[&Expr],
    ) -> Result<Self> {
        let key_names = pairing.key_columns(side);
        let also: Vec<_> = also.iter().flat_map(|e| e.column_refs()).collect();
        let is_kept = |name: &str| {
            name == EVENT_TIME
                || taken.contains(&name)
                || key_names.iter().any(|k| k == name)
                || also.iter().any(|c| c.name == name)
        };
        let fields = input.fields().iter().filter(|f| is_kept(f.name()));
        let schema: SchemaRef = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        Ok(Self {
            keys: key_names
                .iter()
                .map(|k| check_column(k, &schema))
                .collect::<Result<_>>()?,
            key_names,
            time: check_column(EVENT_TIME, &schema)?,
            schema,
        })
    }

    /// Which rows have a key without nulls; `None` where all do.
    pub(super) fn has_key(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>> {
        let mut nulls: Option<NullBuffer> = None;
        for name in &self.key_names {
            let column = rows.column(check_column(name, &rows.schema())?);
            nulls = NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref());
        }
        let nulls = nulls.filter(|n| n.null_count() > 0);
        Ok(nulls.map(|n| BooleanArray::new(n.into_inner(), None)))
    }

    /// The columns of these rows that are kept.
    pub(super) fn project(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if rows.schema().fields() == self.schema.fields() {
            return Ok(rows.clone());
        }
        let columns = self.schema.fields().iter().map(|field| {
            let column = rows.column_by_name(field.name());
            column
                .cloned()
                .ok_or_else(|| Error::bug(format!("column {:?} was not read", field.name())))
        });
        record_batch(
            &self.schema,
            columns.collect::<Result<_>>()?,
            rows.num_rows(),
        )
    }
}

/// Checks that a join gives pairs, and not only the rows of one side.
pub(super) fn check_pairs(kind: JoinKind, noun: &str) -> Result<()> {
    match kind.only() {
        None => Ok(()),
        Some(_) => Err(Error::pipeline(format!(
            "{noun} is inner, left, right or full, and not {}",
            kind.name()
        ))),
    }
}

impl ResultTime {
    /// The columns of the left and of the right side that are not in the result as they are.
    fn replaced(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Left => (&[], &[EVENT_TIME, DIFF]),
            Self::Later => (&[EVENT_TIME], &[EVENT_TIME]),
            Self::Window => {
                const EDGES: &[&str] = &[EVENT_TIME, WINDOW_START, WINDOW_END, PANE];
                (EDGES, EDGES)
            }
        }
    }
}

fn without(schema: &SchemaRef, names: &[&str]) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields = fields.filter(|f| !names.contains(&f.name().as_str()));
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

/// Rows with equal keys meet on one worker only if equal keys are equal as they are written.
fn check_key_types(pairing: &Pairing, left: &Schema, right: &Schema) -> Result<()> {
    let mut errors = Vec::new();
    let names = (
        pairing.key_columns(Side::Left),
        pairing.key_columns(Side::Right),
    );
    for (l, r) in names.0.iter().zip(&names.1) {
        let (of_left, of_right) = (left.field_with_name(l)?, right.field_with_name(r)?);
        if plain_type(of_left.data_type()) != plain_type(of_right.data_type()) {
            errors.push(
                Error::pipeline(format!(
                    "key `{}` is {}, key `{}` is {}",
                    key_text(&col(l)),
                    of_left.data_type(),
                    key_text(&col(r)),
                    of_right.data_type()
                ))
                .with_detail("Rows of two sides are dealt to workers by keys of one type.")
                .with_hint("Bring both to one type with `cast`."),
            );
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Error::all(errors)),
    }
}

/// The columns of the result that no side has as they are, at its end.
fn made_columns<'a>(
    pairing: &Pairing,
    mut others: impl Iterator<Item = &'a str>,
) -> Result<Vec<(Arc<Field>, ColumnFrom)>> {
    let mut made = match pairing.time {
        ResultTime::Left => Vec::new(),
        ResultTime::Later => vec![(time_field(EVENT_TIME), ColumnFrom::EventTime)],
        ResultTime::Window => vec![
            (time_field(WINDOW_START), ColumnFrom::WindowStart),
            (time_field(WINDOW_END), ColumnFrom::WindowEnd),
            (time_field(EVENT_TIME), ColumnFrom::EventTime),
        ],
    };
    if let Some(suffix) = &pairing.suffix
        && pairing.time != ResultTime::Window
    {
        let name = format!("{EVENT_TIME}{suffix}");
        if others.any(|other| other == name) {
            return Err(Error::pipeline(format!(
                "column {name:?} is there already, and is how the right event time is called"
            ))
            .with_hint("Choose another suffix, or rename the column with `select`."));
        }
        let nullable = pairing.kind.keeps_unmatched(Side::Left);
        let field = time_field(&name).as_ref().clone().with_nullable(nullable);
        made.push((Arc::new(field), ColumnFrom::Right(0)));
    }
    Ok(made)
}
